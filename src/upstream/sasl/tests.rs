//! The conversation message by message, with a broker made of answers.

use super::*;
use crate::apis;
use crate::clock;
use crate::wire::tree::StructNode;

fn answer(key: i16, version: i16, fill: impl FnOnce(&mut StructNode)) -> Bytes {
    let api = apis::lookup(key).unwrap();
    let layout = api.layout().unwrap();
    let mut response = StructNode::new(&layout.response.body);
    fill(&mut response);
    let mut out = bytes::BytesMut::new();
    let flexible = api.response_header_flexible(version);
    crate::wire::header::write_response(CORRELATION_ID, flexible, &mut out);
    let body = crate::wire::tree::encode_to_bytes(&response, &layout.response, version);
    out.extend_from_slice(&body);
    out.freeze()
}

fn versions(max: i64) -> Bytes {
    answer(API_VERSIONS, 0, |response| {
        let mut row = response.element("ApiKeys");
        row.set_int("ApiKey", SASL_AUTHENTICATE.into());
        row.set_int("MaxVersion", max);
        response.structs_mut("ApiKeys").push(row);
    })
}

fn authenticated(version: i16, fill: impl FnOnce(&mut StructNode)) -> Bytes {
    answer(SASL_AUTHENTICATE, version, fill)
}

/// A conversation of which the broker has agreed to the mechanism.
async fn agreed(credentials: &Credentials, max: i64) -> (Exchange, Bytes) {
    let proof = credentials.proof(Duration::ZERO).await.unwrap();
    let (mut exchange, _) = Exchange::first(proof).unwrap();
    exchange.versions(&versions(max)).unwrap();
    match exchange.step(&answer(SASL_HANDSHAKE, 1, |_| {})).unwrap() {
        Step::Send(frame) => (exchange, frame),
        Step::Done(_) => panic!("no message was sent"),
    }
}

fn bearer() -> Credentials {
    let later = clock::wall() + Duration::from_secs(60);
    Credentials::Forwarded(Token::new("t.o.k", later))
}

#[tokio::test]
async fn the_highest_version_that_both_know_is_spoken() {
    for (max, version) in [(0, 0), (1, 1), (2, 2), (9, 2)] {
        let (mut exchange, frame) = agreed(&bearer(), max).await;
        assert_eq!(frame[4..8], [0, 36, 0, version]);
        let good = authenticated(version.into(), |response| {
            response.set_int("SessionLifetimeMs", 5_000);
        });
        let Step::Done(granted) = exchange.step(&good).unwrap() else {
            panic!("not done");
        };
        // Version 0 has no place for it.
        let lifetime = (version > 0).then_some(Duration::from_secs(5));
        assert_eq!(granted.lifetime, lifetime);
    }
    let proof = bearer().proof(Duration::ZERO).await.unwrap();
    let (mut exchange, _) = Exchange::first(proof).unwrap();
    let old = answer(API_VERSIONS, 0, |_| {});
    assert_eq!(exchange.versions(&old), Err(SaslFailure::Unexpected));
}

#[tokio::test]
async fn a_mechanism_that_is_not_there_is_named_with_those_that_are() {
    let proof = bearer().proof(Duration::ZERO).await.unwrap();
    let (mut exchange, _) = Exchange::first(proof).unwrap();
    exchange.versions(&versions(2)).unwrap();
    let refused = answer(SASL_HANDSHAKE, 1, |response| {
        response.set_int("ErrorCode", 33);
        let name = Node::Bytes(Some(Bytes::from_static(b"GSSAPI")));
        response.array_mut("Mechanisms").push(name);
    });
    assert_eq!(
        exchange.step(&refused).unwrap_err().to_string(),
        "the broker does not offer OAUTHBEARER, it offers GSSAPI"
    );
}

#[tokio::test]
async fn a_refused_token_is_answered_and_the_refusal_kept() {
    let (mut exchange, _) = agreed(&bearer(), 2).await;
    let challenge = authenticated(2, |response| {
        let text = Bytes::from_static(b"{\"status\":\"invalid_token\"}");
        response.set("AuthBytes", Node::Bytes(Some(text)));
    });
    let Step::Send(abort) = exchange.step(&challenge).unwrap() else {
        panic!("done with a refused token");
    };
    assert!(abort.ends_with(&[2, 1, 0]), "{abort:?}");
    let refused = authenticated(2, |response| {
        response.set_int("ErrorCode", 58);
        response.set_text("ErrorMessage", Some("no\nway"));
    });
    let refusal = Refusal {
        message: "no way".into(),
        challenge: Some("{\"status\":\"invalid_token\"}".into()),
    };
    assert_eq!(
        exchange.step(&refused).unwrap_err(),
        SaslFailure::Refused(refusal)
    );
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "pencil").unwrap();
    let credentials = Credentials::Scram {
        hash: Hash::Sha256,
        username: "user".into(),
        password: Secret::File(path),
    };
    let (mut exchange, frame) = agreed(&credentials, 2).await;
    let text = String::from_utf8_lossy(&frame).into_owned();
    let nonce = text.split("r=").nth(1).unwrap().trim_end_matches('\0');
    let first = format!("r={nonce}more,s=c2FsdA==,i=4096");
    let first = authenticated(2, |response| {
        response.set("AuthBytes", Node::Bytes(Some(first.into())));
    });
    assert!(matches!(exchange.step(&first), Ok(Step::Send(_))));
    let last = authenticated(2, |response| {
        let text = Bytes::from_static(b"v=AAAA");
        response.set("AuthBytes", Node::Bytes(Some(text)));
    });
    assert!(matches!(exchange.step(&last), Err(SaslFailure::Scram(_))));
}

#[test]
fn a_session_is_renewed_near_its_end_and_never_too_soon_after_the_last_time() {
    let now = clock::now();
    let session = |lifetime, credentials| {
        let granted = Granted {
            lifetime,
            version: 2,
        };
        Session::new(credentials, granted, now)
    };
    let hundred = Some(Duration::from_secs(100));
    for _ in 0..50 {
        let session = session(hundred, Credentials::None);
        assert!(!session.is_due(now + Duration::from_secs(84)));
        assert!(session.is_due(now + Duration::from_secs(96)));
        assert_eq!(session.renewable_from(), now + Duration::from_secs(1));
    }
    let far = now + Duration::from_secs(10_000);
    assert!(!session(None, Credentials::None).is_due(far));
    // Under `forward` it is the client that renews.
    assert!(!session(hundred, bearer()).is_due(far));
}
