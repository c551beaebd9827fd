//! Both formats against a strict reader of their grammar, and against `promtool` if installed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::*;
use crate::telemetry::{PolicyInForce, Recorder};

/// A recorder in which every series that can exist does.
fn full() -> Recorder {
    let recorder = Recorder::new(|key| match key {
        0 => Some("Produce"),
        1 => Some("Fetch"),
        _ => None,
    });
    for &what in Expiring::ALL {
        recorder.expiry(what, "app", Some(std::time::SystemTime::UNIX_EPOCH));
    }
    let hostile = "a\"b\\c\nd}e é";
    for tenant in ["shop", "", hostile] {
        let connection = recorder.connection(tenant, "app");
        for &outcome in Outcome::ALL {
            connection.request(0, outcome);
        }
        for &reason in Reason::ALL {
            connection.refusal(1, reason);
        }
        connection.revocation(1);
        connection.request(10_000, Outcome::Closed);
        connection.duration(1, Duration::from_micros(1_500));
        connection.duration(1, Duration::from_secs(61));
        connection.bytes(Direction::Out, u64::from(u32::MAX) * 16);
        connection.throttled(Duration::from_millis(1_050));
        connection.schema_violations(ViolationAction::Reject, 3);
    }
    recorder.token_fetched("", SystemTime::UNIX_EPOCH + Duration::from_secs(9));
    recorder.token_fetched(hostile, SystemTime::UNIX_EPOCH + Duration::from_secs(99));
    recorder.policy_in_force(PolicyInForce {
        generation: 3,
        loaded: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
    });
    let issuer = recorder.issuer("tokens", hostile);
    issuer.asked(IssuerOutcome::Unusable);
    issuer.keys(3, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    recorder.issuer("tokens", "https://asked.example");
    recorder
}

/// Name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: bool,
    samples: Vec<Sample>,
}

/// Reads an exposition and panics on whatever the formats do not allow.
fn read(text: &str, format: Exposition) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    let mut ended = false;
    for line in text.lines() {
        assert!(!ended, "nothing follows # EOF: {line}");
        if line == "# EOF" {
            ended = true;
        } else if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            let text = words.next().unwrap();
            if name != current {
                assert!(!families.contains_key(name), "{name} is split in two");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "metadata comes first: {line}");
            match keyword {
                "TYPE" => family.kind = text.to_owned(),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{text}")), "{line}");
                    family.unit = Some(text.to_owned());
                }
                "HELP" => family.help = true,
                _ => panic!("{line}"),
            }
        } else {
            assert!(
                seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()),
                "twice: {line}"
            );
            let sample = sample(line);
            let family = families.get_mut(&current).expect(line);
            let suffix = sample.0.strip_prefix(current.as_str()).expect(line);
            let open = format == Exposition::OpenMetrics;
            let allowed: &[&str] = match family.kind.as_str() {
                "counter" if open => &["_total"],
                "info" if open => &["_info"],
                "counter" | "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                kind => panic!("kind {kind}: {line}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            family.samples.push(sample);
        }
    }
    assert_eq!(ended, format == Exposition::OpenMetrics);
    families
}

/// `name{label="value",…} number`, with the escapes of both formats and nothing else.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let name_end = series.find('{').unwrap_or(series.len());
    let (name, rest) = series.split_at(name_end);
    assert!(
        name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()),
        "{line}"
    );
    let mut labels = Vec::new();
    let mut chars = rest.chars().peekable();
    if !rest.is_empty() {
        assert_eq!(chars.next(), Some('{'));
        loop {
            let label: String = std::iter::from_fn(|| chars.next_if(|&c| c != '=')).collect();
            assert!(
                label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{line}"
            );
            assert_eq!(
                (chars.next(), chars.next()),
                (Some('='), Some('"')),
                "{line}"
            );
            let mut value = String::new();
            loop {
                match chars.next().expect(line) {
                    '"' => break,
                    '\\' => value.push(match chars.next().expect(line) {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("escape {c}: {line}"),
                    }),
                    c => value.push(c),
                }
            }
            labels.push((label, value));
            match chars.next() {
                Some(',') => {}
                Some('}') => break,
                c => panic!("{c:?}: {line}"),
            }
        }
        assert_eq!(chars.next(), None, "{line}");
    }
    (name.to_owned(), labels, value.parse().expect(line))
}

