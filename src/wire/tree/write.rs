//! Writes nodes as a body, long values as segments of their own.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::layout::{Default, Field, Message, Struct, Type};
use super::super::primitive::{put_long_length, put_string_length, put_uvarint, uvarint_size};
use super::super::walk::fixed_width;
use super::{Node, StructNode};

/// Bytes from which a value becomes a segment of its own instead of being copied.
const SEGMENT_BYTES_MIN: usize = 4096;

/// Bytes to be written one after the other; long values are shared with the frame they came
/// from.
#[derive(Debug, Default)]
pub struct Segments {
    done: Vec<Bytes>,
    tail: BytesMut,
}

impl Segments {
    /// Starts with bytes of one's own, for example a header.
    pub fn starting_with(tail: BytesMut) -> Self {
        Segments {
            done: Vec::new(),
            tail,
        }
    }

    fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < SEGMENT_BYTES_MIN {
            self.tail.put_slice(bytes);
        } else {
            self.flush();
            self.done.push(bytes.clone());
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.done.push(self.tail.split().freeze());
        }
    }

    /// The segments in order.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.done
    }
}

/// Writes a body.
pub fn encode(node: &StructNode, message: &Message, version: i16, out: &mut Segments) {
    let encoder = Encoder {
        version,
        flexible: message.flexible.contains(version),
    };
    encoder.fields(node, out);
}

/// Writes one element of an array of structs.
pub fn encode_element(node: &StructNode, message: &Message, version: i16) -> Bytes {
    let mut out = Segments::default();
    encode(node, message, version, &mut out);
    out.finish().concat().into()
}

/// Writes a body into one piece.
pub fn encode_to_bytes(node: &StructNode, message: &Message, version: i16) -> Bytes {
    let mut out = Segments::default();
    encode(node, message, version, &mut out);
    let segments = out.finish();
    match <[Bytes; 1]>::try_from(segments) {
        Ok([single]) => single,
        Err(several) => several.concat().into(),
    }
}

struct Encoder {
    version: i16,
    flexible: bool,
}

impl Encoder {
    fn fields(&self, node: &StructNode, out: &mut Segments) {
        for (field, value) in node.layout.fields.iter().zip(&node.values) {
            if field.versions.contains(self.version) && !field.is_tagged(self.version) {
                self.value(field, &field.kind, value, out);
            }
        }
        if self.flexible {
            self.tags(node, out);
        }
    }

    /// Tags ascend; a tagged field at its default is left out, as Kafka's own encoders do.
    fn tags(&self, node: &StructNode, out: &mut Segments) {
        let mut tags: Vec<(u32, Bytes)> = node.unknown.clone();
        for (field, value) in node.layout.fields.iter().zip(&node.values) {
            let Some((tag, versions)) = field.tag else {
                continue;
            };
            let here = versions.contains(self.version) && field.versions.contains(self.version);
            if here && !is_default(field, value) {
                let mut inner = Segments::default();
                self.value(field, &field.kind, value, &mut inner);
                tags.push((tag, inner.finish().concat().into()));
            }
        }
        tags.sort_by_key(|(tag, _)| *tag);
        put_uvarint(&mut out.tail, tags.len() as u32);
        for (tag, bytes) in &tags {
            put_uvarint(&mut out.tail, *tag);
            put_uvarint(&mut out.tail, bytes.len() as u32);
            out.push(bytes);
        }
    }

