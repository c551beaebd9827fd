//! The tour: clients that are allowed, denied, throttled and rejected, one after the other, each
//! with what it saw and why. Everything goes through the running proxy over real sockets; what
//! must not have reached the broker is looked up there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, MetadataResponse, OffsetCommitRequest, ProduceResponse,
};
use kafka_protocol::records::Compression;

use super::client::{Client, ClientError, Message, NOT_IDEMPOTENT, batch, messages, topic_name};
use super::event;
use super::issuer::Issuer;
use super::stage::{READER, Stage, StageError, TOPICS};
use super::verdict::Reasons;
use crate::policy::model::{Operation, ResourceKind};

/// Bytes the connector sends at once, against a quota of 64 KiB/s.
const BURST_BYTES: usize = 900 << 10;
/// A token that was issued so long ago is dead: it lived for an hour.
const STOLEN_AGE: Duration = Duration::from_secs(3 * 3_600);

const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
const INVALID_RECORD: i16 = 87;

/// One row of the table.
#[derive(Debug)]
pub struct Step {
    /// Which step, for the message when it fails.
    pub name: &'static str,
    /// The client and how it proves who it is.
    pub who: &'static str,
    /// What it tried.
    pub did: String,
    /// What it saw.
    pub got: String,
    /// Why.
    pub why: String,
    /// What should have happened instead, if it did not.
    pub fault: Option<String>,
}

/// Why a step could not even be tried.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Issuer(#[from] super::issuer::IssuerError),
}

/// What a step saw and why; or what it should have seen.
struct Outcome {
    got: String,
    why: Option<String>,
    good: bool,
    expected: &'static str,
}

/// The tour, step by step.
pub struct Tour<'a> {
    stage: &'a Stage,
    reasons: Reasons,
}

/// How many steps there are.
pub const STEPS: usize = 11;

impl<'a> Tour<'a> {
    /// A tour of a stage on which the proxy runs.
    pub fn new(stage: &'a Stage) -> Self {
        let reasons = Reasons::new(&stage.directory);
        Self { stage, reasons }
    }

    /// Takes one step, from 0 to [`STEPS`] − 1.
    pub async fn step(&mut self, number: usize) -> Step {
        let auth = "auth-service (token over TLS)";
        let notification = "notification-service (client certificate)";
        let connector = "connector-service (its pod, plaintext)";
        let (name, who, did) = match number {
            0 => ("addresses", auth, "asks where the brokers are"),
            1 => ("publish", auth, "publishes user.authenticated"),
            2 => ("publish more", auth, "publishes 3 × user.created"),
            3 => ("listing", notification, "lists all topics"),
            4 => ("consumer", notification, "reads user.created and commits"),
            5 => ("no rule", notification, "publishes user.authenticated"),
            6 => ("deny rule", auth, "reads audit.events"),
            7 => ("schema", auth, "publishes 3 events, one cut short"),
            8 => (
                "quota",
                connector,
                "sends 900 KiB at once, 64 KiB/s are its share",
            ),
            9 => (
                "stolen token",
                "a thief (stolen token)",
                "uses a token of yesterday",
            ),
            _ => (
                "forged token",
                "a forger (token of another key)",
                "claims to be auth-service",
            ),
        };
        let outcome = match number {
            0 => self.addresses().await,
            1 => {
                self.publish("user.authenticated", &[event::user_authenticated(1)])
                    .await
            }
            2 => {
                let events: Vec<Message> = (2..5).map(event::user_created).collect();
                self.publish("user.created", &events).await
            }
            3 => self.listing().await,
            4 => self.consume().await,
            5 => self.publish_without_rule().await,
            6 => self.read_against_deny().await,
            7 => self.publish_broken().await,
            8 => self.exceed_quota().await,
            9 => {
                let token = self.stage.issuer.token("auth-service", STOLEN_AGE);
                self.rejected_token(token.map_err(Broken::from)).await
            }
            _ => {
                let forger = Issuer::new();
                let token = forger.and_then(|f| f.token("auth-service", Duration::ZERO));
                self.rejected_token(token.map_err(Broken::from)).await
            }
        };
        let outcome = outcome.unwrap_or_else(|broken| Outcome {
            got: broken.to_string(),
            why: None,
            good: false,
            expected: "an answer",
        });
        let good = outcome.good && outcome.why.is_some();
        let missing = match outcome.good {
            true => "a reason in the audit log or the policies",
            false => outcome.expected,
        };
        Step {
            name,
            who,
            did: did.to_owned(),
            fault: (!good).then(|| format!("expected {missing}, got {}", outcome.got)),
            got: outcome.got,
            why: outcome.why.unwrap_or_default(),
        }
    }

