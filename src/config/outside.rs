//! What stands outside the file and is read when it is used: secrets and addresses that are
//! asked.

use super::read::Paths;
use crate::document::{Fields, Node};
use crate::net::http::Url;
use crate::problem::Problems;
use crate::secret::Secret;

/// `{file: PATH}` or `{env: NAME}`. A secret that cannot be read now is an error now.
pub(super) fn secret(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<Secret> {
    if !node.is_mapping() {
        problems
            .error(&node.place, "a secret does not stand in the configuration")
            .help("say `{file: PATH}` or `{env: NAME}`");
        return None;
    }
    let mut fields = Fields::of(node, problems)?;
    let (file, variable) = (fields.take("file"), fields.take("env"));
    let misspelt = fields.misspelt("file") || fields.misspelt("env");
    fields.finish(problems);
    let secret = match (file, variable) {
        (Some(file), None) => Secret::File(paths.file(file, problems)?),
        (None, Some(variable)) => Secret::Variable(variable.name(problems)?.to_owned()),
        (None, None) if misspelt => return None,
        _ => {
            problems
                .error(&node.place, "expected exactly one of `file` and `env`")
                .help("for example `{file: secret}`");
            return None;
        }
    };
    if let Err(error) = secret.read() {
        problems.error(&node.place, error.to_string());
        return None;
    }
    Some(secret)
}

/// An address that is asked over HTTP.
pub(super) fn url(node: &Node, problems: &mut Problems) -> Option<Url> {
    let text = node.name(problems)?;
    match Url::parse(text) {
        Ok(url) => Some(url),
        Err(fault) => {
            let shown = node.shown().unwrap_or_default();
            problems
                .error(
                    &node.place,
                    format!("expected an address to ask, got `{shown}`: {fault}"),
                )
                .help("for example `https://idp.example/realms/prod/jwks`");
            None
        }
    }
}
