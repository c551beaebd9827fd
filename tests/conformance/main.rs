//! Random requests under random rules, to a broker with Kafka's own authorizer and through Kordon
//! to a broker without: every code, every filtered list and every side effect must agree, but for
//! the deliberate differences, which stand in a table with their reasons (`surface/accepted.rs`).
//!
//! `cargo test --test conformance -- --seed N` repeats a run, `--requests N` makes it longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lab/mod.rs"]
mod lab;

#[path = "../surface/accepted.rs"]
mod accepted;
#[allow(dead_code)]
#[path = "../surface/acl.rs"]
mod acl;
#[allow(dead_code)]
#[path = "../surface/asks.rs"]
mod asks;
#[allow(dead_code)]
#[path = "../surface/body.rs"]
mod body;
#[allow(dead_code)]
#[path = "../surface/compare.rs"]
mod compare;
#[path = "../surface/sides.rs"]
mod sides;
#[allow(dead_code)]
#[path = "../surface/socket.rs"]
mod socket;
#[allow(dead_code)]
#[path = "../surface/tally.rs"]
mod tally;

mod fields;
mod requests;
mod rules;
mod sensible;
mod stage;

use compare::{comparable, differences};
use kordon::wire::tree::{Node, StructNode};
use lab::dice::{self, Dice};
use lab::part;
use requests::Case;
use rules::Rule;
use socket::{CLIENT_ID, Seen, Socket, frame, read};
use stage::{SIDES, Side, Stage};
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::Instant;
use tally::Tally;

/// Requests of a run.
const REQUESTS: u64 = 20_000;
/// Kafka's `ConfigResource.Type` codes.
const TOPIC: i64 = 2;
/// See [`TOPIC`].
const BROKER: i64 = 4;
/// Kafka's code of a topic that is not there.
const UNKNOWN_TOPIC: i64 = 3;
/// Keys of what coordinators do with the topics that they know: new members get some, offsets of
/// share groups are told.
const BY_COORDINATORS: [i16; 4] = [68, 76, 88, 90];
/// After so many requests all of a broker knows which topics there are.
const MOVING: usize = 20;
/// ApiVersions in its first version, which has no body.
const PROBE: (i16, i16) = (18, 0);
/// Requests that are told where one brings everything to an end.
const LAST: usize = 4;
/// Requests under one set of rules.
const ROUND: usize = 250;
/// After so many failures the rest would say the same.
const FAILURES_MAX: usize = 200;

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--list") {
        println!("conformance: test");
        return ExitCode::SUCCESS;
    }
    let seed = dice::option("seed", "KORDON_CONFORMANCE_SEED").unwrap_or_else(dice::seed);
    let wanted = dice::option("requests", "KORDON_CONFORMANCE_REQUESTS").unwrap_or(REQUESTS);
    let mut tally = Tally::default();
    part::set_up();
    if let Err(reason) = part::ready("kafka-4.3.0") {
        tally.skip("everything", &reason);
        return tally.exit();
    }
    println!("conformance: seed {seed}");
    match Stage::start() {
        Ok(stage) => Run::new(stage, seed).requests(wanted as usize, &mut tally),
        Err(why) => tally.fail("set-up", why),
    }
    println!("conformance: seed {seed}");
    tally.exit()
}

struct Run {
    stage: Stage,
    dice: Dice,
    rules: Vec<Rule>,
    connections: HashMap<(Side, &'static str, &'static str), Socket>,
    /// Requests by key: how many, and how many were answered without any error.
    asked: BTreeMap<i16, (usize, usize)>,
    /// Groups that have members, by the key of the request that made them.
    joined: Vec<(i16, String)>,
    /// The last requests.
    last: Vec<Case>,
    /// The number of the request that changed topics last.
    moved: usize,
}

impl Run {
    fn new(stage: Stage, seed: u64) -> Run {
        Run {
            stage,
            dice: Dice(seed),
            rules: Vec::new(),
            connections: HashMap::new(),
            asked: BTreeMap::new(),
            joined: Vec::new(),
            last: Vec::new(),
            moved: 0,
        }
    }

