//! Fetch (with long polls, without incremental sessions) and ListOffsets.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};

use super::log::{LEADER_EPOCH, Log};
use super::serve::{Call, Outcome};
use super::{Shared, State, code};

/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// The most bytes in one answer (`fetch.max.bytes` of a broker).
const ANSWER_BYTES_MAX: usize = 55 << 20;
/// The longest long poll.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Answers Fetch, after at most the time the request allows.
pub async fn fetch(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: FetchRequest = call.decode()?;
    if request.session_id != 0 {
        let refused = FetchResponse::default().with_error_code(code::FETCH_SESSION_ID_NOT_FOUND);
        return Some(call.reply(&refused));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = crate::clock::now() + wait.min(WAIT_MAX);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable(); // before reading, so that no record is missed between
        let found = collect(&shared.state(), &request, call.version);
        let done = found.failed || found.bytes >= bytes_min || request.topics.is_empty();
        if done
            || tokio::time::timeout_at(deadline.into(), changed)
                .await
                .is_err()
        {
            let response = FetchResponse::default().with_responses(found.topics);
            return Some(call.reply(&response));
        }
    }
}

/// What can be answered at once.
struct Found {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

fn collect(state: &State, request: &FetchRequest, version: i16) -> Found {
    let by_id = version >= TOPIC_IDS_FROM;
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let bytes_max = bytes_max.min(ANSWER_BYTES_MAX);
    let mut found = Found {
        topics: Vec::with_capacity(request.topics.len()),
        bytes: 0,
        failed: false,
    };
    for topic in &request.topics {
        let name = if by_id {
            state.topics.name_of(topic.topic_id)
        } else {
            Some(topic.topic.as_str())
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let data = match name {
                None => failure(wanted.partition, code::UNKNOWN_TOPIC_ID),
                Some(name) => match state.topics.partition(name, wanted.partition) {
                    None => failure(wanted.partition, code::UNKNOWN_TOPIC_OR_PARTITION),
                    Some(log) => read(log, wanted, bytes_max, found.bytes),
                },
            };
            found.failed |= data.error_code != code::NONE;
            found.bytes += data.records.as_ref().map_or(0, Bytes::len);
            partitions.push(data);
        }
        let response = FetchableTopicResponse::default().with_partitions(partitions);
        found.topics.push(if by_id {
            response.with_topic_id(topic.topic_id)
        } else {
            response.with_topic(topic.topic.clone())
        });
    }
    found
}

/// Reads a partition; `taken` of the answer's `bytes_max` are taken already.
fn read(log: &Log, wanted: &FetchPartition, bytes_max: usize, taken: usize) -> PartitionData {
    let index = wanted.partition;
    if wanted.current_leader_epoch > LEADER_EPOCH {
        return failure(index, code::UNKNOWN_LEADER_EPOCH);
    }
    let partition_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
    // KIP-74: the first batch of the answer goes out whatever its size.
    let left = partition_max.min(bytes_max.saturating_sub(taken));
    let records = log.read(wanted.fetch_offset, left, taken == 0);
    let data = PartitionData::default()
        .with_partition_index(index)
        .with_high_watermark(log.end_offset())
        .with_last_stable_offset(log.end_offset())
        .with_log_start_offset(log.start_offset());
    match records {
        Some(records) => data.with_records(Some(records)),
        None => data
            .with_error_code(code::OFFSET_OUT_OF_RANGE)
            .with_records(Some(Bytes::new())),
    }
}

fn failure(index: i32, error: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}

/// Answers ListOffsets.
pub fn list_offsets(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: ListOffsetsRequest = call.decode()?;
    let state = shared.state();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let log = state.topics.partition(&topic.name, wanted.partition_index);
                list_offset(log, wanted, call.version)
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        })
        .collect();
    Some(call.reply(&ListOffsetsResponse::default().with_topics(topics)))
}

fn list_offset(
    log: Option<&Log>,
    wanted: &ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(wanted.partition_index)
        .with_timestamp(-1)
        .with_offset(-1);
    let Some(log) = log else {
        return response.with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION);
    };
    let (offset, timestamp) = match wanted.timestamp {
        -1 => (log.end_offset(), -1),
        -2 | -4 => (log.start_offset(), -1), // earliest, earliest local (KIP-405)
        -3 => log.offset_of_max_timestamp().unwrap_or((-1, -1)),
        -5 => (-1, -1), // latest tiered (KIP-1005): nothing is
        timestamp if timestamp >= 0 => log.offset_at(timestamp).unwrap_or((-1, -1)),
        _ => return response.with_error_code(code::UNSUPPORTED_VERSION),
    };
    let response = response.with_offset(offset).with_timestamp(timestamp);
    if version >= 4 && offset >= 0 {
        response.with_leader_epoch(LEADER_EPOCH)
    } else {
        response
    }
}
