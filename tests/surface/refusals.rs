//! The differential of refusals: the same requests of users with different permissions go to a
//! broker that asks Kafka's own authorizer and through Kordon, and the answers are compared.
//! Every client API in every version, for each user of the stage, naming what is allowed, what
//! is forbidden and exists, and what is forbidden and does not exist.

use crate::body::{self, Names};
use crate::compare::{Difference, comparable, differences};
use crate::socket::{Seen, Socket, encode, frame, read};
use crate::stage::{SIDES, Side, Stage, USERS};
use crate::tally::Tally;
use kordon::apis::{self, Api, Phase};
use kordon::wire::layout::{Field, Role, Struct};
use std::collections::HashMap;

/// One way of asking: a word for reports, and what is named.
struct Variant {
    word: &'static str,
    names: Names,
}

/// Where Kordon answers otherwise than a broker with the same rules.
struct Accepted {
    key: i16,
    /// The ways of asking; empty: all.
    words: &'static [&'static str],
    /// The path of the field, or its beginning.
    path: &'static str,
    /// What the broker and Kordon say there; empty: anything.
    values: (&'static str, &'static str),
    why: &'static str,
}

const fn row(
    key: i16,
    words: &'static [&'static str],
    path: &'static str,
    values: (&'static str, &'static str),
    why: &'static str,
) -> Accepted {
    Accepted {
        key,
        words,
        path,
        values,
        why,
    }
}

const ACLS: &str = "the broker behind has no authorizer; ACLs are Kordon's policy files";
const TOKENS: &str = "a delegation token would carry the proxy's power: 61 (threat 40)";

const CONTROL: &str = "control batches are refused before the broker is asked (threat 22)";
const ID_TOLD: &str = "a broker tells the id of a topic that may not be read";
const SHARE_FETCH: &str = "a broker fails with -1 on an unknown topic id; here it answers 100";
const ADDRESSES: &str = "settings that hold the brokers' addresses are hidden";
const SHARE: &str = "coordinators of share groups' state are looked up by brokers alone";
const NOT_LOOKED_UP: &str = "whether a topic exists is not looked up for what is refused anyway";

/// The deliberate differences.
const ACCEPTED: &[Accepted] = &[
    row(29, &[], "ErrorCode", ("0", "54"), ACLS),
    row(29, &[], "Resources", ("", "[]"), ACLS),
    row(30, &[], "Results.ErrorCode", ("0", "54"), ACLS),
    row(31, &[], "FilterResults.ErrorCode", ("0", "54"), ACLS),
    row(31, &[], "FilterResults.MatchingAcls", ("", "[]"), ACLS),
    row(38, &[], "", ("", ""), TOKENS),
    row(39, &[], "", ("", ""), TOKENS),
    row(40, &[], "", ("", ""), TOKENS),
    row(41, &[], "", ("", ""), TOKENS),
    row(0, &["control"], "", ("", ""), CONTROL),
    row(10, &["kind"], "Coordinators.ErrorCode", ("0", "31"), SHARE),
    row(10, &["kind"], "Coordinators.Host", ("", "\"\""), SHARE),
    row(10, &["kind"], "Coordinators.NodeId", ("1", "-1"), SHARE),
    row(10, &["kind"], "Coordinators.Port", ("", "-1"), SHARE),
    row(
        24,
        &[],
        "ResultsByTopicV3AndBelow",
        ("3", "55"),
        NOT_LOOKED_UP,
    ),
    row(20, &[], "Responses.ErrorCode", ("3", "29"), NOT_LOOKED_UP),
    row(91, &[], "Responses.TopicId", ("", ""), ID_TOLD),
    row(78, &["missing", "two", "every"], "", ("", ""), SHARE_FETCH),
    row(
        32,
        &["kind"],
        "Results.Configs.Value",
        ("", "null"),
        ADDRESSES,
    ),
    row(
        32,
        &["kind"],
        "Results.Configs.IsSensitive",
        ("0", "1"),
        ADDRESSES,
    ),
    row(
        32,
        &["kind"],
        "Results.Configs.Synonyms",
        ("", ""),
        ADDRESSES,
    ),
];

