//! What is produced, held against the rules of its topic. The heads of batches say most of it;
//! records are looked into only where one of them could be too large.

use super::shown;
use super::spec::{ProduceSpec, Wanted};
use crate::policy::model::RuleRef;
use crate::wire::records::{
    Codec, Limits, RecordsError, Scratch, Summary, batches, inspect, records,
};

/// Records that are told to be too large; beyond it the batch is refused as a whole, which a
/// client applies to every record of it (KIP-467).
pub const LARGE_RECORDS_MAX: usize = 1_000;

/// The acknowledgements of `acks: all`.
const ACKS_ALL: i64 = -1;

/// Everything that the policies ask of what is produced to one topic.
#[derive(Debug)]
pub struct ProduceRules {
    acks_all: Option<Rule<()>>,
    idempotent: Option<Rule<()>>,
    compression: Vec<Rule<u8>>,
    record_bytes_max: Option<Rule<usize>>,
    limits: Limits,
}

#[derive(Debug)]
struct Rule<T> {
    policy: String,
    at: RuleRef,
    value: T,
}

/// Why what is produced to a partition is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of fault.
    pub fault: Fault,
    /// For people.
    pub message: String,
    /// The records at fault, by their index, each with its reason.
    pub records: Vec<(i32, String)>,
    /// The rule because of which.
    pub rule: Option<RuleRef>,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A rule is broken: POLICY_VIOLATION.
    Rule,
    /// The checksum is wrong: CORRUPT_MESSAGE, which clients send again.
    Corrupt,
    /// Nobody can say whether it keeps the rules: INVALID_RECORD.
    Unreadable,
}

impl ProduceRules {
    /// Every policy must be satisfied, so that the strictest of each kind is what remains.
    pub(super) fn new(policies: impl Iterator<Item = (String, ProduceSpec)>) -> Self {
        let mut rules = ProduceRules {
            acks_all: None,
            idempotent: None,
            compression: Vec::new(),
            record_bytes_max: None,
            limits: Limits::default(),
        };
        for (policy, spec) in policies {
            if let Some(at) = spec.acks_all {
                rules.acks_all.get_or_insert(rule(&policy, at, ()));
            }
            if let Some(at) = spec.idempotent {
                rules.idempotent.get_or_insert(rule(&policy, at, ()));
            }
            if let Some(Wanted { at, value }) = spec.compression {
                rules.compression.push(rule(&policy, at, value));
            }
            if let Some(Wanted { at, value }) = spec.record_bytes_max
                && (rules.record_bytes_max.as_ref()).is_none_or(|least| value < least.value)
            {
                rules.record_bytes_max = Some(rule(&policy, at, value));
            }
        }
        rules
    }

    /// Where the rules stand, because of which batches are looked at.
    fn places(&self) -> impl Iterator<Item = &RuleRef> {
        let heads = [&self.acks_all, &self.idempotent].into_iter().flatten();
        (heads.map(|rule| &rule.at))
            .chain(self.compression.iter().map(|rule| &rule.at))
            .chain(self.record_bytes_max.iter().map(|rule| &rule.at))
    }

    /// Whether the heads of batches keep every rule that is about them.
    #[inline]
    pub fn heads_pass(&self, acks: i64, heads: &Summary) -> bool {
        heads.magic_ok
            && (self.acks_all.is_none() || acks == ACKS_ALL)
            && (self.idempotent.is_none() || !heads.repeatable)
            && (self.compression.iter()).all(|rule| heads.codecs & !rule.value == 0)
    }

    /// Whether the records must be looked into, since one of them could be too large.
    #[inline]
    pub fn must_look(&self, heads: &Summary) -> bool {
        self.record_bytes_max.as_ref().is_some_and(|rule| {
            heads.codecs & !Codec::None.bit() != 0 || heads.section_bytes_max > rule.value
        })
    }

    /// Judges the `records` field of one produced partition.
    pub fn check(&self, acks: i64, bytes: &[u8], scratch: &mut Scratch) -> Result<(), Rejection> {
        let heads = match inspect(bytes) {
            Ok(heads) => heads,
            Err(error) => return Err(self.unreadable(&error)),
        };
        if self.heads_pass(acks, &heads) && !self.must_look(&heads) {
            return Ok(());
        }
        if !heads.magic_ok
            && let Some(error) = batches(bytes).find_map(Result::err)
        {
            return Err(self.unreadable(&error));
        }
        self.check_heads(acks, &heads)?;
        match self.must_look(&heads) {
            true => self.check_records(bytes, scratch),
            false => Ok(()),
        }
    }

