//! Every API key at min−1, every version, and max+1, for who may do everything: answered or
//! closed as at a broker, and with the same answer.

use crate::body::{self, Names};
use crate::compare::{comparable, differences};
use crate::lab::relay::needles;
use crate::socket::{Seen, Socket, encode, frame, read};
use crate::stage::{SIDES, Side, Stage};
use crate::tally::Tally;
use kordon::apis::{self, Phase};
use kordon::wire::layout::Versions;

/// Keys beyond the table that must end the connection.
const UNKNOWN: [i16; 6] = [-1, 93, 94, 127, 10_000, 32_767];

/// Where Kordon does not do as a broker: key, versions, what, and why.
struct Accepted {
    key: i16,
    versions: (i16, i16),
    /// `close`: Kordon closes where the broker answers. Otherwise the path of a field, or a
    /// prefix of one; empty: the whole answer.
    what: &'static str,
    why: &'static str,
}

const fn row(key: i16, versions: (i16, i16), what: &'static str, why: &'static str) -> Accepted {
    Accepted {
        key,
        versions,
        what,
        why,
    }
}

const BROKERS: &str = "an API between brokers is closed to every client";
const ACLS: &str = "ACLs are policy files, which Kafka's API does not change";
const TOKENS: &str = "a delegation token would carry the proxy's power: 61 (threat 40)";
const ADDRESSES: &str = "settings that hold the brokers' addresses are hidden";

/// The deliberate differences.
const ACCEPTED: [Accepted; 14] = [
    row(
        24,
        (4, 5),
        "close",
        "AddPartitionsToTxn 4 and 5 are the brokers' own (KIP-890)",
    ),
    row(83, (0, 9), "close", BROKERS),
    row(84, (0, 9), "close", BROKERS),
    row(85, (0, 9), "close", BROKERS),
    row(86, (0, 9), "close", BROKERS),
    row(87, (0, 9), "close", BROKERS),
    row(30, (1, 3), "", ACLS),
    row(31, (1, 3), "", ACLS),
    row(38, (1, 3), "", TOKENS),
    row(39, (1, 2), "", TOKENS),
    row(40, (1, 2), "", TOKENS),
    row(41, (1, 3), "", TOKENS),
    row(32, (1, 4), "Results.Configs", ADDRESSES),
    row(
        18,
        (0, 4),
        "ApiKeys",
        "the two lists are compared exactly among the frames",
    ),
];

/// The row that excuses a difference.
fn excuse(key: i16, version: i16, what: &str) -> Option<&'static str> {
    let found = ACCEPTED.iter().find(|row| {
        let here = row.key == key && (row.versions.0..=row.versions.1).contains(&version);
        let closes = row.what == "close" || what == "close";
        here && match closes {
            true => row.what == what,
            false => what.starts_with(row.what),
        }
    });
    found.map(|row| row.why)
}

/// Runs the sweep.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    let needles = needles(&stage.hidden());
    let mut case = 0;
    for key in UNKNOWN {
        for version in [0, 1] {
            outcome_only(stage, tally, key, version);
        }
    }
    for api in &apis::table::TABLE {
        // What the layout knows, not the row: the row may say less, which must be excused.
        let Some(layout) = api.layout() else {
            for version in 0..3 {
                outcome_only(stage, tally, api.key, version);
            }
            continue;
        };
        let Versions { min, max } = layout.request.versions;
        for version in min - 1..=max + 1 {
            case += 1;
            let names = Names {
                topics: vec!["in.orders".into()],
                groups: vec![format!("in.g{case}")],
                transactions: vec![format!("in.t{case}")],
                ..Names::default()
            };
            one(
                stage,
                tally,
                api.key,
                version,
                &fitting(api.key, case, names),
                &needles,
            );
        }
    }
    println!("surface: {case} versions of {} APIs", apis::KEYS);
}

/// Names that suit an API which makes or destroys what it names.
fn fitting(key: i16, case: usize, mut names: Names) -> Names {
    match key {
        15 | 69 | 77 | 89 | 9 | 90 => names.groups = vec!["in.group".into()],
        19 => names.topics = vec![format!("in.new{case}")],
        20 => names.topics = vec![format!("in.gone{case}")],
        _ => {}
    }
    names
}

/// A version that has no layout: only whether it is answered can be compared.
fn outcome_only(stage: &Stage, tally: &mut Tally, key: i16, version: i16) {
    let seen = SIDES.map(|side| {
        let mut socket = stage.plain(side);
        socket.ask(key, version, &[]);
        socket.receive()
    });
    tally.check(
        "unknown key",
        seen[0] == Seen::Closed && seen[1] == Seen::Closed,
        || format!("key {key} version {version}: {seen:?}"),
    );
}

fn one(
    stage: &Stage,
    tally: &mut Tally,
    key: i16,
    version: i16,
    names: &Names,
    needles: &[Vec<u8>],
) {
    let name = apis::lookup(key).map_or("?", |api| api.name);
    let label = format!("{name} {version}");
    let shape = body::nearest(key, version);
    let seen = SIDES.map(|side| {
        let request = body::request(stage, side, key, shape, names);
        let bytes = encode(key, shape, &request);
        let mut socket: Socket = stage.plain(side);
        let id = socket.correlation();
        socket.send(&frame(key, version, id, crate::socket::CLIENT_ID, &bytes));
        (id, socket.receive())
    });
    if let (_, Seen::Answer(bytes)) = &seen[1] {
        for needle in needles {
            let leak = bytes.windows(needle.len()).any(|w| w == needle);
            tally.check("upstream address", !leak, || {
                format!("{label}: {}", bytes.escape_ascii())
            });
        }
    }
    let answers = match (&seen[0].1, &seen[1].1) {
        (Seen::Closed, Seen::Closed) => return tally.pass(),
        (Seen::Answer(_), Seen::Closed) if excuse(key, version, "close").is_some() => {
            return tally.accept(&format!(
                "{name}: {}",
                excuse(key, version, "close").unwrap()
            ));
        }
        (Seen::Answer(a), Seen::Answer(b)) => [a, b],
        (a, b) => return tally.fail("outcome", format!("{label}: broker {a:?}, kordon {b:?}")),
    };
    let read = [0, 1].map(|i| read(key, version, answers[i]));
    let [Ok((id_a, a)), Ok((id_b, b))] = &read else {
        return tally.fail("unreadable", format!("{label}: {read:?}"));
    };
    if (*id_a, *id_b) != (seen[0].0, seen[1].0) {
        return tally.fail("correlation id", format!("{label}: {id_a} {id_b}"));
    }
    let broker = comparable(stage, Side::Strict, key, version, a);
    let kordon = comparable(stage, Side::Kordon, key, version, b);
    let mut fine = true;
    for found in differences(&broker, &kordon) {
        match excuse(key, version, &found.path) {
            Some(why) => tally.accept(&format!("{name}: {why}")),
            None => {
                fine = false;
                let what = format!("{label}: {found:?}");
                tally.fail(&format!("{name} differs"), what);
            }
        }
    }
    if fine {
        tally.pass();
    }
    // The phase is the table's word for what the broker does.
    if apis::lookup(key).is_some_and(|api| matches!(api.phase, Phase::Retired)) {
        tally.fail("answered", label);
    }
}
