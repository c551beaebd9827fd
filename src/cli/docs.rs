//! `kordon docs`: tables printed from what the program really does.

use std::fmt::Write;

use crate::apis::table::TABLE;
use crate::apis::{Access, Phase};

/// A table that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Table {
    /// Every Kafka API: versions, and what becomes of it
    Apis,
    /// Every metric
    Metrics,
    /// The JSON Schema of policy files, for editors
    Schema,
}

/// What a document of a policy file may hold, as far as JSON Schema can say it.
const POLICY_SCHEMA: &str = include_str!("docs/policy.schema.json");

impl Table {
    /// The table in Markdown; the schema as it is.
    pub fn markdown(self) -> String {
        match self {
            Table::Apis => apis(),
            Table::Metrics => crate::telemetry::names::markdown(),
            Table::Schema => POLICY_SCHEMA.to_owned(),
        }
    }
}

fn apis() -> String {
    let mut out =
        String::from("| key | API | versions | what becomes of it |\n| --- | --- | --- | --- |\n");
    for api in &TABLE {
        let versions = match api.phase {
            Phase::Retired => "–".to_owned(),
            _ => format!("{}–{}", api.versions.min, api.versions.max),
        };
        let fate = match (api.phase, api.access) {
            (Phase::Handshake, _) => "answered here".to_owned(),
            (_, Access::Never(why)) => format!("connection closed: {why}"),
            (_, Access::Answered(code, why)) => format!("refused with error {code}: {why}"),
            (_, Access::Cluster(operation)) => format!("{} on the cluster", operation.name()),
            (_, Access::Rules(operation, _, fate)) => {
                format!("{} on the cluster; {fate}", operation.name())
            }
            (_, Access::Open(why)) => format!("no permission needed: {why}"),
            (_, Access::Named(_)) => "each resource it names is judged".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {} | {} | {versions} | {fate} |", api.key, api.name);
    }
    out
}

#[cfg(test)]
mod schema_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_has_a_line() {
        assert_eq!(apis().lines().count(), TABLE.len() + 2);
    }
}
