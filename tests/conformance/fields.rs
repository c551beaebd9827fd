//! Random changes of a request's fields: what the layout says there is, set to values that a client
//! may send and the generator of names does not. The same seed makes the same change on both
//! sides; only the ids of topics are each side's own.

use crate::asks::text;
use crate::lab::dice::Dice;
use crate::requests::{GROUPS, OTHERS, TOPICS, TRANSACTIONS};
use crate::sensible;
use crate::stage::{Side, Stage};
use bytes::Bytes;
use kordon::wire::layout::{Field, Role, Struct, Type};
use kordon::wire::tree::{Node, StructNode};

/// Changes of one request that are not made by hand, at most.
const CHANGES_MAX: usize = 3;
/// Stands for every API in the table below.
const EVERY: i16 = -1;

const DIFFERS: &str = "stands in the table of deliberate differences";
const CHANCE: &str = "whether the controller is in time is chance";
const REBALANCE: &str = "a member that does not do its part is gone a moment later";
const RULES: &str = "both sides' rules stay those of the test";
const OFTEN: &str = "how often an instance may come is a question of time";
const VOTER: &str = "a controller does not survive every voter that could be";
const QUOTA: &str = "a quota would hold up everybody";

/// Fields that keep the value they have: (key, field, why).
const KEPT: [(i16, &str, &str); 35] = [
    (EVERY, "ReplicaId", DIFFERS),
    (EVERY, "ReplicaState", DIFFERS),
    (68, "SubscribedTopicRegex", DIFFERS),
    (88, "SourceTopicRegex", DIFFERS),
    (88, "StateChangelogTopics", DIFFERS),
    (88, "RepartitionSourceTopics", DIFFERS),
    (
        8,
        "RetentionTimeMs",
        "brokers look for expired offsets at moments of their own",
    ),
    (
        1,
        "IsolationLevel",
        "a broker fails on a level that there is not",
    ),
    (
        2,
        "IsolationLevel",
        "a broker fails on a level that there is not",
    ),
    (
        11,
        "Metadata",
        "a coordinator that cannot read it never answers",
    ),
    (11, "RebalanceTimeoutMs", REBALANCE),
    (68, "RebalanceTimeoutMs", REBALANCE),
    (88, "RebalanceTimeoutMs", REBALANCE),
    (19, "timeoutMs", CHANCE),
    (20, "TimeoutMs", CHANCE),
    (37, "TimeoutMs", CHANCE),
    (43, "TimeoutMs", CHANCE),
    (45, "TimeoutMs", CHANCE),
    (46, "TimeoutMs", CHANCE),
    (57, "timeoutMs", CHANCE),
    (80, "TimeoutMs", CHANCE),
    (80, "Listeners", VOTER),
    (80, "VoterDirectoryId", VOTER),
    (71, "ClientInstanceId", OFTEN),
    (72, "ClientInstanceId", OFTEN),
    (
        90,
        "Partitions",
        "of one that there is not a coordinator never answers",
    ),
    (57, "Feature", "no test survives another feature level"),
    (
        27,
        "Name",
        "markers carry the time of writing: only of a topic that is not there",
    ),
    (30, "ResourceName", RULES),
    (30, "Principal", RULES),
    (31, "PrincipalFilter", RULES),
    (34, "Path", "the folders of the brokers are their own"),
    (49, "EntityName", QUOTA),
    (49, "EntityType", QUOTA),
    (0, "Records", "what records may be is tested elsewhere"),
];

/// Where a field is: the way down, each step a field and an element of it, and the field itself.
struct Site {
    way: Vec<(usize, usize)>,
    field: usize,
}

/// Changes the request as the seed says, and tells what it did.
pub fn change(
    seed: u64,
    (key, version): (i16, i16),
    (stage, side): (&Stage, Side),
    node: &mut StructNode,
) -> Vec<String> {
    let mut changer = Changer {
        dice: Dice(seed),
        key,
        version,
        stage,
        side,
    };
    let mut done = Vec::new();
    if changer.dice.once_in(2) && sensible::change(&mut changer.dice, key, version, node) {
        done.push("by hand".to_owned());
    }
    if done.is_empty() || changer.dice.once_in(3) {
        for _ in 0..=changer.dice.below(CHANGES_MAX) {
            done.extend(changer.one(node));
        }
    }
    sensible::bound(key, version, node);
    once(node, version);
    done
}

struct Changer<'a> {
    dice: Dice,
    key: i16,
    version: i16,
    stage: &'a Stage,
    side: Side,
}

