//! What the commands about policies share: reading a set of policies, who asks about what, and how
//! a rule is shown. Prints nothing by itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{Authorization, Config, Guards, guards};
use crate::document::did_you_mean;
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::principal::{Principal, Proof};
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
    match name.split_once(':') {
        Some((kind, rest)) if !kind.is_empty() && !rest.is_empty() => {}
        _ => {
            let bare = name.trim_matches(':');
            return Err(format!(
                "expected a principal such as `User:{bare}`, got `{name}`"
            ));
        }
    }
    if name == "User:*" {
        return Err("`User:*` is everybody: ask about one principal".to_owned());
    }
    Ok(Principal {
        name: name.into(),
        tenant: tenant.into(),
        groups: groups.iter().map(|g| g.as_str().into()).collect(),
        proof: Proof::Static,
        expires_at: None,
    })
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
