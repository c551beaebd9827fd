//! One partition: its batches in order, what is dropped when there are too many, and what is
//! remembered of idempotent producers (KIP-98). Pure: no I/O, no clock.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::batch::{Batch, Refusal};
use super::code;

/// Idempotent producers remembered in one partition; the one that wrote longest ago goes first.
pub const PRODUCERS_MAX: usize = 1_000;

/// Batches remembered of one producer, to recognise one sent twice (as in Kafka).
const SEQUENCES_KEPT: usize = 5;

/// The leader epoch of every partition: there is one broker, and it never fails over.
pub const LEADER_EPOCH: i32 = 0;

/// How much of a partition is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Bytes; the newest batch is always kept.
    pub bytes_max: usize,
    /// Age in milliseconds; `None`: for ever.
    pub age_ms_max: Option<i64>,
}

/// The records of one partition.
#[derive(Debug, Default)]
pub struct Log {
    batches: VecDeque<Batch>,
    bytes: usize,
    start_offset: i64,
    end_offset: i64,
    producers: HashMap<i64, Producer>,
}

/// What is remembered of an idempotent producer.
#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// First sequence, last sequence and base offset of the newest batches, oldest first.
    written: VecDeque<(i32, i32, i64)>,
}

impl Log {
    /// Appends a checked batch and answers its base offset. A batch that the same producer has
    /// sent before is acknowledged with the offset it got then.
    pub fn append(
        &mut self,
        batch: &Batch,
        now_ms: i64,
        retention: Retention,
    ) -> Result<i64, Refusal> {
        let producer_id = batch.producer_id();
        if producer_id >= 0
            && let Some(offset) = self.written_before(batch)?
        {
            return Ok(offset);
        }
        let base_offset = self.end_offset;
        let batch = batch.numbered(base_offset, LEADER_EPOCH);
        if producer_id >= 0 {
            self.remember(&batch);
        }
        self.bytes += batch.bytes().len();
        self.end_offset = batch.last_offset() + 1;
        self.batches.push_back(batch);
        self.expire(now_ms, retention);
        Ok(base_offset)
    }

    /// Drops batches from the front until the rest is within `retention`.
    pub fn expire(&mut self, now_ms: i64, retention: Retention) {
        while let Some(oldest) = self.batches.front() {
            let too_many = self.bytes > retention.bytes_max && self.batches.len() > 1;
            let too_old = retention
                .age_ms_max
                .is_some_and(|age| oldest.max_timestamp().saturating_add(age) < now_ms);
            if !too_many && !too_old {
                break;
            }
            self.bytes -= oldest.bytes().len();
            self.start_offset = oldest.last_offset() + 1;
            self.batches.pop_front();
        }
    }

    /// The batches from the one that holds `offset`, at most `bytes_max` together; with
    /// `at_least_one` the first is answered whatever its size (KIP-74). `None`: the offset is
    /// out of range.
    pub fn read(&self, offset: i64, bytes_max: usize, at_least_one: bool) -> Option<Bytes> {
        if offset < self.start_offset || offset > self.end_offset {
            return None;
        }
        let first = self.batches.partition_point(|b| b.last_offset() < offset);
        let mut last = first;
        let mut size = 0_usize;
        for batch in self.batches.iter().skip(first) {
            let length = batch.bytes().len();
            if size + length > bytes_max && !(at_least_one && last == first) {
                break;
            }
            size += length;
            last += 1;
        }
        if last == first + 1 {
            return Some(self.batches[first].bytes().clone());
        }
        let mut records = BytesMut::with_capacity(size);
        for batch in self.batches.range(first..last) {
            records.extend_from_slice(batch.bytes());
        }
        Some(records.freeze())
    }

    /// The first record at or after `timestamp` (ms): its offset and timestamp.
    pub fn offset_at(&self, timestamp: i64) -> Option<(i64, i64)> {
        self.batches
            .iter()
            .find(|b| b.max_timestamp() >= timestamp)
            .map(|b| b.first_at(timestamp))
    }

    /// The record with the largest timestamp: its offset and timestamp (KIP-734).
    pub fn offset_of_max_timestamp(&self) -> Option<(i64, i64)> {
        let largest = self.batches.iter().map(Batch::max_timestamp).max()?;
        self.offset_at(largest)
    }

