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

use super::frames::{
    answer, empty, misplaced, misplaced_versions, read, unsupported_versions_answer,
};
use crate::apis::{self, API_VERSIONS, Api, SASL_AUTHENTICATE, SASL_HANDSHAKE, errors, versions};
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::{Mechanism, Mechanisms};
use crate::identity::plain::{self, PlainFault, PlainMessage};
use crate::identity::sasl::{self, ABORT, INVALID_TOKEN, Malformed};
use crate::identity::scram::{ClientFirst, ScramError};
use crate::identity::token::TokenError;
use crate::identity::users::{PasswordError, ScramLogin};
use crate::policy::tenant::TwoTenants;
use crate::principal::{Principal, TextClaims};
use crate::wire::tree::{Node, StructNode};

/// The state of one exchange.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    /// Set for re-authentication: who the client is, and must stay, and how it proved it.
    current: Option<(Principal, Mechanism)>,
    /// The mechanism that was agreed on last.
    mechanism: Option<Mechanism>,
    /// The last token was refused and the client was told so: the last words, once it has read.
    refused: Option<String>,
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
    /// The broker's versions are needed for the answer: see
    /// [`versions_answer`](super::frames::versions_answer).
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

impl Evidence {
    /// The bearer token, if it is one.
    pub fn bearer(&self) -> Option<&str> {
        match self {
            Evidence::Bearer(token) => Some(token),
            _ => None,
        }
    }
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
    /// What its tenant can be matched by; none where the tenant is proven.
    pub claims: TextClaims,
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
    /// A message of SASL/PLAIN lacks something.
    #[error(transparent)]
    Plain(#[from] PlainFault),
    /// User and password prove nothing.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The client wants to act as somebody else.
    #[error("authorization id differs from the token's principal")]
    Authzid(String),
    /// It belongs to two tenants, so to neither.
    #[error(transparent)]
    TwoTenants(#[from] TwoTenants),
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
            refused: None,
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
            (State::Messages(..), _) => Step::Fail(misplaced(frame), Some(Failure::Unexpected)),
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
            // Who is in already is told nothing, as by a broker.
            if self.current.is_some() {
                return Step::fail(Failure::Mechanism);
            }
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
        if let Some(last_words) = self.refused.take()
            && message[..] == *ABORT
        {
            return Step::Fail(refusal(reply, &last_words), None);
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
        let outcome = outcome.and_then(|outcome| {
            if let Outcome::Proven(proven, _) = &outcome {
                self.accept(proven)?;
            }
            Ok(outcome)
        });
        let State::Proving(mechanism, reply, _) =
            std::mem::replace(&mut self.state, State::Handshake)
        else {
            return Step::fail(Failure::Unexpected);
        };
        let goes_on = match reply {
            Reply::Bare => State::Messages(mechanism, Framing::Bare),
            Reply::Request { .. } => State::Messages(mechanism, Framing::Request),
        };
        match outcome {
            Ok(Outcome::Proven(proven, last)) => done(proven, mechanism, reply, last, now),
            Ok(Outcome::Challenge(login, message)) => {
                self.login = Some(login);
                self.state = goes_on;
                match reply_frame(reply, message, 0) {
                    Some(frame) => Step::Send(frame),
                    None => Step::fail(Failure::Unexpected),
                }
            }
            Err(failure) => {
                let (challenge, last_words) = match &failure {
                    Failure::Token(_) => (INVALID_TOKEN.to_owned(), INVALID_TOKEN.to_owned()),
                    Failure::Broker {
                        message,
                        challenge: Some(challenge),
                    } => (challenge.clone(), message.clone()),
                    _ => return self.fail(mechanism, reply, failure),
                };
                // The client reads the text, answers one byte, and is then refused (RFC 7628).
                self.refused = Some(last_words);
                self.state = goes_on;
                match reply_frame(reply, challenge.into(), 0) {
                    Some(frame) => Step::Refuse(frame, failure),
                    None => Step::fail(failure),
                }
            }
        }
    }

    /// Whether the client may be whom it has proven to be: nobody else than it says, nor than it
    /// was.
    pub fn accept(&self, proven: &Proven) -> Result<(), Failure> {
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
            _ => Ok(()),
        }
    }

    /// The end, in a broker's words.
    fn fail(&self, mechanism: Mechanism, reply: Reply, failure: Failure) -> Step {
        let text = match &failure {
            // Over these a broker fails in an unforeseen way, and says nothing.
            Failure::Malformed(Malformed::Scheme)
            | Failure::Password(PasswordError::Scram(ScramError::ProofLength)) => {
                return Step::fail(failure);
            }
            Failure::Authzid(text) => text.clone(),
            Failure::Broker { message, .. } => message.clone(),
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
        claims,
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
            claims,
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
