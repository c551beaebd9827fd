//! (being written)
pub mod dial;
