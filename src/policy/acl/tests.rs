//! ACLs and policies decide alike, whichever came first; what cannot be said is named.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::document;
use crate::policy::compare::compare;
use crate::policy::parse::access_policy;
use crate::problem::Problems;

/// The access policies of a file.
pub(super) fn policies(yaml: &str) -> Vec<AccessPolicy> {
    let mut problems = Problems::default();
    let documents = document::parse(&"p.yaml".into(), yaml, &mut problems);
    let mut policies = Vec::new();
    for document in &documents {
        let document::Value::Mapping(entries) = &document.value else {
            panic!("{yaml}");
        };
        let spec = entries.iter().find(|e| e.key == "spec").unwrap();
        policies.extend(access_policy("p", &spec.value, &mut problems));
    }
    assert!(!problems.has_errors(), "{yaml}\n{problems:#?}");
    policies
}

fn acl(kind: ResourceKind, name: &str, principal: &str, host: &str) -> Acl {
    Acl {
        kind,
        prefixed: false,
        name: name.to_owned(),
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation: Operation::Read,
        deny: false,
    }
}

#[test]
fn policies_are_written_as_people_write_them() {
    let mut prefixed = acl(ResourceKind::Topic, "orders.", "User:a", "*");
    prefixed.prefixed = true;
    let mut deny = acl(ResourceKind::Topic, "*", "User:*", "10.0.0.1");
    (deny.deny, deny.operation) = (true, Operation::All);
    let cluster = acl(
        ResourceKind::Cluster,
        "kafka-cluster",
        "User:a",
        "0:0:0:0:0:0:0:1",
    );
    let starred = acl(ResourceKind::Group, "g*", "User:CN=a b", "*");
    let yaml = to_yaml(&[
        prefixed,
        acl(ResourceKind::Topic, "true", "User:a", "*"),
        deny,
        cluster,
        starred,
    ]);
    assert_eq!(
        yaml.unwrap(),
        "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: everybody}
spec:
  principals: [\"User:*\"]
  hosts: [\"10.0.0.1\"]
  rules:
    - {deny: [All], topics: [\"*\"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: CN-a-b}
spec:
  principals: [\"User:CN=a b\"]
  rules:
    - {allow: [Read], groups: [{literal: \"g*\"}]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: a}
spec:
  principals: [\"User:a\"]
  rules:
    - {allow: [Read], topics: [\"true\", \"orders.*\"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: a-2}
spec:
  principals: [\"User:a\"]
  hosts: [\"0:0:0:0:0:0:0:1\"]
  rules:
    - {allow: [Read], cluster: true}
"
    );
}

#[test]
fn what_policies_cannot_say_is_named_and_nothing_is_printed() {
    let topic = ResourceKind::Topic;
    let cases = [
        (acl(topic, "x", "Group:g", "*"), "type `User`"),
        (acl(topic, "x", "RegexUser:g.*", "*"), "type `User`"),
        (acl(topic, "${tenant}", "User:a", "*"), "variable"),
        (
            acl(topic, "x", "User:a", "localhost"),
            "compares with nothing",
        ),
        (acl(topic, "x", "User:a", "::1"), "compares with nothing"),
        (
            acl(topic, "x", "User:a", "10.0.0.0/8"),
            "compares with nothing",
        ),
        (acl(topic, "", "User:a", "*"), "empty"),
        (
            acl(ResourceKind::Cluster, "other", "User:a", "*"),
            "kafka-cluster",
        ),
    ];
    for (wrong, why) in cases {
        let mistakes = to_yaml(&[acl(topic, "x", "User:a", "*"), wrong.clone()]).unwrap_err();
        let [mistake] = &mistakes[..] else {
            panic!("{mistakes:?}");
        };
        assert!(
            mistake.contains(&wrong.principal) && mistake.contains(why),
            "{mistake}"
        );
    }
}

#[test]
fn what_goes_beyond_kafka_is_named_with_its_rule() {
    let beyond = from_policies(&policies(
        "spec:
  principals: [\"Group:g\", \"Tenant:t\", \"User:a\"]
  hosts: [\"10.0.0.0/8\", \"10.0.0.1\"]
  rules:
    - {allow: [Read], topics: [x]}
    - {allow: [Read], topics: [\"${tenant}.*\", {literal: \"*\"}]}
",
    ));
    let said: Vec<String> = (beyond.unwrap_err().iter())
        .map(|b| format!("{} {}", b.rule.line, b.what))
        .collect();
    assert_eq!(
        said,
        [
            "5 `Group:g`",
            "5 `Tenant:t`",
            "5 the network `10.0.0.0/8`",
            "6 the variable in `${tenant}.*`",
            "6 the literal name `*`, which is every name to Kafka",
        ]
    );
}

fn any_acl() -> impl Strategy<Value = Acl> {
    let names = [
        "x", "x.", "x.y", "*", "a*", "5", "null", "é \"", "a: b", "#",
    ];
    let hosts = ["*", "*", "10.0.0.1", "2001:db8:0:0:0:0:0:1"];
    let principals = [
        "User:a",
        "User:b c",
        "User:*",
        "User:CN=a,O=\"x\"",
        "User:a:b",
    ];
    (
        select(ResourceKind::EVERY.to_vec()),
        (any::<bool>(), select(names.to_vec())),
        select(principals.to_vec()),
        select(hosts.to_vec()),
        select(Operation::EVERY.to_vec()),
        any::<bool>(),
    )
        .prop_map(
            |(kind, (prefixed, name), principal, host, operation, deny)| {
                let cluster = kind == ResourceKind::Cluster;
                Acl {
                    kind,
                    prefixed: prefixed && !cluster,
                    name: if cluster { CLUSTER_NAME } else { name }.to_owned(),
                    principal: principal.to_owned(),
                    host: host.to_owned(),
                    operation,
                    deny,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    })]

    /// There and back are the same ACLs; back and there decides the same.
    #[test]
    fn a_round_trip_changes_nothing(acls in proptest::collection::btree_set(any_acl(), 1..12)) {
        let acls: Vec<Acl> = acls.into_iter().collect();
        let imported = policies(&to_yaml(&acls).unwrap());
        let exported = from_policies(&imported).unwrap();
        // Where a rule holds everywhere, the same rule for one host is left out.
        for acl in &acls {
            let everywhere = Acl { host: "*".to_owned(), ..acl.clone() };
            prop_assert!(exported.contains(acl) || exported.contains(&everywhere), "{acl:?}");
        }
        for acl in &exported {
            prop_assert!(acls.contains(acl), "{acl:?}");
        }
        let again = policies(&to_yaml(&exported).unwrap());
        prop_assert_eq!(compare(&imported, &again).unwrap(), []);
    }
}
