//! The words of a classic group: what a member says, what it is answered, where a group stands.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No members.
    Empty,
    /// Waiting for every member to join again.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl Phase {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a client says when it joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Empty for a new member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's id, for descriptions.
    pub client_id: String,
    /// The client's address, for descriptions.
    pub client_host: String,
    /// After this long without a sign of life the member is removed.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// `consumer`, for consumers.
    pub protocol_type: String,
    /// Name and metadata of each assignment protocol, preferred first.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member must come back with the id it is given (from v4, KIP-394).
    pub id_required: bool,
}

/// The answer to a join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Kafka's error code.
    pub error: i16,
    /// The generation joined; −1 with an error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: String,
    /// The member's own id.
    pub member_id: String,
    /// For the leader: id, instance id and metadata of each member.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// The answer to a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Kafka's error code.
    pub error: i16,
    /// The member's assignment.
    pub assignment: Bytes,
}

/// An answer now, or later.
pub enum Answer<T> {
    /// Now.
    Now(T),
    /// When the group has come that far.
    Later(oneshot::Receiver<T>),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch the client knew; −1: none.
    pub leader_epoch: i32,
    /// What the client wants kept beside it.
    pub metadata: String,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// What it said when it last joined.
    pub joining: Joining,
    /// What the leader assigned to it.
    pub assignment: Bytes,
    /// The last sign of life.
    pub(super) seen: Instant,
    /// Who waits for the answer to its join.
    pub(super) join: Option<oneshot::Sender<Joined>>,
    /// Who waits for the answer to its sync.
    pub(super) sync: Option<oneshot::Sender<Synced>>,
}
