//! What the cluster is and which topics it has: Metadata, DescribeCluster, CreateTopics,
//! DeleteTopics, CreatePartitions and DescribeConfigs.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::batch::Refusal;
use super::log::LEADER_EPOCH;
use super::serve::{Call, Outcome, Peer};
use super::topic::{CONFIG_KEYS, Topic, Topics};
use super::{Shared, code, random};

/// Every operation on a topic (`AclOperation` codes as bits), which is what a broker without an
/// authorizer answers.
const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// Every operation on the cluster.
const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// The partitions of a topic that is made without saying how many (`num.partitions`).
const PARTITIONS_DEFAULT: i32 = 1;
/// `ConfigResource.Type`.
const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
/// `DescribeConfigsResponse.ConfigSource`.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

const fn bits(codes: &[i32]) -> i32 {
    let mut field = 0;
    let mut at = 0;
    while at < codes.len() {
        field |= 1 << codes[at];
        at += 1;
    }
    field
}

/// Answers Metadata.
pub fn metadata(shared: &Shared, peer: &Peer, call: &Call) -> Option<Outcome> {
    let request: MetadataRequest = call.decode()?;
    let node = BrokerId(shared.settings.node_id);
    let with_operations = request.include_topic_authorized_operations;
    let describe = |name: &str, topic: &Topic| {
        let partitions = (0..topic.partitions.len() as i32).map(|index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(node)
                .with_leader_epoch(LEADER_EPOCH)
                .with_replica_nodes(vec![node])
                .with_isr_nodes(vec![node])
        });
        let response = MetadataResponseTopic::default()
            .with_name(Some(topic_name(name)))
            .with_topic_id(topic.id)
            .with_partitions(partitions.collect());
        if with_operations {
            response.with_topic_authorized_operations(TOPIC_OPERATIONS)
        } else {
            response
        }
    };
    let missing = |error| MetadataResponseTopic::default().with_error_code(error);
    let mut state = shared.state();
    let topics = &mut state.topics;
    let mut made = false;
    let all = match &request.topics {
        None => true,
        Some(list) => call.version == 0 && list.is_empty(),
    };
    let mut answers = Vec::new();
    if all {
        answers.extend(topics.iter().map(|(name, topic)| describe(name, topic)));
    }
    for wanted in request.topics.into_iter().flatten() {
        // The id counts where there is one: Java's admin client then sends an empty name.
        let name = match wanted.name {
            Some(name) if wanted.topic_id.is_nil() => name.to_string(),
            _ => match topics.name_of(wanted.topic_id) {
                Some(name) => name.to_owned(),
                None => {
                    let unknown = missing(code::UNKNOWN_TOPIC_ID).with_topic_id(wanted.topic_id);
                    answers.push(match call.version {
                        12.. => unknown.with_name(None),
                        _ => unknown,
                    });
                    continue;
                }
            },
        };
        if topics.named(&name).is_none()
            && let Some(partitions) = shared.settings.auto_create_partitions
            && (request.allow_auto_topic_creation || call.version < 4)
        {
            let id = random().ok()?;
            if topics
                .create(&name, id, partitions, std::iter::empty())
                .is_ok()
            {
                made = true;
                // As Kafka's broker, which has only asked its controller by then.
                let unknown = missing(code::UNKNOWN_TOPIC_OR_PARTITION);
                answers.push(unknown.with_name(Some(topic_name(&name))));
                continue;
            }
        }
        answers.push(match topics.named(&name) {
            Some(topic) => describe(&name, topic),
            None => {
                let error = match topics.check(&name, 1, std::iter::empty()) {
                    Err(refusal) if refusal.code == code::INVALID_TOPIC_EXCEPTION => refusal.code,
                    _ => code::UNKNOWN_TOPIC_OR_PARTITION,
                };
                missing(error).with_name(Some(topic_name(&name)))
            }
        });
    }
    drop(state);
    if made {
        shared.changed.notify_waiters();
    }
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(peer.advertised_host.clone())
        .with_port(peer.advertised_port);
    let mut response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(shared.cluster_id.clone())))
        .with_controller_id(node)
        .with_topics(answers);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Some(call.reply(&response))
}

/// Answers DescribeCluster; there are brokers (endpoint type 1) and no separate controllers.
pub fn describe_cluster(shared: &Shared, peer: &Peer, call: &Call) -> Option<Outcome> {
    let request: DescribeClusterRequest = call.decode()?;
    let node = BrokerId(shared.settings.node_id);
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(shared.cluster_id.clone()))
        .with_controller_id(node);
    if request.endpoint_type == 1 {
        let broker = DescribeClusterBroker::default()
            .with_broker_id(node)
            .with_host(peer.advertised_host.clone())
            .with_port(peer.advertised_port);
        response.brokers = vec![broker];
    } else {
        response.error_code = code::INVALID_REQUEST;
        response.error_message = Some("the embedded broker has no controller endpoint".into());
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Some(call.reply(&response))
}

