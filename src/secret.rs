//! A secret of the operator's: where it stands, never what it is. It is read each time it is
//! used, so that a file that changes counts at once.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// The longest secret, in bytes: a projected service-account token has about 1.5 KiB.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// `{file: PATH}`: the file's text without the line end that editors and `echo` leave.
    File(PathBuf),
    /// `{env: NAME}`: a variable of the process's environment.
    Variable(String),
}

/// A secret that was read. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Revealed(String);

/// Why a secret cannot be read; says where it should stand and nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(String, std::io::ErrorKind),
    /// Longer than [`SECRET_BYTES_MAX`], or not text.
    #[error("`{0}` holds no text of at most 64 KiB")]
    Unusable(String),
    /// There is nothing in it.
    #[error("`{0}` is empty")]
    Empty(String),
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
}

impl Secret {
    /// The secret as it is now.
    pub fn read(&self) -> Result<Revealed, SecretError> {
        let (text, shown) = match self {
            Secret::Variable(name) => {
                let text = std::env::var(name).map_err(|_| SecretError::Unset(name.clone()))?;
                (text, name.clone())
            }
            Secret::File(path) => {
                let shown = path.display().to_string();
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
                    .map_err(|error| SecretError::Unreadable(shown.clone(), error.kind()))?;
                if bytes.len() as u64 > SECRET_BYTES_MAX {
                    return Err(SecretError::Unusable(shown));
                }
                let text = String::from_utf8(bytes);
                let text = text.map_err(|_| SecretError::Unusable(shown.clone()))?;
                (text, shown)
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text.is_empty() {
            true => Err(SecretError::Empty(shown)),
            false => Ok(Revealed(text.to_owned())),
        }
    }
}

impl Revealed {
    /// The secret itself.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revealed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time_and_loses_its_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::Unreadable(..))));
        std::fs::write(&path, "first\r\n").unwrap();
        assert_eq!(secret.read().unwrap().text(), "first");
        std::fs::write(&path, "second \n\n").unwrap();
        assert_eq!(secret.read().unwrap().text(), "second \n");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Empty(_))));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Unusable(_))));
        std::fs::write(&path, vec![b'x'; 65 * 1024]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Unusable(_))));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown = format!("{:?}", Revealed("hunter2".into()));
        assert!(!shown.contains("hunter2"));
        let unset = Secret::Variable("KORDON_SURELY_UNSET".into());
        assert_eq!(
            unset.read().unwrap_err().to_string(),
            "the environment variable `KORDON_SURELY_UNSET` is not set"
        );
    }
}
