//! Every bad token that we know of, at the verifier: the faults of any issuer's tokens
//! (`faults.rs`), and those that take several keys, or that no client gets past SASL's grammar.

use super::faults::{Case, Forge, Key};
use super::*;
use crate::identity::binding::Thumbprint;

/// The certificate that the connection of the corpus shows.
const CERTIFICATE: &[u8] = b"the certificate of this connection";

fn forge() -> Forge {
    let key = |alg: &'static str, kid: &'static str| Key {
        alg,
        kid,
        sign: Box::new(move |message| sign(alg, message)),
    };
    Forge {
        key: key("RS256", "rsa"),
        elliptic: key("ES256", "p256"),
        stranger: Box::new(|message| {
            let encoding = &signature::RSA_PKCS1_SHA256;
            rsa_signature(&KEYS.other_rsa, encoding, message)
        }),
        stranger_jwk: rsa_jwk("own", &KEYS.other_rsa),
        claims: claims(),
        now: NOW as i64,
        ahead: 31,
        shown: Thumbprint::of(CERTIFICATE).to_string(),
    }
}

/// What SASL's grammar does not let through, and what is no token by far.
fn grammar(forge: &Forge) -> Vec<Case> {
    use TokenError::{Long, Malformed, Signature};
    let parts = |put: fn(&str, &str, &str) -> String| forge.parts(put);
    vec![
        ("empty", String::new(), Malformed),
        (
            "padded header",
            parts(|h, c, s| format!("{h}=.{c}.{s}")),
            Malformed,
        ),
        (
            "padded claims",
            parts(|h, c, s| format!("{h}.{c}==.{s}")),
            Malformed,
        ),
        (
            "blank before",
            parts(|h, c, s| format!(" {h}.{c}.{s}")),
            Malformed,
        ),
        (
            "signature and a line",
            parts(|h, c, s| format!("{h}.{c}.{s}\n")),
            Signature,
        ),
        ("huge, no json", "x".repeat(1 << 20), Long),
    ]
}

/// A key used for what it is not.
fn confused() -> Vec<Case> {
    use TokenError::{Algorithm, Key, Signature};
    let public = KEYS.rsa.public_key().as_ref().to_vec();
    let named = |alg: &str, kid: &str| token_with_header(json!({"alg": alg, "kid": kid}));
    vec![
        (
            "hs256 with the public key",
            by_secret("HS256", hmac::HMAC_SHA256, &public),
            Algorithm,
        ),
        (
            "hs512 with the public key",
            by_secret("HS512", hmac::HMAC_SHA512, &public),
            Algorithm,
        ),
        (
            "hs256 with nothing",
            by_secret("HS256", hmac::HMAC_SHA256, b""),
            Algorithm,
        ),
        ("key of another type", named("RS256", "p256"), Key),
        ("curve of another key", named("ES384", "p256"), Key),
        ("edwards with an rsa key", named("EdDSA", "rsa"), Key),
        ("pss that is pkcs1", named("PS256", "rsa"), Signature),
        ("another hash", named("RS512", "rsa"), Signature),
    ]
}

#[test]
fn t33_every_bad_token_is_refused_for_its_own_reason() {
    // Given a verifier that accepts what has no fault
    let verifier = verifier();
    let forge = forge();
    let shown = Thumbprint::of(CERTIFICATE);
    let bound = forge.with("cnf", json!({"x5t#S256": forge.shown}));
    for good in forge.good().into_iter().chain([bound]) {
        assert_eq!(verifier.verify(&good, Some(&shown), at(NOW)).err(), None);
    }
    // When every fault we know is tried
    let cases = [forge.cases(), grammar(&forge), confused()].concat();
    let mut wrong = Vec::new();
    for (name, token, why) in &cases {
        let verdict = verifier
            .verify(token, Some(&shown), at(NOW))
            .map(|_| "accepted");
        if verdict.as_ref().err() != Some(why) {
            wrong.push(format!("{name}: {verdict:?}, expected {why:?}"));
        }
    }
    // Then
    assert!(wrong.is_empty(), "{wrong:#?}");
    let names: std::collections::HashSet<_> = cases.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), cases.len(), "a name occurs twice");
    assert!(cases.len() >= 134, "{}", cases.len());
}
