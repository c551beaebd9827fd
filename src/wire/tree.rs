//! A body as nodes that can be read by field name, changed and written again. For messages that
//! a proxy must change or build; what merely passes is walked in place (`walk`).
//!
//! Strings and bytes are slices of the frame they came from, so record bytes are never copied.
//! The number of nodes is bounded by the caller; unknown tagged fields are kept as they stand.
//! A name that the layout lacks is a bug of ours: reading it gives nothing, and debug builds
//! stop.

use bytes::{BufMut, Bytes, BytesMut};

use super::layout::{Default, Field, Message, Role, Struct, Type};
use super::primitive::uvarint_size;
use super::primitive::{Reader, WireError, put_long_length, put_string_length, put_uvarint};
use super::walk::fixed_width;

/// Most nodes of one request, in fields; a longer one is refused.
pub const REQUEST_NODES_MAX: usize = 400_000;
/// Most nodes of one answer, in fields; brokers of large clusters answer Metadata at length.
pub const RESPONSE_NODES_MAX: usize = 4_000_000;
/// Fields that a partition or a name of a list of such counts for: an answer may have to hold a
/// struct for each, however few bytes it took to ask.
const LISTED_NODES: usize = 4;
/// Bytes from which a value becomes a segment of its own instead of being copied.
const SEGMENT_BYTES_MIN: usize = 4096;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Any integer or bool.
    Int(i64),
    /// A double.
    Float(f64),
    /// Sixteen bytes.
    Uuid([u8; 16]),
    /// A string, bytes or records; `None`: null.
    Bytes(Option<Bytes>),
    /// An array of scalars; `None`: null.
    Array(Option<Vec<Node>>),
    /// An array of scalars of fixed width, as on the wire.
    Packed(Bytes),
    /// An array of structs; `None`: null.
    Structs(Option<Vec<StructNode>>),
    /// A struct; `None`: null.
    Struct(Option<Box<StructNode>>),
}

/// The fields of a struct.
#[derive(Clone, Debug)]
pub struct StructNode {
    layout: &'static Struct,
    values: Vec<Node>,
    unknown: Vec<(u32, Bytes)>,
}

impl PartialEq for StructNode {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.layout, other.layout)
            && self.values == other.values
            && self.unknown == other.unknown
    }
}

impl StructNode {
    /// Every field at its default.
    pub fn new(layout: &'static Struct) -> Self {
        let values = layout.fields.iter().map(default_node).collect();
        StructNode {
            layout,
            values,
            unknown: Vec::new(),
        }
    }

    /// About how many bytes it takes, without those of the frame it came from.
    pub fn memory(&self) -> usize {
        let own = size_of::<StructNode>() + self.values.len() * size_of::<Node>();
        let values = self.values.iter().map(|value| match value {
            Node::Array(Some(elements)) => elements.len() * size_of::<Node>(),
            Node::Structs(Some(elements)) => elements.iter().map(StructNode::memory).sum(),
            Node::Struct(Some(nested)) => nested.memory(),
            _ => 0,
        });
        own + values.sum::<usize>()
    }

    /// Whether the layout has a field of that name.
    pub fn has(&self, name: &str) -> bool {
        self.layout.index(name).is_some()
    }

