//! The audit log against real files.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::telemetry::Exposition;

fn recorder() -> Recorder {
    Recorder::new(|_| None)
}

fn to(path: &Path) -> AuditSettings {
    AuditSettings {
        sink: AuditSink::File(AuditFile {
            path: path.to_owned(),
            rotation: None,
        }),
        ..AuditSettings::default()
    }
}

pub(super) fn entry() -> Entry {
    Entry {
        connection: 7,
        listener: "app".into(),
        host: IpAddr::from([10, 1, 2, 3]),
        principal: Some("User:auth-service".into()),
        proof: Some(Proof::Token),
        groups: ["writers".into()].into(),
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
        policy: Some("0123456789abcdef".into()),
        count: None,
    }
}

fn all_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect()
}

/// Those that are decisions.
fn lines(path: &Path) -> Vec<Value> {
    let mut lines = all_lines(path);
    lines.retain(|line| line.get("chain").is_none());
    lines
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
    let audit = Audit::start(to(&path), &recorder).unwrap();

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
    for field in ["seq", "prev", "hash"] {
        let chained = first.as_object_mut().unwrap().remove(field);
        assert!(chained.is_some(), "{field}");
    }
    let expected = serde_json::json!({
        "connection": 7, "listener": "app", "host": "10.1.2.3",
        "principal": "User:auth-service", "tenant": "corallum", "api": "Produce",
        "operation": "Write", "resource": "Topic:audit.events", "decision": "deny",
        "reason": "authorization", "rule": "policies/auth.yaml:14",
        "proof": "token", "groups": ["writers"], "policy": "0123456789abcdef",
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
        let audit = Audit::start(to(&path), &recorder()).unwrap();
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
    let audit = Audit::start(to(&path), &recorder()).unwrap();
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
    let error = Audit::start(to(&path), &recorder()).err().unwrap();
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
    let audit = Audit::start(to(&path), &recorder).unwrap();

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
    let audit = Audit::start(to(&path), &recorder).unwrap();
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
    let audit = Audit::start(to(&path), &recorder()).unwrap();
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
    assert_eq!(
        text.lines().count(),
        3,
        "one line between marks, whatever the name holds"
    );
    assert!(!text.contains('\u{1b}'));
    let line = &lines(&path)[0];
    assert!(line["resource"].as_str().unwrap().len() <= FIELD_BYTES_MAX + 16);
    assert!(line["principal"].as_str().unwrap().ends_with('…'));
}

#[test]
fn no_sink_takes_everything_and_writes_nothing() {
    let audit = Audit::start(AuditSettings::default(), &recorder()).unwrap();
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

/// A log of that many lines, as text.
fn written(path: &Path, settings: AuditSettings, lines: u64) {
    let audit = Audit::start(settings, &recorder()).unwrap();
    for connection in 0..lines {
        let entry = Entry {
            connection,
            ..entry()
        };
        audit.record(entry);
    }
    assert!(audit.close());
    assert!(path.exists());
}

fn verified(paths: &[PathBuf]) -> verify::Report {
    verify::verify(paths, &Sealer::default()).unwrap()
}

#[track_caller]
fn holds(paths: &[PathBuf]) -> verify::Report {
    let report = verified(paths);
    assert_eq!(report.faults, []);
    report
}

fn marks(path: &Path) -> Vec<String> {
    let marks = all_lines(path).into_iter();
    let marks = marks.filter_map(|line| Some(line.get("chain")?.as_str()?.to_owned()));
    marks.collect()
}

#[test]
fn the_chain_goes_on_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for _ in 0..3 {
        written(&path, to(&path), 2);
    }
    let report = holds(std::slice::from_ref(&path));
    assert_eq!((report.lines, report.notes.len()), (12, 0));
    assert_eq!(
        marks(&path),
        ["begin", "end", "resume", "end", "resume", "end"]
    );
    let numbers: Vec<u64> = { all_lines(&path).into_iter() }
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    assert_eq!(report.head.unwrap().0, 11);
}

#[test]
fn full_files_are_numbered_and_no_line_is_lost_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut settings = to(&path);
    settings.sink = AuditSink::File(AuditFile {
        path: path.clone(),
        rotation: Some(Rotation {
            max_bytes: 8 * 1024,
            keep: 50,
        }),
    });
    written(&path, settings.clone(), 100);
    written(&path, settings.clone(), 100);
    let mut paths: Vec<PathBuf> = { std::fs::read_dir(folder.path()).unwrap() }
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    for path in &paths {
        assert!(std::fs::metadata(path).unwrap().len() <= 8 * 1024);
    }
    let report = holds(&paths);
    assert_eq!(report.notes, []);
    let found: usize = paths.iter().map(|path| lines(path).len()).sum();
    assert_eq!(found, 200);

    // A file between is missing, and one that lost its end is not the same as one that ended.
    paths.retain(|path| !path.ends_with("audit.jsonl.2"));
    let report = verified(&paths);
    assert_eq!(report.faults.len(), 1, "{report:?}");
    assert!(report.faults[0].file.ends_with("audit.jsonl.1"));

    // The oldest files go, and what is kept still holds.
    settings.sink = AuditSink::File(AuditFile {
        path: path.clone(),
        rotation: Some(Rotation {
            max_bytes: 8 * 1024,
            keep: 2,
        }),
    });
    written(&path, settings, 100);
    let kept = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"].map(|n| folder.path().join(n));
    let report = holds(&kept);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(report.notes[0].text.contains("earlier lines"));
}

#[test]
fn half_a_line_of_a_process_that_died_is_explained_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    written(&path, to(&path), 3);
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text[..text.len() - 40].to_owned();
    std::fs::write(&path, &cut).unwrap();
    assert_eq!(verified(std::slice::from_ref(&path)).faults.len(), 1);

    written(&path, to(&path), 1);
    let report = holds(std::slice::from_ref(&path));
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert_eq!(report.notes[0].line, 5);

    // The excuse is for so many bytes and no other.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen(&cut[cut.len() - 20..], "", 1)).unwrap();
    assert!(!verified(&[path]).holds());
}

