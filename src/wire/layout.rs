//! What fields a message has, in which version, and what they mean: the table's notation and
//! the types it is read into. The files under `src/apis/layouts/` hold the facts, one API each;
//! they are derived from Kafka's own message definitions and CI derives them again.
//!
//! A line is `NAME TYPE VERSIONS` and then `key=value` words: `null=` versions in which null is
//! legal, `tag=N tagged=V+`, `default=`, `role=`. Two spaces of indent: a field of the struct
//! above. `[]` is an array of structs, `[]int32` an array of scalars.

use std::fmt;

/// An inclusive range of versions; empty where `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// First version.
    pub min: i16,
    /// Last version; `i16::MAX`: open.
    pub max: i16,
}

impl Versions {
    /// No version.
    pub const NONE: Versions = Versions { min: 1, max: 0 };

    /// Whether `version` lies in the range.
    #[inline]
    pub fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// The layout of one API.
#[derive(Debug)]
pub struct Layout {
    /// API key.
    pub key: i16,
    /// What clients send.
    pub request: Message,
    /// What brokers answer.
    pub response: Message,
}

/// The layout of one message in all its versions.
#[derive(Debug)]
pub struct Message {
    /// Kafka's name of the API.
    pub name: Box<str>,
    /// Stable versions.
    pub versions: Versions,
    /// Versions with compact lengths and tagged fields.
    pub flexible: Versions,
    /// The fields of the body.
    pub body: Struct,
}

/// The fields of a message or of a nested struct, in wire order.
#[derive(Debug)]
pub struct Struct {
    /// The fields.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Kafka's name.
    pub name: Box<str>,
    /// What is on the wire.
    pub kind: Type,
    /// Versions that have the field.
    pub versions: Versions,
    /// Versions in which null is legal.
    pub nullable: Versions,
    /// The tag, and the versions in which the field is a tagged one.
    pub tag: Option<(u32, Versions)>,
    /// The value where the wire has none.
    pub default: Default,
    /// What the field means to a proxy.
    pub role: Role,
}

/// What is on the wire.
#[derive(Debug)]
#[allow(missing_docs)] // the names are the protocol's
pub enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Array(Box<Type>),
    Struct(Box<Struct>),
}

/// The value of a field that the wire does not carry.
#[derive(Clone, Debug, PartialEq)]
pub enum Default {
    /// Zero, false, empty.
    Zero,
    /// Null.
    Null,
    /// A number.
    Int(i64),
    /// A string.
    Text(Box<str>),
}

macro_rules! roles {
    ($($variant:ident $name:literal,)*) => {
        /// What a field means to a proxy; the words of the `role=` key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the names are the fields'
        pub enum Role { None, $($variant,)* }

        impl Role {
            fn parse(word: &str) -> Option<Role> {
                match word { $($name => Some(Role::$variant),)* _ => None }
            }

            /// The word in the table.
            pub fn name(self) -> &'static str {
                match self { Role::None => "", $(Role::$variant => $name,)* }
            }
        }
    };
}

roles! {
    TopicName "topicName",
    TopicId "topicId",
    Partition "partition",
    GroupId "groupId",
    TransactionalId "transactionalId",
    ProducerId "producerId",
    BrokerId "brokerId",
    Host "host",
    Port "port",
    ErrorCode "errorCode",
    ErrorMessage "errorMessage",
    ThrottleMs "throttleMs",
    AuthorizedOperations "authorizedOperations",
    ReplicaId "replicaId",
    SessionId "sessionId",
    SessionEpoch "sessionEpoch",
    ClusterId "clusterId",
    ResourceType "resourceType",
    ResourceName "resourceName",
    UserName "userName",
    MemberId "memberId",
    ClientHost "clientHost",
    Rack "rack",
    TopicRegex "topicRegex",
}

impl Field {
    /// Whether the field stands in the tagged section of `version`.
    #[inline]
    pub fn is_tagged(&self, version: i16) -> bool {
        self.tag
            .is_some_and(|(_, versions)| versions.contains(version))
    }

