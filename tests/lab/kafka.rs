//! Real Apache Kafka brokers (KRaft): one, or three that are controllers as well.
//!
//! Every broker listens at and advertises a loopback address of its own (127.0.77.ID), so that a
//! scan of what a client received can tell an address of a broker from one of the proxy.

use super::{part, port, process};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const HEAP: &str = "-Xmx512m";
const START_LIMIT: Duration = Duration::from_secs(60);
const CLUSTER_ID: &str = "a29yZG9uLWxhYi0wMDAwMA";

/// A running cluster; its brokers are killed and its data deleted when dropped.
pub struct Kafka {
    version: String,
    launch: Launch,
    brokers: Vec<Broker>,
    dir: TempDir,
}

/// What is added to the commands of each broker.
#[derive(Default)]
pub struct Launch {
    /// Arguments of the storage tool's `format`, such as `--add-scram`.
    pub format: Vec<String>,
    /// Arguments of the virtual machine, such as system properties.
    pub java: Vec<String>,
}

struct Broker {
    id: u16,
    port: u16,
    process: Option<process::Process>,
}

impl Broker {
    fn host(&self) -> String {
        format!("127.0.77.{}", self.id)
    }

    fn addr(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }
}

impl Kafka {
    /// Starts `brokers` brokers of a release with `extra` properties added to each (`$HOST`,
    /// `$PORT` and `$CONTROLLER` stand for the broker's own); `Err` holds the reason and the end
    /// of the broker's log.
    pub fn start(version: &str, brokers: u16, extra: &str) -> Result<Kafka, String> {
        Kafka::start_with(version, brokers, extra, Launch::default())
    }

    /// The same with more in the commands.
    pub fn start_with(
        version: &str,
        brokers: u16,
        extra: &str,
        launch: Launch,
    ) -> Result<Kafka, String> {
        part::ready(&format!("kafka-{version}"))?;
        let dir = tempfile::Builder::new()
            .prefix("kordon-kafka-")
            .tempdir()
            .unwrap();
        let ids: Vec<u16> = (1..=brokers).collect();
        let ports: Vec<(u16, u16)> = ids
            .iter()
            .map(|id| port::free(&format!("127.0.77.{id}"), 2))
            .map(|first| (first, first + 1))
            .collect();
        let mut voters = String::new();
        for (id, (_, controller)) in ids.iter().zip(&ports) {
            let comma = if voters.is_empty() { "" } else { "," };
            write!(voters, "{comma}{id}@127.0.77.{id}:{controller}").unwrap();
        }
        let mut kafka = Kafka {
            version: version.to_owned(),
            launch,
            brokers: Vec::new(),
            dir,
        };
        for (id, (listen, controller)) in ids.iter().zip(&ports) {
            let broker = Broker {
                id: *id,
                port: *listen,
                process: None,
            };
            let text = properties(
                &broker,
                *controller,
                &voters,
                brokers,
                &kafka.home(*id),
                extra,
            );
            std::fs::create_dir_all(kafka.home(*id)).unwrap();
            std::fs::write(kafka.home(*id).join("server.properties"), text).unwrap();
            kafka.brokers.push(broker);
        }
        let formats: Vec<_> = ids.iter().map(|id| kafka.format(*id)).collect();
        for mut format in formats {
            let status = format.wait(START_LIMIT);
            if !status.is_some_and(|s| s.success()) {
                return Err(format!("cannot format the storage:\n{}", format.tail(20)));
            }
        }
        for id in &ids {
            kafka.launch(*id);
        }
        for id in &ids {
            kafka.until_up(*id)?;
        }
        Ok(kafka)
    }

    /// The brokers' addresses, comma-separated.
    pub fn bootstrap(&self) -> String {
        self.addrs().join(",")
    }

    /// Each broker's advertised `host:port`, in the order of their ids.
    pub fn addrs(&self) -> Vec<String> {
        self.brokers.iter().map(Broker::addr).collect()
    }

    /// SIGKILL for one broker.
    pub fn kill_broker(&mut self, id: u16) {
        self.broker(id)
            .process
            .take()
            .expect("the broker runs")
            .kill();
    }

    /// SIGTERM for one broker: a controlled shutdown.
    pub fn stop_broker(&mut self, id: u16) {
        let mut process = self.broker(id).process.take().expect("the broker runs");
        process.term();
        process.wait(Duration::from_secs(30));
    }

    /// Starts a broker again on its data and its port, and waits until it listens.
    pub fn restart_broker(&mut self, id: u16) -> Result<(), String> {
        self.launch(id);
        self.until_up(id)
    }

    /// Creates topics with `partitions` partitions on `replicas` brokers each.
    pub fn create(&self, partitions: u16, replicas: u16, topics: &[&str]) -> Result<(), String> {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let mut words = vec![
            "create",
            "BOOTSTRAP",
            partitions.as_str(),
            replicas.as_str(),
        ];
        words.extend(topics);
        self.tool(&words).map(drop)
    }

    /// Makes broker `to` the leader of a partition of each topic and waits until it is.
    pub fn move_leader(&self, topics: &[&str], partition: u16, to: u16) -> Result<(), String> {
        let (partition, to) = (partition.to_string(), to.to_string());
        let mut words = vec!["move-leader", "BOOTSTRAP", partition.as_str(), to.as_str()];
        words.extend(topics);
        self.tool(&words).map(drop)
    }

