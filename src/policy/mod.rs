//! Policy (being written).

pub mod model;
