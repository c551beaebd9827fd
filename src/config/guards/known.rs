//! What each policy file says by itself. A file that has not changed says the same again, so a
//! reload reads those that have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Guards, read};
use crate::document;
use crate::problem::{Place, Problem, Problems};

/// What one file says.
#[derive(Debug)]
pub(super) struct PolicyFile {
    /// SHA-256 of its text.
    pub digest: [u8; 32],
    /// Its policies.
    pub guards: Guards,
    /// Kinds and names of its policies, which must differ from those of all other files.
    pub names: Vec<(&'static str, String, Place)>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Files by their paths; as many as were read last, [`super::FILES_MAX`] at most.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles(HashMap<PathBuf, Arc<PolicyFile>>);

impl KnownFiles {
    /// What a file with this text says.
    pub(super) fn file(&self, path: &Path, name: &Arc<str>, text: &str) -> Arc<PolicyFile> {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(known) = self.0.get(path).filter(|file| file.digest == digest) {
            return Arc::clone(known);
        }
        let mut problems = Problems::default();
        let (mut guards, mut names) = (Guards::default(), Vec::new());
        for document in document::parse(name, text, &mut problems) {
            read(&document, &mut names, &mut guards, &mut problems);
        }
        Arc::new(PolicyFile {
            digest,
            guards,
            names,
            problems: problems.list,
        })
    }

    pub(super) fn keep(&mut self, path: &Path, file: Arc<PolicyFile>) {
        self.0.insert(path.to_owned(), file);
    }

    /// Both.
    pub(super) fn and(mut self, other: KnownFiles) -> KnownFiles {
        self.0.extend(other.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{load, load_beside};
    use super::*;

    fn policy(name: &str, rules: &str) -> String {
        format!(
            "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             principals: [\"User:a\"]\n  rules: [{rules}]\n"
        )
    }

    const READ: &str = "{allow: [Read], topics: [t]}";

    /// The policies below a directory, as a reload after `known` finds them and as a start does;
    /// they must not differ.
    fn again(dir: &Path, known: &mut KnownFiles) -> (Guards, Problems) {
        let (mut problems, mut expected) = (Problems::default(), Problems::default());
        let mut guards = load_beside(Some(dir), None, known, &mut problems);
        *known = guards.take_known();
        let fresh = load(dir, &mut expected);
        assert_eq!(problems.list, expected.list);
        assert_eq!(guards.digest, fresh.digest);
        assert_eq!(guards.paths, fresh.paths);
        let access = |guards: &Guards| format!("{:?} {:?}", guards.access, guards.observing);
        assert_eq!(access(&guards), access(&fresh));
        (guards, problems)
    }

    #[test]
    fn a_file_that_has_not_changed_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let write = |file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        let mut known = KnownFiles::default();
        write("a.yaml", &policy("a", READ));
        write("b.yaml", &policy("b", READ));
        let (first, _) = again(dir, &mut known);

        write("b.yaml", &policy("b", "{deny: [Read], topics: [t]}"));
        let (second, _) = again(dir, &mut known);
        let same = |at: usize, other: &Guards| {
            Arc::ptr_eq(&second.access[at].rules, &other.access[at].rules)
        };
        assert!(same(0, &first) && !same(1, &first));

        // Mistakes within a file and between files are told again each time.
        write("c.yaml", &policy("a", "{allow: [Reed], topics: [t]}"));
        for _ in 0..2 {
            let (_, problems) = again(dir, &mut known);
            let told: Vec<&str> = problems.list.iter().map(|p| &*p.message).collect();
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[1].contains("second AccessPolicy"), "{told:?}");
        }
        // What is gone is neither in force nor remembered.
        fs::remove_file(dir.join("c.yaml")).unwrap();
        fs::rename(dir.join("a.yaml"), dir.join("d.yaml")).unwrap();
        let (last, problems) = again(dir, &mut known);
        assert!(problems.list.is_empty());
        let names: Vec<&str> = last.access.iter().map(|p| &*p.name).collect();
        assert_eq!((names, known.0.len()), (vec!["b", "a"], 2));
    }
}
