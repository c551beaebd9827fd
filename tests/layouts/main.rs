//! The layout table against three judges: Kafka's own classes on a JVM, the kafka-protocol
//! crate, and hostile bytes. `KORDON_LAYOUT_MESSAGES` sets how many messages of every API,
//! version and direction are built (default 20).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hostile;
mod java;
#[allow(dead_code)]
#[path = "../lab/java.rs"]
mod program;
mod random;
mod witness;

use std::collections::BTreeSet;
use std::env;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::RwLock;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use kordon::apis::layout;
use kordon::wire::layout::{Field, Layout, Message, Struct, Type};
use kordon::wire::tree::{self, RESPONSE_NODES_MAX};
use kordon::wire::walk::walk;

use java::{Java, Record};
use random::Random;
use witness::Witness;

/// Held for writing by the one test that counts allocations.
static COUNTING: RwLock<()> = RwLock::new(());

/// Keys and versions of Kafka 4.3 that kafka-protocol (Kafka 4.1) cannot read; its `ApiKey` claims
/// versions 10 of keys 8 and 9, its messages refuse them.
const CRATE_LACKS: &str = "2v11 8v10 9v10 27v2 35v5 63v2 78v2 79v2 80v1 85v1 87v1 88v0 89v0 90v1";

const SEED: u64 = 0x6b6f_7264_6f6e;

/// Messages of every API, version and direction.
fn count() -> usize {
    env::var("KORDON_LAYOUT_MESSAGES").map_or(20, |text| text.parse().unwrap())
}

/// Past the capture of the test harness: counts and skips are to be seen.
fn report(line: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "layouts: {line}").unwrap();
}

fn skip(reason: &str) {
    report(&format!("SKIPPED: {reason}"));
    assert!(
        env::var("KORDON_REQUIRE_ALL").as_deref() != Ok("1"),
        "skipped: {reason}"
    );
}

fn layouts() -> impl Iterator<Item = &'static Layout> {
    (0..=92).filter_map(layout)
}

/// Every message layout: key, direction as in the exchanged files, and the message.
fn messages() -> impl Iterator<Item = (i16, u8, &'static Message)> {
    layouts().flat_map(|l| [(l.key, 0, &l.request), (l.key, 1, &l.response)])
}

fn side(key: i16, direction: u8) -> &'static Message {
    let layout = layout(key).unwrap();
    if direction == 0 {
        &layout.request
    } else {
        &layout.response
    }
}

/// `count` random messages of every API, version and direction, written from the layouts.
fn written(count: usize, seed: u64) -> impl Iterator<Item = (Record, Vec<random::Event>)> {
    let mut random = Random(seed);
    messages().flat_map(move |(key, direction, message)| {
        let mut all = Vec::new();
        for version in message.versions.min..=message.versions.max {
            for _ in 0..count {
                let written = random::message(message, version, &mut random);
                let (bytes, text) = (written.bytes, Vec::new());
                all.push((
                    Record {
                        key,
                        direction,
                        version,
                        bytes,
                        text,
                    },
                    written.events,
                ));
            }
        }
        all
    })
}

fn title(record: &Record) -> String {
    let name = &side(record.key, record.direction).name;
    let direction = ["request", "response"][usize::from(record.direction)];
    format!("{name} {direction} v{}", record.version)
}

/// Walks a message to its end and takes it through a tree and back, unchanged.
fn through(record: &Record) -> (Witness, tree::StructNode) {
    let message = side(record.key, record.direction);
    let mut witness = Witness::default();
    walk(message, record.version, &record.bytes, &mut witness)
        .unwrap_or_else(|e| panic!("{}: {e}: {:02x?}", title(record), record.bytes));
    let body = Bytes::copy_from_slice(&record.bytes);
    let node = tree::decode(message, record.version, &body, RESPONSE_NODES_MAX).unwrap();
    let again = tree::encode_to_bytes(&node, message, record.version);
    assert_eq!(
        again,
        body,
        "{}: the tree writes other bytes",
        title(record)
    );
    (witness, node)
}

#[test]
fn every_api_with_a_version_has_a_layout() {
    let keys: Vec<i16> = layouts().map(|l| l.key).collect();
    let expected: Vec<i16> = (0..=92).filter(|key| !(4..=7).contains(key)).collect();
    assert_eq!(keys, expected);
}

