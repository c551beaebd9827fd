//! Every bound, and clients that send anything at all.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchRequest, FindCoordinatorRequest, JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
    RequestHeader,
};
use kafka_protocol::protocol::{Encodable, Request};
use kordon::demo::client::{Client, fetch_request, produce_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::policy::fetch_all;
use crate::support::*;

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_there_is_room_again() {
    let lab = Lab::with(|setup| setup.more = "limits: {connections: 2}\n".to_owned());
    let (mut first, mut second) = (lab.app().await, lab.client("other").await);
    first.metadata(Some(&[])).await.unwrap();
    second.metadata(Some(&[])).await.unwrap();
    assert!(lab.app().await.metadata(Some(&[])).await.is_err());
    lab.metric_is("kordon_connections_refused_total", &[], 1.0);
    first.metadata(Some(&[])).await.unwrap();
    drop(first);
    let begun = Instant::now();
    while lab.app().await.metadata(Some(&[])).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn at_the_limit_of_requests_in_flight_reading_stops_and_nothing_is_closed() {
    let lab = Lab::with(|setup| setup.more = "limits: {inFlight: 2}\n".to_owned());
    let mut client = lab.app().await;
    let poll = fetch_request("open.a", 0, 0, Duration::from_millis(150));
    for _ in 0..6 {
        client.send(12, &poll).await.unwrap();
    }
    let mut most = 0.0_f64;
    for id in 1..=6 {
        most = most.max(lab.metric("kordon_in_flight_requests", &[]));
        assert_eq!(answer::<FetchRequest>(&mut client, 12).await.0, id);
    }
    assert_eq!(most, 2.0);
    client.metadata(Some(&[])).await.unwrap();
}

#[tokio::test]
async fn answers_given_here_count_as_in_flight() {
    let lab = Lab::with(|setup| setup.more = "limits: {inFlight: 1}\n".to_owned());
    let mut client = lab.app().await;
    for _ in 0..50 {
        client.send(12, &fetch_all(&["secret.a"])).await.unwrap();
        client.send(12, &fetch_all(&["open.a"])).await.unwrap();
    }
    for id in 1..=100 {
        assert_eq!(answer::<FetchRequest>(&mut client, 12).await.0, id);
    }
}

/// Whether the connection ends after a frame that claims this length.
async fn ends_at(lab: &Lab, claim: i32) -> bool {
    let mut stream = TcpStream::connect(lab.address("app")).await.unwrap();
    stream.write_i32(claim).await.unwrap();
    stream.write_all(&[0, 3, 0, 12]).await.unwrap();
    let read = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
    read.is_ok_and(|read| read.is_err())
}

#[tokio::test]
async fn t38_lengths_that_no_frame_has_end_the_connection() {
    let lab = Lab::with(|setup| setup.more = "limits: {frameBytes: 64KiB}\n".to_owned());
    for claim in [-1, i32::MIN, 65_537, i32::MAX, 0, 1] {
        assert!(ends_at(&lab, claim).await, "{claim}");
    }
    assert!(!ends_at(&lab, 65_536).await);
    let mut client = lab.app().await;
    let write = produce_request("open.a", 0, batch_of(70_000), -1);
    let _ = client.send(9, &write).await;
    assert!(client.is_closed().await);
    lab.audit(&[("reason", "limit")]);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn t38_a_frame_that_comes_byte_by_byte_is_read() {
    let lab = Lab::new();
    let mut stream = TcpStream::connect(lab.address("app")).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let frame = frame_of(9, &produce_request("open.a", 0, batch(&[b"x"]), -1));
    for byte in &frame {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(stream.read_i32().await.unwrap() > 0);
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(1));
}

#[tokio::test]
async fn t38_claimed_lengths_take_no_memory() {
    let lab = Lab::with(|setup| setup.child = true);
    let before = lab.resident_kib();
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(lab.address("app")).await.unwrap();
        stream.write_i32(100 << 20).await.unwrap();
        stream.write_all(&[0, 0, 0, 9, 1, 2, 3]).await.unwrap();
        open.push(stream);
    }
    lab.app().await.metadata(Some(&[])).await.unwrap();
    let grown = lab.resident_kib() - before;
    assert!(grown < 64 << 10, "{grown} KiB for 200 connections");
}

/// A whole frame with its length.
fn frame_of<R: Request>(version: i16, request: &R) -> BytesMut {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .with_client_id(Some("it".into()));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header
        .encode(&mut frame, R::header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Good frames of the APIs that every client uses, old versions and new.
fn hot_frames() -> Vec<BytesMut> {
    let write = produce(
        -1,
        &[
            ("open.a", 0, batch(&[b"x"])),
            ("secret.a", 1, batch(&[b"y"])),
        ],
    );
    let read = fetch_all(&["open.a", "secret.a"]);
    let join = JoinGroupRequest::default()
        .with_group_id(kafka_protocol::messages::GroupId("app.g".into()))
        .with_session_timeout_ms(6_000);
    let find = FindCoordinatorRequest::default();
    let commit = OffsetCommitRequest::default()
        .with_group_id(kafka_protocol::messages::GroupId("app.g".into()));
    vec![
        frame_of(3, &write),
        frame_of(9, &write),
        frame_of(13, &produce(-1, &[("", 0, batch(&[b"x"]))])),
        frame_of(4, &read),
        frame_of(12, &read),
        frame_of(17, &fetch_all(&[""])),
        frame_of(1, &MetadataRequest::default().with_topics(None)),
        frame_of(12, &MetadataRequest::default()),
        frame_of(3, &versions("it")),
        frame_of(7, &join),
        frame_of(4, &find.with_coordinator_keys(vec!["app.g".into()])),
        frame_of(8, &commit),
    ]
}

/// Xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Changes a few bytes behind the length, cuts or prolongs; the length fits again.
fn mutate(frame: &[u8], numbers: &mut Numbers) -> BytesMut {
    let mut frame = frame.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = 8 + numbers.below(frame.len() - 8);
        match numbers.below(6) {
            0 => frame[at] = 0xff,
            1 => frame[at] = 0x7f,
            2 => frame.truncate(at.max(12)),
            3 => frame.insert(at, numbers.below(256) as u8),
            4 => drop(frame.remove(at)),
            _ => frame[at] ^= 1 << numbers.below(8),
        }
        frame.resize(frame.len().max(12), 0);
    }
    BytesMut::from(&frame[..])
}

/// The value of a record that nobody here may read.
const SECRET: &[u8] = b"nobody-reads-this";
/// The host of the broker: clients are told `localhost`.
const UPSTREAM: &[u8] = b"127.0.0.1";

/// How long nothing may come before it is taken that nothing will.
const SILENCE: Duration = Duration::from_millis(10);

/// Sends a frame and then a good request; reads until that is answered, or the end, or silence.
async fn attack(client: &mut Client, frame: BytesMut, patience: Duration) -> bool {
    let last =
        client.send_raw(frame).await.is_ok() && client.send(0, &versions("it")).await.is_ok();
    let mut answers = 0;
    while last && answers < 2 {
        let frame: Option<Bytes> = tokio::time::timeout(patience, client.frame())
            .await
            .ok()
            .and_then(Result::ok);
        match frame {
            Some(frame) => {
                for hidden in [SECRET, UPSTREAM] {
                    let shown = frame.windows(hidden.len()).any(|part| part == hidden);
                    assert!(!shown, "an answer shows what it must not: {frame:?}");
                }
                answers += 1;
            }
            None => return false,
        }
    }
    last
}

#[tokio::test]
async fn t38_a_thousand_mutated_frames_of_each_hot_api_leave_the_process_well() {
    let lab = Lab::with(|setup| setup.child = true);
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    direct
        .produce("secret.a", 0, batch(&[SECRET]))
        .await
        .unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut client = lab.app().await;
    for frame in hot_frames() {
        let good = attack(&mut client, frame.clone(), PATIENCE).await;
        assert!(good, "an unchanged frame: {frame:?}");
        for _ in 0..1_000 {
            if !attack(&mut client, mutate(&frame, &mut numbers), SILENCE).await {
                client = lab.app().await;
            }
        }
        client = lab.app().await;
    }
    let resident = lab.resident_kib();
    assert!(resident < 200 << 10, "{resident} KiB");
    assert!(!lab.log().contains("panicked"), "{}", lab.log());
    let answer = lab
        .app()
        .await
        .produce("open.a", 0, batch(&[b"x"]))
        .await
        .unwrap();
    assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(1));
    assert_eq!(lab.broker().end_offset("secret.a", 1), Some(0));
}

#[tokio::test]
async fn mutated_sasl_frames_let_nobody_in() {
    let lab = Lab::with(|setup| setup.child = true);
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let forged = Signer::new().token("alice", serde_json::json!({}));
    let hello = frame_of(1, &handshake("OAUTHBEARER"));
    let secret = frame_of(2, &sasl(first_message(&forged)));
    for _ in 0..500 {
        let mut client = lab.client("tokens").await;
        let _ = client.send_raw(mutate(&hello, &mut numbers)).await;
        let _ = client.send_raw(mutate(&secret, &mut numbers)).await;
        let write = produce_request("open.a", 0, batch(&[b"x"]), -1);
        let _ = client.send(9, &write).await;
    }
    say_token(&mut lab.client("tokens").await, &token("alice")).await;
    assert!(!lab.log().contains("panicked"), "{}", lab.log());
    assert_eq!(lab.broker().requests(0), 0);
}
