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

mod corpus;
mod faults;
mod issuers;

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
fn every_supported_algorithm_verifies_with_its_key_and_only_when_listed() {
    for alg in supported_algorithms() {
        // Given
        let kid = match alg {
            "ES256" => "p256",
            "ES384" => "p384",
            "EdDSA" => "ed",
            _ => "rsa",
        };
        let header = json!({"alg": alg, "kid": kid}).to_string();
        let signed = format!("{}.{}", base64url(header), base64url(claims().to_string()));
        let token = format!("{signed}.{}", base64url(sign(alg, signed.as_bytes())));
        // Then
        assert!(verdict(&token).is_ok(), "{alg}");
        let others = supported_algorithms().filter(|other| *other != alg);
        let narrow = TokenSettings {
            algorithms: others.map(str::to_owned).collect(),
            ..settings()
        };
        let narrow = Verifier::new(&narrow, &jwks().to_string()).unwrap();
        assert_eq!(
            narrow.verify(&token, None, at(NOW)),
            Err(TokenError::Algorithm),
            "{alg}"
        );
    }
}

#[test]
fn t33_alg_none_is_refused_in_every_spelling() {
    for alg in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 "] {
        let header = base64url(json!({"alg": alg, "kid": "rsa"}).to_string());
        let claims = base64url(claims().to_string());
        refused(&format!("{header}.{claims}."), TokenError::Algorithm);
        refused(&format!("{header}.{claims}.AAAA"), TokenError::Algorithm);
    }
    for header in [
        json!({"kid": "rsa"}),
        json!({"alg": null}),
        json!({"alg": ["RS256"]}),
    ] {
        refused(&token_with_header(header), TokenError::Algorithm);
    }
}

#[test]
fn t33_a_public_key_is_never_a_shared_secret() {
    // Given tokens signed with HMAC by what everybody can download
    let public = KEYS.rsa.public_key().as_ref().to_vec();
    let jwk = rsa_jwk("rsa", &KEYS.rsa);
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [
        public,
        modulus,
        jwk["n"].as_str().unwrap().into(),
        jwk.to_string().into(),
    ] {
        let token = by_secret("HS256", hmac::HMAC_SHA256, &secret);
        // Then
        refused(&token, TokenError::Algorithm);
    }
    // And a configuration cannot allow it.
    for alg in ["HS256", "HS384", "HS512", "none", "RSA-OAEP", ""] {
        let settings = TokenSettings {
            algorithms: vec![alg.into()],
            ..settings()
        };
        let error = Verifier::new(&settings, &jwks().to_string()).unwrap_err();
        assert!(
            matches!(error, KeySetError::Algorithm(..)),
            "{alg}: {error}"
        );
    }
}

#[test]
fn a_key_of_another_type_does_not_verify() {
    // Given RS256 under the key id of an elliptic key, and the other way round
    refused(
        &token_with_header(json!({"alg": "RS256", "kid": "p256"})),
        TokenError::Key,
    );
    refused(
        &token_with_header(json!({"alg": "ES256", "kid": "rsa"})),
        TokenError::Key,
    );
    refused(
        &token_with_header(json!({"alg": "ES384", "kid": "p256"})),
        TokenError::Key,
    );
    // RSASSA-PKCS1 presented as RSASSA-PSS
    refused(
        &token_with_header(json!({"alg": "PS256", "kid": "rsa"})),
        TokenError::Signature,
    );
}

#[test]
fn the_key_is_chosen_by_its_id() {
    for kid in ["other", "", "RSA", "rsa ", "../../dev/null", "' OR 1=1 --"] {
        refused(
            &token_with_header(json!({"alg": "RS256", "kid": kid})),
            TokenError::Key,
        );
    }
    refused(
        &token_with_header(json!({"alg": "RS256", "kid": 1})),
        TokenError::Key,
    );
    refused(
        &token_with_header(json!({"alg": "RS256", "kid": null})),
        TokenError::Key,
    );
    // Without an id only where there is no choice: one RSA key here, then two.
    assert!(verdict(&token_with_header(json!({"alg": "RS256"}))).is_ok());
    let two = json!({"keys": [rsa_jwk("a", &KEYS.rsa), rsa_jwk("b", &KEYS.other_rsa)]});
    let two = Verifier::new(&settings(), &two.to_string()).unwrap();
    let nameless = token_with_header(json!({"alg": "RS256"}));
    assert_eq!(two.verify(&nameless, None, at(NOW)), Err(TokenError::Key));
    let wrong = token_with_header(json!({"alg": "RS256", "kid": "b"}));
    assert_eq!(
        two.verify(&wrong, None, at(NOW)),
        Err(TokenError::Signature)
    );
}

