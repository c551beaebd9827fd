//! The compiled decision against a naive reading of the same rules: a loop over all of them,
//! without indexes, written from the ten sentences of Kafka's `StandardAuthorizer`. They must agree
//! on the answer and on the rule that gave it, for random rules and random questions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::IpAddr;
use std::sync::Arc;

use kordon::policy::PolicySet;
use kordon::policy::model::{Operation, ResourceKind, RuleRef, Subject};
use kordon::policy::rule::{
    AccessPolicy, Effect, HostPattern, NamePattern, Part, PrincipalPattern, ResourcePattern, Rule,
    Template,
};
use kordon::policy::tenant::{Boundary, Tenant};
use kordon::principal::{Principal, Proof};
use proptest::prelude::*;

/// The answer, and the line of the rule that gave it.
type Answer = (bool, Option<u32>);

mod oracle {
    use super::*;

    pub fn decide(
        policies: &[AccessPolicy],
        super_users: &[String],
        who: &Subject<'_>,
        operation: Operation,
        kind: ResourceKind,
        name: &str,
    ) -> Answer {
        if super_users.iter().any(|s| **s == *who.principal.name) {
            return (true, None);
        }
        let matching = |effect| {
            let rules = concerning(policies, who).filter(move |r| r.effect == effect);
            rules.filter(move |r| {
                speaks_of(r, operation)
                    && (r.resources.iter())
                        .any(|p| p.kind == kind && names(&p.names, effect, who, name))
            })
        };
        if let Some(deny) = matching(Effect::Deny).next() {
            return (false, Some(deny.at.line));
        }
        match matching(Effect::Allow).next() {
            Some(allow) => (true, Some(allow.at.line)),
            None => (false, None),
        }
    }

    /// What a boundary leaves out is refused, by its own line; everything else is for the rules.
    pub fn decide_within(
        tenants: &[Tenant],
        policies: &[AccessPolicy],
        super_users: &[String],
        who: &Subject<'_>,
        (operation, kind, name): (Operation, ResourceKind, &str),
    ) -> Answer {
        let is_super = super_users.iter().any(|s| **s == *who.principal.name);
        match boundary(tenants, who) {
            Some(boundary) if !is_super && !inside(boundary, who, kind, name) => {
                (false, Some(boundary.at.line))
            }
            _ => decide(policies, super_users, who, operation, kind, name),
        }
    }

    pub fn boundary<'t>(tenants: &'t [Tenant], who: &Subject<'_>) -> Option<&'t Boundary> {
        let own = tenants.iter().find(|t| *t.name == *who.principal.tenant);
        own.and_then(|t| t.boundary.as_ref())
    }

    fn inside(boundary: &Boundary, who: &Subject<'_>, kind: ResourceKind, name: &str) -> bool {
        kind == ResourceKind::Cluster
            || (boundary.resources.iter())
                .any(|r| r.kind == kind && names(&r.names, Effect::Allow, who, name))
    }

    /// Names that stand for all that boundary and rules tell apart: each that is written, and one
    /// below each prefix that nobody else wrote.
    pub fn samples(
        tenants: &[Tenant],
        policies: &[AccessPolicy],
        who: &Subject<'_>,
    ) -> Vec<String> {
        let rules = concerning(policies, who).flat_map(|r| r.resources.iter());
        let bounds = boundary(tenants, who)
            .into_iter()
            .flat_map(|b| &b.resources);
        let mut found = vec!["~".to_owned()];
        for pattern in rules.chain(bounds) {
            match filled(&pattern.names, Effect::Allow, who) {
                Some(Filled::Literal(text)) => found.push(text),
                Some(Filled::Prefix(text)) => {
                    found.push(format!("{text}~"));
                    found.push(text);
                }
                Some(Filled::All) | None => {}
            }
        }
        found
    }

    /// Whether the boundary has `*` for the kind, or there is none.
    pub fn is_open(tenants: &[Tenant], who: &Subject<'_>, kind: ResourceKind) -> bool {
        boundary(tenants, who).is_none_or(|b| {
            (b.resources.iter()).any(|r| r.kind == kind && r.names == NamePattern::All)
        })
    }

