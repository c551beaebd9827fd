//! What a request was allowed, for as long as its answer is owed: when policies change, the same
//! questions are put to the new ones. A few short copies for each request into memory that the
//! thread keeps for the next; nothing else happens unless policies change.

use std::cell::RefCell;

use crate::policy::View;
use crate::policy::model::{Decision, Operation, ResourceKind};

/// Most bytes of names that are remembered for one request (thousands of topics). Of a request
/// with more nobody can say later that it is still allowed.
pub const NAMES_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of names for which memory is kept for the next request.
const KEPT_BYTES_MAX: usize = 4 * 1024;
/// Most questions for which it is.
const KEPT_GRANTS_MAX: usize = 128;
/// Most partitions that are remembered for one request; of one with more, topics are remembered
/// as wholes.
pub const PARTS_MAX: usize = 16 * 1024;
/// Most partitions for which memory is kept for the next request.
const KEPT_PARTS_MAX: usize = 1024;
/// Memories that a thread keeps.
const KEPT_MAX: usize = 256;

thread_local! {
    // Boxes, since it is these that are not to be allocated again.
    #[allow(clippy::vec_box)]
    static POOL: RefCell<Vec<Box<Grants>>> = const { RefCell::new(Vec::new()) };
}

/// One question that was answered with yes. Its name is the next `bytes` of the names.
#[derive(Clone, Copy, Debug)]
struct Grant {
    operation: Operation,
    kind: ResourceKind,
    extent: Extent,
}

#[derive(Clone, Copy, Debug)]
enum Extent {
    /// A resource with a name of so many bytes.
    Name(usize),
    /// Any resource of the kind.
    Any,
    /// Every resource of the kind.
    All,
}

/// See the module. Empty until something is added.
#[derive(Debug, Default)]
pub struct Asked(Option<Box<Grants>>);

#[derive(Debug, Default)]
struct Grants {
    list: Vec<Grant>,
    names: String,
    /// Something did not find room.
    is_cut: bool,
    /// Partitions of topics, in the order of these.
    parts: Vec<Part>,
    /// More of them than find room.
    are_parts_cut: bool,
}

/// A partition of a topic that is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// At which place the topic stands in the list of grants.
    grant: usize,
    /// Stands for how the topic is named: see [`tag_of`](crate::apis::fetch::tag_of).
    pub tag: u64,
    /// The partition.
    pub partition: i32,
}

/// What is no longer allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// What had been asked for.
    pub operation: Operation,
    /// On what kind of resource.
    pub kind: ResourceKind,
    /// On which; empty: on any or all of the kind, or too many to remember.
    pub name: String,
    /// What the new policies say.
    pub decision: Decision,
}

impl Asked {
    /// This was allowed on the resource of this name.
    pub fn add(&mut self, operation: Operation, kind: ResourceKind, name: &str) {
        let grants = self.grants();
        if grants.names.len() + name.len() > NAMES_BYTES_MAX {
            grants.is_cut = true;
            return;
        }
        grants.names.push_str(name);
        grants.push(operation, kind, Extent::Name(name.len()));
    }

    /// This was allowed on some resource of the kind.
    pub fn add_any(&mut self, operation: Operation, kind: ResourceKind) {
        self.grants().push(operation, kind, Extent::Any);
    }

    /// This was allowed on every resource of the kind.
    pub fn add_all(&mut self, operation: Operation, kind: ResourceKind) {
        self.grants().push(operation, kind, Extent::All);
    }

    /// Of the topic that was added last, this partition is fetched.
    pub fn add_partition(&mut self, tag: u64, partition: i32) {
        let Some(grants) = &mut self.0 else { return };
        let Some(grant) = grants.list.len().checked_sub(1) else {
            return;
        };
        if grants.parts.len() >= PARTS_MAX {
            grants.are_parts_cut = true;
            return;
        }
        grants.parts.push(Part {
            grant,
            tag,
            partition,
        });
    }

    /// Whether there was more than is remembered.
    pub fn is_cut(&self) -> bool {
        self.0.as_ref().is_some_and(|grants| grants.is_cut)
    }

    /// The topics with the partitions that were named of each; `None`: nobody knows which.
    pub fn fetched(&self) -> impl Iterator<Item = (&str, Option<&[Part]>)> {
        let all = self.0.iter().flat_map(|grants| {
            let mut from = 0;
            grants.named().enumerate().map(move |(at, (grant, name))| {
                let rest = grants.parts.get(from..).unwrap_or_default();
                let count = rest.iter().take_while(|part| part.grant == at).count();
                from += count;
                let parts = rest.get(..count).filter(|parts| !parts.is_empty());
                (grant, name, parts.filter(|_| !grants.are_parts_cut))
            })
        });
        let topics = all.filter(|(grant, ..)| {
            grant.kind == ResourceKind::Topic && matches!(grant.extent, Extent::Name(_))
        });
        topics.map(|(_, name, parts)| (name, parts))
    }

    fn grants(&mut self) -> &mut Grants {
        let kept = || POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
        self.0.get_or_insert_with(kept)
    }

    /// The names of the topics.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let named = self.0.iter().flat_map(|grants| grants.named());
        let topics = named.filter(|(grant, _)| {
            grant.kind == ResourceKind::Topic && matches!(grant.extent, Extent::Name(_))
        });
        topics.map(|(_, name)| name)
    }

    /// The first thing that these rules do not allow.
    pub fn lost(&self, view: &View) -> Option<Lost> {
        let grants = self.0.as_deref()?;
        for (grant, name) in grants.named() {
            let (operation, kind) = (grant.operation, grant.kind);
            let decision = match grant.extent {
                Extent::Name(_) => view.decide(operation, kind, name),
                Extent::Any => view.decide_any(operation, kind),
                Extent::All if view.allows_all(operation, kind) => continue,
                Extent::All => NOBODY_KNOWS,
            };
            if !decision.allowed {
                return Some(Lost {
                    operation,
                    kind,
                    name: name.to_owned(),
                    decision,
                });
            }
        }
        grants.is_cut.then_some(Lost {
            operation: Operation::Read,
            kind: ResourceKind::Topic,
            name: String::new(),
            decision: NOBODY_KNOWS,
        })
    }
}

