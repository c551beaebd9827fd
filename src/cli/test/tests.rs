//! What `kordon test` finds, says and exits with.

use std::fs;

use tempfile::TempDir;

use super::*;

const POLICIES: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: a}
spec:
  principals: [\"User:a\", \"Group:g\"]
  hosts: [\"127.0.0.1\", \"10.0.0.0/8\"]
  rules:
    - {allow: [Write], topics: [events, \"x.*\"], transactionalIds: [\"${tenant}.*\"]}
    - {deny: [Write, Describe], topics: [\"x.y\"]}
---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: s}
spec:
  topics: [events]
  value: {format: avro, empty: reject}
  key: {format: avro, subject: {name: k}}
---
apiVersion: kordon/v1
kind: TopicPolicy
metadata: {name: t}
spec:
  topics: [events, \"x.*\"]
  create: {name: '[a-z.]+', partitions: 1..6, configs: {retention.ms: \"..1000\"}}
  produce: {acks: all, idempotent: true, compression: [none, zstd], maxRecordBytes: 100}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: c}
spec: {principals: [\"User:c\"], rules: [{allow: [Create], topics: [\"x.*\"]}]}
";

/// A directory with these policies, a schema for values and one for keys, and this test file.
fn directory(tests: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("schemas")).unwrap();
    write("p.yaml", POLICIES);
    write("p.test.yaml", tests);
    write(
        "schemas/subjects.json",
        r#"{"subjects": [
            {"subject": "events-value", "version": 1, "id": 1, "file": "v1.avsc"},
            {"subject": "events-value", "version": 2, "id": 2, "file": "v2.avsc"},
            {"subject": "k", "version": 1, "id": 3, "file": "k.avsc"}]}"#,
    );
    let record = |fields: &str| format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
    let id = r#"{"name":"id","type":"string"}"#;
    write("schemas/v1.avsc", &record(id));
    let more = format!(r#"{id},{{"name":"n","type":"int"}}"#);
    write("schemas/v2.avsc", &record(&more));
    write("schemas/k.avsc", "\"long\"");
    dir
}

fn options(paths: Vec<PathBuf>, format: Format) -> Options {
    Options {
        paths,
        policies: None,
        schemas: None,
        config: None,
        format,
    }
}

fn printed(tests: &str, format: Format) -> (String, u8) {
    let dir = directory(tests);
    let mut out = Vec::new();
    let code = run(&options(vec![dir.path().to_owned()], format), &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    (
        shown.replace(&dir.path().display().to_string(), "DIR"),
        code,
    )
}

/// One produced record as user a: as expected, or what was said instead.
fn produced(record: &str, expect: &str) -> Result<(), String> {
    let test = format!(
        "tests: [{{name: t, as: {{principal: \"User:a\"}}, produce: {record}, expect: {expect}}}]"
    );
    let (out, code) = printed(&test, Format::Text);
    match code {
        0 => Ok(()),
        _ => Err(out),
    }
}

#[test]
fn cases_that_hold_are_counted() {
    let (out, code) = printed(
        "tests:
  - name: what a may
    as: {principal: \"User:a\", tenant: t}
    cases:
      - {can: Write, topic: events}
      - {can: Describe, topic: x.z}
      - {cannot: Read, topic: x.z}
      - {cannot: Describe, topic: x.y}
      - {can: Write, transactionalId: t.1}
      - {cannot: Write, transactionalId: u.1}
      - {cannot: All, consumerGroup: g}
      - {cannot: Create, cluster: true}
  - name: by group and host
    as: {principal: \"User:b\", groups: [g], host: 10.1.2.3}
    cases: [{can: Write, topic: events}]
  - name: from elsewhere
    as: {principal: \"User:b\", groups: [g], host: 11.1.2.3}
    cases: [{cannot: Write, topic: events}]
",
        Format::Text,
    );
    assert_eq!((&*out, code), ("1 file, 10 cases, all as expected\n", 0));
}

#[test]
fn a_case_that_fails_says_what_was_decided_by_which_rule_and_where_it_stands() {
    let (out, code) = printed(
        "tests:
  - name: the test
    as: {principal: \"User:a\"}
    cases:
      - {can: Write, topic: x.y}
      - {cannot: Write, topic: x.z}
      - {can: Read, topic: x.z}
      - {can: All, topic: x.z}
      - {cannot: All, topic: x.z}
",
        Format::Text,
    );
    let want = "DIR/p.test.yaml:5:9: FAILED: the test: can Write topic `x.y`, but Write is denied \
        by DIR/p.yaml:9
 5 |       - {can: Write, topic: x.y}
   |         ^
  help: asked as User:a
  the rule: - {deny: [Write, Describe], topics: [\"x.y\"]}
DIR/p.test.yaml:6:9: FAILED: the test: cannot Write topic `x.z`, but Write is allowed by \
        DIR/p.yaml:8
 6 |       - {cannot: Write, topic: x.z}
   |         ^
  help: asked as User:a
  the rule: - {allow: [Write], topics: [events, \"x.*\"], transactionalIds: [\"${tenant}.*\"]}
DIR/p.test.yaml:7:9: FAILED: the test: can Read topic `x.z`, but Read is denied: no rule matches
 7 |       - {can: Read, topic: x.z}
   |         ^
  help: asked as User:a
DIR/p.test.yaml:8:9: FAILED: the test: can All topic `x.z`, but Read is denied: no rule matches
 8 |       - {can: All, topic: x.z}
   |         ^
  help: asked as User:a
DIR/p.test.yaml:9:9: FAILED: the test: cannot All topic `x.z`, but Write is allowed by \
        DIR/p.yaml:8
 9 |       - {cannot: All, topic: x.z}
   |         ^
  help: asked as User:a
  the rule: - {allow: [Write], topics: [events, \"x.*\"], transactionalIds: [\"${tenant}.*\"]}
1 file, 5 cases, 5 FAILED
";
    assert_eq!(out, want);
    assert_eq!(code, 1);
}

#[test]
fn programs_get_every_case() {
    let (out, code) = printed(
        "tests:
  - name: t
    as: {principal: \"User:a\"}
    cases: [{can: Write, topic: events}, {can: Write, topic: x.y}]
",
        Format::Json,
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert_eq!((&json["ok"], &json["cases"]), (&json!(false), &json!(2)));
    assert_eq!(json["failed"], 1);
    assert_eq!(json["results"][0]["ok"], true);
    let failed = &json["results"][1];
    assert_eq!(failed["decision"], "deny");
    assert_eq!(failed["rule"], json!({"file": "DIR/p.yaml", "line": 9}));
    assert_eq!(
        (&failed["line"], &failed["file"]),
        (&json!(4), &json!("DIR/p.test.yaml"))
    );
}

#[test]
fn a_record_is_judged_by_authorization_then_key_then_value() {
    let accepted = "{accepted: true}";
    produced("{topic: events, json: {id: \"1\", n: 5}, key: 3}", accepted).unwrap();
    // The older version of the schema is registered as well.
    produced("{topic: events, json: {id: \"1\"}, key: 3}", accepted).unwrap();
    // No schema policy speaks about this topic.
    produced("{topic: x.z, json: {any: thing}}", accepted).unwrap();
    produced(
        "{topic: nowhere, json: {id: \"1\"}}",
        "{rejected: authorization}",
    )
    .unwrap();
    produced("{topic: events, json: {id: 1}, key: x}", "{rejected: key}").unwrap();
    produced(
        "{topic: events, json: {id: 1}, key: 3}",
        "{rejected: value}",
    )
    .unwrap();
    produced(
        "{topic: events, json: {id: x, m: 1}, key: 3}",
        "{rejected: value}",
    )
    .unwrap();
    produced("{topic: events, key: 3}", "{rejected: value}").unwrap();
    let header = "{topic: events, json: {id: x}, key: 3, headers: {__value_schema_id: x}}";
    produced(header, "{rejected: value}").unwrap();
    let said = produced("{topic: events, json: {id: 1}, key: 3}", accepted).unwrap_err();
    assert!(
        said.contains(
            "a record to `events` is accepted, but rejected: value (value `$.id`: expected text)"
        ),
        "{said}"
    );
    let said = produced("{topic: events, json: {id: x}}", "{rejected: value}").unwrap_err();
    assert!(said.contains("but accepted (nothing objects)"), "{said}");
    let said = produced("{topic: events, json: null, key: 3}", accepted).unwrap_err();
    assert!(
        said.contains("null, which the policy does not allow) by DIR/p.yaml:15"),
        "{said}"
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let said = produced("{topic: events}", "{rejected: headers}").unwrap_err();
    assert!(
        said.contains("`headers` is not supported by this version"),
        "{said}"
    );
}

#[test]
fn no_case_is_a_failure_and_so_is_a_broken_file() {
    let (out, code) = printed("# nothing\n", Format::Text);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "1 file, no case found: tests stand in `NAME.test.yaml`\n"
    );
    let head = "tests: [{name: t, as: {principal: \"User:a\"}, cases: [";
    let wrong = [
        ("{can: Wriet, topic: x}", "unknown operation `Wriet`"),
        ("{can: Write, topics: x}", "unknown key `topics`"),
        ("{can: Write}", "expected one of `topic`, `consumerGroup`"),
        (
            "{can: Write, topic: x, cluster: true}",
            "expected one of `topic`",
        ),
        ("{topic: x}", "expected either `can` or `cannot`"),
        (
            "{can: Write, cannot: Read, topic: x}",
            "expected either `can` or `cannot`",
        ),
        (
            "{can: Write, topic: 5}",
            "expected text, got the number `5`",
        ),
    ];
    for (case, message) in wrong {
        let (out, code) = printed(&format!("{head}{case}]}}]"), Format::Text);
        assert_eq!(code, 1);
        assert!(out.contains(message), "{case}: {out}");
        assert!(out.contains("1 error, 0 warnings"), "{case}: {out}");
    }
    let said = produced("{topic: a}", "{accepted: false}").unwrap_err();
    assert!(said.contains("expected `accepted: true`"), "{said}");
    for subject in [
        "{principal: a}",
        "{principal: \"User:a\", host: here}",
        "{}",
    ] {
        let test = format!("tests: [{{name: t, as: {subject}, cases: [{{can: Read, topic: t}}]}}]");
        let (out, code) = printed(&test, Format::Text);
        assert!(code == 1 && out.contains("1 error"), "{subject}: {out}");
    }
}

#[test]
fn a_single_file_is_judged_by_the_policies_beside_it_or_those_named() {
    let test = "tests: [{name: t, as: {principal: \"User:a\"}, cases: [{can: Write, topic: x.z}]}]";
    let dir = directory(test);
    let file = dir.path().join("p.test.yaml");
    let mut one = options(vec![file.clone()], Format::Text);
    assert_eq!(run(&one, &mut Vec::new()).unwrap(), 0);
    let other = TempDir::new().unwrap();
    fs::write(other.path().join("q.yaml"), POLICIES.replace("x.*", "y.*")).unwrap();
    one.policies = Some(other.path().to_owned());
    assert_eq!(run(&one, &mut Vec::new()).unwrap(), 1);
    let policy = options(vec![dir.path().join("p.yaml")], Format::Text);
    assert_eq!(run(&policy, &mut Vec::new()).unwrap(), 1);
}

#[test]
fn topic_rules_come_behind_authorization_and_before_the_payload() {
    let rules = "{rejected: topicRules}";
    for how in [
        "acks: 1",
        "acks: 0",
        "idempotent: false",
        "compression: lz4",
        "headers: {h: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaa}",
    ] {
        // Neither key nor value is what the topic wants.
        produced(&format!("{{topic: events, json: 5, key: x, {how}}}"), rules).unwrap();
        let elsewhere = format!("{{topic: nowhere, json: 5, {how}}}");
        produced(&elsewhere, "{rejected: authorization}").unwrap();
    }
    for how in [
        "acks: all, idempotent: true, compression: none",
        "compression: zstd",
    ] {
        let good = format!("{{topic: events, json: {{id: x}}, key: 3, {how}}}");
        produced(&good, "{accepted: true}").unwrap();
    }
    let said = produced("{topic: x.z, acks: 1}", "{accepted: true}").unwrap_err();
    let why = "rejected: topicRules (policy `t`, produce.acks: expected `all` (-1), got 1) by \
        DIR/p.yaml:25";
    assert!(said.contains(why), "{said}");
    let said = produced("{topic: x.z, acks: 2}", "{accepted: true}").unwrap_err();
    assert!(
        said.contains("expected `all`, `1` or `0`, got the number `2`"),
        "{said}"
    );
    let said = produced("{topic: x.z, compression: lzo}", "{accepted: true}").unwrap_err();
    assert!(said.contains("got `lzo`"), "{said}");
}

/// One topic that is made as user `c`, who may make some: as expected, or what was said instead.
fn made(topic: &str, expect: &str) -> Result<(), String> {
    let test = format!(
        "tests: [{{name: t, as: {{principal: \"User:c\"}}, create: {topic}, expect: {expect}}}]"
    );
    match printed(&test, Format::Text) {
        (_, 0) => Ok(()),
        (out, _) => Err(out),
    }
}

#[test]
fn a_topic_is_made_by_authorization_and_then_by_the_topic_rules() {
    let (accepted, rules) = ("{accepted: true}", "{rejected: topicRules}");
    made(
        "{topic: x.a, partitions: 6, configs: {retention.ms: 1000}}",
        accepted,
    )
    .unwrap();
    made("{topic: x.A, partitions: 6}", rules).unwrap();
    made("{topic: x.a, partitions: 7}", rules).unwrap();
    made(
        "{topic: x.a, partitions: 6, configs: {retention.ms: -1}}",
        rules,
    )
    .unwrap();
    made(
        "{topic: nowhere, partitions: 7}",
        "{rejected: authorization}",
    )
    .unwrap();
    let said = made("{topic: x.a}", accepted).unwrap_err();
    assert!(
        said.contains("a new topic `x.a` is accepted, but rejected: topicRules"),
        "{said}"
    );
    assert!(
        said.contains("the cluster's default is not known here: state it"),
        "{said}"
    );
    for (topic, expect, told) in [
        (
            "{topic: x.a, partitions: 0}",
            accepted,
            "expected a number from 1",
        ),
        (
            "{topic: x.a, configs: [a]}",
            accepted,
            "expected a mapping of configurations",
        ),
        (
            "{topic: x.a, configs: {a: [b]}}",
            accepted,
            "expected a value, got a list",
        ),
        (
            "{topic: x.a}",
            "{rejected: value}",
            "expected `authorization` or `topicRules`",
        ),
    ] {
        let said = made(topic, expect).unwrap_err();
        assert!(said.contains(told), "{topic}: {said}");
    }
    let both = "tests: [{name: t, as: {principal: \"User:a\"}, create: {topic: a}, produce: \
        {topic: a}, expect: {accepted: true}}]";
    let (said, _) = printed(both, Format::Text);
    assert!(
        said.contains("expected either `produce` or `create`, got both"),
        "{said}"
    );
}

#[test]
fn members_of_a_tenant_by_its_match_are_bounded_as_in_the_proxy() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "p.yaml",
        "apiVersion: kordon/v1\nkind: Tenant\nmetadata: {name: shop}\n\
         spec: {match: {any: [{principal: \"User:shop-*\"}]}, boundary: {topics: [\"x.*\"]}}\n\
         ---\napiVersion: kordon/v1\nkind: Tenant\nmetadata: {name: bank}\n\
         spec: {match: {any: [{principal: \"Group:bank\"}]}}\n\
         ---\napiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: all}\n\
         spec: {principals: [\"User:*\"], rules: [{allow: [Write], topics: [\"*\"]}]}\n",
    );
    write(
        "p.test.yaml",
        "tests:
  - name: bounded
    as: {principal: \"User:shop-1\"}
    cases: [{can: Write, topic: x.1}, {cannot: Write, topic: y}]
  - name: a token says otherwise
    as: {principal: \"User:shop-1\", tenant: bank}
    cases: [{can: Write, topic: y}]
  - name: of two tenants
    as: {principal: \"User:shop-1\", groups: [bank]}
    cases: [{cannot: Write, topic: x.1}]
  - name: of two tenants, with a record
    as: {principal: \"User:shop-1\", groups: [bank]}
    produce: {topic: x.1}
    expect: {rejected: authorization}
  - name: of two tenants, wrong
    as: {principal: \"User:shop-1\", groups: [bank]}
    cases: [{can: Write, topic: x.1}]
",
    );
    let mut out = Vec::new();
    let all = options(vec![dir.path().to_owned()], Format::Text);
    assert_eq!(run(&all, &mut out).unwrap(), 1);
    let said = String::from_utf8(out).unwrap();
    assert!(said.ends_with("1 file, 6 cases, 1 FAILED\n"), "{said}");
    assert!(
        said.contains("but there is no connection: matches two tenants, `shop`"),
        "{said}"
    );
}
