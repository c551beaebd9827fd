//! Tenants: who belongs to one, and the boundary around what its members may touch. A request
//! must pass the boundary and the rules; the boundary itself allows nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::compile::slot;
use super::model::{ResourceKind, RuleRef, Subject};
use super::rule::{NamePattern, ResourcePattern};
use crate::principal::{Principal, Proof, TextClaims};

/// One `Tenant` document.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// `metadata.name`: what rules, quotas and metrics call the tenant.
    pub name: String,
    /// Where `spec` stands.
    pub at: RuleRef,
    /// Who belongs to it where nothing proves a tenant: any of these.
    pub matches: Vec<TenantMatch>,
    /// What its members may touch; `None`: whatever the rules allow.
    pub boundary: Option<Boundary>,
}

/// An item of `spec.match.any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantMatch {
    /// The token says exactly this: all of these claims, name and value.
    Claims(Vec<(String, String)>),
    /// The SPIFFE id that a certificate proved.
    Spiffe(Text),
    /// The principal's name, `User:` left out; however it was proven.
    User(Text),
    /// One of the principal's groups.
    Group(Text),
}

/// Exactly a text, or all that begins with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, without the star.
    pub stem: String,
    /// Whether a star stood behind it.
    pub is_prefix: bool,
}

/// What the members of a tenant may touch. A kind that is not among the names is closed to them;
/// the cluster is not bounded.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Where it stands.
    pub at: RuleRef,
    /// The names.
    pub resources: Vec<ResourcePattern>,
}

/// Two tenants claim the same connection, which therefore belongs to neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("matches two tenants, `{}` ({}) and `{}` ({})", .0.0, .0.1, .1.0, .1.1)]
pub struct TwoTenants(pub (String, RuleRef), pub (String, RuleRef));

/// The tenant of a connection: the one that is proven, else the only one that matches; the empty
/// name where none does.
pub fn tenant_of(
    tenants: &[Tenant],
    proven: &Principal,
    claims: &TextClaims,
) -> Result<Arc<str>, TwoTenants> {
    if !proven.tenant.is_empty() {
        return Ok(Arc::clone(&proven.tenant));
    }
    let mut matching = tenants
        .iter()
        .filter(|tenant| tenant.matches.iter().any(|m| m.holds(proven, claims)));
    let Some(one) = matching.next() else {
        return Ok("".into());
    };
    match matching.next() {
        None => Ok(one.name.as_str().into()),
        Some(other) => {
            let told = |t: &Tenant| (t.name.clone(), t.at.clone());
            Err(TwoTenants(told(one), told(other)))
        }
    }
}

impl TenantMatch {
    fn holds(&self, who: &Principal, claims: &TextClaims) -> bool {
        match self {
            // Nothing to ask for would be everybody; the reader of files does not let it through.
            TenantMatch::Claims(wanted) => {
                !wanted.is_empty() && wanted.iter().all(|(name, value)| claims.says(name, value))
            }
            // A token may not name a SPIFFE id, a static identity may: only a certificate proves.
            TenantMatch::Spiffe(text) => {
                who.proof == Proof::Certificate
                    && who.bare_name().starts_with(SPIFFE)
                    && text.matches(who.bare_name())
            }
            TenantMatch::User(text) => text.matches(who.bare_name()),
            TenantMatch::Group(text) => who.groups.iter().any(|group| text.matches(group)),
        }
    }
}

/// How every SPIFFE id begins.
pub const SPIFFE: &str = "spiffe://";

impl Text {
    fn matches(&self, name: &str) -> bool {
        match self.is_prefix {
            true => name.starts_with(&*self.stem),
            false => name == self.stem,
        }
    }
}

/// A boundary for one subject, with variables filled in.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) rule: RuleRef,
    kinds: [Names; 6],
}

/// The names of one kind inside a boundary.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    all: bool,
    pub(super) literals: HashSet<Box<str>>,
    /// Sorted; none begins with another one.
    pub(super) prefixes: Vec<Box<str>>,
}

impl Bounds {
    pub(super) fn new(boundary: &Boundary, subject: &Subject<'_>) -> Bounds {
        let mut kinds: [Names; 6] = Default::default();
        kinds[slot(ResourceKind::Cluster)].all = true;
        for resource in &boundary.resources {
            let names = &mut kinds[slot(resource.kind)];
            // A variable without a value stands for no name: a boundary opens, as an allow does.
            match &resource.names {
                NamePattern::All => names.all = true,
                NamePattern::Literal(template) => {
                    names.literals.extend(template.fill(subject).map(Box::from));
                }
                NamePattern::Prefix(template) => {
                    names.prefixes.extend(template.fill(subject).map(Box::from));
                }
            }
        }
        for names in &mut kinds {
            names.prefixes.sort_unstable();
            // What begins with a name stands right behind it.
            names
                .prefixes
                .dedup_by(|next, kept| next.starts_with(&**kept));
        }
        Bounds {
            rule: boundary.at.clone(),
            kinds,
        }
    }

    pub(super) fn names(&self, kind: ResourceKind) -> &Names {
        &self.kinds[slot(kind)]
    }
}

impl Names {
    /// Whether every name of the kind is inside.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// Whether a name is inside.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.literals.contains(name) || self.contains_below(name)
    }

    /// Whether every name that begins with `stem` is inside. Since no prefix begins with another
    /// one, only the last that is not above the stem can be a prefix of it.
    pub(super) fn contains_below(&self, stem: &str) -> bool {
        let above = self.prefixes.partition_point(|p| **p <= *stem);
        let last = above.checked_sub(1).and_then(|at| self.prefixes.get(at));
        self.all || last.is_some_and(|p| stem.starts_with(&**p))
    }
}

#[cfg(test)]
mod tests;
