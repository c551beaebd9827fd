//! What is asked of an identity provider.
//!
//! * [`desk`]: every issuer that listeners ask, and what is wrong with it
//! * [`keys`]: the keys that an issuer publishes
//! * [`introspection`]: what an issuer says about a token
//!
//! What the answers mean is [`identity`](crate::identity)'s to judge.

mod cache;
pub mod desk;
pub mod introspection;
pub mod keys;
