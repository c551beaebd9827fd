//! Fetch answers byte for byte, however large and however they are cut on their way.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use kordon::demo::client::{Client, fetch_request};

use crate::policy::fetch_all;
use crate::support::*;

/// Writes `count` batches of this size straight to the broker.
async fn fill(lab: &Lab, topic: &str, count: usize, bytes: usize) -> Bytes {
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    for number in 0..count {
        let value: Vec<u8> = (0..bytes).map(|at| (at * 31 + number) as u8).collect();
        let answer = direct.produce(topic, 0, batch(&[&value])).await.unwrap();
        assert_eq!(part(&answer, topic, 0).error_code, 0);
    }
    lab.broker().records(topic, 0).unwrap()
}

/// A Fetch of everything in the first partition of `topics`, at a version with names or ids.
async fn everything(lab: &Lab, version: i16, topics: &[&str]) -> FetchRequest {
    let mut request = fetch_all(topics);
    request.max_bytes = 50 << 20;
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    let known = direct.metadata(Some(topics)).await.unwrap();
    for topic in &mut request.topics {
        topic.partitions[0].partition_max_bytes = 50 << 20;
        let named = known
            .topics
            .iter()
            .find(|t| t.name.as_ref() == Some(&topic.topic));
        if version >= 13 {
            topic.topic_id = named.unwrap().topic_id;
        }
    }
    request
}

#[tokio::test]
async fn twenty_mebibytes_stream_byte_for_byte_at_old_and_new_versions() {
    let lab = Lab::new();
    let held = fill(&lab, "open.a", 20, 1_048_000).await;
    let mut client = lab.app().await;
    for version in [4, 11, 12, 13, 16, 17] {
        let request = everything(&lab, version, &["open.a"]).await;
        let answer = client.call(version, &request).await.unwrap();
        let got = fetched(&answer).remove(0);
        assert_eq!((got.2, got.3.len()), (0, held.len()), "version {version}");
        assert!(got.3 == held, "other bytes at version {version}");
    }
}

#[tokio::test]
async fn a_refused_topic_stands_beside_a_large_answer() {
    let lab = Lab::new();
    let held = fill(&lab, "open.a", 3, 1_000_000).await;
    let mut client = lab.app().await;
    for version in [4, 12] {
        let request = everything(&lab, version, &["secret.a", "open.a"]).await;
        let answer = client.call(version, &request).await.unwrap();
        let mut got = fetched(&answer);
        got.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            (got.len(), got[0].2, got[1].2),
            (2, 0, 29),
            "version {version}"
        );
        assert!(got[0].3 == held && got[1].3.is_empty(), "version {version}");
    }
}

#[tokio::test]
async fn answers_cut_into_odd_pieces_are_put_together() {
    let lab = Lab::with(|setup| setup.pieces = true);
    let small = fill(&lab, "open.a", 5, 3_000).await;
    let large = fill(&lab, "open.b", 1, 90_000).await;
    let mut client = lab.app().await;
    for version in [4, 7, 11, 12, 13, 16, 17] {
        let request = everything(&lab, version, &["open.a", "open.b"]).await;
        let answer = client.call(version, &request).await.unwrap();
        let got: Vec<Bytes> = fetched(&answer).into_iter().map(|part| part.3).collect();
        assert_eq!(got.len(), 2, "version {version}");
        assert!(got[0] == small && got[1] == large, "version {version}");
        let request = everything(&lab, version, &["open.a"]).await;
        let answer = client.call(version, &request).await.unwrap();
        assert!(fetched(&answer)[0].3 == small, "version {version}");
    }
}

#[tokio::test]
async fn every_other_answer_may_come_in_pieces_too() {
    let lab = Lab::with(|setup| setup.pieces = true);
    let mut client = lab.app().await;
    for version in [3, 8, 9, 12] {
        let parts = [
            ("open.a", 0, batch_of(5_000)),
            ("secret.a", 0, batch_of(5_000)),
        ];
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        assert_eq!(part(&answer, "open.a", 0).error_code, 0);
        assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
        client.metadata(None).await.unwrap();
        client.call(3, &versions("it")).await.unwrap();
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for _ in 0..10 {
        client
            .send(12, &fetch_all(&["open.a", "secret.a"]))
            .await
            .unwrap();
        client.send(12, &fetch_all(&["secret.a"])).await.unwrap();
        client
            .send(
                12,
                &fetch_request("open.b", 0, 0, Duration::from_millis(10)),
            )
            .await
            .unwrap();
    }
    for id in 1..=30 {
        let (correlation_id, answer) = answer::<FetchRequest>(&mut client, 12).await;
        let expected = if id % 3 == 1 { 2 } else { 1 };
        assert_eq!((correlation_id, fetched(&answer).len()), (id, expected));
    }
}

#[tokio::test]
async fn t08_a_session_that_is_not_ones_own_is_not_found() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for (id, epoch) in [(1, 1), (77, 2), (i32::MAX, 5)] {
        let mut request = fetch_all(&[]);
        (request.session_id, request.session_epoch) = (id, epoch);
        for version in 7..=12 {
            let answer = client.call(version, &request).await.unwrap();
            assert_eq!((answer.error_code, answer.responses.len()), (70, 0));
        }
    }
    assert_eq!(lab.broker().requests(1), 0);
}

#[tokio::test]
async fn t08_who_only_ends_a_session_that_is_not_ones_own_is_served_without() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for epoch in [0, -1] {
        let mut request = everything(&lab, 7, &["open.a"]).await;
        (request.session_id, request.session_epoch) = (77, epoch);
        // The broker of the lab knows no session of any number.
        let answer = client.call(7, &request).await.unwrap();
        assert_eq!((answer.error_code, fetched(&answer).len()), (0, 1));
    }
}
