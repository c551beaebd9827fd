//! Configurations of topics, groups and brokers: DescribeConfigs, AlterConfigs,
//! IncrementalAlterConfigs. Each resource is judged by its kind.

use std::collections::HashSet;

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

/// What Kafka's `Errors` says of INVALID_REQUEST.
const MALFORMED: &str = "This most likely occurs because of a request being malformed by the \
    client library or the message was sent to an incompatible broker. See the broker logs for \
    more details.";

/// DESCRIBE_CONFIGS on each resource. One of a type that there is not makes the request one that
/// a broker refuses before it asks for permission.
pub(super) fn describe(q: &mut Question) -> Result<(), Refusal> {
    const TYPES: [i64; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let resources = q.request.structs("Resources");
    if !resources
        .iter()
        .all(|r| TYPES.contains(&r.int("ResourceType")))
    {
        let mut response = q.empty_response();
        let model = response.element("Results");
        let results = resources.iter();
        let results = results.map(|r| {
            let mut answer = mirror(r, &model, q.version, errors::INVALID_REQUEST);
            answer.set_text("ErrorMessage", Some(MALFORMED));
            answer
        });
        *response.structs_mut("Results") = results.collect();
        return Err(Refusal::Answer(response));
    }
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
        let fault = match operation {
            Operation::AlterConfigs => fault(resource),
            _ => None,
        };
        let code = match &fault {
            Some(_) => errors::INVALID_REQUEST,
            None => errors::denied(kind),
        };
        let mut answer = mirror(resource, &model, version, code);
        if let Some(fault) = fault {
            answer.set_text("ErrorMessage", Some(&fault));
        }
        refused.push((answers, answer));
        false
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    q.answer_if_nothing_is_left("Resources")
}

/// Kafka's `AlterConfigOp.OpType` code of what needs no value.
const DELETE: i64 = 1;

/// What is wrong with the settings of a resource: each must be named once and have a value. A
/// broker looks at that before it asks for permission. (So it does at the values of its own
/// settings, which it alone can judge.)
fn fault(resource: &StructNode) -> Option<String> {
    let configs = resource.structs("Configs");
    let mut names = HashSet::new();
    if !configs
        .iter()
        .all(|config| names.insert(config.text("Name")))
    {
        return Some("Error due to duplicate config keys".into());
    }
    let is_deleted = |config: &&StructNode| {
        config.has("ConfigOperation") && config.int("ConfigOperation") == DELETE
    };
    let nulls = configs
        .iter()
        .filter(|config| !is_deleted(config) && config.is_null("Value"));
    let nulls: Vec<&str> = nulls.filter_map(|config| config.text("Name")).collect();
    (!nulls.is_empty()).then(|| format!("Null value not supported for : {}", nulls.join(", ")))
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
