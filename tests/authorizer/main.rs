//! Kordon's decision against Kafka's own: random rules and questions to `policy` and to
//! `org.apache.kafka.metadata.authorizer.StandardAuthorizer` of Kafka 4.3, in a JVM beside. They
//! must give the same answer, but for two differences that are meant; each of those must be
//! exactly what it is said to be, and is counted.
//!
//! `cargo test --test authorizer -- --seed N` repeats a run, `--cases N` asks more or less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lab/mod.rs"]
mod lab;

mod java;
mod random;

use java::Java;
use kordon::policy::model::Subject;
use kordon::policy::{PolicySet, View};
use lab::dice::{self, Dice};
use lab::part;
use random::{Question, Round, Without};
use std::process::ExitCode;
use std::time::Instant;

/// Questions of a run.
const CASES: u64 = 1_000_000;
/// Differences that are printed.
const PRINTED_MAX: usize = 20;

/// The differences that are meant: their reason, and what Kordon's rules must lose to be read as
/// Kafka reads them.
const MEANT: [(&str, Without); 3] = [
    (
        "a rule on `*` is about every name; Kafka's does not reach longer ones that begin with a \
         star",
        Without {
            every_name: true,
            hosts: false,
        },
    ),
    (
        "an address is an address however it is written; Kafka compares it with Java's way of \
         writing",
        Without {
            every_name: false,
            hosts: true,
        },
    ),
    (
        "both of these",
        Without {
            every_name: true,
            hosts: true,
        },
    ),
];

#[derive(Default)]
struct Count {
    allowed: u64,
    denied: u64,
    meant: [u64; MEANT.len()],
    failed: u64,
}

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--list") {
        println!("authorizer: test");
        return ExitCode::SUCCESS;
    }
    let seed = dice::option("seed", "KORDON_AUTHORIZER_SEED").unwrap_or_else(dice::seed);
    let cases = dice::option("cases", "KORDON_AUTHORIZER_CASES").unwrap_or(CASES);
    let mut java = match Java::start() {
        Ok(java) => java,
        Err(reason) => {
            println!("authorizer: SKIPPED: {reason}");
            return match part::all_required() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            };
        }
    };
    println!("authorizer: seed {seed}");
    let from = Instant::now();
    let mut dice = Dice(seed);
    let mut count = Count::default();
    let mut sets: u64 = 0;
    let mut asked = 0;
    while asked < cases {
        let round = random::round(&mut dice);
        asked += round.questions.len() as u64;
        sets += 1;
        judge(&round, &mut java, &mut count);
    }
    for ((why, _), met) in MEANT.iter().zip(count.meant) {
        println!("authorizer: {met} differ as meant: {why}");
    }
    let Count {
        allowed,
        denied,
        failed,
        ..
    } = count;
    println!(
        "authorizer: {asked} questions about {sets} sets of rules in {} s: {allowed} allowed and \
         {denied} denied by both, {failed} failed (seed {seed})",
        from.elapsed().as_secs(),
    );
    // Questions that hardly ever find a rule would prove nothing.
    let balanced = allowed * 10 > denied && denied * 10 > allowed;
    if !balanced {
        println!("authorizer: the answers are too one-sided to mean anything");
    }
    match failed == 0 && balanced {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn judge(round: &Round, java: &mut Java, count: &mut Count) {
    let acls = random::acls(&round.policies);
    let answers = java.answers(round, &acls);
    let views = views(round, Without::default());
    for (question, kafka) in round.questions.iter().zip(answers) {
        let view = &views[question.asker];
        let kordon = decide(view, question);
        let sweeping = view.allows_all(question.operation, question.kind);
        match kafka {
            0 if kordon == 0 && !sweeping => count.denied += 1,
            1 if kordon == 1 => count.allowed += 1,
            _ => match meant(round, question, kafka) {
                Some(which) => count.meant[which] += 1,
                None => {
                    count.failed += 1;
                    if count.failed <= PRINTED_MAX as u64 {
                        show(round, question, &acls, kafka, kordon, sweeping);
                    }
                }
            },
        }
    }
}

fn views(round: &Round, without: Without) -> Vec<View> {
    let policies = random::kordon(&round.policies, without);
    let set = PolicySet::new(policies, round.super_users.clone());
    let askers = round.askers.iter();
    askers
        .map(|a| {
            set.view(&Subject {
                principal: &a.principal,
                host: a.host,
            })
        })
        .collect()
}

fn decide(view: &View, question: &Question) -> u8 {
    let decision = match &question.name {
        Some(name) => view.decide(question.operation, question.kind, name),
        None => view.decide_any(question.operation, question.kind),
    };
    u8::from(decision.allowed)
}

/// The difference that explains the answer: Kordon gives it too when its rules are read so.
fn meant(round: &Round, question: &Question, kafka: u8) -> Option<usize> {
    let star = |name: &String| name.starts_with('*') && name.len() > 1;
    let starred = question.name.as_ref().is_some_and(star);
    (0..MEANT.len()).find(|at| {
        let without = MEANT[*at].1;
        (starred || !without.every_name)
            && decide(&views(round, without)[question.asker], question) == kafka
    })
}

fn show(
    round: &Round,
    question: &Question,
    acls: &[random::Acl],
    kafka: u8,
    kordon: u8,
    sweeping: bool,
) {
    let asker = &round.askers[question.asker];
    println!(
        "authorizer: FAILED: {} at {}: {} {} {:?}: kafka {kafka}, kordon {kordon}, on every name \
         {sweeping}; super users {:?}",
        asker.principal.name,
        asker.host,
        question.operation.name(),
        question.kind.name(),
        question.name,
        round.super_users
    );
    for acl in acls.iter().filter(|acl| acl.kind == question.kind) {
        let permission = if acl.allow { "allow" } else { "deny" };
        let pattern = if acl.prefixed { "prefixed" } else { "literal" };
        println!(
            "    {permission} {} {} {pattern} {:?} from {}",
            acl.principal,
            acl.operation.name(),
            acl.name,
            acl.host
        );
    }
}
