//! Confluent's framing of a payload: magic byte 0, the schema's id in four bytes, the body.
//! Other framings are refused by name rather than guessed at.

use thiserror::Error;

/// Bytes in front of the body.
pub const FRAMING_BYTES: usize = 5;

/// Why a payload is not framed as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // the messages say it
pub enum EnvelopeError {
    #[error("is empty, expected magic byte 0 and a schema id")]
    Empty,
    #[error("is framed with a schema GUID (magic byte 1), expected magic byte 0 and a schema id")]
    Guid,
    #[error("does not begin with magic byte 0, as written without a schema registry serializer")]
    Magic,
    #[error("is cut off within the schema id")]
    CutOff,
    #[error("has a schema id that is not positive")]
    Id,
}

/// Splits a framed payload into the schema's id and the body.
pub fn open(payload: &[u8]) -> Result<(i32, &[u8]), EnvelopeError> {
    match payload {
        [] => Err(EnvelopeError::Empty),
        [0, a, b, c, d, body @ ..] => match i32::from_be_bytes([*a, *b, *c, *d]) {
            id if id > 0 => Ok((id, body)),
            _ => Err(EnvelopeError::Id),
        },
        [0, ..] => Err(EnvelopeError::CutOff),
        [1, ..] => Err(EnvelopeError::Guid),
        _ => Err(EnvelopeError::Magic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_big_endian_and_the_rest_is_body() {
        assert_eq!(open(&[0, 0, 0, 1, 2, 9, 8]), Ok((258, &[9, 8][..])));
        assert_eq!(open(&[0, 0, 0, 0, 1]), Ok((1, &[][..])));
    }

    #[test]
    fn everything_else_has_a_name() {
        assert_eq!(open(&[]), Err(EnvelopeError::Empty));
        assert_eq!(open(&[0, 0, 0, 0]), Err(EnvelopeError::CutOff));
        assert_eq!(open(&[1; 17]), Err(EnvelopeError::Guid));
        assert_eq!(open(b"{\"eventId\": 1}"), Err(EnvelopeError::Magic));
        assert_eq!(open(&[0, 0, 0, 0, 0, 1]), Err(EnvelopeError::Id));
        assert_eq!(open(&[0, 255, 0, 0, 0, 1]), Err(EnvelopeError::Id));
    }
}
