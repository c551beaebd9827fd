//! Fetch: requests are scanned in place; answers stream through, however large, with their
//! addresses rewritten or blanked ([`FetchAnswer`]).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;

use super::errors::TOPIC_AUTHORIZATION_FAILED;
use super::lens::{Question, Refusal, partitions_of};
use super::produce::TopicRef;
use crate::policy::model::Operation;
use crate::wire::layout::{Field, Message, Role};
use crate::wire::primitive::{Reader, WireError};
use crate::wire::tree::StructNode;
use crate::wire::walk::{Scalar, Visitor, WalkError, walk_prefix};

/// First version with fetch sessions (KIP-227).
pub const SESSIONS_SINCE: i16 = 7;
/// First version with tagged fields.
const FLEXIBLE_SINCE: i16 = 12;
/// First version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// First version whose answers can hold broker addresses (KIP-951).
const ENDPOINTS_SINCE: i16 = 16;

/// What a scan of a request found.
#[derive(Clone, Copy, Debug)]
pub struct Scanned {
    /// From 0 on: the sender says it is a broker.
    pub replica_id: i64,
    /// How long a broker waits for records, in milliseconds.
    pub max_wait_ms: i64,
    /// The incremental session that is named; 0: none.
    pub session_id: i32,
    /// -1: no session; 0: a new one; above: the next request of the one named.
    pub session_epoch: i32,
}

/// Scans a request in place; `topic` sees each topic that is to be fetched, not those to be
/// forgotten.
pub fn scan<'b>(
    message: &Message,
    version: i16,
    body: &'b [u8],
    topic: impl FnMut(TopicRef<'b>),
) -> Result<Scanned, WalkError> {
    let found = Scanned {
        replica_id: -1,
        max_wait_ms: 0,
        session_id: 0,
        session_epoch: -1,
    };
    let mut scanner = Scanner {
        found,
        topic,
        forgotten: false,
    };
    walk_prefix(message, version, body, &mut scanner)?;
    Ok(scanner.found)
}

struct Scanner<F> {
    found: Scanned,
    topic: F,
    forgotten: bool,
}

impl<'b, F: FnMut(TopicRef<'b>)> Visitor<'b> for Scanner<F> {
    fn scalar(
        &mut self,
        field: &Field,
        value: Scalar<'b>,
        _at: Range<usize>,
    ) -> Result<(), WireError> {
        match (field.role, value) {
            (Role::TopicName, Scalar::Name(name)) if !self.forgotten => {
                (self.topic)(TopicRef::Name(name.unwrap_or_default()));
            }
            (Role::TopicId, Scalar::Uuid(id)) if !self.forgotten => {
                (self.topic)(TopicRef::Id(id));
            }
            (Role::None, Scalar::Int(ms)) if &*field.name == "MaxWaitMs" => {
                self.found.max_wait_ms = ms;
            }
            (Role::ReplicaId, Scalar::Int(id)) => self.found.replica_id = id,
            (Role::SessionId, Scalar::Int(id)) => self.found.session_id = id as i32,
            (Role::SessionEpoch, Scalar::Int(epoch)) => self.found.session_epoch = epoch as i32,
            _ => {}
        }
        Ok(())
    }

    fn array(&mut self, field: &Field, _count: Option<usize>, _at: Range<usize>) {
        self.forgotten |= &*field.name == "ForgottenTopicsData";
    }
}

/// READ on each topic. Who claims to be a replica is refused on every partition, whatever the
/// rules say (threat 10): the proxy's identity may be allowed what the client is not.
pub(super) fn judge(q: &mut Question) -> Result<(), Refusal> {
    let state = q
        .request
        .nested("ReplicaState")
        .map_or(-1, |state| state.int("ReplicaId"));
    let replica = if q.version < 15 {
        q.request.int("ReplicaId")
    } else {
        state
    };
    let outcome = match replica {
        0.. => Err(q.refuse(TOPIC_AUTHORIZATION_FAILED)),
        // Unlike elsewhere an empty list is sent on: it carries the session forward.
        _ => q.strip_topics("Topics", Operation::Read, "Responses"),
    };
    q.refused
        .iter_mut()
        .for_each(|(_, topic)| without_offsets(topic));
    outcome.map_err(|refusal| match refusal {
        Refusal::Answer(mut response) => {
            response
                .structs_mut("Responses")
                .iter_mut()
                .for_each(without_offsets);
            Refusal::Answer(response)
        }
        close => close,
    })
}

