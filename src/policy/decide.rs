//! The decision: total, pure, and no slower for rules that cannot match. See the head of `policy`
//! for the meaning; the naive reading of it, in `tests/policy_oracle.rs`, must always agree.

use std::collections::HashMap;

use super::compile::slot;
use super::model::{Decision, Operation, ResourceKind, RuleRef};
use super::prefixes::Prefixes;
use super::rule::Effect;
use super::tenant::Bounds;

/// The rules that concern one subject: a principal at a host.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) super_user: bool,
    /// The boundary of the subject's tenant.
    pub(super) bounds: Option<Box<Bounds>>,
    pub(super) kinds: [Index; 6],
    /// The only question about any resource of a kind that Kafka asks, answered beforehand:
    /// looking for the answer takes all rules, and it is asked whenever a producer starts.
    pub(super) writes_any_topic: Decision,
}

/// A rule that matched, whether or not it decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The rule.
    pub rule: RuleRef,
    /// What it says.
    pub effect: Effect,
}

/// The name Kafka tries first when it asks about a kind instead of a name
/// (`Authorizer.authorizeByResourceType`). A rule about a resource of this name changes the answer
/// there, so it does here.
const ANY_NAME: &str = "hardcode";

impl View {
    /// May the subject do `operation` on this resource?
    pub fn decide(&self, operation: Operation, kind: ResourceKind, name: &str) -> Decision {
        if self.super_user {
            return SUPER_USER;
        }
        if let Some(bounds) = self.excluding(kind, name) {
            return bounds.refusal();
        }
        self.decide_by_rules(operation, kind, name)
    }

    fn decide_by_rules(&self, operation: Operation, kind: ResourceKind, name: &str) -> Decision {
        if self.super_user {
            return SUPER_USER;
        }
        let mut found = Found::default();
        let (allowing, denying) = (
            Operations::allowing(operation),
            Operations::denying(operation),
        );
        self.kinds[slot(kind)].look(&mut found, name, allowing, denying);
        found.decision()
    }

    /// May the subject do `operation` on at least one resource of the kind? Kafka asks so when an
    /// idempotent producer without a transactional id starts.
    ///
    /// Within a boundary the question is exact: is there a name inside that is allowed?
    pub fn decide_any(&self, operation: Operation, kind: ResourceKind) -> Decision {
        match (operation, kind) {
            (Operation::Write, ResourceKind::Topic) => self.writes_any_topic.clone(),
            _ => self.search_any(operation, kind),
        }
    }

    /// What [`decide_any`](Self::decide_any) says, found by looking at every rule.
    pub(super) fn search_any(&self, operation: Operation, kind: ResourceKind) -> Decision {
        let Some(bounds) = self.bounds.as_deref().filter(|b| !b.names(kind).is_all()) else {
            return self.decide_any_by_rules(operation, kind);
        };
        if let Some(allowed) = self.any_within(bounds, operation, kind) {
            return allowed;
        }
        let decision = self.decide_any_by_rules(operation, kind);
        match decision.allowed {
            true => bounds.refusal(),
            false => decision,
        }
    }

    /// The first rule that allows the operation on some name inside the boundary. It is enough to
    /// look at the names that stand for themselves in boundary or rules, and below each prefix at
    /// one that nothing else speaks of.
    fn any_within(
        &self,
        bounds: &Bounds,
        operation: Operation,
        kind: ResourceKind,
    ) -> Option<Decision> {
        let (allowing, denying) = (
            Operations::allowing(operation),
            Operations::denying(operation),
        );
        let (inside, index) = (bounds.names(kind), &self.kinds[slot(kind)]);
        let below = inside.prefixes.iter().map(|stem| &**stem);
        let below = below.chain(index.prefixes.iter().map(|(stem, _)| stem));
        let below = below.filter(|stem| inside.contains_below(stem));
        let literals = inside.literals.iter().map(|name| &**name);
        let literals = literals.chain(index.literals.keys().map(|name| &**name));
        let literals = literals.filter(|name| inside.contains(name));
        let asked = below.map(|s| (s, false)).chain(literals.map(|n| (n, true)));
        let mut best: Option<&Grant> = None;
        for (name, is_literal) in asked {
            let mut found = Found::default();
            found.look(&index.all, allowing, denying);
            if let Some(cell) = index.literals.get(name).filter(|_| is_literal) {
                found.look(cell, allowing, denying);
            }
            index.look_at_prefixes(&mut found, name, allowing, denying);
            if let (Some(allow), None) = (found.allow, found.deny)
                && best.is_none_or(|b| allow.order < b.order)
            {
                best = Some(allow);
            }
        }
        best.map(|allow| Decision {
            allowed: true,
            rule: Some(allow.rule.clone()),
        })
    }

