//! SASL as a broker speaks it (KIP-43, KIP-152, KIP-255, KIP-368), without sockets: a state and
//! the answer to each message. The proxy's loop reads frames and writes what is said here.
//!
//! The states say what is expected next:
//!
//! ```text
//! Anything ──ApiVersions──▶ Handshake ──SaslHandshake──▶ First ──▶ Proving ──▶ done
//!     └────────────────SaslHandshake───────────────────────▲           └──▶ FailureReply ──▶ end
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use crate::apis::{self, API_VERSIONS, Api, SASL_AUTHENTICATE, SASL_HANDSHAKE, errors, versions};
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::{Mechanism, Mechanisms};
use crate::identity::sasl::{self, ABORT, INVALID_TOKEN, Malformed};
use crate::identity::token::TokenError;
use crate::principal::Principal;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, Node, StructNode};

/// The state of one exchange.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    /// Set for re-authentication: who the client is, and must stay, and how it proved it.
    current: Option<(Principal, Mechanism)>,
    /// Why a token was refused, once its failure text was sent.
    refused: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Anything,
    Handshake,
    /// The first message of a mechanism.
    First(Mechanism, Framing),
    /// Somebody decides about the evidence of the last message.
    Proving(Mechanism, Reply, Option<String>),
    FailureReply(Mechanism, Framing),
}

/// Whether messages stand in SaslAuthenticate, or bare in their frames (handshake version 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Bare,
    Request,
}

/// Where the answer to a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Bare,
    Request { version: i16, correlation_id: i32 },
}

/// What to do after a message.
#[derive(Debug)]
pub enum Step {
    /// Send this frame and go on.
    Send(Bytes),
    /// The broker's versions are needed for the answer: see [`versions_answer`].
    SendVersions(i16, i32),
    /// Say with [`Handshake::proven`] what this proves.
    Prove(Evidence),
    /// Send this frame; the client has proven who it is.
    Done(Bytes, Box<Identified>),
    /// Send this frame, if any, and end the connection.
    Fail(Option<Bytes>, Failure),
}

/// What a client brings to prove who it is. Its `Debug` shows nothing of it.
pub enum Evidence {
    /// A bearer token.
    Bearer(String),
}

impl Evidence {
    /// The bearer token, if it is one.
    pub fn bearer(&self) -> Option<&str> {
        match self {
            Evidence::Bearer(token) => Some(token),
        }
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Bearer(_) => "Bearer",
        })
    }
}

/// Who the client of a connection is.
#[derive(Debug)]
pub struct Identified {
    /// Who the client is.
    pub principal: Principal,
    /// When it must have authenticated again.
    pub session_end: Option<SystemTime>,
    /// The SASL mechanism that proved it; `None`: it was not proven by SASL.
    pub mechanism: Option<Mechanism>,
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
    /// Re-authentication by another mechanism (KIP-368).
    #[error("mechanism changed during re-authentication")]
    MechanismChanged,
    /// The message cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The token is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The broker refuses the client's token (`upstream.sasl.forward`).
    #[error("the broker refuses the token")]
    Broker {
        /// The broker's error message.
        message: String,
        /// What it said before that (RFC 7628 §3.2.2).
        challenge: Option<String>,
    },
    /// The client wants to act as somebody else.
    #[error("authorization id differs from the token's principal")]
    Authzid(String),
    /// Re-authentication as somebody else (KIP-368).
    #[error("principal changed during re-authentication")]
    PrincipalChanged {
        /// Who the client was.
        from: Arc<str>,
        /// Who it would be.
        to: Arc<str>,
    },
}

impl Handshake {
    /// The exchange at the start of a connection.
    pub fn initial() -> Self {
        Handshake {
            state: State::Anything,
            current: None,
            refused: None,
        }
    }

    /// The exchange on a connection that is open already; its first message is the handshake.
    pub fn again(current: Principal, mechanism: Mechanism) -> Self {
        Handshake {
            state: State::Handshake,
            current: Some((current, mechanism)),
            refused: None,
        }
    }

