//! Bytes become frames, headers and bodies. No tokio, no policy, no clock: everything here is a
//! pure function of bytes, and none of it allocates by a length that a peer merely claims.
//!
//! * [`frame`]: the four-byte length prefix and its limit
//! * [`header`]: request and response headers, without touching the body
//! * [`layout`]: what fields a message has in which version, read from the layout table
//! * [`walk`]: validates a body in place and reports where its fields stand; allocates nothing
//! * [`tree`]: a body as editable nodes, for the messages that must be changed
//! * [`primitive`]: the protocol's scalar encodings, shared by the three above
//! * [`records`]: record batches, walked in place; decompressed only when asked

pub mod frame;
pub mod header;
pub mod layout;
pub mod primitive;
pub mod records;
pub mod tree;
pub mod walk;
