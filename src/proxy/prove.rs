//! Whether what a client brings proves who it is: at the start of its connection and each time
//! it authenticates again. The conversation around it is [`session::handshake`]'s.
//!
//! [`session::handshake`]: crate::session::handshake

use crate::clock;
use crate::identity::binding::Thumbprint;
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::Mechanisms;
use crate::session::handshake::{Evidence, Failure};

/// What `evidence` proves about the other end of a connection that showed `certificate`.
pub async fn prove(
    offered: &Mechanisms,
    evidence: &Evidence,
    certificate: Option<&Thumbprint>,
) -> Result<Proven, Failure> {
    match evidence {
        Evidence::Bearer(token) => {
            let issuers = offered.oauthbearer.as_ref().ok_or(Failure::Mechanism)?;
            Ok(issuers.prove(token, certificate, clock::wall).await?)
        }
    }
}
