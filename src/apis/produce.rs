//! Produce: the request is scanned in place, once; only if something in it is refused does it
//! become a tree. Record bytes are never copied.

mod outline;

use std::collections::HashMap;
use std::ops::Range;

pub use outline::{Next, Outline};

use super::PRODUCE;
use super::errors::{
    INVALID_RECORD, INVALID_TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
};
use super::lens::{Question, Refusal, mirror, topic_of};
use super::topics::is_answered;
use crate::policy::model::{Operation, ResourceKind};
use crate::wire::layout::{Field, Message, Role};
use crate::wire::primitive::WireError;
use crate::wire::records;
use crate::wire::tree::{Node, StructNode};
use crate::wire::walk::{Scalar, Visitor, WalkError, walk_prefix};

/// How a request names a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TopicRef<'b> {
    /// By name.
    Name(&'b str),
    /// By id (KIP-516).
    Id(&'b [u8; 16]),
}

/// What wants to see the topics and partitions of a request as they are scanned.
pub trait Scan<'b> {
    /// The acknowledgements asked for; comes first.
    fn acks(&mut self, acks: i64);
    /// The following partitions belong to this topic.
    fn topic(&mut self, topic: TopicRef<'b>);
    /// The records of a partition.
    fn records(&mut self, records: &'b [u8]);
}

/// What the scan found outside the topics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanned {
    /// The acknowledgements asked for; 0: there is no answer.
    pub acks: i64,
    /// Whether a transactional id is given.
    pub transactional_id: bool,
}

/// Scans a request in place.
pub fn scan<'b>(
    message: &Message,
    version: i16,
    body: &'b [u8],
    sink: &mut impl Scan<'b>,
) -> Result<Scanned, WalkError> {
    let mut scanner = Scanner {
        found: Scanned::default(),
        sink,
    };
    walk_prefix(message, version, body, &mut scanner)?;
    Ok(scanner.found)
}

struct Scanner<'s, S> {
    found: Scanned,
    sink: &'s mut S,
}

