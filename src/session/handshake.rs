//! SASL as a broker speaks it (KIP-43, KIP-152, KIP-255, KIP-368), without sockets: a state and
//! the answer to each message. The proxy's loop reads frames and writes what is said here.
//!
//! The states say what is expected next:
//!
//! ```text
//! Anything ──ApiVersions──▶ Handshake ──SaslHandshake──▶ Token ──▶ done
//!     └────────────────SaslHandshake───────────────────────▲  └──▶ FailureReply ──▶ end
//! ```

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use crate::apis::{self, API_VERSIONS, Api, SASL_AUTHENTICATE, SASL_HANDSHAKE, errors, versions};
use crate::identity::binding::Thumbprint;
use crate::identity::issuers::{Issuers, Proven};
use crate::identity::sasl::{self, ABORT, INVALID_TOKEN, MECHANISM, Malformed};
use crate::identity::token::TokenError;
use crate::principal::Principal;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, Node, StructNode};

/// The state of one exchange.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    /// What the client's certificate is, if it showed one.
    certificate: Option<Thumbprint>,
    /// Set for re-authentication: the principal must stay the same.
    current: Option<Principal>,
    /// Why a token was refused, once its failure text was sent.
    refused: Option<TokenError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Anything,
    Handshake,
    /// The first message; `raw`: without Kafka's headers (handshake version 0).
    Token {
        raw: bool,
    },
    FailureReply {
        raw: bool,
    },
}

/// What to do after a message.
#[derive(Debug)]
pub enum Step {
    /// Send this frame and go on.
    Send(Bytes),
    /// The broker's versions are needed for the answer: see [`versions_answer`].
    SendVersions(i16, i32),
    /// Send this frame; the client has proven who it is.
    Done(Bytes, Box<Identified>),
    /// Send this frame, if any, and end the connection.
    Fail(Option<Bytes>, Failure),
}

/// Who the client of a connection is.
#[derive(Debug)]
pub struct Identified {
    /// Who the client is.
    pub principal: Principal,
    /// When it must have authenticated again.
    pub session_end: Option<SystemTime>,
}

/// Why authentication failed; for the audit log, the client learns less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A message that does not belong here.
    #[error("unexpected message during authentication")]
    Unexpected,
    /// A mechanism that is not offered.
    #[error("unsupported SASL mechanism")]
    Mechanism,
    /// The message cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The token is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The client wants to act as somebody else.
    #[error("authorization id differs from the token's principal")]
    Authzid,
    /// Re-authentication as somebody else (KIP-368).
    #[error("principal changed during re-authentication")]
    PrincipalChanged,
}

impl Handshake {
    /// The exchange at the start of a connection whose client showed `certificate`.
    pub fn initial(certificate: Option<Thumbprint>) -> Self {
        Handshake {
            state: State::Anything,
            certificate,
            current: None,
            refused: None,
        }
    }

    /// The exchange on a connection that is open already; its first message is the handshake.
    pub fn again(current: Principal, certificate: Option<Thumbprint>) -> Self {
        Handshake {
            state: State::Handshake,
            certificate,
            current: Some(current),
            refused: None,
        }
    }

    /// Takes one frame (without its prefix) and says what to do.
    pub fn step(&mut self, frame: &Bytes, issuers: &Issuers, now: SystemTime) -> Step {
        if let State::Token { raw: true } | State::FailureReply { raw: true } = self.state {
            return self.raw(frame, issuers, now);
        }
        let Some((api, version, id, request)) = read(frame) else {
            return unreadable(frame);
        };
        match (self.state, api.key) {
            (State::Anything, API_VERSIONS) => {
                if versions::software_is_valid(&request, version) {
                    self.state = State::Handshake;
                    return Step::SendVersions(version, id);
                }
                let mut response = empty(api);
                versions::invalid_software(&mut response);
                Step::Send(answer(api, version, id, &response))
            }
            (State::Anything | State::Handshake, SASL_HANDSHAKE) => {
                self.handshake(api, version, id, &request)
            }
            (State::Token { .. }, SASL_AUTHENTICATE) => {
                let bytes = request.bytes("AuthBytes").cloned().unwrap_or_default();
                let outcome = self.token(&bytes, issuers, now);
                self.say(outcome, now, |response| answer(api, version, id, &response))
            }
            (State::FailureReply { .. }, SASL_AUTHENTICATE) => {
                let bytes = request.bytes("AuthBytes").cloned().unwrap_or_default();
                let failure = self.refused.take();
                let failure = failure.map_or(Failure::Unexpected, Failure::Token);
                if bytes[..] != *ABORT {
                    // Kafka reads another first message here; a client has one try.
                    return Step::Fail(None, failure);
                }
                let mut response = empty(api);
                refuse(&mut response, INVALID_TOKEN);
                Step::Fail(Some(answer(api, version, id, &response)), failure)
            }
            (State::Token { .. } | State::FailureReply { .. }, _) => {
                Step::Fail(illegal_state(frame), Failure::Unexpected)
            }
            _ => Step::Fail(None, Failure::Unexpected),
        }
    }

