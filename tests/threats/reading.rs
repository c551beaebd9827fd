//! Reading: fetch sessions, idle consumers, groups, subscriptions by regular expression.

use crate::asks::{fetch, fetch_code, produce, produce_code, text};
use crate::body::{Kind, batch};
use crate::socket::{Socket, request};
use crate::stage::{LEAVER, SECRET, Side, Stage, both, holds, until};
use kordon::wire::tree::{Node, StructNode};
use std::time::{Duration, Instant};

const FORBIDDEN: i64 = 29;
const GROUP_FORBIDDEN: i64 = 30;
const MEMBER_ID_REQUIRED: i64 = 79;
const NO_SESSION: i64 = 70;

/// A Fetch request from an offset.
fn from(mut fetch: StructNode, offset: i64) -> StructNode {
    for topic in fetch.structs_mut("Topics") {
        topic.structs_mut("Partitions")[0].set_int("FetchOffset", offset);
    }
    fetch
}

/// Opens a session from the first record of a topic and gives its id. Nothing is read in it yet:
/// the partition waits with its records for who asks next.
fn open(stage: &Stage, socket: &mut Socket, topic: &str, version: i16) -> i64 {
    let answer = socket.call(1, version, &fetch(stage, &[topic], version, (0, 0)));
    let session = answer.int("SessionId");
    assert!(session != 0 && fetch_code(&answer) == 0, "{answer:?}");
    session
}

/// Row 8. At the broker the number of a session is all one needs to read by it.
pub fn t08_a_fetch_session_is_its_owners(stage: &mut Stage) {
    for version in [7, 11, 12, 13, 18] {
        let session = open(stage, &mut stage.direct(), "v.secret", version);
        let steal = fetch(stage, &[], version, (session, 1));
        let (bytes, found) = both(&mut stage.direct(), 1, version, &steal);
        assert!(
            fetch_code(&found) == 0 && holds(&bytes, SECRET),
            "{version}: {found:?}"
        );

        let mut victim = stage.client("victim");
        let session = open(stage, &mut victim, "v.secret", version);
        for thief in ["attacker", "admin"] {
            for (topics, epoch) in [(&[][..], 1), (&["a.own"], 1), (&[], 2), (&[], -1), (&[], 0)] {
                let steal = fetch(stage, topics, version, (session, epoch));
                let (bytes, found) = both(&mut stage.client(thief), 1, version, &steal);
                assert!(
                    !holds(&bytes, SECRET),
                    "{version} {thief} {epoch}: {found:?}"
                );
                // Who fetches without a session, or begins one, is served: by none of this number.
                let code = found.int("ErrorCode");
                assert!(
                    code == if epoch > 0 { NO_SESSION } else { 0 },
                    "{version} {thief} {epoch}: {found:?}"
                );
            }
        }
        // Nobody has closed or moved it.
        let (bytes, next) = both(
            &mut victim,
            1,
            version,
            &fetch(stage, &[], version, (session, 1)),
        );
        assert!(
            next.int("ErrorCode") == 0 && holds(&bytes, SECRET),
            "{version}: {next:?}"
        );
    }
}

/// Row 8. The broker keeps the partition in the session; the rule is asked at each fetch.
pub fn t08_a_right_that_is_gone_is_gone_from_open_sessions(stage: &mut Stage) {
    const FILE: &str = "policies/leaver.yaml";
    for version in [7, 12, 13, 18] {
        let end = stage.end("l.left");
        let mut leaver = stage.client("leaver");
        let begin = from(fetch(stage, &["l.left"], version, (0, 0)), end);
        let session = leaver.call(1, version, &begin).int("SessionId");
        assert_ne!(session, 0);
        stage.rewrite(FILE, &LEAVER.replace("l.*", "elsewhere"), || {
            let mut other = stage.client("leaver");
            let answer = other.call(1, version, &fetch(stage, &["l.left"], version, (0, -1)));
            fetch_code(&answer) == FORBIDDEN
        });
        let late = batch("written-later", Kind::Plain);
        let written = stage.direct().call(0, 9, &produce("l.left", &late));
        assert_eq!(produce_code(&written), 0);
        for epoch in 1..=3 {
            let next = fetch(stage, &[], version, (session, epoch));
            let (bytes, found) = both(&mut leaver, 1, version, &next);
            assert!(
                !holds(&bytes, "written-later"),
                "{version} {epoch}: {found:?}"
            );
        }
        stage.rewrite(FILE, LEAVER, || {
            let mut other = stage.client("leaver");
            let again = from(fetch(stage, &["l.left"], version, (0, -1)), end);
            holds(&both(&mut other, 1, version, &again).0, "written-later")
        });
    }
}

