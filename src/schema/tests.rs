//! Policies over the shipped schemas, batches written by the kafka-protocol encoder; directories
//! with every mistake a person may make.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kp;
use tempfile::TempDir;

use super::spec::{Depth, Format, OnViolation, PayloadSpec, SchemaSpec, SubjectName};
use super::*;
use crate::policy::model::RuleRef;
use crate::policy::topic_pattern::{TOPICS_CACHED_MAX, TopicPattern};
use crate::problem::{Problems, Severity};
use crate::wire::records::Scratch;

const USER: &str = "user.authenticated";

fn shipped() -> Directory {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/schemas");
    let mut problems = Problems::default();
    let directory = Directory::load(&dir, &mut problems);
    assert!(problems.list.is_empty(), "{problems:?}");
    directory
}

fn rule(line: u32) -> RuleRef {
    RuleRef {
        file: "schemas.yaml".into(),
        line,
    }
}

fn payload(subject: SubjectName) -> PayloadSpec {
    PayloadSpec {
        format: Format::Avro,
        subject,
        check: Depth::Full,
        empty_allowed: false,
    }
}

/// A policy on the values of `topic`.
fn policy(line: u32, topic: TopicPattern, value: PayloadSpec) -> SchemaSpec {
    SchemaSpec {
        name: format!("policy-{line}"),
        rule: rule(line),
        topics: vec![topic],
        value: Some(value),
        key: None,
        on_violation: OnViolation::Reject,
    }
}

fn literal(topic: &str) -> TopicPattern {
    TopicPattern::Literal(topic.to_owned())
}

fn set(policies: Vec<SchemaSpec>) -> SchemaSet {
    SchemaSet::new(policies, shipped(), &mut Problems::default())
}

/// The user policy alone, by topic subject.
fn user_set() -> SchemaSet {
    set(vec![policy(1, literal(USER), payload(SubjectName::Topic))])
}

type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

fn record(at: usize, key: &Option<Vec<u8>>, value: &Option<Vec<u8>>) -> kp::Record {
    kp::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: kp::TimestampType::Creation,
        offset: at as i64,
        sequence: at as i32,
        timestamp: 0,
        key: key.clone().map(Into::into),
        value: value.clone().map(Into::into),
        headers: Default::default(),
    }
}

fn encoded(records: &[kp::Record], compression: kp::Compression) -> Vec<u8> {
    let options = kp::RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = BytesMut::new();
    kp::RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.to_vec()
}

fn batch(pairs: &[Pair], compression: kp::Compression) -> Vec<u8> {
    let pairs = pairs.iter().enumerate();
    let records: Vec<_> = pairs.map(|(i, (k, v))| record(i, k, v)).collect();
    encoded(&records, compression)
}

fn values(values: &[Vec<u8>]) -> Vec<u8> {
    let pairs: Vec<Pair> = values.iter().map(|v| (None, Some(v.clone()))).collect();
    batch(&pairs, kp::Compression::None)
}

fn framed(id: i32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 64);
    [&[(text.len() * 2) as u8][..], text.as_bytes()].concat()
}

/// A user.authenticated event.
fn user() -> Vec<u8> {
    let mut body = Vec::new();
    for field in ["event-1", "user-1", "shop", "a@example.org"] {
        body.extend(text(field));
    }
    body.extend([0x80, 0x01]);
    body.extend(text("10.0.0.1"));
    body.extend(text("agent"));
    body.extend([4]);
    body.extend(text("read"));
    body.extend(text("write"));
    body.extend([0]);
    framed(1, &body)
}

fn cut(mut payload: Vec<u8>, bytes: usize) -> Vec<u8> {
    payload.truncate(payload.len() - bytes);
    payload
}

fn judge(set: &SchemaSet, topic: &str, bytes: &[u8]) -> Outcome {
    set.topic(topic)
        .unwrap()
        .check_batchset(bytes, &mut Scratch::new())
}

/// What is said about one value.
fn said(set: &SchemaSet, topic: &str, value: Option<Vec<u8>>) -> String {
    let outcome = judge(set, topic, &batch(&[(None, value)], kp::Compression::None));
    assert_eq!(outcome.whole, None);
    outcome
        .bad
        .first()
        .map(|b| b.message.clone())
        .unwrap_or_default()
}

