//! The protocol itself: keys, versions, who speaks before and after authenticating, replicas and
//! brokers that are none, lengths.

use crate::asks::{creation, fetch_code, produce, produce_code, text};
use crate::body::{self, Kind, Names, batch};
use crate::socket::{CLIENT_ID, Seen, Socket, encode, frame, read, request};
use crate::stage::{Side, Stage, answer, bearer, bearer_of, framed, handshake, holds};
use bytes::{BufMut, Bytes, BytesMut};
use kordon::apis::{self, Phase};
use kordon::wire::header::RequestHeader;
use kordon::wire::tree::{Node, StructNode};
use std::time::{Duration, Instant};

const FORBIDDEN: i64 = 29;
/// What hostile frames may add to the memory of the process, in KiB.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

fn plain_batch() -> Bytes {
    batch("event", Kind::Plain)
}

fn names() -> Names {
    Names::of("v.secret", "v.group", "v.txn")
}

fn fetch(stage: &Stage, topic: &str, version: i16) -> StructNode {
    let names = Names {
        topics: vec![topic.into()],
        ..Names::default()
    };
    body::request(stage, Side::Kordon, 1, version, &names)
}

/// Whether the connection ends; what is answered before that does not count.
fn ends(socket: &mut Socket) -> bool {
    for _ in 0..20 {
        match socket.receive() {
            Seen::Answer(_) => {}
            Seen::Closed => return true,
            Seen::Silent => return false,
        }
    }
    false
}

/// Row 3.
pub fn t03_keys_that_nobody_knows_end_the_connection(stage: &mut Stage) {
    let beyond = apis::table::TABLE.iter().map(|api| api.key).max().unwrap() + 1;
    let unknown = [i16::MIN, -1, 127, 1000, 10_000, i16::MAX];
    for key in unknown.into_iter().chain(beyond..beyond + 8) {
        for body in [&b""[..], b"\0\0\0\0", &[0xff; 64]] {
            let mut socket = stage.client("admin");
            socket.ask(key, 0, body);
            assert_eq!(socket.receive(), Seen::Closed, "key {key}");
        }
    }
    assert!(stage.kordon.runs());
}

/// Row 4.
pub fn t04_versions_that_are_not_offered_end_the_connection(stage: &mut Stage) {
    // The broker takes more than Kordon offers: the batched form, which is for brokers.
    let ask = body::request(stage, Side::Kordon, 24, 4, &names());
    assert!(answer(&mut stage.direct(), 24, 4, &ask).is_some());
    let table = apis::table::TABLE.iter();
    for api in table.filter(|api| api.phase == Phase::Client) {
        for version in [
            api.versions.min - 1,
            api.versions.max + 1,
            i16::MIN,
            i16::MAX,
        ] {
            let shape = body::nearest(api.key, version);
            let ask = body::request(stage, Side::Kordon, api.key, shape, &names());
            let mut socket = stage.client("admin");
            socket.ask(api.key, version, &encode(api.key, shape, &ask));
            assert_eq!(socket.receive(), Seen::Closed, "{} {version}", api.name);
        }
    }
}

