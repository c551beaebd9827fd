//! One client connection between its first byte and its last: how the client authenticates
//! ([`handshake`], [`frames`]), what is still owed to it ([`inflight`]) and what that was
//! asked for ([`asked`]), and which fetch sessions belong to whom ([`fetch_sessions`],
//! [`share_sessions`]).

pub mod asked;
pub mod fetch_sessions;
pub mod frames;
pub mod handshake;
pub mod inflight;
pub mod share_sessions;
