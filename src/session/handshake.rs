//! SASL as a broker speaks it (KIP-43, KIP-152, KIP-255, KIP-368), without sockets: a state and
//! the answer to each message. The proxy's loop reads frames and writes what is said here.
//!
//! The states say what is expected next:
//!
//! ```text
//! Anything ──ApiVersions──▶ Handshake ──SaslHandshake──▶ Messages ◀──▶ Proving ──▶ done
//!     └────────────────SaslHandshake────────────────────────▲
//! ```
//!
//! A client whose token was refused says that it has read so (0x01) and is sent away, or brings
//! another token; every other refusal is the end.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use crate::apis::{self, API_VERSIONS, Api, SASL_AUTHENTICATE, SASL_HANDSHAKE, errors, versions};
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::{Mechanism, Mechanisms};
use crate::identity::plain::{self, PlainFault, PlainMessage};
use crate::identity::sasl::{self, ABORT, INVALID_TOKEN, Malformed};
use crate::identity::scram::ClientFirst;
use crate::identity::token::TokenError;
use crate::identity::users::{PasswordError, ScramLogin};
use crate::policy::model::{Operation, ResourceKind};
use crate::principal::Principal;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, Node, StructNode};

/// The state of one exchange.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    /// Set for re-authentication: who the client is, and must stay, and how it proved it.
    current: Option<(Principal, Mechanism)>,
    /// The mechanism that was agreed on last.
    mechanism: Option<Mechanism>,
    /// The last token was refused, and the client was told so.
    token_refused: bool,
    /// The client has still to answer the challenge of this login.
    login: Option<Box<ScramLogin>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Anything,
    Handshake,
    /// A message of a mechanism.
    Messages(Mechanism, Framing),
    /// Another mechanism than before was agreed on: the next message is the end.
    MechanismChanged,
    /// Somebody decides about the evidence of the last message.
    Proving(Mechanism, Reply, Option<String>),
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
    /// Send this frame, which says that what the client brought proves nothing, and go on.
    Refuse(Bytes, Failure),
    /// Send this frame, if any, and end the connection; `None`: why was said before.
    Fail(Option<Bytes>, Option<Failure>),
}

impl Step {
    fn fail(failure: Failure) -> Self {
        Step::Fail(None, Some(failure))
    }
}

/// What a client brings to prove who it is. Its `Debug` shows nothing of it.
pub enum Evidence {
    /// A bearer token.
    Bearer(String),
    /// A user and a password.
    Password(PlainMessage),
    /// A user who asks for the challenge of a SCRAM mechanism.
    ScramUser(Mechanism, ClientFirst),
    /// The answer to the challenge of this login.
    ScramProof(Box<ScramLogin>, Bytes),
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Bearer(_) => "Bearer",
            Evidence::Password(_) => "Password",
            Evidence::ScramUser(..) => "ScramUser",
            Evidence::ScramProof(..) => "ScramProof",
        })
    }
}

/// What comes of evidence that is good.
#[derive(Debug)]
pub enum Outcome {
    /// It proves this, and the client is sent this message of the mechanism, which may be empty.
    Proven(Proven, Bytes),
    /// The client has to answer this message.
    Challenge(Box<ScramLogin>, Bytes),
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
    /// A message of SASL/PLAIN lacks something.
    #[error(transparent)]
    Plain(#[from] PlainFault),
    /// User and password prove nothing.
    #[error(transparent)]
    Password(#[from] PasswordError),
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
            mechanism: None,
            token_refused: false,
            login: None,
        }
    }

    /// The exchange on a connection that is open already; its first message is the handshake.
    pub fn again(current: Principal, mechanism: Mechanism) -> Self {
        Handshake {
            state: State::Handshake,
            current: Some((current, mechanism)),
            ..Self::initial()
        }
    }

