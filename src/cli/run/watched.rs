//! What is made of files, and made again when they change. A thread is woken by the kernel where
//! that is possible and looks by itself every few seconds; either way the files' fingerprints
//! decide what has changed. What cannot be made keeps what there was, and says so until it can.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::files;
use crate::admin::Readiness;
use crate::clock;
use crate::problem::{Problems, Severity};
use crate::proxy::Proxy;
use crate::telemetry::Reloaded;

/// How often files are looked at although nobody reported a change: not every file system tells.
const POLL: Duration = Duration::from_secs(10);
/// How long nothing must happen before a change counts as whole.
const QUIET: Duration = Duration::from_millis(100);
/// How long a change may take until it is looked at anyway.
const DELAY_MAX: Duration = Duration::from_millis(400);
/// How often files that change while they are read are read again before the next wake-up.
const ATTEMPTS: usize = 4;

type Rebuild = Box<dyn FnMut(&Proxy, &mut Problems) + Send>;

/// Files, and what is made of them.
pub(super) struct Unit {
    what: Reloaded,
    subject: String,
    paths: Vec<PathBuf>,
    seen: u64,
    rebuild: Rebuild,
}

impl Unit {
    /// `subject` names what is made, in the log and in `/readyz`. `rebuild` reads the files and
    /// puts what they say in force, or adds to the problems and changes nothing. To be called
    /// before the files are read for the first time: what changes in between is noticed then.
    pub(super) fn new(
        what: Reloaded,
        subject: impl Into<String>,
        paths: Vec<PathBuf>,
        rebuild: impl FnMut(&Proxy, &mut Problems) + Send + 'static,
    ) -> Unit {
        Unit {
            what,
            subject: subject.into(),
            seen: files::fingerprint(&paths),
            paths,
            rebuild: Box::new(rebuild),
        }
    }

    /// Makes it again if its files have changed, or in any case with `force`; returns whether
    /// they have.
    fn look(&mut self, force: bool, proxy: &Proxy, readiness: &Readiness) -> bool {
        for _ in 0..ATTEMPTS {
            let before = files::fingerprint(&self.paths);
            if before == self.seen && !force {
                return false;
            }
            let mut problems = Problems::default();
            (self.rebuild)(proxy, &mut problems);
            let is_moving = files::fingerprint(&self.paths) != before;
            // A certificate of before a change with a key of after it is no news.
            if problems.has_errors() && is_moving {
                self.seen = before;
                continue;
            }
            let has_changed = std::mem::replace(&mut self.seen, before) != before;
            match problems.has_errors() {
                true => self.failed(&problems, proxy, readiness),
                false => {
                    tracing::info!("{} taken from the files", self.subject);
                    readiness.clear(&self.subject);
                }
            }
            return has_changed || is_moving;
        }
        // Looked at again soon.
        true
    }

    fn failed(&self, problems: &Problems, proxy: &Proxy, readiness: &Readiness) {
        for problem in &problems.list {
            let place = problem.place.as_ref().map(ToString::to_string);
            tracing::error!(place, help = problem.help, "{}", problem.message);
        }
        proxy.recorder.reload_failure(self.what);
        let first = problems.list.iter().find(|p| p.severity == Severity::Error);
        let at = match first.and_then(|problem| problem.place.as_ref()) {
            Some(place) => format!(" (first at {place})"),
            None => String::new(),
        };
        let text = format!("the last change holds errors and is not in force{at}");
        readiness.note(self.subject.as_str(), text);
    }
}

/// Every unit of the process.
pub(super) struct Watched {
    units: Vec<Unit>,
    /// Files have changed, and with them perhaps the directories that tell of changes.
    has_changed: bool,
    proxy: Arc<Proxy>,
    readiness: Readiness,
}

impl Watched {
    pub(super) fn new(units: Vec<Unit>, proxy: Arc<Proxy>, readiness: Readiness) -> Watched {
        Watched {
            units,
            has_changed: true,
            proxy,
            readiness,
        }
    }

