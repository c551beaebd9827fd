//! Micro benchmarks of the pieces every request passes: nanoseconds for one operation, the
//! lowest, middle and highest of several measured stretches. No framework: the pieces take
//! between ten nanoseconds and a few microseconds, and a stretch of many is timed as one.

use std::alloc::System;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchResponse, MetadataRequest, ProduceRequest, RequestHeader as SentHeader,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use kordon::apis::fetch::{FetchAnswer, Next, head};
use kordon::apis::produce::{Scan, TopicRef, scan};
use kordon::apis::{FETCH, METADATA, PRODUCE, layout};
use kordon::policy::model::{Decision, Operation, ResourceKind, RuleRef, Subject};
use kordon::policy::rule::{
    AccessPolicy, Effect, NamePattern, PrincipalPattern, ResourcePattern, Rule, Template,
};
use kordon::policy::{PolicySet, View};
use kordon::principal::{Principal, Proof};
use kordon::wire::header::{RequestHeader, peek};
use kordon::wire::records::{batches, inspect};
use kordon::wire::walk::{Nothing, walk};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what a decision allocates.
#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Stretches that are measured, each after the one that warms up.
const STRETCHES: usize = 11;

/// How long a stretch takes, about.
const STRETCH: Duration = Duration::from_millis(20);

/// The version of Produce that current Java clients send: topics by id.
const PRODUCE_VERSION: i16 = 13;

/// The version of Fetch that current Java clients send, as far as the encoder here knows it.
const FETCH_VERSION: i16 = 17;

fn main() -> Outcome<()> {
    println!(
        "{:<58} {:>10} {:>10} {:>10}",
        "ns for one", "min", "median", "max"
    );
    headers()?;
    produce()?;
    fetch()?;
    policy(100, 10)?;
    policy(100_000, 10_000)?;
    nested_policy()
}

/// Times `operation`: first finds how many fill a stretch, then measures the stretches.
fn bench(name: &str, mut operation: impl FnMut()) {
    let mut count: u32 = 1;
    loop {
        let begun = Instant::now();
        (0..count).for_each(|_| operation());
        if begun.elapsed() >= STRETCH || count >= 1 << 30 {
            break;
        }
        count *= 2;
    }
    let mut nanoseconds: Vec<f64> = (0..STRETCHES)
        .map(|_| {
            let begun = Instant::now();
            (0..count).for_each(|_| operation());
            begun.elapsed().as_secs_f64() * 1e9 / f64::from(count)
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    let (min, max) = (nanoseconds[0], nanoseconds[STRETCHES - 1]);
    println!(
        "{name:<58} {min:>10.1} {:>10.1} {max:>10.1}",
        nanoseconds[STRETCHES / 2]
    );
}

fn headers() -> Outcome<()> {
    let mut frame = BytesMut::new();
    SentHeader::default()
        .with_request_api_key(METADATA)
        .with_request_api_version(12)
        .with_client_id(Some(StrBytes::from_static_str("orders-service-1")))
        .encode(&mut frame, 2)?;
    MetadataRequest::default().encode(&mut frame, 12)?;
    bench("header: key and version", || {
        black_box(peek(black_box(&frame)));
    });
    bench("header: whole", || {
        let _ = black_box(RequestHeader::read(black_box(&frame), true));
    });
    Ok(())
}

/// Counts what the scan shows it.
#[derive(Default)]
struct Seen(usize);

impl<'b> Scan<'b> for Seen {
    fn acks(&mut self, _: i64) {}

    fn topic(&mut self, _topic: TopicRef<'b>) {
        self.0 += 1;
    }

    fn records(&mut self, records: &'b [u8]) {
        self.0 += records.len();
    }
}

fn produce() -> Outcome<()> {
    let message = &layout(PRODUCE).ok_or("no layout of Produce")?.request;
    let small = batch(15, 1024)?;
    let large = batch(970, 1024)?;
    let tiny = batch(150, 100)?;
    for (name, partitions, records) in [
        ("1 partition of 16 KiB", 1, &small),
        ("6 partitions of 16 KiB", 6, &small),
        ("1 partition of 1 MB", 1, &large),
    ] {
        let data = (0..partitions).map(|index| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(records.clone()))
        });
        let topic = TopicProduceData::default().with_partition_data(data.collect());
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_topic_data(vec![topic]);
        let mut body = BytesMut::new();
        request.encode(&mut body, PRODUCE_VERSION)?;
        walk(message, PRODUCE_VERSION, &body, &mut Nothing)?;
        bench(&format!("produce: walk, {name}"), || {
            let _ = black_box(walk(
                message,
                PRODUCE_VERSION,
                black_box(&body),
                &mut Nothing,
            ));
        });
        bench(&format!("produce: scan, {name}"), || {
            let mut seen = Seen::default();
            let _ = black_box(scan(message, PRODUCE_VERSION, black_box(&body), &mut seen));
            black_box(seen.0);
        });
    }
    for (name, records) in [
        ("15 × 1 KiB", &small),
        ("150 × 100 B", &tiny),
        ("1 MB", &large),
    ] {
        inspect(records)?;
        bench(&format!("batch: inspect, {name}"), || {
            let _ = black_box(inspect(black_box(records)));
        });
        bench(&format!("batch: checksum, {name}"), || {
            for batch in batches(black_box(records)).flatten() {
                let _ = black_box(batch.check_crc());
            }
        });
    }
    Ok(())
}

