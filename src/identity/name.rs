//! Which names a proof may bring: the rules that tokens and certificates share. A name that
//! reads differently to an authorizer than to a person (`*`, control characters, blanks around
//! it) is refused, never repaired.

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// No characters, or only white space.
    #[error("name is empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`].
    #[error("name is longer than {NAME_BYTES_MAX} bytes")]
    Long,
    /// `*`, which authorizers read as everybody.
    #[error("name is the wildcard `*`")]
    Wildcard,
    /// A control character (Unicode Cc) or a line separator.
    #[error("name holds a control character")]
    Control,
    /// White space before or after the name, which other readers strip.
    #[error("name begins or ends with white space")]
    Blank,
    /// The form of a SPIFFE id, which only a certificate's URI may prove.
    #[error("name has the form of a spiffe id")]
    Spiffe,
}

/// The longest name, in bytes: an audit line shows it whole.
pub const NAME_BYTES_MAX: usize = 500;

/// The beginning of every SPIFFE id.
const SPIFFE_SCHEME: &str = "spiffe://";

/// Whether `name` may become the name of a principal, a tenant or a group.
pub fn check(name: &str) -> Result<(), NameFault> {
    if name.trim().is_empty() {
        return Err(NameFault::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameFault::Long);
    }
    if name == "*" {
        return Err(NameFault::Wildcard);
    }
    let separates_lines = |c| matches!(c, '\u{2028}' | '\u{2029}');
    if name.chars().any(|c| c.is_control() || separates_lines(c)) {
        return Err(NameFault::Control);
    }
    if name.trim() != name {
        return Err(NameFault::Blank);
    }
    let head = name.as_bytes().get(..SPIFFE_SCHEME.len());
    if head.is_some_and(|head| head.eq_ignore_ascii_case(SPIFFE_SCHEME.as_bytes())) {
        return Err(NameFault::Spiffe);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_confuse_an_authorizer_are_refused() {
        for (name, fault) in [
            ("", NameFault::Empty),
            ("  ", NameFault::Empty),
            (&"x".repeat(NAME_BYTES_MAX + 1), NameFault::Long),
            ("*", NameFault::Wildcard),
            ("a\nb", NameFault::Control),
            ("a\0", NameFault::Control),
            ("a\u{85}", NameFault::Control),
            ("a\u{2028}b", NameFault::Control),
            (" a", NameFault::Blank),
            ("a\u{a0}", NameFault::Blank),
            ("spiffe://prod/ns/a", NameFault::Spiffe),
            ("SPIFFE://prod/ns/a", NameFault::Spiffe),
        ] {
            assert_eq!(check(name), Err(fault), "{name:?}");
        }
    }

    #[test]
    fn ordinary_names_pass() {
        for name in ["orders-service", "a b", "a*", "Ünal", "CN=a,O=b", "spiffe:"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }
}
