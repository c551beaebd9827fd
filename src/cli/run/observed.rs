//! What is decided beside the policies in force, without effect: policies that observe, and the
//! set of `authorization.shadow`.

use crate::admin::ShadowStatus;
use crate::config::Guards;
use crate::policy::PolicySet;
use crate::proxy::shadow::Set;
use crate::proxy::snapshot::Snapshot;
use crate::quota::Quotas;
use crate::telemetry::ShadowSet;

/// The sets of access rules, as many as there are.
pub(super) fn sets(guards: &Guards, super_users: &[String]) -> Vec<Set> {
    let observed = guards.observed().map(|(access, tenants)| Set {
        which: ShadowSet::Observe,
        access: PolicySet::new(access, super_users.to_vec()).within(tenants),
        // Who belongs to which tenant is not observed, but in force.
        tenants: None,
        digest: guards.digest.clone(),
        files: paths(guards),
    });
    let shadow = guards.shadow.as_deref().map(|guards| Set {
        which: ShadowSet::Shadow,
        access: PolicySet::new(guards.access.clone(), super_users.to_vec())
            .within(guards.tenants.clone()),
        tenants: Some(guards.tenants.clone()),
        digest: guards.digest.clone(),
        files: paths(guards),
    });
    observed.into_iter().chain(shadow).collect()
}

/// The quotas in force together with those that observe; none where nothing observes.
pub(super) fn quotas(guards: &Guards, old: Option<&Quotas>) -> Quotas {
    let all = match guards.observing.quotas.is_empty() {
        true => Vec::new(),
        false => [&guards.quotas[..], &guards.observing.quotas].concat(),
    };
    match old {
        Some(old) => old.reloaded(all),
        None => Quotas::new(all),
    }
}

/// What `/policies` says of them.
pub(super) fn status(snapshot: &Snapshot) -> Vec<ShadowStatus> {
    let status = |set: &Set| ShadowStatus {
        set: set.which.as_str(),
        digest: set.digest.clone(),
        files: set.files.clone(),
    };
    snapshot.shadows.iter().map(status).collect()
}

fn paths(guards: &Guards) -> Vec<String> {
    let paths = guards.paths.iter();
    paths.map(|path| path.display().to_string()).collect()
}
