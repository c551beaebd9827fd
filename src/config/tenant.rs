//! A `Tenant` document: who belongs to the tenant, and what its members may touch at all.

use crate::document::{Fields, Node, Value};
use crate::identity::name;
use crate::policy::mode::Mode;
use crate::policy::parse::{self, NAME_KEYS, rule_ref};
use crate::policy::rule::ResourcePattern;
use crate::policy::tenant::{Boundary, SPIFFE, Tenant, TenantMatch, Text};
use crate::principal::CLAIM_BYTES_MAX;
use crate::problem::Problems;

/// How many ways to belong to it one tenant may have.
pub const MATCHES_MAX: usize = 1_000;

/// How many claims one match may ask for.
pub const MATCH_CLAIMS_MAX: usize = 16;

/// Reads the `spec` of a `Tenant`. `None` if anything in it is wrong.
pub(super) fn tenant(name: &str, spec: &Node, problems: &mut Problems) -> Option<Tenant> {
    let mut found = Problems::default();
    let tenant = read(name, spec, &mut found);
    let sound = !found.has_errors();
    problems.list.append(&mut found.list);
    tenant.filter(|_| sound)
}

fn read(name: &str, spec: &Node, problems: &mut Problems) -> Option<Tenant> {
    if let Err(fault) = name::check(name)
        && !name.is_empty()
    {
        problems.error(&spec.place, format!("the tenant's name: {fault}"));
    }
    let mut fields = Fields::of(spec, problems)?;
    Mode::take(&mut fields, problems);
    let matching = fields.take("match");
    let bounds = fields.take("boundary");
    let misspelt = fields.misspelt("match") || fields.misspelt("boundary");
    fields.finish(problems);
    if matching.is_none() && bounds.is_none() && !misspelt {
        problems
            .error(&spec.place, "a tenant without `match` or `boundary`")
            .help("`match` says who belongs to it, `boundary` what its members may touch");
    }
    let matches = match matching {
        None => Vec::new(),
        Some(node) => matches_at(node, problems).unwrap_or_default(),
    };
    Some(Tenant {
        name: name.to_owned(),
        at: rule_ref(&spec.place),
        matches,
        boundary: match bounds {
            None => None,
            Some(node) => Some(boundary(node, problems)?),
        },
    })
}

fn matches_at(node: &Node, problems: &mut Problems) -> Option<Vec<TenantMatch>> {
    let mut fields = Fields::of(node, problems)?;
    let any = fields.require("any", problems);
    fields.finish(problems);
    let any = any?;
    let items = any.list_not_empty(problems)?;
    if items.len() > MATCHES_MAX {
        let message = format!("{} items, at most {MATCHES_MAX} are allowed", items.len());
        problems.error(&any.place, message);
        return None;
    }
    Some(items.iter().filter_map(|n| one(n, problems)).collect())
}

fn one(node: &Node, problems: &mut Problems) -> Option<TenantMatch> {
    let mut fields = Fields::of(node, problems)?;
    let claim = fields.take("claim");
    let spiffe = fields.take("spiffe");
    let principal = fields.take("principal");
    let misspelt = ["claim", "spiffe", "principal"]
        .iter()
        .any(|key| fields.misspelt(key));
    fields.finish(problems);
    match (claim, spiffe, principal) {
        (Some(node), None, None) => claims(node, problems),
        (None, Some(node), None) => spiffe_id(node, problems),
        (None, None, Some(node)) => principal_at(node, problems),
        // Said already.
        (None, None, None) if misspelt => None,
        _ => {
            problems.error(
                &node.place,
                "expected exactly one of `claim`, `spiffe` and `principal`",
            );
            None
        }
    }
}