    /// The mechanism that was agreed on, if any.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// Takes one frame (without its prefix) and says what to do.
    pub fn step(&mut self, frame: &Bytes, offered: &Mechanisms) -> Step {
        match self.state {
            State::Messages(mechanism, Framing::Bare) => {
                return self.message(mechanism, frame, Reply::Bare, offered);
            }
            // At a broker, too, it is the message after the handshake that ends the connection.
            State::MechanismChanged => return Step::fail(Failure::MechanismChanged),
            State::Proving(..) => return Step::fail(Failure::Unexpected),
            State::Anything | State::Handshake | State::Messages(_, Framing::Request) => {}
        }
        let Some((api, version, correlation_id, request)) = read(frame) else {
            return match (&self.state, unsupported_versions_answer(frame)) {
                // ApiVersions of the future is told the versions there are (KIP-511).
                (State::Anything, Some(answer)) => Step::Send(answer),
                // Later it is a request like any other, in the encoding that all can read.
                (State::Messages(..), Some(_)) => {
                    Step::Fail(misplaced_versions(frame), Some(Failure::Unexpected))
                }
                _ => Step::fail(Failure::Unexpected),
            };
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
            (&State::Messages(mechanism, _), SASL_AUTHENTICATE) => {
                let bytes = request.bytes("AuthBytes").cloned().unwrap_or_default();
                self.message(mechanism, &bytes, reply, offered)
            }
            (State::Messages(..), _) => Step::Fail(illegal_state(frame), Some(Failure::Unexpected)),
            _ => Step::fail(Failure::Unexpected),
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
            return Step::Fail(Some(frame), Some(Failure::Mechanism));
        };
        let framing = match version {
            0 => Framing::Bare,
            _ => Framing::Request,
        };
        self.mechanism = Some(mechanism);
        self.state = match &self.current {
            Some((_, before)) if *before != mechanism => State::MechanismChanged,
            _ => State::Messages(mechanism, framing),
        };
        Step::Send(answer(api, version, id, &response))
    }

    /// A message of the mechanism that was agreed on.
    fn message(
        &mut self,
        mechanism: Mechanism,
        message: &Bytes,
        reply: Reply,
        offered: &Mechanisms,
    ) -> Step {
        let was_refused = std::mem::take(&mut self.token_refused);
        if was_refused && message[..] == *ABORT {
            return Step::Fail(refusal(reply, INVALID_TOKEN), None);
        }
        match self.evidence(mechanism, message, offered) {
            Ok((evidence, authzid)) => {
                self.state = State::Proving(mechanism, reply, authzid);
                Step::Prove(evidence)
            }
            Err(failure) => self.fail(mechanism, reply, failure),
        }
    }

    /// What a message brings, and as whom the client wants to act where a token will say who it
    /// is.
    fn evidence(
        &mut self,
        mechanism: Mechanism,
        message: &Bytes,
        offered: &Mechanisms,
    ) -> Result<(Evidence, Option<String>), Failure> {
        Ok(match (mechanism, self.login.take()) {
            (Mechanism::Oauthbearer, _) => {
                let bytes_max = offered.token_bytes_max().saturating_mul(2);
                let first = sasl::parse_client_first(message, bytes_max)?;
                let authzid = first.authzid.map(str::to_owned);
                (Evidence::Bearer(first.token.to_owned()), authzid)
            }
            (Mechanism::Plain, _) => (Evidence::Password(plain::parse(message)?), None),
            (Mechanism::Scram(_), None) => {
                let first = ClientFirst::parse(message).map_err(PasswordError::from)?;
                (Evidence::ScramUser(mechanism, first), None)
            }
            (Mechanism::Scram(_), Some(login)) => {
                (Evidence::ScramProof(login, message.clone()), None)
            }
        })
    }

