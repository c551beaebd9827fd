//! Real Kafka, real clients: what five clients see directly and through Kordon, side by side.
//!
//! `cargo test --test real` runs every scenario; words select some: scenarios (`matrix`, `old`,
//! `identity`, …), clients (`java`, `franz`, …), ways (`direct`, `kordon`) and proofs of identity
//! (`mtls`, `oauth`). A word that names none of them selects nothing, so that a filter meant for
//! other tests runs none of these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lab/mod.rs"]
mod lab;

mod audit;
mod disturbance;
mod faults;
mod identity;
mod matrix;
mod tally;

use lab::client::{self, Client};
use lab::part;
use std::process::ExitCode;
use std::time::Instant;
use tally::Tally;

/// What was asked for on the command line.
struct Choice {
    words: Vec<String>,
}

impl Choice {
    /// Whether `name` is chosen among `all` of its kind: by name, or because none of them is named.
    fn has(&self, name: &str, all: &[&str]) -> bool {
        !self.words.iter().any(|w| all.contains(&w.as_str()))
            || self.words.iter().any(|w| w == name)
    }

    /// The clients chosen whose toolchain is there; the others are told as skipped.
    fn clients(&self, tier: &str, tally: &mut Tally) -> Vec<Client> {
        let names = client::ALL.map(|c| c.name);
        let chosen = client::ALL.into_iter().filter(|c| self.has(c.name, &names));
        let mut ready = Vec::new();
        for client in chosen {
            match client.ready() {
                Ok(()) => ready.push(client),
                Err(reason) => tally.tier_skipped(tier, client.name, &reason),
            }
        }
        ready
    }

    fn way(&self, name: &str) -> bool {
        self.has(name, &WAYS)
    }

    fn proof(&self, name: &str) -> bool {
        self.has(name, &PROOFS)
    }
}

const WAYS: [&str; 2] = ["direct", "kordon"];
/// How a client proves who it is, in the scenarios where it does.
const PROOFS: [&str; 2] = ["mtls", "oauth"];

type Scenario = fn(&Choice, &mut Tally) -> Result<(), String>;
const SCENARIOS: [(&str, Scenario); 8] = [
    ("matrix", matrix::newest),
    ("old", matrix::old),
    ("identity", identity::proven),
    ("reauth", identity::again),
    ("faults", faults::under_load),
    ("audit", audit::topic),
    ("leaders", disturbance::leaders),
    ("term", disturbance::term),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| !w.starts_with('-'))
        .collect();
    if std::env::args().any(|w| w == "--list") {
        SCENARIOS
            .iter()
            .for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let scenarios = SCENARIOS.map(|(name, _)| name);
    let known = |word: &str| {
        scenarios.contains(&word)
            || WAYS.contains(&word)
            || PROOFS.contains(&word)
            || client::ALL.iter().any(|c| c.name == word)
    };
    if let Some(word) = words.iter().find(|w| !known(w)) {
        println!("real: `{word}` names no scenario, client or way of these tests: none is run");
        return ExitCode::SUCCESS;
    }
    let choice = Choice { words };
    let mut tally = Tally::default();
    part::set_up();
    for (name, run) in SCENARIOS {
        if !choice.has(name, &scenarios) {
            continue;
        }
        let from = Instant::now();
        println!("real: {name}");
        if let Err(why) = run(&choice, &mut tally) {
            tally.fail(name, "scenario", name, &why);
        }
        println!("real: {name} took {} s", from.elapsed().as_secs());
    }
    tally.print();
    if tally.passed_all(part::all_required()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
