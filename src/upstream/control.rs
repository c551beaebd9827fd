//! The proxy's own questions to the cluster: who the brokers are, which topic an id stands for,
//! what versions a broker has. Connections of clients are never used for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::timeout;

use super::dial::{Backoff, DialError, Dialer};
use super::topology::Topology;
use crate::apis::{self, API_VERSIONS, METADATA};
use crate::broker::{BrokerAddr, BrokerId, Target};
use crate::clock;

use crate::net::stream::Stream;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, StructNode};

/// How often the list of brokers is asked for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a broker's list of versions serves clients that have not authenticated yet.
const VERSIONS_TTL: Duration = Duration::from_secs(60);
/// How long a broker may take for an answer to the proxy itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer to the proxy itself, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Metadata by topic id needs this version.
const METADATA_VERSION: i16 = 12;
/// The key of DescribeAcls, and the version that knows users as resources.
const DESCRIBE_ACLS: i16 = 29;
const DESCRIBE_ACLS_VERSION: i16 = 3;
/// ApiVersions with features.
const VERSIONS_VERSION: i16 = 3;
/// After this many lists without it, a broker's ports are released.
const MISSES_MAX: u32 = 2;

/// Told when brokers appear and go.
pub trait Watch: Send + Sync {
    /// A broker is there: its ports are bound before this returns.
    fn appeared(&self, id: BrokerId);
    /// A broker is gone: its ports are released. It may appear again.
    fn gone(&self, id: BrokerId);
}

/// The cluster behind the proxy; shared by all threads.
pub struct Cluster {
    dialer: Dialer,
    bootstrap: Vec<BrokerAddr>,
    /// What is known.
    pub topology: Topology,
    watch: std::sync::OnceLock<Arc<dyn Watch>>,
    misses: Mutex<HashMap<BrokerId, u32>>,
    versions: Mutex<HashMap<Target, (Instant, Arc<StructNode>)>>,
    /// One question about topic ids at a time: those who wait find the answer already there.
    resolving: AsyncMutex<()>,
    refresh: Notify,
}

