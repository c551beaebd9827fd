//! JSON as people write it to Avro's binary encoding, for the payloads of policy tests. Never on
//! the path of a request.
//!
//! Plain JSON: a union is written as the value of one of its branches (the first that fits), or as
//! Avro's own JSON has it, `{"branch": value}`. A field that is left out has its default. Bytes and
//! fixed are text of the characters U+0000 to U+00FF. A field that the schema does not know is a
//! mistake.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamespaceRef, ResolvedSchema, UuidSchema};
use serde_json::Value as Json;

use super::envelope::FRAMING_BYTES;
use crate::wire::records::put_zigzag;

/// How deep values may nest; a default that holds itself would not end.
const DEPTH_MAX: u32 = 64;

/// Why a value is none of the schema: where, and what was expected.
type Misfit = String;

/// The value in Confluent's framing.
pub fn framed(id: i32, schema: &str, json: &Json) -> Result<Vec<u8>, Misfit> {
    let schema = Schema::parse_str(schema).map_err(|e| e.to_string())?;
    let resolved = ResolvedSchema::try_from(&schema).map_err(|e| e.to_string())?;
    let encoder = Encoder {
        named: resolved.get_names(),
    };
    let mut out = Vec::with_capacity(FRAMING_BYTES);
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
    let at = At {
        path: "$",
        within: None,
        depth: 0,
    };
    encoder.value(&schema, json, &at, &mut out)?;
    Ok(out)
}

struct Encoder<'s> {
    named: &'s HashMap<Name, &'s Schema>,
}

/// Where in the value the encoder is.
struct At<'a> {
    path: &'a str,
    within: NamespaceRef<'a>,
    depth: u32,
}

impl At<'_> {
    fn inside<'a>(&self, path: &'a str, within: NamespaceRef<'a>) -> At<'a> {
        At {
            path,
            within,
            depth: self.depth + 1,
        }
    }

    fn expected(&self, what: &str) -> Misfit {
        format!("`{}`: expected {what}", self.path)
    }
}

impl Encoder<'_> {
    fn value(
        &self,
        schema: &Schema,
        json: &Json,
        at: &At<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        if at.depth > DEPTH_MAX {
            return Err(at.expected(&format!("at most {DEPTH_MAX} levels")));
        }
        match schema {
            Schema::Ref { name } => {
                let full = name.fully_qualified_name(at.within);
                let found = self.named.get(full.as_ref());
                let schema = found.ok_or_else(|| at.expected("a type that is defined"))?;
                self.value(schema, json, &at.inside(at.path, at.within), out)?;
            }
            Schema::Null if json.is_null() => {}
            Schema::Null => return Err(at.expected("null")),
            Schema::Boolean => {
                let value = json.as_bool().ok_or_else(|| at.expected("a boolean"))?;
                out.push(u8::from(value));
            }
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let value = json.as_i64().and_then(|n| i32::try_from(n).ok());
                let value = value.ok_or_else(|| at.expected("a 32-bit number"))?;
                put_zigzag(i64::from(value), out);
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => {
                let value = json.as_i64();
                put_zigzag(value.ok_or_else(|| at.expected("a 64-bit number"))?, out);
            }
            Schema::Float => {
                let value = json.as_f64().ok_or_else(|| at.expected("a number"))?;
                out.extend_from_slice(&(value as f32).to_le_bytes());
            }
            Schema::Double => {
                let value = json.as_f64().ok_or_else(|| at.expected("a number"))?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Schema::String | Schema::Uuid(UuidSchema::String) => {
                let text = json.as_str().ok_or_else(|| at.expected("text"))?;
                counted(text.as_bytes(), out);
            }
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => {
                counted(&latin1(json, at)?, out);
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => counted(&latin1(json, at)?, out),
                InnerDecimalSchema::Fixed(one) => fixed(one.size, json, at, out)?,
            },
            Schema::Fixed(one) | Schema::Duration(one) | Schema::Uuid(UuidSchema::Fixed(one)) => {
                fixed(one.size, json, at, out)?
            }
            Schema::Enum(symbols) => {
                let found = json
                    .as_str()
                    .and_then(|text| symbols.symbols.iter().position(|s| s == text));
                let listed = || at.expected(&format!("one of {}", symbols.symbols.join(", ")));
                put_zigzag(found.ok_or_else(listed)? as i64, out);
            }
            Schema::Array(array) => {
                let items = json.as_array().ok_or_else(|| at.expected("a list"))?;
                if !items.is_empty() {
                    put_zigzag(items.len() as i64, out);
                }
                for (i, item) in items.iter().enumerate() {
                    let path = format!("{}[{i}]", at.path);
                    self.value(&array.items, item, &at.inside(&path, at.within), out)?;
                }
                put_zigzag(0, out);
            }
            Schema::Map(map) => {
                let entries = json.as_object().ok_or_else(|| at.expected("an object"))?;
                if !entries.is_empty() {
                    put_zigzag(entries.len() as i64, out);
                }
                for (key, value) in entries {
                    counted(key.as_bytes(), out);
                    let path = format!("{}.{key}", at.path);
                    self.value(&map.types, value, &at.inside(&path, at.within), out)?;
                }
                put_zigzag(0, out);
            }
            Schema::Union(union) => self.branch(union.variants(), json, at, out)?,
            Schema::Record(record) => {
                let given = json.as_object().ok_or_else(|| at.expected("an object"))?;
                if let Some(key) =
                    (given.keys()).find(|key| !record.fields.iter().any(|f| f.name == **key))
                {
                    let known: Vec<&str> = record.fields.iter().map(|f| &*f.name).collect();
                    let known = known.join(", ");
                    return Err(at.expected(&format!("no field `{key}`; the fields are {known}")));
                }
                let name = record.name.fully_qualified_name(at.within);
                for field in &record.fields {
                    let path = format!("{}.{}", at.path, field.name);
                    let inside = at.inside(&path, name.namespace());
                    let value = given.get(&field.name).or(field.default.as_ref());
                    let value = value.ok_or_else(|| inside.expected("a value"))?;
                    self.value(&field.schema, value, &inside, out)?;
                }
            }
        }
        Ok(())
    }

    fn branch(
        &self,
        variants: &[Schema],
        json: &Json,
        at: &At<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        // The misfit that is most worth telling: null fits nothing else anyway.
        let mut misfit = at.expected("a value of the union");
        for (index, variant) in variants.iter().enumerate() {
            let before = out.len();
            put_zigzag(index as i64, out);
            match self.value(variant, json, &at.inside(at.path, at.within), out) {
                Ok(()) => return Ok(()),
                Err(why) if !matches!(variant, Schema::Null) => misfit = why,
                Err(_) => {}
            }
            out.truncate(before);
        }
        if let Some((tag, value)) = json
            .as_object()
            .filter(|o| o.len() == 1)
            .and_then(|o| o.iter().next())
        {
            let tagged = |variant: &Schema| match variant.name() {
                Some(name) => {
                    name.name() == tag
                        || name.fully_qualified_name(at.within).fullname(None) == *tag
                }
                None => plain_name(variant) == Some(tag.as_str()),
            };
            if let Some(index) = variants.iter().position(tagged) {
                put_zigzag(index as i64, out);
                let inside = at.inside(at.path, at.within);
                return self.value(&variants[index], value, &inside, out);
            }
        }
        Err(misfit)
    }
}