    fn value(&self, field: &Field, kind: &Type, value: &Node, out: &mut Segments) {
        match (kind, value) {
            (Type::Bool | Type::Int8, Node::Int(v)) => out.tail.put_i8(*v as i8),
            (Type::Int16 | Type::Uint16, Node::Int(v)) => out.tail.put_i16(*v as i16),
            (Type::Int32 | Type::Uint32, Node::Int(v)) => out.tail.put_i32(*v as i32),
            (Type::Int64, Node::Int(v)) => out.tail.put_i64(*v),
            (Type::Float64, Node::Float(v)) => out.tail.put_f64(*v),
            (Type::Uuid, Node::Uuid(v)) => out.tail.put_slice(v),
            (Type::String, Node::Bytes(v)) => {
                let v = self.or_empty(field, v);
                put_string_length(&mut out.tail, v.map(Bytes::len), self.flexible);
                out.push(v.unwrap_or(&Bytes::new()));
            }
            (Type::Bytes | Type::Records, Node::Bytes(v)) => {
                let v = self.or_empty(field, v);
                put_long_length(&mut out.tail, v.map(Bytes::len), self.flexible);
                out.push(v.unwrap_or(&Bytes::new()));
            }
            (Type::Array(element), Node::Packed(bytes)) => {
                let count = bytes.len() / fixed_width(element).unwrap_or(1);
                put_long_length(&mut out.tail, Some(count), self.flexible);
                out.push(bytes);
            }
            (Type::Array(element), Node::Array(v)) => {
                self.count(field, v.as_ref().map(Vec::len), out);
                for node in v.iter().flatten() {
                    self.value(field, element, node, out);
                }
            }
            (Type::Array(_), Node::Structs(v)) => {
                self.count(field, v.as_ref().map(Vec::len), out);
                for node in v.iter().flatten() {
                    self.fields(node, out);
                }
            }
            (Type::Struct(nested), Node::Struct(v)) => {
                if field.nullable.contains(self.version) {
                    out.tail.put_i8(if v.is_some() { 1 } else { -1 });
                }
                match v {
                    Some(node) => self.fields(node, out),
                    None if field.nullable.contains(self.version) => {}
                    None => self.empty(nested, out),
                }
            }
            // INVARIANT: nodes are made by `decode` and `StructNode::new` from the same layout.
            _ => debug_assert!(false, "{} holds another kind of value", field.name),
        }
    }

    /// A struct whose version cannot say null is written at its defaults; the layouts' own
    /// lifetime is not known here, so it is written field by field.
    fn empty(&self, nested: &Struct, out: &mut Segments) {
        for field in &nested.fields {
            if field.versions.contains(self.version) && !field.is_tagged(self.version) {
                let zero = match &field.kind {
                    Type::Float64 => Node::Float(0.0),
                    Type::Uuid => Node::Uuid([0; 16]),
                    Type::String | Type::Bytes | Type::Records => Node::Bytes(None),
                    Type::Array(_) => Node::Array(None),
                    Type::Struct(_) => Node::Struct(None),
                    _ => Node::Int(0),
                };
                self.value(field, &field.kind, &zero, out);
            }
        }
        if self.flexible {
            out.tail.put_u8(0);
        }
    }

    fn count(&self, field: &Field, count: Option<usize>, out: &mut Segments) {
        let nullable = field.nullable.contains(self.version);
        let count = count.or((!nullable).then_some(0));
        put_long_length(&mut out.tail, count, self.flexible);
    }

    fn or_empty<'v>(&self, field: &Field, value: &'v Option<Bytes>) -> Option<&'v Bytes> {
        static EMPTY: Bytes = Bytes::new();
        let nullable = field.nullable.contains(self.version);
        value.as_ref().or((!nullable).then_some(&EMPTY))
    }
}

fn is_default(field: &Field, value: &Node) -> bool {
    match value {
        Node::Int(v) => {
            *v == if let Default::Int(d) = field.default {
                d
            } else {
                0
            }
        }
        Node::Float(v) => *v == 0.0,
        Node::Uuid(v) => *v == [0; 16],
        Node::Bytes(None) | Node::Array(None) | Node::Structs(None) => {
            field.default == Default::Null
        }
        Node::Bytes(Some(v)) => match &field.default {
            Default::Null => false,
            Default::Text(text) => v == text.as_bytes(),
            _ => v.is_empty(),
        },
        Node::Array(Some(v)) => v.is_empty() && field.default != Default::Null,
        Node::Packed(v) => v.is_empty() && field.default != Default::Null,
        Node::Structs(Some(v)) => v.is_empty() && field.default != Default::Null,
        Node::Struct(None) => true,
        Node::Struct(Some(node)) => {
            node.unknown.is_empty()
                && node
                    .layout
                    .fields
                    .iter()
                    .zip(&node.values)
                    .all(|(f, v)| is_default(f, v))
                && field.default != Default::Null
        }
    }
}

/// Bytes of a frame's worth of segments.
pub fn total(segments: &[Bytes]) -> usize {
    segments.iter().map(Bytes::len).sum()
}

/// The bytes a compact count takes on the wire: the count plus one, as a varint.
pub fn compact_count_size(count: usize) -> usize {
    uvarint_size(count as u32 + 1)
}
