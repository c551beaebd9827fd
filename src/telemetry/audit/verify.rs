//! Whether the chain of audit files holds: every line has the hash it says, and names the line
//! before it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::chain::{self, Hash, LINE_BYTES_MAX, MarkKind, Sealed, Sealer};

/// Most faults and notes that are told one by one.
pub const FINDINGS_MAX: usize = 1000;

/// Why files could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("`{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Its hashes were made with a key.
    #[error("`{}`: the chain is keyed, and no key was given", path.display())]
    KeyNeeded {
        /// The file.
        path: PathBuf,
    },
}

/// Something that was found at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What was found.
    pub text: String,
}

/// What was found in all files.
#[derive(Debug, Default)]
pub struct Report {
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// Lines that belong to the chain, marks included.
    pub lines: u64,
    /// Lines that the log itself says were lost.
    pub lost: u64,
    /// Where the chain does not hold.
    pub faults: Vec<Finding>,
    /// How many more there are.
    pub more_faults: u64,
    /// What is worth knowing although the chain holds.
    pub notes: Vec<Finding>,
    /// The last line: its number and hash. Kept elsewhere, they show later whether it is still
    /// there.
    pub head: Option<(u64, Hash)>,
}

impl Report {
    /// Whether the chain holds.
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Verifies files, in whichever order they are given, as one chain.
pub fn verify(paths: &[PathBuf], sealer: &Sealer) -> Result<Report, VerifyError> {
    let mut files = Vec::new();
    for path in paths {
        files.push((first(path)?, path));
    }
    // What has no readable begin comes last, where its lines can do the least harm.
    files.sort_by(|(a, _), (b, _)| {
        let key = |f: &Option<(String, u64)>| (f.is_none(), f.clone());
        key(a).cmp(&key(b))
    });
    let mut run = Run {
        sealer,
        report: Report::default(),
        before: None,
        torn: Torn::default(),
        ended: false,
    };
    for (_, path) in files {
        run.file(path)?;
    }
    let Run {
        mut report,
        before,
        ended,
        ..
    } = run;
    if let (Some(last), Some(_), false) = (report.files.last(), before, ended) {
        let (file, line) = (last.clone(), 0);
        let text = "the last line is not that of a process that ended: it still runs, it was \
                    killed, or lines were cut off";
        let text = text.to_owned();
        report.notes.push(Finding { file, line, text });
    }
    report.head = before;
    Ok(report)
}

/// When the first line of a file was written, and its number.
fn first(path: &Path) -> Result<Option<(String, u64)>, VerifyError> {
    let mut reader = reader(path)?;
    let mut line = Vec::new();
    next(&mut reader, &mut line).map_err(|cause| unreadable(path, cause))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    Ok(chain::open(line).map(|(_, _, sealed)| (sealed.time, sealed.seq)))
}

fn reader(path: &Path) -> Result<BufReader<File>, VerifyError> {
    let file = File::open(path).map_err(|cause| unreadable(path, cause))?;
    Ok(BufReader::new(file))
}

fn unreadable(path: &Path, cause: io::Error) -> VerifyError {
    let path = path.to_owned();
    VerifyError::Read { path, cause }
}

/// Reads a line with its end, or as much of it as a line may have; says how many bytes.
fn next(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let most = LINE_BYTES_MAX as u64 + 1;
    reader.by_ref().take(most).read_until(b'\n', line)
}

/// Lines that are none of a chain.
#[derive(Default)]
struct Torn {
    /// The first of them; 0: there is none.
    line: u64,
    bytes: u64,
}

struct Run<'a> {
    sealer: &'a Sealer,
    report: Report,
    /// The last line of the chain.
    before: Option<(u64, Hash)>,
    torn: Torn,
    /// The last line says that the process ended.
    ended: bool,
}

