//! Several issuers on one listener: which of them judges, and how names are kept apart.

use super::*;
use std::sync::atomic::AtomicUsize;

use crate::identity::issuers::{AskKeys, AskToken, Asked, Issuer, Issuers, Pending};
use crate::identity::json::parse_object;

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

/// Answers with `answer` when asked about a token.
#[derive(Debug)]
struct Says(Result<Value, TokenError>, AtomicUsize);

impl AskToken for Says {
    fn ask<'a>(&'a self, _: &'a str) -> Pending<'a, Result<Arc<Object<'static>>, TokenError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.clone();
        Box::pin(async move {
            let text = answer?.to_string();
            Ok(Arc::new(
                parse_object(text.as_bytes()).unwrap().into_owned(),
            ))
        })
    }
}

/// Brings these keys when asked for newer ones.
#[derive(Debug)]
struct Brings(Arc<Verifier>, Option<String>, AtomicUsize);

impl AskKeys for Brings {
    fn newer(&self, than: u64) -> Pending<'_, bool> {
        self.2.fetch_add(1, Ordering::Relaxed);
        if let Some(keys) = &self.1 {
            self.0.replace_keys(keys).unwrap();
        }
        Box::pin(async move { self.0.generation() != than })
    }
}

fn wall() -> SystemTime {
    at(NOW)
}

/// An issuer with these keys of its own that can bring others.
fn bringing(keys: Option<&Value>, newer: Option<&Value>) -> (Issuers, Arc<Brings>) {
    let verifier = Arc::new(Verifier::without_keys(&settings()).unwrap());
    if let Some(keys) = keys {
        verifier.replace_keys(&keys.to_string()).unwrap();
    }
    let newer = newer.map(ToString::to_string);
    let brings = Arc::new(Brings(Arc::clone(&verifier), newer, AtomicUsize::new(0)));
    let issuer = Issuer {
        verifier,
        asked: Some(Asked::Keys(Arc::clone(&brings) as _)),
    };
    (Issuers::asking(vec![issuer], 16 * 1024), brings)
}

/// `PROD` with keys, and `PARTNER` that says this about tokens.
fn saying(answer: Result<Value, TokenError>) -> (Issuers, Arc<Says>) {
    let says = Arc::new(Says(answer, AtomicUsize::new(0)));
    let partner = TokenSettings {
        issuer: PARTNER.into(),
        ..settings()
    };
    let asked = Issuer {
        verifier: Arc::new(Verifier::without_keys(&partner).unwrap()),
        asked: Some(Asked::Token(Arc::clone(&says) as _)),
    };
    let prod = Issuer {
        verifier: Arc::new(verifier()),
        asked: None,
    };
    (Issuers::asking(vec![prod, asked], 16 * 1024), says)
}