    fn requests(mut self, wanted: usize, tally: &mut Tally) {
        let from = Instant::now();
        let mut sets = 0;
        let mut counter = 0;
        while self.count() < wanted {
            counter += 1;
            if counter % ROUND == 1 {
                sets += 1;
                if let Err(why) = self.round(counter, tally) {
                    tally.fail("round", format!("{why}\n{}", self.stage.logs()));
                    break;
                }
            }
            let case = requests::random(&mut self.dice, counter, &self.joined);
            // The coordinator learns of topics after everybody else, and until then says nothing
            // of what is gone.
            if BY_COORDINATORS.contains(&case.api.key) && counter < self.moved + MOVING {
                continue;
            }
            if let Err(why) = self.one(&case, counter, tally) {
                self.last.push(case);
                let before = self.last.iter().map(|case| case.label(&self.stage));
                let before = before.collect::<Vec<_>>().join("\n    after ");
                return tally.fail("side effect", format!("{before}: {why}"));
            }
            self.last.push(case);
            if self.last.len() > LAST {
                self.last.remove(0);
            }
            if tally.failed() > FAILURES_MAX {
                println!("conformance: gave up after request {counter}");
                break;
            }
        }
        self.held(tally);
        let alive = self.stage.kordon.runs();
        tally.check("process", alive, || self.stage.kordon.log(40));
        let fine: usize = self.asked.values().map(|(_, fine)| fine).sum();
        println!(
            "conformance: {} requests to {} APIs under {sets} sets of rules in {} s, {fine} \
             answered without an error",
            self.count(),
            self.asked.len(),
            from.elapsed().as_secs()
        );
    }

    /// How many requests were made.
    fn count(&self) -> usize {
        self.asked.values().map(|(asked, _)| asked).sum()
    }

    /// Compares what the last round left, and begins a new one.
    fn round(&mut self, counter: usize, tally: &mut Tally) -> Result<(), String> {
        self.held(tally);
        self.stage.restore()?;
        let names = requests::names(&mut self.dice, counter);
        self.rules = rules::random(&mut self.dice, &names);
        self.stage.apply(&self.rules)?;
        // Kordon ends the connections of those who have lost what they use, members of a group
        // among them: that is tested elsewhere, and here they come again.
        self.connections.retain(|_, socket| socket.is_open());
        Ok(())
    }

    /// Side effects: both brokers hold the same.
    fn held(&mut self, tally: &mut Tally) {
        let [strict, open] = SIDES.map(|side| self.stage.held(side));
        let only = |a: &[String], b: &[String]| -> Vec<String> {
            a.iter().filter(|line| !b.contains(line)).cloned().collect()
        };
        let (a, b) = (only(&strict, &open), only(&open, &strict));
        tally.check("side effects", a.is_empty() && b.is_empty(), || {
            format!("only the broker with ACLs: {a:?}; only the one behind Kordon: {b:?}")
        });
    }

    fn one(&mut self, case: &Case, counter: usize, tally: &mut Tally) -> Result<(), String> {
        let (key, version) = (case.api.key, case.version);
        let asked = case.request(&self.stage, Side::Strict);
        let unanswered = key == 0 && asked.int("Acks") == 0;
        for side in SIDES {
            if !self.connections.contains_key(&(side, case.user, case.host)) {
                self.stage.listens(side, case.user)?;
            }
        }
        let sent = SIDES.map(|side| {
            let body = case.body(&self.stage, side);
            let at = (side, case.user, case.host);
            let stage = &self.stage;
            let socket = self.connections.entry(at);
            let socket = socket.or_insert_with(|| stage.connect(side, case.user, case.host));
            let id = socket.correlation();
            socket.send(&frame(key, version, id, CLIENT_ID, &body));
            if unanswered {
                // Whether the connection goes on is all that there is to see.
                socket.ask(PROBE.0, PROBE.1, &[]);
            }
            at
        });
        let seen = sent.map(|at| {
            let seen = self.connections.get_mut(&at).unwrap().receive();
            if !matches!(seen, Seen::Answer(_)) {
                self.connections.remove(&at);
            }
            seen
        });
        self.asked.entry(key).or_default().0 += 1;
        let (a, b) = match &seen {
            [Seen::Closed, Seen::Closed] => {
                tally.pass();
                return Ok(());
            }
            [Seen::Answer(_), Seen::Answer(_)] if unanswered => {
                tally.pass();
                return Ok(());
            }
            [Seen::Answer(a), Seen::Answer(b)] => (a, b),
            [a, b] => {
                // What one of them did is not known: whoever asks next starts anew.
                self.connections.retain(|at, _| !sent.contains(at));
                let label = case.label(&self.stage);
                let what = format!("broker {a:?}, kordon {b:?}: {label}");
                tally.fail(&format!("{} outcome", case.api.name), what);
                return Ok(());
            }
        };
        let (a, b) = match (read(key, version, a), read(key, version, b)) {
            (Ok((_, a)), Ok((_, b))) => (untimed(a), untimed(b)),
            (a, b) => {
                tally.fail(
                    "unreadable",
                    format!("{}: {a:?} {b:?}", case.label(&self.stage)),
                );
                return Ok(());
            }
        };
        let (a, b) = (self.settled(Side::Strict, a), self.settled(Side::Kordon, b));
        let broker = comparable(&self.stage, Side::Strict, key, version, &a);
        let kordon = comparable(&self.stage, Side::Kordon, key, version, &b);
        if !error(&broker) {
            self.asked.entry(key).or_default().1 += 1;
            self.joined.extend(case.joins());
        }
        let words = self.words(case, &asked);
        let mut fine = true;
        for found in differences(&broker, &kordon) {
            match accepted::excuse(key, &words, &found) {
                Some(why) => tally.accept(&format!("{}: {why}", case.api.name)),
                None => {
                    fine = false;
                    let kind = format!("{} {}", case.api.name, found.path);
                    let rules = rules::show(&self.rules, case.user);
                    let (label, a, b) = (case.label(&self.stage), found.broker, found.kordon);
                    let what = format!("broker {a}, kordon {b}: {label}; rules: {rules}");
                    tally.fail(&kind, what);
                }
            }
        }
        if fine {
            tally.pass();
        }
        let creates = key == 3 && metadata_creates(version, &asked);
        if creates || matches!(key, 19 | 20 | 37) {
            self.moved = counter;
        }
        self.effects(case, &a)
    }

