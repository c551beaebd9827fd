//! Answers what the API rows ask ([`Guard`]) from the policies in force, and remembers what was
//! refused for the audit log.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apis::topic_ids::TopicIds;
use crate::apis::{Guard, InForce};
use crate::policy::View;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind, RuleRef};
use crate::session::asked::Asked;
use crate::telemetry::audit::allows::Sampler;
use crate::topic_rules::{Change, Count, Defaults, Objection, Rejection, TopicRules};
use crate::upstream::defaults::Known;
use crate::upstream::{Cluster, Topology};
use crate::wire::layout::Message;
use crate::wire::walk::walk_prefix;

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
    /// What topics must be, whoever asks.
    pub topic_rules: &'a TopicRules,
    /// The rules that only observe.
    pub observed_topic_rules: &'a TopicRules,
    /// What the cluster gives topics that state no numbers.
    pub lookup: Lookup<'a>,
    /// What topic rules object to.
    pub objections: Objections,
    /// What those that only observe would object to.
    pub observed: Objections,
    /// Whether a topic must be known by its name even where no rule of access asks for it.
    pub needs_names: bool,
    /// What was allowed, where it is to be remembered for as long as the answer is owed.
    pub asked: Option<Asked>,
}

/// What only the cluster knows, found out when somebody asks for it.
pub struct Lookup<'a> {
    cluster: &'a Cluster,
    /// What it has said for this request's sake; `None`: it has not been asked, and what is unknown
    /// then stays so.
    pub learned: Option<&'a Learned>,
    /// What it must be asked before anything can be said.
    pub wanted: Wanted,
}

/// What the cluster is to be asked.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Its defaults for topics.
    pub defaults: bool,
    /// Whether there are topics of these names, and how many partitions they have.
    pub topics: Vec<String>,
    /// Which topics there are.
    pub all_topics: bool,
}

/// What it has said.
#[derive(Debug, Default)]
pub struct Learned {
    /// Of the topics that were asked about, those that are there, with how many partitions.
    pub existing: HashMap<String, usize>,
    /// The names of all topics, in their order; `None`: it has not said.
    pub topics: Option<Vec<String>>,
}

impl Wanted {
    /// Whether it need not be asked.
    pub fn is_nothing(&self) -> bool {
        !self.defaults && self.topics.is_empty() && !self.all_topics
    }
}

impl<'a> Lookup<'a> {
    /// Nobody has asked yet.
    pub fn new(cluster: &'a Cluster) -> Self {
        Lookup {
            cluster,
            learned: None,
            wanted: Wanted::default(),
        }
    }

    fn partitions(&mut self, topic: &str) -> usize {
        match self.learned {
            Some(learned) => learned.existing.get(topic).copied().unwrap_or(0),
            None => {
                self.wanted.topics.push(topic.to_owned());
                usize::MAX
            }
        }
    }

    fn topics(&mut self) -> Option<Vec<String>> {
        let topics = self.learned.and_then(|learned| learned.topics.clone());
        self.wanted.all_topics |= topics.is_none();
        topics
    }

    fn defaults(&mut self) -> Option<Defaults> {
        match self.cluster.topic_defaults() {
            Known::Defaults(known) => Some(Defaults {
                partitions: known.partitions,
                replication_factor: known.replication_factor,
            }),
            Known::Nothing => None,
            Known::Ask => {
                self.wanted.defaults |= self.learned.is_none();
                None
            }
        }
    }
}

/// What topic rules object to in one request, for the audit log, as much as is remembered.
#[derive(Debug, Default)]
pub struct Objections {
    /// What would have been done, to which topic, and why not.
    pub list: Vec<(Operation, String, Objection)>,
    /// How many there were besides.
    pub more: u64,
}

impl Objections {
    /// Remembers one.
    pub fn add(&mut self, operation: Operation, topic: &str, objection: Objection) {
        if self.list.len() >= DECISIONS_MAX {
            self.more += 1;
            return;
        }
        self.list.push((operation, topic.to_owned(), objection));
    }

