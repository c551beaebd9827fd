//! What a walk reports, written down, and a tree compared with Kafka's own JSON.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kordon::wire::layout::{Default, Field, Struct, Type};
use kordon::wire::primitive::WireError;
use kordon::wire::tree::{Node, StructNode};
use kordon::wire::walk::{Scalar, Visitor};
use serde_json::{Map, Value as Json};

use crate::random::{Event, Value};

/// Writes down everything a walk tells.
#[derive(Default)]
pub struct Witness {
    /// The report.
    pub events: Vec<Event>,
}

impl<'b> Visitor<'b> for Witness {
    fn scalar(
        &mut self,
        field: &Field,
        value: Scalar<'b>,
        at: Range<usize>,
    ) -> Result<(), WireError> {
        let value = match value {
            Scalar::Int(v) => Value::Int(v),
            Scalar::Float(v) => Value::Float(v.to_bits()),
            Scalar::Uuid(v) => Value::Uuid(*v),
            Scalar::Name(v) => Value::Bytes(v.map(|v| v.as_bytes().to_vec())),
            Scalar::Text(v) | Scalar::Bytes(v) => Value::Bytes(v.map(<[u8]>::to_vec)),
        };
        self.events
            .push(Event::Scalar(field.name.clone(), value, at));
        Ok(())
    }

    fn array(&mut self, field: &Field, count: Option<usize>, at: Range<usize>) {
        self.events
            .push(Event::Array(field.name.clone(), count, at));
    }

    fn enter(&mut self, field: &Field, at: usize) {
        self.events.push(Event::Enter(field.name.clone(), at));
    }

    fn leave(&mut self, field: &Field, at: usize) {
        self.events.push(Event::Leave(field.name.clone(), at));
    }
}

/// Compares every field of `node` with what Kafka's JSON converter wrote, both ways: a member
/// that the layout lacks is an error, and a field that the converter leaves out must be tagged
/// or absent from the version, and at its default.
pub fn same(node: &StructNode, json: &Json, version: i16, path: &str) -> Result<(), String> {
    let Json::Object(members) = json else {
        return Err(format!("{path}: not an object: {json}"));
    };
    let mut left = members.clone();
    for (index, field) in node.layout().fields.iter().enumerate() {
        let here = format!("{path}/{}", field.name);
        let value = node.at(index).ok_or(format!("{here}: no value"))?;
        match member(&mut left, field) {
            Some((_, true)) if !field.versions.contains(version) => {
                return Err(format!("{here}: the converter knows it in this version"));
            }
            Some((member, whole)) => {
                same_value(&field.kind, value, &member, version, whole, &here)?
            }
            None if field.versions.contains(version) && !field.is_tagged(version) => {
                return Err(format!("{here}: the converter has no such member"));
            }
            None => at_default(field, value)
                .then_some(())
                .ok_or(format!("{here}: {value:?}"))?,
        }
    }
    match left.keys().next() {
        Some(key) => Err(format!("{path}: the layout has no `{key}`")),
        None => Ok(()),
    }
}

/// The member of a field; `false`: only the size of its records.
fn member(members: &mut Map<String, Json>, field: &Field) -> Option<(Json, bool)> {
    let mut letters = field.name.chars();
    let first = letters.next()?.to_ascii_lowercase();
    let name = format!("{first}{}", letters.as_str());
    if let Some(member) = members.remove(&name) {
        return Some((member, true));
    }
    members
        .remove(&format!("{name}SizeInBytes"))
        .map(|member| (member, false))
}

