//! Whom a comparison asks about: the finitely many subjects that two sets of policies tell apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Changed, SUBJECTS_MAX, Side, TooLarge};
use crate::policy::rule::{HostPattern, NamePattern, Part, PrincipalPattern, Template};
use crate::principal::{Principal, Proof};

/// One subject, without the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Facts {
    pub(super) user: Option<String>,
    pub(super) tenant: Tenant,
    pub(super) groups: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Tenant {
    None,
    /// One that no policy names; it matters only where a variable stands for it.
    Other,
    Named(String),
}

pub(super) struct Who {
    pub(super) facts: Facts,
    pub(super) principal: Principal,
}

impl Who {
    pub(super) fn of(facts: Facts, fresh: &str) -> Who {
        // Three texts of which none begins with another: a user, a tenant and a name.
        let user = match &facts.user {
            Some(user) => user.clone(),
            None => format!("{fresh}u"),
        };
        let tenant = match &facts.tenant {
            Tenant::None => String::new(),
            Tenant::Other => format!("{fresh}t"),
            Tenant::Named(name) => name.clone(),
        };
        let principal = Principal {
            name: format!("User:{user}").into(),
            tenant: tenant.into(),
            groups: facts.groups.iter().map(|g| Arc::from(&**g)).collect(),
            proof: Proof::Static,
            expires_at: None,
        };
        Who { facts, principal }
    }

    pub(super) fn shown(&self) -> Vec<String> {
        let Facts {
            user,
            tenant,
            groups,
        } = &self.facts;
        let mut out: Vec<String> = user.iter().map(|u| format!("User:{u}")).collect();
        match tenant {
            Tenant::None => {}
            Tenant::Other => out.push("any other tenant".to_owned()),
            Tenant::Named(name) => out.push(format!("Tenant:{name}")),
        }
        out.extend(groups.iter().map(|g| format!("Group:{g}")));
        out
    }

    /// The subjects of which one fact less is known.
    pub(super) fn less_special(&self, with_other_tenant: bool) -> Vec<Facts> {
        let mut out = Vec::new();
        let facts = &self.facts;
        if facts.user.is_some() {
            let user = None;
            out.push(Facts {
                user,
                ..facts.clone()
            });
        }
        if facts.tenant != Tenant::None {
            let tenant = Tenant::None;
            out.push(Facts {
                tenant,
                ..facts.clone()
            });
        }
        if with_other_tenant && matches!(facts.tenant, Tenant::Named(_)) {
            let tenant = Tenant::Other;
            out.push(Facts {
                tenant,
                ..facts.clone()
            });
        }
        for group in &facts.groups {
            let mut groups = facts.groups.clone();
            groups.remove(group);
            out.push(Facts {
                groups,
                ..facts.clone()
            });
        }
        out
    }
}

/// Every name that either set mentions.
pub(super) struct World {
    pub(super) users: BTreeSet<String>,
    pub(super) tenants: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
    pub(super) hosts: Vec<Host>,
    /// A text that no name of either set holds.
    pub(super) fresh: String,
    pub(super) tenant_variable: bool,
    pub(super) principal_variable: bool,
}

/// Addresses that no policy tells apart.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) shown: String,
}

