//! What a token endpoint may answer, and what is made of it.

use std::time::UNIX_EPOCH;

use serde_json::json;

use super::*;

const ASKED: SystemTime = UNIX_EPOCH;

fn lifetime(body: Value) -> Result<u64, FetchError> {
    let token = read_token(&body, ASKED)?;
    Ok(clock::since_epoch(token.expires()).as_secs())
}

fn jwt(claims: Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn a_token_ends_when_the_endpoint_says_or_else_when_it_says_itself() {
    let token = jwt(json!({"exp": 700}));
    let good = |more: Value| {
        let mut body = json!({"access_token": token, "token_type": "bearer"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        lifetime(body).unwrap()
    };
    assert_eq!(good(json!({"expires_in": 60})), 60);
    assert_eq!(good(json!({"expires_in": "60"})), 60);
    assert_eq!(good(json!({})), 700);
    assert_eq!(good(json!({"expires_in": -1})), 700);
    assert_eq!(good(json!({"expires_in": 1e300})), LIFETIME_MAX.as_secs());
    let unknown = json!({"access_token": "opaque"});
    assert_eq!(lifetime(unknown).unwrap(), LIFETIME_UNKNOWN.as_secs());
}

#[test]
fn what_is_no_bearer_token_is_refused() {
    for body in [
        json!({}),
        json!({"access_token": 5}),
        json!({"access_token": ""}),
        json!({"access_token": "a\u{1}auth=Bearer b"}),
        json!({"access_token": "a", "token_type": "DPoP"}),
    ] {
        assert!(lifetime(body.clone()).is_err(), "{body}");
    }
}

#[test]
fn an_error_shows_a_code_and_nothing_else_of_the_answer() {
    let code = |body: Value| error_code(Some(&body));
    assert_eq!(
        code(json!({"error": "invalid_client"})),
        " (invalid_client)"
    );
    assert_eq!(code(json!({"error": "it is <secret>"})), "");
    assert_eq!(error_code(None), "");
    let token = Token::new("hush", ASKED);
    assert!(!format!("{token:?}").contains("hush"));
}

#[tokio::test]
async fn who_waits_for_a_token_waits_no_longer_than_allowed_and_gets_none_that_has_ended() {
    let settings = TokenSettings {
        endpoint: Url::parse("http://127.0.0.1:1/").unwrap(),
        client_id: "me".into(),
        scope: None,
        audience: None,
        ca: None,
        proof: ClientProof::Secret(Secret::Variable("KORDON_SURELY_UNSET".into())),
    };
    let (source, tokens) = TokenSource::new(settings);
    let short = Duration::from_millis(20);
    assert!(tokens.wait(short).await.is_none());
    source.newest.send_replace(Some(Token::new("old", ASKED)));
    assert!(tokens.wait(short).await.is_none() && tokens.current().is_none());
    let waiting = tokens.clone();
    let waiting = tokio::spawn(async move { waiting.wait(Duration::from_secs(60)).await });
    let later = clock::wall() + Duration::from_secs(60);
    source.newest.send_replace(Some(Token::new("new", later)));
    assert_eq!(waiting.await.unwrap().unwrap().text(), "new");
    assert!(matches!(source.fetch().await, Err(FetchError::Secret(_))));
}
