//! Rules that are valid and probably not meant. Each finding is a fact about what the set decides,
//! and never changes it; each has a name, which stands at the end of its message.
//!
//! - `contradictory`: an allow and a deny of the same, so that the allow is without effect.
//! - `unreachable`: an allow of which denies leave nothing.
//! - `duplicate`: a rule that changes nothing, because others of its effect say all of it.
//! - `covered-name`: a name beside a pattern that covers it, in one rule.
//! - `over-broad`: everything on every name allowed to everybody from everywhere.
//! - `too-many`: not a finding; there are more rules than are compared.
//! - `nearly-same-name`: two groups or tenants that differ only in upper and lower case.
//! - `out-of-bounds`: an allow for tenants, all of it outside of their boundaries ([`bounds`]).
//! - `shared-prefix`: a `${tenant}` pattern that reaches names of another tenant ([`overlap`]).

pub mod bounds;
pub mod overlap;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::compare::shown;
use super::model::{Operation, ResourceKind, RuleRef};
use super::rule::{
    AccessPolicy, Effect, HostPattern, NamePattern, Part, PrincipalPattern, ResourcePattern, Rule,
    Template,
};
use crate::problem::{Place, Problems};

/// How many pairs of rules are compared; beyond it, the rules that are left are not looked at.
pub const COMPARISONS_MAX: usize = 5_000_000;

/// How many pairs of their names are compared.
pub const NAMES_COMPARED_MAX: usize = 100_000_000;

/// Adds a warning for each finding.
pub fn lint(policies: &[AccessPolicy], problems: &mut Problems) {
    let rules: Vec<Placed<'_>> = (policies.iter())
        .flat_map(|policy| policy.rules.iter().map(move |rule| Placed { policy, rule }))
        .collect();
    for placed in &rules {
        over_broad(placed, problems);
        covered_names(placed.rule, problems);
    }
    nearly_same(policies, problems);
    let mut lints = Coverage {
        near: near(&rules),
        gone: vec![false; rules.len()],
        rules: &rules,
        comparisons: 0,
        names_compared: 0,
    };
    lints.denied(problems);
    lints.repeated(problems);
    if (lints.comparisons > COMPARISONS_MAX || lints.names_compared > NAMES_COMPARED_MAX)
        && let Some(first) = rules.first()
    {
        let message = "more rules than lints compare; a part was not looked at".to_owned();
        let help = "check parts of the policies on their own";
        warn(&first.rule.at, message, "too-many", help, problems);
    }
}

#[derive(Clone, Copy)]
struct Placed<'a> {
    policy: &'a AccessPolicy,
    rule: &'a Rule,
}

fn warn(at: &RuleRef, message: String, name: &str, help: &str, problems: &mut Problems) {
    let place = Place {
        file: Arc::clone(&at.file),
        line: at.line,
        column: 1,
    };
    let problem = problems.warning(&place, format!("{message} [{name}]"));
    problem.help(help);
}

fn over_broad(placed: &Placed<'_>, problems: &mut Problems) {
    let Placed { policy, rule } = placed;
    let everything = rule.effect == Effect::Allow && rule.operations.contains(&Operation::All);
    let everybody = policy.principals.contains(&PrincipalPattern::Everyone);
    if !(everything && everybody && policy.hosts.is_empty()) {
        return;
    }
    let all = rule
        .resources
        .iter()
        .find(|r| r.names == NamePattern::All || r.kind == ResourceKind::Cluster);
    if let Some(resource) = all {
        let what = match resource.kind {
            ResourceKind::Cluster => "the cluster".to_owned(),
            kind => format!("every {}", kind.name()),
        };
        let message = format!("allows everybody everything on {what}");
        let help = "name the principals or the operations; `authorization: off` decides nothing";
        warn(&rule.at, message, "over-broad", help, problems);
    }
}

fn covered_names(rule: &Rule, problems: &mut Problems) {
    let written = Written::of(rule);
    for (i, one) in rule.resources.iter().enumerate() {
        let other = written.around(one).into_iter().find(|j| {
            let other = &rule.resources[*j];
            // Of two that are equal, the second one is too many.
            let covered = |a, b| covers(a, b) && without_surprise(rule.effect, a, b);
            *j != i && covered(other, one) && (*j < i || !covered(one, other))
        });
        if let Some(other) = other {
            let (one, other) = (shown(&one.names), shown(&rule.resources[other].names));
            let message = match one == other {
                true => format!("`{one}` is listed twice"),
                false => format!("`{one}` is covered by `{other}` beside it"),
            };
            warn(&rule.at, message, "covered-name", "take it out", problems);
        }
    }
}

