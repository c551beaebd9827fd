//! What would become of a topic that somebody makes: authorization first, then the topic rules.

use super::produce::Verdict;
use super::read::Stage;
use crate::document::{Fields, Node, Value};
use crate::policy::View;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::problem::Problems;
use crate::topic_rules::{Change, ConfigChange, Count, How, TopicRules};

/// Most partitions and replicas that a request can ask for.
const COUNT_MAX: u64 = i32::MAX as u64;

/// A topic that is made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub topic: String,
    partitions: Count,
    replicas: Count,
    configs: Vec<(String, String)>,
}

impl Made {
    /// Reads the value of `create`. A number that is left out is the cluster's default, which a
    /// test does not know.
    pub(super) fn read(node: &Node, problems: &mut Problems) -> Option<Made> {
        let mut fields = Fields::of(node, problems)?;
        let topic = fields.require("topic", problems);
        let partitions = fields.take("partitions");
        let replicas = fields.take("replicationFactor");
        let configs = fields.take("configs");
        fields.finish(problems);
        let mut count = |node: Option<&Node>| match node {
            None => Some(Count::Default),
            Some(node) => {
                let number = node.number(1..=COUNT_MAX, problems)?;
                Some(Count::Stated(i64::try_from(number).ok()?))
            }
        };
        let (partitions, replicas) = (count(partitions), count(replicas));
        let configs = configs.map_or(Some(Vec::new()), |node| settings(node, problems));
        Some(Made {
            topic: topic?.name(problems)?.to_owned(),
            partitions: partitions?,
            replicas: replicas?,
            configs: configs?,
        })
    }

    pub(super) fn judge(&self, rules: &TopicRules, view: &View) -> Verdict {
        let cluster = view.decide(Operation::Create, ResourceKind::Cluster, CLUSTER_NAME);
        let topic = view.decide(Operation::Create, ResourceKind::Topic, &self.topic);
        if !cluster.allowed && !topic.allowed {
            return Verdict {
                rejected: Some(Stage::Authorization),
                rule: topic.rule,
                message: Some("Create on the topic is denied".to_owned()),
            };
        }
        let configs = self.configs.iter().map(|(name, value)| ConfigChange {
            name,
            how: How::Set(value),
        });
        let change = Change {
            operation: Operation::Create,
            is_new: true,
            partitions: Some(self.partitions),
            replicas: vec![self.replicas],
            configs: configs.collect(),
        };
        let objection = rules.object(&self.topic, &change, &mut || None);
        Verdict {
            rejected: objection.as_ref().map(|_| Stage::TopicRules),
            rule: objection.as_ref().map(|objection| objection.rule.clone()),
            message: objection.map(|objection| objection.message),
        }
    }
}

/// Configurations as a client would send them: text, whatever they look like.
fn settings(node: &Node, problems: &mut Problems) -> Option<Vec<(String, String)>> {
    let Value::Mapping(entries) = &node.value else {
        node.expected("a mapping of configurations", problems);
        return None;
    };
    let mut configs = Vec::new();
    for entry in entries {
        match &entry.value.value {
            Value::Scalar(scalar) if !entry.value.is_nothing() => {
                configs.push((entry.key.clone(), scalar.text.clone()));
            }
            _ => {
                entry.value.expected("a value", problems);
                return None;
            }
        }
    }
    Some(configs)
}
