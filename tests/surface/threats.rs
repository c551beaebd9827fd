//! Ways past the rules, by their numbers in the project's list of threats, over bare sockets and
//! beside a real broker with the same rules where there is one to compare with.

use crate::accepted::excuse;
use crate::asks::{self, fetch, fetch_code, metadata, produce_code, text};
use crate::body::{self, Kind, Names, batch};
use crate::compare::{comparable, differences, show};
use crate::lab::kafka::Kafka;
use crate::lab::kordon::Kordon;
use crate::socket::{CLIENT_ID, Seen, Socket, encode, frame, read, request};
use crate::stage::{ALL, NONE, SIDES, Side, Stage};
use crate::tally::Tally;
use kordon::apis::{self, Phase, layout};
use kordon::wire::layout::{Role, Struct};
use kordon::wire::tree::{Node, StructNode};
use std::time::{Duration, Instant};

/// A topic that nothing else writes to or deletes from.
const SESSION_TOPIC: &str = "in.session";
const FORBIDDEN: i64 = 29;
const UNKNOWN_ID: i64 = 100;
const NO_SESSION: i64 = 70;

/// Runs all of them.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    t01_ids_as_at_a_broker(stage, tally);
    t02_made_anew_as_at_a_broker(stage, tally);
    t03_t04_t11_keys_and_versions_end_the_connection(stage, tally);
    for side in SIDES {
        stage.create(side, &[SESSION_TOPIC]);
    }
    t08_sessions_have_an_owner(stage, tally);
    t09_nothing_new_waits(stage, tally);
    t10_replicas_at_every_version(stage, tally);
    t13_client_ids_open_nothing(stage, tally);
    t15_the_same_bytes_at_every_version(stage, tally);
    t21_transactions_as_at_a_broker(stage, tally);
    t22_control_batches_at_every_version(stage, tally);
    if let Err(why) = t14_on_demand_makes_only_ones_own(tally) {
        tally.fail("t14", why);
    }
    if let Err(why) = crate::tokens::t40(tally) {
        tally.fail("t40", why);
    }
}

fn named(topic: &str) -> Names {
    Names::of(topic, "in.group", "in.warm")
}

/// The same request to both sides; fails unless the answers agree, and gives Kordon's.
fn both(
    stage: &Stage,
    tally: &mut Tally,
    threat: &str,
    user: &str,
    (key, version): (i16, i16),
    make: &dyn Fn(Side) -> StructNode,
) -> Option<StructNode> {
    let answers = SIDES.map(|side| {
        let mut socket = stage.connect(side, user);
        socket.ask(key, version, &encode(key, version, &make(side)));
        match socket.receive() {
            Seen::Answer(bytes) => Ok(read(key, version, &bytes).unwrap().1),
            other => Err(other),
        }
    });
    let label = format!("key {key} version {version} as {user}");
    match &answers {
        [Ok(a), Ok(b)] => {
            let a = comparable(stage, Side::Strict, key, version, a);
            let b = comparable(stage, Side::Kordon, key, version, b);
            let mut found = differences(&a, &b);
            found.retain(|d| excuse(key, &[], d).is_none());
            tally.check(threat, found.is_empty(), || format!("{label}: {found:?}"));
        }
        [Err(a), Err(b)] if a == b => tally.pass(),
        other => tally.fail(threat, format!("{label}: {other:?}")),
    }
    let [_, kordon] = answers;
    kordon.ok()
}

