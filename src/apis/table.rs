//! The table: one row for every API key from 0 to 92, retired, inter-broker and refused ones
//! included. Versions are the stable ones of Kafka 4.3, reviewed; a test holds them against the
//! layouts, so that a new version is an error until somebody has read what it changes.

use super::Access::{Answered as Reply, Cluster, Named, Never, Open, Rules};
use super::Phase::{BrokerOnly, Client, Handshake, Retired};
use super::Refuse::{Each, Own, Top, TopAndEach, Unused};
use super::Words::{Null, OfCode};
use super::errors::DELEGATION_TOKEN_AUTH_DISABLED;
use super::{Access, Api, KEYS, Phase, Refuse, Words};
use super::{
    acls, cluster, configs, fetch, groups, metadata, partitions, produce, rules, topics,
    transactions, versions,
};
use crate::policy::model::Operation::{
    Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write,
};
use crate::policy::model::ResourceKind::{Group, TransactionalId};
use crate::wire::layout::Versions;

const RAFT: &str = "controllers talk to each other";
const BROKERS: &str = "brokers talk to each other";
const CONTROLLER: &str = "brokers talk to controllers";
const GONE: &str = "gone with ZooKeeper";
const TOKENS: &str =
    "a delegation token made through a shared identity would carry that identity's power";
const LISTED: &str = "answered from the policies in force";
const FILES: &str = "refused with error 44: ACLs are policy files";
const TELEMETRY: &str = "a broker asks no permission either; metrics go to the broker's plugin";

/// One row.
#[allow(clippy::too_many_arguments)] // a row is read as a line of a table
const fn row(
    key: i16,
    name: &'static str,
    versions: (i16, i16),
    phase: Phase,
    access: Access,
    refuse: Refuse,
) -> Api {
    let versions = Versions {
        min: versions.0,
        max: versions.1,
    };
    Api {
        key,
        name,
        versions,
        phase,
        access,
        refuse,
        filter: None,
        words: Words::Unset,
    }
}

impl Api {
    const fn filtered(mut self, filter: fn(&mut super::Answered)) -> Api {
        self.filter = Some(filter);
        self
    }

    const fn saying(mut self, words: Words) -> Api {
        self.words = words;
        self
    }
}

