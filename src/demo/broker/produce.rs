//! Produce and InitProducerId: batches are checked, numbered in place and kept; their bytes are
//! never re-encoded.

use std::sync::atomic::Ordering;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::batch::{Batch, Refusal};
use super::serve::{Call, Outcome};
use super::{Shared, State, code, wall_ms};

/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// The first version whose answer says which record is wrong (KIP-467).
const RECORD_ERRORS_FROM: i16 = 8;
/// The first version that may carry zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// Answers Produce.
pub fn produce(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: ProduceRequest = call.decode()?;
    let mut failed = false;
    let mut responses = Vec::with_capacity(request.topic_data.len());
    {
        let mut state = shared.state();
        for topic in &request.topic_data {
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for data in &topic.partition_data {
                let result = match request.acks {
                    -1..=1 => append(&mut state, topic, data, call.version),
                    acks => Err(Refusal::new(
                        code::INVALID_REQUIRED_ACKS,
                        format!("acks is -1, 0 or 1, got {acks}"),
                    )),
                };
                failed |= result.is_err();
                partitions.push(partition_response(data.index, result, call.version));
            }
            let response = TopicProduceResponse::default().with_partition_responses(partitions);
            responses.push(if call.version >= TOPIC_IDS_FROM {
                response.with_topic_id(topic.topic_id)
            } else {
                response.with_name(topic.name.clone())
            });
        }
    }
    shared.changed.notify_waiters();
    Some(match (request.acks, failed) {
        (0, true) => Outcome::Close,
        (0, false) => Outcome::Silent,
        _ => call.reply(&ProduceResponse::default().with_responses(responses)),
    })
}

/// Base offset and log start offset.
fn append(
    state: &mut State,
    topic: &TopicProduceData,
    data: &PartitionProduceData,
    version: i16,
) -> Result<(i64, i64), Refusal> {
    let by_id = version >= TOPIC_IDS_FROM;
    let name = if by_id {
        let name = state.topics.name_of(topic.topic_id).map(str::to_owned);
        name.ok_or_else(|| Refusal::new(code::UNKNOWN_TOPIC_ID, "no topic has this id"))?
    } else {
        topic.name.to_string()
    };
    let unknown = || {
        Refusal::new(
            code::UNKNOWN_TOPIC_OR_PARTITION,
            "the topic or partition does not exist",
        )
    };
    let topic = state.topics.named_mut(&name).ok_or_else(unknown)?;
    let (bytes_max, retention) = (topic.message_bytes_max(), topic.retention());
    let index = usize::try_from(data.index).map_err(|_| unknown())?;
    let log = topic.partitions.get_mut(index).ok_or_else(unknown)?;
    let records = data.records.clone().unwrap_or_default();
    if records.len() > bytes_max {
        return Err(Refusal::new(
            code::MESSAGE_TOO_LARGE,
            format!(
                "a batch has at most {bytes_max} bytes, got {}",
                records.len()
            ),
        ));
    }
    let batch = Batch::from_producer(&records, version >= ZSTD_FROM)?;
    let base_offset = log.append(&batch, wall_ms(), retention)?;
    Ok((base_offset, log.start_offset()))
}

fn partition_response(
    index: i32,
    result: Result<(i64, i64), Refusal>,
    version: i16,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let refusal = match result {
        Ok((base, start)) => {
            return response.with_base_offset(base).with_log_start_offset(start);
        }
        Err(refusal) => refusal,
    };
    let response = response
        .with_error_code(refusal.code)
        .with_base_offset(-1)
        .with_log_start_offset(-1);
    if version < RECORD_ERRORS_FROM {
        return response;
    }
    let message = StrBytes::from_string(refusal.message);
    let errors = refusal.record.map(|record| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record)
            .with_batch_index_error_message(Some(message.clone()))
    });
    response
        .with_record_errors(errors.into_iter().collect())
        .with_error_message(Some(message))
}

/// Answers InitProducerId: a new id each time, as a broker does without a transactional id.
pub fn init_producer_id(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: InitProducerIdRequest = call.decode()?;
    let response = if request.transactional_id.is_some() {
        InitProducerIdResponse::default()
            .with_error_code(code::INVALID_REQUEST) // no transactions here
            .with_producer_id((-1).into())
            .with_producer_epoch(-1)
    } else {
        let id = shared.next_producer_id.fetch_add(1, Ordering::Relaxed);
        InitProducerIdResponse::default()
            .with_producer_id(id.into())
            .with_producer_epoch(0)
    };
    Some(call.reply(&response))
}
