//! The scalar encodings of the Kafka protocol (protocol guide, "Protocol Primitive Types"):
//! big-endian integers and unsigned varints. Reading never goes past the slice and never
//! allocates.

use bytes::{BufMut, BytesMut};

/// Why bytes could not be read as the layout says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum WireError {
    #[error("message ends early")]
    Truncated,
    #[error("variable-length integer is longer than its type")]
    Varint,
    #[error("length {0} is negative or goes past the message")]
    Length(i64),
    #[error("null where the layout allows none")]
    Null,
    #[error("name is not UTF-8")]
    Utf8,
    #[error("tagged field {0} is repeated or out of order")]
    TagOrder(u32),
    #[error("tagged field {0} has another size than it says")]
    TagSize(u32),
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    #[error("version {0} is outside the layout")]
    Version(i16),
    #[error("message has more than {0} fields")]
    Nodes(usize),
}

/// A cursor over bytes that a peer sent.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

macro_rules! fixed {
    ($name:ident, $type:ty, $size:literal) => {
        /// Reads a big-endian integer.
        #[inline]
        pub fn $name(&mut self) -> Result<$type, WireError> {
            let end = self.at + $size;
            let bytes = self.bytes.get(self.at..end).ok_or(WireError::Truncated)?;
            self.at = end;
            // INVARIANT: the slice has exactly $size bytes.
            Ok(<$type>::from_be_bytes(
                bytes.try_into().map_err(|_| WireError::Truncated)?,
            ))
        }
    };
}

impl<'b> Reader<'b> {
    /// Starts at the first byte.
    pub fn new(bytes: &'b [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'b [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fixed!(u8, u8, 1);
    fixed!(i8, i8, 1);
    fixed!(i16, i16, 2);
    fixed!(u16, u16, 2);
    fixed!(i32, i32, 4);
    fixed!(u32, u32, 4);
    fixed!(i64, i64, 8);
    fixed!(f64, f64, 8);

    /// Reads exactly `length` bytes.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'b [u8], WireError> {
        if length > self.remaining() {
            return Err(WireError::Length(length as i64));
        }
        let start = self.at;
        self.at += length;
        Ok(&self.bytes[start..self.at])
    }

    /// Reads an unsigned varint of at most 32 bits (KIP-482).
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7u32, 14, 21, 28] {
            let byte = self.u8()?;
            if shift == 28 && byte > 0x0f {
                return Err(WireError::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    /// Reads the length of a string; `None`: null.
    #[inline]
    pub fn string_length(&mut self, compact: bool) -> Result<Option<usize>, WireError> {
        if compact {
            self.compact_length()
        } else {
            self.signed_length(|r| r.i16().map(i64::from))
        }
    }

    /// Reads the length of bytes, records or an array; `None`: null.
    #[inline]
    pub fn long_length(&mut self, compact: bool) -> Result<Option<usize>, WireError> {
        if compact {
            self.compact_length()
        } else {
            self.signed_length(|r| r.i32().map(i64::from))
        }
    }

    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>, WireError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    #[inline]
    fn signed_length(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<i64, WireError>,
    ) -> Result<Option<usize>, WireError> {
        match read(self)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| WireError::Length(length)),
        }
    }

    /// Reads a nullable string of the header kind (two-byte length), as UTF-8.
    pub fn nullable_string(&mut self) -> Result<Option<&'b str>, WireError> {
        let Some(length) = self.string_length(false)? else {
            return Ok(None);
        };
        std::str::from_utf8(self.take(length)?)
            .map(Some)
            .map_err(|_| WireError::Utf8)
    }

    /// Reads a section of tagged fields; `each` sees every tag with its bytes. Tags must ascend
    /// (KIP-482), so that no reader can be made to see another value than the broker does.
    #[inline]
    pub fn tags(
        &mut self,
        mut each: impl FnMut(u32, &'b [u8], usize) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let count = self.uvarint()?;
        let mut next = 0u32;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if tag < next {
                return Err(WireError::TagOrder(tag));
            }
            next = tag.checked_add(1).ok_or(WireError::TagOrder(tag))?;
            let size = self.uvarint()? as usize;
            let start = self.at;
            let bytes = self.take(size)?;
            each(tag, bytes, start)?;
        }
        Ok(())
    }
}

/// Appends an unsigned varint.
pub fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The bytes an unsigned varint takes.
pub fn uvarint_size(value: u32) -> usize {
    (38 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends the length of a string; `None`: null.
pub fn put_string_length(out: &mut BytesMut, length: Option<usize>, compact: bool) {
    match (compact, length) {
        (true, length) => put_uvarint(out, length.map_or(0, |l| l as u32 + 1)),
        (false, length) => out.put_i16(length.map_or(-1, |l| l as i16)),
    }
}

/// Appends the length of bytes, records or an array; `None`: null.
pub fn put_long_length(out: &mut BytesMut, length: Option<usize>, compact: bool) {
    match (compact, length) {
        (true, length) => put_uvarint(out, length.map_or(0, |l| l as u32 + 1)),
        (false, length) => out.put_i32(length.map_or(-1, |l| l as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_their_size_is_known() {
        for shift in 0..32 {
            for value in [1u32 << shift, (1u32 << shift) - 1, u32::MAX >> shift] {
                let mut out = BytesMut::new();
                put_uvarint(&mut out, value);
                assert_eq!(out.len(), uvarint_size(value), "{value}");
                assert_eq!(Reader::new(&out).uvarint(), Ok(value));
            }
        }
    }

    #[test]
    fn a_varint_above_32_bits_is_refused() {
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(),
            Err(WireError::Varint)
        );
        assert_eq!(Reader::new(&[0xff; 9]).uvarint(), Err(WireError::Varint));
        assert_eq!(
            Reader::new(&[0x80, 0x80]).uvarint(),
            Err(WireError::Truncated)
        );
    }

    #[test]
    fn repeated_and_descending_tags_are_refused() {
        let repeated = [2, 1, 0, 1, 0];
        assert_eq!(
            Reader::new(&repeated).tags(|_, _, _| Ok(())),
            Err(WireError::TagOrder(1))
        );
        let descending = [2, 1, 0, 0, 0];
        assert_eq!(
            Reader::new(&descending).tags(|_, _, _| Ok(())),
            Err(WireError::TagOrder(0))
        );
    }
}
