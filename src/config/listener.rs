//! `listeners`: sockets, TLS and advertised addresses.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Listener;
use super::identity::{self, Source, Surroundings};
use super::jwks;
use super::read::Paths;
use crate::document::scalar::is_host;
use crate::document::{Fields, Node};
use crate::identity::settings::IdentitySettings;
use crate::net::settings::{Advertise, ClientAuth, ListenerSettings, ServerTls};
use crate::net::tls;
use crate::problem::{Place, Problems};

/// How many listeners one process may have.
const LISTENERS_MAX: usize = 64;

/// A listener and where it stands.
pub(super) struct Read {
    pub(super) listener: Listener,
    pub(super) place: Place,
}

/// Reads `listeners`; those with a mistake are left out.
pub(super) fn listeners(
    node: &Node,
    token_bytes: usize,
    paths: &Paths,
    problems: &mut Problems,
) -> Vec<Read> {
    let items = node.list_not_empty(problems).unwrap_or_default();
    if items.len() > LISTENERS_MAX {
        let message = format!(
            "{} listeners, at most {LISTENERS_MAX} are allowed",
            items.len()
        );
        problems.error(&node.place, message);
        return Vec::new();
    }
    let mut names = HashMap::new();
    let mut sources = Vec::new();
    let read = items.iter().filter_map(|item| {
        let listener = listener(item, token_bytes, paths, &mut sources, problems)?;
        let name = listener.net.name.clone();
        if let Some(line) = names.insert(name.clone(), item.place.line) {
            problems
                .error(
                    &item.place,
                    format!("a second listener with the name `{name}`"),
                )
                .help(format!("the first one is on line {line}"));
        }
        let place = item.place.clone();
        Some(Read { listener, place })
    });
    let read = read.collect();
    identity::check_shared(&sources, problems);
    jwks::check_cache_files(&sources, problems);
    read
}

fn listener(
    node: &Node,
    token_bytes: usize,
    paths: &Paths,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<Listener> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.require("name", problems);
    let bind = fields.require("bind", problems);
    let advertise_node = fields.require("advertise", problems);
    let tls_node = fields.take("tls");
    let identity_node = fields.take("identity");
    let sasl = fields.take("sasl");
    fields.finish(problems);

    let name = name.and_then(|n| n.name(problems));
    let bind = bind.and_then(|n| n.socket_addr(problems));
    let advertise = advertise_node.and_then(|n| advertise(n, problems));
    let tls = tls_node.map(|n| server_tls(n, paths, problems));
    if let (Some(Advertise::Sni { .. }), Some(node), None) = (&advertise, advertise_node, &tls) {
        problems
            .error(
                &node.place,
                "`sni` without `tls`: only TLS carries a server name",
            )
            .help("add `tls: {cert: …, key: …}` or advertise `ports`");
    }
    let surroundings = Surroundings {
        listener: &node.place,
        tls: tls.as_ref(),
        bind,
        token_bytes,
        paths,
    };
    let identity = identity::identity(identity_node, sasl, &surroundings, sources, problems);
    let mut tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    if let (Some(IdentitySettings::Sasl(sasl)), Some(tls)) = (&identity, &mut tls)
        && sasl.needs_certificate
    {
        tls.client_auth = ClientAuth::Required;
    }
    Some(Listener {
        net: ListenerSettings {
            name: name?.to_owned(),
            bind: bind?,
            advertise: advertise?,
            tls,
        },
        identity: identity?,
    })
}