impl World {
    pub(super) fn of(old: Side<'_>, new: Side<'_>) -> World {
        let policies = || old.policies.iter().chain(new.policies);
        let tenants = || old.tenants.iter().chain(new.tenants);
        let mut world = World {
            users: BTreeSet::new(),
            tenants: BTreeSet::new(),
            groups: BTreeSet::new(),
            hosts: hosts(policies().flat_map(|p| &p.hosts).copied().collect()),
            fresh: String::new(),
            tenant_variable: false,
            principal_variable: false,
        };
        let mut texts: Vec<&str> = Vec::new();
        for policy in policies() {
            for principal in &policy.principals {
                let (names, name) = match principal {
                    PrincipalPattern::Everyone => continue,
                    PrincipalPattern::User(name) => (&mut world.users, name),
                    PrincipalPattern::Group(name) => (&mut world.groups, name),
                    PrincipalPattern::Tenant(name) => (&mut world.tenants, name),
                };
                names.insert(name.clone());
                texts.push(name);
            }
        }
        for tenant in tenants().filter(|tenant| tenant.boundary.is_some()) {
            world.tenants.insert(tenant.name.clone());
            texts.push(&tenant.name);
        }
        let rules = policies().flat_map(|p| p.rules.iter());
        let bounds = tenants().filter_map(|t| t.boundary.as_ref());
        let resources = rules
            .flat_map(|r| &r.resources)
            .chain(bounds.flat_map(|b| &b.resources));
        let names: Vec<&NamePattern> = resources.map(|r| &r.names).collect();
        for template in names.iter().filter_map(|names| template(names)) {
            for part in &template.0 {
                match part {
                    Part::Text(text) => texts.push(text),
                    Part::Tenant => world.tenant_variable = true,
                    Part::Principal => world.principal_variable = true,
                }
            }
        }
        let (tenants, users) = coincidences(&names);
        world.tenants.extend(tenants);
        world.users.extend(users);
        if world.tenant_variable && world.principal_variable {
            // One name may be both, and then two variables are one.
            let both: BTreeSet<String> = world.users.union(&world.tenants).cloned().collect();
            world.users.clone_from(&both);
            world.tenants = both;
        }
        texts.extend(world.users.iter().map(String::as_str));
        texts.extend(world.tenants.iter().map(String::as_str));
        // A text longer than every other is no part of one.
        let longest = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0);
        let first = ('\u{1}'..).find(|c| !texts.iter().any(|t| t.contains(*c)));
        world.fresh = match first {
            Some(unused) => unused.to_string(),
            None => "x".repeat(longest + 1),
        };
        world
    }

    /// The subjects to ask about, the least special first.
    pub(super) fn subjects(&self, changed: &Changed<'_>) -> Result<Vec<Who>, TooLarge> {
        let facts_max =
            2 + usize::from(self.tenant_variable) + usize::from(self.principal_variable);
        let mut users: Vec<Option<&String>> = vec![None];
        users.extend(self.users.iter().map(Some));
        let mut tenants = vec![Tenant::None];
        tenants.extend(self.tenant_variable.then_some(Tenant::Other));
        tenants.extend(self.tenants.iter().cloned().map(Tenant::Named));
        let groups: Vec<&String> = self.groups.iter().collect();
        let mut sets: Vec<BTreeSet<String>> = vec![BTreeSet::new()];
        for (i, one) in groups.iter().enumerate() {
            sets.push([(*one).clone()].into());
            for two in &groups[i + 1..] {
                sets.push([(*one).clone(), (*two).clone()].into());
                if sets.len() > SUBJECTS_MAX {
                    return Err(TooLarge);
                }
            }
        }
        let mut found: Vec<(usize, Who)> = Vec::new();
        for user in &users {
            for tenant in &tenants {
                for groups in &sets {
                    let count = usize::from(user.is_some())
                        + usize::from(*tenant != Tenant::None)
                        + groups.len();
                    if count > facts_max {
                        continue;
                    }
                    let facts = Facts {
                        user: user.cloned(),
                        tenant: tenant.clone(),
                        groups: groups.clone(),
                    };
                    let who = Who::of(facts, &self.fresh);
                    if changed.concern(&who) {
                        found.push((count, who));
                    }
                    if found.len() > SUBJECTS_MAX {
                        return Err(TooLarge);
                    }
                }
            }
        }
        found.sort_by_key(|(count, _)| *count);
        Ok(found.into_iter().map(|(_, who)| who).collect())
    }
}

