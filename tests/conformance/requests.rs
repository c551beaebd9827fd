//! Random requests: every client API in every version, by several users from several hosts, on
//! names that exist and names that do not.

use crate::body::{self, Names};
use crate::compare;
use crate::fields;
use crate::lab::dice::Dice;
use crate::rules::{HOSTS, USERS};
use crate::sensible;
use crate::socket::encode;
use crate::stage::{Side, Stage};
use kordon::apis::{self, Api, Phase};
use kordon::wire::tree::StructNode;
use std::fmt::Write as _;

/// Topics that exist at first and come back after each set of rules.
pub const TOPICS: [&str; 5] = ["in.orders", "in.order", "out.orders", "in.del", "out.del"];
/// Topics that exist only if a request creates them.
pub const OTHERS: [&str; 4] = ["in.orders2", "in.missing", "out.missing", "new"];
/// What nobody should call a topic.
const ODD: [&str; 5] = ["", "in.a b", "in.ü", "__consumer_offsets", "."];
/// Groups with committed offsets at first.
pub const GROUPS: [&str; 3] = ["in.group", "out.group", "in.g"];
/// Transactional ids, the first of a producer that has begun on both sides: its id is the zero
/// that requests carry where nothing else is said.
pub const TRANSACTIONS: [&str; 3] = ["in.warm", "out.t", "in.t"];
/// How far ahead rules know the names of groups that are used once.
const FRESH: usize = 400;

/// One request, before it has the ids of a side.
pub struct Case {
    /// The row.
    pub api: &'static Api,
    /// The version.
    pub version: i16,
    /// Who asks.
    pub user: &'static str,
    /// From where.
    pub host: &'static str,
    /// What is special about it, in the words of the table of accepted differences.
    pub words: Vec<&'static str>,
    /// Whether what could only be validated is done.
    pub real: bool,
    names: Names,
    /// From which its fields are changed; `None`: they are as the generator of names has them.
    seed: Option<u64>,
}

/// Names that rules are about.
pub fn names(dice: &mut Dice, counter: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for list in [&TOPICS[..], &OTHERS, &GROUPS, &TRANSACTIONS] {
        all.extend(list.iter().map(|n| (*n).to_owned()));
    }
    all.extend((0..6).map(|_| fresh(counter + dice.below(FRESH))));
    all
}

/// A name for what must not have been used before, such as a group that somebody joins.
fn fresh(counter: usize) -> String {
    let tree = if counter.is_multiple_of(3) {
        "out"
    } else {
        "in"
    };
    format!("{tree}.f{counter}")
}

/// A random request; `counter` is its number, `joined` are groups with members, by the key of
/// the request that joined.
pub fn random(dice: &mut Dice, counter: usize, joined: &[(i16, String)]) -> Case {
    let api = loop {
        let api = dice.pick(&apis::table::TABLE);
        // What only answers that tokens are off is the same for everybody.
        let tokens = (38..=41).contains(&api.key);
        if api.phase == Phase::Client && (!tokens || dice.once_in(10)) {
            break api;
        }
        if dice.once_in(50) {
            break apis::lookup(apis::API_VERSIONS).unwrap();
        }
        // What clients do most is asked most.
        if dice.once_in(2) {
            break apis::lookup(*dice.pick(&[0, 1, 2, 3, 8, 9, 10, 22, 32, 75])).unwrap();
        }
    };
    let key = api.key;
    let versions = api.versions.max - api.versions.min + 1;
    let version = api.versions.min + dice.below(versions as usize) as i16;
    let names = Names {
        topics: (0..=dice.below(4))
            .map(|_| match key {
                // Transaction markers carry the time of writing: no two brokers' are equal.
                27 => "nowhere".to_owned(),
                key => topic(dice, key),
            })
            .collect(),
        groups: groups(dice, key, counter, joined),
        transactions: transactions(dice, key, counter),
        all: matches!(key, 3 | 9 | 75 | 90 | 35 | 46 | 19) && dice.once_in(4),
        by_id: ((key == 3 && version >= 12) || (key == 20 && version >= 6)) && dice.once_in(2),
        kind: kind(dice, key),
        auto_create: false,
    };
    let mut topics = names.topics.clone();
    // Never the same twice: how often a broker then refuses it, if it answers at all, differs
    // from API to API.
    topics.sort();
    topics.dedup();
    let names = Names { topics, ..names };
    let mut words = Vec::new();
    if names.kind != 0 {
        words.push(if key == 0 && names.kind == 2 {
            "control"
        } else {
            "kind"
        });
    }
    Case {
        api,
        version,
        user: USERS[dice.below(USERS.len())],
        host: HOSTS[dice.below(HOSTS.len())],
        words,
        real: dice.once_in(2),
        names,
        seed: dice.once_in(3).then(|| dice.number()),
    }
}

fn topic(dice: &mut Dice, key: i16) -> String {
    // What the internal topics hold differs, and no broker survives their loss.
    let odd = dice.once_in(20) && !matches!(key, 1 | 2 | 20 | 21 | 23 | 33 | 37 | 44 | 61);
    (*match dice.below(3) {
        _ if odd => dice.pick(&ODD),
        0 => dice.pick(&OTHERS),
        _ => dice.pick(&TOPICS),
    })
    .to_owned()
}

