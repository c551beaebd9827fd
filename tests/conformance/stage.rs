//! Two brokers with the same history, and Kordon before one of them.
//!
//! The strict one asks Kafka's own StandardAuthorizer about users who log in by SASL/PLAIN; the
//! open one lets everybody do everything, and before it stands Kordon with a listener for each
//! user. Rules are set on both sides anew again and again.

use crate::acl::{self, Acl, TOPIC};
use crate::asks::{creation, text, warm};
use crate::lab::kafka::{Kafka, authorizer, plain_listener};
use crate::lab::kordon::{Kordon, Ports, listener};
use crate::lab::{port, wait};
use crate::requests::{GROUPS, TOPICS, TRANSACTIONS};
use crate::rules::{ROOT, Rule, USERS, acls, policies};
use crate::sides::Ids;
pub use crate::sides::{SIDES, Side};
use crate::socket::{Socket, request};
use kordon::wire::tree::{Node, StructNode};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The version of Kafka on both sides.
const VERSION: &str = "4.3.0";
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// After that a group forgets no topic any more.
const STAYS_AFTER: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// A user of the test's own, by whom it sees which rules are in force.
const MARK: &str = "mark";
/// Partitions of a topic where nobody says how many, as the lab's brokers have it.
pub const PARTITIONS: usize = 3;
/// Settings in which the two brokers differ.
pub const OWN: [&str; 7] = [
    "listener.name.sasl.plain.sasl.jaas.config",
    "authorizer.class.name",
    "super.users",
    "listener.security.protocol.map",
    "sasl.enabled.mechanisms",
    "log.dirs",
    "log.dir",
];
/// Kafka's code of the operation Create.
const CREATE: i64 = 5;

/// The whole set-up.
pub struct Stage {
    strict: Kafka,
    open: Kafka,
    /// The proxy before it.
    pub kordon: Kordon,
    sasl: String,
    listeners: BTreeMap<&'static str, String>,
    ids: Ids,
    admins: HashMap<Side, Socket>,
    /// Asks the strict broker's controller whether the newest rules are in force there.
    mark: Socket,
    marks: usize,
    /// Topics that should exist, with their partitions.
    pub topics: BTreeMap<String, usize>,
    /// Topics whose offsets stay where the topics are gone.
    ghosts: BTreeSet<String>,
}

impl Stage {
    /// Starts everything and brings both brokers to the same state.
    pub fn start() -> Result<Stage, String> {
        let sasl_port = port::free("127.0.77.1", 1);
        let strict = Kafka::start(VERSION, 1, &strict_properties(sasl_port))?;
        let open = Kafka::start(VERSION, 1, SHARED)?;
        let ports: Vec<u16> = USERS.iter().map(|_| port::free("127.0.0.1", 2)).collect();
        let upstream = open.addrs();
        let config = |own: &Ports| config(own, &upstream[0], &ports);
        let first = policies(&[], 0);
        let kordon = Kordon::start("127.0.0.1", config, &[("policies/rules.yaml", &first)])?;
        let sasl = format!("127.0.77.1:{sasl_port}");
        let addrs = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let mut stage = Stage {
            admins: HashMap::from([
                (Side::Strict, Socket::open(&strict.bootstrap())),
                (Side::Kordon, Socket::open(&open.bootstrap())),
            ]),
            strict,
            open,
            kordon,
            mark: Socket::open_as(&sasl, MARK),
            sasl,
            listeners: USERS.into_iter().zip(addrs).collect(),
            ids: Ids::default(),
            marks: 0,
            topics: BTreeMap::new(),
            ghosts: BTreeSet::new(),
        };
        stage.restore()?;
        for admin in stage.admins.values_mut() {
            warm(admin, &GROUPS, &TOPICS, (TRANSACTIONS[0], 900_000))?;
        }
        Ok(stage)
    }

    /// A connection of `user` from an address.
    pub fn connect(&self, side: Side, user: &str, host: &str) -> Socket {
        match side {
            Side::Strict => Socket::open_from(&self.sasl, host).log_in(user),
            Side::Kordon => Socket::open_from(&self.listeners[user], host),
        }
    }

