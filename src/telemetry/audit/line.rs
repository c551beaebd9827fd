//! A line as it is written, before it is sealed.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::chain::{Hash, MarkKind};
use super::{Entry, FIELD_BYTES_MAX, GROUPS_BYTES_MAX, Resource};
use crate::policy::model::{Operation, RuleRef};
use crate::principal::Proof;
use crate::telemetry::ShadowSet;

/// What stands for the groups that found no place.
pub const MORE: &str = "…";

/// The fields that every line has come first; those that are left out where they have nothing to
/// say behind them; the chain's last.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    time: String,
    connection: Option<u64>,
    listener: Option<&'a str>,
    host: Option<IpAddr>,
    principal: Option<&'a str>,
    proof: Option<&'static str>,
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<&'a str>,
    api: Option<&'a str>,
    operation: Option<&'static str>,
    resource: Option<String>,
    decision: Option<&'static str>,
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    rule: Option<String>,
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<MarkKind>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keyed: bool,
    #[serde(skip_serializing_if = "is_zero")]
    torn: u64,
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
    seq: u64,
    prev: String,
}

/// A line that is no decision: it says what has become of the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub kind: MarkKind,
    pub keyed: bool,
    /// Bytes before it that are the rest of lines.
    pub torn: u64,
    /// Lines that were lost before it.
    pub lost: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl<'a> Line<'a> {
    pub fn of(at: SystemTime, entry: &'a Entry) -> Self {
        Self {
            connection: Some(entry.connection),
            listener: Some(&entry.listener),
            host: Some(entry.host),
            principal: entry.principal.as_deref(),
            proof: entry.proof.map(Proof::name),
            tenant: Some(&entry.tenant),
            groups: groups(&entry.groups),
            api: entry.api,
            operation: entry.operation.map(Operation::name),
            resource: entry.resource.as_ref().map(Resource::to_string),
            decision: Some(entry.verdict.as_str()),
            reason: Some(entry.reason.as_str()),
            detail: entry.detail.as_deref(),
            rule: entry.rule.as_ref().map(RuleRef::to_string),
            policy: entry.policy.as_deref(),
            set: entry.verdict.set().map(ShadowSet::as_str),
            count: entry.count,
            ..Self::mark(at, None)
        }
    }

    pub fn mark(at: SystemTime, mark: Option<Mark>) -> Self {
        Self {
            time: rfc3339_ms(at),
            connection: None,
            listener: None,
            host: None,
            principal: None,
            proof: None,
            tenant: None,
            groups: Vec::new(),
            api: None,
            operation: None,
            resource: None,
            decision: None,
            reason: None,
            detail: None,
            rule: None,
            policy: None,
            set: None,
            count: None,
            chain: mark.map(|mark| mark.kind),
            keyed: mark.is_some_and(|mark| mark.keyed),
            torn: mark.map_or(0, |mark| mark.torn),
            lost: mark.map_or(0, |mark| mark.lost),
            seq: 0,
            prev: String::new(),
        }
    }

    /// Its place in the chain.
    pub fn at(&mut self, seq: u64, prev: Hash) -> &Self {
        self.seq = seq;
        self.prev = prev.to_string();
        self
    }
}

/// As many groups as there is room for; [`MORE`] at the end where some are left out.
fn groups(all: &[std::sync::Arc<str>]) -> Vec<&str> {
    let mut room = GROUPS_BYTES_MAX;
    let mut kept = Vec::new();
    for group in all {
        // A quote, a quote and a comma; a short name must not be free.
        let bytes = group.len() + 3;
        if bytes > room || group.len() > FIELD_BYTES_MAX {
            kept.push(MORE);
            break;
        }
        room -= bytes;
        kept.push(group);
    }
    kept
}

/// RFC 3339 in UTC, always three digits of milliseconds, so that lines sort as text.
pub(crate) fn rfc3339_ms(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond(),
    )
}
