//! Answers side by side: made comparable first (addresses, ids, order), then compared value by
//! value. Every rule that hides something says why.

use crate::stage::{Side, Stage};
use kordon::wire::layout::{Field, Role, Struct, Type};
use kordon::wire::tree::{Node, StructNode};
use serde_json::{Map, Value};

/// Fields that differ between two brokers with the same history: (key, field, why).
const MOVING: [(i16, &str, &str); 24] = [
    (3, "ControllerId", "a random live broker"),
    (11, "MemberId", "made up by the broker"),
    (11, "Leader", "a member id, made up by the broker"),
    (15, "MemberId", "made up by the broker"),
    (22, "ProducerId", "handed out in blocks by the controller"),
    (65, "ProducerId", "handed out in blocks by the controller"),
    (66, "ProducerId", "handed out in blocks by the controller"),
    (65, "TransactionStartTimeMs", "a time of the broker's"),
    (35, "LogDir", "a folder of the broker's"),
    (35, "TotalBytes", "the disk's"),
    (35, "UsableBytes", "the disk's"),
    (35, "PartitionSize", "the size of internal logs differs"),
    (35, "Topics", "which internal topics exist differs"),
    (55, "HighWatermark", "the metadata log moves"),
    (55, "LeaderEpoch", "elections at start"),
    (55, "LogEndOffset", "the metadata log moves"),
    (55, "LastFetchTimestamp", "a time of the broker's"),
    (55, "LastCaughtUpTimestamp", "a time of the broker's"),
    (55, "ReplicaDirectoryId", "made up when formatted"),
    (
        18,
        "FinalizedFeaturesEpoch",
        "an offset of the metadata log",
    ),
    (41, "Tokens", "tokens are not shown"),
    (61, "LastTimestamp", "a time of the broker's"),
    (71, "ClientInstanceId", "made up by the broker"),
    (71, "SubscriptionId", "made from the client's made-up id"),
];

/// An answer as a comparable value; arrays are sorted, since Kafka builds most of them from hash
/// maps and promises no order.
pub fn comparable(stage: &Stage, side: Side, key: i16, version: i16, node: &StructNode) -> Value {
    let reader = Reader {
        stage,
        side,
        key,
        version,
    };
    reader.fields(node, node.layout())
}

/// An answer as text, without its layout.
pub fn show(node: &StructNode) -> String {
    let fields = node.layout().fields.iter().enumerate();
    let values = fields.filter_map(|(index, field)| {
        let value = match node.at(index)? {
            Node::Structs(Some(nodes)) => {
                let inner: Vec<String> = nodes.iter().map(show).collect();
                format!("[{}]", inner.join(", "))
            }
            Node::Struct(Some(node)) => show(node),
            value => format!("{value:?}"),
        };
        Some(format!("{}: {value}", field.name))
    });
    format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
}

struct Reader<'a> {
    stage: &'a Stage,
    side: Side,
    key: i16,
    version: i16,
}

impl Reader<'_> {
    fn fields(&self, node: &StructNode, layout: &Struct) -> Value {
        let mut out = Map::new();
        for (index, field) in layout.fields.iter().enumerate() {
            if !field.versions.contains(self.version) {
                continue;
            }
            let moves = MOVING
                .iter()
                .any(|(key, name, _)| *key == self.key && **name == *field.name);
            if let Some(value) = node.at(index) {
                let value = match self.value(field, value) {
                    // What says "none" does not move.
                    value if moves && value != -1 && value != "" => Value::from("moves"),
                    value => value,
                };
                out.insert(field.name.to_string(), value);
            }
        }
        Value::Object(out)
    }

    fn value(&self, field: &Field, node: &Node) -> Value {
        match (field.role, node) {
            (Role::Host, Node::Bytes(Some(host))) if !host.is_empty() => return "HOST".into(),
            (Role::Port, Node::Int(1..)) => return "PORT".into(),
            (Role::ThrottleMs, _) => return 0.into(),
            (Role::TopicId, Node::Uuid(id)) if *id != [0; 16] => {
                return match self.stage.topic(self.side, id) {
                    Some(name) => format!("id of {name}").into(),
                    // Made up by the test, the same for both; otherwise by the broker.
                    None if id.starts_with(b"in.") || id.starts_with(b"out.") => {
                        format!("id {}", id.escape_ascii()).into()
                    }
                    None => "a new id".into(),
                };
            }
            _ => {}
        }
        match node {
            Node::Int(n) => (*n).into(),
            Node::Float(n) => (*n).into(),
            Node::Uuid(id) => id.escape_ascii().to_string().into(),
            Node::Bytes(None) | Node::Array(None) | Node::Structs(None) | Node::Struct(None) => {
                Value::Null
            }
            Node::Bytes(Some(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) if field.kind_is_text() => text.into(),
                _ => bytes.escape_ascii().to_string().into(),
            },
            Node::Packed(bytes) => format!("packed {}", bytes.escape_ascii()).into(),
            Node::Array(Some(nodes)) => sorted(nodes.iter().map(|n| self.value(field, n))),
            Node::Structs(Some(nodes)) => {
                let shown = nodes.iter().filter(|node| !self.is_loading(node));
                sorted(shown.map(|node| self.fields(node, node.layout())))
            }
            Node::Struct(Some(node)) => self.fields(node, node.layout()),
        }
    }
}

impl Reader<'_> {
    /// What ShareFetch says of a topic that may be read depends on how far the share partition
    /// has been loaded at that moment; of refused topics it does not.
    fn is_loading(&self, topic: &StructNode) -> bool {
        const SHARE_FETCH: i16 = 78;
        self.key == SHARE_FETCH && topic.has("Partitions") && {
            let partitions = topic.structs("Partitions");
            partitions.iter().all(|p| p.int("ErrorCode") <= 0)
        }
    }
}

trait Textual {
    fn kind_is_text(&self) -> bool;
}

impl Textual for Field {
    fn kind_is_text(&self) -> bool {
        match &self.kind {
            Type::String => true,
            Type::Array(element) => matches!(**element, Type::String),
            _ => false,
        }
    }
}

/// Fields that say what an element of an array is about.
const ABOUT: [&str; 10] = [
    "Name",
    "TopicName",
    "Topic",
    "TopicId",
    "PartitionIndex",
    "GroupId",
    "TransactionalId",
    "ResourceName",
    "MemberId",
    "Key",
];

fn sorted(values: impl Iterator<Item = Value>) -> Value {
    let mut values: Vec<Value> = values.collect();
    values.sort_by_cached_key(|value| {
        // What an element is about first, so that a difference inside shifts no neighbours.
        let about = ABOUT.map(|name| value.get(name).map(Value::to_string));
        (about, value.to_string())
    });
    Value::Array(values)
}

/// One place in which two answers differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Field names, joined by dots.
    pub path: String,
    /// What the broker said.
    pub broker: String,
    /// What Kordon said.
    pub kordon: String,
}

/// Where two comparable values differ.
pub fn differences(broker: &Value, kordon: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", broker, kordon, &mut found);
    found
}

fn walk(path: &str, broker: &Value, kordon: &Value, found: &mut Vec<Difference>) {
    match (broker, kordon) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                walk(&path, value, b.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                walk(path, a, b, found);
            }
        }
        (a, b) if a != b => found.push(Difference {
            path: path.to_owned(),
            broker: a.to_string(),
            kordon: b.to_string(),
        }),
        _ => {}
    }
}