impl<'b, S: Scan<'b>> Visitor<'b> for Scanner<'_, S> {
    #[inline]
    fn scalar(
        &mut self,
        field: &Field,
        value: Scalar<'b>,
        _at: Range<usize>,
    ) -> Result<(), WireError> {
        match (field.role, value) {
            (Role::TopicName, Scalar::Name(name)) => {
                self.sink.topic(TopicRef::Name(name.unwrap_or_default()));
            }
            (Role::TopicId, Scalar::Uuid(id)) => self.sink.topic(TopicRef::Id(id)),
            (Role::TransactionalId, Scalar::Name(id)) => {
                self.found.transactional_id = id.is_some();
            }
            (Role::None, Scalar::Bytes(Some(records))) => self.sink.records(records),
            (Role::None, Scalar::Int(acks)) if &*field.name == "Acks" => {
                self.found.acks = acks;
                self.sink.acks(acks);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Topics that only brokers write. A broker makes an exception for one client id, which any
/// client can claim; here there is none (threat 13).
pub fn is_internal(topic: &str) -> bool {
    matches!(
        topic,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state" | "__cluster_metadata"
    )
}

/// WRITE on the transactional id if any batch is transactional, WRITE on each topic; internal
/// topics and control batches are refused whatever the rules say.
pub(super) fn judge(q: &mut Question) -> Result<(), Refusal> {
    if any_transactional(q.request) {
        let named = !q.request.is_null("TransactionalId");
        let id = q.request.text("TransactionalId").unwrap_or_default();
        let kind = ResourceKind::TransactionalId;
        if !named || !q.guard.allows(Operation::Write, kind, id) {
            let refusal = q.refuse(TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
            return Err(match refusal {
                Refusal::Answer(mut response) => {
                    response
                        .structs_mut("Responses")
                        .iter_mut()
                        .for_each(without_offset);
                    Refusal::Answer(response)
                }
                close => close,
            });
        }
    }
    strip_internal(q);
    let outcome = q.strip_topics("TopicData", Operation::Write, "Responses");
    q.refused
        .iter_mut()
        .for_each(|(_, topic)| without_offset(topic));
    match outcome {
        Err(Refusal::Answer(mut response)) => {
            response
                .structs_mut("Responses")
                .iter_mut()
                .for_each(without_offset);
            return Err(Refusal::Answer(response));
        }
        other => other?,
    }
    refuse_partitions(q, |_, records| {
        let (heads, _) = records::heads(records);
        heads.control.then(|| Refused {
            code: INVALID_RECORD,
            message: Some("clients cannot write control batches".into()),
            records: Vec::new(),
        })
    })
}

fn any_transactional(request: &StructNode) -> bool {
    let topics = request.structs("TopicData").iter();
    topics
        .flat_map(|topic| topic.structs("PartitionData"))
        .any(|partition| {
            partition
                .bytes("Records")
                .is_some_and(|r| records::heads(r).0.transactional)
        })
}

fn strip_internal(q: &mut Question) {
    let Some(model) = q.response_element("Responses") else {
        return;
    };
    let (version, guard) = (q.version, &mut *q.guard);
    let mut refused = Vec::new();
    let mut changed = false;
    q.request.structs_mut("TopicData").retain(|topic| {
        let name = topic_of(topic, version, guard);
        let Some(name) = name.filter(|name| is_internal(name)) else {
            return true;
        };
        // A broker asks for the permission first.
        let code = match guard.allows(Operation::Write, ResourceKind::Topic, &name) {
            true => INVALID_TOPIC_EXCEPTION,
            false => TOPIC_AUTHORIZATION_FAILED,
        };
        changed = true;
        if is_answered(PRODUCE, topic, version) {
            refused.push(("Responses", mirror(topic, &model, version, code)));
        }
        false
    });
    q.changed |= changed;
    q.refused.append(&mut refused);
}

/// Why the records of a partition are refused.
#[derive(Debug)]
pub struct Refused {
    /// Kafka's error code.
    pub code: i16,
    /// For people; sent from version 8 on (KIP-467).
    pub message: Option<String>,
    /// The records at fault, by their index in the batch, each with its reason.
    pub records: Vec<(i32, String)>,
}

/// Takes out the partitions whose records `judge` refuses; it is given the topic's name and the
/// bytes of the records. What is left goes on; if nothing is, the request is answered here.
pub fn refuse_partitions(
    q: &mut Question,
    mut judge: impl FnMut(&str, &[u8]) -> Option<Refused>,
) -> Result<(), Refusal> {
    let Some(model) = q.response_element("Responses") else {
        return Ok(());
    };
    let partition_model = model.element("PartitionResponses");
    let (version, guard) = (q.version, &mut *q.guard);
    let mut refused = Vec::new();
    q.request.structs_mut("TopicData").retain_mut(|topic| {
        let name = topic_of(topic, version, guard).unwrap_or_default();
        let mut answers = Vec::new();
        topic.structs_mut("PartitionData").retain(|partition| {
            let records = partition.bytes("Records");
            let Some(why) = records.and_then(|records| judge(&name, records)) else {
                return true;
            };
            let mut answer = partition_model.clone();
            answer.set_int("Index", partition.int("Index"));
            answer.set_int("ErrorCode", why.code.into());
            answer.set_text("ErrorMessage", why.message.as_deref());
            let errors = why.records.iter().map(|(index, message)| {
                let mut error = answer.element("RecordErrors");
                error.set_int("BatchIndex", i64::from(*index));
                error.set_text("BatchIndexErrorMessage", Some(message));
                error
            });
            let errors: Vec<StructNode> = errors.collect();
            *answer.structs_mut("RecordErrors") = errors;
            answers.push(answer);
            false
        });
        if !answers.is_empty() {
            let mut answer = model.clone();
            answer.set_text("Name", topic.text("Name"));
            answer.set("TopicId", Node::Uuid(topic.uuid("TopicId")));
            *answer.structs_mut("PartitionResponses") = answers;
            without_offset(&mut answer);
            refused.push(("Responses", answer));
        }
        !topic.structs("PartitionData").is_empty()
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    q.answer_if_nothing_is_left("TopicData")
}

/// Looks at the records of every partition whose topic has a name here, and changes nothing.
pub fn look_at_partitions(q: &mut Question, mut look: impl FnMut(&str, &[u8])) {
    let (version, guard) = (q.version, &mut *q.guard);
    for topic in q.request.structs("TopicData") {
        let name = topic_of(topic, version, guard).unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        let partitions = topic.structs("PartitionData").iter();
        for records in partitions.filter_map(|partition| partition.bytes("Records")) {
            look(&name, records);
        }
    }
}

/// Puts refused partitions into the broker's answer: those of a topic that goes on belong into its
/// element there, since clients read a topic that stands there twice in different ways.
pub fn merge(response: &mut StructNode, refused: Vec<(&'static str, StructNode)>) {
    // By name or id, as the request names it.
    let topic = |topic: &StructNode| (topic.bytes("Name").cloned(), topic.uuid("TopicId"));
    let topics = response.structs_mut("Responses");
    let mut places = HashMap::new();
    for (at, element) in topics.iter().enumerate() {
        places.entry(topic(element)).or_insert(at);
    }
    for (_, mut element) in refused {
        let place = *places.entry(topic(&element)).or_insert(topics.len());
        match topics.get_mut(place) {
            Some(known) => known
                .structs_mut("PartitionResponses")
                .append(element.structs_mut("PartitionResponses")),
            None => topics.push(element),
        }
    }
}

/// An error has no offset: -1, as a broker says it.
fn without_offset(topic: &mut StructNode) {
    for partition in topic.structs_mut("PartitionResponses") {
        partition.set_int("BaseOffset", -1);
    }
}
