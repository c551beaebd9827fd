//! Kafka's error codes that a proxy answers itself (protocol guide, "Error Codes").

#![allow(missing_docs)] // the names are Kafka's

pub const UNKNOWN_SERVER_ERROR: i16 = -1;
pub const NONE: i16 = 0;
pub const CORRUPT_MESSAGE: i16 = 2;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// See Kafka's `Errors`.
pub const LEADER_NOT_AVAILABLE: i16 = 5;
pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
pub const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
pub const ILLEGAL_SASL_STATE: i16 = 34;
pub const UNSUPPORTED_VERSION: i16 = 35;
pub const INVALID_REQUEST: i16 = 42;
pub const POLICY_VIOLATION: i16 = 44;
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
pub const OPERATION_NOT_ATTEMPTED: i16 = 55;
pub const SASL_AUTHENTICATION_FAILED: i16 = 58;
pub const DELEGATION_TOKEN_AUTH_DISABLED: i16 = 61;
pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub const INVALID_RECORD: i16 = 87;
pub const UNKNOWN_TOPIC_ID: i16 = 100;
pub const SHARE_SESSION_NOT_FOUND: i16 = 122;
pub const STREAMS_INVALID_TOPOLOGY: i16 = 130;

use crate::policy::model::ResourceKind;

/// The code with which a broker refuses an operation on a resource of this kind.
pub fn denied(kind: ResourceKind) -> i16 {
    match kind {
        ResourceKind::Topic => TOPIC_AUTHORIZATION_FAILED,
        ResourceKind::Group => GROUP_AUTHORIZATION_FAILED,
        ResourceKind::TransactionalId => TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ResourceKind::Cluster | ResourceKind::DelegationToken | ResourceKind::User => {
            CLUSTER_AUTHORIZATION_FAILED
        }
    }
}
