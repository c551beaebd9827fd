//! Whom the rows ask: they find resources, and never decide.

use crate::policy::model::{Operation, ResourceKind};
use crate::policy::rule::AccessPolicy;
use crate::topic_rules::Change;

/// What the stages answer about the subject of a request.
pub trait Guard {
    /// Whether the subject may do this; a refusal is remembered for the audit log.
    fn allows(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool;

    /// As `allows`, for questions whose refusal is not one the client sees (filtered lists).
    fn sees(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool;

    /// Whether the subject may do this on some resource of the kind (Kafka's
    /// `authorizeByResourceType`).
    fn allows_any(&mut self, operation: Operation, kind: ResourceKind) -> bool;

    /// Whether the subject may do this on every resource of the kind.
    fn allows_all(&mut self, operation: Operation, kind: ResourceKind) -> bool;

    /// Whether the subject's tenant may touch the name, or with `None` every name of the kind,
    /// where a right on the cluster stands for the right on each.
    fn within(&mut self, kind: ResourceKind, name: Option<&str>) -> bool;

    /// The name of the topic with that id; `None`: no such topic is known.
    fn topic_name(&mut self, id: &[u8; 16]) -> Option<std::sync::Arc<str>>;

    /// How many partitions a topic has; 0: there is no such topic. Where nobody has asked the
    /// cluster yet, it is asked, and the request is judged anew.
    fn partitions(&mut self, topic: &str) -> usize;

    /// The names of all topics, in their order, likewise; `None`: the request cannot be judged by
    /// them, now or here.
    fn topics(&mut self) -> Option<Vec<String>>;

    /// What topic rules say against making or changing a topic so; `None`: nothing. It is
    /// remembered for the audit log.
    fn objection(&mut self, topic: &str, change: &Change<'_>) -> Option<String>;

    /// Whether brokers make topics because somebody asks for them. Where that is not known, the
    /// cluster is asked, and the request is judged anew.
    fn makes_topics(&mut self) -> bool;

    /// Whether topic rules let a broker make this topic by itself, with the cluster's defaults.
    fn may_appear(&mut self, topic: &str) -> bool;

    /// The rules themselves; `None`: they are the broker's.
    fn rules(&self) -> Option<InForce<'_>>;
}

/// The access rules in force.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    /// What they say.
    pub policies: &'a [AccessPolicy],
    /// Where their files are, as the configuration writes it.
    pub path: &'a str,
}