#[test]
fn every_field_is_reported_where_it_was_written() {
    let _guard = COUNTING.read();
    let mut walked = 0;
    for (record, events) in written(count(), SEED) {
        let (witness, _) = through(&record);
        assert_eq!(witness.events, events, "{}", title(&record));
        walked += 1;
    }
    report(&format!(
        "{walked} messages written from the layouts walked field by field"
    ));
}

#[test]
fn the_crate_reads_the_messages_and_writes_the_same_bytes() {
    let _guard = COUNTING.read();
    let (mut walked, mut lacking) = (0, BTreeSet::new());
    for (record, _) in written(count(), SEED + 1) {
        let known = ApiKey::try_from(record.key).ok().filter(|api| {
            let range = api.valid_versions();
            (range.min..=range.max).contains(&record.version)
        });
        let Some(api) = known else {
            lacking.insert((record.key, record.version));
            continue;
        };
        let mut left = Bytes::copy_from_slice(&record.bytes);
        let mut again = BytesMut::new();
        let read = if record.direction == 0 {
            RequestKind::decode(api, &mut left, record.version)
                .and_then(|message| message.encode(&mut again, record.version))
        } else {
            ResponseKind::decode(api, &mut left, record.version)
                .and_then(|message| message.encode(&mut again, record.version))
        };
        match read {
            Err(error) if format!("{error:#}").ends_with("supported by this message type") => {
                lacking.insert((record.key, record.version));
                continue;
            }
            Err(error) => panic!("{}: {error:#}", title(&record)),
            Ok(()) => {}
        }
        assert_eq!(left.len(), 0, "{}: bytes left over", title(&record));
        assert_eq!(again, record.bytes, "{}", title(&record));
        walked += 1;
    }
    let lacking: Vec<String> = lacking.iter().map(|(k, v)| format!("{k}v{v}")).collect();
    assert_eq!(lacking.join(" "), CRATE_LACKS);
    report(&format!(
        "{walked} messages read and written by kafka-protocol, which lacks {CRATE_LACKS}"
    ));
}

#[test]
fn what_kafka_builds_is_found_field_by_field() {
    let _guard = COUNTING.read();
    let java = match Java::new() {
        Ok(java) => java,
        Err(reason) => return skip(&reason),
    };
    let mut seen = BTreeSet::new();
    let (mut walked, mut facts) = (0, 0);
    for record in java.generate(count(), SEED) {
        if record.direction == 2 {
            same_facts(&record);
            facts += 1;
            continue;
        }
        let (_, node) = through(&record);
        let json = serde_json::from_slice(&record.text).unwrap();
        witness::same(&node, &json, record.version, "")
            .unwrap_or_else(|e| panic!("{}: {e}", title(&record)));
        seen.insert((record.key, record.direction, record.version));
        walked += 1;
    }
    let expected: BTreeSet<_> = messages()
        .flat_map(|(key, direction, message)| {
            (message.versions.min..=message.versions.max).map(move |v| (key, direction, v))
        })
        .collect();
    assert_eq!(seen, expected, "versions of Kafka and of the table");
    assert_eq!(facts, layouts().count());
    report(&format!(
        "{walked} messages built by Kafka 4.3.0 ({} kinds) walked and compared with its JSON",
        seen.len()
    ));
}

/// Names, versions and flexibility, as the classes have them.
fn same_facts(record: &Record) {
    let facts: serde_json::Value = serde_json::from_slice(&record.text).unwrap();
    let layout = layout(record.key).unwrap_or_else(|| panic!("no layout for {facts}"));
    for (message, headers) in [
        (&layout.request, &facts["requestHeaders"]),
        (&layout.response, &facts["responseHeaders"]),
    ] {
        assert_eq!(facts["name"].as_str(), Some(&*message.name));
        let versions = (
            i64::from(message.versions.min),
            i64::from(message.versions.max),
        );
        assert_eq!(
            (facts["first"].as_i64(), facts["last"].as_i64()),
            (Some(versions.0), Some(versions.1)),
            "{}",
            message.name
        );
        // Header versions follow from flexibility; ApiVersions alone answers with header 0.
        let classic = i64::from(std::ptr::eq(message, &layout.request));
        for (version, header) in (message.versions.min..).zip(headers.as_array().unwrap()) {
            let flexible = message.flexible.contains(version);
            let exception = layout.key == 18 && classic == 0;
            let expected = classic + i64::from(flexible && !exception);
            assert_eq!(
                header.as_i64(),
                Some(expected),
                "{} v{version}",
                message.name
            );
        }
    }
}

