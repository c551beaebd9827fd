//! A signed statement "I am this client" (RFC 7523 §2.2, `private_key_jwt`), made anew for each
//! request to a token endpoint. The key is read each time, so that a new one counts at once.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::clock;

/// How long an assertion holds: one question, and clocks that differ a little.
pub const ASSERTION_LIFETIME: Duration = Duration::from_secs(120);
/// The longest key file, in bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of chance in `jti`.
const ID_BYTES: usize = 16;

/// How an assertion is signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// As the header of a token names it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// Why there is no assertion; shows nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// The file cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(String, std::io::ErrorKind),
    /// There is no private key in it.
    #[error("`{0}` holds no private key in PEM")]
    NoKey(String),
    /// A key of another kind.
    #[error("the key in `{0}` does not sign {1}")]
    OtherKey(String, &'static str),
    /// Signing failed.
    #[error("signing with the key in `{0}` failed")]
    Failed(String),
}

/// A private key and how it signs.
pub struct Signer {
    key: Key,
    algorithm: Algorithm,
    shown: String,
}

enum Key {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.algorithm).finish()
    }
}

impl Signer {
    /// Reads a key in PEM: PKCS#8, or as OpenSSL wrote it before.
    pub fn read(path: &Path, algorithm: Algorithm) -> Result<Signer, AssertionError> {
        let shown = path.display().to_string();
        let text =
            read(path).map_err(|error| AssertionError::Unreadable(shown.clone(), error.kind()))?;
        let der = PrivateKeyDer::from_pem_slice(&text);
        let der = der.map_err(|_| AssertionError::NoKey(shown.clone()))?;
        let key = match algorithm {
            Algorithm::Rs256 => rsa(&der).map(|key| Key::Rsa(key, &RSA_PKCS1_SHA256)),
            Algorithm::Ps256 => rsa(&der).map(|key| Key::Rsa(key, &RSA_PSS_SHA256)),
            Algorithm::Es256 => ec(&der).map(Key::Ec),
            Algorithm::EdDsa => ed(&der).map(Key::Ed),
        };
        let key = key.ok_or_else(|| AssertionError::OtherKey(shown.clone(), algorithm.name()))?;
        Ok(Signer {
            key,
            algorithm,
            shown,
        })
    }

    /// The statement that this is `client_id`, for the server that is known as `audience`.
    pub fn assertion(
        &self,
        client_id: &str,
        audience: &str,
        key_id: Option<&str>,
        now: SystemTime,
    ) -> Result<String, AssertionError> {
        let failed = || AssertionError::Failed(self.shown.clone());
        let mut id = [0; ID_BYTES];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| failed())?;
        let mut header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        if let Some(key_id) = key_id {
            header["kid"] = key_id.into();
        }
        let now = clock::since_epoch(now);
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now.as_secs(),
            "exp": (now + ASSERTION_LIFETIME).as_secs(),
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.sign(signed.as_bytes()).ok_or_else(failed)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let chance = SystemRandom::new();
        match &self.key {
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &chance, message, &mut signature).ok()?;
                Some(signature)
            }
            Key::Ec(key) => Some(key.sign(&chance, message).ok()?.as_ref().to_vec()),
            Key::Ed(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn rsa(der: &PrivateKeyDer<'_>) -> Option<RsaKeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        _ => None,
    }
}

fn ec(der: &PrivateKeyDer<'_>) -> Option<EcdsaKeyPair> {
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    match der {
        PrivateKeyDer::Pkcs8(key) => EcdsaKeyPair::from_pkcs8(kind, key.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Sec1(key) => {
            EcdsaKeyPair::from_private_key_der(kind, key.secret_sec1_der()).ok()
        }
        _ => None,
    }
}

fn ed(der: &PrivateKeyDer<'_>) -> Option<Ed25519KeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(key) => Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(KEY_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    fn pem(der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    /// A file with a key of this kind, and the public key.
    fn key(algorithm: Algorithm, path: &Path) -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
        let chance = SystemRandom::new();
        let (der, public) = match algorithm {
            Algorithm::Es256 => {
                let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let der = EcdsaKeyPair::generate_pkcs8(kind, &chance).unwrap();
                let pair = EcdsaKeyPair::from_pkcs8(kind, der.as_ref()).unwrap();
                let public = pair.public_key().as_ref().to_vec();
                (der.as_ref().to_vec(), public)
            }
            Algorithm::EdDsa => {
                let der = Ed25519KeyPair::generate_pkcs8(&chance).unwrap();
                let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
                let public = pair.public_key().as_ref().to_vec();
                (der.as_ref().to_vec(), public)
            }
            _ => {
                let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                (der.as_ref().to_vec(), pair.public_key().as_ref().to_vec())
            }
        };
        std::fs::write(path, pem(&der)).unwrap();
        public
    }

    #[test]
    fn an_assertion_says_who_asks_whom_and_its_signature_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let cases: [(_, &dyn VerificationAlgorithm); 4] = [
            (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
            (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED),
            (Algorithm::EdDsa, &ED25519),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        for (algorithm, verification) in cases {
            let public = key(algorithm, &path);
            let signer = Signer::read(&path, algorithm).unwrap();
            let text = signer.assertion("me", "https://idp/token", Some("k"), now);
            let text = text.unwrap();
            let (signed, signature) = text.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = UnparsedPublicKey::new(verification, public);
            assert!(public.verify(signed.as_bytes(), &signature).is_ok());
            let (header, claims) = signed.split_once('.').unwrap();
            let json = |part: &str| -> serde_json::Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let header = json(header);
            assert_eq!(header["alg"], algorithm.name());
            assert_eq!(header["kid"], "k");
            let mut claims = json(claims);
            let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
            assert_eq!(id.as_str().unwrap().len(), 22);
            assert_eq!(
                claims,
                json!({"iss": "me", "sub": "me", "aud": "https://idp/token",
                    "iat": 1_000, "exp": 1_120})
            );
            let again = signer.assertion("me", "https://idp/token", None, now);
            assert!(!again.unwrap().contains(id.as_str().unwrap()));
        }
    }

    #[test]
    fn a_key_of_another_kind_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        key(Algorithm::EdDsa, &path);
        let error = Signer::read(&path, Algorithm::Es256).unwrap_err();
        assert!(
            error.to_string().ends_with("does not sign ES256"),
            "{error}"
        );
        std::fs::write(&path, "no key").unwrap();
        let error = Signer::read(&path, Algorithm::Rs256).unwrap_err();
        assert!(matches!(error, AssertionError::NoKey(_)));
    }
}