/// t01: every API that takes topic ids, with the id of a topic that is forbidden, with one that
/// nobody has, with zero, and with an id beside a name.
fn t01_ids_as_at_a_broker(stage: &Stage, tally: &mut Tally) {
    for api in apis::table::TABLE
        .iter()
        .filter(|a| a.phase == Phase::Client)
    {
        let key = api.key;
        let Some(layout) = api.layout() else { continue };
        for version in api.versions.min..=api.versions.max {
            if !api.has_topic_ids(version) || key == 78 {
                continue;
            }
            for (id, user) in [
                ("foreign", "prefix"),
                ("unknown", "prefix"),
                ("zero", "prefix"),
                ("own", "prefix"),
                ("zero", NONE),
                ("own", NONE),
            ] {
                if key == 20 && id == "own" && user == "prefix" {
                    continue; // It would be deleted.
                }
                for keep_name in [false, true] {
                    if key == 20 && id == "zero" && user == "prefix" {
                        continue; // A name alone: it would be deleted.
                    }
                    both(stage, tally, "t01", user, (key, version), &|side| {
                        let topic = match id {
                            "foreign" => "out.orders",
                            "unknown" => "in.nobody",
                            _ => "in.orders",
                        };
                        let mut names = named(topic);
                        names.by_id = true;
                        let mut request = body::request(stage, side, key, version, &names);
                        let id = match id {
                            "zero" => [0; 16],
                            _ => stage.id(side, topic),
                        };
                        set_ids(&mut request, &layout.request.body, version, &id, keep_name);
                        request
                    });
                }
            }
        }
    }
}

/// Sets the topic id wherever there is one; beside a name only if `keep_name`, and then the name
/// of a topic that is allowed.
fn set_ids(node: &mut StructNode, layout: &Struct, version: i16, id: &[u8; 16], keep_name: bool) {
    for (index, field) in layout.fields.iter().enumerate() {
        if !field.versions.contains(version) {
            continue;
        }
        let about_ids = layout.fields.iter().any(|f| f.role == Role::TopicId);
        match node.at_mut(index) {
            Some(value @ Node::Uuid(_)) if field.role == Role::TopicId => *value = Node::Uuid(*id),
            Some(value @ Node::Bytes(_)) if field.role == Role::TopicName && about_ids => {
                let name = keep_name.then(|| b"in.orders"[..].into());
                *value = Node::Bytes(name);
            }
            Some(Node::Structs(Some(elements))) => {
                for element in elements {
                    let nested = element.layout();
                    set_ids(element, nested, version, id, keep_name);
                }
            }
            _ => {}
        }
    }
}

