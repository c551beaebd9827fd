//! What a client can see of topics, groups and the cluster: what its rules let it, and no trace
//! of the rest.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::*;
use kordon::demo::client::{Client, topic_name};

use crate::policy::fetch_all;
use crate::support::*;

async fn direct(lab: &Lab) -> Client {
    Client::connect(lab.broker().address(), "it").await.unwrap()
}

pub fn commit(group: &str, topics: &[&str]) -> OffsetCommitRequest {
    let topic = |name: &&str| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition])
    };
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.iter().map(topic).collect())
}

fn group_id(name: &str) -> GroupId {
    GroupId(kafka_protocol::protocol::StrBytes::from_string(
        name.to_owned(),
    ))
}

#[tokio::test]
async fn offsets_are_committed_topic_by_topic() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 2..=9 {
        let request = commit("app.g", &["open.a", "secret.a"]);
        let answer = client.call(version, &request).await.unwrap();
        let code = |t: &offset_commit_response::OffsetCommitResponseTopic| {
            (t.name.to_string(), t.partitions[0].error_code)
        };
        let mut codes: Vec<_> = answer.topics.iter().map(code).collect();
        codes.sort();
        let expected = [("open.a".to_owned(), 0), ("secret.a".to_owned(), 29)];
        assert_eq!(codes, expected, "version {version}");
    }
    let refused = client
        .call(8, &commit("secret.g", &["open.a"]))
        .await
        .unwrap();
    assert_eq!(refused.topics[0].partitions[0].error_code, 30);
}

#[tokio::test]
async fn t18_all_offsets_of_a_group_are_those_of_topics_one_may_see() {
    let lab = Lab::new();
    let request = commit("app.g", &["open.a", "secret.a"]);
    direct(&lab).await.call(8, &request).await.unwrap();
    let mut client = lab.app().await;
    let all = OffsetFetchRequestGroup::default()
        .with_group_id(group_id("app.g"))
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![all]);
    for version in 8..=9 {
        let answer = client.call(version, &request).await.unwrap();
        let names: Vec<_> = answer.groups[0]
            .topics
            .iter()
            .map(|t| t.name.to_string())
            .collect();
        assert_eq!(names, ["open.a"], "version {version}");
    }
    let old = OffsetFetchRequest::default()
        .with_group_id(group_id("app.g"))
        .with_topics(None);
    for version in 2..=7 {
        let answer = client.call(version, &old).await.unwrap();
        let names: Vec<_> = answer.topics.iter().map(|t| t.name.to_string()).collect();
        assert_eq!(names, ["open.a"], "version {version}");
    }
}

#[tokio::test]
async fn t18_groups_of_others_are_neither_listed_nor_described() {
    // Who may describe the cluster sees all groups, as at a broker.
    let lab = Lab::ruled(&POLICY.replace("IdempotentWrite, Describe]", "IdempotentWrite]"));
    for group in ["app.g", "secret.g"] {
        direct(&lab)
            .await
            .call(8, &commit(group, &["open.a"]))
            .await
            .unwrap();
    }
    let mut client = lab.app().await;
    for version in 0..=5 {
        let answer = client
            .call(version, &ListGroupsRequest::default())
            .await
            .unwrap();
        let names: Vec<_> = answer
            .groups
            .iter()
            .map(|g| g.group_id.to_string())
            .collect();
        assert_eq!(names, ["app.g"], "version {version}");
    }
    let groups = ["app.g", "secret.g", "secret.none"].map(group_id).to_vec();
    let request = DescribeGroupsRequest::default().with_groups(groups);
    let answer = client.call(5, &request).await.unwrap();
    let code =
        |g: &describe_groups_response::DescribedGroup| (g.group_id.to_string(), g.error_code);
    let mut codes: Vec<_> = answer.groups.iter().map(code).collect();
    codes.sort();
    let expected = [("app.g", 0), ("secret.g", 30), ("secret.none", 30)];
    assert_eq!(codes, expected.map(|(name, code)| (name.to_owned(), code)));
}

#[tokio::test]
async fn t15_a_forbidden_topic_looks_the_same_whether_it_is_there_or_not() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let mut seen = Vec::new();
    for name in ["secret.a", "secret.b"] {
        let mut offsets = ListOffsetsTopic::default().with_name(topic_name(name));
        offsets.partitions = vec![ListOffsetsPartition::default().with_timestamp(-1)];
        let offsets = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![offsets]);
        let configs = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(kafka_protocol::protocol::StrBytes::from_static_str(name));
        let configs = DescribeConfigsRequest::default().with_resources(vec![configs]);
        let deleted = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]);
        let metadata = client.metadata(Some(&[name])).await.unwrap();
        let text = [
            format!("{:?}", metadata.topics),
            format!("{:?}", client.call(7, &offsets).await.unwrap().topics),
            format!("{:?}", client.call(4, &configs).await.unwrap().results),
            format!("{:?}", client.call(5, &deleted).await.unwrap().responses),
            format!(
                "{:?}",
                client
                    .call(12, &fetch_all(&[name]))
                    .await
                    .unwrap()
                    .responses
            ),
        ];
        assert!(text.iter().all(|text| text.contains("29")), "{text:?}");
        seen.push(text.map(|text| text.replace(name, "NAME")));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
}

