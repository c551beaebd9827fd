//! Batches written by the kafka-protocol encoder (and by hand where it cannot), read here; then
//! bombs, lies and mutations.

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kp;

use super::*;

/// What a test wants in a batch: key, value, headers.
type Wanted = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(&'static str, Option<Vec<u8>>)>,
);

fn encode(wanted: &[Wanted], compression: kp::Compression, transactional: bool) -> Vec<u8> {
    let records: Vec<kp::Record> = wanted
        .iter()
        .enumerate()
        .map(|(i, (key, value, headers))| kp::Record {
            transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: if transactional { 77 } else { -1 },
            producer_epoch: if transactional { 3 } else { -1 },
            timestamp_type: kp::TimestampType::Creation,
            offset: i as i64,
            sequence: i as i32,
            timestamp: 1_700_000_000_000 + i as i64 * 5,
            key: key.clone().map(Into::into),
            value: value.clone().map(Into::into),
            headers: headers
                .iter()
                .map(|(name, value)| {
                    let name = StrBytes::from_static_str(name);
                    (name, value.clone().map(Into::into))
                })
                .collect(),
        })
        .collect();
    let options = kp::RecordEncodeOptions {
        version: 2,
        compression,
    };
    let mut out = BytesMut::new();
    kp::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

fn samples(count: usize) -> Vec<Wanted> {
    (0..count)
        .map(|i| {
            let key = (i % 3 != 0).then(|| format!("key-{i}").into_bytes());
            let value = (i % 5 != 4).then(|| format!("{{\"n\": {i}}}").repeat(i % 40).into_bytes());
            let headers = match i % 4 {
                0 => vec![],
                1 => vec![("tenant-id", Some(b"shop".to_vec()))],
                _ => vec![("event-type", None), ("empty", Some(vec![]))],
            };
            (key, value, headers)
        })
        .collect()
}

const CODECS: [(kp::Compression, Codec); 5] = [
    (kp::Compression::None, Codec::None),
    (kp::Compression::Gzip, Codec::Gzip),
    (kp::Compression::Snappy, Codec::Snappy),
    (kp::Compression::Lz4, Codec::Lz4),
    (kp::Compression::Zstd, Codec::Zstd),
];

/// A batch around any section, with a true length and checksum.
fn batch_of(codec: u8, count: i32, section: &[u8]) -> Vec<u8> {
    let mut raw = vec![0; BATCH_HEADER_BYTES];
    raw[16] = 2;
    raw[22] = codec;
    raw[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    raw[57..61].copy_from_slice(&count.to_be_bytes());
    raw.extend_from_slice(section);
    seal(&mut raw);
    raw
}

fn seal(raw: &mut [u8]) {
    let length = (raw.len() - BATCH_PREFIX_BYTES) as i32;
    raw[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&raw[21..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn only(bytes: &[u8]) -> Batch<'_> {
    let mut all = batches(bytes);
    let batch = all.next().unwrap().unwrap();
    assert!(all.next().is_none());
    batch
}

/// The sections of `samples(count)` without compression.
fn plain_section(count: usize) -> Vec<u8> {
    let raw = encode(&samples(count), kp::Compression::None, false);
    only(&raw).section().to_vec()
}

fn walk(bytes: &[u8]) -> Result<usize, RecordsError> {
    let mut scratch = Scratch::new();
    let mut count = 0;
    for batch in batches(bytes) {
        for record in records(&batch?, &mut scratch, &Limits::default())? {
            record?;
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn every_codec_gives_the_records_back() {
    let wanted = samples(500);
    let mut scratch = Scratch::new();
    for (compression, codec) in CODECS {
        let raw = encode(&wanted, compression, false);
        let batch = only(&raw);
        assert_eq!(batch.codec(), Ok(codec));
        assert_eq!(batch.check_crc(), Ok(()));
        assert!(batch.count_agrees());
        let mut walked = 0;
        for (i, record) in records(&batch, &mut scratch, &Limits::default())
            .unwrap()
            .enumerate()
        {
            let record = record.unwrap();
            let (key, value, headers) = &wanted[i];
            assert_eq!(record.offset_delta, i as i32);
            assert_eq!(record.timestamp_delta, i as i64 * 5);
            assert_eq!(record.key, key.as_deref(), "{codec:?} {i}");
            assert_eq!(record.value, value.as_deref(), "{codec:?} {i}");
            assert_eq!(record.header_count() as usize, headers.len());
            for (found, (name, value)) in record.headers().zip(headers) {
                assert_eq!(found.name, name.as_bytes());
                assert_eq!(found.value, value.as_deref());
            }
            assert_eq!(record.headers().count(), headers.len());
            walked += 1;
        }
        assert_eq!(walked, wanted.len());
    }
}

#[test]
fn uncompressed_records_are_not_copied() {
    let raw = encode(&samples(5), kp::Compression::None, false);
    let mut scratch = Scratch::new();
    let batch = only(&raw);
    let key = records(&batch, &mut scratch, &Limits::default())
        .unwrap()
        .nth(1)
        .unwrap()
        .unwrap()
        .key
        .unwrap();
    assert!(raw.as_ptr_range().contains(&key.as_ptr()));
    assert_eq!(scratch.capacity_bytes(), 0);
}

#[test]
fn raw_snappy_of_librdkafka_is_read_as_well() {
    let plain = plain_section(300);
    let section = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(walk(&batch_of(2, 300, &section)), Ok(300));
}

#[test]
fn several_gzip_members_and_zstd_frames_are_one_section() {
    let plain = plain_section(300);
    let (one, other) = plain.split_at(1000);
    let mut gzip = gzip(one);
    gzip.extend(self::gzip(other));
    assert_eq!(walk(&batch_of(1, 300, &gzip)), Ok(300));
    let mut frames = zstd::bulk::compress(one, 3).unwrap();
    frames.extend(zstd::bulk::compress(other, 3).unwrap());
    assert_eq!(walk(&batch_of(4, 300, &frames)), Ok(300));
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn lz4(plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn xerial(blocks: &[&[u8]]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01".to_vec();
    for block in blocks {
        let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

#[test]
fn header_fields_are_where_kafka_has_them() {
    let raw = encode(&samples(4), kp::Compression::Lz4, true);
    let batch = only(&raw);
    assert_eq!(batch.base_offset(), 0);
    assert_eq!(batch.length() as usize, raw.len() - 12);
    assert_eq!(batch.partition_leader_epoch(), -1);
    assert_eq!(batch.magic(), 2);
    assert_eq!(batch.base_timestamp(), 1_700_000_000_000);
    assert_eq!(batch.max_timestamp(), 1_700_000_000_015);
    assert_eq!(batch.producer_id(), 77);
    assert_eq!(batch.producer_epoch(), 3);
    assert_eq!(batch.base_sequence(), 0);
    assert_eq!(batch.last_offset_delta(), 3);
    assert_eq!(batch.count(), 4);
    assert!(batch.is_transactional() && !batch.is_control() && !batch.is_log_append_time());
    assert_eq!(batch.raw(), raw);
}

#[test]
fn inspect_reads_all_headers() {
    let mut raw = encode(&samples(4), kp::Compression::Zstd, true);
    let plain = encode(&samples(3), kp::Compression::None, false);
    raw.extend(&plain);
    let summary = Summary {
        batches: 2,
        transactional: true,
        control: false,
        magic_ok: true,
        records: 7,
        codecs: Codec::Zstd.bit() | Codec::None.bit(),
        repeatable: true,
        section_bytes_max: (raw.len() - plain.len()).max(plain.len()) - 61,
    };
    let (first, second) = raw.split_at(raw.len() - plain.len());
    let both = inspect(first).unwrap().and(inspect(second).unwrap());
    assert_eq!(both, summary);
    // the first one has a producer
    assert!(!inspect(first).unwrap().repeatable);
    assert_eq!(inspect(&raw), Ok(summary));
    let empty = Summary {
        batches: 0,
        transactional: false,
        records: 0,
        codecs: 0,
        repeatable: false,
        section_bytes_max: 0,
        ..summary
    };
    assert_eq!(inspect(&[]), Ok(empty));
    // it does not look at the checksum: that is not its job
    let at = raw.len() - 1;
    raw[at] ^= 1;
    assert_eq!(inspect(&raw), Ok(summary));
}

#[test]
fn t22_control_bit_is_seen() {
    let mut raw = encode(&samples(1), kp::Compression::None, false);
    raw[22] |= 0x20;
    assert!(inspect(&raw).unwrap().control);
    assert!(only(&raw).is_control());
}

#[test]
fn t23_old_formats_are_refused_by_name() {
    for magic in [0, 1, 3, 0x7f] {
        let mut raw = encode(&samples(1), kp::Compression::None, false);
        raw[16] = magic;
        assert_eq!(
            batches(&raw).next().unwrap().unwrap_err(),
            RecordsError::Magic(magic as i8)
        );
        assert!(!inspect(&raw).unwrap().magic_ok);
    }
    // a message of format 1 as a broker may still have it on disk, shorter than a batch header
    let mut message = vec![0; 34];
    message[11] = 22;
    message[16] = 1;
    let summary = inspect(&message).unwrap();
    assert!(!summary.magic_ok && summary.batches == 1 && summary.records == 0);
}

#[test]
fn t23_bombs_of_every_codec_stop_at_the_cap() {
    let plain = vec![0u8; 6 * 1024 * 1024];
    let limits = Limits {
        plain_bytes_max: 2 * 1024 * 1024,
        ratio_max: usize::MAX,
    };
    let blocks: Vec<&[u8]> = plain.chunks(1 << 20).collect();
    let sections = [
        (1, gzip(&plain)),
        (2, xerial(&blocks)),
        (2, snap::raw::Encoder::new().compress_vec(&plain).unwrap()),
        (3, lz4(&plain)),
        (4, zstd::bulk::compress(&plain, 3).unwrap()),
    ];
    for (codec, section) in sections {
        let raw = batch_of(codec, 1, &section);
        let mut scratch = Scratch::new();
        let error = records(&only(&raw), &mut scratch, &limits).unwrap_err();
        assert_eq!(
            error,
            RecordsError::Bomb(limits.plain_bytes_max),
            "codec {codec}"
        );
        // twice: a growing buffer doubles
        assert!(
            scratch.capacity_bytes() <= 2 * limits.plain_bytes_max,
            "codec {codec}"
        );
        scratch.trim();
        assert!(scratch.capacity_bytes() <= 2 * SCRATCH_KEPT_BYTES);
    }
}

#[test]
fn t23_ratio_is_capped_above_a_free_amount() {
    let limits = Limits {
        plain_bytes_max: usize::MAX,
        ratio_max: 100,
    };
    let scratch = &mut Scratch::new();
    // Given less than the free amount, however well compressed: not refused as a bomb
    let small = zstd::bulk::compress(&vec![0; RATIO_FREE_BYTES], 3).unwrap();
    let raw = batch_of(4, 1, &small);
    let mut walked = records(&only(&raw), scratch, &limits).unwrap();
    assert!(matches!(
        walked.next(),
        Some(Err(RecordsError::Record(0, _)))
    ));
    // Given one byte more
    let large = zstd::bulk::compress(&vec![0; RATIO_FREE_BYTES + 1], 3).unwrap();
    let raw = batch_of(4, 1, &large);
    let error = records(&only(&raw), scratch, &limits).unwrap_err();
    assert_eq!(error, RecordsError::Bomb(RATIO_FREE_BYTES));
}

/// Many batches that are no bombs one by one.
#[test]
fn t38_batches_of_a_request_share_one_budget() {
    let mib = zstd::bulk::compress(&vec![0; RATIO_FREE_BYTES], 3).unwrap();
    let raw = batch_of(4, 1, &mib);
    let mut scratch = Scratch::new();
    let opens =
        |scratch: &mut Scratch| records(&only(&raw), scratch, &Limits::default()).map(|_| ());
    for _ in 0..2 {
        scratch.begin_request();
        for _ in 0..REQUEST_PLAIN_BYTES_MAX / RATIO_FREE_BYTES {
            assert_eq!(opens(&mut scratch), Ok(()));
        }
        assert_eq!(
            opens(&mut scratch),
            Err(RecordsError::RequestBomb(REQUEST_PLAIN_BYTES_MAX))
        );
    }
    fn moves_between_threads<T: Send>(_: T) {}
    moves_between_threads(scratch);
}

#[test]
fn claimed_sizes_are_not_believed() {
    let scratch = &mut Scratch::new();
    // raw snappy that claims 4 GiB, and the same inside xerial framing
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let mut framed = xerial(&[]);
    framed.extend((claim.len() as u32).to_be_bytes());
    framed.extend(claim);
    for section in [&claim[..], &framed] {
        let raw = batch_of(2, 1, section);
        let error = records(&only(&raw), scratch, &Limits::default()).unwrap_err();
        assert_eq!(error, RecordsError::Compressed("snappy"));
    }
    assert_eq!(scratch.capacity_bytes(), 0);
    // i32::MAX records in an empty section
    let raw = batch_of(0, i32::MAX, &[]);
    assert_eq!(walk(&raw), Err(RecordsError::MissingRecords(i32::MAX)));
    // i32::MAX headers in one record: length 12, attributes 0, deltas 0, nulls, the count
    let record = [24, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    assert_eq!(
        walk(&batch_of(0, 1, &record)),
        Err(RecordsError::Record(0, "bad header name length"))
    );
}

#[test]
fn t24_count_and_content_must_agree() {
    let section = plain_section(10);
    assert_eq!(walk(&batch_of(0, 10, &section)), Ok(10));
    assert_eq!(walk(&batch_of(0, 9, &section)), Err(RecordsError::LeftOver));
    assert_eq!(walk(&batch_of(0, 0, &section)), Err(RecordsError::LeftOver));
    assert_eq!(
        walk(&batch_of(0, 11, &section)),
        Err(RecordsError::MissingRecords(11))
    );
    assert_eq!(
        walk(&batch_of(0, -1, &section)),
        Err(RecordsError::Count(-1))
    );
    let mut trailing = section.clone();
    trailing.push(0);
    assert_eq!(
        walk(&batch_of(0, 10, &trailing)),
        Err(RecordsError::LeftOver)
    );
    for codec in [5, 6, 7] {
        assert_eq!(
            walk(&batch_of(codec, 10, &section)),
            Err(RecordsError::Codec(codec))
        );
    }
    let mut raw = batch_of(0, 10, &section);
    raw[23..27].copy_from_slice(&10i32.to_be_bytes());
    assert!(!only(&raw).count_agrees());
}

#[test]
fn t24_bytes_behind_a_compressed_section_are_refused() {
    let plain = plain_section(10);
    let behind = |mut section: Vec<u8>| {
        section.extend(b"hidden");
        section
    };
    for (codec, section) in [
        (1, gzip(&plain)),
        (2, xerial(&[&plain])),
        (3, lz4(&plain)),
        (4, zstd::bulk::compress(&plain, 3).unwrap()),
    ] {
        assert_eq!(walk(&batch_of(codec, 10, &section)), Ok(10));
        let name = only(&batch_of(codec, 10, &section)).codec().unwrap().name();
        assert_eq!(
            walk(&batch_of(codec, 10, &behind(section))),
            Err(RecordsError::Compressed(name))
        );
    }
    // an LZ4 frame without its end mark, and a second frame behind the first
    let whole = lz4(&plain);
    for section in [
        whole[..whole.len() - 4].to_vec(),
        [whole.clone(), whole].concat(),
    ] {
        assert_eq!(
            walk(&batch_of(3, 10, &section)),
            Err(RecordsError::Compressed("lz4"))
        );
    }
}

#[test]
fn t24_length_and_checksum_lies_are_seen() {
    let good = encode(&samples(3), kp::Compression::None, false);
    for length in [i32::MIN, -1, 0, 48] {
        let mut raw = good.clone();
        raw[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(inspect(&raw), Err(RecordsError::BatchLength(length)));
        assert!(batches(&raw).next().unwrap().is_err());
    }
    let mut raw = good.clone();
    raw[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(matches!(inspect(&raw), Err(RecordsError::Truncated { .. })));
    for cut in 1..good.len() {
        assert!(inspect(&good[..cut]).is_err(), "{cut}");
        assert!(batches(&good[..cut]).all(|b| b.is_err()), "{cut}");
    }
    for at in 21..good.len() {
        let mut raw = good.clone();
        raw[at] ^= 0x40;
        assert_eq!(only(&raw).check_crc(), Err(RecordsError::Checksum));
    }
    // a second, cut off batch behind a good one
    let raw = [&good[..], &good[..20]].concat();
    let found: Vec<_> = batches(&raw).map(|b| b.is_ok()).collect();
    assert_eq!(found, [true, false]);
    assert!(inspect(&raw).is_err());
}

/// Any bytes: an answer, no panic, no more memory than the cap.
#[test]
fn mutations_never_panic() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let limits = Limits {
        plain_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let seeds: Vec<Vec<u8>> = CODECS
        .iter()
        .map(|(c, _)| encode(&samples(20), *c, false))
        .chain([batch_of(
            2,
            20,
            &snap::raw::Encoder::new()
                .compress_vec(&plain_section(20))
                .unwrap(),
        )])
        .collect();
    let mut scratch = Scratch::new();
    let (mut whole, mut broken) = (0, 0);
    for round in 0..100_000 {
        let mut raw = seeds[round % seeds.len()].clone();
        for _ in 0..=next() % 3 {
            let at = (next() % raw.len() as u64) as usize;
            match next() % 4 {
                0 => raw[at] = next() as u8,
                1 => raw[at] ^= 1 << (next() % 8),
                2 => raw[at] = [0, 0x7f, 0x80, 0xff][(next() % 4) as usize],
                _ => raw.truncate(at.max(BATCH_HEADER_BYTES)),
            }
        }
        if next() % 4 != 0 {
            raw[16] = 2;
            seal(&mut raw);
        }
        let _ = inspect(&raw);
        for batch in batches(&raw) {
            let Ok(batch) = batch else {
                broken += 1;
                continue;
            };
            let Ok(walked) = records(&batch, &mut scratch, &limits) else {
                broken += 1;
                continue;
            };
            match walked.last() {
                Some(Ok(_)) => whole += 1,
                _ => broken += 1,
            }
        }
        assert!(scratch.capacity_bytes() <= 2 * limits.plain_bytes_max);
    }
    // both happened often, so the mutations are neither trivial nor all fatal
    assert!(
        whole > 1_000 && broken > 10_000,
        "{whole} whole, {broken} broken"
    );
}

/// Batches written by the Java producer's own classes (kafka-clients 4.3.0): eight records with
/// null keys, a tombstone and repeated header names, with each codec at its default settings.
#[test]
fn batches_of_the_java_client_are_read() {
    let mut scratch = Scratch::new();
    let mut codecs = Vec::new();
    for line in include_str!("kafka-clients-4.3.0-batches.txt").lines() {
        let Some((name, hex)) = line.split_once(' ').filter(|(n, _)| *n != "#") else {
            continue;
        };
        let raw: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let batch = only(&raw);
        assert_eq!(batch.codec().unwrap().name(), name);
        assert_eq!(batch.check_crc(), Ok(()));
        assert_eq!((batch.producer_id(), batch.producer_epoch()), (9, 1));
        assert_eq!((batch.base_sequence(), batch.count()), (5, 8));
        assert!(batch.count_agrees());
        let walked = records(&batch, &mut scratch, &Limits::default()).unwrap();
        let mut count = 0;
        for (i, record) in walked.enumerate() {
            let record = record.unwrap();
            let key = format!("key-{i}");
            let value = "value ".repeat(i * i) + &i.to_string();
            assert_eq!(record.key, (i % 3 != 0).then_some(key.as_bytes()));
            assert_eq!(record.value, (i != 5).then_some(value.as_bytes()));
            assert_eq!(record.timestamp_delta, i as i64 * 1000);
            let headers: Vec<_> = record.headers().map(|h| (h.name, h.value)).collect();
            match i % 2 {
                0 => assert!(headers.is_empty()),
                _ => assert_eq!(
                    headers,
                    [(&b"h"[..], Some(&[i as u8][..])), (&b"h"[..], None)]
                ),
            }
            count += 1;
        }
        assert_eq!(count, 8);
        codecs.push(name);
    }
    assert_eq!(codecs, ["none", "gzip", "snappy", "lz4", "zstd"]);
}
