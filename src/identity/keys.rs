//! An issuer's keys (RFC 7517, RFC 7518 §6): public signature keys only, chosen by key id.
//! Keys of other kinds in the same set are passed over, because issuers publish them side by
//! side; a key that claims to be ours and is unusable is an error.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::identity::json::{self, Json, Object};

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
    verifying: Vec<Verifying>,
}

/// The key, ready for one algorithm: taking it apart again for each token cost half as much as
/// checking the signature (RSA).
type Verifying = (&'static str, ParsedPublicKey);

impl Key {
    /// Whether this is the key's signature of `message`, by the algorithm of that name.
    pub(crate) fn verifies(&self, alg: &str, message: &[u8], signature: &[u8]) -> bool {
        let mut ready = self.verifying.iter();
        let ready = ready.find(|(name, _)| *name == alg);
        ready.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
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
        let Some(Json::List(list)) = set.get("keys") else {
            return Err(KeySetError::Shape);
        };
        let mut keys: Vec<Key> = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            let Json::Object(jwk) = entry else {
                return Err(KeySetError::Shape);
            };
            let read = read_key(jwk).map_err(|fault| KeySetError::Key {
                index: at + 1,
                kid: jwk.text("kid").unwrap_or_default().to_owned(),
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
fn read_key(jwk: &Object<'_>) -> Result<Option<Key>, &'static str> {
    if jwk
        .get("use")
        .is_some_and(|usage| usage.as_text() != Some("sig"))
    {
        return Ok(None);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations = operations.as_list().ok_or("`key_ops` is not a list")?;
        if !operations
            .iter()
            .any(|operation| operation.as_text() == Some("verify"))
        {
            return Ok(None);
        }
    }
    for member in ["kid", "alg"] {
        if jwk
            .get(member)
            .is_some_and(|value| value.as_text().is_none())
        {
            return Err("`kid` or `alg` is not a string");
        }
    }
    let (kind, verifying) = match (jwk.text("kty"), jwk.text("crv")) {
        (Some("RSA"), _) => (KeyKind::Rsa, rsa(jwk)?),
        (Some("EC"), Some("P-256")) => (KeyKind::P256, elliptic(jwk, 32)?),
        (Some("EC"), Some("P-384")) => (KeyKind::P384, elliptic(jwk, 48)?),
        (Some("OKP"), Some("Ed25519")) => (KeyKind::Ed25519, edwards(jwk)?),
        (Some(_), _) => return Ok(None), // `oct` above all: a shared secret verifies nothing here
        (None, _) => return Err("`kty` is missing"),
    };
    Ok(Some(Key {
        kid: jwk.text("kid").map(str::to_owned),
        kind,
        alg: jwk.text("alg").map(str::to_owned),
        verifying,
    }))
}

fn rsa(jwk: &Object<'_>) -> Result<Vec<Verifying>, &'static str> {
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
    let zeros = exponent.iter().take_while(|byte| **byte == 0).count();
    // RSAPublicKey of RFC 8017 appendix A.1.1.
    let der = sequence(&[integer(modulus), integer(&exponent[zeros..])].concat());
    let ready = [
        (
            "RS256",
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der),
        ),
        (
            "RS384",
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA384, &der),
        ),
        (
            "RS512",
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA512, &der),
        ),
        (
            "PS256",
            ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &der),
        ),
        (
            "PS384",
            ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &der),
        ),
        (
            "PS512",
            ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA512, &der),
        ),
    ];
    let ready = ready.into_iter().map(|(alg, key)| Ok((alg, key?)));
    let ready: Result<Vec<_>, aws_lc_rs::error::KeyRejected> = ready.collect();
    ready.map_err(|_| "it is no rsa key")
}

/// A positive INTEGER of DER (X.690 §8.3): big-endian, without the sign bit set.
fn integer(magnitude: &[u8]) -> Vec<u8> {
    let sign = magnitude.first().is_none_or(|first| first & 0x80 != 0);
    let mut content = vec![0; usize::from(sign)];
    content.extend_from_slice(magnitude);
    tagged(0x02, &content)
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(0x30, content)
}

/// Tag, length in its shortest form (X.690 §8.1.3), content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..0x80) => out.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            let length = &length[zeros..];
            out.push(0x80 | length.len() as u8);
            out.extend_from_slice(length);
        }
    }
    out.extend_from_slice(content);
    out
}

fn elliptic(jwk: &Object<'_>, coordinate_bytes: usize) -> Result<Vec<Verifying>, &'static str> {
    let mut point = vec![4]; // SEC 1 §2.3.3: an uncompressed point follows
    for member in ["x", "y"] {
        let coordinate = bytes_of(jwk, member).ok_or("`x` or `y` is not base64url")?;
        if coordinate.len() != coordinate_bytes {
            return Err("`x` or `y` does not have the length of the curve");
        }
        point.extend_from_slice(&coordinate);
    }
    let (alg, key) = match coordinate_bytes {
        32 => (
            "ES256",
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point),
        ),
        _ => (
            "ES384",
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point),
        ),
    };
    Ok(vec![(alg, key.map_err(|_| "it is no point of the curve")?)])
}

fn edwards(jwk: &Object<'_>) -> Result<Vec<Verifying>, &'static str> {
    let point = bytes_of(jwk, "x").ok_or("`x` is not base64url")?;
    if point.len() != 32 {
        return Err("`x` does not have the length of the curve");
    }
    let key = ParsedPublicKey::new(&ED25519, &point);
    Ok(vec![(
        "EdDSA",
        key.map_err(|_| "it is no point of the curve")?,
    )])
}

fn bytes_of(jwk: &Object<'_>, member: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.text(member)?).ok()
}
