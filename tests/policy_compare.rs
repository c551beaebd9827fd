//! `policy::compare` against a comparison by brute force: random pairs of small sets of policies,
//! and every subject, host, operation and name of a small world. Whatever differs there must be
//! told, and what is told must differ there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::IpAddr;
use std::sync::Arc;

use kordon::policy::PolicySet;
use kordon::policy::compare::{Change, compare};
use kordon::policy::lint::lint;
use kordon::policy::model::{Operation, ResourceKind, RuleRef, Subject};
use kordon::policy::rule::{
    AccessPolicy, Effect, HostPattern, NamePattern, Part, PrincipalPattern, ResourcePattern, Rule,
    Template,
};
use kordon::principal::{Principal, Proof};
use kordon::problem::Problems;
use proptest::prelude::*;
use proptest::sample::select;

const USERS: [&str; 3] = ["a", "b", "stranger"];
const TENANTS: [&str; 4] = ["", "t", "a", "elsewhere"];
const GROUPS: [&str; 3] = ["g", "h", "i"];
const HOSTS: [&str; 5] = ["10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "::9"];
const NAMES: [&str; 19] = [
    "x",
    "xx",
    "x.",
    "x.q",
    "x.y",
    "x.yy",
    "y",
    "yy",
    "a",
    "a.x",
    "b",
    "b.x",
    "t",
    "t.x",
    "stranger",
    "stranger.x",
    "elsewhere",
    "elsewhere.x",
    "other",
];
const OPERATIONS: [Operation; 4] = [
    Operation::Read,
    Operation::Describe,
    Operation::Alter,
    Operation::DescribeConfigs,
];

fn pattern() -> impl Strategy<Value = NamePattern> {
    let text = select(vec!["x", "x.y", "x.", "y", "a", "t"]).prop_map(Template::text);
    let variable = select(vec![Part::Tenant, Part::Principal])
        .prop_map(|part| Template(vec![part]))
        .boxed();
    let template = prop_oneof![3 => text, 1 => variable];
    (0..6, template).prop_map(|(which, template)| match which {
        0 => NamePattern::All,
        1..=3 => NamePattern::Literal(template),
        _ => NamePattern::Prefix(template),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let operations = proptest::collection::vec(
        select(vec![
            Operation::Read,
            Operation::Describe,
            Operation::AlterConfigs,
            Operation::Alter,
            Operation::All,
        ]),
        1..3,
    );
    let kind = select(vec![ResourceKind::Topic, ResourceKind::Group]);
    let patterns = proptest::collection::vec((kind, pattern()), 1..3);
    (any::<bool>(), operations, patterns).prop_map(|(deny, operations, patterns)| Rule {
        at: RuleRef {
            file: "p".into(),
            line: 0,
        },
        effect: if deny { Effect::Deny } else { Effect::Allow },
        operations,
        resources: (patterns.into_iter())
            .map(|(kind, names)| ResourcePattern { kind, names })
            .collect(),
    })
}

fn policy() -> impl Strategy<Value = AccessPolicy> {
    let principal = select(vec![
        PrincipalPattern::Everyone,
        PrincipalPattern::User("a".into()),
        PrincipalPattern::User("b".into()),
        PrincipalPattern::Group("g".into()),
        PrincipalPattern::Group("h".into()),
        PrincipalPattern::Group("i".into()),
        PrincipalPattern::Tenant("t".into()),
        PrincipalPattern::Tenant("a".into()),
    ]);
    let network = |text: &str, bits| HostPattern {
        network: text.parse().unwrap(),
        prefix_bits: bits,
    };
    let hosts = select(vec![
        vec![],
        vec![],
        vec![],
        vec![network("10.0.0.0", 8)],
        vec![network("10.0.0.0", 8), network("2001:db8::", 32)],
        vec![network("10.1.0.1", 32)],
        vec![network("0.0.0.0", 0)],
    ]);
    let principals = proptest::collection::vec(principal, 1..3);
    (principals, hosts, proptest::collection::vec(rule(), 1..3)).prop_map(
        |(principals, hosts, rules)| AccessPolicy {
            name: "p".into(),
            principals,
            hosts,
            rules: rules.into(),
        },
    )
}

/// An old set, and a new one that shares some policies with it.
fn pair() -> impl Strategy<Value = (Vec<AccessPolicy>, Vec<AccessPolicy>)> {
    let some = || proptest::collection::vec(policy(), 0..3);
    (some(), some(), some()).prop_map(|(shared, old, new)| {
        let with = |own: Vec<AccessPolicy>| shared.iter().cloned().chain(own).collect();
        (with(old), with(new))
    })
}

type Difference = (
    Principal,
    IpAddr,
    Operation,
    ResourceKind,
    &'static str,
    bool,
);

fn differences(old: &[AccessPolicy], new: &[AccessPolicy]) -> Vec<Difference> {
    let old = PolicySet::new(old.to_vec(), Vec::new());
    let new = PolicySet::new(new.to_vec(), Vec::new());
    let mut found = Vec::new();
    for user in USERS {
        for tenant in TENANTS {
            for mask in 0..8usize {
                let groups = (GROUPS.iter().enumerate()).filter(|(i, _)| mask & (1 << i) != 0);
                let principal = Principal {
                    name: format!("User:{user}").into(),
                    tenant: tenant.into(),
                    groups: groups.map(|(_, g)| (*g).into()).collect(),
                    proof: Proof::Static,
                    expires_at: None,
                };
                for host in HOSTS.map(|h| h.parse::<IpAddr>().unwrap()) {
                    let subject = Subject {
                        principal: &principal,
                        host,
                    };
                    let (old, new) = (old.view(&subject), new.view(&subject));
                    for kind in [ResourceKind::Topic, ResourceKind::Group] {
                        for operation in OPERATIONS.into_iter().filter(|o| kind.knows(*o)) {
                            for name in NAMES {
                                let before = old.decide(operation, kind, name).allowed;
                                let after = new.decide(operation, kind, name).allowed;
                                if before != after {
                                    let who = principal.clone();
                                    found.push((who, host, operation, kind, name, after));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    found
}

/// Whether a line speaks about the difference, or about a less special subject that has it too.
fn tells(change: &Change, difference: &Difference) -> bool {
    let (principal, _, operation, kind, _, gained) = difference;
    let who = change.who.iter().all(|fact| match fact.split_once(':') {
        Some(("User", _)) => *principal.name == **fact,
        Some(("Tenant", name)) => *principal.tenant == *name,
        Some((_, name)) => principal.groups.iter().any(|g| **g == *name),
        None => !principal.tenant.is_empty(),
    });
    let operation = change.operations == ["All"] || change.operations.contains(&operation.name());
    who && operation && change.kind == *kind && change.gained == *gained
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn what_differs_is_told_and_nothing_else((old, new) in pair()) {
        let changes = compare(&old, &new).unwrap();
        let differences = differences(&old, &new);
        for difference in &differences {
            prop_assert!(
                changes.iter().any(|change| tells(change, difference)),
                "untold: {difference:?}\n{changes:?}"
            );
        }
        // The world above holds a subject for each line, not a name for each: a line of it may
        // speak of names outside.
        if differences.is_empty() {
            let outside = |c: &Change| c.operations.iter().all(|o| {
                !OPERATIONS.iter().any(|mine| mine.name() == *o) && *o != "All"
            });
            // Nor does it hold every subject whose name a variable makes into another's.
            let stranger = |c: &Change| c.who.iter().any(|fact| match fact.split_once(':') {
                Some(("User", name)) => !USERS.contains(&name),
                Some(("Tenant", name)) => !TENANTS.contains(&name),
                _ => false,
            });
            prop_assert!(changes.iter().all(|c| outside(c) || stranger(c)), "{changes:?}");
        }
        let back = compare(&new, &old).unwrap();
        prop_assert_eq!(changes.is_empty(), back.is_empty());
        prop_assert!(compare(&old, &old).unwrap().is_empty());
    }
}

/// Rules that a lint of this name is about, taken out.
fn without(policies: &[AccessPolicy], lint: &str, problems: &Problems) -> Vec<AccessPolicy> {
    let suffix = format!("[{lint}]");
    let named = problems
        .list
        .iter()
        .filter(|p| p.message.ends_with(&suffix));
    let lines: Vec<u32> = named.map(|p| p.place.as_ref().unwrap().line).collect();
    let mut policies = policies.to_vec();
    for policy in &mut policies {
        let left = policy.rules.iter().cloned();
        policy.rules = left.filter(|r| !lines.contains(&r.at.line)).collect();
    }
    policies
}

proptest! {
    #![proptest_config(cases(192))]

    /// A lint that calls a rule useless is right: without all such rules the same is decided.
    #[test]
    fn what_lints_call_useless_is_useless(
        mut policies in proptest::collection::vec(policy(), 1..6)
    ) {
        let rules = policies.iter_mut().flat_map(|p| Arc::make_mut(&mut p.rules));
        rules.enumerate().for_each(|(i, rule)| rule.at.line = i as u32 + 1);
        let mut problems = Problems::default();
        lint(&policies, &mut problems);
        for name in ["duplicate", "unreachable", "contradictory"] {
            let less = without(&policies, name, &problems);
            prop_assert_eq!(compare(&policies, &less).unwrap(), [], "{} {:?}", name, problems);
        }
    }
}
