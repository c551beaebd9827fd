//! Who is speaking. Each way of proving it ends in a [`Principal`](crate::principal::Principal):
//!
//! * [`certificate`]: the client certificate of a TLS handshake (mTLS);
//! * [`token`]: a bearer token, brought by SASL/OAUTHBEARER ([`sasl`]) and checked against the
//!   issuer's [`keys`].
//!
//! A listener's static identity needs no proof and therefore no code. Nothing here does I/O or
//! reads the clock, and no error repeats what the peer sent.

pub mod certificate;
mod distinguished;
pub mod json;
pub mod keys;
pub mod name;
pub mod rules;
pub mod sasl;
pub mod settings;
mod spiffe;
pub mod token;