    /// The oldest offset that can be read.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The offset the next record will get; also the high watermark, since nobody replicates.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn written_before(&self, batch: &Batch) -> Result<Option<i64>, Refusal> {
        let Some(producer) = self.producers.get(&batch.producer_id()) else {
            return Ok(None); // forgotten or new: any sequence starts anew, as in Kafka (KIP-360)
        };
        let (epoch, sequence) = (batch.producer_epoch(), batch.base_sequence());
        if epoch < producer.epoch {
            return Err(Refusal::new(
                code::INVALID_PRODUCER_EPOCH,
                format!("the producer's epoch is {}, got {epoch}", producer.epoch),
            ));
        }
        let expected = if epoch > producer.epoch {
            0
        } else {
            let last = sequence_after(sequence, batch.last_offset_delta());
            if let Some((_, _, offset)) = producer
                .written
                .iter()
                .find(|(from, to, _)| (*from, *to) == (sequence, last))
            {
                return Ok(Some(*offset));
            }
            match producer.written.back() {
                Some((_, to, _)) => sequence_after(*to, 1),
                None => 0,
            }
        };
        if sequence != expected {
            return Err(Refusal::new(
                code::OUT_OF_ORDER_SEQUENCE_NUMBER,
                format!("the next sequence number is {expected}, got {sequence}"),
            ));
        }
        Ok(None)
    }

    fn remember(&mut self, batch: &Batch) {
        let id = batch.producer_id();
        if !self.producers.contains_key(&id) && self.producers.len() >= PRODUCERS_MAX {
            let newest = |p: &Producer| p.written.back().map_or(-1, |(_, _, offset)| *offset);
            let oldest = self.producers.iter().min_by_key(|(_, p)| newest(p));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.producers.remove(&oldest);
            }
        }
        let producer = self.producers.entry(id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch(),
            written: VecDeque::with_capacity(SEQUENCES_KEPT),
        });
        if producer.epoch != batch.producer_epoch() {
            producer.epoch = batch.producer_epoch();
            producer.written.clear();
        }
        if producer.written.len() == SEQUENCES_KEPT {
            producer.written.pop_front();
        }
        let from = batch.base_sequence();
        let to = sequence_after(from, batch.last_offset_delta());
        producer.written.push_back((from, to, batch.base_offset()));
    }
}