#[test]
fn a_file_of_somebody_else_is_not_continued_and_not_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    std::fs::write(&path, "{\"decision\":\"deny\"}\nhalf").unwrap();
    written(&path, to(&path), 1);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("{\"decision\":\"deny\"}\nhalf\n{"),
        "{text}"
    );
    let report = verified(&[path]);
    assert_eq!(report.faults[0].line, 1, "{report:?}");
}

#[test]
fn dropped_lines_leave_a_line_that_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Audit::start(to(&path), &recorder()).unwrap();
    audit.record(entry());
    audit.drop_lines(DropCause::Request, 5);
    audit.record(entry());
    audit.drop_lines(DropCause::QueueFull, 2);
    assert!(audit.close());
    let report = holds(std::slice::from_ref(&path));
    assert_eq!(report.lost, 7);
    assert_eq!(lines(&path).len(), 2);
}

#[test]
fn lines_lost_to_a_full_disk_are_counted_and_somebody_is_told() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let recorder = recorder();
    let audit = Audit::start(to(Path::new("/dev/full")), &recorder).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    audit.watch(move |trouble| {
        let _ = tell.send(trouble);
    });
    audit.record(entry());
    let trouble = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(trouble.unwrap().contains("cannot be written"));
    assert!(audit.close());
    let series = r#"kordon_audit_dropped_total{cause="write"}"#;
    assert_eq!(count(&recorder, series), 1);
}

#[test]
fn allowed_decisions_that_are_alike_become_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut settings = to(&path);
    settings.allows = Allows::Counted;
    let recorder = recorder();
    let audit = Audit::start(settings, &recorder).unwrap();
    let allow = |name: &str| Entry {
        verdict: Verdict::Allow,
        resource: Some(Resource {
            kind: ResourceKind::Topic,
            name: name.to_owned(),
        }),
        ..entry()
    };
    for connection in 0..5 {
        audit.allowed(Entry {
            connection,
            ..allow("a")
        });
    }
    audit.allowed(allow("b"));
    audit.record(entry());
    assert!(audit.close());
    let mut counts: Vec<_> = { lines(&path).into_iter() }
        .filter(|line| line["decision"] == "allow")
        .map(|l| (l["resource"].to_string(), l["count"].as_u64().unwrap()))
        .collect();
    counts.sort();
    assert_eq!(
        counts,
        [("\"Topic:a\"".to_owned(), 5), ("\"Topic:b\"".to_owned(), 1)]
    );
    assert!(verified(&[path]).holds());
}