/// The first place of each pattern in a rule, by its kind and text: in a list of many thousand
/// names, each is held against the few that may cover it.
#[derive(Default)]
struct Written {
    all: HashMap<ResourceKind, usize>,
    literals: HashMap<ResourceKind, HashMap<String, usize>>,
    prefixes: HashMap<ResourceKind, HashMap<String, usize>>,
}

impl Written {
    fn of(rule: &Rule) -> Written {
        let mut written = Written::default();
        for (i, resource) in rule.resources.iter().enumerate() {
            let (by_text, template) = match &resource.names {
                NamePattern::All => {
                    written.all.entry(resource.kind).or_insert(i);
                    continue;
                }
                NamePattern::Literal(template) => (&mut written.literals, template),
                NamePattern::Prefix(template) => (&mut written.prefixes, template),
            };
            let by_text = by_text.entry(resource.kind).or_default();
            by_text.entry(flat(template)).or_insert(i);
        }
        written
    }

    /// Those that may cover a pattern, in the order written.
    fn around(&self, one: &ResourcePattern) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> = self.all.get(&one.kind).copied().into_iter().collect();
        let (NamePattern::Literal(template) | NamePattern::Prefix(template)) = &one.names else {
            return found;
        };
        let text = flat(template);
        let literals = self.literals.get(&one.kind);
        found.extend(literals.and_then(|texts| texts.get(&text)));
        if let Some(prefixes) = self.prefixes.get(&one.kind) {
            let ends = (1..=text.len()).filter(|end| text.is_char_boundary(*end));
            found.extend(ends.filter_map(|end| prefixes.get(&text[..end])));
        }
        found
    }
}

/// A template as one text, in which characters that no name holds stand for variables: one
/// template begins with another one where its text does.
fn flat(template: &Template) -> String {
    let parts = template.0.iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Tenant => "\u{1}",
        Part::Principal => "\u{2}",
    });
    parts.collect()
}

/// Group and tenant names are compared with their case, so one of the two is likely to match
/// nobody. Who writes both into one policy means both.
fn nearly_same(policies: &[AccessPolicy], problems: &mut Problems) {
    let mut seen: BTreeMap<(&str, String), BTreeMap<&str, Vec<&AccessPolicy>>> = BTreeMap::new();
    for policy in policies {
        for principal in &policy.principals {
            let (kind, name) = match principal {
                PrincipalPattern::Group(name) => ("Group", name),
                PrincipalPattern::Tenant(name) => ("Tenant", name),
                _ => continue,
            };
            let spellings = seen.entry((kind, name.to_lowercase())).or_default();
            spellings.entry(name).or_default().push(policy);
        }
    }
    for ((kind, _), spellings) in seen {
        let mut spellings: Vec<_> = spellings.into_iter().collect();
        spellings.sort_by_key(|(_, policies)| std::cmp::Reverse(policies.len()));
        let [(usual, with_usual), others @ ..] = &spellings[..] else {
            continue;
        };
        for (rare, with_rare) in others {
            let together = (with_rare.iter())
                .any(|one| with_usual.iter().any(|other| std::ptr::eq(*one, *other)));
            let Some(at) = with_rare
                .first()
                .and_then(|p| p.rules.first())
                .map(|r| &r.at)
            else {
                continue;
            };
            if !together {
                let message = format!(
                    "`{kind}:{rare}` and `{kind}:{usual}` differ only in upper and lower case"
                );
                let help = format!("case matters; did you mean `{kind}:{usual}`?");
                warn(at, message, "nearly-same-name", &help, problems);
            }
        }
    }
}

