//! DescribeTopicPartitions (KIP-966): the partitions of topics, in pages.

use super::errors::{INVALID_REQUEST, TOPIC_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_OR_PARTITION};
use super::lens::{Answered, Question, Refusal};
use crate::policy::model::{Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// Most topics that a listing asks for at once: five times as many as a broker puts into a page
/// unless told otherwise (`max.request.partition.size.limit`).
const LISTED_TOPICS_MAX: usize = 10_000;

/// A question about all topics that was asked about those that the client may describe.
#[derive(Debug)]
pub struct Listing {
    /// The first of them that was not asked about; so many fit into no page.
    rest: Option<Box<str>>,
}

/// Topics need DESCRIBE, as in Metadata, but refusals stand behind the page of allowed ones. The
/// cursor names a topic as well.
pub(super) fn judge(q: &mut Question) -> Result<(), Refusal> {
    if q.request.structs("Topics").is_empty() {
        return list(q);
    }
    let Some(model) = q.response_element("Topics") else {
        return Ok(());
    };
    let cursor = cursor(q.request).map(|(name, partition)| (name.to_owned(), partition));
    if let Some((first, partition)) = &cursor {
        let mut topics = q.request.structs("Topics").iter();
        let is_named = topics.any(|topic| topic.text("Name") == Some(first));
        if !is_named || *partition < 0 {
            return Err(Refusal::Answer(senseless(q, &model)));
        }
    }
    let from = cursor.as_ref().map_or("", |(first, _)| first);
    let guard = &mut *q.guard;
    let mut refused = Vec::new();
    let mut changed = false;
    let mut begins = true;
    q.request.structs_mut("Topics").retain(|topic| {
        let name = topic.text("Name").unwrap_or_default();
        // Names below the cursor were on an earlier page.
        let is_here = name >= from;
        if is_here && guard.allows(Operation::Describe, ResourceKind::Topic, name) {
            return true;
        }
        changed = true;
        if is_here {
            begins &= name != from;
            refused.push(("Topics", refused_topic(&model, name)));
        }
        false
    });
    // A broker wants the cursor's topic among those that are named.
    if !begins {
        q.request.set("Cursor", Node::Struct(None));
    }
    q.changed |= changed;
    q.refused.append(&mut refused);
    q.answer_if_nothing_is_left("Topics")
}

/// The answer to a cursor that is at none of the topics that are named, or in front of them.
fn senseless(q: &Question, model: &StructNode) -> StructNode {
    let mut response = q.empty_response();
    let topics = q.request.structs("Topics").iter().map(|topic| {
        let mut answer = model.clone();
        answer
            .set_text("Name", topic.text("Name"))
            .set_int("ErrorCode", INVALID_REQUEST.into());
        answer
    });
    *response.structs_mut("Topics") = topics.collect();
    response
}

/// All topics. A broker pages through those that its client may describe; asked by the proxy it
/// would page through every topic there is, and where a page ends would tell of hidden ones (threat
/// 15). So it is asked about the others by name.
fn list(q: &mut Question) -> Result<(), Refusal> {
    if q.guard.allows_all(Operation::Describe, ResourceKind::Topic) {
        return Ok(());
    }
    let from = cursor(q.request).map(|(name, partition)| (name.to_owned(), partition));
    if from.as_ref().is_some_and(|(_, partition)| *partition < 0) {
        // The broker refuses that.
        return Ok(());
    }
    let Some(mut names) = q.guard.topics() else {
        return Ok(());
    };
    let guard = &mut *q.guard;
    names.retain(|name| {
        from.as_ref().is_none_or(|(first, _)| name >= first)
            && guard.sees(Operation::Describe, ResourceKind::Topic, name)
    });
    if names.is_empty() {
        return Err(Refusal::Served(q.empty_response()));
    }
    // No topic is without partitions. The one behind the last may be the next page's first.
    let limit = usize::try_from(q.request.int("ResponsePartitionLimit")).unwrap_or(0);
    let count = limit.clamp(1, LISTED_TOPICS_MAX) + 1;
    let rest = names.get(count).map(|name| name.as_str().into());
    names.truncate(count);
    // Beside names, a broker wants the cursor's to be one of them.
    if from.is_some_and(|(first, _)| names.first() != Some(&first)) {
        q.request.set("Cursor", Node::Struct(None));
    }
    for name in names {
        let mut topic = q.request.element("Topics");
        topic.set_text("Name", Some(&name));
        q.request.structs_mut("Topics").push(topic);
    }
    q.listing = Some(Listing { rest });
    q.changed = true;
    Ok(())
}

/// Where a page is to begin: a topic, and which of its partitions.
fn cursor(request: &StructNode) -> Option<(&str, i64)> {
    let cursor = request.nested("Cursor")?;
    Some((cursor.text("TopicName")?, cursor.int("PartitionIndex")))
}

fn refused_topic(model: &StructNode, name: &str) -> StructNode {
    let mut answer = model.clone();
    answer.set_text("Name", Some(name));
    answer.set_int("ErrorCode", TOPIC_AUTHORIZATION_FAILED.into());
    answer
}

/// Makes the answer about names that of a listing: what is not there any more, or not for the
/// proxy's identity, is left out, and the names that were not asked about come on the next page.
pub fn answer_listing(response: &mut StructNode, listing: &Listing) {
    response.structs_mut("Topics").retain(|topic| {
        let code = topic.int("ErrorCode");
        ![UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED]
            .iter()
            .any(|gone| i64::from(*gone) == code)
    });
    let Some(rest) = &listing.rest else { return };
    if response.nested("NextCursor").is_none() {
        let mut next = response.element("NextCursor");
        next.set_text("TopicName", Some(rest))
            .set_int("PartitionIndex", 0);
        response.set("NextCursor", Node::Struct(Some(Box::new(next))));
    }
}

/// Drops what may not be described, or not any more.
pub(super) fn filter(a: &mut Answered) {
    let guard = &mut *a.guard;
    a.response.structs_mut("Topics").retain(|topic| {
        guard.sees(
            Operation::Describe,
            ResourceKind::Topic,
            topic.text("Name").unwrap_or_default(),
        )
    });
}