#[test]
fn good_events_pass_whatever_the_compression() {
    let set = user_set();
    let pairs = vec![(None, Some(user())); 50];
    for compression in [
        kp::Compression::None,
        kp::Compression::Gzip,
        kp::Compression::Snappy,
        kp::Compression::Lz4,
        kp::Compression::Zstd,
    ] {
        let outcome = judge(&set, USER, &batch(&pairs, compression));
        assert!(!outcome.refused(), "{outcome:?}");
        assert_eq!(outcome.records, 50);
    }
}

#[test]
fn every_culprit_is_listed_with_its_index() {
    let mut all = vec![user(); 6];
    all[1] = b"{\"eventId\": \"secret\"}".to_vec();
    all[3] = cut(user(), 1);
    all[4].push(0);
    let outcome = judge(&user_set(), USER, &values(&all));
    let found: Vec<(i32, &str)> = outcome.bad.iter().map(|b| (b.index, &*b.message)).collect();
    let name = "value is not a `corallum.events.UserAuthenticated` (schema id 1)";
    assert_eq!(
        found,
        [
            (
                1,
                "value does not begin with magic byte 0, as written without a schema registry \
                 serializer"
            ),
            (
                3,
                &*format!("{name}: `$.permissions`: expected the count of a block")
            ),
            (
                4,
                &*format!("{name}: `$`: expected nothing after the last field")
            ),
        ]
    );
    assert!(outcome.bad.iter().all(|b| b.rule == rule(1)));
    assert!(outcome.refused() && outcome.records == 6);
}

/// Threat 25: a registered id in front of unrelated bytes.
#[test]
fn t25_full_looks_behind_the_id_and_id_does_not() {
    let unrelated = framed(1, b"unrelated bytes");
    assert!(said(&user_set(), USER, Some(unrelated.clone())).contains("UserAuthenticated"));
    let mut spec = payload(SubjectName::Topic);
    spec.check = Depth::Id;
    let ids = set(vec![policy(1, literal(USER), spec)]);
    assert_eq!(said(&ids, USER, Some(unrelated)), "");
    assert_eq!(
        said(&ids, USER, Some(framed(2, b""))),
        "value has schema id 2, not registered under `user.authenticated-value`"
    );
}

/// Threat 26: null passes only where the policy says so, for key and value apart.
#[test]
fn t26_nulls_and_empties() {
    let mut lenient = payload(SubjectName::Topic);
    lenient.empty_allowed = true;
    let lenient = set(vec![policy(1, literal(USER), lenient)]);
    let null = "value is null, which the policy does not allow";
    assert_eq!(said(&user_set(), USER, None), null);
    assert_eq!(said(&lenient, USER, None), "");
    let empty = "value is empty, expected magic byte 0 and a schema id";
    assert_eq!(said(&lenient, USER, Some(vec![])), empty);

    let mut with_key = policy(1, literal(USER), payload(SubjectName::Topic));
    with_key.key = Some(payload(SubjectName::Fixed(
        "workflow.requested-value".to_owned(),
    )));
    let with_key = set(vec![with_key]);
    assert_eq!(
        said(&with_key, USER, Some(user())),
        "key is null, which the policy does not allow"
    );
    let bad_key = batch(
        &[(Some(framed(2, b"")), Some(user()))],
        kp::Compression::None,
    );
    let outcome = judge(&with_key, USER, &bad_key);
    assert!(
        outcome.bad[0]
            .message
            .starts_with("key is not a `corallum.events.Workflow")
    );
}

/// Threat 27: Confluent's deserializers look at the header first.
#[test]
fn t27_schema_id_in_a_header_is_refused() {
    let with = |name: &'static str| {
        let mut record = record(0, &None, &Some(user()));
        let guid = Some(vec![1; 17].into());
        record.headers.insert(StrBytes::from_static_str(name), guid);
        let outcome = judge(
            &user_set(),
            USER,
            &encoded(&[record], kp::Compression::None),
        );
        outcome.bad.first().map(|b| b.message.clone())
    };
    assert_eq!(
        with("__value_schema_id").unwrap(),
        "value has its schema in the header `__value_schema_id`, expected in front of the value"
    );
    // the policy says nothing about keys, or about other headers
    assert_eq!(with("__key_schema_id"), None);
    assert_eq!(with("tenant-id"), None);
    assert_eq!(
        said(&user_set(), USER, Some(vec![1; 17])),
        "value is framed with a schema GUID (magic byte 1), expected magic byte 0 and a schema id"
    );
}

