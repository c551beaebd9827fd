//! Random rules in the words of both sides: ACLs for a broker, policies for Kordon.

use crate::acl::{Acl, CLUSTER, GROUP, OPERATIONS, TOPIC, TRANSACTIONAL_ID, policy};
use crate::lab::dice::Dice;
use crate::socket::request;
use kordon::wire::tree::StructNode;
use std::collections::BTreeMap;

/// Users who log in; each has a listener at Kordon and a password at the strict broker.
pub const USERS: [&str; 5] = ["ann", "bob", "eve", "uwe", ROOT];
/// The super user among them.
pub const ROOT: &str = "root";
/// Where clients connect from.
pub const HOSTS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// Rules of one set, at most.
const RULES_MAX: usize = 60;

/// One rule, one ACL.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    allow: bool,
    /// A user's name or `*`.
    user: &'static str,
    /// An address or `*`.
    host: &'static str,
    /// Kafka's code.
    operation: i64,
    /// Kafka's code of the resource type.
    kind: i64,
    prefixed: bool,
    name: String,
}

impl Rule {
    fn acl(&self) -> Acl<'_> {
        Acl {
            allow: self.allow,
            user: self.user,
            host: self.host,
            operation: self.operation,
            kind: self.kind,
            prefixed: self.prefixed,
            name: &self.name,
        }
    }
}

/// A random set. `names`: what requests will name, topics, groups and transactional ids alike.
pub fn random(dice: &mut Dice, names: &[String]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..dice.below(RULES_MAX) {
        let kind = *dice.pick(&[TOPIC, TOPIC, TOPIC, GROUP, GROUP, TRANSACTIONAL_ID, CLUSTER]);
        let (prefixed, name) = match (kind, dice.below(10)) {
            (CLUSTER, _) => (false, "kafka-cluster".to_owned()),
            (_, 0) => (false, "*".to_owned()),
            (_, 1..=4) => (false, dice.pick(names).clone()),
            _ => {
                let name = dice.pick(names);
                (true, name[..=dice.below(name.len())].to_owned())
            }
        };
        let host = match dice.below(4) {
            0 => *dice.pick(&HOSTS),
            _ => "*",
        };
        let user = match dice.below(6) {
            0 => "*",
            _ => *dice.pick(&USERS),
        };
        let operation = match dice.below(4) {
            0 => 0,
            _ => dice.below(OPERATIONS.len()),
        };
        let rule = Rule {
            allow: !dice.once_in(5),
            user,
            host,
            operation: operation as i64 + 2,
            kind,
            prefixed,
            name,
        };
        // The test's own user must stay able to create a topic: by that it sees which rules are
        // in force.
        let blinds = !rule.allow
            && (rule.user, rule.kind, rule.name.as_str()) == ("*", TOPIC, "*")
            && rule.host != HOSTS[1]
            && matches!(OPERATIONS[operation], "All" | "Create");
        // A broker keeps one of two equal ACLs.
        if !blinds && !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// A CreateAcls request for the rules.
pub fn acls(rules: &[Rule]) -> StructNode {
    let mut create = request(30);
    rules.iter().for_each(|rule| rule.acl().add_to(&mut create));
    create
}

/// The rules as a policy file; `mark` is in it, so that no two sets are the same file.
pub fn policies(rules: &[Rule], mark: usize) -> String {
    let mut by_subject: BTreeMap<(&str, &str), Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        by_subject
            .entry((rule.user, rule.host))
            .or_default()
            .push(rule);
    }
    let mut out = String::new();
    policy(&mut out, &format!("mark{mark}"), "nobody-at-all", "*");
    out += "    - {allow: [Read], topics: [\"nothing\"]}\n";
    for (at, ((user, host), rules)) in by_subject.iter().enumerate() {
        policy(&mut out, &format!("set{at}"), user, host);
        out.extend(rules.iter().map(|rule| rule.acl().rule()));
    }
    out
}

/// Takes the rules by which the test sees what is in force out of described ACLs, and those that
/// requests have made.
pub fn without_own(resources: &mut Vec<StructNode>) {
    const OWN: [&str; 3] = ["User:mark", "User:nobody", "User:nobody-at-all"];
    for resource in resources.iter_mut() {
        let acls = resource.structs_mut("Acls");
        acls.retain(|acl| !OWN.contains(&acl.text("Principal").unwrap_or_default()));
    }
    resources.retain(|resource| !resource.structs("Acls").is_empty());
}

/// The rules that can concern a user at a host, for a failure's message.
pub fn show(rules: &[Rule], user: &str) -> String {
    let mine = rules.iter().filter(|r| r.user == user || r.user == "*");
    let lines = mine.map(|r| {
        let verb = if r.allow { "allow" } else { "deny" };
        let operation = OPERATIONS[r.operation as usize - 2];
        let star = if r.prefixed { "*" } else { "" };
        let kind = match r.kind {
            TOPIC => "topic",
            GROUP => "group",
            CLUSTER => "cluster",
            _ => "transactional id",
        };
        format!(
            "{verb} {operation} {kind} `{}{star}` from {}",
            r.name, r.host
        )
    });
    lines.collect::<Vec<_>>().join("; ")
}