/// The sequence number `steps` after `sequence`; after `i32::MAX` comes 0.
fn sequence_after(sequence: i32, steps: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(steps);
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    use super::*;

    const KEEP: Retention = Retention {
        bytes_max: usize::MAX,
        age_ms_max: None,
    };

    fn raw(count: usize, producer: (i64, i16, i32)) -> BytesMut {
        let records: Vec<Record> = (0..count)
            .map(|i| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: producer.0,
                producer_epoch: producer.1,
                timestamp_type: TimestampType::Creation,
                offset: i as i64,
                sequence: producer.2 + i as i32,
                timestamp: 1_000 + i as i64,
                key: None,
                value: Some(Bytes::from(format!("value {i}"))),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
        out
    }

    fn batch(count: usize, producer: (i64, i16, i32)) -> Batch {
        Batch::from_producer(&raw(count, producer).freeze(), true).unwrap()
    }

    const PLAIN: (i64, i16, i32) = (-1, -1, -1);

    #[test]
    fn a_read_from_inside_a_batch_answers_that_batch() {
        let mut log = Log::default();
        for _ in 0..3 {
            log.append(&batch(100, PLAIN), 0, KEEP).unwrap();
        }
        assert_eq!(log.end_offset(), 300);
        for offset in [0, 50, 99, 100, 150, 201, 299] {
            let records = log.read(offset, 1, true).unwrap();
            let base = i64::from_be_bytes(records[..8].try_into().unwrap());
            assert_eq!(base, offset / 100 * 100, "offset {offset}");
        }
        assert!(log.read(300, 1, true).unwrap().is_empty());
        assert!(log.read(301, 1, true).is_none());
        assert!(log.read(0, 1, false).unwrap().is_empty());
    }

    #[test]
    fn numbering_keeps_the_checksum_valid() {
        let mut log = Log::default();
        log.append(&batch(2, PLAIN), 0, KEEP).unwrap();
        log.append(&batch(2, PLAIN), 0, KEEP).unwrap();
        let records = log.read(2, usize::MAX, true).unwrap();
        assert!(Batch::from_producer(&records, true).is_ok());
        assert_eq!(records[..8], 2_i64.to_be_bytes());
    }

    #[test]
    fn a_duplicate_is_acknowledged_and_a_gap_is_not() {
        let mut log = Log::default();
        assert_eq!(log.append(&batch(3, (7, 0, 0)), 0, KEEP), Ok(0));
        assert_eq!(log.append(&batch(2, (7, 0, 3)), 0, KEEP), Ok(3));
        assert_eq!(log.append(&batch(3, (7, 0, 0)), 0, KEEP), Ok(0));
        assert_eq!(log.end_offset(), 5);
        let gap = log.append(&batch(1, (7, 0, 9)), 0, KEEP).unwrap_err();
        assert_eq!(gap.code, code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(log.append(&batch(1, (7, 1, 0)), 0, KEEP), Ok(5));
        let old = log.append(&batch(1, (7, 0, 5)), 0, KEEP).unwrap_err();
        assert_eq!(old.code, code::INVALID_PRODUCER_EPOCH);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_after(5, 2), 7);
    }

    #[test]
    fn producers_are_bounded() {
        let mut log = Log::default();
        for id in 0..PRODUCERS_MAX as i64 + 5 {
            log.append(&batch(1, (id, 0, 0)), 0, KEEP).unwrap();
        }
        assert_eq!(log.producers.len(), PRODUCERS_MAX);
        assert!(!log.producers.contains_key(&0));
    }

    #[test]
    fn the_oldest_batches_go_first() {
        let mut log = Log::default();
        let size = batch(10, PLAIN).bytes().len();
        let keep = Retention {
            bytes_max: size * 2,
            age_ms_max: None,
        };
        for _ in 0..5 {
            log.append(&batch(10, PLAIN), 0, keep).unwrap();
        }
        assert_eq!((log.start_offset(), log.end_offset()), (30, 50));
        assert!(log.bytes() <= keep.bytes_max);
        assert!(log.read(29, 1, true).is_none());
        let aged = Retention {
            age_ms_max: Some(10),
            ..keep
        };
        log.expire(10_000, aged);
        assert_eq!((log.start_offset(), log.end_offset()), (50, 50));
        assert!(log.read(50, 1, true).unwrap().is_empty());
    }

    #[test]
    fn offsets_are_found_by_time() {
        let mut log = Log::default();
        log.append(&batch(10, PLAIN), 0, KEEP).unwrap();
        assert_eq!(log.offset_at(1_004), Some((4, 1_004)));
        assert_eq!(log.offset_at(0), Some((0, 1_000)));
        assert_eq!(log.offset_at(2_000), None);
        assert_eq!(log.offset_of_max_timestamp(), Some((9, 1_009)));
    }

    #[test]
    fn broken_batches_are_refused() {
        let good = raw(3, PLAIN);
        let refused = |change: &dyn Fn(&mut BytesMut)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Batch::from_producer(&bytes.freeze(), true)
                .unwrap_err()
                .code
        };
        let sealed = |change: &dyn Fn(&mut BytesMut)| {
            refused(&|bytes: &mut BytesMut| {
                change(bytes);
                let crc = crc32c::crc32c(&bytes[21..]);
                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            })
        };
        assert_eq!(refused(&|b| b.truncate(20)), code::CORRUPT_MESSAGE);
        assert_eq!(refused(&|b| b.truncate(70)), code::CORRUPT_MESSAGE);
        assert_eq!(refused(&|b| b[65] ^= 1), code::CORRUPT_MESSAGE);
        assert_eq!(refused(&|b| b[16] = 1), code::INVALID_RECORD);
        let two = |b: &mut BytesMut| b.extend_from_slice(&good);
        assert_eq!(refused(&two), code::INVALID_RECORD);
        assert_eq!(sealed(&|b| b[60] = 4), code::INVALID_RECORD);
        assert_eq!(sealed(&|b| b[22] |= 0x20), code::INVALID_RECORD);
        assert_eq!(sealed(&|b| b[22] |= 0x07), code::INVALID_RECORD);
        let longer = |b: &mut BytesMut| {
            b[26] = 9;
            b[60] = 10;
        };
        assert_eq!(sealed(&longer), code::INVALID_RECORD);
    }

    #[test]
    fn records_cut_at_any_place_never_panic() {
        let good = raw(4, PLAIN);
        for end in 0..good.len() {
            let mut bytes = good.clone();
            bytes.truncate(end);
            if end >= 61 {
                let length = (end - 12) as i32;
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
                let crc = crc32c::crc32c(&bytes[21..]);
                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            }
            assert!(
                Batch::from_producer(&bytes.freeze(), true).is_err(),
                "cut at {end}"
            );
        }
    }
}
