//! The proxy's own questions to the cluster: who the brokers are, which topic an id stands for,
//! what versions a broker has. Connections of clients are never used for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::timeout;

use super::defaults;
use super::dial::{DialError, Dialer, Dialled};
use super::frames;
use super::sasl::Credentials;
use super::topology::Topology;
use super::wanted::Wanted;
use crate::apis::{API_VERSIONS, METADATA};
use crate::broker::{BrokerAddr, BrokerId, Target};
use crate::clock;
use crate::issuer::token::Token;

use crate::net::backoff::Backoff;
use crate::net::stream::Stream;
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
    /// What is to be asked about by the next one.
    wanted: Wanted,
    refresh: Notify,
    /// The newest token that a client brought, where tokens are sent on.
    brought: Mutex<Option<Token>>,
    /// What the cluster gives topics that state no numbers.
    pub(super) defaults: defaults::Cell,
}

/// Why the proxy's own question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Clients' tokens are sent on, and none of them is here.
    #[error("no client has brought a valid token yet")]
    NoToken,
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke or the answer took too long.
    #[error("no answer from the broker")]
    NoAnswer,
    /// An error, by Kafka's code.
    #[error("the broker refuses to answer (error code {0})")]
    Refused(i16),
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
            wanted: Wanted::default(),
            refresh: Notify::new(),
            brought: Mutex::default(),
            defaults: defaults::Cell::default(),
        }
    }

    /// Who is told about brokers; once.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        let _ = self.watch.set(watch);
    }

    /// A client brought this token, and a broker believes it. Where everybody's are sent on, the
    /// proxy's own questions are asked with the newest one.
    pub fn brought(&self, token: Token) {
        let Credentials::Forward = self.dialer.credentials() else {
            return; // only some identities send tokens on, and this one is not asked with
        };
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = brought.as_ref().is_none_or(|token| !token.is_valid());
        *brought = Some(token);
        if is_first {
            self.refresh.notify_one();
        }
    }

    /// How the proxy's own questions are asked.
    pub(super) fn asking(&self) -> Result<Dialer, AskError> {
        let Credentials::Forward = self.dialer.credentials() else {
            return Ok(self.dialer.clone());
        };
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        // Kept no longer than it is good for something.
        *brought = brought.take().filter(Token::is_valid);
        let token = brought.clone().ok_or(AskError::NoToken)?;
        let credentials = Credentials::Forwarded(token);
        Ok(self.dialer.clone().with_credentials(credentials))
    }

    /// A connection for a client.
    pub async fn dial(
        &self,
        target: Target,
        dialer: &Dialer,
    ) -> Result<(BrokerAddr, Dialled), DialError> {
        let dialled = match target {
            Target::Bootstrap => dialer.race(&self.bootstrap).await,
            Target::Broker(id) => match self.topology.broker(id) {
                Some(addr) => dialer.dial(&addr).await.map(|dialled| (addr, dialled)),
                // Ports are bound only for brokers that are known.
                None => dialer.race(&[]).await,
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
        let response = match self.metadata(|_| {}).await {
            // Brokers are learnt from answers that pass by until somebody brings a token. What
            // can be asked without one says that a client can be served.
            Err(AskError::NoToken) => {
                self.api_versions(Target::Bootstrap).await?;
                return Ok(());
            }
            response => response?,
        };
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
        let unknown = |id: &&[u8; 16]| **id != [0; 16] && self.topology.topic(id).is_none();
        let missing: Vec<[u8; 16]> = ids.iter().filter(unknown).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let together = self.wanted.add(&missing);
        let _one_at_a_time = self.resolving.lock().await;
        let missing: Vec<[u8; 16]> = missing.iter().filter(unknown).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        if !together {
            return self.ask_topics(&missing).await;
        }
        let Some(asking) = self.wanted.take(&missing) else {
            return Ok(());
        };
        self.ask_topics(asking.ids()).await?;
        asking.answered();
        Ok(())
    }

    async fn ask_topics(&self, ids: &[[u8; 16]]) -> Result<(), AskError> {
        let response = self
            .metadata(|request| {
                for id in ids {
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

    /// Which of these topics there are, and how many partitions they have.
    pub async fn existing(&self, names: &[String]) -> Result<HashMap<String, usize>, AskError> {
        let response = self
            .metadata(|request| {
                for name in names {
                    let mut topic = request.element("Topics");
                    topic.set_text("Name", Some(name));
                    request.structs_mut("Topics").push(topic);
                }
            })
            .await?;
        let there = response.structs("Topics").iter();
        let there = there.filter(|topic| topic.int("ErrorCode") == 0);
        let named = there.filter_map(|topic| {
            let partitions = topic.structs("Partitions").len();
            Some((topic.text("Name")?.to_owned(), partitions))
        });
        Ok(named.collect())
    }

    /// The names of all topics, in their order.
    pub async fn topics(&self) -> Result<Vec<String>, AskError> {
        let all = |request: &mut StructNode| {
            request.set("Topics", tree::Node::Structs(None));
        };
        let response = self.metadata(all).await?;
        let names = response.structs("Topics").iter();
        let names = names.filter_map(|topic| topic.text("Name"));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn metadata(
        &self,
        fill: impl FnOnce(&mut StructNode),
    ) -> Result<StructNode, AskError> {
        let mut stream = self.any_broker().await?;
        let mut request = frames::new_request(METADATA).ok_or(AskError::Unreadable)?;
        request.set_int("AllowAutoTopicCreation", 0);
        request.structs_mut("Topics");
        fill(&mut request);
        ask(&mut stream, METADATA, METADATA_VERSION, &request).await
    }

    /// Every ACL of the cluster, as DescribeAcls answers it.
    pub async fn describe_acls(&self) -> Result<StructNode, AskError> {
        let mut stream = self.any_broker().await?;
        let mut request = frames::new_request(DESCRIBE_ACLS).ok_or(AskError::Unreadable)?;
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
    async fn any_broker(&self) -> Result<Stream, AskError> {
        let dialer = self.asking()?;
        match dialer.race(&self.bootstrap).await {
            Ok((_, dialled)) => Ok(dialled.stream),
            Err(error) => {
                let known: Vec<_> = self.topology.brokers().into_iter().map(|b| b.1).collect();
                if known.is_empty() {
                    return Err(error.into());
                }
                Ok(dialer.race(&known).await?.1.stream)
            }
        }
    }

    /// What a broker can do, for clients that have not authenticated yet.
    pub async fn api_versions(&self, target: Target) -> Result<Arc<StructNode>, AskError> {
        if let Some(known) = self.known_versions(target) {
            return Ok(known);
        }
        // Answered before any authentication.
        let (_, mut dialled) = self.dial(target, &self.dialer.bare()).await?;
        let mut request = frames::new_request(API_VERSIONS).ok_or(AskError::Unreadable)?;
        request.set_text("ClientSoftwareName", Some("kordon"));
        request.set_text("ClientSoftwareVersion", Some(env!("CARGO_PKG_VERSION")));
        let response = ask(
            &mut dialled.stream,
            API_VERSIONS,
            VERSIONS_VERSION,
            &request,
        )
        .await?;
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

/// Sends one request on a connection of the proxy's own and reads its answer.
pub(super) async fn ask(
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
    let frame = frames::request(key, version, 1, request).ok_or(AskError::Unreadable)?;
    let lost = |_| AskError::NoAnswer;
    stream.write_all(&frame).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let answer = frames::read(stream, ANSWER_BYTES_MAX).await.map_err(lost)?;
    let (_, answer) = frames::answer(key, version, &answer).ok_or(AskError::Unreadable)?;
    Ok(answer)
}