/// t02: a topic is deleted and made again while a connection lives. Its old id is nobody's, its
/// new id is decided by the rules for its name.
fn t02_made_anew_as_at_a_broker(stage: &mut Stage, tally: &mut Tally) {
    for topic in ["in.cycle", "out.cycle"] {
        for side in SIDES {
            stage.create(side, &[topic]);
        }
        let old = SIDES.map(|side| stage.id(side, topic));
        let mut sockets = SIDES.map(|side| stage.connect(side, "prefix"));
        let mut ask = |stage: &Stage, ids: [[u8; 16]; 2]| {
            let mut codes = [0; 2];
            for (at, side) in SIDES.into_iter().enumerate() {
                let mut request = body::request(stage, side, 1, 13, &named(topic));
                request.structs_mut("Topics")[0].set("TopicId", Node::Uuid(ids[at]));
                let answer = sockets[at].call(1, 13, &request);
                codes[at] = fetch_code(&answer);
            }
            codes
        };
        let expected = if topic.starts_with("in.") {
            0
        } else {
            FORBIDDEN
        };
        let first = ask(stage, old);
        tally.check("t02", first == [expected; 2], || {
            format!("{topic}: {first:?}")
        });
        for side in SIDES {
            let mut delete = request(20);
            delete.array_mut("TopicNames").push(text(topic));
            delete.set_int("TimeoutMs", 5000);
            stage.admin(side).call(20, 5, &delete);
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                let answer = stage.admin(side).call(3, 12, &metadata(topic));
                if answer.structs("Topics")[0].int("ErrorCode") == 3 || Instant::now() > until {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let gone = ask(stage, old);
        // A broker says 100; here the old id is remembered and the name decides first.
        let gone_fine = gone[0] == UNKNOWN_ID && [UNKNOWN_ID, expected].contains(&gone[1]);
        tally.check("t02", gone_fine && gone[1] != 0, || {
            format!("{topic}, deleted: {gone:?}")
        });
        for side in SIDES {
            stage.create(side, &[topic]);
        }
        let new = SIDES.map(|side| stage.id(side, topic));
        let again = ask(stage, new);
        tally.check("t02", again == [expected; 2] && new != old, || {
            format!("{topic}, made again: {again:?}")
        });
        let old_again = ask(stage, old);
        tally.check("t02", old_again[1] != 0, || {
            format!("{topic}, by its old id: {old_again:?}")
        });
    }
}

/// t03, t04, t11: who may do everything is still no broker. Each key that is not for clients and
/// each version outside of the row ends the connection.
fn t03_t04_t11_keys_and_versions_end_the_connection(stage: &Stage, tally: &mut Tally) {
    for key in [-1, 93, 127, 10_000, 32_767] {
        let mut socket = stage.connect(Side::Kordon, ALL);
        socket.ask(key, 0, b"\0\0\0\0");
        let seen = socket.receive();
        tally.check("t03", seen == Seen::Closed, || format!("{key}: {seen:?}"));
    }
    for api in &apis::table::TABLE {
        let (min, max) = (api.versions.min, api.versions.max);
        let (number, versions) = match api.phase {
            Phase::Client => ("t04", vec![min - 1, max + 1]),
            Phase::Handshake => continue, // ApiVersions answers; see the frames.
            Phase::BrokerOnly | Phase::Retired => ("t11", (0..=max.max(3)).collect()),
        };
        for version in versions {
            let shape = body::nearest(api.key, version);
            let bytes = layout(api.key).map(|_| {
                let request =
                    body::request(stage, Side::Kordon, api.key, shape, &named("in.orders"));
                encode(api.key, shape, &request)
            });
            let mut socket = stage.connect(Side::Kordon, ALL);
            socket.ask(api.key, version, &bytes.unwrap_or_default());
            let seen = socket.receive();
            tally.check(number, seen == Seen::Closed, || {
                format!("{} {version}: {seen:?}", api.name)
            });
        }
    }
}

/// t08: a fetch session belongs to who opened it.
fn t08_sessions_have_an_owner(stage: &Stage, tally: &mut Tally) {
    for version in [7, 11, 12, 13, 18] {
        let mut owner = stage.connect(Side::Kordon, "prefix");
        let opened = owner.call(1, version, &fetch(stage, &[SESSION_TOPIC], version, (0, 0)));
        let session = opened.int("SessionId");
        tally.check("t08", session != 0 && fetch_code(&opened) == 0, || {
            format!("{version}: no session: {}", show(&opened))
        });
        for thief in [NONE, "deny", ALL] {
            // No topic, one of the thief's own, and the end of the session.
            for (topics, epoch) in [(&[][..], 1), (&[SESSION_TOPIC], 1), (&[], -1), (&[], 2)] {
                let mut socket = stage.connect(Side::Kordon, thief);
                let request = fetch(stage, topics, version, (session, epoch));
                let answer = socket.call(1, version, &request);
                // Who wants no session is served, by none.
                let code = if epoch > 0 { NO_SESSION } else { 0 };
                let fine = answer.int("ErrorCode") == code
                    && answer.structs("Responses").is_empty()
                    && answer.int("SessionId") == 0;
                tally.check("t08", fine, || {
                    format!("{version}, {thief} with epoch {epoch}: {}", show(&answer))
                });
            }
        }
        let next = owner.call(1, version, &fetch(stage, &[], version, (session, 1)));
        let kept = next.int("ErrorCode") == 0 && next.int("SessionId") == session;
        tally.check("t08", kept, || {
            format!("{version}: the owner's: {}", show(&next))
        });
        // Another connection of the same principal may, as at a broker.
        let mut other = stage.connect(Side::Kordon, "prefix");
        let next = other.call(1, version, &fetch(stage, &[], version, (session, 2)));
        tally.check("t08", next.int("ErrorCode") == 0, || {
            format!("{version}: the owner's other connection: {}", show(&next))
        });
    }
}

/// t09: an incremental fetch of nothing new waits at the broker; one of refused topics answers
/// them again, as a broker does.
fn t09_nothing_new_waits(stage: &Stage, tally: &mut Tally) {
    const WAIT_MS: i64 = 400;
    let mut socket = stage.connect(Side::Kordon, "prefix");
    let opened = socket.call(
        1,
        12,
        &fetch(stage, &[SESSION_TOPIC, "out.orders"], 12, (0, 0)),
    );
    let refused = |answer: &StructNode| {
        let topics = answer.structs("Responses").iter();
        topics
            .filter(|t| t.structs("Partitions")[0].int("ErrorCode") == FORBIDDEN)
            .count()
    };
    tally.check("t09", refused(&opened) == 1, || show(&opened));
    let session = opened.int("SessionId");
    let next = socket.call(1, 12, &fetch(stage, &[], 12, (session, 1)));
    tally.check("t09", refused(&next) == 1, || {
        format!("repeated: {}", show(&next))
    });

    let mut socket = stage.connect(Side::Kordon, "prefix");
    let mut open = fetch(stage, &[SESSION_TOPIC], 12, (0, 0));
    let end = high_watermark(stage, SESSION_TOPIC);
    for topic in open.structs_mut("Topics") {
        topic.structs_mut("Partitions")[0].set_int("FetchOffset", end);
    }
    let session = socket.call(1, 12, &open).int("SessionId");
    let mut idle = fetch(stage, &[], 12, (session, 1));
    idle.set_int("MaxWaitMs", WAIT_MS).set_int("MinBytes", 1);
    let from = Instant::now();
    let answer = socket.call(1, 12, &idle);
    let waited = from.elapsed().as_millis();
    let fine = waited + 50 >= WAIT_MS as u128 && answer.int("ErrorCode") == 0;
    tally.check("t09", fine, || format!("{waited} ms: {}", show(&answer)));
}

fn high_watermark(stage: &Stage, topic: &str) -> i64 {
    let mut socket = stage.connect(Side::Kordon, ALL);
    let answer = socket.call(1, 12, &fetch(stage, &[topic], 12, (0, -1)));
    answer.structs("Responses")[0].structs("Partitions")[0].int("HighWatermark")
}

/// t10: who claims to be a replica is refused on every partition, whatever the rules say.
fn t10_replicas_at_every_version(stage: &Stage, tally: &mut Tally) {
    let mut ask = |key: i16, version: i16, request: &StructNode, answers: &str| {
        let mut socket = stage.connect(Side::Kordon, ALL);
        let answer = socket.call(key, version, request);
        let topics = answer.structs(answers);
        let partitions: Vec<i64> = topics
            .iter()
            .flat_map(|t| t.structs("Partitions"))
            .map(|p| p.int("ErrorCode"))
            .collect();
        tally.check("t10", partitions == [FORBIDDEN], || {
            format!("key {key} version {version}: {}", show(&answer))
        });
    };
    for replica in [0, 1, 99, i64::from(i32::MAX)] {
        for version in 4..=18 {
            let mut request = fetch(stage, &["in.orders"], version, (0, -1));
            if version < 15 {
                request.set_int("ReplicaId", replica);
            } else {
                let mut state = request.element("ReplicaState");
                state.set_int("ReplicaId", replica);
                request.set("ReplicaState", Node::Struct(Some(Box::new(state))));
            }
            ask(1, version, &request, "Responses");
        }
        for version in 1..=11 {
            let mut request = body::request(stage, Side::Kordon, 2, version, &named("in.orders"));
            request.set_int("ReplicaId", replica);
            ask(2, version, &request, "Topics");
        }
        for version in 3..=4 {
            let mut request = body::request(stage, Side::Kordon, 23, version, &named("in.orders"));
            request.set_int("ReplicaId", replica);
            ask(23, version, &request, "Topics");
        }
    }
}

fn produce(topic: &str, transactional_id: Option<&str>, kind: Kind) -> StructNode {
    let mut produce = asks::produce(topic, &batch("event", kind));
    produce.set_text("TransactionalId", transactional_id);
    produce
}

/// t13: the client id that a broker lets write internal topics has no meaning here.
fn t13_client_ids_open_nothing(stage: &Stage, tally: &mut Tally) {
    for topic in [
        "__consumer_offsets",
        "__transaction_state",
        "__share_group_state",
    ] {
        for client_id in [CLIENT_ID, "__admin_client"] {
            for version in [3, 9, 12] {
                let mut socket = stage.connect(Side::Kordon, ALL);
                let body = encode(0, version, &produce(topic, None, Kind::Plain));
                socket.send(&frame(0, version, 9, client_id, &body));
                let Seen::Answer(bytes) = socket.receive() else {
                    tally.fail("t13", format!("{topic} {version}: no answer"));
                    continue;
                };
                let code = produce_code(&read(0, version, &bytes).unwrap().1);
                tally.check("t13", code == 17, || {
                    format!("{topic} as {client_id}: {code}")
                });
            }
        }
    }
}

/// t15: what is forbidden and exists and what is forbidden and does not give the same bytes.
fn t15_the_same_bytes_at_every_version(stage: &Stage, tally: &mut Tally) {
    const THERE: &str = "out.orders";
    const ABSENT: &str = "out.absent";
    let mut cases = 0;
    for api in apis::table::TABLE
        .iter()
        .filter(|a| a.phase == Phase::Client)
    {
        let body = &api.layout().unwrap().request.body;
        for version in api.versions.min..=api.versions.max {
            if api.has_topic_ids(version) && api.key != 3 {
                continue; // By id, unknown ones are told apart at a broker too.
            }
            if !body::names(body, Role::TopicName, version) && !matches!(api.key, 32 | 33 | 44) {
                continue;
            }
            for user in [NONE, "prefix", "cluster", "create", "deny"] {
                // Who may act on the whole cluster learns more, at a broker too.
                if user == "cluster" && !matches!(api.key, 0 | 1 | 2 | 8 | 9 | 21 | 28 | 47 | 61) {
                    continue;
                }
                cases += 1;
                let answers = [THERE, ABSENT].map(|topic| {
                    let request =
                        body::request(stage, Side::Kordon, api.key, version, &named(topic));
                    let mut socket = stage.connect(Side::Kordon, user);
                    socket.ask(api.key, version, &encode(api.key, version, &request));
                    match socket.receive() {
                        Seen::Answer(bytes) => {
                            let text = bytes.escape_ascii().to_string();
                            text.replace(topic, "TOPIC")
                        }
                        other => format!("{other:?}"),
                    }
                });
                tally.check("t15", answers[0] == answers[1], || {
                    format!("{} {version} as {user}: {answers:?}", api.name)
                });
            }
        }
    }
    tally.check("t15", cases > 200, || format!("{cases} cases only"));
}

/// t21: the transactional bit and the transactional id disagree, both ways; a group that is not
/// the client's.
fn t21_transactions_as_at_a_broker(stage: &Stage, tally: &mut Tally) {
    const REFUSED: i64 = 53;
    for version in [3, 8, 9, 12] {
        for (id, user, refused) in [
            (None, "prefix", true),
            (Some("out.t"), "prefix", true),
            (None, ALL, true),
            (Some("in.t"), "read", true),
            (Some("in.t"), "prefix", false),
        ] {
            let code = both(stage, tally, "t21", user, (0, version), &|_| {
                produce("in.orders", id, Kind::Transactional)
            })
            .map(|answer| produce_code(&answer));
            tally.check("t21", (code == Some(REFUSED)) == refused, || {
                format!("{version} {id:?} as {user}: {code:?}")
            });
        }
        // An id without the bit is not asked about, as at a broker.
        let code = both(stage, tally, "t21", "prefix", (0, version), &|_| {
            produce("in.orders", Some("out.t"), Kind::Plain)
        })
        .map(|answer| produce_code(&answer));
        tally.check("t21", code != Some(REFUSED), || {
            format!("{version}: {code:?}")
        });
    }
    for version in 0..=5 {
        for (transaction, group) in [("in.warm", "out.group"), ("out.warm", "in.group")] {
            let names = Names {
                topics: vec!["in.orders".into()],
                groups: vec![group.into()],
                transactions: vec![transaction.into()],
                ..Names::default()
            };
            for key in [25, 26, 28] {
                if version <= apis::lookup(key).unwrap().versions.max {
                    both(stage, tally, "t21", "prefix", (key, version), &|side| {
                        body::request(stage, side, key, version, &names)
                    });
                }
            }
        }
    }
}

/// t22: clients write no control batches.
fn t22_control_batches_at_every_version(stage: &Stage, tally: &mut Tally) {
    let before = high_watermark(stage, SESSION_TOPIC);
    for version in 3..=12 {
        let mut socket = stage.connect(Side::Kordon, ALL);
        let answer = socket.call(0, version, &produce(SESSION_TOPIC, None, Kind::Control));
        let code = produce_code(&answer);
        tally.check("t22", code == 87, || format!("{version}: {code}"));
    }
    let after = high_watermark(stage, SESSION_TOPIC);
    tally.check("t22", before == after, || format!("{before}, then {after}"));
}

/// t14: at a broker that creates topics on demand, a name that may be described and not created
/// leaves no topic; one that may be created is.
fn t14_on_demand_makes_only_ones_own(tally: &mut Tally) -> Result<(), String> {
    const POLICY: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: seer}
spec:
  principals: [\"User:seer\"]
  rules:
    - {allow: [Describe], topics: [\"x.*\"]}
    - {allow: [Create], topics: [\"x.mine*\"]}
";
    let kafka = Kafka::start("4.3.0", 1, "auto.create.topics.enable=true")?;
    let upstream = kafka.bootstrap();
    let config = |ports: &crate::lab::kordon::Ports| {
        format!(
            "upstream:
  bootstrap: [\"{upstream}\"]
listeners:
  - name: app
    bind: 127.0.0.1:{app}
    advertise: {{host: localhost, ports: {first}-{first}}}
    identity: {{static: \"User:seer\"}}
policies: policies/
admin: {{bind: \"127.0.0.1:{admin}\"}}
",
            app = ports.app,
            first = ports.app + 1,
            admin = ports.admin,
        )
    };
    let kordon = Kordon::start("127.0.0.1", config, &[("policies/p.yaml", POLICY)])?;
    let mut client = Socket::open(&kordon.addr);
    for version in 0..=13 {
        for topics in [
            vec![format!("x.new{version}")],
            vec![format!("y.new{version}"), format!("x.mine{version}")],
            vec![format!("x.other{version}"), format!("y.other{version}")],
        ] {
            let mut ask = request(3);
            for topic in &topics {
                let mut element = ask.element("Topics");
                element.set_text("Name", Some(topic));
                ask.structs_mut("Topics").push(element);
            }
            ask.set_int("AllowAutoTopicCreation", 1);
            let answer = client.call(3, version, &ask);
            tally.check(
                "t14",
                answer.structs("Topics").len() == topics.len(),
                || format!("{version}: {}", show(&answer)),
            );
        }
    }
    let mut expected: Vec<String> = (0..=13).map(|v| format!("x.mine{v}")).collect();
    expected.sort_unstable();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut all = request(3);
        all.set("Topics", Node::Structs(None));
        let answer = Socket::open(&kafka.bootstrap()).call(3, 12, &all);
        let topics = answer.structs("Topics").iter();
        let mut topics: Vec<&str> = topics.filter_map(|t| t.text("Name")).collect();
        topics.sort_unstable();
        let done = topics == expected;
        if done || Instant::now() > until {
            tally.check("t14", done, || format!("created: {topics:?}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
