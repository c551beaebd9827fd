//! The audit log: which decisions are in it, and that what it says can be verified and replayed.

use std::process::Command;

use kafka_protocol::messages::ProduceRequest;
use serde_json::Value;

use crate::passage::{SPLICED, on_the_way, unlike};
use crate::policy::fetch_all;
use crate::support::*;

fn keeping(allows: &'static str) -> Lab {
    Lab::with(|setup| setup.audit = allows)
}

/// Runs a command of the program: its exit code, and what it printed.
pub fn kordon(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kordon"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

fn decisions(lab: &Lab, decision: &str) -> Vec<Value> {
    let text = lab.file("audit.jsonl");
    let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok());
    lines
        .filter(|l: &Value| l["decision"] == decision)
        .collect()
}

const ALL: &str = "{file: {path: audit.jsonl}, allows: all}";

#[tokio::test]
async fn allowed_requests_leave_a_line_for_each_topic_with_the_rule_that_allowed() {
    let lab = keeping(ALL);
    let mut client = lab.app().await;
    let parts = ["open.a", "open.b"].map(|topic| (topic, 0, batch(&[b"x"])));
    client.call(9, &produce(-1, &parts)).await.unwrap();
    client.call(12, &fetch_all(&["open.a"])).await.unwrap();
    client.metadata(Some(&["open.b"])).await.unwrap();
    for (api, operation, resource) in [
        ("Produce", "Write", "Topic:open.a"),
        ("Produce", "Write", "Topic:open.b"),
        ("Fetch", "Read", "Topic:open.a"),
        ("Metadata", "Describe", "Topic:open.b"),
    ] {
        let line = lab.audit(&[
            ("api", api),
            ("operation", operation),
            ("resource", resource),
            ("decision", "allow"),
            ("reason", "authorization"),
            ("principal", "User:app"),
            ("proof", "static"),
        ]);
        assert!(
            line["rule"].as_str().unwrap().ends_with("base.yaml:7"),
            "{line}"
        );
        assert_eq!(line["policy"].as_str().unwrap().len(), 16, "{line}");
    }
    let count = |api| {
        decisions(&lab, "allow")
            .iter()
            .filter(|l| l["api"] == api)
            .count()
    };
    assert_eq!((count("Produce"), count("Fetch")), (2, 1), "each once");
}

#[tokio::test]
async fn a_request_that_is_refused_in_part_leaves_both_decisions() {
    let lab = keeping(ALL);
    let mut client = lab.app().await;
    let parts = ["open.a", "secret.a"].map(|topic| (topic, 0, batch(&[b"x"])));
    client.call(9, &produce(-1, &parts)).await.unwrap();
    lab.audit(&[("resource", "Topic:open.a"), ("decision", "allow")]);
    lab.audit(&[("resource", "Topic:secret.a"), ("decision", "deny")]);
    assert_eq!(
        decisions(&lab, "allow").len(),
        1,
        "looked at twice, kept once"
    );
}

#[tokio::test]
async fn records_that_are_never_copied_leave_a_line_too() {
    let lab = keeping(ALL);
    let mut raw = on_the_way(&lab, "app").await;
    let before = lab.metric(SPLICED, &[]);
    let parts = [
        ("open.a", 0, unlike(16_384, 1)),
        ("open.b", 0, unlike(16_384, 2)),
    ];
    let frame = frame_of(9, 5, &produce(-1, &parts));
    raw.send(&frame).await;
    assert_eq!(raw.answer::<ProduceRequest>(9).await.0, 5);
    lab.metric_reaches(SPLICED, before + frame.len() as f64);
    for topic in ["Topic:open.a", "Topic:open.b"] {
        let line = lab.audit(&[("resource", topic), ("decision", "allow")]);
        assert!(
            line["rule"].as_str().unwrap().ends_with("base.yaml:7"),
            "{line}"
        );
    }
    let to = |topic: &str| {
        { decisions(&lab, "allow").into_iter() }
            .filter(|l| l["resource"] == topic)
            .count()
    };
    assert_eq!((to("Topic:open.a"), to("Topic:open.b")), (1, 1));
}

#[tokio::test]
async fn by_default_no_allowed_decision_is_kept() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let parts = ["open.a", "secret.a"].map(|topic| (topic, 0, batch(&[b"x"])));
    client.call(9, &produce(-1, &parts[..1])).await.unwrap();
    client.call(9, &produce(-1, &parts)).await.unwrap();
    lab.audit(&[("resource", "Topic:secret.a")]);
    assert_eq!(decisions(&lab, "allow"), Vec::<Value>::new());
}

#[tokio::test]
async fn how_a_token_s_principal_was_proven_is_in_the_line() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    client.produce("secret.a", 0, batch(&[b"x"])).await.unwrap();
    let line = lab.audit(&[("principal", "User:alice"), ("resource", "Topic:secret.a")]);
    assert_eq!(line["proof"], "token");
}

#[tokio::test]
async fn what_was_written_is_verified_and_a_change_is_found() {
    let lab = keeping("{file: {path: audit.jsonl, maxBytes: 64KiB, keep: 20}, allows: all}");
    let mut client = lab.app().await;
    let request = fetch_all(&["open.a", "open.b", "secret.a"]);
    for _ in 0..60 {
        client.call(12, &request).await.unwrap();
    }
    client.produce("secret.a", 0, batch(&[b"x"])).await.unwrap();
    lab.audit(&[("api", "Produce")]);
    let name = |name: &str| lab.path(name).display().to_string();
    let (new, old) = (name("audit.jsonl"), name("audit.jsonl.1"));
    let (code, text) = kordon(&["audit", "verify", &new, &old]);
    assert_eq!(code, 0, "{text}");

    let text = lab.file("audit.jsonl.1");
    let lines: Vec<&str> = text.lines().collect();
    let without = [&lines[..7], &lines[8..]].concat().join("\n") + "\n";
    std::fs::write(lab.path("audit.jsonl.1"), without).unwrap();
    let (code, text) = kordon(&["audit", "verify", "--format", "json", &new, &old]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &report["faults"][0]["line"]),
        (1, &8.into()),
        "{report}"
    );
}
