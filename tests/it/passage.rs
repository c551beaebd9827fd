//! Large Produce requests, which go from socket to socket uncopied (`proxy::passage`): that they
//! arrive whole, that nothing gets past the rules on this way, and that connections go back and
//! forth between it and the usual one. Each test makes sure that its frames took it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, ProduceRequest};
use kordon::demo::client::topic_name;

use crate::support::*;

pub const SPLICED: &str = "kordon_spliced_bytes_total";
/// As in `proxy::requests`: after something else, so many frames go the usual way.
const USUAL_FRAMES: usize = 16;

/// A batch of one record whose bytes nobody else writes.
pub fn unlike(bytes: usize, seed: usize) -> Bytes {
    let value: Vec<u8> = (0..bytes)
        .map(|at| (at * 31 + at / 251 + seed) as u8)
        .collect();
    batch(&[&value])
}

/// What the broker must hold: the batches of each partition, in order.
#[derive(Default)]
struct Logs(BTreeMap<(String, i32), Vec<Bytes>>);

impl Logs {
    fn add(&mut self, parts: &[(&str, i32, Bytes)]) {
        for (topic, index, records) in parts {
            let log = self.0.entry(((*topic).to_owned(), *index)).or_default();
            log.push(records.clone());
        }
    }

    #[track_caller]
    fn are_held(&self, lab: &Lab) {
        for ((topic, index), sent) in &self.0 {
            let mut held = lab.broker().records(topic, *index).unwrap();
            for (at, records) in sent.iter().enumerate() {
                assert!(held.len() >= records.len(), "{topic}-{index} ends at {at}");
                let one = held.split_to(records.len());
                let same = without_numbers(&one) == without_numbers(records);
                assert!(same, "{topic}-{index} has other bytes at {at}");
            }
            assert!(held.is_empty(), "{topic}-{index} holds more");
        }
    }
}

/// A connection that is known to be on the way this is about.
pub async fn on_the_way(lab: &Lab, listener: &str) -> Raw {
    let before = lab.metric(SPLICED, &[]);
    let mut raw = Raw::connect(lab.address(listener)).await;
    for id in [-2, -1] {
        let request = produce(1, &[("typed.a", 3, batch_of(16_384))]);
        raw.send(&frame_of(9, id, &request)).await;
        let (answered, answer) = raw.answer::<ProduceRequest>(9).await;
        assert_eq!((answered, part(&answer, "typed.a", 3).error_code), (id, 0));
    }
    lab.metric_reaches(SPLICED, before + 16_384.0);
    raw
}

/// A topic with one partition or two that takes batches larger than any pipe.
async fn big_topic(lab: &Lab) {
    let config = CreatableTopicConfig::default()
        .with_name("max.message.bytes".into())
        .with_value(Some("67108864".into()));
    let topic = CreatableTopic::default()
        .with_name(topic_name("open.big"))
        .with_num_partitions(2)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(5_000);
    let answer = lab.app().await.call(5, &request).await.unwrap();
    assert_eq!(answer.topics[0].error_code, 0);
}

#[tokio::test]
async fn large_requests_arrive_whole_at_every_version() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let mut logs = Logs::default();
    for version in 3..=12 {
        let before = lab.metric(SPLICED, &[]);
        let seed = usize::try_from(version).unwrap();
        let parts = [
            ("open.a", 0, unlike(16_384 + seed, seed)),
            ("open.a", 1, unlike(100_000 - seed, seed + 1)),
            ("open.b", 3, unlike(20_000, seed + 2)),
            ("typed.a", 0, unlike(5_000, seed + 3)),
            ("typed.a", 1, unlike(300 * seed, seed + 4)),
        ];
        let frame = frame_of(version, version.into(), &produce(-1, &parts));
        raw.send(&frame).await;
        let (id, answer) = raw.answer::<ProduceRequest>(version).await;
        assert_eq!(id, i32::from(version));
        for (topic, index, _) in &parts {
            let part = part(&answer, topic, *index);
            let offset = i64::from(version) - 3;
            assert_eq!(
                (part.error_code, part.base_offset),
                (0, offset),
                "{version}"
            );
        }
        lab.metric_reaches(SPLICED, before + frame.len() as f64);
        logs.add(&parts);
    }
    logs.are_held(&lab);
}

