//! Is this payload what the topic promises? [`SchemaSet`] holds the policies and the registered
//! schemas; [`TopicCheck`] judges what is produced to one topic. Pure: what is read from disk is
//! read by [`directory`] at start, before the first request.

pub mod avro;
pub mod directory;
pub mod envelope;
pub mod from_json;
pub mod spec;

mod check;
mod set;

#[cfg(test)]
mod tests;

pub use check::{
    BAD_RECORDS_MAX, BadRecord, BatchFault, MESSAGES_MAX, Observed, Outcome, TopicCheck, Warned,
    WholeBatch, told,
};
pub use directory::Directory;
pub use set::SchemaSet;