fn same_value(
    kind: &Type,
    value: &Node,
    json: &Json,
    version: i16,
    whole: bool,
    path: &str,
) -> Result<(), String> {
    let wrong = || Err(format!("{path}: {value:?} where Kafka has {json}"));
    match (kind, value) {
        (Type::Array(element), Node::Packed(bytes)) => {
            let elements = unpack(element, bytes);
            return same_value(
                kind,
                &Node::Array(Some(elements)),
                json,
                version,
                whole,
                path,
            );
        }
        (Type::Array(element), Node::Array(Some(elements))) => {
            let Json::Array(members) = json else {
                return wrong();
            };
            if members.len() != elements.len() {
                return wrong();
            }
            for (value, json) in elements.iter().zip(members) {
                same_value(element, value, json, version, whole, path)?;
            }
            return Ok(());
        }
        (_, Node::Structs(Some(elements))) => {
            let Json::Array(members) = json else {
                return wrong();
            };
            if members.len() != elements.len() {
                return wrong();
            }
            for (index, (node, json)) in elements.iter().zip(members).enumerate() {
                same(node, json, version, &format!("{path}[{index}]"))?;
            }
            return Ok(());
        }
        (_, Node::Struct(Some(node))) => return same(node, json, version, path),
        _ => {}
    }
    let same = match (kind, value) {
        (_, Node::Bytes(None) | Node::Array(None) | Node::Structs(None) | Node::Struct(None)) => {
            json.is_null()
        }
        (Type::Bool, Node::Int(v)) => json.as_bool() == Some(*v == 1),
        (_, Node::Int(v)) => json.as_i64() == Some(*v),
        (_, Node::Float(v)) => json.as_f64() == Some(*v),
        (_, Node::Uuid(v)) => json.as_str() == Some(&URL_SAFE_NO_PAD.encode(v)),
        (Type::String, Node::Bytes(Some(v))) => json.as_str().map(str::as_bytes) == Some(v),
        (Type::Records, Node::Bytes(Some(v))) => {
            !whole && json.as_u64() == Some(v.len() as u64) && are_records(v)
        }
        (_, Node::Bytes(Some(v))) => json.as_str() == Some(&STANDARD.encode(v)),
        _ => false,
    };
    if same { Ok(()) } else { wrong() }
}

/// The content that the Java program gives records of that length.
fn are_records(bytes: &[u8]) -> bool {
    let length = bytes.len();
    bytes
        .iter()
        .enumerate()
        .all(|(i, byte)| *byte == (i * 31 + length) as u8)
}

/// The elements of an array of scalars as it stands on the wire.
fn unpack(element: &Type, bytes: &[u8]) -> Vec<Node> {
    let integer = |chunk: &[u8]| {
        let start = if chunk[0] & 0x80 == 0 { 0 } else { -1 };
        Node::Int(
            chunk
                .iter()
                .fold(start, |sum, byte| sum << 8 | i64::from(*byte)),
        )
    };
    match element {
        Type::Int8 => bytes.chunks(1).map(integer).collect(),
        Type::Int16 => bytes.chunks(2).map(integer).collect(),
        Type::Int32 => bytes.chunks(4).map(integer).collect(),
        Type::Int64 => bytes.chunks(8).map(integer).collect(),
        Type::Uuid => bytes
            .chunks(16)
            .map(|c| Node::Uuid(c.try_into().unwrap()))
            .collect(),
        other => panic!("no packed arrays of {other:?}"),
    }
}

fn at_default(field: &Field, value: &Node) -> bool {
    match value {
        Node::Int(v) => match field.default {
            Default::Int(default) => *v == default,
            _ => *v == 0,
        },
        Node::Float(v) => *v == 0.0,
        Node::Uuid(v) => *v == [0; 16],
        Node::Bytes(None) | Node::Array(None) | Node::Structs(None) | Node::Struct(None) => {
            field.default == Default::Null
        }
        Node::Bytes(Some(v)) => v.is_empty() && field.default == Default::Zero,
        Node::Packed(v) => v.is_empty() && field.default == Default::Zero,
        Node::Array(Some(v)) => v.is_empty() && field.default == Default::Zero,
        Node::Structs(Some(v)) => v.is_empty() && field.default == Default::Zero,
        Node::Struct(Some(node)) => defaults(node, node.layout()),
    }
}

fn defaults(node: &StructNode, layout: &Struct) -> bool {
    let fields = layout.fields.iter().enumerate();
    fields
        .map(|(i, f)| (f, node.at(i)))
        .all(|(f, v)| v.is_some_and(|v| at_default(f, v)))
}