#[test]
fn kafka_reads_the_messages_and_writes_the_same_bytes() {
    let _guard = COUNTING.read();
    let java = match Java::new() {
        Ok(java) => java,
        Err(reason) => return skip(&reason),
    };
    let records: Vec<Record> = written(count(), SEED + 2)
        .map(|(record, _)| record)
        .collect();
    let back = java.reencode(&records);
    assert_eq!(back.len(), records.len());
    for (sent, back) in records.iter().zip(&back) {
        let refusal = String::from_utf8_lossy(&back.text);
        assert_eq!(refusal, "", "{}: {:02x?}", title(sent), sent.bytes);
        assert_eq!(back.bytes, sent.bytes, "{}", title(sent));
    }
    report(&format!(
        "{} messages read and written by Kafka 4.3.0",
        back.len()
    ));
}

#[test]
fn the_table_is_what_the_jar_says() {
    let _guard = COUNTING.read();
    let jar = match java::jar() {
        Ok(jar) => jar,
        Err(reason) => return skip(&reason),
    };
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apis/layouts");
    let jar = jar.to_str().unwrap();
    python(&["derive.py", "--check", jar, table.to_str().unwrap()]);
}

#[test]
fn the_derivation_shows_what_nobody_has_reviewed() {
    let _guard = COUNTING.read();
    python(&["derive_test.py"]);
}

/// Runs a program of this directory.
fn python(arguments: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts");
    let run = Command::new("python3")
        .arg("-B")
        .args(arguments)
        .current_dir(here)
        .output();
    match run {
        Err(error) => skip(&format!("python3: {error}")),
        Ok(output) => assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The walker bounds its loops by the bytes that remain, which holds only if no element of an
/// array can be empty.
#[test]
fn every_array_element_takes_a_byte() {
    for (_, _, message) in messages() {
        for version in message.versions.min..=message.versions.max {
            elements_take_a_byte(message, &message.body, version, &message.name);
        }
    }
}

fn elements_take_a_byte(message: &Message, nested: &Struct, version: i16, path: &str) {
    for field in nested
        .fields
        .iter()
        .filter(|f| f.versions.contains(version))
    {
        let Some(inner) = field.nested() else {
            continue;
        };
        let path = format!("{path}/{}", field.name);
        let flexible = message.flexible.contains(version);
        let plain = |f: &&Field| f.versions.contains(version) && !f.is_tagged(version);
        let filled = flexible || inner.fields.iter().any(|f| plain(&f));
        assert!(
            filled || !matches!(field.kind, Type::Array(_)),
            "{path} v{version}"
        );
        elements_take_a_byte(message, inner, version, &path);
    }
}

/// Every answer of the semantics' list of address-bearing answers, and nothing but those that a
/// proxy forwards or refuses: a new one fails here until somebody has looked at it.
#[test]
fn addresses_have_roles() {
    let mut found = Vec::new();
    for (_, direction, message) in messages() {
        let direction = ["request", "response"][usize::from(direction)];
        addresses(
            &message.body,
            &format!("{} {direction}", message.name),
            &mut found,
        );
    }
    let expected = "\
        Produce response/NodeEndpoints, Fetch response/NodeEndpoints, \
        Metadata response/Brokers, FindCoordinator response, \
        FindCoordinator response/Coordinators, Vote response/NodeEndpoints, \
        BeginQuorumEpoch request/LeaderEndpoints, BeginQuorumEpoch response/NodeEndpoints, \
        EndQuorumEpoch request/LeaderEndpoints, EndQuorumEpoch response/NodeEndpoints, \
        DescribeQuorum response/Nodes/Listeners, FetchSnapshot response/NodeEndpoints, \
        DescribeCluster response/Brokers, BrokerRegistration request/Listeners, \
        ControllerRegistration request/Listeners, ShareFetch response/NodeEndpoints, \
        ShareAcknowledge response/NodeEndpoints, AddRaftVoter request/Listeners, \
        UpdateRaftVoter request/Listeners, UpdateRaftVoter response/CurrentLeader";
    assert_eq!(found.join(", "), expected);
}

fn addresses(nested: &Struct, path: &str, found: &mut Vec<String>) {
    let has = |role: &str| nested.fields.iter().any(|f| f.role.name() == role);
    assert_eq!(has("host"), has("port"), "{path}: a host goes with a port");
    if has("host") {
        found.push(path.to_owned());
    }
    for field in &nested.fields {
        if let Some(inner) = field.nested() {
            addresses(inner, &format!("{path}/{}", field.name), found);
        }
    }
}
