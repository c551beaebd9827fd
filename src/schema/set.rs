//! The schema policies of a snapshot, and which of them a topic has. Subjects are resolved once
//! for each topic, not for each record.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::check::{Payload, PayloadCheck, PolicyCheck, TopicCheck};
use super::directory::{Directory, Registered};
use super::spec::{PayloadSpec, SchemaSpec, SubjectName, TopicPattern};
use crate::problem::{Place, Problems};

/// Topics whose checks are kept ready; beyond it the table starts anew.
pub const TOPICS_CACHED_MAX: usize = 10_000;
/// Longest topic name kept, bytes: Kafka allows no longer one, so no such topic exists.
const TOPIC_BYTES_MAX: usize = 249;

/// Every schema policy in force, with the schemas they speak of.
#[derive(Debug)]
pub struct SchemaSet {
    policies: Vec<SchemaSpec>,
    directory: Directory,
    patterns: Patterns,
    ready: RwLock<HashMap<Box<str>, Arc<TopicCheck>>>,
}

/// Quick answers to "does any policy concern this topic?".
#[derive(Debug, Default)]
struct Patterns {
    all: bool,
    literals: std::collections::HashSet<Box<str>>,
    prefixes: Vec<Box<str>>,
}

impl Patterns {
    fn new(policies: &[SchemaSpec]) -> Self {
        let mut patterns = Self::default();
        for pattern in policies.iter().flat_map(|p| &p.topics) {
            match pattern {
                TopicPattern::All => patterns.all = true,
                TopicPattern::Literal(name) => {
                    patterns.literals.insert(name.as_str().into());
                }
                TopicPattern::Prefix(name) => patterns.prefixes.push(name.as_str().into()),
            }
        }
        patterns
    }

    fn concern(&self, topic: &str) -> bool {
        self.all
            || self.literals.contains(topic)
            || self.prefixes.iter().any(|p| topic.starts_with(&**p))
    }
}

impl SchemaSet {
    /// Puts policies and schemas together. A subject that a policy asks for by name but that has
    /// no schema is a warning: every record there would be refused.
    pub fn new(policies: Vec<SchemaSpec>, directory: Directory, problems: &mut Problems) -> Self {
        for policy in &policies {
            for subject in named_subjects(policy) {
                if directory.versions(&subject).next().is_none() {
                    let at = Place {
                        file: Arc::clone(&policy.rule.file),
                        line: policy.rule.line,
                        column: 1,
                    };
                    problems
                        .warning(&at, format!("no schema is registered under `{subject}`"))
                        .help("every record that needs it will be refused");
                }
            }
        }
        Self {
            patterns: Patterns::new(&policies),
            policies,
            directory,
            ready: RwLock::default(),
        }
    }

    /// Whether there is no policy at all.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The registered schemas.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The schemas that a value (or key) of the topic may be written with, newest first as far as
    /// the subject has versions; `None` if no policy says anything about it.
    pub fn writers(&self, topic: &str, of_key: bool) -> Option<Vec<Arc<Registered>>> {
        let which = match of_key {
            true => Payload::Key,
            false => Payload::Value,
        };
        let mut policies =
            (self.policies.iter()).filter(|policy| policy.topics.iter().any(|p| matches(p, topic)));
        let spec = policies.find_map(|policy| match which {
            Payload::Key => policy.key.as_ref(),
            Payload::Value => policy.value.as_ref(),
        })?;
        let subject = subject_for(&spec.subject, topic, which, None);
        let mut schemas: Vec<_> = match subject {
            Some(subject) => {
                let versions = self.directory.versions(&subject);
                versions.map(|(_, schema)| Arc::clone(schema)).collect()
            }
            None => self.payload(spec, topic, which).allowed,
        };
        schemas.reverse();
        Some(schemas)
    }

    /// Topics whose checks are kept ready now.
    pub fn cached_topics(&self) -> usize {
        let ready = self.ready.read();
        ready.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The check for what is produced to this topic; `None` if no policy concerns it. Every
    /// policy that matches applies.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicCheck>> {
        if !self.patterns.concern(name) {
            return None;
        }
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = ready.get(name) {
            return Some(Arc::clone(check));
        }
        drop(ready);
        let check = Arc::new(self.resolve(name));
        if name.len() <= TOPIC_BYTES_MAX {
            let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
            if ready.len() >= TOPICS_CACHED_MAX {
                ready.clear();
            }
            ready.insert(name.into(), Arc::clone(&check));
        }
        Some(check)
    }

    fn resolve(&self, topic: &str) -> TopicCheck {
        TopicCheck::new(
            topic,
            self.policies
                .iter()
                .filter(|policy| policy.topics.iter().any(|p| matches(p, topic)))
                .map(|policy| PolicyCheck {
                    rule: policy.rule.clone(),
                    on_violation: policy.on_violation,
                    key: policy
                        .key
                        .as_ref()
                        .map(|s| self.payload(s, topic, Payload::Key)),
                    value: policy
                        .value
                        .as_ref()
                        .map(|s| self.payload(s, topic, Payload::Value)),
                })
                .collect(),
        )
    }

    fn payload(&self, spec: &PayloadSpec, topic: &str, which: Payload) -> PayloadCheck {
        // the directory's schemas come by ascending id, which the check relies on
        let allowed = self
            .directory
            .schemas()
            .filter(|schema| {
                let record = schema.schema.name();
                subject_for(&spec.subject, topic, which, record)
                    .is_some_and(|subject| self.directory.is_registered(&subject, schema.id))
            })
            .cloned()
            .collect();
        let subject = match &spec.subject {
            SubjectName::Record => "the name of its record".to_owned(),
            SubjectName::TopicRecord => format!("`{topic}-` and the name of its record"),
            named => subject_for(named, topic, which, None)
                .map_or_else(String::new, |subject| format!("`{subject}`")),
        };
        PayloadCheck {
            which,
            allowed,
            subject,
            depth: spec.check,
            empty_allowed: spec.empty_allowed,
        }
    }
}

fn matches(pattern: &TopicPattern, topic: &str) -> bool {
    match pattern {
        TopicPattern::All => true,
        TopicPattern::Literal(name) => name == topic,
        TopicPattern::Prefix(prefix) => topic.starts_with(prefix.as_str()),
    }
}

/// Confluent's subject name strategies; `None` where a record name is needed and there is none.
fn subject_for(
    strategy: &SubjectName,
    topic: &str,
    which: Payload,
    record: Option<&str>,
) -> Option<String> {
    match strategy {
        SubjectName::Topic => Some(format!("{topic}-{}", which.name())),
        SubjectName::Record => record.map(str::to_owned),
        SubjectName::TopicRecord => record.map(|record| format!("{topic}-{record}")),
        SubjectName::Fixed(subject) => Some(subject.clone()),
    }
}

/// The subjects that are known from the policy alone.
fn named_subjects(policy: &SchemaSpec) -> Vec<String> {
    let mut subjects = Vec::new();
    let sides = [(&policy.key, Payload::Key), (&policy.value, Payload::Value)];
    for (spec, which) in sides {
        match spec.as_ref().map(|s| &s.subject) {
            Some(SubjectName::Fixed(subject)) => subjects.push(subject.clone()),
            Some(SubjectName::Topic) => {
                subjects.extend(policy.topics.iter().filter_map(|pattern| match pattern {
                    TopicPattern::Literal(topic) => Some(format!("{topic}-{}", which.name())),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    subjects
}
