//! The users file of `sasl.plain` and the SCRAM mechanisms: names and hashed credentials, never a
//! password, and no message that repeats a credential.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::file;
use crate::document::{self, Fields, Node, Value};
use crate::identity::name;
use crate::identity::scram::{Credential, Hash};
use crate::identity::users::{USERS_MAX, User, UserTable, Users};
use crate::problem::Problems;

/// How many groups one user may have, as with tokens.
const GROUPS_MAX: usize = 256;

/// Reads a users file; each user must have a credential of each of `hashes`.
pub fn read(path: &Path, hashes: &[Hash], problems: &mut Problems) -> Option<Users> {
    let (shown, text) = file::named(path, problems)?;
    let mut found = Problems::default();
    let users = of_text(&shown, &text, hashes, &mut found);
    let sound = !found.has_errors();
    problems.list.append(&mut found.list);
    users.filter(|_| sound)
}

/// Reads the file of a table again. A bad new version leaves the old one in force; whether the
/// new one is.
pub fn reload(table: &UserTable, problems: &mut Problems) -> bool {
    match read(table.file(), table.hashes(), problems) {
        Some(users) => {
            table.replace(users);
            true
        }
        None => false,
    }
}

fn of_text(
    shown: &Arc<str>,
    text: &str,
    hashes: &[Hash],
    problems: &mut Problems,
) -> Option<Users> {
    let documents = document::parse(shown, text, problems);
    let [document] = &documents[..] else {
        if !problems.has_errors() {
            let message = format!("`{shown}`: expected one document with `users`");
            problems.error_without_place(message);
        }
        return None;
    };
    let mut fields = Fields::of(document, problems)?;
    let list = fields.require("users", problems);
    fields.finish(problems);
    let items = list?.list_not_empty(problems)?;
    if items.len() > USERS_MAX {
        let message = format!("{} users, at most {USERS_MAX} are allowed", items.len());
        problems.error(&document.place, message);
        return None;
    }
    let mut lines: HashMap<String, u32> = HashMap::new();
    let mut users = Vec::new();
    for item in items {
        let Some(user) = user(item, hashes, problems) else {
            continue;
        };
        if let Some(line) = lines.insert(user.name.clone(), item.place.line) {
            problems
                .error(
                    &item.place,
                    format!("the user `{}` a second time", user.name),
                )
                .help(format!("the first one is on line {line}"));
        }
        users.push(user);
    }
    Some(Users::new(users))
}

fn user(node: &Node, hashes: &[Hash], problems: &mut Problems) -> Option<User> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.require("name", problems);
    let tenant = fields.take("tenant");
    let groups = fields.take("groups");
    let password = fields.entry("password");
    let credential = match password {
        Some(_) => fields.take("credential"),
        None => fields.require("credential", problems),
    };
    fields.finish(problems);
    if let Some(password) = password {
        problems
            .error(&password.place, "a password does not stand in a users file")
            .help("`kordon credential --user NAME` makes a `credential` of it");
    }
    let name = acceptable(name?, problems)?;
    let tenant = tenant.map(|node| acceptable(node, problems));
    let groups = groups.map_or(Some(Vec::new()), |node| {
        let items = node.list(problems)?;
        if items.len() > GROUPS_MAX {
            node.expected(&format!("at most {GROUPS_MAX} groups"), problems);
            return None;
        }
        let read: Vec<_> = items.iter().map(|n| acceptable(n, problems)).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let credentials = credentials(credential?, &name, problems)?;
    for hash in hashes {
        if !credentials.iter().any(|one| one.hash() == *hash) {
            let mechanism = hash.mechanism();
            problems
                .error(
                    &node.place,
                    format!(
                        "the user `{name}` has no credential of {mechanism}, which uses this file"
                    ),
                )
                .help("`kordon credential` makes one; `credential` may be a list of them");
        }
    }
    Some(User {
        name,
        tenant: match tenant {
            Some(tenant) => Some(tenant?),
            None => None,
        },
        groups: groups?.iter().map(|group| group.as_str().into()).collect(),
        credentials,
    })
}

/// A name that a proof may bring.
fn acceptable(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = node.text(problems)?;
    if let Err(fault) = name::check(text) {
        problems.error(&node.place, fault.to_string());
        return None;
    }
    Some(text.to_owned())
}

/// One text, or a list of them, of different hashes.
fn credentials(node: &Node, user: &str, problems: &mut Problems) -> Option<Vec<Credential>> {
    let nodes = match &node.value {
        Value::List(_) => node.list_not_empty(problems)?,
        _ => std::slice::from_ref(node),
    };
    let mut read: Vec<Credential> = Vec::new();
    for node in nodes {
        // Whoever writes a password here by mistake does not read it in a log.
        let Value::Scalar(scalar) = &node.value else {
            problems.error(
                &node.place,
                format!("expected a credential of `{user}` as a text"),
            );
            return None;
        };
        match Credential::parse(&scalar.text) {
            Ok(credential) if read.iter().any(|one| one.hash() == credential.hash()) => {
                let mechanism = credential.hash().mechanism();
                let message = format!("a second credential of `{user}` for {mechanism}");
                problems.error(&node.place, message);
                return None;
            }
            Ok(credential) => read.push(credential),
            Err(fault) => {
                problems
                    .error(&node.place, format!("the credential of `{user}`: {fault}"))
                    .help(format!("`kordon credential --user {user}` makes one"));
                return None;
            }
        }
    }
    Some(read)
}
