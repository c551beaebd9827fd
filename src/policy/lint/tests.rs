//! What is found, and what looks like it and is meant.

use super::*;
use crate::document;
use crate::policy::parse::access_policy;

/// Policies as `principals | hosts | rules`, rules apart by `;`, to findings as `line name`: each
/// rule stands on a line of its own, each policy begins at a hundred.
fn found(policies: &[(&str, &str, &[&str])]) -> Vec<String> {
    let mut problems = Problems::default();
    let mut set = Vec::new();
    for (i, (principals, hosts, rules)) in policies.iter().enumerate() {
        let rules: String = rules.iter().map(|r| format!("  - {{{r}}}\n")).collect();
        let hosts = match *hosts {
            "" => String::new(),
            hosts => format!("hosts: [{hosts}]\n"),
        };
        let before = "\n".repeat(100 * (i + 1) - hosts.lines().count());
        let text = format!("#{before}{hosts}principals: [{principals}]\nrules:\n{rules}");
        let documents = document::parse(&"p.yaml".into(), &text, &mut problems);
        set.extend(access_policy("p", &documents[0], &mut problems));
    }
    assert!(!problems.has_errors(), "{problems:#?}");
    problems.list.clear();
    lint(&set, &mut problems);
    let told = problems.list.iter().map(|p| {
        let line = p.place.as_ref().unwrap().line;
        let name = p.message.rsplit_once('[').unwrap().1.trim_end_matches(']');
        assert!(p.help.is_some());
        format!("{} {name}", line - 2)
    });
    told.collect()
}

const EVERYBODY: &str = "\"User:*\"";
const A: &str = "\"User:a\"";

#[test]
fn an_allow_that_denies_leave_nothing_of_is_unreachable() {
    let deny: (&str, &str, &[&str]) = (EVERYBODY, "", &["deny: [All], topics: [\"audit.*\"]"]);
    let allow = |rule| (A, "", vec![rule]);
    let one = |rule: &'static str| {
        let (who, hosts, rules) = allow(rule);
        found(&[deny, (who, hosts, &rules)])
    };
    assert_eq!(
        one("allow: [Read], topics: [audit.events]"),
        ["201 unreachable"]
    );
    assert_eq!(
        one("allow: [All], topics: [audit.a, \"audit.b*\"]"),
        ["201 unreachable"]
    );
    assert_eq!(one("allow: [Read], topics: [audit.events, other]"), [""; 0]);
    assert_eq!(one("allow: [Read], topics: [\"audit*\"]"), [""; 0]);
    assert_eq!(one("allow: [Read], groups: [audit.events]"), [""; 0]);
    // Read also allows Describe, which a deny of Read leaves.
    let read: (&str, &str, &[&str]) = (A, "", &["deny: [Read], topics: [x]"]);
    let allow: (&str, &str, &[&str]) = (A, "", &["allow: [Read], topics: [x]"]);
    assert_eq!(found(&[read, allow]), [""; 0]);
    let both: (&str, &str, &[&str]) = (A, "", &["deny: [Read, Describe], topics: [x]"]);
    assert_eq!(found(&[both, allow]), ["201 unreachable"]);
}

#[test]
fn denies_of_other_subjects_leave_something() {
    let allow: (&str, &str, &[&str]) = (A, "", &["allow: [Create], topics: [x]"]);
    let rules: &[&str] = &["deny: [Create], topics: [\"*\"]"];
    for (who, hosts) in [
        ("\"User:b\"", ""),
        ("\"Group:a\"", ""),
        ("\"Tenant:a\"", ""),
        (A, "10.0.0.0/8"),
    ] {
        assert_eq!(
            found(&[allow, (who, hosts, rules)]),
            [""; 0],
            "{who} {hosts}"
        );
    }
    assert_eq!(found(&[allow, (A, "", rules)]), ["101 unreachable"]);
    let near: (&str, &str, &[&str]) = (A, "10.1.0.0/16, 10.2.0.1", allow.2);
    assert_eq!(
        found(&[near, (A, "10.0.0.0/8", rules)]),
        ["101 unreachable"]
    );
}

#[test]
fn an_allow_and_a_deny_of_the_same_contradict_each_other() {
    let rules: &[&str] = &[
        "allow: [Create, Alter, Describe], topics: [x]",
        "deny: [Create, Alter, Describe], topics: [x]",
    ];
    assert_eq!(found(&[(A, "", rules)]), ["101 contradictory"]);
}

