//! How the functions behind the rows look at a request: the request under judgement
//! ([`Question`]), the answer under filtering ([`Answered`]), and the moves that many APIs share:
//! need an operation, strip refused topics, mirror a request's entities into an error answer.

use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::wire::layout::{Role, Struct};
use crate::wire::tree::{Node, StructNode};

use super::topics::is_answered;
use super::words::{Words, put_into_words};
use super::{Access, Api, Guard, Listing, Refuse, errors, groups, produce};

/// Why a request goes no further.
#[derive(Debug)]
pub enum Refusal {
    /// It is answered here.
    Answer(StructNode),
    /// It is allowed, and this is the answer: nobody else has to be asked.
    Served(StructNode),
    /// The connection ends, as at a broker.
    Close(&'static str),
}

/// A request under judgement.
pub struct Question<'a> {
    /// The row.
    pub api: &'static Api,
    /// The version of the request.
    pub version: i16,
    /// The request; judging may take parts out.
    pub request: &'a mut StructNode,
    /// Whom to ask.
    pub guard: &'a mut dyn Guard,
    /// Parts of the answer that were decided here: (array of the response, element).
    pub refused: Vec<(&'static str, StructNode)>,
    /// Whether the request was changed.
    pub changed: bool,
    /// The version in which the broker is asked: the request's own, or a newer one that can say
    /// what judging needs said. Its answer is then written in the request's version.
    pub ask_version: i16,
    /// Why what the rules allow is refused all the same.
    pub unsupported: Option<&'static str>,
    /// Set where the request was about all topics and is about some now.
    pub listing: Option<Listing>,
}

/// An answer on its way back.
pub struct Answered<'a> {
    /// The version.
    pub version: i16,
    /// The answer; filtering may take parts out.
    pub response: &'a mut StructNode,
    /// Whom to ask.
    pub guard: &'a mut dyn Guard,
}

impl<'a> Question<'a> {
    /// Puts a request under judgement.
    pub fn new(
        api: &'static Api,
        version: i16,
        request: &'a mut StructNode,
        guard: &'a mut dyn Guard,
    ) -> Self {
        Question {
            api,
            version,
            request,
            guard,
            refused: Vec::new(),
            changed: false,
            ask_version: version,
            unsupported: None,
            listing: None,
        }
    }

    /// Asks the row who may do this. What it refuses is said as a broker says it.
    pub fn judge(&mut self) -> Result<(), Refusal> {
        let mut verdict = match self.api.access {
            Access::Named(judge) => judge(self),
            Access::Cluster(operation) => self.need_cluster(operation),
            Access::Answered(code, why) => {
                self.unsupported = Some(why);
                Err(self.refuse(code))
            }
            Access::Rules(operation, judge, _) => judge(self, operation),
            Access::Open(_) => Ok(()),
            Access::Never(why) => Err(Refusal::Close(why)),
        };
        let words = self.api.words;
        if words != Words::Unset {
            if let Err(Refusal::Answer(response)) = &mut verdict {
                put_into_words(words, response);
            }
            let refused = self.refused.iter_mut();
            refused.for_each(|(_, element)| put_into_words(words, element));
        }
        verdict
    }

    /// Needs an operation on the resource that `field` names; null counts as the empty name.
    pub fn need(
        &mut self,
        operation: Operation,
        kind: ResourceKind,
        field: &'static str,
    ) -> Result<(), Refusal> {
        let name = self.request.text(field).unwrap_or_default();
        if self.guard.allows(operation, kind, name) {
            return Ok(());
        }
        Err(self.refuse(errors::denied(kind)))
    }

    /// Needs an operation on the cluster.
    pub fn need_cluster(&mut self, operation: Operation) -> Result<(), Refusal> {
        if self
            .guard
            .allows(operation, ResourceKind::Cluster, CLUSTER_NAME)
        {
            return Ok(());
        }
        Err(self.refuse(errors::CLUSTER_AUTHORIZATION_FAILED))
    }