#[test]
fn every_metric_is_exposed_with_its_labels_in_both_formats() {
    for format in [Exposition::Prometheus, Exposition::OpenMetrics] {
        let families = read(&full().render(format), format);
        assert_eq!(families.len(), names::ALL.len());
        for metric in names::ALL {
            let name = match (metric.kind, format) {
                (Kind::Counter, Exposition::OpenMetrics) => strip(metric.name, "_total"),
                (Kind::Info, Exposition::OpenMetrics) => strip(metric.name, "_info"),
                _ => metric.name,
            };
            let family = families.get(name).expect(name);
            assert!(family.help, "{name}");
            let unit = metric
                .unit
                .suffix()
                .filter(|_| format == Exposition::OpenMetrics);
            assert_eq!(family.unit.as_deref(), unit, "{name}");
            assert!(!family.samples.is_empty(), "{name} has no sample");
            for (_, labels, _) in &family.samples {
                let mut labels: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).collect();
                labels.retain(|&name| name != "le");
                assert_eq!(labels, metric.labels, "{name}");
            }
        }
    }
}

#[test]
fn hostile_tenants_survive_the_escapes() {
    let families = read(
        &full().render(Exposition::Prometheus),
        Exposition::Prometheus,
    );
    let tenants: BTreeSet<_> = families["kordon_throttle_seconds_total"]
        .samples
        .iter()
        .map(|(_, labels, value)| {
            assert!((value - 1.05).abs() < 1e-9);
            labels[0].1.as_str()
        })
        .collect();
    assert_eq!(tenants, BTreeSet::from(["", "shop", "a\"b\\c\nd}e é"]));
}

#[test]
fn histograms_are_cumulative_and_agree_with_themselves() {
    let families = read(
        &full().render(Exposition::OpenMetrics),
        Exposition::OpenMetrics,
    );
    let samples = &families["kordon_request_duration_seconds"].samples;
    let buckets: Vec<_> = samples
        .iter()
        .filter(|s| s.0.ends_with("_bucket"))
        .collect();
    assert_eq!(buckets.len(), DURATION_BUCKETS.len() + 1);
    assert!(buckets.is_sorted_by(|a, b| a.2 <= b.2));
    assert_eq!(buckets.last().unwrap().1[1].1, "+Inf");
    let only = |suffix| samples.iter().find(|s| s.0.ends_with(suffix)).unwrap().2;
    assert_eq!((buckets.last().unwrap().2, only("_count")), (6.0, 6.0));
    assert!((only("_sum") - 3.0 * 61.0015).abs() < 1e-9);
}

#[test]
fn an_idle_process_exposes_its_bounds_from_the_start() {
    let text = Recorder::new(|_| None).render(Exposition::Prometheus);
    for series in [
        "kordon_audit_dropped_total{cause=\"queue_full\"} 0",
        "kordon_upstream_dial_failures_total{stage=\"connect\"} 0",
        "kordon_connections_refused_total 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series}");
    }
    read(&text, Exposition::Prometheus);
}

#[test]
fn the_accept_header_chooses_the_format() {
    use Exposition::{OpenMetrics as O, Prometheus as P};
    for (accept, format) in [
        (None, P),
        (Some(""), P),
        (Some("*/*"), P),
        (Some("text/html"), P),
        (Some("text/plain;version=0.0.4"), P),
        (Some("application/openmetrics-text"), O),
        (
            Some("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8"),
            O,
        ),
        (Some("application/openmetrics-text;q=0"), P),
        (
            Some("application/openmetrics-text;q=0.2,text/plain;q=0.7"),
            P,
        ),
        (Some("application/openmetrics-text;version=9.0.0"), P),
        (Some("application/openmetrics-text;q=nonsense"), O),
        // What Prometheus 2.42 and 3 send.
        (
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            O,
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            ),
            O,
        ),
    ] {
        assert_eq!(Exposition::negotiate(accept), format, "{accept:?}");
    }
}

/// `promtool check metrics` is Prometheus' own lint of its text format.
#[test]
fn promtool_finds_nothing_to_say() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: promtool is not installed; the reader above still ran");
        return;
    };
    let text = full().render(Exposition::Prometheus);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
