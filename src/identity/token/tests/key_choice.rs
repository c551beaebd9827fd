//! Which key verifies a token: chosen by its id and type, never brought along, and what a set of
//! keys must be.

use super::*;

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
