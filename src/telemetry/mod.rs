//! What operators see from outside: metrics ([`Recorder`]), the audit log ([`audit`]) and the
//! process log ([`log`]). Recording costs one atomic addition; nothing here blocks the data path.

pub mod audit;
pub mod flood;
pub mod log;
pub mod names;

mod exposition;
mod issuer;
mod label;
mod recorder;
mod store;

pub use exposition::Exposition;
pub use issuer::IssuerMetrics;
pub use label::{
    CertificateEnd, DialStage, Direction, DropCause, Expiring, Fetch, Handshake, IssuerOutcome,
    Method, Outcome, Reason, Reloaded, Renewal, ShadowSet, ViolationAction, Would,
};
pub use recorder::{ConnectionMetrics, Recorder};
pub use store::{DURATION_BUCKETS, PolicyInForce, TENANT_BYTES_MAX, TENANT_OVERFLOW, TENANTS_MAX};
