//! What clients really ask of each API beyond its plain form, and the bounds of what may be asked
//! in a run at all.

use crate::asks::text;
use crate::lab::dice::Dice;
use crate::requests::{SETTING, TOPICS};
use kordon::wire::tree::{Node, StructNode};

/// Partitions that a topic gets, at most.
const PARTITIONS_MAX: i64 = 4;
/// How long a transaction may take, in milliseconds: what a broker allows at most.
const TIMEOUT_MS: i64 = 900_000;
/// The only principal that rules made by a request may be about.
const NOBODY: &str = "User:nobody";

/// Where a page of partitions begins.
const CURSORS: [&str; 8] = [
    "in.del",
    "in.order",
    "in.orders",
    "in.missing",
    "out.del",
    "out.orders",
    "",
    "zzz",
];

fn texts(words: &[&str]) -> Node {
    Node::Array(Some(words.iter().map(|w| text(w)).collect()))
}

fn numbers(values: &[i64]) -> Node {
    Node::Array(Some(values.iter().map(|n| Node::Int(*n)).collect()))
}

fn flag(dice: &mut Dice) -> i64 {
    i64::from(dice.once_in(2))
}

/// Some of the words, in no order.
fn some<'w>(dice: &mut Dice, words: &[&'w str]) -> Vec<&'w str> {
    let count = dice.below(4);
    (0..count).map(|_| *dice.pick(words)).collect()
}

