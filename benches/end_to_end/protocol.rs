//! A small blocking Kafka client: kafka-protocol for the small messages, templates of bytes for
//! Produce, a walk without copies for Fetch. Its own cost must stay far below a proxy's.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest,
    ListOffsetsRequest, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::Outcome;

/// A peer that is silent for so long has hung; nothing measured here takes a tenth of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where the correlation id stands in a framed request: after length, API key and version.
const CORRELATION_AT: std::ops::Range<usize> = 8..12;

/// One connection, requests and answers in order.
pub struct Connection {
    /// The socket; load generators write templates to it directly.
    pub stream: TcpStream,
    correlation: i32,
}

/// The versions the peer and this client have in common, where it matters.
#[derive(Clone, Copy)]
pub struct Versions {
    /// Produce, at most 13 (topic ids).
    pub produce: i16,
    /// Fetch, at most 17 (topic ids).
    pub fetch: i16,
}

/// A connection to the leader of a topic.
pub struct Led {
    /// To the leader.
    pub connection: Connection,
    /// What may be sent there.
    pub versions: Versions,
    /// The topic as Metadata shows it.
    pub topic: MetadataResponseTopic,
}

impl Connection {
    /// Connects without delay of small segments.
    pub fn open(address: &str) -> Outcome<Connection> {
        let address = address
            .to_socket_addrs()?
            .next()
            .ok_or("a host without address")?;
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Connection::over(stream))
    }

    /// A connection over a socket that is open already.
    pub fn over(stream: TcpStream) -> Connection {
        Connection {
            stream,
            correlation: 0,
        }
    }

    /// Looks a topic up at `address` and connects to the leader Metadata names, as clients do:
    /// through a proxy that is another port. All partitions have the one broker as leader.
    pub fn to_leader(address: &str, topic: &str) -> Outcome<Led> {
        let mut bootstrap = Connection::open(address)?;
        bootstrap.versions()?;
        let topic = bootstrap.topic(topic)?;
        let mut connection = Connection::open(&Connection::leader_address(address)?)?;
        let versions = connection.versions()?;
        Ok(Led {
            connection,
            versions,
            topic,
        })
    }

    /// Where the one broker is, by the Metadata that `address` gives.
    pub fn leader_address(address: &str) -> Outcome<String> {
        let answer = Connection::open(address)?.metadata(&[])?;
        let broker = answer.brokers.first().ok_or("metadata without brokers")?;
        Ok(format!("{}:{}", broker.host.as_str(), broker.port))
    }

    /// One request, one answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Outcome<R::Response> {
        self.correlation += 1;
        let mut frame = framed(version, request)?;
        self.send(&mut frame, self.correlation)?;
        let mut body = Vec::new();
        self.receive(&mut body)?;
        decode::<R>(version, &body, self.correlation)
    }

    /// Writes a framed request under the correlation id given.
    pub fn send(&mut self, frame: &mut [u8], correlation: i32) -> Outcome<()> {
        frame[CORRELATION_AT].copy_from_slice(&correlation.to_be_bytes());
        Ok(self.stream.write_all(frame)?)
    }

    /// Reads one frame into `buffer`, which grows and is used again; returns its length, bytes.
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> Outcome<usize> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        self.stream.read_exact(&mut buffer[..length])?;
        Ok(length)
    }

    /// ApiVersions, as every client begins; says what the client may use.
    pub fn versions(&mut self) -> Outcome<Versions> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("kordon-bench"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let answer = self.call(3, &request)?;
        let highest = |key: ApiKey, own: i16| {
            answer
                .api_keys
                .iter()
                .find(|row| row.api_key == key as i16)
                .map(|row| row.max_version.min(own))
                .ok_or_else(|| format!("{key:?} is not advertised"))
        };
        let versions = Versions {
            produce: highest(ApiKey::Produce, 13)?,
            fetch: highest(ApiKey::Fetch, 17)?,
        };
        if versions.produce < 9 || versions.fetch < 12 {
            return Err("Produce 9 and Fetch 12 are the oldest this generator speaks".into());
        }
        Ok(versions)
    }

    /// Metadata of the topics named, none for the brokers alone.
    pub fn metadata(&mut self, topics: &[&str]) -> Outcome<MetadataResponse> {
        let topics = topics
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect();
        self.call(12, &MetadataRequest::default().with_topics(Some(topics)))
    }

    /// One topic as Metadata shows it, waiting until its partitions have leaders.
    pub fn topic(&mut self, name: &str) -> Outcome<MetadataResponseTopic> {
        for _ in 0..200 {
            let answer = self.metadata(&[name])?;
            if let Some(topic) = answer.topics.into_iter().next()
                && topic.error_code == 0
                && !topic.partitions.is_empty()
                && topic.partitions.iter().all(|row| row.error_code == 0)
            {
                return Ok(topic);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(format!("topic `{name}` has no leaders after five seconds").into())
    }

    /// Creates a topic and waits until its leaders answer for it: Metadata may know them sooner.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Outcome<()> {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.call(7, &request)?;
        match answer.topics.iter().find(|row| row.error_code != 0) {
            Some(row) => Err(format!("topic `{name}` not created: {}", row.error_code).into()),
            None => self.await_leaders(name),
        }
    }

    fn await_leaders(&mut self, name: &str) -> Outcome<()> {
        let partitions = self.topic(name)?.partitions.len();
        let rows = (0..i32::try_from(partitions)?)
            .map(|index| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(-1)
            })
            .collect();
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(rows);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        for _ in 0..200 {
            let answer = self.call(7, &request)?;
            let mut rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
            if rows.all(|row| row.error_code == 0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(format!("topic `{name}` does not answer after five seconds").into())
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) -> Outcome<()> {
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.call(6, &request)?;
        match answer.responses.iter().find(|row| row.error_code != 0) {
            Some(row) => Err(format!("topic `{name}` not deleted: {}", row.error_code).into()),
            None => Ok(()),
        }
    }
}

/// A topic name in kafka-protocol's type.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A framed request with correlation id 0.
pub fn framed<R: Request>(version: i16, request: &R) -> Outcome<BytesMut> {
    let mut frame = BytesMut::zeroed(4);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("bench")))
        .encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn decode<R: Request>(version: i16, body: &[u8], correlation: i32) -> Outcome<R::Response> {
    let mut body = Bytes::copy_from_slice(body);
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut body, header_version)?;
    if header.correlation_id != correlation {
        let got = header.correlation_id;
        return Err(format!("answer out of order: expected {correlation}, got {got}").into());
    }
    Ok(R::Response::decode(&mut body, version)?)
}

