//! Request and response headers. A request header names the API, its version, the correlation
//! id that the answer repeats, and the client id; the body is not touched.
//!
//! Header versions (KIP-482): requests 1 below the API's first flexible version and 2 from it;
//! `client_id` keeps its two-byte length even in version 2. Responses 0 and 1, but ApiVersions
//! always answers with 0, since a client must be able to read it before it knows the version.

use bytes::{BufMut, BytesMut};

use super::primitive::{Reader, WireError};

/// The fields of a request header, borrowed from the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'b> {
    /// API key.
    pub key: i16,
    /// API version.
    pub version: i16,
    /// Repeated by the answer.
    pub correlation_id: i32,
    /// What the client calls itself; never trusted.
    pub client_id: Option<&'b str>,
    /// Offset of the body in the frame (prefix not counted).
    pub body_at: usize,
}

/// Offset of the API key, version and correlation id: the part every version shares.
const FIXED_BYTES: usize = 8;

/// The API key and version of a frame, if it is long enough to have them.
pub fn peek(frame: &[u8]) -> Option<(i16, i16)> {
    let mut reader = Reader::new(frame);
    (frame.len() >= FIXED_BYTES).then(|| Some((reader.i16().ok()?, reader.i16().ok()?)))?
}

impl<'b> RequestHeader<'b> {
    /// Reads the header of `frame`; `flexible` says whether the API's version has header 2.
    #[inline]
    pub fn read(frame: &'b [u8], flexible: bool) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame);
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let client_id = reader.nullable_string()?;
        if flexible {
            reader.tags(|_, _, _| Ok(()))?;
        }
        Ok(RequestHeader {
            key,
            version,
            correlation_id,
            client_id,
            body_at: reader.position(),
        })
    }

    /// Appends a header.
    pub fn write(&self, flexible: bool, out: &mut BytesMut) {
        out.put_i16(self.key);
        out.put_i16(self.version);
        out.put_i32(self.correlation_id);
        super::primitive::put_string_length(out, self.client_id.map(str::len), false);
        out.put_slice(self.client_id.unwrap_or_default().as_bytes());
        if flexible {
            out.put_u8(0);
        }
    }
}

/// Reads a response header; returns the correlation id and the offset of the body.
pub fn read_response(frame: &[u8], flexible: bool) -> Result<(i32, usize), WireError> {
    let mut reader = Reader::new(frame);
    let correlation_id = reader.i32()?;
    if flexible {
        reader.tags(|_, _, _| Ok(()))?;
    }
    Ok((correlation_id, reader.position()))
}

/// Appends a response header.
pub fn write_response(correlation_id: i32, flexible: bool, out: &mut BytesMut) {
    out.put_i32(correlation_id);
    if flexible {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_is_never_compact() {
        // Given a version 2 header: client id "ab" with a two-byte length, then no tags.
        let frame = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'a', b'b', 0, 0xaa];
        // When
        let header = RequestHeader::read(&frame, true).unwrap();
        // Then
        assert_eq!(
            (header.key, header.version, header.correlation_id),
            (3, 9, 7)
        );
        assert_eq!((header.client_id, header.body_at), (Some("ab"), 13));
        let mut out = BytesMut::new();
        header.write(true, &mut out);
        assert_eq!(out[..], frame[..13]);
    }

    #[test]
    fn a_short_frame_is_an_error_and_not_a_panic() {
        let frame = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'a', b'b', 0];
        for end in 0..frame.len() {
            assert!(RequestHeader::read(&frame[..end], true).is_err(), "{end}");
        }
        assert_eq!(peek(&frame[..7]), None);
        assert_eq!(peek(&frame), Some((3, 9)));
    }
}
