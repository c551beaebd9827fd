//! Every API at every version: the answer decodes exactly, and outside the range the connection
//! closes.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kordon::demo::broker::{Broker, BrokerSettings, code};
use kordon::demo::client::{Client, ClientError, topic_name};

use super::{connect, plain};

async fn start() -> (Broker, Client) {
    let settings = BrokerSettings {
        auto_create_partitions: Some(2),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings).await.unwrap();
    broker.create_topic("t", 2).unwrap();
    let client = connect(broker.address()).await;
    (broker, client)
}

/// The beginning of a frame of a client without a name.
fn head(key: i16, version: i16, id: i32) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(id);
    frame.put_i16(-1);
    frame
}

fn group() -> GroupId {
    GroupId("g".into())
}

#[tokio::test]
async fn what_is_advertised_is_the_table() {
    let (_broker, mut client) = start().await;
    for version in 0..=4 {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name("test".into())
                .with_client_software_version("1".into());
        }
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, 21));
        let produce = answer.api_keys.iter().find(|k| k.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
}

#[tokio::test]
async fn an_unknown_api_versions_version_is_answered_in_version_0() {
    let (_broker, mut client) = start().await;
    let mut frame = head(18, 99, 77);
    frame.put_u8(0);
    client.send_raw(frame).await.unwrap();
    let answer = client.frame().await.unwrap();
    assert_eq!(
        answer[..6],
        [0, 0, 0, 77, 0, code::UNSUPPORTED_VERSION as u8]
    );
}

#[tokio::test]
async fn keys_and_versions_outside_the_table_close() {
    let (broker, mut client) = start().await;
    let listed = client
        .call(0, &ApiVersionsRequest::default())
        .await
        .unwrap();
    let mut refused = Vec::new();
    for api in &listed.api_keys {
        if api.api_key == 18 {
            continue;
        }
        refused.extend([(api.api_key, -1), (api.api_key, api.max_version + 1)]);
    }
    refused.extend([
        (0, 2),
        (24, 0),
        (26, 0),
        (68, 0),
        (76, 1),
        (500, 0),
        (-1, 0),
    ]);
    for (key, version) in refused {
        let mut client = connect(broker.address()).await;
        client.send_raw(head(key, version, 1)).await.unwrap();
        let answer = client.frame().await;
        assert!(
            matches!(answer, Err(ClientError::Closed)),
            "{key} v{version}: {answer:?}"
        );
    }
}

/// The crate's decoder would ask for 154 GB here and end the process.
#[tokio::test]
async fn a_count_that_is_only_claimed_closes_and_allocates_nothing() {
    let (broker, _) = start().await;
    for (key, version) in [(3, 1), (0, 8), (1, 11), (11, 5), (19, 4)] {
        let mut client = connect(broker.address()).await;
        let mut frame = head(key, version, 1);
        frame.put_slice(&[0x7f, 0xff, 0xff, 0xff].repeat(8)[..if key == 3 { 4 } else { 32 }]);
        client.send_raw(frame).await.unwrap();
        assert!(matches!(client.frame().await, Err(ClientError::Closed)));
    }
    connect(broker.address())
        .await
        .metadata(None)
        .await
        .unwrap();
}

/// What librdkafka 2.16 sends to list all topics, as captured: a null list, and three bytes more
/// than version 13 has. Brokers answer it.
#[tokio::test]
async fn bytes_after_a_request_are_ignored_as_at_a_broker() {
    let (_broker, mut client) = start().await;
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_slice(&[0, 3, 0, 13, 0, 0, 0, 3]);
    frame.put_slice(&[0, 7]);
    frame.put_slice(b"rdkafka");
    frame.put_slice(&[0, 0, 0, 0, 0, 1, 0, 0]);
    client.send_raw(frame).await.unwrap();
    let answer = client.frame().await.unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 3]);
    assert!(
        answer.windows(2).any(|pair| pair == [2, b't']),
        "topic `t` is listed"
    );
}

