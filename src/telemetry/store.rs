//! Where the numbers live: one typed cell for each series, created when first touched, so that
//! recording is an addition to an atomic and memory grows only with what is in use.
//!
//! Not a general registry: a library that keeps each observation of a histogram until the next
//! scrape has no bound on its memory, and hashing labels for each request costs more than the
//! request's own decision. INVARIANT: nothing here is ever removed, so counters never go back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::issuer::IssuerCells;
use super::label::{
    CertificateEnd, DialStage, Direction, DropCause, Expiring, Fetch, Handshake, Method, Outcome,
    Reason, Reloaded, Renewal, ShadowSet, ViolationAction, Would,
};

/// Tenants with series of their own; those that come later share [`TENANT_OVERFLOW`].
pub const TENANTS_MAX: usize = 1000;
/// The longest tenant label, in bytes; a longer name counts under [`TENANT_OVERFLOW`].
pub const TENANT_BYTES_MAX: usize = 128;
/// The label of every tenant beyond the bounds above.
pub const TENANT_OVERFLOW: &str = "other";

/// API keys 0..=92 (Kafka 4.3) each have a slot; the last slot is every other number.
pub(super) const API_SLOTS: usize = 94;

/// Upper bounds of the duration histogram's buckets, in microseconds and as Prometheus writes
/// them in seconds. One more bucket has no upper bound. Kafka's usual long poll (500 ms) and its
/// longest sensible one (30 s) have an edge each.
pub const DURATION_BUCKETS: [(u64, &str); 16] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1.0"),
    (2_500_000, "2.5"),
    (5_000_000, "5.0"),
    (10_000_000, "10.0"),
    (30_000_000, "30.0"),
];

/// Everything that is counted.
pub(super) struct Store {
    /// A key's name for the `api` label; `None` for a key that Kafka does not have.
    pub api_name: fn(i16) -> Option<&'static str>,
    /// When the process started.
    pub started: SystemTime,
    /// By tenant, [`TENANTS_MAX`] at most.
    pub tenants: RwLock<BTreeMap<Arc<str>, Arc<Tenant>>>,
    /// All other tenants.
    pub overflow: OnceLock<Arc<Tenant>>,
    /// By API slot.
    pub durations: [OnceLock<Box<Histogram>>; API_SLOTS],
    /// What has neither a tenant nor an API.
    pub process: Process,
}

/// The series of one tenant.
pub(super) struct Tenant {
    /// The label.
    pub name: Arc<str>,
    /// By API slot.
    pub apis: [OnceLock<Box<ApiCells>>; API_SLOTS],
    /// By direction.
    pub bytes: [AtomicU64; Direction::COUNT],
    /// Milliseconds for which clients were told to wait.
    pub throttle_ms: AtomicU64,
    /// Milliseconds for which they would have been, beyond those.
    pub would_throttle_ms: AtomicU64,
    /// By what was done.
    pub violations: [AtomicU64; ViolationAction::COUNT],
    /// Open connections by listener: as many entries as there are configured listeners.
    pub connections: Mutex<Vec<(Arc<str>, Arc<AtomicI64>)>>,
}

/// The series of one tenant and API.
#[derive(Default)]
pub(super) struct ApiCells {
    /// By outcome.
    pub requests: [AtomicU64; Outcome::COUNT],
    /// By reason.
    pub refusals: [AtomicU64; Reason::COUNT],
    /// What was under way when its right was taken.
    pub revocations: AtomicU64,
    /// By what would have been done, then by the set that would have done it.
    pub would: [[AtomicU64; ShadowSet::COUNT]; Would::COUNT],
}

/// Observations in fixed buckets: two additions each, 136 bytes, whatever is observed.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; DURATION_BUCKETS.len() + 1],
    sum_micros: AtomicU64,
}

/// Counts of the process as a whole.
#[derive(Default)]
pub(super) struct Process {
    pub connections_accepted: AtomicU64,
    pub connections_refused: AtomicU64,
    pub authentication_failures: [AtomicU64; Method::COUNT],
    pub handshakes: [AtomicU64; Handshake::COUNT],
    /// As many as are configured.
    pub issuers: Mutex<Vec<Arc<IssuerCells>>>,
    pub in_flight: AtomicI64,
    pub fetch_sessions: AtomicI64,
    pub upstream_connections: AtomicI64,
    pub spliced_bytes: AtomicU64,
    pub dial_failures: [AtomicU64; DialStage::COUNT],
    pub reauthentications: [AtomicU64; Renewal::COUNT],
    pub token_fetches: [AtomicU64; Fetch::COUNT],
    /// When the proxy's own tokens for the brokers end, by the identity that has had one; as many
    /// as are configured.
    pub token_expiry: Mutex<BTreeMap<Arc<str>, SystemTime>>,
    pub policy: Mutex<Option<PolicyInForce>>,
    pub policy_reload_failures: AtomicU64,
    pub reload_failures: [AtomicU64; Reloaded::COUNT],
    pub certificate_ends: [AtomicU64; CertificateEnd::COUNT],
    /// By what ends and the listener's name, which is empty for the upstream: as many entries as
    /// there are configured files.
    pub expiries: Mutex<BTreeMap<(Expiring, Arc<str>), SystemTime>>,
    pub audit_lines: AtomicU64,
    pub audit_dropped: [AtomicU64; DropCause::COUNT],
    pub admin_refused: AtomicU64,
}

/// Which policy snapshot is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyInForce {
    /// Number of the snapshot; grows by one with each change.
    pub generation: u64,
    /// When it was loaded.
    pub loaded: SystemTime,
}

