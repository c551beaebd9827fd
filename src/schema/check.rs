//! The check of what one request produces to one topic: every batch, every record, every policy
//! that concerns the topic. Says which records are bad and why, without a byte of their content.

use std::sync::Arc;

use super::directory::Registered;
use super::envelope;
use super::spec::{Depth, OnViolation};
use crate::policy::model::RuleRef;
use crate::wire::records::{Limits, Record, RecordsError, Scratch, batches, records};

/// Bad records that are told why; the others are listed with an empty message.
pub const MESSAGES_MAX: usize = 100;
/// Bad records that are listed; with more, the batch as a whole is refused, which a client
/// applies to every record of it (KIP-467).
pub const BAD_RECORDS_MAX: usize = 10_000;

/// What was found in the records of one partition.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records looked at.
    pub records: u64,
    /// Set if the batch is refused as a whole; `bad` is then empty.
    pub whole: Option<WholeBatch>,
    /// Every record that makes its batch refused, in order, each once.
    pub bad: Vec<BadRecord>,
    /// What policies with `onViolation: warn` found.
    pub warned: Warned,
    /// What policies with `mode: observe` would refuse.
    pub observed: Warned,
}

impl Outcome {
    /// Whether the batch must not reach the broker.
    pub fn refused(&self) -> bool {
        self.whole.is_some() || !self.bad.is_empty()
    }

    /// What would be refused if policies that observe were in force: how many records, a fault
    /// of the whole batch being one, and the first of them. `None` also where it is refused as
    /// it is.
    pub fn would_be_refused(&self) -> Option<Observed> {
        let Warned {
            whole,
            records,
            first,
        } = &self.observed;
        if self.refused() {
            return None;
        }
        match (whole, first.first()) {
            (Some(whole), _) => Some((1, whole.message.clone(), whole.rule.clone())),
            (None, Some(bad)) => {
                let detail = told(bad, *records);
                Some((*records, detail, bad.rule.clone()))
            }
            (None, None) => None,
        }
    }
}

/// A bad record and how many others there are, for people.
pub fn told(first: &BadRecord, records: u64) -> String {
    let BadRecord { index, message, .. } = first;
    match records.saturating_sub(1) {
        0 => format!("record {index}: {message}"),
        more => format!("record {index}: {message}, and {more} more"),
    }
}

/// What would be refused: how many records, what is wrong with the first, and the policy.
pub type Observed = (u64, String, RuleRef);

/// What passes, but is logged and counted.
#[derive(Clone, Debug, Default)]
pub struct Warned {
    /// Set if the batch could not be looked into and no policy refuses it for that.
    pub whole: Option<WholeBatch>,
    /// How many records have a violation.
    pub records: u64,
    /// The first of them, at most [`MESSAGES_MAX`].
    pub first: Vec<BadRecord>,
}

impl Warned {
    /// Counts a record; where it is to be told as well.
    fn one_more(&mut self) -> Option<&mut Vec<BadRecord>> {
        self.records += 1;
        (self.first.len() < MESSAGES_MAX).then_some(&mut self.first)
    }
}

/// One record that a policy does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The record's place in its batch from 0, as RecordErrors of a produce response want it.
    pub index: i32,
    /// For people; empty beyond [`MESSAGES_MAX`].
    pub message: String,
    /// The policy that found it.
    pub rule: RuleRef,
}

/// Why a batch cannot be judged record by record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeBatch {
    /// The kind of fault.
    pub fault: BatchFault,
    /// For people.
    pub message: String,
    /// The policy because of which it was looked into.
    pub rule: RuleRef,
}

/// Kinds of faults of a whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchFault {
    /// The checksum is wrong: Kafka's CORRUPT_MESSAGE, which clients send again.
    Corrupt,
    /// Not a batch of records as its header says: INVALID_RECORD.
    Undecodable,
    /// Decompresses to more than allowed: INVALID_RECORD.
    Bomb,
    /// More than [`BAD_RECORDS_MAX`] bad records: INVALID_RECORD.
    TooManyBad,
}

/// Key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Key,
    Value,
}

impl Payload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }

    /// Where Confluent's header framing has the schema's GUID. Its deserializers believe the
    /// header before the prefix, so with both a consumer would read by a schema not checked here.
    fn schema_header(self) -> &'static str {
        match self {
            Self::Key => "__key_schema_id",
            Self::Value => "__value_schema_id",
        }
    }
}

/// One policy, resolved for a topic.
#[derive(Debug)]
pub(super) struct PolicyCheck {
    pub(super) rule: RuleRef,
    pub(super) on_violation: OnViolation,
    pub(super) key: Option<PayloadCheck>,
    pub(super) value: Option<PayloadCheck>,
}

/// What a key or a value of a topic must be.
#[derive(Debug)]
pub(super) struct PayloadCheck {
    pub(super) which: Payload,
    /// By ascending id.
    pub(super) allowed: Vec<Arc<Registered>>,
    /// How to name the subject to people.
    pub(super) subject: String,
    pub(super) depth: Depth,
    pub(super) empty_allowed: bool,
}

