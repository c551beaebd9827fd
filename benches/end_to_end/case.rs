//! The loads that are compared, by name, and how one of them runs over one route.

use std::path::PathBuf;

use kafka_protocol::records::Compression;

use crate::Outcome;
use crate::broker::Broker;
use crate::clients;
use crate::load::{self, Consumer, Moved, Shape, quantile};
use crate::memory::ANSWER_BYTES;
use crate::process::{cpu_seconds, forget_peak, peak_mib};
use crate::protocol::Connection;
use crate::report::Report;
use crate::route::Running;

/// Partitions of every topic that is written or read at full speed.
pub const PARTITIONS: i32 = 6;

/// Round trips each second in the latency case.
const ROUND_TRIPS_PER_SECOND: u32 = 500;

/// What a case measures; the targets are chosen by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Produce, acks 1.
    Produce,
    /// Produce, acks all, lz4.
    ProduceLz4,
    /// Consume.
    Consume,
    /// Round trips at a fixed rate.
    RoundTrip,
}

/// Who makes the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// This generator.
    Raw,
    /// Kafka's performance tools.
    Java,
    /// kcat.
    Librdkafka,
}

/// One load.
#[derive(Clone, Copy)]
pub struct Case {
    /// As the tables show it and `--case` selects it.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Who makes the load.
    pub client: Client,
    /// Value bytes of a record; the targets are about 1 KiB.
    pub record_bytes: usize,
    /// Records in a batch of the raw producer; answer bytes of a partition for the raw consumer.
    size: usize,
    /// The raw producer fills a request with a batch for every partition.
    all_partitions: bool,
    /// Connections of the raw client that work side by side.
    connections: u64,
    /// MiB moved in a full round.
    pub mib: u64,
    /// Part of `--quick`.
    pub quick: bool,
}

const fn produce(name: &'static str, record_bytes: usize, size: usize, all: bool) -> Case {
    let (kind, client) = (Kind::Produce, Client::Raw);
    let mib = if record_bytes == 1024 { 768 } else { 256 };
    let quick = record_bytes == 1024;
    Case {
        name,
        kind,
        client,
        record_bytes,
        size,
        all_partitions: all,
        connections: 1,
        mib,
        quick,
    }
}

const fn consume(name: &'static str, record_bytes: usize, size: usize) -> Case {
    let (kind, client) = (Kind::Consume, Client::Raw);
    let quick = record_bytes == 1024;
    Case {
        name,
        kind,
        client,
        record_bytes,
        size,
        all_partitions: false,
        connections: 1,
        mib: 2048,
        quick,
    }
}

const fn real(name: &'static str, kind: Kind, client: Client, mib: u64) -> Case {
    Case {
        name,
        kind,
        client,
        record_bytes: 1024,
        size: 0,
        all_partitions: false,
        connections: 1,
        mib,
        quick: false,
    }
}

/// Every case, in the order of a round.
pub const CASES: &[Case] = &[
    produce("produce 1 KiB, 16 KiB batches", 1024, 15, true),
    produce("produce 1 KiB, 1 MB batches", 1024, 970, false),
    Case {
        quick: false,
        connections: 4,
        ..produce(
            "produce 1 KiB, 16 KiB batches, 4 connections",
            1024,
            15,
            true,
        )
    },
    produce("produce 100 B, 16 KiB batches", 100, 150, true),
    produce("produce 100 B, 1 MB batches", 100, 9000, false),
    Case {
        kind: Kind::ProduceLz4,
        quick: true,
        ..produce("produce lz4 acks=all, 64 KiB batches", 1024, 64, true)
    },
    consume("consume 1 KiB, 1 MiB a partition", 1024, 1 << 20),
    consume("consume 100 B, 1 MiB a partition", 100, 1 << 20),
    Case {
        quick: false,
        connections: 4,
        ..consume("consume 1 KiB, 4 connections", 1024, 1 << 20)
    },
    Case {
        quick: false,
        ..consume("consume 1 KiB, 50 MiB answers", 1024, ANSWER_BYTES as usize)
    },
    Case {
        kind: Kind::RoundTrip,
        quick: true,
        ..produce("round trip 1 KiB at 500/s", 1024, 1, false)
    },
    real("java produce 1 KiB", Kind::Produce, Client::Java, 512),
    real(
        "java produce lz4 acks=all",
        Kind::ProduceLz4,
        Client::Java,
        512,
    ),
    real("java consume 1 KiB", Kind::Consume, Client::Java, 1024),
    real(
        "librdkafka produce 1 KiB",
        Kind::Produce,
        Client::Librdkafka,
        512,
    ),
    real(
        "librdkafka produce lz4 acks=all",
        Kind::ProduceLz4,
        Client::Librdkafka,
        512,
    ),
    real(
        "librdkafka consume 1 KiB",
        Kind::Consume,
        Client::Librdkafka,
        1024,
    ),
];

/// What cases share within a run.
pub struct Ground {
    /// The broker under everything.
    pub broker: Broker,
    /// Topics filled once: their names and end offsets.
    pub read_1024: (String, i64),
    /// The same with records of 100 bytes.
    pub read_100: (String, i64),
    /// Bytes in the first of them.
    pub read_bytes: u64,
    /// Lines for kcat.
    pub lines: PathBuf,
    /// MiB for each that a full round says; `--quick` moves less.
    pub scale: f64,
    /// Seconds of the latency case.
    pub latency_seconds: u32,
    /// Topics made so far: each run of a case has its own.
    pub topics_made: u32,
}

