//! Commands (being written).

pub mod certs;
pub mod check;
