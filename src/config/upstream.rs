//! `upstream`: where the brokers are, and how the proxy proves itself to them.

use std::net::IpAddr;

use super::identities::{self, Listeners};
use super::read::Paths;
use super::{Upstream, outside};
use crate::broker::BrokerAddr;
use crate::document::{Entry, Fields, Node};
use crate::identity::scram::Hash;
use crate::issuer::assertion::{Algorithm, Signer};
use crate::issuer::token::{ClientProof, TokenSettings};
use crate::net::settings::ClientTls;
use crate::problem::Problems;
use crate::secret::Secret;
use crate::upstream::sasl::Settings;

pub(super) fn upstream(
    node: &Node,
    listeners: &Listeners<'_>,
    paths: &Paths,
    problems: &mut Problems,
) -> Option<Upstream> {
    let mut fields = Fields::of(node, problems)?;
    let bootstrap = fields.require("bootstrap", problems);
    let tls_node = fields.take("tls");
    let sasl_entry = fields.entry("sasl");
    let identities = fields.take("identities");
    fields.finish(problems);
    let items = bootstrap
        .and_then(|n| n.list_not_empty(problems))
        .unwrap_or_default();
    let brokers = items.iter().filter_map(|n| n.host_port(problems));
    let bootstrap: Vec<_> = brokers
        .map(|(host, port)| BrokerAddr { host, port })
        .collect();
    let tls = tls_node.map(|node| client_tls(node, paths, problems));
    let sasl = sasl_entry.map(|entry| {
        let sasl = sasl(&entry.value, paths, problems)?;
        if tls_node.is_none() {
            in_clear(&sasl, entry, &bootstrap, problems);
        }
        Some(sasl)
    });
    let identities = identities.map(|node| {
        let surroundings = identities::Surroundings {
            listeners,
            bootstrap: &bootstrap,
            has_tls: tls_node.is_some(),
            paths,
        };
        identities::identities(node, &surroundings, problems)
    });
    Some(Upstream {
        bootstrap,
        identities: identities.unwrap_or_default(),
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        sasl: match sasl {
            Some(sasl) => Some(sasl?),
            None => None,
        },
    })
}

