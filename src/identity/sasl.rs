//! The text of SASL/OAUTHBEARER (RFC 7628, KIP-255) as Kafka's broker reads and writes it, and
//! the session lifetime of KIP-368. Pure: the states of the exchange are `session`'s, the token
//! is judged by `token`. Stricter than the broker in one point: a key that occurs twice is
//! refused, where the broker takes the last.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::principal::Principal;

/// What a refused token is answered with, at error code 0 (RFC 7628 §3.2.2). The client's
/// [`ABORT`] is then answered with code 58 and the same text as the error message.
pub const INVALID_TOKEN: &str = r#"{"status":"invalid_token"}"#;

/// The client's answer to [`INVALID_TOKEN`]: one byte 0x01 (RFC 7628 §3.2.3).
pub const ABORT: &[u8] = &[SEPARATOR];

/// The error message (code 58) for whatever the client is not told more of. Kafka's sentence.
pub fn invalid_credentials(again: bool, mechanism: &str) -> String {
    let what = if again {
        "re-authentication"
    } else {
        "authentication"
    };
    format!(
        "Authentication failed during {what} due to invalid credentials with SASL mechanism \
         {mechanism}"
    )
}

/// How many key-value pairs a first message may have.
pub const PAIRS_MAX: usize = 64;

const SEPARATOR: u8 = 0x01;

/// The client's first message.
#[derive(PartialEq, Eq)]
pub struct ClientFirst<'a> {
    /// The name the client wants to act as, as it stands in the message: Kafka does not decode
    /// `=2C` and `=3D` before comparing it.
    pub authzid: Option<&'a str>,
    /// The bearer token.
    pub token: &'a str,
    /// The other pairs, in Kafka's words the SASL extensions (KIP-342).
    pub extensions: Vec<(&'a str, &'a str)>,
}

/// Never shows the token or a value.
impl fmt::Debug for ClientFirst<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFirst")
            .field("has_authzid", &self.authzid.is_some())
            .field("extensions", &self.extensions.len())
            .finish_non_exhaustive()
    }
}

/// Why a first message cannot be read; for the audit log, the client learns
/// [`invalid_credentials`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than allowed.
    #[error("sasl message is longer than allowed")]
    Long,
    /// Not `n,[a=…],` and pairs that 0x01 ends.
    #[error("sasl message has another form than expected")]
    Form,
    /// A key occurs twice, or there are more than [`PAIRS_MAX`].
    #[error("sasl message repeats a key or has too many")]
    Repeated,
    /// No `auth`, or not a scheme and a token.
    #[error("sasl message brings no bearer token")]
    Token,
    /// A token of another scheme than `Bearer`: a broker fails over it, and says nothing.
    #[error("sasl message brings a token that is no bearer token")]
    Scheme,
}

/// Reads the client's first message.
pub fn parse_client_first(message: &[u8], bytes_max: usize) -> Result<ClientFirst<'_>, Malformed> {
    if message.len() > bytes_max {
        return Err(Malformed::Long);
    }
    let text = std::str::from_utf8(message).map_err(|_| Malformed::Form)?;
    // Channel binding (`p=`, `y`) is not offered, so the header begins with `n`.
    let rest = text.strip_prefix("n,").ok_or(Malformed::Form)?;
    let (authzid, rest) = rest.split_once(',').ok_or(Malformed::Form)?;
    let authzid = match authzid.strip_prefix("a=") {
        Some(name) if is_saslname(name) => Some(name),
        None if authzid.is_empty() => None,
        _ => return Err(Malformed::Form),
    };
    let separator = char::from(SEPARATOR);
    let rest = rest.strip_prefix(separator).ok_or(Malformed::Form)?;
    let mut pairs = rest.strip_suffix(separator).ok_or(Malformed::Form)?;
    let mut token = None;
    let mut extensions: Vec<(&str, &str)> = Vec::new();
    while !pairs.is_empty() {
        let (pair, rest) = pairs.split_once(separator).ok_or(Malformed::Form)?;
        pairs = rest;
        let (key, value) = pair.split_once('=').ok_or(Malformed::Form)?;
        if !is_key(key) || !is_value(value) {
            return Err(Malformed::Form);
        }
        if key == "auth" {
            if token.is_some() {
                return Err(Malformed::Repeated);
            }
            token = Some(bearer(value)?);
        } else if extensions.len() == PAIRS_MAX || extensions.iter().any(|(k, _)| *k == key) {
            return Err(Malformed::Repeated);
        } else {
            extensions.push((key, value));
        }
    }
    Ok(ClientFirst {
        authzid,
        token: token.ok_or(Malformed::Token)?,
        extensions,
    })
}

