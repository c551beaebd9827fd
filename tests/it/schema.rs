//! Records against their schema: which are bad, why, and that none of them reaches the broker.

use bytes::Bytes;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::records::Compression;
use kordon::demo::client::{self, Client, Message, NOT_IDEMPOTENT, confluent};

use crate::support::*;

fn lab() -> Lab {
    ruled("{format: avro, encoding: confluent, subject: topic, check: full}")
}

fn ruled(value: &str) -> Lab {
    Lab::ruled(&format!(
        "{POLICY}---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {{name: orders}}
spec:
  topics: [typed.a]
  value: {value}
  onViolation: reject
"
    ))
}

/// An `Order` in Confluent's framing.
fn order(id: &str) -> Bytes {
    let mut avro = vec![2 * u8::try_from(id.len()).unwrap()];
    avro.extend_from_slice(id.as_bytes());
    confluent(7, &avro)
}

fn records(values: &[Bytes], codec: Compression) -> Bytes {
    let messages: Vec<Message> = values.iter().map(|value| message(value)).collect();
    client::batch(&messages, codec, NOT_IDEMPOTENT).unwrap()
}

async fn write(client: &mut Client, index: i32, records: Bytes) -> PartitionProduceResponse {
    let answer = client.produce("typed.a", index, records).await.unwrap();
    part(&answer, "typed.a", index)
}

fn errors(part: &PartitionProduceResponse) -> Vec<(i32, String)> {
    let each = part.record_errors.iter();
    let text = |e: &Option<kafka_protocol::protocol::StrBytes>| e.as_deref().unwrap().to_owned();
    each.map(|e| (e.batch_index, text(&e.batch_index_error_message)))
        .collect()
}

#[tokio::test]
async fn bad_records_are_told_one_by_one_with_every_codec_and_none_arrives() {
    let lab = lab();
    let mut client = lab.app().await;
    let cut = confluent(7, &[8, b'a']);
    let values = [
        order("a"),
        cut,
        order("b"),
        Bytes::from_static(b"{}"),
        order("c"),
    ];
    for codec in ALL_CODECS {
        let part = write(&mut client, 0, records(&values, codec)).await;
        assert_eq!((part.error_code, part.base_offset), (87, -1), "{codec:?}");
        let text = part.error_message.as_deref();
        assert_eq!(text, Some("2 records do not match the topic's schema"));
        let told = errors(&part);
        assert_eq!((told.len(), told[0].0, told[1].0), (2, 1, 3), "{told:?}");
        let first = "value is not a `Order` (schema id 7): ";
        assert!(told[0].1.starts_with(first), "{told:?}");
        assert!(told[1].1.starts_with("value "), "{told:?}");
    }
    assert_eq!(lab.broker().requests(0), 0);
    let line = lab.audit(&[("reason", "value"), ("resource", "Topic:typed.a")]);
    assert!(
        line["rule"].as_str().unwrap().contains("base.yaml:"),
        "{line}"
    );
    lab.metric_is("kordon_schema_violations_total", &["reject"], 10.0);
}

#[tokio::test]
async fn good_records_arrive_as_they_were_written_with_every_codec() {
    let lab = lab();
    let mut client = lab.app().await;
    let mut sent = Vec::new();
    for codec in ALL_CODECS {
        let batch = records(&[order("a"), order("b")], codec);
        assert_eq!(
            write(&mut client, 0, batch.clone()).await.error_code,
            0,
            "{codec:?}"
        );
        sent.extend_from_slice(&without_numbers(&batch));
    }
    let mut held = lab.broker().records("typed.a", 0).unwrap();
    let mut arrived = Vec::new();
    while !held.is_empty() {
        let length = 12 + i32::from_be_bytes(held[8..12].try_into().unwrap()) as usize;
        arrived.extend_from_slice(&without_numbers(&held.split_to(length)));
    }
    assert!(
        arrived == sent,
        "the broker holds other bytes than were sent"
    );
}

#[tokio::test]
async fn other_partitions_of_the_same_request_are_written() {
    let lab = lab();
    let mut client = lab.app().await;
    let good = records(&[order("a")], Compression::None);
    let bad = batch(&[b"plain text"]);
    for version in [3, 7, 8, 9, 12] {
        let parts = [
            ("typed.a", 0, good.clone()),
            ("typed.a", 1, bad.clone()),
            ("open.a", 0, bad.clone()),
        ];
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        assert_eq!(answer.responses.len(), 2, "version {version}");
        assert_eq!(part(&answer, "typed.a", 0).error_code, 0);
        assert_eq!(part(&answer, "open.a", 0).error_code, 0);
        let refused = part(&answer, "typed.a", 1);
        let told = if version < 8 { 0 } else { 1 };
        assert_eq!(
            (refused.error_code, refused.record_errors.len()),
            (87, told)
        );
    }
    assert_eq!(lab.broker().end_offset("typed.a", 0), Some(5));
    assert_eq!(lab.broker().end_offset("typed.a", 1), Some(0));
}