/// The tag of a branch without a name of its own, in Avro's JSON.
fn plain_name(schema: &Schema) -> Option<&'static str> {
    Some(match schema {
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        _ => return None,
    })
}

fn latin1(json: &Json, at: &At<'_>) -> Result<Vec<u8>, Misfit> {
    let what = "text of the characters U+0000 to U+00FF";
    let text = json.as_str().ok_or_else(|| at.expected(what))?;
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    bytes.ok_or_else(|| at.expected(what))
}

fn fixed(size: usize, json: &Json, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let bytes = latin1(json, at)?;
    if bytes.len() != size {
        return Err(at.expected(&format!("{size} bytes")));
    }
    out.extend_from_slice(&bytes);
    Ok(())
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    put_zigzag(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use serde_json::json;

    use super::*;
    use crate::schema::avro::Compiled;

    /// What is written is read by the walker and by apache-avro, and nothing is left over.
    fn fits(schema: &str, json: Json) -> bool {
        let Ok(bytes) = framed(7, schema, &json) else {
            return false;
        };
        assert_eq!(bytes[..5], [0, 0, 0, 0, 7]);
        let mut body = &bytes[5..];
        Compiled::parse(schema).unwrap().validate(body).unwrap();
        let schema = Schema::parse_str(schema).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        reader.read_value(&mut body).unwrap();
        assert!(body.is_empty());
        true
    }

    #[test]
    fn values_of_every_type_are_written_so_that_others_read_them() {
        let schema = r#"{"type": "record", "name": "R", "namespace": "n", "fields": [
            {"name": "b", "type": "boolean"}, {"name": "i", "type": "int"},
            {"name": "l", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "f", "type": "float"}, {"name": "d", "type": "double"},
            {"name": "s", "type": "string"}, {"name": "y", "type": "bytes"},
            {"name": "x", "type": {"type": "fixed", "name": "X", "size": 2}},
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
            {"name": "a", "type": {"type": "array", "items": "E"}},
            {"name": "m", "type": {"type": "map", "values": "long"}},
            {"name": "u", "type": ["null", "string", "long"]},
            {"name": "next", "type": ["null", "R"], "default": null}]}"#;
        let mut value = json!({"b": true, "i": -5, "l": i64::MAX, "f": 1.5, "d": 2, "s": "é",
            "y": "\u{ff}\u{0}", "x": "ab", "e": "B", "a": ["A", "B"], "m": {"k": 1}, "u": 3});
        assert!(fits(schema, value.clone()));
        let mut outer = value.clone();
        outer["next"] = value.clone();
        assert!(fits(schema, outer.clone()));
        outer["next"] = json!({"n.R": value.clone()});
        assert!(fits(schema, outer));
        value["u"] = json!({"string": "tagged"});
        assert!(fits(schema, value.clone()));
        for (key, wrong) in [
            ("b", json!(1)),
            ("i", json!(1u64 << 31)),
            ("l", json!("1")),
            ("y", json!("€")),
            ("x", json!("abc")),
            ("e", json!("C")),
            ("a", json!(["C"])),
            ("u", json!(true)),
            ("surplus", json!(1)),
        ] {
            let mut broken = value.clone();
            broken[key] = wrong;
            assert!(!fits(schema, broken), "{key}");
        }
        value.as_object_mut().unwrap().remove("s");
        assert_eq!(
            framed(1, schema, &value).unwrap_err(),
            "`$.s`: expected a value"
        );
    }

    #[test]
    fn a_default_that_holds_itself_ends() {
        let schema = r#"{"type": "record", "name": "R", "fields": [
            {"name": "r", "type": ["R", "null"], "default": {}}]}"#;
        if Schema::parse_str(schema).is_ok() {
            assert!(framed(1, schema, &json!({})).is_err());
        }
    }
}
