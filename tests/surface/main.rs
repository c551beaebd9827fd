//! The surface of the protocol: what a client sees at a real broker and through Kordon, API by
//! API, version by version, permission by permission, over bare sockets.
//!
//! `cargo test --test surface` runs every scenario; words select some (`acls`, `sweep`, `frames`,
//! `refusals`, `threats`, `revocation`, `sasl`). A word that names none of them selects nothing.
//! `--every`: no sequence of `sasl` is left out; `--seed NUMBER`: those that were left out then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lab/mod.rs"]
mod lab;

mod accepted;
mod acl;
mod acls;
mod asks;
mod body;
mod compare;
mod frames;
mod refusals;
mod revocation;
mod revoked;
mod sasl;
mod sasl_every;
mod sasl_talk;
mod sasl_users;
mod sasl_words;
mod sides;
#[allow(dead_code)]
#[path = "../it/support/signer.rs"]
mod signer;
mod socket;
mod stage;
mod sweep;
mod tally;
mod threats;
mod tokens;

use lab::part;
use stage::Stage;
use std::process::ExitCode;
use std::time::Instant;
use tally::Tally;

type Scenario = fn(&mut Stage, &mut Tally);
const SCENARIOS: [(&str, Scenario); 6] = [
    // First: later ones change what ACLs there are.
    ("acls", acls::run),
    ("sweep", sweep::run),
    ("refusals", refusals::run),
    ("threats", threats::run),
    ("revocation", revocation::run),
    // Last: what it produces, only Kordon's broker has.
    ("frames", frames::run),
];

/// The scenario with brokers of its own.
const SASL: &str = "sasl";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| !w.starts_with('-') && w.parse::<u64>().is_err())
        .collect();
    if std::env::args().any(|w| w == "--list") {
        SCENARIOS
            .iter()
            .for_each(|(name, _)| println!("{name}: test"));
        println!("{SASL}: test");
        return ExitCode::SUCCESS;
    }
    let known = |word: &str| word == SASL || SCENARIOS.iter().any(|(name, _)| *name == word);
    if let Some(word) = words.iter().find(|w| !known(w)) {
        println!("surface: `{word}` names no scenario of these tests: none is run");
        return ExitCode::SUCCESS;
    }
    let mut tally = Tally::default();
    part::set_up();
    if let Err(reason) = part::ready("kafka-4.3.0") {
        tally.skip("everything", &reason);
        return tally.exit();
    }
    // A broker of its own, which has ended before the others begin.
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| w == name);
    if wanted(SASL) {
        let from = Instant::now();
        sasl::run(&mut tally);
        println!("surface: {SASL} took {} s", from.elapsed().as_secs());
    }
    if !SCENARIOS.iter().any(|(name, _)| wanted(name)) {
        return tally.exit();
    }
    let from = Instant::now();
    let mut stage = match Stage::start() {
        Ok(stage) => stage,
        Err(why) => {
            tally.fail("set-up", why);
            return tally.exit();
        }
    };
    println!("surface: set up in {} s", from.elapsed().as_secs());
    for (name, run) in SCENARIOS {
        if wanted(name) {
            let from = Instant::now();
            run(&mut stage, &mut tally);
            println!("surface: {name} took {} s", from.elapsed().as_secs());
        }
    }
    let alive = stage.kordon.runs();
    tally.check("process", alive, || stage.kordon.log(40));
    tally.exit()
}
