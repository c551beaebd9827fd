//! What operators see from outside: metrics ([`Recorder`]), the audit log ([`audit`]) and the
//! process log ([`log`]). Recording costs one atomic addition; nothing here blocks the data path.

pub mod audit;
pub mod log;
pub mod names;

mod exposition;
mod label;
mod recorder;
mod store;

pub use exposition::Exposition;
pub use label::{
    DialStage, Direction, DropCause, Fetch, Method, Outcome, Reason, Renewal, ViolationAction,
};
pub use recorder::{ConnectionMetrics, Recorder};
pub use store::{DURATION_BUCKETS, PolicyInForce, TENANT_BYTES_MAX, TENANT_OVERFLOW, TENANTS_MAX};
