//! Writing: transactions, control batches, batches that lie, values that are not what their topic
//! holds, refusals that cannot be answered, quotas.

use crate::asks::{init_producer, produce, produce_code};
use crate::body::{self, Kind, Names, batch};
use crate::lab::http;
use crate::socket::{Seen, Socket, encode, frame, request};
use crate::stage::{Side, Stage, until};
use bytes::{BufMut, Bytes, BytesMut};
use kordon::wire::tree::{Node, StructNode};
use std::io::Write;

const FORBIDDEN: i64 = 29;
const TRANSACTION_FORBIDDEN: i64 = 53;
const INVALID_RECORD: i64 = 87;
const CORRUPT: i64 = 2;

/// A batch as its fields say, which need not be true.
#[derive(Clone)]
struct Draft {
    attributes: i16,
    magic: u8,
    count: i32,
    last_delta: i32,
    /// Added to the length.
    longer: i32,
    /// Turned around in the checksum.
    flipped: u32,
    /// The records, compressed or not.
    content: Vec<u8>,
}

impl Draft {
    fn of(records: &[Vec<u8>]) -> Draft {
        let count = i32::try_from(records.len()).unwrap();
        Draft {
            attributes: 0,
            magic: 2,
            count,
            last_delta: count - 1,
            longer: 0,
            flipped: 0,
            content: records.concat(),
        }
    }

