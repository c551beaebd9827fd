//! Error answers of cluster-wide APIs that have a shape of their own.

use super::lens::{Question, mirror, partitions_of};
use crate::wire::tree::{Node, StructNode};

/// AlterReplicaLogDirs: each topic of each directory.
pub(super) fn refuse_alter_log_dirs(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    let model = response.element("Results");
    let topics = q
        .request
        .structs("Dirs")
        .iter()
        .flat_map(|dir| dir.structs("Topics"));
    let results = topics.map(|topic| {
        let mut answer = mirror(topic, &model, q.version, code);
        answer.set_text("TopicName", topic.text("Name"));
        answer
    });
    *response.structs_mut("Results") = results.collect();
    response
}

/// DescribeClientQuotas: the entries are null.
pub(super) fn refuse_describe_quotas(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    response
        .set_int("ErrorCode", code.into())
        .set("Entries", Node::Structs(None));
    response
}

/// AlterClientQuotas: each entry, with its entity.
pub(super) fn refuse_alter_quotas(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    let model = response.element("Entries");
    let entity_model = model.element("Entity");
    let entries = q.request.structs("Entries").iter().map(|entry| {
        let mut answer = model.clone();
        answer.set_int("ErrorCode", code.into());
        let entities = entry.structs("Entity").iter().map(|entity| {
            let mut copy = entity_model.clone();
            copy.set_text("EntityType", entity.text("EntityType"));
            copy.set_text("EntityName", entity.text("EntityName"));
            copy
        });
        *answer.structs_mut("Entity") = entities.collect();
        answer
    });
    *response.structs_mut("Entries") = entries.collect();
    response
}

/// ListPartitionReassignments: each partition, with no replica.
pub(super) fn refuse_list_reassignments(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    response.set_int("ErrorCode", code.into());
    let model = response.element("Topics");
    let partition_model = model.element("Partitions");
    let topics = q.request.structs("Topics").iter().map(|topic| {
        let mut answer = model.clone();
        answer.set_text("Name", topic.text("Name"));
        let partitions = partitions_of(topic, q.version).into_iter().map(|index| {
            let mut partition = partition_model.clone();
            partition.set_int("PartitionIndex", index.into());
            partition
        });
        *answer.structs_mut("Partitions") = partitions.collect();
        answer
    });
    *response.structs_mut("Topics") = topics.collect();
    response
}

/// DescribeUserScramCredentials: as many results as users, none of which is named.
pub(super) fn refuse_describe_scram(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    response.set_int("ErrorCode", code.into());
    let mut result = response.element("Results");
    result.set_int("ErrorCode", code.into());
    *response.structs_mut("Results") = vec![result; q.request.structs("Users").len()];
    response
}

/// AlterUserScramCredentials: each user once.
pub(super) fn refuse_alter_scram(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    let model = response.element("Results");
    let mut users: Vec<&str> = Vec::new();
    for array in ["Deletions", "Upsertions"] {
        let named = q.request.structs(array).iter();
        users.extend(named.map(|user| user.text("Name").unwrap_or_default()));
    }
    users.sort_unstable();
    users.dedup();
    let results = users.into_iter().map(|user| {
        let mut answer = model.clone();
        answer
            .set_text("User", Some(user))
            .set_int("ErrorCode", code.into());
        answer
    });
    *response.structs_mut("Results") = results.collect();
    response
}