/// Sets what the API is about to values that a client may have; whether there was something to set.
pub fn change(dice: &mut Dice, key: i16, version: i16, node: &mut StructNode) -> bool {
    match key {
        0 => {
            node.set_int("Acks", *dice.pick(&[-1, 0, 1, 2, -2]));
            node.set_int("TimeoutMs", *dice.pick(&[0, 1, 100, -1]));
            if dice.once_in(3) {
                let index = *dice.pick(&[-1, 1, 7]);
                each(node, "TopicData", "PartitionData", |p| {
                    p.set_int("Index", index);
                });
            }
        }
        1 => {
            node.set_int("MaxWaitMs", *dice.pick(&[0, 1, 30]));
            node.set_int("MinBytes", *dice.pick(&[-1, 0, 1, 1 << 20]));
            node.set_int("MaxBytes", *dice.pick(&[-1, 0, 1, 100, 1 << 20]));
            node.set_int("IsolationLevel", flag(dice));
            if version >= 7 && dice.once_in(2) {
                node.set_int("SessionId", *dice.pick(&[0, 0, 5]));
                node.set_int("SessionEpoch", *dice.pick(&[-1, 0, 0, 1]));
            }
            let (offset, bytes) = (*dice.pick(&[-1, 0, 1, 1000]), *dice.pick(&[0, 1, 1 << 20]));
            let epoch = *dice.pick(&[-1, -1, 0, 7]);
            each(node, "Topics", "Partitions", |p| {
                p.set_int("FetchOffset", offset)
                    .set_int("PartitionMaxBytes", bytes);
                p.set_int("CurrentLeaderEpoch", epoch);
            });
        }
        2 => {
            node.set_int("IsolationLevel", flag(dice));
            let time = *dice.pick(&[-1, -2, -3, -4, -5, -6, -7, 0, 1_700_000_000_000]);
            let epoch = *dice.pick(&[-1, -1, 0, 7]);
            each(node, "Topics", "Partitions", |p| {
                p.set_int("Timestamp", time)
                    .set_int("CurrentLeaderEpoch", epoch);
            });
        }
        3 => {
            node.set_int("AllowAutoTopicCreation", flag(dice));
            node.set_int("IncludeTopicAuthorizedOperations", flag(dice));
            node.set_int("IncludeClusterAuthorizedOperations", flag(dice));
            match dice.below(6) {
                0 if version >= 1 => {
                    node.set("Topics", Node::Structs(None));
                }
                1 => node.structs_mut("Topics").clear(),
                _ => {}
            }
        }
        9 => {
            node.set_int("RequireStable", flag(dice));
            let all = dice.once_in(2) && version >= 2;
            if all {
                node.set("Topics", Node::Structs(None));
            }
            let member = *dice.pick(&[None, None, Some("member")]);
            let epoch = *dice.pick(&[-1, -1, 0, 1]);
            for group in node.structs_mut("Groups") {
                if dice.once_in(2) {
                    group.set("Topics", Node::Structs(None));
                }
                group
                    .set_text("MemberId", member)
                    .set_int("MemberEpoch", epoch);
            }
        }
        10 => {
            node.set_int("KeyType", *dice.pick(&[0, 0, 1, 1, 2, 3, -1]));
            let keys = some(
                dice,
                &["in.group", "out.group", "in.t", "out.t", "in.new", ""],
            );
            node.set("CoordinatorKeys", texts(&keys));
        }
        11 => {
            let instance = *dice.pick(&[None, Some("instance"), Some("")]);
            node.set_text("GroupInstanceId", instance);
            node.set_text("Reason", *dice.pick(&[None, Some("why not")]));
        }
        12 | 14 => {
            node.set_text("GroupInstanceId", *dice.pick(&[None, Some("instance")]));
            node.set_int("GenerationId", *dice.pick(&[-1, 0, 1, 2]));
        }
        13 if version >= 3 => {
            for member in node.structs_mut("Members") {
                member.set_text("GroupInstanceId", *dice.pick(&[None, Some("instance")]));
                member.set_text("MemberId", *dice.pick(&[Some(""), Some("member")]));
            }
        }
        15 | 69 | 77 | 89 => {
            node.set_int("IncludeAuthorizedOperations", flag(dice));
        }
        16 => {
            let states = [
                "Stable",
                "Empty",
                "Dead",
                "stable",
                "Assigning",
                "nonsense",
                "",
            ];
            let types = [
                "classic", "Consumer", "share", "streams", "unknown", "nonsense", "",
            ];
            node.set("StatesFilter", texts(&some(dice, &states)));
            node.set("TypesFilter", texts(&some(dice, &types)));
        }
        19 => created(dice, node),
        20 => {
            let both = version >= 6 && dice.once_in(3);
            for topic in node.structs_mut("Topics") {
                if both {
                    topic.set_text("Name", *dice.pick(&[None, Some("in.del"), Some("out.del")]));
                }
            }
        }
        21 => {
            let offset = *dice.pick(&[-2, -1, 0, 1, 1000]);
            each(node, "Topics", "Partitions", |p| {
                p.set_int("Offset", offset);
            });
        }
        22 => {
            let timeout = *dice.pick(&[-1, 0, 1, 60_000, 900_000, 900_001]);
            node.set_int("TransactionTimeoutMs", timeout);
            let (id, epoch) =
                *dice.pick(&[(-1, -1), (0, 0), (-1, 0), (0, -1), (-2, -2), (1 << 40, 1)]);
            node.set_int("ProducerId", id)
                .set_int("ProducerEpoch", epoch);
            if dice.once_in(2) {
                node.set_text("TransactionalId", *dice.pick(&[None, Some("")]));
            }
        }
        29 => {
            node.set_int(
                "ResourceTypeFilter",
                *dice.pick(&[1, 1, 2, 3, 4, 5, 6, 7, 0, 100, -1]),
            );
            node.set_int("PatternTypeFilter", *dice.pick(&[1, 1, 2, 2, 3, 4, 0, 100]));
            node.set_int("Operation", *dice.pick(&[1, 1, 2, 3, 4, 8, 15, 0, 100]));
            node.set_int("PermissionType", *dice.pick(&[1, 1, 2, 3, 0, 100]));
            let names = [
                None,
                None,
                Some("*"),
                Some("in.orders"),
                Some("in."),
                Some("kafka-cluster"),
            ];
            node.set_text("ResourceNameFilter", *dice.pick(&names));
            let principals = [
                None,
                None,
                Some("User:ann"),
                Some("User:*"),
                Some("ann"),
                Some(""),
            ];
            node.set_text("PrincipalFilter", *dice.pick(&principals));
            let hosts = [None, None, Some("*"), Some("127.0.0.1"), Some("")];
            node.set_text("HostFilter", *dice.pick(&hosts));
        }
        32 => {
            node.set_int("IncludeSynonyms", flag(dice));
            node.set_int("IncludeDocumentation", flag(dice));
            let keys = match dice.below(4) {
                0 => Node::Array(None),
                1 => Node::Array(Some(Vec::new())),
                _ => texts(&some(
                    dice,
                    &["retention.ms", "cleanup.policy", "root", "nonsense", ""],
                )),
            };
            for resource in node.structs_mut("Resources") {
                resource.set("ConfigurationKeys", keys.clone());
            }
        }
        33 | 44 => {
            node.set_int("ValidateOnly", flag(dice));
            let operation = *dice.pick(&[0, 0, 1, 2, 3]);
            let (name, value) = *dice.pick(&[
                ("cleanup.policy", Some("compact")),
                ("cleanup.policy", Some("delete")),
                (SETTING, Some("x")),
                (SETTING, Some("7")),
                (SETTING, None),
                ("nonsense", Some("1")),
                ("", Some("1")),
                ("interval.ms", Some("1000")),
                ("consumer.heartbeat.interval.ms", Some("600")),
            ]);
            for resource in node.structs_mut("Resources") {
                for config in resource.structs_mut("Configs") {
                    config.set_text("Name", Some(name)).set_text("Value", value);
                    if key == 44 {
                        config.set_int("ConfigOperation", operation);
                    }
                }
            }
        }
        35 => {
            if dice.once_in(2) {
                node.set("Topics", Node::Structs(None));
            }
        }
        37 => {
            node.set_int("ValidateOnly", flag(dice));
            let assigned = dice.pick(&[&[][..], &[1], &[2], &[1, 1]]).to_vec();
            for topic in node.structs_mut("Topics") {
                topic.set_int("Count", *dice.pick(&[-1, 0, 1, 2, 3, 4]));
                if dice.once_in(2) {
                    let mut assignment = topic.element("Assignments");
                    assignment.set("BrokerIds", numbers(&assigned));
                    topic.set("Assignments", Node::Structs(Some(vec![assignment])));
                }
            }
        }
        43 => {
            node.set_int("ElectionType", *dice.pick(&[0, 1, 2, -1]));
            if dice.once_in(2) {
                node.set("TopicPartitions", Node::Structs(None));
            }
        }
        45 => {
            node.set_int("AllowReplicationFactorChange", flag(dice));
            let replicas = match dice.below(5) {
                0 => Node::Array(None),
                1 => numbers(&[]),
                2 => numbers(&[2]),
                3 => numbers(&[1, 1]),
                _ => numbers(&[1]),
            };
            each(node, "Topics", "Partitions", |p| {
                p.set("Replicas", replicas.clone());
            });
        }
        46 => {
            if dice.once_in(2) {
                node.set("Topics", Node::Structs(None));
            }
        }
        48 => {
            node.set_int("Strict", flag(dice));
            node.structs_mut("Components").clear();
            for _ in 0..dice.below(3) {
                let mut component = node.element("Components");
                let kinds = ["user", "user", "client-id", "ip", "nonsense", ""];
                component
                    .set_text("EntityType", Some(*dice.pick(&kinds)))
                    .set_int("MatchType", *dice.pick(&[0, 1, 2, 3, -1]))
                    .set_text("Match", *dice.pick(&[None, Some("a"), Some("127.0.0.9")]));
                node.structs_mut("Components").push(component);
            }
        }
        49 => quotas(dice, node),
        50 => {
            // Not null: who may not ask for all so is never answered by a broker.
            if dice.once_in(2) {
                node.structs_mut("Users").clear();
            }
        }
        51 => {
            for _ in 0..dice.below(3) {
                let mut user = node.element("Upsertions");
                user.set_text("Name", Some(*dice.pick(&["ann", "new", ""])))
                    .set_int("Mechanism", *dice.pick(&[1, 2, 0, 3]))
                    .set_int("Iterations", *dice.pick(&[4096, 8192, 1, 1_000_000]))
                    .set("Salt", Node::Bytes(Some(b"salt".to_vec().into())))
                    .set("SaltedPassword", Node::Bytes(Some(vec![7; 32].into())));
                node.structs_mut("Upsertions").push(user);
            }
        }
        60 => {
            node.set_int("EndpointType", *dice.pick(&[0, 1, 1, 2, 3]));
            node.set_int("IncludeFencedBrokers", flag(dice));
            node.set_int("IncludeClusterAuthorizedOperations", flag(dice));
        }
        65 => {
            let ids = some(dice, &["in.warm", "in.t", "out.t", "nothing", ""]);
            node.set("TransactionalIds", texts(&ids));
        }
        66 => {
            let states = [
                "Ongoing",
                "Empty",
                "CompleteCommit",
                "CompleteAbort",
                "nonsense",
                "",
            ];
            node.set("StateFilters", texts(&some(dice, &states)));
            if dice.once_in(3) {
                node.set(
                    "ProducerIdFilters",
                    numbers(dice.pick::<&[i64]>(&[&[0], &[1 << 40], &[-1, 0]])),
                );
            }
            node.set_int("DurationFilter", *dice.pick(&[-1, -1, 0, -7, 1 << 40]));
            let patterns = [None, Some(""), Some("in.*"), Some("in.warm"), Some("[")];
            node.set_text("TransactionalIdPattern", *dice.pick(&patterns));
        }
        68 | 76 | 88 => {
            node.set_int("MemberEpoch", *dice.pick(&[-2, -1, 0, 1, 2, 7]));
            if key != 88 {
                match dice.below(3) {
                    0 => node.set("SubscribedTopicNames", Node::Array(None)),
                    1 => node.set("SubscribedTopicNames", texts(&some(dice, &TOPICS))),
                    _ => node,
                };
            }
            if key != 76 {
                node.set_text(
                    "InstanceId",
                    *dice.pick(&[None, Some("instance"), Some("")]),
                );
            }
        }
        74 => {
            let kinds = [
                &[][..],
                &[2],
                &[4],
                &[8],
                &[16],
                &[32],
                &[2, 32],
                &[77],
                &[0],
                &[-1],
            ];
            node.set("ResourceTypes", numbers(dice.pick::<&[i64]>(&kinds)));
        }
        75 => {
            node.set_int(
                "ResponsePartitionLimit",
                *dice.pick(&[-1, 0, 1, 1, 2, 3, 5]),
            );
            if dice.once_in(3) {
                node.structs_mut("Topics").clear();
            }
            if dice.once_in(2) {
                let mut cursor = node.element("Cursor");
                cursor
                    .set_text("TopicName", Some(*dice.pick(&CURSORS)))
                    .set_int("PartitionIndex", *dice.pick(&[-1, 0, 0, 0, 1, 7]));
                node.set("Cursor", Node::Struct(Some(Box::new(cursor))));
            }
        }
        78 | 79 => {
            node.set_int("ShareSessionEpoch", *dice.pick(&[-1, 0, 0, 1, 7]));
            if key == 78 {
                node.set_int("MaxWaitMs", *dice.pick(&[0, 1, 30]));
                node.set_int("MaxRecords", *dice.pick(&[-1, 0, 1, 10]));
            }
        }
        90 => {
            for group in node.structs_mut("Groups") {
                group.set("Topics", Node::Structs(None));
            }
        }
        91 => {
            let offset = *dice.pick(&[-2, -1, 0, 1, 1000]);
            each(node, "Topics", "Partitions", |p| {
                p.set_int("StartOffset", offset);
            });
        }
        _ => return false,
    }
    true
}