    /// The boundary, where the name is outside.
    fn excluding(&self, kind: ResourceKind, name: &str) -> Option<&Bounds> {
        let bounds = self.bounds.as_deref();
        bounds.filter(|bounds| !bounds.names(kind).contains(name))
    }

    fn decide_any_by_rules(&self, operation: Operation, kind: ResourceKind) -> Decision {
        let first = self.decide_by_rules(operation, kind, ANY_NAME);
        if first.allowed {
            return first;
        }
        // No implication from here on: the operation itself, or All.
        let wanted = Operations::denying(operation);
        let index = &self.kinds[slot(kind)];
        let mut all = Found::default();
        all.look(&index.all, wanted, wanted);
        if all.deny.is_some() || all.allow.is_some() {
            return all.decision();
        }
        let mut best: Option<&Grant> = None;
        let mut dominated = all;
        let literals = index
            .literals
            .iter()
            .map(|(name, cell)| (&**name, cell, true));
        let prefixes = index
            .prefixes
            .iter()
            .map(|(name, stem)| (name, &stem.own, false));
        for (name, cell, is_literal) in literals.chain(prefixes) {
            let mut here = Found::default();
            here.look(cell, wanted, wanted);
            let Some(allow) = here.allow else { continue };
            let mut over = Found::default();
            if is_literal {
                over.look(cell, Operations::NONE, wanted);
            }
            index.look_at_prefixes(&mut over, name, Operations::NONE, wanted);
            match over.deny {
                Some(deny) => dominated.keep_deny(deny),
                None if best.is_none_or(|b| allow.order < b.order) => best = Some(allow),
                None => {}
            }
        }
        match best {
            Some(allow) => Decision {
                allowed: true,
                rule: Some(allow.rule.clone()),
            },
            None => dominated.decision(),
        }
    }

    /// Whether `operation` is allowed on every resource of the kind: a rule allows it on all names,
    /// no rule denies it on any, and no boundary leaves one out. `false` does not mean
    /// that something is denied.
    pub fn allows_all(&self, operation: Operation, kind: ResourceKind) -> bool {
        if self.super_user {
            return true;
        }
        let bounds = self.bounds.as_deref();
        if bounds.is_some_and(|bounds| !bounds.names(kind).is_all()) {
            return false;
        }
        let index = &self.kinds[slot(kind)];
        let denying = Operations::denying(operation);
        if index.denied.meets(denying) {
            return false;
        }
        let mut all = Found::default();
        all.look(&index.all, Operations::allowing(operation), denying);
        all.allow.is_some()
    }

    /// Every rule that matches the question, in the order loaded: denies and allows alike; before
    /// them the boundary, where it leaves the name out.
    pub fn considered(
        &self,
        operation: Operation,
        kind: ResourceKind,
        name: &str,
    ) -> Vec<Considered> {
        let (allowing, denying) = (
            Operations::allowing(operation),
            Operations::denying(operation),
        );
        let mut grants: Vec<&Grant> = Vec::new();
        self.kinds[slot(kind)].each_cell(name, |cell| {
            grants.extend(
                cell.grants
                    .iter()
                    .filter(|g| g.speaks_of(allowing, denying)),
            );
        });
        grants.sort_by_key(|g| g.order);
        grants.dedup_by_key(|g| g.order);
        let outside = self.excluding(kind, name).map(|bounds| Considered {
            rule: bounds.rule.clone(),
            effect: Effect::Deny,
        });
        let considered = grants.into_iter().map(|g| Considered {
            rule: g.rule.clone(),
            effect: g.effect,
        });
        outside.into_iter().chain(considered).collect()
    }

