//! Real clients as load: Kafka's own performance tools (Java) and kcat (librdkafka), so that no
//! figure rests on this generator's habits alone.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::load::Moved;
use crate::protocol::payload;

/// Heap of each tool; the broker keeps the rest of the machine.
const HEAP: &str = "-Xmx512m";

/// `ProducerPerformance`; properties beyond the defaults are given as `key=value`.
pub fn java_produce(
    class_path: &str,
    address: &str,
    topic: &str,
    bytes: u64,
    properties: &[&str],
) -> Outcome<Moved> {
    let records = bytes / 1024;
    let mut command = java(class_path, "org.apache.kafka.tools.ProducerPerformance");
    command
        .args([
            "--bootstrap-server",
            address,
            "--topic",
            topic,
            "--throughput",
            "-1",
        ])
        .args([
            "--record-size",
            "1024",
            "--num-records",
            &records.to_string(),
        ])
        .arg("--command-property")
        .args(properties);
    let text = output(&mut command)?;
    // "1048576 records sent, 268435.5 records/sec (262.14 MB/sec), 12.3 ms avg latency, …"
    let rate = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(&format!("{records} records sent, ")))
        .and_then(|rest| rest.split_once(" records/sec"))
        .and_then(|(number, _)| number.parse::<f64>().ok())
        .ok_or_else(|| format!("no result from ProducerPerformance:\n{text}"))?;
    Ok(Moved {
        bytes,
        seconds: records as f64 / rate,
    })
}

/// `ConsumerPerformance` over `records` records of 1 KiB; times the fetching, not the join.
pub fn java_consume(class_path: &str, address: &str, topic: &str, records: u64) -> Outcome<Moved> {
    let group = format!("bench.{}", std::process::id());
    let mut command = java(class_path, "org.apache.kafka.tools.ConsumerPerformance");
    command
        .args([
            "--bootstrap-server",
            address,
            "--topic",
            topic,
            "--group",
            &group,
        ])
        .args(["--num-records", &records.to_string(), "--hide-header"])
        .args(["--command-property", "enable.auto.commit=false"]);
    let text = output(&mut command)?;
    // start, end, MB, MB/s, messages, messages/s, rebalance ms, fetch ms, fetch MB/s, …
    let line = text
        .lines()
        .rev()
        .find(|line| line.split(", ").count() >= 10);
    let numbers: Vec<f64> = line
        .unwrap_or_default()
        .split(", ")
        .skip(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    let (Some(mib), Some(fetch_ms)) = (numbers.first(), numbers.get(5)) else {
        return Err(format!("no result from ConsumerPerformance:\n{text}").into());
    };
    Ok(Moved {
        bytes: (mib * f64::from(1 << 20)) as u64,
        seconds: fetch_ms / 1e3,
    })
}

/// Writes lines of 1 KiB for kcat to send.
pub fn write_lines(file: &Path, bytes: u64) -> Outcome<()> {
    let mut lines = BufWriter::new(File::create(file)?);
    let some: Vec<_> = (0..64).map(|number| payload(number, 1024)).collect();
    for number in 0..bytes / 1024 {
        lines.write_all(&some[number as usize % some.len()])?;
        lines.write_all(b"\n")?;
    }
    Ok(lines.flush()?)
}

/// kcat sends the lines of a file of `bytes` record bytes.
pub fn kcat_produce(
    address: &str,
    topic: &str,
    file: &Path,
    bytes: u64,
    properties: &[&str],
) -> Outcome<Moved> {
    let mut command = Command::new("kcat");
    command.args(["-P", "-q", "-b", address, "-t", topic]);
    for property in properties {
        command.args(["-X", property]);
    }
    timed(command.arg("-l").arg(file), bytes)
}

/// kcat reads a topic that holds `bytes` from its beginning to its end; start-up included.
pub fn kcat_consume(address: &str, topic: &str, bytes: u64) -> Outcome<Moved> {
    let mut command = Command::new("kcat");
    command
        .args([
            "-C",
            "-q",
            "-e",
            "-o",
            "beginning",
            "-f",
            "",
            "-b",
            address,
            "-t",
            topic,
        ])
        .args([
            "-X",
            "check.crcs=false",
            "-X",
            "queued.max.messages.kbytes=1000000",
        ]);
    timed(&mut command, bytes)
}

fn java(class_path: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    command.args([HEAP, "-cp", class_path, class]);
    command
}

fn timed(command: &mut Command, bytes: u64) -> Outcome<Moved> {
    let begun = Instant::now();
    output(command)?;
    Ok(Moved {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("`{program}` failed ({}):\n{why}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
