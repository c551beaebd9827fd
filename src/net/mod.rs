//! Net (being written).

pub mod settings;
