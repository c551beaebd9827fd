//! Quota (being written).

pub mod spec;
