//! The audit log against real files.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;
use crate::telemetry::Exposition;

fn recorder() -> Recorder {
    Recorder::new(|_| None)
}

fn entry() -> Entry {
    Entry {
        connection: 7,
        listener: "app".into(),
        host: IpAddr::from([10, 1, 2, 3]),
        principal: Some("User:auth-service".into()),
        tenant: "corallum".into(),
        api: Some("Produce"),
        operation: Some(Operation::Write),
        resource: Some(Resource {
            kind: ResourceKind::Topic,
            name: "audit.events".into(),
        }),
        verdict: Verdict::Deny,
        reason: Reason::Authorization,
        detail: None,
        rule: Some(RuleRef {
            file: "policies/auth.yaml".into(),
            line: 14,
        }),
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect()
}

fn count(recorder: &Recorder, series: &str) -> u64 {
    let text = recorder.render(Exposition::Prometheus);
    let prefix = format!("{series} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&prefix));
    value.expect(series).parse().unwrap()
}

#[test]
fn a_line_holds_the_fields_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let recorder = recorder();
    let audit = Audit::start(AuditSink::File(path.clone()), &recorder).unwrap();

    audit.record(entry());
    audit.record(Entry {
        principal: None,
        api: None,
        operation: None,
        resource: None,
        rule: None,
        reason: Reason::Authentication,
        detail: Some("token expired 3 s ago".into()),
        ..entry()
    });
    assert!(audit.close());

    let lines = lines(&path);
    let mut first = lines[0].clone();
    let time = first.as_object_mut().unwrap().remove("time").unwrap();
    let time = time.as_str().unwrap();
    assert_eq!(
        (time.len(), &time[10..11], &time[19..20], &time[23..]),
        (24, "T", ".", "Z")
    );
    let expected = serde_json::json!({
        "connection": 7, "listener": "app", "host": "10.1.2.3",
        "principal": "User:auth-service", "tenant": "corallum", "api": "Produce",
        "operation": "Write", "resource": "Topic:audit.events", "decision": "deny",
        "reason": "authorization", "rule": "policies/auth.yaml:14",
    });
    assert_eq!(first, expected);
    for field in ["principal", "api", "operation", "resource", "rule"] {
        assert_eq!(
            lines[1].get(field),
            Some(&Value::Null),
            "{field} is there, and null"
        );
    }
    assert_eq!(lines[1]["detail"], "token expired 3 s ago");
    assert_eq!(count(&recorder, "kordon_audit_lines_total"), 2);
}

#[test]
fn the_file_is_appended_to_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for _ in 0..2 {
        let audit = Audit::start(AuditSink::File(path.clone()), &recorder()).unwrap();
        audit.record(entry());
        assert!(audit.close());
    }
    assert_eq!(lines(&path).len(), 2);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let moved = folder.path().join("audit.jsonl.1");
    let audit = Audit::start(AuditSink::File(path.clone()), &recorder()).unwrap();
    audit.record(entry());
    std::fs::rename(&path, &moved).unwrap();
    audit.reopen();
    // The file exists once the writer has acted; lines recorded from then on are in it.
    while !path.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    audit.record(entry());
    assert!(audit.close());
    assert_eq!(lines(&path).len() + lines(&moved).len(), 2);
    assert!(!lines(&path).is_empty());
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("audit.jsonl");
    let error = Audit::start(AuditSink::File(path.clone()), &recorder())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

/// A sink that blocks: a pipe nobody reads.
fn stuck() -> (tempfile::TempDir, PathBuf, File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    // Read and write, so that neither side waits for the other to open.
    let keep = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    (folder, path, keep)
}

#[test]
fn a_full_queue_drops_and_counts_without_waiting() {
    let (_folder, path, _keep) = stuck();
    let recorder = recorder();
    let audit = Audit::start(AuditSink::File(path), &recorder).unwrap();

    // Far more than the pipe (64 KiB), a batch and the queue take together.
    let before = clock::now();
    for _ in 0..4 * QUEUE_LINES_MAX {
        audit.record(entry());
    }
    assert!(
        clock::now() - before < Duration::from_secs(5),
        "recording waited for the sink"
    );

    let dropped = count(
        &recorder,
        r#"kordon_audit_dropped_total{cause="queue_full"}"#,
    );
    assert!(dropped >= QUEUE_LINES_MAX as u64, "{dropped}");
    let waiting = lock(&audit.shared.as_ref().unwrap().queue).entries.len();
    assert!(waiting <= QUEUE_LINES_MAX, "{waiting}");
    // The end of the process is not held up for longer than said.
    let before = clock::now();
    assert!(!audit.close());
    assert!(clock::now() - before < CLOSE_WAIT + Duration::from_secs(2));
}

#[test]
fn a_disk_that_is_full_counts_the_lines_as_lost() {
    let path = PathBuf::from("/dev/full");
    if !path.exists() {
        return;
    }
    let recorder = recorder();
    let audit = Audit::start(AuditSink::File(path), &recorder).unwrap();
    audit.record(entry());
    audit.record(entry());
    assert!(audit.close());
    assert_eq!(
        count(&recorder, r#"kordon_audit_dropped_total{cause="write"}"#),
        2
    );
    assert_eq!(count(&recorder, "kordon_audit_lines_total"), 0);
}

#[test]
fn text_of_a_peer_is_escaped_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Audit::start(AuditSink::File(path.clone()), &recorder()).unwrap();
    let hostile = format!(
        "a\n{{\"decision\":\"allow\"}}\u{1b}[31m{}",
        "é".repeat(20_000)
    );
    audit.record(Entry {
        principal: Some(hostile.as_str().into()),
        resource: Some(Resource {
            kind: ResourceKind::Group,
            name: hostile,
        }),
        ..entry()
    });
    assert!(audit.close());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1, "one line, whatever the name holds");
    assert!(!text.contains('\u{1b}'));
    let line = &lines(&path)[0];
    assert!(line["resource"].as_str().unwrap().len() <= FIELD_BYTES_MAX + 16);
    assert!(line["principal"].as_str().unwrap().ends_with('…'));
}

#[test]
fn no_sink_takes_everything_and_writes_nothing() {
    let audit = Audit::start(AuditSink::None, &recorder()).unwrap();
    assert!(!audit.is_on());
    audit.record(entry());
    audit.reopen();
    assert!(audit.close());
}

#[test]
fn times_have_three_digits_of_milliseconds() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_709_164_800_007, "2024-02-29T00:00:00.007Z"),
        (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(
            rfc3339_ms(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
            text
        );
    }
}