    async fn addresses(&mut self) -> Result<Outcome, Broken> {
        let ports = self.stage.ports;
        let mut client = self.auth_service(ports.tokens).await?;
        let metadata = client.metadata(None).await?;
        let shown: BTreeSet<(String, i32)> = brokers(&metadata).collect();
        let own = ("localhost".to_owned(), i32::from(ports.tokens_broker));
        let list: Vec<String> = shown.iter().map(|(h, p)| format!("{h}:{p}")).collect();
        let advertised = format!("ports: {0}-{0}", ports.tokens_broker);
        let why = self.reasons.configured(&advertised);
        Ok(Outcome {
            got: format!("{}: Kordon's own address and no other", list.join(", ")),
            why: why.map(|place| format!("advertise {place}")),
            good: shown == BTreeSet::from([own]),
            expected: "no address but localhost with the listener's broker port",
        })
    }

    async fn publish(
        &mut self,
        topic: &'static str,
        events: &[Message],
    ) -> Result<Outcome, Broken> {
        let mut client = self.auth_service(self.stage.ports.tokens).await?;
        let leader = leader_port(&client.metadata(Some(&[topic])).await?)?;
        let mut client = self.auth_service(leader).await?;
        let answer = client.produce(topic, 0, plain(events)?).await?;
        let result = Produced::of(&answer);
        let arrived = self.stage.broker.end_offset(topic, 0);
        let count = events.len() as i64;
        Ok(Outcome {
            got: match (result.error, count) {
                (0, 1) => format!("stored at offset {}", result.offset),
                (0, _) => format!("stored at offsets {} to {}", result.offset, count - 1),
                _ => result.to_string(),
            },
            why: self.allowed("auth-service", Operation::Write, topic),
            good: result.error == 0 && arrived == Some(count),
            expected: "every record in the broker",
        })
    }

    async fn listing(&mut self) -> Result<Outcome, Broken> {
        let mut client = self.notification_service(self.stage.ports.mesh).await?;
        let metadata = client.metadata(None).await?;
        let names = metadata.topics.iter().filter_map(|t| t.name.as_ref());
        let names: BTreeSet<&str> = names.map(|name| name.as_str()).collect();
        let own = [
            "system.alerts",
            "user.created",
            "workflow.executed",
            "workflow.generated",
        ];
        Ok(Outcome {
            got: format!("sees {} of {}: its own", names.len(), TOPICS.len()),
            why: self.allowed(READER, Operation::Describe, "user.created"),
            good: names == BTreeSet::from(own),
            expected: "exactly the four topics it may read",
        })
    }

