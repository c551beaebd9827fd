//! DescribeAcls, CreateAcls, DeleteAcls. The rules in force are the ACLs: they are listed from
//! here, and nobody changes them but who changes their files. None of these reaches a broker.

use bytes::Bytes;

use super::errors::{INVALID_REQUEST, POLICY_VIOLATION};
use super::lens::{Question, Refusal};
use crate::policy::acl::Acl;
use crate::policy::acl::listed::{self, ACLS_MAX, Filter, code};
use crate::policy::model::Operation;
use crate::wire::tree::{Node, StructNode};

/// What the audit log says of a change that the rules allow.
const FILES: &str = "ACLs are policy files";
/// A broker fails to read such a request, and ends the connection.
const UNKNOWN: &str = "an ACL of an unknown kind";

/// DescribeAcls: what the filter asks for.
pub(super) fn describe(q: &mut Question, operation: Operation) -> Result<(), Refusal> {
    let codes = [
        "ResourceTypeFilter",
        "PatternTypeFilter",
        "Operation",
        "PermissionType",
    ];
    refuse_unknown(std::slice::from_ref(q.request), codes)?;
    q.need_cluster(operation)
        .map_err(|refusal| without_text(refusal, |response| std::slice::from_mut(response)))?;
    let Some(rules) = q.guard.rules() else {
        return Ok(());
    };
    let request = &*q.request;
    let filter = Filter {
        kind: request.int("ResourceTypeFilter"),
        name: request.text("ResourceNameFilter"),
        pattern: request.int("PatternTypeFilter"),
        principal: request.text("PrincipalFilter"),
        host: request.text("HostFilter"),
        operation: request.int("Operation"),
        permission: request.int("PermissionType"),
    };
    let mut response = q.empty_response();
    match listed::list(rules.policies, &filter) {
        Ok(acls) => *response.structs_mut("Resources") = resources(&response, acls),
        Err(listed::TooMany) => {
            let message = format!("more than {ACLS_MAX} ACLs: ask with a filter");
            response.set_int("ErrorCode", INVALID_REQUEST.into());
            response.set_text("ErrorMessage", Some(&message));
            return Err(Refusal::Answer(response));
        }
    }
    Err(Refusal::Served(response))
}

/// ACLs with the resource that they are about.
fn resources(response: &StructNode, acls: impl IntoIterator<Item = Acl>) -> Vec<StructNode> {
    let model = response.element("Resources");
    let acl_model = model.element("Acls");
    let mut resources: Vec<StructNode> = Vec::new();
    // Those of one resource are neighbours.
    let mut current = None;
    for acl in acls {
        let resource = (acl.kind, acl.prefixed, acl.name);
        if current.as_ref() != Some(&resource) {
            let mut next = model.clone();
            let pattern = match acl.prefixed {
                true => code::PREFIXED,
                false => code::LITERAL,
            };
            next.set_int("ResourceType", i64::from(acl.kind as u8))
                .set_int("PatternType", pattern)
                .set_text("ResourceName", Some(&resource.2));
            resources.push(next);
            current = Some(resource);
        }
        let mut element = acl_model.clone();
        let permission = if acl.deny { code::DENY } else { code::ALLOW };
        element
            .set_int("Operation", i64::from(acl.operation as u8))
            .set_int("PermissionType", permission)
            .set_text("Principal", Some(&acl.principal))
            .set_text("Host", Some(&acl.host));
        if let Some(resource) = resources.last_mut() {
            resource.structs_mut("Acls").push(element);
        }
    }
    resources
}

/// CreateAcls: each creation is refused.
pub(super) fn create(q: &mut Question, operation: Operation) -> Result<(), Refusal> {
    let codes = [
        "ResourceType",
        "ResourcePatternType",
        "Operation",
        "PermissionType",
    ];
    refuse_unknown(q.request.structs("Creations"), codes)?;
    refuse_change(q, operation, "Results")
}

/// DeleteAcls: each filter is refused, whatever it matches.
pub(super) fn delete(q: &mut Question, operation: Operation) -> Result<(), Refusal> {
    let codes = [
        "ResourceTypeFilter",
        "PatternTypeFilter",
        "Operation",
        "PermissionType",
    ];
    refuse_unknown(q.request.structs("Filters"), codes)?;
    refuse_change(q, operation, "FilterResults")
}

fn refuse_change(q: &mut Question, operation: Operation, results: &str) -> Result<(), Refusal> {
    q.need_cluster(operation)
        .map_err(|refusal| without_text(refusal, |response| response.structs_mut(results)))?;
    let Some(rules) = q.guard.rules() else {
        return Ok(());
    };
    let message = format!(
        "ACLs are policy files of the proxy: change those in `{}`",
        rules.path
    );
    // One text for all elements.
    let message = Bytes::from(message);
    q.unsupported = Some(FILES);
    let mut refusal = q.refuse(POLICY_VIOLATION);
    if let Refusal::Answer(response) = &mut refusal {
        for element in response.structs_mut(results) {
            element.set("ErrorMessage", Node::Bytes(Some(message.clone())));
        }
    }
    Err(refusal)
}

/// Without a text of their own, errors are told by clients in the words of the code; an empty
/// one is told as it is.
fn without_text(
    mut refusal: Refusal,
    elements: impl FnOnce(&mut StructNode) -> &mut [StructNode],
) -> Refusal {
    if let Refusal::Answer(response) = &mut refusal {
        for element in elements(response) {
            element.set("ErrorMessage", Node::Bytes(None));
        }
    }
    refusal
}

fn refuse_unknown(elements: &[StructNode], codes: [&str; 4]) -> Result<(), Refusal> {
    let unknown = |element: &StructNode| codes.iter().any(|c| element.int(c) == code::UNKNOWN);
    match elements.iter().any(unknown) {
        true => Err(Refusal::Close(UNKNOWN)),
        false => Ok(()),
    }
}