    /// Kafka's `authorizeByResourceType`, by listing the patterns as it does. Answers only yes or
    /// no.
    pub fn decide_any(
        policies: &[AccessPolicy],
        super_users: &[String],
        who: &Subject<'_>,
        operation: Operation,
        kind: ResourceKind,
    ) -> bool {
        if decide(policies, super_users, who, operation, kind, "hardcode").0 {
            return true;
        }
        let patterns = |wanted| {
            (concerning(policies, who))
                .filter(move |r| r.effect == wanted)
                .filter(|r| {
                    r.operations
                        .iter()
                        .any(|o| *o == operation || *o == Operation::All)
                })
                .flat_map(|r| &r.resources)
                .filter(|p| p.kind == kind)
                .filter_map(|p| filled(&p.names, wanted, who))
                .collect::<Vec<Filled>>()
        };
        let (denied, allowed) = (patterns(Effect::Deny), patterns(Effect::Allow));
        if denied.contains(&Filled::All) {
            return false;
        }
        allowed.iter().any(|allow| match allow {
            Filled::All => true,
            Filled::Literal(name) => !denied.iter().any(|d| match d {
                Filled::Literal(other) => other == name,
                Filled::Prefix(prefix) => name.starts_with(prefix),
                Filled::All => true,
            }),
            Filled::Prefix(name) => !denied
                .iter()
                .any(|d| matches!(d, Filled::Prefix(prefix) if name.starts_with(prefix))),
        })
    }

    fn concerning<'a>(
        policies: &'a [AccessPolicy],
        who: &'a Subject<'_>,
    ) -> impl Iterator<Item = &'a Rule> {
        let concerned = |p: &&AccessPolicy| {
            p.principals.iter().any(|pattern| match pattern {
                PrincipalPattern::Everyone => true,
                PrincipalPattern::User(u) => *who.principal.name == format!("User:{u}"),
                PrincipalPattern::Group(g) => who.principal.groups.iter().any(|h| **h == *g),
                PrincipalPattern::Tenant(t) => *who.principal.tenant == *t.as_str(),
            }) && (p.hosts.is_empty() || p.hosts.iter().any(|h| bits(h, who.host)))
        };
        policies
            .iter()
            .filter(concerned)
            .flat_map(|p| p.rules.iter())
    }

    /// Bit by bit.
    fn bits(pattern: &HostPattern, host: IpAddr) -> bool {
        let octets = |a: IpAddr| match a {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let (a, b) = (octets(pattern.network), octets(host));
        a.len() == b.len()
            && (0..usize::from(pattern.prefix_bits))
                .all(|i| (a[i / 8] ^ b[i / 8]) & (0x80 >> (i % 8)) == 0)
    }

    fn speaks_of(rule: &Rule, asked: Operation) -> bool {
        use Operation as O;
        rule.operations.iter().any(|o| {
            let implied = match o {
                O::Read | O::Write | O::Delete | O::Alter => asked == O::Describe,
                O::AlterConfigs => asked == O::DescribeConfigs,
                _ => false,
            };
            *o == asked || *o == O::All || (rule.effect == Effect::Allow && implied)
        })
    }

    #[derive(PartialEq)]
    enum Filled {
        Literal(String),
        Prefix(String),
        All,
    }

    fn filled(pattern: &NamePattern, effect: Effect, who: &Subject<'_>) -> Option<Filled> {
        let (template, is_prefix) = match pattern {
            NamePattern::All => return Some(Filled::All),
            NamePattern::Literal(t) => (t, false),
            NamePattern::Prefix(t) => (t, true),
        };
        let mut text = String::new();
        for part in &template.0 {
            let value = match part {
                Part::Text(t) => t,
                Part::Tenant => &*who.principal.tenant,
                Part::Principal => who.principal.name.strip_prefix("User:").unwrap(),
            };
            match (value, effect) {
                ("", Effect::Allow) => return None,
                ("", Effect::Deny) => return Some(Filled::All),
                (value, _) => text.push_str(value),
            }
        }
        Some(if is_prefix {
            Filled::Prefix(text)
        } else {
            Filled::Literal(text)
        })
    }

    fn names(pattern: &NamePattern, effect: Effect, who: &Subject<'_>, name: &str) -> bool {
        match filled(pattern, effect, who) {
            None => false,
            Some(Filled::All) => true,
            Some(Filled::Literal(text)) => text == name,
            Some(Filled::Prefix(text)) => name.starts_with(&text),
        }
    }
}

// Few letters, so that random names and patterns meet often.
const LETTERS: &str = "[ab*]{1,4}";

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::EVERY.to_vec())
}

/// Two kinds are enough to see that they are kept apart.
fn kind() -> impl Strategy<Value = ResourceKind> {
    prop::sample::select(vec![ResourceKind::Topic, ResourceKind::Group])
}

fn template() -> impl Strategy<Value = Template> {
    let part = prop_oneof![
        8 => LETTERS.prop_map(Part::Text),
        1 => Just(Part::Tenant),
        1 => Just(Part::Principal),
        1 => Just(Part::Text("hardcode".to_owned())),
    ];
    prop::collection::vec(part, 1..3).prop_map(Template)
}

