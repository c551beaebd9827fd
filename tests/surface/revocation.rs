//! Rights that end while they are in use, at a real broker: polls within fetch sessions and
//! share sessions, members of groups of every kind, a transaction. Each case begins with every
//! right, takes those on `live.lost`, and holds what the client learns, and when, against what a
//! client without the right would be told.

use crate::asks::{POLL, end_offset, init_producer, metadata, produce, produce_code, text};
use crate::body::{Kind, batch};
use crate::lab::{kordon::Kordon, wait};
use crate::revoked::{LIMIT, Revoked};
use crate::socket::{Seen, Socket, encode, read, request};
use crate::stage::{Side, Stage};
use crate::tally::Tally;
use bytes::{BufMut, Bytes, BytesMut};
use kordon::wire::tree::{Node, StructNode};
use std::time::{Duration, Instant};

/// The topic, group and transactional id that the client loses.
const LOST: &str = "live.lost";
/// Those that it keeps.
const KEPT: &str = "live.kept";
/// A topic that it keeps as well, for what Java's producer writes.
const EXTRA: &str = "live.extra";
/// Longer than any case takes.
const LONG_MS: i64 = 120_000;
/// How long a policy may take to be in force, on a busy machine.
const FORCE_LIMIT: Duration = Duration::from_secs(10);
/// Within which what is in force has reached every connection.
const SECOND: Duration = Duration::from_secs(1);
/// How long a client may take to tell its application, which includes its own pauses before it
/// connects again.
const CLIENT_LIMIT: Duration = Duration::from_secs(4);
/// How long a broker may take to end a transaction whose producer says nothing more.
const ABORT_LIMIT: Duration = Duration::from_secs(60);

const FETCH: i16 = 1;
const SHARE_FETCH: i16 = 78;

/// The proxy whose policies change, and what its broker knows.
struct Live<'s> {
    stage: &'s Stage,
    kordon: Kordon,
}

/// Runs every case.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    stage.create(Side::Kordon, &[LOST, KEPT, EXTRA]);
    let live = match Live::start(stage) {
        Ok(live) => live,
        Err(why) => return tally.fail("revocation: set-up", why),
    };
    live.sessions(12, tally);
    live.sessions(17, tally);
    live.short_poll(tally);
    live.classic_group(tally);
    live.other_groups(tally);
    live.share(tally);
    live.transaction(tally);
    live.clients(tally);
}

