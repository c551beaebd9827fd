//! What a reload of many rules costs: how long from the change of a file until it is in force, and
//! what live traffic sees of it, beside as long a time without a reload. An embedded broker and
//! the clients are in this process, Kordon is one of its own.
//!
//! `cargo bench --bench reload`; `-- --rules N` for another number than 100,000.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::records::Compression;
use kordon::demo::broker::{Broker, BrokerSettings};
use kordon::demo::client::{Client, Message, NOT_IDEMPOTENT, batch};
use tokio::runtime::Builder;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Rules of each policy.
const RULES_EACH: usize = 100;
/// Rounds, after one that warms up.
const ROUNDS: usize = 7;
/// How long a round looks at what traffic sees: longer than a reload takes.
const WINDOW: Duration = Duration::from_millis(1_500);
/// How long a change may take before the benchmark gives up.
const EFFECT_MAX: Duration = Duration::from_secs(20);
/// Code of a refused topic.
const FORBIDDEN: i16 = 29;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|word| word == "--rules");
    let rules = match at.and_then(|at| arguments.get(at + 1)) {
        Some(rules) => rules.parse()?,
        None => 100_000,
    };
    let dir = tempfile::tempdir()?;
    let policies = dir.path().join("policies");
    fs::create_dir(&policies)?;
    for at in 0..rules / RULES_EACH {
        fs::write(policies.join(format!("p{at}.yaml")), policy(at)?)?;
    }
    probe(dir.path(), true)?;
    let broker = start_broker()?;
    let kordon = Kordon::start(dir.path(), broker)?;
    let slowest = Arc::new(AtomicU64::new(0));
    let traffic = Traffic::start(kordon.broker_port, &slowest)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut asker = runtime.block_on(Client::connect(kordon.broker_port, "asker"))?;

    let (mut effects, mut quiet, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        slowest.store(0, Ordering::Relaxed);
        std::thread::sleep(WINDOW);
        let without = millis(slowest.swap(0, Ordering::Relaxed));
        let allowed = round % 2 == 1;
        let begun = Instant::now();
        probe(dir.path(), allowed)?;
        let wanted = if allowed { 0 } else { FORBIDDEN };
        while runtime.block_on(code(&mut asker))? != wanted {
            if begun.elapsed() > EFFECT_MAX {
                return Err("the change had no effect".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let effect = begun.elapsed();
        std::thread::sleep(WINDOW.saturating_sub(effect));
        let with = millis(slowest.swap(0, Ordering::Relaxed));
        if round > 0 {
            effects.push(effect.as_secs_f64() * 1e3);
            quiet.push(without);
            busy.push(with);
        }
    }
    let requests = traffic.stop()?;
    println!(
        "{rules} rules, {requests} requests: milliseconds, min, median, max of {ROUNDS} rounds"
    );
    show("from the change of a file until it is in force", effects);
    show("slowest answer, no reload", quiet);
    show("slowest answer, reload", busy);
    Ok(())
}

fn millis(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn show(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (min, median, max) = (values[0], values[ROUNDS / 2], values[ROUNDS - 1]);
    println!("{name:<48} {min:>8.1} {median:>8.1} {max:>8.1}");
}

/// Half of all policies concern who makes the load; a tenth of the rules are prefixes.
fn policy(at: usize) -> Outcome<String> {
    let principal = match at % 2 {
        0 => "bench".to_owned(),
        _ => format!("service-{at}"),
    };
    let mut text = format!(
        "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {{name: p{at}}}\nspec:\n  \
         principals: [\"User:{principal}\"]\n  rules:\n"
    );
    for rule in 0..RULES_EACH {
        let star = if rule % 10 == 0 { "*" } else { "" };
        writeln!(
            text,
            "    - {{allow: [Read, Write], topics: [\"team-{at}.topic-{rule}.{star}\"]}}"
        )?;
    }
    Ok(text)
}

/// The policy that changes, written as one who cares writes it.
fn probe(dir: &Path, allowed: bool) -> Outcome<()> {
    let effect = if allowed { "allow" } else { "deny" };
    let text = format!(
        "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {{name: probe}}\nspec:\n  \
         principals: [\"User:bench\"]\n  rules:\n    - {{allow: [Write], topics: [load]}}\n    \
         - {{{effect}: [Write], topics: [probe]}}\n"
    );
    fs::write(dir.join("probe.new"), text)?;
    fs::rename(dir.join("probe.new"), dir.join("policies/probe.yaml"))?;
    Ok(())
}

fn start_broker() -> Outcome<SocketAddr> {
    let (sender, started) = mpsc::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            let broker = Broker::start(BrokerSettings::default()).await;
            let made = broker.map(|broker| {
                let topics = ["load", "probe"].map(|name| broker.create_topic(name, 1).is_ok());
                (topics == [true, true]).then_some(broker)
            });
            let _ = sender.send(
                made.as_ref()
                    .map(|broker| broker.as_ref().map(Broker::address))
                    .map_err(ToString::to_string),
            );
            // For as long as the process lives.
            std::future::pending::<()>().await;
        });
    });
    Ok(started.recv()??.ok_or("topics cannot be made")?)
}

