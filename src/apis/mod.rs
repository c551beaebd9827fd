//! Everything that differs per Kafka API, and nothing else. The [`table`] has one row for each
//! key; a row says which versions are readable, what a request touches, and how it is refused.
//! The functions behind the rows find resources and put errors in their places; whether
//! something is allowed they ask a [`Guard`] and never decide.

pub mod errors;
pub mod fetch;
pub mod guard;
pub mod layouts;
pub mod lens;
pub mod misplaced;
pub mod produce;
pub mod table;
pub mod topic_ids;
pub mod versions;
pub mod words;

mod acls;
mod cluster;
mod configs;
mod groups;
mod metadata;
mod partitions;
mod rules;
mod topics;
mod transactions;

#[cfg(test)]
mod tests;

pub use guard::{Guard, InForce};
pub use layouts::{KEYS, layout};
pub use lens::{Answered, Question, Refusal};
pub use metadata::{Creation, asks_for_creation, refuse_creation};
pub use partitions::{Listing, answer_listing};
pub use words::Words;

use crate::policy::model::Operation;
use crate::wire::layout::{Field, Layout, Role, Struct, Versions};
use crate::wire::tree::StructNode;

/// What the proxy must know about one Kafka API.
#[derive(Debug)]
pub struct Api {
    /// API key.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// The versions that are read and forwarded.
    pub versions: Versions,
    /// Who may send it.
    pub phase: Phase,
    /// What it touches.
    pub access: Access,
    /// How the whole request is refused.
    pub refuse: Refuse,
    /// What the answer must not show.
    pub filter: Option<fn(&mut Answered)>,
    /// What stands beside the error code of a refusal.
    pub words: Words,
}

/// Who may send a request of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Part of authentication: answered here.
    Handshake,
    /// Clients, once they have proven who they are.
    Client,
    /// Brokers and controllers only: the connection ends, as on a broker's client listener.
    BrokerOnly,
    /// Gone from Kafka 4: the connection ends.
    Retired,
}

/// What a request touches and therefore needs.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// No resource, and why that is right.
    Open(&'static str),
    /// Never forwarded, and why.
    Never(&'static str),
    /// One operation on the cluster resource.
    Cluster(Operation),
    /// Named resources, judged one by one.
    Named(fn(&mut Question) -> Result<(), Refusal>),
    /// Never forwarded: answered with this error code, and why.
    Answered(i16, &'static str),
    /// The rules themselves: one operation on the cluster, and what becomes of the request where
    /// rules are in force here; elsewhere they are the broker's, which is asked.
    Rules(
        Operation,
        fn(&mut Question, Operation) -> Result<(), Refusal>,
        &'static str,
    ),
}

/// Where the error code of a wholly refused request stands.
#[derive(Clone, Copy, Debug)]
pub enum Refuse {
    /// No request is refused whole, or the connection ends.
    Unused,
    /// In the response's own error code.
    Top,
    /// On each element of an array that mirrors one of the request: (request, response).
    Each(&'static str, &'static str),
    /// Both of the above.
    TopAndEach(&'static str, &'static str),
    /// In a way of its own.
    Own(fn(&Question, i16) -> StructNode),
}

/// The row of an API key.
#[inline]
pub fn lookup(key: i16) -> Option<&'static Api> {
    table::TABLE.get(usize::try_from(key).ok()?)
}

impl Api {
    /// The layout; `None` for retired keys.
    #[inline]
    pub fn layout(&self) -> Option<&'static Layout> {
        layout(self.key)
    }

    /// Whether clients may use it at all.
    pub fn is_for_clients(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Client)
    }

    /// Whether requests of `version` have header 2 (and answers, ApiVersions apart, header 1).
    #[inline]
    pub fn flexible(&self, version: i16) -> bool {
        self.layout()
            .is_some_and(|l| l.request.flexible.contains(version))
    }

    /// Whether answers of `version` have header 1.
    #[inline]
    pub fn response_header_flexible(&self, version: i16) -> bool {
        self.key != API_VERSIONS
            && self
                .layout()
                .is_some_and(|l| l.response.flexible.contains(version))
    }

    /// Whether answers of `version` can hold broker addresses.
    pub fn shows_brokers(&self, version: i16) -> bool {
        self.layout()
            .is_some_and(|l| has_role(&l.response.body, Role::Host, version))
    }

    /// Whether answers of `version` can hold authorised operations, which a broker computes for
    /// the proxy's identity and not for the client's.
    pub fn shows_operations(&self, version: i16) -> bool {
        let role = Role::AuthorizedOperations;
        self.layout()
            .is_some_and(|l| has_role(&l.response.body, role, version))
    }

    /// Whether a broker may keep an answer of this API back until something happens: until there
    /// are records, or until the other members of the group have come.
    pub fn waits(&self) -> bool {
        matches!(
            self.name,
            "Fetch" | "ShareFetch" | "JoinGroup" | "SyncGroup"
        )
    }

    /// For how long that is for this request, in milliseconds.
    pub fn waits_ms(&self, request: &StructNode) -> u32 {
        match (self.waits(), request.has("MaxWaitMs")) {
            (false, _) => 0,
            (true, true) => u32::try_from(request.int("MaxWaitMs")).unwrap_or(0),
            (true, false) => u32::MAX,
        }
    }

    /// Whether members say by this API that they leave their group.
    pub fn leaves_groups(&self) -> bool {
        self.name == "LeaveGroup"
    }

    /// Whether requests of `version` name topics by id.
    pub fn has_topic_ids(&self, version: i16) -> bool {
        self.layout()
            .is_some_and(|l| has_role(&l.request.body, Role::TopicId, version))
    }

    /// Whether the answers of `version` that are filtered name topics by id alone.
    pub fn filters_by_topic_id(&self, version: i16) -> bool {
        let layout = self.layout().filter(|_| self.filter.is_some());
        layout.is_some_and(|l| {
            has_role(&l.response.body, Role::TopicId, version)
                && !has_role(&l.response.body, Role::TopicName, version)
        })
    }
}

/// Whether any field of `nested` in `version` has the role.
fn has_role(nested: &Struct, role: Role, version: i16) -> bool {
    nested
        .fields
        .iter()
        .filter(|f| f.versions.contains(version))
        .any(|f: &Field| {
            f.role == role
                || f.nested()
                    .is_some_and(|inner| has_role(inner, role, version))
        })
}

/// API keys that stages outside this folder must tell apart.
pub const PRODUCE: i16 = 0;
/// See [`PRODUCE`].
pub const FETCH: i16 = 1;
/// See [`PRODUCE`].
pub const METADATA: i16 = 3;
/// See [`PRODUCE`].
pub const SASL_HANDSHAKE: i16 = 17;
/// See [`PRODUCE`].
pub const API_VERSIONS: i16 = 18;
/// See [`PRODUCE`].
pub const SASL_AUTHENTICATE: i16 = 36;
