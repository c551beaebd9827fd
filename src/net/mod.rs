//! Net (being written).

pub mod settings;
pub mod stream;
pub mod tls;

#[cfg(test)]
pub(crate) mod testing;
