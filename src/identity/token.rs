//! A bearer token becomes a principal: a signed JWT (RFC 7515, RFC 7519) with an allow-listed
//! asymmetric algorithm, a key of the configured issuer, and claims that fulfil
//! [`TokenSettings`]. The signature is checked before any claim is believed; only `iss` is looked
//! at sooner, to choose among [`issuers`](super::issuers). Time is an argument; no error repeats
//! a part of the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::identity::binding::{self, Thumbprint};
use crate::identity::json::{Json, JsonFault, Object};
use crate::identity::keys::{KeyKind, KeySet};
use crate::identity::name;
use crate::identity::settings::TokenSettings;
use crate::principal::{CLAIM_BYTES_MAX, Principal, Proof, TextClaims};

pub use crate::identity::keys::KeySetError;
pub use parts::{Parts, Unverified};

mod parts;

/// How many groups a token may list. More are refused, not cut off: a rule may deny by group.
pub const GROUPS_MAX: usize = 1024;

/// How many claims that are text a token may have. More are refused, not cut off: a tenant may be
/// matched by any of them.
pub const TEXT_CLAIMS_MAX: usize = 256;

/// The longest validity believed, in seconds since the epoch: the end of the year 9999.
const DATE_SECONDS_MAX: f64 = 253_402_300_799.0;

/// Every algorithm that may be allowed (RFC 7518 §3.1, RFC 8037), with the key it takes.
/// INVARIANT: nothing symmetric, and no `none`.
const ALGORITHMS: [(&str, KeyKind); 9] = [
    ("RS256", KeyKind::Rsa),
    ("RS384", KeyKind::Rsa),
    ("RS512", KeyKind::Rsa),
    ("PS256", KeyKind::Rsa),
    ("PS384", KeyKind::Rsa),
    ("PS512", KeyKind::Rsa),
    ("ES256", KeyKind::P256),
    ("ES384", KeyKind::P384),
    ("EdDSA", KeyKind::Ed25519),
];

/// The type that every principal of a token has.
const TYPE: &str = "User:";

/// The claim `typ` by which some issuers (Keycloak) mark what is not an access token although
/// its header looks the same.
const OTHER_TOKEN_TYPES: [&str; 4] = ["ID", "Refresh", "Offline", "Logout"];

/// The names `algorithms` may list, for error messages and the documentation.
pub fn supported_algorithms() -> impl Iterator<Item = &'static str> {
    ALGORITHMS.iter().map(|(name, ..)| *name)
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than `limits.tokenBytes`.
    #[error("token is longer than allowed")]
    Long,
    /// Not three base64url parts with JSON objects.
    #[error("token is not a signed jwt")]
    Malformed,
    /// A header or claim name occurs twice.
    #[error("token repeats a header or claim name")]
    Duplicate,
    /// JSON nested deeper than [`DEPTH_MAX`](crate::identity::json::DEPTH_MAX).
    #[error("token is nested too deep")]
    Deep,
    /// `alg` is `none`, symmetric, unknown, or not in the listener's list.
    #[error("token uses an algorithm that is not allowed")]
    Algorithm,
    /// The header demands an extension (`crit`, RFC 7515 §4.1.11); none is known here.
    #[error("token demands an unknown extension")]
    Critical,
    /// `typ` is not one of the accepted types.
    #[error("token is of another type than expected")]
    Type,
    /// No usable key has this key id, or without one the key is not plain.
    #[error("token names no known key")]
    Key,
    /// The issuer's keys never came, or are older than `maxStale`.
    #[error("no current keys of the issuer")]
    NoKeys,
    /// The issuer did not answer, or not so that it can be understood.
    #[error("the issuer could not be asked")]
    Unasked,
    /// More questions under way than there may be.
    #[error("too many questions to the issuer at once")]
    Busy,
    /// The issuer says that the token is worth nothing.
    #[error("the issuer says that the token is not active")]
    Inactive,
    /// The signature is not the key's.
    #[error("token has a wrong signature")]
    Signature,
    /// `iss` is absent or another's.
    #[error("token is from another issuer")]
    Issuer,
    /// `aud` is absent or does not contain ours.
    #[error("token is for another audience")]
    Audience,
    /// A date claim that must be there is not, or is no date.
    #[error("token lacks a valid `exp` or `iat`")]
    Date,
    /// `exp` has passed.
    #[error("token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("token is not valid yet")]
    Early,
    /// Bound to a certificate or key that the connection has not shown, or, where the listener
    /// asks for it, not bound (RFC 8705).
    #[error("token is not bound to the client certificate of this connection")]
    Binding,
    /// A required scope is missing.
    #[error("token lacks a required scope")]
    Scope,
    /// The rule about the claim at this pointer does not hold. The pointer is the
    /// configuration's word; what the token says there is not repeated.
    #[error("token does not fulfil the rule about the claim `{0}`")]
    Claim(Arc<str>),
    /// The principal claim is absent, not a string, or a name that is refused.
    #[error("token names no acceptable principal")]
    Principal,
    /// The tenant claim is not a string, or a name that is refused.
    #[error("token names no acceptable tenant")]
    Tenant,
    /// More claims that are text than [`TEXT_CLAIMS_MAX`].
    #[error("token has too many claims")]
    Claims,
    /// The groups claim is no list of acceptable names, or too long.
    #[error("token names no acceptable groups")]
    Groups,
}

