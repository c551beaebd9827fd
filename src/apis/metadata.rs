//! Metadata and DescribeTopicPartitions: what exists, shown only to who may describe it.

use super::errors::{
    INVALID_REQUEST, TOPIC_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION,
};
use super::lens::{Answered, Question, Refusal};
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// Topics named in a Metadata request need DESCRIBE; a refusal says the same whether the topic
/// exists or not. Creation on demand needs CREATE too, and is switched off for the request if
/// any of its topics lacks it: a broker creates before the answer could be filtered (threat 14).
pub(super) fn judge(q: &mut Question) -> Result<(), Refusal> {
    let by_default_all = q.version == 0 && q.request.structs("Topics").is_empty();
    let all = by_default_all || q.request.is_null("Topics");
    if all {
        return Ok(());
    }
    let Some(model) = q.response_element("Topics") else {
        return Ok(());
    };
    let (version, guard) = (q.version, &mut *q.guard);
    let may_create_any = guard.sees(Operation::Create, ResourceKind::Cluster, CLUSTER_NAME);
    let create = version < 4 || q.request.int("AllowAutoTopicCreation") != 0;
    let mut refused = Vec::new();
    let mut uncreatable = false;
    q.request.structs_mut("Topics").retain(|topic| {
        let id = if version >= 10 {
            topic.uuid("TopicId")
        } else {
            [0; 16]
        };
        // With an id the name does not count: the Java client sends an empty one.
        let by_id = id != [0; 16];
        let named = topic.text("Name").filter(|_| !by_id).map(str::to_owned);
        if named.is_none() && (version < 12 || !by_id) {
            // The broker has an answer of its own for requests that make no sense.
            return true;
        }
        let mut answer = model.clone();
        answer.set_int("IsInternal", 0);
        let code = match &named {
            Some(name) if guard.allows(Operation::Describe, ResourceKind::Topic, name) => {
                let mut creatable = || guard.sees(Operation::Create, ResourceKind::Topic, name);
                uncreatable |= create && !may_create_any && !creatable();
                return true;
            }
            Some(_) => TOPIC_AUTHORIZATION_FAILED,
            None => match guard.topic_name(&id) {
                Some(name) if guard.allows(Operation::Describe, ResourceKind::Topic, &name) => {
                    return true;
                }
                Some(_) => TOPIC_AUTHORIZATION_FAILED,
                None => UNKNOWN_TOPIC_ID,
            },
        };
        answer
            .set_int("ErrorCode", code.into())
            .set_text("Name", named.as_deref());
        if named.is_none() {
            answer.set("TopicId", Node::Uuid(id));
        }
        refused.push(("Topics", answer));
        false
    });
    q.changed |= !refused.is_empty();
    // Version 0 reads an empty list as "all topics": ask for one that cannot exist instead, and
    // let the filter drop it.
    if version == 0 && q.request.structs("Topics").is_empty() {
        let mut nothing = q.request.element("Topics");
        nothing.set_text("Name", Some(NO_SUCH_TOPIC));
        q.request.structs_mut("Topics").push(nothing);
    }
    q.refused.append(&mut refused);
    if uncreatable {
        switch_off_creation(q)?;
    }
    Ok(())
}

/// An illegal topic name: no broker creates or finds it.
const NO_SUCH_TOPIC: &str = "/";

/// From version 4 a flag says it. Before, only asking in a newer version can: such clients are
/// refused instead, topic by topic, with the code a broker has for a topic that may not be
/// created.
fn switch_off_creation(q: &mut Question) -> Result<(), Refusal> {
    if q.version >= 4 {
        q.request.set_int("AllowAutoTopicCreation", 0);
        q.changed = true;
        return Ok(());
    }
    let Some(model) = q.response_element("Topics") else {
        return Ok(());
    };
    let guard = &mut *q.guard;
    let mut refused = Vec::new();
    q.request.structs_mut("Topics").retain(|topic| {
        let name = topic.text("Name").unwrap_or_default();
        if guard.sees(Operation::Create, ResourceKind::Topic, name) || name == NO_SUCH_TOPIC {
            return true;
        }
        let mut answer = model.clone();
        answer.set_text("Name", Some(name));
        answer.set_int("ErrorCode", UNKNOWN_TOPIC_OR_PARTITION.into());
        refused.push(("Topics", answer));
        false
    });
    q.changed = true;
    q.refused.append(&mut refused);
    if q.version == 0 && q.request.structs("Topics").is_empty() {
        let mut nothing = q.request.element("Topics");
        nothing.set_text("Name", Some(NO_SUCH_TOPIC));
        q.request.structs_mut("Topics").push(nothing);
    }
    Ok(())
}

/// Drops what the subject may not describe: in answers for all topics it never appears.
pub(super) fn filter(a: &mut Answered) {
    let guard = &mut *a.guard;
    a.response
        .structs_mut("Topics")
        .retain(|topic| match topic.text("Name") {
            Some(NO_SUCH_TOPIC) => false,
            Some(name) => guard.sees(Operation::Describe, ResourceKind::Topic, name),
            // By an id that the broker does not know either.
            None => true,
        });
}

/// Named topics as in Metadata, but refusals stand behind the page of allowed ones. The cursor
/// names a topic as well; an empty list means all, and the answer is filtered.
pub(super) fn describe_partitions(q: &mut Question) -> Result<(), Refusal> {
    if q.request.structs("Topics").is_empty() {
        return Ok(());
    }
    let Some(model) = q.response_element("Topics") else {
        return Ok(());
    };
    let cursor = q
        .request
        .nested("Cursor")
        .and_then(|c| c.text("TopicName"))
        .map(str::to_owned);
    let guard = &mut *q.guard;
    let mut refused = Vec::new();
    q.request.structs_mut("Topics").retain(|topic| {
        let name = topic.text("Name").unwrap_or_default();
        if guard.allows(Operation::Describe, ResourceKind::Topic, name) {
            return true;
        }
        // Names below the cursor were on an earlier page.
        if cursor.as_deref().is_none_or(|cursor| name >= cursor) {
            refused.push(("Topics", refused_topic(&model, name)));
        }
        false
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    if q.request.structs("Topics").is_empty() {
        return Err(Refusal::Answer(match cursor {
            // A broker calls a cursor whose topic is not in the list a mistake; here the topic
            // was in the list and may not be described.
            Some(_) if q.refused.is_empty() => {
                let mut response = q.empty_response();
                let mut topic = model.clone();
                topic.set_int("ErrorCode", INVALID_REQUEST.into());
                response.structs_mut("Topics").push(topic);
                response
            }
            _ => q.local_answer(),
        }));
    }
    Ok(())
}

fn refused_topic(model: &StructNode, name: &str) -> StructNode {
    let mut answer = model.clone();
    answer.set_text("Name", Some(name));
    answer.set_int("ErrorCode", TOPIC_AUTHORIZATION_FAILED.into());
    answer
}

pub(super) fn filter_partitions(a: &mut Answered) {
    let guard = &mut *a.guard;
    a.response.structs_mut("Topics").retain(|topic| {
        guard.sees(
            Operation::Describe,
            ResourceKind::Topic,
            topic.text("Name").unwrap_or_default(),
        )
    });
}