    /// Needs an operation on every topic of an array of names; one refusal refuses the whole
    /// request without naming the topic.
    pub fn need_all_topics(
        &mut self,
        operation: Operation,
        field: &'static str,
    ) -> Result<(), Refusal> {
        let names: Vec<String> = self.request.texts(field).map(str::to_owned).collect();
        let mut allowed = true;
        for name in &names {
            allowed &= self.guard.allows(operation, ResourceKind::Topic, name);
        }
        match allowed {
            true => Ok(()),
            false => Err(self.refuse(errors::TOPIC_AUTHORIZATION_FAILED)),
        }
    }

    /// Takes the topics that the subject may not use out of the request's array `topics` and
    /// remembers, for the response's array `answers`, the error of each of their partitions.
    pub fn strip_topics(
        &mut self,
        topics: &'static str,
        operation: Operation,
        answers: &'static str,
    ) -> Result<(), Refusal> {
        self.strip_topics_and_ask(topics, operation, answers);
        self.answer_if_nothing_is_left(topics)
    }

    /// As `strip_topics`, for APIs whose broker has something to say even when no topic is left:
    /// about the group or the session.
    pub fn strip_topics_and_ask(
        &mut self,
        topics: &'static str,
        operation: Operation,
        answers: &'static str,
    ) {
        self.strip_topics_unless(topics, answers, |guard, name| {
            guard.allows(operation, ResourceKind::Topic, name)
        });
    }

    /// As above, by any question about the topic's name.
    pub fn strip_topics_unless(
        &mut self,
        topics: &'static str,
        answers: &'static str,
        allowed: impl Fn(&mut dyn Guard, &str) -> bool,
    ) {
        let model = self.response_element(answers);
        let mut refused = Vec::new();
        let mut changed = false;
        let (key, version, guard) = (self.api.key, self.version, &mut *self.guard);
        self.request.structs_mut(topics).retain(|topic| {
            let code = match topic_of(topic, version, guard) {
                Some(name) if allowed(guard, &name) => return true,
                Some(_) => errors::TOPIC_AUTHORIZATION_FAILED,
                None => errors::UNKNOWN_TOPIC_ID,
            };
            changed = true;
            if is_answered(key, topic, version) {
                let element = model.as_ref().map(|m| mirror(topic, m, version, code));
                refused.extend(element.map(|e| (answers, e)));
            }
            false
        });
        self.changed |= changed;
        self.refused.append(&mut refused);
    }

    /// As `strip_topics`, for an array whose elements are names of one kind (groups,
    /// transactional ids) and whose answers carry the error on the element itself.
    pub fn strip_names(
        &mut self,
        names: &'static str,
        operation: Operation,
        kind: ResourceKind,
        answers: &'static str,
    ) -> Result<(), Refusal> {
        let role = match kind {
            ResourceKind::TransactionalId => Role::TransactionalId,
            _ => Role::GroupId,
        };
        let Some(model) = self.response_element(answers) else {
            return Ok(());
        };
        let mut refused = Vec::new();
        let guard = &mut *self.guard;
        self.request.array_mut(names).retain(|node| {
            let name = node.text().unwrap_or_default();
            if guard.allows(operation, kind, name) {
                return true;
            }
            let mut element = model.clone();
            set_role(&mut element, role, node.clone());
            set_role(
                &mut element,
                Role::ErrorCode,
                Node::Int(errors::denied(kind).into()),
            );
            refused.push((answers, element));
            false
        });
        self.changed |= !refused.is_empty();
        self.refused.append(&mut refused);
        if self.request.texts(names).next().is_none() && !self.refused.is_empty() {
            return Err(Refusal::Answer(self.local_answer()));
        }
        Ok(())
    }

    /// Answers here if stripping left an array empty that was not so before.
    pub fn answer_if_nothing_is_left(&mut self, array: &str) -> Result<(), Refusal> {
        if self.request.structs(array).is_empty() && !self.refused.is_empty() {
            return Err(Refusal::Answer(self.local_answer()));
        }
        Ok(())
    }

    /// The answer that holds just what was refused here.
    pub fn local_answer(&mut self) -> StructNode {
        let mut response = self.empty_response();
        merge(
            self.api.key,
            &mut response,
            std::mem::take(&mut self.refused),
        );
        response
    }

    /// The response at its defaults.
    pub fn empty_response(&self) -> StructNode {
        match self.api.layout() {
            Some(layout) => StructNode::new(&layout.response.body),
            None => unreachable!("{} has no layout", self.api.name),
        }
    }

