//! What topic rules object to, how they say it, and what they let pass.

use std::cell::Cell;

use kafka_protocol::records as kp;

use super::change::{Change, ConfigChange, Count, Defaults, How};
use super::produce::{Fault, LARGE_RECORDS_MAX};
use super::*;
use crate::policy::model::Operation;
use crate::problem::Problems;
use crate::wire::records::{Scratch, inspect};

/// A policy for topics that begin with `t.`.
fn policy(spec: &str) -> Result<TopicSpec, String> {
    let text = format!("{{topics: [\"t.*\"], {spec}}}");
    let mut problems = Problems::default();
    let documents = crate::document::parse(&"p.yaml".into(), &text, &mut problems);
    let spec = parse::topic_policy("house", &documents[0], &mut problems);
    let told: Vec<String> = (problems.list.iter())
        .map(|p| {
            let place = p.place.as_ref().unwrap();
            let help = p.help.as_deref().unwrap_or_default();
            format!("{}:{} {}. {help}", place.line, place.column, p.message)
        })
        .collect();
    match told.is_empty() {
        true => Ok(spec.unwrap()),
        false => Err(told.join("\n")),
    }
}

fn rules(specs: &[&str]) -> TopicRules {
    TopicRules::new(specs.iter().map(|spec| policy(spec).unwrap()).collect())
}

fn creation() -> Change<'static> {
    Change {
        operation: Operation::Create,
        is_new: true,
        partitions: Some(Count::Stated(6)),
        replicas: vec![Count::Stated(3)],
        configs: Vec::new(),
    }
}

/// What is said against a change where the cluster's defaults are 1 and 2.
fn said(rules: &TopicRules, topic: &str, change: &Change<'_>) -> Option<String> {
    let defaults = Defaults {
        partitions: 1,
        replication_factor: 2,
    };
    let objection = rules.object(topic, change, &mut || Some(defaults))?;
    assert_eq!(&*objection.rule.file, "p.yaml");
    Some(objection.message)
}

#[test]
fn a_name_matches_as_a_whole() {
    let rules = rules(&["create: {name: 't\\.[a-z]+|t\\.x-\\d+'}"]);
    for name in ["t.abc", "t.x-12"] {
        assert_eq!(said(&rules, name, &creation()), None, "{name}");
    }
    for name in ["t.abcD", "t.a.b", "t.x-1a", "t.abc\n", "t.", "t.é"] {
        assert!(said(&rules, name, &creation()).is_some(), "{name:?}");
    }
    assert_eq!(
        said(&rules, "t.A", &creation()).unwrap(),
        "policy `house`, create.name: expected a name that matches `t\\.[a-z]+|t\\.x-\\d+`, \
         got `t.A`"
    );
    let long = format!("t.{}", "A".repeat(1_000));
    assert!(said(&rules, &long, &creation()).unwrap().len() < 400);
    // A topic that is there keeps its name, and what no policy names is free.
    let old = Change {
        is_new: false,
        ..creation()
    };
    assert_eq!(said(&rules, "t.OLD", &old), None);
    assert_eq!(said(&rules, "OTHER", &creation()), None);
}

#[test]
fn numbers_lie_in_ranges_with_both_ends() {
    for (range, inside, outside) in [
        ("6", vec![6], vec![5, 7, 0, -1]),
        ("2..4", vec![2, 3, 4], vec![1, 5]),
        ("..4", vec![1, 4], vec![5, -1]),
        ("2..", vec![2, 1_000_000], vec![1]),
    ] {
        let rules = rules(&[&format!("create: {{partitions: {range}}}")]);
        let of = |number| {
            let partitions = Some(Count::Stated(number));
            Change {
                partitions,
                ..creation()
            }
        };
        for number in inside {
            assert_eq!(said(&rules, "t.a", &of(number)), None, "{range} {number}");
        }
        for number in outside {
            assert_eq!(
                said(&rules, "t.a", &of(number)).unwrap(),
                format!("policy `house`, create.partitions: expected {range}, got {number}")
            );
        }
    }
    // Each partition's replicas count.
    let rules = rules(&["create: {replicationFactor: 2..3}"]);
    let change = Change {
        replicas: vec![Count::Stated(2), Count::Stated(4)],
        ..creation()
    };
    assert_eq!(
        said(&rules, "t.a", &change).unwrap(),
        "policy `house`, create.replicationFactor: expected 2..3, got 4"
    );
}