    /// Whether somebody still takes connections.
    pub fn listens(&self, side: Side, user: &str) -> Result<(), String> {
        let addr = match side {
            Side::Strict => &self.sasl,
            Side::Kordon => &self.listeners[user],
        };
        match std::net::TcpStream::connect(addr) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{addr}: {error}\n{}", self.logs())),
        }
    }

    /// A request of somebody who may do everything, past Kordon.
    pub fn ask(&mut self, side: Side, key: i16, version: i16, asked: &StructNode) -> StructNode {
        self.admins
            .get_mut(&side)
            .unwrap()
            .call(key, version, asked)
    }

    /// The id of a topic; a made-up one if it does not exist.
    pub fn id(&self, side: Side, topic: &str) -> [u8; 16] {
        self.ids.id(side, topic)
    }

    /// The topic with that id.
    pub fn topic(&self, side: Side, id: &[u8; 16]) -> Option<&str> {
        self.ids.topic(side, id)
    }

    /// Sets rules on both sides and waits until they are in force.
    pub fn apply(&mut self, rules: &[Rule]) -> Result<(), String> {
        self.marks += 1;
        self.apply_to_kordon(rules)?;
        let mut delete = request(31);
        let mut filter = delete.element("Filters");
        acl::any(&mut filter);
        delete.structs_mut("Filters").push(filter);
        self.ask(Side::Strict, 31, 3, &delete);
        let mut create = acls(rules);
        let name = format!("mark{}", self.marks);
        let mark = Acl {
            allow: true,
            user: MARK,
            host: "*",
            operation: CREATE,
            kind: TOPIC,
            prefixed: false,
            name: &name,
        };
        mark.add_to(&mut create);
        let answer = self.ask(Side::Strict, 30, 3, &create);
        if let Some(bad) = answer
            .structs("Results")
            .iter()
            .find(|r| r.int("ErrorCode") != 0)
        {
            return Err(format!("{bad:?}"));
        }
        // The broker's rules, then the controller's, which has its own copy.
        let describe = acl::every();
        until("the broker's ACLs", || {
            let answer = self.ask(Side::Strict, 29, 3, &describe);
            let marked = answer.structs("Resources").iter();
            acl::count(&answer) == rules.len() + 1
                && marked
                    .filter(|r| r.text("ResourceName") == Some(&name))
                    .count()
                    == 1
        })?;
        let mut validate = creation(&[&name]);
        validate.set_int("validateOnly", 1);
        until("the controller's ACLs", || {
            let answer = self.mark.call(19, 7, &validate);
            answer.structs("Topics")[0].int("ErrorCode") == 0
        })
    }

    fn apply_to_kordon(&mut self, rules: &[Rule]) -> Result<(), String> {
        let before = self.generation();
        // In one move: whoever watches the folder never sees half a file.
        let next = self.kordon.dir().join("next.yaml");
        std::fs::write(&next, policies(rules, self.marks)).unwrap();
        std::fs::rename(&next, self.kordon.dir().join("policies/rules.yaml")).unwrap();
        self.kordon.hang_up();
        until("Kordon's policies", || self.generation() > before)
            .map_err(|why| format!("{why}\n{}", self.kordon.log(20)))
    }

    fn generation(&self) -> f64 {
        self.kordon.metric("kordon_policy_generation ").unwrap()
    }

    /// Creates what is missing of the topics that every set of rules begins with.
    pub fn restore(&mut self) -> Result<(), String> {
        let known: Vec<&str> = TOPICS
            .into_iter()
            .filter(|t| !self.topics.contains_key(*t))
            .collect();
        if known.is_empty() {
            return Ok(());
        }
        for side in SIDES {
            let answer = self.ask(side, 19, 7, &creation(&known));
            for topic in answer.structs("Topics") {
                if topic.int("ErrorCode") != 0 {
                    return Err(format!("{side:?}: {topic:?}"));
                }
            }
        }
        self.topics
            .extend(known.into_iter().map(|t| (t.to_owned(), 1)));
        self.settle()
    }

    /// Waits until both brokers have the topics that should exist and lead their partitions.
    pub fn settle(&mut self) -> Result<(), String> {
        for side in SIDES {
            let want = self.topics.clone();
            let mut found = BTreeMap::new();
            until("topics", || {
                found = self.learn(side);
                found == want && self.leads(side)
            })
            .map_err(|why| format!("{side:?}: {why}: {want:?}, got {found:?}"))?;
        }
        self.forget()
    }

    /// Waits until the groups of both sides have forgotten topics that are gone, as they do a
    /// moment later. What a transaction commits when its topic has been made anew stays for good.
    fn forget(&mut self) -> Result<(), String> {
        let from = Instant::now();
        let mut left = [BTreeMap::new(), BTreeMap::new()];
        until("offsets", || {
            left = SIDES.map(|side| offsets(&self.ask(side, 9, 8, &offset_fetch())));
            for side in &mut left {
                side.retain(|(_, topic, _), _| {
                    let is_there = topic.starts_with("__") || self.topics.contains_key(topic);
                    !is_there && !self.ghosts.contains(topic)
                });
            }
            let stays = left[0] == left[1] && from.elapsed() > STAYS_AFTER;
            stays || left.iter().all(BTreeMap::is_empty)
        })
        .map_err(|why| format!("{why}: {left:?}"))?;
        let [strict, _] = left;
        self.ghosts
            .extend(strict.into_keys().map(|(_, topic, _)| topic));
        Ok(())
    }

    /// Waits until no transaction is ending on either side.
    pub fn until_ended(&mut self) -> Result<(), String> {
        let mut describe = request(65);
        let ids = describe.array_mut("TransactionalIds");
        ids.extend(TRANSACTIONS.iter().map(|id| text(id)));
        SIDES.iter().try_for_each(|side| {
            until("the end of a transaction", || {
                let answer = self.ask(*side, 65, 0, &describe);
                let mut states = answer.structs("TransactionStates").iter();
                let ending = |state: &StructNode| {
                    let word = state.text("TransactionState");
                    word.is_some_and(|w| w.starts_with("Prepare"))
                };
                !states.any(ending)
            })
        })
    }

    /// The topics of a side with their counts of partitions.
    fn learn(&mut self, side: Side) -> BTreeMap<String, usize> {
        let mut metadata = request(3);
        metadata.set("Topics", Node::Structs(None));
        metadata.set_int("AllowAutoTopicCreation", 0);
        let answer = self.ask(side, 3, 12, &metadata);
        let mut found = BTreeMap::new();
        let mut ids = HashMap::new();
        for topic in answer.structs("Topics") {
            let name = topic.text("Name").unwrap_or_default();
            if !name.starts_with("__") {
                found.insert(name.to_owned(), topic.structs("Partitions").len());
                ids.insert(name.to_owned(), topic.uuid("TopicId"));
            }
        }
        *self.ids.of(side) = ids;
        found
    }

    fn leads(&mut self, side: Side) -> bool {
        let latest = self.ends(side, -1);
        latest.values().all(|(code, _)| *code == 0)
    }

    /// Code and offset of each partition's end; `which`: -1 the last, -2 the first.
    pub fn ends(&mut self, side: Side, which: i64) -> BTreeMap<(String, i64), (i64, i64)> {
        let mut ask = request(2);
        ask.set_int("ReplicaId", -1);
        for (name, partitions) in self.topics.clone() {
            let mut topic = ask.element("Topics");
            topic.set_text("Name", Some(&name));
            for index in 0..partitions {
                let mut partition = topic.element("Partitions");
                partition
                    .set_int("PartitionIndex", index as i64)
                    .set_int("CurrentLeaderEpoch", -1)
                    .set_int("Timestamp", which);
                topic.structs_mut("Partitions").push(partition);
            }
            ask.structs_mut("Topics").push(topic);
        }
        let answer = self.ask(side, 2, 7, &ask);
        let mut found = BTreeMap::new();
        for topic in answer.structs("Topics") {
            let name = topic.text("Name").unwrap_or_default();
            for p in topic.structs("Partitions") {
                let end = (p.int("ErrorCode"), p.int("Offset"));
                found.insert((name.to_owned(), p.int("PartitionIndex")), end);
            }
        }
        found
    }

    /// What a side holds, in words: topics, ends, committed offsets, settings, groups.
    pub fn held(&mut self, side: Side) -> Vec<String> {
        let mut held: Vec<String> = Vec::new();
        held.extend(
            self.learn(side)
                .iter()
                .map(|(t, n)| format!("topic {t}: {n} partitions")),
        );
        for which in [-2, -1] {
            let ends = self.ends(side, which).into_iter();
            held.extend(ends.map(|(at, end)| format!("end {which} of {at:?}: {end:?}")));
        }
        let offsets = offsets(&self.ask(side, 9, 8, &offset_fetch()));
        held.extend(
            offsets
                .iter()
                .map(|(at, offset)| format!("committed {at:?}: {offset}")),
        );
        let mut describe = request(32);
        for name in self.topics.keys() {
            let mut resource = describe.element("Resources");
            resource
                .set_int("ResourceType", 2)
                .set_text("ResourceName", Some(name));
            resource.set("ConfigurationKeys", Node::Array(None));
            describe.structs_mut("Resources").push(resource);
        }
        for result in self.ask(side, 32, 4, &describe).structs("Results") {
            let name = result.text("ResourceName").unwrap_or_default();
            for config in result.structs("Configs") {
                // What somebody set on the topic itself.
                if config.int("ConfigSource") == 1 {
                    let (key, value) = (config.text("Name"), config.text("Value"));
                    held.push(format!("setting of {name}: {key:?} = {value:?}"));
                }
            }
        }
        for group in self.ask(side, 16, 5, &request(16)).structs("Groups") {
            let words = ["GroupId", "ProtocolType", "GroupState", "GroupType"];
            held.push(format!(
                "group {:?}",
                words.map(|w| group.text(w).unwrap_or_default())
            ));
        }
        held.sort();
        held
    }

    /// The ends of the brokers' logs, for a failure's message.
    pub fn logs(&self) -> String {
        format!("{}\n{}", self.strict.logs(15), self.open.logs(15))
    }
}

