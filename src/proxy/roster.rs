//! The connections of one thread, to be told that policies have changed: some at a time, with a
//! pause in between, so that thousands of connections that look at themselves do not hold up
//! those that move bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Fewest connections that are told at once.
const BATCH_MIN: usize = 64;
/// Most steps in which all are told.
const STEPS_MAX: usize = 150;
/// The pause between two steps. Timers are no finer.
const PAUSE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Roster {
    seats: RefCell<HashMap<u64, Rc<Notify>>>,
}

/// The place of one connection, for as long as it is served.
#[derive(Debug)]
pub struct Seat {
    roster: Rc<Roster>,
    number: u64,
    /// Told when policies may have changed.
    pub pulse: Rc<Notify>,
}

impl Roster {
    /// A place for the connection of this number.
    pub fn seat(self: &Rc<Self>, number: u64) -> Seat {
        let pulse = Rc::new(Notify::new());
        let told = Rc::clone(&pulse);
        self.seats.borrow_mut().insert(number, told);
        Seat {
            roster: Rc::clone(self),
            number,
            pulse,
        }
    }

    /// Tells every connection of every change, for as long as there is a sender of changes.
    pub async fn tell(self: Rc<Self>, mut changes: watch::Receiver<u64>) {
        while changes.changed().await.is_ok() {
            let seats: Vec<_> = self.seats.borrow().values().cloned().collect();
            let batch = seats.len().div_ceil(STEPS_MAX).max(BATCH_MIN);
            for some in seats.chunks(batch) {
                some.iter().for_each(|seat| seat.notify_one());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.seats.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_of_every_change_and_not_all_at_once() {
        let roster = Rc::new(Roster::default());
        let mut seats: Vec<_> = (0..20_000).map(|number| roster.seat(number)).collect();
        drop(seats.split_off(19_000));
        let (change, changes) = watch::channel(1);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(Rc::clone(&roster).tell(changes));
        let told = |seats: &[Seat]| {
            let is_told = |seat: &&Seat| {
                let mut notified = std::pin::pin!(seat.pulse.notified());
                notified.as_mut().enable()
            };
            seats.iter().filter(is_told).count()
        };
        local
            .run_until(async {
                for generation in 2..4 {
                    change.send_replace(generation);
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    let first = told(&seats);
                    assert!((1..1_000).contains(&first), "{first} at once");
                    let mut all = first;
                    while all < 19_000 {
                        tokio::time::sleep(PAUSE).await;
                        all += told(&seats);
                    }
                    assert_eq!(all, 19_000);
                }
            })
            .await;
        drop(seats);
        assert!(roster.seats.borrow().is_empty());
    }
}
