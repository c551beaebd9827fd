//! Audit lines to their topic, a record each, by a connection of the proxy's own: acknowledged by
//! all replicas, in order, and once each (an idempotent producer, KIP-98). One batch is under way
//! at a time; what comes meanwhile is the next one. A batch that may have arrived is sent again
//! as it was, so that the broker knows it.
//!
//! All lines of a process have one key and go to one partition, which keeps their order: they are
//! a chain.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::sleep;

use super::control::{AskError, Cluster, ask};
use super::dial::{DialError, Dialled};
use super::frames;
use crate::apis::{PRODUCE, errors};
use crate::broker::{BrokerAddr, BrokerId};
use crate::clock;
use crate::net::backoff::{Backoff, random};
use crate::telemetry::audit::outbox::Delivery;
use crate::wire::records::{self, Writer};
use crate::wire::tree::Node;

/// Most lines of one batch.
const BATCH_LINES_MAX: usize = 1000;
/// Most bytes of lines of one batch; far below what topics take (`max.message.bytes`).
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// How long the replicas may take, in milliseconds; less than the proxy waits for an answer.
const ACKNOWLEDGED_WITHIN_MS: i64 = 8_000;
/// Versions that are the same from Kafka 2.5 to 4.3, with topics by name.
const PRODUCE_VERSION: i16 = 9;
const INIT_PRODUCER_ID: i16 = 22;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// Failed attempts before anybody is told: a leader that moves, or a connection that a broker has
/// ended because nothing came, is no trouble.
const SILENT_FAILURES: u32 = 2;

/// Kafka's error codes that say what to do next.
mod code {
    pub const UNKNOWN_TOPIC: i64 = 3;
    pub const LEADER_NOT_AVAILABLE: i64 = 5;
    pub const NOT_LEADER: i64 = 6;
    pub const MESSAGE_TOO_LARGE: i64 = 10;
    pub const NOT_ENOUGH_REPLICAS: i64 = 19;
    pub const OUT_OF_ORDER_SEQUENCE: i64 = 45;
    pub const DUPLICATE_SEQUENCE: i64 = 46;
    pub const INVALID_PRODUCER_EPOCH: i64 = 47;
    pub const UNKNOWN_PRODUCER: i64 = 59;
}

/// Why a batch is not in the topic, or not known to be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the leader of its partition is not known")]
    NoLeader,
    #[error("{}", Told(*.0))]
    Code(i64),
    #[error("a line is too large for the topic")]
    TooLarge,
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        Failure::Ask(error.into())
    }
}

/// A code as people are told.
struct Told(i64);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            code::UNKNOWN_TOPIC => f.write_str("the topic does not exist, or may not be described"),
            code::LEADER_NOT_AVAILABLE | code::NOT_LEADER => {
                f.write_str("its partition has no leader")
            }
            code::NOT_ENOUGH_REPLICAS => f.write_str("too few replicas are in sync"),
            denied if denied == i64::from(errors::TOPIC_AUTHORIZATION_FAILED) => {
                f.write_str("the proxy's own identity needs Write on the topic")
            }
            denied if denied == i64::from(errors::CLUSTER_AUTHORIZATION_FAILED) => {
                f.write_str("the proxy's own identity needs Write on the topic, or IdempotentWrite")
            }
            other => write!(f, "the broker answers error {other}"),
        }
    }
}

/// Delivers until it is over: no more lines come and all are in the topic, or time is up.
/// `key`: what lines of this process have in common and those of others do not.
pub async fn deliver(cluster: &Cluster, topic: &str, key: &str, delivery: &Delivery) {
    let mut producer = Producer {
        cluster,
        topic,
        key: key.as_bytes(),
        link: None,
        partition: None,
        writer: None,
    };
    tokio::select! {
        () = producer.run(delivery) => {}
        () = delivery.given_up() => {}
    }
}

struct Producer<'a> {
    cluster: &'a Cluster,
    topic: &'a str,
    key: &'a [u8],
    /// To the leader of the partition.
    link: Option<Dialled>,
    /// The partition: chosen once, since order is kept within one.
    partition: Option<i64>,
    /// What the next batch is numbered with; `None`: an id must be asked for.
    writer: Option<Writer>,
}