/// Whoever decides by another set wants to hear of it at once, and not a thousand times.
#[test]
fn the_first_of_differences_that_are_alike_is_a_line_and_the_others_are_counted() {
    for (allows, expected) in [
        (Allows::None, vec![None, Some(4)]),
        (Allows::Counted, vec![None, Some(4)]),
        (Allows::All, vec![None; 5]),
        (Allows::Sample(0.0), vec![]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut settings = to(&path);
        settings.allows = allows;
        let audit = Audit::start(settings, &recorder()).unwrap();
        let mut sampler = audit.difference_sampler();
        for connection in 0..5 {
            if sampler.takes() {
                audit.differs(Entry {
                    connection,
                    verdict: Verdict::Would(Would::Deny, ShadowSet::Shadow),
                    detail: Some(format!("record {connection}")),
                    ..entry()
                });
            }
        }
        assert!(audit.close());
        let lines = lines(&path);
        let lines: Vec<_> = lines
            .iter()
            .filter(|l| l["decision"] == "would_deny")
            .collect();
        assert!(
            lines.iter().all(|line| line["set"] == "shadow"),
            "{lines:?}"
        );
        let counts: Vec<_> = lines.iter().map(|line| line["count"].as_u64()).collect();
        assert_eq!(counts, expected, "{allows:?}");
        assert!(verified(&[path]).holds());
    }
    let off = Audit::start(AuditSettings::default(), &recorder()).unwrap();
    assert!(!off.difference_sampler().takes());
}

#[test]
fn counts_have_a_bound_and_what_is_beyond_it_is_counted_as_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut settings = to(&path);
    settings.allows = Allows::Counted;
    let recorder = recorder();
    let audit = Audit::start(settings, &recorder).unwrap();
    for number in 0..allows::COUNTED_MAX + 3 {
        audit.allowed(Entry {
            resource: Some(Resource {
                kind: ResourceKind::Topic,
                name: format!("t{number}"),
            }),
            ..entry()
        });
    }
    let series = r#"kordon_audit_dropped_total{cause="table_full"}"#;
    assert_eq!(count(&recorder, series), 3);
    assert!(audit.close());
    assert_eq!(lines(&path).len(), allows::COUNTED_MAX);
}

#[test]
fn groups_have_a_bound_and_what_is_beyond_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Audit::start(to(&path), &recorder()).unwrap();
    let groups: Vec<Arc<str>> = (0..10_000).map(|n| format!("g{n}").into()).collect();
    audit.record(Entry {
        groups: groups.into(),
        ..entry()
    });
    assert!(audit.close());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|l| l.len() < 2 * GROUPS_BYTES_MAX));
    let groups = lines(&path)[0]["groups"].as_array().unwrap().clone();
    assert_eq!(groups[0], "g0");
    assert_eq!(*groups.last().unwrap(), MORE);
}

#[test]
fn a_keyed_chain_needs_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (
        folder.path().join("audit.jsonl"),
        folder.path().join("audit.key"),
    );
    let secret = Secret::File(key.clone());
    std::fs::write(&key, "short\n").unwrap();
    let settings = AuditSettings {
        key: Some(secret.clone()),
        ..to(&path)
    };
    let error = Audit::start(settings.clone(), &recorder()).err().unwrap();
    assert!(matches!(error, AuditError::ShortKey), "{error}");

    std::fs::write(&key, "a secret that is long enough\n").unwrap();
    written(&path, settings, 3);
    let paths = [path];
    let right = sealer(Some(&secret)).unwrap();
    assert!(verify::verify(&paths, &right).unwrap().holds());
    let wrong = Sealer::keyed(b"another secret, as long as it");
    assert!(!verify::verify(&paths, &wrong).unwrap().holds());
    let error = verify::verify(&paths, &Sealer::default()).unwrap_err();
    assert!(matches!(error, verify::VerifyError::KeyNeeded { .. }));

    // A chain without a key is none where one was asked for.
    let plain = folder.path().join("plain.jsonl");
    written(&plain, to(&plain), 1);
    assert!(!verify::verify(&[plain], &right).unwrap().holds());
}
