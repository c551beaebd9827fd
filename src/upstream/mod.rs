//! The broker side: which brokers there are, how to reach them, what they can do, and which
//! topic an id stands for.
//!
//! * [`dial`]: one connection, within time limits
//! * [`sasl`]: how the proxy proves itself to brokers
//! * [`identities`]: as whom, for which client
//! * [`topology`]: what is known of the cluster; pure maps behind a lock
//! * [`control`]: the proxy's own connection, which asks for what is not known
//! * `wanted`: the topic ids it is to ask about next
//! * [`defaults`]: what the cluster gives topics that state no numbers
//! * [`producer`]: the proxy's own records, which are its audit lines

pub mod control;
pub mod defaults;
pub mod dial;
mod frames;
pub mod identities;
pub mod producer;
pub mod sasl;
pub mod topology;
mod wanted;

pub use control::Cluster;
pub use topology::Topology;
