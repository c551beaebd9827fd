//! What `kordon diff` says about changes that people make.

use std::fs;

use tempfile::TempDir;

use super::*;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}"
    )
}

/// The rules of everybody, or of one principal.
fn of(principal: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|r| format!("    - {{{r}}}\n")).collect();
    let name: String = principal
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    policy(
        &name,
        &format!("  principals: [\"{principal}\"]\n  rules:\n{rules}"),
    )
}

fn diff(old: &str, new: &str, format: Format) -> (String, u8) {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("old.yaml"), old).unwrap();
    fs::write(path("new.yaml"), new).unwrap();
    let options = Options {
        old: path("old.yaml"),
        new: path("new.yaml"),
        format,
    };
    let mut out = Vec::new();
    let code = run(&options, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    (
        shown.replace(&format!("{}/", dir.path().display()), ""),
        code,
    )
}

fn lines(old: &str, new: &str) -> Vec<String> {
    let (out, _) = diff(old, new, Format::Text);
    let lines = out.lines().filter(|l| !l.starts_with(' '));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.pop();
    lines
}

#[test]
fn what_is_written_otherwise_but_decided_alike_is_no_difference() {
    let old = of("User:a", &["allow: [Read, Write], topics: [x, \"y*\"]"]);
    let new = of(
        "User:a",
        &[
            "allow: [Write], topics: [\"y*\", x]",
            "allow: [Read], topics: [x, yes, \"y*\"]",
        ],
    );
    assert_eq!(
        diff(&old, &new, Format::Text),
        ("every decision stays\n".to_owned(), 0)
    );
    assert_eq!(diff(&old, &old, Format::Text).1, 0);
}

#[test]
fn grants_gained_and_lost_are_told_by_principal_with_both_rules() {
    let old = of("User:a", &["allow: [Read], topics: [\"orders.*\"]"]);
    let new = of(
        "User:a",
        &[
            "allow: [Read, Write], topics: [\"orders.*\"]",
            "deny: [All], topics: [orders.secret]",
        ],
    );
    let (out, code) = diff(&old, &new, Format::Text);
    assert_eq!(
        out,
        "gained: User:a can Write topics orders.* except orders.secret\n  \
         old: no rule\n  \
         new: new.yaml:8\n\
         lost: User:a can no longer Read, Describe topics orders.secret\n  \
         old: old.yaml:8\n  \
         new: new.yaml:9\n\
         2 differences: 1 gained, 1 lost\n"
    );
    assert_eq!(code, 1);
    let (out, _) = diff(&old, &new, Format::Json);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["gained"], &json["lost"]), (&json!(1), &json!(1)));
    let first = &json["changes"][0];
    assert_eq!(first["principals"], json!(["User:a"]));
    assert_eq!(first["resource"]["names"], json!(["orders.*"]));
    assert_eq!(first["new"], json!({"file": "new.yaml", "line": 8}));
}

#[test]
fn operations_and_names_are_collapsed_and_the_whole_is_all() {
    let old = of("User:a", &["allow: [Read], topics: [kept]"]);
    let new = of(
        "User:a",
        &[
            "allow: [All], topics: [\"*\"]",
            "allow: [Read], topics: [b]",
        ],
    );
    assert_eq!(
        lines(&old, &new),
        [
            "gained: User:a can All topics * except kept",
            "gained: User:a can Write, Create, Delete, Alter, DescribeConfigs, AlterConfigs \
             topics kept",
        ]
    );
}

#[test]
fn groups_tenants_and_pairs_of_them_are_told_once() {
    let none = of("User:z", &["allow: [Read], topics: [z]"]);
    let group = none.clone() + &of("Group:g", &["allow: [Read], groups: [\"${principal}.*\"]"]);
    assert_eq!(
        lines(&none, &group),
        ["gained: Group:g can Read, Describe consumer groups ${principal}.*"]
    );
    let tenant = none.clone() + &of("User:*", &["allow: [Create], topics: [\"${tenant}.*\"]"]);
    assert_eq!(
        lines(&none, &tenant),
        ["gained: any other tenant can Create topics ${tenant}.*"]
    );
    // Nobody loses alone: only who is in both.
    let both = group.clone() + &of("Tenant:t", &["deny: [Read], groups: [\"*\"]"]);
    assert_eq!(
        lines(&group, &both),
        ["lost: Tenant:t + Group:g can no longer Read consumer groups ${principal}.*"]
    );
}

