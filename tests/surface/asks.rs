//! Requests as the stages and their tests make them by hand, what is read from their answers, and
//! what a broker is brought to before anything is tried.

use crate::body::{self, Names};
use crate::lab::wait;
use crate::socket::{Socket, request};
use crate::stage::{Side, Stage};
use bytes::Bytes;
use kordon::wire::tree::{Node, StructNode};
use std::time::Duration;

/// How long a broker may take to do what it was told.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Between two questions whether it has.
pub const POLL: Duration = Duration::from_millis(20);
/// A topic that is there already.
const EXISTS: i64 = 36;

/// A string value.
pub fn text(text: &str) -> Node {
    Node::Bytes(Some(text.as_bytes().to_vec().into()))
}

/// The id that stands for a topic that does not exist.
pub fn made_up(topic: &str) -> [u8; 16] {
    let mut id = [7; 16];
    for (slot, byte) in id.iter_mut().zip(topic.bytes()) {
        *slot = byte;
    }
    id
}

/// A Metadata request for one topic, creating nothing.
pub fn metadata(topic: &str) -> StructNode {
    let mut metadata = request(3);
    metadata.set_int("AllowAutoTopicCreation", 0);
    let mut element = metadata.element("Topics");
    element.set_text("Name", Some(topic));
    metadata.structs_mut("Topics").push(element);
    metadata
}

/// A CreateTopics request for topics of one partition.
pub fn creation(topics: &[&str]) -> StructNode {
    let mut create = request(19);
    for topic in topics {
        let mut element = create.element("Topics");
        element
            .set_text("Name", Some(topic))
            .set_int("NumPartitions", 1)
            .set_int("ReplicationFactor", 1);
        create.structs_mut("Topics").push(element);
    }
    create
}

/// Creates topics of one partition where they are missing, and gives each with its id once the
/// broker has it.
pub fn create(socket: &mut Socket, topics: &[&str]) -> Vec<(String, [u8; 16])> {
    for topic in socket.call(19, 7, &creation(topics)).structs("Topics") {
        let code = topic.int("ErrorCode");
        assert!(code == 0 || code == EXISTS, "{topic:?}");
    }
    let mut found = Vec::new();
    for topic in topics {
        let id = wait::until(SETTLE_LIMIT, POLL, || {
            let answer = socket.call(3, 12, &metadata(topic));
            let there = &answer.structs("Topics")[0];
            // The broker is told of a topic a moment before it leads the partition.
            let leads = there.int("ErrorCode") == 0 && end_offset(socket, topic, false) >= 0;
            leads.then(|| there.uuid("TopicId"))
        });
        let id = id.unwrap_or_else(|| panic!("{topic} does not appear"));
        found.push(((*topic).to_owned(), id));
    }
    found
}

/// The offset of the next record of a topic, as who reads committed records sees it or another;
/// -1 where the broker does not answer for the partition.
pub fn end_offset(socket: &mut Socket, topic: &str, committed: bool) -> i64 {
    let mut offsets = request(2);
    offsets.set_int("ReplicaId", -1);
    offsets.set_int("IsolationLevel", committed.into());
    let mut element = offsets.element("Topics");
    element.set_text("Name", Some(topic));
    let mut partition = element.element("Partitions");
    partition
        .set_int("CurrentLeaderEpoch", -1)
        .set_int("Timestamp", -1);
    element.structs_mut("Partitions").push(partition);
    offsets.structs_mut("Topics").push(element);
    let answer = socket.call(2, 7, &offsets);
    let partition = &answer.structs("Topics")[0].structs("Partitions")[0];
    match partition.int("ErrorCode") {
        0 => partition.int("Offset"),
        _ => -1,
    }
}

/// A Produce request with one batch, acknowledged by all, of no transaction.
pub fn produce(topic: &str, batch: &Bytes) -> StructNode {
    let mut produce = request(0);
    produce.set_text("TransactionalId", None);
    produce.set_int("Acks", -1).set_int("TimeoutMs", 5000);
    let mut element = produce.element("TopicData");
    element.set_text("Name", Some(topic));
    let mut partition = element.element("PartitionData");
    partition.set("Records", Node::Bytes(Some(batch.clone())));
    element.structs_mut("PartitionData").push(partition);
    produce.structs_mut("TopicData").push(element);
    produce
}

