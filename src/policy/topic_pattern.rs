//! Which topics a policy about topics concerns: names as other policies write them, without
//! variables, since such a policy belongs to no subject.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::model::ResourceKind;
use super::parse;
use super::rule::{NamePattern, Part, Template};
use crate::document::Node;
use crate::problem::Problems;

/// Topics of which something is kept ready in one table; beyond it the table starts anew.
pub const TOPICS_CACHED_MAX: usize = 10_000;
/// Longest topic name kept, bytes: Kafka allows no longer one, so no such topic exists.
const TOPIC_BYTES_MAX: usize = 249;

/// A topic name pattern as product policies write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicPattern {
    /// Exactly this name.
    Literal(String),
    /// Every name that begins so.
    Prefix(String),
    /// Every name.
    All,
}

impl TopicPattern {
    /// Whether the pattern means this topic.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            TopicPattern::All => true,
            TopicPattern::Literal(name) => name == topic,
            TopicPattern::Prefix(prefix) => topic.starts_with(prefix.as_str()),
        }
    }
}

/// An item of a list of topics; `of` says in messages whose.
pub fn topic_pattern(node: &Node, of: &str, problems: &mut Problems) -> Option<TopicPattern> {
    let (template, is_prefix) = match parse::names_of(ResourceKind::Topic, node, problems)? {
        NamePattern::All => return Some(TopicPattern::All),
        NamePattern::Literal(template) => (template, false),
        NamePattern::Prefix(template) => (template, true),
    };
    let Template(parts) = template;
    match <[Part; 1]>::try_from(parts) {
        Ok([Part::Text(text)]) if is_prefix => Some(TopicPattern::Prefix(text)),
        Ok([Part::Text(text)]) => Some(TopicPattern::Literal(text)),
        _ => {
            let message = format!("variables may not stand in the topics of {of}");
            problems.error(&node.place, message);
            None
        }
    }
}

/// Quick answers to "does any policy concern this topic?".
#[derive(Debug, Default)]
pub struct TopicPatterns {
    all: bool,
    literals: HashSet<Box<str>>,
    prefixes: Vec<Box<str>>,
}

impl TopicPatterns {
    /// All of these together.
    pub fn new<'p>(patterns: impl Iterator<Item = &'p TopicPattern>) -> Self {
        let mut all = Self::default();
        for pattern in patterns {
            match pattern {
                TopicPattern::All => all.all = true,
                TopicPattern::Literal(name) => {
                    all.literals.insert(name.as_str().into());
                }
                TopicPattern::Prefix(name) => all.prefixes.push(name.as_str().into()),
            }
        }
        all
    }

    /// Whether any of them means this topic.
    pub fn concern(&self, topic: &str) -> bool {
        self.all
            || self.literals.contains(topic)
            || self.prefixes.iter().any(|p| topic.starts_with(&**p))
    }
}

/// What the policies together say of a topic, worked out once for each topic they concern.
#[derive(Debug)]
pub struct PerTopic<T> {
    patterns: TopicPatterns,
    ready: RwLock<HashMap<Box<str>, Arc<T>>>,
}

impl<T> PerTopic<T> {
    /// For policies that concern these topics.
    pub fn new<'p>(patterns: impl Iterator<Item = &'p TopicPattern>) -> Self {
        PerTopic {
            patterns: TopicPatterns::new(patterns),
            ready: RwLock::default(),
        }
    }

    /// What `resolve` made of this topic; `None` if no policy concerns it.
    pub fn get(&self, topic: &str, resolve: impl FnOnce() -> T) -> Option<Arc<T>> {
        if !self.patterns.concern(topic) {
            return None;
        }
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ready.get(topic) {
            return Some(Arc::clone(known));
        }
        drop(ready);
        let made = Arc::new(resolve());
        if topic.len() <= TOPIC_BYTES_MAX {
            let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
            if ready.len() >= TOPICS_CACHED_MAX {
                ready.clear();
            }
            ready.insert(topic.into(), Arc::clone(&made));
        }
        Some(made)
    }

    /// Topics of which something is kept ready now.
    pub fn cached(&self) -> usize {
        let ready = self.ready.read();
        ready.unwrap_or_else(PoisonError::into_inner).len()
    }
}
