//! What the configuration says about sockets and TLS: plain values, filled by `config`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Where a listener listens and what it tells clients to connect to.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The name in logs, metrics and the audit log.
    pub name: String,
    /// The bootstrap address; broker ports bind on the same IP address.
    pub bind: SocketAddr,
    /// What clients are told.
    pub advertise: Advertise,
    /// TLS towards the client; `None`: plaintext.
    pub tls: Option<ServerTls>,
}

/// How the brokers behind a listener are told apart.
#[derive(Clone, Debug)]
pub enum Advertise {
    /// One local port for each broker.
    Ports {
        /// The host clients are told.
        host: String,
        /// The ports, in the order in which brokers are first seen.
        ports: RangeInclusive<u16>,
    },
    /// One port; the TLS server name tells the broker.
    Sni {
        /// The host clients are told, with `{id}` in the place of the broker's id.
        host: String,
        /// The port clients are told.
        port: u16,
    },
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// PEM certificate chain, leaf first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM certificates of the authorities that may sign client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client certificate is asked for.
    pub client_auth: ClientAuth,
    /// Revocation lists, PEM or DER. Where there is one, each certificate needs a list of its
    /// issuer that is in force.
    pub crl: Vec<PathBuf>,
    /// Whether a connection ends with its certificate: once that has expired, or would be
    /// refused by files that have changed since.
    pub recheck: bool,
}

/// Whether a client certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not asked for.
    None,
    /// Asked for; whether it may be absent is for the identity to say.
    Requested,
    /// Without one the handshake fails.
    Required,
}

/// TLS towards brokers.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// PEM authorities; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// PEM certificate chain and private key for mTLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}
