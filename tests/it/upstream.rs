//! A broker that asks the proxy who it is: by SASL, with sessions that end (KIP-368).

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use kordon::demo::client::{Client, fetch_request};

use crate::support::*;

const PLAIN: &str = ", sasl: {plain: {username: kordon, password: {file: password}}}";

fn rules(change: impl FnOnce(&mut Rules)) -> Arc<Rules> {
    let mut rules = Rules::default();
    change(&mut rules);
    Arc::new(rules)
}

/// A lab whose broker asks for SASL.
fn gated(rules: &Arc<Rules>, sasl: &str) -> Lab {
    Lab::with(|setup| {
        setup.gate = Some(Arc::clone(rules));
        setup.upstream = sasl.to_owned();
        setup.files = vec![
            ("password", "s3cret, =pass\n".into()),
            ("secret", "hush".into()),
        ];
    })
}

fn bearer(endpoint: &Endpoint) -> String {
    format!(
        ", sasl: {{oauthbearer: {{tokenEndpoint: \"http://{}/token\", clientId: \"a b\", \
         clientSecret: {{file: secret}}, scope: kafka}}}}",
        endpoint.address
    )
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn writes(client: &mut Client) -> i16 {
    let answer = client.produce("open.a", 0, batch(&[b"x"])).await.unwrap();
    part(&answer, "open.a", 0).error_code
}

#[tokio::test]
async fn each_mechanism_opens_the_broker() {
    let scram = |which: &str| PLAIN.replace("plain", which);
    for sasl in [PLAIN.to_owned(), scram("scramSha256"), scram("scramSha512")] {
        let rules = rules(|_| {});
        let lab = gated(&rules, &sasl);
        assert_eq!(writes(&mut lab.app().await).await, 0, "{sasl}");
        assert!(
            rules.opened.load(SeqCst) >= 2,
            "the proxy's own and the client's"
        );
    }
}

#[tokio::test]
async fn a_token_is_fetched_and_a_new_one_before_it_ends() {
    let endpoint = Endpoint::start(2);
    let rules = rules(|_| {});
    let lab = gated(&rules, &bearer(&endpoint));
    assert_eq!(writes(&mut lab.app().await).await, 0);
    {
        let asked = endpoint.asked.lock().unwrap();
        // `a+b:hush`, as RFC 6749 §2.3.1 has it.
        assert!(
            asked[0].contains("authorization: Basic YStiOmh1c2g=\r\n"),
            "{}",
            asked[0]
        );
        assert!(asked[0].ends_with("grant_type=client_credentials&scope=kafka"));
    }
    until("fetched anew", || endpoint.count() >= 3).await;
    assert_eq!(writes(&mut lab.app().await).await, 0);
    let newest = rules.tokens.lock().unwrap().last().cloned().unwrap();
    assert_ne!(newest, "token-1");
    assert!(lab.metric("kordon_upstream_token_expiry_timestamp_seconds", &[]) > now() as f64 - 5.0);
    let fetched = lab.metric("kordon_upstream_token_fetches_total", &["outcome=\"ok\""]);
    assert!(fetched >= 3.0, "{fetched}");
}

#[tokio::test]
async fn without_a_token_endpoint_the_proxy_is_not_ready_and_then_is() {
    let endpoint = Endpoint::start(3_600);
    endpoint.is_down.store(true, SeqCst);
    let rules = rules(|_| {});
    let lab = Lab::with(|setup| {
        setup.gate = Some(Arc::clone(&rules));
        setup.upstream = bearer(&endpoint);
        setup.files = vec![("secret", "hush".into())];
        setup.unready = true;
    });
    until("said", || {
        lab.http("/readyz")
            .is_some_and(|(code, text)| code == 503 && text.contains("no token"))
    })
    .await;
    lab.metric_reaches("kordon_upstream_token_fetches_total", 2.0);
    endpoint.is_down.store(false, SeqCst);
    lab.ready();
    assert_eq!(writes(&mut lab.app().await).await, 0);
}

#[tokio::test]
async fn while_the_endpoint_is_down_the_old_token_serves() {
    let endpoint = Endpoint::start(4);
    let rules = rules(|_| {});
    let lab = gated(&rules, &bearer(&endpoint));
    endpoint.is_down.store(true, SeqCst);
    until("noted", || {
        let text = lab.http("/readyz").unwrap().1;
        text.contains("the old one still holds")
    })
    .await;
    assert_eq!(writes(&mut lab.app().await).await, 0);
    assert_eq!(lab.http("/readyz").unwrap().0, 200);
    endpoint.is_down.store(false, SeqCst);
    until("cleared", || {
        !lab.http("/readyz").unwrap().1.contains("upstream token")
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_refuses_is_named_in_the_log_and_not_to_the_client() {
    let rules = rules(|_| {});
    let lab = Lab::with(|setup| {
        setup.gate = Some(Arc::clone(&rules));
        setup.upstream = PLAIN.to_owned();
        setup.files = vec![("password", "wr0ng".into())];
        setup.child = true;
        setup.unready = true;
    });
    lab.log_says("Invalid username or password");
    assert_eq!(lab.http("/readyz").unwrap().0, 503);
    let mut client = lab.app().await;
    assert!(client.produce("open.a", 0, batch(&[b"x"])).await.is_err());
    lab.metric_is(
        "kordon_upstream_dial_failures_total",
        &["stage=\"sasl\""],
        1.0,
    );
    assert!(!lab.log().contains("wr0ng"));
}

#[tokio::test]
async fn sessions_are_renewed_and_no_client_notices() {
    // Given sessions of little more than a second, three clients that never stop, and one that
    // is idle in between
    let rules = rules(|rules| rules.lifetime_ms = 1_300.into());
    let lab = gated(&rules, PLAIN);
    let begun = Instant::now();
    let pipelined = async {
        let mut client = lab.app().await;
        let (mut sent, mut answered) = (0, 0);
        while begun.elapsed() < Duration::from_secs(5) || answered < sent {
            while sent - answered < 8 && begun.elapsed() < Duration::from_secs(5) {
                let request = produce(1, &[("open.a", 0, batch(&[b"pipelined"]))]);
                client.send(9, &request).await.unwrap();
                sent += 1;
            }
            let (_, answer) =
                answer::<kafka_protocol::messages::ProduceRequest>(&mut client, 9).await;
            assert_eq!(part(&answer, "open.a", 0).error_code, 0);
            answered += 1;
        }
        sent
    };
    let large = async {
        let mut client = lab.app().await;
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(5) {
            let answer = client
                .produce("open.a", 1, batch_of(200_000))
                .await
                .unwrap();
            assert_eq!(part(&answer, "open.a", 1).error_code, 0);
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent
    };
    let long_poll = async {
        let mut client = lab.app().await;
        let mut polls = 0;
        while begun.elapsed() < Duration::from_secs(5) {
            let wait = Duration::from_millis(400);
            let request = fetch_request("open.b", 0, 0, wait);
            let answer = client.call(12, &request).await.unwrap();
            assert_eq!(fetched(&answer)[0].2, 0);
            polls += 1;
        }
        polls
    };
    let idle = async {
        let mut client = lab.app().await;
        for _ in 0..2 {
            assert_eq!(writes(&mut client).await, 0);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
        assert_eq!(writes(&mut client).await, 0);
    };
    // When several lifetimes pass
    let (pipelined, large, polls, ()) = tokio::join!(pipelined, large, long_poll, idle);
    // Then each request had its answer, and every record is there once
    assert!(polls >= 5, "{polls}");
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(pipelined + 3));
    assert_eq!(lab.broker().end_offset("open.a", 1), Some(large));
    assert_eq!(rules.expired.load(SeqCst), 0);
    let renewed = rules.renewed.load(SeqCst);
    assert!(renewed >= 3 * 3 + 2, "{renewed}");
    let counted = ["outcome=\"renewed\""];
    lab.metric_is(
        "kordon_upstream_reauthentications_total",
        &counted,
        renewed as f64,
    );
    lab.metric_is("kordon_in_flight_requests", &[], 0.0);
}

#[tokio::test]
async fn an_idle_session_that_has_ended_is_renewed_by_the_next_request() {
    let rules = rules(|rules| rules.lifetime_ms = 200.into());
    let lab = gated(&rules, PLAIN);
    let mut client = lab.app().await;
    for _ in 0..3 {
        assert_eq!(writes(&mut client).await, 0);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(rules.expired.load(SeqCst), 0);
    assert!(rules.renewed.load(SeqCst) >= 2);
}

#[tokio::test]
async fn a_full_table_of_answers_does_not_stand_in_the_way() {
    let rules = rules(|rules| rules.lifetime_ms = 300.into());
    let lab = Lab::with(|setup| {
        setup.gate = Some(Arc::clone(&rules));
        setup.upstream = PLAIN.to_owned();
        setup.files = vec![("password", "s3cret, =pass".into())];
        setup.more = "limits: {inFlight: 1}\n".to_owned();
    });
    let mut client = lab.app().await;
    assert_eq!(writes(&mut client).await, 0);
    tokio::time::sleep(Duration::from_millis(350)).await;
    for _ in 0..4 {
        let request = produce(1, &[("open.a", 0, batch(&[b"x"]))]);
        client.send(9, &request).await.unwrap();
    }
    for _ in 0..4 {
        let (_, answer) = answer::<kafka_protocol::messages::ProduceRequest>(&mut client, 9).await;
        assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    }
    assert_eq!(rules.expired.load(SeqCst), 0);
}

#[tokio::test]
async fn a_refused_renewal_ends_the_connection_behind_what_is_owed() {
    let rules = rules(|rules| rules.lifetime_ms = 1_200.into());
    let lab = gated(&rules, PLAIN);
    let mut client = lab.app().await;
    assert_eq!(writes(&mut client).await, 0);
    rules.refuses.store(true, SeqCst);
    let begun = Instant::now();
    // A poll that is owed when the time comes still has its answer.
    while begun.elapsed() < PATIENCE {
        let request = fetch_request("open.b", 0, 0, Duration::from_millis(100));
        if client.call(12, &request).await.is_err() {
            break;
        }
    }
    assert!(
        begun.elapsed() > Duration::from_millis(800),
        "{:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() < PATIENCE);
    let refused = ["outcome=\"refused\""];
    lab.metric_is("kordon_upstream_reauthentications_total", &refused, 1.0);
}

/// A lab that sends clients' tokens on.
fn forwarding(rules: &Arc<Rules>) -> Lab {
    Lab::with(|setup| {
        setup.gate = Some(Arc::clone(rules));
        setup.upstream = ", sasl: {forward: true}".to_owned();
        setup.only_tokens = true;
    })
}

#[tokio::test]
async fn a_clients_own_token_goes_on_to_the_broker_and_bounds_its_session() {
    let rules = rules(|rules| rules.lifetime_ms = 30_000.into());
    let lab = forwarding(&rules);
    // Ready without any token: nobody could bring one otherwise.
    assert_eq!(lab.http("/readyz").unwrap().0, 200);
    let token = token("alice");
    let mut client = lab.client("tokens").await;
    let answer = say_token(&mut client, &token).await;
    assert_eq!(answer.error_code, 0);
    assert!(
        (29_000..=30_000).contains(&answer.session_lifetime_ms),
        "{answer:?}"
    );
    assert_eq!(writes(&mut client).await, 0);
    assert!(
        rules
            .tokens
            .lock()
            .unwrap()
            .iter()
            .all(|shown| *shown == token)
    );
    // The proxy's own questions are asked with it, so that brokers have their ports.
    let found = client.metadata(Some(&["open.a"])).await.unwrap();
    assert_eq!(found.brokers[0].port, i32::from(lab.broker_port("tokens")));
}

#[tokio::test]
async fn what_kordon_refuses_is_not_shown_to_the_broker() {
    let rules = rules(|_| {});
    let lab = forwarding(&rules);
    let mut client = lab.client("tokens").await;
    let foreign = Signer::new().token("alice", serde_json::json!({}));
    let answer = say_token(&mut client, &foreign).await;
    assert_eq!(&answer.auth_bytes[..], INVALID_TOKEN.as_bytes());
    assert!(rules.tokens.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_brokers_refusal_reaches_the_client_in_its_own_words() {
    const CHALLENGE: &str = r#"{"status":"insufficient_scope"}"#;
    let rules = rules(|rules| {
        rules.token = |_| false;
        rules.challenge = CHALLENGE;
    });
    let lab = forwarding(&rules);
    let mut client = lab.client("tokens").await;
    let answer = say_token(&mut client, &token("alice")).await;
    assert_eq!(
        (answer.error_code, &answer.auth_bytes[..]),
        (0, CHALLENGE.as_bytes())
    );
    let answer = client.call(2, &sasl(&b"\x01"[..])).await.unwrap();
    assert_eq!(answer.error_code, 58);
    assert_eq!(answer.error_message.as_deref(), Some(CHALLENGE));
    assert!(ends(&mut client).await);
    // A broker may also refuse at once.
    rules.refuses.store(true, SeqCst);
    let answer = say_token(&mut lab.client("tokens").await, &token("alice")).await;
    assert_eq!(answer.error_code, 58);
    assert_eq!(
        answer.error_message.as_deref(),
        Some("Authentication failed: nobody is believed")
    );
}

#[tokio::test]
async fn a_clients_new_token_renews_the_brokers_session_too() {
    let rules = rules(|rules| rules.lifetime_ms = 1_500.into());
    let lab = forwarding(&rules);
    let mut client = lab.authenticated("alice").await;
    for round in 1..=2 {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        // An answer that is owed comes first.
        let request = fetch_request("open.b", 0, 0, Duration::from_millis(50));
        client.send(12, &request).await.unwrap();
        client.send(1, &handshake("OAUTHBEARER")).await.unwrap();
        let (_, poll) = answer::<kafka_protocol::messages::FetchRequest>(&mut client, 12).await;
        assert_eq!(fetched(&poll)[0].2, 0);
        let (_, offered) =
            answer::<kafka_protocol::messages::SaslHandshakeRequest>(&mut client, 1).await;
        assert_eq!(offered.error_code, 0);
        let new = token("alice");
        let answer = client.call(2, &sasl(first_message(&new))).await.unwrap();
        assert_eq!(answer.error_code, 0, "{answer:?}");
        assert!(
            (1..=1_500).contains(&answer.session_lifetime_ms),
            "{answer:?}"
        );
        assert_eq!(rules.renewed.load(SeqCst), round);
        assert_eq!(rules.tokens.lock().unwrap().last(), Some(&new));
        assert_eq!(writes(&mut client).await, 0);
    }
    assert_eq!(rules.expired.load(SeqCst), 0);
    // The broker's refusal of the next one passes through, and the connection ends.
    let mut other = lab.authenticated("alice").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rules.distrusts.store(true, SeqCst);
    let answer = say_token(&mut other, &token("alice")).await;
    assert_eq!(&answer.auth_bytes[..], INVALID_TOKEN.as_bytes());
    let answer = other.call(2, &sasl(&b"\x01"[..])).await.unwrap();
    assert_eq!(answer.error_code, 58);
    assert!(ends(&mut other).await);
    rules.refuses.store(true, SeqCst);
    let answer = say_token(&mut client, &token("alice")).await;
    assert_eq!(answer.error_code, 58);
    assert!(ends(&mut client).await);
}