fn advertise(node: &Node, problems: &mut Problems) -> Option<Advertise> {
    let mut fields = Fields::of(node, problems)?;
    let host_node = fields.require("host", problems);
    let ports = fields.take("ports");
    let sni = fields.take("sni");
    let port = fields.take("port");
    fields.finish(problems);
    let host = host_node.and_then(|n| n.name(problems));
    let sni = sni.and_then(|n| n.boolean(problems)).unwrap_or(false);
    let host_place = host_node.map_or(&node.place, |n| &n.place);
    if let (Some(node), Some(host)) = (host_node, host)
        && !is_host(&host.replace("{id}", "0"))
        && host.parse::<std::net::IpAddr>().is_err()
    {
        node.expected("a host name", problems);
    }
    let has_id = host.is_some_and(|h| h.contains("{id}"));
    match (ports, sni) {
        (Some(_), true) => {
            problems.error(
                &node.place,
                "expected either `ports` or `sni: true`, got both",
            );
            None
        }
        (None, false) => {
            problems
                .error(&node.place, "neither `ports` nor `sni: true`")
                .help("add `ports: 19092-19191`: one local port for each broker");
            None
        }
        (Some(ports), false) => {
            if has_id {
                problems.error(host_place, "`{id}` in the host needs `sni: true`");
            }
            if let Some(port) = port {
                problems.error(
                    &port.place,
                    "`port` goes with `sni: true`, not with `ports`",
                );
            }
            let ports = ports.port_range(problems)?;
            let host = host?.to_owned();
            Some(Advertise::Ports { host, ports })
        }
        (None, true) => {
            if host.is_some() && !has_id {
                problems
                    .error(host_place, "with `sni` the host needs `{id}` in it")
                    .help("for example \"broker-{id}.kordon.example\"");
            }
            let Some(port) = port else {
                problems.error(&node.place, "missing key `port`");
                return None;
            };
            let port = port.number(1..=u64::from(u16::MAX), problems)?;
            Some(Advertise::Sni {
                host: host?.to_owned(),
                port: u16::try_from(port).ok()?,
            })
        }
    }
}

fn server_tls(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<ServerTls> {
    let mut fields = Fields::of(node, problems)?;
    let cert = fields.require("cert", problems);
    let key = fields.require("key", problems);
    let client_ca = fields.take("clientCa");
    let auth = fields.take("clientAuth");
    let crl = fields.take("crl");
    let recheck = fields.take("recheck");
    fields.finish(problems);
    let client_auth = auth.map_or(Some(ClientAuth::None), |n| {
        let words = [
            ("none", Some(ClientAuth::None)),
            ("required", Some(ClientAuth::Required)),
            ("requested", Some(ClientAuth::Requested)),
        ];
        n.choice(&words, problems)
    });
    match (client_ca, client_auth) {
        (Some(ca), Some(ClientAuth::None)) => {
            problems
                .error(
                    &ca.place,
                    "`clientCa` has no effect without `clientAuth: required`",
                )
                .help("add `clientAuth: required`");
        }
        (None, Some(ClientAuth::Required | ClientAuth::Requested)) => {
            let place = auth.map_or(&node.place, |n| &n.place);
            let word = auth.and_then(Node::shown).unwrap_or_default();
            problems.error(place, format!("`clientAuth: {word}` needs `clientCa`"));
        }
        _ => {}
    }
    if let (Some(node), Some(ClientAuth::None)) = (crl, client_auth) {
        problems
            .error(
                &node.place,
                "`crl` has no effect without `clientAuth: required`",
            )
            .help("add `clientCa: ca.pem, clientAuth: required`");
    }
    if let (Some(node), Some(ClientAuth::None)) = (recheck, client_auth) {
        problems
            .error(
                &node.place,
                "`recheck` has no effect without `clientAuth: required`",
            )
            .help("it ends connections whose client certificate no longer holds");
    }
    let recheck = recheck.map_or(Some(false), |n| n.boolean(problems));
    let crl = crl.map(|n| revocation_lists(n, paths, problems));
    let mut file = |n: Option<&Node>| n.and_then(|n| paths.file(n, problems));
    let (cert, key, ca) = (file(cert), file(key), file(client_ca));
    Some(ServerTls {
        cert: cert?,
        key: key?,
        client_ca: ca,
        client_auth: client_auth?,
        crl: match crl {
            Some(crl) => crl?,
            None => Vec::new(),
        },
        recheck: recheck?,
    })
}

/// Files of revocation lists, read once here so that a broken one has its place in a message.
fn revocation_lists(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<Vec<PathBuf>> {
    let items = node.list_not_empty(problems)?;
    let files: Vec<_> = items
        .iter()
        .map(|item| {
            let path = paths.file(item, problems)?;
            if let Err(error) = tls::revocation_lists(&path) {
                problems.error(&item.place, error.to_string());
            }
            Some(path)
        })
        .collect();
    files.into_iter().collect()
}
