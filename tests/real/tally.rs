//! Counts by tier and client, and the failures with enough to act on.

use std::collections::BTreeMap;

/// What passed, failed and was skipped so far.
#[derive(Default)]
pub struct Tally {
    rows: BTreeMap<(String, String), Row>,
    failures: Vec<String>,
    tiers_skipped: Vec<String>,
}

#[derive(Default)]
struct Row {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn row(&mut self, tier: &str, client: &str) -> &mut Row {
        self.rows
            .entry((tier.to_owned(), client.to_owned()))
            .or_default()
    }

    /// A case that did what it says.
    pub fn pass(&mut self, tier: &str, client: &str) {
        self.row(tier, client).passed += 1;
    }

    /// A case that did not, and why.
    pub fn fail(&mut self, tier: &str, client: &str, case: &str, why: &str) {
        self.row(tier, client).failed += 1;
        let line = format!("FAILED {tier} · {client} · {case}: {why}");
        println!("{line}");
        self.failures.push(line);
    }

    /// A case for which the client lacks the feature.
    pub fn skip(&mut self, tier: &str, client: &str, case: &str, reason: &str) {
        self.row(tier, client).skipped += 1;
        println!("skipped {tier} · {client} · {case}: {reason}");
    }

    /// A client or a broker that could not be set up on this machine: nothing of the tier ran.
    pub fn tier_skipped(&mut self, tier: &str, client: &str, reason: &str) {
        let line = format!("TIER SKIPPED {tier} · {client}: {reason}");
        println!("{line}");
        self.tiers_skipped.push(line);
    }

    /// How many failed so far.
    pub fn failures(&self) -> usize {
        self.failures.len()
    }

    /// How many cases of a tier failed so far.
    pub fn failures_of(&self, tier: &str) -> usize {
        self.rows
            .iter()
            .filter(|((t, _), _)| t == tier)
            .map(|(_, row)| row.failed)
            .sum()
    }

    /// The table, then every skipped tier and every failure again.
    pub fn print(&self) {
        println!(
            "\n{:<24} {:<12} {:>6} {:>6} {:>7}",
            "tier", "client", "passed", "failed", "skipped"
        );
        let mut all = Row::default();
        for ((tier, client), row) in &self.rows {
            println!(
                "{tier:<24} {client:<12} {:>6} {:>6} {:>7}",
                row.passed, row.failed, row.skipped
            );
            all.passed += row.passed;
            all.failed += row.failed;
            all.skipped += row.skipped;
        }
        println!(
            "{:<24} {:<12} {:>6} {:>6} {:>7}",
            "all", "", all.passed, all.failed, all.skipped
        );
        for line in self.tiers_skipped.iter().chain(&self.failures) {
            println!("{line}");
        }
        println!(
            "real: {} tiers skipped, {} failures",
            self.tiers_skipped.len(),
            self.failures.len()
        );
    }

    /// Whether nothing failed and, where every tier is required, none was skipped.
    pub fn passed_all(&self, all_required: bool) -> bool {
        self.failures.is_empty() && (!all_required || self.tiers_skipped.is_empty())
    }
}
