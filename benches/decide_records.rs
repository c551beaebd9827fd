//! What looking into produced records costs: headers, checksum, decompression, the Avro walk, a
//! whole topic check, and a quota charge. Prints min, median and max of rounds; no framework.
//!
//! `cargo bench --bench decide_records`

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::BytesMut;
use kafka_protocol::records as kp;
use kordon::policy::model::RuleRef;
use kordon::policy::topic_pattern::TopicPattern;
use kordon::problem::Problems;
use kordon::quota::spec::{QuotaEntity, QuotaName, QuotaSpec};
use kordon::quota::{Charged, Quotas};
use kordon::schema::spec::{Depth, Format, OnViolation, PayloadSpec, SchemaSpec, SubjectName};
use kordon::schema::{Directory, SchemaSet};
use kordon::wire::records::{Limits, Scratch, batches, inspect, records};

const ROUNDS: usize = 9;
const RECORDS: usize = 4000;
const TOPIC: &str = "user.authenticated";

/// Times `work`, which handles `units` of something, and prints nanoseconds for each.
fn time(what: &str, units: usize, repeat: usize, mut work: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..repeat {
                work();
            }
            start.elapsed().as_nanos() as f64 / (units * repeat) as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let (min, median, max) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{what:<44} {min:>10.2} {median:>10.2} {max:>10.2}");
}

fn text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len() * 2;
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(text.as_bytes());
}

/// A user.authenticated event of about 250 bytes, framed with schema id 1.
fn event(n: usize) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, 1];
    text(&mut out, &format!("7d444840-9dc0-11d1-b245-5ffdce{n:06}"));
    text(&mut out, &format!("user-{n}"));
    text(&mut out, "corallum");
    text(&mut out, &format!("user-{n}@example.org"));
    out.extend([0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31]);
    text(&mut out, "10.11.12.13");
    text(
        &mut out,
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    );
    out.push(8);
    for permission in ["workflow:read", "workflow:write", "ai:ask", "user:read"] {
        text(&mut out, permission);
    }
    out.push(0);
    out
}

fn batch(compression: kp::Compression) -> Vec<u8> {
    let records: Vec<kp::Record> = (0..RECORDS)
        .map(|n| kp::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: kp::TimestampType::Creation,
            offset: n as i64,
            sequence: n as i32,
            timestamp: 1_700_000_000_000 + n as i64,
            key: Some(format!("user-{n}").into_bytes().into()),
            value: Some(event(n).into()),
            headers: Default::default(),
        })
        .collect();
    let options = kp::RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = BytesMut::new();
    if let Err(e) = kp::RecordBatchEncoder::encode(&mut out, &records, &options) {
        eprintln!("cannot encode: {e}");
        std::process::exit(1);
    }
    out.to_vec()
}

fn rule() -> RuleRef {
    RuleRef {
        file: "bench.yaml".into(),
        line: 1,
    }
}

fn schemas() -> SchemaSet {
    let mut problems = Problems::default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/schemas");
    let directory = Directory::load(&dir, &mut problems);
    let policy = SchemaSpec {
        name: "bench".to_owned(),
        rule: rule(),
        topics: vec![TopicPattern::Literal(TOPIC.to_owned())],
        value: Some(PayloadSpec {
            format: Format::Avro,
            subject: SubjectName::Topic,
            check: Depth::Full,
            empty_allowed: false,
        }),
        key: None,
        on_violation: OnViolation::Reject,
    };
    SchemaSet::new(vec![policy], directory, &mut problems)
}

fn quotas() -> Quotas {
    Quotas::new(vec![QuotaSpec {
        name: "bench".to_owned(),
        rule: rule(),
        entity: QuotaEntity {
            user: Some(QuotaName::Default),
            ..QuotaEntity::default()
        },
        produce_bytes_per_second: Some(1 << 30),
    }])
}

fn main() {
    println!(
        "{:<44} {:>10} {:>10} {:>10}",
        "nanoseconds for each", "min", "median", "max"
    );
    let plain = batch(kp::Compression::None);
    println!("# {RECORDS} records, {} bytes in one batch", plain.len());

    time("inspect, a batch", 1, 100_000, || {
        black_box(inspect(black_box(&plain))).ok();
    });
    time("checksum, a KiB", plain.len() / 1024, 20, || {
        for batch in batches(black_box(&plain)).flatten() {
            black_box(batch.check_crc()).ok();
        }
    });

    let mut scratch = Scratch::new();
    let codecs = [
        kp::Compression::None,
        kp::Compression::Gzip,
        kp::Compression::Snappy,
        kp::Compression::Lz4,
        kp::Compression::Zstd,
    ];
    let set = schemas();
    for codec in codecs {
        let raw = batch(codec);
        time(&format!("walk {codec:?}, a record"), RECORDS, 5, || {
            for batch in batches(black_box(&raw)).flatten() {
                let walked = records(&batch, &mut scratch, &Limits::default());
                black_box(walked.into_iter().flatten().flatten().count());
            }
        });
        let check = set.topic(TOPIC);
        time(
            &format!("topic check {codec:?}, a record"),
            RECORDS,
            5,
            || {
                if let Some(check) = &check {
                    black_box(check.check_batchset(black_box(&raw), &mut scratch));
                }
            },
        );
    }

    let event = event(7);
    if let Some(user) = set.directory().schema(1) {
        time(
            &format!("avro, a value of {} bytes", event.len()),
            1,
            100_000,
            || {
                black_box(user.schema.validate(black_box(&event[5..]))).ok();
            },
        );
    }
    time("topic without a policy", 1, 100_000, || {
        black_box(set.topic(black_box("orders.created")));
    });
    time("topic with a policy", 1, 100_000, || {
        black_box(set.topic(black_box(TOPIC)));
    });

    let quotas = quotas();
    let who = Charged {
        tenant: "",
        user: "orders-service",
        client_id: Some("producer-1"),
    };
    let now = Instant::now();
    time("quota, resolved and charged", 1, 100_000, || {
        black_box(quotas.charge_produce(black_box(&who), 1000, now));
    });
    if let Some(buckets) = quotas.bucket_for(&who) {
        time("quota, charged", 1, 100_000, || {
            black_box(buckets.charge(1000, now));
        });
    }
}
