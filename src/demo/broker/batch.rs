//! A record batch (format v2, KIP-98) as bytes: its header fields read in place, its checks, and
//! the only change a broker makes to one, which is to number it. Records are looked at only where
//! they are not compressed.

use bytes::{Bytes, BytesMut};

use super::code;

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;

const CRC_FROM: usize = 21;
const CODEC_MASK: i16 = 0x07;
const CODEC_ZSTD: i16 = 4;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error code.
    pub code: i16,
    /// What is wrong, for people.
    pub message: String,
    /// The index of the record that is wrong, where one is.
    pub record: Option<i32>,
}

impl Refusal {
    /// A refusal that concerns the whole batch.
    pub fn new(code: i16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            record: None,
        }
    }
}

/// One batch whose header has been checked against its bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    raw: Bytes,
}

impl Batch {
    /// Checks the bytes of a Produce request's partition as a broker does: exactly one batch of
    /// magic 2, its CRC, count and offsets; uncompressed records one by one. `zstd` says whether
    /// the request's version may carry zstd (from v7, KIP-110).
    pub fn from_producer(raw: &Bytes, zstd: bool) -> Result<Self, Refusal> {
        let invalid = |message: &str| Err(Refusal::new(code::INVALID_RECORD, message));
        if raw.len() < HEADER_BYTES {
            return Err(Refusal::new(
                code::CORRUPT_MESSAGE,
                format!(
                    "a batch has at least {HEADER_BYTES} bytes, got {}",
                    raw.len()
                ),
            ));
        }
        let batch = Self { raw: raw.clone() };
        if raw[16] != 2 {
            return invalid("only record batches of magic 2 are accepted");
        }
        let claimed = i64::from(batch.i32_at(8)) + 12;
        if claimed < raw.len() as i64 {
            return invalid("a partition carries exactly one record batch");
        }
        if claimed != raw.len() as i64 || batch.crc() != crc32c::crc32c(&raw[CRC_FROM..]) {
            return Err(Refusal::new(
                code::CORRUPT_MESSAGE,
                "the batch is cut off or its checksum does not match",
            ));
        }
        let count = batch.count();
        if count <= 0 || i64::from(batch.last_offset_delta()) + 1 != i64::from(count) {
            return invalid("the last offset delta does not fit the number of records");
        }
        let attributes = batch.attributes();
        if attributes & CONTROL != 0 {
            return invalid("clients may not write control batches");
        }
        if attributes & TRANSACTIONAL != 0 {
            return Err(Refusal::new(
                code::INVALID_REQUEST,
                "transactions are not supported by the embedded broker",
            ));
        }
        if attributes & LOG_APPEND_TIME != 0 {
            return invalid("producers may not set the log append time");
        }
        match attributes & CODEC_MASK {
            0 => batch.check_records()?,
            CODEC_ZSTD if !zstd => {
                return Err(Refusal::new(
                    code::UNSUPPORTED_COMPRESSION_TYPE,
                    "zstd needs Produce version 7",
                ));
            }
            1..=CODEC_ZSTD => {}
            _ => return invalid("unknown compression codec"),
        }
        if batch.producer_id() >= 0 && batch.base_sequence() < 0 {
            return invalid("a producer id without a sequence number");
        }
        Ok(batch)
    }

    /// The batch with its base offset and leader epoch in place; neither is under the CRC.
    pub fn numbered(&self, base_offset: i64, leader_epoch: i32) -> Self {
        let mut raw = BytesMut::from(&self.raw[..]);
        raw[..8].copy_from_slice(&base_offset.to_be_bytes());
        raw[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        Self { raw: raw.freeze() }
    }

    /// The bytes as they go to a consumer.
    pub fn bytes(&self) -> &Bytes {
        &self.raw
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.i64_at(0)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset() + i64::from(self.last_offset_delta())
    }

    /// Offset of the last record, counted from the first.
    pub fn last_offset_delta(&self) -> i32 {
        self.i32_at(23)
    }

    /// The largest timestamp, in milliseconds since 1970.
    pub fn max_timestamp(&self) -> i64 {
        self.i64_at(35)
    }

    /// The producer's id; negative: not idempotent.
    pub fn producer_id(&self) -> i64 {
        self.i64_at(43)
    }

    /// The producer's epoch.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes([self.raw[51], self.raw[52]])
    }

