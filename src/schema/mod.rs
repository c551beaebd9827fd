//! Schema (being written).

pub mod spec;