#[tokio::test]
async fn topics_that_are_named_by_id_arrive_once_the_id_is_known() {
    let lab = Lab::new();
    let id = lab
        .app()
        .await
        .metadata(Some(&["open.a"]))
        .await
        .unwrap()
        .topics[0]
        .topic_id;
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let mut logs = Logs::default();
    for round in 0..2 + USUAL_FRAMES {
        let records = unlike(20_000, round);
        let mut request = produce(-1, &[("", 0, records.clone())]);
        request.topic_data[0].topic_id = id;
        raw.send(&frame_of(13, 1, &request)).await;
        let (_, answer) = raw.answer::<ProduceRequest>(13).await;
        assert_eq!(part(&answer, "", 0).error_code, 0);
        logs.add(&[("open.a", 0, records)]);
    }
    lab.metric_reaches(SPLICED, before + 20_000.0);
    logs.are_held(&lab);
    let mut request = produce(-1, &[("", 0, unlike(20_000, 0))]);
    request.topic_data[0].topic_id = uuid::Uuid::from_u128(77);
    raw.send(&frame_of(13, 1, &request)).await;
    let (_, answer) = raw.answer::<ProduceRequest>(13).await;
    assert_eq!(part(&answer, "", 0).error_code, 100);
}

#[tokio::test]
async fn what_is_refused_is_refused_wherever_it_stands_and_the_rest_is_written() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let mut logs = Logs::default();
    let mut round = 0;
    let refused = [
        ("secret.a", 29),
        ("nowhere", 29),
        ("__consumer_offsets", 29),
        ("open.none", 3),
    ];
    for (topic, code) in refused {
        for at in 0..=3 {
            round += 1;
            let mut parts: Vec<_> = [("open.a", 0), ("open.a", 1), ("open.b", 0)]
                .map(|(topic, index)| (topic, index, unlike(16_384, round)))
                .into();
            logs.add(&parts);
            // Between partitions of one topic there is no other: it stands there twice then.
            let version = [3, 8, 9, 12][at];
            parts.insert(at, (topic, 1, unlike(10_000, round)));
            raw.send(&frame_of(version, 5, &produce(-1, &parts))).await;
            let (_, answer) = raw.answer::<ProduceRequest>(version).await;
            for (topic, index, _) in parts.iter().filter(|(name, ..)| *name != topic) {
                assert_eq!(part(&answer, topic, *index).error_code, 0, "{topic} {at}");
            }
            let part = part(&answer, topic, 1);
            assert_eq!(
                (part.error_code, part.base_offset),
                (code, -1),
                "{topic} {at}"
            );
            // Back on the way this is about.
            let before = lab.metric(SPLICED, &[]);
            for _ in 0..=USUAL_FRAMES {
                let parts = [("open.b", 1, unlike(9_000, round))];
                raw.send(&frame_of(9, 6, &produce(-1, &parts))).await;
                raw.answer::<ProduceRequest>(9).await;
                logs.add(&parts);
            }
            lab.metric_reaches(SPLICED, before + 9_000.0);
        }
    }
    logs.are_held(&lab);
    assert_eq!(lab.broker().end_offset("secret.a", 1), Some(0));
}

/// A large batch with an attribute, its checksum corrected.
fn attributed(bit: u8) -> Bytes {
    let mut records = unlike(20_000, 1).to_vec();
    records[22] |= bit;
    let crc = crc32c::crc32c(&records[21..]);
    records[17..21].copy_from_slice(&crc.to_be_bytes());
    records.into()
}

/// Writes these records between two others, on the way this is about; the codes of all three.
async fn codes_around(lab: &Lab, version: i16, records: Bytes) -> [i16; 3] {
    let mut raw = on_the_way(lab, "app").await;
    let others = unlike(20_000, 0);
    let parts = [(0, others.clone()), (1, records), (2, others)];
    let parts = parts.map(|(index, records)| ("open.a", index, records));
    raw.send(&frame_of(version, 1, &produce(-1, &parts))).await;
    let (_, answer) = raw.answer::<ProduceRequest>(version).await;
    [0, 1, 2].map(|index| part(&answer, "open.a", index).error_code)
}

