//! `kordon.yaml` and policy directories to values that are known to be good. The only module that
//! reads these files; stages own the types that are filled here. All mistakes are reported at
//! once, each with its place.

mod audit;
pub mod file;
pub mod guards;
mod identities;
mod identity;
mod jwks;
mod limits;
mod listener;
mod oauthbearer;
mod outside;
mod overlap;
mod passwords;
mod quota_policy;
mod read;
mod schema_policy;
mod shadow;
mod tenant;
mod upstream;
pub mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::BrokerAddr;
use crate::identity::settings::IdentitySettings;
use crate::net::settings::{ClientTls, ListenerSettings};
use crate::problem::Problems;
use crate::upstream::identities::UpstreamIdentity;
use crate::upstream::sasl;

pub use guards::Guards;

pub use crate::telemetry::audit::AuditSettings;
pub use limits::Limits;

/// Everything `kordon.yaml` says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the brokers are.
    pub upstream: Upstream,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The directory of policy files.
    pub policies: Option<PathBuf>,
    /// The same as it is written; empty where there is none.
    pub policies_written: Arc<str>,
    /// Whether access rules are applied.
    pub authorization: Authorization,
    /// The directory of policies that are decided beside those in force, without effect
    /// (`authorization.shadow`).
    pub shadow: Option<PathBuf>,
    /// The directory of schema files (`schemas.directory`).
    pub schemas: Option<PathBuf>,
    /// Where metrics and health are served.
    pub admin: Option<SocketAddr>,
    /// What goes into the audit log, and where that goes.
    pub audit: AuditSettings,
    /// The bounds of the process.
    pub limits: Limits,
}

/// The brokers behind the proxy.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where a connection to the cluster begins; at least one.
    pub bootstrap: Vec<BrokerAddr>,
    /// TLS towards brokers; `None`: plaintext.
    pub tls: Option<ClientTls>,
    /// How the proxy proves itself to brokers beside TLS; `None`: it does not.
    pub sasl: Option<sasl::Settings>,
    /// As whom some clients' connections are opened instead.
    pub identities: Vec<UpstreamIdentity>,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Sockets and TLS.
    pub net: ListenerSettings,
    /// How clients prove who they are.
    pub identity: IdentitySettings,
}

/// Whether access rules are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Rules are applied; nothing matches: refused.
    Enforced {
        /// Whole principals such as `User:admin`, whom no rule concerns.
        super_users: Vec<String>,
    },
    /// The broker decides alone (`authorization: off`).
    Off,
}

impl Config {
    /// Reads `kordon.yaml`; `${NAME}` comes from the environment. `None` if there is any error.
    pub fn load(path: &Path) -> (Option<Config>, Problems) {
        let (config, _, problems) = read::load(path, &variable, false);
        (config, problems)
    }

    /// Reads `kordon.yaml` and the policies it names, and checks that they fit together. Without a
    /// configuration the policies are what could be read of them, for messages only.
    pub fn load_with_guards(path: &Path) -> (Option<Config>, Guards, Problems) {
        read::load(path, &variable, true)
    }

    /// The same of a text that was read from `path`, which may be a pipe and give it only once.
    pub fn of_text_with_guards(path: &Path, text: &str) -> (Option<Config>, Guards, Problems) {
        read::of_text(path, text, &variable, true)
    }
}

/// A variable of the process's environment; one that is not UTF-8 counts as missing.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
