//! What comes in from elsewhere, and that it is all there.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::apis;

#[test]
fn strimzi_users_become_policies() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("users.yaml");
    let users = "apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaUser
metadata: {name: orders, labels: {strimzi.io/cluster: prod}}
spec:
  authentication: {type: scram-sha-512}
  authorization:
    type: simple
    acls:
      - resource: {type: topic, name: orders., patternType: prefix}
        operations: [Read, Describe]
        host: \"*\"
      - resource: {type: group, name: \"*\"}
        operation: Read
      - {type: deny, resource: {type: cluster}, operations: [Alter], host: 10.0.0.1}
---
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaUser
metadata: {name: cart}
spec:
  authentication: {type: tls}
  authorization:
    type: simple
    acls: [{resource: {type: transactionalId, name: cart}, operations: [Write]}]
";
    fs::write(&path, users).unwrap();
    let options = |files| Options {
        from: From::Strimzi { files },
    };
    let mut out = Vec::new();
    assert_eq!(run(&options(vec![path.clone()]), &mut out).unwrap(), 0);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: CN-cart}
spec:
  principals: [\"User:CN=cart\"]
  rules:
    - {allow: [Write], transactionalIds: [cart]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: orders}
spec:
  principals: [\"User:orders\"]
  rules:
    - {allow: [Read, Describe], topics: [\"orders.*\"]}
    - {allow: [Read], groups: [\"*\"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: orders-2}
spec:
  principals: [\"User:orders\"]
  hosts: [\"10.0.0.1\"]
  rules:
    - {deny: [Alter], cluster: true}
"
    );
    for (good, wrong) in [
        ("Read, Describe", "Raed"),
        ("type: group", "type: share"),
        ("type: simple", "type: custom"),
        ("host: 10.0.0.1", "host: somewhere"),
        ("kind: KafkaUser", "kind: KafkaTopic"),
        ("patternType", "pattern"),
    ] {
        fs::write(&path, users.replacen(good, wrong, 1)).unwrap();
        let mut out = Vec::new();
        assert_eq!(
            run(&options(vec![path.clone()]), &mut out).unwrap(),
            1,
            "{wrong}"
        );
        assert!(out.is_empty(), "{wrong}");
    }
}

/// As `kubectl get kafkausers -o yaml` prints them.
#[test]
fn a_list_of_strimzi_users_is_read_too() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("users.yaml");
    let user = |name: &str| {
        format!(
            "- apiVersion: kafka.strimzi.io/v1beta2\n  kind: KafkaUser\n  \
             metadata: {{name: {name}}}\n  spec: {{authorization: {{type: simple, acls: [\n    \
             {{resource: {{type: topic, name: x}}, operations: [Read]}}]}}}}\n"
        )
    };
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}{}",
        user("a"),
        user("b")
    );
    for (text, code) in [
        (text.clone(), 0),
        (text.replacen("kind: KafkaUser", "kind: KafkaTopic", 1), 1),
    ] {
        fs::write(&path, text).unwrap();
        let from = From::Strimzi {
            files: vec![path.clone()],
        };
        let mut out = Vec::new();
        assert_eq!(run(&Options { from }, &mut out).unwrap(), code);
        let out = String::from_utf8(out).unwrap();
        let both = out.contains("[\"User:a\"]") && out.contains("[\"User:b\"]");
        assert_eq!((both, out.is_empty()), (code == 0, code == 1), "{out}");
    }
}

/// An answer to DescribeAcls with one ACL.
fn answer(kind: i64, pattern: i64, operation: i64, permission: i64) -> StructNode {
    let mut answer = StructNode::new(&apis::layout(29).unwrap().response.body);
    let mut resource = answer.element("Resources");
    resource
        .set_int("ResourceType", kind)
        .set_int("PatternType", pattern);
    resource.set_text("ResourceName", Some("x"));
    let mut acl = resource.element("Acls");
    acl.set_text("Principal", Some("User:a"))
        .set_text("Host", Some("*"));
    acl.set_int("Operation", operation)
        .set_int("PermissionType", permission);
    resource.structs_mut("Acls").push(acl);
    answer.structs_mut("Resources").push(resource);
    answer
}

#[test]
fn the_answer_of_a_cluster_is_read_whole_or_not_at_all() {
    let mut problems = Problems::default();
    let acls = read(&answer(5, 4, 15, 2), &mut problems);
    assert!(!problems.has_errors());
    assert_eq!(
        acls[0].shown(),
        "deny TwoPhaseCommit on prefixed TransactionalId `x` for User:a from *"
    );
    for (kind, pattern, operation, permission) in
        [(99, 3, 3, 3), (2, 2, 3, 3), (2, 3, 99, 3), (2, 3, 3, 1)]
    {
        let mut problems = Problems::default();
        read(&answer(kind, pattern, operation, permission), &mut problems);
        assert!(problems.has_errors());
    }
    let mut refused = answer(2, 3, 3, 3);
    refused.set_int("ErrorCode", 31);
    let mut problems = Problems::default();
    assert!(read(&refused, &mut problems).is_empty());
    assert!(
        problems.list[0]
            .help
            .as_ref()
            .unwrap()
            .contains("Describe on the cluster")
    );
}
