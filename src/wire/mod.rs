//! (being written)

pub mod records;