/// Writes a first message that brings `token`, as a client of a broker sends it.
pub fn client_first(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

/// The error message (code 58) where the client wants to act as somebody whom its token does not
/// prove; `None` where it may go on. Kafka's sentence.
pub fn authzid_error(authzid: Option<&str>, proven: &Principal) -> Option<String> {
    let wanted = authzid.filter(|name| *name != proven.bare_name())?;
    Some(format!(
        "Authentication failed: Client requested an authorization id ({wanted}) that is different \
         from the token's principal name ({})",
        proven.bare_name()
    ))
}

/// The error message (code 58) for re-authentication as somebody else (KIP-368). Kafka's sentence;
/// names as `Type:name`.
pub fn principal_changed(from: &str, to: &str) -> String {
    let dotted = |name: &str| name.replacen(':', ".", 1);
    let (from, to) = (dotted(from), dotted(to));
    format!("Cannot change principals during re-authentication from {from}: {to}")
}

/// When a session must have authenticated again: the sooner of the proof's end and `session_max`
/// from `now` (KIP-368). `None`: never.
pub fn session_end(
    principal: &Principal,
    session_max: Option<Duration>,
    now: SystemTime,
) -> Option<SystemTime> {
    // A bound beyond the end of calendar time bounds nothing.
    let bound = session_max.and_then(|max| now.checked_add(max));
    match (principal.expires_at, bound) {
        (Some(expiry), Some(bound)) => Some(expiry.min(bound)),
        (expiry, bound) => expiry.or(bound),
    }
}

/// `session_lifetime_ms` of SaslAuthenticate: the time to [`session_end`], 0 where the proof has
/// ended already (the clock skew allows it) or where there is no end.
pub fn lifetime_ms(principal: &Principal, session_max: Option<Duration>, now: SystemTime) -> i64 {
    session_end(principal, session_max, now)
        .and_then(|end| end.duration_since(now).ok())
        .map_or(0, |left| {
            i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
        })
}

/// RFC 5801 §4 as Kafka reads it: ASCII without NUL, `,` and `=` except as `=2C` and `=3D`.
fn is_saslname(name: &str) -> bool {
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'=', [b'2', b'C', after @ ..] | [b'3', b'D', after @ ..]) => after,
            (b'=' | b',' | 0 | 0x80.., _) => return false,
            _ => after,
        };
    }
    !name.is_empty()
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic())
}

fn is_value(value: &str) -> bool {
    let allowed = |b: u8| matches!(b, 0x21..=0x7e | b' ' | b'\t' | b'\r' | b'\n');
    !value.is_empty() && value.bytes().all(allowed)
}

