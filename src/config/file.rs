//! Opening files with a bound on their size.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use crate::document::FILE_BYTES_MAX;
use crate::problem::Problems;

/// The text of a file, or why there is none: a message without the file's name.
pub fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| reason(&e))?;
    let mut bytes = Vec::new();
    let bound = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    (file.take(bound.saturating_add(1)).read_to_end(&mut bytes)).map_err(|e| reason(&e))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = 1 + e
            .as_bytes()
            .iter()
            .take(at)
            .filter(|b| **b == b'\n')
            .count();
        format!("not UTF-8 text, on line {line}")
    })
}

/// The name of a file as messages show it, and its text; what is wrong goes to `problems`.
pub fn named(path: &Path, problems: &mut Problems) -> Option<(Arc<str>, String)> {
    let name: Arc<str> = path.to_string_lossy().into();
    match read(path) {
        Ok(text) => Some((name, text)),
        Err(reason) => {
            problems.error_without_place(format!("`{name}`: {reason}"));
            None
        }
    }
}

/// Why a file could not be read, in words.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        kind => kind.to_string(),
    }
}