#[tokio::test]
async fn t26_a_null_value_passes_only_if_the_policy_says_so() {
    let tombstone = [Message::default()];
    let tombstone = client::batch(&tombstone, Compression::None, NOT_IDEMPOTENT).unwrap();
    for (empty, code) in [("allow", 0), ("reject", 87)] {
        let lab = ruled(&format!(
            "{{format: avro, encoding: confluent, subject: topic, check: full, empty: {empty}}}"
        ));
        let part = write(&mut lab.app().await, 0, tombstone.clone()).await;
        assert_eq!(part.error_code, code, "{empty}");
        if code == 87 {
            assert_eq!(
                errors(&part)[0].1,
                "value is null, which the policy does not allow"
            );
        }
    }
}

#[tokio::test]
async fn t25_an_id_that_is_not_the_topics_is_refused() {
    let lab = lab();
    let value = confluent(9, &order("a")[5..]);
    let part = write(
        &mut lab.app().await,
        0,
        records(&[value], Compression::None),
    )
    .await;
    assert_eq!(part.error_code, 87);
    let (index, text) = errors(&part).remove(0);
    assert!(
        text.starts_with("value has schema id 9, not registered under "),
        "{text}"
    );
    assert_eq!((index, lab.broker().requests(0)), (0, 0));
}

#[tokio::test]
async fn t25_a_good_id_in_front_of_other_bytes_passes_only_a_check_of_the_id() {
    for (check, code) in [("id", 0), ("full", 87)] {
        let lab = ruled(&format!(
            "{{format: avro, encoding: confluent, subject: topic, check: {check}}}"
        ));
        let trailing = confluent(7, &[2, b'a', 0]);
        let batch = records(&[trailing], Compression::None);
        assert_eq!(
            write(&mut lab.app().await, 0, batch).await.error_code,
            code,
            "{check}"
        );
    }
}

#[tokio::test]
async fn t24_a_batch_whose_checksum_is_wrong_is_corrupt() {
    let lab = lab();
    let mut bytes = records(&[order("a")], Compression::None).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let part = write(&mut lab.app().await, 0, bytes.into()).await;
    assert_eq!((part.error_code, lab.broker().requests(0)), (2, 0));
}

#[tokio::test]
async fn t23_a_batch_that_unpacks_to_far_more_is_refused() {
    let lab = lab();
    let bomb = Bytes::from(vec![0; 200 << 20]);
    let part = write(&mut lab.app().await, 0, records(&[bomb], Compression::Zstd)).await;
    assert_eq!((part.error_code, lab.broker().requests(0)), (87, 0));
}

#[tokio::test]
async fn t30_a_bad_record_without_acknowledgement_ends_the_connection() {
    let lab = lab();
    let mut client = lab.app().await;
    let good = records(&[order("a")], Compression::None);
    let parts = [
        ("typed.a", 0, good),
        ("typed.a", 1, batch(&[b"plain text"])),
    ];
    client.send(9, &produce(0, &parts)).await.unwrap();
    assert!(client.is_closed().await);
    lab.arrived("typed.a", 1).await;
    assert_eq!(lab.broker().end_offset("typed.a", 1), Some(0));
}

#[tokio::test]
async fn partitions_of_a_topic_that_is_named_by_id_are_answered_in_one_place() {
    let lab = lab();
    let mut client = lab.app().await;
    let id = client.metadata(Some(&["typed.a"])).await.unwrap().topics[0].topic_id;
    let good = records(&[order("a")], Compression::None);
    let parts = [
        ("", 0, good.clone()),
        ("", 1, batch(&[b"plain"])),
        ("", 2, good),
    ];
    let mut request = produce(-1, &parts);
    request.topic_data[0].topic_id = id;
    let answer = client.call(13, &request).await.unwrap();
    assert_eq!(
        (answer.responses.len(), answer.responses[0].topic_id),
        (1, id)
    );
    let codes = [0, 1, 2].map(|index| part(&answer, "", index).error_code);
    assert_eq!(codes, [0, 87, 0]);
    assert_eq!(lab.broker().end_offset("typed.a", 1), Some(0));
}
