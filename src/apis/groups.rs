//! Groups of every kind: classic, consumer (KIP-848), share (KIP-932) and streams (KIP-1071).

use std::collections::HashMap;

use super::errors::{self, GROUP_AUTHORIZATION_FAILED, TOPIC_AUTHORIZATION_FAILED};
use super::lens::{Answered, Question, Refusal, mirror, topic_of};
use super::rules;
use super::topics::{is_legal, is_of_brokers};
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::tree::{Node, StructNode};

/// DESCRIBE on each group, DESCRIBE on each topic. A group that is refused says so as a whole;
/// a topic that is named and refused says so on each partition; where all topics were asked
/// for, the answer is filtered instead.
pub(super) fn offset_fetch(q: &mut Question) -> Result<(), Refusal> {
    if q.version < 8 {
        q.need(Operation::Describe, ResourceKind::Group, "GroupId")?;
        if q.request.is_null("Topics") {
            return Ok(());
        }
        q.strip_topics_and_ask("Topics", Operation::Describe, "Topics");
        q.refused
            .iter_mut()
            .for_each(|(_, topic)| without_commit(topic));
        return q.answer_if_nothing_is_left("Topics");
    }
    judge_groups(q, without_commit)
}

/// DESCRIBE on each group of a list and on each topic it names; `error` gives a refused topic the
/// values that go with an error. A group goes on with the topics that are left; its refused ones
/// are merged into the group of the answer by its name.
fn judge_groups(q: &mut Question, error: fn(&mut StructNode)) -> Result<(), Refusal> {
    let Some(model) = q.response_element("Groups") else {
        return Ok(());
    };
    let topic_model = model.element("Topics");
    let (version, guard) = (q.version, &mut *q.guard);
    let mut refused = Vec::new();
    q.request.structs_mut("Groups").retain_mut(|group| {
        let id = group.text("GroupId").unwrap_or_default().to_owned();
        let mut answer = model.clone();
        answer.set_text("GroupId", Some(&id));
        if !guard.allows(Operation::Describe, ResourceKind::Group, &id) {
            answer.set_int("ErrorCode", GROUP_AUTHORIZATION_FAILED.into());
            refused.push(("Groups", answer));
            return false;
        }
        if group.is_null("Topics") {
            return true;
        }
        let mut topics = Vec::new();
        group.structs_mut("Topics").retain(|topic| {
            let code = match topic_of(topic, version, guard) {
                Some(name) if guard.allows(Operation::Describe, ResourceKind::Topic, &name) => {
                    return true;
                }
                Some(_) => TOPIC_AUTHORIZATION_FAILED,
                None => errors::UNKNOWN_TOPIC_ID,
            };
            let mut element = mirror(topic, &topic_model, version, code);
            error(&mut element);
            topics.push(element);
            false
        });
        if !topics.is_empty() {
            *answer.structs_mut("Topics") = topics;
            refused.push((MERGE_INTO_GROUP, answer));
        }
        true
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    if q.request.structs("Groups").is_empty() && !q.refused.is_empty() {
        return Err(Refusal::Answer(q.local_answer()));
    }
    Ok(())
}

fn without_commit(topic: &mut StructNode) {
    for partition in topic.structs_mut("Partitions") {
        partition
            .set_int("CommittedOffset", -1)
            .set_text("Metadata", Some(""));
    }
}

/// JoinGroup: an error names no protocol.
pub(super) fn refuse_join(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    response
        .set_int("ErrorCode", code.into())
        .set_text("ProtocolName", None);
    response
}

/// The name under which `offset_fetch` and `describe_share_offsets` remember topics that belong
/// into a group the broker answers.
pub const MERGE_INTO_GROUP: &str = "Groups/Topics";

/// Puts refused topics into the groups they belong to.
pub fn merge_into_groups(response: &mut StructNode, refused: &[StructNode]) {
    let id = |group: &StructNode| group.bytes("GroupId").cloned();
    let mut by_group: HashMap<_, Vec<&StructNode>> = HashMap::new();
    for element in refused {
        by_group.entry(id(element)).or_default().push(element);
    }
    for group in response.structs_mut("Groups") {
        if group.int("ErrorCode") != 0 {
            continue;
        }
        let Some(elements) = by_group.get(&id(group)) else {
            continue;
        };
        let topics = group.structs_mut("Topics");
        for element in elements {
            topics.extend_from_slice(element.structs("Topics"));
        }
    }
}

pub(super) fn refuse_offset_fetch(q: &Question, code: i16) -> StructNode {
    let mut response = q.empty_response();
    if q.version >= 2 {
        response.set_int("ErrorCode", code.into());
        return response;
    }
    let model = response.element("Topics");
    let topics = q.request.structs("Topics").iter().map(|topic| {
        let mut element = mirror(topic, &model, q.version, code);
        without_commit(&mut element);
        element
    });
    *response.structs_mut("Topics") = topics.collect();
    response
}

/// Where all topics were asked for, those that may not be described are left out silently.
/// (Refused topics that were named are merged after this filter.)
pub(super) fn filter_offset_fetch(a: &mut Answered) {
    let (version, guard) = (a.version, &mut *a.guard);
    let mut keep = |topic: &StructNode| match topic_of(topic, version, guard) {
        Some(name) => guard.sees(Operation::Describe, ResourceKind::Topic, &name),
        None => false,
    };
    if version < 8 {
        a.response.structs_mut("Topics").retain(&mut keep);
        return;
    }
    for group in a.response.structs_mut("Groups") {
        group.structs_mut("Topics").retain(&mut keep);
    }
}

/// DESCRIBE on the group or transactional id; a refused key answers node -1 with no address.
/// Keys of share groups' state (type 2) are the brokers' own.
pub(super) fn find_coordinator(q: &mut Question) -> Result<(), Refusal> {
    let key_type = if q.version >= 1 {
        q.request.int("KeyType")
    } else {
        0
    };
    let kind = match key_type {
        0 => Some(ResourceKind::Group),
        1 => Some(ResourceKind::TransactionalId),
        2 if q.version >= 6 => None,
        // The broker answers INVALID_REQUEST.
        _ => return Ok(()),
    };
    let code = kind.map_or(errors::CLUSTER_AUTHORIZATION_FAILED, errors::denied);
    if q.version < 4 {
        let key = q.request.text("Key").unwrap_or_default();
        if kind.is_some_and(|kind| q.guard.allows(Operation::Describe, kind, key)) {
            return Ok(());
        }
        let mut response = q.empty_response();
        response
            .set_int("ErrorCode", code.into())
            .set_int("NodeId", -1)
            .set_int("Port", -1);
        return Err(Refusal::Answer(response));
    }
    let Some(model) = q.response_element("Coordinators") else {
        return Ok(());
    };
    let mut refused = Vec::new();
    let guard = &mut *q.guard;
    q.request.array_mut("CoordinatorKeys").retain(|node| {
        let key = node.text().unwrap_or_default();
        let keep = kind.is_some_and(|kind| guard.allows(Operation::Describe, kind, key));
        if !keep {
            let mut answer = model.clone();
            answer
                .set_text("Key", Some(key))
                .set_int("ErrorCode", code.into());
            answer.set_int("NodeId", -1).set_int("Port", -1);
            refused.push(("Coordinators", answer));
        }
        keep
    });
    q.changed |= !refused.is_empty();
    q.refused.append(&mut refused);
    match q.request.texts("CoordinatorKeys").next().is_none() && !q.refused.is_empty() {
        true => Err(Refusal::Answer(q.local_answer())),
        false => Ok(()),
    }
}

/// Groups that may not be described are not listed. (A broker shows everything to who may
/// describe the cluster.)
pub(super) fn filter_list_groups(a: &mut Answered) {
    let (describe, kind) = (Operation::Describe, ResourceKind::Group);
    let guard = &mut *a.guard;
    let any = guard.sees(describe, ResourceKind::Cluster, CLUSTER_NAME);
    a.response.structs_mut("Groups").retain(|group| {
        let id = group.text("GroupId").unwrap_or_default();
        (any && guard.within(kind, Some(id))) || guard.sees(describe, kind, id)
    });
}

/// READ on the group, DESCRIBE on every subscribed topic. A regular expression is resolved by
/// the broker, for the proxy's identity: it passes only where the subject may describe every
/// topic there is (threat 20).
pub(super) fn consumer_heartbeat(q: &mut Question) -> Result<(), Refusal> {
    q.need(Operation::Read, ResourceKind::Group, "GroupId")?;
    q.need_all_topics(Operation::Describe, "SubscribedTopicNames")?;
    let regex = q.version >= 1
        && q.request
            .text("SubscribedTopicRegex")
            .is_some_and(|regex| !regex.is_empty());
    if regex && !q.guard.allows_all(Operation::Describe, ResourceKind::Topic) {
        return Err(q.refuse(TOPIC_AUTHORIZATION_FAILED));
    }
    Ok(())
}

/// As for consumer groups, over every topic of the topology. The broker makes those of its internal
/// topics that are missing, and for the proxy's identity: each of them needs CREATE (threat 14).
/// Then the topic rules.
pub(super) fn streams_heartbeat(q: &mut Question) -> Result<(), Refusal> {
    q.need(Operation::Read, ResourceKind::Group, "GroupId")?;
    let Some(topology) = q.request.nested("Topology") else {
        return Ok(());
    };
    let mut names = Vec::new();
    let mut internal = Vec::new();
    let mut regex = false;
    for part in topology.structs("Subtopologies") {
        names.extend(part.texts("SourceTopics").map(str::to_owned));
        names.extend(part.texts("RepartitionSinkTopics").map(str::to_owned));
        for array in ["RepartitionSourceTopics", "StateChangelogTopics"] {
            let topics = part.structs(array).iter();
            internal.extend(topics.map(|t| t.text("Name").unwrap_or_default().to_owned()));
        }
        regex |= part.texts("SourceTopicRegex").next().is_some();
    }
    // A broker looks at the names before it asks for permission.
    let may_read = |name: &String| is_legal(name) && !is_of_brokers(name);
    if !names.iter().chain(&internal).all(may_read) {
        return Err(q.refuse(errors::STREAMS_INVALID_TOPOLOGY));
    }
    let kind = ResourceKind::Topic;
    let mut allowed = true;
    for name in names.iter().chain(&internal) {
        allowed &= q.guard.allows(Operation::Describe, kind, name);
    }
    if regex {
        allowed &= q.guard.allows_all(Operation::Describe, kind);
    }
    let (create, cluster) = (Operation::Create, ResourceKind::Cluster);
    if allowed && !q.guard.sees(create, cluster, CLUSTER_NAME) {
        for name in &internal {
            let may_stay = q.guard.sees(create, kind, name) || q.guard.partitions(name) > 0;
            allowed &= may_stay || q.guard.allows(create, kind, name);
        }
    }
    match allowed {
        true => rules::streams_topics(q),
        false => Err(q.refuse(TOPIC_AUTHORIZATION_FAILED)),
    }
}

/// READ on the group, once the request says by which protocol its members have agreed.
pub(super) fn sync(q: &mut Question) -> Result<(), Refusal> {
    if q.version >= 5 && (q.request.is_null("ProtocolType") || q.request.is_null("ProtocolName")) {
        return Err(q.refuse(errors::INCONSISTENT_GROUP_PROTOCOL));
    }
    q.need(Operation::Read, ResourceKind::Group, "GroupId")
}

/// READ on the group and DESCRIBE on every subscribed topic.
pub(super) fn share_heartbeat(q: &mut Question) -> Result<(), Refusal> {
    q.need(Operation::Read, ResourceKind::Group, "GroupId")?;
    if !is_member(q.request.text("MemberId")) {
        return Err(q.refuse(errors::INVALID_REQUEST));
    }
    q.need_all_topics(Operation::Describe, "SubscribedTopicNames")
}

/// ShareFetch and ShareAcknowledge: READ on the group and on each topic. Refused topics carry the
/// error for what is fetched and, where the request acknowledges records of theirs, for that too.
pub(super) fn share_session(q: &mut Question) -> Result<(), Refusal> {
    if q.request.is_null("GroupId") {
        return Err(q.refuse(errors::INVALID_REQUEST));
    }
    q.need(Operation::Read, ResourceKind::Group, "GroupId")?;
    let is_member = is_member(q.request.text("MemberId"));
    if !is_member || renews_and_fetches(q) || acknowledges_first(q) {
        return Err(q.refuse(errors::INVALID_REQUEST));
    }
    // Without topics the session still goes on.
    q.strip_topics_and_ask("Topics", Operation::Read, "Responses");
    // A topic to forget need not be readable, but must not reach the broker unknown.
    Ok(())
}

/// The longest id of a member of a share group, in characters.
const MEMBER_CHARS_MAX: usize = 36;

fn is_member(id: Option<&str>) -> bool {
    id.is_some_and(|id| (1..=MEMBER_CHARS_MAX).contains(&id.encode_utf16().count()))
}

/// Who renews acknowledgements fetches nothing in the same request (KIP-1222).
fn renews_and_fetches(q: &Question) -> bool {
    let amounts = ["MaxBytes", "MinBytes", "MaxRecords", "MaxWaitMs"];
    let request = &*q.request;
    q.version >= 2
        && request.has("MaxBytes")
        && request.int("IsRenewAck") != 0
        && amounts.iter().any(|amount| request.int(amount) != 0)
}

/// Who begins a session has nothing to acknowledge yet.
fn acknowledges_first(q: &Question) -> bool {
    let mut topics = q.request.structs("Topics").iter();
    let acknowledges = |partition: &StructNode| {
        let batches = partition.structs("AcknowledgementBatches");
        !batches.is_empty()
    };
    q.request.has("MaxBytes")
        && q.request.int("ShareSessionEpoch") == 0
        && topics.any(|topic| topic.structs("Partitions").iter().any(acknowledges))
}

/// A session belongs to a member of the group, and a broker takes everybody for it who says so: two
/// connections that do have one session, with the topics of whoever opened it last. What it brings
/// is therefore judged for who receives it (threat 8).
pub(super) fn filter_share_fetch(a: &mut Answered) {
    let (version, guard) = (a.version, &mut *a.guard);
    let mut readable = |topic: &StructNode| match topic_of(topic, version, guard) {
        Some(name) => guard.sees(Operation::Read, ResourceKind::Topic, &name),
        None => false,
    };
    a.response.structs_mut("Responses").retain(&mut readable);
}

/// A described group is replaced by an error if any topic its members are assigned may not be
/// described: half an assignment would be a lie.
pub(super) fn filter_describe(a: &mut Answered) {
    let guard = &mut *a.guard;
    for group in a.response.structs_mut("Groups") {
        let mut visible = true;
        for member in group.structs("Members") {
            for assignment in ["Assignment", "TargetAssignment"] {
                if !member.has(assignment) {
                    continue;
                }
                let topics = member
                    .nested(assignment)
                    .map(|m| m.structs("TopicPartitions"));
                for topic in topics.unwrap_or_default() {
                    let name = topic.text("TopicName").unwrap_or_default();
                    visible &= guard.sees(Operation::Describe, ResourceKind::Topic, name);
                }
            }
        }
        if !visible {
            hide_group(group);
        }
    }
}

/// As above, over the topics of the topology.
pub(super) fn filter_streams_describe(a: &mut Answered) {
    let guard = &mut *a.guard;
    for group in a.response.structs_mut("Groups") {
        let parts = group.nested("Topology").map(|t| t.structs("Subtopologies"));
        let mut names: Vec<String> = Vec::new();
        for part in parts.unwrap_or_default() {
            names.extend(part.texts("SourceTopics").map(str::to_owned));
            names.extend(part.texts("RepartitionSinkTopics").map(str::to_owned));
            for array in ["RepartitionSourceTopics", "StateChangelogTopics"] {
                let topics = part.structs(array).iter();
                names.extend(topics.map(|t| t.text("Name").unwrap_or_default().to_owned()));
            }
        }
        let mut sees = |n: &String| guard.sees(Operation::Describe, ResourceKind::Topic, n);
        if !names.iter().all(&mut sees) {
            hide_group(group);
            group
                .set_text("ErrorMessage", Some(HIDDEN_TOPOLOGY))
                .set("Topology", Node::Struct(None));
        }
    }
}

/// What a broker says of it.
const HIDDEN: &str =
    "The group has described topic(s) that the client is not authorized to describe.";

/// The same of a streams group.
const HIDDEN_TOPOLOGY: &str =
    "The described group uses topics that the client is not authorized to describe.";

fn hide_group(group: &mut StructNode) {
    let mut hidden = StructNode::new(group.layout());
    hidden.set_text("GroupId", group.text("GroupId"));
    hidden.set_int("ErrorCode", TOPIC_AUTHORIZATION_FAILED.into());
    hidden.set_text("ErrorMessage", Some(HIDDEN));
    *group = hidden;
}

/// DESCRIBE on each group and each named topic, as OffsetFetch.
pub(super) fn describe_share_offsets(q: &mut Question) -> Result<(), Refusal> {
    judge_groups(q, |topic| {
        for partition in topic.structs_mut("Partitions") {
            partition.set_int("StartOffset", -1);
        }
    })
}

pub(super) fn filter_share_offsets(a: &mut Answered) {
    let guard = &mut *a.guard;
    for group in a.response.structs_mut("Groups") {
        group.structs_mut("Topics").retain(|topic| {
            let name = topic.text("TopicName").unwrap_or_default();
            guard.sees(Operation::Describe, ResourceKind::Topic, name)
        });
    }
}