#[test]
fn the_clusters_defaults_are_judged_and_asked_for_only_where_they_matter() {
    let change = Change {
        partitions: Some(Count::Default),
        replicas: vec![Count::Default],
        ..creation()
    };
    let good = rules(&["create: {partitions: 1..3, replicationFactor: 2}"]);
    assert_eq!(said(&good, "t.a", &change), None);
    let rules = rules(&["create: {partitions: 2.., replicationFactor: 3}"]);
    assert_eq!(
        said(&rules, "t.a", &change).unwrap(),
        "policy `house`, create.partitions: expected 2.., got none, and the cluster's default is \
         1; policy `house`, create.replicationFactor: expected 3, got none, and the cluster's \
         default is 2"
    );
    let asked = Cell::new(0);
    let mut nobody = || {
        asked.set(asked.get() + 1);
        None
    };
    let unknown = rules.object("t.a", &change, &mut nobody).unwrap().message;
    assert!(unknown.contains("is not known here: state it"), "{unknown}");
    assert_eq!(asked.take(), 2);
    assert!(rules.object("other", &change, &mut nobody).is_none());
    assert!(rules.object("t.a", &creation(), &mut nobody).is_none());
    assert_eq!(asked.get(), 0);
}

/// What is said about one configuration that is set to `value`.
fn config(rule: &str, how: How<'_>) -> Option<String> {
    let rules = rules(&[&format!("create: {{configs: {{c: {rule}}}}}")]);
    let configs = ["other", "c"].map(|name| ConfigChange { name, how });
    let change = Change {
        configs: configs.to_vec(),
        ..creation()
    };
    said(&rules, "t.a", &change)
}

#[test]
fn a_configuration_is_a_value_a_range_or_one_of_a_list() {
    for (rule, good, bad) in [
        (
            "delete",
            vec!["delete", " delete "],
            vec!["compact", "Delete", ""],
        ),
        ("3", vec!["3", "03"], vec!["4", "3.0", "three"]),
        (
            "\"..100\"",
            vec!["0", "100"],
            vec!["101", "-1", "-2", "1e1", "٣"],
        ),
        ("-1..100", vec!["-1", "100"], vec!["-2"]),
        ("[-1, \"10..20\"]", vec!["-1", "15"], vec!["0", "21"]),
        ("true", vec!["true", "TRUE"], vec!["false", "1"]),
        ("0.5", vec!["0.5"], vec!["0.50", "1"]),
        (
            "[compact, delete]",
            vec!["compact", "delete", "compact,delete", "delete , compact"],
            vec!["compact,", "compact,other", ","],
        ),
        (
            "\"compact,delete\"",
            vec!["compact,delete"],
            vec!["compact"],
        ),
    ] {
        for value in good {
            assert_eq!(config(rule, How::Set(value)), None, "{rule} {value}");
        }
        for value in bad {
            assert!(config(rule, How::Set(value)).is_some(), "{rule} {value}");
        }
    }
    assert_eq!(
        config("[-1, \"..20\", \"x\"]", How::Set("z")).unwrap(),
        "policy `house`, create.configs.c: expected -1 or ..20 or `x`, got `z`"
    );
}

#[test]
fn a_message_fits_into_kafkas_strings_whatever_a_policy_holds() {
    let long: Vec<String> = (0..90)
        .map(|n| format!("\"{n}{}\"", "x".repeat(900)))
        .collect();
    let said = config(&format!("[{}]", long.join(", ")), How::Set("z")).unwrap();
    assert!(
        said.chars().count() <= 2_001 && said.ends_with('…'),
        "{said}"
    );
}