    fn handshake(
        &mut self,
        api: &'static Api,
        version: i16,
        id: i32,
        request: &StructNode,
    ) -> Step {
        let mut response = empty(api);
        let name = Bytes::from_static(MECHANISM.as_bytes());
        response
            .array_mut("Mechanisms")
            .push(Node::Bytes(Some(name)));
        if request.text("Mechanism") != Some(MECHANISM) {
            response.set_int("ErrorCode", errors::UNSUPPORTED_SASL_MECHANISM.into());
            let frame = answer(api, version, id, &response);
            return Step::Fail(Some(frame), Failure::Mechanism);
        }
        self.state = State::Token { raw: version == 0 };
        Step::Send(answer(api, version, id, &response))
    }

    /// Handshake version 0: tokens travel as bare frames, failures end the connection.
    fn raw(&mut self, frame: &Bytes, issuers: &Issuers, now: SystemTime) -> Step {
        match self.token(frame, issuers, now) {
            Ok(proven) => self.done(proven, now, |_| Bytes::from_static(&[0; 4])),
            Err(failure) => Step::Fail(None, failure),
        }
    }

    fn token(
        &mut self,
        message: &[u8],
        issuers: &Issuers,
        now: SystemTime,
    ) -> Result<Proven, Failure> {
        let bytes_max = issuers.token_bytes_max().saturating_mul(2);
        let first = sasl::parse_client_first(message, bytes_max)?;
        let proven = issuers.verify(first.token, self.certificate.as_ref(), now)?;
        let principal = &proven.principal;
        if sasl::authzid_error(&first, principal).is_some() {
            return Err(Failure::Authzid);
        }
        match &self.current {
            // The tenant decides over rules and quotas as the name does.
            Some(current)
                if current.name != principal.name || current.tenant != principal.tenant =>
            {
                Err(Failure::PrincipalChanged)
            }
            _ => Ok(proven),
        }
    }

    fn say(
        &mut self,
        outcome: Result<Proven, Failure>,
        now: SystemTime,
        answer: impl FnOnce(StructNode) -> Bytes,
    ) -> Step {
        let Some(api) = apis::lookup(SASL_AUTHENTICATE) else {
            return Step::Fail(None, Failure::Unexpected);
        };
        let mut response = empty(api);
        match outcome {
            Ok(proven) => self.done(proven, now, |lifetime_ms| {
                response.set_int("SessionLifetimeMs", lifetime_ms);
                answer(response)
            }),
            Err(Failure::Token(error)) => {
                // The client reads the text, answers one byte, and is then refused (RFC 7628).
                self.refused = Some(error);
                self.state = State::FailureReply { raw: false };
                let text = Bytes::from_static(INVALID_TOKEN.as_bytes());
                response.set("AuthBytes", Node::Bytes(Some(text)));
                Step::Send(answer(response))
            }
            Err(failure) => {
                refuse(
                    &mut response,
                    match failure {
                        Failure::Authzid => {
                            "Authentication failed: Client requested an authorization id that is \
                         different from the token's principal name"
                        }
                        Failure::PrincipalChanged => {
                            "Cannot change principals during re-authentication"
                        }
                        _ => {
                            if self.current.is_some() {
                                sasl::MALFORMED_AGAIN
                            } else {
                                sasl::MALFORMED
                            }
                        }
                    },
                );
                Step::Fail(Some(answer(response)), failure)
            }
        }
    }

    fn done(&mut self, proven: Proven, now: SystemTime, answer: impl FnOnce(i64) -> Bytes) -> Step {
        let Proven {
            principal,
            session_max,
        } = proven;
        let frame = answer(sasl::lifetime_ms(&principal, session_max, now));
        let session_end = sasl::session_end(&principal, session_max, now);
        Step::Done(
            frame,
            Box::new(Identified {
                principal,
                session_end,
            }),
        )
    }
}

