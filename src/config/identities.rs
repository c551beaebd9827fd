//! `upstream.identities`: as whom which clients' broker connections are opened.

use std::collections::HashMap;

use super::read::Paths;
use super::{Upstream, listener, upstream};
use crate::broker::BrokerAddr;
use crate::document::{Fields, Node, Value, did_you_mean};
use crate::identity::settings::IdentitySettings as OfListener;
use crate::policy::parse;
use crate::policy::rule::PrincipalPattern;
use crate::problem::Problems;
use crate::upstream::identities::{IDENTITIES_MAX, UpstreamIdentity, Whom};
use crate::upstream::sasl::Settings;

/// The listeners, as far as identities may name them.
pub(super) struct Listeners<'a> {
    /// Every name that is written, also of listeners with mistakes.
    names: Vec<&'a str>,
    read: &'a [listener::Read],
}

impl<'a> Listeners<'a> {
    /// Those of the list at `node`, of which `read` are without a mistake.
    pub(super) fn of(node: Option<&'a Node>, read: &'a [listener::Read]) -> Listeners<'a> {
        let items = match node.map(|node| &node.value) {
            Some(Value::List(items)) => items.as_slice(),
            _ => &[],
        };
        let name = |item: &'a Node| {
            let Value::Mapping(entries) = &item.value else {
                return None;
            };
            let entry = entries.iter().find(|entry| entry.key == "name")?;
            match &entry.value.value {
                Value::Scalar(scalar) => Some(scalar.text.as_str()),
                _ => None,
            }
        };
        let names = items.iter().filter_map(name).collect();
        Listeners { names, read }
    }

    fn brings_no_tokens(&self, name: &str) -> bool {
        let read = self.read.iter().find(|one| one.listener.net.name == name);
        read.is_some_and(|read| !brings_tokens(&read.listener.identity))
    }
}

fn brings_tokens(identity: &OfListener) -> bool {
    match identity {
        OfListener::Sasl(sasl) => !sasl.oauthbearer.is_empty(),
        _ => false,
    }
}

/// What stands around an entry.
pub(super) struct Surroundings<'a> {
    pub(super) listeners: &'a Listeners<'a>,
    pub(super) bootstrap: &'a [BrokerAddr],
    /// Whether there is `upstream.tls`.
    pub(super) has_tls: bool,
    pub(super) paths: &'a Paths,
}

/// The line on which a listener (or else a principal) was named first.
type Seen = HashMap<(bool, String), u32>;