#[tokio::test]
async fn t22_a_control_batch_among_large_ones_is_refused() {
    let lab = Lab::new();
    let control = attributed(1 << 5);
    let behind = [unlike(20_000, 0), control.clone()].concat().into();
    for records in [control, behind] {
        for version in [3, 9, 12] {
            let codes = codes_around(&lab, version, records.clone()).await;
            assert_eq!(codes, [0, 87, 0], "version {version}");
        }
    }
    assert_eq!(lab.broker().end_offset("open.a", 1), Some(0));
    assert_eq!(lab.broker().end_offset("open.a", 2), Some(6));
}

#[tokio::test]
async fn t21_a_transaction_among_large_batches_needs_its_own_right() {
    let lab = Lab::new();
    for version in [3, 9, 12] {
        let codes = codes_around(&lab, version, attributed(1 << 4)).await;
        assert_eq!(codes, [53; 3], "version {version}");
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(0));
}

#[tokio::test]
async fn frames_that_trickle_arrive_whole() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let mut logs = Logs::default();
    let (mut bytes, mut sent) = (Vec::new(), Vec::new());
    for id in 0..3 {
        let seed = usize::try_from(id).unwrap();
        let parts = [
            ("open.a", 0, unlike(20_000, seed)),
            ("open.b", 1, unlike(9_000, seed)),
        ];
        bytes.extend_from_slice(&frame_of([3, 9, 12][seed], id, &produce(-1, &parts)));
        sent.push(parts);
    }
    // More than a hundred single bytes fill a pipe: the second time they go the usual way.
    for (single, spliced) in [(60, bytes.len()), (200, 0)] {
        let (head, mut rest) = bytes.split_at(single);
        for byte in head.chunks(1) {
            raw.send(byte).await;
            pause().await;
        }
        for size in [1, 3, 61, 7, 1_009, 2_503, 8_191].into_iter().cycle() {
            let (piece, left) = rest.split_at(size.min(rest.len()));
            raw.send(piece).await;
            pause().await;
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        for (id, version) in [(0, 3), (1, 9), (2, 12)] {
            let (answered, answer) = raw.answer::<ProduceRequest>(version).await;
            assert_eq!((answered, part(&answer, "open.b", 1).error_code), (id, 0));
        }
        lab.metric_reaches(SPLICED, before + spliced as f64);
        for parts in &sent {
            logs.add(parts);
        }
    }
    logs.are_held(&lab);
}

#[tokio::test]
async fn frames_that_are_cut_anywhere_arrive_whole() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let mut logs = Logs::default();
    let frames: Vec<_> = [3, 9, 12]
        .into_iter()
        .zip(1..)
        .map(|(version, id)| {
            let seed = usize::try_from(id).unwrap();
            let parts = [
                ("open.a", 0, unlike(9_000, seed)),
                ("open.b", 1, unlike(4_500, seed)),
            ];
            (
                version,
                id,
                frame_of(version, id, &produce(-1, &parts)),
                parts,
            )
        })
        .collect();
    // Where something begins: a frame, records, what stands behind them.
    let mut places = Vec::new();
    let mut bytes = Vec::new();
    for (_, _, frame, parts) in &frames {
        places.push(bytes.len());
        for (.., records) in parts {
            let at = frame
                .windows(61)
                .position(|window| *window == records[..61])
                .unwrap();
            places.extend([bytes.len() + at, bytes.len() + at + records.len()]);
        }
        bytes.extend_from_slice(frame);
    }
    let around = [
        -62, -61, -17, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 8, 12, 13, 14, 60, 61, 62,
    ];
    for place in places {
        for shift in around {
            let Some(cut) = place.checked_add_signed(shift) else {
                continue;
            };
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            raw.send(first).await;
            pause().await;
            raw.send(second).await;
            for (version, id, _, parts) in &frames {
                let (answered, answer) = raw.answer::<ProduceRequest>(*version).await;
                assert_eq!(answered, *id, "cut at {cut}");
                assert_eq!(part(&answer, "open.b", 1).error_code, 0, "cut at {cut}");
                logs.add(parts);
            }
        }
    }
    logs.are_held(&lab);
    lab.metric_reaches(SPLICED, before + 10.0 * bytes.len() as f64);
}

