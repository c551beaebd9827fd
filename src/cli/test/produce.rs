//! What would become of a produced record: authorization first, then the topic rules, then its key,
//! then its value, each by the checks that the proxy runs, on a batch as a client would send it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::read::{Sent, Stage};
use crate::config::Guards;
use crate::policy::View;
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::problem::Problems;
use crate::schema::directory::INDEX_FILE;
use crate::schema::{Directory, SchemaSet, from_json};
use crate::topic_rules::{Rejection, TopicRules};
use crate::wire::records::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, MAGIC, Scratch, Summary, inspect, put_zigzag,
};

/// What is asked of topics and records: of keys, and apart from it of values.
pub(super) struct Guarded {
    pub topics: TopicRules,
    keys: SchemaSet,
    values: SchemaSet,
}

/// What became of a record.
pub(super) struct Verdict {
    pub rejected: Option<Stage>,
    pub rule: Option<RuleRef>,
    pub message: Option<String>,
}

impl Guarded {
    /// The topic and schema policies, with the schemas of a directory: the one given, or
    /// `schemas/` in or beside the policies.
    pub(super) fn load(
        policies: &Path,
        given: Option<&Path>,
        guards: &Guards,
        problems: &mut Problems,
    ) -> Guarded {
        let near = [policies.join("schemas"), policies.join("../schemas")];
        let found = near.into_iter().find(|dir| dir.join(INDEX_FILE).is_file());
        let dir = given.map(Path::to_owned).or(found);
        let directory = match dir {
            Some(dir) if !guards.schemas.is_empty() || given.is_some() => {
                Directory::load(&dir, problems)
            }
            _ => Directory::default(),
        };
        let (mut keys, mut values) = (guards.schemas.clone(), guards.schemas.clone());
        keys.iter_mut().for_each(|policy| policy.value = None);
        values.iter_mut().for_each(|policy| policy.key = None);
        // Subjects without a schema are what `check` warns of; here a case would fail.
        let mut unheeded = Problems::default();
        Guarded {
            topics: TopicRules::new(guards.topics.clone()),
            keys: SchemaSet::new(keys, directory.clone(), &mut unheeded),
            values: SchemaSet::new(values, directory, &mut unheeded),
        }
    }

    pub(super) fn judge(&self, sent: &Sent, view: &View) -> Verdict {
        let may = view.decide(Operation::Write, ResourceKind::Topic, &sent.topic);
        if !may.allowed {
            return Verdict {
                rejected: Some(Stage::Authorization),
                rule: may.rule,
                message: Some("Write on the topic is denied".to_owned()),
            };
        }
        let key = payload(&self.keys, sent, Stage::Key);
        let value = payload(&self.values, sent, Stage::Value);
        if let Some(rejection) = self.rejection(sent, &key, &value) {
            return Verdict {
                rejected: Some(Stage::TopicRules),
                rule: rejection.rule,
                message: Some(rejection.message),
            };
        }
        for (set, stage) in [(&self.keys, Stage::Key), (&self.values, Stage::Value)] {
            let of_stage = if stage == Stage::Key { &key } else { &value };
            let found = match of_stage {
                Err(why) => Some((None, why.clone())),
                Ok(_) => violation(
                    set,
                    sent,
                    key.as_ref().ok().and_then(Option::as_deref),
                    value.as_ref().ok().and_then(Option::as_deref),
                ),
            };
            if let Some((rule, message)) = found {
                return Verdict {
                    rejected: Some(stage),
                    rule,
                    message: Some(message),
                };
            }
        }
        Verdict {
            rejected: None,
            rule: None,
            message: None,
        }
    }
}

