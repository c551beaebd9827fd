//! Order, back-pressure, and connections that end in the middle of something.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest, MetadataRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kordon::demo::client::{Client, fetch_request, produce_request};
use serde_json::json;

use crate::policy::fetch_all;
use crate::support::*;

#[tokio::test]
async fn what_a_client_wrote_before_it_went_arrives() {
    let lab = Lab::with(|setup| setup.tls = true);
    let write = produce_request("open.a", 0, batch_of(900_000), 0);
    for round in 1..=5 {
        let mut plain = lab.app().await;
        let mut tls = lab
            .tls("mesh", "localhost", Some(&["alice"]))
            .await
            .unwrap();
        // Every client of Kafka's asks for versions first, and so has read its TLS ticket: the
        // kernel of one that closes with bytes unread throws away what it has not sent yet.
        tls.call(3, &versions("it")).await.unwrap();
        for client in [&mut plain, &mut tls] {
            client.send(9, &write).await.unwrap();
            client.send(9, &write).await.unwrap();
        }
        drop((plain, tls));
        lab.arrived("open.a", round * 4).await;
    }
}

#[tokio::test]
async fn large_requests_go_on_byte_for_byte_whole_or_in_part() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let value: Vec<u8> = (0..1_000_000_u32).map(|at| (at * 7) as u8).collect();
    let records = batch(&[&value]);
    let mut parts: Vec<_> = (0..4)
        .map(|index| ("open.a", index, records.clone()))
        .collect();
    for version in [3, 9, 12] {
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        assert!((0..4).all(|index| part(&answer, "open.a", index).error_code == 0));
    }
    parts.insert(2, ("secret.a", 0, records.clone()));
    parts.push(("open.b", 0, records.clone()));
    for version in [3, 9, 12] {
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        assert!((0..4).all(|index| part(&answer, "open.a", index).error_code == 0));
        assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
    }
    for (topic, index, count) in [("open.a", 0, 6), ("open.a", 3, 6), ("open.b", 0, 3)] {
        let mut held = lab.broker().records(topic, index).unwrap();
        for _ in 0..count {
            let one = held.split_to(records.len());
            assert!(
                without_numbers(&one) == without_numbers(&records),
                "other bytes"
            );
        }
        assert!(held.is_empty());
    }
}

#[tokio::test]
async fn t38_a_client_that_does_not_read_takes_no_memory_and_gets_all_of_it_later() {
    let lab = Lab::with(|setup| setup.child = true);
    let mut client = lab.app().await;
    for _ in 0..5 {
        client
            .produce("open.a", 0, batch_of(1_000_000))
            .await
            .unwrap();
    }
    let held: Bytes = lab.broker().records("open.a", 0).unwrap();
    let mut request = fetch_all(&["open.a"]);
    (
        request.max_bytes,
        request.topics[0].partitions[0].partition_max_bytes,
    ) = (8 << 20, 8 << 20);
    let before = lab.resident_kib();
    for _ in 0..30 {
        client.send(12, &request).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = lab.resident_kib() - before;
    assert!(grown < 32 << 10, "{grown} KiB");
    for id in 6..=35 {
        let (correlation_id, answer) = answer::<FetchRequest>(&mut client, 12).await;
        assert_eq!(correlation_id, id);
        assert!(fetched(&answer)[0].3 == held, "other bytes");
    }
}

#[tokio::test]
async fn authenticating_again_waits_its_turn_behind_a_long_poll() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    say_token(&mut client, &token("alice")).await;
    let poll = fetch_request("open.a", 0, 0, Duration::from_millis(300));
    client.send(12, &poll).await.unwrap();
    client.send(1, &handshake("OAUTHBEARER")).await.unwrap();
    client
        .send(2, &sasl(first_message(&token("alice"))))
        .await
        .unwrap();
    client.send(12, &MetadataRequest::default()).await.unwrap();
    assert_eq!(answer::<FetchRequest>(&mut client, 12).await.0, 3);
    assert_eq!(answer::<SaslHandshakeRequest>(&mut client, 1).await.0, 4);
    let (id, proven) = answer::<SaslAuthenticateRequest>(&mut client, 2).await;
    assert_eq!((id, proven.error_code), (5, 0));
    assert_eq!(answer::<MetadataRequest>(&mut client, 12).await.0, 6);
}

/// `proxy::requests::sasl` keeps the principal of the first token: on `Step::Done` it takes over
/// `session_end` alone, so that groups which the new token no longer names still give rights.
#[tokio::test]
async fn t06_rights_that_the_new_token_does_not_give_are_gone() {
    let policy = POLICY.replace("\"User:alice\"", "\"Group:writers\"");
    let lab = Lab::ruled(&policy);
    let mut client = lab.client("tokens").await;
    let member = Signer::trusted().token("alice", json!({"groups": ["writers"]}));
    say_token(&mut client, &member).await;
    let write = produce_request("open.a", 0, batch(&[b"x"]), -1);
    let answer = client.call(9, &write).await.unwrap();
    assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    assert_eq!(say_token(&mut client, &token("alice")).await.error_code, 0);
    let answer = client.call(9, &write).await.unwrap();
    assert_eq!(part(&answer, "open.a", 0).error_code, 29);
}