pub(super) fn identities(
    node: &Node,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Vec<UpstreamIdentity> {
    let items = node.list_not_empty(problems).unwrap_or_default();
    if items.len() > IDENTITIES_MAX {
        let count = items.len();
        let message = format!("{count} identities, at most {IDENTITIES_MAX} are allowed");
        problems.error(&node.place, message);
        return Vec::new();
    }
    let mut seen = Seen::new();
    let read = items
        .iter()
        .filter_map(|item| identity(item, around, &mut seen, problems));
    read.collect()
}

fn identity(
    node: &Node,
    around: &Surroundings<'_>,
    seen: &mut Seen,
    problems: &mut Problems,
) -> Option<UpstreamIdentity> {
    let mut fields = Fields::of(node, problems)?;
    let listeners = fields.take("listeners");
    let principals = fields.take("principals");
    let tls_node = fields.take("tls");
    let sasl_entry = fields.entry("sasl");
    let misspelt = |keys: [&'static str; 2]| keys.iter().any(|key| fields.misspelt(key));
    let (whom_misspelt, what_misspelt) = (
        misspelt(["listeners", "principals"]),
        misspelt(["tls", "sasl"]),
    );
    fields.finish(problems);

    let whom = match (listeners, principals) {
        (Some(node), None) => named(node, seen, problems, |node, problems| {
            listener_name(node, around.listeners, problems)
        })
        .map(Whom::Listeners),
        (None, Some(node)) => named(node, seen, problems, principal).map(Whom::Principals),
        (None, None) if whom_misspelt => None,
        _ => {
            problems
                .error(
                    &node.place,
                    "expected exactly one of `listeners` and `principals`",
                )
                .help("they say whose broker connections are opened so");
            None
        }
    };
    if tls_node.is_none() && sasl_entry.is_none() && !what_misspelt {
        problems
            .error(&node.place, "neither `tls` nor `sasl`")
            .help("say what differs from `upstream.tls` and `upstream.sasl`");
    }
    let certificate = tls_node.map(|node| {
        if !around.has_tls {
            problems
                .error(&node.place, "a client certificate without `upstream.tls`")
                .help(
                    "add `tls: {}` (the system's authorities) or `tls: {ca: ca.pem}` to `upstream`",
                );
        }
        certificate(node, around.paths, problems)
    });
    let sasl = sasl_entry.map(|entry| {
        let sasl = upstream::sasl(&entry.value, around.paths, problems)?;
        if !around.has_tls {
            upstream::in_clear(&sasl, entry, around.bootstrap, problems);
        }
        if let (Settings::Forward, Some(_)) = (&sasl, principals) {
            problems
                .error(&entry.place, "`forward` goes with `listeners`")
                .help("its clients bring the tokens; `principals` need credentials of their own");
        }
        if let (Settings::Forward, Some(node)) = (&sasl, listeners) {
            tokens_of_each(node, around.listeners, problems);
        }
        Some(sasl)
    });
    Some(UpstreamIdentity {
        whom: whom?,
        certificate: match certificate {
            Some(certificate) => Some(certificate?),
            None => None,
        },
        sasl: match sasl {
            Some(sasl) => Some(sasl?),
            None => None,
        },
    })
}

/// The names of a list; none may stand anywhere else.
fn named(
    node: &Node,
    seen: &mut Seen,
    problems: &mut Problems,
    read: impl Fn(&Node, &mut Problems) -> Option<(bool, String)>,
) -> Option<Vec<String>> {
    let items = node.list_not_empty(problems)?;
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let Some(key) = read(item, problems) else {
            continue;
        };
        let name = key.1.clone();
        if let Some(line) = seen.get(&key) {
            problems
                .error(&item.place, format!("`{name}` has an identity already"))
                .help(format!("it is named first on line {line}"));
            continue;
        }
        seen.insert(key, item.place.line);
        names.push(name);
    }
    Some(names)
}

fn listener_name(
    node: &Node,
    listeners: &Listeners<'_>,
    problems: &mut Problems,
) -> Option<(bool, String)> {
    let name = node.name(problems)?;
    if listeners.names.contains(&name) {
        return Some((true, name.to_owned()));
    }
    let shown = node.shown().unwrap_or_default();
    let problem = problems.error(&node.place, format!("no listener has the name `{shown}`"));
    let mut known = listeners.names.clone();
    if let Some(near) = did_you_mean(name, known.iter().copied()) {
        problem.help(format!("did you mean `{near}`?"));
    } else if !known.is_empty() {
        known.truncate(8);
        problem.help(format!("there are `{}`", known.join("`, `")));
    }
    None
}

fn principal(node: &Node, problems: &mut Problems) -> Option<(bool, String)> {
    let text = node.name(problems)?;
    match parse::principal(text) {
        Ok(PrincipalPattern::User(_)) => return Some((false, text.to_owned())),
        Ok(PrincipalPattern::Everyone) => {
            problems
                .error(&node.place, "`User:*` would not mean everyone here")
                .help("`upstream.tls` and `upstream.sasl` are everyone's");
        }
        Ok(_) | Err(_) => node.expected("a principal such as `User:orders`", problems),
    }
    None
}

fn certificate(
    node: &Node,
    paths: &Paths,
    problems: &mut Problems,
) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let mut fields = Fields::of(node, problems)?;
    let cert = fields.require("cert", problems);
    let key = fields.require("key", problems);
    if let Some(ca) = fields.take("ca") {
        problems
            .error(&ca.place, "the authorities are those of `upstream.tls`")
            .help("only `cert` and `key` differ from identity to identity");
    }
    fields.finish(problems);
    let cert = cert.and_then(|n| paths.file(n, problems));
    let key = key.and_then(|n| paths.file(n, problems));
    cert.zip(key)
}

/// Where clients' tokens are sent on, each client needs one.
fn tokens_of_each(node: &Node, listeners: &Listeners<'_>, problems: &mut Problems) {
    let Value::List(items) = &node.value else {
        return;
    };
    for item in items {
        let Value::Scalar(scalar) = &item.value else {
            continue;
        };
        if listeners.brings_no_tokens(&scalar.text) {
            let shown = item.shown().unwrap_or_default();
            let message = format!(
                "`forward` sends clients' tokens on, but those of listener `{shown}` bring none"
            );
            problems
                .error(&item.place, message)
                .help("give the listener `sasl: {oauthbearer: …}`");
        }
    }
}

/// The same for listeners whose clients' tokens are sent on because everybody's are.
pub(super) fn check_forward(
    upstream: Option<&Upstream>,
    listeners: &[listener::Read],
    problems: &mut Problems,
) {
    let Some(upstream) = upstream else { return };
    let Some(Settings::Forward) = upstream.sasl else {
        return;
    };
    for read in listeners {
        let (name, identity) = (&read.listener.net.name, &read.listener.identity);
        if brings_tokens(identity) || has_own(&upstream.identities, name, identity) {
            continue;
        }
        problems
            .error(
                &read.place,
                format!(
                    "`upstream.sasl.forward` sends clients' tokens on, but those of listener \
                     `{name}` bring none"
                ),
            )
            .help(
                "give the listener `sasl: {oauthbearer: …}`, or name it in `upstream.identities`",
            );
    }
}

/// Whether no client of a listener is left to `upstream.sasl`.
fn has_own(identities: &[UpstreamIdentity], listener: &str, identity: &OfListener) -> bool {
    let of = |wanted: &dyn Fn(&Whom) -> bool| identities.iter().find(|one| wanted(&one.whom));
    let by_listener = of(&|whom| match whom {
        Whom::Listeners(names) => names.iter().any(|name| name == listener),
        _ => false,
    });
    let by_principal = match identity {
        OfListener::Static(principal) => of(&|whom| match whom {
            Whom::Principals(names) => names.iter().any(|name| **name == *principal.name),
            _ => false,
        }),
        _ => None,
    };
    by_principal
        .or(by_listener)
        .is_some_and(|one| one.sasl.is_some())
}
