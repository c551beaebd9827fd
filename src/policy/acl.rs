//! Kafka's ACLs and access policies, one from the other. What one side cannot say exactly is a
//! mistake that names it; nothing is left out.

pub mod listed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use super::model::{CLUSTER_NAME, Operation, ResourceKind, RuleRef};
use super::rule::{AccessPolicy, Effect, NamePattern, Part, PrincipalPattern, Template};

/// One ACL, with the words of Kafka's tools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Whether `name` is a prefix; otherwise it is literal, and `*` stands for every name.
    pub prefixed: bool,
    /// The resource's name.
    pub name: String,
    /// `Type:name`; `User:*` is everybody.
    pub principal: String,
    /// An address as Java prints it, or `*`.
    pub host: String,
    /// The operation.
    pub operation: Operation,
    /// Whether it denies.
    pub deny: bool,
}

impl Acl {
    /// The ACL as messages show it.
    pub fn shown(&self) -> String {
        format!(
            "{} {} on {} {} `{}` for {} from {}",
            if self.deny { "deny" } else { "allow" },
            self.operation.name(),
            if self.prefixed { "prefixed" } else { "literal" },
            self.kind.name(),
            self.name,
            self.principal,
            self.host
        )
    }
}

/// Access policies in YAML that decide as these ACLs do; or why each of some ACLs cannot be said.
pub fn to_yaml(acls: &[Acl]) -> Result<String, Vec<String>> {
    let mistakes: Vec<String> = (acls.iter())
        .filter_map(|acl| Some(format!("{}: {}", acl.shown(), inexpressible(acl)?)))
        .collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut by_subject: BTreeMap<&str, BTreeMap<&str, Rules<'_>>> = BTreeMap::new();
    for acl in acls {
        let hosts = by_subject.entry(&acl.principal).or_default();
        let rules = hosts.entry(&acl.host).or_default();
        let name = match (acl.kind, acl.prefixed) {
            // The cluster has one name, whatever pattern it was matched by.
            (ResourceKind::Cluster, _) => (acl.kind, false, CLUSTER_NAME),
            (kind, prefixed) => (kind, prefixed, &*acl.name),
        };
        let operations = rules.entry((acl.deny, name)).or_default();
        operations.insert(acl.operation);
    }
    let mut out = String::new();
    let mut names = BTreeSet::new();
    for (principal, by_host) in by_subject {
        let mut by_rules: BTreeMap<Rules<'_>, Vec<&str>> = BTreeMap::new();
        for (host, rules) in by_host {
            by_rules.entry(rules).or_default().push(host);
        }
        for (rules, hosts) in by_rules {
            // What holds everywhere needs no list, and must not lose the others.
            let name = unique(principal, &mut names);
            document(&name, principal, &hosts, &rules, &mut out);
        }
    }
    Ok(out)
}

/// By effect and resource (kind, whether a prefix, name): the operations.
type Rules<'a> = BTreeMap<(bool, (ResourceKind, bool, &'a str)), BTreeSet<Operation>>;

/// Why an ACL has no equal among policies.
fn inexpressible(acl: &Acl) -> Option<&'static str> {
    let control = |text: &str| text.chars().any(char::is_control);
    match acl.principal.split_once(':') {
        Some(("User", name)) if !name.is_empty() => {}
        _ => return Some("only principals of type `User` have an equal here"),
    }
    if acl.principal.contains("${") || acl.name.contains("${") {
        return Some("`${` begins a variable in policies");
    }
    if control(&acl.principal) || control(&acl.name) {
        return Some("names hold no control characters");
    }
    if acl.name.is_empty() {
        return Some("an empty name");
    }
    if acl.host != "*" && host(&acl.host).is_none() {
        return Some("a host that Kafka compares with nothing: it prints addresses otherwise");
    }
    let cluster = match acl.prefixed {
        true => CLUSTER_NAME.starts_with(&acl.name),
        false => acl.name == "*" || acl.name == CLUSTER_NAME,
    };
    if acl.kind == ResourceKind::Cluster && !cluster {
        return Some("the cluster is only called `kafka-cluster`");
    }
    None
}

/// An address, if it is written as Java prints it: Kafka compares the texts.
fn host(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (java(address) == text).then_some(address)
}

/// An address as Java's `getHostAddress` prints it: IPv6 without zeros left out.
fn java(address: IpAddr) -> String {
    let text = |a: Ipv6Addr| a.segments().map(|s| format!("{s:x}")).join(":");
    match address.to_canonical() {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => text(a),
    }
}

/// A name for a document that no other one has.
fn unique(principal: &str, names: &mut BTreeSet<String>) -> String {
    let bare = principal.strip_prefix("User:").unwrap_or(principal);
    let plain = |c: char| match c {
        '*' => 'x',
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
        _ => '-',
    };
    let base: String = match bare {
        "*" => "everybody".to_owned(),
        bare => bare.chars().map(plain).collect(),
    };
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    let name = std::iter::once(base.clone()).chain(numbered);
    let name = name
        .into_iter()
        .find(|n| !names.contains(n))
        .unwrap_or(base);
    names.insert(name.clone());
    name
}

