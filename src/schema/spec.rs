//! A `SchemaPolicy` as written: plain values, filled by `config`.

use crate::policy::model::RuleRef;
use crate::policy::topic_pattern::TopicPattern;

/// One `SchemaPolicy` document.
#[derive(Clone, Debug)]
pub struct SchemaSpec {
    /// `metadata.name`.
    pub name: String,
    /// Where `spec` stands.
    pub rule: RuleRef,
    /// The topics it concerns.
    pub topics: Vec<TopicPattern>,
    /// What values must be.
    pub value: Option<PayloadSpec>,
    /// What keys must be.
    pub key: Option<PayloadSpec>,
    /// What happens to a batch with a bad record, if anything does.
    pub on_violation: OnViolation,
}

/// What a key or a value must be.
#[derive(Clone, Debug)]
pub struct PayloadSpec {
    /// The format of the payload.
    pub format: Format,
    /// Which subject a schema id must be registered under.
    pub subject: SubjectName,
    /// How deep the check goes.
    pub check: Depth,
    /// Whether a null (a tombstone) passes.
    pub empty_allowed: bool,
}

/// The format of a payload, in Confluent framing (magic byte 0, four-byte schema id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Avro binary encoding.
    Avro,
}

/// Confluent's subject name strategies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// `TOPIC-value` or `TOPIC-key`.
    Topic,
    /// The record's full name.
    Record,
    /// `TOPIC-` and the record's full name.
    TopicRecord,
    /// A fixed subject.
    Fixed(String),
}

/// How deep a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The id is registered under the subject.
    Id,
    /// Also: the payload decodes by the schema and nothing is left over.
    Full,
}

/// What happens to a batch that holds a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Refused with INVALID_RECORD.
    Reject,
    /// Passed, logged and counted.
    Warn,
    /// Passed and counted as what would be refused: `mode: observe`.
    Observe,
}
