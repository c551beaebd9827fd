//! Waiting for what comes about: asked for again and again, never slept for.

use std::time::{Duration, Instant};

/// What `ask` gives at last; `None` where it has given nothing when `limit` has passed.
pub fn until<T>(limit: Duration, pause: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ask() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(pause);
    }
}
