//! The OAuth server of the lab (`issuer/issuer.mjs`): a real one, on a free port of loopback.

use super::{certificates, http, part, port, process};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What the server is told.
pub struct Settings<'a> {
    /// How long its access tokens live.
    pub lifetime: Duration,
    /// What signs them: `RS256` or `ES256`.
    pub algorithm: &'a str,
    /// Clients that may ask for tokens: `id` with a `secret`, or with `jwks` for
    /// `private_key_jwt`; `tokens: "opaque"` for tokens that only introspection can tell;
    /// `bound: true` for tokens bound to the client certificate shown (RFC 8705).
    pub clients: Vec<Value>,
    /// For https: the certificate's files, and the authority of clients' certificates.
    pub tls: Option<(certificates::Files, &'a Path)>,
}

impl Settings<'_> {
    /// RS256 over plain HTTP, and clients whose secret is `secret(id)`.
    pub fn new(lifetime: Duration, clients: &[&str]) -> Settings<'static> {
        let clients = clients
            .iter()
            .map(|id| json!({"id": id, "secret": secret(id)}))
            .collect();
        Settings {
            lifetime,
            algorithm: "RS256",
            clients,
            tls: None,
        }
    }
}

/// The secret of a client of the lab.
pub fn secret(client: &str) -> String {
    format!("{client}-secret")
}

/// A running OAuth server; killed when dropped.
pub struct Issuer {
    /// The issuer in its tokens, without a slash at the end.
    pub url: String,
    addr: String,
    process: process::Process,
    dir: TempDir,
}

impl Issuer {
    /// Starts it and waits until it answers.
    pub fn start(settings: &Settings<'_>) -> Result<Issuer, String> {
        part::ready("issuer")?;
        let dir = tempfile::Builder::new()
            .prefix("kordon-issuer-")
            .tempdir()
            .unwrap();
        let port = port::free("127.0.0.1", 1);
        let mut told = json!({
            "modules": part::cache().join("issuer"),
            "lifetime": settings.lifetime.as_secs(),
            "algorithm": settings.algorithm,
            "clients": settings.clients,
        });
        if let Some((files, client_ca)) = &settings.tls {
            told["tls"] = json!({"cert": files.cert, "key": files.key, "clientCa": client_ca});
        }
        let file = dir.path().join("settings.json");
        std::fs::write(&file, told.to_string()).unwrap();
        let mut node = Command::new("node");
        node.arg(part::root().join("tests/lab/issuer/issuer.mjs"));
        node.arg(port.to_string()).arg(&file);
        let mut process = process::Process::start(node, dir.path(), "issuer");
        let addr = format!("127.0.0.1:{port}");
        process::until_open(&addr, &mut process, START_LIMIT)
            .map_err(|why| format!("the OAuth server {why}"))?;
        let scheme = if settings.tls.is_some() {
            "https"
        } else {
            "http"
        };
        Ok(Issuer {
            url: format!("{scheme}://{addr}"),
            addr,
            process,
            dir,
        })
    }

    /// Where clients ask for tokens.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Where its keys are.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url)
    }

    /// Its keys as they are now, over plain HTTP.
    pub fn jwks(&self) -> Result<String, String> {
        http::ask("GET", &self.addr, "/jwks")
    }

    /// Signs with a new key from now on; the old one is published still, unless `forget`.
    pub fn roll(&self, forget: bool) -> Result<(), String> {
        let path = if forget { "/roll?forget" } else { "/roll" };
        http::ask("POST", &self.addr, path).map(drop)
    }

    /// How many tokens a client was given.
    pub fn granted(&self, client: &str) -> usize {
        let out = std::fs::read_to_string(&self.process.out).unwrap_or_default();
        let line = json!({"granted": client}).to_string();
        out.lines().filter(|l| *l == line).count()
    }

    /// Stops it where it is, as a host that hangs; or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill")
            .arg(signal)
            .arg(self.id().to_string())
            .status();
        assert!(status.unwrap().success(), "kill {signal}");
    }

    /// The end of its log, for a failure's message.
    pub fn log(&self, lines: usize) -> String {
        self.process.tail(lines)
    }

    /// Its process id, by which a test may stop and wake it.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The folder of its settings and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
