//! `upstream.sasl: {forward: true}`: the client's own token opens its broker connection. It is
//! proven here first; then the broker decides, before the client has its answer.

use crate::clock;
use crate::identity::issuers::Proven;
use crate::issuer::token::Token;
use crate::session::handshake::Failure;
use crate::upstream::sasl::{Granted, Refusal, SaslFailure};

/// The token to send on.
pub(super) fn token(text: &str, proven: &Proven) -> Token {
    // Without an end of its own it counts as long as the connection that brought it.
    let expires = proven.principal.expires_at.unwrap_or_else(clock::wall);
    Token::new(text, expires)
}

/// The client's session ends no later than the one that the broker granted.
pub(super) fn bound(proven: &mut Proven, granted: Option<Granted>) {
    let lifetime = granted.and_then(|granted| granted.lifetime);
    proven.session_max = match (proven.session_max, lifetime) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        (ours, theirs) => ours.or(theirs),
    };
}

/// What the client is told of a broker's refusal; `None`: it was no refusal of the token.
pub(super) fn refusal(failure: &SaslFailure) -> Option<Failure> {
    let SaslFailure::Refused(Refusal { message, challenge }) = failure else {
        return None;
    };
    Some(Failure::Broker {
        message: message.clone(),
        challenge: challenge.clone(),
    })
}
