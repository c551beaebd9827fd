//! The texts of the layout table, one file for each API that has a version in use; read when
//! first asked for, so that a process pays only for the APIs it meets.

use std::sync::OnceLock;

use crate::wire::layout::{self, Layout};

/// One more than the highest API key of the table.
pub const KEYS: usize = 93;

/// The layout of an API; `None` for a key without one (retired, or above the table).
pub fn layout(key: i16) -> Option<&'static Layout> {
    static READ: [OnceLock<Option<Layout>>; KEYS] = [const { OnceLock::new() }; KEYS];
    let index = usize::try_from(key).ok()?;
    // INVARIANT: every text of the table is read by a test below, so none fails here.
    let read = || {
        TEXTS
            .get(index)
            .and_then(|text| layout::parse((*text)?).ok())
    };
    READ.get(index)?.get_or_init(read).as_ref()
}

const TEXTS: [Option<&str>; KEYS] = [
    Some(include_str!("layouts/00_produce.layout")),
    Some(include_str!("layouts/01_fetch.layout")),
    Some(include_str!("layouts/02_list_offsets.layout")),
    Some(include_str!("layouts/03_metadata.layout")),
    None, // retired
    None, // retired
    None, // retired
    None, // retired
    Some(include_str!("layouts/08_offset_commit.layout")),
    Some(include_str!("layouts/09_offset_fetch.layout")),
    Some(include_str!("layouts/10_find_coordinator.layout")),
    Some(include_str!("layouts/11_join_group.layout")),
    Some(include_str!("layouts/12_heartbeat.layout")),
    Some(include_str!("layouts/13_leave_group.layout")),
    Some(include_str!("layouts/14_sync_group.layout")),
    Some(include_str!("layouts/15_describe_groups.layout")),
    Some(include_str!("layouts/16_list_groups.layout")),
    Some(include_str!("layouts/17_sasl_handshake.layout")),
    Some(include_str!("layouts/18_api_versions.layout")),
    Some(include_str!("layouts/19_create_topics.layout")),
    Some(include_str!("layouts/20_delete_topics.layout")),
    Some(include_str!("layouts/21_delete_records.layout")),
    Some(include_str!("layouts/22_init_producer_id.layout")),
    Some(include_str!("layouts/23_offset_for_leader_epoch.layout")),
    Some(include_str!("layouts/24_add_partitions_to_txn.layout")),
    Some(include_str!("layouts/25_add_offsets_to_txn.layout")),
    Some(include_str!("layouts/26_end_txn.layout")),
    Some(include_str!("layouts/27_write_txn_markers.layout")),
    Some(include_str!("layouts/28_txn_offset_commit.layout")),
    Some(include_str!("layouts/29_describe_acls.layout")),
    Some(include_str!("layouts/30_create_acls.layout")),
    Some(include_str!("layouts/31_delete_acls.layout")),
    Some(include_str!("layouts/32_describe_configs.layout")),
    Some(include_str!("layouts/33_alter_configs.layout")),
    Some(include_str!("layouts/34_alter_replica_log_dirs.layout")),
    Some(include_str!("layouts/35_describe_log_dirs.layout")),
    Some(include_str!("layouts/36_sasl_authenticate.layout")),
    Some(include_str!("layouts/37_create_partitions.layout")),
    Some(include_str!("layouts/38_create_delegation_token.layout")),
    Some(include_str!("layouts/39_renew_delegation_token.layout")),
    Some(include_str!("layouts/40_expire_delegation_token.layout")),
    Some(include_str!("layouts/41_describe_delegation_token.layout")),
    Some(include_str!("layouts/42_delete_groups.layout")),
    Some(include_str!("layouts/43_elect_leaders.layout")),
    Some(include_str!("layouts/44_incremental_alter_configs.layout")),
    Some(include_str!(
        "layouts/45_alter_partition_reassignments.layout"
    )),
    Some(include_str!(
        "layouts/46_list_partition_reassignments.layout"
    )),
    Some(include_str!("layouts/47_offset_delete.layout")),
    Some(include_str!("layouts/48_describe_client_quotas.layout")),
    Some(include_str!("layouts/49_alter_client_quotas.layout")),
    Some(include_str!(
        "layouts/50_describe_user_scram_credentials.layout"
    )),
    Some(include_str!(
        "layouts/51_alter_user_scram_credentials.layout"
    )),
    Some(include_str!("layouts/52_vote.layout")),
    Some(include_str!("layouts/53_begin_quorum_epoch.layout")),
    Some(include_str!("layouts/54_end_quorum_epoch.layout")),
    Some(include_str!("layouts/55_describe_quorum.layout")),
    Some(include_str!("layouts/56_alter_partition.layout")),
    Some(include_str!("layouts/57_update_features.layout")),
    Some(include_str!("layouts/58_envelope.layout")),
    Some(include_str!("layouts/59_fetch_snapshot.layout")),
    Some(include_str!("layouts/60_describe_cluster.layout")),
    Some(include_str!("layouts/61_describe_producers.layout")),
    Some(include_str!("layouts/62_broker_registration.layout")),
    Some(include_str!("layouts/63_broker_heartbeat.layout")),
    Some(include_str!("layouts/64_unregister_broker.layout")),
    Some(include_str!("layouts/65_describe_transactions.layout")),
    Some(include_str!("layouts/66_list_transactions.layout")),
    Some(include_str!("layouts/67_allocate_producer_ids.layout")),
    Some(include_str!("layouts/68_consumer_group_heartbeat.layout")),
    Some(include_str!("layouts/69_consumer_group_describe.layout")),
    Some(include_str!("layouts/70_controller_registration.layout")),
    Some(include_str!(
        "layouts/71_get_telemetry_subscriptions.layout"
    )),
    Some(include_str!("layouts/72_push_telemetry.layout")),
    Some(include_str!("layouts/73_assign_replicas_to_dirs.layout")),
    Some(include_str!("layouts/74_list_config_resources.layout")),
    Some(include_str!("layouts/75_describe_topic_partitions.layout")),
    Some(include_str!("layouts/76_share_group_heartbeat.layout")),
    Some(include_str!("layouts/77_share_group_describe.layout")),
    Some(include_str!("layouts/78_share_fetch.layout")),
    Some(include_str!("layouts/79_share_acknowledge.layout")),
    Some(include_str!("layouts/80_add_raft_voter.layout")),
    Some(include_str!("layouts/81_remove_raft_voter.layout")),
    Some(include_str!("layouts/82_update_raft_voter.layout")),
    Some(include_str!(
        "layouts/83_initialize_share_group_state.layout"
    )),
    Some(include_str!("layouts/84_read_share_group_state.layout")),
    Some(include_str!("layouts/85_write_share_group_state.layout")),
    Some(include_str!("layouts/86_delete_share_group_state.layout")),
    Some(include_str!(
        "layouts/87_read_share_group_state_summary.layout"
    )),
    Some(include_str!("layouts/88_streams_group_heartbeat.layout")),
    Some(include_str!("layouts/89_streams_group_describe.layout")),
    Some(include_str!(
        "layouts/90_describe_share_group_offsets.layout"
    )),
    Some(include_str!("layouts/91_alter_share_group_offsets.layout")),
    Some(include_str!("layouts/92_delete_share_group_offsets.layout")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_and_stands_at_its_key() {
        for (key, text) in TEXTS.iter().enumerate() {
            let Some(text) = text else { continue };
            let read = layout::parse(text).unwrap();
            assert_eq!(read.key as usize, key);
            assert_eq!(layout(key as i16).unwrap().request.name, read.request.name);
        }
        assert!(layout(-1).is_none() && layout(4).is_none() && layout(93).is_none());
    }
}
