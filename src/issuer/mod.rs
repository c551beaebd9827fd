//! What is asked of an identity provider.
//!
//! * [`desk`]: every issuer that listeners ask, and what is wrong with it
//! * [`keys`]: the keys that an issuer publishes
//! * [`introspection`]: what an issuer says about a token
//! * [`token`]: the proxy's own token for the brokers, fetched ahead of its expiry
//! * [`assertion`]: how the proxy proves to a token endpoint who it is, by a key of its own
//!
//! What the answers mean is [`identity`](crate::identity)'s to judge.

pub mod assertion;
mod cache;
pub mod desk;
pub mod introspection;
pub mod keys;
pub mod token;