    /// What is special about a request, in the words of the table of accepted differences.
    fn words(&self, case: &Case, asked: &StructNode) -> Vec<&'static str> {
        let mut words = case.words.clone();
        let of_type = |fine: fn(i64) -> bool| {
            let mut resources = asked.structs("Resources").iter();
            resources.any(|resource| fine(resource.int("ResourceType")))
        };
        let is_kind = match case.api.key {
            10 => asked.int("KeyType") != 0,
            32 => of_type(|kind| kind != TOPIC),
            _ => false,
        };
        words.extend(is_kind.then_some("kind"));
        let is_broker = matches!(case.api.key, 33 | 44) && of_type(|kind| kind == BROKER);
        words.extend(is_broker.then_some("broker"));
        let is_missing = |t: &StructNode| {
            t.has("TopicId") && self.stage.topic(Side::Strict, &t.uuid("TopicId")).is_none()
        };
        let missing = asked.has("Topics") && asked.structs("Topics").iter().any(is_missing);
        words.extend(missing.then_some("missing"));
        words
    }

    /// An assignment without topics that are gone: a coordinator takes them out a moment later.
    fn settled(&self, side: Side, mut answer: StructNode) -> StructNode {
        if answer.has("Resources") {
            rules::without_own(answer.structs_mut("Resources"));
        }
        if answer.has("ApiKeys") {
            // A proxy has fewer than a broker: what it has is tested elsewhere.
            answer.structs_mut("ApiKeys").clear();
        }
        if answer.has("AcquisitionLockTimeoutMs") {
            // What may be read is being loaded, more of it on one side than on the other.
            for topic in answer.structs_mut("Responses") {
                topic
                    .structs_mut("Partitions")
                    .retain(|p| p.int("ErrorCode") > 0);
            }
        }
        if answer.has("Results") {
            for result in answer.structs_mut("Results") {
                if result.has("Configs") && result.int("ResourceType") == BROKER {
                    let configs = result.structs_mut("Configs");
                    configs.retain(|c| !stage::OWN.contains(&c.text("Name").unwrap_or_default()));
                }
            }
        }
        let assignment = match answer.has("Assignment") {
            true => answer.nested_mut("Assignment"),
            false => None,
        };
        if let Some(assignment) = assignment.filter(|a| a.has("TopicPartitions")) {
            let topics = assignment.structs_mut("TopicPartitions");
            topics.retain(|t| self.stage.topic(side, &t.uuid("TopicId")).is_some());
        }
        answer
    }

    /// What the strict broker says it did, both must have done.
    fn effects(&mut self, case: &Case, answer: &StructNode) -> Result<(), String> {
        let (key, stage) = (case.api.key, &mut self.stage);
        let asked = case.request(stage, Side::Strict);
        match key {
            3 if metadata_creates(case.version, &asked) => {
                let mut topics = answer.structs("Topics").iter();
                if !topics.any(|t| t.int("ErrorCode") == UNKNOWN_TOPIC) {
                    return Ok(());
                }
                for topic in answer.structs("Topics") {
                    let name = topic.text("Name").unwrap_or_default();
                    if topic.int("ErrorCode") == UNKNOWN_TOPIC {
                        stage.topics.insert(name.to_owned(), stage::PARTITIONS);
                    }
                }
            }
            19 if asked.int("validateOnly") == 0 => {
                for topic in answer.structs("Topics") {
                    let name = topic.text("Name").unwrap_or_default();
                    if topic.int("ErrorCode") == 0 {
                        let partitions = created(&asked, name);
                        stage.topics.insert(name.to_owned(), partitions);
                    }
                }
            }
            20 => {
                for topic in answer.structs("Responses") {
                    if topic.int("ErrorCode") == 0 {
                        let id = topic.uuid("TopicId");
                        let by_id = stage.topic(Side::Strict, &id).map(str::to_owned);
                        let name = topic.text("Name").map(str::to_owned).or(by_id);
                        stage.topics.remove(&name.unwrap_or_default());
                    }
                }
            }
            37 if asked.int("ValidateOnly") == 0 => {
                for result in answer.structs("Results") {
                    if result.int("ErrorCode") == 0 {
                        let name = result.text("Name").unwrap_or_default();
                        let mut topics = asked.structs("Topics").iter();
                        let topic = topics.find(|t| t.text("Name") == Some(name)).unwrap();
                        let partitions = topic.int("Count") as usize;
                        stage.topics.insert(name.to_owned(), partitions);
                    }
                }
            }
            // A transaction ends a moment after the answer.
            26 if answer.int("ErrorCode") == 0 => return stage.until_ended(),
            _ => return Ok(()),
        }
        stage.settle()
    }
}

