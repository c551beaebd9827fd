//! One child process with its output in files, ended by its own id when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child process; killed when dropped.
pub struct Process {
    child: Child,
    /// Where its standard output goes.
    pub out: PathBuf,
    /// Where its standard error goes.
    pub err: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/name.out` and `dir/name.err`.
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Process {
        let out = dir.join(format!("{name}.out"));
        let err = dir.join(format!("{name}.err"));
        let append = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap()
        };
        command
            .stdin(Stdio::null())
            .stdout(append(&out))
            .stderr(append(&err));
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Process { child, out, err }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end; `None` when `limit` ran out.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, to this process only.
    pub fn term(&self) {
        self.signal("-TERM");
    }

    /// SIGHUP, to this process only.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        Command::new("kill")
            .arg(signal)
            .arg(self.id().to_string())
            .status()
            .unwrap();
    }

    /// SIGKILL, and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last `lines` of its output and its errors, for a failure's message.
    pub fn tail(&self, lines: usize) -> String {
        [&self.out, &self.err]
            .map(|path| tail(path, lines))
            .join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` of a file; empty where it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Waits until something accepts at `addr`, or `process` ends, or `limit` runs out.
pub fn until_open(addr: &str, process: &mut Process, limit: Duration) -> Result<(), String> {
    let until = Instant::now() + limit;
    loop {
        if std::net::TcpStream::connect(addr).is_ok() {
            return Ok(());
        }
        if !process.runs() {
            return Err(format!(
                "ended before {addr} answered:\n{}",
                process.tail(30)
            ));
        }
        if Instant::now() >= until {
            return Err(format!(
                "{addr} did not answer in {limit:?}:\n{}",
                process.tail(30)
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