/// Row 5. Everything is sent at once, so that a proxy that reads on would forward it.
pub fn t05_nothing_passes_before_a_good_token(stage: &mut Stage) {
    let end = stage.end("v.secret");
    let write = framed(0, 9, &produce("v.secret", &plain_batch()));
    let versions = {
        let mut ask = request(18);
        ask.set_text("ClientSoftwareName", Some("a"));
        ask.set_text("ClientSoftwareVersion", Some("1"));
        framed(18, 3, &ask)
    };
    let shake = |version| framed(17, version, &handshake("OAUTHBEARER"));
    let bad = framed(36, 2, &bearer_of("e30.e30.e30"));
    let good = framed(36, 2, &bearer("victim", 600));
    // Behind version 0 of the handshake tokens come without a header.
    let bare = write.clone();
    let orders: [(&str, Vec<&[u8]>); 7] = [
        ("first of all", vec![&write]),
        ("behind ApiVersions", vec![&versions, &write]),
        ("behind the handshake", vec![&write, &good]),
        ("in front of a good token", vec![&write, &good, &write]),
        ("behind a bad token", vec![&bad, &write]),
        ("between two tokens", vec![&bad, &write, &good, &write]),
        ("in the place of a raw token", vec![&bare, &write]),
    ];
    for (at, (what, frames)) in orders.into_iter().enumerate() {
        let mut socket = stage.token_listener();
        let head = match at {
            0 | 1 => Vec::new(),
            6 => shake(0),
            _ => shake(1),
        };
        socket.send(&[head, frames.concat()].concat());
        assert!(ends(&mut socket), "{what}");
    }
    assert_eq!(stage.end("v.secret"), end, "something was written");
    // The same with a good token in its place is written.
    let mut socket = stage.token_listener();
    socket.send(&[shake(1), good, write].concat());
    for _ in 0..2 {
        assert!(matches!(socket.receive(), Seen::Answer(_)));
    }
    let Seen::Answer(bytes) = socket.receive() else {
        panic!("no answer to Produce")
    };
    assert_eq!(produce_code(&read(0, 9, &bytes).unwrap().1), 0);
    assert_eq!(stage.end("v.secret"), end + 1);
}

/// Row 6.
pub fn t06_a_second_token_makes_nobody_somebody_else(stage: &mut Stage) {
    let authenticated = |subject: &str| {
        let mut socket = stage.token_listener();
        let answer = socket.call(17, 1, &handshake("OAUTHBEARER"));
        assert_eq!(answer.int("ErrorCode"), 0);
        let answer = socket.call(36, 2, &bearer(subject, 600));
        assert_eq!(answer.int("ErrorCode"), 0, "{answer:?}");
        socket
    };
    let read = |socket: &mut Socket| {
        let ask = fetch(stage, "v.secret", 12);
        answer(socket, 1, 12, &ask).map(|bytes| holds(&bytes, crate::stage::SECRET))
    };
    assert_eq!(read(&mut authenticated("victim")), Some(true));
    let mut attacker = authenticated("attacker");
    assert_eq!(read(&mut attacker), Some(false));
    attacker.call(17, 1, &handshake("OAUTHBEARER"));
    // The token is good, and another's.
    match answer(&mut attacker, 36, 2, &bearer("victim", 600)) {
        Some(bytes) => assert_ne!(
            crate::socket::read(36, 2, &bytes)
                .unwrap()
                .1
                .int("ErrorCode"),
            0
        ),
        None => return,
    }
    assert_eq!(read(&mut attacker), None);
    // One's own again is fine, so it was not the second token as such.
    let mut victim = authenticated("victim");
    victim.call(17, 1, &handshake("OAUTHBEARER"));
    assert_eq!(
        victim.call(36, 2, &bearer("victim", 600)).int("ErrorCode"),
        0
    );
    assert_eq!(read(&mut victim), Some(true));
}