impl Producer<'_> {
    async fn run(&mut self, delivery: &Delivery) {
        let mut backoff = Backoff::default();
        let (mut failures, mut told) = (0, false);
        while let Some(mut lines) = delivery.next(BATCH_LINES_MAX, BATCH_BYTES_MAX).await {
            loop {
                let error = match self.write(&lines).await {
                    Ok(()) => {
                        delivery.delivered(lines.len());
                        break;
                    }
                    // It was refused as it is, so that a smaller one may have its numbers.
                    Err(Failure::TooLarge) if lines.len() > 1 => {
                        lines.truncate(lines.len().div_ceil(2));
                        continue;
                    }
                    Err(error) => error,
                };
                failures += 1;
                let is_too_large = matches!(error, Failure::TooLarge);
                if failures > SILENT_FAILURES || is_too_large {
                    self.tell(&error, !told, delivery);
                    told = true;
                }
                if is_too_large {
                    delivery.undeliverable();
                    lines.clear();
                    break;
                }
                sleep(backoff.delay()).await;
            }
            // A line that was too large is gone, which is no sign that others pass.
            if told && !lines.is_empty() {
                tracing::info!("the audit topic can be written again");
                delivery.trouble(None);
                told = false;
            }
            failures = 0;
            backoff.reset();
        }
    }

    fn tell(&self, error: &Failure, is_new: bool, delivery: &Delivery) {
        if is_new {
            let detail = match error {
                Failure::Ask(AskError::Dial(dial)) => dial.detail(),
                _ => "",
            };
            let topic = self.topic;
            tracing::error!(%error, detail, topic, "the audit topic cannot be written");
        }
        let topic = self.topic;
        let text = format!("the audit topic `{topic}` cannot be written: {error}");
        delivery.trouble(Some(text));
    }

    /// Writes one batch. Where that fails, the next attempt begins with a new connection.
    async fn write(&mut self, lines: &[Bytes]) -> Result<(), Failure> {
        // Taken out, so that an attempt that is given up leaves no half answer behind.
        let link = self.link.take().filter(|link| {
            let session = link.session.as_ref();
            session.is_none_or(|session| !session.is_due(clock::now()))
        });
        let mut link = match link {
            Some(link) => link,
            None => self.connect().await?,
        };
        let writer = match self.writer {
            Some(writer) => writer,
            None => {
                let writer = new_writer(&mut link).await?;
                *self.writer.insert(writer)
            }
        };
        let answered = self.produce(&mut link, lines, writer).await?;
        match answered {
            0 | code::DUPLICATE_SEQUENCE => {
                self.writer = Some(Writer {
                    sequence: behind(writer.sequence, lines.len()),
                    ..writer
                });
                self.link = Some(link);
                Ok(())
            }
            code::MESSAGE_TOO_LARGE => {
                self.link = Some(link);
                Err(Failure::TooLarge)
            }
            other => {
                // The broker has forgotten the id, or knows other numbers: a new one begins anew.
                if matches!(
                    other,
                    code::OUT_OF_ORDER_SEQUENCE
                        | code::INVALID_PRODUCER_EPOCH
                        | code::UNKNOWN_PRODUCER
                ) {
                    self.writer = None;
                }
                Err(Failure::Code(other))
            }
        }
    }

    async fn produce(
        &self,
        link: &mut Dialled,
        lines: &[Bytes],
        writer: Writer,
    ) -> Result<i64, Failure> {
        let batch = records::write(lines, self.key, millis(clock::wall()), writer);
        let mut request = frames::new_request(PRODUCE).ok_or(AskError::Unreadable)?;
        request
            .set_int("Acks", -1)
            .set_int("TimeoutMs", ACKNOWLEDGED_WITHIN_MS);
        let mut topic = request.element("TopicData");
        topic.set_text("Name", Some(self.topic));
        let mut partition = topic.element("PartitionData");
        partition
            .set_int("Index", self.partition.unwrap_or_default())
            .set("Records", Node::Bytes(Some(batch.into())));
        topic.structs_mut("PartitionData").push(partition);
        request.structs_mut("TopicData").push(topic);
        let answer = ask(&mut link.stream, PRODUCE, PRODUCE_VERSION, &request).await?;
        let topic = answer.structs("Responses").first();
        let partition = topic.and_then(|topic| topic.structs("PartitionResponses").first());
        Ok(partition.ok_or(AskError::Unreadable)?.int("ErrorCode"))
    }

    /// Finds the leader of the partition and dials it.
    async fn connect(&mut self) -> Result<Dialled, Failure> {
        let topic = self.topic;
        let answer = self.cluster.metadata(|request| {
            let mut element = request.element("Topics");
            element.set_text("Name", Some(topic));
            request.structs_mut("Topics").push(element);
        });
        let answer = answer.await?;
        let found = answer.structs("Topics").first();
        let found = found.ok_or(AskError::Unreadable)?;
        if found.int("ErrorCode") != 0 {
            return Err(Failure::Code(found.int("ErrorCode")));
        }
        let partitions = found.structs("Partitions");
        let leader_of = |index: i64| {
            let partition = partitions
                .iter()
                .find(|p| p.int("PartitionIndex") == index)?;
            let leader = partition.int("LeaderId") as BrokerId;
            let brokers = answer.structs("Brokers").iter();
            let broker = brokers
                .clone()
                .find(|b| b.int("NodeId") as BrokerId == leader)?;
            Some(BrokerAddr {
                host: broker.text("Host")?.to_owned(),
                port: u16::try_from(broker.int("Port")).ok()?,
            })
        };
        // A topic that was made again may have fewer.
        let known = |index: &i64| partitions.iter().any(|p| p.int("PartitionIndex") == *index);
        self.partition = self.partition.filter(known).or_else(|| {
            let led = partitions.iter().map(|p| p.int("PartitionIndex"));
            let led: Vec<i64> = led.filter(|index| leader_of(*index).is_some()).collect();
            // Chance spreads the processes of a fleet.
            led.get(random() as usize % led.len().max(1)).copied()
        });
        let leader = self.partition.and_then(leader_of);
        let leader = leader.ok_or(Failure::NoLeader)?;
        Ok(self.cluster.asking()?.dial(&leader).await?)
    }
}

