//! Counts, failures, and which of the accepted differences were met.

use crate::lab::part;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The test that counts.
const TEST: &str = env!("CARGO_CRATE_NAME");
/// Failures of one kind that are printed in full.
const PRINTED_MAX: usize = 6;

/// The counts of all scenarios.
#[derive(Default)]
pub struct Tally {
    /// Cases that agree.
    pub passed: usize,
    /// Failures by a short name of what went wrong.
    failed: BTreeMap<String, Vec<String>>,
    /// Scenarios that could not run, with the reason.
    skipped: Vec<String>,
    accepted: BTreeMap<String, usize>,
}

impl Tally {
    /// A case that agrees.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// A failure; `kind` groups those with one cause.
    pub fn fail(&mut self, kind: &str, what: String) {
        self.failed.entry(kind.to_owned()).or_default().push(what);
    }

    /// Passes if `fine`, fails with `what` otherwise.
    pub fn check(&mut self, kind: &str, fine: bool, what: impl FnOnce() -> String) {
        match fine {
            true => self.pass(),
            false => self.fail(kind, what()),
        }
    }

    /// A difference that stands in a table, with its reason.
    pub fn accept(&mut self, reason: &str) {
        *self.accepted.entry(reason.to_owned()).or_default() += 1;
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failed.values().map(Vec::len).sum()
    }

    /// A scenario that could not run.
    pub fn skip(&mut self, what: &str, reason: &str) {
        println!("{TEST}: {what} SKIPPED: {reason}");
        self.skipped.push(what.to_owned());
    }

    /// Prints everything; how the process ends.
    pub fn exit(&self) -> ExitCode {
        match self.finish(part::all_required()) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    fn finish(&self, all_required: bool) -> bool {
        for (reason, count) in &self.accepted {
            println!("{TEST}: {count} accepted: {reason}");
        }
        for (kind, whats) in &self.failed {
            println!("{TEST}: FAILED {kind}: {}", whats.len());
            for what in whats.iter().take(PRINTED_MAX) {
                println!("    {what}");
            }
        }
        let failed = self.failed();
        let (passed, skipped) = (self.passed, self.skipped.len());
        println!("{TEST}: {passed} passed, {failed} failed, {skipped} skipped");
        failed == 0 && (skipped == 0 || !all_required)
    }
}
