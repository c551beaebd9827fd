//! The SASL mechanisms that a listener offers, and what each needs to judge its evidence.

use crate::identity::issuers::Issuers;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A bearer token (RFC 7628).
    Oauthbearer,
}

impl Mechanism {
    /// As SaslHandshake names it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Oauthbearer => "OAUTHBEARER",
        }
    }
}

/// What a listener offers.
#[derive(Debug)]
pub struct Mechanisms {
    /// OAUTHBEARER: whose tokens are believed.
    pub oauthbearer: Option<Issuers>,
}

impl Mechanisms {
    /// Those that are offered, in the order in which SaslHandshake lists them.
    pub fn names(&self) -> impl Iterator<Item = Mechanism> {
        let bearer = self.oauthbearer.as_ref().map(|_| Mechanism::Oauthbearer);
        bearer.into_iter()
    }

    /// The longest token accepted, in bytes.
    pub fn token_bytes_max(&self) -> usize {
        self.oauthbearer
            .as_ref()
            .map_or(0, Issuers::token_bytes_max)
    }
}
