//! Walks a message body in place by its layout: every length is held against the bytes that
//! remain, nulls against the layout, the end against the end of the message. Allocates nothing;
//! what is found is told to a [`Visitor`] as it passes.

use std::ops::Range;

use super::layout::{Field, Message, Role, Struct, Type};
use super::primitive::{Reader, WireError};

/// A value on its way past a visitor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'b> {
    /// Any integer or bool.
    Int(i64),
    /// A double.
    Float(f64),
    /// Sixteen bytes.
    Uuid(&'b [u8; 16]),
    /// A string with a role, checked to be UTF-8; `None`: null.
    Name(Option<&'b str>),
    /// A string without a role, as it stands.
    Text(Option<&'b [u8]>),
    /// Bytes or records; `None`: null.
    Bytes(Option<&'b [u8]>),
}

/// What wants to know about the fields of a message. Offsets count from the start of the body.
pub trait Visitor<'b> {
    /// A scalar, or one element of an array of scalars that has a role.
    #[inline]
    fn scalar(
        &mut self,
        _field: &Field,
        _value: Scalar<'b>,
        _at: Range<usize>,
    ) -> Result<(), WireError> {
        Ok(())
    }

    /// An array is about to be walked; `at` is the place of its count. `None`: null.
    #[inline]
    fn array(&mut self, _field: &Field, _count: Option<usize>, _at: Range<usize>) {}

    /// A struct, or an element of an array of structs, begins.
    #[inline]
    fn enter(&mut self, _field: &Field, _at: usize) {}

    /// It ends.
    #[inline]
    fn leave(&mut self, _field: &Field, _at: usize) {}
}

/// Validates only.
pub struct Nothing;
impl Visitor<'_> for Nothing {}

/// Why a body could not be walked, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct WalkError {
    /// What is wrong.
    pub what: WireError,
    /// Offset in the body.
    pub at: usize,
}

/// Walks the whole of `body`; bytes left over are an error.
pub fn walk<'b>(
    message: &Message,
    version: i16,
    body: &'b [u8],
    visitor: &mut impl Visitor<'b>,
) -> Result<(), WalkError> {
    match walk_prefix(message, version, body, visitor)? {
        0 => Ok(()),
        left => Err(WalkError {
            what: WireError::Trailing(left),
            at: body.len() - left,
        }),
    }
}

/// Walks a message at the start of `body` and says how many bytes are left behind it. For
/// requests: a broker ignores such bytes, and librdkafka 2.16 sends three of them behind a
/// Metadata request of version 13.
pub fn walk_prefix<'b>(
    message: &Message,
    version: i16,
    body: &'b [u8],
    visitor: &mut impl Visitor<'b>,
) -> Result<usize, WalkError> {
    if !message.versions.contains(version) {
        return Err(WalkError {
            what: WireError::Version(version),
            at: 0,
        });
    }
    let mut walker = Walker::new(message, version, body);
    let walked = walker.fields(&message.body, visitor);
    walked.map_err(|what| walker.error(what))?;
    Ok(walker.reader.remaining())
}

struct Walker<'b> {
    reader: Reader<'b>,
    /// Offset of the reader's first byte in the body: tagged fields are read by a reader of
    /// their own, so that none can reach past the size it states.
    base: usize,
    version: i16,
    flexible: bool,
}

impl<'b> Walker<'b> {
    fn new(message: &Message, version: i16, body: &'b [u8]) -> Self {
        let flexible = message.flexible.contains(version);
        Walker {
            reader: Reader::new(body),
            base: 0,
            version,
            flexible,
        }
    }

    fn error(&self, what: WireError) -> WalkError {
        WalkError {
            what,
            at: self.at(),
        }
    }

    #[inline]
    fn at(&self) -> usize {
        self.base + self.reader.position()
    }

    fn fields(&mut self, nested: &Struct, visitor: &mut impl Visitor<'b>) -> Result<(), WireError> {
        for field in &nested.fields {
            if field.versions.contains(self.version) && !field.is_tagged(self.version) {
                self.value(field, &field.kind, visitor)?;
            }
        }
        if self.flexible {
            self.tags(nested, visitor)?;
        }
        Ok(())
    }

