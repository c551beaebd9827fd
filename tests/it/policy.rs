//! Rules on what is in a request, the trace of each refusal, and rules that change while
//! connections are open.

use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, JoinGroupRequest, MetadataRequest,
};
use kordon::demo::client::{Client, fetch_request, topic_name};

use crate::support::*;

/// A Fetch of the first partition of each topic.
pub fn fetch_all(topics: &[&str]) -> FetchRequest {
    let mut request = fetch_request("", 0, 0, Duration::ZERO);
    let topic = |name: &&str| {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        FetchTopic::default()
            .with_topic(topic_name(name))
            .with_partitions(vec![partition])
    };
    request.topics = topics.iter().map(topic).collect();
    request
}

/// Codes by topic, in the order of the topics' names.
async fn fetch_codes(client: &mut Client, topics: &[&str]) -> Vec<(String, i16)> {
    let answer = client.call(12, &fetch_all(topics)).await.unwrap();
    let mut codes: Vec<_> = fetched(&answer)
        .into_iter()
        .map(|(t, _, code, _)| (t, code))
        .collect();
    codes.sort();
    codes
}

async fn write_code(client: &mut Client, topic: &str) -> i16 {
    let answer = client.produce(topic, 0, batch(&[b"x"])).await.unwrap();
    part(&answer, topic, 0).error_code
}

#[tokio::test]
async fn produce_is_refused_topic_by_topic_at_every_version() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 3..=12 {
        let parts = ["open.a", "secret.a", "open.b", "nowhere"].map(|t| (t, 0, batch(&[b"x"])));
        let answer = client.call(version, &produce(-1, &parts)).await.unwrap();
        let code = |topic| part(&answer, topic, 0).error_code;
        let codes = ["open.a", "secret.a", "open.b", "nowhere"].map(code);
        assert_eq!(codes, [0, 29, 0, 29], "version {version}");
        assert_eq!(part(&answer, "secret.a", 0).base_offset, -1);
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(10));
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
}

#[tokio::test]
async fn fetch_is_refused_topic_by_topic_at_every_version_with_names() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 4..=12 {
        let request = fetch_all(&["open.a", "secret.a", "open.b", "nowhere"]);
        let answer = client.call(version, &request).await.unwrap();
        let mut codes: Vec<_> = fetched(&answer)
            .into_iter()
            .map(|(t, _, c, _)| (t, c))
            .collect();
        codes.sort();
        let expected = [
            ("nowhere", 29),
            ("open.a", 0),
            ("open.b", 0),
            ("secret.a", 29),
        ];
        assert_eq!(
            codes,
            expected.map(|(t, c)| (t.to_owned(), c)),
            "version {version}"
        );
    }
}

#[tokio::test]
async fn what_is_refused_as_a_whole_does_not_reach_the_broker() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    assert_eq!(write_code(&mut client, "secret.a").await, 29);
    assert_eq!(
        fetch_codes(&mut client, &["secret.a"]).await,
        [("secret.a".to_owned(), 29)]
    );
    assert_eq!((lab.broker().requests(0), lab.broker().requests(1)), (0, 0));
}

#[tokio::test]
async fn t30_a_refused_topic_without_acknowledgement_ends_the_connection_behind_the_allowed() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let parts = ["open.a", "secret.a"].map(|topic| (topic, 0, batch(&[b"x"])));
    client.send(9, &produce(0, &parts)).await.unwrap();
    assert!(client.is_closed().await);
    lab.arrived("open.a", 1).await;
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
    lab.audit(&[("resource", "Topic:secret.a"), ("api", "Produce")]);
}

#[tokio::test]
async fn t30_only_refused_topics_without_acknowledgement_reach_nobody() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    client
        .send(9, &produce(0, &[("secret.a", 0, batch(&[b"x"]))]))
        .await
        .unwrap();
    assert!(client.is_closed().await);
    assert_eq!(lab.broker().requests(0), 0);
    lab.audit(&[("resource", "Topic:secret.a"), ("api", "Produce")]);
}

