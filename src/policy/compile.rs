//! Rules to indexes: which rules can concern one subject at all, sorted by kind and name.

use std::collections::HashSet;

use super::decide::{ByName, Cell, Grant, Index, NO_RULE, Operations, View};
use super::model::{Operation, ResourceKind, Subject};
use super::rule::{AccessPolicy, Effect, NamePattern, Rule};
use super::tenant::{Bounds, Tenant};
use super::views::{Class, Concerned, Views, varies};

/// Every access rule in force. Cheap to share behind an `Arc`; [`PolicySet::shared_view`] is what
/// a connection holds.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    policies: Vec<AccessPolicy>,
    super_users: HashSet<String>,
    tenants: Vec<Tenant>,
    concerned: Concerned,
    /// Whether a name in this policy, by its place, has a variable.
    varying: Vec<bool>,
    pub(super) views: Views,
}

impl PolicySet {
    /// A set of policies; `super_users` are whole principals such as `User:admin`.
    pub fn new(policies: Vec<AccessPolicy>, super_users: Vec<String>) -> PolicySet {
        let varying = |policy: &AccessPolicy| {
            let resources = policy.rules.iter().flat_map(|rule| &rule.resources);
            varies(resources)
        };
        PolicySet {
            concerned: Concerned::new(&policies),
            varying: policies.iter().map(varying).collect(),
            policies,
            super_users: super_users.into_iter().collect(),
            tenants: Vec::new(),
            views: Views::default(),
        }
    }

    /// The same set within the boundaries of these tenants.
    pub fn within(self, tenants: Vec<Tenant>) -> PolicySet {
        PolicySet {
            tenants,
            views: Views::default(),
            ..self
        }
    }

    /// How many rules the set holds.
    pub fn rules(&self) -> usize {
        self.policies.iter().map(|p| p.rules.len()).sum()
    }

    /// The policies, in the order loaded.
    pub fn policies(&self) -> &[AccessPolicy] {
        &self.policies
    }

    /// Whether the subject is a super user, by the exact string `Type:name`.
    pub fn is_super_user(&self, subject: &Subject<'_>) -> bool {
        self.super_users.contains(&*subject.principal.name)
    }

    /// The rules that concern this subject, with variables filled in and indexed by name. The
    /// order of rules is that of loading; where several match, the first one is named.
    pub fn view(&self, subject: &Subject<'_>) -> View {
        self.view_of(&self.class(subject), subject)
    }

    /// What the subject's view depends on.
    pub(super) fn class(&self, subject: &Subject<'_>) -> Class {
        if self.is_super_user(subject) {
            return Class {
                super_user: true,
                policies: Box::default(),
                bounded_by: None,
                filled: None,
            };
        }
        let mut concerned = self.concerned.by(subject.principal);
        concerned.retain(|at| {
            let hosts = self.policies.get(*at as usize).map(|policy| &policy.hosts);
            hosts.is_some_and(|hosts| {
                hosts.is_empty() || hosts.iter().any(|host| host.contains(subject.host))
            })
        });
        // Two tenants of one name are a mistake that the reader of files reports.
        let mut tenants = self.tenants.iter();
        let bounded_by = tenants
            .position(|tenant| *tenant.name == *subject.principal.tenant)
            .filter(|at| self.tenants[*at].boundary.is_some());
        let boundary = bounded_by.and_then(|at| self.tenants[at].boundary.as_ref());
        let mut rules_vary = concerned.iter().map(|at| self.varying.get(*at as usize));
        let vary = rules_vary.any(|varying| varying == Some(&true))
            || boundary.is_some_and(|boundary| varies(boundary.resources.iter()));
        let principal = subject.principal;
        Class {
            super_user: false,
            policies: concerned.into(),
            bounded_by,
            filled: vary.then(|| (principal.tenant.clone(), principal.name.clone())),
        }
    }

    /// The view of a subject of this class.
    pub(super) fn view_of(&self, class: &Class, subject: &Subject<'_>) -> View {
        let mut kinds: [Collected; 6] = Default::default();
        let mut order = 0;
        let policies = class.policies.iter();
        for policy in policies.filter_map(|at| self.policies.get(*at as usize)) {
            for rule in policy.rules.iter() {
                order += 1;
                collect(rule, order, subject, &mut kinds);
            }
        }
        let tenant = class.bounded_by.and_then(|at| self.tenants.get(at));
        let boundary = tenant.and_then(|tenant| tenant.boundary.as_ref());
        let mut view = View {
            super_user: class.super_user,
            bounds: boundary.map(|boundary| Box::new(Bounds::new(boundary, subject))),
            kinds: kinds.map(Collected::index),
            writes_any_topic: NO_RULE,
        };
        view.writes_any_topic = view.search_any(Operation::Write, ResourceKind::Topic);
        view
    }
}

/// The patterns of one kind while they are being gathered.
#[derive(Default)]
struct Collected {
    literals: ByName,
    prefixes: ByName,
    all: Cell,
    denied: Operations,
}

fn collect(rule: &Rule, order: u32, subject: &Subject<'_>, kinds: &mut [Collected; 6]) {
    let grant = Grant {
        order,
        effect: rule.effect,
        operations: Operations::of(&rule.operations),
        rule: rule.at.clone(),
    };
    for resource in &rule.resources {
        let kind = &mut kinds[slot(resource.kind)];
        let filled = match &resource.names {
            NamePattern::All => None,
            NamePattern::Literal(t) => Some((t.fill(subject), false)),
            NamePattern::Prefix(t) => Some((t.fill(subject), true)),
        };
        let cell = match filled {
            Some((Some(name), false)) => kind.literals.entry(name.into()).or_default(),
            Some((Some(name), true)) => kind.prefixes.entry(name.into()).or_default(),
            // A variable without a value: the safe side, whichever way the rule points.
            Some((None, _)) if rule.effect == Effect::Allow => continue,
            Some((None, _)) | None => &mut kind.all,
        };
        if rule.effect == Effect::Deny {
            kind.denied = kind.denied.or(grant.operations);
        }
        cell.add(grant.clone());
    }
}

impl Collected {
    fn index(self) -> Index {
        let mut prefixes: Vec<(Box<str>, Cell)> = self.prefixes.into_iter().collect();
        prefixes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Index::new(self.literals, prefixes, self.all, self.denied)
    }
}

/// The place of a kind in the array of indexes.
pub(super) fn slot(kind: ResourceKind) -> usize {
    match kind {
        ResourceKind::Topic => 0,
        ResourceKind::Group => 1,
        ResourceKind::Cluster => 2,
        ResourceKind::TransactionalId => 3,
        ResourceKind::DelegationToken => 4,
        ResourceKind::User => 5,
    }
}
