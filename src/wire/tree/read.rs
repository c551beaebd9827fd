//! Reads a body into nodes.

use bytes::Bytes;

use super::super::layout::{Field, Message, Role, Struct, Type};
use super::super::primitive::{Reader, WireError};
use super::super::walk::fixed_width;
use super::{Node, StructNode, default_node};

/// Fields that a partition or a name of a list of such counts for: an answer may have to hold a
/// struct for each, however few bytes it took to ask.
const LISTED_NODES: usize = 4;

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
/// [`walk_prefix`](super::super::walk::walk_prefix).
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