    /// The struct behind the field: its own or that of its elements.
    pub fn nested(&self) -> Option<&Struct> {
        match &self.kind {
            Type::Struct(nested) => Some(nested),
            Type::Array(element) => match &**element {
                Type::Struct(nested) => Some(nested),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Struct {
    /// The index of the field called `name`.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| &*f.name == name)
    }

    /// The field with that tag in that version.
    #[inline]
    pub fn tagged(&self, tag: u32, version: i16) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, f)| {
            f.versions.contains(version)
                && f.tag
                    .is_some_and(|(t, versions)| t == tag && versions.contains(version))
        })
    }
}

/// A line of the table that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("layout line {line}: {what}")]
pub struct LayoutError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Reads one file of the table: a request and a response.
pub fn parse(text: &str) -> Result<Layout, LayoutError> {
    let mut lines = Vec::new();
    for (number, raw) in text.lines().enumerate() {
        let content = raw.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = (raw.len() - content.len()) / 2;
        lines.push(Line {
            number: number + 1,
            indent,
            words: content.split_whitespace().collect(),
        });
    }
    let mut rest = lines.as_slice();
    let (key, request) = parse_message(&mut rest, "request")?;
    let (_, response) = parse_message(&mut rest, "response")?;
    match rest.first() {
        Some(line) => Err(line.error("unexpected line after the response")),
        None => Ok(Layout {
            key,
            request,
            response,
        }),
    }
}

struct Line<'t> {
    number: usize,
    indent: usize,
    words: Vec<&'t str>,
}

impl Line<'_> {
    fn error(&self, what: impl fmt::Display) -> LayoutError {
        LayoutError {
            line: self.number,
            what: what.to_string(),
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

fn parse_message(rest: &mut &[Line], side: &str) -> Result<(i16, Message), LayoutError> {
    let Some((head, tail)) = rest.split_first() else {
        return Err(LayoutError {
            line: 0,
            what: format!("no {side}"),
        });
    };
    *rest = tail;
    let [word, name, key, ..] = head.words.as_slice() else {
        return Err(head.error("expected `request NAME KEY versions=… flexible=…`"));
    };
    if *word != side {
        return Err(head.error(format!("expected `{side}`, got `{word}`")));
    }
    let key = key.parse().map_err(|_| head.error("key is not a number"))?;
    let versions = head.value("versions").and_then(parse_versions);
    let flexible = match head.value("flexible") {
        Some("none") => Some(Versions::NONE),
        Some(first) => first
            .parse()
            .ok()
            .map(|min| Versions { min, max: i16::MAX }),
        None => None,
    };
    let (Some(versions), Some(flexible)) = (versions, flexible) else {
        return Err(head.error("expected versions=A-B and flexible=N"));
    };
    // The fields of both messages stand at no indent: the next head line ends them.
    let body = parse_struct(rest, 0)?;
    Ok((
        key,
        Message {
            name: (*name).into(),
            versions,
            flexible,
            body,
        },
    ))
}

fn parse_struct(rest: &mut &[Line], indent: usize) -> Result<Struct, LayoutError> {
    let mut fields = Vec::new();
    while let Some((line, tail)) = rest.split_first() {
        let is_head = line.indent == 0 && matches!(line.words[0], "request" | "response");
        if line.indent < indent || is_head {
            break;
        }
        if line.indent > indent {
            return Err(line.error("indented more than its struct"));
        }
        *rest = tail;
        fields.push(parse_field(line, rest, indent)?);
    }
    Ok(Struct { fields })
}

fn parse_field(line: &Line, rest: &mut &[Line], indent: usize) -> Result<Field, LayoutError> {
    let [name, kind, versions, words @ ..] = line.words.as_slice() else {
        return Err(line.error("expected `NAME TYPE VERSIONS`"));
    };
    let kind = match *kind {
        "struct" => Type::Struct(Box::new(parse_struct(rest, indent + 1)?)),
        "[]" => Type::Array(Box::new(Type::Struct(Box::new(parse_struct(
            rest,
            indent + 1,
        )?)))),
        other => match other.strip_prefix("[]") {
            Some(element) => scalar(element).map(|t| Type::Array(Box::new(t))),
            None => scalar(other),
        }
        .ok_or_else(|| line.error(format!("unknown type `{other}`")))?,
    };
    let versions =
        parse_versions(versions).ok_or_else(|| line.error(format!("versions `{versions}`")))?;
    let mut field = Field {
        name: (*name).into(),
        kind,
        versions,
        nullable: Versions::NONE,
        tag: None,
        default: Default::Zero,
        role: Role::None,
    };
    let mut tag = None;
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(line.error(format!("`{word}` is not key=value")));
        };
        let bad = || line.error(format!("`{word}`"));
        match key {
            "null" => field.nullable = parse_versions(value).ok_or_else(bad)?,
            "tag" => tag = Some(value.parse::<u32>().map_err(|_| bad())?),
            "tagged" => {
                let versions = parse_versions(value).ok_or_else(bad)?;
                field.tag = Some((tag.ok_or_else(bad)?, versions));
            }
            "default" => field.default = parse_default(value, &field.kind),
            "role" => field.role = Role::parse(value).ok_or_else(bad)?,
            _ => return Err(bad()),
        }
    }
    Ok(field)
}

