//! What is asked of an identity provider.
//!
//! * [`token`]: the proxy's own token for the brokers, fetched ahead of its expiry
//! * [`assertion`]: how the proxy proves to a token endpoint who it is, by a key of its own

pub mod assertion;
pub mod token;
