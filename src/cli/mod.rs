//! (being written)
pub mod certs;
