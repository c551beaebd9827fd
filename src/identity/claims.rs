//! Rules about a token's claims (`claims:`): a pointer (RFC 6901) into the claims and what must
//! stand there. Types are strict: the text `1` is not the number 1, and a single text is not a
//! list of one. A claim that is absent fulfils no rule, so that a rule can only narrow.

use std::fmt;
use std::sync::Arc;

use crate::identity::json::{Json, Object};

/// How many rules an issuer may have.
pub const CLAIM_RULES_MAX: usize = 64;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Where in the claims.
    pub pointer: Pointer,
    /// What must be there.
    pub expected: Expected,
}

/// What a rule expects at its pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `equals`: this value.
    Equals(Literal),
    /// `contains`: a list with this value in it.
    Contains(Literal),
    /// `oneOf`: one of these values.
    OneOf(Vec<Literal>),
}

/// A value that a rule compares with. Whole numbers only: a fraction is the same number only as
/// far as both sides round alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A boolean.
    Boolean(bool),
}

impl ClaimRule {
    /// Whether the claims are as the rule says.
    pub fn holds(&self, claims: &Object<'_>) -> bool {
        let Some(found) = self.pointer.find(claims) else {
            return false;
        };
        match &self.expected {
            Expected::Equals(wanted) => wanted.is(found),
            Expected::Contains(wanted) => found
                .as_list()
                .is_some_and(|list| list.iter().any(|one| wanted.is(one))),
            Expected::OneOf(wanted) => wanted.iter().any(|one| one.is(found)),
        }
    }
}

impl Literal {
    fn is(&self, found: &Json<'_>) -> bool {
        match self {
            Literal::Text(text) => found.as_text() == Some(text),
            // `1.0` is no whole number to serde_json, and so not this one.
            Literal::Number(number) => found.as_i64() == Some(*number),
            Literal::Boolean(boolean) => *found == Json::Boolean(*boolean),
        }
    }
}

/// A JSON pointer (RFC 6901) that names at least one claim.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Arc<str>,
    steps: Vec<String>,
}

/// Why text is no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerFault {
    /// It does not begin with `/`.
    #[error("a pointer begins with `/`")]
    Start,
    /// A tilde that is not `~0` or `~1`.
    #[error("a `~` in a pointer is written `~0`, a `/` in a name `~1`")]
    Escape,
}

impl Pointer {
    /// Reads a pointer.
    pub fn parse(text: &str) -> Result<Pointer, PointerFault> {
        let rest = text.strip_prefix('/').ok_or(PointerFault::Start)?;
        let steps = rest.split('/').map(unescape).collect::<Option<Vec<_>>>();
        Ok(Pointer {
            text: text.into(),
            steps: steps.ok_or(PointerFault::Escape)?,
        })
    }

    /// The pointer as it was written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    fn find<'c, 'a>(&self, claims: &'c Object<'a>) -> Option<&'c Json<'a>> {
        let (first, rest) = self.steps.split_first()?;
        rest.iter()
            .try_fold(claims.get(first)?, |at, step| match at {
                Json::Object(object) => object.get(step),
                Json::List(list) => list.get(index(step)?),
                _ => None,
            })
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(step: &str) -> Option<String> {
    let mut out = String::with_capacity(step.len());
    let mut chars = step.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

/// RFC 6901 §4: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with('0');
    let digits = step.bytes().all(|b| b.is_ascii_digit());
    step.parse().ok().filter(|_| plain && digits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::json::parse_object;

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    fn holds(pointer: &str, expected: Expected, claims: Value) -> bool {
        let pointer = Pointer::parse(pointer).unwrap();
        let rule = ClaimRule { pointer, expected };
        rule.holds(&parse_object(claims.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_pointer_finds_what_rfc_6901_says() {
        let claims = json!({
            "": 0, "foo": ["bar", "baz"], "a/b": 1, "m~n": 8, "~1": 9, " ": 7,
            "deep": {"list": [{"x": true}], "0": "name"},
        });
        for (pointer, number) in [("/", 0), ("/a~1b", 1), ("/m~0n", 8), ("/~01", 9), ("/ ", 7)] {
            let expected = Expected::Equals(Literal::Number(number));
            assert!(holds(pointer, expected, claims.clone()), "{pointer}");
        }
        let equals =
            |pointer: &str, literal| holds(pointer, Expected::Equals(literal), claims.clone());
        assert!(equals("/foo/0", text("bar")));
        assert!(equals("/foo/1", text("baz")));
        assert!(equals("/deep/list/0/x", Literal::Boolean(true)));
        assert!(equals("/deep/0", text("name")));
        for absent in [
            "/foo/00", "/foo/+0", "/foo/-", "/foo/2", "/foo/", "/foo/0/0", "/nope",
        ] {
            assert!(!equals(absent, text("bar")), "{absent}");
        }
    }

    #[test]
    fn text_that_is_no_pointer_is_refused() {
        for bad in ["", "foo", "#/foo", "$.foo"] {
            assert_eq!(Pointer::parse(bad), Err(PointerFault::Start), "{bad}");
        }
        for bad in ["/a~", "/a~2b", "/~/x"] {
            assert_eq!(Pointer::parse(bad), Err(PointerFault::Escape), "{bad}");
        }
    }

    #[test]
    fn types_are_never_mixed() {
        let values = [
            (text("1"), json!("1")),
            (Literal::Number(1), json!(1)),
            (text("true"), json!("true")),
            (Literal::Boolean(true), json!(true)),
        ];
        for (at, (literal, _)) in values.iter().enumerate() {
            for (other, (_, value)) in values.iter().enumerate() {
                let same = at == other;
                let claims = json!({"c": value, "l": [[], null, value]});
                let equals = Expected::Equals(literal.clone());
                assert_eq!(
                    holds("/c", equals, claims.clone()),
                    same,
                    "{literal:?} {value}"
                );
                let one_of = Expected::OneOf(vec![text("x"), literal.clone()]);
                assert_eq!(
                    holds("/c", one_of, claims.clone()),
                    same,
                    "{literal:?} {value}"
                );
                let contains = Expected::Contains(literal.clone());
                assert_eq!(holds("/l", contains, claims), same, "{literal:?} {value}");
            }
        }
    }

    #[test]
    fn a_list_is_not_its_item_and_an_item_is_no_list() {
        let one = || Expected::Equals(text("a"));
        assert!(!holds("/c", one(), json!({"c": ["a"]})));
        for value in [
            json!("a"),
            json!("a b"),
            json!({"a": "a"}),
            json!([["a"]]),
            json!([]),
        ] {
            let claims = json!({"c": value});
            assert!(
                !holds("/c", Expected::Contains(text("a")), claims),
                "{value}"
            );
        }
        assert!(!holds(
            "/c",
            Expected::OneOf(vec![text("a")]),
            json!({"c": ["a"]})
        ));
    }

    #[test]
    fn only_the_very_value_counts() {
        for value in [json!("A"), json!("a "), json!(""), json!(null), json!("ab")] {
            let claims = json!({"c": value});
            assert!(!holds("/c", Expected::Equals(text("a")), claims), "{value}");
        }
        for value in [
            json!(1.0),
            json!(1.5),
            json!(-1),
            json!(u64::MAX),
            json!([1]),
        ] {
            let claims = json!({"c": value});
            let one = Expected::Equals(Literal::Number(1));
            assert!(!holds("/c", one, claims), "{value}");
        }
        let minus = Expected::Equals(Literal::Number(-1));
        assert!(!holds("/c", minus, json!({"c": u64::MAX})));
    }
}
