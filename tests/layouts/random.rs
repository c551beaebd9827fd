//! Random messages written from a layout, with an encoder of its own: it shares nothing with the
//! crate's reader but the table. Beside the bytes it notes what a walker must report.

use std::ops::Range;

use kordon::wire::layout::{Default, Field, Message, Role, Struct, Type};

/// A value at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer or bool.
    Int(i64),
    /// A double, by its bits.
    Float(u64),
    /// A UUID.
    Uuid([u8; 16]),
    /// A string, bytes or records.
    Bytes(Option<Vec<u8>>),
}

/// What a visitor of a walk sees, in order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // as in `Visitor`
pub enum Event {
    Scalar(Box<str>, Value, Range<usize>),
    Array(Box<str>, Option<usize>, Range<usize>),
    Enter(Box<str>, usize),
    Leave(Box<str>, usize),
}

impl Event {
    fn shift(&mut self, by: usize) {
        match self {
            Event::Scalar(_, _, at) | Event::Array(_, _, at) => {
                *at = at.start + by..at.end + by;
            }
            Event::Enter(_, at) | Event::Leave(_, at) => *at += by,
        }
    }
}

/// The generator of SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Of all magnitudes, the extremes included.
    fn integer(&mut self, bits: u32, signed: bool) -> i64 {
        let drop = 64 - bits;
        let raw = match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => i64::MIN as u64,
            _ => self.next(),
        };
        match signed {
            true => raw as i64 >> drop,
            false => (raw >> drop) as i64,
        }
    }

    /// Mostly short; sometimes where the encodings of lengths change.
    fn length(&mut self) -> usize {
        match self.below(60) {
            0 => 125 + self.below(5),
            1 => 300,
            2 if self.one_in(20) => 16_381 + self.below(5),
            2..=4 => 0,
            _ => self.below(9),
        }
    }
}

/// A message and what a walk of it must report.
pub struct Written {
    /// The body.
    pub bytes: Vec<u8>,
    /// The report.
    pub events: Vec<Event>,
}

/// Writes a random body.
pub fn message(message: &Message, version: i16, random: &mut Random) -> Written {
    let mut writer = Writer::new(message, version, random);
    writer.fields(&message.body);
    writer.out
}

/// Writes a body whose arrays at `depth` have `count` elements, those above it one, those below
/// it none, and everything else is as small as the layout allows.
pub fn dense(message: &Message, version: i16, depth: usize, count: usize) -> Vec<u8> {
    let mut zero = Random(0);
    let mut writer = Writer::new(message, version, &mut zero);
    writer.smallest_fields(&message.body, (depth, count));
    writer.out.bytes
}

struct Writer<'r> {
    version: i16,
    flexible: bool,
    out: Written,
    random: &'r mut Random,
}

impl<'r> Writer<'r> {
    fn new(message: &Message, version: i16, random: &'r mut Random) -> Self {
        Writer {
            version,
            flexible: message.flexible.contains(version),
            out: Written {
                bytes: Vec::new(),
                events: Vec::new(),
            },
            random,
        }
    }

