//! `authorization.shadow`: another directory of policies, decided beside the one in force.

use std::path::{Path, PathBuf};

use super::read::Paths;
use crate::document::{Node, Value};
use crate::problem::Problems;

/// The key, in `authorization`.
pub(super) const KEY: &str = "shadow";

/// The directory that `authorization` names; other mistakes in it are reported by its own reader.
/// `policies` are those in force: a directory inside of theirs would be in force as well.
pub(super) fn directory(
    authorization: &Node,
    policies: Option<&Path>,
    paths: &Paths,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let Value::Mapping(entries) = &authorization.value else {
        return None;
    };
    let node = &entries.iter().find(|entry| entry.key == KEY)?.value;
    let dir = paths.directory(node, problems)?;
    let real = |path: &Path| path.canonicalize().ok();
    if let (Some(policies), Some(inside)) = (policies.and_then(real), real(&dir))
        && (inside.starts_with(&policies) || policies.starts_with(&inside))
    {
        problems
            .error(
                &node.place,
                "`shadow` and `policies` lie in one another, so that each holds the other's files",
            )
            .help("put the policies to come into a directory beside `policies`");
        return None;
    }
    Some(dir)
}
