//! Walks a Fetch answer (versions 12 to 17) where it lies: how many bytes of records each
//! partition brought and which offset comes next. Nothing is copied.

use crate::Outcome;

/// Where `lastOffsetDelta` stands in a record batch of format 2.
const LAST_OFFSET_DELTA_AT: usize = 23;

/// Header of a batch up to and with its length field.
const BATCH_PREFIX_BYTES: usize = 12;

/// Updates `offsets` from the answer; returns the bytes of complete batches in it.
pub fn walk(version: i16, body: &[u8], offsets: &mut [i64]) -> Outcome<u64> {
    let mut at = Reader { left: body };
    at.skip(4)?; // correlation id
    at.tags()?;
    at.skip(4)?; // throttle time
    let error = at.i16()?;
    if error != 0 {
        return Err(format!("fetch refused with error {error}").into());
    }
    at.skip(4)?; // session id
    let mut total = 0;
    for _ in 0..at.length()? {
        if version >= 13 {
            at.skip(16)?;
        } else {
            let name = at.length()?;
            at.skip(name)?;
        }
        for _ in 0..at.length()? {
            let index = usize::try_from(at.i32()?)?;
            let error = at.i16()?;
            if error != 0 {
                return Err(format!("partition {index} refused with error {error}").into());
            }
            at.skip(24)?; // high watermark, last stable offset, log start offset
            for _ in 0..at.length()? {
                at.skip(16)?; // an aborted transaction
                at.tags()?;
            }
            at.skip(4)?; // preferred read replica
            let length = at.length()?;
            let (bytes, next) = batches(at.take(length)?)?;
            total += bytes;
            if let (Some(next), Some(offset)) = (next, offsets.get_mut(index)) {
                *offset = next;
            }
            at.tags()?;
        }
        at.tags()?;
    }
    Ok(total)
}

/// Bytes of the complete batches and the offset after the last of them.
fn batches(mut records: &[u8]) -> Outcome<(u64, Option<i64>)> {
    let mut total = 0;
    let mut next = None;
    while records.len() >= BATCH_PREFIX_BYTES {
        let mut at = Reader { left: records };
        let base = at.i64()?;
        let length = BATCH_PREFIX_BYTES + usize::try_from(at.i32()?)?;
        let Some((batch, rest)) = records.split_at_checked(length) else {
            break;
        };
        let mut at = Reader { left: batch };
        at.skip(LAST_OFFSET_DELTA_AT)?;
        next = Some(base + i64::from(at.i32()?) + 1);
        total += length as u64;
        records = rest;
    }
    Ok((total, next))
}

struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or("fetch answer ends before its time")?;
        self.left = left;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Outcome<()> {
        self.take(count).map(|_| ())
    }

    fn i16(&mut self) -> Outcome<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Outcome<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> Outcome<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    fn varint(&mut self) -> Outcome<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint longer than five bytes".into())
    }

    /// A compact length: one more than the count, null counts as empty.
    fn length(&mut self) -> Outcome<usize> {
        Ok(self.varint()?.saturating_sub(1))
    }

    fn tags(&mut self) -> Outcome<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.skip(size)?;
        }
        Ok(())
    }
}
