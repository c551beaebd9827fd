//! An `AccessPolicy` document to rules with positions, and the grammar of principals, hosts and
//! name patterns. Collects every mistake; a document with a mistake yields no policy.

use std::net::IpAddr;

use super::mode::Mode;
use super::model::{CLUSTER_NAME, Operation, ResourceKind, RuleRef};
use super::odd;
use super::rule::{
    AccessPolicy, Effect, HostPattern, NamePattern, Part, PrincipalPattern, ResourcePattern, Rule,
    Template,
};
use crate::document::{Fields, Node, did_you_mean};
use crate::problem::{Place, Problems};

/// How many rules one document may hold.
pub const RULES_MAX: usize = 10_000;

/// The keys of a rule that list names, and what they are names of.
pub const NAME_KEYS: [(&str, ResourceKind); 5] = [
    ("topics", ResourceKind::Topic),
    ("groups", ResourceKind::Group),
    ("transactionalIds", ResourceKind::TransactionalId),
    ("delegationTokens", ResourceKind::DelegationToken),
    ("users", ResourceKind::User),
];

/// Reads the `spec` of an `AccessPolicy`. `None` if anything in it is wrong.
pub fn access_policy(name: &str, spec: &Node, problems: &mut Problems) -> Option<AccessPolicy> {
    let mut found = Problems::default();
    let policy = read(name, spec, &mut found);
    let sound = !found.has_errors();
    problems.list.append(&mut found.list);
    policy.filter(|_| sound)
}

fn read(name: &str, spec: &Node, problems: &mut Problems) -> Option<AccessPolicy> {
    let mut fields = Fields::of(spec, problems)?;
    Mode::take(&mut fields, problems);
    let principals = fields.require("principals", problems);
    let hosts = fields.take("hosts");
    let rules = fields.require("rules", problems);
    fields.finish(problems);

    let principals = principals.and_then(|n| n.list_not_empty(problems));
    let principals: Vec<_> = (principals.unwrap_or_default().iter())
        .filter_map(|n| principal_at(n, problems))
        .collect();
    let hosts = hosts.and_then(|n| n.list_not_empty(problems));
    let hosts = (hosts.unwrap_or_default().iter())
        .filter_map(|n| host_at(n, problems))
        .collect();
    let rules = rules?;
    let items = rules.list(problems)?;
    if items.is_empty() {
        problems.warning(&rules.place, "a policy without rules");
    }
    if items.len() > RULES_MAX {
        let message = format!("{} rules, at most {RULES_MAX} are allowed", items.len());
        problems.error(&rules.place, message);
        return None;
    }
    let name = name.to_owned();
    let rules = items.iter().filter_map(|n| rule(n, problems)).collect();
    Some(AccessPolicy {
        name,
        principals,
        hosts,
        rules,
    })
}