fn created(dice: &mut Dice, node: &mut StructNode) {
    node.set_int("validateOnly", flag(dice));
    let value = dice.pick(&[
        ("cleanup.policy", Some("compact")),
        (SETTING, Some("7")),
        (SETTING, Some("x")),
        (SETTING, None),
        ("nonsense", Some("1")),
    ]);
    const ASSIGNMENTS: [&[&[i64]]; 6] = [&[], &[&[1]], &[&[1], &[1]], &[&[2]], &[&[1, 1]], &[&[]]];
    let assignments = *dice.pick(&ASSIGNMENTS);
    let first = i64::from(dice.once_in(5));
    let configured = dice.once_in(2);
    for topic in node.structs_mut("Topics") {
        if configured {
            let mut config = topic.element("Configs");
            config
                .set_text("Name", Some(value.0))
                .set_text("Value", value.1);
            topic.structs_mut("Configs").push(config);
        }
        for (at, brokers) in assignments.iter().enumerate() {
            let mut assignment = topic.element("Assignments");
            assignment.set_int("PartitionIndex", first + at as i64);
            assignment.set("BrokerIds", numbers(brokers));
            topic.structs_mut("Assignments").push(assignment);
        }
        match assignments.is_empty() {
            true => {
                topic.set_int("NumPartitions", *dice.pick(&[-2, -1, 0, 1, 2, 3]));
                topic.set_int("ReplicationFactor", *dice.pick(&[-1, 1, 1, 1, 0, 2]));
            }
            false => {
                let count = *dice.pick(&[-1, -1, 1]);
                topic
                    .set_int("NumPartitions", count)
                    .set_int("ReplicationFactor", count);
            }
        }
    }
}

