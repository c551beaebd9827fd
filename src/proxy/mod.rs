//! Puts the stages in order. Read [`request`] first: what happens to a request; then
//! [`response`]: what happens to its answer.
//!
//! * [`listener`]: what a client reaches, and the addresses it is told
//! * [`connection`]: one client connection from its first byte to its last
//! * [`prove`]: whether what a client brings proves who it is
//! * [`recheck`]: connections that end with their certificate
//! * `forward`: the client's own token on its way to the broker
//! * [`client`]: what is known of the client of a connection
//! * [`request`], [`weigh`], [`response`]: one message
//! * [`share`]: what a share session may go on with
//! * [`passage`]: large Produce requests, from socket to socket
//! * [`requests`], [`responses`]: the two loops of a connection
//! * [`renew`]: the proxy's own session at the broker, renewed between two requests
//! * [`revoke`]: what is owed, judged again when policies change; [`roster`]: whom that concerns
//! * [`worker`]: the threads that connections are spread over
//! * [`shadow`]: what other policies would decide, beside all this and without effect
//! * [`snapshot`]: policies, schemas and quotas in force, swapped as one

mod appearing;
pub mod client;
pub mod connection;
mod forward;
pub mod judge;
pub mod listener;
pub mod passage;
pub mod prove;
pub mod recheck;
pub mod renew;
pub mod request;
pub mod requests;
pub mod response;
pub mod responses;
pub mod revoke;
pub mod roster;
pub mod shadow;
pub mod share;
pub mod snapshot;
pub mod weigh;
pub mod worker;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::broker::BrokerId;
use crate::session::fetch_sessions::FetchSessions;
use crate::telemetry::Recorder;
use crate::telemetry::audit::Audit;
use crate::upstream::Cluster;
use crate::upstream::identities::Identities;

use listener::Listener;
use snapshot::Snapshot;

/// Bounds that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest frame of an authenticated client, in bytes.
    pub frame_bytes_max: usize,
    /// Most client connections.
    pub connections_max: usize,
    /// Most requests of one connection that wait for answers.
    pub in_flight_max: usize,
}

/// Everything that connections share.
pub struct Proxy {
    /// Policies, schemas and quotas in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// The generation of the snapshot, for those who wait for another one.
    pub swapped: watch::Sender<u64>,
    /// What was in force before, until [`Proxy::sweep`]. Each is held by a connection that has not
    /// moved since, so that there are never more of them than connections.
    pub retired: Mutex<Vec<Arc<Snapshot>>>,
    /// The brokers.
    pub cluster: Arc<Cluster>,
    /// As whom clients' broker connections are opened.
    pub identities: Identities,
    /// Where clients connect, in the order of the configuration.
    pub listeners: Vec<Listener>,
    /// The numbers.
    pub recorder: Recorder,
    /// The log of refusals.
    pub audit: Audit,
    /// Whose fetch session is whose.
    pub fetch_sessions: FetchSessions,
    /// Bounds.
    pub bounds: Bounds,
    /// True once the process is to end: connections finish what they owe.
    pub draining: watch::Sender<bool>,
    /// Connections that are open.
    pub open: AtomicUsize,
    /// Numbers connections.
    pub numbers: AtomicU64,
}

impl Proxy {
    /// Puts other policies in force: for every request from now on, and for what is owed as soon
    /// as each connection has been told.
    pub fn enforce(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        let old = self.snapshot.load_full();
        if let (Some(old), Some(new)) = (&old.access, &snapshot.access) {
            new.prepared_for(old);
        }
        for set in &snapshot.shadows {
            let mut before = old.shadows.iter();
            if let Some(before) = before.find(|before| before.which == set.which) {
                set.access.prepared_for(&before.access);
            }
        }
        self.snapshot.store(Arc::new(snapshot));
        self.retired().push(old);
        self.swapped.send_replace(generation);
    }

    /// Drops what was in force and is no longer looked at by any connection. With a hundred
    /// thousand rules that takes tens of milliseconds, which no thread with connections has.
    pub fn sweep(&self) {
        let unused = {
            let mut retired = self.retired();
            let old = std::mem::take(&mut *retired);
            let (used, unused): (Vec<_>, Vec<_>) =
                old.into_iter().partition(|old| Arc::strong_count(old) > 1);
            *retired = used;
            unused
        };
        drop(unused);
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Snapshot>>> {
        let locked = self.retired.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new connection, unique in the life of the process.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a connection in, unless there are too many.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(self));
        (before < self.bounds.connections_max).then_some(permit)
    }
}

/// An open connection; counted out when dropped.
pub struct Permit(Arc<Proxy>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl crate::upstream::control::Watch for Proxy {
    fn appeared(&self, id: BrokerId) {
        self.listeners
            .iter()
            .for_each(|listener| listener.broker_appeared(id));
    }

    fn gone(&self, id: BrokerId) {
        self.listeners
            .iter()
            .for_each(|listener| listener.broker_gone(id));
    }
}