fn rule(node: &Node, problems: &mut Problems) -> Option<Rule> {
    let mut fields = Fields::of(node, problems)?;
    let allow = fields.take("allow");
    let deny = fields.take("deny");
    let mut resources = Vec::new();
    for (key, kind) in NAME_KEYS {
        let Some(list) = fields.take(key) else {
            continue;
        };
        for item in list.list_not_empty(problems).unwrap_or_default() {
            if let Some(names) = names_of(kind, item, problems) {
                resources.push(ResourcePattern { kind, names });
            }
        }
    }
    let mut kinds: Vec<ResourceKind> = resources.iter().map(|r| r.kind).collect();
    if let Some(cluster) = fields.take("cluster") {
        kinds.push(ResourceKind::Cluster);
        if cluster.boolean(problems) == Some(false) {
            problems
                .error(&cluster.place, "expected `cluster: true`, got `false`")
                .help("leave the key out");
        }
        resources.push(ResourcePattern {
            kind: ResourceKind::Cluster,
            names: NamePattern::Literal(Template::text(CLUSTER_NAME)),
        });
    }
    // A misspelt key is one mistake, not two.
    let named = fields.misspelt("cluster") || NAME_KEYS.iter().any(|(k, _)| fields.misspelt(k));
    let judged = fields.misspelt("allow") || fields.misspelt("deny");
    fields.finish(problems);
    if !named {
        problems
            .error(&node.place, "a rule that names no resource")
            .help("add `topics`, `groups`, `cluster: true`, `transactionalIds`, …");
    }
    let (effect, list) = match (allow, deny) {
        (Some(list), None) => (Effect::Allow, list),
        (None, Some(list)) => (Effect::Deny, list),
        (None, None) => {
            if !judged {
                problems.error(&node.place, "a rule without `allow` or `deny`");
            }
            return None;
        }
        (Some(_), Some(list)) => {
            problems
                .error(&list.place, "a rule has either `allow` or `deny`, got both")
                .help("make two rules of it");
            return None;
        }
    };
    kinds.sort_unstable();
    kinds.dedup();
    let mut operations = Vec::new();
    for item in list.list_not_empty(problems)? {
        let Some(operation) = operation_at(item, problems) else {
            continue;
        };
        if operations.contains(&operation) {
            let message = format!("`{}` is listed twice", operation.name());
            problems.warning(&item.place, message);
            continue;
        }
        for kind in kinds.iter().filter(|k| !k.knows(operation)) {
            let (operation, kind) = (operation.name(), kind.name());
            problems
                .warning(
                    &item.place,
                    format!("`{operation}` has no meaning for {kind} resources"),
                )
                .help("Kafka never asks for it; take it out, or split the rule");
        }
        operations.push(operation);
    }
    Some(Rule {
        at: rule_ref(&node.place),
        effect,
        operations,
        resources,
    })
}

/// The rule at a place.
pub fn rule_ref(place: &Place) -> RuleRef {
    RuleRef {
        file: place.file.clone(),
        line: place.line,
    }
}

fn operation_at(node: &Node, problems: &mut Problems) -> Option<Operation> {
    let text = node.text(problems)?;
    let operation = Operation::named(text);
    if operation.is_none() {
        let problem = problems.error(&node.place, format!("unknown operation `{text}`"));
        let names = Operation::EVERY.iter().map(|o| o.name());
        problem.help(match did_you_mean(text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", names.collect::<Vec<_>>().join(", ")),
        });
    }
    operation
}

fn principal_at(node: &Node, problems: &mut Problems) -> Option<PrincipalPattern> {
    let text = node.name(problems)?;
    match principal(text) {
        Ok(pattern) => {
            if text.contains('*') && pattern != PrincipalPattern::Everyone {
                problems
                    .warning(&node.place, format!("the star in `{text}` means itself"))
                    .help("only `User:*` is a wildcard");
            }
            if let Some((_, name)) = text.split_once(':') {
                odd::principal(name, node, problems);
            }
            Some(pattern)
        }
        Err(message) => {
            problems.error(&node.place, message);
            None
        }
    }
}

/// A principal of a policy: `User:x`, `User:*`, `Group:g`, `Tenant:t`.
pub fn principal(text: &str) -> Result<PrincipalPattern, String> {
    let Some((kind, name)) = text.split_once(':') else {
        return Err(format!(
            "expected a principal such as `User:{text}`, got `{text}`"
        ));
    };
    if name.is_empty() {
        return Err(format!("expected a name after `{kind}:`, got nothing"));
    }
    if name.contains("${") {
        return Err(format!(
            "variables may only stand in resource names, got `{text}`"
        ));
    }
    let owned = name.to_owned();
    match kind {
        "User" if name == "*" => Ok(PrincipalPattern::Everyone),
        "User" => Ok(PrincipalPattern::User(owned)),
        "Group" => Ok(PrincipalPattern::Group(owned)),
        "Tenant" => Ok(PrincipalPattern::Tenant(owned)),
        _ => Err(format!(
            "expected a principal of type `User`, `Group` or `Tenant`, got `{text}`"
        )),
    }
}

fn host_at(node: &Node, problems: &mut Problems) -> Option<HostPattern> {
    let text = node.name(problems)?;
    let Some(pattern) = host(text) else {
        let message = format!("expected an address or CIDR such as `10.0.0.0/8`, got `{text}`");
        let problem = problems.error(&node.place, message);
        if text == "*" {
            problem.help("leave out `hosts` to mean every host");
        }
        return None;
    };
    let first = first_address(pattern);
    if first != pattern.network {
        let message = format!("`{text}` has bits set behind its prefix");
        let cidr = format!("{first}/{}", pattern.prefix_bits);
        problems
            .warning(&node.place, message)
            .help(format!("the network is `{cidr}`"));
    }
    Some(pattern)
}

