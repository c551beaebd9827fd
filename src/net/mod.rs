//! Sockets: where clients arrive and how bytes move.
//!
//! * [`settings`]: what the configuration says
//! * [`listen`]: accept loops, opened and closed as brokers come and go
//! * [`ports`]: which broker has which local port
//! * [`stream`]: one connection, with or without TLS
//! * [`tls`]: rustls settings for both sides
//! * [`http`]: questions over HTTP to issuers and registries
//! * [`backoff`]: how long to wait before trying again
//! * [`fault`]: why a handshake with a client failed, in words
//! * [`buffer`]: large buffers, held only while bytes flow
//! * [`pipe`]: bytes on their way from socket to socket, uncopied

pub mod backoff;
pub mod buffer;
pub mod fault;
pub mod http;
pub mod listen;
pub mod pipe;
pub mod ports;
pub mod settings;
pub mod stream;
pub mod tls;

#[cfg(test)]
pub(crate) mod testing;