/// Answers CreateTopics.
pub fn create_topics(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: CreateTopicsRequest = call.decode()?;
    let mut state = shared.state();
    let mut answers = Vec::with_capacity(request.topics.len());
    for wanted in &request.topics {
        let id = random().ok()?;
        let twice = request
            .topics
            .iter()
            .filter(|t| t.name == wanted.name)
            .count()
            > 1;
        let made = if twice {
            Err(Refusal::new(
                code::INVALID_REQUEST,
                "the topic is named twice",
            ))
        } else {
            create_topic(&mut state.topics, wanted, id, request.validate_only, shared)
        };
        let answer = CreatableTopicResult::default().with_name(wanted.name.clone());
        answers.push(match made {
            Err(refusal) => answer
                .with_error_code(refusal.code)
                .with_error_message(Some(StrBytes::from_string(refusal.message)))
                .with_num_partitions(-1)
                .with_replication_factor(-1),
            Ok(partitions) => {
                let made = state.topics.named(&wanted.name);
                let configs = made.map(|topic| CONFIG_KEYS.iter().map(|k| created(topic, k)));
                answer
                    .with_topic_id(made.map_or(Uuid::nil(), |topic| topic.id))
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
                    .with_configs(configs.map(Iterator::collect).or(Some(Vec::new())))
            }
        });
    }
    drop(state);
    shared.changed.notify_waiters();
    Some(call.reply(&CreateTopicsResponse::default().with_topics(answers)))
}

fn created(topic: &Topic, key: &super::topic::ConfigKey) -> CreatableTopicConfigs {
    let (value, own) = topic.config(key);
    CreatableTopicConfigs::default()
        .with_name(key.name.into())
        .with_value(Some(StrBytes::from_string(value)))
        .with_config_source(if own { SOURCE_TOPIC } else { SOURCE_DEFAULT })
}

/// The number of partitions of the topic that was made, or would be.
fn create_topic(
    topics: &mut Topics,
    wanted: &CreatableTopic,
    id: [u8; 16],
    validate_only: bool,
    shared: &Shared,
) -> Result<i32, Refusal> {
    let partitions = if wanted.assignments.is_empty() {
        if !matches!(wanted.replication_factor, -1 | 1) {
            return Err(Refusal::new(
                code::INVALID_REPLICATION_FACTOR,
                format!("there is 1 broker, got {}", wanted.replication_factor),
            ));
        }
        match wanted.num_partitions {
            -1 => PARTITIONS_DEFAULT,
            count => count,
        }
    } else {
        let here = |ids: &Vec<BrokerId>| ids.as_slice() == [BrokerId(shared.settings.node_id)];
        let mut indexes: Vec<i32> = Vec::new();
        for assignment in &wanted.assignments {
            indexes.push(assignment.partition_index);
            if !here(&assignment.broker_ids) {
                return Err(Refusal::new(
                    code::INVALID_REPLICA_ASSIGNMENT,
                    "every partition has exactly one replica, on the only broker",
                ));
            }
        }
        indexes.sort_unstable();
        if !indexes.iter().copied().eq(0..indexes.len() as i32) {
            return Err(Refusal::new(
                code::INVALID_REPLICA_ASSIGNMENT,
                "partitions are numbered from 0 without gaps",
            ));
        }
        indexes.len() as i32
    };
    let configs = wanted
        .configs
        .iter()
        .map(|c| (c.name.as_str(), c.value.as_deref()));
    if validate_only {
        topics.check(&wanted.name, partitions, configs)?;
    } else {
        topics.create(&wanted.name, id, partitions, configs)?;
    }
    Ok(partitions)
}

/// Answers DeleteTopics, by name or (from v6) by id.
pub fn delete_topics(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: DeleteTopicsRequest = call.decode()?;
    let mut state = shared.state();
    let mut responses = Vec::new();
    let by_state = request.topics.iter().map(|t| (t.name.clone(), t.topic_id));
    let by_name = request
        .topic_names
        .iter()
        .map(|name| (Some(name.clone()), Uuid::nil()));
    for (name, id) in by_state.chain(by_name) {
        let mut result = DeletableTopicResult::default();
        let known = match &name {
            Some(name) => Some(name.to_string()),
            None => state.topics.name_of(id).map(str::to_owned),
        };
        match known.as_deref().and_then(|name| state.topics.delete(name)) {
            Some(topic) => {
                result.topic_id = topic.id;
                for group in state.groups.values_mut() {
                    group
                        .commits
                        .retain(|(topic, _), _| Some(topic.as_str()) != known.as_deref());
                }
            }
            None => {
                result.topic_id = id;
                result.error_code = match name {
                    Some(_) => code::UNKNOWN_TOPIC_OR_PARTITION,
                    None => code::UNKNOWN_TOPIC_ID,
                };
            }
        }
        result.name = known.as_deref().map(topic_name).or(name);
        if call.version < 6 {
            result.topic_id = Uuid::nil();
        }
        responses.push(result);
    }
    drop(state);
    shared.changed.notify_waiters();
    Some(call.reply(&DeleteTopicsResponse::default().with_responses(responses)))
}

