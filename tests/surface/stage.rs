//! Two brokers with the same history, and Kordon before one of them.
//!
//! The strict one asks Kafka's own StandardAuthorizer, with ACLs for users who log in by
//! SASL/PLAIN. The open one lets everybody do everything; before it stands Kordon with one
//! listener for each user and policies that say what the ACLs say. The same requests go to the
//! strict broker and through Kordon, so both brokers live through the same changes as long as
//! the decisions agree.

use crate::lab::{kafka::Kafka, kordon::Kordon, port};
use crate::socket::{Socket, request};
use kordon::wire::tree::{Node, StructNode};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The version of Kafka on both sides.
const VERSION: &str = "4.3.0";
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Topics that exist on both brokers.
pub const TOPICS: [&str; 2] = ["in.orders", "out.orders"];
/// Groups with a committed offset for each topic of `TOPICS`.
pub const GROUPS: [&str; 2] = ["in.group", "out.group"];

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    /// Topics, groups and transactional ids whose names begin so; empty: all of them.
    Names(&'static str),
    /// Topics whose names begin so; empty: all.
    Topics(&'static str),
    /// Groups whose names begin so.
    Groups(&'static str),
    /// The topic of that name.
    Topic(&'static str),
    /// The cluster.
    Cluster,
}

/// One rule: whether it allows, which operation (Kafka's name), on what.
pub type Rule = (bool, &'static str, On);

/// A user and what the user may do.
pub struct User {
    /// The name: principal `User:NAME`.
    pub name: &'static str,
    /// The rules, on both sides.
    pub rules: &'static [Rule],
}

/// Everything, by rules.
pub const ALL: &str = "all";
/// Nothing at all.
pub const NONE: &str = "none";

/// The permission sets.
pub const USERS: [User; 14] = [
    User {
        name: ALL,
        rules: &[(true, "All", On::Names("")), (true, "All", On::Cluster)],
    },
    User {
        name: NONE,
        rules: &[],
    },
    User {
        name: "describe",
        rules: &[(true, "Describe", On::Names("in."))],
    },
    User {
        name: "read",
        rules: &[(true, "Read", On::Names("in."))],
    },
    User {
        name: "write",
        rules: &[(true, "Write", On::Names("in."))],
    },
    User {
        name: "prefix",
        rules: &[(true, "All", On::Names("in."))],
    },
    User {
        name: "deny",
        rules: &[
            (true, "All", On::Names("")),
            (false, "All", On::Topics("out.")),
            (false, "All", On::Groups("out.")),
        ],
    },
    User {
        name: "denyread",
        rules: &[
            (true, "All", On::Names("")),
            (false, "Read", On::Topic("out.orders")),
            (false, "Describe", On::Topic("in.missing")),
        ],
    },
    User {
        name: "cluster",
        rules: &[(true, "All", On::Cluster)],
    },
    User {
        name: "clusterdescribe",
        rules: &[
            (true, "Describe", On::Cluster),
            (true, "Describe", On::Topics("in.")),
        ],
    },
    User {
        name: "clustercreate",
        rules: &[
            (true, "Create", On::Cluster),
            (true, "Delete", On::Cluster),
            (true, "IdempotentWrite", On::Cluster),
        ],
    },
    User {
        name: "create",
        rules: &[
            (true, "Create", On::Topics("in.")),
            (true, "Delete", On::Names("in.")),
            (true, "Alter", On::Topics("in.")),
        ],
    },
    User {
        name: "configs",
        rules: &[
            (true, "DescribeConfigs", On::Names("in.")),
            (true, "AlterConfigs", On::Cluster),
        ],
    },
    User {
        name: "grouponly",
        rules: &[(true, "All", On::Groups("")), (true, "Alter", On::Cluster)],
    },
];

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// To the broker with Kafka's authorizer.
    Strict,
    /// Through Kordon, to the open broker.
    Kordon,
}

/// Both sides.
pub const SIDES: [Side; 2] = [Side::Strict, Side::Kordon];

/// The whole set-up.
pub struct Stage {
    /// The broker with ACLs.
    pub strict: Kafka,
    /// The broker without.
    pub open: Kafka,
    /// The proxy before it.
    pub kordon: Kordon,
    sasl: String,
    listeners: BTreeMap<&'static str, String>,
    ids: HashMap<Side, HashMap<String, [u8; 16]>>,
}

impl Stage {
    /// Starts everything and brings both brokers to the same state.
    pub fn start() -> Result<Stage, String> {
        let sasl_port = port::free("127.0.77.1", 1);
        let strict = Kafka::start(VERSION, 1, &strict_properties(sasl_port))?;
        let open = Kafka::start(VERSION, 1, SHARED)?;
        let ports: Vec<u16> = USERS.iter().map(|_| port::free("127.0.0.1", 2)).collect();
        let upstream = open.addrs();
        let config = |own: &crate::lab::kordon::Ports| {
            let mut text = format!(
                "upstream:\n  bootstrap: [\"{}\"]\nlisteners:\n",
                upstream[0]
            );
            // The first is where the lab looks for a sign of life.
            listener(&mut text, "lab", own.app, own.app + 1, "nobody");
            for (user, port) in USERS.iter().zip(&ports) {
                listener(&mut text, user.name, *port, port + 1, user.name);
            }
            let admin = own.admin;
            let _ = write!(
                text,
                "policies: policies/\nadmin: {{bind: \"127.0.0.1:{admin}\"}}\n"
            );
            text
        };
        let policies = policies();
        let files = [("policies/users.yaml", policies.as_str())];
        let kordon = Kordon::start("127.0.0.1", config, &files)?;
        let listeners = USERS
            .iter()
            .zip(&ports)
            .map(|(user, port)| (user.name, format!("127.0.0.1:{port}")))
            .collect();
        let mut stage = Stage {
            strict,
            open,
            kordon,
            sasl: format!("127.0.77.1:{sasl_port}"),
            listeners,
            ids: HashMap::new(),
        };
        for side in SIDES {
            stage.prepare(side)?;
        }
        stage.grant();
        Ok(stage)
    }

    /// A connection of `user`.
    pub fn connect(&self, side: Side, user: &str) -> Socket {
        match side {
            Side::Strict => Socket::open_as(&self.sasl, user),
            Side::Kordon => Socket::open(&self.listeners[user]),
        }
    }

    /// A connection that authenticates nowhere: a super user's at the strict broker, at Kordon
    /// the one of who is allowed everything.
    pub fn plain(&self, side: Side) -> Socket {
        match side {
            Side::Strict => self.admin(side),
            Side::Kordon => self.connect(side, ALL),
        }
    }

    /// Where a user's listener is.
    pub fn address(&self, user: &str) -> &str {
        &self.listeners[user]
    }

    /// A connection to the broker of a side, past everything.
    pub fn admin(&self, side: Side) -> Socket {
        match side {
            Side::Strict => Socket::open(&self.strict.bootstrap()),
            Side::Kordon => Socket::open(&self.open.bootstrap()),
        }
    }

    /// Addresses that nobody may see through Kordon.
    pub fn hidden(&self) -> Vec<String> {
        self.open.addrs()
    }

    /// The id of a topic; a made-up one if it does not exist.
    pub fn id(&self, side: Side, topic: &str) -> [u8; 16] {
        let known = self.ids.get(&side).and_then(|ids| ids.get(topic));
        known.copied().unwrap_or_else(|| made_up(topic))
    }

    /// The topic with that id.
    pub fn topic(&self, side: Side, id: &[u8; 16]) -> Option<&str> {
        let ids = self.ids.get(&side)?;
        let found = ids.iter().find(|(_, known)| *known == id);
        found.map(|(name, _)| name.as_str())
    }

    /// Creates topics of one partition where they are missing, and learns their ids.
    pub fn create(&mut self, side: Side, topics: &[&str]) {
        let mut admin = self.admin(side);
        let mut create = request(19);
        for topic in topics {
            let mut element = create.element("Topics");
            element.set_text("Name", Some(topic));
            element
                .set_int("NumPartitions", 1)
                .set_int("ReplicationFactor", 1);
            create.structs_mut("Topics").push(element);
        }
        let answer = admin.call(19, 7, &create);
        for topic in answer.structs("Topics") {
            let code = topic.int("ErrorCode");
            assert!(code == 0 || code == 36, "{topic:?}");
        }
        // Until the broker's own view has them.
        let until = Instant::now() + SETTLE_LIMIT;
        for topic in topics {
            loop {
                let answer = admin.call(3, 12, &metadata(topic));
                let found = &answer.structs("Topics")[0];
                // The broker is told of a topic a moment before it leads the partition.
                if found.int("ErrorCode") == 0 && leads(&mut admin, topic) {
                    let id = found.uuid("TopicId");
                    let ids = self.ids.entry(side).or_default();
                    ids.insert((*topic).to_owned(), id);
                    break;
                }
                assert!(Instant::now() < until, "{topic} does not appear");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn prepare(&mut self, side: Side) -> Result<(), String> {
        self.create(side, &TOPICS);
        let mut admin = self.admin(side);
        let until = Instant::now() + SETTLE_LIMIT;
        let mut ready = |key: i16, version: i16, request: &StructNode, fine: Fine| {
            loop {
                let answer = admin.call(key, version, request);
                if fine(&answer) {
                    return Ok(());
                }
                if Instant::now() > until {
                    return Err(format!("not settled: {answer:?}"));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        for kind in 0..3 {
            let mut find = request(10);
            let key = match kind {
                2 => "g:AAAAAAAAAAAAAAAAAAAAAQ:0",
                _ => "in.group",
            };
            find.set_int("KeyType", kind);
            find.array_mut("CoordinatorKeys").push(text(key));
            ready(10, 6, &find, |a| {
                a.structs("Coordinators")[0].int("ErrorCode") == 0
            })?;
        }
        for topic in TOPICS {
            let mut produce = request(0);
            produce.set_int("Acks", -1).set_int("TimeoutMs", 5000);
            let mut element = produce.element("TopicData");
            element.set_text("Name", Some(topic));
            let mut partition = element.element("PartitionData");
            let records = crate::body::batch(topic, crate::body::Kind::Plain);
            partition.set("Records", Node::Bytes(Some(records)));
            element.structs_mut("PartitionData").push(partition);
            produce.structs_mut("TopicData").push(element);
            ready(0, 9, &produce, |a| {
                a.structs("Responses")[0].structs("PartitionResponses")[0].int("ErrorCode") == 0
            })?;
        }
        for group in GROUPS {
            let mut commit = request(8);
            commit.set_text("GroupId", Some(group));
            for topic in TOPICS {
                let mut element = commit.element("Topics");
                element.set_text("Name", Some(topic));
                let mut partition = element.element("Partitions");
                partition.set_int("CommittedOffset", 1);
                element.structs_mut("Partitions").push(partition);
                commit.structs_mut("Topics").push(element);
            }
            ready(8, 9, &commit, |a| {
                a.structs("Topics")[0].structs("Partitions")[0].int("ErrorCode") == 0
            })?;
        }
        let mut init = request(22);
        init.set_text("TransactionalId", Some("in.warm"));
        init.set_int("TransactionTimeoutMs", 60_000);
        ready(22, 5, &init, |a| a.int("ErrorCode") == 0)
    }

    /// Writes the users' ACLs to the strict broker.
    fn grant(&self) {
        let mut create = request(30);
        let mut count = 0;
        for user in &USERS {
            for (allow, operation, on) in user.rules {
                for (kind, pattern, name) in resources(*on) {
                    let mut element = create.element("Creations");
                    element
                        .set_int("ResourceType", kind)
                        .set_text("ResourceName", Some(name))
                        .set_int("ResourcePatternType", pattern)
                        .set_text("Principal", Some(&format!("User:{}", user.name)))
                        .set_text("Host", Some("*"))
                        .set_int("Operation", operation_code(operation))
                        .set_int("PermissionType", if *allow { 3 } else { 2 });
                    create.structs_mut("Creations").push(element);
                    count += 1;
                }
            }
        }
        let mut admin = self.admin(Side::Strict);
        let answer = admin.call(30, 3, &create);
        for result in answer.structs("Results") {
            assert_eq!(result.int("ErrorCode"), 0, "{result:?}");
        }
        let mut describe = request(29);
        describe
            .set_int("ResourceTypeFilter", 1)
            .set_int("PatternTypeFilter", 1)
            .set_int("Operation", 1)
            .set_int("PermissionType", 1)
            .set_text("ResourceNameFilter", None)
            .set_text("PrincipalFilter", None)
            .set_text("HostFilter", None);
        let until = Instant::now() + SETTLE_LIMIT;
        loop {
            let answer = admin.call(29, 3, &describe);
            let acls = answer.structs("Resources").iter();
            let found: usize = acls.map(|r| r.structs("Acls").len()).sum();
            if found == count {
                return;
            }
            assert!(Instant::now() < until, "{found} of {count} ACLs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether the broker answers for partition 0.
fn leads(admin: &mut Socket, topic: &str) -> bool {
    let mut offsets = request(2);
    offsets.set_int("ReplicaId", -1);
    let mut element = offsets.element("Topics");
    element.set_text("Name", Some(topic));
    let mut partition = element.element("Partitions");
    partition
        .set_int("CurrentLeaderEpoch", -1)
        .set_int("Timestamp", -1);
    element.structs_mut("Partitions").push(partition);
    offsets.structs_mut("Topics").push(element);
    let answer = admin.call(2, 7, &offsets);
    answer.structs("Topics")[0].structs("Partitions")[0].int("ErrorCode") == 0
}

type Fine = fn(&StructNode) -> bool;

/// A Metadata request for one topic, creating nothing.
pub fn metadata(topic: &str) -> StructNode {
    let mut metadata = request(3);
    metadata.set_int("AllowAutoTopicCreation", 0);
    let mut element = metadata.element("Topics");
    element.set_text("Name", Some(topic));
    metadata.structs_mut("Topics").push(element);
    metadata
}

/// A string value.
pub fn text(text: &str) -> Node {
    Node::Bytes(Some(text.as_bytes().to_vec().into()))
}

fn made_up(topic: &str) -> [u8; 16] {
    let mut id = [7; 16];
    for (slot, byte) in id.iter_mut().zip(topic.bytes()) {
        *slot = byte;
    }
    id
}

fn listener(out: &mut String, name: &str, port: u16, broker: u16, user: &str) {
    let _ = write!(
        out,
        "  - name: {name}
    bind: 127.0.0.1:{port}
    advertise: {{host: localhost, ports: {broker}-{broker}}}
    identity: {{static: \"User:{user}\"}}
"
    );
}

fn policies() -> String {
    let mut out = String::new();
    for user in USERS.iter().filter(|user| !user.rules.is_empty()) {
        let _ = write!(
            out,
            "---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {{name: {name}}}
spec:
  principals: [\"User:{name}\"]
  rules:
",
            name = user.name
        );
        for (allow, operation, on) in user.rules {
            let verb = if *allow { "allow" } else { "deny" };
            for (kind, pattern, name) in resources(*on) {
                let star = if pattern == PREFIXED { "*" } else { "" };
                let target = match kind {
                    TOPIC => format!("topics: [\"{name}{star}\"]"),
                    GROUP => format!("groups: [\"{name}{star}\"]"),
                    TRANSACTIONAL_ID => format!("transactionalIds: [\"{name}{star}\"]"),
                    _ => "cluster: true".to_owned(),
                };
                let _ = writeln!(out, "    - {{{verb}: [{operation}], {target}}}");
            }
        }
    }
    out
}

const TOPIC: i64 = 2;
const GROUP: i64 = 3;
const CLUSTER: i64 = 4;
const TRANSACTIONAL_ID: i64 = 5;
const LITERAL: i64 = 3;
const PREFIXED: i64 = 4;

/// Resource type, pattern type and name of the ACLs for a rule.
fn resources(on: On) -> Vec<(i64, i64, &'static str)> {
    let named = |kind, prefix: &'static str| match prefix {
        "" => (kind, LITERAL, "*"),
        prefix => (kind, PREFIXED, prefix),
    };
    match on {
        On::Names(prefix) => [TOPIC, GROUP, TRANSACTIONAL_ID]
            .map(|kind| named(kind, prefix))
            .to_vec(),
        On::Topics(prefix) => vec![named(TOPIC, prefix)],
        On::Groups(prefix) => vec![named(GROUP, prefix)],
        On::Topic(name) => vec![(TOPIC, LITERAL, name)],
        On::Cluster => vec![(CLUSTER, LITERAL, "kafka-cluster")],
    }
}

fn operation_code(name: &str) -> i64 {
    let names = [
        "All",
        "Read",
        "Write",
        "Create",
        "Delete",
        "Alter",
        "Describe",
        "ClusterAction",
        "DescribeConfigs",
        "AlterConfigs",
        "IdempotentWrite",
    ];
    names.iter().position(|n| *n == name).unwrap() as i64 + 2
}

/// What both brokers share beyond the lab's own properties.
const SHARED: &str = "group.max.session.timeout.ms=1800000
transaction.partition.verification.enable=true
";

const LOGIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";

fn strict_properties(sasl: u16) -> String {
    let users: String = USERS
        .iter()
        .map(|user| format!("user_{0}=\"{0}\" ", user.name))
        .collect();
    format!(
        "{SHARED}
listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{sasl},CONTROLLER://$HOST:$CONTROLLER
advertised.listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{sasl}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config={LOGIN} required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"
    )
}
