//! What leaves for Kafka, and what is not let go.

use std::fs;

use tempfile::TempDir;

use super::*;

const POLICY: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: a}
spec: {principals: [\"User:a\"], rules: [{allow: [Read], topics: [\"*\"], groups: [\"it's\"]}]}
---
";

/// The exit code, what is printed, and what is said beside it.
fn exported(policies: &str, format: Format) -> (u8, String, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("p.yaml");
    fs::write(&path, policies).unwrap();
    let to = To::Kafka {
        policies: vec![path],
        format,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = export(&Options { to }, &mut out, &mut err).unwrap();
    let said = String::from_utf8(err).unwrap();
    let said = said.replace(&dir.path().display().to_string(), "DIR");
    (code, String::from_utf8(out).unwrap(), said)
}

#[test]
fn policies_become_commands_that_a_shell_reads_as_they_are_meant() {
    let (code, out, said) = exported(POLICY, Format::Text);
    assert_eq!((code, &*said), (0, ""));
    assert!(out.contains("--operation Read --topic '*'\n"), "{out}");
    assert!(out.contains("--group 'it'\\''s'\n"), "{out}");
}

/// Without the boundary its tenant could read all topics at Kafka.
#[test]
fn a_boundary_is_not_left_out() {
    let tenant = "apiVersion: kordon/v1\nkind: Tenant\nmetadata: {name: shop}\n\
        spec:\n  boundary: {topics: [\"shop.*\"]}\n";
    let both = format!("{POLICY}{tenant}");
    for format in [Format::Text, Format::Json] {
        let (code, out, said) = exported(&both, format);
        assert_eq!((code, &*out), (1, ""));
        assert!(
            said.contains("Kafka's ACLs cannot say the boundary of a tenant"),
            "{said}"
        );
    }
    let (_, _, said) = exported(&both, Format::Text);
    assert!(said.starts_with("DIR/p.yaml:10:3: "), "{said}");
    // One that is only observed decides nothing here either.
    let observed = both.replace("spec:\n", "spec:\n  mode: observe\n");
    assert_eq!(exported(&observed, Format::Text).0, 0);
}

#[test]
fn what_is_no_acl_is_said_to_be_left_out() {
    let quota = "apiVersion: kordon/v1\nkind: QuotaPolicy\nmetadata: {name: q}\n\
        spec: {for: {user: a}, limits: {produce: 1MiB/s}}\n";
    let (code, out, said) = exported(&format!("{POLICY}{quota}"), Format::Text);
    assert_eq!(code, 0);
    assert!(out.contains("--topic"), "{out}");
    assert_eq!(
        said,
        "warning: not exported, since they are no ACLs: QuotaPolicy `q`\n"
    );
}

#[test]
fn a_name_is_exported_as_it_is_or_not_at_all() {
    let hidden = POLICY.replace("it's", "a\u{202e}b");
    let (code, out, said) = exported(&hidden, Format::Text);
    assert_eq!((code, &*out), (1, ""));
    assert!(said.contains("a character that does not show"), "{said}");
    let (code, out, _) = exported(&hidden, Format::Json);
    assert_eq!(code, 0);
    assert!(out.contains("a\u{202e}b"), "{out}");
}