    async fn consume(&mut self) -> Result<Outcome, Broken> {
        let mut client = self.notification_service(self.stage.ports.mesh).await?;
        let request = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_key(READER.into());
        let coordinator = client.call(3, &request).await?;
        let port = broker_port(&coordinator.host, coordinator.port)?;
        let mut client = self.notification_service(port).await?;
        let wait = Duration::from_secs(2);
        let answer = client.fetch("user.created", 0, 0, wait).await?;
        let partition = answer.responses.first().and_then(|t| t.partitions.first());
        let error = partition.map_or(-1, |p| p.error_code);
        let records = partition.and_then(|p| p.records.clone());
        let read = messages(&records.unwrap_or_default())?;
        let written: Vec<Option<Bytes>> = (2..5).map(|n| event::user_created(n).key).collect();
        let same = read.iter().map(|m| m.key.clone()).eq(written);
        let position = OffsetCommitRequestPartition::default().with_committed_offset(3);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name("user.created"))
            .with_partitions(vec![position]);
        let commit = OffsetCommitRequest::default()
            .with_group_id(GroupId(READER.into()))
            .with_topics(vec![topic]);
        let committed = client.call(8, &commit).await?;
        let partition = committed.topics.first().and_then(|t| t.partitions.first());
        let commit_error = partition.map_or(-1, |p| p.error_code);
        Ok(Outcome {
            got: match (error, commit_error) {
                (0, 0) => format!("{} records; offset 3 committed for its group", read.len()),
                _ => format!("fetch error {error}, commit error {commit_error}"),
            },
            why: self.allowed(READER, Operation::Read, "user.created"),
            good: error == 0 && commit_error == 0 && same,
            expected: "the three records and a commit",
        })
    }

    async fn publish_without_rule(&mut self) -> Result<Outcome, Broken> {
        let mut client = self.notification_service(self.stage.ports.mesh).await?;
        let records = plain(&[event::user_authenticated(9)])?;
        let answer = client.produce("user.authenticated", 0, records).await?;
        let result = Produced::of(&answer);
        let denial = self.reasons.denied(Some(READER), "Produce").await;
        let untouched = self.stage.broker.end_offset("user.authenticated", 0) == Some(1);
        Ok(Outcome {
            got: result.to_string(),
            good: result.error == TOPIC_AUTHORIZATION_FAILED
                && untouched
                && denial.as_ref().is_none_or(|d| d.rule.is_none()),
            why: denial.map(|_| "no rule allows it (default deny)".to_owned()),
            expected: "error 29, no rule, nothing new in the broker",
        })
    }

    async fn read_against_deny(&mut self) -> Result<Outcome, Broken> {
        let mut client = self.auth_service(self.stage.ports.tokens).await?;
        let answer = client.fetch("audit.events", 0, 0, Duration::ZERO).await?;
        let partition = answer.responses.first().and_then(|t| t.partitions.first());
        let error = partition.map_or(-1, |p| p.error_code);
        let denial = self.reasons.denied(Some("auth-service"), "Fetch").await;
        let rule = denial.and_then(|d| d.rule);
        Ok(Outcome {
            got: error_name(error),
            why: rule.map(|rule| format!("deny {rule}")),
            good: error == TOPIC_AUTHORIZATION_FAILED,
            expected: "error 29",
        })
    }

    async fn publish_broken(&mut self) -> Result<Outcome, Broken> {
        let mut client = self.auth_service(self.stage.ports.tokens).await?;
        let events = [
            event::user_authenticated(6),
            event::user_authenticated_cut_short(7),
            event::user_authenticated(8),
        ];
        let answer = client
            .produce("user.authenticated", 0, plain(&events)?)
            .await?;
        let result = Produced::of(&answer);
        let denial = self.reasons.denied(Some("auth-service"), "Produce").await;
        let untouched = self.stage.broker.end_offset("user.authenticated", 0) == Some(1);
        let named = result.records.iter().map(|(index, _)| *index).eq([1]);
        let rule = denial.and_then(|d| d.rule);
        Ok(Outcome {
            got: result.to_string(),
            why: rule.map(|rule| format!("schema {rule}")),
            good: result.error == INVALID_RECORD && named && untouched,
            expected: "error 87 for record 1 alone, nothing new in the broker",
        })
    }

    async fn exceed_quota(&mut self) -> Result<Outcome, Broken> {
        let address = local(self.stage.ports.app);
        let mut client = Client::connect(address, "connector-service").await?;
        let records = plain(&[event::data_raw(BURST_BYTES)])?;
        let answer = client.produce("connector.data.raw", 0, records).await?;
        let result = Produced::of(&answer);
        let throttle_ms = answer.throttle_time_ms;
        let arrived = self.stage.broker.end_offset("connector.data.raw", 0) == Some(1);
        let rule = self.reasons.throttled("connector-service").await;
        let rule = rule.and_then(|said| said.rule);
        Ok(Outcome {
            got: match result.error {
                0 => format!("stored, and told to wait: throttle_time_ms {throttle_ms}"),
                _ => result.to_string(),
            },
            why: rule.map(|rule| format!("quota {rule}")),
            good: result.error == 0 && throttle_ms > 0 && arrived,
            expected: "the record stored and a throttle time above 0",
        })
    }

    async fn rejected_token(&mut self, token: Result<String, Broken>) -> Result<Outcome, Broken> {
        let mut client = self
            .tls_client("auth-service", self.stage.ports.tokens)
            .await?;
        let answer = client.authenticate(&token?).await?;
        let refused = answer.error_code == SASL_AUTHENTICATION_FAILED;
        let closed = client.is_closed().await;
        let denial = self.reasons.denied(None, "SaslAuthenticate").await;
        let error = error_name(answer.error_code);
        Ok(Outcome {
            got: match closed {
                true => format!("{error}, connection closed"),
                false => error,
            },
            why: denial.map(|d| match d.detail.is_empty() {
                true => d.reason,
                false => d.detail,
            }),
            good: refused && closed,
            expected: "error 58 and a closed connection",
        })
    }

    fn allowed(&self, service: &str, operation: Operation, topic: &str) -> Option<String> {
        let kind = ResourceKind::Topic;
        self.reasons.allowed(service, operation, kind, topic)
    }

    /// By token, over TLS.
    async fn auth_service(&self, port: u16) -> Result<Client, Broken> {
        let mut client = self.tls_client("auth-service", port).await?;
        let token = self.stage.issuer.token("auth-service", Duration::ZERO)?;
        let answer = client.authenticate(&token).await?;
        match answer.error_code {
            0 => Ok(client),
            error => Err(ClientError::Malformed(error_name(error)).into()),
        }
    }

    async fn tls_client(&self, client_id: &str, port: u16) -> Result<Client, Broken> {
        let tls = self.stage.tls(None)?;
        Ok(Client::connect_tls(local(port), "localhost", tls, client_id).await?)
    }

    /// By its certificate.
    async fn notification_service(&self, port: u16) -> Result<Client, Broken> {
        let tls = self.stage.tls(Some(READER))?;
        Ok(Client::connect_tls(local(port), "localhost", tls, READER).await?)
    }
}

