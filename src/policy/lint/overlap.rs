//! Patterns with `${tenant}` by which members of one tenant reach names of another, whose own name
//! goes on where the pattern's prefix ends: `${tenant}.*` and the tenants `acme` and `acme.eu`.
//! Only tenants with a document are known here.

use super::warn;
use crate::policy::model::RuleRef;
use crate::policy::rule::{
    AccessPolicy, Effect, NamePattern, Part, PrincipalPattern, ResourcePattern, Template,
};
use crate::policy::tenant::Tenant;
use crate::problem::Problems;

/// Adds a warning for each allow whose pattern does so. A boundary that names the other's names is
/// told by itself ([`boundaries`]), and one that does not holds the members.
pub fn rules(policies: &[AccessPolicy], tenants: &[Tenant], problems: &mut Problems) {
    for policy in policies {
        let members = members(&policy.principals, tenants);
        let allows = policy.rules.iter().filter(|r| r.effect == Effect::Allow);
        for rule in allows {
            for template in rule.resources.iter().filter_map(of_tenants) {
                let mut free =
                    reached(template, &members).filter(|(one, _)| one.boundary.is_none());
                if let Some((one, other)) = free.next() {
                    tell(&rule.at, template, one, other, problems);
                }
            }
        }
    }
}

/// Adds a warning for each pattern of boundaries that does so.
pub fn boundaries(tenants: &[Tenant], problems: &mut Problems) {
    let mut told: Vec<&Template> = Vec::new();
    for tenant in tenants {
        let Some(boundary) = &tenant.boundary else {
            continue;
        };
        for template in boundary.resources.iter().filter_map(of_tenants) {
            if told.contains(&template) {
                continue;
            }
            let alike: Vec<&Tenant> = (tenants.iter())
                .filter(|tenant| {
                    let boundary = tenant.boundary.iter();
                    let mut resources = boundary.flat_map(|b| &b.resources);
                    resources.any(|other| of_tenants(other) == Some(template))
                })
                .collect();
            if let Some((one, other)) = reached(template, &alike).next() {
                let at = one.boundary.as_ref().map_or(&one.at, |b| &b.at);
                tell(at, template, one, other, problems);
            }
            told.push(template);
        }
    }
}

/// The prefix that a pattern is for each tenant; `None`: it is none, or not by tenant alone.
fn of_tenants(resource: &ResourcePattern) -> Option<&Template> {
    let NamePattern::Prefix(template) = &resource.names else {
        return None;
    };
    let has = |part: &Part| template.0.contains(part);
    (has(&Part::Tenant) && !has(&Part::Principal)).then_some(template)
}

/// Whom of the tenants a policy may concern.
fn members<'t>(principals: &[PrincipalPattern], tenants: &'t [Tenant]) -> Vec<&'t Tenant> {
    let named = |tenant: &&Tenant| {
        principals.iter().any(|principal| match principal {
            PrincipalPattern::Tenant(name) => *name == tenant.name,
            _ => true,
        })
    };
    tenants.iter().filter(named).collect()
}

/// Pairs of tenants, of which the first one's prefix is the beginning of the second one's.
fn reached<'t>(
    template: &Template,
    tenants: &[&'t Tenant],
) -> impl Iterator<Item = (&'t Tenant, &'t Tenant)> {
    let mut filled: Vec<(String, &Tenant)> = { tenants.iter() }
        .map(|tenant| (stem(template, &tenant.name), *tenant))
        .collect();
    filled.sort_by(|(a, _), (b, _)| a.cmp(b));
    // What begins with a text follows it in this order.
    let next = filled.clone().into_iter().skip(1);
    let pairs = filled.into_iter().zip(next);
    pairs.filter_map(|((one, a), (other, b))| other.starts_with(&one).then_some((a, b)))
}

fn stem(template: &Template, tenant: &str) -> String {
    let parts = template.0.iter().map(|part| match part {
        Part::Text(text) => text,
        _ => tenant,
    });
    parts.collect()
}

