//! Large Produce requests, from socket to socket: what they name is read and judged here; their
//! records, which nobody here needs to see, lie in a [`Pipe`] until their request is complete
//! and are never copied. Whatever this way is not made for is had back as bytes and goes the
//! usual way, so this one knows a single outcome: everything in the request is allowed.
//!
//! Behind the head of a request's last records nothing is left to be judged: where the pipe is
//! too small for the rest, it flows on while it arrives. Such a request too is accepted, charged
//! and owed when it is complete; until then the broker has a piece of a frame and does nothing.

use std::io;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;

use super::connection::{End, Link};
use super::request::{Seen, admit, take_produce};
use super::requests::owe;
use crate::apis::produce::{Next, Outline, TopicRef};
use crate::apis::{Api, PRODUCE};
use crate::net::buffer;
use crate::net::pipe::{Filled, Glimpse, Pipe};
use crate::session::inflight::Owed;
use crate::telemetry::{Direction, Reason};
use crate::wire::frame::{self, PREFIX_BYTES};
use crate::wire::header::RequestHeader;
use crate::wire::records::{self, Summary};

/// Bytes of a frame from which on it goes this way.
pub const PASSAGE_BYTES_MIN: usize = 8 * 1024;
/// Bytes of a partition's records below which copying them costs less than going over them.
const RECORDS_BYTES_MIN: usize = 4 * 1024;
/// Bytes that are moved into the pipe at once.
const FILL_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that are read at once where a request begins, and between two partitions' records.
const STEP_BYTES: usize = 192;
/// Most bytes of a request's begin, or between two partitions' records.
const STEP_BYTES_MAX: usize = 1024;
/// Most topics of a request: they are remembered until it is complete.
const TOPICS_MAX: usize = 256;

/// Why a request goes the usual way. What has come of it is in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual {
    /// It is not a large Produce request.
    Other,
    /// Something in it must be looked into, or there is no pipe.
    Contents,
    /// It has to wait.
    Busy,
}

/// How it goes on behind the requests that went this way.
#[derive(Debug)]
pub enum After {
    /// The next one goes the usual way.
    Usual(Usual),
    /// The connection ends.
    End(End),
}

/// Sends on requests for as long as they are made for this way. `buffer` is empty.
pub async fn run(
    link: &Link<'_>,
    client: &TcpStream,
    broker: &TcpStream,
    buffer: &mut BytesMut,
) -> io::Result<After> {
    let mut draining = link.draining.clone();
    let mut frame_bytes = 1;
    loop {
        // While nothing comes, the connection has no pipe.
        let ready = tokio::select! {
            biased;
            ready = client.readable() => ready,
            _ = draining.wait_for(|draining| *draining) => return Ok(After::End(End::Finish)),
        };
        if ready.is_err() {
            return Ok(After::End(End::Client));
        }
        let Some(pipe) = Pipe::take() else {
            return Ok(After::Usual(Usual::Contents));
        };
        let mut passage = Passage {
            pipe,
            front: Front::default(),
            frame_bytes,
        };
        let moved = passage.move_on(link, client, broker, &mut draining).await?;
        frame_bytes = passage.frame_bytes;
        match moved {
            Moved::Empty => {}
            Moved::End(end) => return Ok(After::End(end)),
            Moved::Usual(why) => {
                if passage.front.flowed > 0 {
                    // The broker never sees the end of the frame.
                    return Ok(After::End(End::Now));
                }
                let mut bytes = buffer::take();
                passage.pipe.unload(&mut bytes)?;
                buffer::give(std::mem::replace(buffer, bytes));
                return Ok(After::Usual(why));
            }
        }
    }
}

/// Requests on their way.
struct Passage {
    /// Begins with the first request that has not gone on yet.
    pipe: Pipe,
    front: Front,
    /// Bytes of the last frame: the next one is likely to have as many.
    frame_bytes: usize,
}

/// What is known of the first request that has not gone on yet.
#[derive(Default)]
struct Front {
    request: Option<Request>,
    /// How much of it the broker has; above zero only where everything in it is allowed.
    flowed: usize,
}

/// One request, as far as it has been read.
struct Request {
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    client_id: Option<Box<str>>,
    /// The prefix included.
    frame_bytes: usize,
    /// Where in the frame the reading stands.
    at: usize,
    outline: Outline,
    seen: Seen,
    topics: Vec<(Topic, Summary)>,
    /// Whether all of it has been read but for what needs no reading.
    is_judged: bool,
    /// The policies that it was judged by.
    generation: u64,
}