/// What the partner answers about a good token.
fn answer() -> Value {
    let mut answer = claims_without("iss");
    answer["active"] = json!(true);
    answer.as_object_mut().unwrap().remove("iat");
    answer
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_and_a_known_one_is_not() {
    let others = json!({"keys": [ec_jwk("p256", "P-256", &KEYS.p256)]});
    let good = token(&claims());
    for (keys, newer, asked, outcome) in [
        (Some(jwks()), None, 0, Ok(())),
        (Some(others.clone()), Some(jwks()), 1, Ok(())),
        (None, Some(jwks()), 1, Ok(())),
        (Some(others.clone()), None, 1, Err(TokenError::Key)),
        (Some(others.clone()), Some(others), 1, Err(TokenError::Key)),
        (None, None, 1, Err(TokenError::NoKeys)),
    ] {
        let (issuers, brings) = bringing(keys.as_ref(), newer.as_ref());
        let found = issuers.prove(&good, None, wall).await;
        assert_eq!(found.map(|_| ()), outcome, "{keys:?} {newer:?}");
        assert_eq!(
            brings.2.load(Ordering::Relaxed),
            asked,
            "{keys:?} {newer:?}"
        );
    }
    // Newer keys would not make any other token good.
    let (issuers, brings) = bringing(Some(&jwks()), Some(&jwks()));
    let expired = token(&claims_with("exp", json!(NOW - 60)));
    let found = issuers.prove(&expired, None, wall).await;
    assert_eq!(found, Err(TokenError::Expired));
    let opaque = issuers.prove("opaque", None, wall).await;
    assert_eq!(opaque, Err(TokenError::Malformed));
    assert_eq!(brings.2.load(Ordering::Relaxed), 0);
}

#[test]
fn keys_are_believed_until_their_end_and_bad_ones_replace_nothing() {
    let verifier = Verifier::without_keys(&settings()).unwrap();
    let good = token(&claims());
    let verdict = |now| verifier.verify(&good, None, at(now)).map(|_| ());
    assert_eq!(verdict(NOW), Err(TokenError::NoKeys));
    let keys = jwks().to_string();
    let end = at(NOW + 10);
    verifier.replace_keys_until(&keys, at(NOW), end).unwrap();
    assert_eq!(verifier.keys_confirmed(), Some(at(NOW)));
    assert_eq!(verdict(NOW + 9), Ok(()));
    assert_eq!(verdict(NOW + 10), Err(TokenError::NoKeys));
    let before = verifier.generation();
    for bad in ["", "{}", r#"{"keys":[]}"#] {
        assert!(verifier.replace_keys(bad).is_err());
    }
    assert_eq!(verifier.generation(), before);
    assert_eq!(verdict(NOW + 9), Ok(()));
    verifier.replace_keys(&keys).unwrap();
    assert_ne!(verifier.generation(), before);
    assert_eq!(verdict(NOW + 100), Ok(()));
}

#[tokio::test]
async fn an_opaque_token_is_what_its_issuer_says() {
    let (issuers, says) = saying(Ok(answer()));
    // Dots and base64 do not make a token signed.
    let texts = ["opaque", "a.b", "a.b.c", "e30.e30", "1.2.3.4.5"];
    for (asked, text) in texts.iter().enumerate() {
        let proven = issuers.prove(text, None, wall).await.unwrap();
        assert_eq!(&*proven.principal.name, "User:orders-service", "{text}");
        assert_eq!(proven.principal.expires_at, Some(at(NOW + 300)));
        assert_eq!(says.1.load(Ordering::Relaxed), asked + 1);
    }
    // A JWT goes to whom it names, whatever its signature.
    let named = token(&claims_with("iss", json!(PARTNER)));
    assert!(issuers.prove(&named, None, wall).await.is_ok());
    assert_eq!(says.1.load(Ordering::Relaxed), texts.len() + 1);
    assert!(issuers.prove(&token(&claims()), None, wall).await.is_ok());
    let unknown = token(&claims_with("iss", json!("https://evil.example")));
    let nameless = token(&claims_without("iss"));
    let twice = token_of_text("{}", r#"{"iss":"a","iss":"b"}"#);
    let long = "x".repeat(16 * 1024 + 1);
    for (text, why) in [
        (unknown, TokenError::Issuer),
        (nameless, TokenError::Issuer),
        (twice, TokenError::Duplicate),
        (long, TokenError::Long),
    ] {
        assert_eq!(issuers.prove(&text, None, wall).await, Err(why));
    }
    assert_eq!(says.1.load(Ordering::Relaxed), texts.len() + 1);
    // Nobody is asked where nobody waits.
    let unasked = issuers.verify("opaque", None, wall());
    assert_eq!(unasked, Err(TokenError::Unasked));
}

#[tokio::test]
async fn an_answer_must_fulfil_what_a_signed_token_must() {
    let set = |name: &str, value: Value| {
        let mut answer = answer();
        answer[name] = value;
        answer
    };
    let without = |name: &str| {
        let mut answer = answer();
        answer.as_object_mut().unwrap().remove(name);
        answer
    };
    for good in [answer(), set("iss", json!(PARTNER)), set("iat", json!(NOW))] {
        let (issuers, _) = saying(Ok(good.clone()));
        assert!(issuers.prove("opaque", None, wall).await.is_ok(), "{good}");
    }
    let cnf = json!({"x5t#S256": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"});
    for (answer, why) in [
        (set("active", json!(false)), TokenError::Inactive),
        (set("active", json!("true")), TokenError::Inactive),
        (without("active"), TokenError::Inactive),
        (set("iss", json!(PROD)), TokenError::Issuer),
        (set("iss", json!(null)), TokenError::Issuer),
        (without("aud"), TokenError::Audience),
        (set("aud", json!(["other"])), TokenError::Audience),
        (without("exp"), TokenError::Date),
        (set("exp", json!(NOW - 30)), TokenError::Expired),
        (set("iat", json!(NOW + 31)), TokenError::Early),
        (set("iat", json!("now")), TokenError::Date),
        (set("nbf", json!(NOW + 31)), TokenError::Early),
        (set("scope", json!("openid")), TokenError::Scope),
        (set("typ", json!("Refresh")), TokenError::Type),
        (set("cnf", cnf.clone()), TokenError::Binding),
        (without("sub"), TokenError::Principal),
        (set("tenant_id", json!(7)), TokenError::Tenant),
    ] {
        let (issuers, _) = saying(Ok(answer.clone()));
        let found = issuers.prove("opaque", None, wall).await;
        assert_eq!(found, Err(why), "{answer}");
    }
    let (issuers, _) = saying(Ok(set("cnf", cnf)));
    let mine = Thumbprint::of(b"");
    let bound = issuers.prove("opaque", Some(&mine), wall).await;
    assert!(bound.is_ok(), "{bound:?}");
    for error in [TokenError::Unasked, TokenError::Busy] {
        let (issuers, _) = saying(Err(error.clone()));
        assert_eq!(issuers.prove("opaque", None, wall).await, Err(error));
    }
}