/// The error of the only partition of a Produce answer.
pub fn produce_code(answer: &StructNode) -> i64 {
    answer.structs("Responses")[0].structs("PartitionResponses")[0].int("ErrorCode")
}

/// A Fetch request through Kordon, within a session of a number and an epoch.
pub fn fetch(stage: &Stage, topics: &[&str], version: i16, session: (i64, i64)) -> StructNode {
    let names = Names {
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        ..Names::default()
    };
    let mut request = body::request(stage, Side::Kordon, 1, version, &names);
    request
        .set_int("SessionId", session.0)
        .set_int("SessionEpoch", session.1);
    request
}

/// The first error of a Fetch answer: a partition's, else the session's.
pub fn fetch_code(answer: &StructNode) -> i64 {
    match answer.structs("Responses") {
        [topic, ..] => topic.structs("Partitions")[0].int("ErrorCode"),
        [] => answer.int("ErrorCode"),
    }
}

/// An OffsetCommit of offset 1 for the first partition of each topic.
pub fn commit(group: &str, topics: &[&str]) -> StructNode {
    let mut commit = request(8);
    commit.set_text("GroupId", Some(group));
    for topic in topics {
        let mut element = commit.element("Topics");
        element.set_text("Name", Some(topic));
        let mut partition = element.element("Partitions");
        partition.set_int("CommittedOffset", 1);
        element.structs_mut("Partitions").push(partition);
        commit.structs_mut("Topics").push(element);
    }
    commit
}

/// Whether every offset of an OffsetCommit was taken.
pub fn committed(answer: &StructNode) -> bool {
    let mut topics = answer.structs("Topics").iter();
    topics.all(|t| t.structs("Partitions")[0].int("ErrorCode") == 0)
}

/// A FindCoordinator request for one key.
pub fn find(kind: i64, key: &str) -> StructNode {
    let mut find = request(10);
    find.set_int("KeyType", kind);
    find.array_mut("CoordinatorKeys").push(text(key));
    find
}

/// Whether the coordinator was found.
pub fn found(answer: &StructNode) -> bool {
    answer.structs("Coordinators")[0].int("ErrorCode") == 0
}

/// InitProducerId of a transactional id.
pub fn init_producer(transaction: &str, timeout_ms: i64) -> StructNode {
    let mut init = request(22);
    init.set_text("TransactionalId", Some(transaction));
    init.set_int("TransactionTimeoutMs", timeout_ms);
    init
}

/// Has a broker begin with all that it begins with once: coordinators of every kind, offsets of
/// each group for each topic, and a producer of a transactional id.
pub fn warm(
    socket: &mut Socket,
    groups: &[&str],
    topics: &[&str],
    (transaction, timeout_ms): (&str, i64),
) -> Result<(), String> {
    for (kind, key) in [groups[0], groups[0], "g:AAAAAAAAAAAAAAAAAAAAAQ:0"]
        .iter()
        .enumerate()
    {
        settled(socket, 10, 6, &find(kind as i64, key), found)?;
    }
    for group in groups {
        settled(socket, 8, 9, &commit(group, topics), committed)?;
    }
    let init = init_producer(transaction, timeout_ms);
    settled(socket, 22, 5, &init, |a| a.int("ErrorCode") == 0)
}

/// Asks until the answer is fine.
pub fn settled(
    socket: &mut Socket,
    key: i16,
    version: i16,
    request: &StructNode,
    fine: fn(&StructNode) -> bool,
) -> Result<(), String> {
    let mut last = None;
    let found = wait::until(SETTLE_LIMIT, POLL, || {
        let answer = socket.call(key, version, request);
        fine(last.insert(answer)).then_some(())
    });
    found.ok_or_else(|| format!("not settled: {last:?}"))
}