#[tokio::test]
async fn t15_authorized_operations_are_the_clients_own() {
    let lab = Lab::ruled(
        "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: reader}
spec:
  principals: [\"User:app\"]
  rules:
    - {allow: [Read], topics: [open.a]}
    - {allow: [Describe], cluster: true}
",
    );
    let mut client = lab.app().await;
    let request = MetadataRequest::default()
        .with_topics(None)
        .with_include_cluster_authorized_operations(true)
        .with_include_topic_authorized_operations(true);
    for version in 8..=10 {
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.topics.len(), 1);
        let operations = answer.topics[0].topic_authorized_operations;
        assert_eq!(operations, 1 << 3 | 1 << 8, "version {version}");
        assert_eq!(
            answer.cluster_authorized_operations,
            1 << 8,
            "version {version}"
        );
    }
    let request =
        DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let answer = client.call(0, &request).await.unwrap();
    assert_eq!(answer.cluster_authorized_operations, 1 << 8);
}

#[tokio::test]
async fn t02_a_topic_that_was_made_anew_is_judged_by_its_new_id() {
    let lab = Lab::new();
    let (mut admin, mut client) = (direct(&lab).await, lab.app().await);
    let id = async |client: &mut Client, name| {
        client.metadata(Some(&[name])).await.unwrap().topics[0].topic_id
    };
    let write = |id| {
        let mut request = produce(-1, &[("", 0, batch(&[b"x"]))]);
        request.topic_data[0].topic_id = id;
        request
    };
    let old = id(&mut client, "open.b").await;
    client.call(13, &write(old)).await.unwrap();
    let delete = DeleteTopicsRequest::default()
        .with_timeout_ms(1_000)
        .with_topic_names(vec![topic_name("open.b"), topic_name("secret.a")]);
    let gone = admin.call(5, &delete).await.unwrap();
    assert!(gone.responses.iter().all(|topic| topic.error_code == 0));
    assert!(lab.broker().create_topic("open.b", 1).is_ok());
    assert!(lab.broker().create_topic("secret.a", 1).is_ok());
    let (new, secret) = (
        id(&mut admin, "open.b").await,
        id(&mut admin, "secret.a").await,
    );
    for (id, code) in [(old, 100), (new, 0), (secret, 29)] {
        let answer = client.call(13, &write(id)).await.unwrap();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
    }
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
}

#[tokio::test]
async fn t10_nobody_is_a_follower_in_the_tagged_field_either() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let known = client.metadata(Some(&["open.a"])).await.unwrap();
    let mut request = fetch_all(&[""]);
    request.topics[0].topic_id = known.topics[0].topic_id;
    request.replica_state.replica_id = 1.into();
    for version in 15..=17 {
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(fetched(&answer)[0].2, 29, "version {version}");
    }
    assert_eq!(lab.broker().requests(1), 0);
}

#[tokio::test]
async fn t13_no_client_id_makes_an_internal_topic_writable() {
    let lab = Lab::ruled(&POLICY.replace("\"open.*\"", "\"*\""));
    let mut client = Client::connect(lab.address("app"), "__admin_client")
        .await
        .unwrap();
    for topic in ["__consumer_offsets", "__transaction_state"] {
        let answer = client.produce(topic, 0, batch(&[b"x"])).await.unwrap();
        assert_eq!(part(&answer, topic, 0).error_code, 17);
    }
    assert_eq!(lab.broker().requests(0), 0);
    // As at a broker, who may not write there is told just that.
    let lab = Lab::new();
    let mut client = lab.app().await;
    let answer = client.produce("__consumer_offsets", 0, batch(&[b"x"]));
    let answer = answer.await.unwrap();
    assert_eq!(part(&answer, "__consumer_offsets", 0).error_code, 29);
}

