//! Avro, read without building values: a schema is compiled once into a flat table, and a payload
//! is walked along it. What passes decodes exactly and leaves nothing over.
//!
//! Stricter than the usual decoders where two of them would disagree: varints are no longer than
//! their type needs at most, a block's byte size is true, a string is UTF-8, the end of input is
//! never a default. Logical types are checked as the type below them.

use std::collections::HashMap;
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamespaceRef, UuidSchema};
use thiserror::Error;

mod walk;

#[cfg(test)]
mod tests;

/// How deep values may nest; only a schema that refers to itself can reach it.
pub const DEPTH_MAX: u32 = 128;
/// Items of arrays and maps that take no bytes (nulls) allowed in one payload: they cost the
/// sender nothing and a consumer an object each.
pub const EMPTY_ITEMS_MAX: u32 = 65_536;
/// Most types and fields one schema may have.
pub const NODES_MAX: usize = 20_000;
/// Most characters of a path in a message; the rest is cut off.
pub const PATH_CHARS_MAX: usize = 200;

/// Why a schema text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// Not JSON, or not Avro; the text says why.
    #[error("not an Avro schema: {0}")]
    Parse(String),
    /// A type that has no finite value, such as a record that holds itself.
    #[error("`{0}` contains itself without an end")]
    Endless(String),
    /// More than [`NODES_MAX`].
    #[error("the schema has more than {NODES_MAX} types and fields")]
    TooLarge,
}

/// A payload that its schema does not describe. Holds no bytes of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where: `$` is the whole, then field names, `[3]` for the fourth item of an array, `{3}`
    /// for the fourth entry of a map.
    pub path: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}", self.path, self.expected)
    }
}

type NodeId = u32;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    /// Takes no bytes and is always right: null, `fixed` of size 0, records of these only.
    Nothing,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(u32),
    Enum(u32),
    Array(NodeId),
    Map(NodeId),
    /// From and length in `branches`.
    Union(u32, u32),
    /// From and length in `fields`.
    Record(u32, u32),
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    node: NodeId,
}

/// A schema, ready to walk payloads along.
#[derive(Debug)]
pub struct Compiled {
    name: Option<Box<str>>,
    root: NodeId,
    nodes: Vec<Node>,
    fields: Vec<Field>,
    branches: Vec<NodeId>,
    /// Fewest bytes a value of each node takes.
    least_bytes: Vec<u64>,
}

impl Compiled {
    /// Parses and compiles a schema text (JSON). References must be to types of the same text.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let schema = Schema::parse_str(text).map_err(|e| SchemaError::Parse(one_line(&e)))?;
        let mut compiler = Compiler::default();
        let root = compiler.node(&schema, None)?;
        let name = schema.name().map(|n| n.fullname(None).into());
        compiler.finish(name, root)
    }

    /// The full name of the outermost type, if it is a named one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether `payload` is exactly one value of the schema. Does not allocate when it is.
    pub fn validate(&self, payload: &[u8]) -> Result<(), Violation> {
        walk::walk(self, payload)
    }
}

/// Whether `payload` is exactly one value of `schema`; see [`Compiled::validate`].
pub fn validate(schema: &Compiled, payload: &[u8]) -> Result<(), Violation> {
    schema.validate(payload)
}

fn one_line(error: &apache_avro::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<Node>,
    fields: Vec<Field>,
    branches: Vec<NodeId>,
    named: HashMap<Name, NodeId>,
    names: Vec<(NodeId, String)>,
}

