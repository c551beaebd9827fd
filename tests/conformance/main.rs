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

mod requests;
mod rules;
mod stage;

use compare::{comparable, differences};
use kordon::wire::tree::{Node, StructNode};
use lab::dice::{self, Dice};
use lab::part;
use requests::Case;
use rules::Rule;
use socket::{CLIENT_ID, Seen, Socket, encode, frame, read};
use stage::{SIDES, Side, Stage};
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::Instant;
use tally::Tally;

/// Requests of a run.
const REQUESTS: u64 = 20_000;
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
        }
    }

    fn requests(mut self, wanted: usize, tally: &mut Tally) {
        let from = Instant::now();
        let mut sets = 0;
        for counter in 0..wanted {
            if counter % ROUND == 0 {
                sets += 1;
                if let Err(why) = self.round(counter, tally) {
                    tally.fail("round", format!("{why}\n{}", self.stage.logs()));
                    break;
                }
            }
            let case = requests::random(&mut self.dice, counter, &self.joined);
            if let Err(why) = self.one(&case, tally) {
                tally.fail("side effect", format!("{}: {why}", case.label()));
                break;
            }
            if tally.failed() > FAILURES_MAX {
                println!("conformance: gave up after request {counter}");
                break;
            }
        }
        self.held(tally);
        let alive = self.stage.kordon.runs();
        tally.check("process", alive, || self.stage.kordon.log(40));
        let (all, fine) = self
            .asked
            .values()
            .fold((0, 0), |(a, f), (n, ok)| (a + n, f + ok));
        println!(
            "conformance: {all} requests to {} APIs under {sets} sets of rules in {} s, {fine} \
             answered without an error",
            self.asked.len(),
            from.elapsed().as_secs()
        );
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

    fn one(&mut self, case: &Case, tally: &mut Tally) -> Result<(), String> {
        let (key, version) = (case.api.key, case.version);
        let sent = SIDES.map(|side| {
            let body = encode(key, version, &case.request(&self.stage, side));
            let at = (side, case.user, case.host);
            let stage = &self.stage;
            let socket = self.connections.entry(at);
            let socket = socket.or_insert_with(|| stage.connect(side, case.user, case.host));
            let id = socket.correlation();
            socket.send(&frame(key, version, id, CLIENT_ID, &body));
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
            [Seen::Answer(a), Seen::Answer(b)] => (a, b),
            [a, b] => {
                // What one of them did is not known: whoever asks next starts anew.
                self.connections.retain(|at, _| !sent.contains(at));
                let what = format!("{}: broker {a:?}, kordon {b:?}", case.label());
                tally.fail(&format!("{} outcome", case.api.name), what);
                return Ok(());
            }
        };
        let (a, b) = match (read(key, version, a), read(key, version, b)) {
            (Ok((_, a)), Ok((_, b))) => (untimed(a), untimed(b)),
            (a, b) => {
                tally.fail("unreadable", format!("{}: {a:?} {b:?}", case.label()));
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
        let missing = case
            .topics()
            .iter()
            .any(|t| !self.stage.topics.contains_key(t));
        let mut words = case.words.clone();
        words.extend(missing.then_some("missing"));
        let mut fine = true;
        for found in differences(&broker, &kordon) {
            match accepted::excuse(key, &words, &found) {
                Some(why) => tally.accept(&format!("{}: {why}", case.api.name)),
                None => {
                    fine = false;
                    let kind = format!("{} {}", case.api.name, found.path);
                    let rules = rules::show(&self.rules, case.user);
                    let (label, a, b) = (case.label(), found.broker, found.kordon);
                    let what = format!("{label}: broker {a}, kordon {b}; rules: {rules}");
                    tally.fail(&kind, what);
                }
            }
        }
        if fine {
            tally.pass();
        }
        self.effects(case, &a)
    }

    /// An assignment without topics that are gone: a coordinator takes them out a moment later.
    fn settled(&self, side: Side, mut answer: StructNode) -> StructNode {
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
            19 if asked.int("validateOnly") == 0 => {
                for topic in answer.structs("Topics") {
                    if topic.int("ErrorCode") == 0 {
                        let name = topic.text("Name").unwrap_or_default();
                        stage.topics.insert(name.to_owned(), 1);
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
                        stage.topics.insert(name.to_owned(), 2);
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

/// A Fetch answer without the times at which the broker itself wrote transaction markers.
fn untimed(mut answer: StructNode) -> StructNode {
    if !answer.has("Responses") {
        return answer;
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