/// A ShareFetch (KIP-932) in the session of a member; the topic is named as it opens.
fn share(stage: &Stage, group: &str, member: &str, topic: &str, epoch: i64) -> StructNode {
    let mut share = request(78);
    share
        .set_text("GroupId", Some(group))
        .set_text("MemberId", Some(member))
        .set_int("ShareSessionEpoch", epoch)
        .set_int("MaxBytes", 1 << 20)
        .set_int("MaxRecords", 10)
        .set_int("BatchSize", 10)
        .set_int("MaxWaitMs", 200);
    if epoch == 0 {
        let mut element = share.element("Topics");
        element.set("TopicId", Node::Uuid(stage.id(Side::Kordon, topic)));
        let partition = element.element("Partitions");
        element.structs_mut("Partitions").push(partition);
        share.structs_mut("Topics").push(element);
    }
    share
}

/// Opens a share session that delivers: a group begins at the end of a topic, at a moment of the
/// broker's own. Gives the next epoch.
fn share_opened(stage: &Stage, socket: &mut Socket, group: &str, member: &str, topic: &str) -> i64 {
    let mut epoch = 0;
    let mut direct = stage.direct();
    let mut join = request(76);
    join.set_text("GroupId", Some(group))
        .set_text("MemberId", Some(member));
    join.set("SubscribedTopicNames", Node::Array(Some(vec![text(topic)])));
    until(|| {
        let answer = direct.call(76, 1, &join);
        if answer.int("ErrorCode") == 0 {
            join.set_int("MemberEpoch", answer.int("MemberEpoch"));
        }
        let assigned = answer
            .nested("Assignment")
            .map(|a| a.structs("TopicPartitions"));
        (!assigned.unwrap_or_default().is_empty()).then_some(())
    });
    until(|| {
        let ask = share(stage, group, member, topic, epoch);
        let (bytes, answer) = both(socket, 78, 1, &ask);
        // The group's state may be loading.
        if answer.int("ErrorCode") != 0 {
            assert!(
                [14, 15, 16].contains(&answer.int("ErrorCode")),
                "{answer:?}"
            );
            return None;
        }
        epoch += 1;
        let early = batch("written-early", Kind::Plain);
        assert_eq!(produce_code(&direct.call(0, 9, &produce(topic, &early))), 0);
        holds(&bytes, "written-early").then_some(())
    });
    epoch
}

/// Row 8. A broker knows a share session by its group and member, which one who may describe the
/// group learns; the records in it are judged for who asks.
pub fn t08_a_share_session_delivers_what_one_may_read(stage: &mut Stage) {
    const FILE: &str = "policies/leaver.yaml";
    const LATE: &str = "written-later";
    let write = |stage: &Stage, topic: &str| {
        let late = batch(LATE, Kind::Plain);
        let code = produce_code(&stage.direct().call(0, 9, &produce(topic, &late)));
        assert_eq!(code, 0);
    };
    // The right to the topic goes, the one to the group stays.
    let member = "AAAAAAAAAAAAAAAAAAAAAQ";
    let mut leaver = stage.client("leaver");
    let next = share_opened(stage, &mut leaver, "leavers", member, "l.left");
    stage.rewrite(FILE, &LEAVER.replace("l.*", "elsewhere"), || {
        let mut other = stage.client("leaver");
        let answer = other.call(1, 12, &fetch(stage, &["l.left"], 12, (0, -1)));
        fetch_code(&answer) == FORBIDDEN
    });
    write(stage, "l.left");
    for epoch in next..next + 4 {
        let ask = share(stage, "leavers", member, "l.left", epoch);
        let (bytes, answer) = both(&mut leaver, 78, 1, &ask);
        assert!(!holds(&bytes, LATE), "{answer:?}");
    }
    stage.rewrite(FILE, LEAVER, || {
        let mut other = stage.client("leaver");
        let answer = other.call(1, 12, &fetch(stage, &["l.left"], 12, (0, -1)));
        fetch_code(&answer) == 0
    });
    // One of the group who may not read the topic goes on in another's session.
    let member = "AAAAAAAAAAAAAAAAAAAAAw";
    let mut victim = stage.client("victim");
    let mut epoch = share_opened(stage, &mut victim, "squad", member, "v.secret");
    let mut attacker = stage.client("attacker");
    write(stage, "v.secret");
    for _ in 0..4 {
        let ask = share(stage, "squad", member, "v.secret", epoch);
        let (bytes, answer) = both(&mut attacker, 78, 1, &ask);
        let read = holds(&bytes, LATE) || holds(&bytes, "written-early");
        assert!(!read, "{answer:?}");
        epoch += i64::from(answer.int("ErrorCode") == 0);
    }
}

