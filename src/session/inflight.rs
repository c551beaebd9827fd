//! What is owed to the client, in the order in which it asked: answers the broker will send,
//! and answers given here that wait for their turn. Bounded by `limits.inFlight`.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::asked::Asked;
use crate::apis::fetch::TopicParts;
use crate::apis::{Api, Creation, Listing};
use crate::telemetry::Outcome;
use crate::wire::tree::StructNode;

/// From how many milliseconds on a broker is said to wait: as long as Kafka's clients let a Fetch
/// wait unless told otherwise, so that theirs is a short one.
pub const LONG_WAIT_MS: u32 = 500;

/// Bytes of what was decided here, answers and refused parts of them, from which on no further
/// request is taken before some have gone: a client that does not read is not to pile them up.
pub const DECIDED_BYTES_MAX: usize = 1024 * 1024;

/// No policies have this number.
const NO_GENERATION: u64 = u64::MAX;

/// One answer that is owed.
#[derive(Debug)]
pub enum Owed {
    /// The broker will send it.
    Broker(Box<Expect>),
    /// Given here: the whole frame, prefix included.
    Local(Bytes),
    /// The broker will send it to the proxy, which authenticates to it again; the client gets
    /// nothing.
    Sasl,
}

/// An answer that the broker will send, and what is to be done with it.
#[derive(Debug)]
pub struct Expect {
    /// Repeated by the answer.
    pub correlation_id: i32,
    /// The row of the request.
    pub api: &'static Api,
    /// The version of the request, and so of the answer that the client gets.
    pub version: i16,
    /// The version in which the broker was asked and answers; seldom another.
    pub asked_version: i16,
    /// When the request had been read.
    pub started: Instant,
    /// How the request was judged.
    pub outcome: Outcome,
    /// What a quota told the client to wait, in milliseconds.
    pub throttle_ms: u32,
    /// Parts of the answer that were decided here.
    pub refused: Vec<(&'static str, StructNode)>,
    /// Stands for what other sets of policies would have decided otherwise and has been told.
    pub told: Vec<u64>,
    /// Set where all topics were asked about and the broker is asked about some.
    pub listing: Option<Listing>,
    /// Whether the broker may make topics that the request names.
    pub creation: Creation,
    /// What is to be done with the answer.
    pub work: Work,
    /// How long the broker may keep the answer back until something happens, in milliseconds.
    pub waits_ms: u32,
    /// What was allowed.
    pub asked: Asked,
    /// What a Fetch request takes out of its session.
    pub forgotten: Vec<TopicParts>,
    /// By which policies; also by later ones that have changed nothing.
    pub generation: u64,
}

impl Expect {
    /// Whether the broker may let the answer wait for long. It does not look at what was sent
    /// behind the request meanwhile.
    pub fn waits_long(&self) -> bool {
        self.waits_ms > LONG_WAIT_MS
    }
}

/// What is to be done with an answer.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Nothing: its bytes go on as they come.
    Pass,
    /// It is read as a whole, filtered, and its addresses are rewritten.
    Whole,
    /// A Produce answer: seldom anything.
    Produce,
    /// A Fetch answer: streams through.
    Fetch(FetchWork),
}

/// What a Fetch answer means for the session it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchWork {
    /// The session that the request continued; 0: none.
    pub session_id: i32,
    /// Whether the answer may open a session.
    pub opens: bool,
    /// The request's place in the session; below 1: in none.
    pub epoch: i32,
    /// The policies in force when the request was judged.
    pub generation: u64,
}

/// The answers owed on one connection.
#[derive(Debug)]
pub struct InFlight {
    /// Each with the bytes that it keeps of what was decided here.
    owed: VecDeque<(Owed, usize)>,
    max: usize,
    /// How many of them may wait for long.
    waiting: usize,
    /// How many bytes of what was decided here there are.
    decided_bytes: usize,
}

impl InFlight {
    /// Nothing is owed; at most `max` answers may be.
    pub fn new(max: usize) -> Self {
        InFlight {
            owed: VecDeque::new(),
            max: max.max(1),
            waiting: 0,
            decided_bytes: 0,
        }
    }

    /// Whether another request may be taken.
    pub fn has_room(&self) -> bool {
        self.owed.len() < self.max && self.decided_bytes < DECIDED_BYTES_MAX
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// How many answers are owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Remembers an answer that is owed, behind all others.
    pub fn push(&mut self, owed: Owed) {
        debug_assert!(self.has_room(), "callers wait for room");
        self.waiting += usize::from(waits_long(&owed));
        let bytes = decided_bytes(&owed);
        self.decided_bytes += bytes;
        self.owed.push_back((owed, bytes));
    }

    /// The client's rights are others now: what is owed was judged by none that are in force, and
    /// a fetch session that it opens is nobody's.
    pub fn judge_again(&mut self) {
        for (owed, _) in &mut self.owed {
            if let Owed::Broker(expect) = owed {
                expect.generation = NO_GENERATION;
                if let Work::Fetch(work) = &mut expect.work {
                    work.generation = NO_GENERATION;
                }
            }
        }
    }

    /// The answer that is due next.
    pub fn front(&self) -> Option<&Owed> {
        self.owed.front().map(|(owed, _)| owed)
    }

    /// The answer that is due next, to change.
    pub fn front_mut(&mut self) -> Option<&mut Owed> {
        self.owed.front_mut().map(|(owed, _)| owed)
    }

    /// Takes the answer that is due next.
    pub fn pop(&mut self) -> Option<Owed> {
        let (owed, bytes) = self.owed.pop_front()?;
        self.waiting -= usize::from(waits_long(&owed));
        self.decided_bytes -= bytes;
        Some(owed)
    }

    /// Whether the broker may be waiting, and not look at what follows.
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// The answers that the broker will send, in order; each with whether it is due next.
    pub fn expected(&mut self) -> impl Iterator<Item = (bool, &mut Expect)> {
        let owed = self.owed.iter_mut().enumerate();
        owed.filter_map(|(at, (owed, _))| match owed {
            Owed::Broker(expect) => Some((at == 0, &mut **expect)),
            _ => None,
        })
    }
}

fn waits_long(owed: &Owed) -> bool {
    matches!(owed, Owed::Broker(expect) if expect.waits_long())
}

fn decided_bytes(owed: &Owed) -> usize {
    match owed {
        Owed::Local(frame) => frame.len(),
        Owed::Broker(expect) => {
            let refused = expect.refused.iter();
            refused.map(|(_, element)| element.memory()).sum()
        }
        Owed::Sasl => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_requests_and_the_table_is_bounded() {
        let mut inflight = InFlight::new(2);
        inflight.push(Owed::Local(Bytes::from_static(b"1")));
        assert!(inflight.has_room());
        inflight.push(Owed::Local(Bytes::from_static(b"2")));
        assert!(!inflight.has_room());
        let first = inflight.pop();
        assert!(matches!(first, Some(Owed::Local(bytes)) if &bytes[..] == b"1"));
        assert!(inflight.has_room() && inflight.len() == 1 && !inflight.is_empty());
    }

    #[test]
    fn t38_answers_given_here_do_not_pile_up() {
        let mut inflight = InFlight::new(64);
        let half = || Owed::Local(vec![0; DECIDED_BYTES_MAX / 2].into());
        inflight.push(half());
        assert!(inflight.has_room());
        inflight.push(half());
        assert!(!inflight.has_room());
        inflight.pop();
        assert!(inflight.has_room());
    }
}
