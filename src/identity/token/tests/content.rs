//! What a token says of its issuer, its audience, its time and its subject, and what it must not.

use super::*;

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
