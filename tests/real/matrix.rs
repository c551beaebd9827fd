//! The matrix: every case of every client, directly and through Kordon, with the same facts.

use crate::Choice;
use crate::lab::client::{Answer, Answers, Client, Outcome};
use crate::lab::kafka::Kafka;
use crate::lab::kordon::{BEHIND_RELAY, BROKER_PORTS, Kordon};
use crate::lab::relay::Relay;
use crate::tally::Tally;
use std::path::Path;
use std::thread;

const NEWEST: &str = "4.3.0";
const OLD: &str = "3.9.1";
/// What an old broker is asked; no group protocol or share group of later releases.
const OLD_CASES: [&str; 7] = [
    "admin/create-topic",
    "admin/describe-topics",
    "admin/groups",
    "admin/list-offsets",
    "produce",
    "group/classic",
    "transaction/commit-abort",
];

/// Everything against the newest release, both ways at once.
pub fn newest(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    run(choice, tally, NEWEST, &[])
}

/// A smaller set against an old release.
pub fn old(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    run(choice, tally, OLD, &OLD_CASES)
}

fn run(choice: &Choice, tally: &mut Tally, version: &str, cases: &[&str]) -> Result<(), String> {
    let clients = choice.clients(version, tally);
    if let Err(reason) = crate::part::ready(&format!("kafka-{version}")) {
        tally.tier_skipped(version, "all", &reason);
        return Ok(());
    }
    let kafka = Kafka::start(version, 1, "")?;
    let dir = tempfile::Builder::new()
        .prefix("kordon-matrix-")
        .tempdir()
        .unwrap();
    let mut kordon = choice
        .way("kordon")
        .then(|| Kordon::matrix(BEHIND_RELAY, &kafka.addrs()))
        .transpose()?;
    let relay = kordon.as_ref().map(|kordon| {
        Relay::start(
            BEHIND_RELAY,
            kordon.first_port,
            BROKER_PORTS + 1,
            &kafka.addrs(),
        )
    });
    for client in clients {
        let both = Both {
            client,
            version,
            cases,
            dir: dir.path(),
        };
        let (direct, through) = thread::scope(|scope| {
            let direct = choice
                .way("direct")
                .then(|| scope.spawn(|| both.answers(&kafka.bootstrap(), "direct")));
            let through = relay
                .as_ref()
                .map(|relay| both.answers(&relay.addr, "kordon"));
            (direct.map(|direct| direct.join().unwrap()), through)
        });
        let direct = direct.map(|answers| both.count(answers, "direct", None, tally));
        if let Some(through) = through {
            both.count(through, "kordon", direct.as_ref(), tally);
        }
        if kordon.as_mut().is_some_and(|kordon| !kordon.runs()) {
            let log = kordon.as_ref().unwrap().log(40);
            return Err(format!("`kordon run` ended during {}:\n{log}", client.name));
        }
    }
    if let (Some(relay), Some(kordon)) = (relay, kordon) {
        scanned(&relay, version, tally);
        let failed = tally.failures_of(&format!("{version} kordon"));
        if failed > 0 {
            println!("the end of Kordon's log:\n{}", kordon.log(40));
        }
    }
    Ok(())
}

/// No byte sent to a client may name a broker.
fn scanned(relay: &Relay, version: &str, tally: &mut Tally) {
    let (bytes, connections) = (relay.bytes(), relay.connections());
    println!("scanned {bytes} bytes of answers on {connections} connections ({version})");
    let tier = format!("{version} byte scan");
    let finds = relay.finds();
    if bytes == 0 {
        tally.fail(&tier, "all", "bytes", "nothing passed the relay");
    } else if finds.is_empty() {
        tally.pass(&tier, "all");
    }
    for find in finds {
        tally.fail(&tier, "all", "upstream address", &find);
    }
}

/// One client's run, one way or the other.
struct Both<'a> {
    client: Client,
    version: &'a str,
    cases: &'a [&'a str],
    dir: &'a Path,
}

impl Both<'_> {
    fn answers(&self, bootstrap: &str, way: &str) -> Result<Answers, String> {
        let prefix = format!("matrix.{}.{way}.", self.client.name);
        self.client.matrix(bootstrap, &prefix, self.cases, self.dir)
    }

    fn count(
        &self,
        answers: Result<Answers, String>,
        way: &str,
        direct: Option<&Answers>,
        tally: &mut Tally,
    ) -> Answers {
        let tier = format!("{} {way}", self.version);
        count(&tier, self.client.name, answers, direct, tally)
    }
}

/// Counts each case; through Kordon its facts must be those of the direct run.
pub fn count(
    tier: &str,
    name: &str,
    answers: Result<Answers, String>,
    direct: Option<&Answers>,
    tally: &mut Tally,
) -> Answers {
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => {
            tally.fail(tier, name, "run", &why);
            return Answers::new();
        }
    };
    if answers.is_empty() {
        tally.fail(tier, name, "run", "no case was printed");
    }
    for (case, answer) in &answers {
        match (&answer.outcome, direct.map(|direct| direct.get(case))) {
            (Outcome::Skipped(reason), _) => tally.skip(tier, name, case, reason),
            (Outcome::Failed(why), seen) => {
                let seen = seen.flatten().map(|d| format!("; directly: {}", facts(d)));
                let seen = seen.unwrap_or_default();
                tally.fail(tier, name, case, &format!("{why} {}{seen}", facts(answer)));
            }
            (Outcome::Passed, Some(None)) => {
                tally.fail(tier, name, case, "not among the cases of the direct run");
            }
            (Outcome::Passed, Some(Some(direct))) if direct.detail != answer.detail => {
                tally.fail(tier, name, case, &difference(direct, answer));
            }
            (Outcome::Passed, _) => tally.pass(tier, name),
        }
    }
    for case in direct.into_iter().flat_map(Answers::keys) {
        if !answers.contains_key(case) {
            tally.fail(tier, name, case, "only the direct run printed it");
        }
    }
    let ms: u64 = answers.values().map(|a| a.ms).sum();
    println!(
        "{tier} · {name}: {} cases in {} s",
        answers.len(),
        ms / 1000
    );
    answers
}

fn facts(answer: &Answer) -> String {
    serde_json::to_string(&answer.detail).unwrap()
}

fn difference(direct: &Answer, through: &Answer) -> String {
    let mut lines = String::from("the facts differ");
    let names = direct.detail.keys().chain(through.detail.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    for name in names {
        let (d, t) = (direct.detail.get(name), through.detail.get(name));
        if d != t {
            let show =
                |v: Option<&serde_json::Value>| v.map_or("absent".into(), ToString::to_string);
            lines += &format!("\n    {name}: directly {}, through {}", show(d), show(t));
        }
    }
    lines
}