fn client_tls(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<ClientTls> {
    let mut fields = Fields::of(node, problems)?;
    let ca = fields.take("ca");
    let cert = fields.take("cert");
    let key = fields.take("key");
    fields.finish(problems);
    match (cert, key) {
        (Some(one), None) => {
            problems.error(&one.place, "`cert` without `key`");
        }
        (None, Some(one)) => {
            problems.error(&one.place, "`key` without `cert`");
        }
        _ => {}
    }
    let mut file = |n: Option<&Node>| n.and_then(|n| paths.file(n, problems));
    let (ca, cert, key) = (file(ca), file(cert), file(key));
    Some(ClientTls {
        ca,
        identity: cert.zip(key),
    })
}

/// SASL without TLS: a secret that crosses the network is an error, a proof of it a warning.
pub(super) fn in_clear(
    sasl: &Settings,
    entry: &Entry,
    bootstrap: &[BrokerAddr],
    problems: &mut Problems,
) {
    let what = match sasl {
        Settings::Scram { .. } => {
            problems
                .warning(
                    &entry.place,
                    "`sasl` without `upstream.tls`: requests and records cross the network in \
                     clear, and nothing proves who the broker is before SCRAM does",
                )
                .help("add `tls: {}` (the system's authorities) or `tls: {ca: ca.pem}`");
            return;
        }
        Settings::Plain { .. } => "the password",
        Settings::Oauthbearer(_) => "tokens",
        Settings::Forward => "clients' tokens",
    };
    match bootstrap.iter().all(is_loopback) {
        true => problems.warning(
            &entry.place,
            format!("`sasl` without `upstream.tls`: {what} would go to brokers in clear"),
        ),
        false => problems.error(
            &entry.place,
            format!("{what} would cross the network in clear"),
        ),
    }
    .help("add `tls: {}` (the system's authorities) or `tls: {ca: ca.pem}` to `upstream`");
}

fn is_loopback(broker: &BrokerAddr) -> bool {
    let host = broker.host.as_str();
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = literal.unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const MECHANISMS: &str = "`oauthbearer`, `plain`, `scramSha256`, `scramSha512` and `forward`";

pub(super) fn sasl(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<Settings> {
    let mut fields = Fields::of(node, problems)?;
    let keys = [
        "oauthbearer",
        "plain",
        "scramSha256",
        "scramSha512",
        "forward",
    ];
    let taken = keys.map(|key| fields.take(key));
    let misspelt = keys.iter().any(|key| fields.misspelt(key));
    fields.finish(problems);
    let given: Vec<_> = taken.iter().flatten().collect();
    if given.len() != 1 {
        if !(given.is_empty() && misspelt) {
            problems.error(&node.place, format!("expected exactly one of {MECHANISMS}"));
        }
        return None;
    }
    let [bearer, plain, scram256, scram512, forward] = taken;
    if let Some(node) = bearer {
        return token(node, paths, problems).map(|token| Settings::Oauthbearer(Box::new(token)));
    }
    if let Some(node) = plain {
        let (username, password) = account(node, paths, problems)?;
        return Some(Settings::Plain { username, password });
    }
    for (node, hash) in [(scram256, Hash::Sha256), (scram512, Hash::Sha512)] {
        if let Some(node) = node {
            let (username, password) = account(node, paths, problems)?;
            return Some(Settings::Scram {
                hash,
                username,
                password,
            });
        }
    }
    let forward = forward?;
    if !forward.boolean(problems)? {
        problems
            .error(&forward.place, "`forward` can only be `true`")
            .help("leave `sasl` out where brokers do not ask for it");
        return None;
    }
    Some(Settings::Forward)
}

fn account(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<(String, Secret)> {
    let mut fields = Fields::of(node, problems)?;
    let username = fields.require("username", problems);
    let password = fields.require("password", problems);
    fields.finish(problems);
    let username = username.and_then(|n| n.name(problems)).map(str::to_owned);
    let password = password.and_then(|n| outside::secret(n, paths, problems));
    Some((username?, password?))
}

fn token(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<TokenSettings> {
    let mut fields = Fields::of(node, problems)?;
    let endpoint = fields.require("tokenEndpoint", problems);
    let client_id = fields.require("clientId", problems);
    let scope = fields.take("scope");
    let audience = fields.take("audience");
    let ca = fields.take("ca");
    let keys = ["clientSecret", "privateKey", "assertion"];
    let proofs = keys.map(|key| fields.take(key));
    let misspelt = keys.iter().any(|key| fields.misspelt(key));
    fields.finish(problems);
    let endpoint = endpoint.and_then(|n| outside::url(n, problems));
    let mut text = |n: Option<&Node>| n.and_then(|n| n.name(problems)).map(str::to_owned);
    let (client_id, scope, audience) = (text(client_id), text(scope), text(audience));
    let ca = ca.map(|n| paths.file(n, problems));
    let proof = match proofs {
        [Some(node), None, None] => outside::secret(node, paths, problems).map(ClientProof::Secret),
        [None, Some(node), None] => private_key(node, paths, problems),
        [None, None, Some(node)] => assertion(node, paths, problems),
        [None, None, None] if misspelt => None,
        _ => {
            problems
                .error(
                    &node.place,
                    "expected exactly one of `clientSecret`, `privateKey` and `assertion`",
                )
                .help("they prove to the token endpoint who asks");
            None
        }
    };
    Some(TokenSettings {
        endpoint: endpoint?,
        client_id: client_id?,
        scope,
        audience,
        ca: match ca {
            Some(ca) => Some(ca?),
            None => None,
        },
        proof: proof?,
    })
}

fn private_key(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<ClientProof> {
    let mut fields = Fields::of(node, problems)?;
    let file_node = fields.require("file", problems);
    let algorithm = fields.require("algorithm", problems);
    let key_id = fields.take("keyId");
    fields.finish(problems);
    let file = file_node.and_then(|n| paths.file(n, problems));
    let algorithm = algorithm.and_then(|n| {
        let words = [
            Algorithm::Rs256,
            Algorithm::Ps256,
            Algorithm::Es256,
            Algorithm::EdDsa,
        ];
        n.choice(&words.map(|one| (one.name(), Some(one))), problems)
    });
    let key_id = key_id.and_then(|n| n.name(problems)).map(str::to_owned);
    let (file, algorithm) = (file?, algorithm?);
    if let (Err(error), Some(node)) = (Signer::read(&file, algorithm), file_node) {
        problems.error(&node.place, error.to_string());
        return None;
    }
    Some(ClientProof::PrivateKey {
        file,
        algorithm,
        key_id,
    })
}

fn assertion(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<ClientProof> {
    let mut fields = Fields::of(node, problems)?;
    let file = fields.require("file", problems);
    fields.finish(problems);
    let secret = Secret::File(paths.file(file?, problems)?);
    if let Err(error) = secret.read() {
        problems.error(&node.place, error.to_string());
        return None;
    }
    Some(ClientProof::Assertion(secret))
}