#[tokio::test]
async fn t06_another_tenant_is_another_principal() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    let elsewhere = Signer::trusted().token("alice", json!({"tenant_id": "rival"}));
    assert_eq!(say_token(&mut client, &elsewhere).await.error_code, 58);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn numbers_of_open_things_return_to_none() {
    let mut lab = Lab::new();
    for _ in 0..5 {
        let mut client = lab.app().await;
        let poll = fetch_request("open.a", 0, 0, Duration::from_secs(60));
        client.send(12, &poll).await.unwrap();
        client
            .send(9, &produce_request("secret.a", 0, batch(&[b"x"]), -1))
            .await
            .unwrap();
        client
            .send(9, &produce_request("open.a", 1, batch(&[b"x"]), -1))
            .await
            .unwrap();
        let _ = client.metadata(None).now();
    }
    let mut waiting = lab.app().await;
    waiting.send(12, &fetch_all(&["open.a"])).await.unwrap();
    answer::<FetchRequest>(&mut waiting, 12).await;
    lab.stop_broker();
    assert!(waiting.is_closed().await);
    for gauge in [
        "kordon_connections",
        "kordon_upstream_connections",
        "kordon_in_flight_requests",
    ] {
        lab.until_metric(gauge, 0.0);
    }
}

/// Polls a future once, as a client that gives up at once does.
trait Now: Future + Sized {
    fn now(self) -> Option<Self::Output> {
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(self).poll(&mut waker) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
impl<F: Future> Now for F {}

#[tokio::test]
async fn a_proxy_without_a_broker_says_so_and_serves_once_there_is_one() {
    let mut lab = Lab::with(|setup| setup.late_broker = true);
    let (code, text) = lab.http("/readyz").unwrap();
    assert_eq!(code, 503, "{text}");
    assert!(!text.contains("127.0.0.1"), "{text}");
    assert_eq!(lab.http("/livez").unwrap().0, 200);
    assert!(lab.app().await.metadata(None).await.is_err());
    let mut early = lab.client("tokens").await;
    lab.start_broker(1);
    lab.ready();
    say_token(&mut early, &token("alice")).await;
    early.metadata(None).await.unwrap();
    lab.app().await.metadata(None).await.unwrap();
}

#[tokio::test]
async fn a_throttled_client_does_not_hold_the_end_of_the_process() {
    let quota = "---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: slow}
spec: {for: {user: app}, limits: {produce: 1KiB/s}}
";
    let mut lab = Lab::with(|setup| {
        setup.policy += quota;
        setup.child = true;
    });
    let mut client = lab.app().await;
    client
        .send(9, &produce_request("open.a", 0, batch_of(100_000), -1))
        .await
        .unwrap();
    let (_, told) = answer::<ProduceRequest>(&mut client, 9).await;
    assert!(told.throttle_time_ms > 20_000);
    let begun = Instant::now();
    lab.signal("TERM");
    assert!(client.is_closed().await);
    assert_eq!(lab.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(Client::connect(lab.address("app"), "it").await.is_err());
}

#[tokio::test]
async fn many_clients_at_once_each_get_their_own_answers() {
    let lab = std::rc::Rc::new(Lab::new());
    let work = async |lab: std::rc::Rc<Lab>, number: usize| {
        let mut client = lab.client(["app", "other"][number % 2]).await;
        for round in 0..10_usize {
            let index = i32::try_from(round % 4).unwrap();
            let topics = [("open.b", "secret.a"), ("secret.a", "open.b")][round % 2];
            let parts = [
                (topics.0, index % 2, batch(&[b"x"])),
                (topics.1, index % 2, batch_of(number)),
            ];
            let answer = client.call(9, &produce(-1, &parts)).await.unwrap();
            assert_eq!(part(&answer, "open.b", index % 2).error_code, 0);
            assert_eq!(part(&answer, "secret.a", index % 2).error_code, 29);
        }
    };
    let mut clients = tokio::task::JoinSet::new();
    let set = tokio::task::LocalSet::new();
    for number in 0..100 {
        clients.spawn_local_on(work(std::rc::Rc::clone(&lab), number), &set);
    }
    set.await;
    clients.join_all().await;
    let ends = [0, 1].map(|index| lab.broker().end_offset("open.b", index).unwrap());
    assert_eq!(ends.iter().sum::<i64>(), 1_000);
}

#[tokio::test]
async fn policies_that_change_under_load_disturb_nobody_whom_they_do_not_concern() {
    let lab = Lab::new();
    let mut clients = Vec::new();
    for listener in ["app", "other", "app", "other"] {
        clients.push(lab.client(listener).await);
    }
    for round in 0..20 {
        let extra = ["\"open.*\", \"secret.*\"", "\"open.*\""][round % 2];
        lab.reload(&POLICY.replace("\"open.*\"", extra));
        for client in &mut clients {
            let parts = ["open.a", "secret.a"].map(|topic| (topic, 0, batch(&[b"x"])));
            let answer = client.call(9, &produce(-1, &parts)).await.unwrap();
            assert_eq!(part(&answer, "open.a", 0).error_code, 0);
            let code = if round % 2 == 0 { 0 } else { 29 };
            assert_eq!(
                part(&answer, "secret.a", 0).error_code,
                code,
                "round {round}"
            );
        }
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(80));
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(40));
}
