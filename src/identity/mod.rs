//! Identity (being written).

pub mod settings;
