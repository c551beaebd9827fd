//! What a client reaches: an address of ours, how it must prove who it is, and which addresses
//! it is told for the brokers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::broker::{BrokerId, Target};
use crate::identity::mechanisms::Mechanisms;
use crate::identity::settings::MtlsSettings;
use crate::net::listen::Doors;
use crate::net::ports::Ports;
use crate::net::settings::{Advertise, ListenerSettings};
use crate::net::tls::Offer;
use crate::principal::Principal;
use crate::telemetry::flood::Flood;

/// How the clients of a listener prove who they are.
#[derive(Debug)]
pub enum Identity {
    /// They need not: the pod is the identity.
    Static(Principal),
    /// By certificate.
    Mtls(MtlsSettings),
    /// By SASL.
    Sasl(Mechanisms),
}

impl Identity {
    /// The word of the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Identity::Static(_) => "static",
            Identity::Mtls(_) => "mtls",
            Identity::Sasl(_) => "sasl",
        }
    }
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    /// The name in logs, metrics and the audit log.
    pub name: Arc<str>,
    /// Its place in the configuration.
    pub index: usize,
    /// Sockets.
    pub settings: ListenerSettings,
    /// TLS towards clients, as the files say now; who must know of a change subscribes.
    pub tls: Option<watch::Sender<Arc<Offer>>>,
    /// Identity.
    pub identity: Identity,
    /// Bounds the warnings about clients that fail the handshake.
    pub warnings: Flood,
    doors: Doors,
    brokers: Mutex<Brokers>,
}

#[derive(Debug)]
struct Brokers {
    /// With one port for each broker.
    ports: Option<Ports>,
    /// Brokers that can be reached now.
    present: BTreeSet<BrokerId>,
    /// Brokers for which there is no port; said once.
    without_port: BTreeSet<BrokerId>,
}

impl Listener {
    /// A listener that is not open yet.
    pub fn new(
        index: usize,
        settings: ListenerSettings,
        tls: Option<Offer>,
        identity: Identity,
        doors: Doors,
    ) -> Self {
        let ports = match &settings.advertise {
            Advertise::Ports { ports, .. } => Some(Ports::new(ports.clone())),
            Advertise::Sni { .. } => None,
        };
        let brokers = Brokers {
            ports,
            present: BTreeSet::new(),
            without_port: BTreeSet::new(),
        };
        let name = settings.name.as_str().into();
        Listener {
            name,
            index,
            settings,
            tls: tls.map(|offer| watch::Sender::new(Arc::new(offer))),
            identity,
            warnings: Flood::default(),
            doors,
            brokers: Mutex::new(brokers),
        }
    }

    /// Opens the bootstrap address.
    pub fn open(&self) -> std::io::Result<()> {
        self.doors
            .open((self.index, Target::Bootstrap), self.settings.bind)
    }

    /// Makes a broker reachable. A client may be told of it as soon as this returns.
    pub fn broker_appeared(&self, id: BrokerId) {
        let mut brokers = self.lock();
        let Some(ports) = &mut brokers.ports else {
            brokers.present.insert(id);
            return;
        };
        match ports.assign(id) {
            Ok(port) => {
                let addr = SocketAddr::new(self.settings.bind.ip(), port);
                match self.doors.open((self.index, Target::Broker(id)), addr) {
                    Ok(()) => {
                        tracing::info!(listener = %self.name, broker = id, %addr, "broker port");
                        brokers.present.insert(id);
                    }
                    Err(error) => {
                        tracing::error!(listener = %self.name, broker = id, %addr, %error,
                            "cannot bind the port of a broker");
                    }
                }
            }
            Err(error) => {
                if brokers.without_port.insert(id) {
                    tracing::error!(listener = %self.name, "{error}: widen advertise.ports");
                }
            }
        }
    }

    /// Releases a broker's port; it keeps its number for when it comes back.
    pub fn broker_gone(&self, id: BrokerId) {
        let mut brokers = self.lock();
        if brokers.present.remove(&id) && brokers.ports.is_some() {
            tracing::info!(listener = %self.name, broker = id, "broker gone, port released");
            self.doors.close((self.index, Target::Broker(id)));
        }
    }

    /// What clients are told instead of a broker's own address; `None`: it cannot be reached
    /// through this listener.
    pub fn advertised(&self, id: BrokerId) -> Option<(String, u16)> {
        match &self.settings.advertise {
            Advertise::Ports { host, .. } => {
                let port = self.lock().ports.as_ref()?.port(id)?;
                Some((host.clone(), port))
            }
            Advertise::Sni { host, port } => Some((host.replace("{id}", &id.to_string()), *port)),
        }
    }

    /// Every broker with the address clients are told.
    pub fn all_advertised(&self) -> Vec<(BrokerId, String)> {
        let known: Vec<BrokerId> = {
            let brokers = self.lock();
            match &brokers.ports {
                Some(ports) => ports.all().map(|(id, _)| id).collect(),
                None => brokers.present.iter().copied().collect(),
            }
        };
        let told = known.into_iter().filter_map(|id| {
            let (host, port) = self.advertised(id)?;
            Some((id, format!("{host}:{port}")))
        });
        told.collect()
    }

    /// Where a TLS server name leads, on a listener that tells brokers apart by it: a name of
    /// the advertised form leads to its broker, any other is the bootstrap address.
    pub fn target_of(&self, server_name: Option<&str>) -> Target {
        let Advertise::Sni { host, .. } = &self.settings.advertise else {
            return Target::Bootstrap;
        };
        let id = server_name.and_then(|name| broker_of(host, name));
        id.map_or(Target::Bootstrap, Target::Broker)
    }

    fn lock(&self) -> MutexGuard<'_, Brokers> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id in a name of the form `pattern`, which holds `{id}` once.
fn broker_of(pattern: &str, name: &str) -> Option<BrokerId> {
    let (before, after) = pattern.split_once("{id}")?;
    let name = name.to_ascii_lowercase();
    let digits = name
        .strip_prefix(&before.to_ascii_lowercase())?
        .strip_suffix(&after.to_ascii_lowercase())?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_tells_the_broker() {
        let pattern = "broker-{id}.kordon.example";
        assert_eq!(broker_of(pattern, "broker-12.kordon.example"), Some(12));
        assert_eq!(broker_of(pattern, "BROKER-0.Kordon.Example"), Some(0));
        for other in [
            "kordon.example",
            "broker-.kordon.example",
            "broker-+1.kordon.example",
        ] {
            assert_eq!(broker_of(pattern, other), None, "{other}");
        }
    }
}
