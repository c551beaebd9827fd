//! An in-process Kafka broker, in memory, for `kordon demo` and quick tests; `kordon run` never
//! uses it. One logical broker on any number of loopback listeners, for any Kafka client.
//!
//! It has topics (with ids), produce (idempotent included), fetch with long polls, offsets,
//! classic consumer groups and the admin calls for them. It has no transactions, no KIP-848 or
//! share groups, no replication, no disk, no TLS, SASL, ACLs or quotas (those are Kordon's), and
//! no incremental fetch sessions: see [`UNSUPPORTED`]. What it lacks it does not advertise in
//! ApiVersions. Everything it keeps is bounded by [`BrokerSettings`] and the constants beside the
//! tables.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub mod batch;
pub mod code;
pub mod group;
pub mod log;
pub mod member;
pub mod topic;

mod cluster;
mod coordinator;
mod fetch;
mod offset;
mod produce;
mod serve;

use batch::Refusal;
use group::Group;
use topic::{Defaults, Limits, Topics};

/// What the embedded broker does not support, for people.
pub const UNSUPPORTED: [&str; 5] = [
    "transactions",
    "the consumer protocol of KIP-848 and share groups (classic groups work)",
    "incremental fetch sessions (every fetch is a full one)",
    "compacted topics and changing a topic's configuration",
    "replication: one broker, in memory, gone when the process ends",
];

/// How often groups and old records are looked after.
const TICK: Duration = Duration::from_millis(50);

/// How the broker presents itself and what it may hold.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Its node id.
    pub node_id: i32,
    /// Where to listen: loopback addresses only, port 0 for any free one.
    pub listeners: Vec<SocketAddr>,
    /// What clients are told to connect to; `None`: the address of the listener they came by.
    pub advertised: Option<(String, u16)>,
    /// The number of partitions of a topic that Metadata makes; `None`: it makes none.
    pub auto_create_partitions: Option<i32>,
    /// Bytes kept of each partition; the oldest batches go first.
    pub partition_bytes_max: usize,
    /// Topics.
    pub topics_max: usize,
    /// Partitions of all topics together.
    pub partitions_max: usize,
    /// The largest request, in bytes.
    pub frame_bytes_max: usize,
    /// The largest record batch, in bytes (`max.message.bytes`).
    pub message_bytes_max: usize,
    /// Connections on all listeners together; more are closed at once.
    pub connections_max: usize,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            node_id: 1,
            listeners: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            advertised: None,
            auto_create_partitions: None,
            partition_bytes_max: 64 << 20,
            topics_max: 1_000,
            partitions_max: 10_000,
            frame_bytes_max: 100 << 20,
            message_bytes_max: 1_048_588, // Kafka's default
            connections_max: 2_000,
        }
    }
}

/// A running broker; dropping it closes its listeners and connections.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What every connection shares.
struct Shared {
    settings: BrokerSettings,
    cluster_id: String,
    state: Mutex<State>,
    /// Told whenever records have arrived or topics have changed.
    changed: Notify,
    next_producer_id: AtomicI64,
    requests: [AtomicU64; API_KEYS],
    connections: AtomicU64,
}

/// One more than the largest API key counted.
const API_KEYS: usize = 93;

/// Topics and groups. Locked for the length of one answer, never while waiting.
struct State {
    topics: Topics,
    groups: BTreeMap<String, Group>,
}

impl Broker {
    /// Binds every listener and serves until dropped. Needs a tokio runtime.
    pub async fn start(settings: BrokerSettings) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &settings.listeners {
            if !address.ip().is_loopback() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the embedded broker listens on loopback only, got `{address}`"),
                ));
            }
            let listener = TcpListener::bind(address).await?;
            addresses.push(listener.local_addr()?);
            listeners.push(listener);
        }
        let limits = Limits {
            topics_max: settings.topics_max,
            partitions_max: settings.partitions_max,
        };
        let defaults = Defaults {
            retention_bytes: settings.partition_bytes_max,
            message_bytes_max: settings.message_bytes_max,
        };
        let shared = Arc::new(Shared {
            cluster_id: format!("embedded-{}", hex(&random::<6>()?)),
            state: Mutex::new(State {
                topics: Topics::new(limits, defaults),
                groups: BTreeMap::new(),
            }),
            changed: Notify::new(),
            next_producer_id: AtomicI64::new(1_000),
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            connections: AtomicU64::new(0),
            settings,
        });
        let mut tasks = vec![tokio::spawn(look_after(Arc::clone(&shared)))];
        for listener in listeners {
            tasks.push(tokio::spawn(serve::accept(listener, Arc::clone(&shared))));
        }
        Ok(Self {
            shared,
            addresses,
            tasks,
        })
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The address of every listener, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Makes a topic with the default configuration.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Refusal> {
        let id = random().unwrap_or_default();
        let mut state = self.shared.state();
        let made = state
            .topics
            .create(name, id, partitions, std::iter::empty());
        made.map(|_| ())
    }

    /// The end offset of a partition, if it exists.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let state = self.shared.state();
        state
            .topics
            .partition(topic, partition)
            .map(log::Log::end_offset)
    }

    /// Every batch held in a partition, as bytes.
    pub fn records(&self, topic: &str, partition: i32) -> Option<Bytes> {
        let state = self.shared.state();
        let log = state.topics.partition(topic, partition)?;
        log.read(log.start_offset(), usize::MAX, true)
    }

    /// How many requests with this API key have arrived.
    pub fn requests(&self, api_key: i16) -> u64 {
        usize::try_from(api_key)
            .ok()
            .and_then(|key| self.shared.requests.get(key))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes silent group members, ends rebalances, forgets empty groups, drops old records.
async fn look_after(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let now = crate::clock::now();
        let now_ms = wall_ms();
        let mut state = shared.state();
        state.groups.retain(|_, group| {
            group.tick(now);
            !group.is_forgettable()
        });
        state.topics.expire(now_ms);
    }
}

/// Milliseconds since 1970.
fn wall_ms() -> i64 {
    let since = crate::clock::since_epoch(crate::clock::wall());
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Random bytes for ids.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
