//! The generator's own loads over the raw protocol: produce as fast as it goes with a window in
//! flight, produce at a fixed rate whatever the answers do, consume as fast as it goes.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::records::Compression;

use crate::Outcome;
use crate::fetched;
use crate::protocol::{self, Connection, Led};

/// Requests on the way at once, as `max.in.flight.requests.per.connection` of the Java client.
const IN_FLIGHT_MAX: usize = 5;

/// What a producer sends over and over.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Value bytes of a record.
    pub record_bytes: usize,
    /// Records in a batch.
    pub batch_records: usize,
    /// True: each request carries a batch for every partition, as the Java client does when it
    /// is behind; false: one batch a request, partitions in turn, as librdkafka does.
    pub all_partitions: bool,
    /// `acks` of the request.
    pub acks: i16,
    /// How the batch is compressed.
    pub compression: Compression,
}

/// What went over the wire in which time.
#[derive(Clone, Copy)]
pub struct Moved {
    /// Bytes of record values, before compression (produce) or of batches (consume).
    pub bytes: u64,
    /// Wall clock, seconds.
    pub seconds: f64,
}

impl Moved {
    /// MiB per second.
    pub fn mib_s(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds
    }

    /// GiB.
    pub fn gib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 30)
    }
}

/// Runs a load on so many threads at once, each with a connection of its own, and adds up what
/// they moved; the slowest says the time.
pub fn side_by_side(threads: u64, load: impl Fn() -> Outcome<Moved> + Sync) -> Outcome<Moved> {
    if threads == 1 {
        return load();
    }
    let load = || load().map_err(|error| error.to_string());
    let moved: Vec<Moved> = thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(load)).collect();
        let ended = started.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a load thread panicked".to_owned()))
        });
        ended.collect::<Result<_, _>>()
    })?;
    Ok(Moved {
        bytes: moved.iter().map(|one| one.bytes).sum(),
        seconds: moved.iter().map(|one| one.seconds).fold(0.0, f64::max),
    })
}

