//! Cut and changed messages: refused or read, never a panic, and no memory by a claimed length.

use std::alloc::System;

use bytes::Bytes;
use kordon::wire::tree::{self, REQUEST_NODES_MAX, RESPONSE_NODES_MAX};
use kordon::wire::walk::{Nothing, walk};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::java::Record;
use crate::random::{self, Random};
use crate::{COUNTING, SEED, count, messages, report, side, title, written};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes a tree may allocate for each byte of the message, vectors outgrown on the way included:
/// the smallest structs have few bytes and many fields.
const TREE_BYTES_PER_BYTE_MAX: usize = 256;
/// A bound on nodes, and what a tree of that many may allocate whatever the message says.
const FEW_NODES: usize = 500;
const FEW_NODES_BYTES_MAX: usize = FEW_NODES * 256;
/// Bytes that other threads of the test harness may allocate meanwhile.
const HARNESS_BYTES_MAX: usize = 64 * 1024;

/// A few of every kind: every message is walked once for each of its bytes, several times over.
fn subjects() -> impl Iterator<Item = Record> {
    written(count().div_ceil(20), SEED + 3).map(|(record, _)| record)
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

/// What a tree writes is legal and, read again, written the same.
fn again(record: &Record, node: &tree::StructNode) {
    let message = side(record.key, record.direction);
    let bytes = tree::encode_to_bytes(node, message, record.version);
    let walk = walk(message, record.version, &bytes, &mut Nothing);
    assert_eq!(walk, Ok(()), "{}", title(record));
    let node = tree::decode(message, record.version, &bytes, RESPONSE_NODES_MAX).unwrap();
    let again = tree::encode_to_bytes(&node, message, record.version);
    assert_eq!(again, bytes, "{}", title(record));
}

#[test]
fn memory_follows_the_bytes_that_arrived() {
    let _guard = COUNTING.write();
    let mut random = Random(SEED + 5);
    let subjects: Vec<Record> = subjects().collect();
    let mut walked = 0u64;
    let mut changed = Vec::with_capacity(1 << 20);
    let region = Region::new(ALLOCATOR);
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
        // Every byte of the message in turn becomes the start of the longest of lengths.
        for at in 0..record.bytes.len() {
            let mut lying = record.clone();
            let end = lying.bytes.len().min(at + 4);
            lying.bytes[at..end].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff][..end - at]);
            worst = worst.max(tree_bytes(&lying) / lying.bytes.len());
        }
    }
    report(&format!(
        "{walked} walks allocated {walking} bytes in all; a tree of lying lengths at most {worst} \
         for a byte"
    ));
    dense_messages();
}

/// As many of the smallest elements as fit, at every depth: what a tree costs at worst.
fn dense_messages() {
    let (mut worst, mut of) = (0, String::new());
    for (key, direction, message) in messages() {
        for version in message.versions.min..=message.versions.max {
            for depth in 0..3 {
                let bytes = random::dense(message, version, depth, 2000);
                let record = Record {
                    key,
                    direction,
                    version,
                    bytes,
                    text: Vec::new(),
                };
                let allocated = tree_bytes(&record);
                let length = record.bytes.len();
                if length > 1000 && allocated / length > worst {
                    (worst, of) = (allocated / length, title(&record));
                }
            }
        }
    }
    report(&format!(
        "a tree of the smallest elements at most {worst} bytes for a byte ({of})"
    ));
}

/// What a tree of the message allocates, which is bounded.
fn tree_bytes(record: &Record) -> usize {
    let message = side(record.key, record.direction);
    let body = Bytes::copy_from_slice(&record.bytes);
    let region = Region::new(ALLOCATOR);
    let read = tree::decode(message, record.version, &body, REQUEST_NODES_MAX);
    let allocated = region.change().bytes_allocated;
    let allowed = body.len() * TREE_BYTES_PER_BYTE_MAX + HARNESS_BYTES_MAX;
    assert!(
        allocated <= allowed,
        "{}: {allocated} for {}",
        title(record),
        body.len()
    );
    drop(read);
    let region = Region::new(ALLOCATOR);
    let _ = tree::decode(message, record.version, &body, FEW_NODES);
    let few = region.change().bytes_allocated;
    assert!(
        few <= FEW_NODES_BYTES_MAX + HARNESS_BYTES_MAX,
        "{}: {few}",
        title(record)
    );
    allocated
}