    /// A new element of an array of the response.
    pub fn response_element(&self, array: &'static str) -> Option<StructNode> {
        let response = &self.api.layout()?.response.body;
        let index = response.index(array)?;
        response.fields[index].nested().map(StructNode::new)
    }

    /// Refuses the whole request, in this API's own shape.
    pub fn refuse(&self, code: i16) -> Refusal {
        let mut response = self.empty_response();
        match self.api.refuse {
            Refuse::Unused => return Refusal::Close("refused, and the API has no error answer"),
            Refuse::Top => set_role(&mut response, Role::ErrorCode, Node::Int(code.into())),
            Refuse::Each(from, to) => self.mirror_all(&mut response, from, to, code),
            Refuse::TopAndEach(from, to) => {
                set_role(&mut response, Role::ErrorCode, Node::Int(code.into()));
                self.mirror_all(&mut response, from, to, code);
            }
            Refuse::Own(own) => response = own(self, code),
        }
        Refusal::Answer(response)
    }

    fn mirror_all(
        &self,
        response: &mut StructNode,
        from: &'static str,
        to: &'static str,
        code: i16,
    ) {
        let model = response.element(to);
        let elements = self.request.structs(from).iter();
        let elements = elements
            .filter(|e| is_answered(self.api.key, e, self.version))
            .map(|e| mirror(e, &model, self.version, code))
            .collect();
        *response.structs_mut(to) = elements;
    }
}

