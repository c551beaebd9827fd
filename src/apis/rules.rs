//! Topic rules at the APIs that make or change topics: CreateTopics, CreatePartitions,
//! AlterConfigs, IncrementalAlterConfigs, AlterPartitionReassignments, StreamsGroupHeartbeat.
//! What each request would do is put into the rules' words here; what is objected to is answered
//! as a broker answers whose `create.topic.policy.class.name` or `alter.config.policy.class.name`
//! objects, and the rest goes on.

use std::collections::HashMap;

use super::Guard;
use super::configs::{ALTER_CONFIGS, TOPIC};
use super::errors::POLICY_VIOLATION;
use super::lens::{Question, Refusal, mirror};
use crate::policy::model::Operation;
use crate::topic_rules::{Change, ConfigChange, Count, How};
use crate::wire::tree::{Node, StructNode};

/// Kafka's `AlterConfigOp.OpType` codes. Its DELETE puts back the cluster's default.
const SET: i64 = 0;
const APPEND: i64 = 2;
const SUBTRACT: i64 = 3;

/// CreateTopics, `validateOnly` or not.
pub(super) fn created(q: &mut Question) -> Result<(), Refusal> {
    strip(q, "Topics", "Topics", |topic| {
        let assignments = topic.structs("Assignments");
        let (partitions, replicas) = match assignments.len() {
            0 => {
                let replicas = count(topic.int("ReplicationFactor"), -1);
                (count(topic.int("NumPartitions"), -1), vec![replicas])
            }
            given => {
                let each = assignments.iter().filter_map(|a| ids(a, "BrokerIds"));
                let replicas = each.map(Count::Stated).collect();
                (Count::Stated(given as i64), replicas)
            }
        };
        let change = Change {
            operation: Operation::Create,
            is_new: true,
            partitions: Some(partitions),
            replicas,
            configs: settings(topic.structs("Configs"), "Name"),
        };
        Some((topic.text("Name")?, change))
    })
}

/// CreatePartitions, `validateOnly` or not. Assignments are about the new partitions only, and
/// must agree with the factor that the topic has.
pub(super) fn grown(q: &mut Question) -> Result<(), Refusal> {
    strip(q, "Topics", "Results", |topic| {
        let assignments = topic.structs("Assignments").iter();
        let replicas = assignments.filter_map(|a| ids(a, "BrokerIds"));
        let change = Change {
            partitions: Some(Count::Stated(topic.int("Count"))),
            replicas: replicas.map(Count::Stated).collect(),
            ..changed(Operation::Alter)
        };
        Some((topic.text("Name")?, change))
    })
}

/// AlterConfigs and IncrementalAlterConfigs, as far as they are about topics.
pub(super) fn configured(q: &mut Question) -> Result<(), Refusal> {
    let whole = q.api.key == ALTER_CONFIGS;
    strip(q, "Resources", "Responses", |resource| {
        if resource.int("ResourceType") != TOPIC {
            return None;
        }
        let configs = resource.structs("Configs");
        let configs = match whole {
            true => settings(configs, "Name"),
            false => configs.iter().filter_map(altered).collect(),
        };
        let change = Change {
            configs,
            ..changed(Operation::AlterConfigs)
        };
        Some((resource.text("ResourceName")?, change))
    })
}

fn altered(config: &StructNode) -> Option<ConfigChange<'_>> {
    let how = match config.int("ConfigOperation") {
        SET => How::Set(config.text("Value")?),
        APPEND => How::Append(config.text("Value")?),
        SUBTRACT => How::Subtract,
        // The cluster's default, or what no broker knows.
        _ => return None,
    };
    let name = config.text("Name")?;
    Some(ConfigChange { name, how })
}

/// AlterPartitionReassignments: ALTER on the cluster; then the topic rules. A reassignment that
/// is taken back names no replicas.
pub(super) fn reassign(q: &mut Question) -> Result<(), Refusal> {
    q.need_cluster(Operation::Alter)?;
    strip(q, "Topics", "Responses", |topic| {
        let partitions = topic.structs("Partitions").iter();
        let replicas = partitions.filter_map(|p| ids(p, "Replicas"));
        let change = Change {
            replicas: replicas.map(Count::Stated).collect(),
            ..changed(Operation::Alter)
        };
        Some((topic.text("Name")?, change))
    })
}

