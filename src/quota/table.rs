//! Who shares a bucket with whom: Kafka's precedence of user and client id, tenants beside it,
//! and the bounded table of buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::Delay;
use super::bucket::Bucket;
use super::spec::{QuotaEntity, QuotaName, QuotaSpec};
use crate::policy::model::RuleRef;

/// Buckets kept at once (about 400 bytes each). When all are taken, those go that no connection
/// holds, longest idle first, then the longest idle of the others. A caller whose bucket went
/// starts with a clean one: after eleven idle seconds that makes no difference, and within them
/// it takes this many other callers to get there.
pub const BUCKETS_MAX: usize = 32_768;
/// Part of the table that is cleared when it is full, so that clearing is rare.
const EVICTED_AT_ONCE: usize = BUCKETS_MAX / 16;
/// Bytes of a user name or client id that tell buckets apart; longer names that begin alike share
/// one.
pub const NAME_BYTES_MAX: usize = 256;

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Charged<'a> {
    /// The tenant; empty for none.
    pub tenant: &'a str,
    /// The principal's name without its type.
    pub user: &'a str,
    /// The client id of the request; none is the same as an empty one.
    pub client_id: Option<&'a str>,
}

/// One side of an entity as Kafka names it: not mentioned, the default, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Side {
    Any,
    Default,
    Exact(Box<str>),
}

impl Side {
    fn new(name: Option<&QuotaName>) -> Self {
        match name {
            None => Self::Any,
            Some(QuotaName::Default) => Self::Default,
            Some(QuotaName::Exact(name)) => Self::Exact(name.as_str().into()),
        }
    }
}

#[derive(Clone, Debug)]
struct Bound {
    bytes_per_second: u64,
    rule: RuleRef,
}

/// Which callers share a bucket. A quota changes neither its callers' history nor their bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Tenant(Box<[u8]>),
    User(Box<[u8]>),
    Client(Box<[u8]>),
    UserClient(Box<[u8]>, Box<[u8]>),
}

impl Key {
    fn tenant(name: &str) -> Self {
        Self::Tenant(cut(name))
    }
}

fn cut(name: &str) -> Box<[u8]> {
    let bytes = name.as_bytes();
    bytes[..bytes.len().min(NAME_BYTES_MAX)].into()
}

/// One bucket in the table.
#[derive(Debug, Default)]
struct Slot {
    bucket: Mutex<Bucket>,
    // milliseconds since the table's origin
    used_ms: AtomicU64,
}

/// Every bucket in use; outlives a reload of the quotas.
#[derive(Debug, Default)]
struct Table {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    // the first charge
    origin: OnceLock<Instant>,
}

impl Table {
    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        if slots.len() >= BUCKETS_MAX {
            evict(&mut slots);
        }
        Arc::clone(slots.entry(key).or_default())
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cold]
fn evict(slots: &mut HashMap<Key, Arc<Slot>>) {
    let mut by_idleness: Vec<_> = slots
        .iter()
        .map(|(key, slot)| {
            let held = Arc::strong_count(slot) > 1;
            (held, slot.used_ms.load(Ordering::Relaxed), key.clone())
        })
        .collect();
    if by_idleness.len() > EVICTED_AT_ONCE {
        by_idleness.select_nth_unstable_by_key(EVICTED_AT_ONCE, |(held, used, _)| (*held, *used));
    }
    for (_, _, key) in by_idleness.iter().take(EVICTED_AT_ONCE) {
        slots.remove(key);
    }
}

/// All produce quotas of a snapshot, and what was charged to them. Shared by all workers.
#[derive(Debug, Default)]
pub struct Quotas {
    tenants: HashMap<Side, Bound>,
    callers: HashMap<(Side, Side), Bound>,
    table: Arc<Table>,
}

/// The buckets of one caller: resolve once for a connection and client id, charge often. Keeps
/// the limits it was resolved with; resolve anew after a reload.
#[derive(Debug)]
pub struct Buckets {
    charges: Vec<(Arc<Slot>, Bound)>,
    table: Arc<Table>,
}

