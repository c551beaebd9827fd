//! The text of SASL/PLAIN (RFC 4616) as Kafka's broker reads it.

use std::fmt;

/// What a client of SASL/PLAIN sends.
#[derive(PartialEq, Eq)]
pub struct PlainMessage {
    /// The name the client wants to act as.
    pub authzid: Option<String>,
    /// Who it is.
    pub user: String,
    /// What proves it.
    pub password: Password,
}

/// A password. `Debug` shows nothing of it.
#[derive(PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password itself.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The user's name may be a password that stands in the wrong place, so it is not shown either.
impl fmt::Debug for PlainMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainMessage")
            .field("has_authzid", &self.authzid.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a message is refused before anybody looks for the user. The texts are Kafka's, and go to
/// the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlainFault {
    /// Not three parts with NUL between them. Four stand for more.
    #[error("Invalid SASL/PLAIN response: expected 3 tokens, got {0}")]
    Parts(usize),
    /// No user.
    #[error("Authentication failed: username not specified")]
    User,
    /// No password.
    #[error("Authentication failed: password not specified")]
    Password,
}

/// The most parts that are told apart.
const PARTS_MAX: usize = 4;

/// Reads `[authzid] NUL user NUL password`; what is not UTF-8 is replaced, as a broker does.
pub fn parse(message: &[u8]) -> Result<PlainMessage, PlainFault> {
    let text = String::from_utf8_lossy(message);
    // What follows a fourth NUL is not read there either.
    let parts: Vec<&str> = text.split('\0').take(PARTS_MAX).collect();
    let [authzid, user, password] = parts[..] else {
        return Err(PlainFault::Parts(parts.len()));
    };
    if user.is_empty() {
        return Err(PlainFault::User);
    }
    if password.is_empty() {
        return Err(PlainFault::Password);
    }
    Ok(PlainMessage {
        authzid: (!authzid.is_empty()).then(|| authzid.to_owned()),
        user: user.to_owned(),
        password: Password(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_are_read() {
        let message = parse(b"\0me\0secret, word").unwrap();
        assert_eq!((message.authzid, message.user.as_str()), (None, "me"));
        assert_eq!(message.password.text(), "secret, word");
        let message = parse(b"other\0me\0p").unwrap();
        assert_eq!(message.authzid.as_deref(), Some("other"));
    }

    #[test]
    fn what_is_missing_is_said_in_kafkas_words() {
        for (bytes, text) in [
            ("", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
            (
                "me\0p",
                "Invalid SASL/PLAIN response: expected 3 tokens, got 2",
            ),
            (
                "\0me\0p\0",
                "Invalid SASL/PLAIN response: expected 3 tokens, got 4",
            ),
            (
                "\0\0\0\0\0\0",
                "Invalid SASL/PLAIN response: expected 3 tokens, got 4",
            ),
            ("\0\0p", "Authentication failed: username not specified"),
            ("\0me\0", "Authentication failed: password not specified"),
            ("\0\0", "Authentication failed: username not specified"),
        ] {
            let fault = parse(bytes.as_bytes()).unwrap_err();
            assert_eq!(fault.to_string(), text, "{bytes:?}");
        }
    }

    #[test]
    fn debug_output_shows_neither_user_nor_password() {
        let message = parse(b"\0hunter2\0hunter2").unwrap();
        let shown = format!("{message:?} {:?}", message.password);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
