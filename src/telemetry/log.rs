//! The process log: to stderr, text on a terminal and JSON otherwise, filtered by `KORDON_LOG`.
//! Not the audit log, which has a shape and a place of its own.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that holds the filter: a level, or `tracing`'s directives such as
/// `info,kordon::upstream=debug`.
pub const VARIABLE: &str = "KORDON_LOG";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("`{VARIABLE}` holds `{0}`, expected a level such as `info` or `debug`, or directives")]
    Filter(String),
    /// Another log was set up before.
    #[error("the process log is already set up")]
    Again,
}

/// Sets the process log up, once for the life of the process.
pub fn start() -> Result<(), LogError> {
    let filter = filter(std::env::var(VARIABLE).ok().as_deref())?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(terminal);
    if terminal {
        builder.finish().try_init()
    } else {
        builder.json().flatten_event(true).finish().try_init()
    }
    .map_err(|_| LogError::Again)
}

/// The filter of a variable's value; `info` where it is absent or empty.
fn filter(value: Option<&str>) -> Result<EnvFilter, LogError> {
    let text = value
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .unwrap_or("info");
    // `EnvFilter` reads a lone word that is not a level as the name of a target, and then shows
    // everything of a module that does not exist: a spelling mistake would silence the log.
    let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if word && text.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(LogError::Filter(text.into()));
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|_| LogError::Filter(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_info() {
        for value in [None, Some(""), Some("  ")] {
            assert_eq!(filter(value).unwrap().to_string(), "info");
        }
    }

    #[test]
    fn levels_and_directives_are_taken() {
        for value in ["debug", "WARN", "off", "info,kordon::upstream=debug"] {
            filter(Some(value)).expect(value);
        }
    }

    #[test]
    fn a_misspelt_level_is_an_error_that_names_it() {
        for value in ["inof", "verbose", "kordon=loud"] {
            let error = filter(Some(value)).expect_err(value).to_string();
            assert!(error.contains(&format!("`{value}`")), "{error}");
        }
    }
}