fn parse_default(word: &str, kind: &Type) -> Default {
    match (word, kind) {
        ("null", _) => Default::Null,
        ("true", Type::Bool) => Default::Int(1),
        ("false", Type::Bool) => Default::Int(0),
        (text, Type::String) => Default::Text(text.trim_matches('"').into()),
        (number, _) => {
            let parsed = match number.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16).ok(),
                None => number.parse().ok(),
            };
            parsed.map_or(Default::Zero, Default::Int)
        }
    }
}

fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "bool" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "uint16" => Type::Uint16,
        "int32" => Type::Int32,
        "uint32" => Type::Uint32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "uuid" => Type::Uuid,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        _ => return None,
    })
}

/// Reads `3+`, `0-12` or `4`.
fn parse_versions(word: &str) -> Option<Versions> {
    if let Some(min) = word.strip_suffix('+') {
        return Some(Versions {
            min: min.parse().ok()?,
            max: i16::MAX,
        });
    }
    let (min, max) = word.split_once('-').unwrap_or((word, word));
    Some(Versions {
        min: min.parse().ok()?,
        max: max.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# a comment
request Sample 7 versions=0-3 flexible=2
Name string 0+ null=1+ role=topicName
Items [] 1+
  Index int32 1+ default=-1 role=partition
  Nested struct 3+ tag=0 tagged=3+
    Deep []int64 3+
Last bool 0-1 default=true
response Sample 7 versions=0-3 flexible=none
ErrorCode int16 0+ role=errorCode
";

    #[test]
    fn a_file_is_a_request_and_a_response() {
        let layout = parse(SAMPLE).unwrap();
        assert_eq!(layout.key, 7);
        assert_eq!(layout.request.body.fields.len(), 3);
        let items = layout.request.body.fields[1].nested().unwrap();
        assert_eq!(items.fields[0].default, Default::Int(-1));
        assert_eq!(
            items.fields[1].tag,
            Some((
                0,
                Versions {
                    min: 3,
                    max: i16::MAX
                }
            ))
        );
        assert_eq!(items.fields[1].nested().unwrap().fields.len(), 1);
        assert_eq!(layout.request.body.fields[2].default, Default::Int(1));
        assert_eq!(layout.response.flexible, Versions::NONE);
        assert_eq!(layout.response.body.fields[0].role, Role::ErrorCode);
    }

    #[test]
    fn a_bad_line_is_named() {
        let text = SAMPLE.replace("Deep []int64", "Deep []int65");
        assert_eq!(parse(&text).unwrap_err().line, 7);
        let text = SAMPLE.replace("role=partition", "role=nothing");
        assert_eq!(parse(&text).unwrap_err().line, 5);
    }
}
