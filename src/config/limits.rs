//! `limits`: the bounds of the process, each with its default and the range it may take.

use crate::document::{Fields, Node};
use crate::problem::Problems;

/// The bounds of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `frameBytes`: the longest frame accepted, in bytes.
    pub frame_bytes: usize,
    /// `connections`: client connections at a time.
    pub connections: usize,
    /// `inFlight`: requests of one connection that wait for an answer.
    pub in_flight: usize,
    /// `tokenBytes`: the longest token accepted, in bytes.
    pub token_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 100 * 1024 * 1024,
            connections: 10_000,
            in_flight: 64,
            token_bytes: 16 * 1024,
        }
    }
}

/// Kafka's frame length is a signed 32-bit number.
const FRAME_BYTES: std::ops::RangeInclusive<u64> = 1024..=i32::MAX as u64;
const CONNECTIONS: std::ops::RangeInclusive<u64> = 1..=1_000_000;
const IN_FLIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;
const TOKEN_BYTES: std::ops::RangeInclusive<u64> = 256..=1024 * 1024;

/// Reads `limits`.
pub(super) fn limits(node: Option<&Node>, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = node.and_then(|n| Fields::of(n, problems)) else {
        return limits;
    };
    let set = |to: &mut usize, value: Option<u64>| {
        if let Some(value) = value.and_then(|v| usize::try_from(v).ok()) {
            *to = value;
        }
    };
    let value = fields
        .take("frameBytes")
        .and_then(|n| n.bytes(FRAME_BYTES, problems));
    set(&mut limits.frame_bytes, value);
    let value = fields
        .take("connections")
        .and_then(|n| n.number(CONNECTIONS, problems));
    set(&mut limits.connections, value);
    let value = fields
        .take("inFlight")
        .and_then(|n| n.number(IN_FLIGHT, problems));
    set(&mut limits.in_flight, value);
    let value = fields
        .take("tokenBytes")
        .and_then(|n| n.bytes(TOKEN_BYTES, problems));
    set(&mut limits.token_bytes, value);
    fields.finish(problems);
    limits
}
