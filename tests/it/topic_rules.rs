//! Rules of the house about topics and about what is written to them: whoever asks, by whichever
//! API, and on whichever way through the proxy.

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use kordon::demo::client::{self, Client, Message, NOT_IDEMPOTENT, topic_name};

use crate::passage::{SPLICED, on_the_way, unlike};
use crate::support::*;

pub const VIOLATION: i16 = 44;

/// The usual policy, one about topics that begin with `open.`, and operators who may make any.
pub fn policies(spec: &str) -> String {
    format!(
        "{POLICY}---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {{name: makers}}
spec:
  principals: [\"User:app\"]
  rules: [{{allow: [All], topics: [\"new.*\"]}}, {{allow: [All], cluster: true}}]
---
apiVersion: kordon/v1
kind: TopicPolicy
metadata: {{name: house}}
spec:
  topics: [\"open.*\", \"typed.*\", \"new.*\"]
  {spec}
"
    )
}

fn lab(spec: &str) -> Lab {
    Lab::ruled(&policies(spec))
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

pub fn with_config(topic: CreatableTopic, name: &str, value: &str) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(text(name))
        .with_value(Some(text(value)));
    topic.with_configs(vec![config])
}

/// Codes and messages by the topics' names, in the order of the answer's names.
pub async fn create(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<(String, i16, String)> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(5_000)
        .with_validate_only(validate_only);
    let answer = client.call(version, &request).await.unwrap();
    let mut told: Vec<_> = (answer.topics.iter())
        .map(|topic| {
            let message = topic.error_message.as_deref().unwrap_or_default();
            (topic.name.to_string(), topic.error_code, message.to_owned())
        })
        .collect();
    told.sort();
    told
}

const CREATE: &str = "create: {name: 'new\\.[a-z-]+', partitions: 2..4, replicationFactor: 1, \
    configs: {retention.ms: \"..1000\"}}";

#[tokio::test]
async fn topics_are_made_as_the_house_wants_them_at_every_version() {
    let lab = lab(CREATE);
    let mut client = lab.app().await;
    for version in 2..=7 {
        for validate_only in [true, false] {
            let good = format!(
                "new.{}",
                ["a", "b", "c", "d", "e", "f"][version as usize - 2]
            );
            let by_hand = topic("new.hand", -1, -1).with_assignments(vec![
                CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]),
            ]);
            let topics = vec![
                with_config(topic(&good, 2, 1), "retention.ms", "1000"),
                topic("new.Bad", 2, 1),
                topic("new.few", 1, 1),
                topic("new.many", 5, 1),
                topic("new.copies", 2, 2),
                with_config(topic("new.kept", 2, 1), "retention.ms", "-1"),
                by_hand,
            ];
            let told = create(&mut client, version, topics, validate_only).await;
            let codes: Vec<_> = told
                .iter()
                .map(|(name, code, _)| (&**name, *code))
                .collect();
            let mut expected = vec![
                ("new.Bad", 44),
                ("new.copies", 44),
                ("new.few", 44),
                ("new.hand", 44),
                ("new.kept", 44),
                ("new.many", 44),
                (&*good, 0),
            ];
            expected.sort_unstable();
            assert_eq!(codes, expected, "version {version}");
            let messages = told.iter().filter(|(_, code, _)| *code == VIOLATION);
            let messages: Vec<_> = messages.map(|(.., message)| &**message).collect();
            let expected = [
                "policy `house`, create.name: expected a name that matches `new\\.[a-z-]+`, got \
                 `new.Bad`",
                "policy `house`, create.replicationFactor: expected 1, got 2",
                "policy `house`, create.partitions: expected 2..4, got 1",
                "policy `house`, create.partitions: expected 2..4, got 1",
                "policy `house`, create.configs.retention.ms: expected ..1000, got `-1`",
                "policy `house`, create.partitions: expected 2..4, got 5",
            ];
            assert_eq!(messages, expected, "version {version}");
            let made = lab.broker().end_offset(&good, 0).is_some();
            assert_eq!(made, !validate_only);
        }
    }
    for name in [
        "new.Bad",
        "new.few",
        "new.many",
        "new.copies",
        "new.kept",
        "new.hand",
    ] {
        assert_eq!(lab.broker().end_offset(name, 0), None, "{name}");
    }
    let line = lab.audit(&[("reason", "topic_rules"), ("resource", "Topic:new.many")]);
    let rule = line["rule"].as_str().unwrap();
    assert!(rule.ends_with("base.yaml:22"), "{line}");
    for (field, value) in [
        ("api", "CreateTopics"),
        ("operation", "Create"),
        ("decision", "deny"),
        (
            "detail",
            "policy `house`, create.partitions: expected 2..4, got 5",
        ),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    let labels = ["CreateTopics", "reason=\"topic_rules\""];
    lab.metric_is("kordon_refusals_total", &labels, 6.0 * 12.0);
}

#[tokio::test]
async fn a_refusal_by_right_comes_before_one_by_rule() {
    let rule = policies(CREATE).replace("principals: [\"User:app\"]", "principals: [\"User:x\"]");
    let lab = Lab::ruled(&rule.replace(
        "typed.*\", \"new.*\"]",
        "typed.*\", \"new.*\", \"secret.*\"]",
    ));
    let topics = vec![topic("secret.new", 9, 9), topic("open.new", 9, 1)];
    let told = create(&mut lab.app().await, 5, topics, false).await;
    let codes: Vec<_> = told
        .iter()
        .map(|(name, code, _)| (&**name, *code))
        .collect();
    assert_eq!(codes, [("open.new", VIOLATION), ("secret.new", 29)]);
    assert_eq!(lab.broker().requests(19), 0);
    // On what is produced as well.
    let lab = Lab::ruled(&policies("produce: {acks: all}").replace("typed.*\", ", "secret.*\", "));
    let parts = [
        ("secret.a", 0, batch(&[b"x"])),
        ("open.a", 0, batch(&[b"x"])),
    ];
    let answer = lab.app().await.call(9, &produce(1, &parts)).await.unwrap();
    assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
    assert_eq!(part(&answer, "open.a", 0).error_code, VIOLATION);
}

#[tokio::test]
async fn rules_of_the_house_hold_for_everybody() {
    for more in [
        "authorization: off\n",
        "authorization: {superUsers: [\"User:other\"]}\n",
    ] {
        let lab = Lab::with(|setup| {
            setup.more = more.to_owned();
            setup.policy = policies(&format!("{CREATE}\n  produce: {{acks: all}}"));
        });
        let mut client = lab.client("other").await;
        let told = create(&mut client, 7, vec![topic("new.many", 5, 1)], false).await;
        assert_eq!(told[0].1, VIOLATION, "{more}");
        let records = batch(&[b"x"]);
        for (acks, code) in [(1, VIOLATION), (-1, 0)] {
            let request = produce(acks, &[("open.a", 0, records.clone())]);
            let answer = client.call(9, &request).await.unwrap();
            assert_eq!(part(&answer, "open.a", 0).error_code, code, "{more}");
        }
    }
}

#[tokio::test]
async fn a_number_that_is_left_to_the_cluster_is_asked_of_it_once() {
    for (partitions, code) in [("1..2", VIOLATION), ("3", 0)] {
        let lab = Lab::with(|setup| {
            setup.auto_create = Some(3);
            setup.policy = policies(&format!(
                "create: {{partitions: {partitions}, replicationFactor: 1}}"
            ));
        });
        let mut client = lab.app().await;
        for (at, name) in ["new.a", "new.b", "new.c"].into_iter().enumerate() {
            let told = create(&mut client, 5, vec![topic(name, -1, -1)], false).await;
            assert_eq!(told[0].1, code, "{told:?}");
            if code == VIOLATION {
                let says = "expected 1..2, got none, and the cluster's default is 3";
                assert!(told[0].2.ends_with(says), "{told:?}");
            }
            assert_eq!(lab.broker().requests(32), 1, "after {at}");
        }
        // Where everything is stated nobody needs to know.
        let told = create(&mut client, 5, vec![topic("new.d", 2, 1)], false).await;
        assert_eq!(told[0].1, if code == 0 { VIOLATION } else { 0 });
        assert_eq!(lab.broker().requests(32), 1);
    }
}

#[tokio::test]
async fn no_topic_comes_to_be_by_being_asked_for_where_a_rule_speaks_against_it() {
    let lab = Lab::with(|setup| {
        setup.auto_create = Some(3);
        setup.policy = policies("create: {name: 'new\\.[a-z0-9]+', partitions: 3}");
    });
    let mut client = lab.app().await;
    let ask = |names: &[&str]| {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let names = names.iter().map(topic).collect();
        MetadataRequest::default().with_topics(Some(names))
    };
    for version in 1..=13 {
        // `open.a` is there, though it could not be made now.
        let request = ask(&["new.Bad", "open.a"]);
        let answer = client.call(version, &request).await.unwrap();
        let mut codes: Vec<_> = (answer.topics.iter())
            .map(|t| (t.name.as_ref().unwrap().to_string(), t.error_code))
            .collect();
        codes.sort();
        let expected = [("new.Bad".to_owned(), 3), ("open.a".to_owned(), 0)];
        assert_eq!(codes, expected, "version {version}");
        assert_eq!(
            lab.broker().end_offset("new.Bad", 0),
            None,
            "version {version}"
        );
        let good = format!("new.v{version}");
        let answer = client.call(version, &ask(&[&good])).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 3, "version {version}");
        let answer = client.call(version, &ask(&[&good])).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 0, "version {version}");
        assert_eq!(answer.topics[0].partitions.len(), 3);
    }
    // It was refused each time that it was asked for, and nothing else was.
    let labels = ["api=\"Metadata\"", "reason=\"topic_rules\""];
    lab.metric_is("kordon_refusals_total", &labels, 13.0);
    lab.metric_is("kordon_requests_total", &["Metadata", "partial"], 13.0);
    let line = lab.audit(&[("decision", "deny"), ("resource", "Topic:new.Bad")]);
    for (field, value) in [
        ("api", "Metadata"),
        ("operation", "Create"),
        ("reason", "topic_rules"),
        ("principal", "User:app"),
        (
            "detail",
            "policy `house`, create.name: expected a name that matches `new\\.[a-z0-9]+`, got \
             `new.Bad`",
        ),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(
        line["rule"].as_str().unwrap().contains("base.yaml:"),
        "{line}"
    );
    // Who does not want it made is refused nothing.
    let request = ask(&["new.Bad"]).with_allow_auto_topic_creation(false);
    let answer = client.call(9, &request).await.unwrap();
    assert_eq!(answer.topics[0].error_code, 3);
    lab.metric_is("kordon_refusals_total", &labels, 13.0);
    // Three partitions each are not what the house wants.
    lab.reload(&policies("create: {partitions: 4..}"));
    let answer = client.call(9, &ask(&["new.late"])).await.unwrap();
    assert_eq!(answer.topics[0].error_code, 3);
    assert_eq!(lab.broker().end_offset("new.late", 0), None);
    lab.metric_is("kordon_refusals_total", &labels, 14.0);
}

#[tokio::test]
async fn where_the_cluster_makes_no_topics_no_rule_keeps_one_away() {
    for mode in ["", "mode: observe\n  "] {
        let lab = Lab::ruled(&policies(&format!("{mode}create: {{name: x}}")));
        let mut client = lab.app().await;
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name("new.Bad")));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let answer = client.call(9, &request).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 3);
        for metric in ["kordon_refusals_total", "kordon_would_deny_total"] {
            assert_eq!(lab.metric(metric, &[]), 0.0, "{mode}");
        }
    }
}

#[tokio::test]
async fn partitions_are_added_as_the_house_wants_them() {
    let lab = lab("create: {partitions: ..6}");
    let mut client = lab.app().await;
    for (version, validate_only) in [(0, true), (1, false), (2, false), (3, true)] {
        let topics = [("open.a", 7), ("open.b", 4 + i32::from(version))];
        let topics = topics.map(|(name, count)| {
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(count)
                .with_assignments(None)
        });
        let request = CreatePartitionsRequest::default()
            .with_topics(topics.to_vec())
            .with_timeout_ms(5_000)
            .with_validate_only(validate_only);
        let answer = client.call(version, &request).await.unwrap();
        let found = |name: &str| {
            let mut results = answer.results.iter();
            results.find(|result| *result.name == *name).unwrap()
        };
        assert_eq!(found("open.a").error_code, VIOLATION);
        let message = found("open.a").error_message.as_deref();
        assert_eq!(
            message,
            Some("policy `house`, create.partitions: expected ..6, got 7")
        );
        // Four there are already, and seven are too many.
        let expected = match version {
            0 => 37,
            3 => VIOLATION,
            _ => 0,
        };
        assert_eq!(found("open.b").error_code, expected, "version {version}");
    }
    assert_eq!(lab.broker().end_offset("open.b", 5), Some(0));
    assert_eq!(lab.broker().end_offset("open.a", 4), None);
    lab.audit(&[("api", "CreatePartitions"), ("operation", "Alter")]);
}

#[tokio::test]
async fn configurations_are_altered_as_the_house_wants_them() {
    let lab = lab("create: {configs: {retention.ms: \"..1000\"}}");
    let mut client = lab.app().await;
    let message = "policy `house`, create.configs.retention.ms: expected ..1000, got `1001`";
    let expected = (VIOLATION, "open.a", Some(message));
    for version in 0..=2 {
        let config = AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("1001")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("open.a"))
            .with_configs(vec![config]);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = client.call(version, &request).await.unwrap();
        let told = &answer.responses[0];
        let told = (
            told.error_code,
            &*told.resource_name,
            told.error_message.as_deref(),
        );
        assert_eq!(told, expected, "version {version}");
    }
    for version in 0..=1 {
        let config = incremental::AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_config_operation(0)
            .with_value(Some(text("1001")));
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("open.a"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = client.call(version, &request).await.unwrap();
        let told = &answer.responses[0];
        let told = (
            told.error_code,
            &*told.resource_name,
            told.error_message.as_deref(),
        );
        assert_eq!(told, expected, "version {version}");
    }
    lab.audit(&[("api", "AlterConfigs"), ("operation", "AlterConfigs")]);
    lab.audit(&[
        ("api", "IncrementalAlterConfigs"),
        ("reason", "topic_rules"),
    ]);
}

pub fn records(sizes: &[usize], codec: Compression, producer: client::Sequence) -> Bytes {
    let values: Vec<_> = sizes.iter().map(|bytes| vec![b'.'; *bytes]).collect();
    let messages: Vec<Message> = values.iter().map(|value| message(value)).collect();
    client::batch(&messages, codec, producer).unwrap()
}

/// The first sequence of a producer.
const IDEMPOTENT: client::Sequence = (1, 0, 0);

#[tokio::test]
async fn what_breaks_a_rule_is_refused_at_every_version_and_the_rest_is_written() {
    let lab = lab("produce: {acks: all, compression: [none]}");
    let mut client = lab.app().await;
    let good = batch(&[b"x"]);
    let packed = records(&[20], Compression::Gzip, NOT_IDEMPOTENT);
    for version in 3..=12 {
        let parts = [
            ("open.a", 0, good.clone()),
            ("open.a", 1, packed.clone()),
            ("typed.a", 2, packed.clone()),
            ("open.b", 0, good.clone()),
        ];
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        let codes = parts.each_ref().map(|(topic, index, _)| {
            let part = part(&answer, topic, *index);
            assert!(part.error_code == 0 || part.base_offset == -1);
            part.error_code
        });
        assert_eq!(codes, [0, VIOLATION, VIOLATION, 0], "version {version}");
        let told = part(&answer, "open.a", 1).error_message;
        let message = "policy `house`, produce.compression: expected `none`, got `gzip`";
        assert_eq!(told.as_deref(), (version >= 8).then_some(message));
        let answer = client.call(version, &produce(1, &parts)).await.unwrap();
        for (topic, index, _) in &parts {
            assert_eq!(part(&answer, topic, *index).error_code, VIOLATION);
        }
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(10));
    assert_eq!(lab.broker().end_offset("open.a", 1), Some(0));
    let line = lab.audit(&[("reason", "topic_rules"), ("resource", "Topic:typed.a")]);
    assert!(
        line["rule"].as_str().unwrap().ends_with("base.yaml:22"),
        "{line}"
    );
    assert_eq!(
        (&line["api"], &line["operation"]),
        (&"Produce".into(), &"Write".into())
    );
}

#[tokio::test]
async fn a_batch_without_a_producer_is_refused_where_repetitions_must_be_known() {
    let lab = lab("produce: {idempotent: true}");
    let mut client = lab.app().await;
    for codec in ALL_CODECS {
        let answer = client
            .produce("open.a", 0, records(&[9], codec, NOT_IDEMPOTENT))
            .await;
        let told = part(&answer.unwrap(), "open.a", 0);
        assert_eq!(told.error_code, VIOLATION, "{codec:?}");
        let message = told.error_message.unwrap();
        assert!(message.contains("enable.idempotence"), "{message}");
    }
    assert_eq!(lab.broker().requests(0), 0);
    let answer = client
        .produce("open.a", 0, records(&[9], Compression::Lz4, IDEMPOTENT))
        .await;
    assert_eq!(part(&answer.unwrap(), "open.a", 0).error_code, 0);
}

#[tokio::test]
async fn codecs_are_those_of_the_rule() {
    let lab = lab("produce: {compression: [none, lz4]}");
    let mut client = lab.app().await;
    for (codec, code) in ALL_CODECS.into_iter().zip([0, 44, 44, 0, 44]) {
        let answer = client
            .produce("open.a", 0, records(&[50], codec, NOT_IDEMPOTENT))
            .await;
        assert_eq!(
            part(&answer.unwrap(), "open.a", 0).error_code,
            code,
            "{codec:?}"
        );
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(2));
}

#[tokio::test]
async fn records_that_are_too_large_are_told_one_by_one_with_every_codec() {
    let lab = lab("produce: {maxRecordBytes: 1KiB}");
    let mut client = lab.app().await;
    for codec in ALL_CODECS {
        let bad = records(&[10, 2_000, 900, 1_500], codec, NOT_IDEMPOTENT);
        let told = part(
            &client.produce("open.a", 0, bad).await.unwrap(),
            "open.a",
            0,
        );
        assert_eq!(
            (told.error_code, told.base_offset),
            (VIOLATION, -1),
            "{codec:?}"
        );
        let indexes: Vec<_> = told.record_errors.iter().map(|e| e.batch_index).collect();
        assert_eq!(indexes, [1, 3], "{codec:?}");
        let message = told.record_errors[0].batch_index_error_message.as_deref();
        let says = "policy `house`, produce.maxRecordBytes: expected at most 1024 bytes, got 20";
        assert!(message.unwrap().starts_with(says), "{message:?}");
        assert!(
            told.error_message
                .unwrap()
                .ends_with("got more in 2 records")
        );
    }
    assert_eq!(lab.broker().requests(0), 0);
    // Small ones may be many.
    for codec in ALL_CODECS {
        let good = records(&[900; 8], codec, NOT_IDEMPOTENT);
        let told = part(
            &client.produce("open.a", 0, good).await.unwrap(),
            "open.a",
            0,
        );
        assert_eq!(told.error_code, 0, "{codec:?}");
    }
    // What cannot be looked into is not let through.
    let mut corrupt = records(&[10], Compression::Gzip, NOT_IDEMPOTENT).to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let bomb = records(&[200 << 20], Compression::Zstd, NOT_IDEMPOTENT);
    for (records, code) in [(corrupt.into(), 2), (bomb, 87)] {
        let told = part(
            &client.produce("open.a", 0, records).await.unwrap(),
            "open.a",
            0,
        );
        assert_eq!(told.error_code, code);
    }
    assert_eq!(lab.broker().requests(0), 5);
}

#[tokio::test]
async fn topics_that_are_named_by_id_have_their_rules() {
    let policy = policies("produce: {acks: all}");
    for off in ["", "authorization: off\n"] {
        let lab = Lab::with(|setup| {
            setup.more = off.to_owned();
            setup.policy = policy.replace("[\"open.*\", \"typed.*\", \"new.*\"]", "[open.a]");
        });
        let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
        let known = direct.metadata(Some(&["open.a", "open.b"])).await.unwrap();
        let mut client = lab.app().await;
        for (topic, code) in known.topics.iter().zip([VIOLATION, 0]) {
            let mut request = produce(1, &[("", 0, batch(&[b"x"]))]);
            request.topic_data[0].topic_id = topic.topic_id;
            let answer = client.call(13, &request).await.unwrap();
            assert_eq!(part(&answer, "", 0).error_code, code, "{off}");
        }
        let mut request = produce(1, &[("", 0, batch(&[b"x"]))]);
        request.topic_data[0].topic_id = uuid::Uuid::from_u128(77);
        let answer = client.call(13, &request).await.unwrap();
        assert_eq!(part(&answer, "", 0).error_code, 100, "{off}");
    }
}

#[tokio::test]
async fn t30_what_breaks_a_rule_without_acknowledgement_ends_the_connection() {
    let lab = lab("produce: {compression: [none]}");
    let mut client = lab.app().await;
    let packed = records(&[20], Compression::Gzip, NOT_IDEMPOTENT);
    let parts = [("open.a", 0, batch(&[b"x"])), ("open.a", 1, packed)];
    client.send(9, &produce(0, &parts)).await.unwrap();
    assert!(client.is_closed().await);
    lab.arrived("open.a", 1).await;
    assert_eq!(lab.broker().end_offset("open.a", 1), Some(0));
    // Asking for no acknowledgement can itself be what is refused.
    lab.reload(&policies("produce: {acks: all}"));
    let mut client = lab.app().await;
    client.send(9, &produce(0, &parts)).await.unwrap();
    assert!(client.is_closed().await);
    lab.audit(&[(
        "detail",
        "policy `house`, produce.acks: expected `all` (-1), got 0",
    )]);
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(1));
}