    /// Takes one frame (without its prefix) and says what to do.
    pub fn step(&mut self, frame: &Bytes, offered: &Mechanisms) -> Step {
        match self.state {
            State::First(mechanism, Framing::Bare) => {
                return self.first(mechanism, frame, Reply::Bare, offered);
            }
            State::FailureReply(_, Framing::Bare) | State::Proving(..) => {
                return Step::Fail(None, Failure::Unexpected);
            }
            _ => {}
        }
        let Some((api, version, correlation_id, request)) = read(frame) else {
            return unreadable(frame);
        };
        let reply = Reply::Request {
            version,
            correlation_id,
        };
        match (&self.state, api.key) {
            (State::Anything, API_VERSIONS) => {
                if versions::software_is_valid(&request, version) {
                    self.state = State::Handshake;
                    return Step::SendVersions(version, correlation_id);
                }
                let mut response = empty(api);
                versions::invalid_software(&mut response);
                Step::Send(answer(api, version, correlation_id, &response))
            }
            (State::Anything | State::Handshake, SASL_HANDSHAKE) => {
                self.handshake(api, version, correlation_id, &request, offered)
            }
            (&State::First(mechanism, _), SASL_AUTHENTICATE) => {
                let bytes = request.bytes("AuthBytes").cloned().unwrap_or_default();
                self.first(mechanism, &bytes, reply, offered)
            }
            (State::FailureReply(..), SASL_AUTHENTICATE) => {
                let bytes = request.bytes("AuthBytes").cloned().unwrap_or_default();
                let failure = self.refused.take();
                let failure = failure.unwrap_or(Failure::Unexpected);
                if bytes[..] != *ABORT {
                    // Kafka reads another first message here; a client has one try.
                    return Step::Fail(None, failure);
                }
                let text = match &failure {
                    Failure::Broker { message, .. } => message.clone(),
                    _ => INVALID_TOKEN.to_owned(),
                };
                Step::Fail(refusal(reply, &text), failure)
            }
            (State::First(..) | State::FailureReply(..), _) => {
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
        offered: &Mechanisms,
    ) -> Step {
        let mut response = empty(api);
        for mechanism in offered.names() {
            let name = Bytes::from_static(mechanism.name().as_bytes());
            response
                .array_mut("Mechanisms")
                .push(Node::Bytes(Some(name)));
        }
        let wanted = request.text("Mechanism").unwrap_or_default();
        let Some(mechanism) = offered.names().find(|one| one.name() == wanted) else {
            response.set_int("ErrorCode", errors::UNSUPPORTED_SASL_MECHANISM.into());
            let frame = answer(api, version, id, &response);
            return Step::Fail(Some(frame), Failure::Mechanism);
        };
        let framing = match version {
            0 => Framing::Bare,
            _ => Framing::Request,
        };
        self.state = State::First(mechanism, framing);
        Step::Send(answer(api, version, id, &response))
    }

    /// The first message of the mechanism that was agreed on.
    fn first(
        &mut self,
        mechanism: Mechanism,
        message: &[u8],
        reply: Reply,
        offered: &Mechanisms,
    ) -> Step {
        // At a broker, too, it is the message after the handshake that ends the connection.
        if let Some((_, before)) = &self.current
            && *before != mechanism
        {
            return Step::Fail(None, Failure::MechanismChanged);
        }
        match mechanism {
            Mechanism::Oauthbearer => {
                let token_bytes_max = offered.token_bytes_max();
                match sasl::parse_client_first(message, token_bytes_max.saturating_mul(2)) {
                    Ok(first) => {
                        let authzid = first.authzid.map(str::to_owned);
                        self.state = State::Proving(mechanism, reply, authzid);
                        Step::Prove(Evidence::Bearer(first.token.to_owned()))
                    }
                    Err(malformed) => self.fail(reply, malformed.into()),
                }
            }
        }
    }

    /// Goes on after [`Step::Prove`].
    pub fn proven(&mut self, outcome: Result<Proven, Failure>, now: SystemTime) -> Step {
        let outcome = outcome.and_then(|proven| self.accept(proven));
        let State::Proving(mechanism, reply, _) =
            std::mem::replace(&mut self.state, State::Handshake)
        else {
            return Step::Fail(None, Failure::Unexpected);
        };
        let challenge = match &outcome {
            Err(Failure::Token(_)) => Some(Bytes::from_static(INVALID_TOKEN.as_bytes())),
            Err(Failure::Broker { challenge, .. }) => challenge.clone().map(Bytes::from),
            _ => None,
        };
        match (outcome, challenge) {
            (Ok(proven), _) => done(proven, mechanism, reply, now),
            (Err(failure), None) => self.fail(reply, failure),
            (Err(failure), Some(text)) => match reply {
                Reply::Bare => Step::Fail(None, failure),
                Reply::Request {
                    version,
                    correlation_id,
                } => {
                    // The client reads the text, answers one byte, and is then refused (RFC 7628).
                    self.refused = Some(failure);
                    self.state = State::FailureReply(mechanism, Framing::Request);
                    match authenticate_response(version, correlation_id, |response| {
                        response.set("AuthBytes", Node::Bytes(Some(text)));
                    }) {
                        Some(frame) => Step::Send(frame),
                        None => Step::Fail(None, Failure::Unexpected),
                    }
                }
            },
        }
    }

    /// Whether the client may be whom it has proven to be: nobody else than it says, nor than it
    /// was.
    pub fn accept(&self, proven: Proven) -> Result<Proven, Failure> {
        let authzid = match &self.state {
            State::Proving(_, _, authzid) => authzid.as_deref(),
            _ => None,
        };
        let principal = &proven.principal;
        if let Some(error) = sasl::authzid_error(authzid, principal) {
            return Err(Failure::Authzid(error));
        }
        match &self.current {
            // The tenant decides over rules and quotas as the name does.
            Some((current, _))
                if current.name != principal.name || current.tenant != principal.tenant =>
            {
                Err(Failure::PrincipalChanged {
                    from: Arc::clone(&current.name),
                    to: Arc::clone(&principal.name),
                })
            }
            _ => Ok(proven),
        }
    }

    fn fail(&self, reply: Reply, failure: Failure) -> Step {
        let text = match &failure {
            Failure::Authzid(text) => text.clone(),
            Failure::Broker { message, .. } => message.clone(),
            Failure::PrincipalChanged { from, to } => sasl::principal_changed(from, to),
            _ if self.current.is_some() => sasl::MALFORMED_AGAIN.to_owned(),
            _ => sasl::MALFORMED.to_owned(),
        };
        Step::Fail(refusal(reply, &text), failure)
    }
}

fn done(proven: Proven, mechanism: Mechanism, reply: Reply, now: SystemTime) -> Step {
    let Proven {
        principal,
        session_max,
    } = proven;
    let lifetime_ms = sasl::lifetime_ms(&principal, session_max, now);
    let frame = match reply {
        Reply::Bare => Some(Bytes::from_static(&[0; 4])),
        Reply::Request {
            version,
            correlation_id,
        } => authenticate_response(version, correlation_id, |response| {
            response.set_int("SessionLifetimeMs", lifetime_ms);
        }),
    };
    let Some(frame) = frame else {
        return Step::Fail(None, Failure::Unexpected);
    };
    let session_end = sasl::session_end(&principal, session_max, now);
    let mechanism = Some(mechanism);
    Step::Done(
        frame,
        Box::new(Identified {
            principal,
            session_end,
            mechanism,
        }),
    )
}

/// SASL_AUTHENTICATION_FAILED with this text; nothing where messages stand bare.
fn refusal(reply: Reply, text: &str) -> Option<Bytes> {
    let Reply::Request {
        version,
        correlation_id,
    } = reply
    else {
        return None;
    };
    authenticate_response(version, correlation_id, |response| {
        response.set_int("ErrorCode", errors::SASL_AUTHENTICATION_FAILED.into());
        response.set_text("ErrorMessage", Some(text));
    })
}

fn authenticate_response(
    version: i16,
    correlation_id: i32,
    fill: impl FnOnce(&mut StructNode),
) -> Option<Bytes> {
    let api = apis::lookup(SASL_AUTHENTICATE)?;
    let mut response = empty(api);
    fill(&mut response);
    Some(answer(api, version, correlation_id, &response))
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
