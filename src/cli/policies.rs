//! What the commands about policies share: reading a set of policies, who asks about what, and how
//! a rule is shown. Prints nothing by itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{Authorization, Config, Guards, guards};
use crate::document::did_you_mean;
use crate::identity::name::{self, NameFault};
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::policy::tenant::{self, SPIFFE, Tenant, TwoTenants};
use crate::principal::{Principal, Proof, TextClaims};
use crate::problem::Problems;

/// Where a question comes from unless it says so.
pub(super) const DEFAULT_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Reads directories and files as one set of policies; a set without a file is an error.
pub(super) fn load(paths: &[PathBuf], problems: &mut Problems) -> Guards {
    let guards = guards::load_paths(paths, problems);
    for path in paths {
        super::check::check_not_empty(path, &guards, problems);
    }
    guards
}

/// What a configuration says of who decides over access.
#[derive(Default)]
pub(super) struct Configured {
    pub(super) super_users: Vec<String>,
    /// The directory of policies in force.
    pub(super) policies: Option<PathBuf>,
    /// The directory that is decided beside it.
    pub(super) shadow: Option<PathBuf>,
}

/// The same, of a configuration in which policies decide.
pub(super) fn configured(config: Option<&Path>, problems: &mut Problems) -> Configured {
    let Some(path) = config else {
        return Configured::default();
    };
    let (config, mut found) = Config::load(path);
    problems.list.append(&mut found.list);
    let Some(config) = config else {
        return Configured::default();
    };
    match config.authorization {
        Authorization::Enforced { super_users } => Configured {
            super_users,
            policies: config.policies,
            shadow: config.shadow,
        },
        Authorization::Off => {
            let message = format!("`{}`: `authorization: off`", path.display());
            problems
                .error_without_place(message)
                .help("policies decide nothing there: the brokers do");
            Configured::default()
        }
    }
}

/// The super users of a configuration.
pub(super) fn super_users(config: Option<&Path>, problems: &mut Problems) -> Vec<String> {
    configured(config, problems).super_users
}

/// A principal as an argument or a test names it.
pub(super) fn principal(name: &str, tenant: &str, groups: &[String]) -> Result<Principal, String> {
    let bare = match name.split_once(':') {
        Some(("User", bare)) if !bare.is_empty() => bare,
        // Whoever connects is a `User`, so that any other question has no answer of the proxy's.
        Some((kind @ ("Group" | "Tenant"), bare)) if !bare.is_empty() => {
            let ask = "ask about a member of it, a `User:`";
            return Err(format!("nobody connects as `{kind}:{bare}`: {ask}"));
        }
        _ => {
            let bare = name.trim_matches(':');
            return Err(format!(
                "expected a principal such as `User:{bare}`, got `{name}`"
            ));
        }
    };
    if name == "User:*" {
        return Err("`User:*` is everybody: ask about one principal".to_owned());
    }
    // A SPIFFE id is a name that a certificate proves, and nothing else can.
    let is_spiffe = bare.starts_with(SPIFFE);
    match name::check(bare) {
        Ok(()) => {}
        Err(NameFault::Spiffe) if is_spiffe => {}
        Err(fault) => return Err(format!("nobody connects as `{name}`: the {fault}")),
    }
    Ok(Principal {
        name: name.into(),
        tenant: tenant.into(),
        groups: groups.iter().map(|g| g.as_str().into()).collect(),
        proof: match is_spiffe {
            true => Proof::Certificate,
            false => Proof::Static,
        },
        expires_at: None,
    })
}

/// Who a principal is once it is connected: where it was asked about without a tenant, a member of
/// the one whose `match` holds, as far as names and groups say so. Claims of a token are not known
/// here.
pub(super) fn placed(
    asked: &Principal,
    tenants: &[Tenant],
) -> Result<(Principal, Option<RuleRef>), TwoTenants> {
    let name = tenant::tenant_of(tenants, asked, &TextClaims::default())?;
    let by = tenants
        .iter()
        .find(|t| asked.tenant.is_empty() && *t.name == *name);
    let placed = Principal {
        tenant: name,
        ..asked.clone()
    };
    Ok((placed, by.map(|tenant| tenant.at.clone())))
}

/// An operation by its name.
pub(super) fn operation(text: &str) -> Result<Operation, String> {
    Operation::named(text).ok_or_else(|| {
        let names = Operation::EVERY.iter().map(|o| o.name());
        match did_you_mean(text, names.clone()) {
            Some(near) => format!("unknown operation `{text}`, did you mean `{near}`?"),
            None => {
                let names: Vec<&str> = names.collect();
                format!(
                    "unknown operation `{text}`, expected one of {}",
                    names.join(", ")
                )
            }
        }
    })
}

/// A resource as messages name it.
pub(super) fn resource(kind: ResourceKind, name: &str) -> String {
    match kind {
        ResourceKind::Cluster => "the cluster".to_owned(),
        ResourceKind::Topic => format!("topic `{name}`"),
        ResourceKind::Group => format!("consumer group `{name}`"),
        ResourceKind::TransactionalId => format!("transactional id `{name}`"),
        ResourceKind::DelegationToken => format!("delegation token `{name}`"),
        ResourceKind::User => format!("user `{name}`"),
    }
}

/// A rule for programs.
pub(super) fn rule_json(rule: Option<&RuleRef>) -> Value {
    rule.map_or(Value::Null, |r| json!({"file": &*r.file, "line": r.line}))
}

/// `allow` or `deny`.
pub(super) fn word(allowed: bool) -> &'static str {
    match allowed {
        true => "allow",
        false => "deny",
    }
}

/// Who asks, for messages: the name, then what else is known.
pub(super) fn shown(principal: &Principal) -> String {
    let mut out = principal.name.to_string();
    if !principal.tenant.is_empty() {
        out.push_str(&format!(", tenant {}", principal.tenant));
    }
    for group in principal.groups.iter() {
        out.push_str(&format!(", group {group}"));
    }
    out
}