fn without_offsets(topic: &mut StructNode) {
    for partition in topic.structs_mut("Partitions") {
        partition.set_int("HighWatermark", -1);
    }
}

/// What is refused in a session after a request: what was refused before it, without what it
/// forgets, and what is refused of itself.
pub fn refused_in_session(
    before: Vec<StructNode>,
    forgotten: &[StructNode],
    refused: impl IntoIterator<Item = StructNode>,
) -> Vec<StructNode> {
    // A request may name many thousand: each is looked up, none compared with all.
    let mut gone: HashMap<_, HashSet<i64>> = HashMap::new();
    for topic in forgotten {
        let partitions = partitions_of(topic, i16::MAX).into_iter().map(i64::from);
        gone.entry(same_topic(topic))
            .or_default()
            .extend(partitions);
    }
    let mut all: Vec<StructNode> = Vec::new();
    let mut known: HashMap<_, (usize, HashSet<i64>)> = HashMap::new();
    let before = before.into_iter().map(|topic| (topic, true));
    let refused = refused.into_iter().map(|topic| (topic, false));
    for (mut topic, is_old) in before.chain(refused) {
        let name = same_topic(&topic);
        let gone = gone.get(&name).filter(|_| is_old);
        let place = all.len();
        let (at, indexes) = known.entry(name).or_insert((place, HashSet::new()));
        topic.structs_mut("Partitions").retain(|partition| {
            let index = partition.int("PartitionIndex");
            gone.is_none_or(|gone| !gone.contains(&index)) && indexes.insert(index)
        });
        match all.get_mut(*at) {
            Some(first) => first
                .structs_mut("Partitions")
                .append(topic.structs_mut("Partitions")),
            None => all.push(topic),
        }
    }
    all.retain(|topic| !topic.structs("Partitions").is_empty());
    all
}

/// What tells topics apart, in requests as in answers.
fn same_topic(topic: &StructNode) -> (Option<Bytes>, [u8; 16]) {
    (topic.bytes("Topic").cloned(), topic.uuid("TopicId"))
}

/// The start of an answer, up to and including the number of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The answer's own error.
    pub error_code: i16,
    /// The session the answer belongs to; 0: none.
    pub session_id: i32,
    /// How many topics follow.
    pub topics: usize,
    /// Offset of that number in the body.
    pub topics_at: usize,
    /// Offset behind it.
    pub end: usize,
}

/// Reads the start of an answer's body.
pub fn head(version: i16, body: &[u8]) -> Result<Head, WireError> {
    let mut reader = Reader::new(body);
    reader.i32()?; // throttle time
    let (mut error_code, mut session_id) = (0, 0);
    if version >= SESSIONS_SINCE {
        error_code = reader.i16()?;
        session_id = reader.i32()?;
    }
    let topics_at = reader.position();
    let topics = reader
        .long_length(version >= FLEXIBLE_SINCE)?
        .ok_or(WireError::Null)?;
    Ok(Head {
        error_code,
        session_id,
        topics,
        topics_at,
        end: reader.position(),
    })
}

/// What the walker of a streaming answer wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next `n` bytes need no look: record bytes, or anything in versions that hold no
    /// address.
    Skip(usize),
    /// More bytes must be there before anything can be said.
    More,
    /// The tagged fields at the end of the answer begin here; they reach to its end and may
    /// hold addresses.
    Tail,
    /// The end.
    Done,
}

/// Walks an answer piece by piece as its bytes arrive: between pieces lie record bytes that
/// nobody looks at. Needs memory for one partition's head at a time.
#[derive(Clone, Debug)]
pub struct FetchAnswer {
    version: i16,
    topics: usize,
    partitions: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Topic,
    Partition,
    PartitionEnd,
    TopicEnd,
    Tail,
}

impl FetchAnswer {
    /// Starts behind the head of an answer.
    pub fn new(version: i16, topics: usize) -> Self {
        FetchAnswer {
            version,
            topics,
            partitions: 0,
            state: State::Topic,
        }
    }

    /// Whether answers of this version can hold addresses at all.
    pub fn can_hold_addresses(version: i16) -> bool {
        version >= ENDPOINTS_SINCE
    }