/// Row 8. A member's name is no secret, and who opens a session under it comes to know its epoch:
/// opened on two connections, it is one at the broker, with the topics of the last one.
pub fn t08_a_share_session_of_two_delivers_to_each_what_one_may_read(stage: &mut Stage) {
    const LATE: &str = "written-later";
    let member = "AAAAAAAAAAAAAAAAAAAABQ";
    let mut victim = stage.client("victim");
    share_opened(stage, &mut victim, "squad", member, "v.secret");
    let mut attacker = stage.client("attacker");
    for _ in 0..5 {
        let own = share(stage, "squad", member, "a.own", 0);
        assert_eq!(attacker.call(78, 1, &own).int("ErrorCode"), 0);
        // The victim finds its session gone and opens it again.
        let again = share(stage, "squad", member, "v.secret", 0);
        assert_eq!(victim.call(78, 1, &again).int("ErrorCode"), 0);
        let late = batch(LATE, Kind::Plain);
        let written = stage.direct().call(0, 9, &produce("v.secret", &late));
        assert_eq!(produce_code(&written), 0);
        let ask = share(stage, "squad", member, "", 1);
        let (bytes, answer) = both(&mut attacker, 78, 1, &ask);
        assert!(!holds(&bytes, LATE), "{answer:?}");
    }
}

/// Row 9. What is forbidden beside what is empty does not turn waiting into spinning.
pub fn t09_an_idle_consumer_waits(stage: &mut Stage) {
    const WAIT_MS: u64 = 500;
    const POLLS: i64 = 4;
    let end = stage.end("a.own");
    for version in [7, 12, 13, 18] {
        let mut consumer = stage.client("attacker");
        let begin = from(fetch(stage, &["a.own"], version, (0, 0)), end);
        let session = consumer.call(1, version, &begin).int("SessionId");
        let from = Instant::now();
        for epoch in 1..=POLLS {
            let mut idle = fetch(stage, &[], version, (session, epoch));
            idle.set_int("MaxWaitMs", WAIT_MS as i64)
                .set_int("MinBytes", 1);
            let answer = consumer.call(1, version, &idle);
            assert_eq!(answer.int("ErrorCode"), 0, "{version}: {answer:?}");
            assert_eq!(answer.int("SessionId"), session, "{version}");
        }
        let least = Duration::from_millis(WAIT_MS * POLLS as u64) - Duration::from_millis(200);
        assert!(from.elapsed() > least, "{version}: {:?}", from.elapsed());
    }
}

