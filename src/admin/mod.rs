//! The admin endpoint: `/metrics`, `/livez`, `/readyz`, `/policies`, the status page `/` and the
//! same as JSON under `/api/status`. Nothing here changes state, no request body is ever read.
//!
//! It answers without authentication and is meant for loopback or the pod's network: it shows
//! names of tenants, listeners and policy files, never a payload, a token or a secret.

mod page;
mod readiness;
mod server;
mod status;

pub use readiness::Readiness;
pub use server::{CONNECTION_TIME_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADER_TIME_MAX, serve};
pub use status::{
    BrokerStatus, ExpiryStatus, IdentityStatus, IssuerStatus, ListenerStatus, PolicyStatus,
    ShadowStatus, Status, StatusSource,
};

use std::sync::Arc;

use crate::telemetry::Recorder;

/// What the endpoint shows.
#[derive(Clone)]
pub struct AdminState {
    /// The numbers.
    pub recorder: Recorder,
    /// Whether the process can serve.
    pub readiness: Readiness,
    /// What only the running program knows.
    pub source: Arc<dyn StatusSource>,
}

#[cfg(test)]
mod tests;