/// A framed Produce request that carries `batch` to each of `partitions`.
pub fn produce_frame(
    version: i16,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
    batch: &Bytes,
    acks: i16,
) -> Outcome<BytesMut> {
    let data = partitions
        .iter()
        .map(|&index| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(batch.clone()))
        })
        .collect();
    let topic = TopicProduceData::default()
        .with_name(topic.name.clone().unwrap_or_default())
        .with_topic_id(topic.topic_id)
        .with_partition_data(data);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    framed(version, &request)
}

/// Fails unless the answer accepts every batch.
pub fn check_produced(version: i16, body: &[u8], correlation: i32) -> Outcome<()> {
    let answer: ProduceResponse = decode::<ProduceRequest>(version, body, correlation)?;
    let refused = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .find(|row| row.error_code != 0);
    match refused {
        Some(row) => Err(format!("produce refused with error {}", row.error_code).into()),
        None => Ok(()),
    }
}

/// A framed Fetch request from the offset of each partition.
pub fn fetch_frame(
    version: i16,
    topic: &MetadataResponseTopic,
    offsets: &[i64],
    bytes_max: i32,
    partition_bytes_max: i32,
) -> Outcome<BytesMut> {
    let mut partitions = Vec::with_capacity(offsets.len());
    for (index, &offset) in offsets.iter().enumerate() {
        partitions.push(
            FetchPartition::default()
                .with_partition(i32::try_from(index)?)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_fetch_offset(offset)
                .with_partition_max_bytes(partition_bytes_max),
        );
    }
    let topic = FetchTopic::default()
        .with_topic(topic.name.clone().unwrap_or_default())
        .with_topic_id(topic.topic_id)
        .with_partitions(partitions);
    let request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    framed(version, &request)
}

/// One batch of `count` records of `size` bytes, as a producer would send it.
pub fn batch(count: usize, size: usize, compression: Compression) -> Outcome<Bytes> {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    let timestamp = i64::try_from(now_ms)?;
    let mut records = Vec::with_capacity(count);
    for number in 0..count {
        let offset = i64::try_from(number)?;
        records.push(Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            // The encoder begins a new batch where sequence and offset part ways.
            sequence: i32::try_from(offset)? - 1,
            timestamp,
            key: None,
            value: Some(payload(number, size)),
            headers: Default::default(),
        });
    }
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options)?;
    Ok(bytes.freeze())
}

/// A JSON event of exactly `size` bytes: half of it repeats as field names do, half is random
/// letters, so that lz4 makes about half of it, like an ordinary event.
pub fn payload(number: usize, size: usize) -> Bytes {
    let mut text = String::with_capacity(size + 64);
    let mut state = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while text.len() < size {
        text.push_str("{\"event\":\"order.accepted\",\"tenant\":\"shop\",\"id\":\"");
        for _ in 0..48 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(b'a' + (state >> 33) as u8 % 26));
        }
        text.push_str("\"}");
    }
    text.truncate(size);
    Bytes::from(text)
}