fn pattern() -> impl Strategy<Value = ResourcePattern> {
    let names = prop_oneof![
        1 => Just(NamePattern::All),
        3 => template().prop_map(NamePattern::Literal),
        3 => template().prop_map(NamePattern::Prefix),
        1 => Just(NamePattern::Prefix(Template::text("h"))),
    ];
    (kind(), names).prop_map(|(kind, names)| ResourcePattern { kind, names })
}

fn rule() -> impl Strategy<Value = Rule> {
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let operations = prop::collection::vec(operation(), 1..4);
    (effect, operations, prop::collection::vec(pattern(), 1..4)).prop_map(
        |(effect, operations, resources)| Rule {
            at: RuleRef {
                file: "random.yaml".into(),
                line: 0,
            },
            effect,
            operations,
            resources,
        },
    )
}

fn principal_pattern() -> impl Strategy<Value = PrincipalPattern> {
    prop_oneof![
        2 => Just(PrincipalPattern::Everyone),
        3 => "[ab]".prop_map(PrincipalPattern::User),
        2 => "[gh]".prop_map(PrincipalPattern::Group),
        2 => "[st]".prop_map(PrincipalPattern::Tenant),
    ]
}

fn host() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u8>().prop_map(|b| IpAddr::from([10, 0, b & 3, b])),
        any::<u16>().prop_map(|b| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, b & 3, b])),
    ]
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    (host(), 0u8..=128).prop_map(|(network, bits)| HostPattern {
        network,
        prefix_bits: if network.is_ipv4() { bits % 33 } else { bits },
    })
}