/// The token of `Bearer TOKEN`; RFC 6750 §2.1 gives its characters.
fn bearer(value: &str) -> Result<&str, Malformed> {
    let (scheme, rest) = value.split_once(' ').ok_or(Malformed::Token)?;
    let token = rest.trim_start_matches(' ');
    let body = token.trim_end_matches('=');
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_~+/.".contains(&b);
    if scheme.is_empty()
        || !scheme.bytes().all(is_word)
        || body.is_empty()
        || !body.bytes().all(allowed)
    {
        return Err(Malformed::Token);
    }
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(token),
        false => Err(Malformed::Scheme),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::principal::Proof;

    const MAX: usize = 4096;

    fn parse(text: &str) -> Result<ClientFirst<'_>, Malformed> {
        parse_client_first(text.as_bytes(), MAX)
    }

    fn principal(expires_at: Option<SystemTime>) -> Principal {
        Principal {
            name: "User:a=b".into(),
            tenant: "".into(),
            groups: [].into(),
            proof: Proof::Token,
            expires_at,
        }
    }

    #[test]
    fn what_a_client_writes_is_read() {
        let bytes = client_first("abc.def-_~+/.123==");
        let first = parse_client_first(&bytes, MAX).unwrap();
        assert_eq!(first.token, "abc.def-_~+/.123==");
        assert_eq!(first.authzid, None);
        assert!(first.extensions.is_empty());
    }

    #[test]
    fn pairs_stand_in_any_order_and_the_scheme_in_any_case() {
        let text = "n,a=me,\x01host=k=1 \t\r\n\x01auth=bEARER   t.o.k\x01Port=9\x01\x01";
        let first = parse(text).unwrap();
        assert_eq!(first.token, "t.o.k");
        assert_eq!(first.authzid, Some("me"));
        assert_eq!(first.extensions, [("host", "k=1 \t\r\n"), ("Port", "9")]);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,\x01",
            "y,,\x01auth=Bearer t\x01\x01",
            "p=tls-unique,,\x01auth=Bearer t\x01\x01",
            "N,,\x01auth=Bearer t\x01\x01",
            ",,\x01auth=Bearer t\x01\x01",
            "n,a=,\x01auth=Bearer t\x01\x01",
            "n,b=x,\x01auth=Bearer t\x01\x01",
            "n,a=x=,\x01auth=Bearer t\x01\x01",
            "n,a=x=2c,\x01auth=Bearer t\x01\x01",
            "n,a=\u{e9},\x01auth=Bearer t\x01\x01",
            "n,a=\0,\x01auth=Bearer t\x01\x01",
            "n,,auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,\x01auth=Bearer t",
            "n,,\x01auth=Bearer t\x01\x01\x01",
            "n,,\x01auth=Bearer t\x01\x01x",
            "n,,\x01\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01k2=v\x01\x01",
            "n,,\x01auth=Bearer t\x01k_k=v\x01\x01",
            "n,,\x01auth=Bearer t\x01=v\x01\x01",
            "n,,\x01auth=Bearer t\x01k=\x01\x01",
            "n,,\x01auth=Bearer t\x01k=\x7f\x01\x01",
            "n,,\x01auth=Bearer t\x01kv\x01\x01",
        ] {
            assert_eq!(parse(text), Err(Malformed::Form), "{text:?}");
        }
        assert_eq!(
            parse_client_first(b"n,,\x01auth=\xff\x01\x01", MAX),
            Err(Malformed::Form)
        );
    }

    #[test]
    fn a_message_without_a_bearer_token_is_refused() {
        for text in [
            "n,,\x01\x01",
            "n,,\x01host=a\x01\x01",
            "n,,\x01AUTH=Bearer t\x01\x01",
            "n,,\x01auth=Basic t t\x01\x01",
            "n,,\x01auth=Bearer\x01\x01",
            "n,,\x01auth=Bearer \x01\x01",
            "n,,\x01auth=Bearer ==\x01\x01",
            "n,,\x01auth=Bearer a=b\x01\x01",
            "n,,\x01auth=Bearer a b\x01\x01",
            "n,,\x01auth=Bearer\tt\x01\x01",
            "n,,\x01auth=Bearer t\n\x01\x01",
            "n,,\x01auth= Bearer t\x01\x01",
        ] {
            assert_eq!(parse(text), Err(Malformed::Token), "{text:?}");
        }
    }

    #[test]
    fn a_token_of_another_scheme_is_told_apart() {
        for scheme in ["Basic", "Bearer_", "bea"] {
            let text = format!("n,,\x01auth={scheme} t\x01\x01");
            assert_eq!(parse(&text), Err(Malformed::Scheme), "{scheme}");
        }
    }

    #[test]
    fn repetition_and_length_are_bounded() {
        let twice = "n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01";
        assert_eq!(parse(twice), Err(Malformed::Repeated));
        let twice = "n,,\x01auth=Bearer a\x01k=1\x01k=2\x01\x01";
        assert_eq!(parse(twice), Err(Malformed::Repeated));
        let pairs = |count: u8| {
            let key = |i: u8| {
                format!(
                    "k{}{}=v\x01",
                    (b'a' + i / 26) as char,
                    (b'a' + i % 26) as char
                )
            };
            let pairs: String = (0..count).map(key).collect();
            format!("n,,\x01auth=Bearer a\x01{pairs}\x01")
        };
        assert_eq!(parse(&pairs(64)).unwrap().extensions.len(), PAIRS_MAX);
        assert_eq!(parse(&pairs(65)), Err(Malformed::Repeated));
        let bytes = client_first("t");
        assert!(parse_client_first(&bytes, bytes.len()).is_ok());
        assert_eq!(
            parse_client_first(&bytes, bytes.len() - 1),
            Err(Malformed::Long)
        );
    }

    #[test]
    fn no_cut_of_a_good_message_is_good_and_none_panics() {
        let text = "n,a=x=2Cy,\x01host=a\x01auth=Bearer t.t.t\x01\x01";
        assert!(parse(text).is_ok());
        for end in 0..text.len() {
            assert!(parse(&text[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn debug_output_does_not_show_the_token() {
        let bytes = client_first("very-secret");
        let first = parse_client_first(&bytes, MAX).unwrap();
        assert!(!format!("{first:?}").contains("secret"));
    }

    #[test]
    fn the_authorization_id_is_compared_as_it_stands() {
        let me = principal(None);
        assert_eq!(authzid_error(None, &me), None);
        assert_eq!(authzid_error(Some("a=b"), &me), None);
        assert_eq!(
            authzid_error(Some("a=3Db"), &me).unwrap(),
            "Authentication failed: Client requested an authorization id (a=3Db) that is \
             different from the token's principal name (a=b)"
        );
    }

    #[test]
    fn the_session_ends_with_the_sooner_of_token_and_limit() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let expiring = principal(Some(now + Duration::from_millis(90_500)));
        let minute = Some(Duration::from_secs(60));
        assert_eq!(lifetime_ms(&expiring, None, now), 90_500);
        assert_eq!(lifetime_ms(&expiring, minute, now), 60_000);
        assert_eq!(
            lifetime_ms(&expiring, Some(Duration::from_secs(600)), now),
            90_500
        );
        assert_eq!(lifetime_ms(&principal(None), minute, now), 60_000);
        assert_eq!(lifetime_ms(&principal(None), None, now), 0);
        assert_eq!(session_end(&principal(None), None, now), None);
        assert_eq!(
            session_end(&principal(None), Some(Duration::MAX), now),
            None
        );
        // Within the clock skew a token may have ended already: the session has, too.
        let late = now + Duration::from_secs(100);
        assert_eq!(lifetime_ms(&expiring, minute, late), 0);
        assert!(session_end(&expiring, minute, late).unwrap() < late);
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_is_wholly_in_the_parts(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "n,", ",", "a=", "x", "=", "=2C", "\x01", "auth", "auth=Bearer t", "k=v",
                    " ", "Bearer ", "t.t", "y", "\x01\x01", "\0", "é",
                ]),
                0..12,
            ),
        ) {
            let half = parts.len() / 3;
            let (name, pairs) = (parts[..half].concat(), parts[half..].concat());
            let text = format!("n,{name},\x01auth=Bearer t{pairs}\x01\x01");
            if let Ok(first) = parse(&text) {
                let name = first.authzid.map(|name| format!("a={name}")).unwrap_or_default();
                let pairs = first.extensions.iter();
                let pairs: String = pairs.map(|(k, v)| format!("{k}={v}\x01")).collect();
                let again = format!("n,{name},\x01auth=Bearer {}\x01{pairs}\x01", first.token);
                proptest::prop_assert_eq!(parse(&again), Ok(first));
                proptest::prop_assert!(again.len() <= text.len());
            }
        }
    }
}
