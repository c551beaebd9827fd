//! Connections of the embedded broker: frames in, one request at a time, frames out. The table
//! of what it supports is here; a key or version outside it closes the connection, as at a
//! broker, except that ApiVersions answers an unknown version in version 0 (KIP-511).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Shared, cluster, code, coordinator, fetch, offset, produce};
use crate::wire::primitive::WireError;
use crate::wire::walk::{Nothing, walk};

/// Every API the broker answers: key, first and last version. Produce is advertised from 0 (see
/// [`PRODUCE_ADVERTISED_FROM`]) and served from 3.
pub const APIS: [(ApiKey, i16, i16); 21] = [
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::DescribeCluster, 0, 2),
];

/// librdkafka compresses only for a broker that claims Produce 0; brokers claim it for that.
const PRODUCE_ADVERTISED_FROM: i16 = 0;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 64 << 10;

/// Who is at the other end, and what they are told about this end.
pub struct Peer {
    /// The client's address without its port.
    pub client_host: String,
    /// What brokers lists say.
    pub advertised_host: StrBytes,
    /// What brokers lists say.
    pub advertised_port: i32,
}

/// One request, its body not yet read.
pub struct Call {
    key: ApiKey,
    /// The version of the request and of its answer.
    pub version: i16,
    correlation_id: i32,
    /// The client's name for itself; empty if it has none.
    pub client_id: String,
    body: Bytes,
}

/// What becomes of the connection.
pub enum Outcome {
    /// This goes back.
    Reply(BytesMut),
    /// Nothing goes back (Produce with acks=0).
    Silent,
    /// The connection ends.
    Close,
}

/// Accepts connections until the task is aborted; they end with it.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    tokio::time::sleep(super::TICK).await; // out of descriptors: let some close
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let count = shared.connections.load(Ordering::Relaxed);
        if count >= shared.settings.connections_max as u64 {
            continue;
        }
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&shared));
        connections.spawn(async move {
            serve(stream, local, client, &open.0).await;
        });
    }
}

/// Counts a connection until it ends, however it ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, local: SocketAddr, client: SocketAddr, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let advertised = shared.settings.advertised.clone();
    let (host, port) = advertised.unwrap_or_else(|| (local.ip().to_string(), local.port()));
    let peer = Peer {
        client_host: client.ip().to_string(),
        advertised_host: StrBytes::from_string(host),
        advertised_port: i32::from(port),
    };
    let mut buffer = BytesMut::new();
    while let Some(frame) = read_frame(&mut stream, &mut buffer, shared).await {
        let outcome = match Call::from_frame(frame) {
            Some(call) => answer(shared, &peer, call).await,
            None => Outcome::Close,
        };
        match outcome {
            Outcome::Reply(reply) => {
                if stream.write_all(&reply).await.is_err() {
                    return;
                }
            }
            Outcome::Silent => {}
            Outcome::Close => return,
        }
    }
}

