//! The SASL mechanisms that a listener offers, and what each needs to judge its evidence.

use std::sync::Arc;

use crate::identity::issuers::{Issuers, Proven};
use crate::identity::scram::Hash;
use crate::identity::users::Passwords;
use crate::principal::TextClaims;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A bearer token (RFC 7628).
    Oauthbearer,
    /// A password, in clear inside TLS (RFC 4616).
    Plain,
    /// Proof of a password (RFC 5802).
    Scram(Hash),
}

impl Mechanism {
    /// As SaslHandshake names it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Oauthbearer => "OAUTHBEARER",
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram(hash) => hash.mechanism(),
        }
    }
}

/// What a listener offers.
#[derive(Debug, Default)]
pub struct Mechanisms {
    /// OAUTHBEARER: whose tokens are believed.
    pub oauthbearer: Option<Issuers>,
    /// PLAIN: who there is.
    pub plain: Option<Passwords>,
    /// SCRAM-SHA-256: who there is.
    pub scram_sha256: Option<Passwords>,
    /// SCRAM-SHA-512: who there is.
    pub scram_sha512: Option<Passwords>,
    /// The tenant of whoever proves an identity here; empty: the one that is proven, if any.
    pub tenant: Arc<str>,
}

impl Mechanisms {
    /// Those that are offered, in the order in which SaslHandshake lists them.
    pub fn names(&self) -> impl Iterator<Item = Mechanism> {
        let bearer = self.oauthbearer.as_ref().map(|_| Mechanism::Oauthbearer);
        let passwords = [
            Mechanism::Plain,
            Mechanism::Scram(Hash::Sha256),
            Mechanism::Scram(Hash::Sha512),
        ];
        let offered = |one: &Mechanism| self.passwords(*one).is_some();
        bearer
            .into_iter()
            .chain(passwords.into_iter().filter(offered))
    }

    /// What a mechanism with passwords needs, where it is offered.
    pub fn passwords(&self, mechanism: Mechanism) -> Option<&Passwords> {
        match mechanism {
            Mechanism::Oauthbearer => None,
            Mechanism::Plain => self.plain.as_ref(),
            Mechanism::Scram(Hash::Sha256) => self.scram_sha256.as_ref(),
            Mechanism::Scram(Hash::Sha512) => self.scram_sha512.as_ref(),
        }
    }

    /// What is proven by a mechanism, at this listener: its own tenant stands before a proven
    /// one, and leaves nothing to be matched.
    pub fn at_listener(&self, mut proven: Proven) -> Proven {
        if !self.tenant.is_empty() {
            proven.principal.tenant = Arc::clone(&self.tenant);
            proven.claims = TextClaims::default();
        }
        proven
    }

    /// The longest token accepted, in bytes.
    pub fn token_bytes_max(&self) -> usize {
        self.oauthbearer
            .as_ref()
            .map_or(0, Issuers::token_bytes_max)
    }
}
