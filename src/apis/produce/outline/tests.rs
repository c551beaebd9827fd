//! What the outline says of a request is held against the walker, which reads it as a whole.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::apis::produce::{Scan, Scanned, scan};
use crate::apis::{PRODUCE, lookup};

/// What was found of a request: topics, lengths of records, acknowledgements.
#[derive(Debug, Default, PartialEq)]
struct Found {
    topics: Vec<(Vec<u8>, Vec<usize>)>,
    acks: i64,
}

impl Found {
    fn topic(&mut self, topic: TopicRef) {
        let name = match topic {
            TopicRef::Name(name) => name.as_bytes().to_vec(),
            TopicRef::Id(id) => id.to_vec(),
        };
        self.topics.push((name, Vec::new()));
    }

    fn records(&mut self, bytes: usize) {
        self.topics.last_mut().unwrap().1.push(bytes);
    }
}

impl<'b> Scan<'b> for Found {
    fn acks(&mut self, acks: i64) {
        assert!(self.topics.is_empty());
        self.acks = acks;
    }

    fn topic(&mut self, topic: TopicRef<'b>) {
        Found::topic(self, topic);
    }

    fn records(&mut self, records: &'b [u8]) {
        Found::records(self, records.len());
    }
}

fn walked(version: i16, body: &[u8]) -> Option<Found> {
    let layout = lookup(PRODUCE).unwrap().layout().unwrap();
    let mut found = Found::default();
    let Scanned { acks, .. } = scan(&layout.request, version, body, &mut found).ok()?;
    found.acks = acks;
    Some(found)
}

/// Reads a body that arrives in pieces of `piece` bytes; `None`: it never ends.
fn outlined(version: i16, body: &[u8], piece: usize) -> Option<Found> {
    let mut outline = Outline::new(version);
    let mut found = Found::default();
    let (mut at, mut there) = (0, 0);
    let (mut last, mut lasts) = (false, 0);
    loop {
        let (read, next) = outline.next(&body[at.min(there)..there]);
        assert!(read <= there - at.min(there));
        at += read;
        match next {
            Next::Short if there == body.len() => return None,
            Next::Short => there = (there + piece).min(body.len()),
            Next::Topic(topic) => found.topic(topic),
            Next::Records { head, bytes } => {
                assert!(!last, "records behind the last");
                assert!(body[at..].starts_with(head));
                last = outline.is_last();
                lasts += usize::from(last);
                found.records(bytes);
                at += bytes;
                if at > body.len() {
                    return None;
                }
                there = there.max(at);
            }
            Next::End => {
                let ends_in_records = found.topics.last().is_some_and(|(_, r)| !r.is_empty());
                assert_eq!(lasts, usize::from(ends_in_records));
                found.acks = outline.acks().into();
                return (at == body.len()).then_some(found);
            }
        }
    }
}

const PIECES: [usize; 4] = [1, 7, 61, usize::MAX];

fn encoded(version: i16, request: &ProduceRequest) -> Vec<u8> {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    body.to_vec()
}

/// Tagged fields that nobody knows.
type Tags = Vec<(i32, Vec<u8>)>;

#[derive(Clone, Debug)]
struct Parts {
    version: i16,
    id: Option<String>,
    acks: i16,
    topics: Vec<(String, Vec<Vec<u8>>, Tags)>,
    tags: Tags,
}

fn tags() -> impl Strategy<Value = Tags> {
    let field = (100..200i32, prop::collection::vec(any::<u8>(), 0..20));
    prop::collection::vec(field, 0..3)
}

