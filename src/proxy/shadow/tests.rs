//! Which differences between two sets are told.

use super::*;
use crate::policy::rule::{
    AccessPolicy, Effect, NamePattern, PrincipalPattern, ResourcePattern, Rule, Template,
};
use crate::policy::tenant::{TenantMatch, Text};
use crate::principal::Proof;

use Operation::{Create, Describe, Read};
use ResourceKind::{Cluster, Group, Topic};

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn principal(tenant: &str) -> Principal {
    Principal {
        name: "User:a".into(),
        tenant: tenant.into(),
        groups: [].into(),
        proof: Proof::Static,
        expires_at: None,
    }
}

fn at(line: u32) -> RuleRef {
    let file = "p.yaml".into();
    RuleRef { file, line }
}

/// Allows `operation` on these names, on line 1 and those below.
fn allowing(who: PrincipalPattern, names: &[(Operation, ResourceKind, &str)]) -> PolicySet {
    let rules = names
        .iter()
        .zip(1..)
        .map(|((operation, kind, name), line)| Rule {
            at: at(line),
            effect: Effect::Allow,
            operations: vec![*operation],
            resources: vec![ResourcePattern {
                kind: *kind,
                names: NamePattern::Literal(Template::text(*name)),
            }],
        });
    let policy = AccessPolicy {
        name: "p".into(),
        principals: vec![who],
        hosts: Vec::new(),
        rules: rules.collect(),
    };
    PolicySet::new(vec![policy], Vec::new())
}

fn view(names: &[(Operation, ResourceKind, &str)]) -> View {
    let subject = Subject {
        principal: &principal(""),
        host: HOST,
    };
    allowing(PrincipalPattern::Everyone, names).view(&subject)
}

fn run(passed: bool, denied: &[(Operation, ResourceKind, &str)]) -> Run {
    let mut run = Run {
        passed,
        ..Run::default()
    };
    for (operation, kind, name) in denied {
        run.deny((*operation, *kind, (*name).to_owned()), None);
    }
    run
}

/// `+` would be allowed, `-` would be denied; with the name and the line of the rule.
fn told(in_force: (&Run, &View), other: (&Run, &View)) -> Vec<String> {
    let mut found = Differences::default();
    compare(ShadowSet::Shadow, in_force, other, &mut found);
    let mut told: Vec<_> = { found.list().iter() }
        .map(|one| {
            let sign = if one.would == Would::Allow { '+' } else { '-' };
            let name = one.asked.as_ref().map_or("", |(_, _, name)| name);
            let line = one.rule.as_ref().map_or(0, |rule| rule.line);
            format!("{sign}{name}:{line}")
        })
        .collect();
    told.sort();
    told
}

#[test]
fn what_both_refuse_is_no_difference() {
    let nothing = view(&[]);
    let refused = run(false, &[(Read, Topic, "a"), (Read, Topic, "b")]);
    assert_eq!(told((&refused, &nothing), (&refused, &nothing)), [""; 0]);
}

#[test]
fn what_one_refuses_and_the_other_does_not_is_told_either_way() {
    let (a, b) = (view(&[(Read, Topic, "a")]), view(&[(Read, Topic, "b")]));
    let (no_b, no_a) = (
        run(true, &[(Read, Topic, "b")]),
        run(true, &[(Read, Topic, "a")]),
    );
    assert_eq!(told((&no_b, &a), (&no_a, &b)), ["+b:1", "-a:0"]);
}

/// In force Create on the cluster suffices; the other set allows one of the topics only.
#[test]
fn another_reason_to_let_a_request_pass_is_no_difference() {
    let cluster = view(&[(Create, Cluster, "kafka-cluster")]);
    let topics = view(&[(Create, Topic, "a")]);
    let (passed, no_b) = (run(true, &[]), run(true, &[(Create, Topic, "b")]));
    assert_eq!(told((&passed, &cluster), (&no_b, &topics)), ["-b:0"]);
    assert_eq!(told((&no_b, &topics), (&passed, &cluster)), ["+b:0"]);
    assert_eq!(
        told((&passed, &cluster), (&run(true, &[]), &topics)),
        [""; 0]
    );
}

