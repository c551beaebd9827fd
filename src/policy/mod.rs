//! May this principal do this? Pure: no I/O, no clock, no log, no panic.
//!
//! The rules of evaluation are those of Apache Kafka's `StandardAuthorizer`:
//! 1. A super user may do everything, whatever a rule says.
//! 2. A rule speaks about a subject if one of its principals and one of its hosts match.
//! 3. A rule speaks about a resource if one of its patterns of that kind matches the name: equal,
//!    prefix, or every name. No pattern is more important than another.
//! 4. A rule speaks about an operation if it names it or `All`.
//! 5. An allow of Read, Write, Delete or Alter also allows Describe; an allow of AlterConfigs also
//!    allows DescribeConfigs. A deny implies nothing.
//! 6. Any matching deny refuses; else any matching allow allows; else the answer is no.
//!
//! One deliberate difference: in Kafka 4.3 a rule on the wildcard `*` does not reach names that
//! themselves begin with a star and are longer, such as a group `*a`; a deny is blind to them as
//! well. Here `*` is every name.
//!
//! Beyond Kafka: `Group:` and `Tenant:` principals, CIDR hosts, and the variables `${tenant}` and
//! `${principal}` in names, inserted as literal text. Where a variable has no value, an allow
//! matches nothing and a deny matches every name of its kind.
//!
//! A [`tenant`] may have a boundary: who belongs to it is refused every name outside, by the
//! boundary's own line, whatever the rules say. A super user passes, the cluster is not bounded.
//!
//! [`compare`] says how two sets differ, [`lint`] what in one set is probably not meant.
//! [`parse`] reads rules, [`PolicySet`] holds them, [`View`] is what concerns one connection,
//! shared with all whom the same rules concern.

pub mod acl;
pub mod compare;
mod compile;
mod decide;
pub mod lint;
pub mod mode;
pub mod model;
mod odd;
pub mod parse;
mod prefixes;
pub mod rule;
pub mod tenant;
pub mod topic_pattern;
mod views;

pub use compile::PolicySet;
pub use decide::{Considered, View};
pub use views::VIEWS_MAX;

#[cfg(test)]
mod tests;