/// Why the proxy's own question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke or the answer took too long.
    #[error("no answer from the broker")]
    NoAnswer,
    /// The answer cannot be read.
    #[error("unreadable answer from the broker")]
    Unreadable,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(dialer: Dialer, bootstrap: Vec<BrokerAddr>) -> Self {
        Cluster {
            dialer,
            bootstrap,
            topology: Topology::default(),
            watch: std::sync::OnceLock::new(),
            misses: Mutex::default(),
            versions: Mutex::default(),
            resolving: AsyncMutex::new(()),
            refresh: Notify::new(),
        }
    }

    /// Who is told about brokers; once.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        let _ = self.watch.set(watch);
    }

    /// A connection for a client.
    pub async fn dial(&self, target: Target) -> Result<(BrokerAddr, Stream), DialError> {
        let dialled = match target {
            Target::Bootstrap => self.dialer.race(&self.bootstrap).await,
            Target::Broker(id) => match self.topology.broker(id) {
                Some(addr) => self.dialer.dial(&addr).await.map(|stream| (addr, stream)),
                // Ports are bound only for brokers that are known.
                None => self.dialer.race(&[]).await,
            },
        };
        if dialled.is_err() {
            self.refresh.notify_one();
        }
        dialled
    }

    /// Remembers a broker that an answer named; binds its ports if it is new.
    pub fn learn_broker(&self, id: BrokerId, addr: BrokerAddr) {
        if id < 0 {
            return;
        }
        let new = self.topology.learn_broker(id, addr);
        let back = self
            .misses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        let back = back.is_some_and(|misses| misses >= MISSES_MAX);
        if let (true, Some(watch)) = (new || back, self.watch.get()) {
            watch.appeared(id);
        }
    }

    /// Asks for the brokers again and again, for the life of the process. `first` is told when
    /// the first list is there.
    pub async fn run(&self, first: impl FnOnce()) {
        let mut first = Some(first);
        let mut backoff = Backoff::default();
        loop {
            match self.refresh_brokers().await {
                Ok(()) => {
                    backoff.reset();
                    if let Some(first) = first.take() {
                        first();
                    }
                    let _ = timeout(REFRESH_INTERVAL, self.refresh.notified()).await;
                    // A burst of failing clients asks once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => {
                    let detail = match &error {
                        AskError::Dial(dial) => dial.detail(),
                        _ => "",
                    };
                    tracing::warn!(%error, detail, "cannot ask the cluster for its brokers");
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    async fn refresh_brokers(&self) -> Result<(), AskError> {
        let response = self.metadata(|_| {}).await?;
        let mut seen = Vec::new();
        for broker in response.structs("Brokers") {
            let id = broker.int("NodeId") as BrokerId;
            let (Some(host), Ok(port)) = (broker.text("Host"), broker.int("Port").try_into())
            else {
                continue;
            };
            seen.push(id);
            self.learn_broker(
                id,
                BrokerAddr {
                    host: host.into(),
                    port,
                },
            );
        }
        for (id, _) in self.topology.brokers() {
            if seen.contains(&id) {
                continue;
            }
            let mut misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = misses.entry(id).or_default();
            *count = count.saturating_add(1);
            if *count == MISSES_MAX
                && let Some(watch) = self.watch.get()
            {
                watch.gone(id);
            }
        }
        Ok(())
    }

    /// Makes known what the ids stand for, where the cluster knows it.
    pub async fn resolve_topics(&self, ids: &[[u8; 16]]) -> Result<(), AskError> {
        let _one_at_a_time = self.resolving.lock().await;
        let unknown = |id: &&[u8; 16]| **id != [0; 16] && self.topology.topic(id).is_none();
        let missing: Vec<[u8; 16]> = ids.iter().filter(unknown).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let response = self
            .metadata(|request| {
                for id in &missing {
                    let mut topic = request.element("Topics");
                    topic
                        .set("TopicId", tree::Node::Uuid(*id))
                        .set_text("Name", None);
                    request.structs_mut("Topics").push(topic);
                }
            })
            .await?;
        for topic in response.structs("Topics") {
            if let (0, Some(name)) = (topic.int("ErrorCode"), topic.text("Name")) {
                self.topology.learn_topic(topic.uuid("TopicId"), name);
            }
        }
        Ok(())
    }

    async fn metadata(&self, fill: impl FnOnce(&mut StructNode)) -> Result<StructNode, AskError> {
        let (_, mut stream) = self.any_broker().await?;
        let mut request = new_request(METADATA).ok_or(AskError::Unreadable)?;
        request.set_int("AllowAutoTopicCreation", 0);
        request.structs_mut("Topics");
        fill(&mut request);
        ask(&mut stream, METADATA, METADATA_VERSION, &request).await
    }

    /// Every ACL of the cluster, as DescribeAcls answers it.
    pub async fn describe_acls(&self) -> Result<StructNode, AskError> {
        let (_, mut stream) = self.any_broker().await?;
        let mut request = new_request(DESCRIBE_ACLS).ok_or(AskError::Unreadable)?;
        let any = 1;
        for filter in [
            "ResourceTypeFilter",
            "PatternTypeFilter",
            "Operation",
            "PermissionType",
        ] {
            request.set_int(filter, any);
        }
        for filter in ["ResourceNameFilter", "PrincipalFilter", "HostFilter"] {
            request.set_text(filter, None);
        }
        ask(&mut stream, DESCRIBE_ACLS, DESCRIBE_ACLS_VERSION, &request).await
    }

    /// The bootstrap list, or else any broker that was seen: the list may have grown old.
    async fn any_broker(&self) -> Result<(BrokerAddr, Stream), DialError> {
        match self.dialer.race(&self.bootstrap).await {
            Ok(dialled) => Ok(dialled),
            Err(error) => {
                let known: Vec<_> = self.topology.brokers().into_iter().map(|b| b.1).collect();
                if known.is_empty() {
                    return Err(error);
                }
                self.dialer.race(&known).await
            }
        }
    }

    /// What a broker can do, for clients that have not authenticated yet.
    pub async fn api_versions(&self, target: Target) -> Result<Arc<StructNode>, AskError> {
        if let Some(known) = self.known_versions(target) {
            return Ok(known);
        }
        let (_, mut stream) = self.dial(target).await?;
        let mut request = new_request(API_VERSIONS).ok_or(AskError::Unreadable)?;
        request.set_text("ClientSoftwareName", Some("kordon"));
        request.set_text("ClientSoftwareVersion", Some(env!("CARGO_PKG_VERSION")));
        let response = ask(&mut stream, API_VERSIONS, VERSIONS_VERSION, &request).await?;
        let versions = Arc::new(response);
        let entry = (clock::now(), Arc::clone(&versions));
        let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(target, entry);
        Ok(versions)
    }
}

impl Cluster {
    fn known_versions(&self, target: Target) -> Option<Arc<StructNode>> {
        let known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, versions) = known.get(&target)?;
        let fresh = clock::now().duration_since(*at) < VERSIONS_TTL;
        fresh.then(|| Arc::clone(versions))
    }
}

fn new_request(key: i16) -> Option<StructNode> {
    Some(StructNode::new(&apis::layout(key)?.request.body))
}

/// Sends one request on a connection of the proxy's own and reads its answer.
async fn ask(
    stream: &mut Stream,
    key: i16,
    version: i16,
    request: &StructNode,
) -> Result<StructNode, AskError> {
    let exchange = exchange(stream, key, version, request);
    timeout(ANSWER_TIMEOUT, exchange)
        .await
        .map_err(|_| AskError::NoAnswer)?
}

async fn exchange(
    stream: &mut Stream,
    key: i16,
    version: i16,
    request: &StructNode,
) -> Result<StructNode, AskError> {
    let api = apis::lookup(key).ok_or(AskError::Unreadable)?;
    let layout = api.layout().ok_or(AskError::Unreadable)?;
    let mut frame = BytesMut::new();
    frame.extend_from_slice(&[0; 4]);
    let head = RequestHeader {
        key,
        version,
        correlation_id: 1,
        client_id: Some("kordon"),
        body_at: 0,
    };
    head.write(api.flexible(version), &mut frame);
    frame.extend_from_slice(&tree::encode_to_bytes(request, &layout.request, version));
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let lost = |_| AskError::NoAnswer;
    stream.write_all(&frame).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let length = stream.read_i32().await.map_err(lost)?;
    let length = usize::try_from(length)
        .ok()
        .filter(|l| *l <= ANSWER_BYTES_MAX);
    let length = length.ok_or(AskError::Unreadable)?;
    let mut answer = BytesMut::new();
    while answer.len() < length {
        let part = stream.read_buf(&mut answer).await.map_err(lost)?;
        if part == 0 {
            return Err(AskError::NoAnswer);
        }
    }
    let answer = answer.freeze();
    let flexible = api.response_header_flexible(version);
    let (_, body_at) =
        header::read_response(&answer, flexible).map_err(|_| AskError::Unreadable)?;
    let body: Bytes = answer.slice(body_at..length.min(answer.len()));
    tree::decode(&layout.response, version, &body, tree::RESPONSE_NODES_MAX)
        .map_err(|_| AskError::Unreadable)
}