impl Guarded {
    /// What the topic's rules say against the record. One that its own schema cannot write is
    /// measured without what cannot be written.
    fn rejection(
        &self,
        sent: &Sent,
        key: &Result<Payload, String>,
        value: &Result<Payload, String>,
    ) -> Option<Rejection> {
        let rules = self.topics.produce(&sent.topic)?;
        let bytes = |payload: &'_ Result<Payload, String>| payload.clone().ok().flatten();
        let (key, value) = (bytes(key), bytes(value));
        let batch = batch(key.as_deref(), value.as_deref(), &sent.headers);
        // Records are measured uncompressed, so that only the head says how it is compressed.
        let heads = Summary {
            codecs: sent.compression.bit(),
            repeatable: !sent.idempotent,
            ..inspect(&batch).ok()?
        };
        let checked = rules.check_heads(sent.acks, &heads);
        let checked = checked.and_then(|()| rules.check_records(&batch, &mut Scratch::default()));
        checked.err()
    }
}

type Payload = Option<Vec<u8>>;

/// The bytes that a producer would send: as the topic's policy asks, otherwise plain JSON (text
/// for a key that is text). `Err`: no schema of the topic describes it.
fn payload(set: &SchemaSet, sent: &Sent, stage: Stage) -> Result<Payload, String> {
    let json = match stage {
        Stage::Key => &sent.key,
        _ => &sent.value,
    };
    let Some(json) = json else {
        return Ok(None);
    };
    let Some(writers) = set.writers(&sent.topic, stage == Stage::Key) else {
        return Ok(Some(match json {
            Json::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        }));
    };
    let mut first = None;
    for writer in &writers {
        match from_json::framed(writer.id, &writer.text, json) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(why) => first = first.or(Some(format!("{} {why}", stage.name()))),
        }
    }
    Err(first.unwrap_or_else(|| {
        format!(
            "no schema is registered for the {} of `{}`; `--schemas DIR` says where they are",
            stage.name(),
            sent.topic
        )
    }))
}

fn violation(
    set: &SchemaSet,
    sent: &Sent,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Option<(Option<RuleRef>, String)> {
    let check: Arc<_> = set.topic(&sent.topic)?;
    let batch = batch(key, value, &sent.headers);
    let outcome = check.check_batchset(&batch, &mut Scratch::default());
    if let Some(whole) = outcome.whole {
        return Some((Some(whole.rule), whole.message));
    }
    let bad = outcome.bad.into_iter().next()?;
    Some((Some(bad.rule), bad.message))
}

/// One uncompressed batch of one record.
fn batch(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(String, Option<String>)],
) -> Vec<u8> {
    let mut record = vec![0]; // attributes
    put_zigzag(0, &mut record); // timestamp delta
    put_zigzag(0, &mut record); // offset delta
    nullable(key, &mut record);
    nullable(value, &mut record);
    put_zigzag(headers.len() as i64, &mut record);
    for (name, text) in headers {
        nullable(Some(name.as_bytes()), &mut record);
        nullable(text.as_ref().map(|t| t.as_bytes()), &mut record);
    }
    let mut section = Vec::new();
    put_zigzag(record.len() as i64, &mut section);
    section.append(&mut record);

    let length = BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES + section.len();
    let mut out = Vec::with_capacity(BATCH_PREFIX_BYTES + length);
    out.extend_from_slice(&0i64.to_be_bytes()); // base offset
    out.extend_from_slice(&(length as i32).to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes()); // partition leader epoch
    out.push(MAGIC as u8);
    out.extend_from_slice(&[0; 4]); // checksum, below
    out.extend_from_slice(&[0; 2]); // attributes
    out.extend_from_slice(&0i32.to_be_bytes()); // last offset delta
    out.extend_from_slice(&[0; 16]); // timestamps
    out.extend_from_slice(&(-1i64).to_be_bytes()); // producer id
    out.extend_from_slice(&(-1i16).to_be_bytes()); // producer epoch
    out.extend_from_slice(&(-1i32).to_be_bytes()); // sequence
    out.extend_from_slice(&1i32.to_be_bytes()); // records
    out.append(&mut section);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

fn nullable(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes {
        None => put_zigzag(-1, out),
        Some(bytes) => {
            put_zigzag(bytes.len() as i64, out);
            out.extend_from_slice(bytes);
        }
    }
}
