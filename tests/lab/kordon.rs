//! The built `kordon` binary, run as its users run it: `kordon run -c FILE`.

use super::{http, port, process};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Ports for brokers behind one listener of the lab.
pub const BROKER_PORTS: u16 = 6;
/// Where a proxy behind a relay listens: not the address it advertises, where the relay stands.
pub const BEHIND_RELAY: &str = "127.0.78.1";
/// Where a proxy listens that clients reach themselves.
pub const IN_FRONT: &str = "127.0.0.1";

/// A running proxy; killed when dropped.
pub struct Kordon {
    /// Where clients bootstrap when no relay stands before it.
    pub addr: String,
    /// The admin endpoint.
    pub admin: String,
    /// The first of the listener's ports: the bootstrap, then `BROKER_PORTS` for the brokers.
    pub first_port: u16,
    /// Where clients bootstrap at a second listener, if the configuration has one.
    pub second: String,
    process: process::Process,
    dir: TempDir,
}

impl Kordon {
    /// Starts a proxy on free ports: `config` builds the text of `kordon.yaml` from the ports it
    /// may use, `files` are written beside it (name, text).
    pub fn start(
        host: &str,
        config: impl Fn(&Ports) -> String,
        files: &[(&str, &str)],
    ) -> Result<Kordon, String> {
        let dir = tempfile::Builder::new()
            .prefix("kordon-run-")
            .tempdir()
            .unwrap();
        let ports = Ports::free(host);
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let file = dir.path().join("kordon.yaml");
        std::fs::write(&file, config(&ports)).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("run")
            .arg("-c")
            .arg(&file)
            .current_dir(dir.path());
        let mut process = process::Process::start(command, dir.path(), "kordon");
        let addr = format!("{host}:{}", ports.app);
        process::until_open(&addr, &mut process, START_LIMIT)
            .map_err(|why| format!("`kordon run` {why}"))?;
        let admin = format!("127.0.0.1:{}", ports.admin);
        Ok(Kordon {
            addr,
            admin,
            first_port: ports.app,
            second: format!("{host}:{}", ports.second),
            process,
            dir,
        })
    }

    /// The matrix's proxy: one listener with a static identity, ACLs on, the admin endpoint on.
    /// `host` is `BEHIND_RELAY` or `IN_FRONT`; clients are always told `localhost`.
    pub fn matrix(host: &str, upstream: &[String]) -> Result<Kordon, String> {
        Kordon::with_policy(host, upstream, MATRIX_POLICY)
    }

    /// The same with every right on every name.
    pub fn permissive(host: &str, upstream: &[String]) -> Result<Kordon, String> {
        Kordon::with_policy(host, upstream, &MATRIX_POLICY.replace("matrix.*", "*"))
    }

    fn with_policy(host: &str, upstream: &[String], policy: &str) -> Result<Kordon, String> {
        let bootstrap = serde_json::to_string(upstream).unwrap();
        let config = |ports: &Ports| {
            format!(
                "upstream:
  bootstrap: {bootstrap}
listeners:
  - name: app
    bind: {host}:{app}
    advertise: {{host: localhost, ports: {first}-{last}}}
    identity: {{static: \"User:matrix\", tenant: lab}}
policies: policies/
admin: {{bind: \"127.0.0.1:{admin}\"}}
",
                app = ports.app,
                first = ports.app + 1,
                last = ports.app + BROKER_PORTS,
                admin = ports.admin,
            )
        };
        Kordon::start(host, config, &[("policies/matrix.yaml", policy)])
    }

    /// The sum of the values whose line begins so at the admin endpoint.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let text = http::ask("GET", &self.admin, "/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// SIGTERM, then the exit status; `None` when it did not end within `limit`.
    pub fn term(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.term();
        self.process.wait(limit)
    }

    /// SIGHUP: reads the policies again.
    pub fn hang_up(&self) {
        self.process.hang_up();
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Its process id, for measurements.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The folder of its configuration and logs.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The end of its log.
    pub fn log(&self, lines: usize) -> String {
        self.process.tail(lines)
    }
}

/// A listener of `kordon.yaml` whose clients are all one user.
pub fn listener(name: &str, port: u16, broker: u16, user: &str) -> String {
    format!(
        "  - name: {name}
    bind: 127.0.0.1:{port}
    advertise: {{host: localhost, ports: {broker}-{broker}}}
    identity: {{static: \"User:{user}\"}}
"
    )
}

/// The binary this build made; `KORDON_BIN` names another one, such as a release build.
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("KORDON_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kordon").into())
}

/// Ports that were free a moment ago.
pub struct Ports {
    /// The listener; the `BROKER_PORTS` after it are for the brokers.
    pub app: u16,
    /// A second listener, likewise.
    pub second: u16,
    /// The admin endpoint.
    pub admin: u16,
}

impl Ports {
    fn free(host: &str) -> Ports {
        Ports {
            app: port::free(host, BROKER_PORTS + 1),
            second: port::free(host, BROKER_PORTS + 1),
            admin: port::free("127.0.0.1", 1),
        }
    }
}

/// Everything a client of the matrix does, on names that begin with `matrix.` and nothing else.
const MATRIX_POLICY: &str = r#"apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: matrix}
spec:
  principals: ["User:matrix"]
  rules:
    - allow: [Create, Delete, Alter, Describe, AlterConfigs, DescribeConfigs]
      topics: ["matrix.*"]
    - {allow: [Read, Write], topics: ["matrix.*"]}
    - {allow: [All], groups: ["matrix.*"]}
    - {allow: [All], transactionalIds: ["matrix.*"]}
    - {allow: [All], cluster: true}
"#;
