//! Topics and their offsets: ListOffsets, CreateTopics, DeleteTopics, DeleteRecords,
//! OffsetForLeaderEpoch.

use super::Guard;
use super::errors::{
    INVALID_REQUEST, TOPIC_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION,
};
use super::lens::{Answered, Question, Refusal, partitions_of};
use super::rules;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// A replica id from 0 on says "I am a broker": the proxy's identity may be allowed what the
/// client is not, so every partition is refused, whatever the rules say (threat 10).
pub(super) fn refuse_replica(q: &Question) -> Result<(), Refusal> {
    match q.request.int("ReplicaId") {
        id if id >= 0 => Err(q.refuse(TOPIC_AUTHORIZATION_FAILED)),
        _ => Ok(()),
    }
}

/// Whether a topic is the brokers' own, so that no transaction and no topology may name it.
pub(super) fn is_of_brokers(name: &str) -> bool {
    matches!(
        name,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state"
    )
}

/// APIs that a broker answers partition by partition, so that a topic of which the request names
/// none is not in the answer: Produce, Fetch, DeleteRecords, WriteTxnMarkers and
/// AlterShareGroupOffsets.
const BY_PARTITION: [i16; 5] = [0, 1, 21, 27, 91];

/// Whether an element of a request has one of the answer.
pub(super) fn is_answered(key: i16, element: &StructNode, version: i16) -> bool {
    !BY_PARTITION.contains(&key) || !partitions_of(element, version).is_empty()
}

/// The longest name of a topic, in characters, all of them ASCII.
const NAME_CHARS_MAX: usize = 249;

/// Whether a topic can have that name (Kafka's `Topic.validate`).
pub(super) fn is_legal(name: &str) -> bool {
    let of_a_topic = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(of_a_topic)
        && !matches!(name, "." | "..")
}

pub(super) fn list_offsets(q: &mut Question) -> Result<(), Refusal> {
    refuse_replica(q)?;
    q.strip_topics("Topics", Operation::Describe, "Topics")
}

pub(super) fn offset_for_leader_epoch(q: &mut Question) -> Result<(), Refusal> {
    // Version 3 and later carry a replica id; before, its default says "a debugging consumer".
    if q.version >= 3 {
        refuse_replica(q)?;
    }
    // Who may act for the cluster may ask about every topic, as its brokers do.
    if q.guard.sees(
        Operation::ClusterAction,
        ResourceKind::Cluster,
        CLUSTER_NAME,
    ) {
        return Ok(());
    }
    q.strip_topics("Topics", Operation::Describe, "Topics")
}

/// DeleteRecords: a refused partition answers with low watermark -1.
pub(super) fn strip_with_watermark(q: &mut Question, operation: Operation) -> Result<(), Refusal> {
    let outcome = q.strip_topics("Topics", operation, "Topics");
    let unknown = |topic: &mut StructNode| {
        for partition in topic.structs_mut("Partitions") {
            partition.set_int("LowWatermark", -1);
        }
    };
    q.refused.iter_mut().for_each(|(_, topic)| unknown(topic));
    outcome.map_err(|refusal| match refusal {
        Refusal::Answer(mut response) => {
            response.structs_mut("Topics").iter_mut().for_each(unknown);
            Refusal::Answer(response)
        }
        close => close,
    })
}

/// CREATE on the cluster, else CREATE on each topic; then the topic rules. A name given twice is
/// left to the broker, which refuses both; so either all its elements go on or none.
pub(super) fn create(q: &mut Question) -> Result<(), Refusal> {
    let (create, topic) = (Operation::Create, ResourceKind::Topic);
    let any = q.guard.sees(create, ResourceKind::Cluster, CLUSTER_NAME);
    q.strip_topics_unless("Topics", "Topics", |guard, name| {
        (any && guard.within(topic, Some(name))) || guard.allows(create, topic, name)
    });
    for (_, topic) in &mut q.refused {
        topic.set_text("ErrorMessage", Some("Authorization failed."));
    }
    q.answer_if_nothing_is_left("Topics")?;
    rules::created(q)
}

/// ALTER on each topic; then the topic rules.
pub(super) fn create_partitions(q: &mut Question) -> Result<(), Refusal> {
    q.strip_topics("Topics", Operation::Alter, "Results")?;
    rules::grown(q)
}

