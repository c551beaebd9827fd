//! JSON from a stranger, read strictly: a repeated name anywhere and nesting beyond
//! [`DEPTH_MAX`] are errors. Two readers that disagree about which of two `sub` claims counts are
//! an attack on both (threat: parser differentials), and serde's maps silently keep the last.
//!
//! What is read borrows from the text. A token is read once and thrown away: with maps and texts
//! of their own, reading took a third as long as checking an RSA signature.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// How many objects and arrays may enclose one another.
pub const DEPTH_MAX: usize = 32;

/// An object with more names than this is looked through for repeated ones by sorting.
const COMPARED_EACH_MAX: usize = 32;

/// Why the text is not acceptable; never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not JSON (RFC 8259), or not an object.
    #[error("not a json object")]
    Malformed,
    /// An object has the same name twice.
    #[error("a name occurs twice in a json object")]
    Duplicate,
    /// Deeper than [`DEPTH_MAX`].
    #[error("json is nested deeper than 32")]
    Deep,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// The members of an object, in the order of the text; no name twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one; rounded as JSON's readers do.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The number, if it is a whole one that is written as such.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Json::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::List(list) => Some(list),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Boolean(boolean) => Json::Boolean(boolean),
            Json::Number(number) => Json::Number(number),
            Json::Text(text) => Json::Text(Cow::Owned(text.into_owned())),
            Json::List(list) => Json::List(list.into_iter().map(Json::into_owned).collect()),
            Json::Object(object) => Json::Object(object.into_owned()),
        }
    }
}

impl<'a> Object<'a> {
    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let mut members = self.0.iter();
        members.find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The member of that name, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Json::as_text)
    }

    /// All members.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The same, without the text it was read from.
    pub fn into_owned(self) -> Object<'static> {
        let own = |(name, value): (Cow<'_, str>, Json<'_>)| {
            (Cow::Owned(name.into_owned()), value.into_owned())
        };
        Object(self.0.into_iter().map(own).collect())
    }

    fn repeats_a_name(&self) -> bool {
        let members = &self.0;
        if members.len() <= COMPARED_EACH_MAX {
            let stands_before = |at: usize, name: &str| {
                let before = members.get(..at).unwrap_or_default();
                before.iter().any(|(other, _)| other == name)
            };
            let mut named = members.iter().enumerate();
            return named.any(|(at, (name, _))| stands_before(at, name));
        }
        let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// Reads exactly one JSON object.
pub fn parse_object(text: &[u8]) -> Result<Object<'_>, JsonFault> {
    let fault = Cell::new(JsonFault::Malformed);
    let text = std::str::from_utf8(text).map_err(|_| JsonFault::Malformed)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        depth: 0,
        fault: &fault,
    };
    let value = strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|_| fault.get())?;
    match value {
        Json::Object(object) => Ok(object),
        _ => Err(JsonFault::Malformed),
    }
}

/// Builds a [`Json`]; the fault is kept beside serde's error, whose text is not ours to parse.
#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: usize,
    fault: &'f Cell<JsonFault>,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            self.fault.set(JsonFault::Deep);
            return Err(E::custom("deep"));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json<'de>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut members = Vec::new();
        while let Some(name) = entries.next_key_seed(Name)? {
            members.push((name, entries.next_value_seed(inner)?));
        }
        let object = Object(members);
        if object.repeats_a_name() {
            self.fault.set(JsonFault::Duplicate);
            return Err(A::Error::custom("duplicate"));
        }
        Ok(Json::Object(object))
    }
}

/// Reads a member's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_name_is_refused_however_it_is_spelled_and_wherever_it_stands() {
        for text in [
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            r#"{"x":{"y":[{"z":1,"z":1}]}}"#,
        ] {
            assert_eq!(
                parse_object(text.as_bytes()),
                Err(JsonFault::Duplicate),
                "{text}"
            );
        }
        // Among few and among many.
        for count in [2, 10, COMPARED_EACH_MAX, COMPARED_EACH_MAX + 1, 1000] {
            let names = |last: usize| {
                let names = (0..count - 1)
                    .chain([last])
                    .map(|n| format!("\"n{n}\":{n}"));
                format!("{{{}}}", names.collect::<Vec<_>>().join(","))
            };
            assert!(parse_object(names(count).as_bytes()).is_ok(), "{count}");
            for twin in [0, (count - 1) / 2, count - 2] {
                let twice = names(twin);
                let read = parse_object(twice.as_bytes());
                assert_eq!(read, Err(JsonFault::Duplicate), "{twice}");
            }
        }
    }

    #[test]
    fn nesting_is_bounded_exactly() {
        let nested = |depth: usize| {
            format!(
                "{{\"a\":{}1{}}}",
                "[".repeat(depth - 1),
                "]".repeat(depth - 1)
            )
        };
        assert!(parse_object(nested(DEPTH_MAX).as_bytes()).is_ok());
        for depth in [DEPTH_MAX + 1, 100, 200, 100_000] {
            assert_eq!(
                parse_object(nested(depth).as_bytes()),
                Err(JsonFault::Deep),
                "{depth}"
            );
        }
    }

    #[test]
    fn what_is_not_one_object_is_malformed() {
        for text in [
            &b""[..],
            b"{",
            b"[]",
            b"1",
            b"{} {}",
            b"{}x",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":NaN}",
            b"{\"a\":1,}",
            b"{\"a\":1e999}",
            b"\xef\xbb\xbf{}",
        ] {
            assert_eq!(parse_object(text), Err(JsonFault::Malformed), "{text:?}");
        }
    }

    #[test]
    fn values_keep_their_type() {
        let text = br#"{"a":-1,"b":18446744073709551615,"c":1.5,"d":null,"e":true,"f":"\u0066"}"#;
        let object = parse_object(text).unwrap();
        let number = |number: Number| Some(Json::Number(number));
        assert_eq!(object.get("a").cloned(), number((-1).into()));
        assert_eq!(object.get("b").cloned(), number(u64::MAX.into()));
        assert_eq!(object.get("b").unwrap().as_i64(), None);
        assert_eq!(object.get("c").unwrap().as_f64(), Some(1.5));
        assert_eq!(object.get("c").unwrap().as_i64(), None);
        assert_eq!(object.get("d"), Some(&Json::Null));
        assert_eq!(object.get("e"), Some(&Json::Boolean(true)));
        assert_eq!(object.text("f"), Some("f"));
        assert_eq!(object.get("g"), None);
        assert_eq!(object.clone().into_owned(), object);
    }
}