/// Row 6. What an earlier token allowed is in nothing that a later one finds: not in a fetch
/// session, on this connection or another one, and not in a long poll.
pub fn t06_nothing_of_an_earlier_token_goes_on(stage: &mut Stage) {
    const LATE: &str = "written-later";
    /// A broker takes no second token sooner after the last one.
    const PAUSE: Duration = Duration::from_millis(1100);
    let say = |socket: &mut Socket, groups: &[&str]| {
        let changes = serde_json::json!({"exp": crate::signer::now() + 600, "groups": groups});
        let token = crate::signer::Signer::trusted().token("member", changes);
        let answer = socket.call(17, 1, &handshake("OAUTHBEARER"));
        assert_eq!(answer.int("ErrorCode"), 0);
        socket.ask(36, 2, &encode(36, 2, &bearer_of(&token)));
    };
    let proven = |socket: &mut Socket| match socket.receive() {
        Seen::Answer(bytes) => assert_eq!(read(36, 2, &bytes).unwrap().1.int("ErrorCode"), 0),
        other => panic!("{other:?}"),
    };
    let session = |socket: &mut Socket, id: i64, epoch: i64| {
        let mut ask = fetch(stage, "g.read", 12);
        ask.set_int("SessionId", id).set_int("SessionEpoch", epoch);
        ask.structs_mut("Topics")[0].structs_mut("Partitions")[0]
            .set_int("FetchOffset", stage.end("g.read"));
        if id != 0 {
            ask.structs_mut("Topics").clear();
        }
        let bytes = answer(socket, 1, 12, &ask).expect("an answer");
        let found = read(1, 12, &bytes).unwrap().1;
        (holds(&bytes, LATE), found)
    };
    let write = || {
        let late = produce("g.read", &batch(LATE, Kind::Plain));
        assert_eq!(produce_code(&stage.direct().call(0, 9, &late)), 0);
    };
    let mut member = stage.token_listener();
    say(&mut member, &["readers"]);
    proven(&mut member);
    let id = session(&mut member, 0, 0).1.int("SessionId");
    assert_ne!(id, 0);
    // The same token again changes nothing.
    std::thread::sleep(PAUSE);
    say(&mut member, &["readers"]);
    proven(&mut member);
    write();
    assert!(session(&mut member, id, 1).0);
    std::thread::sleep(PAUSE);
    say(&mut member, &[]);
    proven(&mut member);
    let mut other = stage.token_listener();
    say(&mut other, &[]);
    proven(&mut other);
    write();
    for socket in [&mut member, &mut other] {
        let (told, answer) = session(socket, id, 2);
        assert!(!told, "{answer:?}");
        assert_eq!(answer.int("ErrorCode"), 70);
    }

    let mut member = stage.token_listener();
    say(&mut member, &["readers"]);
    proven(&mut member);
    std::thread::sleep(PAUSE);
    let mut poll = fetch(stage, "g.read", 12);
    poll.set_int("MaxWaitMs", 5_000).set_int("MinBytes", 1);
    poll.structs_mut("Topics")[0].structs_mut("Partitions")[0]
        .set_int("FetchOffset", stage.end("g.read"));
    // In one piece: the answers come in this order.
    let mut frames = framed(1, 12, &poll);
    frames.extend(framed(17, 1, &handshake("OAUTHBEARER")));
    let changes = serde_json::json!({"exp": crate::signer::now() + 600});
    let token = crate::signer::Signer::trusted().token("member", changes);
    frames.extend(framed(36, 2, &bearer_of(&token)));
    member.send(&frames);
    // Nothing tells from without that the token has been taken; a moment too early is no proof of
    // a hole, for then the poll was still allowed.
    std::thread::sleep(PAUSE);
    write();
    match member.receive() {
        Seen::Answer(bytes) => assert!(!holds(&bytes, LATE)),
        other => assert_eq!(other, Seen::Closed),
    }
}

/// Row 7.
pub fn t07_a_long_poll_ends_with_its_token(stage: &mut Stage) {
    const SECONDS: i64 = 3;
    let mut socket = stage.token_listener();
    socket.call(17, 1, &handshake("OAUTHBEARER"));
    let answer = socket.call(36, 2, &bearer("victim", SECONDS));
    assert_eq!(answer.int("ErrorCode"), 0);
    assert!((1..=SECONDS * 1000).contains(&answer.int("SessionLifetimeMs")));
    let mut poll = fetch(stage, "v.secret", 12);
    poll.set_int("MaxWaitMs", 300_000).set_int("MinBytes", 1);
    poll.structs_mut("Topics")[0].structs_mut("Partitions")[0]
        .set_int("FetchOffset", stage.end("v.secret"));
    let from = Instant::now();
    socket.ask(1, 12, &encode(1, 12, &poll));
    let mut seen = Seen::Silent;
    while seen == Seen::Silent && from.elapsed() < Duration::from_secs(30) {
        seen = socket.receive();
    }
    assert_eq!(seen, Seen::Closed);
}