#[tokio::test]
async fn of_a_frame_whose_client_leaves_nothing_is_written() {
    let lab = Lab::new();
    big_topic(&lab).await;
    let small = frame_of(9, 1, &produce(-1, &[("open.big", 0, unlike(40_000, 0))]));
    let big = frame_of(9, 1, &produce(-1, &[("open.big", 0, unlike(12 << 20, 0))]));
    let places = [
        (&small, 3),
        (&small, 20_000),
        (&big, 1_500_000),
        (&big, 10 << 20),
    ];
    for ((frame, sent), reset) in { places.into_iter() }.flat_map(|p| [(p, false), (p, true)]) {
        let mut raw = on_the_way(&lab, "app").await;
        raw.send(&frame[..sent]).await;
        match reset {
            true => raw.reset(),
            false => drop(raw),
        }
        lab.until_metric("kordon_connections", 0.0);
        lab.until_metric("kordon_upstream_connections", 0.0);
        let mut next = on_the_way(&lab, "app").await;
        next.send(&frame_of(9, 1, &MetadataRequest::default()))
            .await;
        next.answer::<MetadataRequest>(9).await;
        assert_eq!(
            lab.broker().end_offset("open.big", 0),
            Some(0),
            "after {sent}"
        );
    }
}

/// Every byte that comes alone takes a place in the pipe. The process was busy for ever with a
/// client that left when there was no place.
#[tokio::test]
async fn t38_a_client_that_leaves_a_pipe_full_of_single_bytes_has_left() {
    let lab = Lab::new();
    let frame = frame_of(9, 1, &produce(-1, &[("open.a", 0, unlike(40_000, 0))]));
    for pieces in [127, 128, 129] {
        let mut raw = on_the_way(&lab, "app").await;
        for byte in frame[..pieces].chunks(1) {
            raw.send(byte).await;
            pause().await;
        }
        drop(raw);
        lab.until_metric("kordon_connections", 0.0);
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(0));
}

#[tokio::test]
async fn what_a_client_wrote_before_it_left_arrives_though_it_is_less_than_the_last_time() {
    let lab = Lab::new();
    for round in 1..=30 {
        let mut raw = on_the_way(&lab, "app").await;
        let large = produce(-1, &[("open.b", 0, unlike(400_000, 0))]);
        raw.send(&frame_of(9, 1, &large)).await;
        raw.answer::<ProduceRequest>(9).await;
        let last = produce(0, &[("open.a", 0, unlike(20_000, 0))]);
        raw.send(&frame_of(9, 2, &last)).await;
        drop(raw);
        lab.arrived("open.a", round).await;
    }
}

#[tokio::test]
async fn a_frame_larger_than_the_pipe_flows_on_and_is_answered() {
    let lab = Lab::new();
    big_topic(&lab).await;
    let mut raw = on_the_way(&lab, "app").await;
    let mut logs = Logs::default();
    for (bytes, version) in [(3 << 20, 3), (12 << 20, 9), (12 << 20, 8), (3 << 20, 12)] {
        let before = lab.metric(SPLICED, &[]);
        let parts = [("open.big", 0, unlike(bytes, bytes))];
        let frame = frame_of(version, 1, &produce(-1, &parts));
        raw.send(&frame).await;
        let (_, answer) = raw.answer::<ProduceRequest>(version).await;
        assert_eq!(part(&answer, "open.big", 0).error_code, 0);
        lab.metric_reaches(SPLICED, before + frame.len() as f64);
        logs.add(&parts);
    }
    logs.are_held(&lab);
}

/// Where the first of two partitions ends is far behind what the pipe holds, and a smaller frame
/// in front of it makes room: the reading went on behind the bytes that are there.
#[tokio::test]
async fn a_pipe_that_fills_up_again_before_the_next_partition_is_no_error() {
    let lab = Lab::new();
    big_topic(&lab).await;
    let mut raw = on_the_way(&lab, "app").await;
    let one = unlike(6 << 20, 0);
    let mut bytes = Vec::new();
    for parts in [
        vec![("open.big", 0, one.clone())],
        vec![("open.a", 0, unlike(900_000, 1))],
        vec![("open.big", 0, one.clone()), ("open.big", 1, one.clone())],
    ] {
        bytes.extend_from_slice(&frame_of(9, 1, &produce(-1, &parts)));
    }
    for _ in 0..4 {
        raw.send(&bytes).await;
        for _ in 0..3 {
            let (_, answer) = raw.answer::<ProduceRequest>(9).await;
            let parts = answer.responses.iter().flat_map(|t| &t.partition_responses);
            assert!(parts.clone().count() > 0 && { parts }.all(|p| p.error_code == 0));
        }
        for _ in 0..=USUAL_FRAMES {
            let back = produce(1, &[("open.b", 0, batch_of(10_000))]);
            raw.send(&frame_of(9, 1, &back)).await;
            raw.answer::<ProduceRequest>(9).await;
        }
    }
}

