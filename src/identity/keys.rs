//! An issuer's keys (RFC 7517, RFC 7518 §6): public signature keys only, chosen by key id.
//! Keys of other kinds in the same set are passed over, because issuers publish them side by
//! side; a key that claims to be ours and is unusable is an error.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::identity::json;

/// How many signature keys a set may hold.
pub const KEYS_MAX: usize = 64;
/// The longest key set read, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;
/// RSA moduli accepted, in bits; what the cryptography library verifies.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key set is unusable. The text is for the operator and holds no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`KEY_SET_BYTES_MAX`].
    #[error("key set has {0} bytes, at most 262144 are read")]
    Long(usize),
    /// Not JSON as we accept it.
    #[error("key set is {0}")]
    Json(#[from] json::JsonFault),
    /// No member `keys` that is a list of objects.
    #[error("key set has no member `keys` that is a list of objects")]
    Shape,
    /// More than [`KEYS_MAX`].
    #[error("key set holds more than 64 signature keys")]
    Many,
    /// A key that cannot be used.
    #[error("key {index} of the set (`kid` `{kid}`): {fault}")]
    Key {
        /// Counted from 1.
        index: usize,
        /// Its key id; empty where it has none.
        kid: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// Two keys that a token could mean with the same key id.
    #[error("key set holds two keys of one type with `kid` `{0}`")]
    Ambiguous(String),
    /// Nothing to verify with.
    #[error("key set holds no public signature key of type RSA, EC or OKP")]
    Empty,
    /// `algorithms` names something never accepted, or nothing.
    #[error("algorithm `{0}` is not supported, expected one of {1}")]
    Algorithm(String, String),
}

/// What a public key is, and so which algorithms it can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// One public key.
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    pub(crate) kind: KeyKind,
    /// The only algorithm the issuer uses the key with, if it says so.
    pub(crate) alg: Option<String>,
    pub(crate) verifying: DecodingKey,
}

/// All usable keys of an issuer.
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    pub(crate) fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(KeySetError::Long(text.len()));
        }
        let set = json::parse_object(text.as_bytes())?;
        let Some(Value::Array(list)) = set.get("keys") else {
            return Err(KeySetError::Shape);
        };
        let mut keys: Vec<Key> = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            let Value::Object(jwk) = entry else {
                return Err(KeySetError::Shape);
            };
            let read = read_key(jwk).map_err(|fault| KeySetError::Key {
                index: at + 1,
                kid: text_of(jwk, "kid").unwrap_or_default().to_owned(),
                fault,
            })?;
            let Some(key) = read else { continue };
            if keys.len() == KEYS_MAX {
                return Err(KeySetError::Many);
            }
            let same = |other: &Key| {
                other.kid.is_some()
                    && other.kid == key.kid
                    && other.kind == key.kind
                    && (other.alg.is_none() || key.alg.is_none() || other.alg == key.alg)
            };
            if keys.iter().any(same) {
                return Err(KeySetError::Ambiguous(key.kid.unwrap_or_default()));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self { keys })
    }

    /// The one key that can verify `alg` under this key id. Without a key id the choice must not
    /// be a guess: exactly one key may fit.
    pub(crate) fn find(&self, kid: Option<&str>, alg: &str, kind: KeyKind) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.kind == kind
                && key.alg.as_deref().is_none_or(|only| only == alg)
                && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
        });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// `None`: a key for something else than verifying signatures, or of a type we do not use.
fn read_key(jwk: &Map<String, Value>) -> Result<Option<Key>, &'static str> {
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_array().ok_or("`key_ops` is not a list")?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Ok(None);
        }
    }
    for member in ["kid", "alg"] {
        if jwk.get(member).is_some_and(|value| !value.is_string()) {
            return Err("`kid` or `alg` is not a string");
        }
    }
    let (kind, verifying) = match (text_of(jwk, "kty"), text_of(jwk, "crv")) {
        (Some("RSA"), _) => (KeyKind::Rsa, rsa(jwk)?),
        (Some("EC"), Some("P-256")) => (KeyKind::P256, elliptic(jwk, 32)?),
        (Some("EC"), Some("P-384")) => (KeyKind::P384, elliptic(jwk, 48)?),
        (Some("OKP"), Some("Ed25519")) => (KeyKind::Ed25519, edwards(jwk)?),
        (Some(_), _) => return Ok(None), // `oct` above all: a shared secret verifies nothing here
        (None, _) => return Err("`kty` is missing"),
    };
    Ok(Some(Key {
        kid: text_of(jwk, "kid").map(str::to_owned),
        kind,
        alg: text_of(jwk, "alg").map(str::to_owned),
        verifying,
    }))
}

fn rsa(jwk: &Map<String, Value>) -> Result<DecodingKey, &'static str> {
    let modulus = bytes_of(jwk, "n").ok_or("`n` is not base64url")?;
    let exponent = bytes_of(jwk, "e").ok_or("`e` is not base64url")?;
    // Some issuers write the sign byte of an ASN.1 integer, which RFC 7518 §6.3.1.1 forbids.
    let sign = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[sign..];
    let zeros = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = (modulus.len() * 8).saturating_sub(zeros as usize);
    if !RSA_MODULUS_BITS.contains(&bits) {
        return Err("the rsa modulus does not have 2048 to 8192 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn elliptic(
    jwk: &Map<String, Value>,
    coordinate_bytes: usize,
) -> Result<DecodingKey, &'static str> {
    let mut point = vec![4]; // SEC 1 §2.3.3: an uncompressed point follows
    for member in ["x", "y"] {
        let coordinate = bytes_of(jwk, member).ok_or("`x` or `y` is not base64url")?;
        if coordinate.len() != coordinate_bytes {
            return Err("`x` or `y` does not have the length of the curve");
        }
        point.extend_from_slice(&coordinate);
    }
    Ok(DecodingKey::from_ec_der(&point))
}

fn edwards(jwk: &Map<String, Value>) -> Result<DecodingKey, &'static str> {
    let point = bytes_of(jwk, "x").ok_or("`x` is not base64url")?;
    if point.len() != 32 {
        return Err("`x` does not have the length of the curve");
    }
    Ok(DecodingKey::from_ed_der(&point))
}

fn text_of<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member).and_then(Value::as_str)
}

fn bytes_of(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text_of(jwk, member)?).ok()
}