#[tokio::test]
async fn t22_control_batches_are_refused_and_t21_transactions_need_their_id() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    // Attributes of a batch: control is bit 5, transactional is bit 4; the checksum fits again.
    for (bit, code) in [(1 << 5, 87), (1 << 4, 53), (1 << 5 | 1 << 4, 53)] {
        let mut bytes = batch(&[b"x"]).to_vec();
        bytes[22] |= bit;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let answer = client.produce("open.a", 0, bytes.into()).await.unwrap();
        assert_eq!(part(&answer, "open.a", 0).error_code, code, "bits {bit}");
    }
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn t01_metadata_by_id_tells_no_name_that_one_may_not_see() {
    let lab = Lab::new();
    let known = direct(&lab)
        .await
        .metadata(Some(&["secret.a", "open.a"]))
        .await
        .unwrap();
    let mut client = lab.app().await;
    let random = uuid::Uuid::from_u128(99);
    let ids = [known.topics[0].topic_id, known.topics[1].topic_id, random];
    let topic = |id| {
        metadata_request::MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id)
    };
    let request = MetadataRequest::default().with_topics(Some(ids.map(topic).to_vec()));
    for version in 12..=13 {
        let answer = client.call(version, &request).await.unwrap();
        let by_id = |id| answer.topics.iter().find(|t| t.topic_id == id).unwrap();
        let seen = ids.map(|id| (by_id(id).error_code, by_id(id).name.is_some()));
        assert_eq!(
            seen,
            [(29, false), (0, true), (100, false)],
            "version {version}"
        );
    }
}

#[tokio::test]
async fn topics_are_made_and_deleted_one_by_one() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let topic = |name: &&str| {
        create_topics_request::CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let names = ["open.new", "secret.new"];
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(1_000)
        .with_topics(names.iter().map(topic).collect());
    let answer = client.call(7, &request).await.unwrap();
    let code = |name: &str| {
        answer
            .topics
            .iter()
            .find(|t| *t.name == *name)
            .unwrap()
            .error_code
    };
    assert_eq!(names.map(code), [0, 29]);
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(1_000)
        .with_topic_names(["open.new", "secret.a"].map(topic_name).to_vec());
    let answer = client.call(5, &request).await.unwrap();
    let code = |name: &str| {
        let named = |t: &&delete_topics_response::DeletableTopicResult| {
            t.name.as_ref() == Some(&topic_name(name))
        };
        answer.responses.iter().find(named).unwrap().error_code
    };
    assert_eq!(["open.new", "secret.a"].map(code), [0, 29]);
    assert_eq!(lab.broker().end_offset("open.new", 0), None);
    assert_eq!(lab.broker().end_offset("secret.a", 0), Some(0));
}

#[tokio::test]
async fn a_group_that_one_may_not_read_is_refused_by_every_call() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let group = group_id("secret.g");
    let codes = [
        client
            .call(7, &JoinGroupRequest::default().with_group_id(group.clone()))
            .await
            .unwrap()
            .error_code,
        client
            .call(3, &SyncGroupRequest::default().with_group_id(group.clone()))
            .await
            .unwrap()
            .error_code,
        client
            .call(3, &HeartbeatRequest::default().with_group_id(group.clone()))
            .await
            .unwrap()
            .error_code,
        client
            .call(
                3,
                &LeaveGroupRequest::default().with_group_id(group.clone()),
            )
            .await
            .unwrap()
            .error_code,
        client
            .call(
                5,
                &OffsetFetchRequest::default().with_group_id(group.clone()),
            )
            .await
            .unwrap()
            .error_code,
        client
            .call(
                3,
                &FindCoordinatorRequest::default().with_key(group.0.clone()),
            )
            .await
            .unwrap()
            .error_code,
        client
            .call(
                2,
                &DeleteGroupsRequest::default().with_groups_names(vec![group]),
            )
            .await
            .unwrap()
            .results[0]
            .error_code,
    ];
    assert_eq!(codes, [30; 7]);
}

#[tokio::test]
async fn producer_ids_need_a_right_to_write_something() {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let lab = Lab::new();
    let answer = lab.app().await.call(4, &request).await.unwrap();
    assert_eq!(answer.error_code, 0);
    let mut nobody = lab.authenticated("nobody").await;
    assert_eq!(nobody.call(4, &request).await.unwrap().error_code, 31);
    let id = TransactionalId("t".into());
    let request = request.with_transactional_id(Some(id));
    assert_eq!(
        lab.app().await.call(4, &request).await.unwrap().error_code,
        53
    );
}

#[tokio::test]
async fn t16_a_brokers_configuration_tells_no_address() {
    let lab = Lab::ruled(&POLICY.replace("[IdempotentWrite, Describe]", "[All]"));
    let resource = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name("1".into());
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = lab.app().await.call(4, &request).await.unwrap();
    assert_eq!(answer.results[0].error_code, 0);
    let port = lab.broker().address().port().to_string();
    assert!(!format!("{answer:?}").contains(&port), "{answer:?}");
    let answer = lab
        .authenticated("nobody")
        .await
        .call(4, &request)
        .await
        .unwrap();
    assert_eq!(answer.results[0].error_code, 31);
}

#[tokio::test]
async fn t15_all_topics_are_filtered_in_every_way_to_ask_for_them() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 0..=13 {
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let request = MetadataRequest::default().with_topics(all);
        let answer = client.call(version, &request).await.unwrap();
        let mut names: Vec<_> = answer
            .topics
            .iter()
            .map(|topic| topic.name.as_ref().unwrap().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["open.a", "open.b", "typed.a"], "version {version}");
    }
}