impl Changer<'_> {
    /// One change somewhere, in words.
    fn one(&mut self, node: &mut StructNode) -> Option<String> {
        let mut sites = Vec::new();
        self.sites(node, &mut Vec::new(), &mut sites);
        if sites.is_empty() {
            return None;
        }
        let site = &sites[self.dice.below(sites.len())];
        let mut node = node;
        for (field, element) in &site.way {
            node = match node.at_mut(*field).unwrap() {
                Node::Structs(Some(elements)) => &mut elements[*element],
                Node::Struct(Some(nested)) => nested,
                _ => unreachable!(),
            };
        }
        let field = &node.layout().fields[site.field];
        let value = self.value(field, node.at(site.field).unwrap());
        let shown = match &value {
            Node::Structs(Some(nodes)) => format!("{} elements", nodes.len()),
            other => format!("{other:?}").chars().take(60).collect(),
        };
        *node.at_mut(site.field).unwrap() = value;
        Some(format!("{} = {shown}", field.name))
    }

    fn sites(&self, node: &StructNode, way: &mut Vec<(usize, usize)>, out: &mut Vec<Site>) {
        for (index, field) in node.layout().fields.iter().enumerate() {
            let kept = |(key, name, _): &(i16, &str, &str)| {
                (*key == EVERY || *key == self.key) && **name == *field.name
            };
            if !field.versions.contains(self.version) || KEPT.iter().any(kept) {
                continue;
            }
            out.push(Site {
                way: way.clone(),
                field: index,
            });
            let below = match node.at(index) {
                Some(Node::Structs(Some(elements))) => elements.as_slice(),
                Some(Node::Struct(Some(nested))) => std::slice::from_ref(&**nested),
                _ => &[],
            };
            for (element, nested) in below.iter().enumerate() {
                way.push((index, element));
                self.sites(nested, way, out);
                way.pop();
            }
        }
    }

    fn value(&mut self, field: &'static Field, now: &Node) -> Node {
        let null = field.nullable.contains(self.version) && self.dice.once_in(3);
        match &field.kind {
            Type::Bool => Node::Int(i64::from(*now == Node::Int(0))),
            Type::Int8 => self.number(now, i8::MIN.into(), i8::MAX.into()),
            Type::Int16 => self.number(now, i16::MIN.into(), i16::MAX.into()),
            Type::Uint16 => self.number(now, 0, u16::MAX.into()),
            Type::Int32 => self.number(now, i32::MIN.into(), i32::MAX.into()),
            Type::Uint32 => self.number(now, 0, u32::MAX.into()),
            Type::Int64 => self.number(now, i64::MIN, i64::MAX),
            Type::Float64 => Node::Float(*self.dice.pick(&[-1.0, 0.0, 0.5, 1024.0, 1e9])),
            Type::Uuid => self.uuid(field),
            Type::String if null => Node::Bytes(None),
            Type::String => self.word(field),
            Type::Bytes if null => Node::Bytes(None),
            Type::Bytes => {
                let bytes = *self.dice.pick(&["", "\0", "some bytes"]);
                Node::Bytes(Some(Bytes::from_static(bytes.as_bytes())))
            }
            Type::Records => Node::Bytes(None),
            Type::Struct(_) if null => Node::Struct(None),
            Type::Struct(nested) => Node::Struct(Some(Box::new(StructNode::new(nested)))),
            Type::Array(element) => match &**element {
                Type::Struct(_) if null => Node::Structs(None),
                Type::Struct(nested) => self.structs(nested, now),
                _ if null => Node::Array(None),
                element => self.scalars(field, element, now),
            },
        }
    }

    fn number(&mut self, now: &Node, min: i64, max: i64) -> Node {
        let now = match now {
            Node::Int(now) => *now,
            _ => 0,
        };
        let near = now.saturating_sub(1);
        let choice = [-2, -1, 0, 1, 2, 3, 7, 100, near, now.saturating_add(1)];
        Node::Int((*self.dice.pick(&choice)).clamp(min, max))
    }

    fn uuid(&mut self, field: &Field) -> Node {
        let topic = self.topic();
        match field.role {
            Role::TopicId if !self.dice.once_in(4) => Node::Uuid(self.stage.id(self.side, topic)),
            // A broker fails on the answer about a topic of no id.
            Role::TopicId if self.key == 1 => Node::Uuid(*b"in.an id of ours"),
            _ => Node::Uuid(*self.dice.pick(&[[0; 16], *b"in.an id of ours"])),
        }
    }

    fn topic(&mut self) -> &'static str {
        match self.dice.once_in(3) {
            true => self.dice.pick::<&str>(&OTHERS),
            false => self.dice.pick::<&str>(&TOPICS),
        }
    }

    fn word(&mut self, field: &Field) -> Node {
        if self.dice.once_in(4) {
            return text("");
        }
        let words: &[&str] = match (field.role, &*field.name) {
            (Role::TopicName, _) => return text(self.topic()),
            // Whoever joins a group that has members waits for them.
            (Role::GroupId, _) if matches!(self.key, 11 | 68 | 76 | 78 | 79 | 88) => &[""],
            (Role::GroupId, _) => &GROUPS,
            (Role::TransactionalId, _) => &TRANSACTIONS,
            (Role::MemberId, _) => &["AAAAAAAAAAAAAAAAAAAAAg", "member", "BBBB"],
            (Role::ResourceName, _) => &["in.orders", "out.orders", "in.group", "1", "2", "*"],
            (_, "GroupInstanceId" | "InstanceId") => &["instance"],
            (_, "ProtocolType") => &["consumer", "connect"],
            (_, "ProtocolName") => &["range", "other"],
            (_, "ServerAssignor") => &["uniform", "range", "nothing"],
            (_, "Value") => &["1", "-1", "x", "compact", "INFO"],
            _ => &["x", "a b", "ü", "consumer", "User:ann", "127.0.0.1"],
        };
        text(self.dice.pick::<&str>(words))
    }

    fn scalars(&mut self, field: &Field, element: &Type, now: &Node) -> Node {
        if self.dice.once_in(3) {
            return Node::Array(Some(Vec::new()));
        }
        let mut values = match now {
            Node::Array(Some(values)) => values.clone(),
            _ => Vec::new(),
        };
        if !values.is_empty() && self.dice.once_in(2) {
            values.remove(self.dice.below(values.len()));
        }
        if values.len() < 4 {
            values.push(match element {
                Type::String => self.word(field),
                Type::Uuid => self.uuid(field),
                Type::Int8 => self.number(&Node::Int(2), i8::MIN.into(), i8::MAX.into()),
                Type::Int16 => self.number(&Node::Int(0), i16::MIN.into(), i16::MAX.into()),
                _ => self.number(&Node::Int(0), i32::MIN.into(), i32::MAX.into()),
            });
        }
        Node::Array(Some(values))
    }

    fn structs(&mut self, nested: &'static Struct, now: &Node) -> Node {
        let mut elements = match now {
            Node::Structs(Some(elements)) => elements.clone(),
            _ => Vec::new(),
        };
        match self.dice.below(4) {
            0 => elements.clear(),
            1 if !elements.is_empty() => {
                elements.remove(self.dice.below(elements.len()));
            }
            _ if elements.len() < 5 => {
                let copied = elements.first().cloned();
                let mut element = copied.unwrap_or_else(|| StructNode::new(nested));
                self.rename(&mut element);
                elements.push(element);
            }
            _ => {}
        }
        Node::Structs(Some(elements))
    }

    /// Makes a copied element one about something else.
    fn rename(&mut self, element: &mut StructNode) {
        let about = |f: &&Field| {
            let names = matches!(f.kind, Type::String | Type::Uuid);
            f.versions.contains(self.version) && (names || f.role == Role::Partition)
        };
        let fields = &element.layout().fields;
        let Some(field) = fields.iter().find(about) else {
            return;
        };
        let kept = KEPT
            .iter()
            .any(|(key, name, _)| *key == self.key && **name == *field.name);
        let at = element.layout().index(&field.name).unwrap();
        if !kept {
            let value = self.value(field, element.at(at).unwrap());
            *element.at_mut(at).unwrap() = value;
        }
    }
}