/// StreamsGroupHeartbeat: the topics that the broker makes for the topology where they are
/// missing. Nobody here knows whether they are, so that they are judged as if. Partitions that
/// are not stated follow from the topics that are read.
pub(super) fn streams_topics(q: &mut Question) -> Result<(), Refusal> {
    let Some(topology) = q.request.nested("Topology") else {
        return Ok(());
    };
    let mut objection = None;
    for part in topology.structs("Subtopologies") {
        for array in ["RepartitionSourceTopics", "StateChangelogTopics"] {
            for topic in part.structs(array) {
                let stated = topic.int("Partitions");
                let change = Change {
                    operation: Operation::Create,
                    is_new: true,
                    partitions: (stated > 0).then_some(Count::Stated(stated)),
                    replicas: vec![count(topic.int("ReplicationFactor").max(0), 0)],
                    configs: settings(topic.structs("TopicConfigs"), "Key"),
                };
                let name = topic.text("Name").unwrap_or_default();
                objection = objection.or(q.guard.objection(name, &change));
            }
        }
    }
    let Some(why) = objection else { return Ok(()) };
    Err(match q.refuse(POLICY_VIOLATION) {
        Refusal::Answer(mut response) => {
            response.set_text("ErrorMessage", Some(&why));
            Refusal::Answer(response)
        }
        close => close,
    })
}

fn changed<'a>(operation: Operation) -> Change<'a> {
    Change {
        operation,
        is_new: false,
        partitions: None,
        replicas: Vec::new(),
        configs: Vec::new(),
    }
}

/// A number of which one value means the cluster's default.
fn count(number: i64, default: i64) -> Count {
    match number == default {
        true => Count::Default,
        false => Count::Stated(number),
    }
}

/// How many ids a list has; `None`: it is null.
fn ids(element: &StructNode, field: &str) -> Option<i64> {
    let index = element.layout().index(field)?;
    match element.at(index)? {
        Node::Packed(bytes) => Some(bytes.len() as i64 / 4),
        Node::Array(Some(ids)) => Some(ids.len() as i64),
        _ => None,
    }
}

/// Configurations that are set. One without a value is none: the broker refuses it, or it is the
/// cluster's default.
fn settings<'a>(configs: &'a [StructNode], name: &str) -> Vec<ConfigChange<'a>> {
    let set = configs.iter().filter_map(|config| {
        let how = How::Set(config.text("Value")?);
        let name = config.text(name)?;
        Some(ConfigChange { name, how })
    });
    set.collect()
}

/// Takes out of the request's array `elements` what a topic rule objects to, and answers each in
/// the response's array `answers`. A topic that stands there several times goes out whole, since a
/// broker would take the rest for all that was asked.
fn strip(
    q: &mut Question,
    elements: &'static str,
    answers: &'static str,
    change: impl Fn(&StructNode) -> Option<(&str, Change<'_>)>,
) -> Result<(), Refusal> {
    let (version, guard) = (q.version, &mut *q.guard);
    let objections = objections(q.request.structs(elements), guard, &change);
    if objections.is_empty() {
        return Ok(());
    }
    let Some(model) = q.response_element(answers) else {
        return Ok(());
    };
    let mut refused = Vec::new();
    q.request.structs_mut(elements).retain(|element| {
        let why = change(element).and_then(|(name, _)| objections.get(name));
        let Some(why) = why else { return true };
        let mut answer = mirror(element, &model, version, POLICY_VIOLATION);
        match answer.has("ErrorMessage") {
            true => {
                answer.set_text("ErrorMessage", Some(why));
            }
            false => {
                for partition in answer.structs_mut("Partitions") {
                    partition.set_text("ErrorMessage", Some(why));
                }
            }
        }
        refused.push((answers, answer));
        false
    });
    q.changed = true;
    q.refused.append(&mut refused);
    q.answer_if_nothing_is_left(elements)
}

/// The topics that rules object to, each once, with the first objection.
fn objections(
    elements: &[StructNode],
    guard: &mut dyn Guard,
    change: &impl Fn(&StructNode) -> Option<(&str, Change<'_>)>,
) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for element in elements {
        let Some((name, change)) = change(element) else {
            continue;
        };
        if !found.contains_key(name)
            && let Some(why) = guard.objection(name, &change)
        {
            found.insert(name.to_owned(), why);
        }
    }
    found
}

#[cfg(test)]
mod tests;