fn until(what: &str, mut fine: impl FnMut() -> bool) -> Result<(), String> {
    let found = wait::until(SETTLE_LIMIT, POLL, || fine().then_some(()));
    found.ok_or_else(|| format!("{what}: not so after {SETTLE_LIMIT:?}"))
}

/// All offsets of the groups that have some.
fn offset_fetch() -> StructNode {
    let mut fetch = request(9);
    for group in GROUPS {
        let mut element = fetch.element("Groups");
        element.set_text("GroupId", Some(group));
        element.set("Topics", Node::Structs(None));
        fetch.structs_mut("Groups").push(element);
    }
    fetch
}

fn offsets(answer: &StructNode) -> BTreeMap<(String, String, i64), i64> {
    let mut found = BTreeMap::new();
    for group in answer.structs("Groups") {
        for topic in group.structs("Topics") {
            for partition in topic.structs("Partitions") {
                let word = |node: &StructNode, name| node.text(name).unwrap_or_default().to_owned();
                let at = (word(group, "GroupId"), word(topic, "Name"));
                let index = partition.int("PartitionIndex");
                found.insert((at.0, at.1, index), partition.int("CommittedOffset"));
            }
        }
    }
    found
}

fn config(own: &Ports, upstream: &str, ports: &[u16]) -> String {
    let mut text = format!("upstream:\n  bootstrap: [\"{upstream}\"]\nlisteners:\n");
    // The first is where the lab looks for a sign of life.
    let lab = ("lab", own.app);
    let users = USERS.into_iter().zip(ports.iter().copied());
    for (user, port) in std::iter::once(lab).chain(users) {
        text += &listener(user, port, port + 1, user);
    }
    let admin = own.admin;
    let _ = write!(
        text,
        "policies: policies/
authorization: {{superUsers: [\"User:{ROOT}\"]}}
admin: {{bind: \"127.0.0.1:{admin}\"}}
"
    );
    text
}

/// What both brokers share beyond the lab's own properties.
/// Nobody's session ends during a run: the brokers would not end it at the same moment.
const SHARED: &str = "auto.create.topics.enable=true
group.max.session.timeout.ms=1800000
group.consumer.session.timeout.ms=1800000
group.consumer.max.session.timeout.ms=1800000
group.share.session.timeout.ms=1800000
group.share.max.session.timeout.ms=1800000
group.streams.session.timeout.ms=1800000
group.streams.max.session.timeout.ms=1800000
transaction.partition.verification.enable=true
";

fn strict_properties(sasl: u16) -> String {
    let names = USERS.into_iter().chain(std::iter::once(MARK));
    let plain = plain_listener(sasl, names.map(|name| (name, name)));
    format!("{SHARED}{plain}{}", authorizer(&[ROOT]))
}
