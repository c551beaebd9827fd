//! Answers what the API rows ask ([`Guard`]) from the policies in force, and remembers what was
//! refused for the audit log.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apis::{Guard, InForce};
use crate::policy::View;
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::session::asked::Asked;
use crate::telemetry::audit::allows::Sampler;
use crate::upstream::Topology;

/// Most refusals of one request that are remembered one by one, and most allowed decisions.
pub const DECISIONS_MAX: usize = 256;
/// Most topic ids that a connection remembers for itself.
const TOPICS_MAX: usize = 4_096;

/// One decision.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What was asked for.
    pub operation: Operation,
    /// On what kind of resource.
    pub kind: ResourceKind,
    /// On which.
    pub name: String,
    /// The rule that decided; `None`: no rule allows it, or no rule concerns a super user.
    pub rule: Option<RuleRef>,
}

/// Decisions of one request for the audit log, as many as are remembered.
#[derive(Debug, Default)]
pub struct Decisions {
    /// These.
    pub list: Vec<Decided>,
    /// How many there were besides.
    pub more: u64,
}

impl Decisions {
    /// Remembers a decision. The first one costs an allocation: ask whether it is kept before.
    pub fn add(
        &mut self,
        operation: Operation,
        kind: ResourceKind,
        name: &str,
        rule: Option<RuleRef>,
    ) {
        if self.list.len() >= DECISIONS_MAX {
            self.more += 1;
            return;
        }
        self.list.push(Decided {
            operation,
            kind,
            name: name.to_owned(),
            rule,
        });
    }
}

/// Asks the rules that concern one client.
pub struct Judge<'a> {
    /// The rules; `None`: `authorization: off`, everything is allowed here.
    pub view: Option<&'a View>,
    /// Those of everybody, for who may see them.
    pub rules: Option<InForce<'a>>,
    /// Names of topics known by id.
    pub topics: &'a mut TopicNames,
    /// The cluster.
    pub topology: &'a Topology,
    /// What was refused.
    pub denials: Decisions,
    /// What was allowed and is kept.
    pub allowed: Decisions,
    /// Chooses what of it is kept.
    pub sampler: &'a mut Sampler,
    /// What was allowed, where it is to be remembered for as long as the answer is owed.
    pub asked: Option<Asked>,
}

/// Names of topics by id, as one connection has met them: saves a lock for each request.
#[derive(Debug, Default)]
pub struct TopicNames(HashMap<[u8; 16], Arc<str>>);

impl TopicNames {
    /// The name of a topic.
    pub fn name(&mut self, id: &[u8; 16], topology: &Topology) -> Option<Arc<str>> {
        if let Some(name) = self.0.get(id) {
            return Some(Arc::clone(name));
        }
        let name = topology.topic(id)?;
        if self.0.len() >= TOPICS_MAX {
            self.0.clear();
        }
        self.0.insert(*id, Arc::clone(&name));
        Some(name)
    }
}

impl Guard for Judge<'_> {
    fn allows(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool {
        let Some(view) = self.view else { return true };
        let decision = view.decide(operation, kind, name);
        if !decision.allowed {
            self.denials.add(operation, kind, name, decision.rule);
            return false;
        }
        if let Some(asked) = &mut self.asked {
            asked.add(operation, kind, name);
        }
        if self.sampler.takes() {
            self.allowed.add(operation, kind, name, decision.rule);
        }
        true
    }

    fn sees(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool {
        self.view
            .is_none_or(|view| view.decide(operation, kind, name).allowed)
    }

    fn allows_any(&mut self, operation: Operation, kind: ResourceKind) -> bool {
        let Some(view) = self.view else { return true };
        let allowed = view.decide_any(operation, kind).allowed;
        if let (true, Some(asked)) = (allowed, &mut self.asked) {
            asked.add_any(operation, kind);
        }
        allowed
    }

    fn allows_all(&mut self, operation: Operation, kind: ResourceKind) -> bool {
        let Some(view) = self.view else { return true };
        let allowed = view.allows_all(operation, kind);
        if let (true, Some(asked)) = (allowed, &mut self.asked) {
            asked.add_all(operation, kind);
        }
        allowed
    }

    fn topic_name(&mut self, id: &[u8; 16]) -> Option<Arc<str>> {
        match self.topics.name(id, self.topology) {
            // Without rules no name is needed: the broker knows what it does not know.
            None if self.view.is_none() => Some("".into()),
            name => name,
        }
    }

    fn rules(&self) -> Option<InForce<'_>> {
        self.rules
    }
}