/// For each rule, those of policies that may concern the same principals.
fn near(rules: &[Placed<'_>]) -> HashMap<Key, Vec<usize>> {
    let mut near: HashMap<Key, Vec<usize>> = HashMap::new();
    for (index, placed) in rules.iter().enumerate() {
        for principal in &placed.policy.principals {
            near.entry(key(principal)).or_default().push(index);
        }
    }
    near
}

type Key = (u8, String);

fn key(principal: &PrincipalPattern) -> Key {
    match principal {
        PrincipalPattern::Everyone => (0, String::new()),
        PrincipalPattern::User(name) => (1, name.clone()),
        PrincipalPattern::Group(name) => (2, name.clone()),
        PrincipalPattern::Tenant(name) => (3, name.clone()),
    }
}

struct Coverage<'a> {
    rules: &'a [Placed<'a>],
    near: HashMap<Key, Vec<usize>>,
    /// Rules that a finding was about: they count for nothing in the next one.
    gone: Vec<bool>,
    comparisons: usize,
    names_compared: usize,
}

impl<'a> Coverage<'a> {
    /// The rules of an effect that concern at least the subjects of a rule, itself aside.
    fn around(&mut self, index: usize, effect: Effect) -> Option<Vec<Placed<'a>>> {
        let of = self.rules[index].policy;
        let first = of.principals.first()?;
        let mut found = Vec::new();
        let mut keys = vec![key(&PrincipalPattern::Everyone)];
        if *first != PrincipalPattern::Everyone {
            keys.push(key(first));
        }
        for other in keys
            .iter()
            .filter_map(|k| self.near.get(k))
            .flatten()
            .copied()
        {
            self.comparisons += 1;
            if self.comparisons > COMPARISONS_MAX {
                return None;
            }
            let placed = self.rules[other];
            if other != index
                && !self.gone[other]
                && placed.rule.effect == effect
                && concerns_all(placed.policy, of)
            {
                found.push(placed);
            }
        }
        found.sort_by(|a, b| {
            (&a.rule.at.file, a.rule.at.line).cmp(&(&b.rule.at.file, b.rule.at.line))
        });
        let theirs: usize = found.iter().map(|other| other.rule.resources.len()).sum();
        let pairs = theirs.saturating_mul(self.rules[index].rule.resources.len());
        self.names_compared = self.names_compared.saturating_add(pairs);
        (self.names_compared <= NAMES_COMPARED_MAX).then_some(found)
    }

    fn denied(&mut self, problems: &mut Problems) {
        for index in 0..self.rules.len() {
            let rule = self.rules[index].rule;
            if rule.effect == Effect::Deny {
                continue;
            }
            let Some(denies) = self.around(index, Effect::Deny) else {
                return;
            };
            let wanted = granted(rule);
            if wanted.is_empty() {
                continue;
            }
            let mut by = None;
            let all = wanted.iter().all(|(resource, operation)| {
                let deny = denies.iter().find(|d| {
                    speaks(d.rule, *operation)
                        && d.rule.resources.iter().any(|r| covers(r, resource))
                });
                by = by.or(deny);
                deny.is_some()
            });
            let Some(deny) = by.filter(|_| all) else {
                continue;
            };
            self.gone[index] = true;
            let at = &deny.rule.at;
            let same =
                deny.rule.operations == rule.operations && deny.rule.resources == rule.resources;
            let (message, name) = match same {
                true => (format!("allows what {at} denies"), "contradictory"),
                false => (
                    format!("allows nothing: all of it is denied, first by {at}"),
                    "unreachable",
                ),
            };
            let help = "a deny beats every allow; take one of the two out";
            warn(&rule.at, message, name, help, problems);
        }
    }

    /// From the last rule to the first, so that of two equal ones the second is told.
    fn repeated(&mut self, problems: &mut Problems) {
        let mut found = Vec::new();
        for index in (0..self.rules.len()).rev() {
            let rule = self.rules[index].rule;
            if self.gone[index] || rule.resources.is_empty() {
                continue;
            }
            let Some(others) = self.around(index, rule.effect) else {
                break;
            };
            let mut by = None;
            let all = (rule.resources.iter()).all(|resource| {
                rule.operations.iter().all(|operation| {
                    let other = others.iter().find(|o| {
                        let covered = |r: &ResourcePattern| {
                            covers(r, resource) && without_surprise(rule.effect, r, resource)
                        };
                        says(o.rule, *operation) && o.rule.resources.iter().any(covered)
                    });
                    by = by.or(other);
                    other.is_some()
                })
            });
            if let Some(other) = by.filter(|_| all) {
                self.gone[index] = true;
                found.push((rule, other.rule));
            }
        }
        for (rule, other) in found.into_iter().rev() {
            let message = format!("changes nothing: {} says it already", other.at);
            warn(
                &rule.at,
                message,
                "duplicate",
                "take one of the two out",
                problems,
            );
        }
    }
}

