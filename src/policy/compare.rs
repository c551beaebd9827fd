//! Which decisions differ between two sets of policies: exact, not textual.
//!
//! Subjects and resources are without number, but two sets of policies tell only finitely many
//! apart, and one of each is asked about:
//! - names: each literal, one name below each prefix that nothing else speaks of, one outside all;
//! - hosts: one for each set of networks that an address can lie in;
//! - subjects: a user that no policy names or each that is named, no tenant or each that is named
//!   (or another one, where a variable could hold it), and groups. Two of these facts are enough
//!   to show any difference: one that an allow needs, and one that a deny needs; variables add the
//!   user and the tenant that they stand for.
//!
//! A boundary is a fact about the tenant that only refuses: a difference that it makes shows for
//! the tenant with one fact that an allow needs.
//!
//! A difference that a less special subject has in the same way is told once, for that one.

mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use self::world::{Facts, Who, World, template};

use super::model::{CLUSTER_NAME, Decision, Operation, ResourceKind, RuleRef, Subject};
use super::rule::{AccessPolicy, NamePattern, Part, Template};
use super::tenant::{Boundary, Tenant};
use super::{PolicySet, View};

/// How many decisions one comparison may take.
pub const DECISIONS_MAX: u64 = 50_000_000;

/// How many subjects, each at one host, one comparison may look at.
pub const SUBJECTS_MAX: usize = 50_000;

/// The comparison would take more than [`DECISIONS_MAX`] or [`SUBJECTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// A grant that one set has and the other has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the new set allows what the old one denies; otherwise the other way round.
    pub gained: bool,
    /// Who: all of these facts together, such as `User:a` and `Group:g`; empty: everybody.
    pub who: Vec<String>,
    /// From where, as networks; `other hosts` where none is named; empty: from everywhere.
    pub hosts: Vec<String>,
    /// The operations; `All`: every one that the kind knows.
    pub operations: Vec<&'static str>,
    /// The kind of resource.
    pub kind: ResourceKind,
    /// The names, as patterns.
    pub names: Vec<String>,
    /// Names inside these patterns for which the decision stays.
    pub except: Vec<String>,
    /// The rule that decides in the old set.
    pub old: Option<RuleRef>,
    /// The rule that decides in the new set.
    pub new: Option<RuleRef>,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side<'a> {
    /// The policies.
    pub policies: &'a [AccessPolicy],
    /// The tenants, for their boundaries. Who belongs to one is no part of a decision, so a
    /// `match` that differs changes none.
    pub tenants: &'a [Tenant],
}

impl Side<'_> {
    fn set(&self) -> PolicySet {
        PolicySet::new(self.policies.to_vec(), Vec::new()).within(self.tenants.to_vec())
    }

    fn boundary(&self, tenant: &str) -> Option<&Boundary> {
        let own = self.tenants.iter().find(|t| t.name == tenant);
        own.and_then(|t| t.boundary.as_ref())
    }
}

/// Compares two sets of policies. Super users are no part of policies.
pub fn compare(old: &[AccessPolicy], new: &[AccessPolicy]) -> Result<Vec<Change>, TooLarge> {
    let side = |policies| Side {
        policies,
        tenants: &[],
    };
    compare_within(side(old), side(new))
}

/// The same, with the boundaries of tenants.
pub fn compare_within(old: Side<'_>, new: Side<'_>) -> Result<Vec<Change>, TooLarge> {
    let changed = Changed::between(old, new);
    if changed.policies.is_empty() && changed.tenants.is_empty() {
        return Ok(Vec::new());
    }
    let world = World::of(old, new);
    let mut comparison = Comparison {
        sets: [old.set(), new.set()],
        sides: [old, new],
        views: HashMap::new(),
        decisions: 0,
        cells: 0,
    };
    let mut changes = Vec::new();
    for who in world.subjects(&changed)? {
        changes.append(&mut comparison.subject(&who, &world, &changed)?);
    }
    changes.sort_by(|a, b| {
        let key = |c: &Change| (c.who.clone(), c.kind, !c.gained, c.names.clone());
        key(a).cmp(&key(b))
    });
    Ok(changes)
}

/// The policies that only one of the sets has. Whom none of them concerns is decided alike.
struct Changed<'a> {
    policies: Vec<&'a AccessPolicy>,
    /// The tenants whose boundary differs.
    tenants: BTreeSet<&'a str>,
}

