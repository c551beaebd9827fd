//! The lab: real Apache Kafka brokers, a real `kordon run`, a recording relay, an OAuth server and
//! the clients of five languages, for tests that drive the built binary from outside.
//!
//! Included by `#[path]` from the test binaries. What it starts, it ends: every process is a
//! child of the test and is killed by its own id when its owner is dropped. Nothing here knows
//! the crate's inside; the contract is the command line and the configuration file.
#![allow(dead_code)]

pub mod certificates;
pub mod client;
pub mod dice;
pub mod http;
pub mod issuer;
pub mod java;
pub mod kafka;
pub mod kordon;
pub mod part;
pub mod port;
pub mod process;
pub mod relay;
pub mod secure;
pub mod wait;
