//! The one batch that is written here: records of the proxy's own, not compressed.

use bytes::Bytes;

use super::{BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, MAGIC, put_zigzag};

/// Who writes a batch, so that a broker takes it once however often it is sent (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The id that a broker has given out.
    pub producer_id: i64,
    /// The epoch that came with it.
    pub epoch: i16,
    /// The number of the batch's first record among all records of the id in the partition.
    pub sequence: i32,
}

/// Where the part begins that the checksum is made of.
const CHECKED_FROM: usize = 21;

/// A batch of these values, in order, all with one key and one time (milliseconds since 1970).
pub fn write(values: &[Bytes], key: &[u8], time_ms: i64, writer: Writer) -> Vec<u8> {
    let count = values.len() as i32;
    let mut out = vec![0; BATCH_HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    // Base offset (0..8) and length (8..12) come last or stay zero; no leader epoch is known.
    put(12, &(-1i32).to_be_bytes());
    put(16, &[MAGIC as u8]);
    put(23, &(count - 1).to_be_bytes());
    put(27, &time_ms.to_be_bytes());
    put(35, &time_ms.to_be_bytes());
    put(43, &writer.producer_id.to_be_bytes());
    put(51, &writer.epoch.to_be_bytes());
    put(53, &writer.sequence.to_be_bytes());
    put(57, &count.to_be_bytes());
    let mut record = Vec::new();
    for (delta, value) in (0..).zip(values) {
        record.clear();
        record.push(0); // attributes
        put_zigzag(0, &mut record);
        put_zigzag(delta, &mut record);
        put_zigzag(key.len() as i64, &mut record);
        record.extend_from_slice(key);
        put_zigzag(value.len() as i64, &mut record);
        record.extend_from_slice(value);
        put_zigzag(0, &mut record);
        put_zigzag(record.len() as i64, &mut out);
        out.extend_from_slice(&record);
    }
    let length = (out.len() - BATCH_PREFIX_BYTES) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[17..21].copy_from_slice(&checksum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Scratch, batches, records};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let long = "x".repeat(300);
        let values = ["one", "", &long].map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let writer = Writer {
            producer_id: 7,
            epoch: 2,
            sequence: 40,
        };
        let bytes = write(&values, b"me", 1_700_000_000_123, writer);
        let batch = batches(&bytes).next().unwrap().unwrap();
        assert_eq!(batch.raw().len(), bytes.len());
        batch.check_crc().unwrap();
        assert_eq!(
            (
                batch.count(),
                batch.last_offset_delta(),
                batch.base_sequence()
            ),
            (3, 2, 40)
        );
        assert_eq!((batch.producer_id(), batch.producer_epoch()), (7, 2));
        assert_eq!(batch.base_timestamp(), 1_700_000_000_123);
        assert_eq!(batch.max_timestamp(), 1_700_000_000_123);
        assert!(!batch.is_transactional() && !batch.is_control());
        let mut scratch = Scratch::new();
        scratch.begin_request();
        let mut found = Vec::new();
        for record in records(&batch, &mut scratch, &Limits::default()).unwrap() {
            let record = record.unwrap();
            assert_eq!(record.key, Some(&b"me"[..]));
            found.push(Bytes::copy_from_slice(record.value.unwrap()));
        }
        assert_eq!(found, values);
    }
}