    /// The layout.
    pub fn layout(&self) -> &'static Struct {
        self.layout
    }

    /// The value at an index of the layout.
    pub fn at(&self, index: usize) -> Option<&Node> {
        self.values.get(index)
    }

    /// The value at an index of the layout, to change.
    pub fn at_mut(&mut self, index: usize) -> Option<&mut Node> {
        self.values.get_mut(index)
    }

    fn node(&self, name: &str) -> Option<&Node> {
        let index = self.layout.index(name);
        debug_assert!(index.is_some(), "layout has no field {name}");
        self.values.get(index?)
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        let index = self.layout.index(name);
        debug_assert!(index.is_some(), "layout has no field {name}");
        self.values.get_mut(index?)
    }

    /// An integer or bool; 0 if there is none.
    pub fn int(&self, name: &str) -> i64 {
        match self.node(name) {
            Some(Node::Int(value)) => *value,
            _ => 0,
        }
    }

    /// A string; `None`: null.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.node(name) {
            Some(node) => node.text(),
            None => None,
        }
    }

    /// Bytes; `None`: null.
    pub fn bytes(&self, name: &str) -> Option<&Bytes> {
        match self.node(name) {
            Some(Node::Bytes(bytes)) => bytes.as_ref(),
            _ => None,
        }
    }

    /// A UUID; zero if there is none.
    pub fn uuid(&self, name: &str) -> [u8; 16] {
        match self.node(name) {
            Some(Node::Uuid(uuid)) => *uuid,
            _ => [0; 16],
        }
    }

    /// The elements of an array of structs; empty for null.
    pub fn structs(&self, name: &str) -> &[StructNode] {
        match self.node(name) {
            Some(Node::Structs(Some(elements))) => elements,
            _ => &[],
        }
    }

    /// The elements of an array of structs, to change; null becomes empty.
    pub fn structs_mut(&mut self, name: &str) -> &mut Vec<StructNode> {
        match self.node_mut(name) {
            Some(Node::Structs(elements)) => elements.get_or_insert_default(),
            // INVARIANT: names are those of the layout table, checked by its tests.
            _ => unreachable!("layout has no array of structs {name}"),
        }
    }

    /// The strings of an array of strings; empty for null.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        match self.node(name) {
            Some(Node::Array(Some(elements))) => elements.as_slice(),
            _ => &[],
        }
        .iter()
        .map(|node| node.text().unwrap_or_default())
    }

    /// The elements of an array of scalars, to change; null becomes empty.
    pub fn array_mut(&mut self, name: &str) -> &mut Vec<Node> {
        match self.node_mut(name) {
            Some(Node::Array(elements)) => elements.get_or_insert_default(),
            _ => unreachable!("layout has no array of scalars {name}"),
        }
    }

    /// A nested struct; `None`: null.
    pub fn nested(&self, name: &str) -> Option<&StructNode> {
        match self.node(name) {
            Some(Node::Struct(nested)) => nested.as_deref(),
            _ => None,
        }
    }

    /// A nested struct, to change.
    pub fn nested_mut(&mut self, name: &str) -> Option<&mut StructNode> {
        match self.node_mut(name) {
            Some(Node::Struct(nested)) => nested.as_deref_mut(),
            _ => None,
        }
    }

    /// Whether the value is null.
    pub fn is_null(&self, name: &str) -> bool {
        matches!(
            self.node(name),
            None | Some(
                Node::Bytes(None) | Node::Array(None) | Node::Structs(None) | Node::Struct(None)
            )
        )
    }

    /// Sets an integer or bool.
    pub fn set_int(&mut self, name: &str, value: i64) -> &mut Self {
        self.set(name, Node::Int(value))
    }

    /// Sets a string.
    pub fn set_text(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        self.set(
            name,
            Node::Bytes(value.map(|v| Bytes::copy_from_slice(v.as_bytes()))),
        )
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: Node) -> &mut Self {
        if let Some(node) = self.node_mut(name) {
            *node = value;
        }
        self
    }

    /// A new element, at its defaults, for the array of structs `name`.
    pub fn element(&self, name: &str) -> StructNode {
        let field = self.layout.index(name).map(|i| &self.layout.fields[i]);
        match field.and_then(Field::nested) {
            Some(nested) => StructNode::new(nested),
            None => unreachable!("layout has no struct {name}"),
        }
    }
}

impl Node {
    /// The value as a string; `None`: null, not a string, or not UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Node::Bytes(Some(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

fn default_node(field: &'static Field) -> Node {
    let null = field.default == Default::Null;
    match &field.kind {
        Type::Float64 => Node::Float(0.0),
        Type::Uuid => Node::Uuid([0; 16]),
        Type::String | Type::Bytes | Type::Records => match &field.default {
            Default::Null => Node::Bytes(None),
            Default::Text(text) => Node::Bytes(Some(Bytes::from_static(text.as_bytes()))),
            _ => Node::Bytes(Some(Bytes::new())),
        },
        Type::Array(element) => match &**element {
            Type::Struct(_) => Node::Structs((!null).then(Vec::new)),
            _ => Node::Array((!null).then(Vec::new)),
        },
        Type::Struct(nested) => Node::Struct((!null).then(|| Box::new(StructNode::new(nested)))),
        _ => Node::Int(match field.default {
            Default::Int(value) => value,
            _ => 0,
        }),
    }
}

/// Reads a body; `nodes_max` bounds what it may become in memory. Bytes left over are an error.
pub fn decode(
    message: &'static Message,
    version: i16,
    body: &Bytes,
    nodes_max: usize,
) -> Result<StructNode, WireError> {
    match decode_prefix(message, version, body, nodes_max)? {
        (node, 0) => Ok(node),
        (_, left) => Err(WireError::Trailing(left)),
    }
}

/// Reads a message at the start of `body` and says how many bytes are left behind it; see
/// [`walk_prefix`](super::walk::walk_prefix).
pub fn decode_prefix(
    message: &'static Message,
    version: i16,
    body: &Bytes,
    nodes_max: usize,
) -> Result<(StructNode, usize), WireError> {
    if !message.versions.contains(version) {
        return Err(WireError::Version(version));
    }
    let flexible = message.flexible.contains(version);
    let mut decoder = Decoder {
        version,
        flexible,
        left: nodes_max,
        nodes_max,
    };
    let mut reader = Reader::new(body);
    let node = decoder.fields(&message.body, &mut reader, body)?;
    Ok((node, reader.remaining()))
}

struct Decoder {
    version: i16,
    flexible: bool,
    left: usize,
    nodes_max: usize,
}

impl Decoder {
    fn spend(&mut self, nodes: usize) -> Result<(), WireError> {
        self.left = self
            .left
            .checked_sub(nodes)
            .ok_or(WireError::Nodes(self.nodes_max))?;
        Ok(())
    }

