//! Frames as such: lengths, headers, order, splits, garbage, and ApiVersions, which a client
//! sends before it knows anything.

use crate::body::{self, Names};
use crate::compare::comparable;
use crate::socket::{CLIENT_ID, Seen, Socket, encode, frame, read, request};
use crate::stage::{ALL, SIDES, Side, Stage};
use crate::tally::Tally;
use kordon::apis::{self, Phase, layout};
use kordon::wire::tree::Node;
use std::time::Duration;

/// `limits.frameBytes` where nothing else is said.
const FRAME_BYTES_MAX: i32 = 100 * 1024 * 1024;
/// What hostile frames may add to the memory of the process, in KiB.
const GROWTH_KIB_MAX: u64 = 32 * 1024;
const PIPELINE: i32 = 64;
/// Between two halves of a frame, so that they arrive apart.
const SPLIT_PAUSE: Duration = Duration::from_micros(300);

/// Runs all of them.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    let before = resident_kib(stage.kordon.id());
    versions_agree(stage, tally);
    versions_unknown(stage, tally);
    software_names(stage, tally);
    pipeline(stage, tally);
    t30_no_acknowledgement(stage, tally);
    lengths(stage, tally);
    splits(stage, tally);
    garbage(stage, tally);
    let after = resident_kib(stage.kordon.id());
    println!("surface: resident {before} KiB before hostile frames, {after} KiB after");
    tally.check("memory", after < before + GROWTH_KIB_MAX, || {
        format!("{before} KiB, then {after} KiB")
    });
}

/// What the two lists of APIs may differ in, exactly: keys of brokers are left out, and
/// AddPartitionsToTxn ends at 3. Nothing is added.
fn versions_agree(stage: &Stage, tally: &mut Tally) {
    for version in 0..=4 {
        let mut lists = SIDES.map(|side| {
            let mut ask = request(18);
            ask.set_text("ClientSoftwareName", Some("a"));
            ask.set_text("ClientSoftwareVersion", Some("1"));
            let answer = stage.plain(side).call(18, version, &ask);
            let keys = answer.structs("ApiKeys").iter();
            let mut keys: Vec<(i64, i64, i64)> = keys
                .map(|k| (k.int("ApiKey"), k.int("MinVersion"), k.int("MaxVersion")))
                .collect();
            keys.sort_unstable();
            keys
        });
        lists[0].retain_mut(|(key, _, max)| {
            if *key == 24 {
                *max = 3;
            }
            apis::lookup(*key as i16).is_some_and(|api| api.phase != Phase::BrokerOnly)
        });
        tally.check("ApiVersions", lists[0] == lists[1], || {
            format!("version {version}: {lists:?}")
        });
        let produce = lists[1].first().copied();
        tally.check("ApiVersions", produce == Some((0, 0, 13)), || {
            format!("Produce is advertised as {produce:?}")
        });
    }
}

/// A version of the future: version 0 of the body, 35, and only what ApiVersions itself can do.
fn versions_unknown(stage: &Stage, tally: &mut Tally) {
    for version in [5, 6, 100, 32_767, -1, -32_768] {
        for body in [&b""[..], b"\x02a\x02b\0", b"\xff\xff\xff"] {
            let seen = SIDES.map(|side| {
                let mut socket = stage.plain(side);
                let id = socket.correlation();
                socket.send(&frame(18, version, id, CLIENT_ID, body));
                let first = socket.receive();
                // The client tries again at the offered version, on the same connection.
                socket.ask(18, 0, &[]);
                (first, matches!(socket.receive(), Seen::Answer(_)))
            });
            let exact = b"\0\0\0\x02\0\x23\0\0\0\x01\0\x12\0\0\0\x04";
            let fine = seen[0] == seen[1] && seen[1].0 == Seen::Answer(exact[..].into());
            tally.check("ApiVersions too new", fine, || {
                format!("{version} {body:?}: {seen:?}")
            });
        }
    }
}

fn software_names(stage: &Stage, tally: &mut Tally) {
    for name in ["a", "a-b.c", "", "a-", "-a", "a b", "a_b", "ä"] {
        let seen = SIDES.map(|side| {
            let mut ask = request(18);
            ask.set_text("ClientSoftwareName", Some(name));
            ask.set_text("ClientSoftwareVersion", Some("1"));
            let mut socket = stage.plain(side);
            let first = socket.call(18, 3, &ask).int("ErrorCode");
            ask.set_text("ClientSoftwareName", Some("fine"));
            (first, socket.call(18, 3, &ask).int("ErrorCode"))
        });
        tally.check("software name", seen[0] == seen[1], || {
            format!("{name:?}: {seen:?}")
        });
    }
}