impl<'a> Changed<'a> {
    fn between(old: Side<'a>, new: Side<'a>) -> Changed<'a> {
        let mut unmatched: HashMap<String, Vec<&AccessPolicy>> = HashMap::new();
        for policy in new.policies {
            unmatched.entry(meaning(policy)).or_default().push(policy);
        }
        let mut policies = Vec::new();
        for policy in old.policies {
            let same = unmatched.get_mut(&meaning(policy)).and_then(Vec::pop);
            if same.is_none() {
                policies.push(policy);
            }
        }
        policies.extend(unmatched.into_values().flatten());
        let bounds = |side: Side<'_>, name: &str| {
            let boundary = side.boundary(name);
            boundary.map(|b| format!("{:?}", b.resources))
        };
        let names = old.tenants.iter().chain(new.tenants).map(|t| &*t.name);
        let tenants = names
            .filter(|name| bounds(old, name) != bounds(new, name))
            .collect();
        Changed { policies, tenants }
    }

    fn concern(&self, who: &Who) -> bool {
        self.bounds_of(who) || self.policies.iter().any(|policy| concerns(policy, who))
    }

    fn bounds_of(&self, who: &Who) -> bool {
        self.tenants.contains(&*who.principal.tenant)
    }

    fn concern_at(&self, who: &Who, host: IpAddr) -> bool {
        self.bounds_of(who)
            || (self.policies.iter()).any(|policy| concerns(policy, who) && from(policy, host))
    }
}

/// All that a policy says, without where it stands.
fn meaning(policy: &AccessPolicy) -> String {
    let rules: Vec<_> = (policy.rules.iter())
        .map(|r| (r.effect, &r.operations, &r.resources))
        .collect();
    format!("{:?}", (&policy.principals, &policy.hosts, rules))
}