fn document(name: &str, principal: &str, hosts: &[&str], rules: &Rules<'_>, out: &mut String) {
    // Writing to a string cannot fail.
    if !out.is_empty() {
        out.push_str("---\n");
    }
    let _ = writeln!(out, "apiVersion: kordon/v1\nkind: AccessPolicy");
    let _ = writeln!(out, "metadata: {{name: {}}}\nspec:", quoted(name));
    let _ = writeln!(out, "  principals: [{}]", quoted(principal));
    if !hosts.contains(&"*") {
        let hosts: Vec<String> = hosts.iter().map(|h| quoted(h)).collect();
        let _ = writeln!(out, "  hosts: [{}]", hosts.join(", "));
    }
    out.push_str("  rules:\n");
    let mut grouped: BTreeMap<(bool, ResourceKind, &BTreeSet<Operation>), Vec<String>> =
        BTreeMap::new();
    for ((deny, (kind, prefixed, name)), operations) in rules {
        let names = grouped.entry((*deny, *kind, operations)).or_default();
        names.push(pattern(*prefixed, name));
    }
    for ((deny, kind, operations), names) in grouped {
        let effect = if deny { "deny" } else { "allow" };
        let operations: Vec<&str> = operations.iter().map(|o| o.name()).collect();
        let names = match kind {
            ResourceKind::Cluster => "cluster: true".to_owned(),
            kind => format!("{}: [{}]", key(kind), names.join(", ")),
        };
        let _ = writeln!(
            out,
            "    - {{{effect}: [{}], {names}}}",
            operations.join(", ")
        );
    }
}

fn key(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Topic => "topics",
        ResourceKind::Group => "groups",
        ResourceKind::Cluster => "cluster",
        ResourceKind::TransactionalId => "transactionalIds",
        ResourceKind::DelegationToken => "delegationTokens",
        ResourceKind::User => "users",
    }
}

fn pattern(prefixed: bool, name: &str) -> String {
    match (prefixed, name) {
        (false, "*") => quoted("*"),
        (true, name) if !name.contains('*') => quoted(&format!("{name}*")),
        (true, name) => format!("{{prefix: {}}}", quoted(name)),
        (false, name) if name.contains('*') => format!("{{literal: {}}}", quoted(name)),
        (false, name) => quoted(name),
    }
}

/// Text as YAML has it: plain where that is safe, otherwise in double quotes as JSON writes it.
fn quoted(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && !matches!(
            &*text.to_lowercase(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    match word {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// What of a policy goes beyond Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The rule; `None` for a policy without rules.
    pub rule: RuleRef,
    /// What Kafka's ACLs cannot say.
    pub what: String,
}

/// The ACLs that decide as these policies do; or everything that goes beyond Kafka.
pub fn from_policies(policies: &[AccessPolicy]) -> Result<Vec<Acl>, Vec<Beyond>> {
    let mut acls = BTreeSet::new();
    let mut beyond = Vec::new();
    for policy in policies {
        let Some(first) = policy.rules.first() else {
            continue;
        };
        let mut no = |rule: &RuleRef, what: String| {
            let rule = rule.clone();
            beyond.push(Beyond { rule, what });
        };
        let mut principals = Vec::new();
        for principal in &policy.principals {
            match principal {
                PrincipalPattern::Everyone => principals.push("User:*".to_owned()),
                PrincipalPattern::User(name) => principals.push(format!("User:{name}")),
                PrincipalPattern::Group(name) => no(&first.at, format!("`Group:{name}`")),
                PrincipalPattern::Tenant(name) => no(&first.at, format!("`Tenant:{name}`")),
            }
        }
        let mut hosts = Vec::new();
        for network in &policy.hosts {
            let full = if network.network.is_ipv4() { 32 } else { 128 };
            match network.prefix_bits == full {
                true => hosts.push(java(network.network)),
                false => {
                    let (network, bits) = (network.network, network.prefix_bits);
                    no(&first.at, format!("the network `{network}/{bits}`"));
                }
            }
        }
        if policy.hosts.is_empty() {
            hosts.push("*".to_owned());
        }
        for rule in policy.rules.iter() {
            for resource in &rule.resources {
                let (prefixed, name) = match plain(&resource.names) {
                    Ok(named) => named,
                    Err(what) => {
                        no(&rule.at, what);
                        continue;
                    }
                };
                for (principal, host) in principals
                    .iter()
                    .flat_map(|p| hosts.iter().map(move |h| (p, h)))
                {
                    acls.extend(rule.operations.iter().map(|operation| Acl {
                        kind: resource.kind,
                        prefixed,
                        name: name.clone(),
                        principal: principal.clone(),
                        host: host.clone(),
                        operation: *operation,
                        deny: rule.effect == Effect::Deny,
                    }));
                }
            }
        }
    }
    match beyond.is_empty() {
        true => Ok(acls.into_iter().collect()),
        false => Err(beyond),
    }
}

/// Whether it is a prefix, and the name as Kafka has it.
fn plain(names: &NamePattern) -> Result<(bool, String), String> {
    let (template, prefixed) = match names {
        NamePattern::All => return Ok((false, "*".to_owned())),
        NamePattern::Literal(template) => (template, false),
        NamePattern::Prefix(template) => (template, true),
    };
    let Template(parts) = template;
    match &parts[..] {
        [Part::Text(text)] if !prefixed && text == "*" => {
            Err("the literal name `*`, which is every name to Kafka".to_owned())
        }
        [Part::Text(text)] => Ok((prefixed, text.clone())),
        _ => Err(format!(
            "the variable in `{}`",
            super::compare::shown(names)
        )),
    }
}

#[cfg(test)]
mod tests;
