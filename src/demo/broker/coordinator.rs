//! The group coordinator: FindCoordinator and the requests of classic groups, translated to and
//! from [`super::group`].

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::group::Group;
use super::member::{Answer, Joined, Joining, Phase, Synced};
use super::serve::{Call, Outcome, Peer};
use super::{Shared, code, hex, random};

/// Groups held; more are refused.
pub const GROUPS_MAX: usize = 1_000;
/// Bytes of one member's metadata, and of one assignment.
const METADATA_BYTES_MAX: usize = 1 << 20;
/// The longest session (as in Kafka), and the longest rebalance.
const TIMEOUT_MS_MAX: i32 = 1_800_000;
/// `AclOperation` codes as bits: Read, Delete, Describe, DescribeConfigs, AlterConfigs.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
/// `FindCoordinatorRequest.KeyType` of a group.
const KEY_GROUP: i8 = 0;

/// Answers FindCoordinator: this broker, for groups.
pub fn find(shared: &Shared, peer: &Peer, call: &Call) -> Option<Outcome> {
    let request: FindCoordinatorRequest = call.decode()?;
    let node = BrokerId(shared.settings.node_id);
    let found = request.key_type == KEY_GROUP;
    let error = if found {
        code::NONE
    } else {
        code::INVALID_REQUEST
    };
    let message = (!found)
        .then(|| StrBytes::from_static_str("the embedded broker coordinates classic groups only"));
    let (id, host, port) = if found {
        (node, peer.advertised_host.clone(), peer.advertised_port)
    } else {
        (BrokerId(-1), StrBytes::new(), -1)
    };
    let response = if call.version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(id)
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(error)
                .with_error_message(message.clone())
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    } else {
        FindCoordinatorResponse::default()
            .with_error_code(error)
            .with_error_message(message)
            .with_node_id(id)
            .with_host(host)
            .with_port(port)
    };
    Some(call.reply(&response))
}

/// Answers JoinGroup, when the whole group has joined.
pub async fn join(shared: &Shared, peer: &Peer, call: &Call) -> Option<Outcome> {
    let request: JoinGroupRequest = call.decode()?;
    let answer = start_join(shared, peer, call, &request)?;
    let joined = match answer {
        Answer::Now(joined) => joined,
        Answer::Later(receiver) => receiver.await.unwrap_or_else(|_| Joined {
            error: code::UNKNOWN_MEMBER_ID,
            generation: -1,
            ..Joined::default()
        }),
    };
    let member = |(id, instance, metadata): (String, Option<String>, Bytes)| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(id))
            .with_metadata(metadata);
        if call.version >= 5 {
            member.with_group_instance_id(instance.map(StrBytes::from_string))
        } else {
            member
        }
    };
    let mut response = JoinGroupResponse::default()
        .with_error_code(joined.error)
        .with_generation_id(joined.generation)
        .with_leader(StrBytes::from_string(joined.leader))
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect());
    let protocol = joined.protocol.map(StrBytes::from_string);
    if call.version >= 7 {
        response.protocol_type = joined.protocol_type.map(StrBytes::from_string);
        response.protocol_name = protocol;
    } else {
        response.protocol_name = Some(protocol.unwrap_or_default());
    }
    Some(call.reply(&response))
}

fn start_join(
    shared: &Shared,
    peer: &Peer,
    call: &Call,
    request: &JoinGroupRequest,
) -> Option<Answer<Joined>> {
    let refuse = |error| {
        Some(Answer::Now(Joined {
            error,
            generation: -1,
            member_id: request.member_id.to_string(),
            ..Joined::default()
        }))
    };
    let sizes = request.protocols.iter().map(|p| p.metadata.len());
    if request.group_id.is_empty() {
        return refuse(code::INVALID_GROUP_ID);
    }
    if !(1..=TIMEOUT_MS_MAX).contains(&request.session_timeout_ms) {
        return refuse(code::INVALID_SESSION_TIMEOUT);
    }
    if sizes.sum::<usize>() > METADATA_BYTES_MAX {
        return refuse(code::INVALID_REQUEST);
    }
    let rebalance_ms = match call.version {
        0 => request.session_timeout_ms,
        _ => request.rebalance_timeout_ms,
    };
    let joining = Joining {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(|i| i.to_string()),
        client_id: call.client_id.clone(),
        client_host: format!("/{}", peer.client_host),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance_ms.min(TIMEOUT_MS_MAX)),
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata)))
            .collect(),
        id_required: call.version >= 4,
    };
    let prefix = joining.instance_id.as_deref().unwrap_or(&call.client_id);
    let new_id = format!("{prefix}-{}", hex(&random::<16>().ok()?));
    let mut state = shared.state();
    let name = request.group_id.to_string();
    if !state.groups.contains_key(&name) {
        if !joining.member_id.is_empty() {
            return refuse(code::UNKNOWN_MEMBER_ID);
        }
        if state.groups.len() >= GROUPS_MAX {
            return refuse(code::GROUP_MAX_SIZE_REACHED);
        }
    }
    let group = state.groups.entry(name).or_default();
    Some(group.join(joining, new_id, crate::clock::now()))
}

