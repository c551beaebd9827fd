//! The clients of five languages: how each is run, and the lines it prints.

use super::{part, process};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Every client of the matrix, by the name of its folder in `tests/clients`.
pub const ALL: [Client; 5] = [
    Client { name: "java" },
    Client { name: "librdkafka" },
    Client { name: "franz" },
    Client { name: "kafkajs" },
    Client { name: "aiokafka" },
];

/// Producing ends by itself then, should nobody stop it.
const TRAFFIC_SECONDS_MAX: &str = "180";
const MATRIX_LIMIT: Duration = Duration::from_secs(300);

/// How a client proves who it is, with its own stock settings.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// TLS with a client certificate.
    Mtls {
        /// The authority of the server's certificate.
        ca: PathBuf,
        /// The client's certificate.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// SASL/OAUTHBEARER over TLS, with tokens from a token endpoint for client credentials.
    Oauth {
        /// The authority of the server's certificate.
        ca: PathBuf,
        /// The token endpoint.
        token_url: String,
        /// The client's id there.
        id: String,
        /// Its secret.
        secret: String,
    },
}

impl Security {
    /// Tells a client of any language, which reads the same variables.
    fn tell(&self, command: &mut Command) {
        match self {
            Security::Plaintext => {}
            Security::Mtls { ca, cert, key } => {
                command.env("CLIENT_SECURITY", "mtls").env("CLIENT_CA", ca);
                command.env("CLIENT_CERT", cert).env("CLIENT_KEY", key);
            }
            Security::Oauth {
                ca,
                token_url,
                id,
                secret,
            } => {
                command.env("CLIENT_SECURITY", "oauth").env("CLIENT_CA", ca);
                command.env("CLIENT_TOKEN_URL", token_url);
                command.env("CLIENT_ID", id).env("CLIENT_SECRET", secret);
                command.env("CLIENT_SCOPE", "kafka");
            }
        }
    }
}

/// One client of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The folder's name, which is also its part's.
    pub name: &'static str,
}

/// What one case printed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// The facts, comparable between a direct run and one through the proxy.
    pub detail: Map<String, Value>,
    /// How long it took.
    pub ms: u64,
}

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it says.
    Passed,
    /// It did not; the error.
    Failed(String),
    /// The client lacks the feature; the reason.
    Skipped(String),
}

/// The answers of one run by case name.
pub type Answers = BTreeMap<String, Answer>;

impl Client {
    /// `Err(reason)` when its toolchain or its packages are missing.
    pub fn ready(self) -> Result<(), String> {
        part::ready(self.name)
    }

    /// The command that runs it; arguments follow.
    pub fn command(self) -> Command {
        let lab = part::cache();
        let folder = part::root().join("tests/clients").join(self.name);
        match self.name {
            "java" => java(),
            "franz" => Command::new(lab.join("franz/matrix")),
            "kafkajs" => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", lab.join("kafkajs/node_modules"));
                node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
                node.arg(folder.join("matrix.js"));
                node
            }
            name => {
                let mut python = Command::new(lab.join(name).join("bin/python"));
                python.args(["-B", "-u"]).arg(folder.join("matrix.py"));
                python
            }
        }
    }

    /// Runs the cases (all when empty) against `bootstrap`; names begin with `prefix`, which is
    /// taken out of the facts. `dir` keeps the output.
    pub fn matrix(
        self,
        bootstrap: &str,
        prefix: &str,
        cases: &[&str],
        dir: &Path,
    ) -> Result<Answers, String> {
        self.matrix_as(&Security::Plaintext, bootstrap, prefix, cases, dir)
    }

    /// The same by a client that proves who it is.
    pub fn matrix_as(
        self,
        security: &Security,
        bootstrap: &str,
        prefix: &str,
        cases: &[&str],
        dir: &Path,
    ) -> Result<Answers, String> {
        let mut command = self.command();
        security.tell(&mut command);
        command.arg(bootstrap).arg(prefix).args(cases);
        let name = format!("{}{}", self.name, prefix.replace('.', "-"));
        let mut run = process::Process::start(command, dir, &name);
        let status = run.wait(MATRIX_LIMIT);
        let mut answers = Answers::new();
        let out = std::fs::read_to_string(&run.out).unwrap_or_default();
        for line in out.lines().filter(|l| l.starts_with('{')) {
            let line = line.replace(prefix, "");
            let line: Value = serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))?;
            let (case, answer) = Answer::read(&line);
            answers.insert(case, answer);
        }
        match status {
            Some(status) if status.success() => Ok(answers),
            status => {
                let end = status.map_or("did not end".to_owned(), |s| s.to_string());
                let done = answers.len();
                Err(format!(
                    "{} {end} after {done} cases:\n{}",
                    self.name,
                    run.tail(20)
                ))
            }
        }
    }

    /// Starts traffic on `topic`: numbered events, read at the same time, until `Traffic::stop`;
    /// `grace` is how many seconds the last of them have to be acknowledged, and then to be read.
    pub fn traffic(self, bootstrap: &str, topic: &str, grace: u32, dir: &Path) -> Traffic {
        self.traffic_as(&Security::Plaintext, bootstrap, topic, grace, dir)
    }

    /// The same by a client that proves who it is.
    pub fn traffic_as(
        self,
        security: &Security,
        bootstrap: &str,
        topic: &str,
        grace: u32,
        dir: &Path,
    ) -> Traffic {
        let mut command = self.command();
        security.tell(&mut command);
        let stop = dir.join(format!("stop-{topic}"));
        command.args(["traffic", bootstrap, topic, TRAFFIC_SECONDS_MAX]);
        command.arg(grace.to_string()).env("TRAFFIC_STOP", &stop);
        let name = format!("traffic-{}", topic.replace('.', "-"));
        let process = process::Process::start(command, dir, &name);
        let started = Instant::now();
        Traffic {
            client: self,
            topic: topic.to_owned(),
            process,
            stop,
            started,
        }
    }
}

