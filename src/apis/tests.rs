//! Where a broker looks at a request before it asks for permission, and what stands in its answer
//! to one that it refuses.

use super::lens::merge;
use super::*;
use crate::policy::model::ResourceKind;
use crate::topic_rules::Change;
use crate::wire::tree::Node;
use bytes::Bytes;

/// Allows everything on these names, and on groups if `GROUPS` stands first; shows names that begin
/// with `seen.`, and topics that end with `.gone` are not there.
struct Only(&'static [&'static str]);

const GROUPS: &str = "groups";

impl Guard for Only {
    fn allows(&mut self, _: Operation, kind: ResourceKind, name: &str) -> bool {
        match kind {
            ResourceKind::Group => self.0.first() == Some(&GROUPS),
            _ => self.0.contains(&name),
        }
    }

    fn sees(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool {
        let seen = self.allows(operation, kind, name) || name.starts_with("seen.");
        operation != Operation::Create && seen
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

    fn topic_name(&mut self, _: &[u8; 16]) -> Option<std::sync::Arc<str>> {
        None
    }

    fn partitions(&mut self, name: &str) -> usize {
        usize::from(!name.ends_with(".gone"))
    }

    fn topics(&mut self) -> Option<Vec<String>> {
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

fn request(key: i16) -> StructNode {
    StructNode::new(&layout(key).unwrap().request.body)
}

/// What is answered here, by a broker that has nothing to add.
fn answer(version: i16, request: &mut StructNode, mut guard: Only, key: i16) -> StructNode {
    let api = lookup(key).unwrap();
    let mut question = Question::new(api, version, request, &mut guard);
    let Access::Named(judge) = api.access else {
        panic!("{}: no judge", api.name)
    };
    match judge(&mut question) {
        Err(Refusal::Answer(response) | Refusal::Served(response)) => response,
        Err(Refusal::Close(why)) => panic!("closed: {why}"),
        Ok(()) => {
            let refused = std::mem::take(&mut question.refused);
            let mut response = question.empty_response();
            merge(key, &mut response, refused);
            response
        }
    }
}

fn named(request: &StructNode, array: &str, field: &str, names: &[&str]) -> Node {
    let elements = names.iter().map(|name| {
        let mut element = request.element(array);
        element.set_text(field, Some(name));
        element
    });
    Node::Structs(Some(elements.collect()))
}

fn text(text: &str) -> Node {
    Node::Bytes(Some(Bytes::copy_from_slice(text.as_bytes())))
}

fn codes(response: &StructNode, array: &str) -> Vec<i64> {
    let elements = response.structs(array).iter();
    elements.map(|e| e.int("ErrorCode")).collect()
}

#[test]
fn settings_without_a_value_or_named_twice_make_no_sense_to_anybody() {
    const SET: i64 = 0;
    const DELETE: i64 = 1;
    let refused = |key, settings: &[(&str, i64, Option<&str>)]| {
        let mut request = request(key);
        let mut resource = request.element("Resources");
        resource.set_int("ResourceType", configs::TOPIC);
        for (name, operation, value) in settings {
            let mut config = resource.element("Configs");
            config
                .set_text("Name", Some(name))
                .set_text("Value", *value);
            if key == 44 {
                config.set_int("ConfigOperation", *operation);
            }
            resource.structs_mut("Configs").push(config);
        }
        request.structs_mut("Resources").push(resource);
        codes(&answer(1, &mut request, Only(&[]), key), "Responses")
    };
    for key in [33, 44] {
        assert_eq!(refused(key, &[("a", SET, Some("1"))]), [29]);
        assert_eq!(refused(key, &[("a", SET, None)]), [42]);
        let twice = [("a", SET, Some("1")), ("a", SET, Some("2"))];
        assert_eq!(refused(key, &twice), [42]);
    }
    assert_eq!(refused(44, &[("a", DELETE, None)]), [29]);
}

#[test]
fn one_resource_of_an_unknown_type_refuses_the_whole_description() {
    let mut request = request(32);
    for kind in [configs::TOPIC, 77] {
        let mut resource = request.element("Resources");
        resource.set_int("ResourceType", kind);
        request.structs_mut("Resources").push(resource);
    }
    let response = answer(4, &mut request, Only(&[]), 32);
    assert_eq!(codes(&response, "Results"), [42, 42]);
}

#[test]
fn names_that_no_topic_has_are_told_before_permission() {
    let mut producers = request(61);
    let names = named(&producers, "Topics", "Name", &["", "a b", ".", "good"]);
    producers.set("Topics", names);
    for topic in producers.structs_mut("Topics") {
        topic.set(
            "PartitionIndexes",
            Node::Packed(Bytes::from_static(&[0; 4])),
        );
    }
    let response = answer(0, &mut producers, Only(&[]), 61);
    let topics = response.structs("Topics").iter();
    let found: Vec<_> = topics.flat_map(|t| codes(t, "Partitions")).collect();
    assert_eq!(found, [17, 17, 17, 29]);
    for (name, code) in [("a b", 130), ("__consumer_offsets", 130), ("good", 29)] {
        let mut streams = request(88);
        let mut topology = StructNode::new(
            (streams.layout().fields.iter())
                .find(|f| *f.name == *"Topology")
                .and_then(crate::wire::layout::Field::nested)
                .unwrap(),
        );
        let mut part = topology.element("Subtopologies");
        part.array_mut("SourceTopics").push(text(name));
        topology.structs_mut("Subtopologies").push(part);
        streams.set("Topology", Node::Struct(Some(Box::new(topology))));
        let response = answer(0, &mut streams, Only(&[GROUPS]), 88);
        assert_eq!(response.int("ErrorCode"), code, "{name}");
    }
}

#[test]
fn a_group_is_asked_about_once_the_request_makes_sense() {
    let code = |key, version, request: &mut StructNode, guard| {
        answer(version, request, guard, key).int("ErrorCode")
    };
    // By which protocol its members have agreed, must be said from version 5 on.
    for (version, expected) in [(4, 30), (5, 23)] {
        assert_eq!(code(14, version, &mut request(14), Only(&[])), expected);
    }
    for key in [78, 79] {
        let group = |id, member: &str| {
            let mut request = request(key);
            request
                .set_text("GroupId", id)
                .set_text("MemberId", Some(member));
            request
        };
        assert_eq!(code(key, 2, &mut group(None, "m"), Only(&[])), 42);
        assert_eq!(code(key, 2, &mut group(Some("g"), ""), Only(&[])), 30);
        assert_eq!(code(key, 2, &mut group(Some("g"), ""), Only(&[GROUPS])), 42);
        assert_eq!(code(key, 2, &mut group(Some("g"), "m"), Only(&[GROUPS])), 0);
        let mut renews = group(Some("g"), "m");
        renews.set_int("IsRenewAck", 1);
        // Only a fetch can bring records, and the default of `MaxBytes` says that it does.
        let expected = if key == 78 { 42 } else { 0 };
        assert_eq!(code(key, 2, &mut renews, Only(&[GROUPS])), expected);
    }
    let mut first = request(78);
    first
        .set_text("GroupId", Some("g"))
        .set_text("MemberId", Some("m"));
    let mut topic = first.element("Topics");
    let mut partition = topic.element("Partitions");
    let batch = partition.element("AcknowledgementBatches");
    partition.structs_mut("AcknowledgementBatches").push(batch);
    topic.structs_mut("Partitions").push(partition);
    first.structs_mut("Topics").push(topic);
    assert_eq!(code(78, 1, &mut first, Only(&[GROUPS])), 42);
    first.set_int("ShareSessionEpoch", 1);
    assert_eq!(code(78, 1, &mut first, Only(&[GROUPS])), 0);
    let mut heartbeat = request(76);
    heartbeat.set("SubscribedTopicNames", Node::Array(Some(vec![text("t")])));
    for (member, expected) in [("", 42), ("m", 29), (&*"m".repeat(37), 42)] {
        heartbeat.set_text("MemberId", Some(member));
        assert_eq!(code(76, 1, &mut heartbeat, Only(&[GROUPS])), expected);
    }
}

#[test]
fn a_topic_that_is_named_in_no_way_answers_for_all() {
    for (version, code) in [(10, 42), (12, -1)] {
        let mut metadata = request(3);
        let mut topics = named(&metadata, "Topics", "Name", &["mine", "secret"]);
        if let Node::Structs(Some(topics)) = &mut topics {
            let mut nameless = metadata.element("Topics");
            nameless.set_text("Name", None);
            topics.push(nameless);
        }
        metadata.set("Topics", topics);
        let response = answer(version, &mut metadata, Only(&["mine"]), 3);
        assert_eq!(
            codes(&response, "Topics"),
            [code, code],
            "version {version}"
        );
        assert_eq!(
            metadata.structs("Topics").len(),
            1,
            "the broker tells the rest"
        );
    }
}

#[test]
fn what_is_not_there_and_may_not_be_created_is_refused_behind_the_answer() {
    let mut response = StructNode::new(&layout(3).unwrap().response.body);
    for (name, code) in [("there", 0), ("absent", 3), ("a b", 17), ("mine", 3)] {
        let mut topic = response.element("Topics");
        topic
            .set_text("Name", Some(name))
            .set_int("ErrorCode", code);
        response.structs_mut("Topics").push(topic);
    }
    assert!(refuse_creation(&mut response, &mut Only(&["mine"])));
    assert_eq!(codes(&response, "Topics"), [0, 29, 29, 3]);
}

#[test]
fn a_page_begins_at_a_topic_that_is_named_and_goes_on_behind_a_refused_one() {
    let page = |at: &str, partition| {
        let mut request = request(75);
        let names = named(&request, "Topics", "Name", &["a", "b", "c"]);
        request.set("Topics", names);
        let mut cursor = request.element("Cursor");
        cursor
            .set_text("TopicName", Some(at))
            .set_int("PartitionIndex", partition);
        request.set("Cursor", Node::Struct(Some(Box::new(cursor))));
        let response = answer(0, &mut request, Only(&["a", "c"]), 75);
        let asked = request.structs("Topics").iter();
        let asked: Vec<String> = asked
            .filter_map(|t| t.text("Name").map(str::to_owned))
            .collect();
        (codes(&response, "Topics"), asked, request.is_null("Cursor"))
    };
    for (at, partition) in [("aa", 0), ("a", -1)] {
        assert_eq!(page(at, partition).0, [42, 42, 42], "{at} {partition}");
    }
    assert_eq!(page("b", 1), (vec![29], vec!["c".to_owned()], true));
    assert_eq!(page("c", 1), (vec![], vec!["c".to_owned()], false));
}

#[test]
fn a_topic_of_which_nothing_is_asked_is_in_no_answer_by_partition() {
    for (key, topics, answers) in [(1, "Topics", "Responses"), (21, "Topics", "Topics")] {
        let mut request = request(key);
        let mut empty = request.element(topics);
        let field = if key == 1 { "Topic" } else { "Name" };
        empty.set_text(field, Some("secret"));
        let mut one = empty.clone();
        one.set_text(field, Some("other"));
        let partition = one.element("Partitions");
        one.structs_mut("Partitions").push(partition);
        *request.structs_mut(topics) = vec![empty, one];
        let version = lookup(key).unwrap().versions.min;
        let response = answer(version, &mut request, Only(&[]), key);
        let told = response.structs(answers);
        assert_eq!(told.len(), 1, "key {key}");
        assert_eq!(told[0].text(field), Some("other"), "key {key}");
        assert!(request.structs(topics).is_empty(), "key {key}");
    }
}

#[test]
fn a_transaction_asks_for_no_right_on_a_topic_of_which_it_adds_nothing() {
    let mut request = request(24);
    request.set_text("V3AndBelowTransactionalId", Some("mine"));
    let names = named(&request, "V3AndBelowTopics", "Name", &["mine", "secret"]);
    request.set("V3AndBelowTopics", names);
    let partitions = Node::Packed(Bytes::from_static(&[0; 4]));
    let topics = request.structs_mut("V3AndBelowTopics");
    topics[0].set("Partitions", partitions.clone());
    let told = |request: &mut StructNode| {
        let response = answer(3, request, Only(&["mine"]), 24);
        response.structs("ResultsByTopicV3AndBelow").len()
    };
    assert_eq!(told(&mut request), 0, "it goes on");
    request.structs_mut("V3AndBelowTopics")[1].set("Partitions", partitions);
    assert_eq!(
        told(&mut request),
        2,
        "one is refused, the other not attempted"
    );
}

#[test]
fn who_may_describe_a_topic_is_told_that_it_is_not_there() {
    const NAMES: [&str; 3] = ["seen.there", "seen.gone", "hidden.gone"];
    let mut old = request(20);
    *old.array_mut("TopicNames") = NAMES.map(text).to_vec();
    let response = answer(5, &mut old, Only(&[]), 20);
    assert_eq!(codes(&response, "Responses"), [29, 3, 29]);
    let mut new = request(20);
    let names = named(&new, "Topics", "Name", &NAMES);
    new.set("Topics", names);
    let response = answer(6, &mut new, Only(&[]), 20);
    assert_eq!(codes(&response, "Responses"), [29, 3, 29]);
    let mut add = request(24);
    add.set_text("V3AndBelowTransactionalId", Some("mine"));
    let names = ["mine", "mine.gone", "secret", "__consumer_offsets"];
    let topics = named(&add, "V3AndBelowTopics", "Name", &names);
    add.set("V3AndBelowTopics", topics);
    for topic in add.structs_mut("V3AndBelowTopics") {
        topic.set("Partitions", Node::Packed(Bytes::from_static(&[0; 4])));
    }
    let guard = Only(&["mine", "mine.gone", "__consumer_offsets"]);
    let response = answer(3, &mut add, guard, 24);
    let topics = response.structs("ResultsByTopicV3AndBelow").iter();
    let partitions = topics.flat_map(|t| t.structs("ResultsByPartition"));
    let codes: Vec<i64> = partitions.map(|p| p.int("PartitionErrorCode")).collect();
    assert_eq!(codes, [55, 3, 29, 29]);
}