fn fetch() -> Outcome<()> {
    if layout(FETCH).is_none() {
        return Err("no layout of Fetch".into());
    }
    let records = batch(970, 1024)?;
    let partitions = (0..6).map(|index| {
        PartitionData::default()
            .with_partition_index(index)
            .with_records(Some(records.clone()))
    });
    let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
    let answer = FetchResponse::default().with_responses(vec![topic]);
    let mut body = BytesMut::new();
    answer.encode(&mut body, FETCH_VERSION)?;
    steps(&body)?;
    bench(
        "fetch: answer walked as it streams, 6 partitions of 1 MB",
        || {
            let _ = black_box(steps(black_box(&body)));
        },
    );
    Ok(())
}

/// Walks an answer that is there as a whole; returns its record bytes.
fn steps(body: &[u8]) -> Outcome<usize> {
    let start = head(FETCH_VERSION, body)?;
    let mut answer = FetchAnswer::new(FETCH_VERSION, start.topics);
    let mut at = start.end;
    let mut records = 0;
    loop {
        let (understood, next) = answer.step(&body[at..])?;
        at += understood;
        match next {
            Next::Skip(bytes) => {
                at += bytes;
                records += bytes;
            }
            Next::More => return Err("the answer is whole, yet more is asked for".into()),
            Next::Tail | Next::Done => return Ok(records),
        }
    }
}

/// A decision among `count` rules that all concern the subject, `prefixes` of them prefixes.
fn policy(count: usize, prefixes: usize) -> Outcome<()> {
    let patterns = (0..count).map(|number| {
        let text = Template::text(format!("team-{number}.events"));
        match number < prefixes {
            true => NamePattern::Prefix(text),
            false => NamePattern::Literal(text),
        }
    });
    let view = view(patterns);
    let names = [
        ("a literal", format!("team-{}.events", count - 1)),
        ("a prefix", format!("team-{}.events.orders", prefixes / 2)),
        // Among the prefixes, below none of them.
        ("no rule", format!("team-{}x.events", prefixes / 2)),
    ];
    let topics = format!("policy: {count} rules, {prefixes} prefixes");
    for (what, name) in names {
        decision(&format!("{topics}, decided by {what}"), || {
            let name = black_box(name.as_str());
            view.decide(Operation::Write, ResourceKind::Topic, name)
        })?;
    }
    decision(&format!("{topics}, any topic"), || {
        view.decide_any(black_box(Operation::Write), ResourceKind::Topic)
    })
}

/// As many prefixes of one another as a topic's name has letters, at most.
fn nested_policy() -> Outcome<()> {
    const DEPTH: usize = 249;
    let patterns = (1..=DEPTH).map(|n| NamePattern::Prefix(Template::text("a".repeat(n))));
    let view = view(patterns);
    for (what, name) in [
        ("all", "a".repeat(DEPTH)),
        ("the shortest", "ab".to_owned()),
    ] {
        let title = format!("policy: {DEPTH} nested prefixes, {what} match");
        decision(&title, || {
            let name = black_box(name.as_str());
            view.decide(Operation::Write, ResourceKind::Topic, name)
        })?;
    }
    Ok(())
}

/// What one principal may do by a rule for each pattern of topics.
fn view(patterns: impl Iterator<Item = NamePattern>) -> View {
    let file: Arc<str> = "policies/bench.yaml".into();
    let rules = patterns.zip(0..).map(|(names, line)| Rule {
        at: RuleRef {
            file: file.clone(),
            line,
        },
        effect: Effect::Allow,
        operations: vec![Operation::Read, Operation::Write],
        resources: vec![ResourcePattern {
            kind: ResourceKind::Topic,
            names,
        }],
    });
    let policies = vec![AccessPolicy {
        name: "bench".to_owned(),
        principals: vec![PrincipalPattern::User("bench".to_owned())],
        hosts: Vec::new(),
        rules: rules.collect(),
    }];
    let set = PolicySet::new(policies, Vec::new());
    let principal = Principal {
        name: "User:bench".into(),
        tenant: "".into(),
        groups: Arc::new([]),
        proof: Proof::Static,
        expires_at: None,
    };
    set.view(&Subject {
        principal: &principal,
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
    })
}

/// Times a decision that may not allocate.
fn decision(name: &str, decide: impl Fn() -> Decision) -> Outcome<()> {
    let region = Region::new(GLOBAL);
    black_box(decide());
    let change = region.change();
    if change.allocations + change.reallocations > 0 {
        return Err(format!("{name}: allocates: {change:?}").into());
    }
    bench(name, || {
        black_box(decide());
    });
    Ok(())
}

/// One batch of `count` records of `size` bytes.
fn batch(count: usize, size: usize) -> Outcome<Bytes> {
    let value = Bytes::from(vec![b'x'; size]);
    let mut records = Vec::with_capacity(count);
    for number in 0..count {
        let offset = i64::try_from(number)?;
        records.push(Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: i32::try_from(offset)? - 1,
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(value.clone()),
            headers: Default::default(),
        });
    }
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options)?;
    Ok(bytes.freeze())
}
