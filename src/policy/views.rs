//! The views of a set that connections share. Whom the same policies concern, with the same
//! words for the same variables, gets the same view: a thousand connections of one service hold
//! one, and what a reload makes anew it makes once, before it takes effect
//! ([`PolicySet::prepared_for`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compile::PolicySet;
use super::decide::View;
use super::model::Subject;
use super::rule::{AccessPolicy, NamePattern, Part, PrincipalPattern, ResourcePattern};
use crate::principal::Principal;

/// Most views that a set remembers. With more kinds of subjects the views that nobody holds are
/// forgotten, and if all are held, further ones are not shared.
pub const VIEWS_MAX: usize = 1_024;

/// Which policies concern whom, found without asking each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Concerned {
    everyone: Vec<u32>,
    users: HashMap<Box<str>, Vec<u32>>,
    groups: HashMap<Box<str>, Vec<u32>>,
    tenants: HashMap<Box<str>, Vec<u32>>,
}

impl Concerned {
    pub(super) fn new(policies: &[AccessPolicy]) -> Concerned {
        let mut found = Concerned::default();
        for (at, policy) in (0..).zip(policies) {
            for pattern in &policy.principals {
                let (names, name) = match pattern {
                    PrincipalPattern::Everyone => {
                        found.everyone.push(at);
                        continue;
                    }
                    PrincipalPattern::User(name) => (&mut found.users, name),
                    PrincipalPattern::Group(name) => (&mut found.groups, name),
                    PrincipalPattern::Tenant(name) => (&mut found.tenants, name),
                };
                match names.get_mut(name.as_str()) {
                    Some(list) => list.push(at),
                    None => drop(names.insert(name.as_str().into(), vec![at])),
                }
            }
        }
        found
    }

    /// The policies one of whose principals is the subject, in the order of loading. The names
    /// found here are those that [`PrincipalPattern::matches`] compares with.
    pub(super) fn by(&self, principal: &Principal) -> Vec<u32> {
        let mut found = self.everyone.clone();
        let mut add = |names: &HashMap<Box<str>, Vec<u32>>, name: &str| {
            found.extend(names.get(name).into_iter().flatten());
        };
        for group in principal.groups.iter() {
            add(&self.groups, group);
        }
        if !principal.tenant.is_empty() {
            add(&self.tenants, &principal.tenant);
        }
        match principal.name.split_once(':') {
            Some(("User", name)) => add(&self.users, name),
            Some(("Group", name)) => add(&self.groups, name),
            Some(("Tenant", name)) => add(&self.tenants, name),
            _ => {}
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// All that a view depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) super_user: bool,
    /// Places of the policies that concern the subject.
    pub(super) policies: Box<[u32]>,
    /// Place of the tenant whose boundary holds.
    pub(super) bounded_by: Option<usize>,
    /// `${tenant}` and `${principal}`, where one of these has a variable.
    pub(super) filled: Option<(Arc<str>, Arc<str>)>,
}

/// The views made so far.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<HashMap<Class, Made>>);

#[derive(Debug)]
struct Made {
    view: Arc<View>,
    /// One of those for whom it was made.
    principal: Principal,
    host: IpAddr,
}

/// A copy of a set begins with no views.
impl Clone for Views {
    fn clone(&self) -> Self {
        Views::default()
    }
}

impl Views {
    fn lock(&self) -> MutexGuard<'_, HashMap<Class, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PolicySet {
    /// As [`view`](Self::view), shared with all for whom it is the same.
    pub fn shared_view(&self, subject: &Subject<'_>) -> Arc<View> {
        let class = self.class(subject);
        if let Some(made) = self.views.lock().get(&class) {
            return Arc::clone(&made.view);
        }
        // Not under the lock: others may need a view that is there.
        let view = Arc::new(self.view_of(&class, subject));
        let mut views = self.views.lock();
        if views.len() >= VIEWS_MAX {
            views.retain(|_, made| Arc::strong_count(&made.view) > 1);
        }
        if views.len() < VIEWS_MAX {
            let made = Made {
                view: Arc::clone(&view),
                principal: subject.principal.clone(),
                host: subject.host,
            };
            views.entry(class).or_insert(made);
        }
        view
    }

    /// Makes the views of everybody who holds one of `old`, so that nobody waits for it when
    /// this set takes its place. Where tenants are matched anew, a few will be missing.
    pub fn prepared_for(&self, old: &PolicySet) {
        let held: Vec<(Principal, IpAddr)> = {
            let views = old.views.lock();
            let held = views.values().filter(|m| Arc::strong_count(&m.view) > 1);
            held.map(|made| (made.principal.clone(), made.host))
                .collect()
        };
        for (principal, host) in held {
            self.shared_view(&Subject {
                principal: &principal,
                host,
            });
        }
    }

    /// How many views are remembered.
    pub fn views(&self) -> usize {
        self.views.lock().len()
    }
}

/// Whether what stands in these names differs from subject to subject.
pub(super) fn varies<'p>(mut patterns: impl Iterator<Item = &'p ResourcePattern>) -> bool {
    patterns.any(|pattern| match &pattern.names {
        NamePattern::All => false,
        NamePattern::Literal(template) | NamePattern::Prefix(template) => {
            let mut parts = template.0.iter();
            parts.any(|part| !matches!(part, Part::Text(_)))
        }
    })
}

#[cfg(test)]
mod tests;