#[test]
fn what_is_appended_must_be_allowed_and_nothing_is_taken_out() {
    let rule = "[compact, delete]";
    assert_eq!(config(rule, How::Append("compact")), None);
    assert_eq!(config(rule, How::Append("compact,delete")), None);
    assert!(config(rule, How::Append("compact,other")).is_some());
    let said = config(rule, How::Subtract).unwrap();
    assert!(said.contains("set it as a whole"), "{said}");
}

#[test]
fn every_policy_counts_and_every_broken_rule_is_told() {
    let rules = rules(&[
        "create: {partitions: 1..24}",
        "create: {partitions: 6.., name: 't\\.[a-z]+'}",
    ]);
    assert_eq!(said(&rules, "t.a", &creation()), None);
    for (number, told) in [(25, 1), (5, 1), (6, 0)] {
        let partitions = Some(Count::Stated(number));
        let change = Change {
            partitions,
            ..creation()
        };
        let said = said(&rules, "t.a", &change).unwrap_or_default();
        assert_eq!(said.matches("policy `house`").count(), told, "{said}");
    }
    let change = Change {
        partitions: Some(Count::Stated(1)),
        ..creation()
    };
    let said = said(&rules, "t.A", &change).unwrap();
    assert!(said.contains("create.name") && said.contains("create.partitions"));
}

fn batch(sizes: &[usize], compression: kp::Compression, producer_id: i64) -> Vec<u8> {
    let record = |(index, bytes): (usize, &usize)| kp::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch: 0,
        timestamp_type: kp::TimestampType::Creation,
        offset: index as i64,
        sequence: index as i32,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(vec![b'v'; *bytes].into()),
        headers: Default::default(),
    };
    let records: Vec<_> = sizes.iter().enumerate().map(record).collect();
    let options = kp::RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = bytes::BytesMut::new();
    kp::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

fn produced(specs: &[&str], acks: i64, bytes: &[u8]) -> Result<(), Rejection> {
    let rules = rules(specs).produce("t.a").unwrap();
    let verdict = rules.check(acks, bytes, &mut Scratch::new());
    // The quick look never passes what the thorough one refuses.
    if let Ok(heads) = inspect(bytes) {
        let quick = rules.heads_pass(acks, &heads) && !rules.must_look(&heads);
        assert!(!quick || verdict.is_ok());
    }
    verdict
}

const CODECS: [(kp::Compression, &str); 5] = [
    (kp::Compression::None, "none"),
    (kp::Compression::Gzip, "gzip"),
    (kp::Compression::Snappy, "snappy"),
    (kp::Compression::Lz4, "lz4"),
    (kp::Compression::Zstd, "zstd"),
];

#[test]
fn acks_and_producer_ids_are_seen_in_the_request_and_the_heads() {
    let plain = batch(&[1], kp::Compression::None, -1);
    assert_eq!(produced(&["produce: {acks: all}"], -1, &plain), Ok(()));
    for acks in [0, 1] {
        let rejection = produced(&["produce: {acks: all}"], acks, &plain).unwrap_err();
        assert_eq!(
            (rejection.fault, &*rejection.message),
            (
                Fault::Rule,
                &*format!("policy `house`, produce.acks: expected `all` (-1), got {acks}")
            )
        );
    }
    let rejection = produced(&["produce: {idempotent: true}"], -1, &plain).unwrap_err();
    assert!(
        rejection.message.contains("produce.idempotent"),
        "{rejection:?}"
    );
    let mut both = batch(&[1], kp::Compression::None, 7);
    assert_eq!(
        produced(&["produce: {idempotent: true}"], -1, &both),
        Ok(())
    );
    // One batch without it is enough.
    both.extend(&plain);
    assert!(produced(&["produce: {idempotent: true}"], -1, &both).is_err());
}