/// The next frame without its length; memory grows with what has arrived, not with the claim.
async fn read_frame(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    shared: &Shared,
) -> Option<Bytes> {
    loop {
        if let Some(claim) = buffer.first_chunk::<4>() {
            let size = usize::try_from(i32::from_be_bytes(*claim)).ok()?;
            if size > shared.settings.frame_bytes_max {
                return None;
            }
            if buffer.len() >= 4 + size {
                buffer.advance(4);
                return Some(buffer.split_to(size).freeze());
            }
        }
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

impl Call {
    /// Reads the header; `None` for what a broker would close the connection for.
    fn from_frame(mut frame: Bytes) -> Option<Self> {
        let start = frame.first_chunk::<4>()?;
        let key = ApiKey::try_from(i16::from_be_bytes([start[0], start[1]])).ok()?;
        let version = i16::from_be_bytes([start[2], start[3]]);
        let (_, first, last) = APIS.iter().find(|(k, _, _)| *k == key)?;
        let readable = (*first..=*last).contains(&version);
        if !readable && key != ApiKey::ApiVersions {
            return None;
        }
        // The header of an unknown ApiVersions version is read as the newest one known.
        let header_version = key.request_header_version(version.clamp(*first, *last));
        let header = RequestHeader::decode(&mut frame, header_version).ok()?;
        Some(Self {
            key,
            version,
            correlation_id: header.correlation_id,
            client_id: header
                .client_id
                .map_or_else(String::new, |id| id.to_string()),
            body: frame,
        })
    }

    /// The body as a message; `None` where it is malformed. The layout is walked first, because
    /// the crate's decoders reserve memory by the counts a body claims. Bytes left over are
    /// ignored as at a broker: librdkafka 2.16 sends three after a Metadata request for all topics.
    pub fn decode<R: Decodable>(&self) -> Option<R> {
        let layout = crate::apis::layout(self.key as i16)?;
        match walk(&layout.request, self.version, &self.body, &mut Nothing) {
            Ok(()) => {}
            Err(error) if matches!(error.what, WireError::Trailing(_)) => {}
            Err(_) => return None,
        }
        R::decode(&mut self.body.clone(), self.version).ok()
    }

    /// The frame that answers this call.
    pub fn reply<R: Encodable>(&self, response: &R) -> Outcome {
        self.reply_in(self.version, response)
    }

    fn reply_in<R: Encodable>(&self, version: i16, response: &R) -> Outcome {
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header_version = self.key.response_header_version(version);
        let encoded = header
            .encode(&mut frame, header_version)
            .and_then(|()| response.encode(&mut frame, version));
        let size = i32::try_from(frame.len() - 4);
        match (encoded, size) {
            (Ok(()), Ok(size)) => {
                frame[..4].copy_from_slice(&size.to_be_bytes());
                Outcome::Reply(frame)
            }
            (encoded, _) => {
                let error = encoded.err().map(|e| e.to_string());
                tracing::error!(api = ?self.key, version, error, "answer cannot be encoded");
                Outcome::Close
            }
        }
    }
}

async fn answer(shared: &Shared, peer: &Peer, call: Call) -> Outcome {
    if let Some(count) = shared.requests.get(call.key as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let outcome = match call.key {
        ApiKey::Produce => produce::produce(shared, &call),
        ApiKey::InitProducerId => produce::init_producer_id(shared, &call),
        ApiKey::Fetch => fetch::fetch(shared, &call).await,
        ApiKey::ListOffsets => fetch::list_offsets(shared, &call),
        ApiKey::Metadata => cluster::metadata(shared, peer, &call),
        ApiKey::DescribeCluster => cluster::describe_cluster(shared, peer, &call),
        ApiKey::CreateTopics => cluster::create_topics(shared, &call),
        ApiKey::DeleteTopics => cluster::delete_topics(shared, &call),
        ApiKey::CreatePartitions => cluster::create_partitions(shared, &call),
        ApiKey::DescribeConfigs => cluster::describe_configs(shared, peer, &call),
        ApiKey::FindCoordinator => coordinator::find(shared, peer, &call),
        ApiKey::JoinGroup => coordinator::join(shared, peer, &call).await,
        ApiKey::SyncGroup => coordinator::sync(shared, &call).await,
        ApiKey::Heartbeat => coordinator::heartbeat(shared, &call),
        ApiKey::LeaveGroup => coordinator::leave(shared, &call),
        ApiKey::DescribeGroups => coordinator::describe(shared, &call),
        ApiKey::ListGroups => coordinator::list(shared, &call),
        ApiKey::DeleteGroups => coordinator::delete(shared, &call),
        ApiKey::OffsetCommit => offset::commit(shared, &call),
        ApiKey::OffsetFetch => offset::fetch(shared, &call),
        ApiKey::ApiVersions => api_versions(&call),
        _ => None,
    };
    outcome.unwrap_or(Outcome::Close)
}

fn api_versions(call: &Call) -> Option<Outcome> {
    let api_keys = APIS
        .iter()
        .map(|(key, first, last)| {
            let first = match key {
                ApiKey::Produce => PRODUCE_ADVERTISED_FROM,
                _ => *first,
            };
            ApiVersion::default()
                .with_api_key(*key as i16)
                .with_min_version(first)
                .with_max_version(*last)
        })
        .collect();
    let response = ApiVersionsResponse::default().with_api_keys(api_keys);
    if !(0..=4).contains(&call.version) {
        return Some(call.reply_in(0, &response.with_error_code(code::UNSUPPORTED_VERSION)));
    }
    let _: ApiVersionsRequest = call.decode()?;
    Some(call.reply(&response))
}