#[tokio::test]
async fn metadata_at_every_version() {
    let (broker, mut client) = start().await;
    for version in 0..=13 {
        let known = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let illegal = MetadataRequestTopic::default().with_name(Some(topic_name("a b")));
        let mut request = MetadataRequest::default().with_topics(Some(vec![known, illegal]));
        if version >= 8 {
            request.include_topic_authorized_operations = true;
            request.include_cluster_authorized_operations = version <= 10;
        }
        let answer = client.call(version, &request).await.unwrap();
        let broker_here = &answer.brokers[0];
        assert_eq!(broker_here.port, i32::from(broker.address().port()));
        let errors: Vec<i16> = answer.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(errors, [0, code::INVALID_TOPIC_EXCEPTION], "v{version}");
        assert_eq!(answer.topics[0].partitions.len(), 2);
        if version >= 1 {
            let all = MetadataRequest::default().with_topics(None);
            let answer = client.call(version, &all).await.unwrap();
            assert_eq!(answer.topics.len(), 1, "v{version}");
        }
    }
    let new = MetadataRequestTopic::default().with_name(Some(topic_name("made")));
    let request = MetadataRequest::default().with_topics(Some(vec![new]));
    let unwanted = request.clone().with_allow_auto_topic_creation(false);
    let answer = client.call(12, &unwanted).await.unwrap();
    assert_eq!(
        answer.topics[0].error_code,
        code::UNKNOWN_TOPIC_OR_PARTITION
    );
    // It is made, which the first answer cannot say yet, as with Kafka's broker.
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(
        answer.topics[0].error_code,
        code::UNKNOWN_TOPIC_OR_PARTITION
    );
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(answer.topics[0].partitions.len(), 2);
    let id = answer.topics[0].topic_id;
    let by_id = MetadataRequestTopic::default()
        .with_topic_id(id)
        .with_name(Some(topic_name(""))); // as Java's admin client sends it
    let unknown = MetadataRequestTopic::default()
        .with_topic_id(uuid(9))
        .with_name(None);
    let request = MetadataRequest::default().with_topics(Some(vec![by_id, unknown]));
    let answer = client.call(12, &request).await.unwrap();
    assert_eq!(answer.topics[0].name, Some(topic_name("made")));
    assert_eq!(answer.topics[1].error_code, code::UNKNOWN_TOPIC_ID);
}