impl Ground {
    fn direct(&self) -> String {
        format!("127.0.0.1:{}", self.broker.ports.direct)
    }

    /// Bytes of records that kcat finds in its file.
    pub fn lines_bytes(&self) -> u64 {
        self.bytes_of(512)
    }

    fn bytes_of(&self, mib: u64) -> u64 {
        (((mib as f64) * self.scale).max(8.0) as u64) << 20
    }

    /// Runs a case over a route and notes what it cost in the report.
    pub fn run(&mut self, case: &Case, running: &Running, report: &mut Report) -> Outcome<()> {
        let writes = case.kind != Kind::Consume;
        let topic = format!("bench.{}", self.topics_made);
        if writes {
            self.topics_made += 1;
            let mut admin = Connection::open(&self.direct())?;
            admin.create_topic(&topic, PARTITIONS)?;
            admin.topic(&topic)?;
        }
        if let Some(pid) = running.pid() {
            forget_peak(pid)?;
        }
        let before = self.cpu(running)?;
        let note = |report: &mut Report, figure, value| {
            report.note(case.name, figure, running.route, value);
        };
        if case.kind == Kind::RoundTrip {
            let count = ROUND_TRIPS_PER_SECOND * self.latency_seconds;
            let address = &running.address;
            let sorted = load::round_trips(address, &topic, ROUND_TRIPS_PER_SECOND, count)?;
            for (figure, share) in [("p50 ms", 0.5), ("p99 ms", 0.99), ("p99.9 ms", 0.999)] {
                note(report, figure, quantile(&sorted, share));
            }
            let used = self.cpu(running)?;
            if let (Some(used), Some(before)) = (used.proxy, before.proxy) {
                note(
                    report,
                    "proxy CPU µs/request",
                    (used - before) * 1e6 / f64::from(count),
                );
            }
        } else {
            let moved = self.load(case, running, &topic)?;
            let used = self.cpu(running)?;
            let gib = moved.gib();
            note(report, "MiB/s", moved.mib_s());
            if let (Some(used), Some(before)) = (used.proxy, before.proxy) {
                note(report, "proxy CPU s/GiB", (used - before) / gib);
            }
            note(
                report,
                "broker CPU s/GiB",
                (used.broker - before.broker) / gib,
            );
            if case.client == Client::Raw {
                note(report, "client CPU s/GiB", (used.own - before.own) / gib);
            }
        }
        if let Some(pid) = running.pid() {
            note(report, "proxy peak MiB", peak_mib(pid)?);
        }
        if writes {
            Connection::open(&self.direct())?.delete_topic(&topic)?;
        }
        Ok(())
    }

    fn load(&self, case: &Case, running: &Running, topic: &str) -> Outcome<Moved> {
        let address = running.address.as_str();
        let bytes = self.bytes_of(case.mib);
        let class_path = self.broker.class_path.as_str();
        let lz4 = case.kind == Kind::ProduceLz4;
        match (case.client, case.kind) {
            (Client::Raw, Kind::Consume) => {
                let (read, end) = if case.record_bytes == 1024 {
                    &self.read_1024
                } else {
                    &self.read_100
                };
                let each = i32::try_from(case.size)?;
                load::side_by_side(case.connections, || {
                    let mut consumer = Consumer::open(address, read, ANSWER_BYTES, each)?;
                    load::consume(&mut consumer, *end, bytes / case.connections)
                })
            }
            (Client::Raw, _) => {
                let shape = Shape {
                    record_bytes: case.record_bytes,
                    batch_records: case.size,
                    all_partitions: case.all_partitions,
                    acks: if lz4 { -1 } else { 1 },
                    compression: if lz4 {
                        Compression::Lz4
                    } else {
                        Compression::None
                    },
                };
                load::side_by_side(case.connections, || {
                    load::produce(address, topic, &shape, bytes / case.connections)
                })
            }
            (Client::Java, Kind::Consume) => {
                let records = self.read_bytes / 1024;
                clients::java_consume(class_path, address, &self.read_1024.0, records)
            }
            (Client::Java, _) => {
                let (acks, compression) = if lz4 { ("all", "lz4") } else { ("1", "none") };
                let acks = format!("acks={acks}");
                let compression = format!("compression.type={compression}");
                let properties = [acks.as_str(), compression.as_str()];
                clients::java_produce(class_path, address, topic, bytes, &properties)
            }
            (Client::Librdkafka, Kind::Consume) => {
                clients::kcat_consume(address, &self.read_1024.0, self.read_bytes)
            }
            (Client::Librdkafka, _) => {
                let (acks, codec) = if lz4 { ("all", "lz4") } else { ("1", "none") };
                let acks = format!("acks={acks}");
                let codec = format!("compression.codec={codec}");
                let properties = [acks.as_str(), codec.as_str(), "linger.ms=5"];
                let bytes = self.lines_bytes();
                clients::kcat_produce(address, topic, &self.lines, bytes, &properties)
            }
        }
    }

    fn cpu(&self, running: &Running) -> Outcome<Cpu> {
        Ok(Cpu {
            proxy: running.pid().map(cpu_seconds).transpose()?,
            broker: cpu_seconds(self.broker.process.pid())?,
            own: cpu_seconds(std::process::id())?,
        })
    }
}

struct Cpu {
    proxy: Option<f64>,
    broker: f64,
    own: f64,
}