impl Run<'_> {
    fn file(&mut self, path: &Path) -> Result<(), VerifyError> {
        self.report.files.push(path.to_owned());
        let mut reader = reader(path)?;
        let (mut line, mut number, mut is_first) = (Vec::new(), 0, true);
        loop {
            let bytes = next(&mut reader, &mut line).map_err(|cause| unreadable(path, cause))?;
            if bytes == 0 {
                break;
            }
            number += 1;
            let whole = line.strip_suffix(b"\n");
            let opened = whole.and_then(chain::open);
            let Some((body, hash, sealed)) = opened else {
                if self.torn.line == 0 {
                    self.torn.line = number;
                }
                self.torn.bytes += bytes as u64;
                continue;
            };
            if sealed.keyed && !self.sealer.is_keyed() {
                let path = path.to_owned();
                return Err(VerifyError::KeyNeeded { path });
            }
            self.torn_before(path, number, sealed.torn);
            if self.sealer.hash(body) != hash {
                let why = match self.sealer.is_keyed() {
                    true => "the line was changed, or its hash was made with another key or none",
                    false => "the line was changed: it does not have the hash it says",
                };
                self.fault(path, number, why.to_owned());
            } else {
                self.link(path, number, is_first, &sealed);
            }
            is_first = false;
            self.ended = sealed.chain == Some(MarkKind::End);
            self.before = Some((sealed.seq, hash));
            self.report.lines += 1;
            self.report.lost = self.report.lost.saturating_add(sealed.lost);
        }
        self.torn_before(path, number + 1, 0);
        Ok(())
    }

    /// Judges lines that are none of a chain: a process that died or a full disk leaves such, and
    /// what comes behind says so.
    fn torn_before(&mut self, path: &Path, number: u64, said: u64) {
        let torn = std::mem::take(&mut self.torn);
        match torn.line {
            0 if said > 0 && number > 1 => {
                let text =
                    format!("{said} bytes of a line that was not written to its end are gone");
                self.fault(path, number, text);
            }
            0 => {}
            line if torn.bytes == said => {
                let text = format!("{said} bytes of a line that was not written to its end");
                self.note(path, line, text);
            }
            line => {
                let text = "not a whole line of this log: changed, inserted, or cut in the middle";
                self.fault(path, line, text.to_owned());
            }
        }
    }

    /// Whether a line stands where it belongs.
    fn link(&mut self, path: &Path, number: u64, is_first: bool, sealed: &Sealed) {
        let prev = Hash::parse(&sealed.prev);
        if sealed.chain == Some(MarkKind::Begin) {
            match (is_first, self.before) {
                (true, None) => {}
                (true, Some(_)) => {
                    let text = "a new chain, which does not go on from the file before".to_owned();
                    self.note(path, number, text);
                }
                (false, _) => {
                    let text = "a new chain begins behind lines of another one".to_owned();
                    self.fault(path, number, text);
                }
            }
            return;
        }
        let goes_on = matches!(sealed.chain, Some(MarkKind::Continue | MarkKind::Resume));
        let Some((seq, hash)) = self.before else {
            match goes_on {
                true => {
                    let text = format!("{} earlier lines are in files not given", sealed.seq);
                    self.note(path, number, text);
                }
                false => {
                    let text = "lines are missing before this one: no file begins so".to_owned();
                    self.fault(path, number, text);
                }
            }
            return;
        };
        if is_first && !goes_on {
            let text = "lines are missing before this one: no file begins so".to_owned();
            return self.fault(path, number, text);
        }
        let expected = seq.saturating_add(1);
        if sealed.seq == expected && prev == Some(hash) {
            return;
        }
        let text = match sealed.seq {
            seq if seq > expected => {
                format!("{} lines are missing before this one", seq - expected)
            }
            seq if seq < expected => {
                "out of its place: inserted, moved, or there a second time".to_owned()
            }
            _ => "the line before this one is not the one that was written".to_owned(),
        };
        self.fault(path, number, text);
    }

    fn fault(&mut self, file: &Path, line: u64, text: String) {
        let file = file.to_owned();
        if self.report.faults.len() < FINDINGS_MAX {
            self.report.faults.push(Finding { file, line, text });
        } else {
            self.report.more_faults += 1;
        }
    }

    fn note(&mut self, file: &Path, line: u64, text: String) {
        let file = file.to_owned();
        if self.report.notes.len() < FINDINGS_MAX {
            self.report.notes.push(Finding { file, line, text });
        }
    }
}

#[cfg(test)]
mod tests;