#[tokio::test]
async fn records_at_every_version() {
    let (broker, mut client) = start().await;
    let id = client.metadata(Some(&["t"])).await.unwrap().topics[0].topic_id;
    for version in 3..=13 {
        let mut topic = TopicProduceData::default();
        if version >= 13 {
            topic.topic_id = id;
        } else {
            topic.name = topic_name("t");
        }
        let good = PartitionProduceData::default().with_records(Some(plain(1)));
        let bad = good.clone().with_index(7);
        topic.partition_data = vec![good, bad];
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_topic_data(vec![topic]);
        let answer = client.call(version, &request).await.unwrap();
        let parts = &answer.responses[0].partition_responses;
        assert_eq!(parts[0].error_code, 0, "v{version}");
        assert_eq!(parts[0].base_offset, i64::from(version) - 3);
        assert_eq!(parts[1].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    for version in 4..=17 {
        let mut topic = FetchTopic::default();
        if version >= 13 {
            topic.topic_id = id;
        } else {
            topic.topic = topic_name("t");
        }
        let good = FetchPartition::default().with_partition_max_bytes(1);
        let bad = good.clone().with_partition(7);
        topic.partitions = vec![good, bad];
        let mut request = FetchRequest::default()
            .with_max_bytes(1)
            .with_topics(vec![topic]);
        if version < 15 {
            request.replica_id = (-1).into();
        }
        let answer = client.call(version, &request).await.unwrap();
        let parts = &answer.responses[0].partitions;
        assert_eq!(parts[0].high_watermark, 11, "v{version}");
        assert_eq!(parts[0].records.as_ref().unwrap().len(), plain(1).len());
        assert_eq!(parts[1].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    for version in 1..=10 {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition.clone(), partition.with_partition_index(7)]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let answer = client.call(version, &request).await.unwrap();
        let parts = &answer.topics[0].partitions;
        assert_eq!((parts[0].offset, parts[0].error_code), (11, 0));
        assert_eq!(parts[1].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    for version in 0..=5 {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        let request = request.with_transactional_id(Some(TransactionalId("x".into())));
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.error_code, code::INVALID_REQUEST);
    }
    assert_eq!(broker.requests(0), 11);
}

#[tokio::test]
async fn topics_at_every_version() {
    let (_broker, mut client) = start().await;
    for version in 2..=7 {
        let name = format!("new.v{version}");
        let topic = CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let three = topic
            .clone()
            .with_name(topic_name("three"))
            .with_replication_factor(3);
        let request = CreateTopicsRequest::default().with_topics(vec![topic.clone(), three, topic]);
        let answer = client.call(version, &request).await.unwrap();
        let errors: Vec<i16> = answer.topics.iter().map(|t| t.error_code).collect();
        let twice = code::INVALID_REQUEST;
        assert_eq!(errors, [twice, code::INVALID_REPLICATION_FACTOR, twice]);
        let once = request.clone().with_topics(request.topics[..1].to_vec());
        let checked = once.clone().with_validate_only(true);
        let answer = client.call(version, &checked).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 0, "v{version}");
        let answer = client.call(version, &once).await.unwrap();
        assert_eq!(answer.topics[0].error_code, 0, "v{version}");
        let answer = client.call(version, &once).await.unwrap();
        assert_eq!(answer.topics[0].error_code, code::TOPIC_ALREADY_EXISTS);
    }
    for version in 0..=3 {
        let grown = CreatePartitionsTopic::default()
            .with_name(topic_name("new.v2"))
            .with_count(3 + i32::from(version))
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![grown.clone(), grown]);
        let answer = client.call(version, &request).await.unwrap();
        let errors: Vec<i16> = answer.results.iter().map(|t| t.error_code).collect();
        assert_eq!(errors, [0, code::INVALID_PARTITIONS], "v{version}");
    }
    for version in 1..=4 {
        let resource = |kind, name: &'static str| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(name.into())
                .with_configuration_keys(None)
        };
        let request = DescribeConfigsRequest::default()
            .with_include_synonyms(true)
            .with_resources(vec![
                resource(2, "t"),
                resource(2, "missing"),
                resource(4, "1"),
                resource(4, "2"),
            ]);
        let answer = client.call(version, &request).await.unwrap();
        let sizes: Vec<(i16, usize)> = answer
            .results
            .iter()
            .map(|r| (r.error_code, r.configs.len()))
            .collect();
        let unknown = (code::UNKNOWN_TOPIC_OR_PARTITION, 0);
        let expected = [(0, 7), unknown, (0, 7), (code::INVALID_REQUEST, 0)];
        assert_eq!(sizes, expected, "v{version}");
    }
    for version in 1..=6 {
        let names = [format!("new.v{}", version + 1), "missing".to_owned()];
        let request = if version >= 6 {
            let topic = |n: &String| DeleteTopicState::default().with_name(Some(topic_name(n)));
            DeleteTopicsRequest::default().with_topics(names.iter().map(topic).collect())
        } else {
            let names = names.iter().map(|n| topic_name(n)).collect();
            DeleteTopicsRequest::default().with_topic_names(names)
        };
        let answer = client.call(version, &request).await.unwrap();
        let errors: Vec<i16> = answer.responses.iter().map(|t| t.error_code).collect();
        assert_eq!(errors, [0, code::UNKNOWN_TOPIC_OR_PARTITION], "v{version}");
    }
    for version in 0..=2 {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!((answer.error_code, answer.brokers.len()), (0, 1));
        if version >= 1 {
            let controllers = request.with_endpoint_type(2);
            let answer = client.call(version, &controllers).await;
            assert_eq!(answer.unwrap().error_code, code::INVALID_REQUEST);
        }
    }
}

#[tokio::test]
async fn groups_at_every_version() {
    let (broker, mut client) = start().await;
    for version in 0..=6 {
        let mut request = FindCoordinatorRequest::default();
        if version >= 4 {
            request.coordinator_keys = vec!["g".into()];
        } else {
            request.key = "g".into();
        }
        let answer = client.call(version, &request).await.unwrap();
        let port = match version {
            4.. => answer.coordinators[0].port,
            _ => answer.port,
        };
        assert_eq!(port, i32::from(broker.address().port()), "v{version}");
        if version >= 1 {
            let transaction = request.with_key_type(1);
            let answer = client.call(version, &transaction).await.unwrap();
            let error = match version {
                4.. => answer.coordinators[0].error_code,
                _ => answer.error_code,
            };
            assert_eq!(error, code::INVALID_REQUEST);
        }
    }
    for version in 2..=9 {
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(5)
            .with_committed_metadata(Some("m".into()));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_topics(vec![topic]);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "v{version}");
    }
    for version in 1..=9 {
        let found = if version >= 8 {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(vec![0, 1]);
            let wanted = OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]));
            let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
            let answer = client.call(version, &request).await.unwrap();
            let parts = answer.groups[0].topics[0].partitions.iter();
            parts.map(|p| p.committed_offset).collect::<Vec<_>>()
        } else {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(vec![0, 1]);
            let request = OffsetFetchRequest::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]));
            let answer = client.call(version, &request).await.unwrap();
            let parts = answer.topics[0].partitions.iter();
            parts.map(|p| p.committed_offset).collect()
        };
        assert_eq!(found, [5, -1], "v{version}");
    }
    for version in 0..=9 {
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(6_000)
            .with_member_id("stranger".into())
            .with_protocol_type("consumer".into())
            .with_protocols(vec![Default::default()]);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.error_code, code::UNKNOWN_MEMBER_ID, "v{version}");
    }
    for version in 0..=5 {
        let request = SyncGroupRequest::default().with_group_id(group());
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.error_code, code::UNKNOWN_MEMBER_ID, "v{version}");
        let mut request = LeaveGroupRequest::default().with_group_id(group());
        if version >= 3 {
            let member = MemberIdentity::default().with_member_id("stranger".into());
            request.members = vec![member];
        } else {
            request.member_id = "stranger".into();
        }
        let answer = client.call(version, &request).await.unwrap();
        let error = match version {
            3.. => answer.members[0].error_code,
            _ => answer.error_code,
        };
        assert_eq!(error, code::UNKNOWN_MEMBER_ID, "v{version}");
        let all = ListGroupsRequest::default();
        let answer = client.call(version, &all).await.unwrap();
        assert_eq!(answer.groups.len(), 1, "v{version}");
    }
    for version in 0..=4 {
        let request = HeartbeatRequest::default().with_group_id(group());
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.error_code, code::UNKNOWN_MEMBER_ID, "v{version}");
    }
    for version in 0..=6 {
        let groups = vec![group(), GroupId("none".into())];
        let request = DescribeGroupsRequest::default().with_groups(groups);
        let answer = client.call(version, &request).await.unwrap();
        let states: Vec<_> = answer.groups.iter().map(|g| &*g.group_state).collect();
        assert_eq!(states, ["Empty", "Dead"], "v{version}");
    }
    for version in 0..=2 {
        let names = vec![GroupId("none".into())];
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(answer.results[0].error_code, code::GROUP_ID_NOT_FOUND);
    }
}

fn uuid(seed: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([seed; 16])
}
