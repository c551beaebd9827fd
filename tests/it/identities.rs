//! Clients of one proxy whom the broker knows under different names (`upstream.identities`).

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use kordon::demo::client::Client;

use crate::support::*;

/// A broker that knows four users, and a proxy that is `kordon` to it, and others for some.
fn lab(rules: &Arc<Rules>, identities: &str, files: Vec<(&'static str, String)>) -> Lab {
    Lab::with(|setup| {
        setup.gate = Some(Arc::clone(rules));
        setup.upstream = format!(
            ", sasl: {}, identities: [{identities}]",
            user("kordon", "password")
        );
        setup.files = files;
        setup.files.push(("password", "s3cret, =pass\n".into()));
        setup.files.push(("other", "else".into()));
    })
}

fn user(name: &str, password: &str) -> String {
    format!("{{plain: {{username: {name}, password: {{file: {password}}}}}}}")
}

fn rules(lifetime_ms: i64) -> Arc<Rules> {
    let mut rules = Rules::default();
    let known = ["alice-b", "listener-b"].map(|name| (name, "else"));
    rules.users.extend(known);
    rules.lifetime_ms = lifetime_ms.into();
    Arc::new(rules)
}

async fn writes(client: &mut Client) -> i16 {
    let answer = client.produce("open.a", 0, batch(&[b"x"])).await.unwrap();
    part(&answer, "open.a", 0).error_code
}

/// Under which name the broker meets a client that writes once. The proxy's own questions, which
/// come in between, are `kordon`'s.
async fn met(rules: &Rules, client: &mut Client) -> Vec<String> {
    rules.names.lock().unwrap().clear();
    assert_eq!(writes(client).await, 0);
    let mut names = rules.names.lock().unwrap().clone();
    names.dedup();
    names
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not {what} in time");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn both() -> String {
    format!(
        "{{listeners: [tokens], sasl: {}}}, {{principals: [\"User:alice\"], sasl: {}}}",
        user("listener-b", "other"),
        user("alice-b", "other")
    )
}

#[tokio::test]
async fn two_principals_of_one_listener_reach_the_broker_under_two_names() {
    let rules = rules(0);
    let lab = lab(&rules, &both(), Vec::new());
    // The proxy's own questions are asked under the default's name.
    assert!(
        rules
            .names
            .lock()
            .unwrap()
            .iter()
            .all(|name| name == "kordon")
    );
    let mut alice = lab.authenticated("alice").await;
    let mut other = lab.authenticated("other").await;
    let mut app = lab.app().await;
    assert!(
        met(&rules, &mut alice)
            .await
            .contains(&"alice-b".to_owned())
    );
    let names = met(&rules, &mut other).await;
    assert!(names.contains(&"listener-b".to_owned()), "{names:?}");
    assert!(!names.contains(&"alice-b".to_owned()), "{names:?}");
    // Who is named nowhere is everybody.
    assert_eq!(met(&rules, &mut app).await, ["kordon"]);
}

#[tokio::test]
async fn sessions_are_renewed_under_the_name_they_were_opened_with() {
    let rules = rules(1_300);
    let lab = lab(&rules, &both(), Vec::new());
    let mut alice = lab.authenticated("alice").await;
    assert_eq!(writes(&mut alice).await, 0);
    let begun = Instant::now();
    rules.names.lock().unwrap().clear();
    while rules.renewed.load(SeqCst) < 2 {
        assert!(begun.elapsed() < PATIENCE, "not renewed in time");
        // The client proves itself again, and stays whom it was to the broker.
        assert_eq!(say_token(&mut alice, &token("alice")).await.error_code, 0);
        assert_eq!(writes(&mut alice).await, 0);
        tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    }
    assert_eq!(rules.expired.load(SeqCst), 0);
    let names = rules.renewed_names.lock().unwrap().clone();
    assert!(names.len() >= 2, "{names:?}");
    assert!(names.iter().all(|name| name == "alice-b"), "{names:?}");
}

#[tokio::test]
async fn without_a_token_for_one_the_others_are_served() {
    let endpoint = Endpoint::start(3_600);
    endpoint.is_down.store(true, SeqCst);
    let rules = rules(0);
    let bearer = format!(
        "{{principals: [\"User:alice\"], sasl: {{oauthbearer: {{tokenEndpoint: \
         \"http://{}/token\", clientId: alice-client, clientSecret: {{file: other}}}}}}}}",
        endpoint.address
    );
    let lab = lab(&rules, &bearer, Vec::new());
    let subject = "upstream token of principals `User:alice`";
    until("noted", || {
        let (code, text) = lab.http("/readyz").unwrap();
        code == 200 && text.contains(subject)
    })
    .await;
    let mut app = lab.app().await;
    assert_eq!(met(&rules, &mut app).await, ["kordon"]);
    let mut alice = lab.authenticated("alice").await;
    // Nobody else's name stands in for the missing one.
    assert!(alice.produce("open.a", 0, batch(&[b"x"])).await.is_err());
    assert!(rules.tokens.lock().unwrap().is_empty());
    // Once there is a token, it is served, and the note is gone.
    endpoint.is_down.store(false, SeqCst);
    until("cleared", || {
        !lab.http("/readyz").unwrap().1.contains(subject)
    })
    .await;
    let mut alice = lab.authenticated("alice").await;
    assert_eq!(writes(&mut alice).await, 0);
    assert!(!rules.tokens.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_listeners_clients_may_bring_their_own_tokens() {
    let rules = rules(0);
    let identities = format!(
        "{{listeners: [tokens], sasl: {{forward: true}}}}, \
         {{principals: [\"User:other\"], sasl: {}}}",
        user("listener-b", "other")
    );
    let lab = lab(&rules, &identities, Vec::new());
    let own = token("alice");
    let mut alice = lab.client("tokens").await;
    assert_eq!(say_token(&mut alice, &own).await.error_code, 0);
    assert_eq!(writes(&mut alice).await, 0);
    assert_eq!(*rules.tokens.lock().unwrap(), [own]);
    // A principal goes before its listener: this token stays here.
    let mut other = lab.authenticated("other").await;
    assert_eq!(writes(&mut other).await, 0);
    assert_eq!(rules.tokens.lock().unwrap().len(), 1);
    assert!(
        rules
            .names
            .lock()
            .unwrap()
            .contains(&"listener-b".to_owned())
    );
}

#[tokio::test]
async fn the_status_tells_under_which_names_and_no_secret() {
    let rules = rules(0);
    let lab = lab(&rules, &both(), Vec::new());
    let status = lab.http("/api/status").unwrap().1;
    let json: serde_json::Value = serde_json::from_str(&status).unwrap();
    let expected = serde_json::json!([
        {"whose": "everybody", "mechanism": "PLAIN", "name": "kordon"},
        {"whose": "listeners", "names": ["tokens"], "mechanism": "PLAIN", "name": "listener-b"},
        {"whose": "principals", "names": ["User:alice"], "mechanism": "PLAIN", "name": "alice-b"},
    ]);
    assert_eq!(json["upstream"], expected);
    let page = lab.http("/").unwrap().1;
    for text in [&status, &page] {
        assert!(text.contains("listener-b") && text.contains("alice-b"));
        assert!(!text.contains("s3cret") && !text.contains("\"else\""));
    }
}
