//! Several issuers on one listener: which of them judges, and how names are kept apart.

use super::*;
use crate::identity::issuers::Issuers;

const PROD: &str = "https://idp.example/realms/prod";
const PARTNER: &str = "https://partner.example";

/// `PROD` signs with the RSA key, `PARTNER` with another one under the same key id, allows only
/// PS256 and RS256, wants another audience and puts `partner-` before its names.
fn both() -> Issuers {
    let prod = TokenSettings {
        session_max: Some(Duration::from_secs(60)),
        ..settings()
    };
    let partner = TokenSettings {
        issuer: PARTNER.into(),
        audience: "partner-kafka".into(),
        principal_prefix: "partner-".into(),
        required_scopes: Vec::new(),
        ..settings()
    };
    let other = json!({"keys": [rsa_jwk("rsa", &KEYS.other_rsa)]}).to_string();
    Issuers::new(
        vec![
            Verifier::new(&prod, &jwks().to_string()).unwrap(),
            Verifier::new(&partner, &other).unwrap(),
        ],
        16 * 1024,
    )
}

fn partner_token(change: impl Fn(&mut Value)) -> String {
    let mut claims = claims_with("iss", json!(PARTNER));
    claims["aud"] = json!("partner-kafka");
    change(&mut claims);
    let header = base64url(r#"{"alg":"RS256","kid":"rsa"}"#);
    let signed = format!("{header}.{}", base64url(claims.to_string()));
    let mut signature = vec![0; KEYS.other_rsa.public_modulus_len()];
    let (chance, encoding) = (SystemRandom::new(), &signature::RSA_PKCS1_SHA256);
    KEYS.other_rsa
        .sign(encoding, &chance, signed.as_bytes(), &mut signature)
        .unwrap();
    format!("{signed}.{}", base64url(signature))
}

#[test]
fn the_issuer_of_a_token_judges_it_by_its_own_settings() {
    let prod = both().verify(&token(&claims()), None, at(NOW)).unwrap();
    assert_eq!(&*prod.principal.name, "User:orders-service");
    assert_eq!(prod.session_max, Some(Duration::from_secs(60)));
    let partner = both()
        .verify(&partner_token(|_| {}), None, at(NOW))
        .unwrap();
    assert_eq!(&*partner.principal.name, "User:partner-orders-service");
    assert_eq!(partner.session_max, None);
    // The audience of the one is not good for the other.
    let wrong = partner_token(|claims| claims["aud"] = json!("kafka"));
    assert_eq!(
        both().verify(&wrong, None, at(NOW)),
        Err(TokenError::Audience)
    );
    let wrong = token(&claims_with("aud", json!("partner-kafka")));
    assert_eq!(
        both().verify(&wrong, None, at(NOW)),
        Err(TokenError::Audience)
    );
}

#[test]
fn naming_another_issuer_does_not_borrow_its_trust() {
    // Given tokens of each issuer that claim to be the other's
    let posing = partner_token(|claims| {
        claims["iss"] = json!(PROD);
        claims["aud"] = json!("kafka");
    });
    assert_eq!(
        both().verify(&posing, None, at(NOW)),
        Err(TokenError::Signature)
    );
    let mut claims = claims_with("iss", json!(PARTNER));
    claims["aud"] = json!("partner-kafka");
    let posing = token(&claims);
    assert_eq!(
        both().verify(&posing, None, at(NOW)),
        Err(TokenError::Signature)
    );
}

#[test]
fn an_unknown_issuer_is_refused_whoever_signed() {
    for iss in [
        json!("https://evil.example"),
        json!(""),
        json!(null),
        json!([PROD, PARTNER]),
        json!(format!("{PROD} ")),
    ] {
        let token = token(&claims_with("iss", iss.clone()));
        assert_eq!(
            both().verify(&token, None, at(NOW)),
            Err(TokenError::Issuer),
            "{iss}"
        );
    }
    let nameless = token(&claims_without("iss"));
    assert_eq!(
        both().verify(&nameless, None, at(NOW)),
        Err(TokenError::Issuer)
    );
}

#[test]
fn a_second_issuer_in_one_token_is_no_choice() {
    let text = claims().to_string();
    let twice = format!("{{\"iss\":\"{PARTNER}\",{}", &text[1..]);
    let token = token_of_text(r#"{"alg":"RS256","kid":"rsa"}"#, &twice);
    assert_eq!(
        both().verify(&token, None, at(NOW)),
        Err(TokenError::Duplicate)
    );
    let long = "x".repeat(16 * 1024 + 1);
    assert_eq!(both().verify(&long, None, at(NOW)), Err(TokenError::Long));
}

#[test]
fn a_prefix_does_not_make_a_bad_name_good() {
    let with = |prefix: &str, name: &str| {
        let settings = TokenSettings {
            principal_prefix: prefix.into(),
            ..settings()
        };
        let verifier = Verifier::new(&settings, &jwks().to_string()).unwrap();
        let token = token(&claims_with("sub", json!(name)));
        verifier
            .verify(&token, None, at(NOW))
            .map(|proven| proven.name.to_string())
    };
    assert_eq!(with("p-", "a"), Ok("User:p-a".to_owned()));
    for (prefix, name) in [
        ("p-", ""),
        ("p-", "*"),
        ("p-", " "),
        ("p-", "a\n"),
        ("p-", "spiffe://prod/a"),
        ("spiffe:", "//prod/a"),
        ("SPIFFE:/", "/prod/a"),
    ] {
        assert_eq!(
            with(prefix, name),
            Err(TokenError::Principal),
            "{prefix} {name}"
        );
    }
}
