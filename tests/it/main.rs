//! The whole proxy in front of the embedded broker, over real sockets: sessions, identities,
//! routing, quotas, schemas, policies, draining and limits, seen by clients that hide nothing.
//! A name with `tNN` is the test of that row in the list of threats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acls;
mod audit;
mod audit_topic;
mod bad_certificates;
mod bad_tokens;
mod certificates;
mod drain;
mod fetch;
mod flow;
mod identities;
mod identity;
mod issuer;
mod limits;
mod passage;
mod passwords;
mod policy;
mod quota;
mod revocation;
mod rotation;
mod routing;
mod schema;
mod session;
mod shadow;
mod support;
mod tenants;
mod topic_rules;
mod topic_rules_on_trial;
mod upstream;
mod visible;