/// What a Produce answer says about its only partition.
struct Produced {
    error: i16,
    offset: i64,
    /// Index and message of each bad record.
    records: Vec<(i32, String)>,
}

impl Produced {
    fn of(answer: &ProduceResponse) -> Self {
        let topic = answer.responses.first();
        let partition = topic.and_then(|t| t.partition_responses.first());
        let records = partition.iter().flat_map(|p| &p.record_errors);
        let text = |m: &Option<kafka_protocol::protocol::StrBytes>| {
            m.as_ref().map_or_else(String::new, |m| m.to_string())
        };
        Self {
            error: partition.map_or(-1, |p| p.error_code),
            offset: partition.map_or(-1, |p| p.base_offset),
            records: records
                .map(|r| (r.batch_index, text(&r.batch_index_error_message)))
                .collect(),
        }
    }
}

impl std::fmt::Display for Produced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", error_name(self.error))?;
        for (index, message) in &self.records {
            write!(f, "; record {index}: {message}")?;
        }
        Ok(())
    }
}

fn error_name(error: i16) -> String {
    let name = match error {
        0 => "no error",
        TOPIC_AUTHORIZATION_FAILED => "TOPIC_AUTHORIZATION_FAILED",
        SASL_AUTHENTICATION_FAILED => "SASL_AUTHENTICATION_FAILED",
        INVALID_RECORD => "INVALID_RECORD",
        _ => "error",
    };
    format!("{error} {name}")
}

fn brokers(metadata: &MetadataResponse) -> impl Iterator<Item = (String, i32)> {
    let each = metadata.brokers.iter();
    each.map(|broker| (broker.host.to_string(), broker.port))
}

/// The port of the broker that leads the first topic's partitions.
fn leader_port(metadata: &MetadataResponse) -> Result<u16, ClientError> {
    let leader = metadata.topics.first().and_then(|t| t.partitions.first());
    let leader = leader.map(|partition| partition.leader_id);
    let broker = metadata.brokers.iter().find(|b| Some(b.node_id) == leader);
    let broker = broker.ok_or_else(|| ClientError::Malformed("no leader is known".to_owned()))?;
    broker_port(&broker.host, broker.port)
}

/// The port, if the host is one that Kordon advertises here.
fn broker_port(host: &str, port: i32) -> Result<u16, ClientError> {
    match (host, u16::try_from(port)) {
        ("localhost", Ok(port)) => Ok(port),
        _ => Err(ClientError::Malformed(format!("sent to `{host}:{port}`"))),
    }
}

fn plain(events: &[Message]) -> Result<Bytes, ClientError> {
    batch(events, Compression::None, NOT_IDEMPOTENT)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