fn concerns(policy: &AccessPolicy, who: &Who) -> bool {
    let subject = Subject {
        principal: &who.principal,
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    policy.principals.iter().any(|p| p.matches(&subject))
}

fn from(policy: &AccessPolicy, host: IpAddr) -> bool {
    policy.hosts.is_empty() || policy.hosts.iter().any(|h| h.contains(host))
}

/// Names that no rule tells apart, for one subject.
#[derive(Clone, Debug)]
struct Cell {
    /// How the name comes about, to ask the same of another subject.
    pattern: NamePattern,
    /// The name that is asked about.
    name: String,
    /// The prefix, or the literal, that the name stands for; empty: every name.
    stem: String,
    shown: String,
}

impl Cell {
    fn is_pattern(&self) -> bool {
        !matches!(self.pattern, NamePattern::Literal(_))
    }

    /// Whether the other one's names are among those that this one's pattern shows.
    fn covers(&self, other: &Cell) -> bool {
        self.is_pattern() && other.stem.starts_with(&self.stem) && self.name != other.name
    }
}

/// The name that stands for a pattern, for one subject.
fn sample(pattern: &NamePattern, subject: &Subject<'_>, fresh: &str) -> Option<(String, String)> {
    match pattern {
        NamePattern::Literal(template) => {
            let name = template.fill(subject)?;
            Some((name.clone(), name))
        }
        NamePattern::Prefix(template) => {
            let stem = template.fill(subject)?;
            Some((format!("{stem}{fresh}n"), stem))
        }
        NamePattern::All => Some((format!("{fresh}n"), String::new())),
    }
}

/// A pattern as policies write it.
pub fn shown(pattern: &NamePattern) -> String {
    let Some(template) = template(pattern) else {
        return "*".to_owned();
    };
    let mut text: String = (template.0.iter())
        .map(|part| match part {
            Part::Text(text) => text,
            Part::Tenant => "${tenant}",
            Part::Principal => "${principal}",
        })
        .collect();
    match pattern {
        // As it has to be written, since a star would mean something else.
        NamePattern::Literal(_) if text.contains('*') => return format!("{{literal: {text:?}}}"),
        NamePattern::Prefix(_) if text.contains('*') => return format!("{{prefix: {text:?}}}"),
        NamePattern::Prefix(_) => text.push('*'),
        _ => {}
    }
    text
}

struct Comparison<'a> {
    sets: [PolicySet; 2],
    sides: [Side<'a>; 2],
    /// By facts and host; both sets.
    views: HashMap<(Facts, IpAddr), Arc<[View; 2]>>,
    decisions: u64,
    cells: usize,
}

/// What is the same for all operations and names told in one line.
type Line = (
    bool,
    Vec<String>,
    ResourceKind,
    Option<RuleKey>,
    Option<RuleKey>,
);
type RuleKey = (Arc<str>, u32);
/// A host (its index), whether a grant is gained there, and the rules of both sides.
type AtHost = (usize, bool, [Option<RuleKey>; 2]);

/// The decisions of one subject about one name: by operation, where they differ.
#[derive(Default)]
struct Found {
    /// By line: the operations that change for each cell (its index).
    lines: BTreeMap<Line, BTreeMap<usize, BTreeSet<Operation>>>,
    /// What changes at all in a direction, wherever from: cell, operation, direction.
    any: BTreeSet<(usize, Operation, bool)>,
}

impl Comparison<'_> {
    fn views(&mut self, who: &Who, host: IpAddr) -> Result<Arc<[View; 2]>, TooLarge> {
        let key = (who.facts.clone(), host);
        if let Some(views) = self.views.get(&key) {
            return Ok(Arc::clone(views));
        }
        self.cells += 1;
        if self.cells > SUBJECTS_MAX {
            return Err(TooLarge);
        }
        let subject = Subject {
            principal: &who.principal,
            host,
        };
        let [old, new] = &self.sets;
        let views = Arc::new([old.view(&subject), new.view(&subject)]);
        self.views.insert(key, Arc::clone(&views));
        Ok(views)
    }

    fn decide(
        &mut self,
        views: &[View; 2],
        operation: Operation,
        kind: ResourceKind,
        name: &str,
    ) -> Result<[Decision; 2], TooLarge> {
        self.decisions += 2;
        if self.decisions > DECISIONS_MAX {
            return Err(TooLarge);
        }
        let [old, new] = views;
        Ok([
            old.decide(operation, kind, name),
            new.decide(operation, kind, name),
        ])
    }

    /// What changes for one subject and for no less special one.
    fn subject(
        &mut self,
        who: &Who,
        world: &World,
        changed: &Changed<'_>,
    ) -> Result<Vec<Change>, TooLarge> {
        let mut changes = Vec::new();
        for kind in ResourceKind::EVERY {
            let cells = self.cells(who, kind, &world.fresh);
            let operations: Vec<Operation> = (Operation::EVERY.into_iter())
                .filter(|o| *o != Operation::All && kind.knows(*o))
                .collect();
            // By cell, operation, direction and rules: the hosts.
            let mut at: BTreeMap<(usize, Operation), Vec<AtHost>> = BTreeMap::new();
            for (h, host) in world.hosts.iter().enumerate() {
                if !changed.concern_at(who, host.address) {
                    continue;
                }
                let views = self.views(who, host.address)?;
                for (c, cell) in cells.iter().enumerate() {
                    for operation in &operations {
                        let decided = self.decide(&views, *operation, kind, &cell.name)?;
                        if decided[0].allowed == decided[1].allowed {
                            continue;
                        }
                        let gained = decided[1].allowed;
                        if self.known(who, world, host.address, *operation, kind, cell, gained)? {
                            continue;
                        }
                        let rules = decided.map(|d| d.rule.map(|r| (r.file, r.line)));
                        at.entry((c, *operation))
                            .or_default()
                            .push((h, gained, rules));
                    }
                }
            }
            let mut found = Found::default();
            for ((cell, operation), entries) in at {
                let mut by_rules: BTreeMap<(bool, [Option<RuleKey>; 2]), Vec<usize>> =
                    BTreeMap::new();
                for (host, gained, rules) in entries {
                    found.any.insert((cell, operation, gained));
                    by_rules.entry((gained, rules)).or_default().push(host);
                }
                for ((gained, [old, new]), hosts) in by_rules {
                    let everywhere = hosts.len() == world.hosts.len();
                    let shown = match everywhere {
                        true => Vec::new(),
                        false => hosts
                            .iter()
                            .map(|h| world.hosts[*h].shown.clone())
                            .collect(),
                    };
                    let line = (gained, shown, kind, old, new);
                    let operations = found.lines.entry(line).or_default();
                    operations.entry(cell).or_default().insert(operation);
                }
            }
            changes.append(&mut told(who, &cells, &operations, found));
        }
        Ok(changes)
    }

    /// Whether a less special subject has the same change, and it was told there.
    #[allow(clippy::too_many_arguments)] // the seven parts of one question
    fn known(
        &mut self,
        who: &Who,
        world: &World,
        host: IpAddr,
        operation: Operation,
        kind: ResourceKind,
        cell: &Cell,
        gained: bool,
    ) -> Result<bool, TooLarge> {
        for facts in who.less_special(world.tenant_variable) {
            let other = Who::of(facts, &world.fresh);
            let subject = Subject {
                principal: &other.principal,
                host,
            };
            let Some((name, _)) = sample(&cell.pattern, &subject, &world.fresh) else {
                continue;
            };
            let views = self.views(&other, host)?;
            let [old, new] = self.decide(&views, operation, kind, &name)?;
            if old.allowed != new.allowed && new.allowed == gained {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of a kind that the rules for this subject tell apart.
    fn cells(&self, who: &Who, kind: ResourceKind, fresh: &str) -> Vec<Cell> {
        let subject = Subject {
            principal: &who.principal,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let rules = (self.sides.iter())
            .flat_map(|side| side.policies)
            .filter(|policy| concerns(policy, who))
            .flat_map(|policy| policy.rules.iter());
        let mut patterns: Vec<NamePattern> = match kind {
            ResourceKind::Cluster => {
                return vec![Cell {
                    pattern: NamePattern::Literal(Template::text(CLUSTER_NAME)),
                    name: CLUSTER_NAME.to_owned(),
                    stem: CLUSTER_NAME.to_owned(),
                    shown: CLUSTER_NAME.to_owned(),
                }];
            }
            _ => vec![NamePattern::All],
        };
        let bounds = (self.sides.iter())
            .filter_map(|side| side.boundary(&who.principal.tenant))
            .flat_map(|boundary| &boundary.resources);
        let of_kind = rules.flat_map(|rule| &rule.resources).chain(bounds);
        patterns.extend(of_kind.filter(|r| r.kind == kind).map(|r| r.names.clone()));
        let mut seen = BTreeSet::new();
        let mut cells = Vec::new();
        for pattern in patterns {
            let Some((name, stem)) = sample(&pattern, &subject, fresh) else {
                continue;
            };
            if seen.insert(name.clone()) {
                let shown = shown(&pattern);
                cells.push(Cell {
                    pattern,
                    name,
                    stem,
                    shown,
                });
            }
        }
        cells
    }
}

/// The changes of one subject and kind in few lines.
fn told(who: &Who, cells: &[Cell], known: &[Operation], found: Found) -> Vec<Change> {
    let mut changes = Vec::new();
    for ((gained, hosts, kind, old, new), mut by_cell) in found.lines {
        // A name is told with the pattern around it where all is the same.
        let covered: Vec<usize> = (by_cell.iter())
            .filter(|(cell, operations)| {
                (by_cell.iter()).any(|(other, theirs)| {
                    cells[*other].covers(&cells[**cell]) && theirs == *operations
                })
            })
            .map(|(cell, _)| *cell)
            .collect();
        by_cell.retain(|cell, _| !covered.contains(cell));
        let mut by_operations: BTreeMap<BTreeSet<Operation>, Vec<usize>> = BTreeMap::new();
        for (cell, operations) in by_cell {
            by_operations.entry(operations).or_default().push(cell);
        }
        for (operations, named) in by_operations {
            let stays =
                |cell: usize| !(operations.iter()).all(|o| found.any.contains(&(cell, *o, gained)));
            let inside = (0..cells.len()).filter(|cell| {
                named.iter().any(|n| cells[*n].covers(&cells[*cell])) && stays(*cell)
            });
            let rule =
                |key: &Option<RuleKey>| key.clone().map(|(file, line)| RuleRef { file, line });
            changes.push(Change {
                gained,
                who: who.shown(),
                hosts: hosts.clone(),
                operations: match operations.len() == known.len() {
                    true => vec![Operation::All.name()],
                    false => operations.iter().map(|o| o.name()).collect(),
                },
                kind,
                except: inside.map(|cell| cells[cell].shown.clone()).collect(),
                names: named.iter().map(|n| cells[*n].shown.clone()).collect(),
                old: rule(&old),
                new: rule(&new),
            });
        }
    }
    changes
}
