//! The differential of refusals: the same requests of users with different permissions go to a
//! broker that asks Kafka's own authorizer and through Kordon, and the answers are compared.
//! Every client API in every version, for each user of the stage, naming what is allowed, what
//! is forbidden and exists, and what is forbidden and does not exist.

use crate::accepted::excuse;
use crate::body::{self, Names};
use crate::compare::{comparable, differences};
use crate::socket::{Seen, Socket, encode, frame, read};
use crate::stage::{SIDES, Side, Stage, USERS};
use crate::tally::Tally;
use kordon::apis::{self, Api, Phase};
use kordon::wire::layout::Role;
use std::collections::HashMap;

/// One way of asking: a word for reports, and what is named.
struct Variant {
    word: &'static str,
    names: Names,
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
    let topics = body::names(request, Role::TopicName, version)
        || body::names(request, Role::TopicId, version);
    let groups = body::names(request, Role::GroupId, version) || key == 10;
    let transactions = body::names(request, Role::TransactionalId, version) || key == 10;
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
        match excuse(key, &[variant.word], &found) {
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
