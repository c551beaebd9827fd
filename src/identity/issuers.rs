//! The issuers that one listener believes. The claim `iss` chooses among them before anything
//! is proven; whatever it says, the token must then fulfil all that the chosen issuer's settings
//! demand, its keys or its own answer first. What is no JWT has no `iss`: it goes to the one
//! issuer that is asked about its tokens.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::identity::binding::Thumbprint;
use crate::identity::json::Object;
use crate::identity::token::{Parts, TokenError, Unverified, Verifier, text_claims};
use crate::principal::{Principal, TextClaims};

/// How many issuers one listener may believe.
pub const ISSUERS_MAX: usize = 32;

/// Checks the tokens of every issuer of a listener.
#[derive(Debug)]
pub struct Issuers {
    issuers: Vec<Issuer>,
    token_bytes_max: usize,
}

/// One issuer and, where it is asked for something, who asks it.
#[derive(Debug)]
pub struct Issuer {
    /// Judges its tokens.
    pub verifier: Arc<Verifier>,
    /// `None`: all that is ever known of the issuer is at hand.
    pub asked: Option<Asked>,
}

/// What an issuer is asked for.
#[derive(Debug)]
pub enum Asked {
    /// Its keys.
    Keys(Arc<dyn AskKeys>),
    /// What a token is worth.
    Token(Arc<dyn AskToken>),
}

/// An answer that may take a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Gets the keys of an issuer. Nothing in this folder asks anybody anything: who does waits
/// behind this.
pub trait AskKeys: Debug + Send + Sync {
    /// Whether there are keys other than those of this generation, which did not do; asks the
    /// issuer first and waits a moment, unless it has been asked just now.
    fn newer(&self, than: u64) -> Pending<'_, bool>;
}

/// Asks an issuer about tokens.
pub trait AskToken: Debug + Send + Sync {
    /// What the issuer says about the token: its claims, if it is active.
    fn ask<'a>(&'a self, token: &'a str) -> Pending<'a, Result<Arc<Object<'static>>, TokenError>>;
}

/// What a good token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Who is speaking.
    pub principal: Principal,
    /// What a tenant can be matched by; none where the tenant is proven.
    pub claims: TextClaims,
    /// The longest session that the issuer's settings grant (KIP-368).
    pub session_max: Option<Duration>,
}

impl Issuer {
    fn proven(&self, principal: Principal, claims: &Object<'_>) -> Result<Proven, TokenError> {
        let claims = match &*principal.tenant {
            "" => text_claims(claims)?,
            _ => TextClaims::default(),
        };
        Ok(Proven {
            principal,
            claims,
            session_max: self.verifier.settings().session_max,
        })
    }
}

impl Issuers {
    /// Each verifier is for an issuer of its own, who is asked for nothing; `token_bytes_max`
    /// bounds every token.
    pub fn new(verifiers: Vec<Verifier>, token_bytes_max: usize) -> Self {
        let issuers = verifiers.into_iter().map(|verifier| Issuer {
            verifier: Arc::new(verifier),
            asked: None,
        });
        Self::asking(issuers.collect(), token_bytes_max)
    }

    /// The same for issuers that may be asked, at most one of them about tokens.
    pub fn asking(issuers: Vec<Issuer>, token_bytes_max: usize) -> Self {
        Self {
            issuers,
            token_bytes_max,
        }
    }

    /// The longest token accepted, in bytes.
    pub fn token_bytes_max(&self) -> usize {
        self.token_bytes_max
    }

    /// Who judges the tokens of each issuer, in the order of the configuration.
    pub fn verifiers(&self) -> impl Iterator<Item = &Arc<Verifier>> {
        self.issuers.iter().map(|issuer| &issuer.verifier)
    }

    /// What `token` proves at `now` about the other end of a connection that showed
    /// `certificate`, without asking anybody.
    pub fn verify(
        &self,
        token: &str,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Proven, TokenError> {
        let parts = Parts::of(token, self.token_bytes_max);
        let (issuer, read) = self.choose(&parts)?;
        let read = match (&issuer.asked, read) {
            (None | Some(Asked::Keys(_)), Some(read)) => read,
            _ => return Err(TokenError::Unasked),
        };
        let principal = issuer.verifier.judge(&read, certificate, now)?;
        issuer.proven(principal, read.claims())
    }

    /// The same, where the issuer may be asked. With a key that is known, nobody waits.
    pub async fn prove(
        &self,
        token: &str,
        certificate: Option<&Thumbprint>,
        now: fn() -> SystemTime,
    ) -> Result<Proven, TokenError> {
        let parts = Parts::of(token, self.token_bytes_max);
        let (issuer, read) = self.choose(&parts)?;
        let verifier = &issuer.verifier;
        let (principal, read) = match (&issuer.asked, read) {
            (Some(Asked::Token(asked)), _) => {
                let answer = asked.ask(token).await?;
                let principal = verifier.judge_answer(&answer, certificate, now())?;
                return issuer.proven(principal, &answer);
            }
            (None, Some(read)) => (verifier.judge(&read, certificate, now())?, read),
            (Some(Asked::Keys(asked)), Some(read)) => {
                let generation = verifier.generation();
                let principal = match verifier.judge(&read, certificate, now()) {
                    Err(error @ (TokenError::Key | TokenError::NoKeys)) => {
                        if !asked.newer(generation).await {
                            return Err(error);
                        }
                        verifier.judge(&read, certificate, now())?
                    }
                    judged => judged?,
                };
                (principal, read)
            }
            (_, None) => return Err(TokenError::Malformed),
        };
        issuer.proven(principal, read.claims())
    }

    /// Whose token this is; taken apart if it is a JWT.
    fn choose<'a>(
        &self,
        parts: &'a Result<Parts<'a>, TokenError>,
    ) -> Result<(&Issuer, Option<Unverified<'a>>), TokenError> {
        let mut issuers = self.issuers.iter();
        let read = parts.as_ref().map_err(TokenError::clone);
        match read.and_then(Unverified::read) {
            Ok(read) => {
                let wanted = read.issuer().ok_or(TokenError::Issuer)?;
                let issuer = issuers
                    .find(|issuer| issuer.verifier.settings().issuer == wanted)
                    .ok_or(TokenError::Issuer)?;
                Ok((issuer, Some(read)))
            }
            Err(TokenError::Malformed) => {
                let about_tokens = |issuer: &&Issuer| matches!(issuer.asked, Some(Asked::Token(_)));
                let issuer = issuers.find(about_tokens).ok_or(TokenError::Malformed)?;
                Ok((issuer, None))
            }
            Err(error) => Err(error),
        }
    }
}