/// Answers come in the order of the requests, local ones between the broker's.
fn pipeline(stage: &Stage, tally: &mut Tally) {
    for user in [ALL, "prefix"] {
        let mut socket = stage.connect(Side::Kordon, user);
        let mut burst = Vec::new();
        let keys = [3i16, 18, 10, 2, 9, 1, 38, 0];
        for id in 0..PIPELINE {
            let key = keys[id as usize % keys.len()];
            let version = layout(key).unwrap().request.versions.max;
            // Every other one names what `prefix` may not touch: answered here.
            let topic = ["in.orders", "out.orders"][(id / 8 % 2) as usize];
            let names = Names {
                topics: vec![topic.into()],
                groups: vec!["in.group".into()],
                ..Names::default()
            };
            let request = body::request(stage, Side::Kordon, key, version, &names);
            let body = encode(key, version, &request);
            burst.extend(frame(key, version, 1000 + id, CLIENT_ID, &body));
        }
        socket.send(&burst);
        for id in 0..PIPELINE {
            let key = keys[id as usize % keys.len()];
            let version = layout(key).unwrap().request.versions.max;
            let seen = socket.receive();
            let fine = match &seen {
                Seen::Answer(bytes) => read(key, version, bytes).is_ok_and(|a| a.0 == 1000 + id),
                _ => false,
            };
            tally.check("pipelining", fine, || format!("{user} {id}: {seen:?}"));
        }
    }
}

fn produce(stage: &Stage, side: Side, topic: &str, acks: i64) -> Vec<u8> {
    let names = Names {
        topics: vec![topic.into()],
        ..Names::default()
    };
    let mut request = body::request(stage, side, 0, 9, &names);
    request.set_int("Acks", acks);
    frame(0, 9, 5, CLIENT_ID, &encode(0, 9, &request))
}

/// t30: a produce without acknowledgement has no answer; refused, it ends the connection.
fn t30_no_acknowledgement(stage: &Stage, tally: &mut Tally) {
    for (topic, allowed) in [("in.orders", true), ("out.orders", false)] {
        let seen = SIDES.map(|side| {
            let mut socket = stage.connect(side, "prefix");
            socket.send(&produce(stage, side, topic, 0));
            std::thread::sleep(Duration::from_millis(100));
            let id = socket.ask(18, 0, &[]);
            match socket.receive() {
                Seen::Answer(bytes) => read(18, 0, &bytes).is_ok_and(|(got, _)| got == id),
                _ => false,
            }
        });
        tally.check("t30", seen == [allowed, allowed], || {
            format!("{topic}: next request answered {seen:?}")
        });
    }
}

/// Lengths that must not be believed, and frames too short for a header.
fn lengths(stage: &Stage, tally: &mut Tally) {
    let prefix = |length: i32| length.to_be_bytes().to_vec();
    let framed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let whole = frame(3, 9, 7, CLIENT_ID, &[0, 0, 0, 0, 0]);
    // Bytes behind a request are nobody's business.
    for (key, version) in [(3, 12), (18, 3), (2, 7), (1, 12), (9, 8)] {
        let names = Names {
            topics: vec!["in.orders".into()],
            groups: vec!["in.group".into()],
            ..Names::default()
        };
        for user in [ALL, "describe"] {
            let seen = SIDES.map(|side| {
                let request = body::request(stage, side, key, version, &names);
                let mut body = encode(key, version, &request).to_vec();
                body.extend_from_slice(b"more");
                let mut socket = stage.connect(side, user);
                socket.ask(key, version, &body);
                matches!(socket.receive(), Seen::Answer(_))
            });
            tally.check("trailing bytes", seen == [true; 2], || {
                format!("key {key} version {version} as {user}: {seen:?}")
            });
        }
    }
    let cases = [
        ("-1", prefix(-1)),
        ("the least", prefix(i32::MIN)),
        ("the greatest", prefix(i32::MAX)),
        ("frameBytes + 1", prefix(FRAME_BYTES_MAX + 1)),
        ("nothing", prefix(0)),
        ("half a key", framed(&[0])),
        ("a key", framed(&[0, 3])),
        ("half a header", framed(&[0, 3, 0, 9, 0])),
        ("no client id", framed(&[0, 3, 0, 9, 0, 0, 0, 1])),
        (
            "client id cut off",
            framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 9, b'a']),
        ),
        (
            "client id -2",
            framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xfe]),
        ),
        ("a body cut off", framed(&whole[4..whole.len() - 1])),
    ];
    for (what, bytes) in cases {
        let seen = SIDES.map(|side| {
            let mut socket = stage.plain(side);
            socket.send(&bytes);
            socket.receive()
        });
        tally.check("hostile frame", seen[1] == Seen::Closed, || {
            format!("{what}: {seen:?}")
        });
        tally.check("hostile frame", seen[0] == seen[1], || {
            format!("{what}: {seen:?}")
        });
    }
    // A length that is allowed and never comes takes no memory.
    let mut patient: Vec<Socket> = (0..50).map(|_| stage.connect(Side::Kordon, ALL)).collect();
    let before = resident_kib(stage.kordon.id());
    for socket in &mut patient {
        socket.send(&prefix(FRAME_BYTES_MAX));
        socket.send(&[0; 16]);
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = resident_kib(stage.kordon.id());
    tally.check("claimed length", after < before + GROWTH_KIB_MAX, || {
        format!("50 claims of 100 MiB: {before} KiB, then {after} KiB")
    });
}