/// Who may not describe a topic's configuration learns that it was created and no more.
pub(super) fn filter_create(a: &mut Answered) {
    if a.version < 5 {
        return;
    }
    for topic in a.response.structs_mut("Topics") {
        let name = topic.text("Name").unwrap_or_default().to_owned();
        let seen = a
            .guard
            .sees(Operation::DescribeConfigs, ResourceKind::Topic, &name);
        if topic.int("ErrorCode") == 0 && !seen {
            topic.set_int("TopicConfigErrorCode", TOPIC_AUTHORIZATION_FAILED.into());
            topic
                .set_int("NumPartitions", -1)
                .set_int("ReplicationFactor", -1);
            topic.set("Configs", Node::Structs(Some(Vec::new())));
        }
    }
}

/// DELETE on the cluster, else DELETE and DESCRIBE on each topic. By name, a topic that may not
/// be described is refused the same whether it exists or not; by id, an unknown one is unknown.
pub(super) fn delete(q: &mut Question) -> Result<(), Refusal> {
    let topic = ResourceKind::Topic;
    let any = (q.guard).sees(Operation::Delete, ResourceKind::Cluster, CLUSTER_NAME);
    if any && q.guard.within(topic, None) {
        return Ok(());
    }
    let by_cluster = |guard: &mut dyn Guard, name: &str| any && guard.within(topic, Some(name));
    let Some(model) = q.response_element("Responses") else {
        return Ok(());
    };
    let mut refused = Vec::new();
    if q.version <= 5 {
        let guard = &mut *q.guard;
        q.request.array_mut("TopicNames").retain(|node| {
            let name = node.text().unwrap_or_default();
            if by_cluster(guard, name) {
                return true;
            }
            // Both are asked, so that a refusal is recorded though the topic is hidden as well.
            let delete = guard.allows(Operation::Delete, ResourceKind::Topic, name);
            let allowed = delete && guard.sees(Operation::Describe, ResourceKind::Topic, name);
            if !allowed {
                let code = undeletable(guard, name);
                let mut answer = model.clone();
                answer.set_text("Name", Some(name));
                answer.set_int("ErrorCode", code.into());
                refused.push(("Responses", answer));
            }
            allowed
        });
    } else {
        let guard = &mut *q.guard;
        q.request.structs_mut("Topics").retain(|topic| {
            let id = topic.uuid("TopicId");
            let by_id = topic.is_null("Name");
            let name = match topic.text("Name") {
                // Both a name and an id, or neither: the broker answers INVALID_REQUEST.
                Some(_) if id != [0; 16] => return true,
                Some(name) => Some(name.into()),
                None => guard.topic_name(&id),
            };
            let mut answer = model.clone();
            answer
                .set_text("Name", None)
                .set("TopicId", Node::Uuid([0; 16]));
            let code = match &name {
                None if id == [0; 16] => {
                    answer.set_text("ErrorMessage", Some(NEITHER));
                    INVALID_REQUEST
                }
                None => UNKNOWN_TOPIC_ID,
                Some(name) if by_cluster(guard, name) => return true,
                Some(name) => {
                    let describe = guard.sees(Operation::Describe, ResourceKind::Topic, name);
                    let delete = guard.allows(Operation::Delete, ResourceKind::Topic, name);
                    if describe && delete {
                        return true;
                    }
                    if describe || !by_id {
                        answer.set_text("Name", Some(name));
                    }
                    match by_id {
                        true => TOPIC_AUTHORIZATION_FAILED,
                        false => undeletable(guard, name),
                    }
                }
            };
            if by_id {
                answer.set("TopicId", Node::Uuid(id));
            }
            answer.set_int("ErrorCode", code.into());
            refused.push(("Responses", answer));
            false
        });
    }
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    let nothing_left = match q.version {
        ..=5 => q.request.texts("TopicNames").next().is_none(),
        _ => q.request.structs("Topics").is_empty(),
    };
    match nothing_left && !q.refused.is_empty() {
        true => Err(Refusal::Answer(q.local_answer())),
        false => Ok(()),
    }
}

/// What a broker says of an element without name and id.
const NEITHER: &str = "Neither topic name nor id were specified.";

/// Why a topic is not deleted: who may describe it learns first that there is none.
fn undeletable(guard: &mut dyn Guard, name: &str) -> i16 {
    let seen = guard.sees(Operation::Describe, ResourceKind::Topic, name);
    match seen && guard.partitions(name) == 0 {
        true => UNKNOWN_TOPIC_OR_PARTITION,
        false => TOPIC_AUTHORIZATION_FAILED,
    }
}
