//! What is in force: policies, schemas, topic rules and quotas, read together and swapped as one. A
//! connection notices a change by the generation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::shadow::{Beside, Set};
use crate::policy::PolicySet;
use crate::policy::tenant::{Tenant, TwoTenants, tenant_of};
use crate::principal::{Principal, TextClaims};
use crate::quota::Quotas;
use crate::schema::SchemaSet;
use crate::topic_rules::TopicRules;

/// See the module.
pub struct Snapshot {
    /// Grows by one with each change.
    pub generation: u64,
    /// Access rules; `None`: `authorization: off`.
    pub access: Option<PolicySet>,
    /// What is decided beside them, without effect.
    pub shadows: Vec<Set>,
    /// Who belongs to which tenant, whether or not rules are in force.
    pub tenants: Vec<Tenant>,
    /// What records must be.
    pub schemas: SchemaSet,
    /// What topics and what is written to them must be, whoever asks.
    pub topic_rules: TopicRules,
    /// Those that only observe, by themselves: asked where those in force object to nothing.
    pub observed_topic_rules: TopicRules,
    /// Who may produce how much.
    pub quotas: Quotas,
    /// The same together with those that only observe; empty where none does.
    pub observed_quotas: Quotas,
    /// Digest over the policy files, in hexadecimal.
    pub digest: String,
    /// Its begin, as it stands in audit lines; `None`: there are no policies.
    pub short_digest: Option<Arc<str>>,
    /// Where the policy files are, as the configuration writes it.
    pub place: Arc<str>,
    /// The policy files.
    pub files: Vec<String>,
    /// When all this was read.
    pub loaded: SystemTime,
}

impl Snapshot {
    /// What the other sets say of a client that has proven `proven` and is `placed` by this.
    pub fn beside(
        &self,
        proven: &Principal,
        placed: &Principal,
        claims: &TextClaims,
        host: IpAddr,
    ) -> Vec<Beside> {
        let sets = self.shadows.iter();
        sets.map(|set| set.beside(proven, placed, claims, host))
            .collect()
    }

    /// What is proven, with the tenant that it belongs to.
    pub fn placed(&self, proven: &Principal, claims: &TextClaims) -> Result<Principal, TwoTenants> {
        let tenant = tenant_of(&self.tenants, proven, claims)?;
        Ok(Principal {
            tenant,
            ..proven.clone()
        })
    }
}