impl TokenError {
    /// One word for metrics and the audit log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Deep => "deep",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::Type => "type",
            Self::Key => "key",
            Self::NoKeys => "no_keys",
            Self::Unasked => "unasked",
            Self::Busy => "busy",
            Self::Inactive => "inactive",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Date => "date",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Binding => "binding",
            Self::Scope => "scope",
            Self::Claim(_) => "claim",
            Self::Principal => "principal",
            Self::Tenant => "tenant",
            Self::Claims => "claims",
            Self::Groups => "groups",
        }
    }
}

impl From<JsonFault> for TokenError {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::Malformed => Self::Malformed,
            JsonFault::Duplicate => Self::Duplicate,
            JsonFault::Deep => Self::Deep,
        }
    }
}

/// Checks the tokens of one issuer. Its keys can be replaced while it is in use.
pub struct Verifier {
    settings: TokenSettings,
    allowed: Vec<(&'static str, KeyKind)>,
    /// `None`: none have come yet.
    held: ArcSwapOption<Held>,
    replaced: AtomicU64,
}

/// Keys in use.
struct Held {
    keys: KeySet,
    confirmed: Option<SystemTime>,
    until: Option<SystemTime>,
}

/// What a token's claims stand on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// A signature over them.
    Signature,
    /// The issuer's answer to a question about the token; RFC 7662 §2.2 makes each optional.
    Answer,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.settings.issuer)
            .field("keys", &self.key_count())
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Takes the issuer's keys as the text of a JWK set (RFC 7517 §5).
    pub fn new(settings: &TokenSettings, jwks_json: &str) -> Result<Self, KeySetError> {
        let verifier = Self::without_keys(settings)?;
        verifier.replace_keys(jwks_json)?;
        Ok(verifier)
    }

    /// For an issuer whose keys are still to come: until then every signed token is refused.
    pub fn without_keys(settings: &TokenSettings) -> Result<Self, KeySetError> {
        let mut allowed = Vec::with_capacity(ALGORITHMS.len());
        let unsupported = |name: &str| {
            let expected: Vec<_> = supported_algorithms().collect();
            KeySetError::Algorithm(name.to_owned(), expected.join(", "))
        };
        for wanted in &settings.algorithms {
            let row = ALGORITHMS.iter().find(|(name, ..)| name == wanted);
            allowed.push(*row.ok_or_else(|| unsupported(wanted))?);
        }
        if allowed.is_empty() {
            return Err(unsupported(""));
        }
        Ok(Self {
            settings: settings.clone(),
            allowed,
            held: ArcSwapOption::empty(),
            replaced: AtomicU64::new(0),
        })
    }

    /// Takes other keys, believed without end. On an error the old ones stay in use.
    pub fn replace_keys(&self, jwks_json: &str) -> Result<(), KeySetError> {
        self.take_keys(jwks_json, None, None)
    }

    /// Takes keys that the issuer confirmed at a time, and believes them until another. On an
    /// error the old ones stay in use.
    pub fn replace_keys_until(
        &self,
        jwks_json: &str,
        confirmed: SystemTime,
        until: SystemTime,
    ) -> Result<(), KeySetError> {
        self.take_keys(jwks_json, Some(confirmed), Some(until))
    }

    fn take_keys(
        &self,
        jwks_json: &str,
        confirmed: Option<SystemTime>,
        until: Option<SystemTime>,
    ) -> Result<(), KeySetError> {
        let keys = KeySet::parse(jwks_json)?;
        self.held.store(Some(Arc::new(Held {
            keys,
            confirmed,
            until,
        })));
        self.replaced.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How many keys can verify a signature.
    pub fn key_count(&self) -> usize {
        self.held.load().as_ref().map_or(0, |held| held.keys.len())
    }

    /// When the issuer last confirmed its keys; `None` where it is not asked for them.
    pub fn keys_confirmed(&self) -> Option<SystemTime> {
        self.held.load().as_ref().and_then(|held| held.confirmed)
    }

    /// How often keys were taken: differs as soon as there are others.
    pub fn generation(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// The principal that `token` proves at `now` to be at the other end of a connection that
    /// showed `certificate`.
    pub fn verify(
        &self,
        token: &str,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Principal, TokenError> {
        let parts = Parts::of(token, self.settings.token_bytes_max)?;
        self.judge(&Unverified::read(&parts)?, certificate, now)
    }

    /// The settings.
    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// As [`verify`](Self::verify), for a token that has been taken apart.
    pub fn judge(
        &self,
        token: &Unverified<'_>,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Principal, TokenError> {
        self.check_signature(token, now)?;
        self.read_claims(&token.claims, Ground::Signature, certificate, now)
    }

    /// The principal of a token about which its issuer has just said this (RFC 7662 §2.2).
    pub fn judge_answer(
        &self,
        answer: &Object<'_>,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Principal, TokenError> {
        match answer.get("active") {
            Some(Json::Boolean(true)) => self.read_claims(answer, Ground::Answer, certificate, now),
            _ => Err(TokenError::Inactive),
        }
    }

    fn check_signature(&self, token: &Unverified<'_>, now: SystemTime) -> Result<(), TokenError> {
        let header = &token.header;
        let alg = header.text("alg").ok_or(TokenError::Algorithm)?;
        let row = self.allowed.iter().find(|(name, ..)| *name == alg);
        let (_, kind) = *row.ok_or(TokenError::Algorithm)?;
        // `b64` (RFC 7797) needs `crit`; where an issuer forgot it, it still means that what is
        // signed is not what is decoded here.
        let plain = |b64: &Json<'_>| *b64 == Json::Boolean(true);
        if header.get("crit").is_some() || header.get("b64").is_some_and(|b64| !plain(b64)) {
            return Err(TokenError::Critical);
        }
        match header.get("typ") {
            None => {}
            Some(Json::Text(found)) if self.accepts_type(found) => {}
            Some(_) => return Err(TokenError::Type),
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Json::Text(kid)) => Some(&**kid),
            Some(_) => return Err(TokenError::Key),
        };
        let held = self.held.load();
        let current = |held: &&Arc<Held>| held.until.is_none_or(|until| now < until);
        let held = held.as_ref().filter(current).ok_or(TokenError::NoKeys)?;
        let key = held.keys.find(kid, alg, kind).ok_or(TokenError::Key)?;
        let signature = URL_SAFE_NO_PAD.decode(token.signature);
        let signature = signature.map_err(|_| TokenError::Signature)?;
        match key.verifies(alg, token.signed.as_bytes(), &signature) {
            true => Ok(()),
            false => Err(TokenError::Signature),
        }
    }

    /// RFC 7515 §4.1.9: a media type, without regard to case, `application/` may be left out.
    fn accepts_type(&self, found: &str) -> bool {
        fn bare(text: &str) -> &str {
            match text.split_at_checked(MEDIA.len()) {
                Some((media, rest)) if media.eq_ignore_ascii_case(MEDIA) => rest,
                _ => text,
            }
        }
        const MEDIA: &str = "application/";
        let found = bare(found);
        let mut accepted = self.settings.types.iter();
        accepted.any(|accepted| bare(accepted).eq_ignore_ascii_case(found))
    }

    fn read_claims(
        &self,
        claims: &Object<'_>,
        ground: Ground,
        certificate: Option<&Thumbprint>,
        now: SystemTime,
    ) -> Result<Principal, TokenError> {
        let settings = &self.settings;
        match claims.get("iss") {
            Some(Json::Text(issuer)) if *issuer == *settings.issuer => {}
            // Who was asked is known.
            None if ground == Ground::Answer => {}
            _ => return Err(TokenError::Issuer),
        }
        match claims.get("aud") {
            Some(Json::Text(one)) if *one == *settings.audience => {}
            Some(Json::List(list))
                if list.iter().all(|one| one.as_text().is_some())
                    && list
                        .iter()
                        .any(|one| one.as_text() == Some(&settings.audience)) => {}
            _ => return Err(TokenError::Audience),
        }
        let marked = claims.text("typ");
        if marked.is_some_and(|typ| OTHER_TOKEN_TYPES.contains(&typ)) {
            return Err(TokenError::Type);
        }
        let expires_at = self.check_dates(claims, ground, now)?;
        let required = settings.certificate_bound;
        if !binding::holds(claims.get("cnf"), required, certificate) {
            return Err(TokenError::Binding);
        }
        self.check_scopes(claims)?;
        if let Some(broken) = settings.claims.iter().find(|rule| !rule.holds(claims)) {
            return Err(TokenError::Claim(Arc::clone(broken.pointer.text())));
        }
        let name = claims.get(&settings.principal_claim);
        let name = name.and_then(acceptable).ok_or(TokenError::Principal)?;
        let name = format!("{TYPE}{}{name}", settings.principal_prefix);
        // Prefix and value may make a form together that neither has alone.
        if name::check(&name[TYPE.len()..]).is_err() {
            return Err(TokenError::Principal);
        }
        let tenant = match settings
            .tenant_claim
            .as_ref()
            .and_then(|claim| claims.get(claim))
        {
            None => "",
            Some(value) => acceptable(value).ok_or(TokenError::Tenant)?,
        };
        let groups = match settings
            .groups_claim
            .as_ref()
            .and_then(|claim| claims.get(claim))
        {
            None => Vec::new(),
            Some(value) => read_groups(value).ok_or(TokenError::Groups)?,
        };
        Ok(Principal {
            name: name.into(),
            tenant: tenant.into(),
            groups: groups.into(),
            proof: Proof::Token,
            expires_at: Some(expires_at),
        })
    }

    fn check_dates(
        &self,
        claims: &Object<'_>,
        ground: Ground,
        now: SystemTime,
    ) -> Result<SystemTime, TokenError> {
        let skew = self.settings.clock_skew;
        let lies_ahead = |at: SystemTime| at.duration_since(now).is_ok_and(|by| by > skew);
        let expires_at = date(claims.get("exp").ok_or(TokenError::Date)?)?;
        // RFC 7519 §4.1.4: valid *before* `exp`, not at it.
        if now
            .duration_since(expires_at)
            .is_ok_and(|since| since >= skew)
        {
            return Err(TokenError::Expired);
        }
        let issued_at = claims.get("iat").map(date).transpose()?;
        if issued_at.is_none() && ground == Ground::Signature {
            return Err(TokenError::Date);
        }
        let not_before = claims.get("nbf").map(date).transpose()?;
        if issued_at.is_some_and(lies_ahead) || not_before.is_some_and(lies_ahead) {
            return Err(TokenError::Early);
        }
        Ok(expires_at)
    }

    /// `scope` is a string of words (RFC 8693 §4.2) or, as some issuers write it, a list.
    fn check_scopes(&self, claims: &Object<'_>) -> Result<(), TokenError> {
        let granted: Vec<&str> = match claims.get("scope") {
            None => Vec::new(),
            Some(Json::Text(words)) => words.split(' ').collect(),
            Some(Json::List(list)) => {
                let words: Option<Vec<_>> = list.iter().map(Json::as_text).collect();
                words.ok_or(TokenError::Scope)?
            }
            Some(_) => return Err(TokenError::Scope),
        };
        let is_granted = |wanted: &String| granted.contains(&wanted.as_str());
        match self.settings.required_scopes.iter().all(is_granted) {
            true => Ok(()),
            false => Err(TokenError::Scope),
        }
    }
}

/// A NumericDate (RFC 7519 §2): seconds, possibly with a fraction.
fn date(value: &Json<'_>) -> Result<SystemTime, TokenError> {
    let seconds = value.as_f64().ok_or(TokenError::Date)?;
    if !(0.0..=DATE_SECONDS_MAX).contains(&seconds) {
        return Err(TokenError::Date);
    }
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| TokenError::Date)?;
    UNIX_EPOCH.checked_add(since).ok_or(TokenError::Date)
}

/// The claims that a tenant can be matched by: those at the top that are text. What is longer than
/// any match can be is left out.
pub fn text_claims(claims: &Object<'_>) -> Result<TextClaims, TokenError> {
    let texts = claims.members().filter_map(|(name, value)| {
        let value = value.as_text()?;
        let fits = name.len() <= CLAIM_BYTES_MAX && value.len() <= CLAIM_BYTES_MAX;
        fits.then(|| (name.into(), value.into()))
    });
    let texts: Vec<(Box<str>, Box<str>)> = texts.take(TEXT_CLAIMS_MAX + 1).collect();
    match texts.len() {
        0..=TEXT_CLAIMS_MAX => Ok(TextClaims(texts.into())),
        _ => Err(TokenError::Claims),
    }
}

fn acceptable<'v>(value: &'v Json<'_>) -> Option<&'v str> {
    value.as_text().filter(|text| name::check(text).is_ok())
}

fn read_groups(value: &Json<'_>) -> Option<Vec<Arc<str>>> {
    match value {
        Json::Text(_) => Some(vec![acceptable(value)?.into()]),
        Json::List(list) if list.len() <= GROUPS_MAX => list
            .iter()
            .map(|one| acceptable(one).map(Arc::from))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
