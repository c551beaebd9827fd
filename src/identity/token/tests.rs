//! The attack corpus (threat 33) and what must pass, with real keys of every allowed type. The
//! tokens are signed here by hand: a JWT library would not write most of them.

use std::path::PathBuf;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use serde_json::{Value, json};

use super::*;
use crate::identity::settings::TokenSource;

mod content;
mod corpus;
mod faults;
mod issuers;
mod key_choice;

const NOW: u64 = 1_800_000_000;

struct Keys {
    rsa: RsaKeyPair,
    other_rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    other_rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    p256: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    p384: EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
    edwards: Ed25519KeyPair::generate().unwrap(),
});

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(kid: &str, key: &RsaKeyPair) -> Value {
    let public = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
    json!({"kty": "RSA", "use": "sig", "kid": kid, "n": base64url(public.n),
        "e": base64url(public.e)})
}

fn ec_jwk(kid: &str, curve: &str, key: &EcdsaKeyPair) -> Value {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": base64url(x), "y": base64url(y)})
}

fn edwards_jwk(kid: &str) -> Value {
    let x = base64url(KEYS.edwards.public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
}

fn jwks() -> Value {
    json!({"keys": [
        rsa_jwk("rsa", &KEYS.rsa),
        ec_jwk("p256", "P-256", &KEYS.p256),
        ec_jwk("p384", "P-384", &KEYS.p384),
        edwards_jwk("ed"),
    ]})
}

fn settings() -> TokenSettings {
    TokenSettings {
        issuer: "https://idp.example/realms/prod".into(),
        source: TokenSource::KeyFile(PathBuf::new()),
        audience: "kafka".into(),
        algorithms: supported_algorithms().map(str::to_owned).collect(),
        clock_skew: Duration::from_secs(30),
        required_scopes: vec!["kafka".into()],
        claims: Vec::new(),
        principal_claim: "sub".into(),
        principal_prefix: String::new(),
        tenant_claim: Some("tenant_id".into()),
        groups_claim: Some("groups".into()),
        session_max: None,
        certificate_bound: false,
        types: vec!["JWT".into(), "at+jwt".into()],
        token_bytes_max: 16 * 1024,
    }
}

fn verifier() -> Verifier {
    Verifier::new(&settings(), &jwks().to_string()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://idp.example/realms/prod", "aud": "kafka", "sub": "orders-service",
        "exp": NOW + 300, "iat": NOW - 10, "scope": "openid kafka", "tenant_id": "shop",
        "groups": ["writers", "auditors"]})
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn rsa_signature(
    key: &RsaKeyPair,
    encoding: &'static dyn signature::RsaEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    let chance = SystemRandom::new();
    key.sign(encoding, &chance, message, &mut signature)
        .unwrap();
    signature
}

fn sign(alg: &str, message: &[u8]) -> Vec<u8> {
    let chance = SystemRandom::new();
    let rsa = |encoding| rsa_signature(&KEYS.rsa, encoding, message);
    match alg {
        "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
        "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
        "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
        "PS256" => rsa(&signature::RSA_PSS_SHA256),
        "PS384" => rsa(&signature::RSA_PSS_SHA384),
        "PS512" => rsa(&signature::RSA_PSS_SHA512),
        "ES256" => KEYS.p256.sign(&chance, message).unwrap().as_ref().to_vec(),
        "ES384" => KEYS.p384.sign(&chance, message).unwrap().as_ref().to_vec(),
        "EdDSA" => KEYS.edwards.sign(message).as_ref().to_vec(),
        _ => panic!("no key for {alg}"),
    }
}

/// A token whose header and claims are exactly these texts, signed with RS256.
fn token_of_text(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let signature = sign("RS256", signed.as_bytes());
    format!("{signed}.{}", base64url(signature))
}

fn token(claims: &Value) -> String {
    token_of_text(
        r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#,
        &claims.to_string(),
    )
}

fn token_with_header(header: Value) -> String {
    token_of_text(&header.to_string(), &claims().to_string())
}

/// A token under a secret that both sides would have to know.
fn by_secret(alg: &str, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let header = base64url(json!({"alg": alg, "kid": "rsa"}).to_string());
    let signed = format!("{header}.{}", base64url(claims().to_string()));
    let key = hmac::Key::new(algorithm, secret);
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64url(tag))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn verdict(token: &str) -> Result<Principal, TokenError> {
    verifier().verify(token, None, at(NOW))
}

#[track_caller]
fn refused(token: &str, why: TokenError) {
    assert_eq!(verdict(token), Err(why));
}

#[test]
fn a_good_token_becomes_a_principal() {
    let principal = verdict(&token(&claims())).unwrap();
    assert_eq!(&*principal.name, "User:orders-service");
    assert_eq!(&*principal.tenant, "shop");
    assert_eq!(*principal.groups, ["writers".into(), "auditors".into()]);
    assert_eq!(principal.proof, Proof::Token);
    assert_eq!(principal.expires_at, Some(at(NOW + 300)));
}

#[test]
fn any_changed_bit_of_the_signature_or_the_content_is_noticed() {
    let good = token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for at in [0, 1, 100, bytes.len() - 1] {
        for bit in [0, 7] {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << bit;
            refused(
                &format!("{signed}.{}", base64url(&bent)),
                TokenError::Signature,
            );
        }
    }
    for bent in ["", "A", "AA==", "****", &signature[..signature.len() - 4]] {
        refused(&format!("{signed}.{bent}"), TokenError::Signature);
    }
    let (header, _) = signed.split_once('.').unwrap();
    let other = base64url(claims_with("sub", json!("admin")).to_string());
    refused(
        &format!("{header}.{other}.{signature}"),
        TokenError::Signature,
    );
    refused(&format!("{good}="), TokenError::Signature);
    refused(&format!("{good}\n"), TokenError::Signature);
}

#[test]
fn what_is_no_jwt_is_malformed() {
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "é.é.é",
        "e30",
        "e30.e30",
    ] {
        refused(text, TokenError::Malformed);
    }
    refused(&format!("x{}", token(&claims())), TokenError::Malformed);
    refused(&token(&json!([claims()])), TokenError::Malformed);
    // Four parts, the signature being right for the first three.
    let header = base64url(r#"{"alg":"RS256","kid":"rsa"}"#);
    let signed = format!("{header}.{}.e30", base64url(claims().to_string()));
    let signature = base64url(sign("RS256", signed.as_bytes()));
    refused(&format!("{signed}.{signature}"), TokenError::Malformed);
    refused(&token(&json!("nested.jwt.here")), TokenError::Malformed);
    // Base64url allows neither padding nor the other alphabet.
    let padded = format!("{}=", base64url(r#"{"alg":"RS256","kid":"rsa"}"#));
    refused(&format!("{padded}.e30.AAAA"), TokenError::Malformed);
}

#[test]
fn names_that_occur_twice_are_refused() {
    let head = r#"{"alg":"RS256","kid":"rsa"}"#;
    let text = claims().to_string();
    let twice = |extra: &str| format!("{{{extra},{}", &text[1..]);
    for header in [
        r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#,
        r#"{"alg":"RS256","kid":"other","kid":"rsa"}"#,
    ] {
        refused(&token_of_text(header, &text), TokenError::Duplicate);
    }
    for claim in [
        r#""sub":"admin""#,
        r#""s\u0075b":"admin""#,
        r#""x":{"a":1,"a":1}"#,
    ] {
        refused(&token_of_text(head, &twice(claim)), TokenError::Duplicate);
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = |depth| {
        let text = claims().to_string();
        let text = format!("{{\"x\":{},{}", nested(depth), &text[1..]);
        token_of_text(r#"{"alg":"RS256","kid":"rsa"}"#, &text)
    };
    assert!(verdict(&deep(31)).is_ok());
    refused(&deep(32), TokenError::Deep);
    refused(&deep(5000), TokenError::Deep);
    let header = format!(r#"{{"alg":"RS256","kid":"rsa","x":{}}}"#, nested(40));
    refused(&token_of_text(&header, "{}"), TokenError::Deep);

    let settings = TokenSettings {
        token_bytes_max: token(&claims()).len(),
        ..settings()
    };
    let exact = Verifier::new(&settings, &jwks().to_string()).unwrap();
    assert!(exact.verify(&token(&claims()), None, at(NOW)).is_ok());
    let longer = token(&claims_with("pad", json!("x")));
    assert_eq!(exact.verify(&longer, None, at(NOW)), Err(TokenError::Long));
}

#[test]
fn an_extension_that_must_be_understood_is_not() {
    for crit in [
        json!(["b64"]),
        json!(["exp"]),
        json!([]),
        json!("b64"),
        json!(null),
    ] {
        let header = json!({"alg": "RS256", "kid": "rsa", "crit": crit, "b64": false});
        refused(&token_with_header(header), TokenError::Critical);
    }
}

#[test]
fn the_type_must_be_one_of_the_accepted() {
    let typed = |typ: Value| token_with_header(json!({"alg": "RS256", "kid": "rsa", "typ": typ}));
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
        assert!(verdict(&typed(json!(typ))).is_ok(), "{typ}");
    }
    assert!(verdict(&token_with_header(json!({"alg": "RS256", "kid": "rsa"}))).is_ok());
    for typ in [
        json!("id+jwt"),
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!(""),
        json!(1),
    ] {
        refused(&typed(typ), TokenError::Type);
    }
    // The mark in the claims that looks the same from outside.
    for typ in ["ID", "Refresh"] {
        refused(&token(&claims_with("typ", json!(typ))), TokenError::Type);
    }
    assert!(verdict(&token(&claims_with("typ", json!("Bearer")))).is_ok());
}

#[test]
fn errors_and_debug_output_hold_nothing_of_the_token() {
    let token = token(&claims_with("aud", json!("secret-audience")));
    let error = verdict(&token).unwrap_err();
    let shown = format!("{error} {error:?} {:?}", verifier());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!shown.contains(&token[..20]), "{shown}");
    assert_eq!(error.kind(), "audience");
}

proptest::proptest! {
    #[test]
    fn no_text_panics_and_none_is_accepted(text in "[ -~é]{0,60}", header in "\\{.{0,40}\\}") {
        proptest::prop_assert!(verdict(&text).is_err());
        let signed = format!("{}.{}", base64url(&header), base64url(&text));
        proptest::prop_assert!(verdict(&(signed + ".AAAA")).is_err());
        let set = Verifier::new(&settings(), &text);
        proptest::prop_assert!(set.is_err());
    }
}
