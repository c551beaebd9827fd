//! Whether what a client brings proves who it is: at the start of its connection and each time
//! it authenticates again. The conversation around it is [`session::handshake`]'s.
//!
//! [`session::handshake`]: crate::session::handshake

use std::fmt::Write as _;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::clock;
use crate::identity::binding::Thumbprint;
use crate::identity::mechanisms::{Mechanism, Mechanisms};
use crate::session::handshake::{Evidence, Failure, Outcome};
use crate::telemetry::Method;

/// How many passwords are computed at once: each takes a core for as long as its iterations ask
/// for, and connections that have authenticated need cores too.
const PASSWORDS_AT_ONCE: usize = 2;

static PASSWORDS: Semaphore = Semaphore::const_new(PASSWORDS_AT_ONCE);

/// The random part of a server's nonce, in bytes.
const NONCE_BYTES: usize = 24;

/// What `evidence` proves about the other end of a connection that showed `certificate`.
pub async fn prove(
    offered: &Mechanisms,
    evidence: Evidence,
    certificate: Option<&Thumbprint>,
) -> Result<Outcome, Failure> {
    match evidence {
        Evidence::Bearer(token) => {
            let issuers = offered.oauthbearer.as_ref().ok_or(Failure::Mechanism)?;
            let proven = issuers.prove(&token, certificate, clock::wall).await?;
            Ok(Outcome::Proven(offered.at_listener(proven), Bytes::new()))
        }
        Evidence::Password(message) => {
            let passwords = offered.passwords(Mechanism::Plain);
            let passwords = passwords.ok_or(Failure::Mechanism)?.clone();
            let permit = PASSWORDS.acquire().await;
            // The permit is held until the computation ends, even where the client has left.
            let computed = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                passwords.verify(&message)
            });
            let proven = computed.await.map_err(|_| Failure::Unexpected)??;
            Ok(Outcome::Proven(offered.at_listener(proven), Bytes::new()))
        }
        Evidence::ScramUser(mechanism, first) => {
            let (Mechanism::Scram(hash), Some(passwords)) =
                (mechanism, offered.passwords(mechanism))
            else {
                return Err(Failure::Mechanism);
            };
            let nonce = nonce().ok_or(Failure::Unexpected)?;
            let (login, message) = passwords.challenge(hash, &first, &nonce)?;
            Ok(Outcome::Challenge(Box::new(login), message.into()))
        }
        Evidence::ScramProof(login, message) => {
            let (proven, last) = login.finish(&message)?;
            Ok(Outcome::Proven(offered.at_listener(proven), last.into()))
        }
    }
}

/// Fresh letters and digits; `None`: the machine has no randomness to give.
fn nonce() -> Option<String> {
    let mut bytes = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Under which name a failure is counted.
pub fn method(mechanism: Option<Mechanism>, failure: &Failure) -> Method {
    match (failure, mechanism) {
        (Failure::Mechanism | Failure::Unexpected, _) | (_, None) => Method::Sasl,
        (_, Some(Mechanism::Oauthbearer)) => Method::Oauthbearer,
        (_, Some(Mechanism::Plain)) => Method::Plain,
        (_, Some(Mechanism::Scram(_))) => Method::Scram,
    }
}