#[test]
fn subjects_follow_the_strategy() {
    let dir = TempDir::new().unwrap();
    let entries = r#"{"subjects": [
        {"subject": "t-value", "version": 1, "id": 1, "file": "a.avsc"},
        {"subject": "x.B", "version": 1, "id": 2, "file": "b.avsc"},
        {"subject": "t-x.C", "version": 1, "id": 3, "file": "c.avsc"},
        {"subject": "other", "version": 1, "id": 4, "file": "d.avsc"},
        {"subject": "t-value", "version": 2, "id": 4, "file": "d.avsc"}
    ]}"#;
    std::fs::write(dir.path().join("subjects.json"), entries).unwrap();
    for (file, name) in [("a", "x.A"), ("b", "x.B"), ("c", "x.C"), ("d", "x.D")] {
        let schema = format!(r#"{{"type": "record", "name": "{name}", "fields": []}}"#);
        std::fs::write(dir.path().join(format!("{file}.avsc")), schema).unwrap();
    }
    let mut problems = Problems::default();
    let directory = Directory::load(dir.path(), &mut problems);
    assert!(problems.list.is_empty(), "{problems:?}");
    assert_eq!(directory.versions("t-value").count(), 2);
    let passing = |subject: SubjectName, topic: &str| -> Vec<i32> {
        let policies = vec![policy(1, TopicPattern::All, payload(subject))];
        let set = SchemaSet::new(policies, directory.clone(), &mut Problems::default());
        (1..=5)
            .filter(|id| said(&set, topic, Some(framed(*id, b""))).is_empty())
            .collect()
    };
    assert_eq!(passing(SubjectName::Topic, "t"), [1, 4]);
    assert_eq!(passing(SubjectName::Topic, "u"), [0; 0]);
    assert_eq!(passing(SubjectName::Record, "t"), [2]);
    assert_eq!(passing(SubjectName::Record, "u"), [2]);
    assert_eq!(passing(SubjectName::TopicRecord, "t"), [3]);
    assert_eq!(passing(SubjectName::TopicRecord, "u"), [0; 0]);
    assert_eq!(passing(SubjectName::Fixed("other".to_owned()), "u"), [4]);
}

#[test]
fn patterns_choose_topics_and_all_that_match_apply() {
    let fixed = |subject: &str| payload(SubjectName::Fixed(subject.to_owned()));
    let prefix = TopicPattern::Prefix("user.".to_owned());
    let set = set(vec![
        policy(1, prefix, fixed("user.authenticated-value")),
        policy(2, literal(USER), fixed("workflow.requested-value")),
    ]);
    assert!(set.topic("orders").is_none());
    assert!(set.topic("user").is_none());
    // one policy
    assert!(!judge(&set, "user.created", &values(&[user()])).refused());
    // two that contradict each other: nothing passes, and a record is named once
    let outcome = judge(&set, USER, &values(&[user(), framed(2, b"")]));
    let found: Vec<_> = outcome.bad.iter().map(|b| (b.index, b.rule.line)).collect();
    assert_eq!(found, [(0, 2), (1, 1)]);
    // the same check is given out again
    assert!(Arc::ptr_eq(
        &set.topic(USER).unwrap(),
        &set.topic(USER).unwrap()
    ));
    assert!(
        SchemaSet::new(vec![], shipped(), &mut Problems::default())
            .topic(USER)
            .is_none()
    );
}