/// The tenants and the users for whom a name with a variable becomes one that is written out, or
/// meets it as a prefix: a rule about one of the two is then about the other's name as well.
fn coincidences(names: &[&NamePattern]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut tenants, mut users) = (BTreeSet::new(), BTreeSet::new());
    let is_prefix = |names: &NamePattern| matches!(names, NamePattern::Prefix(_));
    let written = names.iter().filter_map(|names| {
        let parts = template(names)?.0.iter().map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Tenant | Part::Principal => None,
        });
        Some((parts.collect::<Option<String>>()?, is_prefix(names)))
    });
    let written: BTreeSet<(String, bool)> = written.collect();
    for &names in names {
        let Some(Template(parts)) = template(names) else {
            continue;
        };
        let is_variable = |part: &Part| !matches!(part, Part::Text(_));
        let Some(at) = parts.iter().position(is_variable) else {
            continue;
        };
        let text = |parts: &[Part]| -> Option<String> {
            let texts = parts.iter().map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Tenant | Part::Principal => None,
            });
            texts.collect()
        };
        // Two variables in one name meet a written one in too many ways to list.
        let (Some(before), Some(behind)) = (text(&parts[..at]), text(&parts[at + 1..])) else {
            continue;
        };
        let found = match parts[at] {
            Part::Tenant => &mut tenants,
            _ => &mut users,
        };
        for (name, is_written_prefix) in &written {
            let Some(rest) = name.strip_prefix(&before) else {
                continue;
            };
            let ends = (1..=rest.len()).filter(|end| rest.is_char_boundary(*end));
            for (value, left) in ends.map(|end| rest.split_at(end)) {
                let meets = match is_prefix(names) || *is_written_prefix {
                    true => left.starts_with(&behind) || behind.starts_with(left),
                    false => left == behind,
                };
                if meets {
                    found.insert(value.to_owned());
                }
            }
        }
    }
    (tenants, users)
}

pub(super) fn template(names: &NamePattern) -> Option<&Template> {
    match names {
        NamePattern::Literal(template) | NamePattern::Prefix(template) => Some(template),
        NamePattern::All => None,
    }
}

/// One address for each set of networks that an address can lie in.
fn hosts(mut networks: Vec<HostPattern>) -> Vec<Host> {
    let key = |n: &HostPattern| (n.prefix_bits, n.network);
    networks.sort_by_key(key);
    networks.dedup();
    let mut addresses: Vec<IpAddr> =
        vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for network in &networks {
        addresses.extend(ends(*network));
    }
    let mut seen = BTreeMap::new();
    for address in addresses {
        let inside: Vec<bool> = networks.iter().map(|n| n.contains(address)).collect();
        // Where nothing is named, the family of an address does not matter.
        let smallest = (networks.iter().rev())
            .filter(|n| n.contains(address))
            .max_by_key(|n| n.prefix_bits);
        let shown = match smallest {
            Some(n) if n.prefix_bits == if n.network.is_ipv4() { 32 } else { 128 } => {
                n.network.to_string()
            }
            Some(n) => format!("{}/{}", n.network, n.prefix_bits),
            None => "other hosts".to_owned(),
        };
        seen.entry(inside).or_insert(Host { address, shown });
    }
    seen.into_values().collect()
}

/// The first address of a network, and the one behind its last.
fn ends(network: HostPattern) -> Vec<IpAddr> {
    match network.network {
        IpAddr::V4(a) => {
            let low = 32 - u32::from(network.prefix_bits.min(32));
            let ones = if low == 32 {
                u32::MAX
            } else {
                (1u32 << low) - 1
            };
            let first = a.to_bits() & !ones;
            let behind = (first | ones).checked_add(1);
            let all = [Some(first), behind].into_iter().flatten();
            all.map(|bits| IpAddr::V4(bits.into())).collect()
        }
        IpAddr::V6(a) => {
            let low = 128 - u32::from(network.prefix_bits.min(128));
            let ones = if low == 128 {
                u128::MAX
            } else {
                (1u128 << low) - 1
            };
            let first = a.to_bits() & !ones;
            let behind = (first | ones).checked_add(1);
            let all = [Some(first), behind].into_iter().flatten();
            all.map(|bits| IpAddr::V6(bits.into())).collect()
        }
    }
}
