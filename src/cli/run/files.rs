//! Files as their watcher sees them: whether they are still the same ones, and which directories
//! tell when they are not. Kubernetes replaces a mounted file by moving a symbolic link in one of
//! the directories above it, so every link on the way to a file counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// How many links are followed on the way to one file, as the kernel does.
const LINKS_MAX: usize = 40;
/// How deep directories are looked into; that of policies and schemas is not deeper.
const DEPTH_MAX: usize = 16;
/// How many files of a directory are looked at.
const FILES_MAX: usize = 20_000;

/// A directory's device, number and birth: numbers are given again once they are free.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

/// What tells one state of files from another: where they are stored, their sizes and times,
/// read through links. A directory counts with everything below it.
pub(super) fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hash = DefaultHasher::new();
    for path in paths {
        visit(path, &mut |path| {
            path.hash(&mut hash);
            let metadata = std::fs::metadata(path);
            let facts = metadata.map(|m| {
                let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
                // The times of a directory tell of names in it that nobody reads.
                let times = (!m.is_dir()).then_some((m.size(), times));
                (m.dev(), m.ino(), times)
            });
            facts.ok().hash(&mut hash);
        });
    }
    hash.finish()
}

/// The directories in which something happens when one of the files is replaced, with what tells
/// a directory from a later one of the same name.
pub(super) fn directories(paths: &[PathBuf]) -> BTreeMap<PathBuf, Identity> {
    let mut all = BTreeSet::new();
    for path in paths {
        visit(path, &mut |path| on_the_way(path, &mut all));
    }
    let identified = all.into_iter().filter_map(|path| {
        let metadata = std::fs::metadata(&path).ok()?;
        let identity = (metadata.dev(), metadata.ino(), metadata.created().ok());
        Some((path, identity))
    });
    identified.collect()
}

/// `path` and, below a directory, every name that does not begin with a dot.
fn visit(path: &Path, see: &mut impl FnMut(&Path)) {
    let mut left = VecDeque::from([(path.to_owned(), 0)]);
    let mut seen = 0;
    while let Some((path, depth)) = left.pop_front() {
        see(&path);
        seen += 1;
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) if depth < DEPTH_MAX && seen < FILES_MAX => entries,
            _ => continue,
        };
        let room = FILES_MAX.saturating_sub(seen + left.len());
        let names = entries.flatten().map(|entry| entry.file_name());
        let shown = names.filter(|name| !name.as_encoded_bytes().starts_with(b"."));
        let mut below: Vec<_> = shown.take(room).map(|name| path.join(name)).collect();
        below.sort();
        left.extend(below.into_iter().map(|path| (path, depth + 1)));
    }
}

/// The directory of each link on the way to `path`, and that of the file itself; a directory
/// counts as well.
fn on_the_way(path: &Path, all: &mut BTreeSet<PathBuf>) {
    let Ok(absolute) = std::path::absolute(path) else {
        return;
    };
    let mut ahead: VecDeque<PathBuf> = parts(&absolute).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = ahead.pop_front() {
        if part.as_os_str() == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                all.insert(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let inserted: Vec<PathBuf> = parts(&target).collect();
                inserted.into_iter().rev().for_each(|p| ahead.push_front(p));
            }
            _ => {
                if ahead.is_empty() || !next.is_dir() {
                    // Where something is missing, its directory tells when it comes.
                    all.insert(at.clone());
                }
                if ahead.is_empty() && next.is_dir() {
                    all.insert(next.clone());
                }
                at = next;
            }
        }
    }
}

fn parts(path: &Path) -> impl Iterator<Item = PathBuf> {
    let named = path.components().filter(|part| {
        let is_name = matches!(part, Component::Normal(_));
        is_name || *part == Component::ParentDir
    });
    named.map(|part| PathBuf::from(part.as_os_str()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory as Kubernetes mounts a Secret: `tls.crt` → `..data/tls.crt`, `..data` → `..1`.
    fn mounted() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("tls.crt"), text).unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
        dir
    }

    fn swap(dir: &Path) {
        symlink("..2", dir.join("..new")).unwrap();
        fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    }

    #[test]
    fn a_file_that_is_replaced_behind_links_is_another_one() {
        let dir = mounted();
        for paths in [[dir.path().join("tls.crt")], [dir.path().to_owned()]] {
            let before = fingerprint(&paths);
            assert_eq!(fingerprint(&paths), before);
            swap(dir.path());
            assert_ne!(fingerprint(&paths), before);
            fs::remove_file(dir.path().join("..data")).unwrap();
            assert_ne!(fingerprint(&paths), before);
            symlink("..1", dir.path().join("..data")).unwrap();
        }
    }

    #[test]
    fn what_nobody_reads_makes_no_difference() {
        let dir = mounted();
        let paths = [dir.path().to_owned()];
        let before = fingerprint(&paths);
        fs::write(dir.path().join(".hidden"), "x").unwrap();
        assert_eq!(fingerprint(&paths), before);
        fs::write(dir.path().join("shown"), "x").unwrap();
        assert_ne!(fingerprint(&paths), before);
    }

    #[test]
    fn every_directory_on_the_way_is_watched() {
        let dir = mounted();
        let base = dir.path().canonicalize().unwrap();
        let watched = |path: PathBuf| -> Vec<PathBuf> {
            let all = directories(&[path]);
            all.into_keys().collect()
        };
        let both = [base.clone(), base.join("..1")];
        assert_eq!(watched(base.join("tls.crt")), both);
        assert_eq!(watched(base.join("missing/tls.crt")), both[..1]);
        // A link to a directory above the file counts as well.
        let other = tempfile::tempdir().unwrap();
        let other = other.path().canonicalize().unwrap();
        symlink(&base, other.join("current")).unwrap();
        let through = watched(other.join("current/tls.crt"));
        let mut expected = [base.clone(), base.join("..1"), other];
        expected.sort();
        assert_eq!(through, expected);
        // A link that leads back to itself ends.
        symlink("loop", base.join("loop")).unwrap();
        assert_eq!(watched(base.join("loop")), [base]);
    }
}
