//! A `TopicPolicy` as written: plain values, filled by [`parse`](super::parse).

use std::fmt;

use regex::bytes::Regex;

use crate::policy::model::RuleRef;
use crate::policy::topic_pattern::TopicPattern;

/// One `TopicPolicy` document.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// `metadata.name`.
    pub name: String,
    /// The topics it concerns.
    pub topics: Vec<TopicPattern>,
    /// What topics must be when they are made or changed.
    pub create: Option<CreateSpec>,
    /// What must hold for what is produced to them.
    pub produce: Option<ProduceSpec>,
}

/// One key of a policy: what it wants, and where it stands.
#[derive(Clone, Debug)]
pub struct Wanted<T> {
    /// Where.
    pub at: RuleRef,
    /// What.
    pub value: T,
}

/// `spec.create`.
#[derive(Clone, Debug, Default)]
pub struct CreateSpec {
    /// What a name must match.
    pub name: Option<Wanted<NamePattern>>,
    /// How many partitions.
    pub partitions: Option<Wanted<Range>>,
    /// How many replicas of each.
    pub replication_factor: Option<Wanted<Range>>,
    /// Configurations by name, each with what it may be.
    pub configs: Vec<(String, Wanted<Vec<Allowed>>)>,
}

/// `spec.produce`.
#[derive(Clone, Debug, Default)]
pub struct ProduceSpec {
    /// All replicas in sync must have acknowledged.
    pub acks_all: Option<RuleRef>,
    /// Batches must have a producer id.
    pub idempotent: Option<RuleRef>,
    /// The codecs that may be used, as bits of [`crate::wire::records::Summary::codecs`].
    pub compression: Option<Wanted<u8>>,
    /// Bytes of the largest record.
    pub record_bytes_max: Option<Wanted<usize>>,
}

/// A pattern that a whole name must match.
#[derive(Clone, Debug)]
pub struct NamePattern {
    /// As it was written.
    pub written: String,
    /// The same, from the name's begin to its end.
    pub whole: Regex,
}

/// Whole numbers from-to, both included. Without a begin it is 0: below are the numbers with
/// which Kafka says "without limit" or "the default".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least; `None`: 0.
    pub from: Option<i64>,
    /// The most; `None`: no end.
    pub to: Option<i64>,
}

impl Range {
    /// Whether a number lies in it.
    pub fn contains(self, number: i64) -> bool {
        number >= self.from.unwrap_or(0) && self.to.is_none_or(|to| number <= to)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = self.from {
            write!(f, "{from}")?;
        }
        if self.from.is_none() || self.from != self.to {
            f.write_str("..")?;
            if let Some(to) = self.to {
                write!(f, "{to}")?;
            }
        }
        Ok(())
    }
}

/// What a configuration may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// This text.
    Text(String),
    /// A number of these.
    Number(Range),
    /// `true` or `false`, in whatever case it is written.
    Boolean(bool),
}

impl Allowed {
    /// Whether a value, without white space around it, is this.
    pub fn is(&self, value: &str) -> bool {
        match self {
            Allowed::Text(text) => text == value,
            Allowed::Number(range) => value.parse().is_ok_and(|number| range.contains(number)),
            Allowed::Boolean(wanted) => value.eq_ignore_ascii_case(match wanted {
                true => "true",
                false => "false",
            }),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Text(text) => write!(f, "`{text}`"),
            Allowed::Number(range) => write!(f, "{range}"),
            Allowed::Boolean(wanted) => write!(f, "`{wanted}`"),
        }
    }
}