/// Sends so much of a frame that the broker has a part of it, whatever the sockets hold.
async fn half_sent(lab: &Lab) -> (Raw, Vec<u8>) {
    let mut raw = on_the_way(lab, "app").await;
    let frame = frame_of(9, 1, &produce(-1, &[("open.big", 0, unlike(32 << 20, 0))]));
    raw.send(&frame[..28 << 20]).await;
    (raw, frame[28 << 20..].to_vec())
}

#[tokio::test]
async fn access_that_ends_while_a_request_is_sent_ends_the_connection() {
    let lab = Lab::new();
    big_topic(&lab).await;
    let (mut raw, rest) = half_sent(&lab).await;
    lab.reload(&POLICY.replace("\"open.*\"", "\"open.a\""));
    raw.try_send(&rest).await;
    assert!(raw.frame().await.is_none());
    let detail = "access ended while the request was being sent";
    let line = lab.audit(&[("detail", detail), ("api", "Produce")]);
    assert_eq!(
        (&line["decision"], &line["principal"]),
        (&"deny".into(), &"User:app".into())
    );
    lab.until_metric("kordon_connections", 0.0);
    assert_eq!(lab.broker().end_offset("open.big", 0), Some(0));
}

#[tokio::test]
async fn other_policies_do_not_disturb_a_request_that_stays_allowed() {
    let lab = Lab::new();
    big_topic(&lab).await;
    let (mut raw, rest) = half_sent(&lab).await;
    lab.reload(&POLICY.replace("\"open.*\"", "\"open.b.*\""));
    let before = lab.metric(SPLICED, &[]);
    lab.reload(&POLICY.replace("\"open.*\"", "\"open.*\", \"secret.*\""));
    raw.send(&rest).await;
    let (_, answer) = raw.answer::<ProduceRequest>(9).await;
    assert_eq!(part(&answer, "open.big", 0).error_code, 0);
    assert_eq!(lab.broker().end_offset("open.big", 0), Some(1));
    lab.metric_reaches(SPLICED, before + f64::from(32 << 20));
}

#[tokio::test]
async fn large_and_small_requests_in_one_burst_are_answered_in_order() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let mut logs = Logs::default();
    let kinds = [30_000, 0, 100, 20_000, 9_000, 0, 16_384, 200_000, 50, 8_300];
    let mut bytes = Vec::new();
    for id in 0..60 {
        let seed = usize::try_from(id).unwrap();
        match kinds[seed % kinds.len()] {
            0 => bytes.extend_from_slice(&frame_of(9, id, &MetadataRequest::default())),
            size => {
                let parts = [("open.a", 0, unlike(size, seed))];
                bytes.extend_from_slice(&frame_of(9, id, &produce(-1, &parts)));
                logs.add(&parts);
            }
        }
    }
    raw.send(&bytes).await;
    for id in 0..60 {
        let answered = match kinds[usize::try_from(id).unwrap() % kinds.len()] {
            0 => raw.answer::<MetadataRequest>(9).await.0,
            _ => raw.answer::<ProduceRequest>(9).await.0,
        };
        assert_eq!(answered, id);
    }
    logs.are_held(&lab);
    lab.metric_reaches(SPLICED, before + 1.0);
}