    fn tags(&mut self, nested: &Struct, visitor: &mut impl Visitor<'b>) -> Result<(), WireError> {
        let (base, version, flexible) = (self.base, self.version, self.flexible);
        self.reader.tags(|tag, bytes, start| {
            let Some((_, field)) = nested.tagged(tag, version) else {
                return Ok(());
            };
            let reader = Reader::new(bytes);
            let mut inner = Walker {
                reader,
                base: base + start,
                version,
                flexible,
            };
            inner.value(field, &field.kind, visitor)?;
            match inner.reader.remaining() {
                0 => Ok(()),
                _ => Err(WireError::TagSize(tag)),
            }
        })
    }

    fn value(
        &mut self,
        field: &Field,
        kind: &Type,
        visitor: &mut impl Visitor<'b>,
    ) -> Result<(), WireError> {
        let start = self.at();
        let scalar = match kind {
            Type::Bool => Scalar::Int(i64::from(self.reader.i8()? != 0)),
            Type::Int8 => Scalar::Int(self.reader.i8()?.into()),
            Type::Int16 => Scalar::Int(self.reader.i16()?.into()),
            Type::Uint16 => Scalar::Int(self.reader.u16()?.into()),
            Type::Int32 => Scalar::Int(self.reader.i32()?.into()),
            Type::Uint32 => Scalar::Int(self.reader.u32()?.into()),
            Type::Int64 => Scalar::Int(self.reader.i64()?),
            Type::Float64 => Scalar::Float(self.reader.f64()?),
            Type::Uuid => {
                let bytes = self.reader.take(16)?;
                Scalar::Uuid(bytes.first_chunk().ok_or(WireError::Truncated)?)
            }
            Type::String => {
                let length = self.reader.string_length(self.flexible)?;
                let text = self.nullable_bytes(field, length)?;
                if field.role == Role::None {
                    Scalar::Text(text)
                } else {
                    let name = text.map(std::str::from_utf8).transpose();
                    Scalar::Name(name.map_err(|_| WireError::Utf8)?)
                }
            }
            Type::Bytes | Type::Records => {
                let length = self.reader.long_length(self.flexible)?;
                Scalar::Bytes(self.nullable_bytes(field, length)?)
            }
            Type::Array(element) => return self.array(field, element, visitor),
            Type::Struct(nested) => {
                let nullable = field.nullable.contains(self.version);
                if nullable && self.reader.i8()? < 0 {
                    return Ok(());
                }
                visitor.enter(field, self.at());
                self.fields(nested, visitor)?;
                visitor.leave(field, self.at());
                return Ok(());
            }
        };
        visitor.scalar(field, scalar, start..self.at())
    }

    fn nullable_bytes(
        &mut self,
        field: &Field,
        length: Option<usize>,
    ) -> Result<Option<&'b [u8]>, WireError> {
        match length {
            Some(length) => self.reader.take(length).map(Some),
            None if field.nullable.contains(self.version) => Ok(None),
            None => Err(WireError::Null),
        }
    }

    fn array(
        &mut self,
        field: &Field,
        element: &Type,
        visitor: &mut impl Visitor<'b>,
    ) -> Result<(), WireError> {
        let start = self.at();
        let count = self.reader.long_length(self.flexible)?;
        visitor.array(field, count, start..self.at());
        let Some(count) = count else {
            let legal = field.nullable.contains(self.version);
            return if legal { Ok(()) } else { Err(WireError::Null) };
        };
        // Every element takes at least one byte, so a count above what remains is a lie; this
        // bounds the loop by bytes that really arrived.
        if count > self.reader.remaining() {
            return Err(WireError::Length(count as i64));
        }
        let width = fixed_width(element);
        if let (Some(width), Role::None) = (width, field.role) {
            let length = count.checked_mul(width).ok_or(WireError::Truncated)?;
            self.reader.take(length)?;
            return Ok(());
        }
        for _ in 0..count {
            if let Type::Struct(nested) = element {
                visitor.enter(field, self.at());
                self.fields(nested, visitor)?;
                visitor.leave(field, self.at());
            } else {
                self.value(field, element, visitor)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a scalar whose size does not depend on its value.
pub(super) fn fixed_width(kind: &Type) -> Option<usize> {
    Some(match kind {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        Type::String | Type::Bytes | Type::Records | Type::Array(_) | Type::Struct(_) => {
            return None;
        }
    })
}
