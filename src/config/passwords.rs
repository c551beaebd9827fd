//! `sasl.plain`, `sasl.scramSha256` and `sasl.scramSha512`: where the users are, and what is made
//! of their names.

use std::time::Duration;

use super::identity::{Source, Space, Surroundings, principal_prefix, tenant_name};
use super::users;
use crate::document::{Fields, Node};
use crate::identity::mechanisms::Mechanism;
use crate::identity::scram::Hash;
use crate::identity::settings::PasswordSettings;
use crate::problem::Problems;

/// Reads one mechanism.
pub(super) fn passwords(
    node: &Node,
    mechanism: Mechanism,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<PasswordSettings> {
    let mut fields = Fields::of(node, problems)?;
    let file = fields.require("users", problems);
    let prefix = fields.take("principalPrefix");
    let tenant = fields.take("tenant");
    let session = fields.take("maxSession");
    let shared = fields.take("shared");
    fields.finish(problems);

    // Whoever listens reads the password itself, on the loopback interface too.
    if mechanism == Mechanism::Plain && around.tls.is_none() {
        problems
            .error(&node.place, "PLAIN refused without TLS")
            .help("add `tls: {cert: …, key: …}`, or offer `scramSha512` instead");
    }
    let file = file.and_then(|n| around.paths.file(n, problems));
    let prefix = prefix.map_or(Some(String::new()), |n| principal_prefix(n, problems));
    let tenant = tenant.map_or(Some(""), |n| tenant_name(n, problems));
    let session_max = session.and_then(|n| n.duration(problems));
    if let (Some(node), Some(Duration::ZERO)) = (session, session_max) {
        node.expected("a session longer than nothing", problems);
    }
    let shared = shared.and_then(|n| n.boolean(problems)).unwrap_or(false);
    let file = file?;
    let hashes: &[Hash] = match &mechanism {
        Mechanism::Scram(hash) => std::slice::from_ref(hash),
        _ => &[],
    };
    users::read(&file, hashes, problems)?;
    let settings = PasswordSettings {
        users_file: file,
        principal_prefix: prefix?,
        tenant: tenant?.to_owned(),
        session_max,
    };
    let (file, prefix) = (settings.users_file.display(), &settings.principal_prefix);
    sources.push(Source {
        cache: None,
        // Of whichever mechanism: one name in one file is one person.
        key: format!("users {file} {prefix}"),
        what: "users",
        prefix: prefix.clone(),
        space: Space::Plain,
        shared,
        place: node.place.clone(),
    });
    Some(settings)
}
