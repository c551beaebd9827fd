//! Issuers that are asked: for keys, about tokens, and what holds while they are down.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kordon::demo::client::Client;
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

/// What a token of the trusted issuer names as `iss`.
const ISSUER: &str = "https://issuer.example";
const DAY: i64 = 86_400;

/// A lab whose token listener takes its issuer's word from here.
fn lab(source: String) -> Lab {
    Lab::with(|setup| setup.token_source = source)
}

fn jwks(idp: &Idp, cache: Option<&PathBuf>) -> String {
    let cache = cache.map(|path| format!(", cacheFile: \"{}\"", path.display()));
    let cache = cache.unwrap_or_default();
    format!("jwks: {{url: \"{}\"{cache}}}", idp.url("jwks"))
}

/// What the token listener says to a token: nothing, if it is good.
async fn says(lab: &Lab, token: &str) -> String {
    let mut client = lab.client("tokens").await;
    let answer = say_token(&mut client, token).await;
    if !answer.auth_bytes.is_empty() {
        // RFC 7628 §3.2.3: the client's last word, after which the refusal is final.
        let refused = client.call(2, &sasl(&b"\x01"[..])).await.unwrap();
        assert_eq!(refused.error_code, 58);
    }
    String::from_utf8(answer.auth_bytes.to_vec()).unwrap()
}