    fn at(&self) -> usize {
        self.out.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            self.put(&[if value == 0 { low } else { low | 0x80 }]);
            if value == 0 {
                return;
            }
        }
    }

    /// A length or count; `wide` where the classic encoding takes four bytes.
    fn length(&mut self, length: Option<usize>, wide: bool) {
        match (self.flexible, wide) {
            (true, _) => self.varint(length.map_or(0, |n| n as u64 + 1)),
            (false, true) => self.put(&length.map_or(-1, |n| n as i32).to_be_bytes()),
            (false, false) => self.put(&length.map_or(-1, |n| n as i16).to_be_bytes()),
        }
    }

    fn fields(&mut self, layout: &Struct) {
        for field in &layout.fields {
            if field.versions.contains(self.version) && !field.is_tagged(self.version) {
                self.value(field, &field.kind);
            }
        }
        if self.flexible {
            self.tags(layout);
        }
    }

    /// Known tags at values other than their defaults, for encoders leave defaults out, and now
    /// and then tags that nobody knows.
    fn tags(&mut self, layout: &Struct) {
        let mut sections: Vec<(u32, Written)> = Vec::new();
        let mut next = 0;
        for field in &layout.fields {
            let Some((tag, _)) = field.tag else { continue };
            // Kafka refuses a tag that it knows from another version.
            next = next.max(tag + 1);
            if !field.versions.contains(self.version) || !field.is_tagged(self.version) {
                continue;
            }
            if self.random.one_in(3) {
                continue;
            }
            let default = self.apart(|w| w.default(field)).bytes;
            let section = loop {
                let section = self.apart(|w| w.value(field, &field.kind));
                if section.bytes != default {
                    break section;
                }
            };
            sections.push((tag, section));
        }
        if self.random.one_in(4) {
            let reach = if self.random.one_in(8) { 1 << 30 } else { 200 };
            let tag = next + self.random.below(reach) as u32;
            let bytes = self.random_bytes();
            sections.push((
                tag,
                Written {
                    bytes,
                    events: Vec::new(),
                },
            ));
        }
        sections.sort_by_key(|(tag, _)| *tag);
        self.varint(sections.len() as u64);
        for (tag, section) in sections {
            self.varint(tag.into());
            self.varint(section.bytes.len() as u64);
            let base = self.at();
            self.put(&section.bytes);
            self.out
                .events
                .extend(section.events.into_iter().map(|mut event| {
                    event.shift(base);
                    event
                }));
        }
    }

    fn apart(&mut self, write: impl FnOnce(&mut Writer)) -> Written {
        let mut writer = Writer {
            version: self.version,
            flexible: self.flexible,
            out: Written {
                bytes: Vec::new(),
                events: Vec::new(),
            },
            random: self.random,
        };
        write(&mut writer);
        writer.out
    }

    /// The field at its default.
    fn default(&mut self, field: &Field) {
        let null = field.default == Default::Null;
        let number = match field.default {
            Default::Int(value) => value,
            _ => 0,
        };
        match &field.kind {
            Type::Struct(nested) => {
                for field in &nested.fields {
                    if field.versions.contains(self.version) && !field.is_tagged(self.version) {
                        self.default(field);
                    }
                }
                self.varint(0);
            }
            Type::String | Type::Bytes | Type::Records | Type::Array(_) => {
                self.varint(if null { 0 } else { 1 });
            }
            Type::Uuid => self.put(&[0; 16]),
            Type::Float64 => self.put(&[0; 8]),
            kind => {
                let width = width(kind).unwrap();
                self.put(&number.to_be_bytes()[8 - width..]);
            }
        }
    }

    fn smallest_fields(&mut self, layout: &Struct, (depth, count): (usize, usize)) {
        for field in &layout.fields {
            if !field.versions.contains(self.version) || field.is_tagged(self.version) {
                continue;
            }
            let nullable = field.nullable.contains(self.version);
            match (&field.kind, depth.checked_sub(1)) {
                (Type::Struct(_), _) if nullable && count == 0 => self.put(&[0xff]),
                (Type::Struct(nested), _) => {
                    if nullable {
                        self.put(&[1]);
                    }
                    self.smallest_fields(nested, (depth, count));
                }
                (Type::Array(element), below) => {
                    let length = if below.is_some() { count.min(1) } else { count };
                    let rest = below.map_or((0, 0), |below| (below, count));
                    self.length(Some(length), true);
                    for _ in 0..length {
                        match &**element {
                            Type::Struct(nested) => self.smallest_fields(nested, rest),
                            scalar => self.smallest(scalar),
                        }
                    }
                }
                (scalar, _) => self.smallest(scalar),
            }
        }
        if self.flexible {
            self.varint(0);
        }
    }

    fn smallest(&mut self, kind: &Type) {
        match kind {
            Type::String => self.length(Some(0), false),
            Type::Bytes | Type::Records => self.length(Some(0), true),
            Type::Uuid => self.put(&[0; 16]),
            scalar => self.put(&[0; 8][..width(scalar).unwrap_or(8)]),
        }
    }

    fn value(&mut self, field: &Field, kind: &Type) {
        let start = self.at();
        let null = field.nullable.contains(self.version) && self.random.one_in(4);
        let value = match kind {
            Type::Array(element) => return self.array(field, element, null),
            Type::Struct(nested) => {
                if field.nullable.contains(self.version) {
                    self.put(&[if null { 0xff } else { 1 }]);
                    if null {
                        return;
                    }
                }
                return self.nested(field, nested);
            }
            Type::String if null => self.slice(None, false),
            Type::String => {
                let text = self.random_text();
                self.slice(Some(text.into_bytes()), false)
            }
            Type::Bytes | Type::Records if null => self.slice(None, true),
            Type::Bytes | Type::Records => {
                let bytes = self.random_bytes();
                self.slice(Some(bytes), true)
            }
            scalar => self.scalar(scalar),
        };
        let end = self.at();
        self.out
            .events
            .push(Event::Scalar(field.name.clone(), value, start..end));
    }

    fn scalar(&mut self, kind: &Type) -> Value {
        match kind {
            Type::Uuid => {
                let mut uuid = [0; 16];
                if !self.random.one_in(5) {
                    uuid[..8].copy_from_slice(&self.random.next().to_be_bytes());
                    uuid[8..].copy_from_slice(&self.random.next().to_be_bytes());
                }
                self.put(&uuid);
                Value::Uuid(uuid)
            }
            Type::Float64 => {
                let value = self.random.integer(32, true) as f64 / 1024.0;
                self.put(&value.to_be_bytes());
                Value::Float(value.to_bits())
            }
            Type::Bool => {
                let value = self.random.below(2) as u8;
                self.put(&[value]);
                Value::Int(value.into())
            }
            kind => {
                let width = width(kind).unwrap();
                let signed = !matches!(kind, Type::Uint16 | Type::Uint32);
                let value = self.random.integer(width as u32 * 8, signed);
                self.put(&value.to_be_bytes()[8 - width..]);
                Value::Int(value)
            }
        }
    }

    fn slice(&mut self, bytes: Option<Vec<u8>>, wide: bool) -> Value {
        self.length(bytes.as_ref().map(Vec::len), wide);
        self.put(bytes.as_deref().unwrap_or_default());
        Value::Bytes(bytes)
    }

    fn array(&mut self, field: &Field, element: &Type, null: bool) {
        let start = self.at();
        let long = self.random.one_in(60) && !matches!(element, Type::Struct(_));
        let count = if long { 130 } else { self.random.below(4) };
        let count = (!null).then_some(count);
        self.length(count, true);
        let at = start..self.at();
        self.out
            .events
            .push(Event::Array(field.name.clone(), count, at));
        for _ in 0..count.unwrap_or(0) {
            match element {
                Type::Struct(nested) => self.nested(field, nested),
                // Walked over in one step, unreported.
                scalar if field.role == Role::None && width(scalar).is_some() => {
                    self.scalar(scalar);
                }
                Type::Uuid if field.role == Role::None => {
                    self.scalar(&Type::Uuid);
                }
                // Elements are never null.
                Type::String => {
                    let start = self.at();
                    let text = self.random_text();
                    let value = self.slice(Some(text.into_bytes()), false);
                    let end = self.at();
                    self.out
                        .events
                        .push(Event::Scalar(field.name.clone(), value, start..end));
                }
                scalar => {
                    let start = self.at();
                    let value = self.scalar(scalar);
                    let end = self.at();
                    self.out
                        .events
                        .push(Event::Scalar(field.name.clone(), value, start..end));
                }
            }
        }
    }

    fn nested(&mut self, field: &Field, nested: &Struct) {
        let at = self.at();
        self.out.events.push(Event::Enter(field.name.clone(), at));
        self.fields(nested);
        let at = self.at();
        self.out.events.push(Event::Leave(field.name.clone(), at));
    }

    fn random_bytes(&mut self) -> Vec<u8> {
        (0..self.random.length())
            .map(|_| self.random.next() as u8)
            .collect()
    }

    fn random_text(&mut self) -> String {
        let length = self.random.length();
        let mut text = String::new();
        while text.len() < length {
            text.push(match self.random.below(12) {
                0 => 'ü',
                1 => '漢',
                2 => '🦀',
                3 => self.random.below(0x20) as u8 as char,
                _ => (b'a' + self.random.below(26) as u8) as char,
            });
        }
        text
    }
}

/// Bytes of an integer or bool.
fn width(kind: &Type) -> Option<usize> {
    Some(match kind {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 => 8,
        _ => return None,
    })
}