/// Row 10. The broker takes who says so for a replica; Kordon does not, whatever the rules say.
pub fn t10_nobody_is_a_replica(stage: &mut Stage) {
    let codes = |socket: &mut Socket, key: i16, version: i16, ask: &StructNode| {
        let found = socket.call(key, version, ask);
        let topics = if key == 1 { "Responses" } else { "Topics" };
        let partitions = found
            .structs(topics)
            .iter()
            .flat_map(|t| t.structs("Partitions"));
        partitions.map(|p| p.int("ErrorCode")).collect::<Vec<_>>()
    };
    let ask = |key: i16, version: i16, replica: i64| {
        let mut ask = body::request(stage, Side::Kordon, key, version, &names());
        if key == 1 && version >= 15 {
            let mut state = ask.element("ReplicaState");
            state.set_int("ReplicaId", replica);
            ask.set("ReplicaState", Node::Struct(Some(Box::new(state))));
        } else {
            ask.set_int("ReplicaId", replica);
        }
        ask
    };
    let direct = codes(&mut stage.direct(), 1, 12, &ask(1, 12, 99));
    assert_ne!(direct, [FORBIDDEN], "the broker has taken it for a client");
    for replica in [0, 1, 2, 99, i64::from(i32::MAX)] {
        for (key, from) in [(1, 4), (2, 1), (23, 3)] {
            for version in from..=apis::lookup(key).unwrap().versions.max {
                for client in ["victim", "admin"] {
                    let found = codes(
                        &mut stage.client(client),
                        key,
                        version,
                        &ask(key, version, replica),
                    );
                    assert_eq!(
                        found,
                        [FORBIDDEN],
                        "key {key} version {version} as {client}"
                    );
                }
            }
        }
    }
}

/// Row 11.
pub fn t11_apis_of_brokers_are_not_for_clients(stage: &mut Stage) {
    // At the broker, whoever has the proxy's identity marks transactions and removes brokers.
    let unregister = body::request(stage, Side::Kordon, 64, 0, &names());
    let direct = stage.direct().call(64, 0, &unregister).int("ErrorCode");
    let foreign = stage.client("attacker").call(64, 0, &unregister);
    assert_eq!((direct == 31, foreign.int("ErrorCode")), (false, 31));
    let mut keys = 0;
    let table = apis::table::TABLE.iter();
    for api in table.filter(|a| matches!(a.phase, Phase::BrokerOnly | Phase::Retired)) {
        keys += 1;
        for version in 0..=api.versions.max.max(3) {
            let shape = body::nearest(api.key, version);
            let bytes = match api.layout() {
                Some(_) => {
                    let ask = body::request(stage, Side::Kordon, api.key, shape, &names());
                    encode(api.key, shape, &ask)
                }
                None => Bytes::from_static(&[0; 16]),
            };
            let mut socket = stage.client("admin");
            socket.ask(api.key, version, &bytes);
            assert_eq!(socket.receive(), Seen::Closed, "{} {version}", api.name);
        }
    }
    assert!(keys >= 20, "{keys}");
    assert!(stage.kordon.runs());
}

/// Row 12. A controller does what an envelope says in another's name.
pub fn t12_no_envelope_says_who_somebody_is(stage: &mut Stage) {
    let make = |topic: &str| envelope("sidecar", &creation(&[topic]));
    // The lab's controller stands at the next port.
    let broker = stage.kafka.bootstrap();
    let (host, port) = broker.rsplit_once(':').unwrap();
    let controller = format!("{host}:{}", port.parse::<u16>().unwrap() + 1);
    let mut socket = Socket::open(&controller);
    let opened = answer(&mut socket, 58, 0, &make("v.enveloped-there"));
    let (_, opened) = read(58, 0, &opened.expect("an answer")).unwrap();
    assert_eq!(opened.int("ErrorCode"), 0);
    crate::stage::until(|| {
        stage
            .topics()
            .contains(&"v.enveloped-there".to_owned())
            .then_some(())
    });
    for client in ["attacker", "admin"] {
        let mut socket = stage.client(client);
        assert_eq!(
            answer(&mut socket, 58, 0, &make("v.enveloped-here")),
            None,
            "{client}"
        );
    }
    // What comes later at the same controller is done already.
    stage.create(&["v.later"]);
    assert!(!stage.topics().contains(&"v.enveloped-here".to_owned()));
}