    /// The leader of each partition, and the count of in-sync replicas of each.
    pub fn leaders(&self, topic: &str) -> Result<Vec<(u16, u16)>, String> {
        let answer = self.tool(&["leaders", "BOOTSTRAP", topic])?;
        let number = |of: &str, p: usize| answer[of][p.to_string()].as_i64();
        let pairs = (0..).map_while(|p| Some((number("leaders", p)?, number("isr", p)?)));
        Ok(pairs
            .map(|(leader, isr)| (leader.max(0) as u16, isr as u16))
            .collect())
    }

    /// The numbered events of a topic as ranges (`0-41,43`), read directly; at least `want`.
    pub fn ids(&self, topic: &str, want: usize) -> Result<String, String> {
        let answer = self.tool(&["ids", "BOOTSTRAP", topic, &want.to_string()])?;
        Ok(answer["ids"].as_str().unwrap_or_default().to_owned())
    }

    /// The files in which the first broker keeps a topic: they grow with each batch it takes.
    pub fn segments(&self, topic: &str) -> Vec<PathBuf> {
        let data = self.home(1).join("data");
        let partitions = (0..64).map(|p| data.join(format!("{topic}-{p}")));
        partitions
            .take_while(|dir| dir.is_dir())
            .map(|dir| dir.join("00000000000000000000.log"))
            .collect()
    }

    /// A command of the Java client on this cluster; `BOOTSTRAP` stands for the live brokers.
    pub fn tool(&self, words: &[&str]) -> Result<serde_json::Value, String> {
        let live: Vec<String> = self
            .brokers
            .iter()
            .filter(|b| b.process.is_some())
            .map(Broker::addr)
            .collect();
        let live = live.join(",");
        let words = words
            .iter()
            .map(|w| if *w == "BOOTSTRAP" { live.as_str() } else { w });
        let output = super::client::java()
            .args(words)
            .output()
            .map_err(|e| e.to_string())?;
        let out = String::from_utf8_lossy(&output.stdout);
        let line = out.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .map_err(|_| format!("{out}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The end of every broker's log, for a failure's message.
    pub fn logs(&self, lines: usize) -> String {
        let tails = self.brokers.iter().map(|b| {
            let log = self.home(b.id).join("broker.out");
            format!("broker {}:\n{}", b.id, process::tail(&log, lines))
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Runs one of Kafka's own tools, by its class: whether it succeeded, and what it printed.
    pub fn own_tool(&self, class: &str, words: &[&str]) -> (bool, String) {
        let mut command = self.java("-Xmx256m");
        let output = command.arg(class).args(words).output().unwrap();
        let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        (output.status.success(), texts.concat())
    }

    fn home(&self, id: u16) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    fn broker(&mut self, id: u16) -> &mut Broker {
        self.brokers
            .iter_mut()
            .find(|b| b.id == id)
            .expect("a broker of the cluster")
    }

    fn java(&self, heap: &str) -> Command {
        let mut command = Command::new("java");
        let libs = part::cache().join(format!("kafka-{}/libs/*", self.version));
        command
            .args([heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(part::hosts())
            .arg("-cp")
            .arg(libs);
        command
    }

    fn format(&self, id: u16) -> process::Process {
        let mut command = self.java("-Xmx256m");
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        command.arg(self.home(id).join("server.properties"));
        command.args(&self.launch.format);
        process::Process::start(command, &self.home(id), "format")
    }

    fn launch(&mut self, id: u16) {
        let mut command = self.java(HEAP);
        command
            .args(&self.launch.java)
            .arg("kafka.Kafka")
            .arg(self.home(id).join("server.properties"));
        let process = process::Process::start(command, &self.home(id), "broker");
        self.broker(id).process = Some(process);
    }

    fn until_up(&mut self, id: u16) -> Result<(), String> {
        let broker = self.broker(id);
        let addr = broker.addr();
        process::until_open(
            &addr,
            broker.process.as_mut().expect("launched"),
            START_LIMIT,
        )
        .map_err(|why| format!("broker {id} {why}"))
    }
}

/// Properties of a broker with a second listener at `port`, for those who log in by SASL/PLAIN
/// with a name and a password of `users`.
pub fn plain_listener<'u>(
    port: u16,
    users: impl IntoIterator<Item = (&'u str, &'u str)>,
) -> String {
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let user = |(name, password)| format!(" user_{name}=\"{password}\"");
    let users: String = users.into_iter().map(user).collect();
    format!(
        "listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{port},CONTROLLER://$HOST:$CONTROLLER
advertised.listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config={login} required{users};
"
    )
}

/// Properties of a broker that asks Kafka's own authorizer, but about the users of `above`, who
/// may do everything as those of the listener without SASL do.
pub fn authorizer(above: &[&str]) -> String {
    let above: String = above.iter().map(|user| format!(";User:{user}")).collect();
    format!(
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS{above}
"
    )
}

fn properties(
    broker: &Broker,
    controller: u16,
    voters: &str,
    brokers: u16,
    home: &std::path::Path,
    extra: &str,
) -> String {
    let (id, host, port) = (broker.id, broker.host(), broker.port);
    let replicas = brokers.min(3);
    let in_sync = if replicas > 1 { 2 } else { 1 };
    // Listeners of a test's own repeat the lab's, whose ports are not known to the test.
    let extra = extra
        .replace("$HOST", &host)
        .replace("$PORT", &port.to_string())
        .replace("$CONTROLLER", &controller.to_string());
    // The records of the tests carry old dates: half a minute after its start a broker would
    // begin to delete them, each broker at a moment of its own.
    format!(
        "process.roles=broker,controller
log.retention.ms=-1
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=3
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
group.share.heartbeat.interval.ms=500
group.share.min.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
auto.leader.rebalance.enable=false
log.cleaner.dedupe.buffer.size=20000000
num.network.threads=2
num.io.threads=4
{extra}
",
        data = home.join("data").display(),
    )
}
