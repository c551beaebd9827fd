//! The issuers that one listener believes. The claim `iss` chooses among them before anything
//! is proven; whatever it says, the token must then fulfil all that the chosen issuer's settings
//! demand, its keys first.

use std::time::{Duration, SystemTime};

use crate::identity::binding::Thumbprint;
use crate::identity::token::{TokenError, Unverified, Verifier};
use crate::principal::Principal;

/// How many issuers one listener may believe.
pub const ISSUERS_MAX: usize = 32;

/// Checks the tokens of every issuer of a listener.
#[derive(Debug)]
pub struct Issuers {
    verifiers: Vec<Verifier>,
    token_bytes_max: usize,
}

/// What a good token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Who is speaking.
    pub principal: Principal,
    /// The longest session that the issuer's settings grant (KIP-368).
    pub session_max: Option<Duration>,
}

impl Issuers {
    /// Each verifier is for an issuer of its own; `token_bytes_max` bounds every token.
    pub fn new(verifiers: Vec<Verifier>, token_bytes_max: usize) -> Self {
        Self {
            verifiers,
            token_bytes_max,
        }
    }

    /// One for each issuer, in the order of the configuration.
    pub fn verifiers(&self) -> &[Verifier] {
        &self.verifiers
    }

    /// The longest token accepted, in bytes.
    pub fn token_bytes_max(&self) -> usize {
        self.token_bytes_max
    }

    /// What `token` proves at `now` about the other end of a connection that showed
    /// `certificate`.
    pub fn verify(
        &self,
        token: &str,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Proven, TokenError> {
        let token = Unverified::read(token, self.token_bytes_max)?;
        let wanted = token.issuer().ok_or(TokenError::Issuer)?;
        let mut verifiers = self.verifiers.iter();
        let verifier = verifiers
            .find(|verifier| verifier.settings().issuer == wanted)
            .ok_or(TokenError::Issuer)?;
        Ok(Proven {
            principal: verifier.judge(&token, certificate, now)?,
            session_max: verifier.settings().session_max,
        })
    }
}
