//! Random choices that a seed repeats: a test prints its seed, and the same seed makes the same
//! test.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What follows `--NAME` among the program's arguments; else the variable's value; else `None`.
pub fn option(name: &str, variable: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|a| *a != format!("--{name}"));
    let text = arguments.nth(1).or_else(|| std::env::var(variable).ok())?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("--{name}: expected a number, got `{text}`")))
}

/// A seed that differs from run to run.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() ^ u64::from(std::process::id())
}
