//! The file that keeps an issuer's keys for a start during an outage. It is believed like the
//! issuer itself, so that only the proxy may read or write it; what cannot be believed is left
//! unread, and the start goes on without it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::identity::keys::KEY_SET_BYTES_MAX;
use crate::net::backoff::random;

/// The longest cache file read, in bytes: JSON inside JSON, and who it is from.
const FILE_BYTES_MAX: u64 = 4 * KEY_SET_BYTES_MAX as u64;
/// How far ahead of this machine's clock a file may have been written.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Keys as the issuer once published them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Whose keys.
    pub issuer: String,
    /// Where they came from.
    pub url: String,
    /// When, in seconds since the epoch.
    pub confirmed: u64,
    /// The text of the set.
    pub keys: String,
}

/// Why a cache file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unused {
    /// No such file: the first start.
    #[error("there is none")]
    Absent,
    /// The system says why.
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// Not what [`write()`] writes.
    #[error("it is broken")]
    Broken,
    /// Another issuer's, or from another URL.
    #[error("it holds the keys of another issuer or URL")]
    Other,
    /// Written later than now.
    #[error("it is from the future")]
    Future,
    /// Older than `maxStale`.
    #[error("it is older than `maxStale`")]
    Stale,
}

impl Kept {
    /// When the issuer confirmed the keys.
    pub(super) fn confirmed(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.confirmed))
    }
}

/// Reads the keys of this issuer and URL, if they may still be believed at `now`.
pub(super) fn read(
    path: &Path,
    (issuer, url): (&str, &str),
    stale_max: Duration,
    now: SystemTime,
) -> Result<Kept, Unused> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unused::Absent,
        kind => Unused::Unreadable(kind),
    })?;
    match file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 <= FILE_BYTES_MAX => {}
        Ok(_) => return Err(Unused::Broken),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Unused::Broken),
        Err(error) => return Err(Unused::Unreadable(error.kind())),
    }
    let kept: Kept = serde_json::from_str(&text).map_err(|_| Unused::Broken)?;
    if kept.issuer != issuer || kept.url != url {
        return Err(Unused::Other);
    }
    let now = clock::since_epoch(now);
    let confirmed = Duration::from_secs(kept.confirmed);
    if confirmed > now + AHEAD_MAX {
        return Err(Unused::Future);
    }
    if now.saturating_sub(confirmed) >= stale_max {
        return Err(Unused::Stale);
    }
    Ok(kept)
}

/// Writes the file so that whoever reads it finds all of the old or all of the new.
pub(super) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let text = serde_json::to_string(kept)?;
    let temporary = beside(path);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A name that no other process writes to: in containers all have the same process id.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", random()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const WHO: (&str, &str) = ("https://idp.example", "https://idp.example/jwks");
    const DAY: Duration = Duration::from_secs(86_400);

    fn kept(confirmed: u64) -> Kept {
        Kept {
            issuer: WHO.0.into(),
            url: WHO.1.into(),
            confirmed,
            keys: r#"{"keys":[]}"#.into(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_written_is_read_by_its_owner_alone_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        assert!(matches!(read(&path, WHO, DAY, at(0)), Err(Unused::Absent)));
        for confirmed in [1_000, 2_000] {
            write(&path, &kept(confirmed)).unwrap();
            assert_eq!(read(&path, WHO, DAY, at(2_000)).unwrap(), kept(confirmed));
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A directory that is not there fails, and so does a target that is a directory.
        assert!(write(&dir.path().join("none/keys.json"), &kept(0)).is_err());
        fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(write(&dir.path().join("sub"), &kept(0)).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_counts_from_when_it_was_confirmed_and_only_for_its_issuer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        write(&path, &kept(100_000)).unwrap();
        let read_at = |now| read(&path, WHO, DAY, at(now));
        assert!(read_at(100_000 + 86_399).is_ok());
        assert!(matches!(read_at(100_000 + 86_400), Err(Unused::Stale)));
        // Clocks of two machines differ a little.
        assert!(read_at(100_000 - 60).is_ok());
        assert!(matches!(read_at(100_000 - 61), Err(Unused::Future)));
        for who in [("https://other.example", WHO.1), (WHO.0, "https://x/jwks")] {
            let read = read(&path, who, DAY, at(100_000));
            assert!(matches!(read, Err(Unused::Other)), "{read:?}");
        }
        let long = vec![b' '; FILE_BYTES_MAX as usize + 1];
        for broken in [&b""[..], b"{", b"{\"keys\":[]}", b"\xff", b"null", &long] {
            fs::write(&path, broken).unwrap();
            assert!(matches!(read_at(100_000), Err(Unused::Broken)));
        }
    }
}
