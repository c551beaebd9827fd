//! What the status page and `/api/status` show, as plain values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::AdminState;
use crate::clock;
use crate::telemetry::Recorder;
use crate::telemetry::audit::rfc3339_ms;

/// What only the running program knows. Called for each request of a page: cheap, never blocking.
pub trait StatusSource: Send + Sync {
    /// The listeners, in the order of the configuration.
    fn listeners(&self) -> Vec<ListenerStatus>;
    /// As whom broker connections are opened: everybody's, then the others.
    fn upstream(&self) -> Vec<IdentityStatus>;
    /// The policies in force.
    fn policy(&self) -> PolicyStatus;
}

/// One listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// The configured name.
    pub name: String,
    /// Where clients find their first broker.
    pub bind: SocketAddr,
    /// Whether clients speak TLS.
    pub tls: bool,
    /// How clients prove who they are: `static`, `mtls`, `oauthbearer`.
    pub identity: &'static str,
    /// Whose tokens are believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerStatus>,
    /// The brokers seen so far, by id.
    pub brokers: Vec<BrokerStatus>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, Serialize)]
pub struct IssuerStatus {
    /// As `iss` names it.
    pub issuer: String,
    /// What tokens are checked with.
    pub tokens: &'static str,
    /// How many keys are in use.
    pub keys: usize,
    /// How long ago the issuer confirmed them; `None` where it is not asked for keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_age_seconds: Option<u64>,
}

/// What a listener offers for one broker.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerStatus {
    /// Kafka's node id.
    pub id: i32,
    /// `host:port` as clients are told; never the broker's own address.
    pub advertised: String,
}

/// As whom some clients' broker connections are opened. No secret.
#[derive(Clone, Debug, Serialize)]
pub struct IdentityStatus {
    /// `everybody` (whom no other entry names), `listeners` or `principals`.
    pub whose: &'static str,
    /// Which of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The SASL mechanism.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<&'static str>,
    /// The user or client id, or that it is the client's own token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The subject of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The policies in force.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// `false` where the configuration says `authorization: off`.
    pub authorization: bool,
    /// Digest over all policy files, in hexadecimal; empty where there are none.
    pub digest: String,
    /// Number of the snapshot.
    pub generation: u64,
    /// When the snapshot was loaded.
    #[serde(serialize_with = "rfc3339")]
    pub loaded: SystemTime,
    /// The files, as named by the configuration.
    pub files: Vec<String>,
    /// The sets that are decided beside it, without effect.
    pub shadows: Vec<ShadowStatus>,
}

/// A set of policies that is decided beside the one in force.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowStatus {
    /// `observe`: the policies in force together with those that observe; `shadow`: the directory
    /// of `authorization.shadow`.
    pub set: &'static str,
    /// Digest over its files, in hexadecimal.
    pub digest: String,
    /// The files.
    pub files: Vec<String>,
}

/// The end of a certificate or of a revocation list.
#[derive(Clone, Debug, Serialize)]
pub struct ExpiryStatus {
    /// `listener`, `revocation_list` or `upstream`.
    pub what: &'static str,
    /// The configured name; of the upstream, which identity, empty for everybody's.
    pub listener: String,
    /// When it ends.
    #[serde(serialize_with = "rfc3339")]
    pub ends: SystemTime,
}

impl ExpiryStatus {
    fn all(recorder: &Recorder) -> Vec<Self> {
        let all = recorder.expiries().into_iter();
        all.map(|(what, listener, ends)| Self {
            what: what.as_str(),
            listener: listener.to_string(),
            ends,
        })
        .collect()
    }
}

/// Everything the status page shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This program's version.
    pub version: &'static str,
    /// When the process started.
    #[serde(serialize_with = "rfc3339")]
    pub started: SystemTime,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What an operator should know although the process serves.
    pub notes: BTreeMap<String, String>,
    /// The listeners.
    pub listeners: Vec<ListenerStatus>,
    /// As whom broker connections are opened.
    pub upstream: Vec<IdentityStatus>,
    /// When certificates and revocation lists end.
    pub expiries: Vec<ExpiryStatus>,
    /// Open connections by tenant, then by listener.
    pub connections: BTreeMap<String, BTreeMap<String, u64>>,
    /// The policies in force.
    pub policy: PolicyStatus,
    /// How long they have been in force, in seconds.
    pub policy_age_seconds: u64,
}

impl Status {
    /// The state as it is now.
    pub fn of(state: &AdminState) -> Self {
        let policy = state.source.policy();
        let reason = state.readiness.reason();
        let age = clock::wall().duration_since(policy.loaded);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: state.recorder.started(),
            ready: reason.is_none(),
            reason,
            notes: state.readiness.notes(),
            listeners: state.source.listeners(),
            upstream: state.source.upstream(),
            expiries: ExpiryStatus::all(&state.recorder),
            connections: state.recorder.connections(),
            policy_age_seconds: age.unwrap_or_default().as_secs(),
            policy,
        }
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_ms(*at))
}
