//! A `QuotaPolicy` as written: plain values, filled by `config`.

use crate::policy::model::RuleRef;

/// One `QuotaPolicy` document.
#[derive(Clone, Debug)]
pub struct QuotaSpec {
    /// `metadata.name`.
    pub name: String,
    /// Where `spec.limits` stands.
    pub rule: RuleRef,
    /// Whom it concerns.
    pub entity: QuotaEntity,
    /// `limits.produce`, bytes per second.
    pub produce_bytes_per_second: Option<u64>,
}

/// Whom a quota concerns; at least one field is set. `user` and `client_id` may go together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct QuotaEntity {
    /// `for.tenant`.
    pub tenant: Option<QuotaName>,
    /// `for.user`: a principal's name, without its type, as in Kafka.
    pub user: Option<QuotaName>,
    /// `for.clientId`.
    pub client_id: Option<QuotaName>,
}

/// A name, or `*`: each one that has no quota of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QuotaName {
    /// `"*"`.
    Default,
    /// Exactly this one.
    Exact(String),
}
