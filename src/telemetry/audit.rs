//! The audit log: one JSON line for each refusal and each failed authentication. Lines pass a
//! bounded queue to one writer thread; a full queue counts what it drops and never makes the data
//! path wait. Never a payload, a token, or an upstream address.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::label::{DropCause, Reason};
use super::recorder::Recorder;
use super::store::lock;
use crate::clock;
use crate::policy::model::{Operation, ResourceKind, RuleRef};

/// Lines that may wait for the writer.
pub const QUEUE_LINES_MAX: usize = 8192;
/// The longest text of one field, in bytes; what is longer is cut and ends in `…`.
pub const FIELD_BYTES_MAX: usize = 512;
/// How long [`Audit::close`] waits for the last lines to be written.
pub const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// Where audit lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditSink {
    /// Nowhere.
    #[default]
    None,
    /// Standard output.
    Stdout,
    /// Appended to a file, created with mode 0600.
    File(PathBuf),
}

/// Why the audit log could not start.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened for appending.
    #[error("cannot open audit file `{}`: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The writer's thread cannot start.
    #[error("cannot start the audit writer: {0}")]
    Thread(io::Error),
}

/// One decision worth keeping. Text that a peer chose is cut at [`FIELD_BYTES_MAX`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the client connection, unique in the life of the process.
    pub connection: u64,
    /// The listener's configured name.
    pub listener: Arc<str>,
    /// The peer's address.
    pub host: IpAddr,
    /// `Type:name`; `None` before the client has proven who it is.
    pub principal: Option<Arc<str>>,
    /// The tenant; the empty string where none is known.
    pub tenant: Arc<str>,
    /// Kafka's name of the API; `None` where no request was involved.
    pub api: Option<&'static str>,
    /// The operation that was asked for, where the refusal concerns one.
    pub operation: Option<Operation>,
    /// What it was asked for on.
    pub resource: Option<Resource>,
    /// What was decided.
    pub verdict: Verdict,
    /// Why, as in the `reason` label of the metrics.
    pub reason: Reason,
    /// More about the reason, for a person: which claim, which header, which bound.
    pub detail: Option<String>,
    /// The rule that decided; `None`: no rule matched, or rules had no part in it.
    pub rule: Option<RuleRef>,
}

/// What an operation was asked for on; written `Topic:orders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Topic, group, …
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It went ahead.
    Allow,
    /// It was refused.
    Deny,
}

/// The audit log; a clone writes to the same place.
#[derive(Clone)]
pub struct Audit {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something for the writer to do.
    work: Condvar,
    /// The writer has finished.
    done: Condvar,
    recorder: Recorder,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<(SystemTime, Entry)>,
    reopen: bool,
    closed: bool,
    finished: bool,
}

impl Audit {
    /// Opens the sink and starts the writer. Lines written and lost are counted by `recorder`.
    pub fn start(sink: AuditSink, recorder: &Recorder) -> Result<Self, AuditError> {
        let output = match sink {
            AuditSink::None => return Ok(Self { shared: None }),
            AuditSink::Stdout => Output::Stdout,
            AuditSink::File(path) => match open(&path) {
                Ok(file) => Output::File(path, BufWriter::new(file)),
                Err(cause) => return Err(AuditError::Open { path, cause }),
            },
        };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            recorder: recorder.clone(),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(output))
            .map_err(AuditError::Thread)?;
        Ok(Self {
            shared: Some(shared),
        })
    }

    /// Whether lines go anywhere: where not, an entry need not be built.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Hands an entry to the writer, or counts it as dropped. Never waits for the sink.
    pub fn record(&self, mut entry: Entry) {
        let Some(shared) = &self.shared else { return };
        entry.cut();
        let at = clock::wall();
        let mut queue = lock(&shared.queue);
        if queue.closed || queue.entries.len() >= QUEUE_LINES_MAX {
            drop(queue);
            shared.recorder.audit_dropped(DropCause::QueueFull, 1);
            return;
        }
        queue.entries.push_back((at, entry));
        let first = queue.entries.len() == 1;
        drop(queue);
        if first {
            shared.work.notify_one();
        }
    }

    /// Opens the file anew, for a rotation that moved it away. Lines recorded before this call
    /// may go to either file; none is lost.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            lock(&shared.queue).reopen = true;
            shared.work.notify_one();
        }
    }

    /// Writes what is queued and ends the writer; entries that come later are dropped and counted.
    /// Waits [`CLOSE_WAIT`] at most; `false`: the sink did not take everything in that time.
    pub fn close(&self) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let mut queue = lock(&shared.queue);
        queue.closed = true;
        shared.work.notify_one();
        let waited = shared
            .done
            .wait_timeout_while(queue, CLOSE_WAIT, |q| !q.finished);
        waited.is_ok_and(|(queue, _)| queue.finished)
    }
}

