//! Whether the process can serve, and why not. Set by whoever knows, shown by `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle; a clone speaks of the same process. Not ready until someone says so.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Why not; `None`: ready.
    reason: Option<String>,
    /// By subject, so that a note replaces the last one on the same subject.
    notes: BTreeMap<String, String>,
}

impl Readiness {
    /// Not ready: the process has just started.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                reason: Some("starting".into()),
                notes: BTreeMap::new(),
            })),
        }
    }

    /// The process can serve.
    pub fn ready(&self) {
        self.lock().reason = None;
    }

    /// The process cannot serve, for this reason: one line, no secret, no upstream address.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.lock().reason = Some(reason.into());
    }

    /// Something an operator should know although the process serves: for example that a new
    /// version of the policies was not taken. Shown until [`Readiness::clear`].
    pub fn note(&self, subject: impl Into<String>, text: impl Into<String>) {
        self.lock().notes.insert(subject.into(), text.into());
    }

    /// Takes the note on a subject back.
    pub fn clear(&self, subject: &str) {
        self.lock().notes.remove(subject);
    }

    /// Why the process is not ready; `None`: it is.
    pub fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    /// The notes, by subject.
    pub fn notes(&self) -> BTreeMap<String, String> {
        self.lock().notes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}