    /// Whether the boundary leaves a name open; `None` asks about every name of the kind. For where
    /// a rule about the cluster speaks for all names, and rules about this one are not asked.
    pub fn within(&self, kind: ResourceKind, name: Option<&str>) -> bool {
        let bounds = self.bounds.as_deref().map(|bounds| bounds.names(kind));
        bounds.is_none_or(|inside| match name {
            Some(name) => inside.contains(name),
            None => inside.is_all(),
        })
    }

    /// Whether the subject is a super user, whom no rule concerns.
    pub fn is_super_user(&self) -> bool {
        self.super_user
    }
}

const SUPER_USER: Decision = Decision {
    allowed: true,
    rule: None,
};

/// No rule matched.
pub(super) const NO_RULE: Decision = Decision {
    allowed: false,
    rule: None,
};

impl Bounds {
    fn refusal(&self) -> Decision {
        Decision {
            allowed: false,
            rule: Some(self.rule.clone()),
        }
    }
}

/// A set of operations, one bit for each of Kafka's codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Operations(u16);

impl Operations {
    const NONE: Operations = Operations(0);

    pub(super) fn of(list: &[Operation]) -> Operations {
        list.iter().fold(Operations::NONE, |bits, operation| {
            bits.or(Operations::one(*operation))
        })
    }

    const fn one(operation: Operation) -> Operations {
        Operations(1 << operation as u8)
    }

    pub(super) const fn or(self, other: Operations) -> Operations {
        Operations(self.0 | other.0)
    }

    fn meets(self, other: Operations) -> bool {
        self.0 & other.0 != 0
    }

    fn is_within(self, other: Operations) -> bool {
        self.0 & !other.0 == 0
    }

    /// What a deny must name to refuse `operation`.
    fn denying(operation: Operation) -> Operations {
        Operations::one(operation).or(Operations::one(Operation::All))
    }

    /// What an allow must name to allow `operation`.
    fn allowing(operation: Operation) -> Operations {
        const fn any(a: Operation, b: Operation) -> Operations {
            Operations::one(a).or(Operations::one(b))
        }
        use Operation as O;
        const IMPLY_DESCRIBE: Operations = any(O::Read, O::Write).or(any(O::Delete, O::Alter));
        let implied_by = match operation {
            O::Describe => IMPLY_DESCRIBE,
            O::DescribeConfigs => Operations::one(O::AlterConfigs),
            _ => Operations::NONE,
        };
        Operations::denying(operation).or(implied_by)
    }
}

/// A rule as far as one pattern is concerned.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// The rule's place in the order of loading.
    pub(super) order: u32,
    pub(super) effect: Effect,
    pub(super) operations: Operations,
    pub(super) rule: RuleRef,
}

impl Grant {
    fn speaks_of(&self, allowing: Operations, denying: Operations) -> bool {
        match self.effect {
            Effect::Allow => self.operations.meets(allowing),
            Effect::Deny => self.operations.meets(denying),
        }
    }
}

/// What the rules say about one pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// First those that can decide.
    grants: Vec<Grant>,
    /// How many these are: at most one of each effect for each operation, however many rules
    /// there are. All that the others say has been said by one loaded before them.
    deciding: usize,
    allowed: Operations,
    denied: Operations,
}

impl Cell {
    /// Rules come in the order loaded.
    pub(super) fn add(&mut self, grant: Grant) {
        let said = match grant.effect {
            Effect::Allow => &mut self.allowed,
            Effect::Deny => &mut self.denied,
        };
        let says_more = !grant.operations.is_within(*said);
        *said = said.or(grant.operations);
        self.grants.push(grant);
        if says_more {
            let last = self.grants.len() - 1;
            self.grants.swap(self.deciding, last);
            self.deciding += 1;
        }
    }

    fn deciding(&self) -> &[Grant] {
        self.grants.get(..self.deciding).unwrap_or_default()
    }
}

