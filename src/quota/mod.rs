//! How much may this caller produce? Kafka's client quotas, to the millisecond: a charge goes in,
//! a delay comes out. Pure: time is an argument, and nothing is delayed here.
//!
//! Two things differ from Kafka on purpose. A client without an id, or with an empty one, is a
//! client like any other and falls under the default for clients; in Kafka it escapes every
//! client quota, because an empty id matches nothing there. And a tenant may have a quota,
//! which is charged beside the caller's own; the larger delay wins. The empty tenant is no tenant.

pub mod spec;

mod bucket;
mod table;

#[cfg(test)]
mod tests;

pub use bucket::{SAMPLE_MS, SAMPLES};
pub use table::{BUCKETS_MAX, Buckets, Charged, NAME_BYTES_MAX, Quotas};

use crate::policy::model::RuleRef;

/// How long to hold a caller back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Milliseconds, as `throttle_time_ms` says them; 0 is no delay.
    pub ms: u32,
    /// The quota that is exceeded; `None` without a delay.
    pub rule: Option<RuleRef>,
}
