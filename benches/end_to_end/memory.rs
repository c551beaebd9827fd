//! Resident memory of a freshly started proxy: idle, with idle connections, with connections that
//! have worked and rest, and while consumers read answers of 50 MiB, fast and slowly.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_protocol::records::Compression;

use crate::Outcome;
use crate::load::{Consumer, Shape, produce};
use crate::process::{forget_peak, peak_mib, resident_mib};
use crate::protocol::Connection;
use crate::route::Running;

/// 50 MiB, the default `fetch.max.bytes` of consumers.
pub const ANSWER_BYTES: i32 = 50 << 20;

/// Time for buffers and accept queues to settle.
const SETTLE: Duration = Duration::from_millis(500);

/// Connections that each work once before they rest.
const WORKED_CONNECTIONS: usize = 100;

/// Consumers that read slowly at the same time.
const SLOW_CONSUMERS: usize = 8;

/// Figures of one proxy.
pub struct Idle {
    /// After start, MiB.
    pub idle_mib: f64,
    /// With 1, 100 and 1,000 connections that asked ApiVersions and Metadata, MiB.
    pub with_connections_mib: [f64; 3],
    /// Growth from none to 1,000 for each connection, KiB.
    pub connection_kib: f64,
    /// Growth for each of 100 connections that fetched 1 MiB and rest, KiB.
    pub worked_connection_kib: f64,
}

/// Measures a fresh proxy. `topic` holds records; `counts` are the numbers of connections.
pub fn idle(running: &Running, pid: u32, topic: &str) -> Outcome<Idle> {
    sleep(SETTLE);
    let idle_mib = resident_mib(pid)?;
    let leader = Connection::leader_address(&running.address)?;
    let mut open = Vec::new();
    let mut with_connections_mib = [0.0; 3];
    let counts = [1, 100, 1000];
    for (slot, count) in with_connections_mib.iter_mut().zip(counts) {
        while open.len() < count {
            let mut connection = Connection::open(&leader)?;
            connection.versions()?;
            connection.metadata(&[topic])?;
            open.push(connection);
        }
        sleep(SETTLE);
        *slot = resident_mib(pid)?;
    }
    let connection_kib = (with_connections_mib[2] - idle_mib) * 1024.0 / 1000.0;
    drop(open);
    sleep(SETTLE);
    let before = resident_mib(pid)?;
    let mut worked = Vec::new();
    for _ in 0..WORKED_CONNECTIONS {
        let mut consumer = Consumer::open(&running.address, topic, 1 << 20, 1 << 20)?;
        consumer.fetch(i64::MAX)?;
        worked.push(consumer.connection);
    }
    sleep(SETTLE);
    let grown = (resident_mib(pid)? - before).max(0.0);
    let worked_connection_kib = grown * 1024.0 / WORKED_CONNECTIONS as f64;
    Ok(Idle {
        idle_mib,
        with_connections_mib,
        connection_kib,
        worked_connection_kib,
    })
}

/// How memory behaves under answers of 50 MiB.
pub struct Large {
    /// Highest while one consumer reads as fast as it can, MiB.
    pub peak_mib: f64,
    /// Highest of the last third of the answers less highest of the first third, MiB.
    pub growth_mib: f64,
    /// Highest while eight consumers ask for 50 MiB each and read slowly, MiB.
    pub slow_peak_mib: f64,
}

/// Reads `answers` answers of 50 MiB from one partition, then lets eight consumers dawdle.
pub fn large(running: &Running, pid: u32, topic: &str, answers: usize) -> Outcome<Large> {
    let mut consumer = Consumer::open(&running.address, topic, ANSWER_BYTES, ANSWER_BYTES)?;
    let mut peaks = Vec::new();
    for _ in 0..answers {
        forget_peak(pid)?;
        consumer.fetch(0)?; // an end of 0 begins again each time
        peaks.push(peak_mib(pid)?);
    }
    let third = (answers / 3).max(1);
    let highest = |some: &[f64]| some.iter().copied().fold(0.0, f64::max);
    let growth_mib = highest(&peaks[answers - third..]) - highest(&peaks[..third]);
    drop(consumer);
    forget_peak(pid)?;
    let mut slow = Vec::new();
    for _ in 0..SLOW_CONSUMERS {
        let mut consumer = Consumer::open(&running.address, topic, ANSWER_BYTES, ANSWER_BYTES)?;
        consumer.ask()?;
        slow.push(consumer);
    }
    let until = Instant::now() + Duration::from_secs(2);
    let mut some = vec![0; 64 * 1024];
    while Instant::now() < until {
        for consumer in &mut slow {
            consumer.connection.stream.read_exact(&mut some)?;
        }
        sleep(Duration::from_millis(20));
    }
    Ok(Large {
        peak_mib: highest(&peaks),
        growth_mib,
        slow_peak_mib: peak_mib(pid)?,
    })
}

/// Fills a topic, straight to the broker: so many batches of this shape for each partition.
pub fn fill(
    address: &str,
    topic: &str,
    partitions: i32,
    shape: &Shape,
    bytes: u64,
) -> Outcome<i64> {
    let mut connection = Connection::open(address)?;
    connection.create_topic(topic, partitions)?;
    let moved = produce(
        address,
        topic,
        &Shape {
            all_partitions: true,
            ..*shape
        },
        bytes,
    )?;
    let records = moved.bytes / shape.record_bytes as u64;
    Ok(i64::try_from(records)? / i64::from(partitions))
}

/// The shape topics are filled with before they are read.
pub fn filling(record_bytes: usize) -> Shape {
    Shape {
        record_bytes,
        batch_records: 64 * 1024 / record_bytes,
        all_partitions: true,
        acks: 1,
        compression: Compression::None,
    }
}