/// One request of each hot API, in two pieces, at every byte.
fn splits(stage: &Stage, tally: &mut Tally) {
    let names = Names {
        topics: vec!["in.orders".into()],
        groups: vec!["in.group".into()],
        transactions: vec!["in.warm".into()],
        ..Names::default()
    };
    for (key, version) in [
        (0, 9),
        (0, 13),
        (1, 12),
        (1, 17),
        (2, 10),
        (3, 12),
        (8, 9),
        (9, 9),
        (10, 4),
        (12, 4),
        (18, 3),
        (36, 2),
    ] {
        let mut request = body::request(stage, Side::Kordon, key, version, &names);
        if key == 0 {
            // Refused the same each time, so that the answers are equal: a wrong checksum.
            for topic in request.structs_mut("TopicData") {
                for partition in topic.structs_mut("PartitionData") {
                    let mut records = partition.bytes("Records").unwrap().to_vec();
                    *records.last_mut().unwrap() ^= 1;
                    partition.set("Records", Node::Bytes(Some(records.into())));
                }
            }
        }
        let bytes = frame(key, version, 77, CLIENT_ID, &encode(key, version, &request));
        let mut socket = stage.connect(Side::Kordon, ALL);
        let mut answers = Vec::new();
        for at in 0..bytes.len() {
            socket.send(&bytes[..at]);
            if at > 0 {
                std::thread::sleep(SPLIT_PAUSE);
            }
            socket.send(&bytes[at..]);
            let Seen::Answer(answer) = socket.receive() else {
                tally.fail("split", format!("key {key} version {version} at byte {at}"));
                socket = stage.connect(Side::Kordon, ALL);
                continue;
            };
            let (_, node) = read(key, version, &answer).unwrap();
            answers.push(comparable(stage, Side::Kordon, key, version, &node));
            let same = answers.first() == answers.last();
            tally.check("split", same, || {
                format!(
                    "key {key} version {version} at byte {at}: {:?}",
                    answers.last()
                )
            });
        }
    }
}

/// Bodies that mean nothing: closed or answered, never silence, and the process lives.
fn garbage(stage: &mut Stage, tally: &mut Tally) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for api in &apis::table::TABLE {
        for length in [0usize, 1, 9, 60, 700] {
            let noise: Vec<u8> = (0..length).map(|_| random()).collect();
            for body in [
                vec![0; length],
                vec![0xff; length],
                vec![0x7f; length],
                noise,
            ] {
                let version = api.versions.max.max(0);
                let mut socket = stage.connect(Side::Kordon, ALL);
                socket.ask(api.key, version, &body);
                let seen = socket.receive();
                tally.check("garbage", seen != Seen::Silent, || {
                    format!(
                        "{} {version}, {length} bytes: {:?}",
                        api.name,
                        &body[..length.min(9)]
                    )
                });
            }
        }
    }
    tally.check("garbage", stage.kordon.runs(), || stage.kordon.log(30));
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