fn parts() -> impl Strategy<Value = Parts> {
    let records = prop_oneof![
        61..200usize,
        Just(BATCH_HEADER_BYTES),
        Just(127),
        Just(128),
        16_000..17_000usize
    ];
    let records = (records, any::<u8>()).prop_map(|(bytes, fill)| vec![fill; bytes]);
    let topic = (
        "[a-z.]{1,130}",
        prop::collection::vec(records, 0..4),
        tags(),
    );
    (
        3..=13i16,
        prop::option::of("[a-z]{0,20}"),
        -1..=1i16,
        prop::collection::vec(topic, 0..4),
        tags(),
    )
        .prop_map(|(version, id, acks, topics, tags)| Parts {
            version,
            id,
            acks,
            topics,
            tags,
        })
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn request(parts: &Parts) -> ProduceRequest {
    let known = |tags: &Tags| -> std::collections::BTreeMap<i32, Bytes> {
        let flexible = parts.version >= FLEXIBLE_SINCE;
        let tags = tags.iter().filter(|_| flexible);
        tags.map(|(tag, bytes)| (*tag, bytes.clone().into()))
            .collect()
    };
    let topic = |(name, partitions, tags): &(String, Vec<Vec<u8>>, Tags)| {
        let partition = |records: &Vec<u8>| {
            PartitionProduceData::default()
                .with_records(Some(records.clone().into()))
                .with_unknown_tagged_fields(known(tags))
        };
        let data = TopicProduceData::default()
            .with_partition_data(partitions.iter().map(partition).collect())
            .with_unknown_tagged_fields(known(tags));
        match parts.version >= TOPIC_ID_SINCE {
            true => {
                let id: Vec<u8> = name.bytes().cycle().take(16).collect();
                data.with_topic_id(uuid::Uuid::from_slice(&id).unwrap())
            }
            false => data.with_name(text(name).into()),
        }
    };
    ProduceRequest::default()
        .with_transactional_id(parts.id.as_deref().map(|id| text(id).into()))
        .with_acks(parts.acks)
        .with_timeout_ms(5_000)
        .with_topic_data(parts.topics.iter().map(topic).collect())
        .with_unknown_tagged_fields(known(&parts.tags))
}

proptest! {
    #[test]
    fn the_outline_finds_what_the_walker_finds(parts in parts()) {
        let body = encoded(parts.version, &request(&parts));
        let walked = walked(parts.version, &body).unwrap();
        for piece in PIECES {
            let outlined = outlined(parts.version, &body, piece);
            prop_assert_eq!(outlined.as_ref(), Some(&walked), "in pieces of {}", piece);
        }
    }

    /// Whatever the outline takes for a whole request, the walker reads in the same way: what is
    /// judged is what goes on.
    #[test]
    fn changed_bytes_are_read_as_the_walker_reads_them(
        parts in parts(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = encoded(parts.version, &request(&parts));
        for (at, byte) in changes {
            // Among the first bytes, where the lengths are.
            let reach = body.len().min(200);
            body[at.index(reach)] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        for piece in PIECES {
            if let Some(outlined) = outlined(parts.version, &body, piece) {
                prop_assert_eq!(Some(outlined), walked(parts.version, &body));
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_no_reason_to_panic(
        version in 3..=13i16,
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        for piece in PIECES {
            let _ = outlined(version, &body, piece);
        }
    }
}

#[test]
fn what_has_no_records_is_not_understood() {
    for version in 3..=13 {
        let partition = PartitionProduceData::default().with_records(None);
        let topic = TopicProduceData::default().with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_topic_data(vec![topic]);
        let body = encoded(version, &request);
        for piece in PIECES {
            assert_eq!(outlined(version, &body, piece), None, "version {version}");
        }
    }
}

#[test]
fn what_names_no_topics_is_over_at_once() {
    for version in 3..=13 {
        let request = ProduceRequest::default().with_acks(-1);
        let body = encoded(version, &request);
        for piece in PIECES {
            let found = outlined(version, &body, piece).unwrap();
            assert_eq!((found.topics.len(), found.acks), (0, -1));
        }
        let empty = TopicProduceData::default();
        let request = ProduceRequest::default().with_topic_data(vec![empty.clone(), empty]);
        let body = encoded(version, &request);
        for piece in PIECES {
            assert_eq!(outlined(version, &body, piece).unwrap().topics.len(), 2);
        }
    }
}

#[test]
fn lengths_without_a_meaning_are_not_understood() {
    // No transactional id, acks, timeout, and then so many topics.
    for (version, topics) in [(3, -1), (8, -2), (12, 0), (8, i32::MIN)] {
        let mut body = BytesMut::new();
        match version >= FLEXIBLE_SINCE {
            true => body.put_u8(0),
            false => body.put_i16(-1),
        }
        body.put_i16(-1);
        body.put_i32(5_000);
        match version >= FLEXIBLE_SINCE {
            // A compact length of 0: null.
            true => body.put_u8(0),
            false => body.put_i32(topics),
        }
        body.put_bytes(0, 100);
        assert_eq!(outlined(version, &body, usize::MAX), None, "{version}");
    }
}
