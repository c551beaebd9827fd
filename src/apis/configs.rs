//! Configurations of topics, groups and brokers: DescribeConfigs, AlterConfigs,
//! IncrementalAlterConfigs. Each resource is judged by its kind.

use super::errors;
use super::lens::{Answered, Question, Refusal, mirror};
use super::rules;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// Kafka's `ConfigResource.Type` codes.
pub(super) const TOPIC: i64 = 2;
const BROKER: i64 = 4;
const BROKER_LOGGER: i64 = 8;
const CLIENT_METRICS: i64 = 16;
const GROUP: i64 = 32;

/// The API key of AlterConfigs.
pub(super) const ALTER_CONFIGS: i16 = 33;

pub(super) fn describe(q: &mut Question) -> Result<(), Refusal> {
    strip(q, Operation::DescribeConfigs, "Results")
}

pub(super) fn alter(q: &mut Question) -> Result<(), Refusal> {
    strip(q, Operation::AlterConfigs, "Responses")?;
    rules::configured(q)
}

fn strip(q: &mut Question, operation: Operation, answers: &'static str) -> Result<(), Refusal> {
    let Some(model) = q.response_element(answers) else {
        return Ok(());
    };
    // AlterConfigs has no loggers: the broker answers INVALID_REQUEST to everybody.
    let loggers = q.api.key != ALTER_CONFIGS;
    let (version, guard) = (q.version, &mut *q.guard);
    let mut refused = Vec::new();
    q.request.structs_mut("Resources").retain(|resource| {
        let name = resource.text("ResourceName").unwrap_or_default();
        let (kind, name) = match resource.int("ResourceType") {
            TOPIC => (ResourceKind::Topic, name),
            GROUP => (ResourceKind::Group, name),
            BROKER | CLIENT_METRICS => (ResourceKind::Cluster, CLUSTER_NAME),
            BROKER_LOGGER if loggers => (ResourceKind::Cluster, CLUSTER_NAME),
            // The broker answers INVALID_REQUEST.
            _ => return true,
        };
        if guard.allows(operation, kind, name) {
            return true;
        }
        refused.push((
            answers,
            mirror(resource, &model, version, errors::denied(kind)),
        ));
        false
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    q.answer_if_nothing_is_left("Resources")
}

/// Broker settings that hold addresses of the cluster: shown as sensitive values are, by null.
const ADDRESS_SETTINGS: [&str; 6] = [
    "listeners",
    "advertised.listeners",
    "controller.quorum.voters",
    "controller.quorum.bootstrap.servers",
    "host.name",
    "advertised.host.name",
];

/// Hides the addresses of brokers and controllers, in synonyms too.
pub fn hide_addresses(a: &mut Answered) {
    for result in a.response.structs_mut("Results") {
        if !matches!(result.int("ResourceType"), BROKER | BROKER_LOGGER) {
            continue;
        }
        for config in result.structs_mut("Configs") {
            if ADDRESS_SETTINGS.contains(&config.text("Name").unwrap_or_default()) {
                hide(config, a.version);
            }
        }
    }
}

fn hide(config: &mut StructNode, version: i16) {
    config
        .set("Value", Node::Bytes(None))
        .set_int("IsSensitive", 1);
    if version >= 1 {
        for synonym in config.structs_mut("Synonyms") {
            synonym.set("Value", Node::Bytes(None));
        }
    }
}