#[test]
fn warnings_pass_and_are_counted() {
    let mut warn = policy(1, literal(USER), payload(SubjectName::Topic));
    warn.on_violation = OnViolation::Warn;
    let warns = set(vec![warn.clone()]);
    let outcome = judge(&warns, USER, &values(&vec![b"x".to_vec(); 1000]));
    assert!(!outcome.refused());
    assert_eq!((outcome.records, outcome.warned.records), (1000, 1000));
    assert_eq!(outcome.warned.first.len(), MESSAGES_MAX);
    assert!(outcome.warned.first.iter().all(|b| !b.message.is_empty()));
    // what cannot be looked into passes, too: the broker judges it
    let mut broken = values(&[user()]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let outcome = judge(&warns, USER, &broken);
    assert!(!outcome.refused());
    assert_eq!(outcome.warned.whole.unwrap().fault, BatchFault::Corrupt);
    // a policy that rejects stands above one that warns
    let both = set(vec![
        warn,
        policy(2, literal(USER), payload(SubjectName::Topic)),
    ]);
    let outcome = judge(&both, USER, &broken);
    assert_eq!(outcome.whole.unwrap().rule, rule(2));
    let outcome = judge(&both, USER, &values(&[b"x".to_vec()]));
    assert_eq!(outcome.bad[0].rule, rule(2));
}

#[test]
fn what_observes_passes_and_says_what_it_would_refuse() {
    let of = |line, on_violation| {
        let mut policy = policy(line, literal(USER), payload(SubjectName::Topic));
        policy.on_violation = on_violation;
        policy
    };
    let observe = of(1, OnViolation::Observe);
    let two = values(&[b"x".to_vec(), user(), b"y".to_vec()]);
    // A policy that warns has its own count.
    let beside = set(vec![of(2, OnViolation::Warn), observe.clone()]);
    let outcome = judge(&beside, USER, &two);
    assert!(!outcome.refused());
    assert_eq!((outcome.warned.records, outcome.observed.records), (2, 2));
    let (records, detail, by) = outcome.would_be_refused().unwrap();
    assert_eq!((records, by), (2, rule(1)));
    assert!(
        detail.starts_with("record 0: ") && detail.ends_with(", and 1 more"),
        "{detail}"
    );
    assert!(
        judge(&beside, USER, &values(&[user()]))
            .would_be_refused()
            .is_none()
    );

    let mut broken = values(&[user()]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let outcome = judge(&beside, USER, &broken);
    assert!(!outcome.refused() && outcome.would_be_refused().is_some());
    // What is refused as it is would not be refused besides.
    let refused = set(vec![observe, of(3, OnViolation::Reject)]);
    for records in [&two, &broken] {
        let outcome = judge(&refused, USER, records);
        assert!(outcome.refused() && outcome.would_be_refused().is_none());
    }
}

#[test]
fn whole_batches_are_refused_by_kind() {
    let set = user_set();
    let kind = |bytes: &[u8]| {
        let outcome = judge(&set, USER, bytes);
        assert!(outcome.refused() && outcome.bad.is_empty());
        outcome.whole.unwrap().fault
    };
    let good = values(&[user()]);
    assert_eq!(kind(&good[..good.len() - 1]), BatchFault::Undecodable);
    let mut old = good.clone();
    old[16] = 1;
    assert_eq!(kind(&old), BatchFault::Undecodable);
    let mut corrupt = good.clone();
    corrupt[60] ^= 1;
    assert_eq!(kind(&corrupt), BatchFault::Corrupt);
    let bomb = batch(&[(None, Some(vec![0; 65 << 20]))], kp::Compression::Zstd);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(kind(&bomb), BatchFault::Bomb);
    // an error after bad records: the batch is refused as a whole, not record by record
    let mut second = good.clone();
    second[20] ^= 1;
    let both = [values(&[b"x".to_vec()]), second].concat();
    assert_eq!(kind(&both), BatchFault::Corrupt);
}

#[test]
fn lists_and_messages_are_bounded() {
    let set = user_set();
    let outcome = judge(&set, USER, &values(&vec![b"x".to_vec(); BAD_RECORDS_MAX]));
    assert_eq!(outcome.bad.len(), BAD_RECORDS_MAX);
    let told = outcome.bad.iter().filter(|b| !b.message.is_empty()).count();
    assert_eq!(told, MESSAGES_MAX);
    assert!(
        outcome
            .bad
            .iter()
            .enumerate()
            .all(|(i, b)| b.index == i as i32)
    );
    let outcome = judge(
        &set,
        USER,
        &values(&vec![b"x".to_vec(); BAD_RECORDS_MAX + 1]),
    );
    let whole = outcome.whole.unwrap();
    assert_eq!(whole.fault, BatchFault::TooManyBad);
    assert!(whole.message.contains("the first: value does not begin"));
    assert!(outcome.bad.is_empty());
}

#[test]
fn topics_kept_ready_are_bounded() {
    let set = set(vec![policy(
        1,
        TopicPattern::All,
        payload(SubjectName::Topic),
    )]);
    for i in 0..TOPICS_CACHED_MAX + 5 {
        set.topic(&format!("t{i}")).unwrap();
        set.topic(&"x".repeat(250 + i % 7)).unwrap();
    }
    assert!(set.cached_topics() <= TOPICS_CACHED_MAX);
}

#[test]
fn a_subject_without_a_schema_is_a_warning() {
    let mut problems = Problems::default();
    let policies = vec![
        policy(3, literal("orders"), payload(SubjectName::Topic)),
        policy(9, literal(USER), payload(SubjectName::Topic)),
    ];
    let set = SchemaSet::new(policies, shipped(), &mut problems);
    assert_eq!(problems.list.len(), 1);
    let problem = &problems.list[0];
    assert_eq!(problem.severity, Severity::Warning);
    assert_eq!(
        problem.place.as_ref().unwrap().to_string(),
        "schemas.yaml:3:1"
    );
    assert_eq!(
        problem.message,
        "no schema is registered under `orders-value`"
    );
    assert_eq!(
        said(&set, "orders", Some(user())),
        "value cannot pass: no schema is registered under `orders-value`"
    );
}

/// A directory with this index and a few schema files; the problems as `line:column message`.
fn problems_of(index: &str) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("subjects.json"), index).unwrap();
    let long = "\"long\"";
    std::fs::write(dir.path().join("long.avsc"), long).unwrap();
    std::fs::write(dir.path().join("same.avsc"), format!(" {long}\n")).unwrap();
    std::fs::write(dir.path().join("int.avsc"), "\"int\"").unwrap();
    std::fs::write(dir.path().join("broken.avsc"), "{\n  \"type\": }").unwrap();
    std::fs::write(dir.path().join("wrong.avsc"), r#"{"type": "recrod"}"#).unwrap();
    let mut problems = Problems::default();
    Directory::load(dir.path(), &mut problems);
    let places = problems.list.iter().map(|p| match &p.place {
        Some(place) => {
            let file = Path::new(&*place.file)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap();
            format!("{file}:{}:{} {}", place.line, place.column, p.message)
        }
        None => p.message.clone(),
    });
    places.collect()
}

#[test]
fn mistakes_in_a_directory_are_all_reported_with_their_place() {
    let index = r#"{"subjects": [
  {"subject": "a", "version": 1, "id": 1, "file": "long.avsc"},
  {"subject": "{b}", "version": 1, "id": 1, "file": "same.avsc"},
  {"subject": "c", "version": 1, "id": 1, "file": "int.avsc"},
  {"subject": "d", "version": 1, "id": 2, "file": "absent.avsc"},
  {"subject": "e", "version": 1, "id": 3, "file": "../long.avsc"},
  {"subject": "f", "version": 0, "id": 0, "file": "long.avsc"},
  {"subject": "a", "version": 1, "id": 1, "file": "long.avsc"},
  {"subject": "g", "version": 1, "id": 5, "file": "broken.avsc"},
  {"subject": "h", "version": 1, "id": 6, "file": "wrong.avsc"}
]}"#;
    let found = problems_of(index);
    let expected = [
        "subjects.json:4:3 id 1 already stands for another schema",
        "subjects.json:5:3 cannot read `absent.avsc`: no such file",
        "subjects.json:6:3 `../long.avsc` is not a file inside the directory",
        "subjects.json:7:3 `version` is 0, expected 1 or more",
        "subjects.json:7:3 `id` is 0, expected 1 or more",
        "subjects.json:8:3 version 1 of subject `a` stands twice",
        "broken.avsc:2:11 not an Avro schema: expected value",
    ];
    assert_eq!(found[..7], expected);
    assert!(
        found[7].starts_with("wrong.avsc:1:1 not an Avro schema: "),
        "{}",
        found[7]
    );
    assert_eq!(found.len(), 8);
}

#[test]
fn an_index_is_strict() {
    let unknown = r#"{"subjects": [{"subject": "a", "version": 1, "id": 1, "fil": "x"}]}"#;
    assert_eq!(
        problems_of(unknown),
        [
            "subjects.json:1:59 unknown field `fil`, expected one of `subject`, `version`, `id`, \
          `file`"
        ]
    );
    let [only] = &problems_of("{\"subjects\": [],\n \"topics\": []}")[..] else {
        panic!()
    };
    assert!(
        only.starts_with("subjects.json:2:9 unknown field `topics`"),
        "{only}"
    );
    let [only] = &problems_of("{\"subjects\": [],}")[..] else {
        panic!()
    };
    assert!(
        only.starts_with("subjects.json:1:17 trailing comma"),
        "{only}"
    );
    assert_eq!(
        problems_of(r#"{"subjects": [{"subject": "a", "subject": "b"}]}"#),
        ["subjects.json:1:40 duplicate field `subject`"]
    );
    let mut problems = Problems::default();
    Directory::load(Path::new("/nowhere"), &mut problems);
    assert_eq!(
        problems.list[0].message,
        "cannot read `/nowhere/subjects.json`: no such file"
    );
}
