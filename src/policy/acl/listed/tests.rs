//! What a filter finds is what Kafka's own classes find; a real broker is asked the same by
//! `tests/surface`.

use super::*;
use crate::policy::acl::tests::policies;
use crate::policy::model::ResourceKind;

const POLICIES: &str = "
kind: AccessPolicy
spec:
  principals: [\"User:app\", \"Group:ops\", \"Tenant:shop\"]
  hosts: [\"10.0.0.7\", \"10.0.0.0/8\", \"::1\"]
  rules:
    - {allow: [Read, Write], topics: [orders, \"orders.*\"]}
---
kind: AccessPolicy
spec:
  principals: [\"User:*\"]
  rules:
    - {deny: [All], topics: [\"*\"], groups: [{literal: \"*\"}]}
    - {allow: [Read], topics: [\"${tenant}.${principal}.*\", \"${tenant}\"]}
    - {allow: [Describe], cluster: true}
---
kind: AccessPolicy
spec:
  principals: [\"User:*\"]
  rules:
    - {allow: [Describe], cluster: true}
";

const EVERY: Filter<'_> = Filter {
    kind: code::ANY,
    name: None,
    pattern: code::ANY,
    principal: None,
    host: None,
    operation: code::ANY,
    permission: code::ANY,
};

fn found(filter: &Filter<'_>) -> BTreeSet<Acl> {
    list(&policies(POLICIES), filter).unwrap()
}

/// Names of the topics' patterns that are found, a star behind prefixes.
fn topics(filter: Filter<'_>) -> Vec<String> {
    let kind = ResourceKind::Topic as u8;
    let filter = Filter {
        kind: kind.into(),
        ..filter
    };
    let acls = found(&filter).into_iter();
    let names: BTreeSet<String> = acls
        .map(|acl| acl.name + if acl.prefixed { "…" } else { "" })
        .collect();
    names.into_iter().collect()
}

fn named(pattern: i64, name: &str) -> Vec<String> {
    topics(Filter {
        name: Some(name),
        pattern,
        ..EVERY
    })
}

#[test]
fn everything_is_listed_once_and_as_readable_as_the_protocol_permits() {
    let all = found(&EVERY);
    // 3 principals, 3 hosts, 2 operations, 2 names; what stands twice is one ACL.
    assert_eq!(all.len(), 36 + 2 + 2 + 1);
    let collect = |text: fn(&Acl) -> &str| {
        let texts: BTreeSet<&str> = all.iter().map(text).collect();
        texts.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(
        collect(|acl| &acl.principal),
        ["Group:ops", "Tenant:shop", "User:*", "User:app"]
    );
    assert_eq!(
        collect(|acl| &acl.host),
        ["*", "0:0:0:0:0:0:0:1", "10.0.0.0/8", "10.0.0.7"]
    );
    assert_eq!(
        collect(|acl| &acl.name),
        [
            "${tenant}",
            "${tenant}.${principal}.",
            "*",
            "kafka-cluster",
            "orders",
            "orders.",
            "{literal: \"*\"}",
        ]
    );
}

#[test]
fn a_name_is_compared_as_its_pattern_type_says() {
    let all = [
        "${tenant}",
        "${tenant}.${principal}.…",
        "*",
        "orders",
        "orders.…",
    ];
    for pattern in [code::ANY, code::MATCH] {
        assert_eq!(topics(Filter { pattern, ..EVERY }), all);
    }
    let pattern = code::PREFIXED;
    assert_eq!(
        topics(Filter { pattern, ..EVERY }),
        ["${tenant}.${principal}.…", "orders.…"]
    );
    assert_eq!(named(code::ANY, "orders."), ["orders.…"]);
    assert_eq!(named(code::ANY, "orders.x"), [""; 0]);
    assert_eq!(named(code::LITERAL, "orders."), [""; 0]);
    assert_eq!(named(code::PREFIXED, "orders."), ["orders.…"]);
    assert_eq!(named(code::PREFIXED, "orders.x"), [""; 0]);
    // What speaks of the name: itself, prefixes of it, and the pattern for every name.
    assert_eq!(named(code::MATCH, "orders.x"), ["*", "orders.…"]);
    assert_eq!(named(code::MATCH, "orders"), ["*", "orders"]);
    assert_eq!(named(code::MATCH, "*"), ["*"]);
    assert_eq!(named(code::LITERAL, "*"), ["*"]);
    assert_eq!(named(code::MATCH, ""), ["*"]);
    // A type that nobody knows.
    assert_eq!(named(9, "orders"), [""; 0]);
}

#[test]
fn every_other_part_of_a_filter_is_for_equality() {
    let count = |filter: Filter<'_>| found(&filter).len();
    let principal = |principal| {
        let principal = Some(principal);
        count(Filter { principal, ..EVERY })
    };
    assert_eq!(
        ["Group:ops", "User:*", "User:", ""].map(principal),
        [12, 5, 0, 0]
    );
    let host = |host| {
        let host = Some(host);
        count(Filter { host, ..EVERY })
    };
    // An address is not looked for in networks.
    assert_eq!(
        ["10.0.0.7", "10.0.0.8", "10.0.0.0/8", "*"].map(host),
        [12, 0, 12, 5]
    );
    let operation = |operation: Operation| {
        let operation = i64::from(operation as u8);
        count(Filter { operation, ..EVERY })
    };
    use Operation::{All, Alter, Describe, Read};
    assert_eq!([Read, Describe, All, Alter].map(operation), [20, 1, 2, 0]);
    let permission = |permission| {
        count(Filter {
            permission,
            ..EVERY
        })
    };
    assert_eq!([code::DENY, code::ALLOW, 7].map(permission), [2, 39, 0]);
    let kind = |kind: ResourceKind| {
        let kind = i64::from(kind as u8);
        count(Filter { kind, ..EVERY })
    };
    use ResourceKind::{Cluster, Group, Topic, User};
    assert_eq!([Topic, Group, Cluster, User].map(kind), [39, 1, 1, 0]);
}

#[test]
fn what_is_listed_is_bounded_and_a_filter_helps() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let users: Vec<String> = (0..300).map(|n| format!("\"User:u{n}\"")).collect();
    let (names, users) = (names.join(", "), users.join(", "));
    let yaml =
        format!("spec: {{principals: [{users}], rules: [{{allow: [Read], topics: [{names}]}}]}}");
    let policies = policies(&yaml);
    assert_eq!(list(&policies, &EVERY), Err(TooMany));
    let principal = Some("User:u7");
    let one = list(&policies, &Filter { principal, ..EVERY });
    assert_eq!(one.map(|acls| acls.len()), Ok(300));
    let long = "x".repeat(400_000);
    let yaml = format!(
        "spec: {{principals: [\"User:{long}\"], rules: [{{allow: [Read], topics: [{names}]}}]}}"
    );
    assert_eq!(list(&self::policies(&yaml), &EVERY), Err(TooMany));
}
