//! The token issuer of the demo: one ES256 key, its key set (RFC 7517) and tokens signed with it.
//! Everything it signs is worth nothing outside this run.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// `iss` of every token, as in the demo's `kordon.yaml`.
const ISSUER: &str = "https://issuer.corallum.example";
/// `kid` of the key. A forger can read it in any token, and uses it.
const KEY_ID: &str = "demo-1";

/// Who signs tokens.
pub struct Issuer {
    key: EncodingKey,
    public: Vec<u8>,
}

/// Why there is no key or no token.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The key cannot be made.
    #[error("key: {0}")]
    Key(#[from] rcgen::Error),
    /// The token cannot be signed.
    #[error("token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl Issuer {
    /// An issuer with a fresh P-256 key.
    pub fn new() -> Result<Self, IssuerError> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            public: pair.public_key_raw().to_vec(),
        })
    }

    /// The key set that Kordon is given.
    pub fn jwks(&self) -> Value {
        // SEC 1: 4, then x and y, 32 bytes each.
        let part = |from: usize| {
            let bytes = self.public.get(from..from + 32).unwrap_or_default();
            URL_SAFE_NO_PAD.encode(bytes)
        };
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
            "x": part(1), "y": part(33),
        }]})
    }

    /// A token for a service of tenant corallum that was issued `age` ago and lived, or lives,
    /// for an hour.
    pub fn token(&self, service: &str, age: Duration) -> Result<String, IssuerError> {
        let now = crate::clock::since_epoch(crate::clock::wall());
        let issued = now.saturating_sub(age).as_secs();
        let claims = json!({
            "iss": ISSUER, "sub": service, "aud": "kafka", "scope": "kafka",
            "tenant_id": "corallum", "iat": issued, "exp": issued + 3_600,
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}