    /// Looks at every unit; `force`: makes each again, changed or not.
    fn look(&mut self, force: bool) {
        self.proxy.sweep();
        for unit in &mut self.units {
            self.has_changed |= unit.look(force, &self.proxy, &self.readiness);
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let paths = self.units.iter().flat_map(|unit| &unit.paths);
        paths.cloned().collect()
    }
}

enum Wake {
    /// Some file has changed, and perhaps not the last.
    Change,
    /// All is to be made again, changed or not, and this is told when it has been.
    Again(SyncSender<()>),
    Stop,
}

/// The thread that looks.
pub(super) struct Watch {
    wake: SyncSender<Wake>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts it.
    pub(super) fn start(watched: Watched) -> std::io::Result<Watch> {
        let (wake, woken) = sync_channel(1);
        let waker = wake.clone();
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || run(watched, waker, &woken))?;
        Ok(Watch { wake, thread })
    }

    /// Has everything made again, changed or not, and waits for that.
    pub(super) fn again(&self) {
        let (done, told) = sync_channel(1);
        if self.wake.send(Wake::Again(done)).is_ok() {
            let _ = told.recv();
        }
    }

    /// Ends it, and waits for that.
    pub(super) fn stop(self) {
        if self.wake.send(Wake::Stop).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn run(mut watched: Watched, waker: SyncSender<Wake>, woken: &Receiver<Wake>) {
    let mut kernel = Kernel::new(waker);
    let mut asked: Option<SyncSender<()>> = None;
    loop {
        let mut wait = POLL;
        if std::mem::take(&mut watched.has_changed) {
            kernel.follow(&watched.paths());
            // What came before the watch was in place: looked at again, and soon.
            wait = QUIET;
        }
        watched.look(asked.is_some());
        if let Some(asked) = asked.take() {
            // Who asked may have gone.
            let _ = asked.send(());
        }
        let wake = match woken.recv_timeout(wait) {
            Ok(Wake::Change) => settle(woken),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Wake::Stop),
            Ok(wake) => Some(wake),
        };
        match wake {
            Some(Wake::Stop) => return,
            Some(Wake::Again(done)) => asked = Some(done),
            Some(Wake::Change) | None => {}
        }
    }
}

/// Waits until a change is over, or for what is not to wait for that.
fn settle(woken: &Receiver<Wake>) -> Option<Wake> {
    let begun = clock::now();
    loop {
        let left = DELAY_MAX.saturating_sub(since(begun));
        match woken.recv_timeout(QUIET.min(left)) {
            Ok(Wake::Change) if since(begun) < DELAY_MAX => {}
            Ok(Wake::Change) | Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => return Some(Wake::Stop),
            Ok(wake) => return Some(wake),
        }
    }
}

fn since(begun: Instant) -> Duration {
    clock::now().saturating_duration_since(begun)
}

/// The kernel's word that something happens in a directory.
struct Kernel {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeMap<PathBuf, files::Identity>,
    has_failed: bool,
}

impl Kernel {
    fn new(waker: SyncSender<Wake>) -> Kernel {
        let tell = move |event: notify::Result<Event>| {
            // Files are opened by nobody more than by us.
            if event.is_ok_and(|event| is_change(event.kind)) {
                // Full: the thread knows already.
                let _ = waker.try_send(Wake::Change);
            }
        };
        let watcher = notify::recommended_watcher(tell);
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "changes of files are noticed by looking only, every 10 s");
        });
        Kernel {
            has_failed: watcher.is_err(),
            watcher: watcher.ok(),
            directories: BTreeMap::new(),
        }
    }

    /// Watches the directories that tell of changes of these files, and no others.
    fn follow(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted = files::directories(paths);
        self.directories.retain(|path, id| {
            let stays = wanted.get(path) == Some(id);
            if !stays {
                // Fails where the directory is gone, and the watch with it.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        for (path, id) in wanted {
            if self.directories.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(path, id);
                }
                Err(error) if !self.has_failed => {
                    self.has_failed = true;
                    tracing::warn!(%error,
                        "changes of some files are noticed by looking only, every 10 s");
                }
                Err(_) => {}
            }
        }
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
