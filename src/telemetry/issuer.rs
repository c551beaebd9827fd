//! The numbers about one issuer that is asked: as many as the configuration has, so that its
//! name may be a label.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use super::label::IssuerOutcome;
use crate::clock;

/// Records for one issuer of one listener; a clone records to the same place.
#[derive(Clone)]
pub struct IssuerMetrics {
    cells: Arc<IssuerCells>,
}

/// The series of one issuer of one listener.
pub(super) struct IssuerCells {
    pub listener: Arc<str>,
    pub issuer: Arc<str>,
    pub questions: [AtomicU64; IssuerOutcome::COUNT],
    pub keys: AtomicU64,
    /// Seconds since the epoch; zero: never.
    pub confirmed: AtomicU64,
}

impl IssuerMetrics {
    pub(super) fn new(listener: &str, issuer: &str) -> (Self, Arc<IssuerCells>) {
        let cells = Arc::new(IssuerCells {
            listener: listener.into(),
            issuer: issuer.into(),
            questions: Default::default(),
            keys: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
        });
        let metrics = Self {
            cells: Arc::clone(&cells),
        };
        (metrics, cells)
    }

    /// A question has come to its end.
    pub fn asked(&self, outcome: IssuerOutcome) {
        self.cells.questions[outcome as usize].fetch_add(1, Relaxed);
    }

    /// So many keys are in use from now on, confirmed at that time.
    pub fn keys(&self, count: usize, confirmed: SystemTime) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.cells.keys.store(count, Relaxed);
        let seconds = clock::since_epoch(confirmed).as_secs();
        self.cells.confirmed.store(seconds, Relaxed);
    }
}
