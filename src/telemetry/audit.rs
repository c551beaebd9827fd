//! The audit log: one JSON line for each refusal and each failed authentication, and for allowed
//! decisions as far as the configuration asks for them ([`allows`]). Lines pass a bounded queue to
//! one writer thread; a full queue counts what it drops and never makes the data path wait. Never a
//! payload, a token, or an upstream address. Those for a topic wait in an [`outbox`].
//!
//! Lines are a [`chain`] of hashes, in which a line that was changed or taken out shows
//! ([`verify`]).

pub mod allows;
pub mod chain;
pub mod verify;

mod line;
pub mod outbox;
mod output;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use self::allows::{Allows, COUNT_EVERY, Counts, Sampler};
use self::chain::{KEY_BYTES_MIN, Sealer};
pub use self::line::MORE;
pub(crate) use self::line::rfc3339_ms;
use self::outbox::{Delivery, Outbox};
use self::output::Output;
use super::label::{DropCause, Reason};
use super::recorder::Recorder;
use super::store::lock;
use crate::clock;
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::principal::Proof;
use crate::secret::{Secret, SecretError};

/// Lines that may wait for the writer.
pub const QUEUE_LINES_MAX: usize = 8192;
/// The longest text of one field, in bytes; what is longer is cut and ends in `…`.
pub const FIELD_BYTES_MAX: usize = 512;
/// Bytes of the names of groups that a line holds; what is more is left out, and `…` says so.
pub const GROUPS_BYTES_MAX: usize = 4 * 1024;
/// Digits of the policies' digest that a line holds.
pub const DIGEST_DIGITS: usize = 16;
/// How long [`Audit::close`] waits for the last lines to be written.
pub const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// How long after a failed write it is tried again to say what was lost.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The audit log as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditSettings {
    /// Where lines go.
    pub sink: AuditSink,
    /// Which allowed decisions become lines.
    pub allows: Allows,
    /// The secret that hashes are made with; read once, at the start.
    pub key: Option<Secret>,
}

/// Where audit lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditSink {
    /// Nowhere.
    #[default]
    None,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(AuditFile),
    /// Records of a topic, which [`Audit::delivery`] writes.
    Topic(String),
}

/// A file that lines are appended to, created with mode 0600.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFile {
    /// The file.
    pub path: PathBuf,
    /// What becomes of it when it is full; `None`: it grows until somebody moves it away.
    pub rotation: Option<Rotation>,
}

/// A full file is renamed to `….1`, that one to `….2`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that a file may hold.
    pub max_bytes: u64,
    /// How many full files are kept.
    pub keep: u32,
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
    /// The key cannot be read.
    #[error("the audit log's key: {0}")]
    Key(#[from] SecretError),
    /// The key could be guessed.
    #[error("the audit log's key is shorter than {KEY_BYTES_MIN} bytes")]
    ShortKey,
    /// The writer's thread cannot start.
    #[error("cannot start the audit writer: {0}")]
    Thread(io::Error),
}

/// Reads a chain's key.
pub fn sealer(key: Option<&Secret>) -> Result<Sealer, AuditError> {
    let Some(key) = key else {
        return Ok(Sealer::default());
    };
    let key = key.read()?;
    match key.text().len() < KEY_BYTES_MIN {
        true => Err(AuditError::ShortKey),
        false => Ok(Sealer::keyed(key.text().as_bytes())),
    }
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
    /// How that was proven; `None` before.
    pub proof: Option<Proof>,
    /// The tenant; the empty string where none is known.
    pub tenant: Arc<str>,
    /// The groups the principal belongs to; see [`GROUPS_BYTES_MAX`].
    pub groups: Arc<[Arc<str>]>,
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
    /// The begin of the digest of the policies in force; `None`: there are none.
    pub policy: Option<Arc<str>>,
    /// How many such decisions this stands for; `None`: for itself.
    pub count: Option<u64>,
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
    allows: Allows,
}

/// Is told what is wrong with the sink, and `None` once nothing is any more.
type Watcher = Box<dyn Fn(Option<String>) + Send>;

struct Shared {
    queue: Mutex<Queue>,
    counts: Mutex<Counts>,
    /// Something for the writer to do.
    work: Condvar,
    /// The writer has finished.
    done: Condvar,
    recorder: Recorder,
    watcher: Mutex<Option<Watcher>>,
    /// Lines for a topic, where they go to one.
    outbox: Option<Arc<Outbox>>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<(SystemTime, Entry)>,
    /// Dropped since the writer last looked.
    dropped: u64,
    reopen: bool,
    closed: bool,
    finished: bool,
}

