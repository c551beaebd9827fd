//! What the house wants of topics and of what is written to them (`TopicPolicy`), whoever asks:
//! names, partitions, replicas and configurations where topics are made or changed; acks,
//! producer ids, compression and sizes where records are produced. A rule about topics is no
//! right: it holds for super users and with `authorization: off`, and is asked once everything
//! else allows.
//!
//! [`parse`] reads a policy, [`TopicRules`] holds all of them, [`change`] judges a change and
//! [`produce`] a batch. Pure, and without an idea of Kafka's messages, save the record batch.

pub mod change;
pub mod parse;
pub mod produce;
pub mod spec;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use change::{Change, ConfigChange, Count, Defaults, How};
pub use produce::{ProduceRules, Rejection};
pub use spec::TopicSpec;

use crate::policy::model::RuleRef;
use crate::policy::topic_pattern::{PerTopic, TopicPatterns};

/// Most characters of what a client sent, or of a policy's name, that a message repeats.
const SHOWN_CHARS_MAX: usize = 120;
/// Most characters of a message: Kafka's strings hold 32 KiB.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// Every topic policy in force.
#[derive(Debug)]
pub struct TopicRules {
    policies: Vec<TopicSpec>,
    changes: TopicPatterns,
    produced: PerTopic<ProduceRules>,
    produces: bool,
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The first rule that is broken.
    pub rule: RuleRef,
    /// For people: each rule that is broken, by its policy and key, and what was expected.
    pub message: String,
}

impl TopicRules {
    /// Puts policies together.
    pub fn new(policies: Vec<TopicSpec>) -> Self {
        let create = policies.iter().filter(|policy| policy.create.is_some());
        let produce = || policies.iter().filter(|policy| policy.produce.is_some());
        TopicRules {
            changes: TopicPatterns::new(create.flat_map(|policy| &policy.topics)),
            produced: PerTopic::new(produce().flat_map(|policy| &policy.topics)),
            produces: produce().next().is_some(),
            policies,
        }
    }

    /// Whether any policy speaks about what is produced.
    #[inline]
    pub fn rules_produce(&self) -> bool {
        self.produces
    }

    /// What must hold for what is produced to this topic; `None` if no policy says anything.
    pub fn produce(&self, topic: &str) -> Option<Arc<ProduceRules>> {
        self.produced.get(topic, || {
            let concerned = self.concerned(topic);
            ProduceRules::new(concerned.filter_map(|policy| {
                let rules = policy.produce.clone()?;
                Some((policy.name.clone(), rules))
            }))
        })
    }

    /// What speaks against making or changing a topic so. `defaults` is asked only where the
    /// answer depends on it; `None`: they are not known.
    pub fn object(
        &self,
        topic: &str,
        change: &Change<'_>,
        defaults: &mut dyn FnMut() -> Option<Defaults>,
    ) -> Option<Objection> {
        if !self.changes.concern(topic) {
            return None;
        }
        let mut found = change::Found::default();
        for policy in self.concerned(topic) {
            if let Some(rules) = &policy.create {
                rules.judge(&policy.name, topic, change, defaults, &mut found);
            }
        }
        found.objection()
    }

    fn concerned(&self, topic: &str) -> impl Iterator<Item = &TopicSpec> {
        let means = move |policy: &&TopicSpec| policy.topics.iter().any(|p| p.matches(topic));
        self.policies.iter().filter(means)
    }
}

/// What a client sent, as messages repeat it: of bounded length, and one line.
fn shown(text: &str) -> String {
    clipped(text, SHOWN_CHARS_MAX)
}

/// One line of so many characters at most.
fn clipped(text: &str, chars_max: usize) -> String {
    let legible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut out: String = text.chars().take(chars_max).map(legible).collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}