/// An address or CIDR.
pub fn host(text: &str) -> Option<HostPattern> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let written: IpAddr = address.parse().ok()?;
    let network = written.to_canonical();
    let full = if network.is_ipv4() { 32 } else { 128 };
    let prefix_bits = match bits {
        None => full,
        // A length that was meant for the mapped form would mean another network here.
        Some(_) if network != written => return None,
        Some(bits) => {
            let decimal = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
            bits.parse().ok().filter(|b| decimal && *b <= full)?
        }
    };
    Some(HostPattern {
        network,
        prefix_bits,
    })
}

fn first_address(pattern: HostPattern) -> IpAddr {
    let low = |width: u8| u32::from(width - pattern.prefix_bits.min(width));
    match pattern.network {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(low(32)).unwrap_or(0);
            IpAddr::V4((a.to_bits() & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(low(128)).unwrap_or(0);
            IpAddr::V6((a.to_bits() & mask).into())
        }
    }
}

/// A name pattern for resources of a kind; one that no name matches is told.
pub fn names_of(kind: ResourceKind, node: &Node, problems: &mut Problems) -> Option<NamePattern> {
    let names = names_at(node, problems)?;
    odd::names(kind, &names, node, problems);
    Some(names)
}

/// A name pattern: text, `{literal: text}` or `{prefix: text}`.
fn names_at(node: &Node, problems: &mut Problems) -> Option<NamePattern> {
    if node.is_mapping() {
        return explicit_names(node, problems);
    }
    let text = node.name(problems)?;
    match names(text) {
        Ok(pattern) => Some(pattern),
        Err(message) => {
            let about_star = message.starts_with("a star");
            let problem = problems.error(&node.place, message);
            if about_star {
                problem.help("such a name is `{literal: \"a*\"}` or `{prefix: \"a*\"}`");
            }
            None
        }
    }
}

/// A name pattern written as plain text: `orders`, `orders.*`, `*`.
pub fn names(text: &str) -> Result<NamePattern, String> {
    if text == "*" {
        return Ok(NamePattern::All);
    }
    let (stem, is_prefix) = match text.strip_suffix('*') {
        Some(stem) => (stem, true),
        None => (text, false),
    };
    if stem.contains('*') {
        return Err(format!("a star may only stand at the end, got `{text}`"));
    }
    let template = template(stem)?;
    Ok(if is_prefix {
        NamePattern::Prefix(template)
    } else {
        NamePattern::Literal(template)
    })
}

fn explicit_names(node: &Node, problems: &mut Problems) -> Option<NamePattern> {
    let mut fields = Fields::of(node, problems)?;
    let literal = fields.take("literal");
    let prefix = fields.take("prefix");
    fields.finish(problems);
    let (text, is_prefix) = match (literal, prefix) {
        (Some(text), None) => (text, false),
        (None, Some(text)) => (text, true),
        _ => {
            let message = "expected either `literal` or `prefix`";
            problems.error(&node.place, message);
            return None;
        }
    };
    let written = text.name(problems)?;
    match template(written) {
        Ok(template) if is_prefix => Some(NamePattern::Prefix(template)),
        Ok(template) => {
            if written == "*" {
                problems
                    .warning(&text.place, "`{literal: \"*\"}` is only the name `*`")
                    .help("every name is `\"*\"`");
            }
            Some(NamePattern::Literal(template))
        }
        Err(message) => {
            problems.error(&text.place, message);
            None
        }
    }
}

/// Text with `${tenant}` and `${principal}` in it.
fn template(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let Some((name, behind)) = after.split_once('}') else {
            return Err(format!("`${{` without `}}` in `{text}`"));
        };
        parts.push(match name {
            "tenant" => Part::Tenant,
            "principal" => Part::Principal,
            _ => {
                return Err(format!(
                    "unknown variable `{name}`, expected `tenant` or `principal`"
                ));
            }
        });
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    if parts.is_empty() {
        return Err("expected a name, got an empty text".to_owned());
    }
    Ok(Template(parts))
}