impl Audit {
    /// Opens the sink and starts the writer. Lines written and lost are counted by `recorder`.
    pub fn start(settings: AuditSettings, recorder: &Recorder) -> Result<Self, AuditError> {
        let path = match &settings.sink {
            AuditSink::File(file) => file.path.clone(),
            _ => PathBuf::new(),
        };
        let output = Output::open(settings.sink, sealer(settings.key.as_ref())?)
            .map_err(|cause| AuditError::Open { path, cause })?;
        let Some(output) = output else {
            let allows = Allows::None;
            return Ok(Self {
                shared: None,
                allows,
            });
        };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            counts: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            recorder: recorder.clone(),
            watcher: Mutex::default(),
            outbox: output.outbox(),
        });
        let (writer, allows) = (Arc::clone(&shared), settings.allows);
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(output, allows))
            .map_err(AuditError::Thread)?;
        Ok(Self {
            shared: Some(shared),
            allows,
        })
    }

    /// Whether lines go anywhere: where not, an entry need not be built.
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// What chooses among the allowed decisions of a connection.
    pub fn sampler(&self) -> Sampler {
        Sampler::new(self.allows)
    }

    /// Has somebody told what is wrong with the sink.
    pub fn watch(&self, watcher: impl Fn(Option<String>) + Send + 'static) {
        if let Some(shared) = &self.shared {
            *lock(&shared.watcher) = Some(Box::new(watcher));
        }
    }

    /// What writes the lines to their topic needs; `None`: they go elsewhere.
    pub fn delivery(&self) -> Option<Delivery> {
        let shared = self.shared.as_ref()?;
        Some(Delivery {
            shared: Arc::clone(shared),
            outbox: Arc::clone(shared.outbox.as_ref()?),
        })
    }

    /// Hands an entry to the writer, or counts it as dropped. Never waits for the sink.
    pub fn record(&self, mut entry: Entry) {
        let Some(shared) = &self.shared else { return };
        entry.cut();
        let at = clock::wall();
        let mut queue = lock(&shared.queue);
        if queue.closed || queue.entries.len() >= QUEUE_LINES_MAX {
            queue.dropped += 1;
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

    /// Takes an allowed decision that a [`Sampler`] chose: a line, or one more of its kind.
    pub fn allowed(&self, mut entry: Entry) {
        if self.allows != Allows::Counted {
            return self.record(entry);
        }
        let Some(shared) = &self.shared else { return };
        entry.cut();
        if !lock(&shared.counts).add(entry) {
            self.drop_lines(DropCause::TableFull, 1);
        }
    }

    /// Decisions were made that cannot be kept.
    pub fn drop_lines(&self, cause: DropCause, lines: u64) {
        if let (Some(shared), true) = (&self.shared, lines > 0) {
            lock(&shared.queue).dropped += lines;
            shared.recorder.audit_dropped(cause, lines);
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
        let finished = waited.is_ok_and(|(queue, _)| queue.finished);
        if let Some(outbox) = &shared.outbox {
            let left = outbox.give_up();
            shared.recorder.audit_dropped(DropCause::Write, left);
        }
        finished
    }
}

impl Shared {
    /// The writer's life: take all there is, write it, flush, wait.
    fn run(&self, mut output: Output, allows: Allows) {
        let mut batch = VecDeque::new();
        let mut in_trouble = false;
        let mut count_at = (allows == Allows::Counted).then(|| clock::now() + COUNT_EVERY);
        loop {
            let retry_at = output.has_lost().then(|| clock::now() + RETRY_AFTER);
            let until = [count_at, retry_at].into_iter().flatten().min();
            let last = self.next(&mut batch, &mut output, until);
            if last || count_at.is_some_and(|at| clock::now() >= at) {
                count_at = count_at.map(|_| clock::now() + COUNT_EVERY);
                let counts = std::mem::take(&mut *lock(&self.counts));
                let at = clock::wall();
                batch.extend(counts.into_entries().map(|entry| (at, entry)));
            }
            for (at, entry) in batch.drain(..) {
                output.append(at, &entry);
            }
            output.append_losses(clock::wall());
            if last {
                output.append_end(clock::wall());
            }
            self.flush(&mut output, &mut in_trouble);
            if last {
                if let Some(outbox) = &self.outbox {
                    outbox.drain();
                }
                break;
            }
        }
        lock(&self.queue).finished = true;
        self.done.notify_all();
    }

    /// Waits for entries and takes them; `true`: they are the last ones.
    fn next(
        &self,
        batch: &mut VecDeque<(SystemTime, Entry)>,
        output: &mut Output,
        until: Option<Instant>,
    ) -> bool {
        let mut queue = lock(&self.queue);
        while queue.entries.is_empty() && !queue.reopen && !queue.closed {
            let rest = until.map(|until| until.saturating_duration_since(clock::now()));
            queue = match rest {
                None => match self.work.wait(queue) {
                    Ok(queue) => queue,
                    Err(poisoned) => poisoned.into_inner(),
                },
                Some(Duration::ZERO) => break,
                Some(rest) => match self.work.wait_timeout(queue, rest) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
        std::mem::swap(&mut queue.entries, batch);
        output.lose(std::mem::take(&mut queue.dropped));
        let reopen = std::mem::take(&mut queue.reopen);
        let last = queue.closed;
        drop(queue);
        if reopen && let Err(error) = output.reopen() {
            tracing::error!(%error, "audit file cannot be reopened, keeping the old one");
        }
        last
    }

    /// Says what is wrong with the sink.
    fn tell(&self, trouble: Option<String>) {
        if let Some(watcher) = &*lock(&self.watcher) {
            watcher(trouble);
        }
    }

    fn flush(&self, output: &mut Output, in_trouble: &mut bool) {
        let written = output.flush();
        self.recorder.audit_lines(written.lines);
        if written.lost > 0 {
            self.recorder.audit_dropped(DropCause::Write, written.lost);
        }
        match written.error {
            Some(error) => {
                if written.lost > 0 || !*in_trouble {
                    let lines = written.lost;
                    tracing::error!(%error, lines, "the audit log cannot be written");
                }
                *in_trouble = true;
                self.tell(Some(format!("the audit log cannot be written: {error}")));
            }
            None if *in_trouble && (written.lines > 0 || !output.has_lost()) => {
                *in_trouble = false;
                tracing::info!("the audit log can be written again");
                self.tell(None);
            }
            None => {}
        }
    }
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
        write!(f, "{}:{}", self.kind.name(), self.name)
    }
}

#[cfg(test)]
mod tests;
