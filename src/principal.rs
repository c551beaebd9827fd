//! Who is speaking: the one word about identity that all stages share.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A proven identity, as every stage after `identity` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Kafka's `Type:name`, for example `User:orders-service`.
    pub name: Arc<str>,
    /// The tenant; the empty string where none is known.
    pub tenant: Arc<str>,
    /// Names of the groups (without `Group:`) a token says the principal belongs to.
    pub groups: Arc<[Arc<str>]>,
    /// How the identity was proven.
    pub proof: Proof,
    /// When the proof ends; `None` where it has no end of its own.
    pub expires_at: Option<SystemTime>,
}

/// The claims of a token that are plain text, as far as a tenant can be matched by them. `Debug`
/// shows nothing of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TextClaims(pub Arc<[(Box<str>, Box<str>)]>);

/// The longest name and the longest value of a claim that a tenant can be matched by, in bytes.
pub const CLAIM_BYTES_MAX: usize = 500;

impl TextClaims {
    /// Whether the token says exactly this.
    pub fn says(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(n, v)| **n == *name && **v == *value)
    }
}

impl fmt::Debug for TextClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextClaims({})", self.0.len())
    }
}

/// How an identity was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The listener's configured name: the pod is the identity.
    Static,
    /// A client certificate (mTLS).
    Certificate,
    /// A bearer token (SASL/OAUTHBEARER, RFC 7628).
    Token,
    /// A password (SASL/PLAIN, RFC 4616) or the proof of one (SCRAM, RFC 5802).
    Password,
}

impl Proof {
    /// One word for the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Proof::Static => "static",
            Proof::Certificate => "certificate",
            Proof::Token => "token",
            Proof::Password => "password",
        }
    }
}

impl Principal {
    /// The name without its type: `orders-service` of `User:orders-service`.
    pub fn bare_name(&self) -> &str {
        self.name
            .split_once(':')
            .map_or(&*self.name, |(_, name)| name)
    }
}
