//! A mistake in a file that a person wrote: where it is, what is wrong, what to do next.
//! All mistakes are collected in [`Problems`] and reported at once, never one at a time.

use std::fmt;
use std::sync::Arc;

/// A place in a file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The path as the user named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// How much a problem weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not say what was meant.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where; `None` for a mistake that has no place (a missing file named on the command line).
    pub place: Option<Place>,
    /// What is wrong: lower case, one line, no period, user input in backticks.
    pub message: String,
    /// What to do next, if there is something to say beyond the message.
    pub help: Option<String>,
}

/// Every mistake found so far.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    /// In the order found.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Adds an error at `place`.
    pub fn error(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, Some(place.clone()), message.into())
    }

    /// Adds a warning at `place`.
    pub fn warning(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, Some(place.clone()), message.into())
    }

    /// Adds an error that has no place in a file.
    pub fn error_without_place(&mut self, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, None, message.into())
    }

    /// Whether anything found makes the input unusable.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| p.severity == Severity::Error)
    }

    fn push(&mut self, severity: Severity, place: Option<Place>, message: String) -> &mut Problem {
        self.list.push(Problem {
            severity,
            place,
            message,
            help: None,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }
}

impl Problem {
    /// Says what to do next.
    pub fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }
}
