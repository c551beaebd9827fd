//! The hash chain of the audit log: each line says its number and the hash of the line before it,
//! and ends in the hash of its own bytes. Whoever changes, removes, repeats, inserts or moves a
//! line breaks it there.
//!
//! A chain without a key cannot show that lines are missing at its end, nor that everything from
//! some line on was written anew: whoever can write the file can compute hashes. With a key
//! ([`Sealer::keyed`]) the second needs the key.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest line, in bytes: every text of it is cut long before.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The shortest key of a chain, in bytes.
pub const KEY_BYTES_MIN: usize = 16;

/// What stands before the hash of a line.
const HASH_KEY: &[u8] = b",\"hash\":\"";
/// What stands behind it.
const HASH_END: &[u8] = b"\"}";
const HASH_DIGITS: usize = 64;

/// A line's hash; of the line before the first it is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first line of a chain names as the hash before it.
    pub const NONE: Hash = Hash([0; 32]);

    /// Reads the text that `Display` writes, in that very spelling.
    pub fn parse(text: &str) -> Option<Hash> {
        let digits = text.as_bytes();
        if digits.len() != HASH_DIGITS {
            return None;
        }
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes hashes, with a key or without.
#[derive(Default)]
pub struct Sealer {
    key: Option<hmac::Key>,
}

impl Sealer {
    /// HMAC-SHA-256 with a secret: only who knows it can write or verify lines.
    pub fn keyed(secret: &[u8]) -> Sealer {
        Sealer {
            key: Some(hmac::Key::new(hmac::HMAC_SHA256, secret)),
        }
    }

    /// Whether there is a key.
    pub fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// The hash of a line whose bytes up to its hash are `body`.
    pub fn hash(&self, body: &[u8]) -> Hash {
        let mut hash = Hash::NONE;
        match &self.key {
            None => hash.0.copy_from_slice(&Sha256::digest(body)),
            Some(key) => hash.0.copy_from_slice(hmac::sign(key, body).as_ref()),
        }
        hash
    }

    /// Completes the line that begins at `from` and is a JSON object without a hash: its bytes
    /// without the last brace are hashed, hash and line end are put behind them.
    pub fn seal(&self, line: &mut Vec<u8>, from: usize) -> Hash {
        line.pop();
        let hash = self.hash(&line[from..]);
        line.extend_from_slice(HASH_KEY);
        line.extend_from_slice(hash.to_string().as_bytes());
        line.extend_from_slice(HASH_END);
        line.push(b'\n');
        hash
    }
}

/// What a line that is no decision stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// A chain begins that goes on from nothing.
    Begin,
    /// A new process goes on behind the last line that the file held.
    Resume,
    /// The same process goes on in another file.
    Continue,
    /// Lines were lost here.
    Lost,
    /// The process ended as it should.
    End,
}

/// The parts of a line that the chain is made of.
#[derive(Debug, Deserialize)]
pub struct Sealed {
    /// The line's number.
    pub seq: u64,
    /// The hash of the line before it.
    pub prev: String,
    /// What it stands for, where it is no decision.
    pub chain: Option<MarkKind>,
    /// Whether hashes are made with a key from here on.
    #[serde(default)]
    pub keyed: bool,
    /// Bytes before this line that are the rest of lines that could not be written.
    #[serde(default)]
    pub torn: u64,
    /// Lines that were lost before this one.
    #[serde(default)]
    pub lost: u64,
    /// When it was written.
    pub time: String,
}

/// Takes a line apart: what is hashed, the hash it says it has, and its parts. `None`: it is no
/// line of a chain.
pub fn open(line: &[u8]) -> Option<(&[u8], Hash, Sealed)> {
    let rest = line.strip_suffix(HASH_END)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
    let body = rest.strip_suffix(HASH_KEY)?;
    let hash = Hash::parse(std::str::from_utf8(digits).ok()?)?;
    let sealed: Sealed = serde_json::from_slice(line).ok()?;
    Some((body, hash, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, prev: Hash, sealer: &Sealer) -> Vec<u8> {
        let mut line = b"earlier\n".to_vec();
        let text = format!("{{\"time\":\"t\",\"seq\":{seq},\"prev\":\"{prev}\"}}");
        line.extend_from_slice(text.as_bytes());
        sealer.seal(&mut line, 8);
        line.split_off(8)
    }

    #[test]
    fn a_sealed_line_opens_to_what_was_sealed() {
        let sealer = Sealer::default();
        let line = line(7, Hash::NONE, &sealer);
        let (body, hash, sealed) = open(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(sealer.hash(body), hash);
        assert_eq!((sealed.seq, sealed.chain), (7, None));
        assert_eq!(Hash::parse(&sealed.prev), Some(Hash::NONE));
        assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn hashes_have_one_spelling() {
        let hash = Sealer::default().hash(b"x");
        let text = hash.to_string();
        assert_eq!(Hash::parse(&text), Some(hash));
        assert_eq!(Hash::parse(&text.to_uppercase()), None);
        assert_eq!(Hash::parse(&text[1..]), None);
    }

    #[test]
    fn the_hash_is_that_of_the_standard_and_a_key_changes_it() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sealer::default().hash(b"").to_string(), empty);
        // RFC 4231, test case 2.
        let keyed = Sealer::keyed(b"Jefe").hash(b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(keyed.to_string(), expected);
    }
}
