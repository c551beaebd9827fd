//! What the tests stand on: [`Lab`] is a directory with a configuration, an embedded broker, and
//! a proxy in front of it; the rest are short words for requests and what comes back.

mod broker;
mod endpoint;
mod fetching;
mod gate;
mod idp;
mod lab;
mod pki;
#[path = "../../lab/port.rs"]
mod port;
mod raw;
mod signer;
mod wire;

pub use endpoint::Endpoint;
pub use fetching::Sessions;
pub use gate::Rules;
pub use idp::Idp;
pub use lab::{Lab, POLICY, Setup};
pub use pki::{Pki, Shown};
pub use raw::{Raw, frame_of, pause};
pub use signer::Signer;
pub use wire::*;