    fn bytes(&self) -> Bytes {
        let mut tail = BytesMut::new();
        tail.put_i16(self.attributes);
        tail.put_i32(self.last_delta);
        tail.put_i64(1_700_000_000_000);
        tail.put_i64(1_700_000_000_000);
        tail.put_i64(-1);
        tail.put_i16(-1);
        tail.put_i32(-1);
        tail.put_i32(self.count);
        tail.put_slice(&self.content);
        let mut out = BytesMut::new();
        out.put_i64(0);
        out.put_i32(4 + 1 + 4 + i32::try_from(tail.len()).unwrap() + self.longer);
        out.put_i32(-1);
        out.put_u8(self.magic);
        out.put_u32(crc32c::crc32c(&tail) ^ self.flipped);
        out.put_slice(&tail);
        out.freeze()
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// One record without a key; headers have no value.
fn record(at: i64, value: Option<&[u8]>, headers: &[&str]) -> Vec<u8> {
    let mut content = vec![0];
    varint(&mut content, 0);
    varint(&mut content, at);
    varint(&mut content, -1);
    varint(&mut content, value.map_or(-1, |v| v.len() as i64));
    content.extend_from_slice(value.unwrap_or_default());
    varint(&mut content, headers.len() as i64);
    for header in headers {
        varint(&mut content, header.len() as i64);
        content.extend_from_slice(header.as_bytes());
        varint(&mut content, -1);
    }
    let mut record = Vec::new();
    varint(&mut record, content.len() as i64);
    record.extend_from_slice(&content);
    record
}

/// Two short texts as Avro writes a record of them, behind the id of a schema.
fn avro(id: u32, texts: [&str; 2]) -> Vec<u8> {
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    for text in texts {
        varint(&mut value, text.len() as i64);
        value.extend_from_slice(text.as_bytes());
    }
    value
}

fn user() -> Vec<u8> {
    avro(1, ["u-1", "hello"])
}

fn one(value: &[u8]) -> Bytes {
    Draft::of(&[record(0, Some(value), &[])]).bytes()
}

fn write(socket: &mut Socket, topic: &str, batch: &Bytes) -> i64 {
    produce_code(&socket.call(0, 9, &produce(topic, batch)))
}

/// The broker takes the batch from the proxy's identity; Kordon refuses it and nothing is written.
fn refused(stage: &Stage, what: &str, batch: &Bytes, code: i64) {
    assert_eq!(
        write(&mut stage.direct(), "p.users", batch),
        0,
        "{what}, at the broker"
    );
    let end = stage.end("p.users");
    let found = write(&mut stage.client("typist"), "p.users", batch);
    assert_eq!((found, stage.end("p.users")), (code, end), "{what}");
}

/// Row 21. At the broker the proxy's identity takes over anybody's transactional id.
pub fn t21_transactions_of_others_are_theirs(stage: &mut Stage) {
    let (mut victim, mut attacker) = (stage.client("victim"), stage.client("attacker"));
    let epoch = |socket: &mut Socket, id: &str| {
        until(|| {
            let answer = socket.call(22, 5, &init_producer(id, 60_000));
            // A transaction that is being ended holds the id for a moment.
            (answer.int("ErrorCode") != 51)
                .then(|| (answer.int("ErrorCode"), answer.int("ProducerEpoch")))
        })
    };
    let (code, first) = epoch(&mut victim, "v.txn");
    assert_eq!(code, 0);
    let (code, fenced) = epoch(&mut stage.direct(), "v.txn");
    assert_eq!((code, fenced), (0, first + 1));
    assert_eq!(epoch(&mut attacker, "v.txn").0, TRANSACTION_FORBIDDEN);
    assert_eq!(
        epoch(&mut victim, "v.txn"),
        (0, fenced + 1),
        "it was fenced by nobody else"
    );

    // Partitions, offsets and the end of a transaction: the id, the topic and the group count.
    let codes = |answer: &StructNode, key: i16| match key {
        24 => answer.structs("ResultsByTopicV3AndBelow")[0].structs("ResultsByPartition")[0]
            .int("PartitionErrorCode"),
        28 => answer.structs("Topics")[0].structs("Partitions")[0].int("ErrorCode"),
        _ => answer.int("ErrorCode"),
    };
    for (key, topic, group, transaction, code) in [
        (24, "a.own", "a.group", "v.txn", TRANSACTION_FORBIDDEN),
        (24, "v.secret", "a.group", "a.txn", FORBIDDEN),
        (25, "a.own", "a.group", "v.txn", TRANSACTION_FORBIDDEN),
        (25, "a.own", "v.group", "a.txn", 30),
        (26, "a.own", "a.group", "v.txn", TRANSACTION_FORBIDDEN),
        (28, "a.own", "a.group", "v.txn", TRANSACTION_FORBIDDEN),
        (28, "a.own", "v.group", "a.txn", 30),
        (28, "v.secret", "a.group", "a.txn", FORBIDDEN),
    ] {
        for version in 0..=3 {
            let names = Names::of(topic, group, transaction);
            let ask = body::request(stage, Side::Kordon, key, version, &names);
            let found = codes(&attacker.call(key, version, &ask), key);
            assert_eq!(found, code, "key {key} version {version}: {names:?}");
        }
    }
    // The bit in the batch and the id in the request disagree, both ways.
    for version in 3..=12 {
        let send = |attacker: &mut Socket, id: Option<&str>, kind: Kind| {
            let mut ask = produce("a.own", &batch("event", kind));
            ask.set_text("TransactionalId", id);
            produce_code(&attacker.call(0, version, &ask))
        };
        for (id, kind) in [
            (None, Kind::Transactional),
            (Some("v.txn"), Kind::Transactional),
        ] {
            let code = send(&mut attacker, id, kind);
            assert_eq!(code, TRANSACTION_FORBIDDEN, "{version} {id:?} {kind:?}");
        }
        // Without the bit nothing is done in a transaction's name: the id is not even looked at.
        let end = stage.end("v.secret");
        send(&mut attacker, Some("v.txn"), Kind::Plain);
        assert_eq!(stage.end("v.secret"), end);
    }
    let (_, last) = epoch(&mut victim, "v.txn");
    assert_eq!(last, fenced + 2);
}

/// Row 21. A broker reads the batches of a partition up to the first that is cut off, and leaves
/// what is behind them: what was read of a transaction counts, whatever follows it.
pub fn t21_a_batch_that_is_cut_off_hides_no_transaction(stage: &mut Stage) {
    let behind: [&[u8]; 3] = [&[0], &[0; 12], &[0x7f; 40]];
    for version in [3, 9, 12] {
        for rest in behind {
            let mut bytes = batch("event", Kind::Transactional).to_vec();
            bytes.extend_from_slice(rest);
            let bytes = Bytes::from(bytes);
            for id in [None, Some("v.txn")] {
                let mut ask = produce("a.own", &bytes);
                ask.set_text("TransactionalId", id);
                let code = |mut to: Socket| produce_code(&to.call(0, version, &ask));
                if id.is_some() && rest.len() < 40 {
                    // With the proxy's identity it is for the transaction's coordinator to say no.
                    assert_ne!(code(stage.direct()), TRANSACTION_FORBIDDEN, "{version}");
                }
                let found = code(stage.client("attacker"));
                assert_eq!(found, TRANSACTION_FORBIDDEN, "{version} {id:?} {rest:?}");
            }
        }
    }
}

/// Row 22. Markers end transactions of others; the proxy's identity may write them.
pub fn t22_no_client_writes_control_batches_or_markers(stage: &mut Stage) {
    let mut marker = request(27);
    let mut element = marker.element("Markers");
    element
        .set_int("ProducerId", 4711)
        .set_int("TransactionResult", 1);
    let mut topic = element.element("Topics");
    topic.set_text("Name", Some("v.secret"));
    topic.array_mut("PartitionIndexes").push(Node::Int(0));
    element.structs_mut("Topics").push(topic);
    marker.structs_mut("Markers").push(element);
    let before = stage.end("v.secret");
    stage.direct().call(27, 1, &marker);
    assert_eq!(
        stage.end("v.secret"),
        before + 1,
        "the broker writes a marker"
    );
    for client in ["attacker", "victim"] {
        for version in 1..=2 {
            let answer = stage.client(client).call(27, version, &marker);
            let topics = answer.structs("Markers")[0].structs("Topics");
            let code = topics[0].structs("Partitions")[0].int("ErrorCode");
            assert_eq!(code, 31, "{client} {version}");
        }
    }
    for version in 3..=12 {
        let control = produce("v.secret", &batch("event", Kind::Control));
        let code = produce_code(&stage.client("victim").call(0, version, &control));
        assert_eq!(code, INVALID_RECORD, "{version}");
    }
    assert_eq!(stage.end("v.secret"), before + 1);
}

/// Row 23.
pub fn t23_bombs_wrong_codecs_and_old_formats_are_refused(stage: &mut Stage) {
    const BOMB_BYTES: usize = 80 << 20;
    let zeros = record(0, Some(&vec![0; BOMB_BYTES]), &[]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&zeros[..], 1).unwrap();
    let good = record(0, Some(&user()), &[]);
    let draft = |attributes: i16, content: &[u8]| {
        let mut draft = Draft::of(std::slice::from_ref(&good));
        draft.attributes = attributes;
        draft.content = content.to_vec();
        draft.bytes()
    };
    refused(stage, "a bomb of zstd", &draft(4, &zstd), INVALID_RECORD);
    // The rest a broker refuses too, some of it by another word; here it does not get there.
    let mut typist = stage.client("typist");
    let end = stage.end("p.users");
    for (what, batch) in [
        ("a bomb of gzip", draft(1, &gzip)),
        (
            "gzip that is zstd",
            draft(1, &zstd::encode_all(&good[..], 1).unwrap()),
        ),
        ("zstd that is nothing", draft(4, &good)),
        (
            "raw snappy cut off",
            draft(2, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("lz4 that is nothing", draft(3, &good)),
        ("codec 5", draft(5, &good)),
        ("codec 6", draft(6, &good)),
        ("codec 7", draft(7, &good)),
    ] {
        assert_eq!(
            write(&mut typist, "p.users", &batch),
            INVALID_RECORD,
            "{what}"
        );
    }
    for magic in [0, 1, 3, 0x7f, 0xff] {
        let mut old = Draft::of(std::slice::from_ref(&good));
        old.magic = magic;
        for (client, topic) in [("typist", "p.users"), ("attacker", "a.own")] {
            let before = stage.end(topic);
            let ask = produce(topic, &old.bytes());
            for version in [3, 7, 9, 12] {
                let code = produce_code(&stage.client(client).call(0, version, &ask));
                assert_ne!(code, 0, "magic {magic} on {topic} {version}");
            }
            assert_eq!(stage.end(topic), before, "magic {magic} on {topic}");
        }
    }
    assert_eq!(stage.end("p.users"), end);
    // The same record with each codec's own bytes passes.
    assert_eq!(
        write(
            &mut typist,
            "p.users",
            &draft(4, &zstd::encode_all(&good[..], 1).unwrap())
        ),
        0
    );
    assert!(stage.kordon.runs());
}

/// Row 24.
pub fn t24_a_batch_is_what_its_header_says_and_arrives_unchanged(stage: &mut Stage) {
    let records = [
        record(0, Some(&user()), &["h", "h"]),
        record(1, Some(&user()), &[]),
    ];
    let good = Draft::of(&records);
    let lie = |change: &dyn Fn(&mut Draft)| {
        let mut draft = good.clone();
        change(&mut draft);
        draft.bytes()
    };
    let mut typist = stage.client("typist");
    let end = stage.end("p.users");
    // A broker refuses most of these too: that they do not get there is what Kordon counts.
    let counted = |stage: &Stage| {
        let metrics = http::ask("GET", &stage.kordon.admin, "/metrics").unwrap();
        let lines = metrics.lines();
        let lines = lines.filter(|l| l.starts_with("kordon_schema_violations_total{"));
        let values = lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum::<f64>()
    };
    let (before, mut lies) = (counted(stage), 0.0);
    for (what, batch, code) in [
        ("a wrong checksum", lie(&|d| d.flipped = 1), CORRUPT),
        ("a record more", lie(&|d| d.count = 3), INVALID_RECORD),
        ("a record less", lie(&|d| d.count = 1), INVALID_RECORD),
        (
            "as many as there can be",
            lie(&|d| d.count = i32::MAX),
            INVALID_RECORD,
        ),
        ("fewer than none", lie(&|d| d.count = -1), INVALID_RECORD),
        (
            "bytes at the end",
            lie(&|d| d.content.push(0)),
            INVALID_RECORD,
        ),
        (
            "half a record",
            lie(&|d| d.content.truncate(20)),
            INVALID_RECORD,
        ),
        (
            "a record that is longer",
            lie(&|d| d.content[0] += 2),
            INVALID_RECORD,
        ),
    ] {
        assert_eq!(write(&mut typist, "p.users", &batch), code, "{what}");
        lies += 1.0;
        assert_eq!(counted(stage), before + lies, "{what}");
    }
    for longer in [1, -1, 1000, -60, i32::MAX / 2] {
        let batch = lie(&|d| d.longer = longer);
        assert_ne!(write(&mut typist, "p.users", &batch), 0, "length {longer}");
    }
    for delta in [0, 2, -1, i32::MAX] {
        // What Kordon does not refuse the broker does: nothing is written with a false offset.
        let batch = lie(&|d| d.last_delta = delta);
        assert_ne!(
            write(&mut typist, "p.users", &batch),
            0,
            "last offset delta {delta}"
        );
    }
    // A second batch behind a good one, which nobody would have looked at.
    let two = [good.bytes(), one(b"anything")].concat().into();
    assert_ne!(write(&mut typist, "p.users", &two), 0);
    assert_eq!(stage.end("p.users"), end);

    // What was looked at is what lies at the broker, but for the offset and the epoch it gives.
    let sent = good.bytes();
    assert_eq!(write(&mut typist, "p.users", &sent), 0);
    let names = Names::of("p.users", "", "");
    let mut ask = body::request(stage, Side::Kordon, 1, 12, &names);
    ask.structs_mut("Topics")[0].structs_mut("Partitions")[0].set_int("FetchOffset", end);
    let answer = stage.direct().call(1, 12, &ask);
    let partition = &answer.structs("Responses")[0].structs("Partitions")[0];
    let held = partition.bytes("Records").unwrap();
    assert_eq!(held[8..12], sent[8..12]);
    assert_eq!(held[16..], sent[16..]);
}

/// Row 25. The broker, as one that looks at the id only, takes any bytes behind it.
pub fn t25_an_id_in_front_of_other_bytes_is_refused(stage: &mut Stage) {
    let cut = &user()[..7];
    let longer = [user(), vec![0]].concat();
    let text = [&[0, 0, 0, 0, 1][..], b"{\"id\": 1}"].concat();
    for (what, value) in [("cut off", cut), ("bytes left", &longer), ("a text", &text)] {
        refused(stage, what, &one(value), INVALID_RECORD);
    }
    assert_eq!(
        write(&mut stage.client("typist"), "p.users", &one(&user())),
        0
    );
}

/// Row 26.
pub fn t26_null_and_empty_values_are_refused_where_the_policy_says_so(stage: &mut Stage) {
    let null = Draft::of(&[record(0, None, &[])]).bytes();
    refused(stage, "null", &null, INVALID_RECORD);
    refused(stage, "empty", &one(b""), INVALID_RECORD);
    let among = [record(0, Some(&user()), &[]), record(1, None, &[])];
    refused(
        stage,
        "null behind a good one",
        &Draft::of(&among).bytes(),
        INVALID_RECORD,
    );
}

/// Row 27. A reader believes the header before the prefix, whatever stands there.
pub fn t27_a_schema_id_in_a_header_is_refused(stage: &mut Stage) {
    let with = |header: &str| Draft::of(&[record(0, Some(&user()), &[header])]).bytes();
    refused(
        stage,
        "an id in both places",
        &with("__value_schema_id"),
        INVALID_RECORD,
    );
    let code = write(
        &mut stage.client("typist"),
        "p.users",
        &with("value_schema_id"),
    );
    assert_eq!(code, 0, "another header is nobody's business");
}

/// Row 30.
pub fn t30_refused_without_acknowledgement_ends_the_connection(stage: &mut Stage) {
    let send = |socket: &mut Socket, topic: &str, batch: &Bytes| {
        let mut ask = produce(topic, batch);
        ask.set_int("Acks", 0);
        socket.send(&frame(0, 9, 5, "t30", &encode(0, 9, &ask)));
        // Whether the next request has an answer of its own, or the connection has ended.
        let id = socket.ask(18, 0, &[]);
        match socket.receive() {
            Seen::Answer(bytes) => bytes[..4] == id.to_be_bytes(),
            Seen::Closed => false,
            Seen::Silent => panic!("{topic}: neither answered nor closed"),
        }
    };
    let event = batch("event", Kind::Plain);
    let before = stage.end("v.secret");
    assert!(send(&mut stage.direct(), "v.secret", &event));
    until(|| (stage.end("v.secret") == before + 1).then_some(()));
    let typed = stage.end("p.users");
    assert!(!send(&mut stage.client("attacker"), "v.secret", &event));
    assert!(!send(&mut stage.client("typist"), "p.users", &event));
    let own = stage.end("a.own");
    assert!(send(&mut stage.client("attacker"), "a.own", &event));
    // What was sent later has arrived: what was refused would have.
    until(|| (stage.end("a.own") == own + 1).then_some(()));
    assert_eq!(
        (stage.end("v.secret"), stage.end("p.users")),
        (before + 1, typed)
    );
}

/// Row 34.
pub fn t34_a_quota_follows_the_principal(stage: &mut Stage) {
    let throttle = |socket: &mut Socket, client_id: &str, bytes: usize| {
        let large = Draft::of(&[record(0, Some(&vec![1; bytes]), &[])]).bytes();
        let body = encode(0, 9, &produce("q.limited", &large));
        socket.send(&frame(0, 9, 3, client_id, &body));
        match socket.receive() {
            Seen::Answer(bytes) => {
                let (_, answer) = crate::socket::read(0, 9, &bytes).unwrap();
                assert_eq!(produce_code(&answer), 0);
                answer.int("ThrottleTimeMs")
            }
            other => panic!("{other:?}"),
        }
    };
    // At 1 KiB/s this is the allowance of a minute.
    assert!(throttle(&mut stage.client("limited"), "first", 60 << 10) > 0);
    // Another connection, another client id, another listener and so another port: still the same.
    for (client, client_id) in [
        ("limited", "second"),
        ("limited-2", "third"),
        ("limited-2", ""),
    ] {
        let told = throttle(&mut stage.client(client), client_id, 100);
        assert!(told > 0, "{client} as {client_id:?}");
    }
    // Others are not held back, and neither is the proxy's identity at the broker.
    assert_eq!(throttle(&mut stage.direct(), "first", 60 << 10), 0);
    assert_eq!(throttle(&mut stage.client("admin"), "first", 60 << 10), 0);
}

/// Row 39. Each of the two is a good value, of the other topic: a producer that mixes up its
/// buffers is told, and the broker would not have.
pub fn t39_bytes_of_one_topic_are_refused_on_another(stage: &mut Stage) {
    // The two schemas have the same fields, so that only the id tells them apart.
    let (user, order) = (user(), avro(2, ["o-1", "two of them"]));
    let mut typist = stage.client("typist");
    for (topic, own, foreign) in [("p.users", &user, &order), ("p.orders", &order, &user)] {
        assert_eq!(write(&mut stage.direct(), topic, &one(foreign)), 0);
        let end = stage.end(topic);
        assert_eq!(
            write(&mut typist, topic, &one(foreign)),
            INVALID_RECORD,
            "{topic}"
        );
        let mixed = [record(0, Some(own), &[]), record(1, Some(foreign), &[])];
        let mixed = Draft::of(&mixed).bytes();
        assert_eq!(write(&mut typist, topic, &mixed), INVALID_RECORD, "{topic}");
        assert_eq!(stage.end(topic), end);
        assert_eq!(write(&mut typist, topic, &one(own)), 0, "{topic}");
    }
}