fn excuse(key: i16, word: &str, difference: &Difference) -> Option<&'static str> {
    let says = |expected: &str, got: &str| expected.is_empty() || expected == got;
    let found = ACCEPTED.iter().find(|row| {
        row.key == key
            && (row.words.is_empty() || row.words.contains(&word))
            && difference.path.starts_with(row.path)
            && says(row.values.0, &difference.broker)
            && says(row.values.1, &difference.kordon)
    });
    if let Some(row) = found {
        return Some(row.why);
    }
    // Broker texts print the request and the broker's own names; codes are what is compared.
    let texts = ["ErrorMessage", "AcknowledgeErrorMessage"];
    let last = difference.path.rsplit('.').next().unwrap_or_default();
    texts
        .contains(&last)
        .then_some("the text of an error message, which embeds the broker's print of the request")
}

/// Runs the differential.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    let mut cases = 0;
    let mut connections: HashMap<(Side, &str), Socket> = HashMap::new();
    // Every user meets the same state: by API, then version, then way of asking.
    for api in apis::table::TABLE
        .iter()
        .filter(|a| a.phase == Phase::Client)
    {
        for version in api.versions.min..=api.versions.max {
            for user in &USERS {
                for variant in variants(api, version, cases) {
                    cases += 1;
                    if api.key == 20 {
                        for side in SIDES {
                            stage.create(side, &["in.del", "out.del"]);
                        }
                    }
                    one(
                        stage,
                        tally,
                        api,
                        version,
                        user.name,
                        &variant,
                        &mut connections,
                    );
                }
            }
        }
    }
    println!(
        "surface: {cases} requests of {} users on each side",
        USERS.len()
    );
}

fn names(topics: &[&str], group: &str, transaction: &str, case: usize) -> Names {
    Names {
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        groups: vec![format!("{group}{case}")],
        transactions: vec![format!("{transaction}{case}")],
        ..Names::default()
    }
}

const EVERY: [&str; 4] = ["in.orders", "out.orders", "in.missing", "out.missing"];

fn variants(api: &Api, version: i16, case: usize) -> Vec<Variant> {
    let request = &api.layout().unwrap().request.body;
    let key = api.key;
    let topics = has(request, Role::TopicName, version) || has(request, Role::TopicId, version);
    let groups = has(request, Role::GroupId, version) || key == 10;
    let transactions = has(request, Role::TransactionalId, version) || key == 10;
    let mut found = Vec::new();
    let mut add = |word, names| found.push(Variant { word, names });
    let mut every = names(&EVERY, "in.g", "in.t", case);
    if key == 20 {
        every.topics = ["in.del", "out.del", "in.missing", "out.missing"]
            .map(str::to_owned)
            .to_vec();
    }
    if key == 19 {
        every.topics = vec![format!("in.new{case}"), format!("out.new{case}")];
        add("existing", names(&EVERY[..2], "in.g", "in.t", case));
    }
    if list_of_groups(key) {
        let fresh = [format!("in.g{case}"), format!("out.g{case}")];
        every.groups = ["in.group", "out.group"].map(str::to_owned).to_vec();
        every.groups.extend(fresh);
    }
    if list_of_transactions(key) {
        let fresh = [format!("in.t{case}"), format!("out.t{case}")];
        every.transactions = vec!["in.warm".to_owned()];
        every.transactions.extend(fresh);
    }
    if topics && key != 19 && key != 20 {
        for (word, topic) in [("in", "in.orders"), ("out", "out.orders")] {
            add(word, names(&[topic], "in.g", "in.t", case));
        }
        add("missing", names(&["out.missing"], "in.g", "in.t", case));
        add(
            "two",
            names(&["in.orders", "in.missing"], "in.g", "in.t", case),
        );
    }
    if groups {
        add("group", names(&["in.orders"], "out.g", "in.t", case));
    }
    if transactions {
        add("transaction", names(&["in.orders"], "in.g", "out.t", case));
    }
    if matches!(key, 3 | 9 | 75 | 90 | 35 | 46 | 19) {
        add(
            "all",
            Names {
                all: true,
                ..every.clone()
            },
        );
    }
    let special: &[i64] = match key {
        0 => &[1, 2],
        10 => &[1, 2],
        22 => &[1],
        32 | 33 | 44 => &[4, 8, 16, 32, 77],
        _ => &[],
    };
    for kind in special {
        let word = match (key, kind) {
            (0, 2) => "control",
            _ => "kind",
        };
        add(
            word,
            Names {
                kind: *kind,
                ..every.clone()
            },
        );
        if key == 10 && *kind == 1 {
            let other = names(&[], "in.g", "out.t", case);
            add("kind out", Names { kind: 1, ..other });
        }
    }
    if (key == 3 && version >= 12) || (key == 20 && version >= 6) {
        add(
            "ids",
            Names {
                by_id: true,
                ..every.clone()
            },
        );
    }
    add("every", every);
    found
}

