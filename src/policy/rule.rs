//! Rules as written: who, from where, may or may not do what to which names. Values only; their
//! meaning is in `compile` and `decide`.

use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Operation, ResourceKind, RuleRef, Subject};

/// One `AccessPolicy` document.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    /// `metadata.name`.
    pub name: String,
    /// Whom the rules concern: any of these.
    pub principals: Vec<PrincipalPattern>,
    /// From where: any of these; empty: from everywhere.
    pub hosts: Vec<HostPattern>,
    /// The rules, in the order written; shared with what is remembered of the file.
    pub rules: Arc<[Rule]>,
}

/// One item of `spec.rules`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where the item stands.
    pub at: RuleRef,
    /// Allow or deny.
    pub effect: Effect,
    /// The operations named; [`Operation::All`] stands for every one.
    pub operations: Vec<Operation>,
    /// The names concerned.
    pub resources: Vec<ResourcePattern>,
}

/// What a matching rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Yes, unless a deny matches as well.
    Allow,
    /// No.
    Deny,
}

/// Names of one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePattern {
    /// The kind.
    pub kind: ResourceKind,
    /// The names.
    pub names: NamePattern,
}

/// A set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// Exactly this name.
    Literal(Template),
    /// Every name that begins so.
    Prefix(Template),
    /// Every name, the empty one included.
    All,
}

/// Text with variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands for itself.
    Text(String),
    /// `${tenant}`.
    Tenant,
    /// `${principal}`: the name without its type.
    Principal,
}

impl Template {
    /// Text without variables.
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// The text for this subject; `None` if a variable in it has no value.
    pub fn fill(&self, subject: &Subject<'_>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            let piece = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Tenant => &*subject.principal.tenant,
                Part::Principal => subject.principal.bare_name(),
            };
            if piece.is_empty() {
                return None;
            }
            out.push_str(piece);
        }
        Some(out)
    }
}

/// An item of `spec.principals`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalPattern {
    /// `User:*`: every principal of any type.
    Everyone,
    /// `User:name`.
    User(String),
    /// `Group:name`: a principal whose token lists that group.
    Group(String),
    /// `Tenant:name`: a principal of that tenant.
    Tenant(String),
}

impl PrincipalPattern {
    /// Whether the pattern means this subject. Case matters.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let principal = subject.principal;
        match self {
            Self::Everyone => true,
            Self::User(name) => is_named(&principal.name, "User", name),
            Self::Group(name) => {
                principal.groups.iter().any(|g| **g == **name)
                    || is_named(&principal.name, "Group", name)
            }
            Self::Tenant(name) => {
                (!name.is_empty() && *principal.tenant == **name)
                    || is_named(&principal.name, "Tenant", name)
            }
        }
    }
}

/// Kafka compares type and name for equality, for any type.
fn is_named(full: &str, kind: &str, name: &str) -> bool {
    full.split_once(':') == Some((kind, name))
}

/// An item of `spec.hosts`: an address is a network of full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// The address; for IPv4 never in its IPv6-mapped form.
    pub network: IpAddr,
    /// How many leading bits must be equal.
    pub prefix_bits: u8,
}

impl HostPattern {
    /// Whether an address lies in the network. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, host: IpAddr) -> bool {
        match (self.network, host.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(host)) => {
                let mask = mask(u128::from(u32::MAX), 32, self.prefix_bits);
                (u128::from(network.to_bits() ^ host.to_bits())) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(host)) => {
                (network.to_bits() ^ host.to_bits()) & mask(u128::MAX, 128, self.prefix_bits) == 0
            }
            _ => false,
        }
    }
}

/// The upper `bits` of `width` ones.
fn mask(ones: u128, width: u8, bits: u8) -> u128 {
    let low = u32::from(width.saturating_sub(bits));
    ones & u128::MAX.checked_shl(low).unwrap_or(0)
}
