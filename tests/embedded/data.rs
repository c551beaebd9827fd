//! Produce, fetch and offsets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
};
use kafka_protocol::records::Compression;
use kordon::demo::broker::{Broker, BrokerSettings, code};
use kordon::demo::client::{
    self, Client, ClientError, Message, fetch_request, messages, produce_request, topic_name,
};

use super::{broker, connect, plain, values};

async fn with_topic() -> (Broker, Client) {
    let broker = broker().await;
    broker.create_topic("user.authenticated", 2).unwrap();
    let client = connect(broker.address()).await;
    (broker, client)
}

fn outcome(response: &kafka_protocol::messages::ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[tokio::test]
async fn what_is_written_is_read_whatever_the_compression() {
    let (_broker, mut client) = with_topic().await;
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let sent: Vec<Message> = values(20)
        .into_iter()
        .map(|m| Message {
            key: Some("key".into()),
            headers: vec![("tenant-id".to_owned(), Bytes::from("corallum"))],
            ..m
        })
        .collect();
    for (codec, base) in codecs.into_iter().zip((0..).step_by(20)) {
        let batch = client::batch(&sent, codec, client::NOT_IDEMPOTENT).unwrap();
        let answer = client
            .produce("user.authenticated", 1, batch)
            .await
            .unwrap();
        assert_eq!(outcome(&answer), (0, base), "{codec:?}");
    }
    let answer = client
        .fetch("user.authenticated", 1, 0, Duration::ZERO)
        .await
        .unwrap();
    let read = messages(answer.responses[0].partitions[0].records.as_ref().unwrap()).unwrap();
    assert_eq!(read.len(), 100);
    for (index, message) in read.iter().enumerate() {
        let expected = Message {
            offset: index as i64,
            ..sent[index % 20].clone()
        };
        assert_eq!(*message, expected);
    }
}

#[tokio::test]
async fn a_long_poll_ends_when_records_arrive_and_not_before() {
    let (broker, mut reader) = with_topic().await;
    let mut writer = connect(broker.address()).await;
    let began = Instant::now();
    let read = tokio::spawn(async move {
        let wait = Duration::from_secs(8);
        let answer = reader.fetch("user.authenticated", 0, 0, wait).await;
        (answer.unwrap(), began.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    writer
        .produce("user.authenticated", 0, plain(3))
        .await
        .unwrap();
    let (answer, took) = read.await.unwrap();
    let records = answer.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(messages(&records).unwrap().len(), 3);
    assert!(took >= Duration::from_millis(150), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_long_poll_ends_when_its_time_is_over() {
    let (_broker, mut client) = with_topic().await;
    let began = Instant::now();
    let wait = Duration::from_millis(200);
    let answer = client.fetch("user.authenticated", 0, 0, wait).await;
    assert!(began.elapsed() >= wait);
    let partition = &answer.unwrap().responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 0));
    assert!(partition.records.as_ref().is_none_or(Bytes::is_empty));
}

#[tokio::test]
async fn offsets_out_of_range_and_unknown_partitions_are_said_at_once() {
    let (_broker, mut client) = with_topic().await;
    let wait = Duration::from_secs(9);
    let began = Instant::now();
    for (topic, partition, offset, expected) in [
        ("user.authenticated", 0, 5, code::OFFSET_OUT_OF_RANGE),
        ("user.authenticated", 2, 0, code::UNKNOWN_TOPIC_OR_PARTITION),
        ("user.created", 0, 0, code::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let answer = client.fetch(topic, partition, offset, wait).await.unwrap();
        let got = answer.responses[0].partitions[0].error_code;
        assert_eq!(got, expected, "{topic} {partition} {offset}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn topics_are_addressed_by_id_in_the_newest_versions() {
    let (_broker, mut client) = with_topic().await;
    let metadata = client
        .metadata(Some(&["user.authenticated"]))
        .await
        .unwrap();
    let id = metadata.topics[0].topic_id;
    let data = PartitionProduceData::default().with_records(Some(plain(2)));
    let topic = TopicProduceData::default()
        .with_topic_id(id)
        .with_partition_data(vec![data]);
    let produce = ProduceRequest::default()
        .with_acks(1)
        .with_topic_data(vec![topic.clone()]);
    assert_eq!(
        outcome(&client.call(13, &produce).await.unwrap()),
        (code::NONE, 0)
    );
    let partition = FetchPartition::default().with_partition_max_bytes(1000);
    let wanted = FetchTopic::default()
        .with_topic_id(id)
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default().with_max_bytes(1000);
    let found = client
        .call(17, &fetch.clone().with_topics(vec![wanted.clone()]))
        .await
        .unwrap();
    assert_eq!(found.responses[0].topic_id, id);
    assert_eq!(found.responses[0].partitions[0].high_watermark, 2);
    let unknown = wanted.with_topic_id(Default::default());
    let missing = client
        .call(17, &fetch.with_topics(vec![unknown]))
        .await
        .unwrap();
    assert_eq!(
        missing.responses[0].partitions[0].error_code,
        code::UNKNOWN_TOPIC_ID
    );
    let unknown = produce.with_topic_data(vec![topic.with_topic_id(Default::default())]);
    assert_eq!(
        outcome(&client.call(13, &unknown).await.unwrap()),
        (code::UNKNOWN_TOPIC_ID, -1)
    );
}

#[tokio::test]
async fn an_idempotent_producer_writes_once() {
    let (broker, mut client) = with_topic().await;
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let given = client.call(5, &request).await.unwrap();
    assert_eq!(given.error_code, code::NONE);
    let (id, epoch) = (given.producer_id.0, given.producer_epoch);
    let batch = |count, sequence| {
        client::batch(&values(count), Compression::None, (id, epoch, sequence)).unwrap()
    };
    for (count, sequence, expected) in [
        (3, 0, (code::NONE, 0)),
        (2, 3, (code::NONE, 3)),
        (3, 0, (code::NONE, 0)),
        (1, 7, (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1)),
        (1, 5, (code::NONE, 5)),
    ] {
        let answer = client
            .produce("user.authenticated", 0, batch(count, sequence))
            .await
            .unwrap();
        assert_eq!(outcome(&answer), expected, "sequence {sequence}");
    }
    assert_eq!(broker.end_offset("user.authenticated", 0), Some(6));
}

#[tokio::test]
async fn a_bad_batch_is_refused_with_its_reason() {
    let (broker, mut client) = with_topic().await;
    let mut broken = bytes::BytesMut::from(&plain(3)[..]);
    let last = broken.len() - 1;
    broken[last] ^= 0x55;
    let answer = client
        .produce("user.authenticated", 0, broken.freeze())
        .await
        .unwrap();
    assert_eq!(outcome(&answer), (code::CORRUPT_MESSAGE, -1));
    let message = &answer.responses[0].partition_responses[0].error_message;
    assert!(message.as_ref().unwrap().contains("checksum"));
    let request = produce_request("user.authenticated", 0, plain(1), 2);
    let answer = client.call(9, &request).await.unwrap();
    assert_eq!(outcome(&answer).0, code::INVALID_REQUIRED_ACKS);
    assert_eq!(broker.end_offset("user.authenticated", 0), Some(0));
}

#[tokio::test]
async fn acks_0_has_no_answer_and_a_failure_closes() {
    let (broker, mut client) = with_topic().await;
    let good = produce_request("user.authenticated", 0, plain(1), 0);
    client.send(9, &good).await.unwrap();
    let metadata = client.metadata(None).await.unwrap();
    assert_eq!(metadata.topics.len(), 1);
    assert_eq!(broker.end_offset("user.authenticated", 0), Some(1));
    let bad = produce_request("no.such.topic", 0, plain(1), 0);
    client.send(9, &bad).await.unwrap();
    assert!(matches!(client.frame().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn the_oldest_records_give_way() {
    let settings = BrokerSettings {
        partition_bytes_max: 2_000,
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    broker.create_topic("small", 1).unwrap();
    let mut client = connect(broker.address()).await;
    for _ in 0..20 {
        client.produce("small", 0, plain(10)).await.unwrap();
    }
    assert!(broker.records("small", 0).unwrap().len() <= 2_000);
    let offset = |timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("small"))
            .with_partitions(vec![partition]);
        ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic])
    };
    let mut found = Vec::new();
    for timestamp in [-1, -2, -3, 0, i64::MAX] {
        let answer = client.call(7, &offset(timestamp)).await.unwrap();
        found.push(answer.topics[0].partitions[0].offset);
    }
    let first = found[1];
    assert!(first > 0 && first % 10 == 0, "{found:?}");
    assert_eq!(found[0], 200);
    assert!(found[2] >= first && found[2] < 200, "{found:?}");
    assert_eq!(found[3..], [first, -1]);
    let answer = client.fetch("small", 0, 0, Duration::ZERO).await.unwrap();
    assert_eq!(
        answer.responses[0].partitions[0].error_code,
        code::OFFSET_OUT_OF_RANGE
    );
}

#[tokio::test]
async fn a_fetch_session_that_never_was_is_refused() {
    let (_broker, mut client) = with_topic().await;
    let request = fetch_request("user.authenticated", 0, 0, Duration::ZERO)
        .with_session_id(7)
        .with_session_epoch(1);
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(answer.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test]
async fn a_frame_above_the_limit_closes_the_connection() {
    let settings = BrokerSettings {
        frame_bytes_max: 1_000,
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    let mut client = connect(broker.address()).await;
    client
        .send_raw(bytes::BytesMut::zeroed(2_000))
        .await
        .unwrap();
    assert!(matches!(client.frame().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let settings = BrokerSettings {
        listeners: vec![([0, 0, 0, 0], 0).into()],
        ..BrokerSettings::default()
    };
    assert!(Broker::start(settings).await.is_err());
}