#[test]
fn codecs_are_those_that_every_policy_names() {
    for (compression, name) in CODECS {
        let bytes = batch(&[100], compression, -1);
        let only = format!("produce: {{compression: [{name}]}}");
        assert_eq!(produced(&[&only], -1, &bytes), Ok(()), "{name}");
        let others: Vec<_> = (CODECS.iter())
            .map(|(_, other)| *other)
            .filter(|other| *other != name)
            .collect();
        let others = format!("produce: {{compression: [{}]}}", others.join(", "));
        let rejection = produced(&[&others], -1, &bytes).unwrap_err();
        let got = format!("got `{name}`");
        assert!(rejection.message.ends_with(&got), "{rejection:?}");
        let both = produced(&[&only, &others], -1, &bytes);
        assert_eq!(both.unwrap_err().fault, Fault::Rule);
    }
    let mut odd = batch(&[1], kp::Compression::None, -1);
    odd[22] |= 6;
    let rejection = produced(&["produce: {compression: [none]}"], -1, &odd).unwrap_err();
    assert!(rejection.message.ends_with("got codec 6"), "{rejection:?}");
}

#[test]
fn records_are_measured_uncompressed_one_by_one() {
    for (compression, name) in CODECS {
        let bytes = batch(&[10, 200, 90, 300], compression, -1);
        let rejection = produced(&["produce: {maxRecordBytes: 100}"], -1, &bytes).unwrap_err();
        assert_eq!(rejection.fault, Fault::Rule, "{name}");
        let indexes: Vec<_> = rejection.records.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, [1, 3], "{name}");
        assert_eq!(
            rejection.message,
            "policy `house`, produce.maxRecordBytes: expected at most 100 bytes, got more in 2 \
             records"
        );
        // Together they may be larger.
        assert_eq!(
            produced(&["produce: {maxRecordBytes: 310}"], -1, &bytes),
            Ok(())
        );
        // The least of all policies counts.
        let specs = [
            "produce: {maxRecordBytes: 310}",
            "produce: {maxRecordBytes: 1KiB}",
        ];
        assert_eq!(produced(&specs, -1, &bytes), Ok(()), "{name}");
        let specs = [
            "produce: {maxRecordBytes: 1KiB}",
            "produce: {maxRecordBytes: 250}",
        ];
        let rejection = produced(&specs, -1, &bytes).unwrap_err();
        assert!(
            rejection.message.starts_with("record 3: policy"),
            "{rejection:?}"
        );
    }
    // A record's own framing counts: attributes, two deltas, three lengths, no headers.
    let exact = batch(&[50], kp::Compression::None, -1);
    assert_eq!(
        produced(&["produce: {maxRecordBytes: 56}"], -1, &exact),
        Ok(())
    );
    assert!(produced(&["produce: {maxRecordBytes: 55}"], -1, &exact).is_err());
}

#[test]
fn a_batch_of_many_large_records_is_refused_as_a_whole() {
    let bytes = batch(&vec![20; LARGE_RECORDS_MAX + 1], kp::Compression::Gzip, -1);
    let rejection = produced(&["produce: {maxRecordBytes: 10}"], -1, &bytes).unwrap_err();
    assert!(rejection.records.is_empty() && rejection.message.ends_with("and others"));
}

#[test]
fn what_nobody_can_read_does_not_pass() {
    let spec = ["produce: {maxRecordBytes: 1KiB}"];
    let mut corrupt = batch(&[10], kp::Compression::Gzip, -1);
    *corrupt.last_mut().unwrap() ^= 1;
    assert_eq!(
        produced(&spec, -1, &corrupt).unwrap_err().fault,
        Fault::Corrupt
    );
    let mut older = batch(&[10], kp::Compression::None, -1);
    older[16] = 1;
    for spec in ["produce: {maxRecordBytes: 1KiB}", "produce: {acks: all}"] {
        let rejection = produced(&[spec], -1, &older).unwrap_err();
        assert_eq!(rejection.fault, Fault::Unreadable, "{rejection:?}");
        let cut = produced(&[spec], -1, &older[..40]).unwrap_err();
        assert_eq!(cut.fault, Fault::Unreadable);
    }
    let bomb = batch(&[8 << 20], kp::Compression::Gzip, -1);
    assert!(bomb.len() < 20_000);
    assert_eq!(
        produced(&spec, -1, &bomb).unwrap_err().fault,
        Fault::Unreadable
    );
}