/// As [`TopicRef`], to keep.
enum Topic {
    Name(Box<str>),
    Id([u8; 16]),
}

/// Why the requests in the pipe do not move on.
enum Moved {
    /// There are none.
    Empty,
    /// The first one goes the usual way.
    Usual(Usual),
    /// The connection ends.
    End(End),
}

/// What was read of the first request.
enum Read {
    /// All that is needed.
    Judged,
    /// The rest is not in the pipe yet.
    Short,
    /// Something for the usual way.
    Usual(Usual),
}

impl Passage {
    async fn move_on(
        &mut self,
        link: &Link<'_>,
        client: &TcpStream,
        broker: &TcpStream,
        draining: &mut watch::Receiver<bool>,
    ) -> io::Result<Moved> {
        // Whether the pipe holds bytes that came after the last look at it.
        let mut fresh = false;
        loop {
            consume_budget().await;
            let full = match self.pipe.try_fill(client, FILL_BYTES_MAX) {
                Ok(Filled::Moved(_)) => {
                    fresh = true;
                    if self.pipe.held() < self.front.wanted(self.frame_bytes) {
                        continue;
                    }
                    false
                }
                Ok(Filled::Full) if self.front.is_judged() => {
                    let bytes = self.pipe.held();
                    self.front.flowed += bytes;
                    self.pipe.drain(broker, bytes, true).await?;
                    continue;
                }
                Ok(Filled::Full) if fresh => true,
                Ok(Filled::Full) => return Ok(Moved::Usual(Usual::Contents)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.pipe.held() == 0 && self.front.flowed == 0 {
                        return Ok(Moved::Empty);
                    }
                    if fresh && self.front.request.is_none() {
                        false
                    } else {
                        // A drain does not wait for the rest of a frame: it was never accepted.
                        tokio::select! {
                            biased;
                            ready = client.readable() => if ready.is_err() {
                                return Ok(Moved::End(End::Client));
                            },
                            _ = draining.wait_for(|draining| *draining) => {
                                return Ok(Moved::End(End::Finish));
                            }
                        }
                        continue;
                    }
                }
                // What it sent before it left is still its request.
                Ok(Filled::End) if fresh => false,
                // The client is gone, or the system does not do this: the usual way finds out.
                Err(_) if self.front.flowed == 0 => return Ok(Moved::Usual(Usual::Contents)),
                Ok(Filled::End) | Err(_) => return Ok(Moved::End(End::Client)),
            };
            fresh = false;
            let (bytes, stop) = self.accept(link, full);
            self.pipe.drain(broker, bytes, false).await?;
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    /// Accepts the complete requests at the front, as many as there are; says how many bytes are
    /// to go on. The first one is read as far as it is there if the pipe is `full`.
    fn accept(&mut self, link: &Link<'_>, full: bool) -> (usize, Option<Moved>) {
        let held = self.pipe.held();
        let mut glimpse = None;
        // Where in the pipe the first request begins that has not been accepted.
        let mut begin = 0;
        let stop = loop {
            let here = held - begin;
            if here == 0 || (here < self.front.wanted(1) && !full) {
                break None;
            }
            // What the broker has a part of was taken when there was room.
            if self.front.flowed == 0 {
                let client = link.client.borrow();
                let room = client.muted_until.is_none() && link.inflight.borrow().has_room();
                if !room || link.renewal.is_due() || *link.draining.borrow() {
                    break Some(Moved::Usual(Usual::Busy));
                }
            }
            if !self.front.is_judged() {
                let read = match &mut glimpse {
                    Some(glimpse) => self.front.read(link, glimpse, begin, here),
                    none => { self.pipe.glimpse() }
                        .and_then(|new| self.front.read(link, none.insert(new), begin, here)),
                };
                match read {
                    Ok(Read::Judged) => {}
                    Ok(Read::Short) => break None,
                    Ok(Read::Usual(why)) => break Some(Moved::Usual(why)),
                    // The system gave no second pipe, or a smaller one.
                    Err(error) => {
                        tracing::debug!(%error, "cannot look into a pipe");
                        break Some(Moved::Usual(Usual::Contents));
                    }
                }
            }
            let Some(bytes) = self.front.complete_bytes(here) else {
                break None;
            };
            match self.front.take(link) {
                Taken::Accepted(frame_bytes) => {
                    self.frame_bytes = frame_bytes;
                    begin += bytes;
                }
                Taken::Again => {
                    self.front = Front::default();
                    glimpse = None;
                }
                Taken::Refused => break Some(Moved::End(End::Finish)),
            }
        };
        (begin, stop)
    }
}

/// What came of a complete request.
enum Taken {
    /// Its frame, of so many bytes, is owed and goes on.
    Accepted(usize),
    /// The rules have changed since it was judged.
    Again,
    /// It is no longer allowed, and the broker has a part of it.
    Refused,
}

impl Front {
    fn is_judged(&self) -> bool {
        self.request.as_ref().is_some_and(|r| r.is_judged)
    }

    /// How many of its bytes are worth a look; `otherwise`: where nothing is known of it.
    fn wanted(&self, otherwise: usize) -> usize {
        let known = self.request.as_ref();
        known.map_or(otherwise, |request| request.frame_bytes - self.flowed)
    }

    /// Its bytes in the pipe, if it is there to its end.
    fn complete_bytes(&self, here: usize) -> Option<usize> {
        let rest = self.request.as_ref()?.frame_bytes - self.flowed;
        (rest <= here).then_some(rest)
    }

    /// Reads on in the request, which begins at `begin` and of which at most `here` bytes are
    /// there.
    fn read(
        &mut self,
        link: &Link<'_>,
        glimpse: &mut Glimpse,
        begin: usize,
        here: usize,
    ) -> io::Result<Read> {
        let mut window = [0; STEP_BYTES_MAX];
        // What stands in the window, and where in the frame it ends.
        let (mut from, mut to) = (0, 0);
        let start = self.request.as_ref().map_or(0, |request| request.at);
        if start > here {
            return Ok(Read::Short);
        }
        glimpse.go_to(begin + start)?;
        loop {
            let step = match &mut self.request {
                None => match Request::begin(link, &window[from..to]) {
                    Begin::Request(request) => {
                        from += request.at;
                        self.request = Some(*request);
                        continue;
                    }
                    Begin::Short => Step::Short,
                    Begin::Usual(why) => return Ok(Read::Usual(why)),
                },
                Some(request) => {
                    let (read, step) = request.step(link, &window[from..to]);
                    request.at += read;
                    from += read;
                    step
                }
            };
            match (step, &mut self.request) {
                (Step::On, _) => {}
                (Step::Short, _) => {
                    window.copy_within(from..to, 0);
                    (from, to) = (0, to - from);
                    let at = glimpse.at() - begin;
                    let most = (to + STEP_BYTES).min(STEP_BYTES_MAX);
                    // Not past the frame: what stands there belongs to the next one.
                    let frame_bytes = self.request.as_ref().map_or(usize::MAX, |r| r.frame_bytes);
                    let most = most.min(to + here.min(frame_bytes).saturating_sub(at));
                    match glimpse.read(&mut window[to..most])? {
                        0 if to == STEP_BYTES_MAX || here >= frame_bytes => {
                            return Ok(Read::Usual(Usual::Contents));
                        }
                        0 => return Ok(Read::Short),
                        bytes => to += bytes,
                    }
                }
                (Step::Records(bytes), Some(request)) => {
                    let is_last = request.outline.is_last();
                    if request.at + bytes > request.frame_bytes
                        || (bytes < RECORDS_BYTES_MIN && !is_last)
                    {
                        return Ok(Read::Usual(Usual::Contents));
                    }
                    request.at += bytes;
                    if is_last {
                        request.is_judged = true;
                        return Ok(Read::Judged);
                    }
                    if request.at >= here {
                        return Ok(Read::Short);
                    }
                    (from, to) = (0, 0);
                    glimpse.go_to(begin + request.at)?;
                }
                (Step::Over, Some(request)) => {
                    request.is_judged = true;
                    return Ok(Read::Judged);
                }
                _ => return Ok(Read::Usual(Usual::Contents)),
            }
        }
    }

    /// Accepts the request, which is judged and complete; the next one is the front.
    fn take(&mut self, link: &Link<'_>) -> Taken {
        let mut client = link.client.borrow_mut();
        let Some(mut request) = self.request.take() else {
            return Taken::Again;
        };
        if !request.is_still_allowed(&mut client, self.flowed > 0) {
            if self.flowed == 0 {
                return Taken::Again;
            }
            let why = "access ended while the request was being sent";
            client.refused_otherwise(Some(request.api), None, Reason::Authorization, why, None);
            return Taken::Refused;
        }
        self.flowed = 0;
        let head = RequestHeader {
            key: request.api.key,
            version: request.version,
            correlation_id: request.correlation_id,
            client_id: request.client_id.as_deref(),
            body_at: 0,
        };
        let (bytes, silent) = (request.frame_bytes, request.outline.acks() == 0);
        client.metrics.bytes(Direction::In, bytes as u64);
        client.proxy.recorder.spliced(bytes as u64);
        let body_bytes = bytes - PREFIX_BYTES;
        client.allowed(request.api, request.seen.decisions());
        let asked = request.seen.asked();
        client.differed(request.api, request.seen.differences());
        client.would_object(request.api, request.seen.objections());
        let owed = take_produce(&mut client, request.api, &head, body_bytes, silent, asked);
        drop(client);
        if let Some(expect) = owed {
            owe(link, Owed::Broker(expect));
        }
        Taken::Accepted(bytes)
    }
}

/// What came of the begin of a frame.
#[allow(clippy::large_enum_variant)] // taken apart where it is made
enum Begin {
    Request(Box<Request>),
    Short,
    Usual(Usual),
}

/// What has been read last.
enum Step {
    /// Something that is allowed.
    On,
    /// The bytes do not suffice.
    Short,
    /// What stands before so many bytes of records.
    Records(usize),
    /// The end.
    Over,
    /// Something for the usual way.
    Usual,
}

impl Request {
    fn begin(link: &Link<'_>, bytes: &[u8]) -> Begin {
        let mut client = link.client.borrow_mut();
        let Ok(length) = frame::body_length(bytes, client.proxy.bounds.frame_bytes_max) else {
            return Begin::Usual(Usual::Contents);
        };
        let (Some(length), Some(begin)) = (length, bytes.get(PREFIX_BYTES..)) else {
            return Begin::Short;
        };
        if length < PASSAGE_BYTES_MIN
            || begin
                .first_chunk()
                .is_some_and(|key| *key != PRODUCE.to_be_bytes())
        {
            return Begin::Usual(Usual::Other);
        }
        let Ok((api, head)) = admit(&mut client, begin) else {
            // Refused, or cut off: the usual way knows.
            return match bytes.len() < STEP_BYTES {
                true => Begin::Short,
                false => Begin::Usual(Usual::Contents),
            };
        };
        Begin::Request(Box::new(Request {
            api,
            version: head.version,
            correlation_id: head.correlation_id,
            client_id: head.client_id.map(Box::from),
            frame_bytes: PREFIX_BYTES + length,
            at: PREFIX_BYTES + head.body_at,
            outline: Outline::new(head.version),
            seen: Seen::new(),
            topics: Vec::new(),
            is_judged: false,
            generation: client.snapshot.generation,
        }))
    }

    /// Reads on in `bytes`; says how many it has read. Of records it reads nothing.
    fn step(&mut self, link: &Link<'_>, bytes: &[u8]) -> (usize, Step) {
        let (read, next) = self.outline.next(bytes);
        let step = match next {
            Next::Short => Step::Short,
            Next::End => Step::Over,
            Next::Topic(topic) => {
                let mut client = link.client.borrow_mut();
                self.seen.acks(self.outline.acks().into());
                self.seen.topic(&mut client, topic);
                if self.topics.len() == TOPICS_MAX {
                    return (read, Step::Usual);
                }
                let topic = match topic {
                    TopicRef::Name(name) => Topic::Name(name.into()),
                    TopicRef::Id(id) => Topic::Id(*id),
                };
                self.topics.push((topic, Summary::EMPTY));
                match self.seen.goes_on(&client) {
                    true => Step::On,
                    false => Step::Usual,
                }
            }
            Next::Records { head, bytes } => match records::inspect_head(head, bytes) {
                None => Step::Usual,
                Some(summary) => {
                    self.seen.headers(&summary);
                    if let Some((_, heads)) = self.topics.last_mut() {
                        *heads = heads.and(summary);
                    }
                    match self.seen.goes_on(&link.client.borrow()) {
                        true => Step::Records(bytes),
                        false => Step::Usual,
                    }
                }
            },
        };
        (read, step)
    }

    /// Whether what was allowed when it was judged is allowed now. `under_way`: the broker has a
    /// part of it.
    fn is_still_allowed(&mut self, client: &mut super::client::Client, under_way: bool) -> bool {
        client.refresh();
        if client.is_expired() || client.is_contested {
            return false;
        }
        if client.snapshot.generation == self.generation {
            return true;
        }
        let mut seen = self.seen.again(under_way);
        let allowed = self.topics.iter().all(|(topic, heads)| {
            let topic = match topic {
                Topic::Name(name) => TopicRef::Name(name),
                Topic::Id(id) => TopicRef::Id(id),
            };
            seen.topic(client, topic);
            seen.headers(heads);
            seen.goes_on(client)
        });
        self.seen = seen;
        allowed
    }
}