    /// The sequence number of the first record.
    pub fn base_sequence(&self) -> i32 {
        self.i32_at(53)
    }

    /// The number of records.
    pub fn count(&self) -> i32 {
        self.i32_at(57)
    }

    /// The first record at or after `timestamp` (ms): its offset and timestamp. A compressed
    /// batch is not opened: its first offset stands for it, so that a reader gets too much
    /// rather than too little.
    pub fn first_at(&self, timestamp: i64) -> (i64, i64) {
        if self.attributes() & CODEC_MASK == 0 {
            let base_timestamp = self.i64_at(27);
            for record in self.records().map_while(|record| record) {
                let at = base_timestamp.wrapping_add(record.timestamp_delta);
                if at >= timestamp {
                    return (self.base_offset() + i64::from(record.offset_delta), at);
                }
            }
        }
        (self.base_offset(), self.max_timestamp())
    }

    fn check_records(&self) -> Result<(), Refusal> {
        let mut seen = 0_i32;
        for record in self.records() {
            match record {
                Some(record) if record.offset_delta == seen => seen = seen.saturating_add(1),
                _ => {
                    return Err(Refusal {
                        code: code::INVALID_RECORD,
                        message: "the record is malformed or out of order".to_owned(),
                        record: Some(seen),
                    });
                }
            }
        }
        if seen != self.count() {
            let message = format!("the batch claims {} records and has {seen}", self.count());
            return Err(Refusal::new(code::INVALID_RECORD, message));
        }
        Ok(())
    }

    fn records(&self) -> Records<'_> {
        Records(&self.raw[HEADER_BYTES..])
    }

    fn attributes(&self) -> i16 {
        i16::from_be_bytes([self.raw[21], self.raw[22]])
    }

    fn crc(&self) -> u32 {
        self.i32_at(17).cast_unsigned()
    }

    fn i32_at(&self, at: usize) -> i32 {
        let mut field = [0; 4];
        field.copy_from_slice(&self.raw[at..at + 4]);
        i32::from_be_bytes(field)
    }

    fn i64_at(&self, at: usize) -> i64 {
        let mut field = [0; 8];
        field.copy_from_slice(&self.raw[at..at + 8]);
        i64::from_be_bytes(field)
    }
}

/// What is read of one uncompressed record.
struct RecordHead {
    timestamp_delta: i64,
    offset_delta: i32,
}

/// The uncompressed records of a batch; a malformed one ends the walk as `None` inside `Some`.
struct Records<'a>(&'a [u8]);

impl Iterator for Records<'_> {
    type Item = Option<RecordHead>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.one();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl Records<'_> {
    fn one(&mut self) -> Option<RecordHead> {
        let length = usize::try_from(varint(&mut self.0)?).ok()?;
        let (mut record, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let (_attributes, fields) = record.split_first()?;
        record = fields;
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = i32::try_from(varint(&mut record)?).ok()?;
        skip(&mut record, true)?;
        skip(&mut record, true)?;
        for _ in 0..varint(&mut record)?.max(0) {
            skip(&mut record, false)?;
            skip(&mut record, true)?;
        }
        record.is_empty().then_some(RecordHead {
            timestamp_delta,
            offset_delta,
        })
    }
}

/// Skips a length-prefixed field; −1 stands for null.
fn skip(from: &mut &[u8], nullable: bool) -> Option<()> {
    let length = varint(from)?;
    if length == -1 && nullable {
        return Some(());
    }
    let (_, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(())
}

/// A zig-zag varint of at most ten bytes.
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    None
}