/// Waits until what the listener says about a token is this.
async fn comes_to_say(lab: &Lab, token: &str, wanted: &str) {
    let begun = Instant::now();
    while says(lab, token).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "not `{wanted}` in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A cache file with the trusted issuer's keys, confirmed so many seconds ago.
fn cache_file(idp: &Idp, age: i64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let kept = json!({
        "issuer": ISSUER, "url": idp.url("jwks"), "confirmed": now() - age,
        "keys": Signer::trusted().jwks.to_string(),
    });
    fs::write(&path, kept.to_string()).unwrap();
    (dir, path)
}

#[tokio::test]
async fn keys_come_from_a_url_and_go_to_the_cache_file() {
    let idp = Idp::new(&Signer::trusted().jwks);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let lab = lab(jwks(&idp, Some(&path)));
    // A client that comes before the keys are here waits for them.
    comes_to_say(&lab, &token("alice"), "").await;
    assert_eq!(idp.key_questions(), 1);
    lab.metric_is("kordon_issuer_keys", &["listener=\"tokens\""], 1.0);
    let labels = ["outcome=\"answered\"", "issuer=\"https://issuer.example\""];
    lab.metric_is("kordon_issuer_questions_total", &labels, 1.0);
    let (_, status) = lab.http("/api/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let issuer = &status["listeners"][2]["issuers"][0];
    assert_eq!(issuer["issuer"], ISSUER);
    assert_eq!(
        (&issuer["keys"], &issuer["tokens"]),
        (&json!(1), &json!("keys from a URL"))
    );
    assert!(issuer["keys_age_seconds"].as_u64().unwrap() < 60);
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < PATIENCE, "no cache file");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(kept["issuer"], ISSUER);
}

/// What `/readyz` says, once it says this as well.
async fn ready_with(lab: &Lab, note: &str) -> String {
    let begun = Instant::now();
    loop {
        let (code, text) = lab.http("/readyz").unwrap();
        if code == 200 && text.contains(note) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "{code} {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_proxy_starts_during_an_outage_with_the_keys_of_the_cache_file() {
    let idp = Idp::new(&json!({}));
    idp.down(true);
    let (_dir, path) = cache_file(&idp, DAY / 2);
    let lab = lab(jwks(&idp, Some(&path)));
    assert_eq!(says(&lab, &token("alice")).await, "");
    // It serves, and says what is wrong.
    let text = ready_with(&lab, "issuers: `https://issuer.example`").await;
    assert!(text.contains("its last keys are used"), "{text}");
    // An answer that is no key set is no better.
    idp.down(false);
    let begun = Instant::now();
    while !lab.http("/readyz").unwrap().1.contains("member `keys`") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", lab.http("/readyz"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(says(&lab, &token("alice")).await, "");
    // It comes back, and a token with an unknown key has it asked at once.
    idp.publish(&Signer::trusted().jwks);
    let unknown = Signer::with_key_id("unknown").token("alice", json!({}));
    assert_eq!(says(&lab, &unknown).await, INVALID_TOKEN);
    let begun = Instant::now();
    while lab.http("/readyz").unwrap().1.contains("issuers") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", lab.http("/readyz"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_any_keys_tokens_are_refused_and_others_served() {
    let idp = Idp::new(&json!({}));
    idp.down(true);
    // Given a cache file that is too old
    let (_dir, path) = cache_file(&idp, DAY);
    let lab = lab(jwks(&idp, Some(&path)));
    assert_eq!(says(&lab, &token("alice")).await, INVALID_TOKEN);
    lab.audit(&[("detail", "no current keys of the issuer")]);
    let answer = lab.app().await.produce("open.a", 0, batch(&[b"x"])).await;
    assert_eq!(part(&answer.unwrap(), "open.a", 0).error_code, 0);
    assert!(
        lab.http("/readyz")
            .unwrap()
            .1
            .contains("its tokens are refused")
    );
    // It needs no restart.
    idp.publish(&Signer::trusted().jwks);
    idp.down(false);
    comes_to_say(&lab, &token("alice"), "").await;
}

#[tokio::test]
async fn keys_of_an_issuer_that_stays_down_are_believed_until_they_are_too_old() {
    let idp = Idp::new(&json!({}));
    idp.down(true);
    let (_dir, path) = cache_file(&idp, DAY - 7);
    let lab = lab(jwks(&idp, Some(&path)));
    assert_eq!(says(&lab, &token("alice")).await, "");
    comes_to_say(&lab, &token("alice"), INVALID_TOKEN).await;
    lab.audit(&[("detail", "no current keys of the issuer")]);
    assert!(idp.key_questions() > 0);
}

#[tokio::test]
async fn a_new_key_is_fetched_for_the_first_token_that_names_it() {
    let (old, new) = (Signer::trusted(), Signer::with_key_id("k2"));
    let idp = Idp::new(&old.jwks);
    let lab = lab(jwks(&idp, None));
    comes_to_say(&lab, &token("alice"), "").await;
    // When the issuer rolls its keys over
    let mut both = old.jwks.clone();
    both["keys"]
        .as_array_mut()
        .unwrap()
        .push(new.jwks["keys"][0].clone());
    idp.publish(&both);
    let token_of_new = new.token("alice", json!({}));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..20 {
        clients.push(lab.client("tokens").await);
    }
    // Then all who come at once are let in, after one question.
    let asking = clients.into_iter().map(|mut client| {
        let token = token_of_new.clone();
        tokio::spawn(async move { say_token(&mut client, &token).await.auth_bytes })
    });
    let begun = Instant::now();
    for one in asking.collect::<Vec<_>>() {
        assert_eq!(&one.await.unwrap()[..], b"");
    }
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(idp.key_questions(), 2);
    assert_eq!(says(&lab, &token("alice")).await, "");
    lab.metric_is("kordon_issuer_keys", &[], 2.0);
}

#[tokio::test]
async fn tokens_with_keys_that_nobody_knows_do_not_cause_a_flood() {
    let idp = Idp::new(&Signer::trusted().jwks);
    let lab = lab(jwks(&idp, None));
    comes_to_say(&lab, &token("alice"), "").await;
    let begun = Instant::now();
    let mut flood = Vec::new();
    for number in 0..40 {
        let forged = Signer::with_key_id(&format!("random-{number}"));
        let forged = forged.token("alice", json!({}));
        let mut client = lab.client("tokens").await;
        flood.push(tokio::spawn(async move {
            say_token(&mut client, &forged).await.auth_bytes
        }));
    }
    for one in flood {
        assert_eq!(&one.await.unwrap()[..], INVALID_TOKEN.as_bytes());
    }
    // One at the start, then one in each pause of ten seconds that has begun.
    let allowed = 2 + begun.elapsed().as_secs() as usize / 10;
    let asked = idp.key_questions();
    assert!(asked <= allowed, "{asked} questions, {allowed} are allowed");
    assert_eq!(says(&lab, &token("alice")).await, "");
}

/// A lab that asks about tokens; its secret stands in a file.
fn asking(idp: &Idp, more: &str) -> (Lab, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "pw\n").unwrap();
    let lab = lab(format!(
        "introspection: {{url: \"{}\", clientId: me, clientSecret: {{file: \"{}\"}}{more}}}",
        idp.url("introspect"),
        secret.display()
    ));
    (lab, dir)
}

#[tokio::test]
async fn an_opaque_token_is_good_if_its_issuer_says_so() {
    let idp = Idp::new(&json!({}));
    idp.know("good", "alice", json!({}));
    idp.know(
        "good-too",
        "mallory",
        json!({"iss": ISSUER, "groups": ["g"]}),
    );
    idp.know("expired", "alice", json!({"exp": now() - 60}));
    idp.know("foreign", "alice", json!({"aud": "other"}));
    idp.know("posing", "alice", json!({"iss": "https://other.example"}));
    idp.know("bound", "alice", json!({"cnf": {"x5t#S256": "x"}}));
    let (lab, _secret) = asking(&idp, "");
    assert_eq!(says(&lab, "good").await, "");
    let mut client = lab.client("tokens").await;
    assert_eq!(client.authenticate("good-too").await.unwrap().error_code, 0);
    let refused = client.produce("open.a", 0, batch(&[b"x"])).await.unwrap();
    assert_eq!(part(&refused, "open.a", 0).error_code, 29);
    let line = lab.audit(&[("principal", "User:mallory")]);
    assert_eq!(line["tenant"], "shop");
    for bad in ["expired", "foreign", "posing", "bound", "unknown"] {
        assert_eq!(says(&lab, bad).await, INVALID_TOKEN, "{bad}");
    }
    lab.audit(&[("detail", "the issuer says that the token is not active")]);
    // A signed token of the same issuer is worth what the issuer says, not its signature.
    assert_eq!(says(&lab, &token("alice")).await, INVALID_TOKEN);
    idp.know(&token("bob"), "bob", json!({}));
    assert_eq!(idp.token_questions(), 8);
}

#[tokio::test]
async fn an_issuer_is_not_asked_again_and_again() {
    let idp = Idp::new(&json!({}));
    idp.know("good", "alice", json!({}));
    let (lab, _secret) = asking(&idp, "");
    for _ in 0..5 {
        assert_eq!(says(&lab, "good").await, "");
    }
    assert_eq!(idp.token_questions(), 1);
    // What is known stays known while the issuer is down; nobody else is let in.
    idp.down(true);
    assert_eq!(says(&lab, "good").await, "");
    idp.know("other", "alice", json!({}));
    assert_eq!(says(&lab, "other").await, INVALID_TOKEN);
    lab.audit(&[("detail", "the issuer could not be asked")]);
    let begun = Instant::now();
    while !lab.http("/readyz").unwrap().1.contains("introspection.url") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", lab.http("/readyz"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    idp.down(false);
    comes_to_say(&lab, "other", "").await;
}

#[tokio::test]
async fn without_a_cache_each_connection_is_a_question() {
    let idp = Idp::new(&json!({}));
    idp.know("good", "alice", json!({}));
    let (lab, _secret) = asking(&idp, ", cacheFor: 0s");
    for asked in 1..4 {
        assert_eq!(says(&lab, "good").await, "");
        assert_eq!(idp.token_questions(), asked);
    }
    // Revoked.
    idp.know("good", "alice", json!({"active": false}));
    assert_eq!(says(&lab, "good").await, INVALID_TOKEN);
}

#[tokio::test]
async fn an_issuer_proves_who_it_is_before_its_keys_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, other) = (Pki::new(), Pki::named("other"));
    pki.write(dir.path());
    fs::write(dir.path().join("other.pem"), &other.ca).unwrap();
    let idp = Idp::with_tls(&Signer::trusted().jwks, dir.path());
    let source = |ca: &str| {
        let ca = dir.path().join(ca);
        format!(
            "jwks: {{url: \"{}\", ca: \"{}\"}}",
            idp.url("jwks"),
            ca.display()
        )
    };
    let good = lab(source("ca.pem"));
    comes_to_say(&good, &token("alice"), "").await;
    let bad = lab(source("other.pem"));
    assert_eq!(says(&bad, &token("alice")).await, INVALID_TOKEN);
    let begun = Instant::now();
    while !bad.http("/readyz").unwrap().1.contains("tls handshake") {
        assert!(begun.elapsed() < PATIENCE, "{:?}", bad.http("/readyz"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(idp.key_questions(), 1);
}