#[tokio::test]
async fn what_is_over_the_quota_is_told_so_and_what_follows_waits() {
    let quota = "---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: slow}
spec: {for: {user: app}, limits: {produce: 20KiB/s}}
";
    let lab = Lab::ruled(&format!("{POLICY}{quota}"));
    let mut raw = on_the_way(&lab, "app").await;
    let mut logs = Logs::default();
    let mut bytes = Vec::new();
    for (id, size) in [(1, 190_000), (2, 10_000), (3, 9_000)] {
        let parts = [("open.a", 0, unlike(size, size))];
        bytes.extend_from_slice(&frame_of(9, id, &produce(-1, &parts)));
        logs.add(&parts);
    }
    let before = lab.metric(SPLICED, &[]);
    let begun = Instant::now();
    raw.send(&bytes).await;
    let (_, first) = raw.answer::<ProduceRequest>(9).await;
    let told = u64::try_from(first.throttle_time_ms).unwrap();
    assert!((500..5_000).contains(&told), "{told} ms");
    lab.metric_reaches(SPLICED, before + 190_000.0);
    let (id, second) = raw.answer::<ProduceRequest>(9).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(told),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((id, part(&second, "open.a", 0).error_code), (2, 0));
    assert_eq!(raw.answer::<ProduceRequest>(9).await.0, 3);
    logs.are_held(&lab);
}

#[tokio::test]
async fn more_large_requests_than_may_be_in_flight_are_all_answered() {
    for most in [1, 2] {
        let lab = Lab::with(|setup| setup.more = format!("limits: {{inFlight: {most}}}\n"));
        let mut raw = on_the_way(&lab, "app").await;
        let before = lab.metric(SPLICED, &[]);
        let mut logs = Logs::default();
        let mut bytes = Vec::new();
        for id in 0..40 {
            let seed = usize::try_from(id).unwrap();
            let parts = [("open.a", 0, unlike(9_000 + 3_000 * seed, seed))];
            bytes.extend_from_slice(&frame_of(9, id, &produce(-1, &parts)));
            logs.add(&parts);
        }
        raw.send(&bytes).await;
        for id in 0..40 {
            assert_eq!(raw.answer::<ProduceRequest>(9).await.0, id);
        }
        logs.are_held(&lab);
        lab.metric_reaches(SPLICED, before + 1.0);
    }
}

#[tokio::test]
async fn requests_without_acknowledgement_are_written_in_order() {
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let mut logs = Logs::default();
    for seed in 0..30 {
        let parts = [("open.a", 0, unlike(9_000 + seed * 7_001, seed))];
        raw.send(&frame_of(9, 1, &produce(0, &parts))).await;
        logs.add(&parts);
    }
    raw.send(&frame_of(9, 7, &MetadataRequest::default())).await;
    assert_eq!(raw.answer::<MetadataRequest>(9).await.0, 7);
    lab.arrived("open.a", 30).await;
    logs.are_held(&lab);
    lab.metric_reaches(SPLICED, before + 30_000.0);
}

#[tokio::test]
async fn records_of_a_topic_with_a_schema_are_looked_into() {
    let schema = "---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: orders}
spec:
  topics: [typed.a]
  value: {format: avro, encoding: confluent, subject: topic, check: full}
  onViolation: reject
";
    let lab = Lab::new();
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    lab.reload(&format!("{POLICY}{schema}"));
    for round in 1..=2 {
        let large = produce(-1, &[("open.a", 0, unlike(20_000, 0))]);
        raw.send(&frame_of(9, 1, &large)).await;
        raw.answer::<ProduceRequest>(9).await;
        lab.metric_reaches(SPLICED, before + 20_000.0);
        let good = [&[0, 0, 0, 0, 7, 2][..], b"a"].concat();
        let mixed = batch(&[&good, &[b'.'; 20_000], &good]);
        let parts = [("open.b", 0, unlike(20_000, 0)), ("typed.a", 0, mixed)];
        raw.send(&frame_of(9, 1, &produce(-1, &parts))).await;
        let (_, answer) = raw.answer::<ProduceRequest>(9).await;
        assert_eq!(part(&answer, "open.b", 0).error_code, 0);
        let refused = part(&answer, "typed.a", 0);
        let index = refused.record_errors.first().map(|e| e.batch_index);
        assert_eq!((refused.error_code, index), (87, Some(1)), "round {round}");
    }
    assert_eq!(lab.broker().end_offset("typed.a", 0), Some(0));
}

#[tokio::test]
async fn half_a_large_frame_does_not_hold_the_process_and_is_not_written() {
    for bytes in [40_000, 12 << 20] {
        let mut lab = Lab::with(|setup| setup.child = true);
        big_topic(&lab).await;
        let mut raw = on_the_way(&lab, "app").await;
        let frame = frame_of(9, 1, &produce(-1, &[("open.big", 0, unlike(bytes, 0))]));
        raw.send(&frame[..frame.len() / 2]).await;
        lab.ends_soon().await;
        assert_eq!(lab.broker().end_offset("open.big", 0), Some(0));
    }
}