fn envelope(user: &str, create: &StructNode) -> StructNode {
    let head = RequestHeader {
        key: 19,
        version: 7,
        correlation_id: 5,
        client_id: Some(CLIENT_ID),
        body_at: 0,
    };
    let mut inner = BytesMut::new();
    head.write(true, &mut inner);
    inner.extend_from_slice(&encode(19, 7, create));
    let mut principal = BytesMut::new();
    principal.put_i16(0);
    for word in ["User", user] {
        principal.put_u8(u8::try_from(word.len() + 1).unwrap());
        principal.put_slice(word.as_bytes());
    }
    principal.put_slice(&[0, 0]); // no delegation token, no tagged field
    let mut envelope = request(58);
    envelope
        .set("RequestData", Node::Bytes(Some(inner.freeze())))
        .set("RequestPrincipal", Node::Bytes(Some(principal.freeze())))
        .set(
            "ClientHostAddress",
            Node::Bytes(Some(Bytes::from_static(&[127, 0, 0, 1]))),
        );
    envelope
}

/// Row 13. The broker refuses the batch for its missing key only where the client id opened the
/// topic; nothing is written either way.
pub fn t13_no_client_id_opens_internal_topics(stage: &mut Stage) {
    const INTERNAL: i64 = 17;
    let write = |socket: &mut Socket, topic: &str, client_id: &str, version: i16| {
        let body = encode(0, version, &produce(topic, &plain_batch()));
        socket.send(&frame(0, version, 9, client_id, &body));
        match socket.receive() {
            Seen::Answer(bytes) => produce_code(&read(0, version, &bytes).unwrap().1),
            other => panic!("{topic} {version}: {other:?}"),
        }
    };
    let topic = "__consumer_offsets";
    assert_eq!(write(&mut stage.direct(), topic, "anybody", 9), INTERNAL);
    assert_eq!(write(&mut stage.direct(), topic, "__admin_client", 9), 87);
    for topic in [topic, "__transaction_state", "__share_group_state"] {
        for client_id in ["anybody", "__admin_client", "__ADMIN_CLIENT"] {
            for version in 3..=12 {
                let code = write(&mut stage.client("admin"), topic, client_id, version);
                assert_eq!(code, INTERNAL, "{topic} {version} as {client_id}");
            }
            assert_eq!(
                write(&mut stage.client("attacker"), topic, client_id, 9),
                FORBIDDEN
            );
        }
    }
}

