//! Which allowed decisions are kept. By default none is, and then asking costs one comparison.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Entry, Resource, Verdict};
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::principal::Proof;
use crate::telemetry::Reason;

/// How often counts of allowed decisions become lines.
pub const COUNT_EVERY: Duration = Duration::from_secs(60);
/// Most different decisions that are counted at a time.
pub const COUNTED_MAX: usize = 4096;

/// Which allowed decisions become lines; refusals always do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Allows {
    /// None of them.
    #[default]
    None,
    /// Each [`COUNT_EVERY`] one line for all that are alike, with their number.
    Counted,
    /// Each of them.
    All,
    /// Each with this probability.
    Sample(f64),
}

impl Allows {
    /// What holds for the decisions that another set of policies would have taken. Who decides by
    /// another set wants to hear of it, whatever becomes of what is allowed.
    pub fn of_differences(self) -> Allows {
        match self {
            Allows::None => Allows::Counted,
            as_allowed => as_allowed,
        }
    }
}

/// Chooses among allowed decisions, one for each connection.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// `None`: never; [`u64::MAX`]: always.
    below: Option<u64>,
    state: u64,
}

impl Sampler {
    /// A sampler with a seed of its own.
    pub fn new(allows: Allows) -> Self {
        let below = match allows {
            Allows::None => None,
            Allows::Counted | Allows::All => Some(u64::MAX),
            // The cast saturates, which is what a probability of one needs.
            Allows::Sample(p) => Some((p * u64::MAX as f64) as u64),
        };
        let state = match allows {
            Allows::Sample(_) => RandomState::new().hash_one(below) | 1,
            _ => 1,
        };
        Sampler { below, state }
    }

    /// Whether the next allowed decision is kept.
    pub fn takes(&mut self) -> bool {
        match self.below {
            None => false,
            Some(u64::MAX) => true,
            Some(below) => {
                // Xorshift*: even enough to sample with, and nobody's secret.
                self.state ^= self.state >> 12;
                self.state ^= self.state << 25;
                self.state ^= self.state >> 27;
                self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) < below
            }
        }
    }
}

/// Decisions that are alike.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    listener: Arc<str>,
    host: IpAddr,
    principal: Option<Arc<str>>,
    tenant: Arc<str>,
    groups: Arc<[Arc<str>]>,
    api: Option<&'static str>,
    operation: Option<Operation>,
    resource: Option<(ResourceKind, String)>,
    verdict: Verdict,
    reason: Reason,
    rule: Option<RuleRef>,
    policy: Option<Arc<str>>,
}

/// Whether such a decision has been met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    First,
    Again,
    /// There is no room for one more kind.
    NoRoom,
}

struct Number {
    count: u64,
    /// The connection that was the first to ask, and how its client proved who it is.
    connection: u64,
    proof: Option<Proof>,
    /// Of the first: what is alike differs in it at most by the number of a record.
    detail: Option<String>,
}

/// Decisions that have not become lines yet.
#[derive(Default)]
pub(super) struct Counts(HashMap<Alike, Number>);

impl Counts {
    /// Counts a decision; `false`: there is no room for one more kind.
    pub fn add(&mut self, entry: Entry) -> bool {
        self.count(entry, 1) != Met::NoRoom
    }

    /// Counts a decision of which the first is told by itself.
    pub fn meet(&mut self, entry: &Entry) -> Met {
        self.count(entry.clone(), 0)
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&mut self, entry: Entry, first: u64) -> Met {
        let alike = Alike {
            listener: entry.listener,
            host: entry.host,
            principal: entry.principal,
            tenant: entry.tenant,
            groups: entry.groups,
            api: entry.api,
            operation: entry.operation,
            resource: entry.resource.map(|r| (r.kind, r.name)),
            verdict: entry.verdict,
            reason: entry.reason,
            rule: entry.rule,
            policy: entry.policy,
        };
        if let Some(number) = self.0.get_mut(&alike) {
            number.count += 1;
            return Met::Again;
        }
        if self.0.len() >= COUNTED_MAX {
            return Met::NoRoom;
        }
        let (connection, proof) = (entry.connection, entry.proof);
        let number = Number {
            count: first,
            connection,
            proof,
            detail: entry.detail,
        };
        self.0.insert(alike, number);
        Met::First
    }

    /// What was counted, as entries.
    pub fn into_entries(self) -> impl Iterator<Item = Entry> {
        let counted = self.0.into_iter().filter(|(_, number)| number.count > 0);
        counted.map(|(alike, number)| Entry {
            connection: number.connection,
            listener: alike.listener,
            host: alike.host,
            principal: alike.principal,
            proof: number.proof,
            tenant: alike.tenant,
            groups: alike.groups,
            api: alike.api,
            operation: alike.operation,
            resource: alike.resource.map(|(kind, name)| Resource { kind, name }),
            verdict: alike.verdict,
            reason: alike.reason,
            detail: number.detail,
            rule: alike.rule,
            policy: alike.policy,
            count: Some(number.count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allows: Allows) -> usize {
        let mut sampler = Sampler::new(allows);
        (0..100_000).filter(|_| sampler.takes()).count()
    }

    #[test]
    fn a_sample_has_about_the_size_that_was_asked_for() {
        assert_eq!(taken(Allows::None), 0);
        assert_eq!(taken(Allows::All), 100_000);
        assert_eq!(taken(Allows::Sample(1.0)), 100_000);
        assert_eq!(taken(Allows::Sample(0.0)), 0);
        // Far more than six standard deviations on each side.
        let found = taken(Allows::Sample(0.1));
        assert!((9_000..11_000).contains(&found), "{found}");
    }
}
