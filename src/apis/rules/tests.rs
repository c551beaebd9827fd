//! What each API that makes or changes topics tells the rules, and what becomes of it.

use super::*;
use crate::apis::{Access, Guard, lens, lookup};
use crate::policy::model::{Operation, ResourceKind};
use crate::problem::Problems;
use crate::topic_rules::{Defaults, TopicRules};

const CREATE_TOPICS: i16 = 19;
const CREATE_PARTITIONS: i16 = 37;
const INCREMENTAL: i16 = 44;
const REASSIGN: i16 = 45;
const STREAMS: i16 = 88;

/// Allows everything but what the rules object to.
struct House {
    rules: TopicRules,
    asked: Vec<(Operation, String)>,
}

impl Guard for House {
    fn allows(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        true
    }
    fn sees(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        true
    }
    fn allows_any(&mut self, _: Operation, _: ResourceKind) -> bool {
        true
    }
    fn allows_all(&mut self, _: Operation, _: ResourceKind) -> bool {
        true
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
    fn objection(&mut self, topic: &str, change: &Change<'_>) -> Option<String> {
        self.asked.push((change.operation, topic.to_owned()));
        let defaults = Defaults {
            partitions: 1,
            replication_factor: 1,
        };
        let objection = self.rules.object(topic, change, &mut || Some(defaults))?;
        Some(objection.message)
    }
    fn makes_topics(&mut self) -> bool {
        true
    }

    fn may_appear(&mut self, _: &str) -> bool {
        true
    }
    fn rules(&self) -> Option<crate::apis::InForce<'_>> {
        None
    }
}

/// What became of a request.
struct Judged {
    request: StructNode,
    /// The answer as the client gets it, with nothing of the broker's in it.
    answer: StructNode,
    /// Whether anything goes on to the broker.
    goes_on: bool,
    asked: Vec<(Operation, String)>,
}

fn judge(rules: &str, key: i16, mut request: StructNode) -> Judged {
    let mut problems = Problems::default();
    let text = format!("{{topics: [\"t.*\"], create: {rules}}}");
    let document = crate::document::parse(&"p".into(), &text, &mut problems);
    let policy = crate::topic_rules::parse::topic_policy("p", &document[0], &mut problems);
    let mut house = House {
        rules: TopicRules::new(vec![policy.unwrap()]),
        asked: Vec::new(),
    };
    let api = lookup(key).unwrap();
    let version = api.versions.max;
    let mut question = Question::new(api, version, &mut request, &mut house);
    let Access::Named(judge) = api.access else {
        panic!("{} judges nothing", api.name);
    };
    let verdict = judge(&mut question);
    let (goes_on, answer) = match verdict {
        Ok(()) => {
            let mut answer = question.empty_response();
            lens::merge(key, &mut answer, std::mem::take(&mut question.refused));
            (true, answer)
        }
        Err(Refusal::Answer(answer)) => (false, answer),
        Err(other) => panic!("{other:?}"),
    };
    Judged {
        request,
        answer,
        goes_on,
        asked: house.asked,
    }
}

fn empty(key: i16) -> StructNode {
    let layout = crate::apis::layout(key).unwrap();
    StructNode::new(&layout.request.body)
}

/// Adds an element to an array.
fn push(to: &mut StructNode, array: &str, fill: impl FnOnce(&mut StructNode)) {
    let mut element = to.element(array);
    fill(&mut element);
    to.structs_mut(array).push(element);
}

fn brokers(count: usize) -> Node {
    Node::Packed(vec![0; 4 * count].into())
}

/// A CreateTopics element.
fn topic(request: &mut StructNode, name: &str, partitions: i64, replicas: i64) {
    push(request, "Topics", |topic| {
        topic
            .set_text("Name", Some(name))
            .set_int("NumPartitions", partitions)
            .set_int("ReplicationFactor", replicas);
    });
}

/// Names and codes of an answer's array.
fn codes(answer: &StructNode, array: &str, name: &str) -> Vec<(String, i64)> {
    let elements = answer.structs(array).iter();
    elements
        .map(|e| (e.text(name).unwrap().to_owned(), e.int("ErrorCode")))
        .collect()
}

fn names(request: &StructNode, array: &str, name: &str) -> Vec<String> {
    let elements = request.structs(array).iter();
    elements.map(|e| e.text(name).unwrap().to_owned()).collect()
}

