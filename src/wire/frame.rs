//! The length prefix: four bytes, big-endian, checked against a limit before a single byte of
//! the body is stored.

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Longest frame before authentication, in bytes (Kafka's `sasl.server.max.receive.size`).
pub const UNAUTHENTICATED_FRAME_BYTES_MAX: usize = 512 * 1024;

/// A frame whose prefix cannot be accepted; the connection ends, as at a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {claimed} bytes, expected 0 to {max}")]
pub struct FrameError {
    /// What the prefix says.
    pub claimed: i32,
    /// The limit in force, in bytes.
    pub max: usize,
}

/// The length of the frame's body, prefix not counted; `None` until four bytes are there.
#[inline]
pub fn body_length(bytes: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*prefix);
    match usize::try_from(claimed) {
        Ok(length) if length <= max => Ok(Some(length)),
        _ => Err(FrameError { claimed, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_judged_as_soon_as_it_is_there() {
        assert_eq!(body_length(&[0, 0, 0], 10), Ok(None));
        assert_eq!(body_length(&[0, 0, 0, 10], 10), Ok(Some(10)));
        assert_eq!(
            body_length(&[0, 0, 0, 11], 10),
            Err(FrameError {
                claimed: 11,
                max: 10
            })
        );
        assert_eq!(
            body_length(&[0xff; 4], 10),
            Err(FrameError {
                claimed: -1,
                max: 10
            })
        );
    }
}