fn policies() -> impl Strategy<Value = Vec<AccessPolicy>> {
    let policy = (
        prop::collection::vec(principal_pattern(), 1..3),
        prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(host_pattern(), 1..3)],
        prop::collection::vec(rule(), 0..6),
    );
    let policy = policy.prop_map(|(principals, hosts, rules)| AccessPolicy {
        name: "random".to_owned(),
        principals,
        hosts,
        rules: rules.into(),
    });
    prop::collection::vec(policy, 0..5).prop_map(|mut policies| {
        let rules = policies
            .iter_mut()
            .flat_map(|p| Arc::make_mut(&mut p.rules));
        for (rule, line) in rules.zip(1..) {
            rule.at.line = line;
        }
        policies
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let groups = prop::collection::vec("[gh]", 0..3);
    ("[ab]", prop_oneof![Just(String::new()), "[st]"], groups).prop_map(|(user, tenant, groups)| {
        Principal {
            name: format!("User:{user}").into(),
            tenant: tenant.into(),
            groups: groups.into_iter().map(Arc::from).collect(),
            proof: Proof::Token,
            expires_at: None,
        }
    })
}

/// Few names and few operations, as many denies as allows: what one rule gives, another one
/// often takes.
fn contradictions() -> impl Strategy<Value = Vec<AccessPolicy>> {
    let name = prop::sample::select(vec!["a", "ab", "b", "hardcode", "h"]);
    let names = (name, 0..5).prop_map(|(name, shape)| match shape {
        0 | 1 => NamePattern::Literal(Template::text(name)),
        2 | 3 => NamePattern::Prefix(Template::text(name)),
        _ => NamePattern::All,
    });
    let effect = prop::sample::select(vec![Effect::Allow, Effect::Deny]);
    let operations = prop::sample::subsequence(vec![Operation::Write, Operation::All], 1..=2);
    let rule = (effect, operations, names).prop_map(|(effect, operations, names)| {
        let kind = ResourceKind::Topic;
        let resources = vec![ResourcePattern { kind, names }];
        let at = RuleRef {
            file: "random.yaml".into(),
            line: 0,
        };
        Rule {
            at,
            effect,
            operations,
            resources,
        }
    });
    prop::collection::vec(rule, 1..5).prop_map(|rules| {
        vec![AccessPolicy {
            name: "random".to_owned(),
            principals: vec![PrincipalPattern::Everyone],
            hosts: vec![],
            rules: rules.into(),
        }]
    })
}

/// A tenant `s` with a boundary, and a tenant `t` that has one or not.
fn tenants() -> impl Strategy<Value = Vec<Tenant>> {
    let boundary = || {
        prop::collection::vec(pattern(), 0..4).prop_map(|resources| Boundary {
            at: RuleRef {
                file: "random.yaml".into(),
                line: 0,
            },
            resources,
        })
    };
    (boundary(), prop::option::of(boundary())).prop_map(|(s, t)| {
        let tenant = |name: &str, boundary: Option<Boundary>, line| Tenant {
            name: name.to_owned(),
            at: RuleRef {
                file: "random.yaml".into(),
                line,
            },
            matches: Vec::new(),
            boundary: boundary.map(|mut b| {
                b.at.line = line;
                b
            }),
        };
        vec![tenant("s", Some(s), 1_000), tenant("t", t, 2_000)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn decide_agrees_with_the_oracle(
        policies in policies(),
        principal in principal(),
        host in host(),
        super_users in prop_oneof![9 => Just(vec![]), 1 => Just(vec!["User:a".to_owned()])],
        asked in prop::collection::vec((operation(), kind(), "[abst*]{0,6}"), 1..20),
    ) {
        let who = Subject { principal: &principal, host };
        let set = PolicySet::new(policies.clone(), super_users.clone());
        let view = set.view(&who);
        for (operation, kind, name) in asked {
            let got = view.decide(operation, kind, &name);
            let got = (got.allowed, got.rule.map(|r| r.line));
            let want = oracle::decide(&policies, &super_users, &who, operation, kind, &name);
            prop_assert_eq!(got, want, "{:?} {:?} {:?}", operation, kind, name);

            let any = view.decide_any(operation, kind);
            let want_any = oracle::decide_any(&policies, &super_users, &who, operation, kind);
            prop_assert_eq!(any.allowed, want_any, "any {:?} {:?}", operation, kind);

            // What is allowed on every name is allowed on this one.
            prop_assert!(!view.allows_all(operation, kind) || got.0);
            let considered = view.considered(operation, kind, &name);
            prop_assert!(got.1.is_none_or(|l| considered.iter().any(|c| c.rule.line == l)));
        }
    }

    #[test]
    fn decisions_within_a_boundary_agree_with_the_oracle(
        policies in prop_oneof![policies(), contradictions()],
        tenants in tenants(),
        principal in principal(),
        super_users in prop_oneof![9 => Just(vec![]), 1 => Just(vec!["User:a".to_owned()])],
        asked in prop::collection::vec((operation(), kind(), "[abst*]{0,6}"), 1..20),
    ) {
        let who = Subject { principal: &principal, host: IpAddr::from([10, 0, 0, 1]) };
        let set = PolicySet::new(policies.clone(), super_users.clone()).within(tenants.clone());
        let view = set.view(&who);
        let is_super = view.is_super_user();
        let samples = oracle::samples(&tenants, &policies, &who);
        for (operation, kind, name) in asked {
            let ask = |name: &str| {
                let question = (operation, kind, name);
                oracle::decide_within(&tenants, &policies, &super_users, &who, question)
            };
            for name in samples.iter().chain([&name]) {
                let got = view.decide(operation, kind, name);
                let got = (got.allowed, got.rule.map(|r| r.line));
                prop_assert_eq!(got, ask(name), "{:?} {:?} {:?}", operation, kind, name);
                prop_assert!(!view.allows_all(operation, kind) || got.0);
                let considered = view.considered(operation, kind, name);
                prop_assert!(got.1.is_none_or(|l| considered.iter().any(|c| c.rule.line == l)));
            }
            let open = is_super || oracle::is_open(&tenants, &who, kind);
            prop_assert!(open || !view.allows_all(operation, kind));

            let any = view.decide_any(operation, kind);
            let want = match open {
                true => oracle::decide_any(&policies, &super_users, &who, operation, kind),
                false => samples.iter().any(|name| ask(name).0),
            };
            prop_assert_eq!(any.allowed, want, "any {:?} {:?}", operation, kind);
            let line = any.rule.map(|r| r.line);
            prop_assert!(is_super || !any.allowed || line.is_some_and(|l| l < 1_000));
        }
        for name in ["kafka-cluster", "~"] {
            let (operation, kind) = (Operation::Alter, ResourceKind::Cluster);
            let unbounded = PolicySet::new(policies.clone(), super_users.clone()).view(&who);
            prop_assert_eq!(
                view.decide(operation, kind, name),
                unbounded.decide(operation, kind, name)
            );
        }
    }

    #[test]
    fn asking_about_a_kind_agrees_with_the_oracle(
        policies in contradictions(),
        principal in principal(),
    ) {
        let who = Subject { principal: &principal, host: IpAddr::from([10, 0, 0, 1]) };
        let view = PolicySet::new(policies.clone(), vec![]).view(&who);
        for operation in [Operation::Write, Operation::Describe, Operation::All] {
            let want = oracle::decide_any(&policies, &[], &who, operation, ResourceKind::Topic);
            let got = view.decide_any(operation, ResourceKind::Topic);
            prop_assert_eq!(got.allowed, want, "{:?}", operation);
            prop_assert!(!got.allowed || got.rule.is_some());
        }
    }
}