fn claims(node: &Node, problems: &mut Problems) -> Option<TenantMatch> {
    let Value::Mapping(entries) = &node.value else {
        node.expected("a mapping of claims and their values", problems);
        return None;
    };
    if entries.is_empty() || entries.len() > MATCH_CLAIMS_MAX {
        let message = format!(
            "expected between 1 and {MATCH_CLAIMS_MAX} claims, got {}",
            entries.len()
        );
        problems.error(&node.place, message);
        return None;
    }
    let mut wanted = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = entry.value.name(problems)?;
        if entry.key.len() > CLAIM_BYTES_MAX || value.len() > CLAIM_BYTES_MAX {
            let message = format!("a claim or value longer than {CLAIM_BYTES_MAX} bytes");
            problems.error(&entry.place, message);
            return None;
        }
        if value.contains('*') {
            problems
                .warning(
                    &entry.value.place,
                    format!("the star in `{value}` means itself"),
                )
                .help("a claim is compared as a whole");
        }
        wanted.push((entry.key.clone(), value.to_owned()));
    }
    Some(TenantMatch::Claims(wanted))
}

fn spiffe_id(node: &Node, problems: &mut Problems) -> Option<TenantMatch> {
    let written = node.name(problems)?;
    let text = text(written, node, problems)?;
    // A prefix that ends inside the trust domain would take in the domains of strangers.
    let has_path = (text.stem.strip_prefix(SPIFFE))
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(domain, path)| !domain.is_empty() && (text.is_prefix || !path.is_empty()));
    if !has_path {
        problems
            .error(
                &node.place,
                format!("expected a SPIFFE id such as `spiffe://prod/ns/shop/*`, got `{written}`"),
            )
            .help("the trust domain is written out; a star may stand at the end of the path");
        return None;
    }
    Some(TenantMatch::Spiffe(text))
}

fn principal_at(node: &Node, problems: &mut Problems) -> Option<TenantMatch> {
    let written = node.name(problems)?;
    let (kind, name) = match written.split_once(':') {
        Some((kind @ ("User" | "Group"), name)) if !name.is_empty() => (kind, name),
        _ => {
            node.expected(
                "a principal such as `User:shop-*` or `Group:shop`",
                problems,
            );
            return None;
        }
    };
    let text = text(name, node, problems)?;
    Some(match kind {
        "User" => TenantMatch::User(text),
        _ => TenantMatch::Group(text),
    })
}

/// Text with a star at its end, or without one.
fn text(written: &str, node: &Node, problems: &mut Problems) -> Option<Text> {
    let (stem, is_prefix) = match written.strip_suffix('*') {
        Some(stem) => (stem, true),
        None => (written, false),
    };
    if stem.contains('*') {
        let message = format!("a star may only stand at the end, got `{written}`");
        problems.error(&node.place, message);
        return None;
    }
    if stem.contains("${") {
        let message = format!("variables may only stand in resource names, got `{written}`");
        problems.error(&node.place, message);
        return None;
    }
    Some(Text {
        stem: stem.to_owned(),
        is_prefix,
    })
}

fn boundary(node: &Node, problems: &mut Problems) -> Option<Boundary> {
    let mut fields = Fields::of(node, problems)?;
    let mut resources = Vec::new();
    for (key, kind) in NAME_KEYS {
        let Some(list) = fields.take(key) else {
            continue;
        };
        for item in list.list_not_empty(problems).unwrap_or_default() {
            if let Some(names) = parse::names_of(kind, item, problems) {
                resources.push(ResourcePattern { kind, names });
            }
        }
    }
    if let Some(cluster) = fields.entry("cluster") {
        problems
            .error(&cluster.place, "the cluster is not bounded")
            .help("leave the key out; rules alone decide over `cluster: true`");
    }
    let named = NAME_KEYS
        .iter()
        .any(|(key, _)| fields.take(key).is_some() || fields.misspelt(key));
    fields.finish(problems);
    if !named {
        problems
            .warning(
                &node.place,
                "a boundary that names nothing closes everything",
            )
            .help("add `topics`, `groups`, `transactionalIds`, …, or leave `boundary` out");
    }
    Some(Boundary {
        at: rule_ref(&node.place),
        resources,
    })
}
