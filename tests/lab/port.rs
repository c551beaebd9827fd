//! Free ports on loopback addresses, below the range the kernel hands out to connecting sockets.

use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports are searched from a place that depends on the process, so that runs side by side differ.
static NEXT: AtomicU16 = AtomicU16::new(0);
const FIRST: u16 = 15_000;
const SPAN: u16 = 16_000;
/// Most ports of one call. The modulus below must not depend on the count: calls of different
/// counts would be handed overlapping ranges.
const COUNT_MAX: u16 = 64;

/// The first of `count` consecutive ports that nothing listens on at `host` or on any address.
pub fn free(host: &str, count: u16) -> u16 {
    assert!(count <= COUNT_MAX);
    let host: IpAddr = host.parse().unwrap();
    loop {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let seed = (std::process::id() as u16).wrapping_mul(97);
        let first = FIRST + seed.wrapping_add(step) % (SPAN - COUNT_MAX);
        if (first..first + count).all(|port| {
            TcpListener::bind((host, port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok()
        }) {
            return first;
        }
    }
}
