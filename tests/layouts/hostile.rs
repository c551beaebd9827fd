//! Cut and changed messages: refused or read, never a panic, and no memory by a claimed length.

use std::alloc::System;

use bytes::Bytes;
use kordon::wire::tree::{self, Node, RESPONSE_NODES_MAX};
use kordon::wire::walk::{Nothing, walk};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::java::Record;
use crate::random::Random;
use crate::{COUNTING, SEED, count, report, side, title, written};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes a tree may allocate for each byte of the message: a node for each byte, and as much
/// again for what vectors reserve ahead and leave behind as they grow.
const TREE_BYTES_PER_BYTE_MAX: usize = 40 * size_of::<Node>();
/// Bytes that other threads of the test harness may allocate meanwhile.
const HARNESS_BYTES_MAX: usize = 64 * 1024;

/// A few of every kind: every message is walked once for each of its bytes, several times over.
fn subjects() -> impl Iterator<Item = Record> {
    written(count().div_ceil(10), SEED + 3).map(|(record, _)| record)
}

#[test]
fn a_cut_or_extended_message_is_refused() {
    let _guard = COUNTING.read();
    let mut walked = 0u64;
    for record in subjects() {
        let message = side(record.key, record.direction);
        let body = Bytes::copy_from_slice(&record.bytes);
        for end in 0..body.len() {
            let cut = walk(message, record.version, &body[..end], &mut Nothing);
            assert!(
                cut.is_err(),
                "{} cut at {end} of {}",
                title(&record),
                body.len()
            );
            walked += 1;
            if end % 7 == 0 {
                let cut = body.slice(..end);
                let read = tree::decode(message, record.version, &cut, RESPONSE_NODES_MAX);
                assert!(
                    read.is_err(),
                    "{} cut at {end} of {}",
                    title(&record),
                    body.len()
                );
            }
        }
        let longer = [&body[..], &[0]].concat();
        let extended = walk(message, record.version, &longer, &mut Nothing);
        assert!(extended.is_err(), "{} with a byte more", title(&record));
    }
    report(&format!("{walked} cut messages refused"));
}

#[test]
fn a_changed_message_is_read_alike_by_walker_and_tree() {
    let _guard = COUNTING.read();
    let mut random = Random(SEED + 4);
    let (mut walked, mut accepted) = (0u64, 0u64);
    for record in subjects() {
        let message = side(record.key, record.direction);
        let mut changed = record.bytes.clone();
        for at in 0..changed.len() {
            let before = changed[at];
            changed[at] = match random.below(4) {
                0 => 0xff,
                1 => before.wrapping_add(1),
                2 => before ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
            let walk = walk(message, record.version, &changed, &mut Nothing);
            walked += 1;
            if walk.is_ok() || at % 7 == 0 {
                let body = Bytes::copy_from_slice(&changed);
                let read = tree::decode(message, record.version, &body, RESPONSE_NODES_MAX);
                // The walker alone checks that names are UTF-8.
                assert!(
                    walk.is_err() || read.is_ok(),
                    "{}: {read:?}",
                    title(&record)
                );
                if let (Ok(()), Ok(node)) = (walk, &read) {
                    again(&record, node);
                    accepted += 1;
                }
            }
            changed[at] = before;
        }
    }
    report(&format!(
        "{walked} changed messages walked, {accepted} of them still legal"
    ));
}

/// What a tree writes is legal and reads as the same tree.
fn again(record: &Record, node: &tree::StructNode) {
    let message = side(record.key, record.direction);
    let bytes = tree::encode_to_bytes(node, message, record.version);
    let read = tree::decode(message, record.version, &bytes, RESPONSE_NODES_MAX);
    // By its rendering: a changed double may be a NaN, which equals nothing.
    assert_eq!(
        format!("{:?}", read.unwrap()),
        format!("{node:?}"),
        "{}",
        title(record)
    );
}

#[test]
fn memory_follows_the_bytes_that_arrived() {
    let _guard = COUNTING.write();
    let mut random = Random(SEED + 5);
    let subjects: Vec<Record> = subjects().collect();
    let region = Region::new(ALLOCATOR);
    let mut walked = 0u64;
    let mut changed = Vec::with_capacity(1 << 20);
    for record in &subjects {
        let message = side(record.key, record.direction);
        changed.clear();
        changed.extend_from_slice(&record.bytes);
        for at in 0..changed.len() {
            let before = std::mem::replace(&mut changed[at], random.next() as u8);
            let _ = walk(message, record.version, &changed, &mut Nothing);
            changed[at] = before;
            walked += 1;
        }
    }
    let walking = region.change().bytes_allocated;
    assert!(
        walking < HARNESS_BYTES_MAX,
        "{walked} walks allocated {walking} bytes"
    );

    let mut worst = 0;
    for record in &subjects {
        let message = side(record.key, record.direction);
        // Every byte of the message in turn becomes the start of the longest of lengths.
        for at in 0..record.bytes.len() {
            let mut changed = record.bytes.clone();
            let end = changed.len().min(at + 4);
            changed[at..end].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff][..end - at]);
            let body = Bytes::from(changed);
            let region = Region::new(ALLOCATOR);
            let _ = tree::decode(message, record.version, &body, RESPONSE_NODES_MAX);
            let allocated = region.change().bytes_allocated;
            let allowed = body.len() * TREE_BYTES_PER_BYTE_MAX + HARNESS_BYTES_MAX;
            assert!(
                allocated <= allowed,
                "{}: {allocated} for {}",
                title(record),
                body.len()
            );
            worst = worst.max(allocated / body.len());
        }
    }
    report(&format!(
        "{walked} walks allocated {walking} bytes in all; a tree at most {worst} for a byte"
    ));
}