/// Row 19. Who joins a group may learn what its members subscribe to, so its name is exact.
pub fn t19_a_group_is_joined_by_its_exact_name(stage: &mut Stage) {
    let join = |socket: &mut Socket, group: &str, version: i16| {
        let mut join = request(11);
        join.set_text("GroupId", Some(group))
            .set_text("ProtocolType", Some("consumer"))
            .set_int("SessionTimeoutMs", 10_000)
            .set_int("RebalanceTimeoutMs", 10_000);
        let mut protocol = join.element("Protocols");
        protocol.set_text("Name", Some("range"));
        protocol.set("Metadata", Node::Bytes(Some(vec![0; 8].into())));
        join.structs_mut("Protocols").push(protocol);
        // A coordinator that has just been made may be loading.
        until(|| {
            let code = socket.call(11, version, &join).int("ErrorCode");
            (![14, 15, 16].contains(&code)).then_some(code)
        })
    };
    assert_eq!(join(&mut stage.direct(), "v.group", 9), MEMBER_ID_REQUIRED);
    let mut attacker = stage.client("attacker");
    for version in 4..=9 {
        for group in ["v.group", "teams", "team.", "tea", "Team", "team-", "a", ""] {
            let code = join(&mut attacker, group, version);
            assert_eq!(code, GROUP_FORBIDDEN, "{group:?} {version}");
        }
        assert_eq!(
            join(&mut attacker, "team", version),
            MEMBER_ID_REQUIRED,
            "{version}"
        );
    }
}

/// A heartbeat of a consumer (KIP-848).
fn heartbeat(group: &str, epoch: i64, regex: Option<&str>) -> StructNode {
    let mut beat = request(68);
    beat.set_text("GroupId", Some(group))
        .set_text("MemberId", Some("AAAAAAAAAAAAAAAAAAAAAg"))
        .set_int("MemberEpoch", epoch)
        .set_text("SubscribedTopicRegex", regex);
    if epoch == 0 {
        beat.set_int("RebalanceTimeoutMs", 60_000);
        beat.set("TopicPartitions", Node::Structs(Some(Vec::new())));
    }
    beat
}

/// Beats until a topic is assigned.
fn until_assigned(socket: &mut Socket, group: &str, regex: &str, topic: [u8; 16]) {
    let mut epoch = 0;
    until(|| {
        let answer = socket.call(
            68,
            1,
            &heartbeat(group, epoch, (epoch == 0).then_some(regex)),
        );
        let code = answer.int("ErrorCode");
        assert!([0, 14, 15, 16].contains(&code), "{answer:?}");
        if code == 0 {
            epoch = answer.int("MemberEpoch");
        }
        let assigned = answer
            .nested("Assignment")
            .map(|a| a.structs("TopicPartitions"));
        let mut topics = assigned.unwrap_or_default().iter();
        topics.any(|t| t.uuid("TopicId") == topic).then_some(())
    });
}

/// Row 20. The broker resolves the expression for the proxy's identity, again with each new topic.
pub fn t20_a_regular_expression_needs_every_topic(stage: &mut Stage) {
    let secret = stage.id(Side::Kordon, "v.secret");
    until_assigned(&mut stage.direct(), "direct.regex", "v[.]s.*", secret);

    let mut attacker = stage.client("attacker");
    for regex in ["v[.].*", ".*", "a[.].*|v[.].*", "a[.].*"] {
        let answer = attacker.call(68, 1, &heartbeat("a.regex", 0, Some(regex)));
        assert_eq!(answer.int("ErrorCode"), FORBIDDEN, "{regex}");
        assert!(answer.nested("Assignment").is_none(), "{regex}");
    }
    // Whoever may describe every topic is told of new ones, and reads only what the rules say.
    let mut watcher = stage.client("watcher");
    until_assigned(&mut watcher, "w.regex", "[vw][.].*", secret);
    stage.create(&["w.born", "v.born"]);
    for (topic, code) in [
        ("w.born", 0),
        ("v.born", FORBIDDEN),
        ("v.secret", FORBIDDEN),
    ] {
        let written = batch("just-born", Kind::Plain);
        assert_eq!(
            produce_code(&stage.direct().call(0, 9, &produce(topic, &written))),
            0
        );
        let answer = fetch(stage, &[topic], 13, (0, -1));
        assert_eq!(fetch_code(&watcher.call(1, 13, &answer)), code, "{topic}");
    }
    let mut describe = request(69);
    describe.array_mut("GroupIds").push(text("w.regex"));
    let found = stage.client("attacker").call(69, 1, &describe);
    assert_eq!(found.structs("Groups")[0].int("ErrorCode"), GROUP_FORBIDDEN);
}
