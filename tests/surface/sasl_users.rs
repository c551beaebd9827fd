//! Who takes part in SASL conversations: users with tokens and passwords that both sides know.

use crate::compare::show;
use crate::signer::{self, Signer};
use crate::socket::{Socket, request};
use bytes::Bytes;
use kordon::identity::scram::{Credential, Hash};
use kordon::wire::tree::Node;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::num::NonZeroU32;
use std::sync::Arc;

const NAMES: [&str; 2] = ["alice", "bob"];
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Who there is, on both sides.
pub struct Users {
    /// The issuer's key set.
    pub jwks: String,
    /// Kordon's users file.
    pub file: String,
    /// Kordon's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// What clients of Kordon trust.
    pub tls: Arc<rustls::ClientConfig>,
    /// A good token of each user.
    pub good: [String; 2],
    /// One with a broken signature.
    pub bad: String,
}

impl Users {
    /// Makes keys, tokens and credentials.
    pub fn new() -> Users {
        let signer = Signer::new();
        let token = |name: &str| signer.token(name, json!({"exp": signer::now() + 1800}));
        let good = NAMES.map(token);
        let (content, signature) = good[0].rsplit_once('.').unwrap();
        let swapped: String = signature.chars().rev().collect();
        let bad = format!("{content}.{swapped}");
        let mut file = "users:\n".to_owned();
        for name in NAMES {
            let texts = [Hash::Sha256, Hash::Sha512].map(|hash| {
                Credential::of_password(hash, &password(name), b"salt", ITERATIONS).text()
            });
            file += &format!("- {{name: {name}, credential: {texts:?}}}\n");
        }
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.pem();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Users {
            jwks: signer.jwks.to_string(),
            file,
            certificate,
            key: certified.signing_key.serialize_pem(),
            tls: Arc::new(tls),
            good,
            bad,
        }
    }

    /// The options of a broker's PlainLoginModule.
    pub fn jaas(&self) -> String {
        let users = NAMES.map(|name| format!("user_{name}=\"{}\"", password(name)));
        users.join(" ")
    }

    /// Tells the broker's SCRAM of the users.
    pub fn tell(&self, broker: &str) {
        let mut socket = Socket::open(broker);
        // A user may stand in one request once.
        for mechanism in [1, 2] {
            let mut alter = request(51);
            for name in NAMES {
                let salted = salted(mechanism, &password(name));
                let mut one = alter.element("Upsertions");
                one.set_text("Name", Some(name));
                one.set_int("Mechanism", mechanism);
                one.set_int("Iterations", ITERATIONS.get().into());
                one.set("Salt", Node::Bytes(Some(Bytes::from_static(b"salt"))));
                one.set("SaltedPassword", Node::Bytes(Some(salted.into())));
                alter.structs_mut("Upsertions").push(one);
            }
            let answer = socket.call(51, 0, &alter);
            for result in answer.structs("Results") {
                assert_eq!(result.int("ErrorCode"), 0, "{}", show(result));
            }
        }
    }
}

fn password(name: &str) -> String {
    format!("{name}-password")
}

fn salted(mechanism: i64, password: &str) -> Vec<u8> {
    use aws_lc_rs::pbkdf2;
    let (algorithm, length) = match mechanism {
        1 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut out = vec![0; length];
    pbkdf2::derive(
        algorithm,
        ITERATIONS,
        b"salt",
        password.as_bytes(),
        &mut out,
    );
    out
}