fn quotas(dice: &mut Dice, node: &mut StructNode) {
    node.set_int("ValidateOnly", flag(dice));
    for entry in node.structs_mut("Entries") {
        for op in entry.structs_mut("Ops") {
            let keys = ["producer_byte_rate", "request_percentage", "nonsense", ""];
            op.set_text("Key", Some(*dice.pick(&keys)))
                .set("Value", Node::Float(*dice.pick(&[-1.0, 0.0, 0.5, 1024.0])))
                .set_int("Remove", flag(dice));
        }
    }
}

fn each(
    node: &mut StructNode,
    topics: &str,
    partitions: &str,
    mut set: impl FnMut(&mut StructNode),
) {
    for topic in node.structs_mut(topics) {
        topic.structs_mut(partitions).iter_mut().for_each(&mut set);
    }
}

/// What no request of a run may do, however it came to be.
pub fn bound(key: i16, version: i16, node: &mut StructNode) {
    match key {
        // Of several topics none is made where one may not be: that differs.
        3 if kordon::apis::asks_for_creation(version, node) && !node.is_null("Topics") => {
            node.structs_mut("Topics").truncate(1);
        }
        19 => {
            for topic in node.structs_mut("Topics") {
                let count = topic.int("NumPartitions");
                topic.set_int("NumPartitions", count.min(PARTITIONS_MAX));
                settings(topic, "Configs");
            }
        }
        37 => {
            for topic in node.structs_mut("Topics") {
                let count = topic.int("Count");
                topic.set_int("Count", count.min(PARTITIONS_MAX));
            }
        }
        50 => {
            node.structs_mut("Users"); // null becomes empty, as above
        }
        // A coordinator never answers who names a protocol twice.
        11 => {
            let protocols = node.structs_mut("Protocols");
            protocols.sort_by_key(|p| p.text("Name").map(str::to_owned));
            protocols.dedup_by_key(|p| p.text("Name").map(str::to_owned));
        }
        // Rules of nobody, whatever they say.
        30 => {
            for creation in node.structs_mut("Creations") {
                creation.set_text("Principal", Some(NOBODY));
            }
        }
        31 => {
            for filter in node.structs_mut("Filters") {
                filter.set_text("PrincipalFilter", Some(NOBODY));
            }
        }
        33 | 44 => {
            for resource in node.structs_mut("Resources") {
                settings(resource, "Configs");
                if key == 44 {
                    // A controller fails on an operation that there is not.
                    for config in resource.structs_mut("Configs") {
                        let operation = config.int("ConfigOperation");
                        config.set_int("ConfigOperation", operation.clamp(0, 3));
                    }
                }
            }
        }
        // Whom a broker gives a name has another one at each.
        68 if version == 0 && node.text("MemberId") == Some("") => {
            node.set_text("MemberId", Some("member"));
        }
        // The only broker there is.
        64 if node.int("BrokerId") == 1 => {
            node.set_int("BrokerId", 2);
        }
        81 if node.int("VoterId") == 1 => {
            node.set_int("VoterId", 2);
        }
        57 => {
            for update in node.structs_mut("FeatureUpdates") {
                update.set_text("Feature", Some("nonsense.version"));
            }
        }
        49 => {
            for entry in node.structs_mut("Entries") {
                for entity in entry.structs_mut("Entity") {
                    entity.set_text("EntityType", Some("user"));
                    entity.set_text("EntityName", Some("a"));
                }
            }
        }
        // Each broker knows producers by ids of its own, but for the first.
        22 | 24 | 25 | 26 | 28 => {
            let field = if key == 24 {
                "V3AndBelowProducerId"
            } else {
                "ProducerId"
            };
            if (1..1 << 40).contains(&node.int(field)) {
                node.set_int(field, 0);
            }
            // Each ends transactions that take too long at a moment of its own.
            if key == 22 && (1..TIMEOUT_MS).contains(&node.int("TransactionTimeoutMs")) {
                node.set_int("TransactionTimeoutMs", TIMEOUT_MS);
            }
        }
        _ => {}
    }
}

/// Settings by which a broker does something at a moment of its own are not set.
fn settings(node: &mut StructNode, array: &str) {
    for config in node.structs_mut(array) {
        // Neither does anybody know when a broker compacts a log.
        if config.text("Value") == Some("compact") {
            config.set_text("Value", Some("delete"));
        }
        let name = config.text("Name").unwrap_or_default();
        if name.starts_with("retention.") || name.ends_with("session.timeout.ms") {
            config.set_text("Name", Some("max.message.bytes"));
        }
    }
}