impl Compiler {
    /// Adds a node; the depth of `schema` is bounded by the JSON parser's own limit.
    fn node(&mut self, schema: &Schema, within: NamespaceRef) -> Result<NodeId, SchemaError> {
        if let Schema::Ref { name } = schema {
            let full = name.fully_qualified_name(within);
            return self.named.get(full.as_ref()).copied().ok_or_else(|| {
                SchemaError::Parse(format!("type `{}` is not defined", full.fullname(None)))
            });
        }
        let id = self.nodes.len();
        if id + self.fields.len() + self.branches.len() >= NODES_MAX {
            return Err(SchemaError::TooLarge);
        }
        let id = id as NodeId;
        self.nodes.push(Node::Nothing);
        let node = match schema {
            Schema::Null | Schema::Ref { .. } => Node::Nothing,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::String,
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => self.fixed(id, &fixed.name, fixed.size, within),
            },
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.fixed(id, &fixed.name, fixed.size, within)
            }
            Schema::Enum(symbols) => {
                self.define(id, &symbols.name, within);
                Node::Enum(symbols.symbols.len() as u32)
            }
            Schema::Array(array) => Node::Array(self.node(&array.items, within)?),
            Schema::Map(map) => Node::Map(self.node(&map.types, within)?),
            Schema::Union(union) => {
                let ids = union
                    .variants()
                    .iter()
                    .map(|v| self.node(v, within))
                    .collect::<Result<Vec<_>, _>>()?;
                let from = self.branches.len() as u32;
                self.branches.extend_from_slice(&ids);
                Node::Union(from, ids.len() as u32)
            }
            Schema::Record(record) => {
                self.define(id, &record.name, within);
                let full = record.name.fully_qualified_name(within).into_owned();
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push(Field {
                        name: field.name.as_str().into(),
                        node: self.node(&field.schema, full.namespace())?,
                    });
                }
                let from = self.fields.len() as u32;
                let count = fields.len() as u32;
                self.fields.append(&mut fields);
                Node::Record(from, count)
            }
        };
        self.nodes[id as usize] = node;
        Ok(id)
    }

    fn fixed(&mut self, id: NodeId, name: &Name, size: usize, within: NamespaceRef) -> Node {
        self.define(id, name, within);
        // a size beyond 4 GiB cannot be met by any payload, and neither can the largest u32
        Node::Fixed(u32::try_from(size).unwrap_or(u32::MAX))
    }

    fn define(&mut self, id: NodeId, name: &Name, within: NamespaceRef) {
        let full = name.fully_qualified_name(within).into_owned();
        self.names.push((id, full.fullname(None)));
        self.named.insert(full, id);
    }

    fn finish(mut self, name: Option<Box<str>>, root: NodeId) -> Result<Compiled, SchemaError> {
        let least_bytes = self.least_bytes();
        if let Some((_, name)) = self
            .names
            .iter()
            .find(|(id, _)| least_bytes[*id as usize] == u64::MAX)
        {
            return Err(SchemaError::Endless(name.clone()));
        }
        for (node, least) in self.nodes.iter_mut().zip(&least_bytes) {
            if *least == 0 {
                *node = Node::Nothing;
            }
        }
        Ok(Compiled {
            name,
            root,
            nodes: self.nodes,
            fields: self.fields,
            branches: self.branches,
            least_bytes,
        })
    }

    /// The least fixpoint from above: `u64::MAX` stays where no finite value exists.
    fn least_bytes(&self) -> Vec<u64> {
        let mut least = vec![u64::MAX; self.nodes.len()];
        loop {
            let mut changed = false;
            // inner types were added after the types that hold them
            for (id, node) in self.nodes.iter().enumerate().rev() {
                let bytes = match *node {
                    Node::Nothing => 0,
                    Node::Boolean | Node::Int | Node::Long | Node::Bytes | Node::String => 1,
                    Node::Enum(_) | Node::Array(_) | Node::Map(_) => 1,
                    Node::Float => 4,
                    Node::Double => 8,
                    Node::Fixed(size) => u64::from(size),
                    Node::Union(from, count) => slice(&self.branches, from, count)
                        .iter()
                        .map(|b| least[*b as usize])
                        .min()
                        .map_or(u64::MAX, |n| n.saturating_add(1)),
                    Node::Record(from, count) => slice(&self.fields, from, count)
                        .iter()
                        .fold(0, |sum: u64, f| sum.saturating_add(least[f.node as usize])),
                };
                if bytes < least[id] {
                    least[id] = bytes;
                    changed = true;
                }
            }
            if !changed {
                return least;
            }
        }
    }
}

fn slice<T>(of: &[T], from: u32, count: u32) -> &[T] {
    of.get(from as usize..from as usize + count as usize)
        .unwrap_or(&[])
}
