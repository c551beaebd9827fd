//! Classic groups with two members over real sockets.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use kordon::demo::broker::code;
use kordon::demo::client::{Client, topic_name};

use super::{broker, connect};

fn group() -> GroupId {
    GroupId("ai-service-group".into())
}

async fn join(client: &mut Client, member: &StrBytes) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(Bytes::from_static(b"subscription"));
    let request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(2_000)
        .with_rebalance_timeout_ms(2_000)
        .with_member_id(member.clone())
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    client.call(9, &request).await.unwrap()
}

/// Joins as a new member, with the detour by which it is told its id.
async fn enter(client: &mut Client) -> JoinGroupResponse {
    let told = join(client, &StrBytes::new()).await;
    assert_eq!(told.error_code, code::MEMBER_ID_REQUIRED);
    join(client, &told.member_id).await
}

async fn heartbeat(client: &mut Client, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    client.call(4, &request).await.unwrap().error_code
}

fn sync(joined: &JoinGroupResponse, assignments: &[(&StrBytes, &'static str)]) -> SyncGroupRequest {
    let assignment = |(id, bytes): &(&StrBytes, &'static str)| {
        SyncGroupRequestAssignment::default()
            .with_member_id((*id).clone())
            .with_assignment(Bytes::from(*bytes))
    };
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(Some("consumer".into()))
        .with_protocol_name(Some("range".into()))
        .with_assignments(assignments.iter().map(assignment).collect())
}

#[tokio::test]
async fn two_consumers_share_a_topic_through_a_rebalance() {
    let broker = broker().await;
    broker.create_topic("workflow.requested", 2).unwrap();
    let mut a = connect(broker.address()).await;
    let mut b = connect(broker.address()).await;

    // The first is alone.
    let alone = enter(&mut a).await;
    assert_eq!((alone.error_code, alone.generation_id), (0, 1));
    assert_eq!(alone.leader, alone.member_id);
    let synced = a
        .call(5, &sync(&alone, &[(&alone.member_id, "both")]))
        .await
        .unwrap();
    assert_eq!(
        (synced.error_code, &synced.assignment[..]),
        (0, &b"both"[..])
    );
    assert_eq!(heartbeat(&mut a, &alone).await, code::NONE);

    // The second arrives; the first is asked to join again.
    let entering = tokio::spawn(async move {
        let joined = enter(&mut b).await;
        (b, joined)
    });
    while heartbeat(&mut a, &alone).await != code::REBALANCE_IN_PROGRESS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let leader = join(&mut a, &alone.member_id).await;
    let (mut b, follower) = entering.await.unwrap();
    assert_eq!((leader.generation_id, follower.generation_id), (2, 2));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    assert_eq!(leader.members[0].metadata, "subscription");
    let waiting = sync(&follower, &[]);
    let following = tokio::spawn(async move {
        let synced = b.call(5, &waiting).await.unwrap();
        (b, synced)
    });
    let parts = [(&leader.member_id, "0"), (&follower.member_id, "1")];
    let own = a.call(5, &sync(&leader, &parts)).await.unwrap();
    let (mut b, others) = following.await.unwrap();
    assert_eq!(
        (&own.assignment[..], &others.assignment[..]),
        (&b"0"[..], &b"1"[..])
    );

    // It is described as it is.
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let described = a.call(5, &describe).await.unwrap();
    assert_eq!(described.groups[0].group_state.as_str(), "Stable");
    assert_eq!(described.groups[0].members.len(), 2);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let refused = a.call(2, &delete).await.unwrap();
    assert_eq!(refused.results[0].error_code, code::NON_EMPTY_GROUP);

    // The second commits and leaves; the first, silent, is thrown out.
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(41);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("workflow.requested"))
        .with_partitions(vec![
            partition.clone(),
            partition.with_partition_index(9), // there are two
        ]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(2)
        .with_member_id(follower.member_id.clone())
        .with_topics(vec![topic]);
    let committed = b.call(9, &commit).await.unwrap();
    let errors: Vec<i16> = committed.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(errors, [code::NONE, code::UNKNOWN_TOPIC_OR_PARTITION]);
    let leave = LeaveGroupRequest::default()
        .with_group_id(group())
        .with_member_id(follower.member_id.clone());
    assert_eq!(b.call(2, &leave).await.unwrap().error_code, code::NONE);
    for _ in 0..200 {
        let described = b.call(5, &describe).await.unwrap();
        if described.groups[0].group_state.as_str() == "Empty" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(heartbeat(&mut a, &leader).await, code::UNKNOWN_MEMBER_ID);

    // The offset is still there, until the group is deleted.
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics(None);
    let fetch = OffsetFetchRequest::default().with_groups(vec![wanted]);
    let found = b.call(9, &fetch).await.unwrap();
    let topic = &found.groups[0].topics[0];
    assert_eq!(topic.name, topic_name("workflow.requested"));
    assert_eq!(topic.partitions[0].committed_offset, 41);
    let deleted = b.call(2, &delete).await.unwrap();
    assert_eq!(deleted.results[0].error_code, code::NONE);
    let found = b.call(9, &fetch).await.unwrap();
    assert!(found.groups[0].topics.is_empty());
}