/// The rows, by key.
#[rustfmt::skip]
pub static TABLE: [Api; KEYS] = [
    row(0, "Produce", (3, 13), Client, Named(produce::judge), Each("TopicData", "Responses")),
    row(1, "Fetch", (4, 18), Client, Named(fetch::judge), Each("Topics", "Responses")),
    row(2, "ListOffsets", (1, 11), Client, Named(topics::list_offsets), Each("Topics", "Topics")),
    row(3, "Metadata", (0, 13), Client, Named(metadata::judge), Unused)
        .filtered(metadata::filter),
    row(4, "LeaderAndIsr", NO_VERSION, Retired, Never(GONE), Unused),
    row(5, "StopReplica", NO_VERSION, Retired, Never(GONE), Unused),
    row(6, "UpdateMetadata", NO_VERSION, Retired, Never(GONE), Unused),
    row(7, "ControlledShutdown", NO_VERSION, Retired, Never(GONE), Unused),
    row(8, "OffsetCommit", (2, 10), Client, Named(|q| {
        q.need(Read, Group, "GroupId")?;
        q.strip_topics("Topics", Read, "Topics")
    }), Each("Topics", "Topics")),
    row(9, "OffsetFetch", (1, 10), Client, Named(groups::offset_fetch),
        Own(groups::refuse_offset_fetch))
        .filtered(groups::filter_offset_fetch),
    row(10, "FindCoordinator", (0, 6), Client, Named(groups::find_coordinator), Unused)
        .saying(OfCode),
    row(11, "JoinGroup", (0, 9), Client, Named(|q| q.need(Read, Group, "GroupId")),
        Own(groups::refuse_join)),
    row(12, "Heartbeat", (0, 4), Client, Named(|q| q.need(Read, Group, "GroupId")), Top),
    row(13, "LeaveGroup", (0, 5), Client, Named(|q| q.need(Read, Group, "GroupId")), Top),
    row(14, "SyncGroup", (0, 5), Client, Named(groups::sync), Top),
    row(15, "DescribeGroups", (0, 6), Client,
        Named(|q| q.strip_names("Groups", Describe, Group, "Groups")), Unused),
    row(16, "ListGroups", (0, 5), Client, Open("the answer is filtered group by group"), Unused)
        .filtered(groups::filter_list_groups),
    row(17, "SaslHandshake", (0, 1), Handshake, Open("authentication"), Top),
    row(18, "ApiVersions", (0, 4), Handshake, Open("needed before authentication"), Top)
        .filtered(versions::intersect),
    row(19, "CreateTopics", (2, 7), Client, Named(topics::create), Each("Topics", "Topics"))
        .filtered(topics::filter_create),
    row(20, "DeleteTopics", (1, 6), Client, Named(topics::delete), Unused).saying(OfCode),
    row(21, "DeleteRecords", (0, 2), Client,
        Named(|q| topics::strip_with_watermark(q, Delete)), Each("Topics", "Topics")),
    row(22, "InitProducerId", (0, 5), Client, Named(transactions::init_producer_id),
        Own(transactions::refuse_init_producer_id)),
    row(23, "OffsetForLeaderEpoch", (2, 4), Client, Named(topics::offset_for_leader_epoch),
        Each("Topics", "Topics")),
    // Versions 4 and 5 are the brokers' own (KIP-890): a client never needs them.
    row(24, "AddPartitionsToTxn", (0, 3), Client, Named(transactions::add_partitions),
        Each("V3AndBelowTopics", "ResultsByTopicV3AndBelow")),
    row(25, "AddOffsetsToTxn", (0, 4), Client, Named(|q| {
        q.need(Write, TransactionalId, "TransactionalId")?;
        q.need(Read, Group, "GroupId")
    }), Top),
    row(26, "EndTxn", (0, 5), Client,
        Named(|q| q.need(Write, TransactionalId, "TransactionalId")), Top),
    row(27, "WriteTxnMarkers", (1, 2), Client, Cluster(Alter), Own(transactions::refuse_markers)),
    row(28, "TxnOffsetCommit", (0, 5), Client, Named(|q| {
        q.need(Write, TransactionalId, "TransactionalId")?;
        q.need(Read, Group, "GroupId")?;
        q.strip_topics("Topics", Read, "Topics")
    }), Each("Topics", "Topics")),
    row(29, "DescribeAcls", (1, 3), Client, Rules(Describe, acls::describe, LISTED), Top)
        .saying(OfCode),
    row(30, "CreateAcls", (1, 3), Client, Rules(Alter, acls::create, FILES),
        Each("Creations", "Results"))
        .saying(OfCode),
    row(31, "DeleteAcls", (1, 3), Client, Rules(Alter, acls::delete, FILES),
        Each("Filters", "FilterResults"))
        .saying(OfCode),
    row(32, "DescribeConfigs", (1, 4), Client, Named(configs::describe), Unused)
        .filtered(configs::hide_addresses)
        .saying(OfCode),
    row(33, "AlterConfigs", (0, 2), Client, Named(configs::alter), Unused).saying(OfCode),
    row(34, "AlterReplicaLogDirs", (1, 2), Client, Cluster(Alter),
        Own(cluster::refuse_alter_log_dirs)),
    row(35, "DescribeLogDirs", (1, 5), Client, Cluster(Describe), Top),
    row(36, "SaslAuthenticate", (0, 2), Handshake, Open("authentication"), Top),
    row(37, "CreatePartitions", (0, 3), Client,
        Named(topics::create_partitions), Each("Topics", "Results")),
    row(38, "CreateDelegationToken", (1, 3), Client,
        Reply(DELEGATION_TOKEN_AUTH_DISABLED, TOKENS), Top),
    row(39, "RenewDelegationToken", (1, 2), Client,
        Reply(DELEGATION_TOKEN_AUTH_DISABLED, TOKENS), Top),
    row(40, "ExpireDelegationToken", (1, 2), Client,
        Reply(DELEGATION_TOKEN_AUTH_DISABLED, TOKENS), Top),
    row(41, "DescribeDelegationToken", (1, 3), Client,
        Reply(DELEGATION_TOKEN_AUTH_DISABLED, TOKENS), Top),
    row(42, "DeleteGroups", (0, 2), Client,
        Named(|q| q.strip_names("GroupsNames", Delete, Group, "Results")), Unused),
    row(43, "ElectLeaders", (0, 2), Client, Cluster(Alter),
        TopAndEach("TopicPartitions", "ReplicaElectionResults"))
        .saying(OfCode),
    row(44, "IncrementalAlterConfigs", (0, 1), Client, Named(configs::alter), Unused)
        .saying(OfCode),
    row(45, "AlterPartitionReassignments", (0, 1), Client, Named(rules::reassign),
        TopAndEach("Topics", "Responses"))
        .saying(OfCode),
    row(46, "ListPartitionReassignments", (0, 0), Client, Cluster(Describe),
        Own(cluster::refuse_list_reassignments))
        .saying(OfCode),
    row(47, "OffsetDelete", (0, 0), Client, Named(|q| {
        q.need(Delete, Group, "GroupId")?;
        q.strip_topics_and_ask("Topics", Read, "Topics");
        Ok(())
    }), Top),
    row(48, "DescribeClientQuotas", (0, 1), Client, Cluster(DescribeConfigs),
        Own(cluster::refuse_describe_quotas))
        .saying(Null),
    row(49, "AlterClientQuotas", (0, 1), Client, Cluster(AlterConfigs),
        Own(cluster::refuse_alter_quotas))
        .saying(OfCode),
    row(50, "DescribeUserScramCredentials", (0, 0), Client, Cluster(Describe),
        Own(cluster::refuse_describe_scram))
        .saying(Null),
    row(51, "AlterUserScramCredentials", (0, 0), Client, Cluster(Alter),
        Own(cluster::refuse_alter_scram))
        .saying(OfCode),
    row(52, "Vote", (0, 2), BrokerOnly, Never(RAFT), Unused),
    row(53, "BeginQuorumEpoch", (0, 1), BrokerOnly, Never(RAFT), Unused),
    row(54, "EndQuorumEpoch", (0, 1), BrokerOnly, Never(RAFT), Unused),
    row(55, "DescribeQuorum", (0, 2), Client, Cluster(Describe), Top).saying(OfCode),
    row(56, "AlterPartition", (2, 3), BrokerOnly, Never(CONTROLLER), Unused),
    row(57, "UpdateFeatures", (0, 2), Client, Cluster(Alter), Top).saying(OfCode),
    row(58, "Envelope", (0, 0), BrokerOnly, Never(CONTROLLER), Unused),
    row(59, "FetchSnapshot", (0, 1), BrokerOnly, Never(RAFT), Unused),
    row(60, "DescribeCluster", (0, 2), Client,
        Open("a broker asks no permission; addresses are rewritten"), Top),
    row(61, "DescribeProducers", (0, 0), Client,
        Named(transactions::describe_producers), Each("Topics", "Topics"))
        .saying(OfCode),
    row(62, "BrokerRegistration", (0, 4), BrokerOnly, Never(CONTROLLER), Unused),
    row(63, "BrokerHeartbeat", (0, 2), BrokerOnly, Never(CONTROLLER), Unused),
    row(64, "UnregisterBroker", (0, 0), Client, Cluster(Alter), Top).saying(OfCode),
    row(65, "DescribeTransactions", (0, 0), Client,
        Named(|q| {
            q.strip_names("TransactionalIds", Describe, TransactionalId, "TransactionStates")
        }),
        Unused)
        .filtered(transactions::filter_describe),
    row(66, "ListTransactions", (0, 2), Client,
        Open("the answer is filtered id by id"), Unused)
        .filtered(transactions::filter_list),
    row(67, "AllocateProducerIds", (0, 0), BrokerOnly, Never(CONTROLLER), Unused),
    row(68, "ConsumerGroupHeartbeat", (0, 1), Client, Named(groups::consumer_heartbeat), Top),
    row(69, "ConsumerGroupDescribe", (0, 1), Client,
        Named(|q| q.strip_names("GroupIds", Describe, Group, "Groups")), Unused)
        .filtered(groups::filter_describe),
    row(70, "ControllerRegistration", (0, 0), BrokerOnly, Never(CONTROLLER), Unused),
    row(71, "GetTelemetrySubscriptions", (0, 0), Client, Open(TELEMETRY), Top),
    row(72, "PushTelemetry", (0, 0), Client, Open(TELEMETRY), Top),
    row(73, "AssignReplicasToDirs", (0, 0), BrokerOnly, Never(CONTROLLER), Unused),
    row(74, "ListConfigResources", (0, 1), Client, Cluster(DescribeConfigs), Top),
    row(75, "DescribeTopicPartitions", (0, 0), Client, Named(partitions::judge), Unused)
        .filtered(partitions::filter),
    row(76, "ShareGroupHeartbeat", (1, 1), Client, Named(groups::share_heartbeat), Top),
    row(77, "ShareGroupDescribe", (1, 1), Client,
        Named(|q| q.strip_names("GroupIds", Describe, Group, "Groups")), Unused)
        .filtered(groups::filter_describe),
    row(78, "ShareFetch", (1, 2), Client, Named(groups::share_session), Top)
        .filtered(groups::filter_share_fetch),
    row(79, "ShareAcknowledge", (1, 2), Client, Named(groups::share_session), Top),
    row(80, "AddRaftVoter", (0, 1), Client, Cluster(Alter), Top).saying(OfCode),
    row(81, "RemoveRaftVoter", (0, 0), Client, Cluster(Alter), Top).saying(OfCode),
    row(82, "UpdateRaftVoter", (0, 0), BrokerOnly, Never(RAFT), Unused),
    row(83, "InitializeShareGroupState", (0, 0), BrokerOnly, Never(BROKERS), Unused),
    row(84, "ReadShareGroupState", (0, 0), BrokerOnly, Never(BROKERS), Unused),
    row(85, "WriteShareGroupState", (0, 1), BrokerOnly, Never(BROKERS), Unused),
    row(86, "DeleteShareGroupState", (0, 0), BrokerOnly, Never(BROKERS), Unused),
    row(87, "ReadShareGroupStateSummary", (0, 1), BrokerOnly, Never(BROKERS), Unused),
    row(88, "StreamsGroupHeartbeat", (0, 0), Client, Named(groups::streams_heartbeat), Top),
    row(89, "StreamsGroupDescribe", (0, 0), Client,
        Named(|q| q.strip_names("GroupIds", Describe, Group, "Groups")), Unused)
        .filtered(groups::filter_streams_describe),
    row(90, "DescribeShareGroupOffsets", (0, 1), Client, Named(groups::describe_share_offsets),
        Unused)
        .filtered(groups::filter_share_offsets)
        .saying(OfCode),
    row(91, "AlterShareGroupOffsets", (0, 0), Client, Named(|q| {
        q.need(Read, Group, "GroupId")?;
        q.strip_topics_and_ask("Topics", Read, "Responses");
        Ok(())
    }), Top)
        .saying(OfCode),
    row(92, "DeleteShareGroupOffsets", (0, 0), Client, Named(|q| {
        q.need(Delete, Group, "GroupId")?;
        q.strip_topics_and_ask("Topics", Read, "Responses");
        Ok(())
    }), Top)
        .saying(OfCode),
];

