//! Producers with an id and transactions.

use super::errors::{
    CLUSTER_AUTHORIZATION_FAILED, INVALID_TOPIC_EXCEPTION, OPERATION_NOT_ATTEMPTED,
    TOPIC_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_OR_PARTITION,
};
use super::lens::{Answered, Question, Refusal, mirror, partitions_of};
use super::topics::{is_answered, is_legal, is_of_brokers};
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::StructNode;

/// With a transactional id: WRITE on it. Without: IDEMPOTENT_WRITE on the cluster, or WRITE on
/// some topic.
pub(super) fn init_producer_id(q: &mut Question) -> Result<(), Refusal> {
    if !q.request.is_null("TransactionalId") {
        return q.need(
            Operation::Write,
            ResourceKind::TransactionalId,
            "TransactionalId",
        );
    }
    let cluster = ResourceKind::Cluster;
    if q.guard
        .sees(Operation::IdempotentWrite, cluster, CLUSTER_NAME)
        || q.guard.allows_any(Operation::Write, ResourceKind::Topic)
    {
        return Ok(());
    }
    // Asked again so that the refusal is recorded with the operation that would have helped.
    q.guard
        .allows(Operation::IdempotentWrite, cluster, CLUSTER_NAME);
    Err(q.refuse(CLUSTER_AUTHORIZATION_FAILED))
}

pub(super) fn refuse_init_producer_id(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    response.set_int("ErrorCode", code.into());
    response
        .set_int("ProducerId", -1)
        .set_int("ProducerEpoch", -1);
    response
}

/// DescribeProducers: READ on each topic. A broker looks at the names first.
pub(super) fn describe_producers(q: &mut Question) -> Result<(), Refusal> {
    let outcome = q.strip_topics("Topics", Operation::Read, "Topics");
    q.refused
        .iter_mut()
        .for_each(|(_, topic)| illegal_first(topic));
    outcome.map_err(|refusal| match refusal {
        Refusal::Answer(mut response) => {
            response
                .structs_mut("Topics")
                .iter_mut()
                .for_each(illegal_first);
            Refusal::Answer(response)
        }
        other => other,
    })
}

fn illegal_first(topic: &mut StructNode) {
    if !is_legal(topic.text("Name").unwrap_or_default()) {
        for partition in topic.structs_mut("Partitions") {
            partition.set_int("ErrorCode", INVALID_TOPIC_EXCEPTION.into());
        }
    }
}

/// WRITE on the transactional id and on each topic, all or nothing: if one topic is refused,
/// the others answer OPERATION_NOT_ATTEMPTED, or that they are not there.
pub(super) fn add_partitions(q: &mut Question) -> Result<(), Refusal> {
    let id = "V3AndBelowTransactionalId";
    q.need(Operation::Write, ResourceKind::TransactionalId, id)?;
    let mut denied = Vec::new();
    for topic in q.request.structs("V3AndBelowTopics") {
        let name = topic.text("Name").unwrap_or_default();
        // A broker asks about partitions.
        let is_named = !partitions_of(topic, q.version).is_empty();
        let write = Operation::Write;
        let allowed = !is_of_brokers(name) && q.guard.allows(write, ResourceKind::Topic, name);
        denied.push(is_named && !allowed);
    }
    if !denied.contains(&true) {
        return Ok(());
    }
    let mut response = q.empty_response();
    let model = response.element("ResultsByTopicV3AndBelow");
    let topics = q.request.structs("V3AndBelowTopics").iter().zip(&denied);
    for (topic, denied) in topics {
        if partitions_of(topic, q.version).is_empty() {
            continue;
        }
        let code = match denied {
            true => TOPIC_AUTHORIZATION_FAILED,
            false => OPERATION_NOT_ATTEMPTED,
        };
        let mut answer = mirror(topic, &model, q.version, code);
        if !denied {
            let there = q.guard.partitions(topic.text("Name").unwrap_or_default());
            for partition in answer.structs_mut("ResultsByPartition") {
                let index = usize::try_from(partition.int("PartitionIndex"));
                if index.is_ok_and(|index| index < there) {
                    continue;
                }
                partition.set_int("PartitionErrorCode", UNKNOWN_TOPIC_OR_PARTITION.into());
            }
        }
        response
            .structs_mut("ResultsByTopicV3AndBelow")
            .push(answer);
    }
    Err(Refusal::Answer(response))
}

/// Each marker, each of its topics, each partition.
pub(super) fn refuse_markers(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    let marker_model = response.element("Markers");
    let topic_model = marker_model.element("Topics");
    let markers = q.request.structs("Markers").iter().map(|marker| {
        let mut answer = marker_model.clone();
        answer.set_int("ProducerId", marker.int("ProducerId"));
        let topics = marker.structs("Topics").iter();
        let topics = topics.filter(|topic| is_answered(q.api.key, topic, q.version));
        let topics = topics.map(|topic| mirror(topic, &topic_model, q.version, code));
        *answer.structs_mut("Topics") = topics.collect();
        answer
    });
    *response.structs_mut("Markers") = markers.collect();
    response
}

/// Topics of a transaction that may not be described are left out.
pub(super) fn filter_describe(a: &mut Answered) {
    let guard = &mut *a.guard;
    for state in a.response.structs_mut("TransactionStates") {
        state.structs_mut("Topics").retain(|topic| {
            let name = topic.text("Topic").unwrap_or_default();
            guard.sees(Operation::Describe, ResourceKind::Topic, name)
        });
    }
}

/// Transactional ids that may not be described are not listed.
pub(super) fn filter_list(a: &mut Answered) {
    let guard = &mut *a.guard;
    a.response.structs_mut("TransactionStates").retain(|state| {
        let id = state.text("TransactionalId").unwrap_or_default();
        guard.sees(Operation::Describe, ResourceKind::TransactionalId, id)
    });
}