fn list_of_groups(key: i16) -> bool {
    matches!(key, 15 | 42 | 69 | 77 | 89 | 90) || key == 9 || key == 10
}

fn list_of_transactions(key: i16) -> bool {
    matches!(key, 65 | 10)
}

fn has(layout: &Struct, role: Role, version: i16) -> bool {
    let here = |f: &&Field| f.versions.contains(version);
    layout.fields.iter().filter(here).any(|f| {
        let inside = f.nested().is_some_and(|inner| has(inner, role, version));
        f.role == role || inside
    })
}

fn one<'u>(
    stage: &Stage,
    tally: &mut Tally,
    api: &Api,
    version: i16,
    user: &'u str,
    variant: &Variant,
    connections: &mut HashMap<(Side, &'u str), Socket>,
) {
    let key = api.key;
    let label = format!("{} {version} as {user}, {}", api.name, variant.word);
    let sent = SIDES.map(|side| {
        let request = body::request(stage, side, key, version, &variant.names);
        let socket = connections
            .entry((side, user))
            .or_insert_with(|| stage.connect(side, user));
        let id = socket.correlation();
        let bytes = encode(key, version, &request);
        socket.send(&frame(key, version, id, crate::socket::CLIENT_ID, &bytes));
        id
    });
    let mut side = SIDES.iter();
    let seen = sent.map(|_| {
        let at = (*side.next().unwrap(), user);
        let seen = connections.get_mut(&at).unwrap().receive();
        if !matches!(seen, Seen::Answer(_)) {
            connections.remove(&at);
        }
        seen
    });
    let (a, b) = match &seen {
        [Seen::Closed, Seen::Closed] => return tally.pass(),
        [Seen::Answer(a), Seen::Answer(b)] => (a, b),
        [a, b] => {
            let what = format!("{label}: broker {a:?}, kordon {b:?}");
            return tally.fail(&format!("{} outcome", api.name), what);
        }
    };
    let (a, b) = match (read(key, version, a), read(key, version, b)) {
        (Ok((_, a)), Ok((_, b))) => (a, b),
        (a, b) => return tally.fail("unreadable", format!("{label}: {a:?} {b:?}")),
    };
    let broker = comparable(stage, Side::Strict, key, version, &a);
    let kordon = comparable(stage, Side::Kordon, key, version, &b);
    let mut fine = true;
    for found in differences(&broker, &kordon) {
        match excuse(key, variant.word, &found) {
            Some(why) => tally.accept(&format!("{}: {why}", api.name)),
            None => {
                fine = false;
                let kind = format!("{} {}", api.name, found.path);
                let what = format!("{label}: broker {}, kordon {}", found.broker, found.kordon);
                tally.fail(&kind, what);
            }
        }
    }
    if fine {
        tally.pass();
    }
}