/// A generator of numbers (SplitMix64): the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// A request of the model: what it writes, and the code of each part.
type Asked = (i16, i32, Vec<(String, i32, Bytes, i16)>);

/// Some requests at once, to topics that no other connection writes.
fn some_requests(random: &mut Random, topics: &[String; 2], next_id: &mut i32) -> Vec<Asked> {
    let mut request = |random: &mut Random| {
        let mut parts = Vec::new();
        let kind = random.below(100);
        let count = if kind < 20 { 1 } else { 1 + random.below(5) };
        for index in 0..count {
            let size = match kind {
                0..2 => 100 + random.below(8_000),
                2..20 => 100 + random.below(4_000),
                20..90 => 8_192 + random.below(32_000),
                _ => 8_192 + random.below(292 << 10),
            };
            let topic = topics[usize::from(index >= 3)].clone();
            let index = i32::try_from(index).unwrap();
            parts.push((topic, index, unlike(size, random.below(256)), 0));
        }
        if random.below(30) == 0 {
            let (topic, code) = [
                ("secret.a", 29),
                ("nowhere", 29),
                ("__transaction_state", 29),
            ][random.below(3)];
            // At a boundary between topics: in front, or behind all others.
            let at = random.below(2) * parts.len();
            parts.insert(at, (topic.to_owned(), 0, unlike(9_000, 0), code));
        }
        *next_id += 1;
        (
            3 + i16::try_from(random.below(10)).unwrap(),
            *next_id,
            parts,
        )
    };
    let count = 1 + random.below(4);
    (0..count).map(|_| request(random)).collect()
}

#[tokio::test]
async fn whatever_is_sent_is_answered_and_held_as_the_model_says() {
    let fresh = u64::from(std::process::id()) ^ seed_of_now();
    let seed = std::env::var("KORDON_SEED").map_or(fresh, |seed| seed.parse().unwrap());
    println!("KORDON_SEED={seed}");
    let lab = Lab::new();
    let mut connections = tokio::task::JoinSet::new();
    let before = lab.metric(SPLICED, &[]);
    for number in 0..3 {
        let topics = ["m", "n"].map(|kind| format!("open.{kind}{number}"));
        for topic in &topics {
            assert!(lab.broker().create_topic(topic, 6).is_ok());
        }
        let mut raw = Raw::connect(lab.address("app")).await;
        connections.spawn(async move {
            let mut random = Random(seed.wrapping_add(number));
            let mut logs = Logs::default();
            let mut id = 0;
            while id < 70 {
                let asked = some_requests(&mut random, &topics, &mut id);
                let mut bytes = Vec::new();
                for (version, id, parts) in &asked {
                    let named: Vec<_> = { parts.iter() }
                        .map(|(topic, index, records, _)| (&**topic, *index, records.clone()))
                        .collect();
                    bytes.extend_from_slice(&frame_of(*version, *id, &produce(1, &named)));
                    for (part, (.., code)) in named.iter().zip(parts) {
                        if *code == 0 {
                            logs.add(std::slice::from_ref(part));
                        }
                    }
                }
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = [5, 300, 20_000, 400_000][random.below(4)];
                    let (piece, left) = rest.split_at((1 + random.below(most)).min(rest.len()));
                    raw.send(piece).await;
                    if random.below(3) == 0 {
                        pause().await;
                    }
                    rest = left;
                }
                for (version, id, parts) in &asked {
                    let (answered, answer) = raw.answer::<ProduceRequest>(*version).await;
                    assert_eq!(answered, *id, "KORDON_SEED={seed}");
                    for (topic, index, _, code) in parts {
                        let found = part(&answer, topic, *index).error_code;
                        assert_eq!(found, *code, "{topic}-{index}, KORDON_SEED={seed}");
                    }
                }
            }
            logs
        });
    }
    for logs in connections.join_all().await {
        logs.are_held(&lab);
    }
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
    lab.metric_reaches(SPLICED, before + 1_000_000.0);
}

fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_micros() as u64
}
