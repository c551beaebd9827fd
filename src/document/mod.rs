//! Strict YAML with positions: the one way in which files written by people are read.
//!
//! Text becomes a tree of [`Node`]s ([`parse`]); a [`Fields`] reader takes known keys out of a
//! mapping and reports what is left; the typed readers of [`scalar`] say what they got and what
//! they expected. Everything wrong is collected in [`crate::problem::Problems`]. Aliases, tags and
//! duplicate keys are refused; nesting and size are bounded. Nothing here opens a file.

mod fields;
mod json;
pub mod scalar;
mod substitute;
mod tree;

pub use fields::{Fields, did_you_mean};
pub use substitute::substitute;
pub use tree::{DEPTH_MAX, Entry, NODES_MAX, Node, Scalar, Style, Value, parse};

/// The longest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a key or value is answered with that the product knows, but this version does not have.
pub fn unsupported(what: &str) -> String {
    format!("`{what}` is not supported by this version")
}

#[cfg(test)]
mod tests;
