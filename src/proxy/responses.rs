//! The loop from broker to client: answers in the order in which they are owed. What nobody
//! needs to look at streams through; a Fetch answer streams through between its heads, so that
//! memory does not grow with its size.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::connection::{End, Link};
use super::response::{self, Unreadable, fetch_start, look_at_produce};
use super::revoke::{self, Arrived};
use crate::apis::fetch::{FetchAnswer, Next, blank_tail};
use crate::clock;
use crate::net::buffer;
use crate::net::stream::{ReadHalf, WriteHalf};
use crate::session::inflight::{Expect, FetchWork, Owed, Work};
use crate::telemetry::{Direction, Outcome};
use crate::upstream::sasl;
use crate::wire::frame::PREFIX_BYTES;

/// Fetch answers up to this size are held as a whole where they may carry addresses, so that
/// those are rewritten; in longer ones they are blanked as they stream by.
const WHOLE_FETCH_BYTES_MAX: usize = 64 * 1024;
/// Longest tagged section at the end of a streaming Fetch answer, in bytes.
const TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Correlation id, behind the prefix.
const START_BYTES: usize = PREFIX_BYTES + 4;

/// Runs until the broker ends, or nothing more is owed and nothing more is taken.
pub async fn run<'s>(link: &Link<'_>, broker: ReadHalf<'s>, client: WriteHalf<'s>) -> End {
    let mut pump = Pump {
        link,
        broker,
        client,
        buffer: buffer::take(),
        ready: 0,
    };
    let end = pump.run().await;
    if let Err(Broken::Unreadable(error)) = &end {
        tracing::error!(%error, "connection closed");
    }
    buffer::give(std::mem::take(&mut pump.buffer));
    match end {
        Ok(end) => end,
        Err(Broken::Revoked) => End::Now,
        Err(_) => End::Broker,
    }
}

/// Why the loop cannot go on.
enum Broken {
    /// A connection broke, or the broker closed.
    Connection,
    /// The broker's answer cannot be used.
    Unreadable(String),
    /// The client may no longer see it.
    Revoked,
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Broken::Connection
    }
}

impl From<Unreadable> for Broken {
    fn from(error: Unreadable) -> Self {
        Broken::Unreadable(error.to_string())
    }
}

struct Pump<'l, 'p, 's> {
    link: &'l Link<'p>,
    broker: ReadHalf<'s>,
    client: WriteHalf<'s>,
    /// Bytes from the broker.
    buffer: BytesMut,
    /// How many of them, at the front, go to the client as they are.
    ready: usize,
}

