//! Kafka's own client while its rights end (`Revoked.java`): what it tells its application, and
//! after how long.

use crate::lab::part;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long the clients may take for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The running program; killed when dropped.
pub struct Revoked {
    child: Child,
    lines: Receiver<String>,
    _classes: tempfile::TempDir,
}

impl Revoked {
    /// Compiles and starts it; the error says what is missing.
    pub fn start(bootstrap: &str) -> Result<Revoked, String> {
        let jars = part::cache().join("kafka-4.3.0/libs/*");
        let classes = tempfile::tempdir().map_err(|e| e.to_string())?;
        let compiled = Command::new("javac")
            .args(["-nowarn", "-proc:none", "-cp"])
            .arg(&jars)
            .arg("-d")
            .arg(classes.path())
            .arg(part::root().join("tests/surface/Revoked.java"))
            .output()
            .map_err(|e| format!("javac: {e}"))?;
        if !compiled.status.success() {
            // Not a reason to skip: the program is ours.
            panic!("{}", String::from_utf8_lossy(&compiled.stderr));
        }
        let mut child = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}:{}", classes.path().display(), jars.display()))
            .args(["Revoked", bootstrap])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("java: {e}"))?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let whole = output.lines().map_while(Result::ok);
            whole.for_each(|line| drop(sender.send(line)));
        });
        Ok(Revoked {
            child,
            lines,
            _classes: classes,
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

impl Drop for Revoked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
