//! `KafkaUser` resources of Strimzi to ACLs: `spec.authorization` of type `simple`.

use std::path::PathBuf;

use crate::config::file;
use crate::document::{self, Fields, Node, Value};
use crate::policy::acl::Acl;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::problem::Problems;

/// The ACLs of every user in these files.
pub(super) fn acls(files: &[PathBuf], problems: &mut Problems) -> Vec<Acl> {
    let mut acls = Vec::new();
    for path in files {
        let Some((name, text)) = file::named(path, problems) else {
            continue;
        };
        for document in document::parse(&name, &text, problems) {
            // What `kubectl get kafkausers -o yaml` prints is one list.
            let kind = get(&document, "kind").and_then(Node::shown);
            match (kind, get(&document, "items")) {
                (Some("List" | "KafkaUserList"), Some(items)) => {
                    for item in items.list(problems).unwrap_or_default() {
                        user(item, &mut acls, problems);
                    }
                }
                _ => user(&document, &mut acls, problems),
            }
        }
    }
    acls
}

/// The value of a key, whatever else stands beside it: these files are Strimzi's, not ours.
fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
        _ => None,
    }
}

fn user(document: &Node, acls: &mut Vec<Acl>, problems: &mut Problems) {
    let kind = get(document, "kind");
    if kind.and_then(Node::shown) != Some("KafkaUser") {
        let place = kind.map_or(&document.place, |k| &k.place);
        problems.error(place, "expected `kind: KafkaUser`");
        return;
    }
    let Some(name) = get(document, "metadata").and_then(|m| get(m, "name")) else {
        problems.error(&document.place, "a KafkaUser without `metadata.name`");
        return;
    };
    let Some(name) = name.name(problems) else {
        return;
    };
    let Some(spec) = get(document, "spec") else {
        return;
    };
    if let Some(quotas) = get(spec, "quotas") {
        problems
            .warning(&quotas.place, "quotas are not imported")
            .help("write a `kind: QuotaPolicy`");
    }
    let authentication = get(spec, "authentication")
        .and_then(|a| get(a, "type"))
        .and_then(Node::shown);
    // As Strimzi's user operator names them.
    let principal = match authentication {
        Some("tls" | "tls-external") => format!("User:CN={name}"),
        _ => format!("User:{name}"),
    };
    let Some(authorization) = get(spec, "authorization") else {
        return;
    };
    let Some(mut fields) = Fields::of(authorization, problems) else {
        return;
    };
    let kind = fields.require("type", problems);
    let list = fields.require("acls", problems);
    fields.finish(problems);
    if kind
        .and_then(|k| k.choice(&[("simple", Some(()))], problems))
        .is_none()
    {
        return;
    }
    for node in list.and_then(|l| l.list(problems)).unwrap_or_default() {
        acl(node, &principal, acls, problems);
    }
}

fn acl(node: &Node, principal: &str, acls: &mut Vec<Acl>, problems: &mut Problems) -> Option<()> {
    let mut fields = Fields::of(node, problems)?;
    let kind = fields.take("type");
    let resource = fields.require("resource", problems);
    let host = fields.take("host");
    let one = fields.take("operation");
    let several = fields.take("operations");
    fields.finish(problems);
    let deny = match kind {
        None => false,
        Some(n) => n.choice(&[("allow", Some(false)), ("deny", Some(true))], problems)?,
    };
    let host = match host {
        None => "*",
        Some(node) => node.name(problems)?,
    };
    let mut operations = Vec::new();
    let listed = several.and_then(|n| n.list_not_empty(problems));
    for item in one.into_iter().chain(listed.unwrap_or_default()) {
        let text = item.text(problems)?;
        match Operation::named(text) {
            Some(operation) => operations.push(operation),
            None => {
                problems.error(&item.place, format!("unknown operation `{text}`"));
            }
        }
    }
    if operations.is_empty() && one.is_none() && several.is_none() {
        problems.error(&node.place, "an ACL without `operations`");
    }
    let mut fields = Fields::of(resource?, problems)?;
    let kind = fields.require("type", problems);
    let name = fields.take("name");
    let pattern = fields.take("patternType");
    fields.finish(problems);
    let words = [
        ("topic", Some(ResourceKind::Topic)),
        ("group", Some(ResourceKind::Group)),
        ("cluster", Some(ResourceKind::Cluster)),
        ("transactionalId", Some(ResourceKind::TransactionalId)),
    ];
    let kind = kind?.choice(&words, problems)?;
    let prefixed = match pattern {
        None => false,
        Some(n) => n.choice(
            &[("literal", Some(false)), ("prefix", Some(true))],
            problems,
        )?,
    };
    let name = match (name, kind) {
        (_, ResourceKind::Cluster) => CLUSTER_NAME,
        (Some(node), _) => node.name(problems)?,
        (None, _) => {
            problems.error(&node.place, "a resource without `name`");
            return None;
        }
    };
    acls.extend(operations.into_iter().map(|operation| Acl {
        kind,
        prefixed: prefixed && kind != ResourceKind::Cluster,
        name: name.to_owned(),
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation,
        deny,
    }));
    Some(())
}
