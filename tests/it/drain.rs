//! SIGTERM: nothing new is taken, everything owed is delivered, and the process ends with 0.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use kordon::demo::client::{Client, fetch_request, produce_request};

use crate::support::*;

fn child() -> Lab {
    Lab::with(|setup| setup.child = true)
}

/// Waits until the broker has seen so many requests with this key.
async fn seen(lab: &Lab, key: i16, count: u64) {
    let begun = Instant::now();
    while lab.broker().requests(key) < count {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn every_answer_that_is_owed_arrives_and_the_process_ends_with_0() {
    let mut lab = child();
    let mut polling = lab.app().await;
    let mut writing = lab.client("other").await;
    let poll = fetch_request("open.b", 0, 0, Duration::from_millis(1_500));
    polling.send(11, &poll).await.unwrap();
    seen(&lab, 1, 1).await;
    for index in 0..4 {
        let write = produce_request("open.a", index, batch_of(100_000), -1);
        writing.send(9, &write).await.unwrap();
    }
    seen(&lab, 0, 4).await;
    lab.signal("TERM");
    for id in 1..=4 {
        let (correlation_id, _) = answer::<ProduceRequest>(&mut writing, 9).await;
        assert_eq!(correlation_id, id);
    }
    assert!(writing.is_closed().await);
    let (_, answer) = answer::<FetchRequest>(&mut polling, 11).await;
    assert_eq!(fetched(&answer)[0].2, 0);
    assert!(polling.is_closed().await);
    assert_eq!(lab.ended().await.code(), Some(0));
    let ends: i64 = (0..4)
        .map(|i| lab.broker().end_offset("open.a", i).unwrap())
        .sum();
    assert_eq!(ends, 4);
}

#[tokio::test]
async fn new_connections_are_refused_and_idle_ones_end_at_once() {
    let mut lab = child();
    let (mut idle, mut fresh) = (lab.app().await, lab.client("tokens").await);
    idle.metadata(Some(&[])).await.unwrap();
    let mut polling = lab.app().await;
    let poll = fetch_request("open.b", 0, 0, Duration::from_secs(2));
    polling.send(11, &poll).await.unwrap();
    seen(&lab, 1, 1).await;
    lab.signal("TERM");
    let begun = Instant::now();
    assert!(idle.is_closed().await && fresh.is_closed().await);
    for listener in ["app", "other", "tokens"] {
        while Client::connect(lab.address(listener), "it").await.is_ok() {
            let patient = begun.elapsed() < Duration::from_millis(1_500);
            assert!(patient, "{listener} still listens");
        }
    }
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    assert!(next(&mut polling).await.is_some());
    assert_eq!(lab.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_comes_after_the_signal_is_not_taken() {
    let mut lab = child();
    let mut client = lab.app().await;
    let poll = fetch_request("open.b", 0, 0, Duration::from_millis(800));
    client.send(11, &poll).await.unwrap();
    seen(&lab, 1, 1).await;
    lab.signal("TERM");
    lab.log_says("draining");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let write = produce_request("open.a", 0, batch(&[b"x"]), -1);
    let _ = client.send(9, &write).await;
    assert!(
        next(&mut client).await.is_some(),
        "the answer to the long poll"
    );
    assert!(next(&mut client).await.is_none());
    assert_eq!(lab.ended().await.code(), Some(0));
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn half_a_frame_and_half_a_handshake_do_not_hold_the_process() {
    use tokio::io::AsyncWriteExt;
    let mut lab = Lab::with(|setup| (setup.child, setup.tls) = (true, true));
    let mut half = Vec::new();
    for listener in ["app", "tokens", "mesh"] {
        let mut stream = tokio::net::TcpStream::connect(lab.address(listener))
            .await
            .unwrap();
        stream.write_all(&[0, 0, 1, 0, 0]).await.unwrap();
        half.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.ends_soon().await;
}

/// Writes until the connection ends; how many answers came.
async fn write_on(mut client: Client) -> i64 {
    let mut written = 0;
    for id in 1.. {
        // Two at a time, so that one is always under way.
        let write = produce_request("open.a", id % 4, batch_of(2_000), -1);
        if client.send(9, &write).await.is_err() || client.send(9, &write).await.is_err() {
            break;
        }
        for _ in 0..2 {
            let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, client.frame()).await else {
                return written;
            };
            written += 1;
        }
    }
    written
}

#[tokio::test]
async fn under_load_what_the_broker_holds_is_what_clients_were_told() {
    let mut lab = child();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        clients.spawn(write_on(lab.app().await));
    }
    seen(&lab, 0, 500).await;
    lab.signal("TERM");
    let told: i64 = clients.join_all().await.into_iter().sum();
    assert_eq!(lab.ended().await.code(), Some(0));
    let held: i64 = (0..4)
        .map(|i| lab.broker().end_offset("open.a", i).unwrap())
        .sum();
    assert_eq!(told, held);
    assert!(told >= 500, "{told}");
}