/// What a request should name once only: a broker answers twice, once or not at all for the rest.
fn once(node: &mut StructNode, version: i16) {
    const NAMES: [Role; 8] = [
        Role::TopicId,
        Role::TopicName,
        Role::GroupId,
        Role::TransactionalId,
        Role::Partition,
        Role::ResourceName,
        Role::UserName,
        Role::ProducerId,
    ];
    for index in 0..node.layout().fields.len() {
        let role = node.layout().fields[index].role;
        match node.at_mut(index) {
            Some(Node::Structs(Some(elements))) => {
                let mut seen: Vec<Option<Node>> = Vec::new();
                elements.retain_mut(|element| {
                    once(element, version);
                    let name = NAMES.iter().find_map(|role| {
                        let layout = element.layout();
                        let at = layout.fields.iter().position(|f| {
                            let is_one = !matches!(f.kind, Type::Array(_));
                            f.role == *role && is_one && f.versions.contains(version)
                        });
                        let name = element.at(at?)?;
                        (*name != Node::Uuid([0; 16]) && *name != Node::Bytes(None))
                            .then(|| name.clone())
                    });
                    // Where there are ids alone, the zero is one, too.
                    let id = element.layout().index("TopicId");
                    let name = name.or_else(|| element.at(id?).cloned());
                    let is_new = name.is_none() || !seen.contains(&name);
                    seen.push(name);
                    is_new
                });
            }
            Some(Node::Array(Some(values))) if NAMES.contains(&role) => {
                let mut seen: Vec<Node> = Vec::new();
                values.retain(|value| {
                    let is_new = !seen.contains(value);
                    seen.push(value.clone());
                    is_new
                });
            }
            _ => {}
        }
    }
}