fn tell(at: &RuleRef, template: &Template, one: &Tenant, other: &Tenant, problems: &mut Problems) {
    let written = stem(template, "${tenant}");
    let (reaches, own) = (stem(template, &one.name), stem(template, &other.name));
    let message = format!(
        "`{written}*` lets `{}` reach names of `{}`: `{own}*` is a part of `{reaches}*`",
        one.name, other.name
    );
    let help = "end the prefix with a character that no tenant's name holds, or rename one of them";
    warn(at, message, "shared-prefix", help, problems);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use crate::policy::parse::{access_policy, rule_ref};
    use crate::policy::tenant::Boundary;

    /// What is told of a rule for `principals`, with these tenants; those that begin with a `+`
    /// have a boundary of `bounds`.
    fn told(principals: &str, rule: &str, tenants: &[&str], bounds: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let mut policy = |principals: &str, rule: &str| {
            let text = format!("principals: [{principals}]\nrules: [{{{rule}}}]\n");
            let documents = document::parse(&"p.yaml".into(), &text, &mut problems);
            let policy = access_policy("p", &documents[0], &mut problems).unwrap();
            (policy, rule_ref(&documents[0].place))
        };
        let (inside, at) = policy(
            "\"User:a\"",
            &format!("allow: [Read], topics: [\"{bounds}\"]"),
        );
        let tenants: Vec<Tenant> = (tenants.iter())
            .map(|name| Tenant {
                name: name.trim_start_matches('+').to_owned(),
                at: at.clone(),
                matches: Vec::new(),
                boundary: name.starts_with('+').then(|| Boundary {
                    at: at.clone(),
                    resources: inside.rules[0].resources.clone(),
                }),
            })
            .collect();
        let (policy, _) = policy(principals, rule);
        assert!(problems.list.is_empty());
        rules(&[policy], &tenants, &mut problems);
        boundaries(&tenants, &mut problems);
        let list = problems.list.into_iter();
        list.map(|p| p.message.replace(" [shared-prefix]", ""))
            .collect()
    }

    #[test]
    fn a_pattern_that_reaches_another_tenant_is_told() {
        let rule = "allow: [Read], topics: [\"in.${tenant}.*\"]";
        let names = ["acme", "beta", "acme.eu", "acme2"];
        assert_eq!(
            told("\"User:*\"", rule, &names, "x"),
            [
                "`in.${tenant}.*` lets `acme` reach names of `acme.eu`: `in.acme.eu.*` is a part \
                 of `in.acme.*`"
            ]
        );
        let both = "\"Tenant:acme\", \"Tenant:acme.eu\"";
        assert_eq!(told(both, rule, &names, "x").len(), 1);
        assert!(told("\"Tenant:beta\", \"Tenant:acme2\"", rule, &names, "x").is_empty());
        let open = "allow: [Read], topics: [\"${tenant}*\"]";
        assert_eq!(told("\"User:a\"", open, &["acme", "acme2"], "x").len(), 1);
    }

    #[test]
    fn what_reaches_nobody_is_not_told() {
        let names = ["acme", "acme.eu"];
        for rule in [
            "allow: [Read], topics: [\"${tenant}_*\"]",
            "allow: [Read], topics: [\"${tenant}\"]",
            "allow: [Read], topics: [\"${tenant}.${principal}.*\"]",
            "allow: [Read], topics: [\"acme*\"]",
            "deny: [Read], topics: [\"${tenant}.*\"]",
        ] {
            let found = told("\"User:*\"", rule, &names, "x");
            assert!(found.is_empty(), "{rule}: {found:?}");
        }
    }

    #[test]
    fn a_boundary_is_told_by_itself_and_holds_what_a_rule_says() {
        let rule = "allow: [Read], topics: [\"${tenant}.*\"]";
        let names = ["+acme", "+acme.eu"];
        let found = told("\"User:*\"", rule, &names, "${tenant}.*");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(told("\"User:*\"", rule, &names, "acme").is_empty());
        assert_eq!(
            told("\"User:*\"", rule, &["+acme", "acme.eu"], "acme").len(),
            0
        );
        assert_eq!(
            told("\"User:*\"", rule, &["acme", "+acme.eu"], "acme").len(),
            1
        );
    }
}
