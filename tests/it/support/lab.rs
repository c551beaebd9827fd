//! A proxy in front of an embedded broker, in this process or as a child of it.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kordon::cli::run::Running;
use kordon::demo::broker::{Broker, BrokerSettings};
use kordon::demo::client::{Client, ClientError};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::broker::Node;
use super::gate::{Gate, Rules};
use super::pki::{Pki, Shown};
use super::port;
use super::signer::Signer;
use super::wire::{PATIENCE, token};

/// What is there unless a test says otherwise. Line 7 allows, line 8 is the cluster.
pub const POLICY: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: base}
spec:
  principals: [\"User:app\", \"User:other\", \"User:alice\"]
  rules:
    - {allow: [All], topics: [\"open.*\", \"typed.*\"], groups: [\"app.*\"]}
    - {allow: [IdempotentWrite, Describe], cluster: true}
";
/// The topics of every lab.
pub const TOPICS: [(&str, i32); 4] = [
    ("open.a", 4),
    ("open.b", 4),
    ("secret.a", 2),
    ("typed.a", 4),
];

/// What a test may change before the proxy starts.
pub struct Setup {
    /// `policies/base.yaml`.
    pub policy: String,
    /// Lines of `kordon.yaml` behind the rest.
    pub more: String,
    /// What the token listener's issuer is believed by.
    pub token_source: String,
    /// `maxSession` of the token listener.
    pub max_session: &'static str,
    /// How many broker ports each listener has.
    pub broker_ports: u16,
    /// Listeners with TLS: `mesh` (mTLS by common name), `sni`, and `bound` (tokens that belong
    /// to the client's certificate).
    pub tls: bool,
    /// What `mesh` says about client certificates, behind `tls` and as `identity`.
    pub mesh: (String, String),
    /// The years until which the lists `0.crl`, `1.crl` … of the authority hold; each revokes
    /// the serial number 66.
    pub lists: Vec<i32>,
    /// Certificates of more authorities for `ca.pem`.
    pub authorities: String,
    /// `users.yaml`; where there is one, and `tls`, the listener `passwords` offers every
    /// mechanism, TLS and sessions of an hour.
    pub users: Option<String>,
    /// The proxy is a process of its own.
    pub child: bool,
    /// What the broker sends arrives in pieces of odd sizes.
    pub pieces: bool,
    /// What `audit` says.
    pub audit: &'static str,
    /// There is no broker yet: see [`Lab::start_broker`].
    pub late_broker: bool,
    /// The broker asks for SASL.
    pub gate: Option<Arc<Rules>>,
    /// What stands in `upstream` behind `bootstrap`.
    pub upstream: String,
    /// Other files of the directory.
    pub files: Vec<(&'static str, String)>,
    /// The proxy may stay not ready.
    pub unready: bool,
    /// There is no listener but that for tokens.
    pub only_tokens: bool,
    /// `num.partitions` of a broker that makes topics when they are asked for.
    pub auto_create: Option<i32>,
}

/// See the module.
pub struct Lab {
    process: Process,
    /// Before the broker, which its connections lead to.
    _gate: Option<Gate>,
    node: Option<Node>,
    pub pki: Option<Pki>,
    base: u16,
    dir: TempDir,
}

enum Process {
    Inside(Option<Box<Running>>),
    Child(Child),
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(|_| {})
    }

    /// A lab with other policies.
    pub fn ruled(policy: &str) -> Lab {
        Lab::with(|setup| setup.policy = policy.to_owned())
    }

    pub fn with(change: impl FnOnce(&mut Setup)) -> Lab {
        let mut setup = Setup {
            policy: POLICY.to_owned(),
            more: String::new(),
            token_source: "jwks: {file: jwks.json}, algorithms: [ES256]".to_owned(),
            max_session: "1h",
            broker_ports: 2,
            tls: false,
            mesh: (
                "clientAuth: required".to_owned(),
                "{mtls: {from: cn, shared: true}, tenant: shop}".to_owned(),
            ),
            lists: Vec::new(),
            authorities: String::new(),
            users: None,
            child: false,
            pieces: false,
            audit: "{file: {path: audit.jsonl}}",
            late_broker: false,
            gate: None,
            upstream: String::new(),
            files: Vec::new(),
            unready: false,
            only_tokens: false,
            auto_create: None,
        };
        change(&mut setup);
        let dir = tempfile::tempdir().unwrap();
        let base = port::free("127.0.0.1", 20);
        let mut gate = None;
        let node = match (setup.late_broker, setup.pieces) {
            (true, _) => None,
            (_, false) if setup.gate.is_some() => {
                let settings = BrokerSettings {
                    advertised: Some(("127.0.0.1".to_owned(), base + 6)),
                    ..settings(1, base + 18)
                };
                let node = Node::start(settings, &TOPICS);
                let address = node.broker.address();
                let rules = setup.gate.clone().unwrap_or_default();
                gate = Some(Gate::start(base + 6, address, rules));
                Some(node)
            }
            (_, false) => {
                let settings = BrokerSettings {
                    auto_create_partitions: setup.auto_create,
                    ..settings(1, base + 6)
                };
                Some(Node::start(settings, &TOPICS))
            }
            (_, true) => Some(Node::start_in_pieces(
                settings(1, base + 18),
                base + 6,
                &TOPICS,
            )),
        };
        let pki = setup.tls.then(Pki::new);
        if let Some(pki) = &pki {
            pki.write(dir.path());
            let authorities = format!("{}{}", pki.ca, setup.authorities);
            fs::write(dir.path().join("ca.pem"), authorities).unwrap();
            for (at, until) in setup.lists.iter().enumerate() {
                let path = dir.path().join(format!("{at}.crl"));
                fs::write(path, pki.revoked(&[66], *until)).unwrap();
            }
        }
        write(dir.path(), base, &setup);
        let config = dir.path().join("kordon.yaml");
        let process = match setup.child {
            false => Process::Inside(Some(Box::new(start(&config)))),
            true => Process::Child(spawn(&config, &dir.path().join("log"))),
        };
        let lab = Lab {
            process,
            _gate: gate,
            node,
            pki,
            base,
            dir,
        };
        if !setup.late_broker && !setup.unready {
            lab.ready();
        }
        lab
    }

    /// Waits until the proxy says that it can serve.
    pub fn ready(&self) {
        self.until("ready", || {
            self.http("/readyz").is_some_and(|(code, _)| code == 200)
        });
    }

    /// Waits until a metric has this value.
    pub fn until_metric(&self, name: &str, value: f64) {
        self.until(name, || self.metric(name, &[]) == value);
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(
                begun.elapsed() < PATIENCE,
                "not {what} in time: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn broker(&self) -> &Broker {
        &self.node.as_ref().unwrap().broker
    }

    pub fn stop_broker(&mut self) {
        self.node = None;
    }

    /// Waits until the first partition of a topic holds so many records: what nobody
    /// acknowledges may still be on its way.
    pub async fn arrived(&self, topic: &str, count: i64) {
        let begun = Instant::now();
        loop {
            let end = self.broker().end_offset(topic, 0);
            if end == Some(count) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "`{topic}` ends at {end:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Starts a broker at the first (1) or second (2) address of the bootstrap list.
    pub fn start_broker(&mut self, id: u16) {
        self.node = Some(Node::start(settings(id, self.base + 5 + id), &TOPICS));
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        if listener == "bound" {
            return SocketAddr::from(([127, 0, 0, 1], self.base + 16));
        }
        if listener == "passwords" {
            return SocketAddr::from(([127, 0, 0, 1], self.base + 17));
        }
        let names = ["app", "other", "tokens", "mesh", "sni", "admin"];
        let at = names.iter().position(|name| *name == listener).unwrap();
        SocketAddr::from(([127, 0, 0, 1], self.base + at as u16))
    }

    /// The first broker port of a listener.
    pub fn broker_port(&self, listener: &str) -> u16 {
        8 + 2 * (self.address(listener).port() - self.base) + self.base
    }

    /// A client of a listener that asks for no credentials.
    pub async fn client(&self, listener: &str) -> Client {
        Client::connect(self.address(listener), "it").await.unwrap()
    }

    pub async fn app(&self) -> Client {
        self.client("app").await
    }

    /// A client of the token listener that has authenticated.
    pub async fn authenticated(&self, subject: &str) -> Client {
        let mut client = self.client("tokens").await;
        let answer = client.authenticate(&token(subject)).await.unwrap();
        assert_eq!(answer.error_code, 0);
        client
    }

    /// A client with TLS that asks for `server`, with a certificate for these common names.
    pub async fn tls(
        &self,
        listener: &str,
        server: &str,
        names: Option<&[&str]>,
    ) -> Result<Client, ClientError> {
        let pki = self.pki.as_ref().unwrap();
        let tls = pki.client(pki, names);
        Client::connect_tls(self.address(listener), server, tls, "it").await
    }

    /// A client of `mesh` that shows this certificate.
    pub async fn mesh(&self, shown: Option<Shown>) -> Result<Client, ClientError> {
        let tls = self.pki.as_ref().unwrap().showing(shown);
        Client::connect_tls(self.address("mesh"), "localhost", tls, "it").await
    }

    /// A client of `mesh` that shows this chain.
    pub async fn mesh_chain(
        &self,
        shown: (Vec<CertificateDer<'static>>, KeyPair),
    ) -> Result<Client, ClientError> {
        let tls = self
            .pki
            .as_ref()
            .unwrap()
            .showing_with(Some(shown), rustls::DEFAULT_VERSIONS);
        Client::connect_tls(self.address("mesh"), "localhost", tls, "it").await
    }

    /// GET from the admin endpoint.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = std::net::TcpStream::connect(self.address("admin")).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let code = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n")?.1.to_owned();
        Some((code, body))
    }

    /// The sum of the samples of a metric that have all these labels.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.http("/metrics").unwrap();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until [`metric`](Self::metric) gives `value`: what a client sees of an event, the
    /// end of its connection say, can come before the process has counted it.
    #[track_caller]
    pub fn metric_is(&self, name: &str, labels: &[&str], value: f64) {
        self.metric_becomes(name, labels, value, |found| found == value);
    }

    /// Waits until [`metric`](Self::metric) gives `least` or more.
    #[track_caller]
    pub fn metric_reaches(&self, name: &str, least: f64) {
        self.metric_becomes(name, &[], least, |found| found >= least);
    }

    #[track_caller]
    fn metric_becomes(&self, name: &str, labels: &[&str], to: f64, done: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        loop {
            let found = self.metric(name, labels);
            if done(found) {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{name} {labels:?} stays {found}, expected {to}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The first audit line with all these fields; waits for the writer.
    pub fn audit(&self, fields: &[(&str, &str)]) -> Value {
        let begun = Instant::now();
        loop {
            let text = self.file("audit.jsonl");
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines = whole
                .lines()
                .map(|l| serde_json::from_str::<Value>(l).unwrap());
            let wanted = |line: &Value| fields.iter().all(|(k, v)| line[*k] == **v);
            if let Some(line) = { lines }.find(wanted) {
                return line;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no audit line {fields:?} in\n{text}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The log of a child.
    pub fn log(&self) -> String {
        self.file("log")
    }

    pub fn log_says(&self, text: &str) {
        self.until(text, || self.log().contains(text));
    }

    /// Other policies, taken over by SIGHUP or its like; waits until they are in force.
    pub fn reload(&self, policy: &str) {
        let before = self.metric("kordon_policy_generation", &[]);
        self.reload_in_vain(policy);
        self.until("reloaded", || {
            self.metric("kordon_policy_generation", &[]) > before
        });
    }

    /// The same for policies that may not come into force.
    pub fn reload_in_vain(&self, policy: &str) {
        // In one step: the files are watched as well, and half a file is other policies.
        fs::write(self.path("policies/.new"), policy).unwrap();
        fs::rename(self.path("policies/.new"), self.path("policies/base.yaml")).unwrap();
        match &self.process {
            Process::Inside(running) => running.as_ref().unwrap().reload(),
            Process::Child(_) => self.signal("HUP"),
        }
    }

    /// Sends a signal to the child.
    pub fn signal(&self, name: &str) {
        let id = self.pid().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Child(child) => child.id(),
            Process::Inside(_) => panic!("the lab's proxy is not a child"),
        }
    }

    /// Memory of the child, in KiB.
    pub fn resident_kib(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Tells the child to end, which it does well and without waiting for anybody.
    pub async fn ends_soon(&mut self) {
        let begun = Instant::now();
        self.signal("TERM");
        assert_eq!(self.ended().await.code(), Some(0));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    /// Waits for the child's end.
    pub async fn ended(&mut self) -> ExitStatus {
        let Process::Child(child) = &mut self.process else {
            panic!("the lab's proxy is not a child");
        };
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the process does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Inside(running) => running
                .take()
                .into_iter()
                .for_each(|running| running.stop()),
            Process::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn settings(id: u16, port: u16) -> BrokerSettings {
    BrokerSettings {
        node_id: i32::from(id),
        listeners: vec![SocketAddr::from(([127, 0, 0, 1], port))],
        ..BrokerSettings::default()
    }
}

fn start(config: &Path) -> Running {
    let started = Running::start(config);
    started.unwrap_or_else(|problems| {
        let found: Vec<_> = problems.list.iter().map(|p| &p.message).collect();
        panic!("{found:?}")
    })
}

fn spawn(config: &Path, log: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kordon"))
        .args(["run", "-c"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .unwrap()
}

fn write(dir: &Path, base: u16, setup: &Setup) {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("policies/base.yaml", &setup.policy);
    for (name, text) in &setup.files {
        file(name, text);
    }
    file("jwks.json", &Signer::trusted().jwks.to_string());
    if let Some(users) = &setup.users {
        file("users.yaml", users);
    }
    let schema = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}"#;
    file("schemas/order.avsc", schema);
    let order = json!({"subject": "typed.a-value", "version": 1, "id": 7, "file": "order.avsc"});
    file(
        "schemas/subjects.json",
        &json!({"subjects": [order]}).to_string(),
    );
    file("kordon.yaml", &config(base, setup));
}

fn config(base: u16, setup: &Setup) -> String {
    let ports = |at: u16| {
        let first = base + 8 + 2 * at;
        format!(
            "{{host: localhost, ports: {first}-{}}}",
            first + setup.broker_ports - 1
        )
    };
    let mut text = format!(
        "upstream: {{bootstrap: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]{}}}\nlisteners:\n",
        base + 6,
        base + 7,
        setup.upstream
    );
    let fixed = [(0, "app"), (1, "other")];
    let fixed = &fixed[if setup.only_tokens { 2 } else { 0 }..];
    for (at, name) in fixed {
        text += &format!(
            "  - {{name: {name}, bind: \"127.0.0.1:{}\", advertise: {}, identity: {{static: \
             \"User:{name}\", tenant: shop}}}}\n",
            base + at,
            ports(*at)
        );
    }
    text += &format!(
        "  - name: tokens
    bind: 127.0.0.1:{}
    advertise: {}
    sasl:
      oauthbearer: {{issuer: \"https://issuer.example\", audience: kafka, {},
        requiredScopes: [kafka], tenantClaim: tenant_id,
        groupsClaim: groups, maxSession: {},
        shared: true}}\n",
        base + 2,
        ports(2),
        setup.token_source,
        setup.max_session
    );
    if setup.tls {
        text += &format!(
            "  - name: mesh
    bind: 127.0.0.1:{}
    advertise: {}
    tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, {}}}
    identity: {}
  - name: sni
    bind: 127.0.0.1:{}
    advertise: {{host: \"broker-{{id}}.kordon.example\", port: {}, sni: true}}
    tls: {{cert: server.pem, key: server.key}}
    identity: {{static: \"User:app\", tenant: shop}}
  - name: bound
    bind: 127.0.0.1:{}
    advertise: {{host: \"broker-{{id}}.bound.example\", port: {}, sni: true}}
    tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, clientAuth: required}}
    sasl:
      oauthbearer: {{issuer: \"https://issuer.example\", jwks: {{file: jwks.json}}, audience: kafka,
        algorithms: [ES256], certificateBound: true, maxSession: 1h, shared: true}}\n",
            base + 3,
            ports(3),
            setup.mesh.0,
            setup.mesh.1,
            base + 4,
            base + 4,
            base + 16,
            base + 16
        );
    }
    if setup.users.is_some() {
        let users = "{users: users.yaml, tenant: shop, maxSession: 1h, shared: true}";
        text += &format!(
            "  - name: passwords
    bind: 127.0.0.1:{0}
    advertise: {{host: \"broker-{{id}}.passwords.example\", port: {0}, sni: true}}
    tls: {{cert: server.pem, key: server.key}}
    sasl:
      plain: {users}
      scramSha256: {users}
      scramSha512: {users}
      oauthbearer: {{issuer: \"https://issuer.example\", jwks: {{file: jwks.json}}, audience: kafka,
        algorithms: [ES256], tenantClaim: tenant_id, maxSession: 1h, shared: true}}\n",
            base + 17,
        );
    }
    text += &format!("admin: {{bind: \"127.0.0.1:{}\"}}\n", base + 5);
    text += "policies: policies\nschemas: {directory: schemas}\n";
    text += &format!("audit: {}\n", setup.audit);
    text + &setup.more
}
