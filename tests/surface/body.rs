//! Well-formed requests of every API and version: the layout says what there is, the roles of
//! its fields say which name belongs where, and a few APIs have a word of their own.

use crate::asks::text;
use crate::stage::{Side, Stage};
use bytes::{BufMut, Bytes, BytesMut};
use kordon::apis::layout;
use kordon::wire::layout::{Field, Role, Struct, Type};
use kordon::wire::tree::{Node, StructNode};

/// What a request names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Topics.
    pub topics: Vec<String>,
    /// Groups; the first where there is room for one.
    pub groups: Vec<String>,
    /// Transactional ids, likewise.
    pub transactions: Vec<String>,
    /// Null or empty instead of topics: all of them.
    pub all: bool,
    /// Ids even where names are possible.
    pub by_id: bool,
    /// Which of the kinds a request may be of (coordinator type, configuration resource).
    pub kind: i64,
    /// Whether Metadata may create topics.
    pub auto_create: bool,
}

impl Names {
    /// One topic, one group, one transactional id.
    pub fn of(topic: &str, group: &str, transaction: &str) -> Names {
        Names {
            topics: vec![topic.into()],
            groups: vec![group.into()],
            transactions: vec![transaction.into()],
            ..Names::default()
        }
    }
}

/// Whether a version has a field of that role anywhere.
pub fn names(layout: &Struct, role: Role, version: i16) -> bool {
    let here = |f: &&Field| f.versions.contains(version);
    layout.fields.iter().filter(here).any(|f| {
        let inside = f.nested().is_some_and(|inner| names(inner, role, version));
        f.role == role || inside
    })
}

/// The version whose layout a version outside of the row is written in.
pub fn nearest(key: i16, version: i16) -> i16 {
    layout(key).map_or(version, |l| {
        let versions = l.request.versions;
        version.clamp(versions.min, versions.max)
    })
}

/// A request for one side, whose topics have ids of their own.
pub fn request(stage: &Stage, side: Side, key: i16, version: i16, names: &Names) -> StructNode {
    let filler = Filler {
        stage,
        side,
        version,
        names,
    };
    let mut node = StructNode::new(&layout(key).unwrap().request.body);
    filler.fill(&mut node, &layout(key).unwrap().request.body, 0);
    filler.own_words(key, &mut node);
    node
}

struct Filler<'a> {
    stage: &'a Stage,
    side: Side,
    version: i16,
    names: &'a Names,
}