struct Kordon {
    child: Child,
    broker_port: SocketAddr,
}

impl Kordon {
    fn start(dir: &Path, broker: SocketAddr) -> Outcome<Kordon> {
        let free = || -> Outcome<u16> {
            let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
            Ok(socket.local_addr()?.port())
        };
        let (bind, port) = (free()?, free()?);
        let config = format!(
            "upstream: {{bootstrap: [\"{broker}\"]}}\npolicies: policies/\nlisteners:\n\
             - name: app\n  bind: 127.0.0.1:{bind}\n  \
             advertise: {{host: localhost, ports: {port}-{port}}}\n  \
             identity: {{static: \"User:bench\"}}\n"
        );
        fs::write(dir.join("kordon.yaml"), config)?;
        let binary = std::env::var("KORDON_BIN");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_kordon").to_owned());
        let child = Command::new(binary)
            .args(["run", "-c"])
            .arg(dir.join("kordon.yaml"))
            .stderr(Stdio::null())
            .spawn()?;
        let broker_port = SocketAddr::from(([127, 0, 0, 1], port));
        let kordon = Kordon { child, broker_port };
        let begun = Instant::now();
        while std::net::TcpStream::connect(broker_port).is_err() {
            if begun.elapsed() > EFFECT_MAX {
                return Err("the proxy does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(kordon)
    }
}

impl Drop for Kordon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One record of 1 KiB at a time, each when the one before has been acknowledged.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<u64, String>>,
}

impl Traffic {
    fn start(port: SocketAddr, slowest: &Arc<AtomicU64>) -> Outcome<Traffic> {
        let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::clone(slowest));
        let stopped = Arc::clone(&stop);
        let records = record()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let said = |error: kordon::demo::client::ClientError| error.to_string();
                let mut client = Client::connect(port, "load").await.map_err(said)?;
                let mut requests = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = client.produce("load", 0, records.clone()).await;
                    let code = answer.map_err(said)?.responses[0].partition_responses[0].error_code;
                    if code != 0 {
                        return Err(format!("an answer with code {code}"));
                    }
                    let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    slowest.fetch_max(took, Ordering::Relaxed);
                    requests += 1;
                    // As much as leaves a core to the reload.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(requests)
            })
        });
        Ok(Traffic { stop, thread })
    }

    fn stop(self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| "the load panicked")?;
        Ok(ended?)
    }
}

fn record() -> Outcome<Bytes> {
    let message = Message {
        value: Some(Bytes::from(vec![7; 1024])),
        ..Message::default()
    };
    Ok(batch(&[message], Compression::None, NOT_IDEMPOTENT)?)
}

async fn code(asker: &mut Client) -> Outcome<i16> {
    let answer = asker.produce("probe", 0, record()?).await?;
    Ok(answer.responses[0].partition_responses[0].error_code)
}
