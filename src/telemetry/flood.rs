//! A bound on log lines that clients can cause: so many a second are written, the rest are
//! counted and told of with the next line that is. The numbers in `/metrics` miss none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are written in a second.
pub const LINES_A_SECOND: u32 = 10;

const WINDOW: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Flood {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Flood {
    /// Whether a line may be written now: `None` if not, else how many were left out since the
    /// last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        if window.since.is_none_or(is_over) {
            (window.since, window.written) = (Some(now), 0);
        }
        if window.written >= LINES_A_SECOND {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn what_is_left_out_is_told_with_the_next_line() {
        let (flood, start) = (Flood::default(), clock::now());
        for _ in 0..LINES_A_SECOND {
            assert_eq!(flood.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(flood.admit(start + WINDOW / 2), None);
        }
        assert_eq!(flood.admit(start + WINDOW), Some(7));
        assert_eq!(flood.admit(start + WINDOW), Some(0));
    }
}
