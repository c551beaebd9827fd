//! The rules in force as a list of ACLs, for whoever asks for them as at a broker: a filter with
//! Kafka's meaning (`AclBindingFilter`), and what goes beyond Kafka shown as text.
//!
//! `Group:` and `Tenant:` stand as principals, a network as a host, a variable in a name as it is
//! written. Kafka has no literal name `*` that is not every name: that one is shown as policies
//! write it.

use std::collections::BTreeSet;

use super::{Acl, java};
use crate::policy::compare;
use crate::policy::model::Operation;
use crate::policy::rule::{
    AccessPolicy, Effect, HostPattern, NamePattern, Part, PrincipalPattern, ResourcePattern,
    Template,
};

/// Most ACLs that are listed at once, those that several rules give counted each time.
pub const ACLS_MAX: usize = 50_000;
/// Most bytes of names, principals and hosts that are listed at once.
pub const ACLS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Kafka's codes in filters and ACLs (`ResourceType`, `PatternType`, `AclOperation`,
/// `AclPermissionType`). `UNKNOWN` means the same in all of them, and so does `ANY`.
pub mod code {
    #![allow(missing_docs)] // the names are Kafka's

    pub const UNKNOWN: i64 = 0;
    pub const ANY: i64 = 1;
    pub const MATCH: i64 = 2;
    pub const LITERAL: i64 = 3;
    pub const PREFIXED: i64 = 4;
    pub const DENY: i64 = 2;
    pub const ALLOW: i64 = 3;
}

/// Which ACLs are asked for. A code that Kafka does not know matches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The kind of resource, or any.
    pub kind: i64,
    /// The resource's name; `None`: any.
    pub name: Option<&'a str>,
    /// How the name is compared: `MATCH` finds every pattern that speaks of it.
    pub pattern: i64,
    /// The principal; `None`: any.
    pub principal: Option<&'a str>,
    /// The host; `None`: any.
    pub host: Option<&'a str>,
    /// The operation, or any.
    pub operation: i64,
    /// Whether it allows or denies, or either.
    pub permission: i64,
}

/// More ACLs match than are listed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Filter<'_> {
    fn resource(&self, kind: i64, is_prefix: bool, name: &str) -> bool {
        let pattern = match is_prefix {
            true => code::PREFIXED,
            false => code::LITERAL,
        };
        if self.kind != code::ANY && self.kind != kind {
            return false;
        }
        if !matches!(self.pattern, code::ANY | code::MATCH) && self.pattern != pattern {
            return false;
        }
        let Some(asked) = self.name else { return true };
        match (self.pattern, is_prefix) {
            (code::MATCH, true) => asked.starts_with(name),
            (code::MATCH, false) => asked == name || name == "*",
            _ => asked == name,
        }
    }

    fn principal(&self, principal: &str) -> bool {
        self.principal.is_none_or(|asked| asked == principal)
    }

    fn host(&self, host: &str) -> bool {
        self.host.is_none_or(|asked| asked == host)
    }

    fn operation(&self, operation: Operation) -> bool {
        self.operation == code::ANY || self.operation == i64::from(operation as u8)
    }

    fn permission(&self, deny: bool) -> bool {
        let permission = if deny { code::DENY } else { code::ALLOW };
        self.permission == code::ANY || self.permission == permission
    }
}

/// The ACLs that these policies are and that the filter asks for, each once.
pub fn list(policies: &[AccessPolicy], filter: &Filter<'_>) -> Result<BTreeSet<Acl>, TooMany> {
    let mut found = BTreeSet::new();
    let (mut count, mut bytes) = (0, 0);
    for policy in policies {
        let principals = policy.principals.iter().map(principal);
        let principals: Vec<String> = principals.filter(|p| filter.principal(p)).collect();
        let mut hosts: Vec<String> = policy.hosts.iter().map(host).collect();
        if policy.hosts.is_empty() {
            hosts.push("*".to_owned());
        }
        hosts.retain(|host| filter.host(host));
        if principals.is_empty() || hosts.is_empty() {
            continue;
        }
        for rule in policy.rules.iter() {
            let deny = rule.effect == Effect::Deny;
            let operations = rule.operations.iter().filter(|o| filter.operation(**o));
            let operations: Vec<Operation> = operations.copied().collect();
            if operations.is_empty() || !filter.permission(deny) {
                continue;
            }
            for ResourcePattern { kind, names } in &rule.resources {
                let (prefixed, name) = pattern(names);
                if !filter.resource(i64::from(*kind as u8), prefixed, &name) {
                    continue;
                }
                for (principal, host) in
                    (principals.iter()).flat_map(|p| hosts.iter().map(move |h| (p, h)))
                {
                    for operation in &operations {
                        count += 1;
                        bytes += name.len() + principal.len() + host.len();
                        if count > ACLS_MAX || bytes > ACLS_BYTES_MAX {
                            return Err(TooMany);
                        }
                        found.insert(Acl {
                            kind: *kind,
                            prefixed,
                            name: name.clone(),
                            principal: principal.clone(),
                            host: host.clone(),
                            operation: *operation,
                            deny,
                        });
                    }
                }
            }
        }
    }
    Ok(found)
}

fn principal(pattern: &PrincipalPattern) -> String {
    match pattern {
        PrincipalPattern::Everyone => "User:*".to_owned(),
        PrincipalPattern::User(name) => format!("User:{name}"),
        PrincipalPattern::Group(name) => format!("Group:{name}"),
        PrincipalPattern::Tenant(name) => format!("Tenant:{name}"),
    }
}

fn host(pattern: &HostPattern) -> String {
    let full = if pattern.network.is_ipv4() { 32 } else { 128 };
    match pattern.prefix_bits == full {
        true => java(pattern.network),
        false => format!("{}/{}", pattern.network, pattern.prefix_bits),
    }
}

/// Whether it is a prefix, and its name.
fn pattern(names: &NamePattern) -> (bool, String) {
    match names {
        NamePattern::All => (false, "*".to_owned()),
        NamePattern::Prefix(template) => (true, text(template)),
        NamePattern::Literal(template) => match text(template) {
            star if star == "*" => (false, compare::shown(names)),
            name => (false, name),
        },
    }
}

/// A name as it is written, variables included.
fn text(Template(parts): &Template) -> String {
    let parts = parts.iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Tenant => "${tenant}",
        Part::Principal => "${principal}",
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
