//! YAML text to a tree with positions, built from the parser's events so that depth and size are
//! checked before anything grows, and no alias is ever expanded.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::problem::{Place, Problems};

/// How deep lists and mappings may nest.
pub const DEPTH_MAX: usize = 32;

/// How many nodes one file may hold.
pub const NODES_MAX: usize = 200_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text, a number, a boolean or nothing; which of them, the reader decides.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written, without duplicates.
    Mapping(Vec<Entry>),
    /// Already reported as a problem; readers say nothing more about it.
    Unreadable,
}

/// A leaf.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text after quotes, escapes and substitution.
    pub text: String,
    /// How it was written.
    pub style: Style,
    /// As it stood before `${NAME}` was substituted; messages show this one, since an environment
    /// variable may hold a secret.
    pub written: Option<String>,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: `5` is a number.
    Plain,
    /// Quoted or a block: `"5"` is text.
    Quoted,
    /// Plain, with an environment variable in it: text or number, as the reader needs it.
    Substituted,
}

/// One key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

/// Reads every document of a file. Empty documents are left out; after a syntax error the
/// documents before it are returned, and the error is in `problems`.
pub fn parse(file: &Arc<str>, text: &str, problems: &mut Problems) -> Vec<Node> {
    let mut builder = Builder {
        file,
        open: Vec::new(),
        documents: Vec::new(),
        nodes: 0,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.event(event, span.start, problems),
            Err(e) => {
                let mut place = place(file, *e.marker());
                let tab = tab_before(text, &place);
                let is_tab = e.info().starts_with("tabs");
                let is_space = e.info().contains("whitespace") && tab.is_some();
                if is_tab || is_space {
                    place.column = tab.unwrap_or(place.column);
                }
                let problem = problems.error(&place, syntax(e.info()));
                if e.info().contains("alias") {
                    problem.help("a star at the beginning needs quotes: `\"*\"`");
                } else if is_tab {
                    problem.help("indent with spaces");
                } else if is_space {
                    problem.help("this is a tab; write a space");
                }
                break;
            }
        };
        if outcome.is_none() {
            break;
        }
    }
    builder.documents
}

/// A list or mapping that is not finished yet.
enum Open {
    List(Place, Vec<Node>),
    Mapping(Mapping),
}

struct Mapping {
    place: Place,
    entries: Vec<Entry>,
    key: Option<(String, Place)>,
    /// Line of each key, to name the first of two duplicates.
    lines: HashMap<String, u32>,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    open: Vec<Open>,
    documents: Vec<Node>,
    nodes: usize,
}

impl Builder<'_> {
    /// `None`: the file is too broken to go on; the reason has been reported.
    fn event(&mut self, event: Event<'_>, at: Marker, problems: &mut Problems) -> Option<()> {
        let place = place(self.file, at);
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            problems.error(&place, format!("more than {NODES_MAX} values in one file"));
            return None;
        }
        match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    problems.error(&place, "tags are not supported");
                    return self.finished(place, Value::Unreadable, problems);
                }
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    _ => Style::Quoted,
                };
                let text = text.into_owned();
                let written = None;
                let scalar = Scalar {
                    text,
                    style,
                    written,
                };
                self.finished(place, Value::Scalar(scalar), problems)
            }
            Event::Alias(_) => {
                problems
                    .error(&place, "aliases are not supported")
                    .help("write the value out where it is used");
                self.finished(place, Value::Unreadable, problems)
            }
            Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) if tag.is_some() => {
                problems.error(&place, "tags are not supported");
                None
            }
            Event::SequenceStart(..) => self.push(Open::List(place, Vec::new()), problems),
            Event::MappingStart(..) => self.push(
                Open::Mapping(Mapping {
                    place,
                    entries: Vec::new(),
                    key: None,
                    lines: HashMap::new(),
                }),
                problems,
            ),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop()? {
                Open::List(place, items) => self.finished(place, Value::List(items), problems),
                Open::Mapping(m) => self.finished(m.place, Value::Mapping(m.entries), problems),
            },
            _ => Some(()),
        }
    }

    fn push(&mut self, open: Open, problems: &mut Problems) -> Option<()> {
        let place = match &open {
            Open::List(place, _) => place,
            Open::Mapping(m) => &m.place,
        };
        if self.open.len() == DEPTH_MAX {
            problems.error(place, format!("nested deeper than {DEPTH_MAX} levels"));
            return None;
        }
        if let Some(Open::Mapping(Mapping { key: None, .. })) = self.open.last() {
            problems.error(place, "expected text as a key, got a list or mapping");
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn finished(&mut self, place: Place, value: Value, problems: &mut Problems) -> Option<()> {
        let node = Node { place, value };
        match self.open.last_mut() {
            None => {
                if !node.is_nothing() {
                    self.documents.push(node);
                }
            }
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Mapping(mapping)) => match mapping.key.take() {
                None => {
                    let Value::Scalar(scalar) = node.value else {
                        return None; // an alias or tag as a key, reported already
                    };
                    mapping.key = Some((scalar.text, node.place));
                }
                Some((key, place)) => match mapping.lines.get(&key) {
                    Some(line) => {
                        problems
                            .error(&place, format!("duplicate key `{key}`"))
                            .help(format!("the first one is on line {line}"));
                    }
                    None => {
                        mapping.lines.insert(key.clone(), place.line);
                        let value = node;
                        mapping.entries.push(Entry { key, place, value });
                    }
                },
            },
        }
        Some(())
    }
}

/// The parser counts columns from 0.
fn place(file: &Arc<str>, at: Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        file: Arc::clone(file),
        line: number(at.line()),
        column: number(at.col().saturating_add(1)),
    }
}

/// The column of the last tab before a place: the parser reports where it stands once it has read
/// the tab, and people look for the tab.
fn tab_before(text: &str, place: &Place) -> Option<u32> {
    let line = text.lines().nth(place.line.checked_sub(1)? as usize)?;
    let columns = line.chars().zip(1..place.column);
    let tabs = columns.filter(|(c, _)| *c == '\t');
    tabs.map(|(_, column)| column).last()
}

/// The parser's sentence, without line breaks, since a message is one line.
fn syntax(info: &str) -> String {
    format!("not YAML: {}", info.replace(['\n', '\r'], " "))
}
