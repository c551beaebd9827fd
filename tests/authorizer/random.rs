//! Random policies, who asks, and questions near to what the policies name.

use crate::lab::dice::Dice;
use kordon::policy::model::{Operation, ResourceKind, RuleRef};
use kordon::policy::parse;
use kordon::policy::rule::{AccessPolicy, Effect, NamePattern, ResourcePattern, Rule, Template};
use kordon::principal::{Principal, Proof};
use std::net::IpAddr;
use std::sync::Arc;

/// One rule set with questions about it.
pub struct Round {
    /// Whole principals.
    pub super_users: Vec<String>,
    /// The rules.
    pub policies: Vec<Policy>,
    /// Who asks.
    pub askers: Vec<Asker>,
    /// What they ask.
    pub questions: Vec<Question>,
}

/// A policy as text that both sides understand: each principal with each host has each rule.
pub struct Policy {
    principals: Vec<&'static str>,
    /// `*` alone, or addresses.
    hosts: Vec<String>,
    rules: Vec<Line>,
}

struct Line {
    allow: bool,
    operations: Vec<Operation>,
    resources: Vec<(ResourceKind, bool, String)>,
}

/// A principal at an address.
pub struct Asker {
    /// Who.
    pub principal: Principal,
    /// From where.
    pub host: IpAddr,
}

/// One question.
pub struct Question {
    /// Index of who asks.
    pub asker: usize,
    /// What for.
    pub operation: Operation,
    /// On what kind of resource.
    pub kind: ResourceKind,
    /// On which; `None`: on any.
    pub name: Option<String>,
}

/// One of Kafka's ACLs. A literal `*` is every name.
pub struct Acl {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Whether the name is a prefix.
    pub prefixed: bool,
    /// The name.
    pub name: String,
    /// `Type:name`.
    pub principal: &'static str,
    /// `*` or an address.
    pub host: String,
    /// The operation.
    pub operation: Operation,
    /// Allow or deny.
    pub allow: bool,
}

const PATTERNS: [&str; 10] = [
    "User:a", "User:b", "User:*", "Group:a", "Group:*", "Tenant:a", "User:a:b", "User:A", "User:ä",
    "User:b*",
];
const ASKING: [&str; 12] = [
    "User:a", "User:b", "User:a:b", "User:A", "User:ä", "User:b*", "Group:a", "Group:*",
    "Tenant:a", "Robot:a", "User:*b", "User:c",
];
/// As Java writes addresses. The last two are how people do; Kafka compares text.
const HOSTS: [&str; 9] = [
    "10.0.0.1",
    "10.0.0.2",
    "127.0.0.1",
    "0:0:0:0:0:0:0:1",
    "2001:db8:0:0:0:0:0:a",
    "fe80:0:0:0:1:0:0:0",
    "0.0.0.0",
    "::1",
    "2001:DB8::a",
];
const ADDRESSES: [&str; 9] = [
    "10.0.0.1",
    "10.0.0.2",
    "127.0.0.1",
    "::1",
    "2001:db8::a",
    "fe80::1:0:0:0",
    "0.0.0.0",
    "::ffff:10.0.0.1",
    "192.0.2.7",
];
/// In UTF-16, Kafka's order, the last but one sorts below the one before it; in UTF-8 above.
const LETTERS: [&str; 9] = ["a", "b", ".", "*", "ä", "名", "\u{ffee}", "😀", "h"];

/// A random round.
pub fn round(dice: &mut Dice) -> Round {
    // Few kinds, operations and names a round, so that rules and questions meet; where there is
    // one of each, what one rule gives another one often takes.
    let (count, few, questions) = match dice.below(100) {
        0 => (60, 5, 300),
        1..60 => (1, 1, 24),
        _ => (1 + dice.below(6), 5, 300),
    };
    let narrow = few == 1;
    let kinds = [(); 2].map(|()| *dice.pick(&ResourceKind::EVERY));
    let operations = [(); 4].map(|()| *dice.pick(&Operation::EVERY));
    let operations = &operations[..if narrow { 1 } else { 4 }];
    let kinds = &kinds[..if narrow { 1 } else { 2 }];
    let names: Vec<String> = (0..few).map(|_| name(dice)).collect();
    let wide = dice.once_in(4);
    let mut policies = Vec::new();
    for _ in 0..count {
        // Half of them one of the first three, so that rules meet those who ask.
        let principals = (0..=dice.below(2)).map(|_| match dice.below(2) {
            _ if narrow => "User:*",
            0 => *dice.pick(&PATTERNS[..3]),
            _ => *dice.pick(&PATTERNS),
        });
        let principals = principals.collect();
        let hosts = match dice.below(3) {
            0 if !narrow => (0..=dice.below(2))
                .map(|_| (*dice.pick(&HOSTS)).to_owned())
                .collect(),
            _ => vec!["*".to_owned()],
        };
        let line = |dice: &mut Dice| Line {
            allow: !dice.once_in(if narrow { 2 } else { 4 }),
            operations: (0..=dice.below(2))
                .map(|_| match dice.below(10) {
                    0 => Operation::All,
                    1 => *dice.pick(&Operation::EVERY),
                    _ => *dice.pick(operations),
                })
                .collect(),
            resources: (0..=dice.below(2))
                .map(|_| {
                    let (prefixed, name) = match dice.below(8) {
                        0 => (false, "*".to_owned()),
                        1..=3 => (false, near(dice, &names)),
                        _ => (true, near(dice, &names)),
                    };
                    // No ACL is about a resource without a name.
                    let name = if name.is_empty() {
                        "h".to_owned()
                    } else {
                        name
                    };
                    (*dice.pick(kinds), prefixed, name)
                })
                .collect(),
        };
        let rules = (0..=dice.below(4)).map(|_| line(dice)).collect();
        policies.push(Policy {
            principals,
            hosts,
            rules,
        });
    }
    let super_users = match dice.below(12) {
        0 => vec![(*dice.pick(&ASKING)).to_owned()],
        1 => vec!["User:c".to_owned(), "Group:a".to_owned()],
        _ => vec![],
    };
    let askers: Vec<Asker> = (0..6).map(|_| asker(dice)).collect();
    let questions = (0..questions).map(|_| Question {
        asker: dice.below(askers.len()),
        operation: match dice.below(4) {
            0 if wide => *dice.pick(&Operation::EVERY),
            1 => Operation::Describe,
            _ => *dice.pick(operations),
        },
        kind: *dice.pick(kinds),
        name: (!dice.once_in(if narrow { 3 } else { 6 })).then(|| near(dice, &names)),
    });
    let questions = questions.collect();
    Round {
        super_users,
        policies,
        askers,
        questions,
    }
}