#[tokio::test]
async fn a_schema_is_asked_behind_the_topic_rules() {
    let schema = "---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: orders}
spec: {topics: [typed.a], value: {format: avro}}
";
    let lab = Lab::ruled(&format!("{}{schema}", policies("produce: {acks: all}")));
    let mut client = lab.app().await;
    for (acks, code) in [(1, VIOLATION), (-1, 87)] {
        let request = produce(acks, &[("typed.a", 0, batch(&[b"no order"]))]);
        let answer = client.call(9, &request).await.unwrap();
        assert_eq!(part(&answer, "typed.a", 0).error_code, code);
    }
    assert_eq!(lab.broker().requests(0), 0);
}

/// The codes of one request's partitions.
pub async fn large(raw: &mut Raw, acks: i16, parts: &[(&str, i32, Bytes)]) -> Vec<i16> {
    raw.send(&frame_of(9, 3, &produce(acks, parts))).await;
    let (_, answer) = raw.answer::<ProduceRequest>(9).await;
    let codes = parts
        .iter()
        .map(|(topic, index, _)| part(&answer, topic, *index).error_code);
    codes.collect()
}

#[tokio::test]
async fn large_requests_keep_the_rules_too_and_go_uncopied_where_heads_say_enough() {
    let policy = policies("produce: {acks: all, compression: [none], maxRecordBytes: 30000}");
    let lab = Lab::ruled(&policy.replace("\"typed.*\", ", ""));
    let odd = |records: Bytes, at: usize, bit: u8| {
        let mut records = records.to_vec();
        records[at] |= bit;
        let crc = crc32c::crc32c(&records[21..]);
        records[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(records)
    };
    let good = unlike(20_000, 1);
    let packed = odd(good.clone(), 22, 4);
    for (acks, parts, codes, bytes) in [
        (-1, [good.clone(), good.clone()], [0, 0], 40_000.0),
        (-1, [good.clone(), packed.clone()], [0, VIOLATION], 0.0),
        (-1, [packed, good.clone()], [VIOLATION, 0], 0.0),
        (-1, [good.clone(), unlike(40_000, 1)], [0, VIOLATION], 0.0),
        (1, [good.clone(), good.clone()], [VIOLATION; 2], 0.0),
    ] {
        let mut raw = on_the_way(&lab, "app").await;
        let before = lab.metric(SPLICED, &[]);
        let parts: Vec<_> = (parts.into_iter().zip(0..))
            .map(|(records, index)| ("open.a", index, records))
            .collect();
        assert_eq!(large(&mut raw, acks, &parts).await, codes);
        if bytes > 0.0 {
            lab.metric_reaches(SPLICED, before + bytes);
        } else {
            assert_eq!(lab.metric(SPLICED, &[]), before);
        }
    }
    // More than one record in a large batch must be looked into, and may pass.
    let mut raw = on_the_way(&lab, "app").await;
    let many = records(&[10_000; 5], Compression::None, NOT_IDEMPOTENT);
    assert_eq!(large(&mut raw, -1, &[("open.b", 0, many)]).await, [0]);
    assert_eq!(lab.broker().end_offset("open.b", 0), Some(5));
}

#[tokio::test]
async fn rules_that_come_into_force_reach_connections_on_every_way() {
    let lab = lab("create: {partitions: ..6}");
    let mut raw = on_the_way(&lab, "app").await;
    let parts = [("open.a", 0, unlike(20_000, 1))];
    assert_eq!(large(&mut raw, 1, &parts).await, [0]);
    lab.reload(&policies("produce: {acks: all}"));
    assert_eq!(large(&mut raw, 1, &parts).await, [VIOLATION]);
    assert_eq!(large(&mut raw, -1, &parts).await, [0]);
    lab.reload(&policies("create: {partitions: ..6}"));
    assert_eq!(large(&mut raw, 1, &parts).await, [0]);
}

/// The head of a frame larger than the pipe is with the broker when the rules change.
#[tokio::test]
async fn a_frame_that_flows_while_the_rules_change_is_held_against_the_new_ones() {
    for (spec, kept) in [
        ("produce: {compression: [none]}", true),
        ("produce: {compression: [zstd]}", false),
    ] {
        let lab = lab("create: {partitions: ..6, configs: {max.message.bytes: \"1..\"}}");
        let config = with_config(topic("new.big", 1, 1), "max.message.bytes", "67108864");
        let told = create(&mut lab.app().await, 5, vec![config], false).await;
        assert_eq!(told[0].1, 0);
        let mut raw = on_the_way(&lab, "app").await;
        let parts = [("new.big", 0, unlike(12 << 20, 0))];
        let frame = frame_of(9, 3, &produce(-1, &parts));
        let (head, rest) = frame.split_at(8 << 20);
        raw.send(head).await;
        lab.reload(&policies(spec));
        let sent = raw.try_send(rest).await;
        if kept {
            let (_, answer) = raw.answer::<ProduceRequest>(9).await;
            assert_eq!(part(&answer, "new.big", 0).error_code, 0);
        } else {
            assert!(!sent || raw.frame().await.is_none());
            assert_eq!(lab.broker().end_offset("new.big", 0), Some(0));
        }
    }
}