/// Produces at least `bytes` of record values to the topic; every answer is checked.
pub fn produce(address: &str, topic: &str, shape: &Shape, bytes: u64) -> Outcome<Moved> {
    let Led {
        mut connection,
        versions,
        topic,
    } = Connection::to_leader(address, topic)?;
    let version = versions.produce;
    let batch = protocol::batch(shape.batch_records, shape.record_bytes, shape.compression)?;
    let partitions: Vec<i32> = topic
        .partitions
        .iter()
        .map(|row| row.partition_index)
        .collect();
    let mut templates = templates(version, &topic, &partitions, &batch, shape)?;
    let batches = if shape.all_partitions {
        partitions.len()
    } else {
        1
    };
    let request_bytes = (batches * shape.batch_records * shape.record_bytes) as u64;
    let requests = usize::try_from(bytes.div_ceil(request_bytes))?;
    let mut body = Vec::new();
    let begun = Instant::now();
    let count = templates.len();
    for number in 0..requests + IN_FLIGHT_MAX {
        if number >= IN_FLIGHT_MAX && number - IN_FLIGHT_MAX < requests {
            let length = connection.receive(&mut body)?;
            let correlation = i32::try_from(number - IN_FLIGHT_MAX)?;
            protocol::check_produced(version, &body[..length], correlation)?;
        }
        if number < requests {
            connection.send(&mut templates[number % count], i32::try_from(number)?)?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Moved {
        bytes: request_bytes * requests as u64,
        seconds,
    })
}

fn templates(
    version: i16,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
    batch: &Bytes,
    shape: &Shape,
) -> Outcome<Vec<BytesMut>> {
    let chunk = if shape.all_partitions {
        partitions.len()
    } else {
        1
    };
    partitions
        .chunks(chunk)
        .map(|some| protocol::produce_frame(version, topic, some, batch, shape.acks))
        .collect()
}

/// A consumer of the whole topic on one connection, one request on the way.
pub struct Consumer {
    /// The socket, for a reader that takes its time.
    pub connection: Connection,
    version: i16,
    topic: MetadataResponseTopic,
    offsets: Vec<i64>,
    body: Vec<u8>,
    correlation: i32,
    /// `max_bytes` of the request.
    pub bytes_max: i32,
    /// `partition_max_bytes` of the request.
    pub partition_bytes_max: i32,
}

impl Consumer {
    /// Connects and looks the topic up.
    pub fn open(address: &str, topic: &str, bytes_max: i32, of_each: i32) -> Outcome<Consumer> {
        let Led {
            connection,
            versions,
            topic,
        } = Connection::to_leader(address, topic)?;
        let offsets = vec![0; topic.partitions.len()];
        Ok(Consumer {
            connection,
            version: versions.fetch,
            topic,
            offsets,
            body: Vec::new(),
            correlation: 0,
            bytes_max,
            partition_bytes_max: of_each,
        })
    }

    /// Sends one Fetch request.
    pub fn ask(&mut self) -> Outcome<()> {
        self.correlation += 1;
        let (version, topic) = (self.version, &self.topic);
        let (all, each) = (self.bytes_max, self.partition_bytes_max);
        let mut frame = protocol::fetch_frame(version, topic, &self.offsets, all, each)?;
        self.connection.send(&mut frame, self.correlation)
    }

    /// Asks, reads the answer, goes on to the next offsets; a partition at its end starts again.
    pub fn fetch(&mut self, end: i64) -> Outcome<u64> {
        self.ask()?;
        let length = self.connection.receive(&mut self.body)?;
        let bytes = fetched::walk(self.version, &self.body[..length], &mut self.offsets)?;
        for offset in &mut self.offsets {
            if *offset >= end {
                *offset = 0;
            }
        }
        Ok(bytes)
    }
}

/// Consumes at least `bytes` of batches; `end` is the end offset of every partition.
pub fn consume(consumer: &mut Consumer, end: i64, bytes: u64) -> Outcome<Moved> {
    let mut total = 0;
    let begun = Instant::now();
    while total < bytes {
        let got = consumer.fetch(end)?;
        if got == 0 {
            return Err("a fetch answer without records from a topic that has them".into());
        }
        total += got;
    }
    Ok(Moved {
        bytes: total,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Round trips of one 1 KiB record at a fixed rate, milliseconds, sorted. Requests leave when
/// their time has come whether or not earlier answers are back, and each is timed from the moment
/// it was due, so that a stall counts for everything it delays (no coordinated omission).
pub fn round_trips(address: &str, topic: &str, per_second: u32, count: u32) -> Outcome<Vec<f64>> {
    let Led {
        mut connection,
        versions,
        topic,
    } = Connection::to_leader(address, topic)?;
    let version = versions.produce;
    let batch = protocol::batch(1, 1024, Compression::None)?;
    let template = protocol::produce_frame(version, &topic, &[0], &batch, 1)?;
    let gap = Duration::from_secs(1) / per_second;
    // The first answers pay for the connection's slow start at every hop: not what is asked here.
    let warm_up = per_second / 5;
    let begun = Instant::now() + Duration::from_millis(20);
    let sending = connection.stream.try_clone()?;
    let sender = thread::spawn(move || {
        send_on_time(sending, template, begun, gap, warm_up + count).map_err(|e| e.to_string())
    });
    let mut body = Vec::new();
    let mut milliseconds = Vec::new();
    for number in 0..warm_up + count {
        let length = connection.receive(&mut body)?;
        let late = Instant::now().duration_since(begun + gap * number);
        protocol::check_produced(version, &body[..length], i32::try_from(number)?)?;
        if number >= warm_up {
            milliseconds.push(late.as_secs_f64() * 1e3);
        }
    }
    sender
        .join()
        .map_err(|_| "the sending thread ended early")??;
    milliseconds.sort_by(f64::total_cmp);
    Ok(milliseconds)
}

fn send_on_time(
    stream: TcpStream,
    mut template: BytesMut,
    begun: Instant,
    gap: Duration,
    count: u32,
) -> Outcome<()> {
    // Without this the kernel may add 50 µs to every sleep; where it is refused, it adds them to
    // every route alike.
    let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1");
    let mut connection = Connection::over(stream);
    for number in 0..count {
        let due = begun + gap * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.send(&mut template, i32::try_from(number)?)?;
    }
    Ok(())
}

/// The value below which the given share of sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(at.saturating_sub(1).min(last))
        .copied()
        .unwrap_or(f64::NAN)
}