#[test]
fn networks_are_told_apart() {
    let hosts = |hosts: &str| {
        policy(
            "h",
            &format!(
                "  principals: [\"User:a\"]\n{hosts}  rules: [{{allow: [Alter], cluster: true}}]\n"
            ),
        )
    };
    let old = hosts("  hosts: [\"10.0.0.0/8\"]\n");
    assert_eq!(
        lines(&old, &hosts("  hosts: [\"10.1.0.0/16\"]\n")),
        [
            "lost: User:a can no longer Alter, Describe the cluster from 10.0.0.0/8 \
            except 10.1.0.0/16"
        ]
    );
    assert_eq!(
        lines(&old, &hosts("")),
        ["gained: User:a can Alter, Describe the cluster from other hosts"]
    );
}

#[test]
fn a_broken_set_is_reported() {
    let good = of("User:a", &["allow: [Read], topics: [x]"]);
    let (out, code) = diff(&good, &good.replace("Read", "Raed"), Format::Text);
    assert_eq!(code, 1);
    assert!(out.contains("unknown operation `Raed`"), "{out}");
}

#[test]
fn what_observes_is_no_difference() {
    let old = of("User:a", &["allow: [Read], topics: [t]"]);
    let observing = of(
        "User:b",
        &["allow: [All], topics: [t]", "deny: [All], groups: [g]"],
    );
    let observing = observing.replace("spec:\n", "spec:\n  mode: observe\n");
    let (out, code) = diff(&old, &format!("{old}{observing}"), Format::Text);
    assert_eq!((&*out, code), ("every decision stays\n", 0));
}

#[test]
fn whom_a_tenant_takes_in_is_a_difference() {
    let tenant = |items: &str| {
        format!(
            "---\napiVersion: kordon/v1\nkind: Tenant\nmetadata: {{name: corallum}}\n\
             spec: {{match: {{any: [{items}]}}}}\n"
        )
    };
    let rules = of("Tenant:corallum", &["allow: [Read], topics: [t]"]);
    let (claim, user) = ("{claim: {a: x, b: y}}", "{principal: \"User:corallum-*\"}");
    let old = format!("{rules}{}", tenant(&format!("{claim}, {user}")));
    // Another order says the same.
    let same = tenant(&format!("{user}, {{claim: {{b: y, a: x}}}}"));
    let (said, code) = diff(&old, &format!("{rules}{same}"), Format::Text);
    assert_eq!((said.as_str(), code), ("every decision stays\n", 0));
    let new = format!("{rules}{}", tenant(claim));
    let (said, code) = diff(&old, &new, Format::Text);
    assert_eq!(
        said,
        "changed: who belongs to the tenant `corallum`\n  old: old.yaml:13\n  new: new.yaml:13\n\
         every decision about the members of a tenant stays\n"
    );
    assert_eq!(code, 1);
    let (said, code) = diff(&old, &rules, Format::Json);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["differs"].as_bool(), code), (Some(true), 1));
    assert_eq!(said["tenants"][0]["tenant"], "corallum");
    assert_eq!(said["tenants"][0]["new"], Value::Null);
    assert_eq!(said["tenants"][0]["old"]["line"], 13);
}

#[test]
fn nothing_is_said_of_whom_it_does_not_concern() {
    let kept = of("Group:ops", &["allow: [All], topics: [\"*\"]"]);
    let everybody = of("User:*", &["allow: [Read], topics: [x]"]);
    // What another line tells already is no exception.
    let narrow = of("User:z", &["allow: [Read], topics: [z]"]);
    let both = everybody.clone() + &of("User:a", &["allow: [Read], topics: [\"x*\"]"]);
    assert_eq!(
        lines(&narrow, &(narrow.clone() + &both)),
        [
            "gained: everybody can Read, Describe topics x",
            "gained: User:a can Read, Describe topics x*",
        ]
    );
    // Who keeps a right by another rule is named.
    let (out, _) = diff(&(kept.clone() + &everybody), &kept, Format::Text);
    assert_eq!(
        out,
        "lost: everybody can no longer Read, Describe topics x\n  old: old.yaml:16\n  \
         new: no rule\n  not all of it: Group:ops\n1 difference: 0 gained, 1 lost\n"
    );
    // So is who does not gain it, be it a part of the names only.
    let denied = of("User:bob", &["deny: [Read], topics: [x.secret]"]);
    let wide = everybody.replace("[x]", "[\"x*\"]");
    let (out, _) = diff(&denied, &format!("{denied}{wide}"), Format::Json);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["changes"][0]["notAll"], json!(["User:bob"]));
    assert_eq!(json["changes"][0]["principals"], json!([]));
}
