//! Session tickets of one listener: what a client may show instead of a full handshake. They are
//! sealed with keys that only this process has and that live for an hour at most. Whether what a
//! resumed session proves still holds is not asked here but in [`offer`](super::offer).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use crate::clock;

/// How long a ticket is accepted at most. It bounds what a stolen key of this process opens.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How long a key seals new tickets.
const SEALING: Duration = Duration::from_secs(30 * 60);

/// Seals and opens tickets. Not rustls' own rotator: that one still opens a ticket of any age if
/// nobody came in the meantime.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: RwLock<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Key,
    previous: Option<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    since: Instant,
    seal: Arc<dyn ProducesTickets>,
}

impl Key {
    fn new(now: Instant) -> Result<Self, Error> {
        Ok(Self {
            since: now,
            seal: Ticketer::new()?,
        })
    }

    fn is_younger(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < limit
    }
}

impl Tickets {
    pub(super) fn new() -> Result<Self, Error> {
        let keys = Keys {
            current: Key::new(clock::now())?,
            previous: None,
        };
        Ok(Self {
            keys: RwLock::new(keys),
        })
    }

    fn seal(&self, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if keys.current.is_younger(SEALING, now) {
                return keys.current.seal.encrypt(plain);
            }
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if !keys.current.is_younger(SEALING, now) {
            // Without a new key there is no ticket, and the connection goes on.
            let new = Key::new(now).ok()?;
            keys.previous = Some(std::mem::replace(&mut keys.current, new));
        }
        keys.current.seal.encrypt(plain)
    }

    fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let all = [Some(&keys.current), keys.previous.as_ref()];
        let mut young = all
            .into_iter()
            .flatten()
            .filter(|key| key.is_younger(TICKET_LIFETIME, now));
        young.find_map(|key| key.seal.decrypt(ticket))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, clock::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_for_an_hour_at_most_whoever_came_in_the_meantime() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for busy in [false, true] {
            let tickets = Tickets::new().unwrap();
            let start = clock::now();
            let ticket = tickets.seal(b"session", start).unwrap();
            for at in [1, 31, 58] {
                if busy {
                    tickets.seal(b"another", start + minutes(at)).unwrap();
                }
                let opened = tickets.open(&ticket, start + minutes(at));
                assert_eq!(opened.as_deref(), Some(&b"session"[..]), "{busy} {at}");
            }
            for at in [61, 120] {
                if busy {
                    tickets.seal(b"another", start + minutes(at)).unwrap();
                }
                assert_eq!(tickets.open(&ticket, start + minutes(at)), None, "{at}");
            }
        }
    }

    #[test]
    fn a_ticket_of_another_listener_does_not_open() {
        let (mine, other) = (Tickets::new().unwrap(), Tickets::new().unwrap());
        let now = clock::now();
        let ticket = mine.seal(b"session", now).unwrap();
        assert_eq!(other.open(&ticket, now), None);
    }
}
