//! Net (being written).

pub mod settings;
pub mod stream;
pub mod tls;
