//! Lines on their way to a topic. The writer of the audit log seals them and puts them in; where
//! there is no room it waits, so that no line is lost behind its seal, and what comes meanwhile
//! is counted as dropped where it always is, before the writer. They leave when the topic has
//! them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::Shared;
use crate::telemetry::label::DropCause;
use crate::telemetry::store::lock;
use std::sync::Arc;

/// Lines that may wait for the topic, behind those that wait for the writer.
pub const OUTBOX_LINES_MAX: usize = 4096;
/// Bytes of lines that may wait for the topic; a single line always may.
pub const OUTBOX_BYTES_MAX: usize = 2 * 1024 * 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// For the writer: there is room, or nothing is left, or nobody delivers any more.
    changed: Condvar,
    /// For who delivers: there are lines, or no more will come.
    filled: Notify,
    /// For who delivers: it is over.
    over: Notify,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
    given_up: bool,
}

struct Waiting {
    text: Bytes,
    /// No decision, but a line about the chain.
    is_mark: bool,
}

impl Outbox {
    /// Puts a line in, without its line end; waits for room. `false`: nobody delivers any more.
    pub fn put(&self, text: Bytes, is_mark: bool) -> bool {
        let mut queue = lock(&self.queue);
        let full = |q: &Queue| {
            let bytes = q.bytes + text.len() > OUTBOX_BYTES_MAX && !q.lines.is_empty();
            bytes || q.lines.len() >= OUTBOX_LINES_MAX
        };
        while full(&queue) && !queue.given_up {
            queue = match self.changed.wait(queue) {
                Ok(queue) => queue,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        if queue.given_up {
            return false;
        }
        queue.bytes += text.len();
        queue.lines.push_back(Waiting { text, is_mark });
        self.filled.notify_one();
        true
    }

    /// No more lines come; waits until all are delivered, or nobody delivers any more.
    pub fn drain(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.filled.notify_one();
        while !queue.lines.is_empty() && !queue.given_up {
            queue = match self.changed.wait(queue) {
                Ok(queue) => queue,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
    }

    /// Nothing is delivered any more; returns how many decisions are left.
    pub fn give_up(&self) -> u64 {
        let mut queue = lock(&self.queue);
        queue.given_up = true;
        queue.closed = true;
        queue.bytes = 0;
        let left = queue.lines.drain(..).filter(|line| !line.is_mark).count();
        drop(queue);
        self.changed.notify_all();
        self.filled.notify_one();
        self.over.notify_one();
        left as u64
    }

    /// Takes the first lines out; returns how many of them were decisions.
    fn remove(&self, count: usize) -> u64 {
        let mut queue = lock(&self.queue);
        let count = count.min(queue.lines.len());
        let gone: Vec<Waiting> = queue.lines.drain(..count).collect();
        queue.bytes -= gone.iter().map(|line| line.text.len()).sum::<usize>();
        drop(queue);
        self.changed.notify_all();
        gone.iter().filter(|line| !line.is_mark).count() as u64
    }
}

/// What who writes to the topic needs of the audit log.
pub struct Delivery {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
}

impl Delivery {
    /// The first lines, at least one, within these bounds; they stay where they are. `None`: it
    /// is over, and all that could be delivered has been.
    pub async fn next(&self, lines_max: usize, bytes_max: usize) -> Option<Vec<Bytes>> {
        loop {
            // Made before looking, so that what comes meanwhile is noticed.
            let filled = self.outbox.filled.notified();
            {
                let queue = lock(&self.outbox.queue);
                if !queue.lines.is_empty() {
                    let mut bytes = 0;
                    let fits = |line: &&Waiting| {
                        let is_first = bytes == 0;
                        bytes += line.text.len();
                        is_first || bytes <= bytes_max
                    };
                    let lines = queue.lines.iter().take(lines_max.max(1)).take_while(fits);
                    return Some(lines.map(|line| line.text.clone()).collect());
                }
                if queue.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// The topic has so many of them.
    pub fn delivered(&self, lines: usize) {
        let decisions = self.outbox.remove(lines);
        self.shared.recorder.audit_lines(decisions);
    }

    /// The first line is one that the topic never takes.
    pub fn undeliverable(&self) {
        let decisions = self.outbox.remove(1);
        let cause = DropCause::Write;
        self.shared.recorder.audit_dropped(cause, decisions);
    }

    /// What is wrong with the topic, or that nothing is any more.
    pub fn trouble(&self, what: Option<String>) {
        self.shared.tell(what);
    }

    /// Waits until it is over, delivered or not.
    pub async fn given_up(&self) {
        self.outbox.over.notified().await;
    }
}

#[cfg(test)]
mod tests;