#[test]
fn topics_are_made_but_for_those_that_break_a_rule() {
    let mut request = empty(CREATE_TOPICS);
    topic(&mut request, "t.good", 6, 3);
    topic(&mut request, "t.bad", 5, 3);
    topic(&mut request, "t.default", -1, -1);
    topic(&mut request, "other", 1, 1);
    let judged = judge(
        "{partitions: 6, replicationFactor: 3}",
        CREATE_TOPICS,
        request,
    );
    assert!(judged.goes_on);
    assert_eq!(
        names(&judged.request, "Topics", "Name"),
        ["t.good", "other"]
    );
    let told = codes(&judged.answer, "Topics", "Name");
    assert_eq!(
        told,
        [("t.bad".to_owned(), 44), ("t.default".to_owned(), 44)]
    );
    let each = judged.answer.structs("Topics");
    let message = each[0].text("ErrorMessage").unwrap();
    assert_eq!(message, "policy `p`, create.partitions: expected 6, got 5");
    assert!(
        each[1]
            .text("ErrorMessage")
            .unwrap()
            .contains("the cluster's default is 1")
    );
    assert_eq!(judged.asked[0], (Operation::Create, "t.good".to_owned()));
}

#[test]
fn replicas_that_are_assigned_by_hand_count() {
    for (partitions, replicas, good) in [(2, 3, true), (3, 3, false), (2, 2, false)] {
        let mut request = empty(CREATE_TOPICS);
        topic(&mut request, "t.a", -1, -1);
        for index in 0..partitions {
            push(
                &mut request.structs_mut("Topics")[0],
                "Assignments",
                |one| {
                    one.set_int("PartitionIndex", index);
                    one.set("BrokerIds", brokers(replicas));
                },
            );
        }
        let judged = judge(
            "{partitions: 2, replicationFactor: 3}",
            CREATE_TOPICS,
            request,
        );
        assert_eq!(judged.goes_on, good, "{partitions} {replicas}");
    }
}

#[test]
fn a_name_that_stands_twice_goes_out_whole() {
    let mut request = empty(CREATE_TOPICS);
    topic(&mut request, "t.a", 6, 3);
    topic(&mut request, "t.a", 5, 3);
    let judged = judge("{partitions: 6}", CREATE_TOPICS, request);
    assert!(!judged.goes_on);
    assert_eq!(codes(&judged.answer, "Topics", "Name").len(), 2);
}

#[test]
fn partitions_are_added_up_to_what_a_rule_allows() {
    let mut request = empty(CREATE_PARTITIONS);
    for (name, count) in [("t.good", 6), ("t.bad", 7)] {
        push(&mut request, "Topics", |topic| {
            topic.set_text("Name", Some(name)).set_int("Count", count);
        });
    }
    // The rule about names is about topics that are made.
    let judged = judge("{partitions: ..6, name: none}", CREATE_PARTITIONS, request);
    assert_eq!(names(&judged.request, "Topics", "Name"), ["t.good"]);
    assert_eq!(
        codes(&judged.answer, "Results", "Name"),
        [("t.bad".to_owned(), 44)]
    );
    let message = judged.answer.structs("Results")[0].text("ErrorMessage");
    assert_eq!(
        message,
        Some("policy `p`, create.partitions: expected ..6, got 7")
    );
    assert_eq!(judged.asked[0].0, Operation::Alter);
}

/// A resource of AlterConfigs or IncrementalAlterConfigs with one configuration.
fn resource(request: &mut StructNode, kind: i64, name: &str, op: i64, value: Option<&str>) {
    push(request, "Resources", |resource| {
        resource
            .set_int("ResourceType", kind)
            .set_text("ResourceName", Some(name));
        push(resource, "Configs", |config| {
            config
                .set_text("Name", Some("cleanup.policy"))
                .set_text("Value", value);
            if config.has("ConfigOperation") {
                config.set_int("ConfigOperation", op);
            }
        });
    });
}

const DELETED: &str = "{configs: {cleanup.policy: delete}}";

