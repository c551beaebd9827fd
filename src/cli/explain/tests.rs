//! The answers of `explain`, as people and programs get them.

use std::fs;

use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

const POLICIES: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: a}
spec:
  principals: [\"User:a\", \"Group:g\", \"Tenant:t\"]
  rules:
    - {allow: [Write], topics: [\"x.*\"]}
    - {allow: [All], topics: [\"x.y\"], groups: [g], cluster: true, transactionalIds: [t]}
    - {deny: [Write], topics: [\"x.secret\"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: near}
spec:
  principals: [\"User:*\"]
  hosts: [\"127.0.0.1\"]
  rules: [{allow: [Read], topics: [near], users: [\"User:a\"], delegationTokens: [d]}]
";

/// What is printed with `DIR` for the directory, and the exit code.
fn asked(policies: &str, arguments: &str) -> (String, u8) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.yaml"), policies).unwrap();
    fs::write(
        dir.path().join("kordon.yaml"),
        "upstream: {bootstrap: [k:1]}\npolicies: .\nauthorization: {superUsers: [\"User:root\"]}\n\
         listeners: [{name: l, bind: 127.0.0.1:0, identity: {static: \"User:x\"},\n  \
         advertise: {host: localhost, ports: 1000-1001}}]\n",
    )
    .unwrap();
    let shown = dir.path().display().to_string();
    let policy = dir.path().join("p.yaml").display().to_string();
    let words = arguments.replace("DIR", &shown);
    let words = ["explain", &policy]
        .into_iter()
        .chain(words.split_whitespace());
    let line = Line::try_parse_from(words).unwrap();
    let mut out = Vec::new();
    let code = run(&line.options, &mut out).unwrap();
    (String::from_utf8(out).unwrap().replace(&shown, "DIR"), code)
}

fn json(arguments: &str) -> serde_json::Value {
    let (out, code) = asked(POLICIES, &format!("{arguments} --format json"));
    assert_eq!(code, 0, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn people_get_the_rule_its_text_and_the_others() {
    let (out, code) = asked(
        POLICIES,
        "--principal User:a --operation Write --topic x.secret",
    );
    assert_eq!(
        out,
        "deny: User:a may not Write topic `x.secret` from 127.0.0.1\n\
         decided by DIR/p.yaml:9\n  \
         - {deny: [Write], topics: [\"x.secret\"]}\n\
         also matches, allow: DIR/p.yaml:7\n  \
         - {allow: [Write], topics: [\"x.*\"]}\n"
    );
    assert_eq!(code, 0);
    let (out, _) = asked(
        POLICIES,
        "--principal User:b --group g --tenant t --operation Alter --cluster --host 10.0.0.1",
    );
    assert_eq!(
        out,
        "allow: User:b, tenant t, group g may Alter the cluster from 10.0.0.1\n\
         decided by DIR/p.yaml:8\n  \
         - {allow: [All], topics: [\"x.y\"], groups: [g], cluster: true, transactionalIds: [t]}\n"
    );
}

#[test]
fn every_kind_of_resource_can_be_asked_about() {
    let cases = [
        ("User:a --operation Write --topic x.1", true, Some(7)),
        ("User:a --operation Read --topic x.1", false, None),
        ("User:a --operation Read --consumer-group g", true, Some(8)),
        (
            "User:a --operation Write --transactional-id t",
            true,
            Some(8),
        ),
        ("User:a --operation Write --transactional-id u", false, None),
        ("User:a --operation Create --cluster", true, Some(8)),
        (
            "User:b --operation Read --delegation-token d",
            true,
            Some(17),
        ),
        ("User:b --operation Read --user User:a", true, Some(17)),
        ("User:b --operation Describe --topic near", true, Some(17)),
        (
            "User:b --operation Read --topic near --host 10.0.0.1",
            false,
            None,
        ),
        (
            "User:b --tenant t --operation Write --topic x.1",
            true,
            Some(7),
        ),
        (
            "User:b --group h --group g --operation Write --topic x.1",
            true,
            Some(7),
        ),
    ];
    for (arguments, allowed, line) in cases {
        let answer = json(&format!("--principal {arguments}"));
        assert_eq!(answer["decision"], policies::word(allowed), "{arguments}");
        assert_eq!(answer["rule"]["line"].as_u64(), line, "{arguments}");
        assert_eq!(answer["rule"].is_null(), line.is_none());
    }
}

#[test]
fn considered_rules_are_listed_in_order() {
    let answer = json("--principal User:a --operation Write --topic x.y");
    let lines: Vec<_> = (answer["considered"].as_array().unwrap().iter())
        .map(|c| (c["effect"].as_str().unwrap(), c["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(lines, [("allow", 7), ("allow", 8)]);
}

#[test]
fn super_users_come_from_a_configuration() {
    let question = "--principal User:root --operation Write --topic none";
    assert_eq!(json(question)["decision"], "deny");
    let answer = json(&format!("{question} -c DIR/kordon.yaml"));
    assert_eq!(answer["decision"], "allow");
    assert_eq!(answer["reason"], "super user");
}

#[test]
fn broken_policies_are_reported_as_by_check() {
    let broken = POLICIES.replace("[Write]", "[Wriet]");
    let (out, code) = asked(&broken, "--principal User:a --operation Write --topic x");
    assert_eq!(code, 1);
    assert!(
        out.contains("DIR/p.yaml:7:16: unknown operation `Wriet`"),
        "{out}"
    );
    assert!(out.contains("help: did you mean `Write`?"), "{out}");
}

#[test]
fn wrong_use_is_refused() {
    let refused = [
        "p --principal User:a --operation Write",
        "p --principal User:a --operation Write --topic a --cluster",
        "p --principal User:a --operation write --topic a",
        "p --principal User:a --operation Write --topic a --host localhost",
        "p --operation Write --topic a",
        "--principal User:a --operation Write --topic a",
    ];
    for arguments in refused {
        let words = ["explain"].into_iter().chain(arguments.split_whitespace());
        let error = Line::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments}");
    }
    for principal in [
        "alice",
        "User:",
        ":a",
        "User:*",
        "Group:g",
        "Tenant:t",
        "Role:r",
        "User:\u{a0}a",
    ] {
        let question = format!("--principal {principal} --operation Write --topic a");
        assert_eq!(asked(POLICIES, &question).1, 2, "{principal}");
    }
}

const OBSERVING: &str = "---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: to-come}
spec:
  mode: observe
  principals: [\"User:a\"]
  rules:
    - {deny: [Write], topics: [\"x.old\"]}
    - {allow: [Read], topics: [\"x.*\"]}
---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: t}
spec: {mode: observe, boundary: {topics: [\"x.*\"]}}
";

#[test]
fn what_only_observes_decides_nothing_and_says_what_it_would_change() {
    let policies = format!("{POLICIES}{OBSERVING}");
    let ask = |question: &str| asked(&policies, question).0;
    assert_eq!(
        ask("--principal User:a --operation Write --topic x.old"),
        "allow: User:a may Write topic `x.old` from 127.0.0.1\n\
         decided by DIR/p.yaml:7\n  \
         - {allow: [Write], topics: [\"x.*\"]}\n\
         observed only, deny: DIR/p.yaml:26\n  \
         - {deny: [Write], topics: [\"x.old\"]}\n\
         if what is observed were in force: deny\n"
    );
    let read = ask("--principal User:a --operation Read --topic x.new");
    assert!(read.starts_with("deny: "), "{read}");
    assert!(
        read.ends_with("if what is observed were in force: allow\n"),
        "{read}"
    );
    // Allowed anyway, and nothing to tell where no rule of those that observe matches.
    let same = ask("--principal User:a --operation Read --topic x.y");
    assert!(
        same.ends_with("if what is observed were in force: no change\n"),
        "{same}"
    );
    let other = ask("--principal User:b --operation Read --topic x.y");
    assert!(!other.contains("observed"), "{other}");
    let bound = "--principal User:m --tenant t --operation Write --topic y --format json";
    let bound: serde_json::Value = serde_json::from_str(&ask(bound)).unwrap();
    assert_eq!(
        (&bound["decision"], &bound["rule"]),
        (&"deny".into(), &serde_json::Value::Null)
    );
    let observed = &bound["observed"];
    assert_eq!(
        [&observed["decision"], &observed["changes"]],
        [&serde_json::json!("deny"), &serde_json::json!(false)]
    );
    assert_eq!(observed["rule"]["line"], 32, "{observed}");
    assert_eq!(
        json("--principal User:a --operation Write --topic x.y")["observed"],
        serde_json::Value::Null
    );
}

/// A configuration with `policies`, a `shadow` and a super user, and what is answered there.
fn configured(arguments: &str) -> (String, u8) {
    let stricter = POLICIES.replace("{deny: [Write], topics", "{deny: [All], topics");
    // What observes there is no part of that set.
    shadowed(&format!("{stricter}{OBSERVING}"), arguments)
}

fn shadowed(next: &str, arguments: &str) -> (String, u8) {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("policies/p.yaml", POLICIES);
    file("next/p.yaml", next);
    file(
        "kordon.yaml",
        "upstream: {bootstrap: [k:1]}\npolicies: policies\n\
         authorization: {superUsers: [\"User:root\"], shadow: next}\n\
         listeners: [{name: l, bind: 127.0.0.1:0, identity: {static: \"User:x\"},\n  \
         advertise: {host: localhost, ports: 1000-1001}}]\n",
    );
    let shown = dir.path().display().to_string();
    let words = arguments.replace("DIR", &shown);
    let words = ["explain"].into_iter().chain(words.split_whitespace());
    let line = Line::try_parse_from(words).unwrap();
    let mut out = Vec::new();
    let code = run(&line.options, &mut out).unwrap();
    (String::from_utf8(out).unwrap().replace(&shown, "DIR"), code)
}

#[test]
fn a_configuration_brings_its_policies_and_what_its_shadow_would_decide() {
    let (out, code) =
        configured("-c DIR/kordon.yaml --principal User:a --operation Read --topic x.y --group g");
    assert_eq!(
        out,
        "allow: User:a, group g may Read topic `x.y` from 127.0.0.1\n\
         decided by DIR/policies/p.yaml:8\n  \
         - {allow: [All], topics: [\"x.y\"], groups: [g], cluster: true, transactionalIds: [t]}\n\
         in the shadow: allow, decided by DIR/next/p.yaml:8\n  \
         - {allow: [All], topics: [\"x.y\"], groups: [g], cluster: true, transactionalIds: [t]}\n"
    );
    assert_eq!(code, 0);
    // The shadow beside another directory than that of the configuration, and what it lacks.
    let question = "--principal User:a --operation Write";
    let (out, _) = configured(&format!(
        "DIR/policies -c DIR/kordon.yaml {question} --topic x.secret"
    ));
    assert!(
        out.ends_with(
            "in the shadow: deny, decided by DIR/next/p.yaml:9\n  \
             - {deny: [All], topics: [\"x.secret\"]}\n\
             in the shadow also matches, allow: DIR/next/p.yaml:7\n  \
             - {allow: [Write], topics: [\"x.*\"]}\n"
        ),
        "{out}"
    );
    let (out, _) = configured(&format!("-c DIR/kordon.yaml {question} --topic none"));
    assert!(
        out.ends_with("in the shadow: deny, decided by no rule: no rule matches\n"),
        "{out}"
    );
    let (out, _) = configured(&format!("DIR/policies {question} --topic none"));
    assert!(!out.contains("shadow"), "{out}");
}

#[test]
fn programs_get_the_shadow_in_the_form_of_the_decision() {
    let ask = |arguments: &str| -> serde_json::Value {
        let (out, code) = configured(&format!("-c DIR/kordon.yaml {arguments} --format json"));
        assert_eq!(code, 0, "{out}");
        serde_json::from_str(&out).unwrap()
    };
    let answer = ask("--principal User:a --operation Describe --topic x.secret");
    assert_eq!(answer["decision"], "allow");
    assert_eq!(answer["rule"]["line"], 7);
    let shadow = &answer["shadow"];
    assert_eq!(
        shadow,
        &json!({
            "decision": "deny",
            "rule": {"file": "DIR/next/p.yaml", "line": 9},
            "reason": "rule",
            "considered": [
                {"effect": "allow", "file": "DIR/next/p.yaml", "line": 7},
                {"effect": "deny", "file": "DIR/next/p.yaml", "line": 9},
            ],
        })
    );
    // Super users are so there too, and what observes there is no part of the set.
    let answer = ask("--principal User:root --operation Read --topic x.new");
    assert_eq!(answer["shadow"]["reason"], "super user");
    let answer = ask("--principal User:a --operation Read --topic x.new");
    assert_eq!(answer["shadow"]["decision"], "deny");
    assert!(
        json("--principal User:a --operation Read --topic x.y")
            .get("shadow")
            .is_none()
    );
}

#[test]
fn mistakes_in_the_shadow_are_reported_as_by_check() {
    let question = "-c DIR/kordon.yaml --principal User:a --operation Read --topic x";
    let (out, code) = shadowed(&POLICIES.replace("[Write]", "[Wriet]"), question);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("DIR/next/p.yaml:7:16: unknown operation `Wriet`"),
        "{out}"
    );
    let (out, code) = shadowed("", question);
    assert_eq!((code, out.contains("help")), (0, false), "{out}");
    let (out, code) = configured(&question.replace("kordon", "none"));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("DIR/none.yaml"), "{out}");
}

const MATCHED: &str = "---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: shop}
spec:
  match: {any: [{principal: \"User:shop-*\"}, {spiffe: \"spiffe://prod/ns/shop/*\"}]}
  boundary: {topics: [\"x.*\"]}
---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: bank}
spec: {match: {any: [{principal: \"Group:bank\"}]}}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: everybody}
spec: {principals: [\"User:*\"], rules: [{allow: [Read], topics: [\"*\"]}]}
";

#[test]
fn a_member_of_a_tenant_is_asked_about_as_the_proxy_would_place_it() {
    let policies = format!("{POLICIES}{MATCHED}");
    let ask = |who: &str| {
        let question = format!("--principal {who} --operation Read --topic y --format json");
        let (out, code) = asked(&policies, &question);
        assert_eq!(code, 0, "{out}");
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        let line = answer["tenantMatch"]["line"].as_u64();
        (text("decision"), text("tenant"), line, text("reason"))
    };
    let said = |decision: &str, tenant: &str, line, reason: &str| {
        (decision.into(), tenant.into(), line, reason.into())
    };
    assert_eq!(ask("User:a"), said("allow", "", None, "rule"));
    // Its boundary leaves `y` out.
    assert_eq!(ask("User:shop-1"), said("deny", "shop", Some(23), "rule"));
    let spiffe = "User:spiffe://prod/ns/shop/cart";
    assert_eq!(ask(spiffe), said("deny", "shop", Some(23), "rule"));
    // What a listener or a token says goes before; said to be none, there is none.
    assert_eq!(
        ask("User:shop-1 --tenant bank"),
        said("allow", "bank", None, "rule")
    );
    assert_eq!(
        ask("User:shop-1 --tenant="),
        said("allow", "", None, "rule")
    );
    let (decision, tenant, _, reason) = ask("User:shop-1 --group bank");
    assert_eq!((&*decision, &*tenant), ("deny", ""));
    assert!(
        reason.starts_with("no connection: matches two tenants, `shop` ("),
        "{reason}"
    );
    let (text, _) = asked(
        &policies,
        "--principal User:shop-1 --operation Read --topic y",
    );
    assert!(
        text.contains("tenant shop by its match: DIR/p.yaml:23\n"),
        "{text}"
    );
}