impl PayloadCheck {
    fn check(&self, record: &Record<'_>) -> Result<(), String> {
        let which = self.which.name();
        let header = self.which.schema_header();
        if record.headers().any(|h| h.name == header.as_bytes()) {
            return Err(format!(
                "{which} has its schema in the header `{header}`, expected in front of the {which}"
            ));
        }
        let payload = match self.which {
            Payload::Key => record.key,
            Payload::Value => record.value,
        };
        let Some(payload) = payload else {
            return match self.empty_allowed {
                true => Ok(()),
                false => Err(format!("{which} is null, which the policy does not allow")),
            };
        };
        let (id, body) = envelope::open(payload).map_err(|e| format!("{which} {e}"))?;
        let found = self.allowed.binary_search_by_key(&id, |schema| schema.id);
        let Some(schema) = found.ok().and_then(|at| self.allowed.get(at)) else {
            let subject = &self.subject;
            return Err(match self.allowed.is_empty() {
                false => format!("{which} has schema id {id}, not registered under {subject}"),
                true => format!("{which} cannot pass: no schema is registered under {subject}"),
            });
        };
        match self.depth {
            Depth::Id => Ok(()),
            Depth::Full => schema.schema.validate(body).map_err(|violation| {
                let name = schema.schema.name().unwrap_or("its schema");
                format!("{which} is not a `{name}` (schema id {id}): {violation}")
            }),
        }
    }
}

impl PolicyCheck {
    fn check(&self, record: &Record<'_>) -> Result<(), String> {
        let sides = [&self.key, &self.value];
        sides
            .into_iter()
            .flatten()
            .try_for_each(|side| side.check(record))
    }
}

/// Everything that the policies ask of one topic.
#[derive(Debug)]
pub struct TopicCheck {
    topic: Box<str>,
    // those that refuse come first; never empty
    policies: Vec<PolicyCheck>,
    limits: Limits,
}

impl TopicCheck {
    /// Whether any of its policies refuses records, rather than to warn or to observe.
    pub fn refuses(&self) -> bool {
        let first = self.policies.first();
        first.is_some_and(|policy| policy.on_violation == OnViolation::Reject)
    }

    pub(super) fn new(topic: &str, mut policies: Vec<PolicyCheck>) -> Self {
        policies.sort_by_key(|p| match p.on_violation {
            OnViolation::Reject => 0,
            OnViolation::Observe => 1,
            OnViolation::Warn => 2,
        });
        Self {
            topic: topic.into(),
            policies,
            limits: Limits::default(),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Judges the `records` field of one produced partition. Looks into every batch, though Kafka
    /// accepts only one; indexes run on over all of them.
    pub fn check_batchset(&self, bytes: &[u8], scratch: &mut Scratch) -> Outcome {
        let mut outcome = Outcome::default();
        let walked = self.walk(bytes, scratch, &mut outcome);
        scratch.trim();
        if let Err(error) = walked {
            self.refuse_whole(&mut outcome, fault_of(error), error.to_string());
        } else if outcome.bad.len() > BAD_RECORDS_MAX {
            let first = outcome.bad.first().map_or("", |b| &b.message);
            let message = format!("more than {BAD_RECORDS_MAX} bad records; the first: {first}");
            self.refuse_whole(&mut outcome, BatchFault::TooManyBad, message);
        }
        outcome
    }

    fn walk(
        &self,
        bytes: &[u8],
        scratch: &mut Scratch,
        outcome: &mut Outcome,
    ) -> Result<(), RecordsError> {
        for batch in batches(bytes) {
            let batch = batch?;
            batch.check_crc()?;
            for record in records(&batch, scratch, &self.limits)? {
                let index = i32::try_from(outcome.records).unwrap_or(i32::MAX);
                outcome.records += 1;
                self.judge(index, &record?, outcome);
                if outcome.bad.len() > BAD_RECORDS_MAX {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn judge(&self, index: i32, record: &Record<'_>, outcome: &mut Outcome) {
        let (mut warned, mut observed) = (false, false);
        for policy in &self.policies {
            let Err(message) = policy.check(record) else {
                continue;
            };
            let list = match policy.on_violation {
                OnViolation::Reject => &mut outcome.bad,
                OnViolation::Warn if std::mem::replace(&mut warned, true) => continue,
                OnViolation::Warn => match outcome.warned.one_more() {
                    Some(list) => list,
                    None => continue,
                },
                OnViolation::Observe if std::mem::replace(&mut observed, true) => continue,
                OnViolation::Observe => match outcome.observed.one_more() {
                    Some(list) => list,
                    None => continue,
                },
            };
            list.push(BadRecord {
                index,
                message: match list.len() {
                    ..MESSAGES_MAX => message,
                    _ => String::new(),
                },
                rule: policy.rule.clone(),
            });
            if policy.on_violation == OnViolation::Reject {
                // refused is refused: what others would say changes nothing
                return;
            }
        }
    }

    fn refuse_whole(&self, outcome: &mut Outcome, fault: BatchFault, message: String) {
        let Some(policy) = self.policies.first() else {
            return;
        };
        let whole = WholeBatch {
            fault,
            message,
            rule: policy.rule.clone(),
        };
        outcome.bad.clear();
        match policy.on_violation {
            OnViolation::Reject => outcome.whole = Some(whole),
            OnViolation::Warn => outcome.warned.whole = Some(whole),
            OnViolation::Observe => outcome.observed.whole = Some(whole),
        }
    }
}

fn fault_of(error: RecordsError) -> BatchFault {
    match error {
        RecordsError::Bomb(_) | RecordsError::RequestBomb(_) => BatchFault::Bomb,
        error if error.is_corrupt() => BatchFault::Corrupt,
        _ => BatchFault::Undecodable,
    }
}
