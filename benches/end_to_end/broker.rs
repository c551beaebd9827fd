//! One real Apache Kafka broker (KRaft) with a listener for each route, so that the address a
//! client learns from Metadata leads it back through the route it came by.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{Process, free_ports};

/// The release the figures are measured against.
pub const VERSION: &str = "4.3.0";

/// Where each route enters the broker, loopback ports.
#[derive(Clone, Copy)]
pub struct Ports {
    /// The listener of clients without a proxy; advertises itself.
    pub direct: u16,
    /// The listener behind haproxy; advertises `haproxy_front`.
    pub haproxy_back: u16,
    /// Where haproxy listens.
    pub haproxy_front: u16,
    /// The listener behind Kordon; advertises itself, Kordon rewrites it.
    pub kordon_back: u16,
}

/// The running broker; its data go when the folder given to `start` goes.
pub struct Broker {
    /// Kept for its process id and its end.
    pub process: Process,
    /// Where it listens.
    pub ports: Ports,
    /// `-cp` for Kafka's own tools.
    pub class_path: String,
}

impl Broker {
    /// Formats the storage below `folder` and starts the broker; returns once it accepts.
    pub fn start(folder: &Path) -> Outcome<Broker> {
        let class_path = format!("{}/*", libraries()?.display());
        let first = free_ports(5)?;
        let ports = Ports {
            direct: first,
            haproxy_back: first + 1,
            haproxy_front: first + 2,
            kordon_back: first + 3,
        };
        let file = folder.join("server.properties");
        fs::write(&file, properties(&ports, first + 4, folder))?;
        let format = Command::new("java")
            .args([
                "-Xmx256m",
                "-cp",
                &class_path,
                "kafka.tools.StorageTool",
                "format",
            ])
            .args(["-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
            .arg(&file)
            .output()
            .map_err(|error| format!("cannot start `java`: {error}"))?;
        if !format.status.success() {
            let why = String::from_utf8_lossy(&format.stderr).into_owned();
            return Err(format!("storage was not formatted: {why}").into());
        }
        let mut command = Command::new("java");
        command
            .args(["-Xmx1g", "-Xms1g", "-cp", &class_path, "kafka.Kafka"])
            .arg(&file);
        let mut process = Process::start(&mut command, folder.join("broker.log"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", ports.direct)).is_err() {
            process.check_alive()?;
            if Instant::now() > deadline {
                return Err(format!("broker not up in 60 s:\n{}", process.log_tail()).into());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(Broker {
            process,
            ports,
            class_path,
        })
    }
}

/// The jars of `$KORDON_CACHE/kafka/VERSION/libs`, fetched from Maven Central where absent.
fn libraries() -> Outcome<PathBuf> {
    let cache = match std::env::var_os("KORDON_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/kordon"),
    };
    let folder = cache.join("kafka").join(VERSION);
    let libs = folder.join("libs");
    if libs.join(format!("kafka_2.13-{VERSION}.jar")).exists() {
        return Ok(libs);
    }
    fs::create_dir_all(&folder)?;
    let wanted: String = ["kafka_2.13", "kafka-tools"]
        .iter()
        .map(|artifact| {
            format!(
                "<dependency><groupId>org.apache.kafka</groupId>\
                 <artifactId>{artifact}</artifactId><version>{VERSION}</version></dependency>"
            )
        })
        .collect();
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\
         <modelVersion>4.0.0</modelVersion><groupId>kordon</groupId>\
         <artifactId>bench-broker</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{wanted}</dependencies></project>"
    );
    fs::write(folder.join("pom.xml"), pom)?;
    let status = Command::new("mvn")
        .args([
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DoutputDirectory=libs",
        ])
        .current_dir(&folder)
        .status()
        .map_err(|error| format!("cannot start `mvn` to fetch the broker: {error}"))?;
    if !status.success() {
        return Err("Maven could not fetch the broker's jars".into());
    }
    Ok(libs)
}

fn properties(ports: &Ports, controller: u16, folder: &Path) -> String {
    let Ports {
        direct,
        haproxy_back,
        haproxy_front,
        kordon_back,
    } = *ports;
    let data = folder.join("data");
    let host = "127.0.0.1";
    // Deleted topics leave the disk after a second instead of a minute: each round deletes its own.
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{host}:{controller}\n\
         listeners=DIRECT://{host}:{direct},HAPROXY://{host}:{haproxy_back},\
         KORDON://{host}:{kordon_back},CONTROLLER://{host}:{controller}\n\
         advertised.listeners=DIRECT://{host}:{direct},HAPROXY://{host}:{haproxy_front},\
         KORDON://{host}:{kordon_back}\n\
         listener.security.protocol.map=DIRECT:PLAINTEXT,HAPROXY:PLAINTEXT,KORDON:PLAINTEXT,\
         CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=DIRECT\n\
         log.dirs={data}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         auto.create.topics.enable=false\n\
         log.initial.task.delay.ms=500\n\
         log.segment.delete.delay.ms=1000\n",
        data = data.display()
    )
}