fn asker(dice: &mut Dice) -> Asker {
    let name = match dice.below(2) {
        0 => *dice.pick(&ASKING[..2]),
        _ => *dice.pick(&ASKING),
    };
    Asker {
        principal: Principal {
            name: name.into(),
            tenant: "".into(),
            groups: Arc::new([]),
            proof: Proof::Static,
            expires_at: None,
        },
        host: dice.pick(&ADDRESSES).parse().unwrap(),
    }
}

fn name(dice: &mut Dice) -> String {
    match dice.below(8) {
        // The name that `authorizeByResourceType` tries first.
        0 => "hardcode".to_owned(),
        1 => "kafka-cluster".to_owned(),
        _ => (0..=dice.below(4)).map(|_| *dice.pick(&LETTERS)).collect(),
    }
}

/// A name of the list, or one beside it.
fn near(dice: &mut Dice, names: &[String]) -> String {
    let mut name = dice.pick(names).clone();
    match dice.below(12) {
        0..=4 => {}
        5 | 6 => drop(name.pop()),
        7 | 8 => name.push_str(LETTERS[dice.below(LETTERS.len())]),
        9 => {
            name.pop();
            name.push_str(LETTERS[dice.below(LETTERS.len())]);
        }
        10 => name.insert(0, '*'),
        _ => name = ["", "*", "**", "A", "hardcode", "hardcodes"][dice.below(6)].to_owned(),
    }
    name
}

/// The same rules as Kafka's ACLs, one for each principal, host, operation and resource.
pub fn acls(policies: &[Policy]) -> Vec<Acl> {
    let mut acls = Vec::new();
    for policy in policies {
        for principal in &policy.principals {
            for host in &policy.hosts {
                for line in policy.rules.iter() {
                    for operation in &line.operations {
                        acls.extend(line.resources.iter().map(|(kind, prefixed, name)| Acl {
                            kind: *kind,
                            prefixed: *prefixed,
                            name: name.clone(),
                            principal,
                            host: host.clone(),
                            operation: *operation,
                            allow: line.allow,
                        }));
                    }
                }
            }
        }
    }
    acls
}

/// What Kordon's reading of a rule leaves out to become Kafka's.
#[derive(Clone, Copy, Default)]
pub struct Without {
    /// Rules on every name.
    pub every_name: bool,
    /// Addresses that Java writes otherwise.
    pub hosts: bool,
}

/// The same rules as Kordon's, read by its own parsers.
pub fn kordon(policies: &[Policy], without: Without) -> Vec<AccessPolicy> {
    let mut line = 0;
    let policies = policies.iter().filter_map(|policy| {
        let written: Vec<&String> = policy.hosts.iter().filter(|h| **h != "*").collect();
        let known = |host: &&&String| !without.hosts || java(host.parse().unwrap()) == ***host;
        let hosts: Vec<&&String> = written.iter().filter(known).collect();
        if hosts.is_empty() && !written.is_empty() {
            return None;
        }
        let rules = policy.rules.iter().map(|rule| {
            line += 1;
            let resources = rule.resources.iter();
            let all = resources.map(|(kind, prefixed, name)| ResourcePattern {
                kind: *kind,
                names: names(*prefixed, name),
            });
            Rule {
                at: RuleRef {
                    file: "random.yaml".into(),
                    line,
                },
                effect: if rule.allow {
                    Effect::Allow
                } else {
                    Effect::Deny
                },
                operations: rule.operations.clone(),
                resources: all
                    .filter(|r| !without.every_name || r.names != NamePattern::All)
                    .collect(),
            }
        });
        let rules = rules.collect();
        let principals = policy.principals.iter();
        Some(AccessPolicy {
            name: "random".to_owned(),
            principals: principals.map(|p| parse::principal(p).unwrap()).collect(),
            hosts: hosts.iter().map(|h| parse::host(h).unwrap()).collect(),
            rules,
        })
    });
    policies.collect()
}

fn names(prefixed: bool, name: &str) -> NamePattern {
    // Plain text where it says the same, otherwise what `{literal: …}` and `{prefix: …}` make.
    match (prefixed, name.contains('*')) {
        (false, _) if name == "*" => parse::names("*").unwrap(),
        (false, false) => parse::names(name).unwrap(),
        (true, false) => parse::names(&format!("{name}*")).unwrap(),
        (false, true) => NamePattern::Literal(Template::text(name)),
        (true, true) => NamePattern::Prefix(Template::text(name)),
    }
}

/// An address as Java's `getHostAddress` writes it.
fn java(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|s| format!("{s:x}")).join(":"),
    }
}