#[tokio::test]
async fn t01_topic_ids_are_judged_by_the_topics_they_stand_for() {
    let lab = Lab::new();
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    let known = direct
        .metadata(Some(&["open.a", "secret.a"]))
        .await
        .unwrap();
    let mut client = lab.app().await;
    let random = uuid::Uuid::from_u128(0x1234_5678);
    for (id, code) in [
        (known.topics[0].topic_id, 0),
        (known.topics[1].topic_id, 29),
        (random, 100),
        (uuid::Uuid::nil(), 100),
    ] {
        let mut request = produce(-1, &[("", 0, batch(&[b"x"]))]);
        request.topic_data[0].topic_id = id;
        let answer = client.call(13, &request).await.unwrap();
        let topic = &answer.responses[0];
        assert_eq!(
            (topic.topic_id, topic.partition_responses[0].error_code),
            (id, code)
        );
        let mut request = fetch_all(&[""]);
        request.topics[0].topic_id = id;
        let answer = client.call(13, &request).await.unwrap();
        let topic = &answer.responses[0];
        assert_eq!((topic.topic_id, topic.partitions[0].error_code), (id, code));
    }
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
}

#[tokio::test]
async fn t10_nobody_is_a_follower() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let mut request = fetch_all(&["open.a"]);
    request.replica_id = 1.into();
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(fetched(&answer)[0].2, 29);
    assert_eq!(lab.broker().requests(1), 0);
}

#[tokio::test]
async fn t14_a_forbidden_name_is_not_made_by_asking_for_it() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let topic = |name| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let names = ["secret.new", "open.a"].map(topic).to_vec();
    let request = MetadataRequest::default().with_topics(Some(names));
    let answer = client.call(12, &request).await.unwrap();
    let mut codes: Vec<_> = answer
        .topics
        .iter()
        .map(|t| (t.error_code, t.topic_id.is_nil()))
        .collect();
    codes.sort();
    assert_eq!(codes, [(0, false), (29, true)]);
    assert_eq!(lab.broker().end_offset("secret.new", 0), None);
}

#[tokio::test]
async fn t15_all_topics_are_those_one_may_see() {
    let lab = Lab::new();
    let answer = lab.app().await.metadata(None).await.unwrap();
    let mut names: Vec<_> = answer
        .topics
        .iter()
        .map(|t| t.name.as_ref().unwrap().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["open.a", "open.b", "typed.a"]);
    assert!(lab.client("tokens").await.metadata(None).await.is_err());
}

