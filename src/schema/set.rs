//! The schema policies of a snapshot, and which of them a topic has. Subjects are resolved once
//! for each topic, not for each record.

use std::sync::Arc;

use super::check::{Payload, PayloadCheck, PolicyCheck, TopicCheck};
use super::directory::{Directory, Registered};
use super::spec::{OnViolation, PayloadSpec, SchemaSpec, SubjectName};
use crate::policy::topic_pattern::{PerTopic, TopicPattern};
use crate::problem::{Place, Problems};

/// Every schema policy in force, with the schemas they speak of.
#[derive(Debug)]
pub struct SchemaSet {
    policies: Vec<SchemaSpec>,
    directory: Directory,
    checks: PerTopic<TopicCheck>,
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
            checks: PerTopic::new(policies.iter().flat_map(|p| &p.topics)),
            policies,
            directory,
        }
    }

    /// Whether there is no policy at all.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Whether any policy refuses records, rather than to warn or to observe.
    pub fn refuses(&self) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|policy| policy.on_violation == OnViolation::Reject)
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
            (self.policies.iter()).filter(|policy| policy.topics.iter().any(|p| p.matches(topic)));
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
        self.checks.cached()
    }

    /// The check for what is produced to this topic; `None` if no policy concerns it. Every
    /// policy that matches applies.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicCheck>> {
        self.checks.get(name, || self.resolve(name))
    }

    fn resolve(&self, topic: &str) -> TopicCheck {
        TopicCheck::new(
            topic,
            self.policies
                .iter()
                .filter(|policy| policy.topics.iter().any(|p| p.matches(topic)))
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
