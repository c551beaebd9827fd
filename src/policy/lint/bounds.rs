//! Allows that no member of a tenant can use, since all of it lies outside of the tenant's
//! boundary. What is told is certain: where a variable leaves a doubt, nothing is said.

use super::warn;
use crate::policy::model::ResourceKind;
use crate::policy::rule::{
    AccessPolicy, Effect, NamePattern, Part, PrincipalPattern, ResourcePattern,
};
use crate::policy::tenant::{Boundary, Tenant};
use crate::problem::Problems;

/// Adds a warning for each allow whom only tenants may use, and none of them within its boundary.
pub fn lint(policies: &[AccessPolicy], tenants: &[Tenant], problems: &mut Problems) {
    for policy in policies {
        let bounded: Option<Vec<_>> = { policy.principals.iter() }
            .map(|principal| match principal {
                PrincipalPattern::Tenant(name) => bounded(name, tenants),
                _ => None,
            })
            .collect();
        let Some(bounded) = bounded else { continue };
        for rule in policy.rules.iter() {
            let is_outside = |resource: &ResourcePattern| {
                { bounded.iter() }.all(|(tenant, boundary)| outside(resource, tenant, boundary))
            };
            if let (Effect::Allow, Some((tenant, boundary))) = (rule.effect, bounded.first())
                && !rule.resources.is_empty()
                && rule.resources.iter().all(is_outside)
            {
                let at = &boundary.at;
                let message =
                    format!("allows nothing: all of it is outside of `{tenant}`'s boundary, {at}");
                let help = "a boundary holds whatever a rule allows; widen it or take the rule out";
                warn(&rule.at, message, "out-of-bounds", help, problems);
            }
        }
    }
}

/// The boundary of a tenant, if it has one.
fn bounded<'a>(name: &'a str, tenants: &'a [Tenant]) -> Option<(&'a str, &'a Boundary)> {
    let tenant = tenants.iter().find(|tenant| tenant.name == name)?;
    Some((name, tenant.boundary.as_ref()?))
}

/// Whether the boundary has no name in common with an allow, for any member of the tenant.
fn outside(resource: &ResourcePattern, tenant: &str, boundary: &Boundary) -> bool {
    let allowed = names(&resource.names, tenant);
    let mut inside = boundary.resources.iter();
    resource.kind != ResourceKind::Cluster
        && inside.all(|r| r.kind != resource.kind || apart(&allowed, &names(&r.names, tenant)))
}

/// Names that begin so, or only this one.
struct Names {
    stem: String,
    is_one: bool,
}

/// All names that a pattern can mean for members of the tenant, and perhaps others.
fn names(pattern: &NamePattern, tenant: &str) -> Names {
    let (parts, mut is_one): (&[Part], bool) = match pattern {
        NamePattern::All => (&[], false),
        NamePattern::Prefix(template) => (&template.0, false),
        NamePattern::Literal(template) => (&template.0, true),
    };
    let mut stem = String::new();
    for part in parts {
        match part {
            Part::Text(text) => stem += text,
            Part::Tenant => stem += tenant,
            Part::Principal => {
                is_one = false;
                break;
            }
        }
    }
    Names { stem, is_one }
}

fn apart(a: &Names, b: &Names) -> bool {
    let within = |one: &Names, other: &Names| match other.is_one {
        true => one.is_one && one.stem == other.stem,
        false => one.stem.starts_with(&other.stem),
    };
    !within(a, b) && !within(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use crate::policy::parse::{access_policy, rule_ref};
    use crate::policy::rule::Template;

    /// Whether the rule of `principals` is told, where `shop` may touch these topics only.
    fn told(principals: &str, rule: &str, inside: &[NamePattern]) -> bool {
        let mut problems = Problems::default();
        let text = format!("principals: [{principals}]\nrules: [{{{rule}}}]\n");
        let documents = document::parse(&"p.yaml".into(), &text, &mut problems);
        let policy = access_policy("p", &documents[0], &mut problems).unwrap();
        let at = rule_ref(&documents[0].place);
        let resources = inside.iter().cloned().map(|names| ResourcePattern {
            kind: ResourceKind::Topic,
            names,
        });
        let bounded = Tenant {
            name: "shop".to_owned(),
            at: at.clone(),
            matches: Vec::new(),
            boundary: Some(Boundary {
                at,
                resources: resources.collect(),
            }),
        };
        let free = Tenant {
            name: "free".to_owned(),
            boundary: None,
            ..bounded.clone()
        };
        problems.list.clear();
        lint(&[policy], &[bounded, free], &mut problems);
        let list = &problems.list;
        assert!(list.iter().all(|p| p.message.ends_with("[out-of-bounds]")));
        !list.is_empty()
    }

    #[test]
    fn an_allow_outside_of_the_boundary_of_all_whom_it_names_is_told() {
        let text = |text: &str| Template::text(text);
        let variable = |before: &str, part: Part| Template(vec![Part::Text(before.into()), part]);
        let inside = [
            NamePattern::Prefix(text("orders.")),
            NamePattern::Literal(text("audit")),
            NamePattern::Literal(variable("own.", Part::Principal)),
            NamePattern::Prefix(variable("of.", Part::Tenant)),
        ];
        let shop = |rule: &str| told("\"Tenant:shop\"", rule, &inside);
        for topics in [
            "x",
            "order",
            "audits",
            "\"audits*\"",
            "\"x.*\", y",
            "of.shed",
            "\"x.${principal}\"",
        ] {
            assert!(
                shop(&format!("allow: [Read], topics: [{topics}]")),
                "{topics}"
            );
        }
        for topics in [
            "\"*\"",
            "orders.a",
            "\"o*\"",
            "\"orders.a*\"",
            "audit",
            "\"a*\"",
            "own.a",
            "\"own.a*\"",
            "of.shop.a",
            "\"of.${tenant}\"",
            "\"${principal}\"",
            "x, orders.a",
        ] {
            assert!(
                !shop(&format!("allow: [Read], topics: [{topics}]")),
                "{topics}"
            );
        }
        // A kind that the boundary does not name is closed; the cluster is not bounded.
        assert!(shop("allow: [Read], groups: [\"*\"]"));
        assert!(!shop("allow: [Create], cluster: true"));
        assert!(!shop("allow: [Read], topics: [x], cluster: true"));
        assert!(!shop("deny: [Read], topics: [x]"));
        // Whom no boundary holds can use it.
        for others in ["User:a", "Group:a", "User:*", "Tenant:free", "Tenant:else"] {
            let principals = format!("\"Tenant:shop\", \"{others}\"");
            assert!(
                !told(&principals, "allow: [Read], topics: [x]", &inside),
                "{others}"
            );
        }
    }
}