/// Whether `wide` concerns every subject that `narrow` concerns.
fn concerns_all(wide: &AccessPolicy, narrow: &AccessPolicy) -> bool {
    let everybody = wide.principals.contains(&PrincipalPattern::Everyone);
    let principals = everybody
        || narrow
            .principals
            .iter()
            .all(|p| wide.principals.contains(p));
    let hosts = wide.hosts.is_empty()
        || (!narrow.hosts.is_empty()
            && (narrow.hosts.iter()).all(|n| wide.hosts.iter().any(|w| contains(w, n))));
    principals && hosts
}

fn contains(wide: &HostPattern, narrow: &HostPattern) -> bool {
    wide.prefix_bits <= narrow.prefix_bits && wide.contains(narrow.network)
}

/// Whether every name of `narrow` is one of `wide`, for every subject.
fn covers(wide: &ResourcePattern, narrow: &ResourcePattern) -> bool {
    if wide.kind != narrow.kind {
        return false;
    }
    match (&wide.names, &narrow.names) {
        (NamePattern::All, _) => true,
        (NamePattern::Literal(a), NamePattern::Literal(b)) => a == b,
        (NamePattern::Prefix(a), NamePattern::Literal(b) | NamePattern::Prefix(b)) => begins(b, a),
        _ => false,
    }
}

/// A deny whose variable has no value matches every name: what covers it must do the same.
fn without_surprise(effect: Effect, wide: &ResourcePattern, narrow: &ResourcePattern) -> bool {
    let variables = |pattern: &ResourcePattern| -> Vec<bool> {
        let parts: &[Part] = match &pattern.names {
            NamePattern::Literal(t) | NamePattern::Prefix(t) => &t.0,
            NamePattern::All => &[],
        };
        [Part::Tenant, Part::Principal]
            .iter()
            .map(|v| parts.contains(v))
            .collect()
    };
    effect == Effect::Allow
        || wide.names == NamePattern::All
        || variables(wide) == variables(narrow)
}

/// Whether a template begins with another one, whatever its variables stand for.
fn begins(long: &Template, short: &Template) -> bool {
    let mut rest = long.0.iter();
    let Some((last, all_but_last)) = short.0.split_last() else {
        return true;
    };
    if !all_but_last.iter().all(|part| rest.next() == Some(part)) {
        return false;
    }
    match (last, rest.next()) {
        (Part::Text(short), Some(Part::Text(long))) => long.starts_with(short),
        (last, next) => next == Some(last),
    }
}

/// What an allow allows: each resource with each operation that has a meaning for it, those
/// included that are implied.
fn granted(rule: &Rule) -> Vec<(&ResourcePattern, Operation)> {
    let mut granted = Vec::new();
    for resource in &rule.resources {
        let meant = Operation::EVERY.into_iter().filter(|o| {
            let all = rule.operations.contains(&Operation::All);
            resource.kind.knows(*o) && (all || says(rule, *o))
        });
        granted.extend(meant.map(|o| (resource, o)));
    }
    granted
}

/// Whether a deny refuses the operation.
fn speaks(deny: &Rule, operation: Operation) -> bool {
    deny.operations.contains(&operation) || deny.operations.contains(&Operation::All)
}

/// Whether a rule says the operation, by an implication where it allows. An operation with
/// implications of its own is said only by itself or `All`.
fn says(rule: &Rule, operation: Operation) -> bool {
    use Operation as O;
    if speaks(rule, operation) {
        return true;
    }
    let implied_by: &[Operation] = match operation {
        O::Describe => &[O::Read, O::Write, O::Delete, O::Alter],
        O::DescribeConfigs => &[O::AlterConfigs],
        _ => &[],
    };
    rule.effect == Effect::Allow && rule.operations.iter().any(|o| implied_by.contains(o))
}

#[cfg(test)]
mod tests;