/// The other set refuses the group, so that nobody asks it about the topic.
#[test]
fn what_a_set_is_not_asked_about_counts_as_it_would_decide() {
    let in_force = view(&[(Read, Group, "g")]);
    let no_topic = run(false, &[(Describe, Topic, "t")]);
    let no_group = run(false, &[(Read, Group, "g")]);
    let neither = view(&[]);
    assert_eq!(
        told((&no_topic, &in_force), (&no_group, &neither)),
        ["-g:0"]
    );
    let topic_only = view(&[(Describe, Topic, "t")]);
    assert_eq!(
        told((&no_topic, &in_force), (&no_group, &topic_only)),
        ["+t:1", "-g:0"]
    );
}

#[test]
fn a_request_that_is_refused_for_no_single_name_is_told_as_a_whole() {
    let nothing = view(&[]);
    let (passed, refused) = (run(true, &[]), run(false, &[]));
    assert_eq!(told((&passed, &nothing), (&refused, &nothing)), ["-:0"]);
    assert_eq!(told((&refused, &nothing), (&passed, &nothing)), ["+:0"]);
}

#[test]
fn beyond_the_bound_nothing_is_guessed() {
    let nothing = view(&[]);
    let mut cut = run(true, &[]);
    for number in 0..=COMPARED_MAX {
        cut.deny((Read, Topic, format!("t{number}")), None);
    }
    assert!(cut.is_cut && cut.denied.len() == COMPARED_MAX);
    let last = run(true, &[(Read, Topic, &format!("t{COMPARED_MAX}"))]);
    let mut found = Differences::default();
    compare(
        ShadowSet::Shadow,
        (&cut, &nothing),
        (&last, &nothing),
        &mut found,
    );
    assert!(found.list().iter().all(|one| one.would == Would::Allow));
}

#[test]
fn every_difference_is_counted_and_as_many_as_have_room_are_told() {
    let set = Beside {
        which: ShadowSet::Observe,
        view: view(&[(Read, Topic, "open")]).into(),
        policy: None,
        note: None,
    };
    let mut found = Differences::default();
    found.allowed(std::slice::from_ref(&set), Read, Topic, "open");
    assert!(found.list().is_empty());
    for number in 0..DECISIONS_MAX + 3 {
        found.allowed(std::slice::from_ref(&set), Read, Topic, &number.to_string());
    }
    let found = found.0.unwrap();
    let more = found.more[Would::Deny as usize][ShadowSet::Observe as usize];
    assert_eq!((found.list.len(), more), (DECISIONS_MAX, 3));
}

fn tenant(name: &str, stem: &str) -> Tenant {
    Tenant {
        name: name.into(),
        at: at(1),
        matches: vec![TenantMatch::User(Text {
            stem: stem.into(),
            is_prefix: false,
        })],
        boundary: None,
    }
}

/// What a set of rules for members of `next` says of somebody in force in `shop`.
fn asked(tenants: Option<Vec<Tenant>>, proven: &str) -> (bool, Option<String>) {
    let next = PrincipalPattern::Tenant("next".into());
    let set = Set {
        which: ShadowSet::Shadow,
        access: allowing(next, &[(Read, Topic, "t")]),
        tenants,
        digest: "ab".repeat(32),
        files: Vec::new(),
    };
    let (proven, claims) = (principal(proven), TextClaims::default());
    let beside = set.beside(&proven, &principal("shop"), &claims, HOST);
    assert_eq!(beside.policy.as_deref(), Some("abababababababab"));
    (beside.view.decide(Read, Topic, "t").allowed, beside.note)
}

#[test]
fn a_set_has_its_own_idea_of_who_belongs_where() {
    let there = |name: &str| Some(format!("there the client's tenant is `{name}`"));
    assert_eq!(asked(None, ""), (false, None));
    assert_eq!(asked(Some(vec![tenant("shop", "a")]), ""), (false, None));
    let next = || tenant("next", "a");
    assert_eq!(asked(Some(vec![next()]), ""), (true, there("next")));
    let none = Some("there the client has no tenant".to_owned());
    assert_eq!(asked(Some(vec![tenant("next", "b")]), ""), (false, none));
    // What is proven no set changes.
    assert_eq!(asked(Some(vec![next()]), "shop"), (false, None));
    let (allowed, note) = asked(Some(vec![next(), tenant("shop", "a")]), "");
    assert!(!allowed, "it would not be served");
    assert!(note.unwrap().contains("matches two tenants"));
}
