//! Topic ids that connections wait to hear of. Anybody can make ids up, and one question is asked
//! at a time: what has gathered behind a question is asked together by the next one, so that who
//! waits stands behind two questions and not behind everybody else's.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A topic's id.
type Id = [u8; 16];

/// Most ids of one question, in ids. Who finds no room is asked for alone.
pub const WANTED_MAX: usize = 10_000;

/// Ids that nobody has asked about yet.
#[derive(Debug, Default)]
pub struct Wanted(Mutex<HashSet<Id>>);

/// Ids that are being asked about. Whoever asks may go away before there is an answer: then they
/// are wanted as before.
#[derive(Debug)]
pub struct Asking<'w> {
    wanted: &'w Wanted,
    ids: Vec<Id>,
}

impl Wanted {
    /// Somebody waits for these; whether there was room for them.
    pub fn add(&self, ids: &[Id]) -> bool {
        let mut wanted = self.lock();
        if wanted.len() + ids.len() > WANTED_MAX {
            return false;
        }
        wanted.extend(ids);
        true
    }

    /// Everything that is wanted, to be asked about; `None`: none of `ids` is, since another
    /// question has had its answer meanwhile.
    pub fn take(&self, ids: &[Id]) -> Option<Asking<'_>> {
        let mut wanted = self.lock();
        if !ids.iter().any(|id| wanted.contains(id)) {
            return None;
        }
        let ids = wanted.drain().collect();
        Some(Asking { wanted: self, ids })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// The ids.
    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// There is an answer.
    pub fn answered(mut self) {
        self.ids.clear();
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.wanted.lock().extend(&self.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = [1; 16];
    const B: Id = [2; 16];

    #[test]
    fn t38_who_waits_behind_a_question_is_asked_for_together() {
        let wanted = Wanted::default();
        assert!(wanted.add(&[A]));
        let first = wanted.take(&[A]).unwrap();
        assert!(wanted.add(&[B]) && wanted.add(&[B, A]));
        first.answered();
        let second = wanted.take(&[B]).unwrap();
        let mut ids = second.ids().to_vec();
        ids.sort_unstable();
        assert_eq!(ids, [A, B]);
        second.answered();
        assert!(wanted.take(&[A, B]).is_none());
    }

    #[test]
    fn a_question_without_an_answer_is_still_to_be_asked() {
        let wanted = Wanted::default();
        assert!(wanted.add(&[A]));
        drop(wanted.take(&[A]));
        assert_eq!(wanted.take(&[A]).unwrap().ids(), [A]);
    }

    #[test]
    fn what_is_wanted_is_bounded() {
        let wanted = Wanted::default();
        let id = |n: usize| (n as u128).to_be_bytes();
        let all: Vec<Id> = (0..WANTED_MAX).map(id).collect();
        assert!(wanted.add(&all) && !wanted.add(&[id(WANTED_MAX)]));
        assert!(wanted.take(&[id(WANTED_MAX)]).is_none());
    }
}
