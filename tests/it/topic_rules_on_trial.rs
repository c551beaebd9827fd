//! Rules about topics that only observe: what breaks them goes ahead as if they were not there,
//! on each way through the proxy, and is counted and told.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreatePartitionsRequest, IncrementalAlterConfigsRequest, MetadataRequest, ProduceRequest,
};
use kafka_protocol::records::Compression;
use kordon::demo::client::{Client, NOT_IDEMPOTENT, topic_name};

use crate::passage::{SPLICED, on_the_way, unlike};
use crate::support::*;
use crate::topic_rules::{VIOLATION, create, large, policies, records, text, topic, with_config};

const DENY: &str = "kordon_would_deny_total";

/// `house` is in force; `trial`, about the topics that begin with `open.` or `new.`, observes.
fn tried(house: &str, trial: &str) -> String {
    format!(
        "{}---
apiVersion: kordon/v1
kind: TopicPolicy
metadata: {{name: trial}}
spec:
  mode: observe
  topics: [\"open.*\", \"new.*\"]
  {trial}
",
        policies(house)
    )
}

/// Where the rules of `trial` stand.
const TRIAL_LINE: &str = "base.yaml:30";
/// A rule in force that nothing here breaks.
const NOTHING: &str = "create: {partitions: ..1000}";

fn would(lab: &Lab, api: &str) -> f64 {
    let api = format!("api=\"{api}\"");
    lab.metric(DENY, &[&api, "set=\"observe\"", "tenant=\"shop\""])
}

fn refused(lab: &Lab, api: &str) -> f64 {
    let api = format!("api=\"{api}\"");
    lab.metric("kordon_refusals_total", &[&api, "reason=\"topic_rules\""])
}

/// The codes of a Produce request's partitions.
async fn codes(client: &mut Client, acks: i16, parts: &[(&str, i32, Bytes)]) -> Vec<i16> {
    let answer = client.call(9, &produce(acks, parts)).await.unwrap();
    let code = |(topic, index, _): &(&str, i32, _)| part(&answer, topic, *index).error_code;
    parts.iter().map(code).collect()
}

async fn grow(client: &mut Client, name: &str, count: i32) -> i16 {
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(5_000);
    let answer = client.call(1, &request).await.unwrap();
    answer.results[0].error_code
}

/// Asks for it on a connection of its own: the broker of these tests does not alter, and hangs up.
async fn retain(lab: &Lab, name: &str, value: &str) {
    let config = incremental::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert!(lab.app().await.call(1, &request).await.is_err());
}

#[tokio::test]
async fn topics_are_made_and_changed_and_what_would_be_refused_is_told() {
    let trial = "create: {name: 'new\\.[a-z]+', partitions: 2..4, configs: {retention.ms: ..1000}}";
    let lab = Lab::ruled(&tried("create: {partitions: ..6}", trial));
    let mut client = lab.app().await;
    let topics = vec![
        topic("new.fine", 2, 1),
        topic("new.few", 1, 1),
        topic("new.Bad", 5, 1),
        // Refused by either.
        topic("new.many", 7, 1),
        // Goes out whole, because of what is in force.
        topic("new.twice", 5, 1),
        topic("new.twice", 7, 1),
    ];
    let told = create(&mut client, 5, topics, false).await;
    let told: Vec<_> = told
        .iter()
        .map(|(name, code, _)| (&**name, *code))
        .collect();
    let expected = [
        ("new.Bad", 0),
        ("new.few", 0),
        ("new.fine", 0),
        ("new.many", VIOLATION),
        ("new.twice", VIOLATION),
        ("new.twice", VIOLATION),
    ];
    assert_eq!(told, expected);
    assert_eq!(lab.broker().end_offset("new.Bad", 4), Some(0));
    assert_eq!(would(&lab, "CreateTopics"), 2.0);
    let line = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:new.Bad")]);
    for (field, value) in [
        ("api", "CreateTopics"),
        ("operation", "Create"),
        ("principal", "User:app"),
        ("reason", "topic_rules"),
        ("set", "observe"),
        (
            "detail",
            "policy `trial`, create.name: expected a name that matches `new\\.[a-z]+`, got \
             `new.Bad`; policy `trial`, create.partitions: expected 2..4, got 5",
        ),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    let rule = line["rule"].as_str().unwrap();
    assert!(rule.ends_with(TRIAL_LINE), "{line}");

    assert_eq!(grow(&mut client, "new.few", 4).await, 0);
    assert_eq!(grow(&mut client, "new.few", 6).await, 0);
    assert_eq!(grow(&mut client, "new.few", 8).await, VIOLATION);
    assert_eq!(lab.broker().end_offset("new.few", 5), Some(0));
    assert_eq!(would(&lab, "CreatePartitions"), 1.0);
    for (name, value) in [("open.a", "1000"), ("open.a", "1001"), ("typed.a", "1001")] {
        retain(&lab, name, value).await;
    }
    assert_eq!(refused(&lab, "IncrementalAlterConfigs"), 0.0);
    assert_eq!(would(&lab, "IncrementalAlterConfigs"), 1.0);
    lab.audit(&[("decision", "would_deny"), ("operation", "AlterConfigs")]);
    assert_eq!(lab.metric(DENY, &[]), 4.0);
}

/// What the cluster has as its defaults is found out as if the rule were in force.
#[tokio::test]
async fn numbers_that_are_left_to_the_cluster_are_judged_by_its_defaults() {
    let lab = Lab::with(|setup| {
        setup.auto_create = Some(3);
        let house = "produce: {compression: [none]}";
        setup.policy = tried(house, "create: {partitions: 1..2, replicationFactor: 1}");
    });
    let mut client = lab.app().await;
    for name in ["new.a", "new.b"] {
        let told = create(&mut client, 5, vec![topic(name, -1, -1)], false).await;
        assert_eq!(told[0].1, 0, "{told:?}");
        assert_eq!(lab.broker().end_offset(name, 0), Some(0));
    }
    assert_eq!(lab.broker().requests(32), 1);
    assert_eq!(would(&lab, "CreateTopics"), 2.0);
    let line = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:new.a")]);
    let detail = line["detail"].as_str().unwrap();
    let says = "expected 1..2, got none, and the cluster's default is 3";
    assert!(detail.ends_with(says), "{line}");
}

/// Whether a topic was there, so that none would be made, the answer says.
#[tokio::test]
async fn topics_that_metadata_makes_are_made_and_what_would_be_refused_is_told() {
    let trial = "create: {name: 'new\\.[a-z]+', partitions: 1..2}";
    let house = "create: {name: '[a-z]+\\..*'}";
    let policy = tried(house, trial);
    let lab = Lab::with(|setup| {
        setup.auto_create = Some(3);
        setup.policy = policy.clone();
    });
    let mut client = lab.app().await;
    let ask = async |client: &mut Client, version: i16, names: &[&str]| {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default();
        let request = request.with_topics(Some(names.iter().map(topic).collect()));
        let answer = client.call(version, &request).await.unwrap();
        let mut codes: Vec<_> = (answer.topics.iter())
            .map(|topic| (topic.name.as_ref().unwrap().to_string(), topic.error_code))
            .collect();
        codes.sort();
        codes.into_iter().map(|(_, code)| code).collect::<Vec<_>>()
    };
    for (at, version) in [1, 4, 9, 13].into_iter().enumerate() {
        let name = format!("new.V{version}");
        assert_eq!(ask(&mut client, version, &[&name, "open.a"]).await, [3, 0]);
        assert_eq!(lab.broker().end_offset(&name, 2), Some(0));
        // It is there, as `open.a` was: nothing more would be made.
        assert_eq!(ask(&mut client, version, &[&name, "open.a"]).await, [0, 0]);
        assert_eq!(would(&lab, "Metadata"), (at + 1) as f64, "{version}");
    }
    let line = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:new.V9")]);
    for (field, value) in [
        ("api", "Metadata"),
        ("operation", "Create"),
        ("principal", "User:app"),
        ("reason", "topic_rules"),
        ("set", "observe"),
        (
            "detail",
            "policy `trial`, create.name: expected a name that matches `new\\.[a-z]+`, got \
             `new.V9`; policy `trial`, create.partitions: expected 1..2, got none, and the \
             cluster's default is 3",
        ),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(
        line["rule"].as_str().unwrap().ends_with(TRIAL_LINE),
        "{line}"
    );
    assert_eq!(lab.metric("kordon_refusals_total", &[]), 0.0);

    // What is foretold is what happens once the policy is in force.
    lab.reload(&policy.replace("mode: observe", "mode: enforce"));
    assert_eq!(ask(&mut client, 9, &["new.late", "open.a"]).await, [3, 0]);
    assert_eq!(lab.broker().end_offset("new.late", 0), None);
    assert_eq!(refused(&lab, "Metadata"), 1.0);
    assert_eq!(would(&lab, "Metadata"), 4.0);
}

/// Nothing is made for a request in which one topic may not be made; what only observes would have
/// changed nothing about it.
#[tokio::test]
async fn what_is_not_made_anyway_is_refused_by_nobody_else() {
    let lab = Lab::with(|setup| {
        setup.auto_create = Some(3);
        setup.policy = tried(
            "create: {name: '[a-z]+\\.[a-z]+'}",
            "create: {partitions: 2}",
        );
    });
    let mut client = lab.app().await;
    let names = ["new.Bad", "new.fine"].map(|name| Some(topic_name(name)));
    let topics = names.map(|name| MetadataRequestTopic::default().with_name(name));
    let request = MetadataRequest::default().with_topics(Some(topics.to_vec()));
    let answer = client.call(9, &request).await.unwrap();
    assert!(answer.topics.iter().all(|topic| topic.error_code == 3));
    assert_eq!(lab.broker().end_offset("new.fine", 0), None);
    assert_eq!(
        (refused(&lab, "Metadata"), would(&lab, "Metadata")),
        (1.0, 0.0)
    );
}

#[tokio::test]
async fn records_are_written_and_what_would_be_refused_is_told() {
    let house = "produce: {compression: [none, gzip]}";
    let trial = "produce: {acks: all, compression: [none], maxRecordBytes: 1KiB}";
    let schema = "---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: orders}
spec: {topics: [open.b], value: {format: avro}}
";
    let lab = Lab::with(|setup| {
        setup.policy = format!("{}{schema}", tried(house, trial));
        setup.audit = "{file: {path: audit.jsonl}, allows: all}";
    });
    let mut client = lab.app().await;
    let good = batch(&[b"x"]);
    let packed = records(&[20], Compression::Gzip, NOT_IDEMPOTENT);
    let bulky = records(&[10, 2_000], Compression::None, NOT_IDEMPOTENT);
    let bad = records(&[20], Compression::Zstd, NOT_IDEMPOTENT);
    let mut told = 0.0;
    for (acks, topic, records, more) in [
        (-1, "open.a", &good, 0.0),
        (1, "open.a", &good, 1.0),
        (-1, "open.a", &packed, 1.0),
        (-1, "open.a", &bulky, 1.0),
        (-1, "typed.a", &bulky, 0.0),
    ] {
        // Looked at in place; then as a tree, since a part of it is refused.
        let parts = [(topic, 0, records.clone()), ("nowhere", 0, good.clone())];
        assert_eq!(codes(&mut client, acks, &parts[..1]).await, [0]);
        told += more;
        assert_eq!(would(&lab, "Produce"), told);
        assert_eq!(codes(&mut client, acks, &parts).await, [0, 29]);
        told += more;
        assert_eq!(would(&lab, "Produce"), told);
    }
    for detail in [
        "policy `trial`, produce.acks: expected `all` (-1), got 1",
        "policy `trial`, produce.compression: expected `none`, got `gzip`",
    ] {
        let line = lab.audit(&[("decision", "would_deny"), ("detail", detail)]);
        assert_eq!(
            [&line["operation"], &line["resource"], &line["reason"]],
            ["Write", "Topic:open.a", "topic_rules"]
        );
        assert!(
            line["rule"].as_str().unwrap().ends_with(TRIAL_LINE),
            "{line}"
        );
    }
    // What the house, or a schema, refuses anyway.
    let parts = [
        ("open.a", 0, bad),
        ("open.a", 1, packed.clone()),
        ("open.b", 0, packed.clone()),
    ];
    assert_eq!(codes(&mut client, -1, &parts).await, [VIOLATION, 0, 87]);
    assert_eq!(would(&lab, "Produce"), told + 1.0);
    // Without an acknowledgement the connection goes on.
    let parts = [("open.a", 0, good.clone())];
    let end = lab.broker().end_offset("open.a", 0).unwrap();
    client.send(9, &produce(0, &parts)).await.unwrap();
    lab.arrived("open.a", end + 1).await;
    assert_eq!(codes(&mut client, -1, &parts).await, [0]);
    assert_eq!(would(&lab, "Produce"), told + 2.0);
    assert_eq!(refused(&lab, "Produce"), 1.0);
}

/// What is foretold is what happens once the policy is in force.
#[tokio::test]
async fn what_is_told_is_what_is_refused_once_the_rule_is_in_force() {
    let trial = "create: {partitions: 2..}\n  produce: {compression: [none, lz4]}";
    let policy = tried(NOTHING, trial);
    let lab = Lab::ruled(&policy);
    let mut client = lab.app().await;
    let ask = async |client: &mut Client, run: &str| {
        let topics = (1..=3).map(|n| topic(&format!("new.{run}{n}"), n, 1));
        create(client, 5, topics.collect(), false).await;
        for codec in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let packed = records(&[50], codec, NOT_IDEMPOTENT);
            let parts = [("open.a", 0, packed.clone()), ("nowhere", 0, packed)];
            codes(client, -1, &parts[..1]).await;
            codes(client, -1, &parts).await;
        }
    };
    ask(&mut client, "a").await;
    let apis = ["CreateTopics", "Produce"];
    let told = apis.map(|api| would(&lab, api));
    assert_eq!(
        (told, apis.map(|api| refused(&lab, api))),
        ([1.0, 4.0], [0.0; 2])
    );
    lab.reload(&policy.replace("mode: observe", "mode: enforce"));
    ask(&mut client, "b").await;
    assert_eq!(apis.map(|api| refused(&lab, api)), told);
    assert_eq!(apis.map(|api| would(&lab, api)), told);
}

#[tokio::test]
async fn topics_that_are_named_by_id_are_judged_and_unknown_ones_go_on() {
    for off in ["", "authorization: off\n"] {
        let lab = Lab::with(|setup| {
            setup.more = off.to_owned();
            setup.policy = tried(NOTHING, "produce: {acks: all}").replace("\"open.*\"", "\"*\"");
        });
        let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
        let known = direct.metadata(Some(&["open.a"])).await.unwrap();
        let mut client = lab.app().await;
        let mut request = produce(1, &[("", 0, batch(&[b"x"]))]);
        request.topic_data[0].topic_id = known.topics[0].topic_id;
        let answer = client.call(13, &request).await.unwrap();
        assert_eq!(part(&answer, "", 0).error_code, 0, "{off}");
        lab.audit(&[("decision", "would_deny"), ("resource", "Topic:open.a")]);
        assert_eq!(lab.metric(DENY, &[]), 1.0, "{off}");

        let before = lab.broker().requests(0);
        request.topic_data[0].topic_id = uuid::Uuid::from_u128(77);
        let answer = client.call(13, &request).await.unwrap();
        assert_eq!(part(&answer, "", 0).error_code, 100, "{off}");
        let sent = lab.broker().requests(0) - before;
        assert_eq!(sent, u64::from(!off.is_empty()), "{off}");
        assert_eq!(lab.metric(DENY, &[]), 1.0, "{off}");
    }
}

#[tokio::test]
async fn large_requests_take_their_way_and_are_told_once() {
    let lab = Lab::ruled(&tried(
        NOTHING,
        "produce: {acks: all, maxRecordBytes: 30000}",
    ));
    let mut raw = on_the_way(&lab, "app").await;
    let parts = [
        ("open.a", 0, unlike(20_000, 1)),
        ("open.b", 0, unlike(20_000, 2)),
    ];
    for (acks, told) in [(-1, 0.0), (1, 2.0)] {
        let before = lab.metric(SPLICED, &[]);
        assert_eq!(large(&mut raw, acks, &parts).await, [0, 0]);
        lab.metric_reaches(SPLICED, before + 40_000.0);
        assert_eq!(would(&lab, "Produce"), told);
    }
    let line = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:open.b")]);
    assert!(
        line["rule"].as_str().unwrap().ends_with(TRIAL_LINE),
        "{line}"
    );
    // What has to be looked into goes the usual way, and passes.
    let before = lab.metric(SPLICED, &[]);
    assert_eq!(
        large(&mut raw, -1, &[("open.b", 0, unlike(40_000, 3))]).await,
        [0]
    );
    assert_eq!(lab.metric(SPLICED, &[]), before);
    assert_eq!(would(&lab, "Produce"), 3.0);
    assert_eq!(refused(&lab, "Produce"), 0.0);
}

/// A frame of 12 MiB arrives though the policies become others when 8 of them have gone on.
async fn flows_through(policies_then: &str) {
    let lab = Lab::ruled(&policies(NOTHING));
    let config = with_config(topic("new.big", 1, 1), "max.message.bytes", "67108864");
    let told = create(&mut lab.app().await, 5, vec![config], false).await;
    assert_eq!(told[0].1, 0);
    let mut raw = on_the_way(&lab, "app").await;
    let frame = frame_of(9, 3, &produce(-1, &[("new.big", 0, unlike(12 << 20, 0))]));
    let (head, rest) = frame.split_at(8 << 20);
    raw.send(head).await;
    lab.reload(policies_then);
    raw.send(rest).await;
    let (_, answer) = raw.answer::<ProduceRequest>(9).await;
    assert_eq!(part(&answer, "new.big", 0).error_code, 0, "{policies_then}");
}

/// Its begin is with the broker: a look into its records cannot be had any more, and is no
/// reason to give it up.
#[tokio::test]
async fn a_frame_that_flows_when_a_rule_comes_on_trial_arrives() {
    flows_through(&tried(NOTHING, "produce: {maxRecordBytes: 30000}")).await;
}

/// Schemas for the topics that begin with `open.` or `new.`, `said` of them: on trial or to warn.
fn typed(said: &str) -> String {
    format!(
        "{}---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {{name: typed}}
spec:
  topics: [\"open.*\", \"new.*\"]
  value: {{format: avro, encoding: confluent, subject: topic, check: id}}
  {said}
",
        policies(NOTHING)
    )
}

#[tokio::test]
async fn schemas_that_refuse_nothing_give_up_no_frame_that_flows() {
    for said in ["mode: observe", "onViolation: warn"] {
        flows_through(&typed(said)).await;
    }
}

#[tokio::test]
async fn schemas_that_refuse_nothing_need_no_name_where_no_rule_does() {
    for (said, sent) in [
        ("mode: observe", 1),
        ("onViolation: warn", 1),
        ("onViolation: reject", 0),
    ] {
        let lab = Lab::with(|setup| {
            setup.more = "authorization: off\n".to_owned();
            setup.policy = typed(said);
        });
        let before = lab.broker().requests(0);
        let mut request = produce(1, &[("", 0, batch(&[b"x"]))]);
        request.topic_data[0].topic_id = uuid::Uuid::from_u128(77);
        let answer = lab.app().await.call(13, &request).await.unwrap();
        assert_eq!(part(&answer, "", 0).error_code, 100, "{said}");
        assert_eq!(lab.broker().requests(0) - before, sent, "{said}");
    }
}
