//! A small Kafka client for the tour and for tests: one connection, one request at a time, every
//! message at the version asked for. It hides nothing, so that a refusal is seen as it was sent;
//! it has no metadata cache, retries or groups.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The other side ended the connection.
    #[error("the connection was closed")]
    Closed,
    /// No answer in time.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer, or the request, is not what the version says.
    #[error("{0}")]
    Malformed(String),
}

/// A socket, plain or TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    client_id: StrBytes,
    correlation_id: i32,
    buffer: BytesMut,
}

/// One record to send, or one that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, names and values.
    pub headers: Vec<(String, Bytes)>,
    /// Where it stands; only of records that were read.
    pub offset: i64,
}

impl Client {
    /// Connects without TLS.
    pub async fn connect(address: SocketAddr, client_id: &str) -> Result<Self, ClientError> {
        let stream = within(TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::on(Box::new(stream), client_id))
    }

    /// Connects with TLS and expects the certificate to be for `server`.
    pub async fn connect_tls(
        address: SocketAddr,
        server: &str,
        tls: Arc<rustls::ClientConfig>,
        client_id: &str,
    ) -> Result<Self, ClientError> {
        let stream = within(TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(server.to_owned())
            .map_err(|e| ClientError::Malformed(e.to_string()))?;
        let stream = within(TlsConnector::from(tls).connect(name, stream)).await??;
        Ok(Self::on(Box::new(stream), client_id))
    }

    fn on(stream: Box<dyn Stream>, client_id: &str) -> Self {
        Self {
            stream,
            client_id: StrBytes::from_string(client_id.to_owned()),
            correlation_id: 0,
            buffer: BytesMut::new(),
        }
    }

    /// Sends a request and reads its answer.
    pub async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.send(version, request).await?;
        let mut frame = within(self.frame()).await??;
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version).map_err(malformed)?;
        if header.correlation_id != self.correlation_id {
            return Err(ClientError::Malformed(format!(
                "expected the answer to request {}, got that to {}",
                self.correlation_id, header.correlation_id
            )));
        }
        let response = R::Response::decode(&mut frame, version).map_err(malformed)?;
        if !frame.is_empty() {
            let message = format!("{} bytes are left after the answer", frame.len());
            return Err(ClientError::Malformed(message));
        }
        Ok(response)
    }

    /// Sends a request that has no answer (Produce with acks=0), or whose answer is read later.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<(), ClientError> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(malformed)?;
        self.send_raw(frame).await
    }

    /// Sends a frame; its first four bytes become its length.
    pub async fn send_raw(&mut self, mut frame: BytesMut) -> Result<(), ClientError> {
        let size = i32::try_from(frame.len() - 4).map_err(malformed)?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        within(self.stream.write_all(&frame)).await??;
        within(self.stream.flush()).await??;
        Ok(())
    }

    /// Whether the other side ends the connection, without a further frame, in good time.
    pub async fn is_closed(&mut self) -> bool {
        matches!(within(self.frame()).await, Ok(Err(ClientError::Closed)))
    }

    /// The next frame without its length.
    pub async fn frame(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if let Some(claim) = self.buffer.first_chunk::<4>() {
                let size = usize::try_from(i32::from_be_bytes(*claim)).map_err(malformed)?;
                if size > ANSWER_BYTES_MAX {
                    let message = format!("an answer of {size} bytes");
                    return Err(ClientError::Malformed(message));
                }
                if self.buffer.len() >= 4 + size {
                    self.buffer.advance(4);
                    return Ok(self.buffer.split_to(size).freeze());
                }
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ClientError::Closed),
                Ok(_) => {}
                // A peer that closes with our bytes unread resets the connection.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// SASL/OAUTHBEARER with a bearer token (RFC 7628, KIP-255): the broker's answer.
    pub async fn authenticate(
        &mut self,
        token: &str,
    ) -> Result<SaslAuthenticateResponse, ClientError> {
        let handshake = SaslHandshakeRequest::default().with_mechanism("OAUTHBEARER".into());
        let offered = self.call(1, &handshake).await?;
        if offered.error_code != 0 {
            let message = format!("OAUTHBEARER is refused with {}", offered.error_code);
            return Err(ClientError::Malformed(message));
        }
        let bearer = format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}");
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(bearer));
        let answer = self.call(2, &request).await?;
        if answer.error_code != 0 || answer.auth_bytes.is_empty() {
            return Ok(answer);
        }
        // RFC 7628 §3.2.3: a refusal comes as a challenge, which the client acknowledges.
        let acknowledge =
            SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\x01"));
        self.call(2, &acknowledge).await
    }

    /// Metadata of some topics; `None`: of all.
    pub async fn metadata(
        &mut self,
        topics: Option<&[&str]>,
    ) -> Result<MetadataResponse, ClientError> {
        let topics = topics.map(|names| {
            let topic =
                |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            names.iter().map(topic).collect()
        });
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false);
        self.call(12, &request).await
    }

    /// Writes one batch with acks=all and reads the answer.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Bytes,
    ) -> Result<ProduceResponse, ClientError> {
        let request = produce_request(topic, partition, records, -1);
        self.call(9, &request).await
    }

    /// Reads a partition from `offset`, waiting at most `wait` for a first record.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        wait: Duration,
    ) -> Result<FetchResponse, ClientError> {
        let request = fetch_request(topic, partition, offset, wait);
        self.call(12, &request).await
    }
}

