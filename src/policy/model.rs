//! The vocabulary of authorization: Kafka's own words (`org.apache.kafka.common.acl.AclOperation`,
//! `ResourceType`), plus the reference to the rule that decided.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::principal::Principal;

/// An operation, with Kafka's `AclOperation` code as its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are Kafka's
pub enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    CreateTokens = 13,
    DescribeTokens = 14,
    TwoPhaseCommit = 15,
}

/// What a rule protects, with Kafka's `ResourceType` code as its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are Kafka's
pub enum ResourceKind {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
    DelegationToken = 6,
    User = 7,
}

/// The only name of the cluster resource.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The proven identity.
    pub principal: &'a Principal,
    /// The peer's address.
    pub host: IpAddr,
}

/// The rule that decided: shown to people as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleRef {
    /// The policy file.
    pub file: Arc<str>,
    /// The line of the rule, from 1.
    pub line: u32,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The answer to "may this subject do this?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the operation may go ahead.
    pub allowed: bool,
    /// The rule that decided; `None`: no rule matched (default deny), or a super user.
    pub rule: Option<RuleRef>,
}

impl Operation {
    /// Every operation, in the order of Kafka's codes.
    pub const EVERY: [Operation; 14] = [
        Operation::All,
        Operation::Read,
        Operation::Write,
        Operation::Create,
        Operation::Delete,
        Operation::Alter,
        Operation::Describe,
        Operation::ClusterAction,
        Operation::DescribeConfigs,
        Operation::AlterConfigs,
        Operation::IdempotentWrite,
        Operation::CreateTokens,
        Operation::DescribeTokens,
        Operation::TwoPhaseCommit,
    ];

    /// The name as policies and Kafka's tools write it: `DescribeConfigs`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::All => "All",
            Operation::Read => "Read",
            Operation::Write => "Write",
            Operation::Create => "Create",
            Operation::Delete => "Delete",
            Operation::Alter => "Alter",
            Operation::Describe => "Describe",
            Operation::ClusterAction => "ClusterAction",
            Operation::DescribeConfigs => "DescribeConfigs",
            Operation::AlterConfigs => "AlterConfigs",
            Operation::IdempotentWrite => "IdempotentWrite",
            Operation::CreateTokens => "CreateTokens",
            Operation::DescribeTokens => "DescribeTokens",
            Operation::TwoPhaseCommit => "TwoPhaseCommit",
        }
    }

    /// The operation of that name, in this very spelling.
    pub fn named(name: &str) -> Option<Operation> {
        Operation::EVERY.into_iter().find(|o| o.name() == name)
    }
}

impl ResourceKind {
    /// Every kind, in the order of Kafka's codes.
    pub const EVERY: [ResourceKind; 6] = [
        ResourceKind::Topic,
        ResourceKind::Group,
        ResourceKind::Cluster,
        ResourceKind::TransactionalId,
        ResourceKind::DelegationToken,
        ResourceKind::User,
    ];

    /// The name as Kafka's tools write it: `TransactionalId`.
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Topic => "Topic",
            ResourceKind::Group => "Group",
            ResourceKind::Cluster => "Cluster",
            ResourceKind::TransactionalId => "TransactionalId",
            ResourceKind::DelegationToken => "DelegationToken",
            ResourceKind::User => "User",
        }
    }

    /// Whether any Kafka API asks for this operation on this kind of resource.
    pub fn knows(self, operation: Operation) -> bool {
        use Operation as O;
        match self {
            _ if operation == O::All => true,
            ResourceKind::Topic => matches!(
                operation,
                O::Read
                    | O::Write
                    | O::Create
                    | O::Describe
                    | O::Delete
                    | O::Alter
                    | O::DescribeConfigs
                    | O::AlterConfigs
            ),
            ResourceKind::Group => matches!(
                operation,
                O::Read | O::Describe | O::Delete | O::DescribeConfigs | O::AlterConfigs
            ),
            // Delete: DeleteTopics asks the cluster first, as CreateTopics does.
            ResourceKind::Cluster => matches!(
                operation,
                O::Create
                    | O::Delete
                    | O::ClusterAction
                    | O::DescribeConfigs
                    | O::AlterConfigs
                    | O::IdempotentWrite
                    | O::Alter
                    | O::Describe
            ),
            ResourceKind::TransactionalId => {
                matches!(operation, O::Describe | O::Write | O::TwoPhaseCommit)
            }
            ResourceKind::DelegationToken => operation == O::Describe,
            ResourceKind::User => matches!(operation, O::CreateTokens | O::DescribeTokens),
        }
    }
}