impl Pump<'_, '_, '_> {
    async fn run(&mut self) -> Result<End, Broken> {
        loop {
            let due = match self.link.inflight.borrow().front() {
                None => Due::Nothing,
                Some(Owed::Local(_)) => Due::Local,
                Some(Owed::Broker(_)) => Due::Broker,
                Some(Owed::Sasl) => Due::Sasl,
            };
            match due {
                Due::Nothing if self.link.last_request_taken.get() => {
                    self.flush().await?;
                    return Ok(End::Finish);
                }
                Due::Nothing => self.wait().await?,
                Due::Local => {
                    if let Some(Owed::Local(frame)) = self.pop() {
                        self.flush().await?;
                        self.send(&frame).await?;
                    }
                }
                Due::Broker => self.answer().await?,
                Due::Sasl => self.sasl().await?,
            }
        }
    }

    /// Nothing is owed: waits for that to change, and notices if the broker closes.
    async fn wait(&mut self) -> Result<(), Broken> {
        self.flush().await?;
        if !self.buffer.is_empty() {
            return Err(Broken::Unreadable("answer to nothing".into()));
        }
        self.release();
        if self.link.renewal.is_refused() {
            self.link.owed.notified().await;
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.link.owed.notified() => return Ok(()),
            readable = self.broker.readable() => readable?,
        }
        // The end, most likely; readiness may also be a false alarm.
        let mut probe = [0; 1];
        match self.broker.try_read(&mut probe) {
            Ok(0) => Err(Broken::Connection),
            Ok(_) => Err(Broken::Unreadable("answer to nothing".into())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The answer that is due comes from the broker.
    async fn answer(&mut self) -> Result<(), Broken> {
        let rest = &self.buffer[self.ready..];
        let (Some(prefix), Some(id)) = (rest.first_chunk::<4>(), rest.get(4..START_BYTES)) else {
            self.flush().await?;
            return self.fill(START_BYTES).await;
        };
        let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0);
        let id = id
            .first_chunk::<4>()
            .map_or(0, |id| i32::from_be_bytes(*id));
        if length < 4 {
            return Err(Broken::Unreadable("answer shorter than its header".into()));
        }
        let due = match self.link.inflight.borrow().front() {
            Some(Owed::Broker(expect)) if expect.correlation_id == id => expect.work,
            _ => return Err(Broken::Unreadable("answers out of order".into())),
        };
        match (revoke::arrived(self.link), due) {
            (Arrived::Ended, _) => return Err(Broken::Revoked),
            (Arrived::Withheld, Work::Fetch(work)) => return self.withhold(length, work).await,
            _ => {}
        }
        self.link.streams.set(true);
        match due {
            Work::Pass => self.pass(length).await,
            Work::Produce => self.produce(length).await,
            Work::Whole => self.whole(length).await,
            Work::Fetch(work) => self.fetch(length, work).await,
        }?;
        self.link.streams.set(false);
        Ok(())
    }

    /// The Fetch answer that is due is not for the client any more: it gets another one.
    async fn withhold(&mut self, length: usize, work: FetchWork) -> Result<(), Broken> {
        self.flush().await?;
        if let Some(Owed::Broker(mut expect)) = self.pop() {
            expect.outcome = Outcome::Refused;
            let again = response::fetch_again(&self.link.client.borrow(), &expect, work)?;
            self.send(&again).await?;
            self.finished(&expect);
        }
        let mut left = PREFIX_BYTES + length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.read(left).await?;
            }
            let part = left.min(self.buffer.len());
            self.buffer.advance(part);
            left -= part;
        }
        Ok(())
    }

    /// The answer that is due is for the proxy itself.
    async fn sasl(&mut self) -> Result<(), Broken> {
        self.complete(PREFIX_BYTES).await?;
        let prefix = self.buffer[self.ready..].first_chunk::<4>();
        let length = prefix.and_then(|prefix| u32::from_be_bytes(*prefix).try_into().ok());
        let length = length.filter(|length: &usize| *length <= sasl::ANSWER_BYTES_MAX);
        let Some(length) = length else {
            return Err(Broken::Unreadable("answer to SASL too long".into()));
        };
        self.complete(PREFIX_BYTES + length).await?;
        self.flush().await?;
        // A copy, so that the large buffer is not held by a few bytes.
        let frame = &self.buffer[PREFIX_BYTES..PREFIX_BYTES + length];
        let frame = Bytes::copy_from_slice(frame);
        self.buffer.advance(PREFIX_BYTES + length);
        self.pop();
        self.link.renewal.answered(frame);
        // A broker that refuses closes at once: the other loop is to learn why before that.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn pass(&mut self, length: usize) -> Result<(), Broken> {
        let total = PREFIX_BYTES + length;
        let here = self.buffer.len() - self.ready;
        if here >= total {
            self.ready += total;
        } else {
            self.ready = self.buffer.len();
            self.flush().await?;
            self.stream(total - here).await?;
        }
        self.done();
        Ok(())
    }

    /// Sends the next `left` bytes on as they come.
    async fn stream(&mut self, mut left: usize) -> Result<(), Broken> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.read(left).await?;
            }
            let part = left.min(self.buffer.len());
            self.ready = part;
            self.flush().await?;
            left -= part;
        }
        Ok(())
    }

    async fn produce(&mut self, length: usize) -> Result<(), Broken> {
        let total = PREFIX_BYTES + length;
        self.complete(total).await?;
        let start = self.ready + PREFIX_BYTES;
        let look = match self.link.inflight.borrow().front() {
            Some(Owed::Broker(expect)) => {
                let look = look_at_produce(expect, &self.buffer[start..start + length])?;
                (
                    look.addresses || !expect.refused.is_empty(),
                    look,
                    expect.throttle_ms,
                )
            }
            _ => return Ok(()),
        };
        let (rewrite, look, throttle_ms) = look;
        if rewrite {
            return self.whole(length).await;
        }
        if let (1.., Some(at)) = (throttle_ms, look.throttle_at) {
            // The larger of the two, as where two quotas of a broker are exceeded.
            let at = start + at;
            let told = self.buffer[at..at + 4]
                .first_chunk::<4>()
                .map_or(0, |b| u32::from_be_bytes(*b));
            self.buffer[at..at + 4].copy_from_slice(&told.max(throttle_ms).to_be_bytes());
        }
        self.ready += total;
        self.done();
        Ok(())
    }

    async fn whole(&mut self, length: usize) -> Result<(), Broken> {
        let bytes_max = self.link.client.borrow().proxy.bounds.frame_bytes_max;
        if length > bytes_max {
            let text = format!("answer of {length} bytes, expected up to {bytes_max}");
            return Err(Broken::Unreadable(text));
        }
        self.complete(PREFIX_BYTES + length).await?;
        self.flush().await?;
        self.resolve(length).await?;
        self.buffer.advance(PREFIX_BYTES);
        let frame = self.buffer.split_to(length).freeze();
        let Some(Owed::Broker(mut expect)) = self.pop() else {
            return Ok(());
        };
        let segments = response::whole(&mut self.link.client.borrow_mut(), &mut expect, &frame)?;
        drop(frame);
        for segment in &segments {
            self.send(segment).await?;
        }
        self.finished(&expect);
        Ok(())
    }

    /// Learns the topics that the answer at the front of the buffer names by id, if it is filtered
    /// by them. One that is left out because nobody could be asked would look to its group like
    /// one without an offset: then rather no answer.
    async fn resolve(&mut self, length: usize) -> Result<(), Broken> {
        let link = self.link;
        let unknown = match link.inflight.borrow().front() {
            Some(Owed::Broker(expect)) => {
                let frame = &self.buffer[PREFIX_BYTES..PREFIX_BYTES + length];
                response::unknown_ids(&mut link.client.borrow_mut(), expect, frame)
            }
            _ => return Ok(()),
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let proxy = link.client.borrow().proxy;
        let asked = proxy.cluster.resolve_topics(&unknown).await;
        asked.map_err(|error| Broken::Unreadable(format!("topics in an answer: {error}")))?;
        link.client.borrow_mut().refresh();
        Ok(())
    }

    async fn fetch(&mut self, length: usize, work: FetchWork) -> Result<(), Broken> {
        let version = match self.link.inflight.borrow().front() {
            Some(Owed::Broker(expect)) => expect.version,
            _ => return Ok(()),
        };
        let addresses = FetchAnswer::can_hold_addresses(version);
        if addresses && length <= WHOLE_FETCH_BYTES_MAX {
            self.complete(PREFIX_BYTES + length).await?;
        }
        let start = loop {
            let bytes = &self.buffer[self.ready + PREFIX_BYTES..];
            let bytes = &bytes[..bytes.len().min(length)];
            let started = match self.link.inflight.borrow_mut().front_mut() {
                Some(Owed::Broker(expect)) => fetch_start(
                    &mut self.link.client.borrow_mut(),
                    &mut *expect,
                    work,
                    bytes,
                    length,
                )?,
                _ => return Ok(()),
            };
            match started {
                Some(start) => break start,
                None => {
                    let have = self.buffer.len() - self.ready;
                    self.flush().await?;
                    self.fill(have + 1).await?;
                }
            }
        };
        let left = length - start.consumed;
        let from = self.ready + PREFIX_BYTES + start.consumed;
        let short = addresses && length <= WHOLE_FETCH_BYTES_MAX;
        if short && has_tail(version, start.topics, &self.buffer[from..from + left]) {
            return self.whole_fetch(start, left).await;
        }
        match &start.bytes {
            None => self.ready = from,
            Some(bytes) => {
                self.flush().await?;
                self.buffer.advance(PREFIX_BYTES + start.consumed);
                self.send(bytes).await?;
            }
        }
        if short || !addresses {
            let here = left.min(self.buffer.len() - self.ready);
            self.ready += here;
            if here < left {
                self.flush().await?;
                self.stream(left - here).await?;
            }
        } else {
            let walker = FetchAnswer::new(version, start.topics);
            self.walk_fetch(walker, left).await?;
        }
        self.done();
        Ok(())
    }

    /// A short Fetch answer, complete in the buffer, that names brokers.
    async fn whole_fetch(
        &mut self,
        start: response::FetchStart,
        left: usize,
    ) -> Result<(), Broken> {
        self.flush().await?;
        let original = self.buffer.split_to(PREFIX_BYTES + start.consumed).freeze();
        let rest = self.buffer.split_to(left).freeze();
        let start = start.bytes.unwrap_or(original);
        let frame: Bytes = [&start[PREFIX_BYTES..], &rest[..]].concat().into();
        let Some(Owed::Broker(mut expect)) = self.pop() else {
            return Ok(());
        };
        let segments = response::whole(&mut self.link.client.borrow_mut(), &mut expect, &frame)?;
        for segment in &segments {
            self.send(segment).await?;
        }
        self.finished(&expect);
        Ok(())
    }

    /// Streams a Fetch answer, stopping at the heads of its partitions only to find the end.
    async fn walk_fetch(&mut self, mut answer: FetchAnswer, left: usize) -> Result<(), Broken> {
        // Counted from the start of the buffer, what is ready included.
        let mut left = self.ready + left;
        loop {
            let end = self.buffer.len().min(left);
            let (done, next) = answer
                .step(&self.buffer[self.ready..end])
                .map_err(|what| Broken::Unreadable(format!("Fetch answer: {what}")))?;
            self.ready += done;
            match next {
                Next::Skip(records) => {
                    if self.ready + records > left {
                        return Err(Broken::Unreadable("Fetch answer ends early".into()));
                    }
                    let here = records.min(self.buffer.len() - self.ready);
                    self.ready += here;
                    if here < records {
                        left -= self.ready;
                        self.flush().await?;
                        self.stream(records - here).await?;
                        left -= records - here;
                    }
                }
                Next::More => {
                    if self.buffer.len() >= left {
                        return Err(Broken::Unreadable("Fetch answer ends early".into()));
                    }
                    left -= self.ready;
                    self.flush().await?;
                    self.fill(self.buffer.len() + 1).await?;
                }
                Next::Tail => {
                    let tail = left - self.ready;
                    if tail > TAIL_BYTES_MAX {
                        return Err(Broken::Unreadable("Fetch answer: tail too long".into()));
                    }
                    if self.buffer.len() < left {
                        left -= self.ready;
                        self.flush().await?;
                        self.fill(tail).await?;
                    }
                    blank_tail(&mut self.buffer[self.ready..left]);
                    self.ready = left;
                    return Ok(());
                }
                Next::Done => return Ok(()),
            }
        }
    }

    /// Makes sure that `total` bytes of the answer are there.
    async fn complete(&mut self, total: usize) -> Result<(), Broken> {
        if self.buffer.len() - self.ready < total {
            self.flush().await?;
            self.fill(total).await?;
        }
        Ok(())
    }

    /// Reads until the buffer holds `bytes`.
    async fn fill(&mut self, bytes: usize) -> Result<(), Broken> {
        while self.buffer.len() < bytes {
            self.read(bytes - self.buffer.len()).await?;
        }
        Ok(())
    }

    /// Reads once. Waits without a buffer if there is nothing in it.
    async fn read(&mut self, missing: usize) -> Result<(), Broken> {
        match buffer::read(&mut self.broker, &mut self.buffer, missing).await? {
            0 => Err(Broken::Connection),
            _ => Ok(()),
        }
    }

    fn release(&mut self) {
        if self.buffer.capacity() > 0 && self.buffer.is_empty() {
            buffer::give(std::mem::take(&mut self.buffer));
        }
    }

    /// Sends what is ready.
    async fn flush(&mut self) -> Result<(), Broken> {
        if self.ready > 0 {
            self.client.write_all(&self.buffer[..self.ready]).await?;
            self.client.flush().await?;
            let metrics = &self.link.client.borrow().metrics;
            metrics.bytes(Direction::Out, self.ready as u64);
            self.buffer.advance(self.ready);
            self.ready = 0;
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.client.write_all(bytes).await?;
        self.client.flush().await?;
        self.link
            .client
            .borrow()
            .metrics
            .bytes(Direction::Out, bytes.len() as u64);
        Ok(())
    }

    fn pop(&mut self) -> Option<Owed> {
        let owed = self.link.inflight.borrow_mut().pop();
        self.link.room.notify_one();
        owed
    }

    /// The answer that was due is on its way.
    fn done(&mut self) {
        if let Some(Owed::Broker(expect)) = self.pop() {
            self.finished(&expect);
        }
    }

    fn finished(&self, expect: &Expect) {
        let client = self.link.client.borrow();
        client.metrics.in_flight_removed();
        client.metrics.request(expect.api.key, expect.outcome);
        let took = clock::now().saturating_duration_since(expect.started);
        client.metrics.duration(expect.api.key, took);
    }
}

enum Due {
    Nothing,
    Local,
    Broker,
    Sasl,
}

/// Whether a complete answer ends in tagged fields. What cannot be walked is said to, so that
/// it is read properly and refused.
fn has_tail(version: i16, topics: usize, rest: &[u8]) -> bool {
    let mut answer = FetchAnswer::new(version, topics);
    let mut at = 0;
    loop {
        match answer.step(rest.get(at..).unwrap_or_default()) {
            Ok((done, Next::Skip(records))) => at += done + records,
            Ok((done, Next::Tail)) => return rest.get(at + done..) != Some(&[0]),
            _ => return true,
        }
    }
}