#[tokio::test]
async fn groups_and_topics_to_be_made_need_their_rules() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let join = JoinGroupRequest::default()
        .with_group_id(kafka_protocol::messages::GroupId("secret.g".into()))
        .with_session_timeout_ms(6_000);
    assert_eq!(client.call(7, &join).await.unwrap().error_code, 30);
    let topic = kafka_protocol::messages::create_topics_request::CreatableTopic::default()
        .with_name(topic_name("secret.new"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let code = client.call(5, &request).await.unwrap().topics[0].error_code;
    assert_eq!(code, 29);
    assert_eq!(
        (lab.broker().requests(11), lab.broker().requests(19)),
        (0, 0)
    );
}

#[tokio::test]
async fn a_refusal_is_in_the_audit_log_with_its_rule_and_in_the_metrics() {
    let deny = POLICY.replace(
        "    - {allow: [Id",
        "    - {deny: [Write], topics: [open.b]}\n    - {allow: [Id",
    );
    let lab = Lab::ruled(&deny);
    let mut client = lab.app().await;
    assert_eq!(write_code(&mut client, "open.b").await, 29);
    assert_eq!(write_code(&mut client, "secret.a").await, 29);
    assert_eq!(write_code(&mut client, "open.a").await, 0);
    let line = lab.audit(&[("resource", "Topic:open.b")]);
    assert!(
        line["rule"].as_str().unwrap().ends_with("base.yaml:8"),
        "{line}"
    );
    let line = lab.audit(&[("resource", "Topic:secret.a")]);
    assert!(line["rule"].is_null(), "{line}");
    for (field, value) in [
        ("listener", "app"),
        ("principal", "User:app"),
        ("tenant", "shop"),
        ("api", "Produce"),
        ("operation", "Write"),
        ("decision", "deny"),
        ("reason", "authorization"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    let labels = [
        "tenant=\"shop\"",
        "api=\"Produce\"",
        "reason=\"authorization\"",
    ];
    lab.metric_is("kordon_refusals_total", &labels, 2.0);
    for (outcome, count) in [("\"refused\"", 2.0), ("\"forwarded\"", 1.0)] {
        lab.metric_is("kordon_requests_total", &["Produce", outcome], count);
    }
}

#[tokio::test]
async fn a_grant_and_its_end_reach_open_connections_by_sighup() {
    let lab = Lab::with(|setup| setup.child = true);
    let mut client = lab.app().await;
    assert_eq!(write_code(&mut client, "secret.a").await, 29);
    lab.reload(&POLICY.replace("\"open.*\"", "\"secret.*\""));
    assert_eq!(write_code(&mut client, "secret.a").await, 0);
    assert_eq!(write_code(&mut client, "open.a").await, 29);
    let codes = fetch_codes(&mut client, &["open.a", "secret.a"]).await;
    assert_eq!(
        codes,
        [("open.a".to_owned(), 29), ("secret.a".to_owned(), 0)]
    );
    lab.reload(POLICY);
    assert_eq!(write_code(&mut client, "open.a").await, 0);
    assert_eq!(
        fetch_codes(&mut client, &["secret.a"]).await,
        [("secret.a".to_owned(), 29)]
    );
}

#[tokio::test]
async fn broken_policies_leave_the_old_ones_in_force_and_readyz_says_so() {
    let lab = Lab::with(|setup| setup.child = true);
    let mut client = lab.app().await;
    let broken = POLICY.replace("allow: [All], topics", "allow: [Alll], topics");
    lab.reload_in_vain(&broken);
    lab.log_says("Alll");
    let says = || lab.http("/readyz").unwrap();
    assert_eq!(says().0, 200);
    assert!(says().1.contains("policies"), "{}", says().1);
    lab.metric_reaches("kordon_policy_reload_failures_total", 1.0);
    assert_eq!(write_code(&mut client, "open.a").await, 0);
    lab.reload(POLICY);
    assert!(!says().1.contains("policies"), "{}", says().1);
}

#[tokio::test]
async fn authorization_off_lets_everybody_do_what_brokers_let_clients_do() {
    let lab = Lab::with(|setup| setup.more = "authorization: off\n".to_owned());
    let mut client = lab.app().await;
    assert_eq!(write_code(&mut client, "secret.a").await, 0);
    assert_eq!(
        fetch_codes(&mut client, &["secret.a"]).await,
        [("secret.a".to_owned(), 0)]
    );
    let answer = client.metadata(None).await.unwrap();
    assert_eq!(answer.topics.len(), 4);
    assert_eq!(answer.brokers[0].port, i32::from(lab.broker_port("app")));
}

#[tokio::test]
async fn a_super_user_passes_the_rules() {
    let more = "authorization: {superUsers: [\"User:other\"]}\n".to_owned();
    let lab = Lab::with(|setup| setup.more = more);
    assert_eq!(
        write_code(&mut lab.client("other").await, "secret.a").await,
        0
    );
    assert_eq!(write_code(&mut lab.app().await, "secret.a").await, 29);
}

#[tokio::test]
async fn t03_apis_that_nobody_knows_and_those_between_brokers_close_the_connection() {
    let lab = Lab::new();
    let between = [
        4, 5, 6, 7, 27, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 83, 84, 85, 86, 87,
    ];
    for key in between.into_iter().chain([-1, 95, 500, 10_000, 32_767]) {
        let mut client = lab.app().await;
        send_bytes(&mut client, key, 0, &[0; 8]).await;
        assert!(next(&mut client).await.is_none(), "key {key}");
        assert_eq!(lab.broker().requests(key), 0);
    }
}

/// A broker puts U+FFFD in the place of what is not UTF-8 and goes on with that name, which a rule
/// for a prefix would meet there and nobody has judged here.
#[tokio::test]
async fn names_that_are_not_utf_8_end_the_connection() {
    let lab = Lab::new();
    let name: &[u8] = b"\0\x06open\xff\xfe";
    let one_of = [&[0, 0, 0, 1], name].concat();
    for (key, version, body) in [
        (15, 0, one_of.clone()),
        (3, 1, one_of.clone()),
        (42, 0, one_of),
        (9, 1, [name, &[0, 0, 0, 0]].concat()),
        (10, 0, name.to_vec()),
    ] {
        let mut client = lab.app().await;
        send_bytes(&mut client, key, version, &body).await;
        assert!(next(&mut client).await.is_none(), "key {key}");
        // Kordon asks for Metadata itself.
        assert!(key == 3 || lab.broker().requests(key) == 0, "key {key}");
    }
}

#[tokio::test]
async fn t04_versions_outside_the_range_close_the_connection() {
    let lab = Lab::new();
    for (key, version) in [
        (0, 2),
        (0, 14),
        (1, 3),
        (1, 99),
        (3, 14),
        (3, -1),
        (9, 0),
        (11, 50),
    ] {
        let mut client = lab.app().await;
        send_bytes(&mut client, key, version, &[0; 64]).await;
        assert!(next(&mut client).await.is_none(), "{key} {version}");
    }
    assert_eq!(lab.broker().requests(0) + lab.broker().requests(1), 0);
}