/// The first allow and the first deny that matched.
#[derive(Default)]
struct Found<'v> {
    allow: Option<&'v Grant>,
    deny: Option<&'v Grant>,
}

impl<'v> Found<'v> {
    fn look(&mut self, cell: &'v Cell, allowing: Operations, denying: Operations) {
        let grants = cell.deciding().iter();
        for grant in grants.filter(|g| g.speaks_of(allowing, denying)) {
            match grant.effect {
                Effect::Deny => self.keep_deny(grant),
                Effect::Allow if self.allow.is_none_or(|a| grant.order < a.order) => {
                    self.allow = Some(grant);
                }
                Effect::Allow => {}
            }
        }
    }

    fn keep_deny(&mut self, grant: &'v Grant) {
        if self.deny.is_none_or(|d| grant.order < d.order) {
            self.deny = Some(grant);
        }
    }

    fn decision(&self) -> Decision {
        let decisive = self.deny.or(self.allow);
        Decision {
            allowed: self.deny.is_none() && self.allow.is_some(),
            rule: decisive.map(|g| g.rule.clone()),
        }
    }
}

/// Names to the rules about them. The names in it are the operator's, so nobody can choose many
/// that collide; std's hasher took half of a decision.
pub(super) type ByName = HashMap<Box<str>, Cell, foldhash::fast::RandomState>;

/// The patterns of one kind of resource.
#[derive(Clone, Debug)]
pub(super) struct Index {
    literals: ByName,
    prefixes: Prefixes<Stem>,
    /// The pattern that matches every name.
    all: Cell,
    /// Every operation that a deny of this kind names.
    denied: Operations,
}

impl Index {
    /// `sorted` is in ascending order of its names, without duplicates.
    pub(super) fn new(
        literals: ByName,
        sorted: Vec<(Box<str>, Cell)>,
        all: Cell,
        denied: Operations,
    ) -> Index {
        Index {
            literals,
            prefixes: Prefixes::new(sorted, Stem::new),
            all,
            denied,
        }
    }

    /// Looks at every rule about `name` that can decide.
    fn look<'v>(
        &'v self,
        found: &mut Found<'v>,
        name: &str,
        allowing: Operations,
        denying: Operations,
    ) {
        found.look(&self.all, allowing, denying);
        if let Some(cell) = self.literals.get(name) {
            found.look(cell, allowing, denying);
        }
        self.look_at_prefixes(found, name, allowing, denying);
    }

    /// Of these, at the rules about its prefixes.
    fn look_at_prefixes<'v>(
        &'v self,
        found: &mut Found<'v>,
        name: &str,
        allowing: Operations,
        denying: Operations,
    ) {
        if let Some(stem) = self.prefixes.longest(name) {
            found.look(stem.whole(), allowing, denying);
        }
    }

    /// Visits every rule about `name`, also those that others leave nothing to decide.
    fn each_cell<'v>(&'v self, name: &str, mut visit: impl FnMut(&'v Cell)) {
        visit(&self.all);
        if let Some(cell) = self.literals.get(name) {
            visit(cell);
        }
        self.prefixes.each(name, |stem| visit(&stem.own));
    }
}

/// What the rules say about a prefix.
#[derive(Clone, Debug)]
struct Stem {
    own: Cell,
    /// Together with what they say about the prefixes that this one begins with, as far as it can
    /// decide: however many there are, the longest is all that is looked at.
    whole: Option<Cell>,
}

impl Stem {
    fn new(own: Cell, shorter: Option<&Stem>) -> Stem {
        let whole = shorter.map(|shorter| {
            let shorter = shorter.whole().deciding().iter();
            let mut grants: Vec<&Grant> = shorter.chain(own.deciding()).collect();
            grants.sort_by_key(|grant| grant.order);
            let mut whole = Cell::default();
            grants.into_iter().for_each(|g| whole.add(g.clone()));
            whole.grants.truncate(whole.deciding);
            whole.grants.shrink_to_fit();
            whole
        });
        Stem { own, whole }
    }

    fn whole(&self) -> &Cell {
        self.whole.as_ref().unwrap_or(&self.own)
    }
}
