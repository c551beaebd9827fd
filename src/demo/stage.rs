//! Everything the tour stands on: a temporary directory with certificates, a key set, policies,
//! schemas and `kordon.yaml`; the embedded broker on a thread of its own, with the topics of the
//! story. Gone when dropped.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;

use super::broker::{Broker, BrokerSettings};
use super::issuer::{Issuer, IssuerError};
use crate::cli::certs;

/// The topics of the story and their partitions.
pub const TOPICS: [(&str, i32); 15] = [
    ("user.authenticated", 6),
    ("user.created", 6),
    ("user.permissions.changed", 6),
    ("workflow.requested", 12),
    ("workflow.generated", 12),
    ("workflow.executed", 12),
    ("workflow.failed", 12),
    ("ai.requested", 8),
    ("ai.processed", 8),
    ("tenant.created", 3),
    ("tenant.updated", 3),
    ("system.metrics", 3),
    ("system.alerts", 3),
    ("connector.data.raw", 12),
    ("audit.events", 6),
];

/// The service that has a certificate, and a token in a file for clients of one's own.
pub const READER: &str = "notification-service";

const FILES: [(&str, &str); 5] = [
    (
        "policies/corallum.yaml",
        include_str!("files/policies/corallum.yaml"),
    ),
    (
        "policies/platform.yaml",
        include_str!("files/policies/platform.yaml"),
    ),
    (
        "schemas/subjects.json",
        include_str!("files/schemas/subjects.json"),
    ),
    (
        "schemas/user-authenticated.avsc",
        include_str!("files/schemas/user-authenticated.avsc"),
    ),
    (
        "schemas/user-created.avsc",
        include_str!("files/schemas/user-created.avsc"),
    ),
];
const CONFIG: &str = include_str!("files/kordon.yaml");

/// The ports people know from the documentation; used if all of them are free.
const PORTS_KNOWN: Ports = Ports {
    app: 9092,
    app_broker: 19092,
    mesh: 9094,
    mesh_broker: 19094,
    tokens: 9095,
    tokens_broker: 19095,
    admin: 9096,
};

/// Where Kordon listens: for each listener its bootstrap port and that of the one broker.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names are those of the listeners
pub struct Ports {
    pub app: u16,
    pub app_broker: u16,
    pub mesh: u16,
    pub mesh_broker: u16,
    pub tokens: u16,
    pub tokens_broker: u16,
    pub admin: u16,
}

/// Why the stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A file or a socket.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// Certificates.
    #[error("certificates cannot be made: {0}")]
    Certs(String),
    /// The issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// TLS settings of a client of the tour.
    #[error("client TLS: {0}")]
    Tls(String),
    /// The embedded broker.
    #[error("topic `{0}` cannot be made: {1}")]
    Topic(&'static str, String),
}

/// The stage; see the head of this file.
pub struct Stage {
    /// The temporary directory.
    pub directory: PathBuf,
    /// Where Kordon is to listen.
    pub ports: Ports,
    /// Whom Kordon trusts.
    pub issuer: Issuer,
    /// The brokers' side, to see what has arrived there.
    pub broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// Sets the stage. With `known_ports` Kordon listens where the documentation says, if those
    /// ports are free; otherwise on any free ones.
    pub fn set(known_ports: bool) -> Result<Self, StageError> {
        let directory = temporary().map_err(|e| StageError::Io("temporary directory", e))?;
        let made = Self::set_in(directory.clone(), known_ports);
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    fn set_in(directory: PathBuf, known_ports: bool) -> Result<Self, StageError> {
        let issuer = Issuer::new()?;
        let (broker, stop, thread) = start_broker()?;
        for (name, partitions) in TOPICS {
            let made = broker.create_topic(name, partitions);
            made.map_err(|refusal| StageError::Topic(name, refusal.message))?;
        }
        let known = known_ports.then_some(PORTS_KNOWN);
        let ports = known.filter(all_free).map_or_else(any_free, Ok);
        let ports = ports.map_err(|e| StageError::Io("free ports", e))?;
        let stage = Self {
            directory,
            ports,
            issuer,
            broker,
            stop: Some(stop),
            thread: Some(thread),
        };
        stage.write()?;
        Ok(stage)
    }

    fn write(&self) -> Result<(), StageError> {
        let mut said = Vec::new();
        let options = certs::Options {
            out: self.directory.join("certs"),
            clients: vec![READER.to_owned()],
            days: 1,
            force: false,
        };
        if certs::run(&options, &mut said) != 0 {
            return Err(StageError::Certs(
                String::from_utf8_lossy(&said).into_owned(),
            ));
        }
        let write = |name: &str, text: &str| {
            let path = self.directory.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)
        };
        let failed = |e| StageError::Io("temporary directory", e);
        for (name, text) in FILES {
            write(name, text).map_err(failed)?;
        }
        let token = self.issuer.token(READER, Duration::ZERO)?;
        write("notification-service.jwt", &token).map_err(failed)?;
        write("notification-service.properties", &self.java_properties()).map_err(failed)?;
        write("jwks.json", &self.issuer.jwks().to_string()).map_err(failed)?;
        let mut config = CONFIG.to_owned();
        for (mark, port) in [
            ("@BROKER@", self.broker.address().port()),
            ("@APP@", self.ports.app),
            ("@APP_BROKER@", self.ports.app_broker),
            ("@MESH@", self.ports.mesh),
            ("@MESH_BROKER@", self.ports.mesh_broker),
            ("@TOKENS@", self.ports.tokens),
            ("@TOKENS_BROKER@", self.ports.tokens_broker),
            ("@ADMIN@", self.ports.admin),
        ] {
            config = config.replace(mark, &port.to_string());
        }
        write("kordon.yaml", &config).map_err(failed)
    }