#[test]
fn t33_a_key_brought_by_the_token_is_not_used() {
    let own = rsa_jwk("own", &KEYS.rsa);
    let set = json!({"keys": [rsa_jwk("issuer", &KEYS.other_rsa)]}).to_string();
    let verifier = Verifier::new(&settings(), &set).unwrap();
    for (header, why) in [
        (json!({"alg": "RS256", "jwk": own}), TokenError::Signature),
        (
            json!({"alg": "RS256", "kid": "issuer", "jwk": own}),
            TokenError::Signature,
        ),
        (
            json!({"alg": "RS256", "kid": "own", "jwk": own}),
            TokenError::Key,
        ),
        (
            json!({"alg": "RS256", "jku": "http://127.0.0.1:1/jwks"}),
            TokenError::Signature,
        ),
    ] {
        let token = token_with_header(header);
        assert_eq!(verifier.verify(&token, None, at(NOW)), Err(why));
    }
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
fn issuer_and_audience_must_be_ours() {
    refused(&token(&claims_without("iss")), TokenError::Issuer);
    for iss in [
        json!("https://idp.example/realms/prod/"),
        json!("https://idp.example/realms/test"),
        json!("HTTPS://idp.example/realms/prod"),
        json!(["https://idp.example/realms/prod"]),
        json!(""),
    ] {
        refused(&token(&claims_with("iss", iss)), TokenError::Issuer);
    }
    refused(&token(&claims_without("aud")), TokenError::Audience);
    for aud in [
        json!("kafka2"),
        json!("Kafka"),
        json!("kafka other"),
        json!([]),
        json!(["other"]),
        json!(["kafka", 1]),
        json!([["kafka"]]),
        json!({"kafka": true}),
        json!(null),
    ] {
        refused(&token(&claims_with("aud", aud)), TokenError::Audience);
    }
    assert!(verdict(&token(&claims_with("aud", json!(["other", "kafka"])))).is_ok());
}

#[test]
fn dates_count_with_the_skew_and_to_the_second() {
    let verdict_at =
        |claims: &Value, now: u64| verifier().verify(&token(claims), None, at(now)).err();
    // exp: valid before, not at; the skew is 30 s.
    assert_eq!(verdict_at(&claims(), NOW + 329), None);
    assert_eq!(verdict_at(&claims(), NOW + 330), Some(TokenError::Expired));
    assert_eq!(verdict_at(&claims(), NOW * 2), Some(TokenError::Expired));
    // nbf and iat: at, not before.
    let ahead = claims_with("nbf", json!(NOW + 100));
    assert_eq!(verdict_at(&ahead, NOW + 69), Some(TokenError::Early));
    assert_eq!(verdict_at(&ahead, NOW + 70), None);
    let issued = claims_with("iat", json!(NOW + 31));
    assert_eq!(verdict_at(&issued, NOW), Some(TokenError::Early));
    assert_eq!(verdict_at(&issued, NOW + 1), None);
    // A fraction is a NumericDate as well.
    let exact = claims_with("exp", json!(1_800_000_000.5));
    let end = at(NOW) + Duration::from_millis(500);
    assert_eq!(verdict(&token(&exact)).unwrap().expires_at, Some(end));
}

#[test]
fn a_date_that_is_none_is_refused() {
    for claim in ["exp", "iat"] {
        refused(&token(&claims_without(claim)), TokenError::Date);
    }
    for claim in ["exp", "iat", "nbf"] {
        for value in [
            json!("1800000300"),
            json!(null),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
        ] {
            refused(&token(&claims_with(claim, value)), TokenError::Date);
        }
    }
}

#[test]
fn a_listener_may_demand_bound_tokens() {
    use crate::identity::binding::Thumbprint;
    let settings = TokenSettings {
        certificate_bound: true,
        ..settings()
    };
    let verifier = Verifier::new(&settings, &jwks().to_string()).unwrap();
    let (mine, other) = (Thumbprint::of(b"mine"), Thumbprint::of(b"other"));
    let bound = token(&claims_with("cnf", json!({"x5t#S256": mine.to_string()})));
    let with = |token: &str, shown| verifier.verify(token, shown, at(NOW)).err();
    assert_eq!(with(&bound, Some(&mine)), None);
    assert_eq!(with(&bound, Some(&other)), Some(TokenError::Binding));
    assert_eq!(with(&bound, None), Some(TokenError::Binding));
    assert_eq!(
        with(&token(&claims()), Some(&mine)),
        Some(TokenError::Binding)
    );
}

#[test]
fn every_required_scope_must_be_a_whole_word() {
    for scope in [json!("kafka"), json!("a kafka b"), json!(["a", "kafka"])] {
        assert!(verdict(&token(&claims_with("scope", scope))).is_ok());
    }
    refused(&token(&claims_without("scope")), TokenError::Scope);
    for scope in [
        json!("kafka2"),
        json!("xkafka"),
        json!("KAFKA"),
        json!(""),
        json!(["a kafka"]),
        json!(["kafka", 1]),
        json!({"kafka": 1}),
    ] {
        refused(&token(&claims_with("scope", scope)), TokenError::Scope);
    }
}

#[test]
fn every_rule_about_claims_must_hold_and_the_first_that_does_not_is_named() {
    use crate::identity::claims::{ClaimRule, Expected, Literal, Pointer};
    let rule = |pointer: &str, expected: Expected| ClaimRule {
        pointer: Pointer::parse(pointer).unwrap(),
        expected,
    };
    let text = |text: &str| Literal::Text(text.to_owned());
    let settings = TokenSettings {
        claims: vec![
            rule("/realm_access/roles", Expected::Contains(text("kafka"))),
            rule("/azp", Expected::OneOf(vec![text("a"), text("b")])),
        ],
        ..settings()
    };
    let verifier = Verifier::new(&settings, &jwks().to_string()).unwrap();
    let with = |roles: Value, azp: Value| {
        let mut claims = claims_with("realm_access", json!({"roles": roles}));
        claims["azp"] = azp;
        verifier.verify(&token(&claims), None, at(NOW)).err()
    };
    let broken = |pointer: &str| Some(TokenError::Claim(pointer.into()));
    assert_eq!(with(json!(["x", "kafka"]), json!("b")), None);
    assert_eq!(with(json!(["kafka"]), json!("c")), broken("/azp"));
    assert_eq!(
        with(json!(["hidden"]), json!("c")),
        broken("/realm_access/roles")
    );
    assert_eq!(
        with(json!("kafka"), json!("a")),
        broken("/realm_access/roles")
    );
    let error = with(json!(["hidden"]), json!("a")).unwrap();
    assert_eq!(
        error.to_string(),
        "token does not fulfil the rule about the claim `/realm_access/roles`"
    );
}

#[test]
fn names_that_would_confuse_an_authorizer_are_refused() {
    let long = vec!["g"; GROUPS_MAX + 1];
    refused(&token(&claims_without("sub")), TokenError::Principal);
    for name in [
        json!(1),
        json!(["a"]),
        json!(null),
        json!(""),
        json!(" "),
        json!("*"),
        json!("a\u{0}b"),
        json!("a\nUser:admin"),
        json!("spiffe://prod/ns/a"),
    ] {
        refused(
            &token(&claims_with("sub", name.clone())),
            TokenError::Principal,
        );
        refused(
            &token(&claims_with("tenant_id", name.clone())),
            TokenError::Tenant,
        );
        if !name.is_array() {
            refused(
                &token(&claims_with("groups", json!(["ok", name]))),
                TokenError::Groups,
            );
        }
    }
    refused(
        &token(&claims_with("groups", json!({"a": 1}))),
        TokenError::Groups,
    );
    let wide = TokenSettings {
        token_bytes_max: 1 << 20,
        ..settings()
    };
    let wide = Verifier::new(&wide, &jwks().to_string()).unwrap();
    let many = token(&claims_with("groups", json!(long)));
    assert_eq!(wide.verify(&many, None, at(NOW)), Err(TokenError::Groups));
}

#[test]
fn absent_tenant_and_groups_are_none() {
    let bare = verdict(&token(&claims_without("tenant_id"))).unwrap();
    assert_eq!(&*bare.tenant, "");
    let bare = verdict(&token(&claims_without("groups"))).unwrap();
    assert!(bare.groups.is_empty());
    let one = verdict(&token(&claims_with("groups", json!("writers")))).unwrap();
    assert_eq!(*one.groups, ["writers".into()]);
}

#[test]
fn keys_for_other_purposes_verify_nothing() {
    for (member, value) in [
        ("use", json!("enc")),
        ("use", json!("SIG")),
        ("use", json!(null)),
        ("key_ops", json!(["encrypt"])),
        ("alg", json!("RSA-OAEP")),
    ] {
        let mut key = rsa_jwk("rsa", &KEYS.rsa);
        key[member] = value;
        let set = json!({"keys": [key, edwards_jwk("ed")]}).to_string();
        let verifier = Verifier::new(&settings(), &set).unwrap();
        assert_eq!(
            verifier.verify(&token(&claims()), None, at(NOW)),
            Err(TokenError::Key),
            "{member}"
        );
    }
    // `alg` binds the key to one algorithm of its family.
    let mut key = rsa_jwk("rsa", &KEYS.rsa);
    key["alg"] = json!("RS512");
    let set = json!({"keys": [key]}).to_string();
    let verifier = Verifier::new(&settings(), &set).unwrap();
    assert_eq!(
        verifier.verify(&token(&claims()), None, at(NOW)),
        Err(TokenError::Key)
    );
}

#[test]
fn a_modulus_with_a_sign_byte_is_the_same_key() {
    let mut key = rsa_jwk("rsa", &KEYS.rsa);
    let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
    key["n"] = json!(base64url([&[0], &modulus[..]].concat()));
    let verifier = Verifier::new(&settings(), &json!({"keys": [key]}).to_string()).unwrap();
    assert!(verifier.verify(&token(&claims()), None, at(NOW)).is_ok());
}

#[test]
fn a_set_that_cannot_be_used_says_why() {
    let new = |set: Value| {
        Verifier::new(&settings(), &set.to_string())
            .unwrap_err()
            .to_string()
    };
    let secret = json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"});
    let none = "key set holds no public signature key of type RSA, EC or OKP";
    assert_eq!(new(json!({"keys": []})), none);
    assert_eq!(new(json!({"keys": [secret]})), none);
    assert_eq!(
        new(json!({})),
        "key set has no member `keys` that is a list of objects"
    );
    assert_eq!(new(json!([])), "key set is not a json object");
    let rsa = || rsa_jwk("rsa", &KEYS.rsa);
    assert_eq!(
        new(json!({"keys": [rsa(), rsa()]})),
        "key set holds two keys of one type with `kid` `rsa`"
    );
    let weak = json!({"kty": "RSA", "kid": "weak", "n": base64url([0xff; 128]), "e": "AQAB"});
    assert_eq!(
        new(json!({"keys": [weak]})),
        "key 1 of the set (`kid` `weak`): the rsa modulus does not have 2048 to 8192 bits"
    );
    let mut short = ec_jwk("short", "P-256", &KEYS.p256);
    short["x"] = json!("AAAA");
    assert_eq!(
        new(json!({"keys": [rsa(), short]})),
        "key 2 of the set (`kid` `short`): `x` or `y` does not have the length of the curve"
    );
    let many: Vec<_> = (0..=64)
        .map(|i| rsa_jwk(&i.to_string(), &KEYS.rsa))
        .collect();
    assert_eq!(
        new(json!({"keys": many})),
        "key set holds more than 64 signature keys"
    );
    let long = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(300_000));
    assert!(matches!(
        Verifier::new(&settings(), &long),
        Err(KeySetError::Long(_))
    ));
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