/// Answers SyncGroup, when the leader has brought the assignment.
pub async fn sync(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: SyncGroupRequest = call.decode()?;
    let answer = {
        let mut state = shared.state();
        match state.groups.get_mut(request.group_id.as_str()) {
            None => Answer::Now(Synced {
                error: code::UNKNOWN_MEMBER_ID,
                assignment: Bytes::new(),
            }),
            Some(group) => {
                let small = |a: &Bytes| a.len() <= METADATA_BYTES_MAX;
                let assignments = request.assignments.iter();
                let assignments = assignments.filter(|a| small(&a.assignment)).map(|a| {
                    let assignment = Bytes::copy_from_slice(&a.assignment);
                    (a.member_id.to_string(), assignment)
                });
                group.sync(
                    &request.member_id,
                    request.group_instance_id.as_deref(),
                    request.generation_id,
                    request.protocol_name.as_deref(),
                    assignments.collect(),
                    crate::clock::now(),
                )
            }
        }
    };
    let synced = match answer {
        Answer::Now(synced) => synced,
        Answer::Later(receiver) => receiver.await.unwrap_or_else(|_| Synced {
            error: code::UNKNOWN_MEMBER_ID,
            assignment: Bytes::new(),
        }),
    };
    let mut response = SyncGroupResponse::default()
        .with_error_code(synced.error)
        .with_assignment(synced.assignment);
    if call.version >= 5 && synced.error == code::NONE {
        response.protocol_type = request.protocol_type;
        response.protocol_name = request.protocol_name;
    }
    Some(call.reply(&response))
}

/// Answers Heartbeat.
pub fn heartbeat(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: HeartbeatRequest = call.decode()?;
    let mut state = shared.state();
    let error = match state.groups.get_mut(request.group_id.as_str()) {
        None => code::UNKNOWN_MEMBER_ID,
        Some(group) => group.heartbeat(
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
            crate::clock::now(),
        ),
    };
    Some(call.reply(&HeartbeatResponse::default().with_error_code(error)))
}

/// Answers LeaveGroup, for one member or (from v3) several.
pub fn leave(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: LeaveGroupRequest = call.decode()?;
    let now = crate::clock::now();
    let mut state = shared.state();
    let mut group = state.groups.get_mut(request.group_id.as_str());
    let mut leave = |id: &str, instance: Option<&str>| match &mut group {
        None => code::UNKNOWN_MEMBER_ID,
        Some(group) => group.leave(id, instance, now),
    };
    let response = if call.version < 3 {
        LeaveGroupResponse::default().with_error_code(leave(&request.member_id, None))
    } else {
        let members = request.members.into_iter().map(|member| {
            let error = leave(&member.member_id, member.group_instance_id.as_deref());
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(error)
        });
        LeaveGroupResponse::default().with_members(members.collect())
    };
    Some(call.reply(&response))
}

/// Answers DescribeGroups; a group that is not there is `Dead`.
pub fn describe(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: DescribeGroupsRequest = call.decode()?;
    let state = shared.state();
    let groups = request.groups.iter().map(|id| {
        let mut described = match state.groups.get(id.as_str()) {
            Some(group) => described(group, call.version),
            None if call.version >= 6 => DescribedGroup::default()
                .with_group_state("Dead".into())
                .with_error_code(code::GROUP_ID_NOT_FOUND)
                .with_error_message(Some("the group does not exist".into())),
            None => DescribedGroup::default().with_group_state("Dead".into()),
        };
        if request.include_authorized_operations {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        described.with_group_id(id.clone())
    });
    Some(call.reply(&DescribeGroupsResponse::default().with_groups(groups.collect())))
}

fn described(group: &Group, version: i16) -> DescribedGroup {
    let members = group.members.iter().map(|(id, member)| {
        let joining = &member.joining;
        let chosen = joining.protocols.iter().find(|(n, _)| *n == group.protocol);
        let stable = group.phase == Phase::Stable;
        let mut described = DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(id.clone()))
            .with_client_id(StrBytes::from_string(joining.client_id.clone()))
            .with_client_host(StrBytes::from_string(joining.client_host.clone()));
        if stable && let Some((_, metadata)) = chosen {
            described.member_metadata = metadata.clone();
            described.member_assignment = member.assignment.clone();
        }
        if version >= 4 {
            described.group_instance_id = joining.instance_id.clone().map(StrBytes::from_string);
        }
        described
    });
    DescribedGroup::default()
        .with_group_state(group.phase.name().into())
        .with_protocol_type(StrBytes::from_string(group.protocol_type.clone()))
        .with_protocol_data(StrBytes::from_string(group.protocol.clone()))
        .with_members(members.collect())
}

/// Answers ListGroups; every group here is a classic one.
pub fn list(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: ListGroupsRequest = call.decode()?;
    let passes = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
    };
    let state = shared.state();
    let groups = state.groups.iter().filter(|(_, group)| {
        passes(&request.states_filter, group.phase.name())
            && passes(&request.types_filter, "classic")
    });
    let groups = groups.map(|(id, group)| {
        let mut listed = ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(id.clone())))
            .with_protocol_type(StrBytes::from_string(group.protocol_type.clone()));
        if call.version >= 4 {
            listed.group_state = group.phase.name().into();
        }
        if call.version >= 5 {
            listed.group_type = "classic".into();
        }
        listed
    });
    Some(call.reply(&ListGroupsResponse::default().with_groups(groups.collect())))
}

/// Answers DeleteGroups: only groups without members go.
pub fn delete(shared: &Shared, call: &Call) -> Option<Outcome> {
    let request: DeleteGroupsRequest = call.decode()?;
    let mut state = shared.state();
    let results = request.groups_names.into_iter().map(|id| {
        let error = match state.groups.get(id.as_str()) {
            None => code::GROUP_ID_NOT_FOUND,
            Some(group) if group.phase != Phase::Empty => code::NON_EMPTY_GROUP,
            Some(_) => {
                state.groups.remove(id.as_str());
                code::NONE
            }
        };
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(error)
    });
    let response = DeleteGroupsResponse::default().with_results(results.collect());
    Some(call.reply(&response))
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