/// A Produce request with one batch, for versions up to 12.
pub fn produce_request(topic: &str, partition: i32, records: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic])
}

/// A full Fetch request for one partition, for versions up to 12.
pub fn fetch_request(topic: &str, partition: i32, offset: i64, wait: Duration) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(8 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The producer of a batch: id, epoch, first sequence number. [`NOT_IDEMPOTENT`] for none.
pub type Sequence = (i64, i16, i32);

/// No idempotent producer.
pub const NOT_IDEMPOTENT: Sequence = (-1, -1, -1);

/// One record batch (format v2) of these records, written now.
pub fn batch(
    messages: &[Message],
    compression: Compression,
    producer: Sequence,
) -> Result<Bytes, ClientError> {
    let now = crate::clock::since_epoch(crate::clock::wall()).as_millis() as i64;
    let records: Vec<Record> = messages
        .iter()
        .zip(0..)
        .map(|(message, index)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.0,
            producer_epoch: producer.1,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            sequence: producer.2.wrapping_add(index),
            timestamp: now,
            key: message.key.clone(),
            value: message.value.clone(),
            headers: message
                .headers
                .iter()
                .map(|(name, value)| (StrBytes::from_string(name.clone()), Some(value.clone())))
                .collect(),
        })
        .collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).map_err(malformed)?;
    Ok(out.freeze())
}

/// The records of a Fetch answer's partition.
pub fn messages(records: &Bytes) -> Result<Vec<Message>, ClientError> {
    let mut left = records.clone();
    let sets = RecordBatchDecoder::decode_all(&mut left).map_err(malformed)?;
    let records = sets.into_iter().flat_map(|set| set.records);
    Ok(records
        .map(|record| Message {
            key: record.key,
            value: record.value,
            headers: record
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_string(), value.unwrap_or_default()))
                .collect(),
            offset: record.offset,
        })
        .collect())
}

/// A value in Confluent's framing: magic byte 0, schema id, payload.
pub fn confluent(schema_id: u32, payload: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + payload.len());
    framed.put_u8(0);
    framed.put_u32(schema_id);
    framed.put_slice(payload);
    framed.freeze()
}

/// A topic's name as the messages want it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn within<F: Future>(work: F) -> Result<F::Output, ClientError> {
    let outcome = tokio::time::timeout(DEADLINE, work).await;
    outcome.map_err(|_| ClientError::Timeout)
}

fn malformed(error: impl std::fmt::Display) -> ClientError {
    ClientError::Malformed(error.to_string())
}
