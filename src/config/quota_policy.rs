//! A `QuotaPolicy` document: whose traffic is limited, and to what.

use crate::document::{Fields, Node};
use crate::policy::mode::Mode;
use crate::policy::parse::rule_ref;
use crate::problem::Problems;
use crate::quota::spec::{QuotaEntity, QuotaName, QuotaSpec};

/// Reads the `spec` of a `QuotaPolicy`.
pub(super) fn quota(name: &str, spec: &Node, problems: &mut Problems) -> Option<QuotaSpec> {
    let mut fields = Fields::of(spec, problems)?;
    Mode::take(&mut fields, problems);
    let entity = fields.require("for", problems);
    if let Some(scope) = fields.take("scope") {
        scope.choice(&[("local", Some(())), ("fleet", None)], problems);
    }
    let limits = fields.require("limits", problems);
    fields.finish(problems);

    let entity = entity.and_then(|node| quota_entity(node, problems));
    let limits_node = limits?;
    let mut fields = Fields::of(limits_node, problems)?;
    let produce = fields.take("produce");
    let mut others = false;
    for key in [
        "fetch",
        "requests",
        "connections",
        "connectionRate",
        "mutations",
    ] {
        others |= fields.take(key).is_some();
        fields.refuse(key, problems);
    }
    fields.finish(problems);
    if produce.is_none() && !others {
        problems.error(&limits_node.place, "a quota without a limit");
    }
    Some(QuotaSpec {
        name: name.to_owned(),
        rule: rule_ref(&limits_node.place),
        entity: entity?,
        produce_bytes_per_second: produce.and_then(|n| n.bytes_per_second(problems)),
    })
}

fn quota_entity(node: &Node, problems: &mut Problems) -> Option<QuotaEntity> {
    let mut fields = Fields::of(node, problems)?;
    let mut name = |key: &'static str, problems: &mut Problems| {
        let text = fields.take(key)?.name(problems)?;
        Some(match text {
            "*" => QuotaName::Default,
            _ => QuotaName::Exact(text.to_owned()),
        })
    };
    let entity = QuotaEntity {
        tenant: name("tenant", problems),
        user: name("user", problems),
        client_id: name("clientId", problems),
    };
    let given: Vec<bool> = ["tenant", "user", "clientId"]
        .map(|key| fields.take(key).is_some())
        .to_vec();
    fields.finish(problems);
    match given[..] {
        [false, false, false] => {
            problems.error(
                &node.place,
                "expected `tenant`, `user` or `clientId`, got none",
            );
        }
        [true, user, client] if user || client => {
            problems.error(
                &node.place,
                "`tenant` goes with neither `user` nor `clientId`",
            );
        }
        _ => {}
    }
    if let Some(QuotaName::Exact(user)) = &entity.user
        && user.starts_with("User:")
    {
        problems
            .error(
                &node.place,
                format!("expected a user's name without its type, got `{user}`"),
            )
            .help("quotas of Kafka know names only, not types");
    }
    Some(entity)
}
