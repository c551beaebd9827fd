//! ACLs in the words of both sides: what a broker is told, and the line of a policy that says the
//! same to Kordon.

use crate::socket::request;
use kordon::wire::tree::StructNode;
use std::fmt::Write as _;

/// Kafka's codes of resource types.
pub const TOPIC: i64 = 2;
/// A group.
pub const GROUP: i64 = 3;
/// The cluster.
pub const CLUSTER: i64 = 4;
/// A transactional id.
pub const TRANSACTIONAL_ID: i64 = 5;

/// Kafka's operations from code 2 on.
pub const OPERATIONS: [&str; 11] = [
    "All",
    "Read",
    "Write",
    "Create",
    "Delete",
    "Alter",
    "Describe",
    "ClusterAction",
    "DescribeConfigs",
    "AlterConfigs",
    "IdempotentWrite",
];

/// One ACL.
pub struct Acl<'a> {
    pub allow: bool,
    /// A user's name or `*`.
    pub user: &'a str,
    /// An address or `*`.
    pub host: &'a str,
    /// Kafka's code.
    pub operation: i64,
    /// Kafka's code of the resource type.
    pub kind: i64,
    pub prefixed: bool,
    pub name: &'a str,
}

impl Acl<'_> {
    /// Adds it to a CreateAcls request.
    pub fn add_to(&self, create: &mut StructNode) {
        let mut element = create.element("Creations");
        element
            .set_int("ResourceType", self.kind)
            .set_text("ResourceName", Some(self.name))
            .set_int("ResourcePatternType", if self.prefixed { 4 } else { 3 })
            .set_text("Principal", Some(&format!("User:{}", self.user)))
            .set_text("Host", Some(self.host))
            .set_int("Operation", self.operation)
            .set_int("PermissionType", if self.allow { 3 } else { 2 });
        create.structs_mut("Creations").push(element);
    }

    /// A rule of a policy for its user.
    pub fn rule(&self) -> String {
        let verb = if self.allow { "allow" } else { "deny" };
        let operation = OPERATIONS[self.operation as usize - 2];
        let star = if self.prefixed { "*" } else { "" };
        let name = self.name;
        let target = match self.kind {
            TOPIC => format!("topics: [\"{name}{star}\"]"),
            GROUP => format!("groups: [\"{name}{star}\"]"),
            TRANSACTIONAL_ID => format!("transactionalIds: [\"{name}{star}\"]"),
            _ => "cluster: true".to_owned(),
        };
        format!("    - {{{verb}: [{operation}], {target}}}\n")
    }
}

/// A policy of a user at a host, whose rules follow.
pub fn policy(out: &mut String, name: &str, user: &str, host: &str) {
    let hosts = match host {
        "*" => String::new(),
        host => format!("  hosts: [\"{host}\"]\n"),
    };
    let _ = write!(
        out,
        "---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {{name: {name}}}
spec:
  principals: [\"User:{user}\"]
{hosts}  rules:
"
    );
}

/// A DescribeAcls request for all there are.
pub fn every() -> StructNode {
    let mut filter = request(29);
    any(&mut filter);
    filter
}

/// Makes a filter one that fits all ACLs.
pub fn any(filter: &mut StructNode) {
    filter
        .set_int("ResourceTypeFilter", 1)
        .set_int("PatternTypeFilter", 1)
        .set_int("Operation", 1)
        .set_int("PermissionType", 1)
        .set_text("ResourceNameFilter", None)
        .set_text("PrincipalFilter", None)
        .set_text("HostFilter", None);
}

/// How many a DescribeAcls answer holds.
pub fn count(answer: &StructNode) -> usize {
    let resources = answer.structs("Resources").iter();
    resources.map(|r| r.structs("Acls").len()).sum()
}