/// Puts what was decided here into the answer of the broker.
pub fn merge(key: i16, response: &mut StructNode, refused: Vec<(&'static str, StructNode)>) {
    // An error about the group or the session leaves no topic in the answer.
    if SILENT_ON_ERROR.contains(&key) && response.int("ErrorCode") != 0 {
        return;
    }
    if key == super::PRODUCE {
        return produce::merge(response, refused);
    }
    let mut into_groups = Vec::new();
    for (array, element) in refused {
        match array {
            groups::MERGE_INTO_GROUP => into_groups.push(element),
            _ => response.structs_mut(array).push(element),
        }
    }
    if !into_groups.is_empty() {
        groups::merge_into_groups(response, &into_groups);
    }
}

/// APIs that answer an error of their own without topics: OffsetDelete, ShareFetch,
/// ShareAcknowledge, AlterShareGroupOffsets, DeleteShareGroupOffsets.
const SILENT_ON_ERROR: [i16; 5] = [47, 78, 79, 91, 92];

/// The topic that an element names, by id where its version has ids.
pub fn topic_of(
    element: &StructNode,
    version: i16,
    guard: &mut dyn Guard,
) -> Option<std::sync::Arc<str>> {
    if let Some(Node::Uuid(id)) = role_node(element, Role::TopicId, version) {
        return guard.topic_name(id);
    }
    let name = role_node(element, Role::TopicName, version).and_then(Node::text);
    Some(name.unwrap_or_default().into())
}

/// The value of the first field with that role in that version.
pub fn role_node(element: &StructNode, role: Role, version: i16) -> Option<&Node> {
    element.at(role_index(element.layout(), role, version)?)
}

fn role_index(layout: &Struct, role: Role, version: i16) -> Option<usize> {
    layout
        .fields
        .iter()
        .position(|f| f.role == role && f.versions.contains(version))
}

/// Sets the first field with that role, in whichever version it is.
pub fn set_role(element: &mut StructNode, role: Role, value: Node) {
    let index = element.layout().fields.iter().position(|f| f.role == role);
    if let Some(node) = index.and_then(|i| element.at_mut(i)) {
        *node = value;
    }
}

/// Sets the first field with that role in that version.
pub fn set_role_at(element: &mut StructNode, role: Role, version: i16, value: Node) {
    let index = role_index(element.layout(), role, version);
    if let Some(node) = index.and_then(|i| element.at_mut(i)) {
        *node = value;
    }
}

/// Roles that say which entity an element is about.
const ENTITY_ROLES: [Role; 8] = [
    Role::TopicName,
    Role::TopicId,
    Role::Partition,
    Role::GroupId,
    Role::TransactionalId,
    Role::ResourceType,
    Role::ResourceName,
    Role::UserName,
];

/// An answer's element about the same entity as a request's element, with an error: on its
/// partitions where it has such, on itself otherwise.
pub fn mirror(from: &StructNode, model: &StructNode, version: i16, code: i16) -> StructNode {
    let mut element = model.clone();
    for role in ENTITY_ROLES {
        if let Some(node) = role_node(from, role, version) {
            let target = role_index(element.layout(), role, version);
            if let Some(slot) = target.and_then(|i| element.at_mut(i))
                && is_list(slot) == is_list(node)
            {
                *slot = node.clone();
            }
        }
    }
    set_role(&mut element, Role::ErrorCode, Node::Int(code.into()));
    let inner = element.layout().fields.iter().find(|f| {
        f.versions.contains(version)
            && f.nested().is_some_and(|n| {
                role_index(n, Role::Partition, version).is_some()
                    && role_index(n, Role::ErrorCode, version).is_some()
            })
    });
    if let Some(field) = inner {
        let model = element.element(&field.name);
        let partitions = partitions_of(from, version).into_iter().map(|partition| {
            let mut answer = model.clone();
            set_role(&mut answer, Role::Partition, Node::Int(partition.into()));
            set_role(&mut answer, Role::ErrorCode, Node::Int(code.into()));
            answer
        });
        *element.structs_mut(&field.name) = partitions.collect();
    }
    element
}

fn is_list(node: &Node) -> bool {
    matches!(node, Node::Array(_) | Node::Packed(_))
}

/// The partition numbers below a request's topic element.
pub fn partitions_of(topic: &StructNode, version: i16) -> Vec<i32> {
    let mut found = Vec::new();
    for (index, field) in topic.layout().fields.iter().enumerate() {
        if !field.versions.contains(version) {
            continue;
        }
        match topic.at(index) {
            Some(Node::Structs(Some(elements))) => {
                for element in elements {
                    if let Some(Node::Int(n)) = role_node(element, Role::Partition, version) {
                        found.push(*n as i32);
                    }
                }
            }
            Some(Node::Packed(bytes)) if field.role == Role::Partition => {
                found.extend(
                    bytes
                        .chunks_exact(4)
                        .filter_map(|c| Some(i32::from_be_bytes(*c.first_chunk()?))),
                );
            }
            _ => {}
        }
    }
    found
}

/// The bit field of Kafka's authorised operations: bit n stands for the operation with code n.
pub fn authorized_operations(guard: &mut dyn Guard, kind: ResourceKind, name: &str) -> i64 {
    use Operation as O;
    let candidates: &[Operation] = match kind {
        ResourceKind::Topic => &[
            O::Read,
            O::Write,
            O::Create,
            O::Describe,
            O::Delete,
            O::Alter,
            O::DescribeConfigs,
            O::AlterConfigs,
        ],
        ResourceKind::Group => &[
            O::Read,
            O::Describe,
            O::Delete,
            O::DescribeConfigs,
            O::AlterConfigs,
        ],
        ResourceKind::Cluster => &[
            O::Create,
            O::ClusterAction,
            O::DescribeConfigs,
            O::AlterConfigs,
            O::IdempotentWrite,
            O::Alter,
            O::Describe,
        ],
        _ => &[],
    };
    let allowed = candidates.iter().filter(|o| guard.sees(**o, kind, name));
    allowed.fold(0, |bits, o| bits | 1 << (*o as u8))
}

/// What a bit field holds when it was not asked for.
pub const OPERATIONS_NOT_REQUESTED: i64 = i32::MIN as i64;

/// Computes the authorised operations of an answer anew, for the client and not for the proxy.
pub fn recompute_operations(element: &mut StructNode, version: i16, guard: &mut dyn Guard) {
    let layout = element.layout();
    if let Some(index) = role_index(layout, Role::AuthorizedOperations, version) {
        let requested = !matches!(element.at(index), Some(Node::Int(OPERATIONS_NOT_REQUESTED)));
        if requested {
            let (kind, name) = kind_of(element, version);
            let bits = match kind {
                // A broker answers 0 to who may not describe the cluster.
                ResourceKind::Cluster if !guard.sees(Operation::Describe, kind, &name) => 0,
                _ => authorized_operations(guard, kind, &name),
            };
            if let Some(slot) = element.at_mut(index) {
                *slot = Node::Int(bits);
            }
        }
    }
    for (index, field) in layout.fields.iter().enumerate() {
        if field.nested().is_none() {
            continue;
        }
        match element.at_mut(index) {
            Some(Node::Structs(Some(elements))) => {
                elements
                    .iter_mut()
                    .for_each(|e| recompute_operations(e, version, guard));
            }
            Some(Node::Struct(Some(nested))) => recompute_operations(nested, version, guard),
            _ => {}
        }
    }
}

fn kind_of(element: &StructNode, version: i16) -> (ResourceKind, String) {
    let text = |role| {
        role_node(element, role, version)
            .and_then(Node::text)
            .map(str::to_owned)
    };
    if let Some(name) = text(Role::TopicName) {
        return (ResourceKind::Topic, name);
    }
    match text(Role::GroupId) {
        Some(name) => (ResourceKind::Group, name),
        None => (ResourceKind::Cluster, CLUSTER_NAME.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apis::InForce;
    use crate::apis::{Access, layout, lookup};
    use crate::topic_rules::Change;

    /// Allows everything on groups and nothing else.
    struct GroupsOnly;

    impl Guard for GroupsOnly {
        fn allows(&mut self, _: Operation, kind: ResourceKind, _: &str) -> bool {
            kind == ResourceKind::Group
        }

        fn sees(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
            false
        }

        fn allows_any(&mut self, _: Operation, _: ResourceKind) -> bool {
            false
        }

        fn allows_all(&mut self, _: Operation, _: ResourceKind) -> bool {
            false
        }

        fn within(&mut self, _: ResourceKind, _: Option<&str>) -> bool {
            true
        }

        fn partitions(&mut self, _: &str) -> usize {
            0
        }

        fn topics(&mut self) -> Option<Vec<String>> {
            None
        }

        fn topic_name(&mut self, _: &[u8; 16]) -> Option<std::sync::Arc<str>> {
            None
        }

        fn objection(&mut self, _: &str, _: &Change<'_>) -> Option<String> {
            None
        }

        fn makes_topics(&mut self) -> bool {
            true
        }

        fn may_appear(&mut self, _: &str) -> bool {
            true
        }

        fn rules(&self) -> Option<InForce<'_>> {
            None
        }
    }

    #[test]
    fn an_empty_name_is_a_name_that_must_be_allowed() {
        for key in [68, 76] {
            let api = lookup(key).unwrap();
            let mut request = StructNode::new(&layout(key).unwrap().request.body);
            let empty = Node::Bytes(Some(Vec::new().into()));
            request.set("SubscribedTopicNames", Node::Array(Some(vec![empty])));
            request.set_text("MemberId", Some("member"));
            let mut guard = GroupsOnly;
            let version = api.versions.max;
            let mut question = Question::new(api, version, &mut request, &mut guard);
            let Access::Named(judge) = api.access else {
                panic!("{}: no judge", api.name)
            };
            assert!(judge(&mut question).is_err(), "{}", api.name);
        }
    }

    #[test]
    fn an_error_about_a_share_group_stands_before_refused_topics() {
        for key in [91, 92] {
            let api = lookup(key).unwrap();
            let layout = layout(key).unwrap();
            let mut request = StructNode::new(&layout.request.body);
            let mut topic = request.element("Topics");
            topic.set_text("TopicName", Some("secret"));
            if topic.has("Partitions") {
                let partition = topic.element("Partitions");
                topic.structs_mut("Partitions").push(partition);
            }
            request.structs_mut("Topics").push(topic);
            let mut guard = GroupsOnly;
            let mut question = Question::new(api, 0, &mut request, &mut guard);
            let Access::Named(judge) = api.access else {
                panic!("{}: no judge", api.name)
            };
            // No topic is left, and yet the broker is asked: it may not know the group.
            assert!(judge(&mut question).is_ok(), "{}", api.name);
            let refused = std::mem::take(&mut question.refused);
            assert_eq!(refused.len(), 1, "{}", api.name);
            for (code, topics) in [(69, 0), (0, 1)] {
                let mut response = StructNode::new(&layout.response.body);
                response.set_int("ErrorCode", code);
                merge(key, &mut response, refused.clone());
                assert_eq!(response.structs("Responses").len(), topics, "{}", api.name);
            }
        }
    }
}