/// The Java client with the newest broker's jars; also the harness's own tool.
pub fn java() -> Command {
    let lab = part::cache();
    let mut command = Command::new("java");
    let path = format!(
        "{}:{}/kafka-4.3.0/libs/*",
        lab.join("java").display(),
        lab.display()
    );
    command.args([
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        &part::hosts(),
        "-cp",
        &path,
        "Matrix",
    ]);
    command
}

impl Answer {
    fn read(line: &Value) -> (String, Answer) {
        let outcome = match (line["skip"].as_str(), line["ok"].as_bool()) {
            (Some(reason), _) => Outcome::Skipped(reason.to_owned()),
            (None, Some(true)) => Outcome::Passed,
            _ => Outcome::Failed(
                line["error"]
                    .as_str()
                    .unwrap_or("no reason given")
                    .to_owned(),
            ),
        };
        let detail = line["detail"].as_object().cloned().unwrap_or_default();
        let ms = line["ms"].as_u64().unwrap_or_default();
        (
            line["case"].as_str().unwrap_or("?").to_owned(),
            Answer {
                outcome,
                detail,
                ms,
            },
        )
    }
}

/// Traffic that is under way.
pub struct Traffic {
    /// Whose.
    pub client: Client,
    /// Where.
    pub topic: String,
    process: process::Process,
    stop: PathBuf,
    started: Instant,
}

/// What traffic came to.
#[derive(Debug)]
pub struct Report {
    /// Events handed to the producer.
    pub sent: u64,
    /// Events acknowledged to it.
    pub acknowledged: u64,
    /// Events that its consumer saw.
    pub consumed: u64,
    /// Acknowledged and not consumed, the first twenty.
    pub missing: Vec<u64>,
    /// The acknowledged numbers.
    pub ids: Vec<(u64, u64)>,
    /// Errors the producer was given, by name.
    pub errors: Value,
}

impl Traffic {
    /// Ends the producing; what was sent may still be acknowledged and read.
    pub fn stop(&self) {
        std::fs::write(&self.stop, "").unwrap();
    }

    /// Whether the client has printed that its first event was acknowledged and read.
    pub fn flows(&self) -> bool {
        std::fs::read_to_string(&self.process.out)
            .unwrap_or_default()
            .contains("\"flows\"")
    }

    /// Its process id, for what the system knows of its connections.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it is still under way.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Waits for its end and reads the report.
    pub fn report(mut self, limit: Duration) -> Result<Report, String> {
        let name = self.client.name;
        let Some(status) = self.process.wait(limit) else {
            let seconds = self.started.elapsed().as_secs();
            return Err(format!(
                "{name} did not end in {seconds} s:\n{}",
                self.process.tail(20)
            ));
        };
        let out = std::fs::read_to_string(&self.process.out).unwrap_or_default();
        let line = out.lines().rev().find(|l| l.contains("\"traffic\":"));
        let line: Value = line
            .and_then(|l| serde_json::from_str(l).ok())
            .ok_or_else(|| format!("{name} {status}, no report:\n{}", self.process.tail(20)))?;
        let number = |key: &str| line[key].as_u64().unwrap_or_default();
        let missing = line["missing"].as_array().cloned().unwrap_or_default();
        Ok(Report {
            sent: number("sent"),
            acknowledged: number("acknowledged"),
            consumed: number("consumed"),
            missing: missing.iter().filter_map(Value::as_u64).collect(),
            ids: ranges(line["ids"].as_str().unwrap_or_default())?,
            errors: line["errors"].clone(),
        })
    }
}

/// Reads `0-41,43`.
pub fn ranges(text: &str) -> Result<Vec<(u64, u64)>, String> {
    let number = |n: &str| {
        n.parse::<u64>()
            .map_err(|e| format!("{e}: `{n}` in `{text}`"))
    };
    text.split(',')
        .filter(|range| !range.is_empty())
        .map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            Ok((number(from)?, number(to)?))
        })
        .collect()
}

/// The numbers of `wanted` that `have` lacks.
pub fn lacking(wanted: &[(u64, u64)], have: &[(u64, u64)]) -> Vec<u64> {
    let holds = |id: u64| have.iter().any(|(from, to)| (*from..=*to).contains(&id));
    wanted
        .iter()
        .flat_map(|(from, to)| *from..=*to)
        .filter(|id| !holds(*id))
        .collect()
}