/// The request that makes members of what the one with this key describes.
fn joins(key: i16) -> Option<i16> {
    match key {
        15 => Some(11),
        69 => Some(68),
        77 => Some(76),
        89 => Some(88),
        _ => None,
    }
}

fn groups(dice: &mut Dice, key: i16, counter: usize, joined: &[(i16, String)]) -> Vec<String> {
    // Who has joined a group makes others wait.
    if matches!(key, 11 | 68 | 76 | 78 | 79 | 88) {
        // But for members that come again under the new protocol.
        let again = joined.iter().filter(|(by, _)| key == 68 && *by == key);
        let again: Vec<&String> = again.map(|(_, group)| group).collect();
        return match again.is_empty() || dice.once_in(2) {
            true => vec![fresh(counter)],
            false => vec![(*dice.pick(&again)).clone()],
        };
    }
    let members = joined.iter().filter(|(by, _)| joins(key) == Some(*by));
    let members: Vec<&String> = members.map(|(_, group)| group).collect();
    if !members.is_empty() && dice.once_in(2) {
        return vec![(*dice.pick(&members)).clone()];
    }
    let mut groups: Vec<String> = (0..=dice.below(3))
        .map(|_| match dice.once_in(4) {
            true => fresh(counter),
            false => (*dice.pick(&GROUPS)).to_owned(),
        })
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

fn transactions(dice: &mut Dice, key: i16, counter: usize) -> Vec<String> {
    if key == 22 {
        return vec![fresh(counter)];
    }
    let mut ids: Vec<String> = (0..=dice.below(3))
        .map(|_| (*dice.pick(&TRANSACTIONS)).to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn kind(dice: &mut Dice, key: i16) -> i64 {
    let kinds: &[i64] = match key {
        0 => &[0, 0, 0, 0, 1, 2],
        10 => &[0, 0, 1, 1, 2],
        22 => &[0, 1],
        32 | 33 | 44 => &[0, 0, 0, 0, 4, 8, 16, 32, 77],
        _ => &[0],
    };
    *dice.pick(kinds)
}

/// A setting that changes nothing that a test sees otherwise.
pub const SETTING: &str = "flush.messages";

impl Case {
    /// The request as one side gets it.
    pub fn request(&self, stage: &Stage, side: Side) -> StructNode {
        self.changed(stage, side).0
    }

    /// The request, and what was changed in it.
    fn changed(&self, stage: &Stage, side: Side) -> (StructNode, Vec<String>) {
        let key = self.api.key;
        let mut node = body::request(stage, side, key, self.version, &self.names);
        match key {
            33 | 44 if self.names.kind == 0 && self.real => {
                node.set_int("ValidateOnly", 0);
                for resource in node.structs_mut("Resources") {
                    for config in resource.structs_mut("Configs") {
                        config.set_text("Name", Some(SETTING));
                    }
                }
            }
            37 if self.real => {
                node.set_int("ValidateOnly", 0);
            }
            21 if self.real => {
                for topic in node.structs_mut("Topics") {
                    for partition in topic.structs_mut("Partitions") {
                        partition.set_int("Offset", -1);
                    }
                }
            }
            3 => sensible::bound(key, self.version, &mut node),
            _ => {}
        }
        let done = self
            .seed
            .map(|seed| fields::change(seed, (key, self.version), (stage, side), &mut node));
        (node, done.unwrap_or_default())
    }

    /// The body, at times with a tagged field of a number that nobody knows.
    pub fn body(&self, stage: &Stage, side: Side) -> Vec<u8> {
        const UNKNOWN: [u8; 6] = [1, 0x88, 0x27, 2, 7, 7];
        let key = self.api.key;
        let mut body = encode(key, self.version, &self.request(stage, side)).to_vec();
        let tagged = self.seed.is_some_and(|seed| seed.is_multiple_of(8));
        // Fetch has tagged fields of its own there.
        if tagged && key != apis::FETCH && self.api.flexible(self.version) {
            body.pop();
            body.extend_from_slice(&UNKNOWN);
        }
        body
    }

    /// The group it may have joined, by its key.
    pub fn joins(&self) -> Option<(i16, String)> {
        let joins = matches!(self.api.key, 11 | 68 | 76 | 88);
        joins.then(|| (self.api.key, self.names.groups[0].clone()))
    }

    /// For reports.
    pub fn label(&self, stage: &Stage) -> String {
        let Case {
            api,
            version,
            user,
            host,
            names,
            real,
            ..
        } = self;
        let (name, key) = (api.name, api.key);
        let mut label = format!("{name} ({key}) {version} as {user} at {host}");
        if self.seed.is_some() {
            let (node, done) = self.changed(stage, Side::Strict);
            let _ = write!(label, ", {} in {}", done.join(", "), compare::show(&node));
        }
        let _ = write!(label, ", real {real}, {names:?}");
        label
    }
}
