//! Short words for requests, records and answers.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, ProduceRequest, ProduceResponse, ResponseHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::Compression;
use kordon::demo::client::{self, Client, ClientError, Message, NOT_IDEMPOTENT, topic_name};

pub use super::signer::{now, token};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The text of a refused token (RFC 7628).
pub const INVALID_TOKEN: &str = r#"{"status":"invalid_token"}"#;

/// Every codec there is.
pub const ALL_CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

pub fn message(value: &[u8]) -> Message {
    Message {
        value: Some(Bytes::copy_from_slice(value)),
        ..Message::default()
    }
}

/// A batch of records with these values.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let messages: Vec<Message> = values.iter().map(|value| message(value)).collect();
    client::batch(&messages, Compression::None, NOT_IDEMPOTENT).unwrap()
}

/// A batch of one record of about so many bytes.
pub fn batch_of(bytes: usize) -> Bytes {
    batch(&[&vec![b'.'; bytes]])
}

/// A Produce request for several partitions: topic, partition, records.
pub fn produce(acks: i16, parts: &[(&str, i32, Bytes)]) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for (name, index, records) in parts {
        let data = PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(records.clone()));
        match topics.iter_mut().find(|t| t.name == topic_name(name)) {
            Some(topic) => topic.partition_data.push(data),
            None => topics.push(
                TopicProduceData::default()
                    .with_name(topic_name(name))
                    .with_partition_data(vec![data]),
            ),
        }
    }
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(5_000)
        .with_topic_data(topics)
}

/// The part of an answer that is about one partition.
pub fn part(answer: &ProduceResponse, topic: &str, index: i32) -> PartitionProduceResponse {
    let topics = answer.responses.iter().filter(|t| *t.name == *topic);
    let mut parts = topics
        .flat_map(|t| &t.partition_responses)
        .filter(|p| p.index == index);
    let part = parts.next().expect("the partition is answered").clone();
    assert!(parts.next().is_none(), "answered twice");
    part
}

/// Reads the next answer; asks only for the form, not which request it belongs to.
pub async fn answer<R: Request>(client: &mut Client, version: i16) -> (i32, R::Response) {
    let (id, mut body) = frame::<R>(client, version).await;
    let response = R::Response::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "{} bytes are left", body.len());
    (id, response)
}

async fn frame<R: Request>(client: &mut Client, version: i16) -> (i32, Bytes) {
    let frame = tokio::time::timeout(PATIENCE, client.frame()).await;
    let mut frame = frame.expect("an answer in time").expect("an answer");
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    (header.correlation_id, frame)
}

/// The first message of SASL/OAUTHBEARER.
pub fn first_message(token: &str) -> Bytes {
    Bytes::from(format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}"))
}

pub fn handshake(mechanism: &str) -> SaslHandshakeRequest {
    let mechanism = StrBytes::from_string(mechanism.to_owned());
    SaslHandshakeRequest::default().with_mechanism(mechanism)
}

pub fn sasl(bytes: impl Into<Bytes>) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(bytes.into())
}

/// SaslHandshake and then one SaslAuthenticate.
pub async fn say_token(client: &mut Client, token: &str) -> SaslAuthenticateResponse {
    let offered = client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
    assert_eq!(offered.error_code, 0);
    client.call(2, &sasl(first_message(token))).await.unwrap()
}

pub fn versions(software: &str) -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_string(software.to_owned()))
        .with_client_software_version("1.0".into())
}

/// Sends a header that no encoder writes, and `body`.
pub async fn send_bytes(client: &mut Client, key: i16, version: i16, body: &[u8]) {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(-1);
    frame.put_slice(body);
    client.send_raw(frame).await.unwrap();
}

/// The next frame, whatever it is; `None`: the connection is closed.
pub async fn next(client: &mut Client) -> Option<Bytes> {
    match tokio::time::timeout(PATIENCE, client.frame()).await {
        Ok(Ok(frame)) => Some(frame),
        Ok(Err(ClientError::Closed)) => None,
        other => panic!("neither a frame nor the end: {other:?}"),
    }
}

/// Whether the connection ends, after whatever is still said.
pub async fn ends(client: &mut Client) -> bool {
    for _ in 0..10 {
        match tokio::time::timeout(PATIENCE, client.frame()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// Code of each partition of a Fetch answer at a version with names.
pub fn fetched(answer: &kafka_protocol::messages::FetchResponse) -> Vec<(String, i32, i16, Bytes)> {
    let mut all = Vec::new();
    for topic in &answer.responses {
        for partition in &topic.partitions {
            all.push((
                topic.topic.to_string(),
                partition.partition_index,
                partition.error_code,
                partition.records.clone().unwrap_or_default(),
            ));
        }
    }
    all
}

/// Bytes of a record batch without what a broker writes into it: base offset, leader epoch.
pub fn without_numbers(batch: &Bytes) -> Bytes {
    let mut rest = batch.clone();
    rest.advance(17);
    rest
}
