//! Brokers as all stages name them: by Kafka's node id, by address, and as the place where a
//! client connection leads.

/// Kafka's node id.
pub type BrokerId = i32;

/// A broker's address as configured or as its cluster tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddr {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where a client connection leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any broker of the bootstrap list.
    Bootstrap,
    /// This broker.
    Broker(BrokerId),
}
