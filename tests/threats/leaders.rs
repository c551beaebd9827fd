//! Leaders that move: two brokers of their own.

use crate::asks::{metadata, produce};
use crate::body::{Kind, batch};
use crate::lab::kafka::Kafka;
use crate::lab::kordon::{BROKER_PORTS, IN_FRONT, Kordon};
use crate::socket::{Socket, request};
use crate::stage::{Stage, both, holds, until};
use kordon::wire::tree::{Node, StructNode};

const TOPIC: &str = "moved";
const NOT_LEADER: i64 = 6;
/// A replica that follows serves consumers, unless they know of an older leader only.
const FENCED: i64 = 74;
/// The brokers' hosts, as every address of theirs begins.
const BROKERS: &str = "127.0.77.";

/// Row 17. Who asks the old leader is told of the new one (KIP-951): by the broker with its own
/// address, through Kordon with the listener's.
pub fn t17_a_new_leader_is_told_by_the_listeners_address(_: &mut Stage) {
    let kafka = Kafka::start("4.3.0", 2, "").unwrap();
    let kordon = Kordon::permissive(IN_FRONT, &kafka.addrs()).unwrap();
    kafka.create(1, 2, &[TOPIC]).unwrap();
    kafka.move_leader(&[TOPIC], 0, 1).unwrap();
    // Connections to the broker that leads, there and here, from before it changes.
    let mut there = Socket::open(&kafka.addrs()[0]);
    let mut here = Socket::open(&until(|| leader(&mut Socket::open(&kordon.addr), 1)));
    kafka.move_leader(&[TOPIC], 0, 2).unwrap();

    let mut id = [0; 16];
    until(|| {
        let answer = there.call(3, 12, &metadata(TOPIC));
        id = answer.structs("Topics")[0].uuid("TopicId");
        (answer.structs("Topics")[0].structs("Partitions")[0].int("LeaderId") == 2).then_some(())
    });
    let mut asked = 0;
    for (key, from, to) in [(0, 10, 13), (1, 16, 18)] {
        for version in from..=to {
            asked += 1;
            let mut ask = match key {
                0 => produce(TOPIC, &batch("event", Kind::Plain)),
                _ => fetch(0),
            };
            let moved = if key == 0 { NOT_LEADER } else { FENCED };
            let topics = if key == 0 { "TopicData" } else { "Topics" };
            ask.structs_mut(topics)[0].set("TopicId", Node::Uuid(id));
            let (bytes, found) = both(&mut there, key, version, &ask);
            assert_eq!(code(&found), moved, "{found:?}");
            assert!(
                holds(&bytes, BROKERS),
                "key {key} version {version} tells nothing"
            );
            assert_eq!(endpoints(&found).len(), 1);

            let (bytes, found) = both(&mut here, key, version, &ask);
            assert_eq!(code(&found), moved, "{found:?}");
            assert!(
                !holds(&bytes, BROKERS),
                "key {key} version {version}: {found:?}"
            );
            let told = endpoints(&found);
            assert_eq!(told.len(), 1, "{found:?}");
            // And it is true: the new leader takes what the old one refused.
            let ours = kordon.first_port..=kordon.first_port + BROKER_PORTS;
            let (host, port) = told[0].rsplit_once(':').unwrap();
            assert!(
                host == "localhost" && ours.contains(&port.parse().unwrap()),
                "{told:?}"
            );
            if key == 1 {
                let partition = &mut ask.structs_mut(topics)[0].structs_mut("Partitions")[0];
                partition.set_int("CurrentLeaderEpoch", -1);
            }
            let found = Socket::open(&told[0]).call(key, version, &ask);
            assert_eq!(code(&found), 0, "{found:?}");
        }
    }
    assert_eq!(asked, 7);
}

fn fetch(epoch: i64) -> StructNode {
    let mut fetch = request(1);
    fetch
        .set_int("SessionEpoch", -1)
        .set_int("MaxBytes", 1 << 20);
    let mut topic = fetch.element("Topics");
    topic.set_text("Topic", Some(TOPIC));
    let mut partition = topic.element("Partitions");
    partition.set_int("PartitionMaxBytes", 1 << 20);
    partition.set_int("CurrentLeaderEpoch", epoch);
    topic.structs_mut("Partitions").push(partition);
    fetch.structs_mut("Topics").push(topic);
    fetch
}

/// The error of the only partition, of either answer.
fn code(answer: &StructNode) -> i64 {
    let topic = &answer.structs("Responses")[0];
    let partitions = match topic.has("PartitionResponses") {
        true => "PartitionResponses",
        false => "Partitions",
    };
    topic.structs(partitions)[0].int("ErrorCode")
}

fn endpoints(answer: &StructNode) -> Vec<String> {
    let nodes = answer.structs("NodeEndpoints").iter();
    nodes
        .map(|n| format!("{}:{}", n.text("Host").unwrap_or_default(), n.int("Port")))
        .collect()
}

/// Where the leader of the topic is, once it is this broker.
fn leader(socket: &mut Socket, broker: i64) -> Option<String> {
    let answer = socket.call(3, 12, &metadata(TOPIC));
    let partition = answer.structs("Topics")[0].structs("Partitions").first()?;
    let mut brokers = answer.structs("Brokers").iter();
    let found = brokers.find(|b| b.int("NodeId") == broker)?;
    let at = format!("{}:{}", found.text("Host")?, found.int("Port"));
    (partition.int("LeaderId") == broker).then_some(at)
}
