//! The arithmetic of one quota: a rate over sliding samples, as Kafka's `Rate` over `SampledStat`
//! computes it (`quota.window.num` 11, `quota.window.size.seconds` 1), including how a burst on an
//! idle quota is averaged over ten seconds.

/// `quota.window.num`: ten full samples and the current one.
pub const SAMPLES: usize = 11;
/// `quota.window.size.seconds`, in milliseconds.
pub const SAMPLE_MS: u64 = 1000;
/// A sample that reaches into the window is kept beside those inside it.
const SLOTS: usize = SAMPLES + 1;
/// The longest delay the protocol can say, milliseconds.
const DELAY_MS_MAX: f64 = i32::MAX as f64;

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    start_ms: u64,
    last_ms: u64,
    bytes: f64,
}

impl Sample {
    fn at(now_ms: u64) -> Self {
        Self {
            start_ms: now_ms,
            last_ms: now_ms,
            bytes: 0.0,
        }
    }
}

/// What one entity produced of late.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    samples: [Sample; SLOTS],
    used: usize,
    current: usize,
}

impl Bucket {
    /// Adds bytes and gives the milliseconds to wait: 0 unless the rate is above the bound.
    /// Time never runs backwards here; an earlier `now_ms` counts as the latest seen.
    pub(super) fn charge(&mut self, bytes: u64, bytes_per_second: u64, now_ms: u64) -> u32 {
        let now_ms = now_ms.max(self.samples[self.current].last_ms);
        if self.used == 0 {
            self.used = 1;
            self.samples[0] = Sample::at(now_ms);
        } else if now_ms - self.samples[self.current].start_ms >= SAMPLE_MS {
            self.current = (self.current + 1) % SLOTS;
            self.used = self.used.max(self.current + 1);
            self.samples[self.current] = Sample::at(now_ms);
        }
        let sample = &mut self.samples[self.current];
        sample.bytes += bytes as f64;
        sample.last_ms = now_ms;

        let live = &mut self.samples[..self.used];
        for sample in live.iter_mut() {
            if now_ms - sample.last_ms >= SAMPLES as u64 * SAMPLE_MS {
                *sample = Sample::at(now_ms);
            }
        }
        let total: f64 = live.iter().map(|s| s.bytes).sum();
        let oldest_ms = live.iter().map(|s| s.start_ms).min().unwrap_or(now_ms);
        let window_ms = window_ms(now_ms - oldest_ms);
        let bound = bytes_per_second as f64;
        let rate = total / (window_ms / 1000.0);
        if rate > bound {
            let delay_ms = ((rate - bound) / bound * window_ms).round();
            delay_ms.clamp(0.0, DELAY_MS_MAX) as u32
        } else {
            0
        }
    }
}

/// The span a rate is taken over: the time since the oldest sample began, but never fewer than
/// all full samples beside the fraction of the current one.
fn window_ms(elapsed_ms: u64) -> f64 {
    let full = elapsed_ms / SAMPLE_MS;
    let missing = (SAMPLES as u64 - 1).saturating_sub(full);
    (elapsed_ms + missing * SAMPLE_MS).max(1) as f64
}