/// The answer to ApiVersions before authentication: what the broker and the table have in
/// common.
pub fn versions_answer(broker: &StructNode, version: i16, id: i32) -> Option<Bytes> {
    let api = apis::lookup(API_VERSIONS)?;
    let mut response = broker.clone();
    response.set_int("ThrottleTimeMs", 0);
    versions::intersect_for(&mut response, version);
    Some(answer(api, version, id, &response))
}

fn refuse(response: &mut StructNode, message: &str) {
    response.set_int("ErrorCode", errors::SASL_AUTHENTICATION_FAILED.into());
    response.set_text("ErrorMessage", Some(message));
}

fn empty(api: &Api) -> StructNode {
    match api.layout() {
        Some(layout) => StructNode::new(&layout.response.body),
        None => unreachable!("{} has a layout", api.name),
    }
}

fn read(frame: &Bytes) -> Option<(&'static Api, i16, i32, StructNode)> {
    let (key, version) = header::peek(frame)?;
    let api = apis::lookup(key)?;
    let layout = api.layout()?;
    if !api.versions.contains(version) {
        return None;
    }
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let body = frame.slice(head.body_at..);
    let (request, _) =
        tree::decode_prefix(&layout.request, version, &body, tree::REQUEST_NODES_MAX).ok()?;
    Some((api, version, head.correlation_id, request))
}

/// A message that cannot be read ends the connection, but ApiVersions in a version of the
/// future is told the versions there are (KIP-511).
fn unreadable(frame: &Bytes) -> Step {
    match unsupported_versions_answer(frame) {
        Some(frame) => Step::Send(frame),
        None => Step::Fail(None, Failure::Unexpected),
    }
}

/// The answer to ApiVersions in a version that is not known here; `None` for anything else.
pub fn unsupported_versions_answer(frame: &[u8]) -> Option<Bytes> {
    let (key, version) = header::peek(frame)?;
    let api = apis::lookup(API_VERSIONS)?;
    if key != API_VERSIONS || api.versions.contains(version) {
        return None;
    }
    // A version of the future has the newest header, a negative one the oldest; the body is not
    // read.
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let mut response = empty(api);
    versions::unsupported(&mut response, (api.versions.min, api.versions.max));
    Some(answer(api, 0, head.correlation_id, &response))
}

/// A frame with an answer, prefix included.
pub fn answer(api: &Api, version: i16, correlation_id: i32, response: &StructNode) -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[0; 4]);
    header::write_response(
        correlation_id,
        api.response_header_flexible(version),
        &mut out,
    );
    if let Some(layout) = api.layout() {
        out.extend_from_slice(&tree::encode_to_bytes(response, &layout.response, version));
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Another request in the middle of the exchange gets its own error answer and the end.
pub fn illegal_state(frame: &Bytes) -> Option<Bytes> {
    let (api, version, id, mut request) = read(frame)?;
    let mut nobody = Nobody;
    let question = apis::Question::new(api, version, &mut request, &mut nobody);
    match question.refuse(errors::ILLEGAL_SASL_STATE) {
        apis::Refusal::Answer(mut response) => {
            if api.key == SASL_AUTHENTICATE {
                response.set_text("ErrorMessage", Some(OUT_OF_PLACE));
            }
            Some(answer(api, version, id, &response))
        }
        apis::Refusal::Close(_) => None,
    }
}

/// What a broker says to SaslAuthenticate when nobody has to authenticate.
const OUT_OF_PLACE: &str = "SaslAuthenticate request received after successful authentication";

/// Nobody may do anything.
struct Nobody;

impl apis::Guard for Nobody {
    fn allows(
        &mut self,
        _: crate::policy::model::Operation,
        _: crate::policy::model::ResourceKind,
        _: &str,
    ) -> bool {
        false
    }
    fn sees(
        &mut self,
        _: crate::policy::model::Operation,
        _: crate::policy::model::ResourceKind,
        _: &str,
    ) -> bool {
        false
    }
    fn allows_any(
        &mut self,
        _: crate::policy::model::Operation,
        _: crate::policy::model::ResourceKind,
    ) -> bool {
        false
    }
    fn allows_all(
        &mut self,
        _: crate::policy::model::Operation,
        _: crate::policy::model::ResourceKind,
    ) -> bool {
        false
    }
    fn topic_name(&mut self, _: &[u8; 16]) -> Option<std::sync::Arc<str>> {
        None
    }
}