const NO_VERSION: (i16, i16) = (1, 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apis::layout;

    #[test]
    fn every_key_has_a_row_at_its_place() {
        for (key, api) in TABLE.iter().enumerate() {
            assert_eq!(api.key as usize, key, "{}", api.name);
        }
    }

    #[test]
    fn rows_agree_with_the_layouts() {
        for api in &TABLE {
            let Some(layout) = layout(api.key) else {
                assert_eq!(api.phase, Retired, "{}", api.name);
                continue;
            };
            assert_eq!(*layout.request.name, *api.name);
            let known = layout.request.versions;
            match api.key {
                24 => assert_eq!((api.versions.min, api.versions.max), (0, 3), "KIP-890"),
                _ => assert_eq!(
                    api.versions, known,
                    "{}: a version nobody reviewed",
                    api.name
                ),
            }
        }
    }

    #[test]
    fn a_row_that_judges_can_refuse() {
        for api in &TABLE {
            if matches!(api.access, Cluster(_) | Reply(..) | Rules(..)) {
                assert!(!matches!(api.refuse, Unused), "{}", api.name);
            }
            assert_eq!(
                matches!(api.access, Never(_)),
                matches!(api.phase, BrokerOnly | Retired),
                "{}",
                api.name
            );
        }
    }
}
