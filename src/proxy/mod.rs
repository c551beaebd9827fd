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
//! * [`passage`]: large Produce requests, from socket to socket
//! * [`requests`], [`responses`]: the two loops of a connection
//! * [`renew`]: the proxy's own session at the broker, renewed between two requests
//! * [`worker`]: the threads that connections are spread over
//! * [`shadow`]: what other policies would decide, beside all this and without effect
//! * [`snapshot`]: policies, schemas and quotas in force, swapped as one

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
pub mod shadow;
pub mod snapshot;
pub mod weigh;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
