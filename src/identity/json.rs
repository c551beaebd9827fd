//! JSON from a stranger, read strictly: a repeated name anywhere and nesting beyond
//! [`DEPTH_MAX`] are errors. Two readers that disagree about which of two `sub` claims counts are
//! an attack on both (threat: parser differentials), and serde's maps silently keep the last.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many objects and arrays may enclose one another.
pub const DEPTH_MAX: usize = 32;

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

/// Reads exactly one JSON object.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>, JsonFault> {
    let fault = Cell::new(JsonFault::Malformed);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let strict = Strict {
        depth: 0,
        fault: &fault,
    };
    let value = strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|_| fault.get())?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(JsonFault::Malformed),
    }
}

/// Builds a [`Value`]; the fault is kept beside serde's error, whose text is not ours to parse.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    fault: &'a Cell<JsonFault>,
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
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if map.contains_key(&name) {
                self.fault.set(JsonFault::Duplicate);
                return Err(A::Error::custom("duplicate"));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
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
        let map = parse_object(br#"{"a":-1,"b":18446744073709551615,"c":1.5,"d":null,"e":true}"#)
            .unwrap();
        assert_eq!(map["a"], -1);
        assert_eq!(map["b"], u64::MAX);
        assert_eq!(map["c"], 1.5);
        assert_eq!(map["d"], Value::Null);
        assert_eq!(map["e"], true);
    }
}