/// Answers CreatePartitions.
pub fn create_partitions(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: CreatePartitionsRequest = call.decode()?;
    let mut state = shared.state();
    let results = request.topics.iter().map(|wanted| {
        let result = CreatePartitionsTopicResult::default().with_name(wanted.name.clone());
        let commit = !request.validate_only;
        match state.topics.grow(&wanted.name, wanted.count, commit) {
            Ok(()) => result,
            Err(refusal) => result
                .with_error_code(refusal.code)
                .with_error_message(Some(StrBytes::from_string(refusal.message))),
        }
    });
    let response = CreatePartitionsResponse::default().with_results(results.collect());
    drop(state);
    shared.changed.notify_waiters();
    Some(call.reply(&response))
}

/// Answers DescribeConfigs for topics and for this broker.
pub fn describe_configs(shared: &Shared, peer: &Peer, call: &Call) -> Option<Outcome> {
    let request: DescribeConfigsRequest = call.decode()?;
    let state = shared.state();
    let results = request.resources.iter().map(|wanted| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        let found = match wanted.resource_type {
            RESOURCE_TOPIC => topic_configs(&state.topics, wanted),
            RESOURCE_BROKER => broker_configs(shared, peer, wanted),
            kind => Err(Refusal::new(
                code::INVALID_REQUEST,
                format!("the embedded broker has no configurations of kind {kind}"),
            )),
        };
        match found {
            Err(refusal) => result
                .with_error_code(refusal.code)
                .with_error_message(Some(StrBytes::from_string(refusal.message))),
            Ok(configs) => result.with_configs(
                configs
                    .into_iter()
                    .filter(|c| match &wanted.configuration_keys {
                        Some(keys) => keys.iter().any(|k| k.as_str() == c.name),
                        None => true,
                    })
                    .map(|c| c.described(request.include_synonyms, call.version))
                    .collect(),
            ),
        }
    });
    let response = DescribeConfigsResponse::default().with_results(results.collect());
    Some(call.reply(&response))
}

/// A configuration and its value.
struct Config {
    name: &'static str,
    value: String,
    source: i8,
    kind: i8,
}

impl Config {
    fn described(self, synonyms: bool, version: i16) -> DescribeConfigsResourceResult {
        let value = StrBytes::from_string(self.value);
        let mut result = DescribeConfigsResourceResult::default()
            .with_name(self.name.into())
            .with_value(Some(value.clone()))
            .with_read_only(self.source == SOURCE_STATIC)
            .with_config_source(self.source);
        if version >= 3 {
            result.config_type = self.kind;
        }
        if synonyms {
            let synonym = DescribeConfigsSynonym::default()
                .with_name(self.name.into())
                .with_value(Some(value))
                .with_source(self.source);
            result.synonyms = vec![synonym];
        }
        result
    }
}

fn topic_configs(
    topics: &Topics,
    wanted: &DescribeConfigsResource,
) -> Result<Vec<Config>, Refusal> {
    let topic = topics.named(&wanted.resource_name).ok_or_else(|| {
        Refusal::new(code::UNKNOWN_TOPIC_OR_PARTITION, "the topic does not exist")
    })?;
    let described = CONFIG_KEYS.iter().map(|key| {
        let (value, own) = topic.config(key);
        Config {
            name: key.name,
            value,
            source: if own { SOURCE_TOPIC } else { SOURCE_DEFAULT },
            kind: key.kind,
        }
    });
    Ok(described.collect())
}

fn broker_configs(
    shared: &Shared,
    peer: &Peer,
    wanted: &DescribeConfigsResource,
) -> Result<Vec<Config>, Refusal> {
    let settings = &shared.settings;
    if *wanted.resource_name != settings.node_id.to_string() && !wanted.resource_name.is_empty() {
        let message = format!("this is broker {}", settings.node_id);
        return Err(Refusal::new(code::INVALID_REQUEST, message));
    }
    let endpoint = format!(
        "PLAINTEXT://{}:{}",
        &*peer.advertised_host, peer.advertised_port
    );
    let partitions = settings
        .auto_create_partitions
        .unwrap_or(PARTITIONS_DEFAULT);
    Ok([
        ("node.id", settings.node_id.to_string(), 3),
        ("advertised.listeners", endpoint, 2),
        (
            "auto.create.topics.enable",
            settings.auto_create_partitions.is_some().to_string(),
            1,
        ),
        ("num.partitions", partitions.to_string(), 3),
        ("default.replication.factor", "1".to_owned(), 3),
        (
            "message.max.bytes",
            settings.message_bytes_max.to_string(),
            3,
        ),
        (
            "log.retention.bytes",
            settings.partition_bytes_max.to_string(),
            5,
        ),
    ]
    .into_iter()
    .map(|(name, value, kind)| Config {
        name,
        value,
        source: SOURCE_STATIC,
        kind,
    })
    .collect())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
