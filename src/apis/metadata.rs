//! Metadata: what exists, shown only to who may describe it.

use super::Guard;
use super::errors::{
    INVALID_REQUEST, INVALID_TOPIC_EXCEPTION, LEADER_NOT_AVAILABLE, TOPIC_AUTHORIZATION_FAILED,
    UNKNOWN_SERVER_ERROR, UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION,
};
use super::lens::{Answered, OPERATIONS_NOT_REQUESTED, Question, Refusal};
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// Topics named in a Metadata request need DESCRIBE; a refusal says the same whether the topic
/// exists or not. Creation on demand needs CREATE too, and is switched off for the request if
/// any of its topics lacks it: a broker creates before the answer could be filtered (threat 14).
/// So it is where a topic rule speaks against one of them; there being no such topic then, the
/// answer is that of a broker whose `create.topic.policy` refuses, UNKNOWN_TOPIC_OR_PARTITION;
/// where the right is missing, it is refused behind the answer ([`refuse_creation`]).
pub(super) fn judge(q: &mut Question) -> Result<(), Refusal> {
    let by_default_all = q.version == 0 && q.request.structs("Topics").is_empty();
    let all = by_default_all || q.request.is_null("Topics");
    if all {
        return Ok(());
    }
    let Some(model) = q.response_element("Topics") else {
        return Ok(());
    };
    let mut topics = q.request.structs("Topics").iter();
    let by_id = q.version >= 10 && topics.any(|topic| topic.uuid("TopicId") != [0; 16]);
    if by_id && q.version < 12 {
        // Ids that cannot be used yet: the broker refuses the whole request.
        return Ok(());
    }
    // A broker refuses or fails on a topic that is named in no way, and answers so for all.
    let mut topics = q.request.structs("Topics").iter();
    let nameless = q.version >= 10 && !by_id && topics.any(|topic| topic.is_null("Name"));
    let senseless = match q.version {
        _ if !nameless => None,
        ..12 => Some(INVALID_REQUEST),
        _ => Some(UNKNOWN_SERVER_ERROR),
    };
    let (version, guard) = (q.version, &mut *q.guard);
    let may_create_any = guard.sees(Operation::Create, ResourceKind::Cluster, CLUSTER_NAME);
    let create = asks_for_creation(version, q.request);
    let mut refused = Vec::new();
    let mut uncreatable = false;
    let mut ignored = false;
    q.request.structs_mut("Topics").retain(|topic| {
        let id = if version >= 10 {
            topic.uuid("TopicId")
        } else {
            [0; 16]
        };
        // One id, and a broker looks at no name any more: not even at those beside a zero id.
        if by_id && id == [0; 16] {
            ignored = true;
            return false;
        }
        let name = topic.text("Name").filter(|_| !by_id);
        let named = name.map(str::to_owned);
        if named.is_none() && (version < 12 || id == [0; 16]) {
            // The broker has an answer of its own for requests that make no sense.
            return true;
        }
        let mut answer = model.clone();
        answer.set_int("IsInternal", 0);
        let code = match &named {
            Some(name)
                if senseless.is_none()
                    && guard.allows(Operation::Describe, ResourceKind::Topic, name) =>
            {
                if create && !may_create_any && !may_create(guard, name) {
                    // Must be known when the answer is there.
                    guard.makes_topics();
                    uncreatable = true;
                } else if create {
                    uncreatable |= !guard.may_appear(name);
                }
                return true;
            }
            Some(_) => senseless.unwrap_or(TOPIC_AUTHORIZATION_FAILED),
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
    q.changed |= ignored || !refused.is_empty();
    // Version 0 reads an empty list as "all topics": ask for one that cannot exist instead, and
    // let the filter drop it.
    if version == 0 && q.request.structs("Topics").is_empty() {
        let mut nothing = q.request.element("Topics");
        nothing.set_text("Name", Some(NO_SUCH_TOPIC));
        q.request.structs_mut("Topics").push(nothing);
    }
    q.refused.append(&mut refused);
    if uncreatable {
        switch_off_creation(q);
    }
    Ok(())
}

/// An illegal topic name: no broker creates or finds it.
const NO_SUCH_TOPIC: &str = "/";

/// From version 4 a flag says it. Older requests are asked in version 4, which differs in nothing
/// else that they could say; the answer is written in their own version.
fn switch_off_creation(q: &mut Question) {
    q.ask_version = q.ask_version.max(CREATION_FLAG_SINCE);
    q.request.set_int("AllowAutoTopicCreation", 0);
    q.changed = true;
}

fn may_create(guard: &mut dyn Guard, topic: &str) -> bool {
    guard.sees(Operation::Create, ResourceKind::Topic, topic)
}

/// What a broker that makes topics says of those that are not there and that the subject may not
/// create: the request has been sent so that none is made, and only the answer says which are not
/// there.
pub fn refuse_creation(response: &mut StructNode, guard: &mut dyn Guard) -> bool {
    if guard.sees(Operation::Create, ResourceKind::Cluster, CLUSTER_NAME) {
        return false;
    }
    let mut refused = false;
    for topic in response.structs_mut("Topics") {
        let code = topic.int("ErrorCode");
        let Some(name) = topic.text("Name").map(str::to_owned) else {
            continue;
        };
        let is_absent = ABSENT.iter().any(|absent| i64::from(*absent) == code);
        if is_absent && !guard.allows(Operation::Create, ResourceKind::Topic, &name) {
            topic
                .set_int("ErrorCode", TOPIC_AUTHORIZATION_FAILED.into())
                .set("TopicId", Node::Uuid([0; 16]))
                .set_int("TopicAuthorizedOperations", OPERATIONS_NOT_REQUESTED);
            refused = true;
        }
    }
    refused
}

/// What a broker says of a topic that is not there, also of one that could not be.
const ABSENT: [i16; 3] = [
    UNKNOWN_TOPIC_OR_PARTITION,
    LEADER_NOT_AVAILABLE,
    INVALID_TOPIC_EXCEPTION,
];

/// Whether a Metadata request in this version lets the broker make the topics that it names.
pub fn asks_for_creation(version: i16, request: &StructNode) -> bool {
    version < CREATION_FLAG_SINCE || request.int("AllowAutoTopicCreation") != 0
}

/// What becomes of topics that a request names and that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// They stay away: the client did not want them made.
    Unasked,
    /// A broker that makes topics makes them.
    Asked,
    /// They stay away: the client wanted them made, and may not have one of them.
    Prevented,
}

/// First version that can ask without creating.
const CREATION_FLAG_SINCE: i16 = 4;

/// Drops what the subject may not describe: in answers for all topics it never appears.
pub(super) fn filter(a: &mut Answered) {
    let guard = &mut *a.guard;
    a.response
        .structs_mut("Topics")
        .retain(|topic| match topic.text("Name") {
            // The request made no sense: its own words come back.
            _ if topic.int("ErrorCode") == i64::from(INVALID_REQUEST) => true,
            Some(NO_SUCH_TOPIC) => false,
            // What has no name is an error about the request, in versions without null.
            Some("") => true,
            Some(name) => guard.sees(Operation::Describe, ResourceKind::Topic, name),
            // By an id that the broker does not know either.
            None => true,
        });
}