/// Whether topics that are not there are made because a Metadata request names them.
fn metadata_creates(version: i16, asked: &StructNode) -> bool {
    !asked.is_null("Topics") && kordon::apis::asks_for_creation(version, asked)
}

/// How many partitions a request asks for.
fn created(asked: &StructNode, name: &str) -> usize {
    let mut topics = asked.structs("Topics").iter();
    let topic = topics.find(|t| t.text("Name") == Some(name)).unwrap();
    match (
        topic.structs("Assignments").len(),
        topic.int("NumPartitions"),
    ) {
        (0, -1) => stage::PARTITIONS,
        (0, count) => count as usize,
        (count, _) => count,
    }
}

/// A Fetch answer without the number of its session, and any without the times at which the broker
/// itself wrote transaction markers: later than those of all records of the test.
fn untimed(mut answer: StructNode) -> StructNode {
    if answer.has("Topics") {
        for topic in answer.structs_mut("Topics") {
            let partitions =
                match topic.has("Partitions") && topic.element("Partitions").has("Timestamp") {
                    true => topic.structs_mut("Partitions").as_mut_slice(),
                    false => &mut [],
                };
            for partition in partitions {
                let time = partition.int("Timestamp").min(body::TIME + 1);
                partition.set_int("Timestamp", time);
            }
        }
    }
    if answer.has("SessionId") && answer.int("SessionId") != 0 {
        answer.set_int("SessionId", 1); // made up by the broker
    }
    if !answer.has("Responses") {
        return answer;
    }
    if answer.has("SessionId") {
        // A broker begins a topic anew where another stands between its partitions.
        let mut topics: Vec<StructNode> = Vec::new();
        for mut topic in std::mem::take(answer.structs_mut("Responses")) {
            let same = |t: &StructNode| {
                (t.text("Topic"), t.uuid("TopicId")) == (topic.text("Topic"), topic.uuid("TopicId"))
            };
            match topics.iter().position(same) {
                Some(at) => {
                    let partitions = std::mem::take(topic.structs_mut("Partitions"));
                    topics[at].structs_mut("Partitions").extend(partitions);
                }
                None => topics.push(topic),
            }
        }
        *answer.structs_mut("Responses") = topics;
    }
    for topic in answer.structs_mut("Responses") {
        if !topic.has("Partitions") {
            continue;
        }
        for partition in topic.structs_mut("Partitions") {
            let layout = partition.layout();
            let index = layout.fields.iter().position(|f| *f.name == *"Records");
            let Some(Node::Bytes(Some(records))) = index.and_then(|i| partition.at(i)) else {
                continue;
            };
            let mut records = records.to_vec();
            let mut at = 0;
            // Base offset, length, …: the layout of a batch.
            while let Some(head) = records.get(at..at + 61) {
                let length = i32::from_be_bytes(head[8..12].try_into().unwrap()) as usize + 12;
                let is_control = head[22] & 0x20 != 0;
                if is_control {
                    records[at + 17..at + 21].fill(0); // checksum
                    records[at + 27..at + 43].fill(0); // times
                }
                at += length;
            }
            partition.set("Records", Node::Bytes(Some(records.into())));
        }
    }
    answer
}

/// Whether an answer holds an error code anywhere.
fn error(answer: &serde_json::Value) -> bool {
    use serde_json::Value;
    match answer {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name == "ErrorCode" && value.as_i64() != Some(0) || error(value)),
        Value::Array(items) => items.iter().any(error),
        _ => false,
    }
}
