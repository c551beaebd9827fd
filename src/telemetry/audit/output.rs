//! Where lines go: a file, standard output, or the outbox of a topic. Seals lines into the chain,
//! changes files when one is full or was moved away, and knows after a failed write what was
//! written and what was lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::chain::{self, Hash, LINE_BYTES_MAX, MarkKind, Sealer};
use super::line::{Line, Mark};
use super::outbox::Outbox;
use super::{AuditFile, AuditSink, Entry};

/// Bytes that are gathered before they are written.
const CHUNK_BYTES: usize = 64 * 1024;
/// How much more is written to a full file that cannot be changed before that is tried again.
const ROTATE_RETRY_BYTES: u64 = 1024 * 1024;
/// How much of a file's end is read for the last line of its chain.
const TAIL_BYTES_MAX: u64 = 4 * LINE_BYTES_MAX as u64;

/// What became of the lines of a flush.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Decisions that were written.
    pub lines: u64,
    /// Decisions that were not.
    pub lost: u64,
    /// Why not, or why the file could not be changed.
    pub error: Option<io::Error>,
}

/// See the module.
pub(super) struct Output {
    to: To,
    /// The configured file; `None`: standard output.
    settings: Option<AuditFile>,
    /// Bytes in the file.
    size: u64,
    /// A full file is changed once it has as many bytes.
    rotate_at: u64,
    sealer: Sealer,
    /// Of the last line, buffered ones included: its number and hash.
    last: Option<(u64, Hash)>,
    /// The same of the last line that was written.
    kept: Option<(u64, Hash)>,
    /// What the next line must be preceded by.
    mark: Option<MarkKind>,
    /// Bytes behind the last whole line in the file.
    torn: u64,
    /// Lines that were lost and not yet said to be.
    lost: u64,
    buffer: Vec<u8>,
    /// The lines in the buffer.
    lines: Vec<Buffered>,
    written: Written,
}

/// Where lines are written to.
enum To {
    File(File),
    Topic(Arc<Outbox>),
}

struct Buffered {
    /// Where in the buffer it ends.
    end: usize,
    seq: u64,
    hash: Hash,
    mark: Option<Mark>,
}

impl Output {
    /// Opens the sink; where a file holds a chain, it goes on.
    pub fn open(sink: AuditSink, sealer: Sealer) -> io::Result<Option<Self>> {
        let (to, settings) = match sink {
            AuditSink::None => return Ok(None),
            AuditSink::Stdout => {
                let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                (To::File(stdout), None)
            }
            AuditSink::File(settings) => (To::File(open(&settings.path)?), Some(settings)),
            AuditSink::Topic(_) => (To::Topic(Arc::default()), None),
        };
        let mut output = Output {
            to,
            size: 0,
            rotate_at: u64::MAX,
            sealer,
            last: None,
            kept: None,
            mark: Some(MarkKind::Begin),
            torn: 0,
            lost: 0,
            buffer: Vec::with_capacity(2 * CHUNK_BYTES),
            lines: Vec::new(),
            written: Written::default(),
            settings,
        };
        output.measure();
        output.resume();
        Ok(Some(output))
    }