impl Quotas {
    /// Takes the specifications; those without a produce limit do not matter here. Of two for the
    /// same entity the smaller limit counts.
    pub fn new(specs: Vec<QuotaSpec>) -> Self {
        let mut quotas = Self::default();
        for spec in specs {
            let Some(bytes_per_second) = spec.produce_bytes_per_second else {
                continue;
            };
            let bound = Bound {
                bytes_per_second,
                rule: spec.rule,
            };
            let QuotaEntity {
                tenant,
                user,
                client_id,
            } = &spec.entity;
            if tenant.is_some() {
                let key = Side::new(tenant.as_ref());
                keep_smaller(&mut quotas.tenants, key, bound.clone());
            }
            if user.is_some() || client_id.is_some() {
                let key = (Side::new(user.as_ref()), Side::new(client_id.as_ref()));
                keep_smaller(&mut quotas.callers, key, bound);
            }
        }
        quotas
    }

    /// The quotas after a reload: new limits, but what was charged so far still counts.
    pub fn reloaded(&self, specs: Vec<QuotaSpec>) -> Self {
        Self {
            table: Arc::clone(&self.table),
            ..Self::new(specs)
        }
    }

    /// Whether there is no produce quota at all.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.callers.is_empty()
    }

    /// Buckets in the table now.
    pub fn buckets(&self) -> usize {
        let slots = self.table.slots.lock();
        slots.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The buckets this caller pays into; `None` if no quota concerns it.
    pub fn bucket_for(&self, who: &Charged<'_>) -> Option<Arc<Buckets>> {
        let charges: Vec<_> = [self.tenant_bound(who.tenant), self.caller_bound(who)]
            .into_iter()
            .flatten()
            .map(|(key, bound)| (self.table.slot(key), bound.clone()))
            .collect();
        (!charges.is_empty()).then(|| {
            Arc::new(Buckets {
                charges,
                table: Arc::clone(&self.table),
            })
        })
    }

    /// Resolves and charges in one go; see [`Buckets::charge`].
    pub fn charge_produce(&self, who: &Charged<'_>, bytes: u64, now: Instant) -> Delay {
        self.bucket_for(who)
            .map_or_else(Delay::default, |buckets| buckets.charge(bytes, now))
    }

    fn tenant_bound(&self, tenant: &str) -> Option<(Key, &Bound)> {
        if tenant.is_empty() || self.tenants.is_empty() {
            return None;
        }
        let bound = self
            .tenants
            .get(&Side::Exact(tenant.into()))
            .or_else(|| self.tenants.get(&Side::Default))?;
        Some((Key::tenant(tenant), bound))
    }

    /// Kafka's ladder (`DefaultQuotaCallback`): the first entity that has a quota decides both
    /// the limit and with whom the bucket is shared.
    fn caller_bound(&self, who: &Charged<'_>) -> Option<(Key, &Bound)> {
        use Side::{Any, Default};
        if self.callers.is_empty() {
            return None;
        }
        let client_id = who.client_id.unwrap_or_default();
        let user = || Side::Exact(who.user.into());
        let client = || Side::Exact(client_id.into());
        let ladder = [
            (user(), client()),
            (user(), Default),
            (user(), Any),
            (Default, client()),
            (Default, Default),
            (Default, Any),
            (Any, client()),
            (Any, Default),
        ];
        let (entity, bound) = ladder
            .iter()
            .find_map(|entity| Some((entity, self.callers.get(entity)?)))?;
        let key = match entity {
            (Any, _) => Key::Client(cut(client_id)),
            (_, Any) => Key::User(cut(who.user)),
            _ => Key::UserClient(cut(who.user), cut(client_id)),
        };
        Some((key, bound))
    }
}

impl Buckets {
    /// Charges bytes to every bucket of the caller. Kafka charges the whole request frame, also
    /// when the request is refused. The longest delay wins.
    pub fn charge(&self, bytes: u64, now: Instant) -> Delay {
        let now_ms = self.table.elapsed_ms(now);
        let mut longest = Delay::default();
        for (slot, bound) in &self.charges {
            slot.used_ms.fetch_max(now_ms, Ordering::Relaxed);
            let mut bucket = slot.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let ms = bucket.charge(bytes, bound.bytes_per_second, now_ms);
            drop(bucket);
            if ms > longest.ms {
                longest = Delay {
                    ms,
                    rule: Some(bound.rule.clone()),
                };
            }
        }
        longest
    }
}

fn keep_smaller<K: Hash + Eq>(map: &mut HashMap<K, Bound>, key: K, bound: Bound) {
    let kept = map.entry(key).or_insert_with(|| bound.clone());
    if bound.bytes_per_second < kept.bytes_per_second {
        *kept = bound;
    }
}
