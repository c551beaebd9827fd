//! Schemas from a directory, as `schemas: {directory: DIR}` names it: an index and the schema
//! files beside it, for development, tests and clusters without a registry.
//!
//! `DIR/subjects.json` is strict JSON; an unknown key is an error:
//!
//! ```json
//! {"subjects": [
//!   {"subject": "user.authenticated-value", "version": 1, "id": 1, "file": "user.avsc"}
//! ]}
//! ```
//!
//! * `subject`: the subject, as producers' serializers name it.
//! * `version`: from 1; each version of a subject stands once.
//! * `id`: from 1, the id in Confluent's framing. One id is one schema: it may stand under several
//!   subjects, but then with the same schema.
//! * `file`: an Avro schema (`.avsc`), relative to `DIR` and inside it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path};
use std::sync::Arc;

use serde::Deserialize;

use super::avro::Compiled;
use crate::problem::{Place, Problems};

/// The index's name.
pub const INDEX_FILE: &str = "subjects.json";
/// Largest index or schema file, bytes.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most entries of an index.
pub const ENTRIES_MAX: usize = 10_000;

/// One registered schema.
#[derive(Debug)]
pub struct Registered {
    /// The id in Confluent's framing.
    pub id: i32,
    /// The schema.
    pub schema: Compiled,
    /// Its text as it stands in the file.
    pub text: Box<str>,
}

/// The registered schemas by id and by subject. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_id: BTreeMap<i32, Arc<Registered>>,
    // each with its versions
    subjects: HashMap<Box<str>, BTreeMap<u32, i32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    subjects: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    subject: String,
    version: u32,
    id: i32,
    file: String,
}

impl Directory {
    /// Reads the index in `dir` and every file it names. Mistakes go to `problems`, all of them;
    /// what stands in no mistake is usable.
    pub fn load(dir: &Path, problems: &mut Problems) -> Self {
        let index_path = dir.join(INDEX_FILE);
        let file: Arc<str> = index_path.to_string_lossy().into();
        let place = |line, column| Place {
            file: Arc::clone(&file),
            line,
            column,
        };
        let text = match read(&index_path) {
            Ok(text) => text,
            Err(why) => {
                problems
                    .error_without_place(format!("cannot read `{file}`: {why}"))
                    .help(format!(
                        "a schema directory needs `{INDEX_FILE}`, which lists its subjects"
                    ));
                return Self::default();
            }
        };
        let index: Index = match serde_json::from_str(&text) {
            Ok(index) => index,
            Err(e) => {
                let at = place(e.line().max(1) as u32, e.column().max(1) as u32);
                problems.error(&at, reason(&e));
                return Self::default();
            }
        };
        if index.subjects.len() > ENTRIES_MAX {
            problems.error(&place(1, 1), format!("more than {ENTRIES_MAX} subjects"));
            return Self::default();
        }
        let places = entry_places(&text);
        let mut loading = Loading::default();
        for (i, entry) in index.subjects.iter().enumerate() {
            let (line, column) = places.get(i).copied().unwrap_or((1, 1));
            loading.entry(dir, entry, &place(line, column), problems);
        }
        loading.directory
    }

    /// The schema with this id.
    pub fn schema(&self, id: i32) -> Option<&Arc<Registered>> {
        self.by_id.get(&id)
    }

    /// Every schema.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.by_id.values()
    }

    /// The subjects, in no particular order.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(|s| &**s)
    }

    /// Whether any version of `subject` has the schema with this id.
    pub fn is_registered(&self, subject: &str, id: i32) -> bool {
        self.subjects
            .get(subject)
            .is_some_and(|versions| versions.values().any(|v| *v == id))
    }

    /// The schemas of a subject by version, oldest first.
    pub fn versions(&self, subject: &str) -> impl Iterator<Item = (u32, &Arc<Registered>)> {
        self.subjects
            .get(subject)
            .into_iter()
            .flatten()
            .filter_map(|(version, id)| Some((*version, self.by_id.get(id)?)))
    }
}

#[derive(Default)]
struct Loading {
    directory: Directory,
    // the meaning of each id: the text without what does not matter
    texts: HashMap<i32, String>,
}

impl Loading {
    fn entry(&mut self, dir: &Path, entry: &Entry, at: &Place, problems: &mut Problems) {
        let Entry {
            subject,
            version,
            id,
            file,
        } = entry;
        if subject.is_empty() {
            problems.error(at, "`subject` is empty");
        }
        if *version == 0 {
            problems.error(at, "`version` is 0, expected 1 or more");
        }
        if *id <= 0 {
            problems.error(at, format!("`id` is {id}, expected 1 or more"));
        }
        let inside = Path::new(file)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if file.is_empty() || !inside {
            problems
                .error(at, format!("`{file}` is not a file inside the directory"))
                .help("`file` is relative to the directory of the index, without `..`");
            return;
        }
        let path = dir.join(file);
        let text = match read(&path) {
            Ok(text) => text,
            Err(why) => {
                problems.error(at, format!("cannot read `{file}`: {why}"));
                return;
            }
        };
        let Some(normal) = normal_json(&text, &path, problems) else {
            return;
        };
        if let Some(known) = self.texts.get(id) {
            if *known != normal {
                problems
                    .error(at, format!("id {id} already stands for another schema"))
                    .help("one id is one schema; give this one an id of its own");
                return;
            }
        } else {
            match Compiled::parse(&text) {
                Ok(schema) => {
                    let registered = Registered {
                        id: *id,
                        schema,
                        text: text.into(),
                    };
                    self.directory.by_id.insert(*id, Arc::new(registered));
                    self.texts.insert(*id, normal);
                }
                Err(e) => {
                    let place = Place {
                        file: path.to_string_lossy().into(),
                        line: 1,
                        column: 1,
                    };
                    problems.error(&place, e.to_string());
                    return;
                }
            }
        }
        let versions = self
            .directory
            .subjects
            .entry(subject.as_str().into())
            .or_default();
        if versions.insert(*version, *id).is_some() {
            problems.error(
                at,
                format!("version {version} of subject `{subject}` stands twice"),
            );
        }
    }
}

/// The schema's JSON without white space and with its keys in order, for comparing.
fn normal_json(text: &str, path: &Path, problems: &mut Problems) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => Some(value.to_string()),
        Err(e) => {
            let place = Place {
                file: path.to_string_lossy().into(),
                line: e.line().max(1) as u32,
                column: e.column().max(1) as u32,
            };
            problems.error(&place, format!("not an Avro schema: {}", reason(&e)));
            None
        }
    }
}

/// The message without the place, which `Place` already says.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let cut = text.rfind(" at line ").unwrap_or(text.len());
    text[..cut].to_owned()
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| what(&e))?;
    let mut text = String::new();
    let bytes = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| what(&e))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn what(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "not UTF-8".to_owned(),
        kind => kind.to_string(),
    }
}

/// Line and column of each entry. The text is known to be an object that holds one array of
/// objects of scalars, so every brace outside a string but the first begins an entry.
fn entry_places(text: &str) -> Vec<(u32, u32)> {
    let (mut line, mut column) = (1, 0);
    let (mut quoted, mut escaped) = (false, false);
    let mut places = Vec::new();
    for c in text.chars() {
        column += 1;
        match c {
            '\n' => (line, column) = (line + 1, 0),
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            '{' if !quoted => places.push((line, column)),
            _ => {}
        }
    }
    places.drain(..places.len().min(1));
    places
}