    /// Judges every record, whatever the heads say.
    pub fn check_records(&self, bytes: &[u8], scratch: &mut Scratch) -> Result<(), Rejection> {
        let Some(rule) = &self.record_bytes_max else {
            return Ok(());
        };
        let large = self.large_records(bytes, rule.value, scratch);
        scratch.trim();
        let large = large.map_err(|error| self.unreadable(&error))?;
        let (policy, most) = (&rule.policy, rule.value);
        let what = format!("policy `{policy}`, produce.maxRecordBytes: expected at most {most}");
        let (message, records) = match large.len() {
            0 => return Ok(()),
            1..=LARGE_RECORDS_MAX => {
                let told = large.iter().map(|(index, bytes)| {
                    let message = format!("{what} bytes, got {bytes}");
                    (*index, message)
                });
                let records: Vec<_> = told.collect();
                let message = match &records[..] {
                    [(index, one)] => format!("record {index}: {one}"),
                    all => format!("{what} bytes, got more in {} records", all.len()),
                };
                (message, records)
            }
            _ => {
                let message = format!("{what} bytes, got more in {LARGE_RECORDS_MAX} records");
                (format!("{message} and others"), Vec::new())
            }
        };
        Err(Rejection {
            fault: Fault::Rule,
            message,
            records,
            rule: Some(rule.at.clone()),
        })
    }

    /// Judges what the heads of batches say, and the request around them.
    pub fn check_heads(&self, acks: i64, heads: &Summary) -> Result<(), Rejection> {
        let broken = |policy: &str, key: &str, at: &RuleRef, what: String| {
            Err(Rejection {
                fault: Fault::Rule,
                message: format!("policy `{policy}`, produce.{key}: {what}"),
                records: Vec::new(),
                rule: Some(at.clone()),
            })
        };
        if let Some(rule) = self.acks_all.as_ref().filter(|_| acks != ACKS_ALL) {
            let what = format!("expected `all` (-1), got {acks}");
            return broken(&rule.policy, "acks", &rule.at, what);
        }
        if let Some(rule) = self.idempotent.as_ref().filter(|_| heads.repeatable) {
            let what = "expected a producer id, got a batch without one; \
                set `enable.idempotence` to `true`";
            return broken(&rule.policy, "idempotent", &rule.at, what.to_owned());
        }
        for rule in &self.compression {
            let others = heads.codecs & !rule.value;
            if others != 0 {
                let (wanted, got) = (codecs(rule.value), codecs(others));
                let what = format!("expected {wanted}, got {got}");
                return broken(&rule.policy, "compression", &rule.at, what);
            }
        }
        Ok(())
    }

    /// The records above `most` bytes, by their index over all batches: one more than are told.
    fn large_records(
        &self,
        bytes: &[u8],
        most: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<(i32, usize)>, RecordsError> {
        let mut large = Vec::new();
        let mut index = 0_i32;
        for batch in batches(bytes) {
            let batch = batch?;
            // What contradicts its checksum is the sender's to send again, whatever it looks like.
            batch.check_crc()?;
            for record in records(&batch, scratch, &self.limits)? {
                let record_bytes = record?.bytes;
                if record_bytes > most {
                    large.push((index, record_bytes));
                    if large.len() > LARGE_RECORDS_MAX {
                        return Ok(large);
                    }
                }
                index = index.saturating_add(1);
            }
        }
        Ok(large)
    }

    fn unreadable(&self, error: &RecordsError) -> Rejection {
        let fault = match error.is_corrupt() {
            true => Fault::Corrupt,
            false => Fault::Unreadable,
        };
        Rejection {
            fault,
            message: error.to_string(),
            records: Vec::new(),
            rule: self.places().next().cloned(),
        }
    }
}

fn rule<T>(policy: &str, at: RuleRef, value: T) -> Rule<T> {
    Rule {
        policy: shown(policy),
        at,
        value,
    }
}

/// The names of codecs.
fn codecs(bits: u8) -> String {
    let known = Codec::EVERY.into_iter().filter(|c| bits & c.bit() != 0);
    let mut names: Vec<String> = known.map(|codec| format!("`{}`", codec.name())).collect();
    let unknown = (0..u8::BITS).skip(Codec::EVERY.len());
    names.extend(
        unknown
            .filter(|n| bits & (1 << n) != 0)
            .map(|n| format!("codec {n}")),
    );
    names.join(" or ")
}
