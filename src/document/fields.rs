//! A reader over one mapping: takes the keys it knows, reports the others.

use super::tree::{Entry, Node, Value};
use super::unsupported;
use crate::problem::{Place, Problems};

/// The keys of a mapping while it is being read. [`Fields::finish`] reports what nobody took.
#[must_use = "unknown keys are reported by `finish`"]
pub struct Fields<'a> {
    entries: &'a [Entry],
    place: &'a Place,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A reader over `node`; anything but a mapping is reported.
    pub fn of(node: &'a Node, problems: &mut Problems) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            node.expected("a mapping", problems);
            return None;
        };
        Some(Self {
            entries,
            place: &node.place,
            known: Vec::new(),
        })
    }

    /// Where the mapping begins.
    pub fn place(&self) -> &'a Place {
        self.place
    }

    /// The value of an optional key.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|e| &e.value)
    }

    /// The key and value of an optional key.
    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        self.entries.iter().find(|e| e.key == key)
    }

    /// The value of a key that must be there.
    pub fn require(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'a Node> {
        let found = self.take(key);
        if found.is_none() && !self.misspelt(key) {
            problems.error(self.place, format!("missing key `{key}`"));
        }
        found
    }

    /// Reports a key that the product knows and this version does not have.
    pub fn refuse(&mut self, key: &'static str, problems: &mut Problems) {
        if let Some(entry) = self.entry(key) {
            problems.error(&entry.place, unsupported(key));
        }
    }

    /// Reports every key that was not asked for.
    pub fn finish(self, problems: &mut Problems) {
        for entry in self.entries {
            if !self.known.contains(&entry.key.as_str()) {
                let problem = problems.error(&entry.place, format!("unknown key `{}`", entry.key));
                if let Some(near) = did_you_mean(&entry.key, self.known.iter().copied()) {
                    problem.help(format!("did you mean `{near}`?"));
                } else if !self.known.is_empty() {
                    problem.help(format!("expected one of {}", listed(&self.known)));
                }
            }
        }
    }

    /// Whether a key is there, or seems to be under a wrong spelling, which is one mistake, not
    /// two. A key that was asked for is no misspelling of another.
    pub fn misspelt(&self, key: &'static str) -> bool {
        self.entries.iter().any(|entry| {
            let own = entry.key.as_str();
            own == key
                || (!self.known.contains(&own) && did_you_mean(own, [key].into_iter()).is_some())
        })
    }
}

/// The known word that `got` most likely stands for.
pub fn did_you_mean<'k>(got: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = got.to_lowercase();
    known
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&lower, &word.to_lowercase());
            (distance, word)
        })
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance < word.chars().count())
        .map(|(_, word)| word)
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    quoted.join(", ")
}
