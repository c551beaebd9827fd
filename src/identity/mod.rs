//! Who is speaking. Each way of proving it ends in a [`Principal`](crate::principal::Principal):
//!
//! * [`certificate`]: the client certificate of a TLS handshake (mTLS);
//! * [`token`]: a bearer token, brought by SASL/OAUTHBEARER ([`sasl`]) and checked against the
//!   issuer's [`keys`] and the rules about its [`claims`];
//! * a password, brought by SASL/PLAIN or proven by [`scram`].
//!
//! A listener's static identity needs no proof and therefore no code. Nothing here does I/O or
//! reads the clock, and no error repeats what the peer sent.

pub mod binding;
pub mod certificate;
pub mod claims;
mod distinguished;
pub mod issuers;
pub mod json;
pub mod keys;
pub mod mechanisms;
pub mod name;
pub mod plain;
pub mod rules;
pub mod sasl;
pub mod scram;
pub mod settings;
mod spiffe;
pub mod token;
pub mod users;