impl Grants {
    fn push(&mut self, operation: Operation, kind: ResourceKind, extent: Extent) {
        // Empty names cost no bytes of names.
        if self.list.len() >= NAMES_BYTES_MAX {
            self.is_cut = true;
            return;
        }
        self.list.push(Grant {
            operation,
            kind,
            extent,
        });
    }

    /// The questions with their names; those without one have an empty one.
    fn named(&self) -> impl Iterator<Item = (&Grant, &str)> {
        let mut at = 0;
        self.list.iter().map(move |grant| {
            let from = at;
            if let Extent::Name(bytes) = grant.extent {
                at += bytes;
            }
            (grant, self.names.get(from..at).unwrap_or_default())
        })
    }
}

/// Not allowed, by no rule in particular.
const NOBODY_KNOWS: Decision = Decision {
    allowed: false,
    rule: None,
};

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(mut grants) = self.0.take() else {
            return;
        };
        let is_short = grants.list.capacity() <= KEPT_GRANTS_MAX;
        let has_few = grants.parts.capacity() <= KEPT_PARTS_MAX;
        if !is_short || !has_few || grants.names.capacity() > KEPT_BYTES_MAX {
            return;
        }
        grants.parts.clear();
        grants.are_parts_cut = false;
        grants.list.clear();
        grants.names.clear();
        grants.is_cut = false;
        // Fails only while the thread ends.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < KEPT_MAX
            {
                pool.push(grants);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicySet;
    use crate::policy::model::Subject;
    use crate::principal::{Principal, Proof};

    /// What a subject sees of no rules at all: everything is refused.
    fn nothing() -> View {
        let principal = Principal {
            name: "User:a".into(),
            tenant: "".into(),
            groups: [].into(),
            proof: Proof::Static,
            expires_at: None,
        };
        PolicySet::default().view(&Subject {
            principal: &principal,
            host: [127, 0, 0, 1].into(),
        })
    }

    #[test]
    fn what_is_lost_is_named_and_what_needs_nothing_loses_nothing() {
        let mut asked = Asked::default();
        assert!(asked.lost(&nothing()).is_none());
        asked.add(Operation::Read, ResourceKind::Group, "g");
        asked.add(Operation::Read, ResourceKind::Topic, "");
        asked.add(Operation::Write, ResourceKind::Topic, "täglich");
        asked.add_any(Operation::Write, ResourceKind::Topic);
        assert_eq!(asked.topics().collect::<Vec<_>>(), ["", "täglich"]);
        let lost = asked.lost(&nothing()).unwrap();
        assert_eq!((&*lost.name, lost.kind), ("g", ResourceKind::Group));
    }

    #[test]
    fn a_request_with_more_names_than_are_remembered_is_not_said_to_be_allowed() {
        let mut asked = Asked::default();
        let name = "x".repeat(249);
        for _ in 0..2_000 {
            asked.add(Operation::Read, ResourceKind::Topic, &name);
        }
        let grants = asked.0.as_ref().unwrap();
        assert!(grants.is_cut && grants.names.len() <= NAMES_BYTES_MAX);
        let mut many = Asked::default();
        for _ in 0..NAMES_BYTES_MAX + 2 {
            many.add(Operation::Read, ResourceKind::Topic, "");
        }
        assert!(many.0.as_ref().unwrap().is_cut);
    }

    #[test]
    fn partitions_stand_with_their_topics() {
        let mut asked = Asked::default();
        asked.add_partition(0, 9);
        for (name, parts) in [("a", &[0, 1][..]), ("whole", &[]), ("b", &[7])] {
            asked.add(Operation::Read, ResourceKind::Topic, name);
            asked.add(Operation::Read, ResourceKind::Group, name);
            asked.add(Operation::Read, ResourceKind::Topic, name);
            parts.iter().for_each(|part| asked.add_partition(3, *part));
        }
        let shown = |asked: &Asked| -> Vec<(String, Option<Vec<i32>>)> {
            let parts = |parts: &[Part]| parts.iter().map(|part| part.partition).collect();
            let fetched = asked.fetched();
            fetched
                .map(|(name, p)| (name.to_owned(), p.map(parts)))
                .collect()
        };
        let expected = [
            ("a", None),
            ("a", Some(vec![0, 1])),
            ("whole", None),
            ("whole", None),
            ("b", None),
            ("b", Some(vec![7])),
        ];
        assert_eq!(shown(&asked), expected.map(|(n, p)| (n.to_owned(), p)));
        // With more than are remembered, of no topic is known which they are.
        (0..PARTS_MAX as i32).for_each(|part| asked.add_partition(3, part));
        assert!(shown(&asked).iter().all(|(_, parts)| parts.is_none()));
    }

    #[test]
    fn memory_comes_back_empty() {
        let mut first = Asked::default();
        first.add(Operation::Read, ResourceKind::Topic, "a");
        first.add_partition(0, 1);
        drop(first);
        let mut second = Asked::default();
        second.add(Operation::Read, ResourceKind::Topic, "b");
        assert!(second.fetched().all(|(_, parts)| parts.is_none()));
        assert_eq!(second.topics().collect::<Vec<_>>(), ["b"]);
    }
}