    /// A Java client's settings for the `tokens` listener (KIP-768: the token from a file).
    fn java_properties(&self) -> String {
        let directory = self.directory.display();
        [
            "security.protocol=SASL_SSL".to_owned(),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={directory}/certs/ca.pem"),
            "sasl.mechanism=OAUTHBEARER".to_owned(),
            "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer\
             .OAuthBearerLoginModule required;"
                .to_owned(),
            "sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer\
             .OAuthBearerLoginCallbackHandler"
                .to_owned(),
            format!("sasl.oauthbearer.token.endpoint.url=file://{directory}/{READER}.jwt"),
        ]
        .join("\n")
            + "\n"
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("kordon.yaml")
    }

    /// TLS settings of a client that trusts the demo's authority; with a name, the client shows
    /// the certificate of that service.
    pub fn tls(&self, service: Option<&str>) -> Result<Arc<rustls::ClientConfig>, StageError> {
        let failed = |e: &dyn std::fmt::Display| StageError::Tls(e.to_string());
        let pem = |name: &str| self.directory.join("certs").join(name);
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, StageError> {
            let found = CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))?;
            found.collect::<Result<_, _>>().map_err(|e| failed(&e))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&pem("ca.pem"))? {
            roots.add(certificate).map_err(|e| failed(&e))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots);
        let Some(service) = service else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let chain = certificates(&pem(&format!("{service}.pem")))?;
        let key = PrivateKeyDer::from_pem_file(pem(&format!("{service}.key")));
        let key = key.map_err(|e| failed(&e))?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map(Arc::new).map_err(|e| failed(&e))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A directory that nobody else may look into.
fn temporary() -> io::Result<PathBuf> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let name = format!("kordon-demo-{:016x}", u64::from_be_bytes(random));
    let path = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// A broker on a thread of its own, so that it answers while the proxy starts on this one.
fn start_broker() -> Result<(Broker, oneshot::Sender<()>, JoinHandle<()>), StageError> {
    let failed = |e| StageError::Io("embedded broker", e);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("embedded-broker".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let _ = sender.send(Broker::start(BrokerSettings::default()).await);
                let _ = stopped.await;
            });
        })
        .map_err(failed)?;
    let started = receiver.recv().map_err(|e| failed(io::Error::other(e)))?;
    Ok((started.map_err(failed)?, stop, thread))
}

fn all_free(ports: &Ports) -> bool {
    let each = [
        ports.app,
        ports.app_broker,
        ports.mesh,
        ports.mesh_broker,
        ports.tokens,
        ports.tokens_broker,
        ports.admin,
    ];
    let bind = |port| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    let held: io::Result<Vec<TcpListener>> = each.into_iter().map(bind).collect();
    held.is_ok()
}

/// Free ports, held together while they are chosen so that they differ.
fn any_free() -> io::Result<Ports> {
    let bind = |_| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let held: Vec<TcpListener> = (0..7).map(bind).collect::<io::Result<_>>()?;
    let port = |at: usize| held[at].local_addr().map(|address| address.port());
    Ok(Ports {
        app: port(0)?,
        app_broker: port(1)?,
        mesh: port(2)?,
        mesh_broker: port(3)?,
        tokens: port(4)?,
        tokens_broker: port(5)?,
        admin: port(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_stage_is_a_valid_configuration_and_leaves_nothing_behind() {
        let stage = Stage::set(false).unwrap();
        let (config, _, problems) = Config::load_with_guards(&stage.config());
        let found: Vec<_> = problems.list.iter().map(|p| &p.message).collect();
        assert!(config.is_some(), "{found:?}");
        assert!(found.is_empty(), "{found:?}");
        stage.tls(None).unwrap();
        stage.tls(Some("notification-service")).unwrap();
        let directory = stage.directory.clone();
        drop(stage);
        assert!(!directory.exists());
    }
}
