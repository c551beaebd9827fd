//! The embedded broker over real sockets: every API at every version it advertises, the promises
//! on records and groups, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod data;
mod demo;
mod group;
#[path = "../lab/port.rs"]
mod port;
mod versions;

use std::net::SocketAddr;
use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
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

/// A broker where it was told to be, which makes topics on demand; with
/// `KORDON_EMBEDDED=PORT:SECONDS` at that port, and for so long, to try clients on.
#[tokio::test]
async fn serve() {
    let said = std::env::var("KORDON_EMBEDDED").ok();
    let said = said.as_deref().map(|s| s.split_once(':').unwrap());
    let (port, seconds) = match said {
        Some((port, seconds)) => (port.parse().unwrap(), seconds.parse().unwrap()),
        None => (port::free("127.0.0.1", 1), 0),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let settings = BrokerSettings {
        listeners: vec![address],
        auto_create_partitions: Some(3),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    println!("{}", broker.address());
    if seconds > 0 {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    assert_eq!(broker.address(), address);
    let wanted = MetadataRequestTopic::default().with_name(Some(client::topic_name("new")));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let mut client = connect(address).await;
    // The first answer only begins to make it, as a broker's.
    client.call(12, &request).await.unwrap();
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(answer.topics[0].partitions.len(), 3);
}
