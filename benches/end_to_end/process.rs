//! Processes the benchmark starts and what `/proc` says about them: CPU seconds, resident memory
//! and its peak. Every process started here ends with the value that holds it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Outcome;

/// Clock ticks per second in `/proc/PID/stat`: Linux shows 100 to user space on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// A started process, killed and reaped when the value goes.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output going to the file `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Outcome<Process> {
        let output = File::create(&log)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start `{program}`: {error}"))?;
        Ok(Process { child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the last lines of the log if the process has ended by itself.
    pub fn check_alive(&mut self) -> Outcome<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("ended early ({status}):\n{}", self.log_tail()).into()),
        }
    }

    /// The last twenty lines of what the process wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds (user and system, all threads) that a live process has used so far.
pub fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name is in parentheses and may itself hold spaces: count fields after it.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap_or(0.0))
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory of a live process, MiB.
pub fn resident_mib(pid: u32) -> Outcome<f64> {
    status_mib(pid, "VmRSS:")
}

/// The highest resident memory since the start or the last `forget_peak`, MiB.
pub fn peak_mib(pid: u32) -> Outcome<f64> {
    status_mib(pid, "VmHWM:")
}

/// Lets the peak start anew from the present resident memory.
pub fn forget_peak(pid: u32) -> Outcome<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn status_mib(pid: u32, key: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok())
        .ok_or_else(|| format!("no {key} for process {pid}"))?;
    Ok(kib / 1024.0)
}

/// Ports that were free a moment ago, next to each other, on the loopback address.
pub fn free_ports(count: u16) -> Outcome<u16> {
    for _ in 0..200 {
        let first = TcpListener::bind("127.0.0.1:0")?;
        let start = first.local_addr()?.port();
        let Some(last) = start.checked_add(count - 1) else {
            continue;
        };
        let rest: Result<Vec<_>, _> = (start + 1..=last)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        if rest.is_ok() {
            return Ok(start);
        }
    }
    Err(format!("no {count} neighbouring free ports").into())
}

/// Whether a command of this name can be found on the path.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path)
        .chain(sbin)
        .any(|folder| is_file(&folder.join(program)))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file())
}
