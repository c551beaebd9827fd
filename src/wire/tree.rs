//! A body as nodes that can be read by field name, changed and written again. For messages that
//! a proxy must change or build; what merely passes is walked in place (`walk`).
//!
//! Strings and bytes are slices of the frame they came from, so record bytes are never copied.
//! The number of nodes is bounded by the caller; unknown tagged fields are kept as they stand.
//! A name that the layout lacks is a bug of ours: reading it gives nothing, and debug builds
//! stop.

use bytes::Bytes;

use super::layout::{Default, Field, Struct, Type};

mod read;
mod write;

pub use read::{decode, decode_prefix};
pub use write::{Segments, compact_count_size, encode, encode_element, encode_to_bytes, total};

/// Most nodes of one request, in fields; a longer one is refused.
pub const REQUEST_NODES_MAX: usize = 400_000;
/// Most nodes of one request before its sender has proven who it is, in fields: what belongs there
/// has ten, and the rest is only read to be told that it does not belong there.
pub const UNAUTHENTICATED_NODES_MAX: usize = 1_024;
/// Most nodes of one answer, in fields; brokers of large clusters answer Metadata at length.
pub const RESPONSE_NODES_MAX: usize = 4_000_000;

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
