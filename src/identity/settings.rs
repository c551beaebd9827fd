//! What a listener says about proving identity: plain values, filled by `config`, read by the
//! stages of this folder.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::claims::ClaimRule;
use crate::identity::rules::MappingRules;
use crate::principal::Principal;
use crate::secret::Secret;
use crate::url::Url;

/// Exactly one way of proving identity for each listener.
#[derive(Clone, Debug)]
pub enum IdentitySettings {
    /// `identity.static`: every connection is this principal.
    Static(Principal),
    /// `identity.mtls`: the client certificate names the principal.
    Mtls(MtlsSettings),
    /// `sasl`: what the client proves by SASL names the principal.
    Sasl(SaslSettings),
}

/// `sasl`: the mechanisms that are offered, at least one.
#[derive(Clone, Debug)]
pub struct SaslSettings {
    /// `sasl.oauthbearer`: a bearer token names the principal. One entry for each issuer, no two
    /// for the same; empty: not offered.
    pub oauthbearer: Vec<TokenSettings>,
    /// `identity.mtls` beside `sasl`: a client must show a certificate as well, which names
    /// nobody; a token may be bound to it.
    pub needs_certificate: bool,
    /// `identity.tenant` beside `sasl`: the tenant of every connection of the listener, whatever
    /// is proven; empty: none.
    pub tenant: String,
    /// `sasl.plain`; `None`: not offered.
    pub plain: Option<PasswordSettings>,
    /// `sasl.scramSha256`; `None`: not offered.
    pub scram_sha256: Option<PasswordSettings>,
    /// `sasl.scramSha512`; `None`: not offered.
    pub scram_sha512: Option<PasswordSettings>,
}

/// A mechanism with passwords.
#[derive(Clone, Debug)]
pub struct PasswordSettings {
    /// The file with the users.
    pub users_file: PathBuf,
    /// What is put before each name; empty: nothing.
    pub principal_prefix: String,
    /// The tenant of users whose entry names none; empty: none.
    pub tenant: String,
    /// Upper bound of a session (KIP-368); `None`: a session does not end.
    pub session_max: Option<Duration>,
}

/// `identity.mtls`: how a certificate becomes a name.
#[derive(Clone, Debug)]
pub struct MtlsSettings {
    /// The part of the certificate that is the name.
    pub from: CertificateName,
    /// `rules`: what becomes of it; `None`: it stays.
    pub rules: Option<MappingRules>,
    /// `principalPrefix`: what is put before the name; empty: nothing.
    pub prefix: String,
    /// `identity.anonymous`: who a client without a certificate is; `None`: nobody, it is refused.
    pub anonymous: Option<Principal>,
    /// The tenant of every connection of the listener; empty: none.
    pub tenant: String,
}

/// The part of a client certificate that names the principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// `spiffe`: the one URI, which is a SPIFFE id.
    Spiffe,
    /// `dns`: the one DNS name.
    Dns,
    /// `cn`: the subject's common name.
    CommonName,
    /// `dn`: the whole subject in the form of RFC 2253, as Kafka has it.
    DistinguishedName,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spiffe => "uri",
            Self::Dns => "dns name",
            Self::CommonName => "common name",
            Self::DistinguishedName => "subject",
        })
    }
}

/// One issuer of `sasl.oauthbearer`: what its tokens must fulfil.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `iss` must equal this.
    pub issuer: String,
    /// Who says that a token is the issuer's.
    pub source: TokenSource,
    /// `aud` must contain this.
    pub audience: String,
    /// Allowed `alg` values (RFC 7518), for example `RS256`.
    pub algorithms: Vec<String>,
    /// Tolerance on `exp`, `nbf` and `iat`.
    pub clock_skew: Duration,
    /// Every one must be in the token's `scope` (string or array).
    pub required_scopes: Vec<String>,
    /// What else the claims must say; every rule must hold.
    pub claims: Vec<ClaimRule>,
    /// The claim that is the principal's name.
    pub principal_claim: String,
    /// What is put before that name; empty: nothing.
    pub principal_prefix: String,
    /// The claim that is the tenant, if any.
    pub tenant_claim: Option<String>,
    /// The claim that lists the groups, if any.
    pub groups_claim: Option<String>,
    /// Upper bound of a session (KIP-368); the token's expiry bounds it as well.
    pub session_max: Option<Duration>,
    /// Only a token bound to the connection's certificate is good (RFC 8705). One that says
    /// it is bound is held to that in any case.
    pub certificate_bound: bool,
    /// Accepted `typ` header values; an absent `typ` is accepted.
    pub types: Vec<String>,
    /// The longest token accepted, in bytes.
    pub token_bytes_max: usize,
}

/// Who says that a token is the issuer's: its signature, or the issuer itself.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// `jwks.file`: keys (RFC 7517) that somebody else keeps up to date.
    KeyFile(PathBuf),
    /// `jwks.url`: keys that the issuer publishes.
    KeyUrl(KeyUrl),
    /// `introspection`: the issuer is asked about each token (RFC 7662).
    Introspection(Introspection),
}

/// `jwks` with a `url`.
#[derive(Clone, Debug)]
pub struct KeyUrl {
    /// Where the issuer publishes its keys.
    pub url: Url,
    /// PEM authorities for the URL; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Where the last keys are kept for a start during an outage.
    pub cache_file: Option<PathBuf>,
    /// How long keys are believed after the issuer last confirmed them.
    pub stale_max: Duration,
}

/// `introspection`.
#[derive(Clone, Debug)]
pub struct Introspection {
    /// Where the issuer answers questions about tokens.
    pub url: Url,
    /// PEM authorities for the URL; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// Who asks.
    pub client_id: String,
    /// How the one who asks proves it.
    pub client_secret: Secret,
    /// How long an answer is believed; the token's expiry bounds it as well.
    pub cache_for: Duration,
}
