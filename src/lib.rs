//! Kordon, a Kafka-protocol sidecar proxy: the modules stand in the order in which a request
//! passes them. `ARCHITECTURE.md` beside this file is the map.
#![doc = include_str!("ARCHITECTURE.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// The path of a request.
pub mod identity;
pub mod issuer;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod quota;
pub mod schema;
pub mod session;
pub mod topic_rules;
pub mod upstream;
pub mod wire;

// Knowledge: everything that differs per Kafka API.
pub mod apis;

// Edges.
pub mod admin;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod telemetry;

// Words that all stages share.
pub mod broker;
pub mod clock;
pub mod document;
pub mod principal;
pub mod problem;
pub mod secret;
pub mod url;
