//! What is found, in few lines: each with the names, networks and subjects that it does not
//! concern, so that nothing is claimed that is not so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::world::{Who, World};
use super::{Cell, Change, Comparison, Found, RuleKey, sample};
use crate::policy::model::{Operation, ResourceKind, RuleRef, Subject};

/// How many decisions may be spent on whom changes do not concern as a whole.
const EXCEPTIONS_DECISIONS_MAX: u64 = 5_000_000;

/// What stands for those who were not asked about any more.
const TOO_MANY: &str = "others, too many to ask about";

/// What a change claims, by index of cells and hosts.
pub(super) struct Claim {
    gained: bool,
    kind: ResourceKind,
    operations: BTreeSet<Operation>,
    hosts: Vec<usize>,
    named: Vec<usize>,
    except: Vec<usize>,
}

/// The changes of one subject and kind in few lines.
pub(super) fn told(
    who: &Who,
    cells: &[Cell],
    world: &World,
    known: &[Operation],
    found: &Found,
) -> Vec<(Change, Claim)> {
    let mut changes = Vec::new();
    for ((gained, hosts, kind, old, new), by_cell) in &found.lines {
        let (gained, kind) = (*gained, *kind);
        let stays = |cell: usize, operations: &BTreeSet<Operation>| {
            let changes = |o: &Operation, h: &usize| found.any.contains(&(cell, *o, gained, *h));
            !(operations.iter()).all(|o| hosts.iter().all(|h| changes(o, h)))
        };
        // A name is told with the pattern around it where all is the same, and nothing between the
        // two is excepted.
        let is_covered = |cell: usize, operations: &BTreeSet<Operation>| {
            by_cell.iter().any(|(other, theirs)| {
                let between = |c: usize| {
                    cells[*other].covers(&cells[c])
                        && cells[c].covers(&cells[cell])
                        && stays(c, operations)
                };
                cells[*other].covers(&cells[cell])
                    && theirs == operations
                    && !(0..cells.len()).any(between)
            })
        };
        let mut by_operations: BTreeMap<&BTreeSet<Operation>, Vec<usize>> = BTreeMap::new();
        for (cell, operations) in by_cell {
            if !is_covered(*cell, operations) {
                by_operations.entry(operations).or_default().push(*cell);
            }
        }
        for (operations, named) in by_operations {
            let inside = (0..cells.len()).filter(|cell| {
                named.iter().any(|n| cells[*n].covers(&cells[*cell])) && stays(*cell, operations)
            });
            let except: Vec<usize> = inside.collect();
            let claim = Claim {
                gained,
                kind,
                operations: operations.clone(),
                hosts: hosts.clone(),
                named,
                except,
            };
            let (from, except_hosts) = networks(&claim, world, found);
            let rule =
                |key: &Option<RuleKey>| key.clone().map(|(file, line)| RuleRef { file, line });
            let shown = |list: &[usize]| list.iter().map(|c| cells[*c].shown.clone()).collect();
            let change = Change {
                gained,
                who: who.shown(),
                hosts: from,
                except_hosts,
                not_all: Vec::new(),
                operations: match operations.len() == known.len() {
                    true => vec![Operation::All.name()],
                    false => operations.iter().map(|o| o.name()).collect(),
                },
                kind,
                except: shown(&claim.except),
                names: shown(&claim.named),
                old: rule(old),
                new: rule(new),
            };
            changes.push((change, claim));
        }
    }
    changes
}

/// From where, as networks, and networks inside of them from where not all of it changes.
fn networks(claim: &Claim, world: &World, found: &Found) -> (Vec<String>, Vec<String>) {
    if claim.hosts.len() == world.hosts.len() {
        return (Vec::new(), Vec::new());
    }
    let host = |h: &usize| &world.hosts[*h];
    let changes = |h: usize| {
        claim.named.iter().all(|cell| {
            let mut operations = claim.operations.iter();
            operations.all(|o| found.any.contains(&(*cell, *o, claim.gained, h)))
        })
    };
    let stays: Vec<usize> = (0..world.hosts.len())
        .filter(|h| claim.hosts.iter().any(|wide| host(h).is_within(host(wide))))
        .filter(|h| !claim.hosts.contains(h) && !changes(*h))
        .collect();
    // What lies in another one of them is excepted with it, unless something between is not.
    let is_told = |h: &&usize| {
        !stays.iter().any(|wide| {
            let between = |k: &usize| {
                host(k).is_within(host(wide)) && host(h).is_within(host(k)) && !stays.contains(k)
            };
            host(h).is_within(host(wide)) && !(0..world.hosts.len()).any(|k| between(&k))
        })
    };
    let shown = |h: &usize| host(h).shown.clone();
    let except = stays.iter().filter(is_told).map(shown).collect();
    (claim.hosts.iter().map(shown).collect(), except)
}

impl Comparison<'_> {
    /// Facts with which not all of a claim holds. One is enough to show each, since what keeps a
    /// decision as it was is one rule, or one boundary; but for a user and a tenant of one name,
    /// for whom two variables are the same.
    pub(super) fn not_all(
        &mut self,
        who: &Who,
        world: &World,
        cells: &[Cell],
        claim: &Claim,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (shown, facts) in world.more_special(&who.facts) {
            let other = Who::of(facts, &world.fresh);
            match self.holds(&other, world, cells, claim) {
                Some(true) => {}
                Some(false) => found.push(shown),
                None => {
                    found.push(TOO_MANY.to_owned());
                    break;
                }
            }
        }
        found
    }

    /// Whether all of a claim holds for a subject too; `None`: that is not asked any more.
    fn holds(&mut self, who: &Who, world: &World, cells: &[Cell], claim: &Claim) -> Option<bool> {
        let subject = |host| Subject {
            principal: &who.principal,
            host,
        };
        // The same patterns may be other names for this subject.
        let own = |list: &[usize]| -> Vec<Cell> {
            let filled = list.iter().filter_map(|c| {
                let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let (name, stem) = sample(&cells[*c].pattern, &subject(host), &world.fresh)?;
                let cell = cells[*c].clone();
                Some(Cell { name, stem, ..cell })
            });
            filled.collect()
        };
        let (named, except) = (own(&claim.named), own(&claim.except));
        let within =
            |list: &[Cell], cell: &Cell| list.iter().any(|n| n.name == cell.name || n.covers(cell));
        let mut asked = self.cells(who, claim.kind, &world.fresh);
        asked.retain(|cell| within(&named, cell) && !within(&except, cell));
        let [old, new] = [0, 1].map(|side| &self.sets[side]);
        for host in claim.hosts.iter().map(|h| world.hosts[*h].address) {
            let views = [old.view(&subject(host)), new.view(&subject(host))];
            for cell in &asked {
                for operation in &claim.operations {
                    self.exceptions += 2;
                    if self.exceptions > EXCEPTIONS_DECISIONS_MAX {
                        return None;
                    }
                    let [before, after] = [0, 1].map(|side: usize| {
                        let decision = views[side].decide(*operation, claim.kind, &cell.name);
                        decision.allowed
                    });
                    if before == after || after != claim.gained {
                        return Some(false);
                    }
                }
            }
        }
        Some(true)
    }
}
