//! Chance: how long to wait before trying again, and where to begin.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first bound of [`Backoff`].
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// The last bound of [`Backoff`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The time to wait before trying again: exponential, with full jitter, so that many clients
/// of a server that comes back do not come back as one.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_BASE, BACKOFF_MAX)
    }
}

impl Backoff {
    /// The bound is `base`, doubled with each failure, at most `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            failures: 0,
        }
    }

    /// Counts a failure and says how long to wait: a random part of the bound.
    pub fn delay(&mut self) -> Duration {
        self.delay_by(random())
    }

    /// As [`delay`](Self::delay), with the chance as an argument.
    pub fn delay_by(&mut self, random: u64) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(factor).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        // The upper half of the product is below `nanos`.
        let part = (u128::from(nanos) * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(part).unwrap_or(nanos))
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Chance for jitter, from the seed that the standard library gives its hash tables. A generator
/// fit for keys takes 50 ms to set up, which would be the longest part of a start.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A random moment between `from` and `to` thousandths of `whole`.
pub fn portion(whole: Duration, from: u32, to: u32) -> Duration {
    let span = u64::from(to.saturating_sub(from)) + 1;
    let part = from + u32::try_from(random() % span).unwrap_or(0);
    whole.saturating_mul(part) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_its_bound_and_takes_a_random_part() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let nearly = |delay: Duration| (delay.as_secs_f64() * 1000.0).round() as u64;
        let bounds: Vec<u64> = (0..6).map(|_| nearly(backoff.delay_by(u64::MAX))).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(nearly(backoff.delay_by(u64::MAX / 4)), 250);
        assert_eq!(backoff.delay_by(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(nearly(backoff.delay_by(u64::MAX)), 100);
        // Neither many failures nor absurd bounds overflow.
        let mut absurd = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..100 {
            absurd.delay_by(u64::MAX);
        }
        let delays: Vec<_> = (0..20).map(|_| Backoff::default().delay()).collect();
        assert!(
            delays.iter().any(|delay| *delay != delays[0]),
            "no chance in {delays:?}"
        );
    }
}
