//! The embedded broker over real sockets: every API at every version it advertises, the promises
//! on records and groups, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod data;
mod demo;
mod group;
mod versions;

use std::net::SocketAddr;

use kordon::demo::broker::{Broker, BrokerSettings};
use kordon::demo::client::{self, Client, Message, NOT_IDEMPOTENT};

async fn broker() -> Broker {
    Broker::start(BrokerSettings::default()).await.unwrap()
}

async fn connect(address: SocketAddr) -> Client {
    Client::connect(address, "test").await.unwrap()
}

fn values(count: usize) -> Vec<Message> {
    let message = |i: usize| Message {
        value: Some(format!("value {i}").into()),
        ..Message::default()
    };
    (0..count).map(message).collect()
}

fn plain(count: usize) -> bytes::Bytes {
    let none = kafka_protocol::records::Compression::None;
    client::batch(&values(count), none, NOT_IDEMPOTENT).unwrap()
}

/// Not a test: a broker to try clients on by hand. `KORDON_EMBEDDED=PORT:SECONDS cargo test
/// --test embedded serve -- --ignored`.
#[tokio::test]
#[ignore = "serves until its time is over"]
async fn serve() {
    let said = std::env::var("KORDON_EMBEDDED").unwrap_or_else(|_| "19092:600".to_owned());
    let (port, seconds) = said.split_once(':').unwrap();
    let settings = BrokerSettings {
        listeners: vec![SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))],
        auto_create_partitions: Some(3),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    println!("{}", broker.address());
    tokio::time::sleep(std::time::Duration::from_secs(seconds.parse().unwrap())).await;
}
