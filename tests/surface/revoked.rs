//! Kafka's own client while its rights end (`Revoked.java`): what it tells its application, and
//! after how long.

use crate::lab::java::{Classes, Program};
use crate::lab::part;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long the clients may take for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The running program.
pub struct Revoked {
    _program: Program,
    lines: Receiver<String>,
}

impl Revoked {
    /// Compiles and starts it; the error says what is missing.
    pub fn start(bootstrap: &str) -> Result<Revoked, String> {
        let classes = Classes::compile("tests/surface/Revoked.java", &part::jars())?;
        let (program, output) = Program::start(classes, &[bootstrap], Stdio::null())?;
        let output = BufReader::new(output);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let whole = output.lines().map_while(Result::ok);
            whole.for_each(|line| drop(sender.send(line)));
        });
        Ok(Revoked {
            _program: program,
            lines,
        })
    }

    /// The next `count` lines, each with the time since the call.
    pub fn lines(&self, count: usize) -> Vec<(String, Duration)> {
        let begun = Instant::now();
        let mut all = Vec::new();
        while all.len() < count {
            let left = LIMIT.saturating_sub(begun.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => all.push((line, begun.elapsed())),
                Err(_) => break,
            }
        }
        all
    }
}