#[test]
fn a_rule_that_others_say_already_is_a_duplicate() {
    let twice: &[&str] = &["allow: [Read], topics: [x]", "allow: [Read], topics: [x]"];
    assert_eq!(found(&[(A, "", twice)]), ["102 duplicate"]);
    let implied: &[&str] = &[
        "allow: [Describe], topics: [x.y]",
        "allow: [Read], topics: [\"x.*\"]",
    ];
    assert_eq!(found(&[(A, "", implied)]), ["101 duplicate"]);
    let wide: (&str, &str, &[&str]) = (EVERYBODY, "", &["allow: [Read], topics: [\"*\"]"]);
    assert_eq!(
        found(&[(A, "10.0.0.1", twice), wide]),
        ["101 duplicate", "102 duplicate"]
    );
    // Together, not alone.
    let parts: &[&str] = &[
        "allow: [Read, Write], topics: [x]",
        "allow: [Read], topics: [x]",
        "allow: [Write], topics: [\"x*\"]",
    ];
    assert_eq!(found(&[(A, "", parts)]), ["102 duplicate"]);
    let denied: &[&str] = &["deny: [Describe], topics: [x]", "deny: [Read], topics: [x]"];
    assert_eq!(found(&[(A, "", denied)]), [""; 0]);
}

#[test]
fn a_deny_with_a_variable_is_not_covered_by_one_without() {
    // Without a tenant it denies every name.
    let rules: &[&str] = &[
        "deny: [Read], topics: [\"x.*\"]",
        "deny: [Read], topics: [\"x.${tenant}\"]",
    ];
    assert_eq!(found(&[(A, "", rules)]), [""; 0]);
    let beside: &[&str] = &["deny: [Read], topics: [\"x.*\", \"x.${tenant}\"]"];
    assert_eq!(found(&[(A, "", beside)]), [""; 0]);
    let allows: &[&str] = &[
        "allow: [Read], topics: [\"x.*\"]",
        "allow: [Read], topics: [\"x.${tenant}\"]",
    ];
    assert_eq!(found(&[(A, "", allows)]), ["102 duplicate"]);
}

#[test]
fn names_beside_a_pattern_that_covers_them() {
    let one = |names: &str| {
        let rule = format!("allow: [Read], topics: [{names}]");
        found(&[(A, "", &[&rule])])
    };
    assert_eq!(one("a, b, \"a.*\""), [""; 0]);
    assert_eq!(one("a.b, \"a.*\""), ["101 covered-name"]);
    assert_eq!(one("\"*\", \"a.*\""), ["101 covered-name"]);
    assert_eq!(one("a, a"), ["101 covered-name"]);
    assert_eq!(one("\"${tenant}.x\", \"${tenant}*\""), ["101 covered-name"]);
    assert_eq!(one("\"t.x\", \"${tenant}*\""), [""; 0]);
}

#[test]
fn everything_for_everybody_is_over_broad() {
    let one = |who, hosts, rule| found(&[(who, hosts, &[rule])]);
    let all = "allow: [All], topics: [\"*\"]";
    assert_eq!(one(EVERYBODY, "", all), ["101 over-broad"]);
    assert_eq!(
        one(EVERYBODY, "", "allow: [All], cluster: true"),
        ["101 over-broad"]
    );
    assert_eq!(one(A, "", all), [""; 0]);
    assert_eq!(one(EVERYBODY, "10.0.0.0/8", all), [""; 0]);
    assert_eq!(one(EVERYBODY, "", "deny: [All], topics: [\"*\"]"), [""; 0]);
    assert_eq!(
        one(EVERYBODY, "", "allow: [Describe], topics: [\"*\"]"),
        [""; 0]
    );
    assert_eq!(
        one(EVERYBODY, "", "allow: [All], topics: [\"${tenant}.*\"]"),
        [""; 0]
    );
}

#[test]
fn names_that_differ_only_in_case() {
    let rules: &[&str] = &["allow: [Read], topics: [x]"];
    let other: &[&str] = &["allow: [Read], topics: [y]"];
    assert_eq!(
        found(&[
            ("\"Group:Ops\"", "", rules),
            ("\"Group:ops\"", "", other),
            ("\"Group:ops\"", "", &["allow: [Read], topics: [z]"])
        ]),
        ["101 nearly-same-name"]
    );
    assert_eq!(
        found(&[("\"Group:Ops\", \"Group:ops\"", "", rules)]),
        [""; 0]
    );
    assert_eq!(
        found(&[("\"Group:ops\"", "", rules), ("\"Tenant:Ops\"", "", other)]),
        [""; 0]
    );
    assert_eq!(
        found(&[("\"Group:ops\"", "", rules), ("\"Group:oops\"", "", other)]),
        [""; 0]
    );
}

/// Each name is held against the few that may cover it, not against all.
#[test]
fn a_rule_of_very_many_names_is_looked_at_in_time() {
    let names: Vec<String> = (0..60_000).map(|i| format!("t{i}")).collect();
    let rule = format!("allow: [Read], topics: [{}, \"t5999*\"]", names.join(", "));
    let begun = std::time::Instant::now();
    let covered = found(&[(A, "", &[&rule])]);
    // t5999 and the ten behind it.
    assert_eq!(covered, ["101 covered-name"; 11]);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    // Two such rules are more than is compared, and that is said.
    let two = found(&[(A, "", &[&rule, &rule])]);
    assert_eq!(
        two.iter().filter(|said| said.ends_with("too-many")).count(),
        1
    );
}