    /// Remembers what speaks against what is produced to a topic.
    pub fn produced(&mut self, topic: &str, rejection: &Rejection) {
        if let Some(rule) = rejection.rule.clone() {
            let message = rejection.message.clone();
            self.add(Operation::Write, topic, Objection { rule, message });
        }
    }

    /// Whether one about this topic is remembered.
    fn has(&self, topic: &str) -> bool {
        self.list.iter().any(|(_, about, _)| about == topic)
    }

    /// Leaves what is not refused anyway: a topic that stands in a request several times goes
    /// out of it whole.
    pub fn without(&mut self, refused: &Objections) {
        self.list.retain(|(_, topic, _)| !refused.has(topic));
    }
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

    /// Topic ids of a message that stand for nothing known here; of a body that cannot be read,
    /// those before that.
    pub fn unknown(
        &mut self,
        message: &Message,
        version: i16,
        body: &[u8],
        topology: &Topology,
    ) -> Vec<[u8; 16]> {
        let mut ids = TopicIds::default();
        let _ = walk_prefix(message, version, body, &mut ids);
        ids.found.retain(|id| self.name(id, topology).is_none());
        ids.found
    }
}

/// What it means that a broker makes a topic by itself: all is left to the cluster.
fn appearing() -> Change<'static> {
    Change {
        operation: Operation::Create,
        is_new: true,
        partitions: Some(Count::Default),
        replicas: vec![Count::Default],
        configs: Vec::new(),
    }
}

impl Judge<'_> {
    /// A topic that was asked for is not there: remembers what topic rules say against making it,
    /// unless the client may not make it in any case.
    pub fn is_absent(&mut self, topic: &str) {
        let create = Operation::Create;
        if self.sees(create, ResourceKind::Cluster, CLUSTER_NAME)
            || self.sees(create, ResourceKind::Topic, topic)
        {
            self.objection(topic, &appearing());
        }
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

    fn within(&mut self, kind: ResourceKind, name: Option<&str>) -> bool {
        self.view.is_none_or(|view| view.within(kind, name))
    }

    fn topic_name(&mut self, id: &[u8; 16]) -> Option<Arc<str>> {
        match self.topics.name(id, self.topology) {
            // Without rules no name is needed: the broker knows what it does not know.
            None if self.view.is_none() && !self.needs_names => Some("".into()),
            name => name,
        }
    }

    fn partitions(&mut self, topic: &str) -> usize {
        self.lookup.partitions(topic)
    }

    fn topics(&mut self) -> Option<Vec<String>> {
        self.lookup.topics()
    }

    fn objection(&mut self, topic: &str, change: &Change<'_>) -> Option<String> {
        let mut defaults = || self.lookup.defaults();
        let Some(objection) = self.topic_rules.object(topic, change, &mut defaults) else {
            let observed = self.observed_topic_rules;
            if let Some(would) = observed.object(topic, change, &mut defaults)
                && !self.observed.has(topic)
            {
                self.observed.add(change.operation, topic, would);
            }
            return None;
        };
        let message = objection.message.clone();
        self.objections.add(change.operation, topic, objection);
        Some(message)
    }

    fn makes_topics(&mut self) -> bool {
        self.lookup.defaults();
        self.lookup.cluster.makes_topics()
    }

    fn may_appear(&mut self, topic: &str) -> bool {
        let change = appearing();
        let mut defaults = || self.lookup.defaults();
        let objection = self.topic_rules.object(topic, &change, &mut defaults);
        let speaks = objection.is_some()
            || (self.observed_topic_rules)
                .object(topic, &change, &mut defaults)
                .is_some();
        if speaks {
            // Together with them the cluster says whether it makes topics at all, which must be
            // known when the answer is there.
            defaults();
        }
        objection.is_none()
    }

    fn rules(&self) -> Option<InForce<'_>> {
        self.rules
    }
}