/// Asks for the id that batches are numbered under.
async fn new_writer(link: &mut Dialled) -> Result<Writer, Failure> {
    let mut request = frames::new_request(INIT_PRODUCER_ID).ok_or(AskError::Unreadable)?;
    request
        .set_text("TransactionalId", None)
        .set_int("TransactionTimeoutMs", 0)
        .set_int("ProducerId", -1)
        .set_int("ProducerEpoch", -1);
    let (key, version) = (INIT_PRODUCER_ID, INIT_PRODUCER_ID_VERSION);
    let answer = ask(&mut link.stream, key, version, &request).await?;
    match answer.int("ErrorCode") {
        0 => Ok(Writer {
            producer_id: answer.int("ProducerId"),
            epoch: answer.int("ProducerEpoch") as i16,
            sequence: 0,
        }),
        code => Err(Failure::Code(code)),
    }
}

/// The number behind so many records: it goes from the largest to 0.
fn behind(sequence: i32, records: usize) -> i32 {
    let next = i64::from(sequence) + records as i64;
    (next % (i64::from(i32::MAX) + 1)) as i32
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_records_begin_anew_behind_the_largest() {
        assert_eq!(behind(0, 3), 3);
        assert_eq!(behind(i32::MAX - 2, 2), i32::MAX);
        assert_eq!(behind(i32::MAX - 2, 3), 0);
        assert_eq!(behind(i32::MAX, 5), 4);
    }

    #[test]
    fn people_are_told_what_to_do() {
        assert!(Told(3).to_string().contains("does not exist"));
        assert!(Told(29).to_string().contains("needs Write"));
        assert_eq!(Told(87).to_string(), "the broker answers error 87");
    }
}
