//! The only caller of `Instant::now` and `SystemTime::now`. Pure stages take time as an argument;
//! everything else asks here, so that a test can see at a glance who depends on the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for delays and durations.
pub fn now() -> Instant {
    Instant::now()
}

/// Calendar time, for token expiry and audit lines.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Time since the Unix epoch; zero for a clock set before 1970.
pub fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}
