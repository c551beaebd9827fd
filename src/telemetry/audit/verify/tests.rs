//! Every kind of tampering is found, where it was done.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::telemetry::audit::line::{Line, Mark};
use crate::telemetry::audit::tests::entry;

/// A chain of 12 lines, the first of them a mark.
fn log() -> &'static [Vec<u8>] {
    static LOG: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| chain_of(&Sealer::default(), 0))
}

fn chain_of(sealer: &Sealer, connection: u64) -> Vec<Vec<u8>> {
    let (mut prev, mut lines) = (Hash::NONE, Vec::new());
    let begin = Mark {
        kind: MarkKind::Begin,
        keyed: sealer.is_keyed(),
        torn: 0,
        lost: 0,
    };
    let mut entry = entry();
    for seq in 0..12 {
        entry.connection = connection + seq;
        let mut line = match seq {
            0 => Line::mark(clock::wall(), Some(begin)),
            _ => Line::of(clock::wall(), &entry),
        };
        let mut bytes = serde_json::to_vec(line.at(seq, prev)).unwrap();
        prev = sealer.seal(&mut bytes, 0);
        lines.push(bytes);
    }
    lines
}

fn faults(lines: &[Vec<u8>]) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    std::fs::write(&path, lines.concat()).unwrap();
    let report = verify(&[path], &Sealer::default()).unwrap();
    report.faults.iter().map(|fault| fault.line).collect()
}

#[test]
fn what_was_not_touched_holds() {
    assert!(faults(log()).is_empty());
}

#[test]
fn a_line_cut_anywhere_is_found() {
    for cut in 1..log()[5].len() {
        let mut lines = log().to_vec();
        lines.truncate(6);
        lines[5].truncate(cut);
        assert_eq!(faults(&lines), [6], "cut to {cut} bytes");
    }
}

#[test]
fn a_first_line_that_is_gone_is_found() {
    assert_eq!(faults(&log()[1..]), [1]);
}

#[test]
fn a_line_of_another_log_is_found() {
    let mut lines = log().to_vec();
    lines[4] = chain_of(&Sealer::default(), 100)[4].clone();
    assert_eq!(faults(&lines), [5, 6]);
    // So is a whole other log behind this one.
    let lines = [log(), &chain_of(&Sealer::default(), 100)].concat();
    assert_eq!(faults(&lines), [13]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte_is_found(line in 0_usize..12, at: prop::sample::Index, by in 1_u8..=255) {
        let mut lines = log().to_vec();
        let at = at.index(lines[line].len());
        lines[line][at] ^= by;
        let found = faults(&lines);
        // A changed line end joins two lines, and a new one makes two of one.
        prop_assert!(found.contains(&(line as u64 + 1)), "{found:?}");
    }

    #[test]
    fn a_removed_byte_or_one_more_is_found(
        line in 0_usize..12, at: prop::sample::Index, byte: Option<u8>,
    ) {
        let mut lines = log().to_vec();
        let at = at.index(lines[line].len());
        match byte {
            Some(byte) => lines[line].insert(at, byte),
            None => { lines[line].remove(at); }
        }
        prop_assert!(!faults(&lines).is_empty());
    }

    #[test]
    fn removed_lines_are_found(from in 0_usize..11, count in 1_usize..11) {
        let mut lines = log().to_vec();
        lines.drain(from..(from + count).min(11));
        prop_assert_eq!(faults(&lines), [from as u64 + 1]);
    }

    #[test]
    fn swapped_lines_are_found(a in 0_usize..12, b in 0_usize..12) {
        prop_assume!(a != b);
        let mut lines = log().to_vec();
        lines.swap(a, b);
        let first = a.min(b) as u64 + 1;
        prop_assert_eq!(faults(&lines).first().copied(), Some(first));
    }

    #[test]
    fn a_line_that_is_there_twice_is_found(line in 0_usize..12, at in 0_usize..=12) {
        let mut lines = log().to_vec();
        let copy = lines[line].clone();
        lines.insert(at, copy);
        // Beside its original either of the two is the one too many.
        let found = faults(&lines);
        let near = [at as u64 + 1, at as u64 + 2];
        prop_assert!(found.iter().any(|line| near.contains(line)), "{found:?}");
    }
}