impl Store {
    /// An empty store.
    pub fn new(api_name: fn(i16) -> Option<&'static str>, started: SystemTime) -> Self {
        Self {
            api_name,
            started,
            tenants: RwLock::default(),
            overflow: OnceLock::new(),
            durations: [const { OnceLock::new() }; API_SLOTS],
            process: Process::default(),
        }
    }

    /// The cells of a tenant; those of [`TENANT_OVERFLOW`] once the bounds are reached.
    pub fn tenant(&self, name: &str) -> Arc<Tenant> {
        let read = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = read.get(name) {
            return Arc::clone(tenant);
        }
        drop(read);
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = tenants.get(name) {
            return Arc::clone(tenant);
        }
        // A tenant that is really called `other` must not become a second series of that name.
        let own = tenants.len() < TENANTS_MAX
            && name.len() <= TENANT_BYTES_MAX
            && name != TENANT_OVERFLOW;
        if !own {
            return Arc::clone(
                self.overflow
                    .get_or_init(|| Tenant::new(TENANT_OVERFLOW.into())),
            );
        }
        let name: Arc<str> = name.into();
        let tenant = Tenant::new(Arc::clone(&name));
        tenants.insert(name, Arc::clone(&tenant));
        tenant
    }

    /// Every tenant seen, by name; the overflow last.
    pub fn all_tenants(&self) -> Vec<Arc<Tenant>> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants
            .values()
            .chain(self.overflow.get())
            .cloned()
            .collect()
    }

    /// The `api` label of a slot.
    pub fn slot_name(&self, slot: usize) -> &'static str {
        // The last slot is every number Kafka does not use.
        i16::try_from(slot)
            .ok()
            .filter(|_| slot + 1 < API_SLOTS)
            .and_then(self.api_name)
            .unwrap_or("unknown")
    }
}

impl Tenant {
    fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            apis: [const { OnceLock::new() }; API_SLOTS],
            bytes: Default::default(),
            throttle_ms: AtomicU64::new(0),
            would_throttle_ms: AtomicU64::new(0),
            violations: Default::default(),
            connections: Mutex::default(),
        })
    }

    /// The cells of an API.
    pub fn api(&self, key: i16) -> &ApiCells {
        self.apis[slot(key)].get_or_init(Box::default)
    }

    /// The gauge of a listener's open connections.
    pub fn connections(&self, listener: &str) -> Arc<AtomicI64> {
        let mut list = lock(&self.connections);
        if let Some((_, gauge)) = list.iter().find(|(name, _)| &**name == listener) {
            return Arc::clone(gauge);
        }
        let gauge = Arc::new(AtomicI64::new(0));
        list.push((listener.into(), Arc::clone(&gauge)));
        gauge
    }
}

impl Histogram {
    /// Adds one observation.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BUCKETS.partition_point(|&(bound, _)| bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// Cumulative counts, one for each bound and the total last, and the sum in microseconds.
    pub fn read(&self) -> ([u64; DURATION_BUCKETS.len() + 1], u64) {
        let mut total = 0;
        let counts = std::array::from_fn(|i| {
            total += self.buckets[i].load(Relaxed);
            total
        });
        (counts, self.sum_micros.load(Relaxed))
    }
}

/// An API key's place in the arrays above.
pub(super) fn slot(key: i16) -> usize {
    usize::try_from(key).map_or(API_SLOTS - 1, |key| key.min(API_SLOTS - 1))
}

/// A lock that outlives a panic of another thread: counts stay usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::new(
            |key| (key == 0).then_some("Produce"),
            SystemTime::UNIX_EPOCH,
        )
    }

    #[test]
    fn tenants_beyond_the_bound_share_one_series() {
        let store = store();
        for i in 0..TENANTS_MAX {
            assert_eq!(&*store.tenant(&format!("t{i}")).name, format!("t{i}"));
        }
        assert_eq!(&*store.tenant("late").name, TENANT_OVERFLOW);
        assert_eq!(&*store.tenant("later").name, TENANT_OVERFLOW);
        assert_eq!(
            &*store.tenant("t7").name,
            "t7",
            "known tenants keep their series"
        );
        assert_eq!(store.all_tenants().len(), TENANTS_MAX + 1);
    }

    #[test]
    fn long_and_reserved_tenant_names_go_to_the_overflow() {
        let store = store();
        assert_eq!(
            &*store.tenant(&"x".repeat(TENANT_BYTES_MAX + 1)).name,
            TENANT_OVERFLOW
        );
        assert_eq!(&*store.tenant(TENANT_OVERFLOW).name, TENANT_OVERFLOW);
        assert_eq!(
            store.all_tenants().len(),
            1,
            "one series named `other`, not two"
        );
    }

    #[test]
    fn keys_that_kafka_does_not_have_share_the_last_slot() {
        assert_eq!((slot(0), slot(92)), (0, 92));
        for key in [93, 10_000, i16::MAX, -1, i16::MIN] {
            assert_eq!(slot(key), API_SLOTS - 1, "{key}");
        }
        let store = store();
        assert_eq!(store.slot_name(0), "Produce");
        assert_eq!(store.slot_name(API_SLOTS - 1), "unknown");
    }

    #[test]
    fn an_observation_on_an_edge_belongs_to_the_bucket_it_bounds() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let (counts, sum) = histogram.read();
        assert_eq!(&counts[..2], &[2, 3]);
        assert_eq!(&counts[15..], &[4, 5]);
        assert_eq!(sum, 60_000_502);
    }

    #[test]
    fn bucket_edges_ascend_and_their_text_agrees() {
        assert!(DURATION_BUCKETS.is_sorted_by(|a, b| a.0 < b.0));
        for (micros, text) in DURATION_BUCKETS {
            let seconds: f64 = text.parse().unwrap();
            assert!((seconds * 1e6 - micros as f64).abs() < 1e-6, "{text}");
        }
    }
}