    /// Where lines wait for a topic.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        match &self.to {
            To::Topic(outbox) => Some(Arc::clone(outbox)),
            To::File(_) => None,
        }
    }

    /// Takes in how large the file is.
    fn measure(&mut self) {
        let rotation = self.settings.as_ref().and_then(|s| s.rotation);
        self.rotate_at = rotation.map_or(u64::MAX, |r| r.max_bytes);
        self.size = match &self.to {
            To::File(file) => file.metadata().ok().filter(|meta| meta.is_file()),
            To::Topic(_) => None,
        }
        .map_or(0, |meta| meta.len());
    }

    /// Goes on behind the last line of the file's chain, or of the file that was moved away last.
    fn resume(&mut self) {
        let Some(settings) = &self.settings else {
            return;
        };
        let found = match self.size {
            0 => tail(&numbered(&settings.path, 1)).map(|(seq, hash, _)| (seq, hash, 0)),
            _ => tail(&settings.path),
        };
        if let Some((seq, hash, torn)) = found {
            self.last = Some((seq, hash));
            self.torn = torn;
            self.mark = Some(MarkKind::Resume);
        } else if self.size > 0 && !ends_in_newline(&settings.path) {
            // Not ours, but our line must not become a part of it.
            self.torn = 1;
        }
        self.kept = self.last;
    }

    /// Lines were dropped before they came here.
    pub fn lose(&mut self, lines: u64) {
        self.lost += lines;
    }

    /// Whether lines were lost and nothing in the file says so yet.
    pub fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// Adds a decision.
    pub fn append(&mut self, at: SystemTime, entry: &Entry) {
        self.lead_in(at);
        let start = self.buffer.len();
        let before = self.last;
        self.build(Line::of(at, entry), None);
        if self.size + self.buffer.len() as u64 > self.rotate_at && self.size + start as u64 > 0 {
            self.buffer.truncate(start);
            self.lines.pop();
            self.last = before;
            self.write();
            // A half line at the end must be explained in the file that holds it.
            if self.torn == 0 {
                self.rotate();
            }
            self.lead_in(at);
            self.build(Line::of(at, entry), None);
        }
        if self.buffer.len() >= CHUNK_BYTES {
            self.write();
        }
    }

    /// Says what was lost, if anything was.
    pub fn append_losses(&mut self, at: SystemTime) {
        if self.lost > 0 {
            self.lead_in(at);
        }
    }

    /// Says that the process ends, if it has written anything.
    pub fn append_end(&mut self, at: SystemTime) {
        let is_new = matches!(self.mark, Some(MarkKind::Begin | MarkKind::Resume));
        if is_new && self.lost == 0 {
            return;
        }
        self.lead_in(at);
        self.build_mark(at, MarkKind::End);
    }

    /// What must stand before the next line.
    fn lead_in(&mut self, at: SystemTime) {
        if let Some(kind) = self.mark.take() {
            self.build_mark(at, kind);
        } else if self.lost > 0 || self.torn > 0 {
            self.build_mark(at, MarkKind::Lost);
        }
    }

    fn build_mark(&mut self, at: SystemTime, kind: MarkKind) {
        let torn = std::mem::take(&mut self.torn);
        if torn > 0 {
            // Ends the line that was not written to its end.
            self.buffer.push(b'\n');
        }
        let mark = Mark {
            kind,
            keyed: self.sealer.is_keyed(),
            torn: if torn > 0 { torn + 1 } else { 0 },
            lost: std::mem::take(&mut self.lost),
        };
        self.build(Line::mark(at, Some(mark)), Some(mark));
    }

    fn build(&mut self, mut line: Line<'_>, mark: Option<Mark>) {
        let (seq, prev) = match self.last {
            None => (0, Hash::NONE),
            Some((seq, hash)) => (seq + 1, hash),
        };
        let from = self.buffer.len();
        // Writing to memory cannot fail, and the line's parts are texts and numbers.
        if serde_json::to_writer(&mut self.buffer, line.at(seq, prev)).is_err() {
            self.buffer.truncate(from);
            self.lost += 1;
            return;
        }
        let hash = self.sealer.seal(&mut self.buffer, from);
        self.last = Some((seq, hash));
        let end = self.buffer.len();
        self.lines.push(Buffered {
            end,
            seq,
            hash,
            mark,
        });
    }

    /// Writes what is gathered; says what has become of everything since the last flush.
    pub fn flush(&mut self) -> Written {
        self.write();
        std::mem::take(&mut self.written)
    }

    fn write(&mut self) {
        let file = match &mut self.to {
            To::File(file) => file,
            To::Topic(_) => return self.put(),
        };
        let mut done = 0;
        let error = loop {
            if done == self.buffer.len() {
                break None;
            }
            match file.write(&self.buffer[done..]) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        self.size += done as u64;
        let mut whole = 0;
        let mut torn_again = 0;
        for line in self.lines.drain(..) {
            if line.end <= done {
                whole = line.end;
                self.kept = Some((line.seq, line.hash));
                self.written.lines += u64::from(line.mark.is_none());
                continue;
            }
            match line.mark {
                None => {
                    self.written.lost += 1;
                    self.lost += 1;
                }
                Some(mark) => {
                    self.lost += mark.lost;
                    torn_again = torn_again.max(mark.torn.saturating_sub(1));
                    if !matches!(mark.kind, MarkKind::Lost | MarkKind::End) {
                        self.mark = self.mark.or(Some(mark.kind));
                    }
                }
            }
        }
        if error.is_some() {
            self.torn = torn_again + (done - whole) as u64;
            self.last = self.kept;
            self.written.error = error;
        }
        self.buffer.clear();
    }

    /// Hands lines over to who delivers them; they are counted when the topic has them.
    fn put(&mut self) {
        let To::Topic(outbox) = &self.to else { return };
        let text = Bytes::from(std::mem::take(&mut self.buffer));
        let mut from = 0;
        for line in self.lines.drain(..) {
            // Without the line end: a record has one line.
            let value = text.slice(from..line.end - 1);
            from = line.end;
            if outbox.put(value, line.mark.is_some()) {
                self.kept = Some((line.seq, line.hash));
            } else {
                self.written.lost += u64::from(line.mark.is_none());
            }
        }
    }

    /// The full file gets the number 1, older ones one more, the oldest goes. Where that fails
    /// lines go on into the full one.
    fn rotate(&mut self) {
        let Some((path, rotation)) = self
            .settings
            .as_ref()
            .and_then(|s| Some((s.path.clone(), s.rotation?)))
        else {
            return;
        };
        let changed = shift(&path, rotation.keep).and_then(|()| open(&path));
        match changed {
            Ok(file) => {
                self.to = To::File(file);
                self.torn = 0;
                self.mark = self.mark.or(Some(MarkKind::Continue));
                self.measure();
            }
            Err(error) => {
                self.rotate_at = self.size + ROTATE_RETRY_BYTES;
                self.written.error = Some(error);
            }
        }
    }

    /// Opens the configured file anew, for whoever moved it away.
    pub fn reopen(&mut self) -> io::Result<()> {
        let Some(settings) = &self.settings else {
            return Ok(());
        };
        let file = open(&settings.path)?;
        let To::File(current) = &self.to else {
            return Ok(());
        };
        let (old, new) = (current.metadata()?, file.metadata()?);
        if (old.dev(), old.ino()) != (new.dev(), new.ino()) {
            self.to = To::File(file);
            self.torn = 0;
            self.mark = self.mark.or(Some(MarkKind::Continue));
            self.measure();
        }
        Ok(())
    }
}

fn shift(path: &Path, keep: u32) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for number in (1..keep).rev() {
        match std::fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(path, 1))
}

/// `audit.jsonl.1` of `audit.jsonl`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// The last line of a file's chain: its number, its hash, and how many bytes stand behind it.
fn tail(path: &Path) -> Option<(u64, Hash, u64)> {
    let text = end_of(path)?;
    let mut end = text.len();
    loop {
        let at = text[..end].iter().rposition(|b| *b == b'\n')?;
        let begin = text[..at].iter().rposition(|b| *b == b'\n');
        let begin = begin.map_or(0, |newline| newline + 1);
        if let Some((_, hash, sealed)) = chain::open(&text[begin..at]) {
            return Some((sealed.seq, hash, (text.len() - at - 1) as u64));
        }
        end = at;
    }
}

fn ends_in_newline(path: &Path) -> bool {
    end_of(path).is_some_and(|text| text.ends_with(b"\n"))
}

/// The last bytes of a regular file.
fn end_of(path: &Path) -> Option<Vec<u8>> {
    // A pipe would wait for somebody to write.
    let bytes = std::fs::metadata(path).ok().filter(|m| m.is_file())?.len();
    let mut file = File::open(path).ok()?;
    let from = bytes.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests;