    fn fields(
        &mut self,
        layout: &'static Struct,
        reader: &mut Reader,
        source: &Bytes,
    ) -> Result<StructNode, WireError> {
        self.spend(layout.fields.len() + 1)?;
        let mut values = Vec::with_capacity(layout.fields.len());
        for field in &layout.fields {
            let present = field.versions.contains(self.version) && !field.is_tagged(self.version);
            values.push(match present {
                true => self.value(field, &field.kind, reader, source)?,
                false => default_node(field),
            });
        }
        let mut unknown = Vec::new();
        if self.flexible {
            reader.tags(|tag, bytes, start| {
                let source = source.slice(start..start + bytes.len());
                let Some((index, field)) = layout.tagged(tag, self.version) else {
                    self.spend(1)?;
                    unknown.push((tag, source));
                    return Ok(());
                };
                let mut inner = Reader::new(bytes);
                values[index] = self.value(field, &field.kind, &mut inner, &source)?;
                match inner.remaining() {
                    0 => Ok(()),
                    _ => Err(WireError::TagSize(tag)),
                }
            })?;
        }
        Ok(StructNode {
            layout,
            values,
            unknown,
        })
    }

    fn value(
        &mut self,
        field: &'static Field,
        kind: &'static Type,
        reader: &mut Reader,
        source: &Bytes,
    ) -> Result<Node, WireError> {
        Ok(match kind {
            Type::Bool => Node::Int(i64::from(reader.i8()? != 0)),
            Type::Int8 => Node::Int(reader.i8()?.into()),
            Type::Int16 => Node::Int(reader.i16()?.into()),
            Type::Uint16 => Node::Int(reader.u16()?.into()),
            Type::Int32 => Node::Int(reader.i32()?.into()),
            Type::Uint32 => Node::Int(reader.u32()?.into()),
            Type::Int64 => Node::Int(reader.i64()?),
            Type::Float64 => Node::Float(reader.f64()?),
            Type::Uuid => Node::Uuid(*reader.take(16)?.first_chunk().ok_or(WireError::Truncated)?),
            Type::String => {
                let length = reader.string_length(self.flexible)?;
                let node = self.bytes(field, length, reader, source)?;
                // As in the walker: a broker replaces what is not UTF-8 and goes on with a name
                // that nobody here has judged.
                if let (Node::Bytes(Some(text)), true) = (&node, field.role != Role::None) {
                    std::str::from_utf8(text).map_err(|_| WireError::Utf8)?;
                }
                node
            }
            Type::Bytes | Type::Records => {
                let length = reader.long_length(self.flexible)?;
                self.bytes(field, length, reader, source)?
            }
            Type::Array(element) => self.array(field, element, reader, source)?,
            Type::Struct(nested) => {
                if field.nullable.contains(self.version) && reader.i8()? < 0 {
                    return Ok(Node::Struct(None));
                }
                Node::Struct(Some(Box::new(self.fields(nested, reader, source)?)))
            }
        })
    }

    fn bytes(
        &mut self,
        field: &Field,
        length: Option<usize>,
        reader: &mut Reader,
        source: &Bytes,
    ) -> Result<Node, WireError> {
        match length {
            Some(length) => {
                let start = reader.position();
                reader.take(length)?;
                Ok(Node::Bytes(Some(source.slice(start..start + length))))
            }
            None if field.nullable.contains(self.version) => Ok(Node::Bytes(None)),
            None => Err(WireError::Null),
        }
    }

    fn array(
        &mut self,
        field: &'static Field,
        element: &'static Type,
        reader: &mut Reader,
        source: &Bytes,
    ) -> Result<Node, WireError> {
        let count = reader.long_length(self.flexible)?;
        let structs = matches!(element, Type::Struct(_));
        let Some(count) = count else {
            return match field.nullable.contains(self.version) {
                true if structs => Ok(Node::Structs(None)),
                true => Ok(Node::Array(None)),
                false => Err(WireError::Null),
            };
        };
        // As in the walker: an element takes at least one byte.
        if count > reader.remaining() {
            return Err(WireError::Length(count as i64));
        }
        if let Some(width) = fixed_width(element) {
            let length = count.checked_mul(width).ok_or(WireError::Truncated)?;
            if field.role == Role::Partition {
                self.spend(count.saturating_mul(LISTED_NODES))?;
            }
            let start = reader.position();
            reader.take(length)?;
            return Ok(Node::Packed(source.slice(start..start + length)));
        }
        if let Type::Struct(nested) = element {
            let mut elements = Vec::new();
            for _ in 0..count {
                elements.push(self.fields(nested, reader, source)?);
            }
            return Ok(Node::Structs(Some(elements)));
        }
        self.spend(count.saturating_mul(LISTED_NODES))?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value(field, element, reader, source)?);
        }
        Ok(Node::Array(Some(elements)))
    }
}

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