#[test]
fn configurations_are_set_to_what_a_rule_allows() {
    for key in [ALTER_CONFIGS, INCREMENTAL] {
        let mut request = empty(key);
        resource(&mut request, TOPIC, "t.good", SET, Some("delete"));
        resource(&mut request, TOPIC, "t.bad", SET, Some("compact"));
        resource(&mut request, TOPIC, "t.null", SET, None);
        // Groups and others may be called so too.
        resource(&mut request, 32, "t.group", SET, Some("compact"));
        let judged = judge(DELETED, key, request);
        let left = names(&judged.request, "Resources", "ResourceName");
        assert_eq!(left, ["t.good", "t.null", "t.group"], "{key}");
        let told = codes(&judged.answer, "Responses", "ResourceName");
        assert_eq!(told, [("t.bad".to_owned(), 44)], "{key}");
        let answer = &judged.answer.structs("Responses")[0];
        assert_eq!(answer.int("ResourceType"), TOPIC);
        let message = "policy `p`, create.configs.cleanup.policy: expected `delete`, got `compact`";
        assert_eq!(answer.text("ErrorMessage"), Some(message));
        assert_eq!(judged.asked[0].0, Operation::AlterConfigs);
    }
}

#[test]
fn a_configuration_may_go_back_to_the_clusters_default_and_lists_are_not_taken_apart() {
    const DELETE: i64 = 1;
    for (op, value, good) in [
        (DELETE, None, true),
        (APPEND, Some("delete"), true),
        (APPEND, Some("compact"), false),
        (SUBTRACT, Some("delete"), false),
    ] {
        let mut request = empty(INCREMENTAL);
        resource(&mut request, TOPIC, "t.a", op, value);
        assert_eq!(
            judge(DELETED, INCREMENTAL, request).goes_on,
            good,
            "{op} {value:?}"
        );
    }
}

#[test]
fn reassignments_keep_the_number_of_replicas() {
    let mut request = empty(REASSIGN);
    for (name, replicas) in [
        ("t.good", [Some(3), None]),
        ("t.bad", [Some(3), Some(1)]),
        ("other", [Some(1), None]),
    ] {
        push(&mut request, "Topics", |topic| {
            topic.set_text("Name", Some(name));
            for (index, count) in replicas.into_iter().enumerate() {
                push(topic, "Partitions", |partition| {
                    partition.set_int("PartitionIndex", index as i64);
                    if let Some(count) = count {
                        partition.set("Replicas", brokers(count));
                    }
                });
            }
        });
    }
    let judged = judge("{replicationFactor: 3}", REASSIGN, request);
    assert_eq!(
        names(&judged.request, "Topics", "Name"),
        ["t.good", "other"]
    );
    let told = &judged.answer.structs("Responses")[0];
    assert_eq!(told.text("Name"), Some("t.bad"));
    let partitions = told.structs("Partitions");
    assert_eq!(partitions.len(), 2);
    for partition in partitions {
        assert_eq!(partition.int("ErrorCode"), 44);
        let message = "policy `p`, create.replicationFactor: expected 3, got 1";
        assert_eq!(partition.text("ErrorMessage"), Some(message));
    }
}

#[test]
fn topics_of_a_streams_topology_are_judged_as_if_they_were_made() {
    for (name, replicas, value, good) in [
        ("t.ok", 3, "delete", true),
        ("t.KSTREAM", 3, "delete", false),
        ("t.ok", 2, "delete", false),
        ("t.ok", 3, "compact", false),
        // The cluster's default is 1.
        ("t.ok", 0, "delete", false),
    ] {
        let mut request = empty(STREAMS);
        let mut topology = request.element("Topology");
        push(&mut topology, "Subtopologies", |part| {
            push(part, "StateChangelogTopics", |topic| {
                topic
                    .set_text("Name", Some(name))
                    .set_int("ReplicationFactor", replicas);
                push(topic, "TopicConfigs", |config| {
                    config
                        .set_text("Key", Some("cleanup.policy"))
                        .set_text("Value", Some(value));
                });
            });
        });
        request.set("Topology", Node::Struct(Some(Box::new(topology))));
        let rules = "{name: '[a-z.]+', replicationFactor: 3, partitions: 6, configs: \
            {cleanup.policy: delete}}";
        let judged = judge(rules, STREAMS, request);
        assert_eq!(judged.goes_on, good, "{name} {replicas} {value}");
        if !good {
            assert_eq!(judged.answer.int("ErrorCode"), 44);
            let message = judged.answer.text("ErrorMessage").unwrap();
            assert!(message.starts_with("policy `p`, create."), "{message}");
        }
    }
}