fn policy(names: &str) -> String {
    format!(
        "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {{name: live}}
spec:
  principals: [\"User:live\"]
  rules:
    - {{allow: [All], topics: [\"{names}\"], groups: [\"{names}\"]}}
    - {{allow: [All], transactionalIds: [\"{names}\"]}}
    - {{allow: [All], cluster: true}}
"
    )
}

impl<'s> Live<'s> {
    fn start(stage: &'s Stage) -> Result<Live<'s>, String> {
        let upstream = stage.open.addrs();
        let config = |ports: &crate::lab::kordon::Ports| {
            format!(
                "upstream:
  bootstrap: [\"{}\"]
listeners:
  - name: app
    bind: 127.0.0.1:{}
    advertise: {{host: localhost, ports: {}-{}}}
    identity: {{static: \"User:live\", tenant: lab}}
policies: policies/
admin: {{bind: \"127.0.0.1:{}\"}}
",
                upstream[0],
                ports.app,
                ports.app + 1,
                ports.app + 2,
                ports.admin
            )
        };
        let files = [("policies/live.yaml", &*policy("live.*"))];
        let kordon = Kordon::start("127.0.0.1", config, &files)?;
        Ok(Live { stage, kordon })
    }

    fn connect(&self) -> Socket {
        Socket::open(&self.kordon.addr)
    }

    fn generation(&self) -> f64 {
        let value = self.kordon.metric("kordon_policy_generation");
        value.unwrap_or_default()
    }

    /// Puts another policy in the place of the file; returns when it is in force, and after how
    /// long.
    fn enforce(&self, names: &str) -> Duration {
        let dir = self.kordon.dir().join("policies");
        let before = self.generation();
        std::fs::write(dir.join(".new"), policy(names)).unwrap();
        let begun = Instant::now();
        std::fs::rename(dir.join(".new"), dir.join("live.yaml")).unwrap();
        while self.generation() <= before {
            assert!(begun.elapsed() < FORCE_LIMIT, "the policy is not taken");
            std::thread::sleep(Duration::from_millis(2));
        }
        begun.elapsed()
    }

    /// Takes away what is lost, and checks that `waiting` ends within a second of that.
    fn revoke(&self, what: &str, waiting: &mut [Socket], tally: &mut Tally) {
        let in_force = self.enforce(KEPT);
        let begun = Instant::now();
        for socket in waiting {
            let seen = socket.receive();
            let took = begun.elapsed();
            println!("surface: {what}: in force after {in_force:?}, ended {took:?} later");
            tally.check("revocation", seen == Seen::Closed && took < SECOND, || {
                format!("{what}: {seen:?} after {took:?}")
            });
        }
    }

    /// Gives everything back.
    fn restore(&self) {
        self.enforce("live.*");
    }

    /// Writes a record past the proxy.
    fn produce(&self, topic: &str) {
        let mut admin = self.stage.admin(Side::Kordon);
        let answer = admin.call(0, 9, &produce(topic, &batch("x", Kind::Plain)));
        assert_eq!(produce_code(&answer), 0);
    }

    /// Where a topic ends, as who reads committed records sees it, or another.
    fn end(&self, topic: &str, committed: bool) -> i64 {
        end_offset(&mut self.stage.admin(Side::Kordon), topic, committed)
    }

    fn fetch(&self, topics: &[&str], session: (i64, i64), wait_ms: i64) -> StructNode {
        let mut fetch = request(FETCH);
        fetch
            .set_int("ReplicaId", -1)
            .set_int("MaxWaitMs", wait_ms)
            .set_int("MinBytes", 1)
            .set_int("MaxBytes", 1 << 20)
            .set_int("SessionId", session.0)
            .set_int("SessionEpoch", session.1);
        for topic in topics {
            let mut element = fetch.element("Topics");
            element.set_text("Topic", Some(topic));
            element.set("TopicId", Node::Uuid(self.stage.id(Side::Kordon, topic)));
            let mut partition = element.element("Partitions");
            partition
                .set_int("CurrentLeaderEpoch", -1)
                .set_int("FetchOffset", self.end(topic, false))
                .set_int("LastFetchedEpoch", -1)
                .set_int("LogStartOffset", -1)
                .set_int("PartitionMaxBytes", 1 << 20);
            element.structs_mut("Partitions").push(partition);
            fetch.structs_mut("Topics").push(element);
        }
        fetch
    }

    /// A connection with a session for these topics, and its number.
    fn session(&self, version: i16, topics: &[&str]) -> (Socket, i64) {
        let mut socket = self.connect();
        // So that the proxy knows the topics' ids.
        for topic in topics {
            socket.call(3, 12, &metadata(topic));
        }
        let answer = socket.call(FETCH, version, &self.fetch(topics, (0, 0), 0));
        let session = answer.int("SessionId");
        assert!(answer.int("ErrorCode") == 0 && session != 0, "{answer:?}");
        (socket, session)
    }

    /// Polls within sessions: one that was begun with the lost topic, one that got it later, and
    /// one that never had it.
    fn sessions(&self, version: i16, tally: &mut Tally) {
        let (mut begun, first) = self.session(version, &[LOST, KEPT]);
        ask(
            &mut begun,
            FETCH,
            version,
            &self.fetch(&[], (first, 1), LONG_MS),
        );
        let (mut grown, second) = self.session(version, &[KEPT]);
        let more = self.fetch(&[LOST], (second, 1), 0);
        assert_eq!(grown.call(FETCH, version, &more).int("ErrorCode"), 0);
        ask(
            &mut grown,
            FETCH,
            version,
            &self.fetch(&[], (second, 2), LONG_MS),
        );
        let (mut other, third) = self.session(version, &[KEPT]);
        ask(
            &mut other,
            FETCH,
            version,
            &self.fetch(&[], (third, 1), LONG_MS),
        );
        std::thread::sleep(Duration::from_millis(100));
        let what = format!("poll in a session, version {version}");
        self.revoke(&what, &mut [begun, grown], tally);
        self.produce(KEPT);
        let answer = received(&mut other, FETCH, version);
        let fine = answer
            .as_ref()
            .is_some_and(|a| a.int("SessionId") == third && has_records(a));
        tally.check("revocation", fine, || format!("unrelated poll: {answer:?}"));
        let mut again = self.connect();
        let answer = again.call(FETCH, version, &self.fetch(&[LOST], (0, -1), 0));
        let code = answer.structs("Responses")[0].structs("Partitions")[0].int("ErrorCode");
        tally.check("revocation", code == 29, || {
            format!("fetched again: {code}")
        });
        self.restore();
    }

    /// A poll as Kafka's clients have it is answered, without records, and its connection stays.
    fn short_poll(&self, tally: &mut Tally) {
        let (mut socket, session) = self.session(12, &[LOST, KEPT]);
        ask(&mut socket, FETCH, 12, &self.fetch(&[], (session, 1), 500));
        self.enforce(KEPT);
        self.produce(LOST);
        let answer = received(&mut socket, FETCH, 12);
        let fine = answer.as_ref().is_some_and(|a| !has_records(a));
        tally.check("revocation", fine, || format!("short poll: {answer:?}"));
        let answer = socket.call(FETCH, 12, &self.fetch(&[], (session, 2), 0));
        let code = answer.int("ErrorCode");
        tally.check("revocation", code == 70, || format!("old session: {code}"));
        let answer = socket.call(FETCH, 12, &self.fetch(&[LOST, KEPT], (0, 0), 0));
        let code = |topic: &str| {
            let topics = answer.structs("Responses").iter();
            let mut of_it = topics.filter(|t| t.text("Topic") == Some(topic));
            of_it
                .next()
                .map(|t| t.structs("Partitions")[0].int("ErrorCode"))
        };
        let codes = (code(LOST), code(KEPT));
        let expected = (Some(29), Some(0));
        tally.check("revocation", codes == expected, || {
            format!("begun again: {codes:?}")
        });
        self.restore();
    }

    /// Members of a classic group: one waits for the other to join, which then commits.
    fn classic_group(&self, tally: &mut Tally) {
        let join = |member: &str| {
            let mut join = request(11);
            join.set_text("GroupId", Some(LOST))
                .set_int("SessionTimeoutMs", 60_000)
                .set_int("RebalanceTimeoutMs", 120_000)
                .set_text("MemberId", Some(member))
                .set_text("ProtocolType", Some("consumer"));
            let mut protocol = join.element("Protocols");
            protocol.set_text("Name", Some("range"));
            join.structs_mut("Protocols").push(protocol);
            join
        };
        let mut first = self.connect();
        // Version 3 makes a member at once.
        let joined = first.call(11, 3, &join(""));
        assert_eq!(joined.int("ErrorCode"), 0, "{joined:?}");
        let member = joined.text("MemberId").unwrap_or_default().to_owned();
        let mut second = self.connect();
        ask(&mut second, 11, 3, &join(""));
        std::thread::sleep(Duration::from_millis(100));
        self.revoke("JoinGroup", &mut [second, first], tally);
        let mut first = self.connect();
        let mut beat = request(12);
        beat.set_text("GroupId", Some(LOST))
            .set_int("GenerationId", joined.int("GenerationId"))
            .set_text("MemberId", Some(&member));
        let code = first.call(12, 4, &beat).int("ErrorCode");
        tally.check("revocation", code == 30, || format!("heartbeat: {code}"));
        let mut commit = request(8);
        commit.set_text("GroupId", Some(LOST));
        let mut element = commit.element("Topics");
        element.set_text("Name", Some(KEPT));
        let partition = element.element("Partitions");
        element.structs_mut("Partitions").push(partition);
        commit.structs_mut("Topics").push(element);
        let answer = first.call(8, 9, &commit);
        let code = answer.structs("Topics")[0].structs("Partitions")[0].int("ErrorCode");
        tally.check("revocation", code == 30, || format!("commit: {code}"));
        self.restore();
    }

    /// A member of a group of KIP-848, which waits for nothing.
    fn other_groups(&self, tally: &mut Tally) {
        let mut socket = self.connect();
        let mut beat = request(68);
        beat.set_text("GroupId", Some("live.modern"))
            .set_text("MemberId", Some("AAAAAAAAAAAAAAAAAAAAAQ"))
            .set_int("RebalanceTimeoutMs", 60_000);
        beat.array_mut("SubscribedTopicNames").push(text(KEPT));
        beat.set("TopicPartitions", Node::Structs(Some(Vec::new())));
        let code = socket.call(68, 1, &beat).int("ErrorCode");
        tally.check("revocation", code == 0, || format!("KIP-848: {code}"));
        self.revoke("member of KIP-848", &mut [socket], tally);
        let code = self.connect().call(68, 1, &beat).int("ErrorCode");
        tally.check("revocation", code == 30, || {
            format!("KIP-848, lost: {code}")
        });
        self.restore();
    }

    /// Share sessions: one that waits ends, one that goes on is not found, and neither is that
    /// of another connection.
    fn share(&self, tally: &mut Tally) {
        let member = |number: u8| format!("AAAAAAAAAAAAAAAAAAAA{number}w");
        let open = |number: u8| {
            let mut socket = self.connect();
            for topic in [LOST, KEPT] {
                socket.call(3, 12, &metadata(topic));
            }
            let mut beat = request(76);
            beat.set_text("GroupId", Some(KEPT))
                .set_text("MemberId", Some(&member(number)));
            beat.array_mut("SubscribedTopicNames").push(text(LOST));
            let answer = socket.call(76, 1, &beat);
            assert_eq!(answer.int("ErrorCode"), 0, "{answer:?}");
            // Until the group's partition is there.
            let until = Instant::now() + FORCE_LIMIT;
            loop {
                let answer = socket.call(SHARE_FETCH, 1, &self.share_fetch(&member(number), 0, 1));
                let parts = answer
                    .structs("Responses")
                    .first()
                    .map(|t| t.structs("Partitions"));
                let code = parts.and_then(|p| p.first()).map(|p| p.int("ErrorCode"));
                if answer.int("ErrorCode") == 0 && matches!(code, None | Some(0)) {
                    return socket;
                }
                assert!(Instant::now() < until, "{answer:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        let mut waiting = open(1);
        ask(
            &mut waiting,
            SHARE_FETCH,
            1,
            &self.share_fetch(&member(1), 1, LONG_MS),
        );
        let mut going = open(2);
        let answer = going.call(SHARE_FETCH, 1, &self.share_fetch(&member(2), 1, 1));
        let code = answer.int("ErrorCode");
        tally.check("revocation", code == 0, || {
            format!("share session: {answer:?}")
        });
        let mut stranger = self.connect();
        let answer = stranger.call(SHARE_FETCH, 1, &self.share_fetch(&member(2), 2, 1));
        let code = answer.int("ErrorCode");
        tally.check("revocation", code == 122, || {
            format!("a stranger: {answer:?}")
        });
        self.revoke("ShareFetch", &mut [waiting], tally);
        self.produce(LOST);
        let answer = going.call(SHARE_FETCH, 1, &self.share_fetch(&member(2), 2, 500));
        let code = answer.int("ErrorCode");
        tally.check("revocation", code == 122, || {
            format!("share session, lost: {answer:?}")
        });
        let answer = going.call(SHARE_FETCH, 1, &self.share_fetch(&member(2), 0, 1));
        let part = answer
            .structs("Responses")
            .first()
            .map(|t| t.structs("Partitions")[0].clone());
        let code = part.as_ref().map(|p| p.int("ErrorCode"));
        tally.check("revocation", code == Some(29), || {
            format!("begun again: {answer:?}")
        });
        self.restore();
    }

    fn share_fetch(&self, member: &str, epoch: i64, wait_ms: i64) -> StructNode {
        let mut fetch = request(SHARE_FETCH);
        fetch
            .set_text("GroupId", Some(KEPT))
            .set_text("MemberId", Some(member))
            .set_int("ShareSessionEpoch", epoch)
            .set_int("MaxWaitMs", wait_ms)
            .set_int("MinBytes", 1)
            .set_int("MaxRecords", 10)
            .set_int("BatchSize", 10);
        if epoch == 0 {
            let mut element = fetch.element("Topics");
            element.set("TopicId", Node::Uuid(self.stage.id(Side::Kordon, LOST)));
            let partition = element.element("Partitions");
            element.structs_mut("Partitions").push(partition);
            fetch.structs_mut("Topics").push(element);
        }
        fetch
    }

    /// Kafka's own clients. Those that lose something tell their application so; one that loses
    /// nothing reads on.
    fn clients(&self, tally: &mut Tally) {
        let java = match Revoked::start(&self.kordon.addr) {
            Ok(java) => java,
            Err(why) => return tally.skip("revocation: Java's clients", &why),
        };
        let ready = java.lines(4);
        let fine = ready.len() == 4 && ready.iter().all(|(line, _)| line.starts_with("ready"));
        tally.check("revocation", fine, || format!("clients: {ready:?}"));
        self.enforce(KEPT);
        let mut met = java.lines(2);
        self.produce(KEPT);
        met.extend(java.lines(2));
        for (line, after) in &met {
            println!("surface: Java's client: {line} after {after:?}");
        }
        for (expected, limit) in [
            ("topic TopicAuthorizationException", CLIENT_LIMIT),
            (
                "transaction TransactionalIdAuthorizationException",
                CLIENT_LIMIT,
            ),
            ("group GroupAuthorizationException", CLIENT_LIMIT),
            ("kept record", LIMIT),
        ] {
            let mut of_it = met.iter().filter(|(line, _)| line == expected);
            let fine = of_it.next().is_some_and(|(_, after)| *after <= limit);
            tally.check("revocation", fine, || format!("{expected}: {met:?}"));
        }
        self.restore();
    }

    /// A transaction whose id is lost in its middle: nothing more is done in it, neither commit
    /// nor abort, and the broker ends it when its time is over.
    fn transaction(&self, tally: &mut Tally) {
        let mut socket = self.connect();
        let init = init_producer(LOST, 2_000);
        let begun = wait::until(FORCE_LIMIT, POLL, || {
            let answer = socket.call(22, 4, &init);
            let begun = (answer.int("ProducerId"), answer.int("ProducerEpoch"));
            (answer.int("ErrorCode") == 0).then_some(begun)
        });
        let (id, epoch) = begun.expect("a producer");
        let mut add = request(24);
        add.set_text("V3AndBelowTransactionalId", Some(LOST))
            .set_int("V3AndBelowProducerId", id)
            .set_int("V3AndBelowProducerEpoch", epoch);
        let mut element = add.element("V3AndBelowTopics");
        element.set_text("Name", Some(KEPT));
        element.array_mut("Partitions").push(Node::Int(0));
        add.structs_mut("V3AndBelowTopics").push(element);
        let added = |socket: &mut Socket| {
            let answer = socket.call(24, 3, &add);
            let topic = &answer.structs("ResultsByTopicV3AndBelow")[0];
            topic.structs("ResultsByPartition")[0].int("PartitionErrorCode")
        };
        let code = added(&mut socket);
        tally.check("revocation", code == 0, || {
            format!("AddPartitionsToTxn: {code}")
        });
        let write = |sequence: i32| {
            let mut write = produce(KEPT, &sequenced(id, epoch as i16, sequence));
            write.set_text("TransactionalId", Some(LOST));
            write
        };
        let code = produce_code(&socket.call(0, 9, &write(0)));
        tally.check("revocation", code == 0, || {
            format!("in a transaction: {code}")
        });
        let before = self.end(KEPT, false);
        self.enforce(KEPT);
        let code = produce_code(&socket.call(0, 9, &write(1)));
        tally.check("revocation", code == 53, || {
            format!("Produce, lost: {code}")
        });
        let code = added(&mut socket);
        tally.check("revocation", code == 53, || {
            format!("AddPartitionsToTxn, lost: {code}")
        });
        let mut end = request(26);
        end.set_text("TransactionalId", Some(LOST))
            .set_int("ProducerId", id)
            .set_int("ProducerEpoch", epoch)
            .set_int("Committed", 1);
        let code = socket.call(26, 3, &end).int("ErrorCode");
        tally.check("revocation", code == 53, || format!("EndTxn, lost: {code}"));
        let still_open = self.end(KEPT, true) < before;
        tally.check("revocation", still_open, || {
            "the transaction was ended".to_owned()
        });
        let begun = Instant::now();
        while self.end(KEPT, true) <= before && begun.elapsed() < ABORT_LIMIT {
            std::thread::sleep(Duration::from_millis(200));
        }
        let (committed, all) = (self.end(KEPT, true), self.end(KEPT, false));
        println!(
            "surface: the transaction was aborted after {:?}",
            begun.elapsed()
        );
        // One more than before: the broker's own marker.
        let fine = (committed, all) == (before + 1, before + 1);
        tally.check("revocation", fine, || {
            format!("ends: {before}, {committed}, {all}")
        });
        self.restore();
    }
}

fn ask(socket: &mut Socket, key: i16, version: i16, request: &StructNode) {
    socket.ask(key, version, &encode(key, version, request));
}

fn received(socket: &mut Socket, key: i16, version: i16) -> Option<StructNode> {
    match socket.receive() {
        Seen::Answer(frame) => read(key, version, &frame).ok().map(|(_, node)| node),
        _ => None,
    }
}

fn has_records(answer: &StructNode) -> bool {
    let topics = answer.structs("Responses").iter();
    let mut parts = topics.flat_map(|topic| topic.structs("Partitions"));
    parts.any(|part| part.bytes("Records").is_some_and(|bytes| !bytes.is_empty()))
}

/// A batch of a transaction.
fn sequenced(id: i64, epoch: i16, sequence: i32) -> Bytes {
    const CHECKSUM: std::ops::Range<usize> = 17..21;
    const PRODUCER: std::ops::Range<usize> = 43..57;
    let mut out = BytesMut::from(&batch("x", Kind::Transactional)[..]);
    let mut producer = BytesMut::new();
    producer.put_i64(id);
    producer.put_i16(epoch);
    producer.put_i32(sequence);
    out[PRODUCER].copy_from_slice(&producer);
    let sum = crc32c::crc32c(&out[CHECKSUM.end..]);
    out[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    out.freeze()
}
