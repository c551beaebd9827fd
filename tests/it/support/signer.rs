//! A token issuer whose tokens may have any fault.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// One ES256 key.
pub struct Signer {
    key: EncodingKey,
    key_id: String,
    pub jwks: Value,
}

impl Signer {
    /// The issuer that every lab trusts.
    pub fn trusted() -> &'static Signer {
        static TRUSTED: OnceLock<Signer> = OnceLock::new();
        TRUSTED.get_or_init(Signer::new)
    }

    pub fn new() -> Signer {
        Signer::with_key_id("k1")
    }

    pub fn with_key_id(key_id: &str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let public = pair.public_key_raw();
        let part = |from: usize| URL_SAFE_NO_PAD.encode(&public[from..from + 32]);
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id,
            "x": part(1), "y": part(33),
        });
        Signer {
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            key_id: key_id.to_owned(),
            jwks: json!({"keys": [key]}),
        }
    }

    /// What a good token for `subject` says.
    pub fn claims(subject: &str) -> Value {
        json!({
            "iss": "https://issuer.example", "sub": subject, "aud": "kafka", "scope": "kafka",
            "tenant_id": "shop", "iat": now(), "exp": now() + 3_600,
        })
    }

    /// The issuer's signature under any bytes.
    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let signature = jsonwebtoken::crypto::sign(message, &self.key, Algorithm::ES256);
        URL_SAFE_NO_PAD.decode(signature.unwrap()).unwrap()
    }

    /// A token for `subject` whose claims are changed by the object `changes`.
    pub fn token(&self, subject: &str, changes: Value) -> String {
        let mut claims = Signer::claims(subject);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// A good token of the trusted issuer.
pub fn token(subject: &str) -> String {
    Signer::trusted().token(subject, json!({}))
}