impl Shared {
    /// The writer's life: take all there is, write it, flush, wait.
    fn run(&self, mut output: Output) {
        let mut batch = VecDeque::new();
        let mut line = Vec::with_capacity(512);
        loop {
            let mut queue = lock(&self.queue);
            while queue.entries.is_empty() && !queue.reopen && !queue.closed {
                queue = match self.work.wait(queue) {
                    Ok(queue) => queue,
                    Err(poisoned) => poisoned.into_inner(),
                };
            }
            std::mem::swap(&mut queue.entries, &mut batch);
            let reopen = std::mem::take(&mut queue.reopen);
            let last = queue.closed;
            drop(queue);

            if reopen && let Err(error) = output.reopen() {
                tracing::error!(%error, "audit file cannot be reopened, keeping the old one");
            }
            self.write(&mut output, &mut batch, &mut line);
            if last {
                break;
            }
        }
        lock(&self.queue).finished = true;
        self.done.notify_all();
    }

    fn write(
        &self,
        output: &mut Output,
        batch: &mut VecDeque<(SystemTime, Entry)>,
        line: &mut Vec<u8>,
    ) {
        let lines = batch.len() as u64;
        if lines == 0 {
            return;
        }
        let mut result = Ok(());
        for (at, entry) in batch.drain(..) {
            line.clear();
            result = result.and_then(|()| {
                serde_json::to_writer(&mut *line, &Line::new(at, &entry))?;
                line.push(b'\n');
                output.write(line)
            });
        }
        match result.and_then(|()| output.flush()) {
            Ok(()) => self.recorder.audit_lines(lines),
            Err(error) => {
                // Some of the batch may have been written; what counts is that it may be missing.
                self.recorder.audit_dropped(DropCause::Write, lines);
                tracing::error!(%error, lines, "audit lines lost");
                output.discard();
            }
        }
    }
}

enum Output {
    Stdout,
    File(PathBuf, BufWriter<File>),
}

impl Output {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(line),
            Self::File(_, file) => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::File(_, file) => file.flush(),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(path, file) = self {
            *file = BufWriter::new(open(path)?);
        }
        Ok(())
    }

    /// Forgets what could not be written, so that a full disk does not repeat half a line later.
    fn discard(&mut self) {
        if let Self::File(_, writer) = self
            && let Ok(file) = writer.get_ref().try_clone()
        {
            let old = std::mem::replace(writer, BufWriter::new(file));
            drop(old.into_parts());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

impl Entry {
    fn cut(&mut self) {
        self.principal.iter_mut().for_each(cut_shared);
        cut_shared(&mut self.tenant);
        if let Some(resource) = &mut self.resource {
            cut(&mut resource.name);
        }
        if let Some(detail) = &mut self.detail {
            cut(detail);
        }
    }
}

fn cut_shared(text: &mut Arc<str>) {
    if text.len() > FIELD_BYTES_MAX {
        let mut owned = text.to_string();
        cut(&mut owned);
        *text = owned.into();
    }
}

fn cut(text: &mut String) {
    if text.len() > FIELD_BYTES_MAX {
        text.truncate(text.floor_char_boundary(FIELD_BYTES_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.kind, self.name)
    }
}

/// An entry as written.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    connection: u64,
    listener: &'a str,
    host: IpAddr,
    principal: Option<&'a str>,
    tenant: &'a str,
    api: Option<&'a str>,
    operation: Option<String>,
    resource: Option<String>,
    decision: Verdict,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    rule: Option<String>,
}

impl<'a> Line<'a> {
    fn new(at: SystemTime, entry: &'a Entry) -> Self {
        Self {
            time: rfc3339_ms(at),
            connection: entry.connection,
            listener: &entry.listener,
            host: entry.host,
            principal: entry.principal.as_deref(),
            tenant: &entry.tenant,
            api: entry.api,
            operation: entry.operation.map(|o| format!("{o:?}")),
            resource: entry.resource.as_ref().map(Resource::to_string),
            decision: entry.verdict,
            reason: entry.reason.as_str(),
            detail: entry.detail.as_deref(),
            rule: entry.rule.as_ref().map(RuleRef::to_string),
        }
    }
}

/// RFC 3339 in UTC, always three digits of milliseconds, so that lines sort as text.
pub(crate) fn rfc3339_ms(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond(),
    )
}

#[cfg(test)]
mod tests;