#[test]
fn topics_without_rules_for_what_is_produced_cost_nothing() {
    let rules = rules(&["create: {partitions: 6}"]);
    assert!(!rules.rules_produce());
    assert!(rules.produce("t.a").is_none());
    let rules = super::tests::rules(&["create: {partitions: 6}", "produce: {acks: all}"]);
    assert!(rules.produce("other").is_none());
    assert!(rules.produce("t.a").is_some());
    assert!(Arc::ptr_eq(
        &rules.produce("t.a").unwrap(),
        &rules.produce("t.a").unwrap()
    ));
}

#[test]
fn mistakes_are_told_with_their_place_and_what_to_do() {
    for (spec, told) in [
        (
            "create: {partitions: 24..1}",
            "1:40 no number lies in the range `24..1`. did you mean `1..24`?",
        ),
        (
            "create: {partitions: 0}",
            "1:40 expected numbers from 1 to 2147483647, got `0`",
        ),
        (
            "create: {partitions: ..}",
            "1:40 expected a number or a range such as `6`, `1..24`",
        ),
        (
            "create: {partitions: many}",
            "1:40 expected a number or a range",
        ),
        (
            "create: {partitions: [6]}",
            "expected text, a whole number or a boolean, got a list",
        ),
        (
            "create: {replicationFactor: 40000}",
            "expected numbers from 1 to 32767, got `40000`",
        ),
        (
            "create: {name: '['}",
            "1:34 the pattern `[` cannot be used: unclosed character class",
        ),
        (
            "create: {name: 'a)|(?:b'}",
            "the pattern `a)|(?:b` cannot be used: unopened group",
        ),
        ("create: {name: '(?=a)b'}", "look-around"),
        ("create: {name: '(a{1000}){1000}'}", "exceeds size limit"),
        (
            "create: {partition: 6}",
            "unknown key `partition`. did you mean `partitions`?",
        ),
        ("create: {}", "`create` without a rule"),
        (
            "create: {configs: {}}",
            "expected 1 to 100 configurations, got 0",
        ),
        (
            "create: {configs: {retention.ms: 5..1}}",
            "no number lies in the range `5..1`",
        ),
        (
            "create: {configs: {retention.ms: ..x}}",
            "expected a range such as `1..24`",
        ),
        (
            "create: {configs: {retention.ms: ..-5}}",
            "a range without a begin starts at 0",
        ),
        (
            "create: {configs: {retention.ms: []}}",
            "expected at least one item",
        ),
        (
            "create: {configs: {retention.ms: ~}}",
            "expected a value or a range",
        ),
        (
            "create: {configs: {retention.sm: 5}}",
            "no topic configuration `retention.sm`. did you mean `retention.ms`?",
        ),
        (
            "produce: {compression: [lz5]}",
            "got `lz5`. did you mean `lz4`?",
        ),
        (
            "produce: {compression: lz4}",
            "expected a list, got `lz4`. write `[lz4]`",
        ),
        ("produce: {acks: 1}", "expected text, got the number `1`"),
        ("produce: {acks: one}", "expected `all`, got `one`"),
        (
            "produce: {idempotent: false}",
            "expected `idempotent: true`, got `false`. leave the key out",
        ),
        ("produce: {maxRecordBytes: 0}", "expected a size from 1 to"),
        (
            "produce: {maxRecordBytes: 1MB}",
            "expected a size such as `512KiB`",
        ),
        ("produce: {}", "`produce` without a rule"),
        (
            "produce: {acks: all}, mode: observed",
            "expected `enforce` or `observe`, got `observed`. did you mean `observe`?",
        ),
        (
            "mode: enforce",
            "a topic policy without `create` or `produce`",
        ),
    ] {
        let got = policy(spec).unwrap_err();
        assert!(got.contains(told), "{spec}: {got}");
        assert_eq!(got.lines().count(), 1, "{spec}: {got}");
    }
    let mut problems = Problems::default();
    let text = "{topics: [\"${tenant}.x\"], produce: {acks: all}}";
    let documents = crate::document::parse(&"p.yaml".into(), text, &mut problems);
    assert!(parse::topic_policy("p", &documents[0], &mut problems).is_none());
    assert!(
        problems.list[0]
            .message
            .contains("in the topics of a topic policy")
    );
}
