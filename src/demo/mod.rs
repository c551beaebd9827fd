//! `kordon demo`: the whole of the proxy on one machine, in a few seconds. An embedded broker, a
//! throw-away authority, a local token issuer, sample policies and schemas, and clients that are
//! allowed, denied, throttled and rejected. Behind the cargo feature `demo`; `kordon run` never
//! uses it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub mod broker;
pub mod client;
pub mod event;
pub mod issuer;
pub mod stage;
pub mod table;
pub mod tour;
pub mod verdict;

use crate::problem::Problems;
use broker::UNSUPPORTED;
use stage::{READER, Stage, StageError};
use table::Table;
use tour::{STEPS, Tour};

/// Starts the proxy with a configuration file; it runs until what is returned is dropped.
pub type Start = fn(&Path) -> Result<Box<dyn std::any::Any>, Problems>;

/// Why the demo could not be given at all.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the proxy does not start: {0}")]
    Proxy(String),
}

/// How the tour ended.
enum Ended {
    /// With these steps not having behaved.
    Over(Vec<String>),
    /// By Ctrl-C or SIGTERM.
    Interrupted,
}

/// Gives the tour and, unless `once`, stays up until Ctrl-C or SIGTERM. The exit code: 0, or 1 if
/// a step did not behave or the demo could not be given. Blocks; must not be called on a tokio
/// runtime.
pub fn run_with(start: Start, once: bool, out: &mut dyn Write) -> u8 {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match show(start, once, colour, out) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(out, "error: {error}");
            1
        }
    }
}

fn show(start: Start, once: bool, colour: bool, out: &mut dyn Write) -> Result<u8, DemoError> {
    let stage = Stage::set(!once)?;
    let began = crate::clock::now();
    let proxy = start(&stage.config()).map_err(|problems| {
        let each = problems.list.iter().map(|p| p.message.as_str());
        DemoError::Proxy(each.collect::<Vec<_>>().join("; "))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        let mut stop = Stop::new()?;
        writeln!(
            out,
            "Kordon runs in front of an embedded Kafka broker (in memory)."
        )?;
        writeln!(
            out,
            "Configuration and policies: {}\n",
            stage.directory.display()
        )?;
        let faults = match walk(&stage, &mut stop, colour, out).await? {
            Ended::Interrupted => return Ok(0),
            Ended::Over(faults) => faults,
        };
        let took = crate::clock::now().duration_since(began).as_secs_f64();
        let behaved = STEPS - faults.len();
        writeln!(out, "\n{behaved} of {STEPS} steps behaved, in {took:.1} s.")?;
        for fault in &faults {
            writeln!(out, "{fault}")?;
        }
        if !once {
            how_to_connect(&stage, out)?;
            out.flush()?;
            stop.wait().await;
        }
        Ok::<u8, DemoError>(u8::from(!faults.is_empty()))
    });
    drop(proxy);
    code
}

async fn walk(
    stage: &Stage,
    stop: &mut Stop,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<Ended> {
    let mut tour = Tour::new(stage);
    let mut table = Table::new(out, colour);
    let mut faults = Vec::new();
    table.head()?;
    for number in 0..STEPS {
        let step = tokio::select! {
            step = tour.step(number) => step,
            () = stop.wait() => return Ok(Ended::Interrupted),
        };
        let cells = [step.who, &step.did, &step.got, &step.why];
        table.row(cells, step.fault.is_none())?;
        if let Some(fault) = step.fault {
            faults.push(format!("step `{}`: {fault}", step.name));
        }
    }
    Ok(Ended::Over(faults))
}

/// Ctrl-C or SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The exact commands for a client of one's own.
fn how_to_connect(stage: &Stage, out: &mut dyn Write) -> io::Result<()> {
    let (ports, directory) = (stage.ports, stage.directory.display());
    let certs = format!("{directory}/certs");
    let ssl = format!(
        "-X security.protocol=ssl -X ssl.ca.location={certs}/ca.pem \\\n      \
         -X ssl.certificate.location={certs}/{READER}.pem \\\n      \
         -X ssl.key.location={certs}/{READER}.key"
    );
    writeln!(
        out,
        "\nIt stays up. Connect a client of your own:

  as connector-service, whose pod is its identity (plaintext):
    echo hello | kcat -b localhost:{app} -P -t connector.data.raw
    kcat -b localhost:{app} -C -t user.created -e     # refused: no rule allows it

  as {READER}, by its certificate:
    kcat -b localhost:{mesh} {ssl} \\
      -L
    kcat -b localhost:{mesh} {ssl} \\
      -C -t user.created -o beginning -e

  as {READER}, by a token (Kafka's own tools; the token lives for an hour):
    KAFKA_OPTS=-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{directory}/{READER}.jwt \\
    kafka-console-consumer.sh --bootstrap-server localhost:{tokens} \\
      --command-config {directory}/{READER}.properties \\
      --topic user.created --from-beginning --group {READER}.console

  metrics and status:  http://127.0.0.1:{admin}/metrics   http://127.0.0.1:{admin}/
  who was refused:     tail -f {directory}/audit.jsonl

The embedded broker does not support",
        app = ports.app,
        mesh = ports.mesh,
        tokens = ports.tokens,
        admin = ports.admin,
    )?;
    for missing in UNSUPPORTED {
        writeln!(out, "  - {missing}")?;
    }
    writeln!(out, "\nCtrl-C ends it and removes {directory}.")
}
