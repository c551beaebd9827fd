//! Everything that differs per Kafka API, and nothing else.

pub mod layouts;

pub use layouts::layout;
