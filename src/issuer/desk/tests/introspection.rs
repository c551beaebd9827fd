//! Introspection: how long an answer is believed, and how many questions there can be.

use super::*;
use crate::clock;
use crate::identity::issuers::AskToken as _;
use crate::identity::json::parse_object;
use crate::identity::token::TokenError;
use crate::issuer::introspection::{ANSWERS_MAX, Kept, QUESTIONS_MAX};
use crate::secret::Secret;

fn asker(url: &Url, secret: &Path) -> Arc<Introspector> {
    let settings = Introspection {
        url: url.clone(),
        ca: None,
        client_id: "kor don".into(),
        client_secret: Secret::File(secret.to_owned()),
        cache_for: Duration::from_secs(60),
    };
    let metrics = recorder().issuer("tokens", "https://idp.example");
    Arc::new(Introspector::new(settings, metrics, health().0))
}

async fn idp(answer: &Value) -> (Idp, Arc<Introspector>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "p+w\n").unwrap();
    let idp = Idp::start(ok(&answer.to_string())).await;
    let asker = asker(&idp.url, &secret);
    (idp, asker, dir)
}

fn active() -> Value {
    let soon = clock::since_epoch(clock::wall()).as_secs() + 3_600;
    json!({"active": true, "sub": "orders", "exp": soon})
}

#[tokio::test]
async fn a_question_is_asked_as_the_rfc_says_and_its_answer_kept() {
    let (idp, asker, _dir) = idp(&active()).await;
    for _ in 0..3 {
        let claims = asker.ask("to/ken").await.unwrap();
        assert_eq!(claims.text("sub"), Some("orders"));
    }
    assert_eq!(idp.count(), 1);
    let request = idp.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /path HTTP/1.1\r\n"), "{request}");
    // `kor+don:p%2Bw`, both form-encoded and joined.
    let basic = "authorization: Basic a29yK2RvbjpwJTJCdw==\r\n";
    assert!(request.contains(basic), "{request}");
    let form = "\r\n\r\ntoken=to%2Fken&token_type_hint=access_token";
    assert!(request.ends_with(form), "{request}");
    // Another token is another question.
    asker.ask("other").await.unwrap();
    assert_eq!(idp.count(), 2);
    assert!(!format!("{asker:?}").contains("ken"));
}

#[tokio::test]
async fn what_is_no_good_is_remembered_for_a_moment() {
    let (idp, asker, _dir) = idp(&json!({"active": false})).await;
    for _ in 0..50 {
        assert_eq!(asker.ask("bad").await, Err(TokenError::Inactive));
    }
    assert_eq!(idp.count(), 1);
}

#[tokio::test]
async fn an_answer_is_believed_until_its_token_expires() {
    let (_idp, asker, _dir) = idp(&json!({})).await;
    let kept_for = |answer: Value| {
        let text = answer.to_string();
        let claims = parse_object(text.as_bytes()).unwrap();
        let kept = asker.kept(claims.into_owned());
        kept.until
            .saturating_duration_since(clock::now())
            .as_secs_f64()
            .ceil()
    };
    let now = clock::since_epoch(clock::wall()).as_secs();
    assert_eq!(kept_for(json!({"active": true, "exp": now + 3_600})), 60.0);
    let left = kept_for(json!({"active": true, "exp": now + 30}));
    assert!((28.0..=30.0).contains(&left), "{left}");
    for exp in [json!(now - 5), json!("soon"), json!(null), json!(-1)] {
        assert_eq!(kept_for(json!({"active": true, "exp": exp})), 0.0, "{exp}");
    }
    let inactive = kept_for(json!({"active": false, "exp": now + 3_600}));
    assert!((4.0..=5.0).contains(&inactive), "{inactive}");
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_lets_nobody_in() {
    let (idp, asker, dir) = idp(&active()).await;
    let mut tokens = 0;
    let mut ask = async || {
        tokens += 1;
        asker.ask(&format!("token{tokens}")).await.map(|_| ())
    };
    for answer in [
        String::new(),
        "HTTP/1.1 401 X\r\ncontent-length: 15\r\n\r\n{\"active\":true}".into(),
        ok(""),
        ok("{}"),
        ok("[true]"),
        ok(r#"{"active":"true"}"#),
        ok(r#"{"active":1}"#),
        ok(r#"{"active":false,"active":true}"#),
        ok(&format!("{{\"active\":true{}}}", " ".repeat(32 * 1024))),
    ] {
        idp.answers(answer.clone());
        assert_eq!(ask().await, Err(TokenError::Unasked), "{answer:.60}");
    }
    idp.answers(ok(&active().to_string()));
    assert_eq!(ask().await, Ok(()));
    // Nobody may ask without the secret.
    std::fs::remove_file(dir.path().join("secret")).unwrap();
    assert_eq!(ask().await, Err(TokenError::Unasked));
    // What is known is still known.
    assert!(asker.ask("token10").await.is_ok());
}

#[tokio::test]
async fn all_who_bring_one_token_share_one_question_whoever_leaves() {
    let (idp, asker, _dir) = idp(&active()).await;
    idp.open.send_replace(false);
    let ask = || {
        let asker = Arc::clone(&asker);
        tokio::spawn(async move { asker.ask("token").await.map(|_| ()) })
    };
    let first = ask();
    until("a question", || idp.count() == 1).await;
    let others: Vec<_> = (0..50).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    assert_eq!(idp.count(), 1);
    // The one who asks goes away: one of the others asks again, and one only.
    first.abort();
    until("a second question", || idp.count() == 2).await;
    idp.open.send_replace(true);
    for one in others {
        assert_eq!(one.await.unwrap(), Ok(()));
    }
    assert_eq!(idp.count(), 2);
}

#[tokio::test]
async fn there_are_only_so_many_questions_at_once() {
    let (idp, asker, _dir) = idp(&active()).await;
    idp.open.send_replace(false);
    let asking: Vec<_> = (0..QUESTIONS_MAX)
        .map(|number| {
            let asker = Arc::clone(&asker);
            tokio::spawn(async move { asker.ask(&number.to_string()).await.map(|_| ()) })
        })
        .collect();
    until("all questions", || idp.count() == QUESTIONS_MAX).await;
    assert_eq!(asker.ask("more").await, Err(TokenError::Busy));
    idp.open.send_replace(true);
    for one in asking {
        assert_eq!(one.await.unwrap(), Ok(()));
    }
    // It was refused for that moment only.
    assert!(asker.ask("more").await.is_ok());
}

#[tokio::test]
async fn a_flood_of_bad_tokens_does_not_push_out_the_good_ones() {
    let (idp, asker, _dir) = idp(&active()).await;
    asker.ask("good").await.unwrap();
    // However long it takes to fill the table.
    let until = clock::now() + Duration::from_secs(3600);
    for number in 0..2 * ANSWERS_MAX as u64 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        let bad = Kept {
            outcome: Err(TokenError::Inactive),
            until,
        };
        let cell = asker.cell(digest, clock::now());
        assert!(cell.set(bad).is_ok());
    }
    assert_eq!(asker.answers.lock().unwrap().len(), ANSWERS_MAX);
    asker.ask("good").await.unwrap();
    assert_eq!(idp.count(), 1);
}