    /// Goes on after [`Step::Prove`].
    pub fn proven(&mut self, outcome: Result<Outcome, Failure>, now: SystemTime) -> Step {
        let State::Proving(mechanism, reply, authzid) =
            std::mem::replace(&mut self.state, State::Handshake)
        else {
            return Step::fail(Failure::Unexpected);
        };
        let goes_on = match reply {
            Reply::Bare => State::Messages(mechanism, Framing::Bare),
            Reply::Request { .. } => State::Messages(mechanism, Framing::Request),
        };
        match outcome {
            Ok(Outcome::Proven(proven, last)) => match self.accept(proven, authzid.as_deref()) {
                Ok(proven) => done(proven, mechanism, reply, last, now),
                Err(failure) => self.fail(mechanism, reply, failure),
            },
            Ok(Outcome::Challenge(login, message)) => {
                self.login = Some(login);
                self.state = goes_on;
                match reply_frame(reply, message, 0) {
                    Some(frame) => Step::Send(frame),
                    None => Step::fail(Failure::Unexpected),
                }
            }
            Err(Failure::Token(error)) => {
                // The client reads the text, answers one byte, and is then refused (RFC 7628).
                self.token_refused = true;
                self.state = goes_on;
                let text = Bytes::from_static(INVALID_TOKEN.as_bytes());
                match reply_frame(reply, text, 0) {
                    Some(frame) => Step::Refuse(frame, error.into()),
                    None => Step::fail(error.into()),
                }
            }
            Err(failure) => self.fail(mechanism, reply, failure),
        }
    }

    fn accept(&self, proven: Proven, authzid: Option<&str>) -> Result<Proven, Failure> {
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

    /// The end, in a broker's words.
    fn fail(&self, mechanism: Mechanism, reply: Reply, failure: Failure) -> Step {
        let text = match &failure {
            Failure::Malformed(Malformed::Scheme) => return Step::fail(failure),
            Failure::Authzid(text) => text.clone(),
            Failure::PrincipalChanged { from, to } => sasl::principal_changed(from, to),
            Failure::Plain(fault) => fault.to_string(),
            Failure::Password(PasswordError::Authzid) => OTHER_AUTHZID.to_owned(),
            Failure::Password(_) if mechanism == Mechanism::Plain => WRONG_PASSWORD.to_owned(),
            _ => sasl::invalid_credentials(self.current.is_some(), mechanism.name()),
        };
        Step::Fail(refusal(reply, &text), Some(failure))
    }
}

/// What SASL/PLAIN says of an unknown user and of a wrong password.
const WRONG_PASSWORD: &str = "Authentication failed: Invalid username or password";

/// What a mechanism with passwords says where the client wants to act as somebody else.
const OTHER_AUTHZID: &str = "Authentication failed: Client requested an authorization id that is \
    different from username";

/// A message of the mechanism, on its way to the client.
fn reply_frame(reply: Reply, message: Bytes, lifetime_ms: i64) -> Option<Bytes> {
    match reply {
        Reply::Bare => {
            let length = u32::try_from(message.len()).ok()?;
            let mut frame = BytesMut::with_capacity(4 + message.len());
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(&message);
            Some(frame.freeze())
        }
        Reply::Request {
            version,
            correlation_id,
        } => authenticate_response(version, correlation_id, |response| {
            response.set("AuthBytes", Node::Bytes(Some(message)));
            response.set_int("SessionLifetimeMs", lifetime_ms);
        }),
    }
}

fn done(proven: Proven, mechanism: Mechanism, reply: Reply, last: Bytes, now: SystemTime) -> Step {
    let Proven {
        principal,
        session_max,
    } = proven;
    let lifetime_ms = sasl::lifetime_ms(&principal, session_max, now);
    let Some(frame) = reply_frame(reply, last, lifetime_ms) else {
        return Step::fail(Failure::Unexpected);
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

/// What is said to ApiVersions of the future in the middle of the exchange.
fn misplaced_versions(frame: &[u8]) -> Option<Bytes> {
    let api = apis::lookup(API_VERSIONS)?;
    let (_, version) = header::peek(frame)?;
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let mut response = empty(api);
    response.set_int("ErrorCode", errors::ILLEGAL_SASL_STATE.into());
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
    fn allows(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        false
    }
    fn sees(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        false
    }
    fn allows_any(&mut self, _: Operation, _: ResourceKind) -> bool {
        false
    }
    fn allows_all(&mut self, _: Operation, _: ResourceKind) -> bool {
        false
    }
    fn topic_name(&mut self, _: &[u8; 16]) -> Option<Arc<str>> {
        None
    }
}