    /// Looks at `bytes`, which begin where the last call stopped; returns how many of them were
    /// understood and what comes next.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(usize, Next), WireError> {
        let mut done = 0;
        loop {
            let mut reader = Reader::new(&bytes[done..]);
            let next = match self.piece(&mut reader) {
                Ok(next) => next,
                // Not an error yet: the rest may be on its way.
                Err(WireError::Truncated | WireError::Length(0..)) => {
                    return Ok((done, Next::More));
                }
                Err(error) => return Err(error),
            };
            done += reader.position();
            if let Some(next) = next {
                return Ok((done, next));
            }
        }
    }

    fn piece(&mut self, reader: &mut Reader) -> Result<Option<Next>, WireError> {
        let flexible = self.version >= FLEXIBLE_SINCE;
        match self.state {
            State::Topic if self.topics == 0 => {
                self.state = State::Tail;
                return Ok(Some(if flexible { Next::Tail } else { Next::Done }));
            }
            State::Topic => {
                if self.version >= TOPIC_IDS_SINCE {
                    reader.take(16)?;
                } else {
                    let length = reader.string_length(flexible)?.ok_or(WireError::Null)?;
                    reader.take(length)?;
                }
                self.partitions = reader.long_length(flexible)?.ok_or(WireError::Null)?;
                self.topics -= 1;
                self.state = State::Partition;
            }
            State::Partition if self.partitions == 0 => self.state = State::TopicEnd,
            State::Partition => {
                let records = self.partition_head(reader)?;
                self.partitions -= 1;
                self.state = State::PartitionEnd;
                if records > 0 {
                    return Ok(Some(Next::Skip(records)));
                }
            }
            State::PartitionEnd => {
                if flexible {
                    reader.tags(|_, _, _| Ok(()))?;
                }
                self.state = State::Partition;
            }
            State::TopicEnd => {
                if flexible {
                    reader.tags(|_, _, _| Ok(()))?;
                }
                self.state = State::Topic;
            }
            State::Tail => return Ok(Some(Next::Done)),
        }
        Ok(None)
    }

    /// Everything of a partition before its records; returns their length.
    fn partition_head(&self, reader: &mut Reader) -> Result<usize, WireError> {
        let flexible = self.version >= FLEXIBLE_SINCE;
        reader.take(4 + 2 + 8)?; // index, error code, high watermark
        reader.take(8)?; // last stable offset, since version 4
        if self.version >= 5 {
            reader.take(8)?; // log start offset
        }
        for _ in 0..reader.long_length(flexible)?.unwrap_or(0) {
            reader.take(16)?; // an aborted transaction: producer id, first offset
            if flexible {
                reader.tags(|_, _, _| Ok(()))?;
            }
        }
        if self.version >= 11 {
            reader.take(4)?; // preferred read replica
        }
        Ok(reader.long_length(flexible)?.unwrap_or(0))
    }
}

/// Makes the tagged fields at the end of an answer say nothing without changing their length:
/// the section keeps one tagged field of the same size, of a number nobody uses, full of zeros.
/// A client that finds no endpoints refreshes its metadata instead (KIP-951).
pub fn blank_tail(tail: &mut [u8]) {
    const UNUSED_TAG: u8 = 0x7f;
    match tail.len() {
        // No tagged field fits: a count of zero is what is there.
        0..=2 => tail.fill(0),
        length => {
            tail.fill(0);
            // One field: its number, then its size in as many bytes as leave no remainder.
            tail[0] = 1;
            tail[1] = UNUSED_TAG;
            let mut size_bytes = 1;
            while length - 2 - size_bytes >= 1 << (7 * size_bytes) {
                size_bytes += 1;
            }
            let mut size = length - 2 - size_bytes;
            for at in 0..size_bytes {
                let more = if at + 1 < size_bytes { 0x80 } else { 0 };
                tail[2 + at] = (size & 0x7f) as u8 | more;
                size >>= 7;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blanked_tail_is_one_unknown_field_of_the_same_length() {
        for length in 1..40_000 {
            let mut tail = vec![0xaa; length];
            blank_tail(&mut tail);
            let mut reader = Reader::new(&tail);
            let mut seen = Vec::new();
            if length < 3 {
                assert!(tail.iter().all(|b| *b == 0));
                continue;
            }
            reader
                .tags(|tag, bytes, _| {
                    seen.push((tag, bytes.iter().all(|b| *b == 0)));
                    Ok(())
                })
                .unwrap();
            assert_eq!(
                (reader.remaining(), seen),
                (0, vec![(0x7f, true)]),
                "{length}"
            );
        }
    }
}
