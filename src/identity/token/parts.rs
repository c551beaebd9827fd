//! A token taken apart: what it says before anything of it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::TokenError;
use crate::identity::json::{self, Object};

/// The three parts of a token; the first two, which are JSON, out of their base64url.
pub struct Parts<'a> {
    signed: &'a str,
    signature: &'a str,
    /// The header, and behind it the claims.
    decoded: Vec<u8>,
    header_bytes: usize,
}

impl<'a> Parts<'a> {
    /// Cuts a token that is not longer than allowed.
    pub fn of(token: &'a str, bytes_max: usize) -> Result<Self, TokenError> {
        if token.len() > bytes_max {
            return Err(TokenError::Long);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        // A fourth part would leave a point in `claims`, which base64url does not have.
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let mut decoded = Vec::with_capacity(signed.len());
        let mut decode = |part: &str| -> Result<usize, TokenError> {
            let decoding = URL_SAFE_NO_PAD.decode_vec(part, &mut decoded);
            decoding.map_err(|_| TokenError::Malformed)?;
            Ok(decoded.len())
        };
        let header_bytes = decode(header)?;
        decode(claims)?;
        Ok(Self {
            signed,
            signature,
            decoded,
            header_bytes,
        })
    }
}

/// A token taken apart; nothing in it is believed yet.
pub struct Unverified<'a> {
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    pub(super) header: Object<'a>,
    pub(super) claims: Object<'a>,
}

impl<'a> Unverified<'a> {
    /// Reads what the parts say.
    pub fn read(parts: &'a Parts<'a>) -> Result<Self, TokenError> {
        let (header, claims) = parts.decoded.split_at(parts.header_bytes);
        Ok(Self {
            signed: parts.signed,
            signature: parts.signature,
            header: json::parse_object(header)?,
            claims: json::parse_object(claims)?,
        })
    }

    /// What the token says, believed or not.
    pub fn claims(&self) -> &Object<'a> {
        &self.claims
    }

    /// Who the token says has issued it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }
}