impl Filler<'_> {
    /// `nth`: which of the names an element of an array is about.
    fn fill(&self, node: &mut StructNode, layout: &'static Struct, nth: usize) {
        for (index, field) in layout.fields.iter().enumerate() {
            if !field.versions.contains(self.version) || field.is_tagged(self.version) {
                continue;
            }
            if let Some(value) = self.value(field, nth) {
                *node.at_mut(index).unwrap() = value;
            }
        }
    }

    fn value(&self, field: &'static Field, nth: usize) -> Option<Node> {
        let names = self.names;
        match &field.kind {
            Type::Array(element) => match &**element {
                Type::Struct(nested) => {
                    let has = |role| nested.fields.iter().any(|f| f.role == role);
                    let about_topics = has(Role::TopicName) || has(Role::TopicId);
                    if about_topics && names.all && field.nullable.contains(self.version) {
                        return Some(Node::Structs(None));
                    }
                    let count = match () {
                        () if about_topics => names.topics.len(),
                        () if has(Role::GroupId) => names.groups.len(),
                        () if has(Role::TransactionalId) => names.transactions.len(),
                        () => 1,
                    };
                    let elements = (0..count).map(|nth| {
                        let mut node = StructNode::new(nested);
                        self.fill(&mut node, nested, nth);
                        node
                    });
                    Some(Node::Structs(Some(elements.collect())))
                }
                Type::String => {
                    let list = match field.role {
                        Role::TopicName => &names.topics,
                        Role::GroupId => &names.groups,
                        Role::TransactionalId => &names.transactions,
                        _ => return None,
                    };
                    Some(Node::Array(Some(list.iter().map(|n| text(n)).collect())))
                }
                Type::Int32 if matches!(field.role, Role::Partition) => {
                    Some(Node::Array(Some(vec![Node::Int(0)])))
                }
                _ => None,
            },
            Type::Struct(nested) if field.default != kordon::wire::layout::Default::Null => {
                let mut node = StructNode::new(nested);
                self.fill(&mut node, nested, nth);
                Some(Node::Struct(Some(Box::new(node))))
            }
            Type::String => match field.role {
                Role::TopicName => names.topics.get(nth).map(|n| text(n)),
                Role::GroupId => names.groups.get(nth).map(|n| text(n)),
                Role::TransactionalId => names.transactions.get(nth).map(|n| text(n)),
                Role::ResourceName => names.topics.get(nth).map(|n| text(n)),
                _ => None,
            },
            Type::Uuid if field.role == Role::TopicId => {
                let id = names.topics.get(nth).map(|n| self.stage.id(self.side, n));
                Some(Node::Uuid(id.unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// What the layout cannot say.
    fn own_words(&self, key: i16, node: &mut StructNode) {
        let names = self.names;
        let topic = names.topics.first().map_or("in.orders", String::as_str);
        let group = names.groups.first().map_or("in.group", String::as_str);
        let transaction = names.transactions.first().map_or("in.t", String::as_str);
        match key {
            0 => {
                node.set_int("Acks", 1).set_int("TimeoutMs", 2000);
                let kind = match names.kind {
                    1 => Kind::Transactional,
                    2 => Kind::Control,
                    _ => Kind::Plain,
                };
                if names.kind != 1 {
                    node.set_text("TransactionalId", None);
                }
                for topic in node.structs_mut("TopicData") {
                    for partition in topic.structs_mut("PartitionData") {
                        partition.set("Records", Node::Bytes(Some(batch("event", kind))));
                    }
                }
            }
            1 => {
                node.set_int("MaxBytes", 1 << 20).set_int("MinBytes", 0);
                node.set_int("SessionEpoch", -1);
                node.structs_mut("ForgottenTopicsData").clear();
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.set_int("PartitionMaxBytes", 1 << 20);
                    }
                }
            }
            2 => {
                node.set_int("ReplicaId", -1);
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.set_int("Timestamp", -1);
                    }
                }
            }
            3 => {
                node.set_int("AllowAutoTopicCreation", i64::from(names.auto_create));
                node.set_int("IncludeTopicAuthorizedOperations", 1);
                node.set_int("IncludeClusterAuthorizedOperations", 1);
                for topic in node.structs_mut("Topics") {
                    match names.by_id && self.version >= 12 {
                        true => topic.set_text("Name", None),
                        false => topic.set("TopicId", Node::Uuid([0; 16])),
                    };
                }
                if names.all && self.version == 0 {
                    node.structs_mut("Topics").clear();
                }
            }
            10 => {
                node.set_int("KeyType", names.kind);
                let key = match names.kind {
                    0 => group.to_owned(),
                    1 => transaction.to_owned(),
                    _ => format!("{group}:AAAAAAAAAAAAAAAAAAAAAQ:0"),
                };
                node.set_text("Key", Some(&key));
                let keys = match names.kind {
                    0 => &names.groups,
                    1 => &names.transactions,
                    _ => &vec![key],
                };
                *node.array_mut("CoordinatorKeys") = keys.iter().map(|k| text(k)).collect();
            }
            11 => {
                node.set_int("SessionTimeoutMs", 1_000_000);
                node.set_int("RebalanceTimeoutMs", 1_000_000);
                node.set_text("ProtocolType", Some("consumer"));
                let protocol = &mut node.structs_mut("Protocols")[0];
                protocol.set_text("Name", Some("range"));
            }
            14 if self.version >= 5 => {
                node.set_text("ProtocolType", Some("consumer"));
                node.set_text("ProtocolName", Some("range"));
            }
            15 | 69 | 77 | 89 if key != 15 || self.version >= 3 => {
                node.set_int("IncludeAuthorizedOperations", 1);
            }
            17 => {
                node.set_text("Mechanism", Some("OAUTHBEARER"));
            }
            18 if self.version >= 3 => {
                node.set_text("ClientSoftwareName", Some("surface"));
                node.set_text("ClientSoftwareVersion", Some("1.0"));
            }
            19 => {
                for topic in node.structs_mut("Topics") {
                    topic
                        .set_int("NumPartitions", 1)
                        .set_int("ReplicationFactor", 1);
                    topic.structs_mut("Assignments").clear();
                    topic.structs_mut("Configs").clear();
                }
                node.set_int("validateOnly", i64::from(names.all));
            }
            20 => {
                node.set_int("TimeoutMs", 5000);
                for topic in node.structs_mut("Topics") {
                    match names.by_id {
                        true => topic.set_text("Name", None),
                        false => topic.set("TopicId", Node::Uuid([0; 16])),
                    };
                }
            }
            21 => {
                node.set_int("TimeoutMs", 5000);
            }
            22 => {
                node.set_int("TransactionTimeoutMs", 60_000);
                if names.kind == 1 {
                    node.set_text("TransactionalId", None);
                }
            }
            23 => {
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.set_int("CurrentLeaderEpoch", -1);
                    }
                }
                node.set_int("ReplicaId", -1);
            }
            29 => {
                node.set_int("ResourceTypeFilter", 2)
                    .set_int("PatternTypeFilter", 1)
                    .set_int("Operation", 1)
                    .set_int("PermissionType", 1)
                    .set_text("PrincipalFilter", None)
                    .set_text("HostFilter", None);
            }
            30 => {
                let creation = &mut node.structs_mut("Creations")[0];
                creation
                    .set_int("ResourceType", 2)
                    .set_text("ResourceName", Some("elsewhere"))
                    .set_text("Principal", Some("User:nobody"))
                    .set_text("Host", Some("*"))
                    .set_int("Operation", 3)
                    .set_int("PermissionType", 3);
            }
            31 => {
                let filter = &mut node.structs_mut("Filters")[0];
                filter
                    .set_int("ResourceTypeFilter", 2)
                    .set_text("ResourceNameFilter", Some("elsewhere"))
                    .set_int("PatternTypeFilter", 3)
                    .set_text("PrincipalFilter", Some("User:nobody"))
                    .set_text("HostFilter", None)
                    .set_int("Operation", 1)
                    .set_int("PermissionType", 1);
            }
            32 | 33 | 44 => self.configs(key, node, group),
            34 => {
                let dir = &mut node.structs_mut("Dirs")[0];
                dir.set_text("Path", Some("/nowhere"));
            }
            37 => {
                for topic in node.structs_mut("Topics") {
                    topic.set_int("Count", 2);
                    topic.set("Assignments", Node::Structs(None));
                }
                node.set_int("TimeoutMs", 5000).set_int("ValidateOnly", 1);
            }
            38 => {
                let renewer = &mut node.structs_mut("Renewers")[0];
                renewer
                    .set_text("PrincipalType", Some("User"))
                    .set_text("PrincipalName", Some("a"));
            }
            43 => {
                node.set_int("TimeoutMs", 5000);
            }
            45 => {
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.set("Replicas", Node::Array(None));
                    }
                }
            }
            46 if names.all => {
                node.set("Topics", Node::Structs(None));
            }
            48 => {
                let component = &mut node.structs_mut("Components")[0];
                component
                    .set_text("EntityType", Some("user"))
                    .set_text("Match", Some("a"));
            }
            49 => {
                node.set_int("ValidateOnly", 1);
                let entry = &mut node.structs_mut("Entries")[0];
                let entity = &mut entry.structs_mut("Entity")[0];
                entity
                    .set_text("EntityType", Some("user"))
                    .set_text("EntityName", Some("a"));
                let op = &mut entry.structs_mut("Ops")[0];
                op.set_text("Key", Some("producer_byte_rate"))
                    .set("Value", Node::Float(1024.0));
            }
            50 => {
                node.structs_mut("Users")[0].set_text("Name", Some("ann"));
            }
            51 => {
                let deletion = &mut node.structs_mut("Deletions")[0];
                deletion
                    .set_text("Name", Some("ann"))
                    .set_int("Mechanism", 1);
                node.structs_mut("Upsertions").clear();
            }
            55 => {
                let topics = node.structs_mut("Topics");
                topics.truncate(1);
                topics[0].set_text("TopicName", Some("__cluster_metadata"));
            }
            57 => {
                let update = &mut node.structs_mut("FeatureUpdates")[0];
                update
                    .set_text("Feature", Some("nonsense.version"))
                    .set_int("MaxVersionLevel", 1);
                if self.version >= 1 {
                    node.set_int("ValidateOnly", 1);
                }
            }
            60 => {
                node.set_int("IncludeClusterAuthorizedOperations", 1);
            }
            64 => {
                node.set_int("BrokerId", 99);
            }
            68 | 76 | 88 => {
                node.set_text("MemberId", Some("AAAAAAAAAAAAAAAAAAAAAg"));
                if key == 68 {
                    node.set_int("RebalanceTimeoutMs", 1_000_000);
                    node.set("TopicPartitions", Node::Structs(Some(Vec::new())));
                }
                if key == 88 {
                    self.streams(node, topic);
                }
            }
            75 if names.all => node.structs_mut("Topics").clear(),
            78 | 79 => {
                node.set_text("MemberId", Some("AAAAAAAAAAAAAAAAAAAAAg"));
                if key == 78 {
                    node.set_int("MaxRecords", 10).set_int("BatchSize", 10);
                    node.structs_mut("ForgottenTopicsData").clear();
                }
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.structs_mut("AcknowledgementBatches").clear();
                    }
                }
            }
            80 => {
                node.set_int("VoterId", 99).set_text("ClusterId", None);
                node.structs_mut("Listeners").clear();
            }
            81 => {
                node.set_int("VoterId", 99).set_text("ClusterId", None);
            }
            _ => {}
        }
    }

    /// `kind` 0: topics; otherwise the resource type.
    fn configs(&self, key: i16, node: &mut StructNode, group: &str) {
        let kind = if self.names.kind == 0 {
            2
        } else {
            self.names.kind
        };
        let resources: Vec<String> = match kind {
            2 => self.names.topics.clone(),
            32 => vec![group.to_owned()],
            4 | 8 => vec!["1".to_owned()],
            16 => vec!["metrics".to_owned()],
            _ => vec!["what".to_owned()],
        };
        let elements = resources.iter().map(|name| {
            let mut element = node.element("Resources");
            element
                .set_int("ResourceType", kind)
                .set_text("ResourceName", Some(name));
            if key == 32 {
                // A few names, so that brokers need not agree on all of theirs.
                let keys = ["retention.ms", "listeners", "num.partitions", "root"];
                element.set(
                    "ConfigurationKeys",
                    Node::Array(Some(keys.iter().map(|k| text(k)).collect())),
                );
            } else {
                let mut config = element.element("Configs");
                let (name, value) = match kind {
                    4 => ("message.max.bytes", "1000012"),
                    8 => ("root", "INFO"),
                    16 => ("interval.ms", "1000"),
                    32 => ("consumer.session.timeout.ms", "50000"),
                    _ => ("retention.ms", "100000"),
                };
                config
                    .set_text("Name", Some(name))
                    .set_text("Value", Some(value));
                element.structs_mut("Configs").push(config);
            }
            element
        });
        let elements = elements.collect();
        *node.structs_mut("Resources") = elements;
        if key == 32 {
            node.set_int("IncludeSynonyms", 1);
        } else {
            node.set_int("ValidateOnly", 1);
        }
    }

    fn streams(&self, node: &mut StructNode, topic: &str) {
        node.set_int("RebalanceTimeoutMs", 1_000_000);
        node.set_text("ProcessId", Some("process"));
        for tasks in ["ActiveTasks", "StandbyTasks", "WarmupTasks"] {
            node.set(tasks, Node::Structs(Some(Vec::new())));
        }
        let mut topology = node.element("Topology");
        topology.set_int("Epoch", 1);
        let mut part = topology.element("Subtopologies");
        part.set_text("SubtopologyId", Some("0"));
        part.array_mut("SourceTopics").push(text(topic));
        topology.structs_mut("Subtopologies").push(part);
        node.set("Topology", Node::Struct(Some(Box::new(topology))));
    }
}