/// Row 38.
pub fn t38_hostile_lengths_take_no_memory(stage: &mut Stage) {
    let resident = |stage: &Stage| {
        let status = format!("/proc/{}/status", stage.kordon.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = resident(stage);
    for length in [i32::MAX, i32::MIN, -1, 0, 100 * 1024 * 1024 + 1] {
        let mut socket = stage.client("attacker");
        socket.send(&length.to_be_bytes());
        assert_eq!(socket.receive(), Seen::Closed, "{length}");
    }
    // Lengths that are allowed, whose bytes come slowly or never; arrays that claim to be long.
    let mut slow: Vec<Socket> = (0..40).map(|_| stage.client("attacker")).collect();
    for socket in &mut slow {
        socket.send(&(100i32 * 1024 * 1024).to_be_bytes());
        socket.send(&[0, 3, 0, 9]);
    }
    for _ in 0..40 {
        let mut socket = stage.client("attacker");
        socket.ask(3, 8, &i32::MAX.to_be_bytes());
        assert_eq!(socket.receive(), Seen::Closed);
    }
    // Who is served while the others hold on: Kordon has no time for them to take.
    let mut find = request(10);
    find.array_mut("CoordinatorKeys").push(text("a.group"));
    assert!(answer(&mut stage.client("attacker"), 10, 6, &find).is_some());
    let fine = fetch_code(
        &stage
            .client("victim")
            .call(1, 12, &fetch(stage, "v.secret", 12)),
    );
    assert_eq!(fine, 0);
    let after = resident(stage);
    assert!(
        after < before + GROWTH_KIB_MAX,
        "{before} KiB, then {after} KiB"
    );
    drop(slow);
    assert!(stage.kordon.runs());
}

/// Row 38. Requests whose answer is made here, of many names or numbers: neither is what a few
/// bytes ask for large, nor does it take long, nor does it pile up.
pub fn t38_what_is_refused_at_length_takes_neither_time_nor_memory(stage: &mut Stage) {
    const NAMES: usize = 15_000;
    const TIME_MAX: Duration = Duration::from_secs(5);
    let peak = |stage: &Stage| {
        let status = format!("/proc/{}/status", stage.kordon.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap()
    };
    let names = || (0..NAMES).map(|n| format!("v.{n}"));
    // Topics that are refused, each of which has a place in the answer.
    let mut ask = produce("a.own", &plain_batch());
    let mut polls = fetch(stage, "a.own", 12);
    polls.set_int("SessionEpoch", 0);
    for name in names() {
        let mut topic = ask.element("TopicData");
        topic.set_text("Name", Some(&name));
        ask.structs_mut("TopicData").push(topic);
    }
    let timed = |socket: &mut Socket, key: i16, version: i16, ask: &StructNode| {
        let from = Instant::now();
        let found = answer(socket, key, version, ask).is_some();
        assert!(from.elapsed() < TIME_MAX, "key {key}: {:?}", from.elapsed());
        found
    };
    let mut attacker = stage.client("attacker");
    assert!(timed(&mut attacker, 0, 9, &ask));
    // The same in a session, where what was refused before counts as well.
    let session = attacker.call(1, 12, &polls).int("SessionId");
    assert_ne!(session, 0);
    polls
        .set_int("SessionId", session)
        .set_int("SessionEpoch", 1);
    for name in names() {
        let mut topic = polls.element("Topics");
        topic.set_text("Topic", Some(&name));
        let partition = topic.element("Partitions");
        topic.structs_mut("Partitions").push(partition);
        polls.structs_mut("Topics").push(topic);
    }
    assert!(timed(&mut attacker, 1, 12, &polls));
    // Numbers of partitions: four bytes each, of which an answer makes a struct.
    let before = peak(stage);
    let mut add = request(24);
    add.set_text("V3AndBelowTransactionalId", Some("v.txn"));
    let mut topic = add.element("V3AndBelowTopics");
    topic.set_text("Name", Some("v.secret"));
    topic.set("Partitions", Node::Packed(vec![0; 4 * 2_000_000].into()));
    add.structs_mut("V3AndBelowTopics").push(topic);
    timed(&mut stage.client("attacker"), 24, 3, &add);
    // Answers that nobody reads.
    let mut describe = request(15);
    let groups = (0..NAMES).map(|n| text(&format!("v{n}")));
    describe.array_mut("Groups").extend(groups);
    let frame = framed(15, 5, &describe);
    let mut deaf = stage.client("attacker");
    deaf.send(&[&frame[..]; 4].concat());
    for _ in 0..4 {
        assert!(matches!(deaf.receive(), Seen::Answer(_)));
    }
    let after = peak(stage);
    assert!(
        after < before + 2 * GROWTH_KIB_MAX,
        "{before} KiB, then {after} KiB"
    );
}
