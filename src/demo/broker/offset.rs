//! OffsetCommit and OffsetFetch.

use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::coordinator::GROUPS_MAX;
use super::group::Group;
use super::member::Commit;
use super::serve::{Call, Outcome};
use super::{Shared, State, code};

/// Offsets kept for one group.
const COMMITS_MAX: usize = 10_000;
/// Bytes of the metadata beside an offset (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4_096;

/// Answers OffsetCommit.
pub fn commit(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: OffsetCommitRequest = call.decode()?;
    let mut state = shared.state();
    let State { topics, groups } = &mut *state;
    let name = request.group_id.as_str();
    let generation = request.generation_id_or_member_epoch;
    let allowed = if name.is_empty() {
        Err(code::INVALID_GROUP_ID)
    } else if !groups.contains_key(name) && generation >= 0 {
        Err(code::ILLEGAL_GENERATION)
    } else if !groups.contains_key(name) && groups.len() >= GROUPS_MAX {
        Err(code::GROUP_MAX_SIZE_REACHED)
    } else {
        groups.entry(name.to_owned()).or_default().may_commit(
            &request.member_id,
            request.group_instance_id.as_deref(),
            generation,
            crate::clock::now(),
        )
    };
    let mut answers = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let index = wanted.partition_index;
            let metadata = wanted.committed_metadata.as_deref().unwrap_or_default();
            let error = match (allowed, groups.get_mut(name)) {
                (Err(error), _) => error,
                (Ok(()), _) if topics.partition(&topic.name, index).is_none() => {
                    code::UNKNOWN_TOPIC_OR_PARTITION
                }
                (Ok(()), _) if metadata.len() > METADATA_BYTES_MAX => {
                    code::OFFSET_METADATA_TOO_LARGE
                }
                (Ok(()), Some(group)) => {
                    let commit = Commit {
                        offset: wanted.committed_offset,
                        leader_epoch: wanted.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                    };
                    keep(group, (topic.name.to_string(), index), commit)
                }
                (Ok(()), None) => code::UNKNOWN_MEMBER_ID,
            };
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error),
            );
        }
        answers.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions),
        );
    }
    Some(call.reply(&OffsetCommitResponse::default().with_topics(answers)))
}

fn keep(group: &mut Group, place: (String, i32), commit: Commit) -> i16 {
    if group.commits.len() >= COMMITS_MAX && !group.commits.contains_key(&place) {
        return code::POLICY_VIOLATION;
    }
    group.commits.insert(place, commit);
    code::NONE
}

/// One committed offset, or that there is none.
struct Fetched {
    index: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
}

/// Answers OffsetFetch, for one group or (from v8) several.
pub fn fetch(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: OffsetFetchRequest = call.decode()?;
    let state = shared.state();
    if call.version < 8 {
        let wanted = request.topics.as_ref().map(|topics| {
            let pair =
                |t: &kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                    (t.name.clone(), t.partition_indexes.clone())
                };
            topics.iter().map(pair).collect()
        });
        let topics = fetched(state.groups.get(request.group_id.as_str()), wanted);
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|f| {
                let partition = OffsetFetchResponsePartition::default()
                    .with_partition_index(f.index)
                    .with_committed_offset(f.offset)
                    .with_metadata(Some(f.metadata));
                match call.version {
                    5.. => partition.with_committed_leader_epoch(f.leader_epoch),
                    _ => partition,
                }
            });
            OffsetFetchResponseTopic::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        });
        let response = OffsetFetchResponse::default().with_topics(topics.collect());
        return Some(call.reply(&response));
    }
    let groups = request.groups.into_iter().map(|group| {
        let wanted = group.topics.map(|topics| {
            let pairs = topics.into_iter().map(|t| (t.name, t.partition_indexes));
            pairs.collect()
        });
        let topics = fetched(state.groups.get(group.group_id.as_str()), wanted);
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|f| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(f.index)
                    .with_committed_offset(f.offset)
                    .with_committed_leader_epoch(f.leader_epoch)
                    .with_metadata(Some(f.metadata))
            });
            OffsetFetchResponseTopics::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        });
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id)
            .with_topics(topics.collect())
    });
    Some(call.reply(&OffsetFetchResponse::default().with_groups(groups.collect())))
}

/// The offsets of the partitions wanted; `None`: all there are.
fn fetched(
    group: Option<&Group>,
    wanted: Option<Vec<(TopicName, Vec<i32>)>>,
) -> Vec<(TopicName, Vec<Fetched>)> {
    let fetched = |index: i32, commit: Option<&Commit>| Fetched {
        index,
        offset: commit.map_or(-1, |c| c.offset),
        leader_epoch: commit.map_or(-1, |c| c.leader_epoch),
        metadata: commit.map_or_else(StrBytes::new, |c| StrBytes::from_string(c.metadata.clone())),
    };
    let Some(wanted) = wanted else {
        let mut all: Vec<(TopicName, Vec<Fetched>)> = Vec::new();
        for ((topic, index), commit) in group.iter().flat_map(|g| &g.commits) {
            if all.last().is_none_or(|(name, _)| name.as_str() != topic) {
                let name = TopicName(StrBytes::from_string(topic.clone()));
                all.push((name, Vec::new()));
            }
            if let Some((_, partitions)) = all.last_mut() {
                partitions.push(fetched(*index, Some(commit)));
            }
        }
        return all;
    };
    let each = wanted.into_iter().map(|(topic, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let place = (topic.to_string(), index);
            fetched(index, group.and_then(|g| g.commits.get(&place)))
        });
        let partitions = partitions.collect();
        (topic, partitions)
    });
    each.collect()
}