/// What is special about a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// The transactional bit.
    Transactional,
    /// The control bit.
    Control,
}

/// When records of the tests are made, in milliseconds.
pub const TIME: i64 = 1_700_000_000_000;

/// A batch of one record without a key.
pub fn batch(value: &str, kind: Kind) -> Bytes {
    let mut record = vec![0u8, 0, 0, 1]; // attributes, timestamp and offset delta, no key
    record.push(u8::try_from(value.len() * 2).unwrap());
    record.extend_from_slice(value.as_bytes());
    record.push(0); // no headers
    let mut tail = BytesMut::new();
    tail.put_i16(match kind {
        Kind::Plain => 0,
        Kind::Transactional => 0x10,
        Kind::Control => 0x20,
    });
    tail.put_i32(0); // last offset delta
    tail.put_i64(TIME);
    tail.put_i64(TIME);
    let producer = if kind == Kind::Plain { -1 } else { 1 };
    tail.put_i64(producer);
    tail.put_i16(producer.min(0) as i16);
    tail.put_i32(producer.min(0) as i32);
    tail.put_i32(1);
    tail.put_u8(u8::try_from(record.len() * 2).unwrap());
    tail.put_slice(&record);
    let mut out = BytesMut::new();
    out.put_i64(0);
    out.put_i32(4 + 1 + 4 + tail.len() as i32);
    out.put_i32(-1);
    out.put_u8(2);
    out.put_u32(crc32c::crc32c(&tail));
    out.put_slice(&tail);
    out.freeze()
}
