//! SASL towards brokers, the client's side (KIP-43, KIP-152, KIP-255, KIP-368): what the proxy
//! proves itself by, and the conversation, without sockets. A new connection has it in the
//! dialler; one in use has it between two requests of its client.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::frames;
use crate::apis::{API_VERSIONS, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use crate::identity::sasl::{ABORT, client_first};
use crate::identity::scram::{Hash, ScramClient, ScramError};
use crate::issuer::token::{Token, TokenSettings, TokenSource, Tokens};
use crate::net::backoff::portion;
use crate::secret::{Revealed, Secret, SecretError};
use crate::wire::tree::{Node, StructNode};

/// How long a dial waits for the first token.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the whole conversation may take on a new connection.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer during the conversation, in bytes (Kafka's limit for the other direction).
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// The longest text of a broker that is repeated, in characters.
const TEXT_CHARS_MAX: usize = 512;
/// Bytes of chance in SCRAM's nonce.
const NONCE_BYTES: usize = 24;
/// The correlation id of the conversation; Kafka's own client, too, takes one from the end.
pub const CORRELATION_ID: i32 = i32::MAX;
/// The highest version of SaslAuthenticate that is spoken here.
const AUTHENTICATE_VERSION_MAX: i16 = 2;
/// SaslHandshake with SaslAuthenticate behind it.
const HANDSHAKE_VERSION: i16 = 1;
/// The one version that every broker answers.
const VERSIONS_VERSION: i16 = 0;
/// A broker takes a re-authentication that begins sooner after the last one for a mistake.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// A token of the proxy's own.
    Oauthbearer(Box<TokenSettings>),
    /// PLAIN.
    Plain {
        /// The user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// SCRAM.
    Scram {
        /// Which of the two.
        hash: Hash,
        /// The user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// Each client's own token.
    Forward,
}

impl Settings {
    /// SASL's name of the mechanism.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Settings::Oauthbearer(_) | Settings::Forward => "OAUTHBEARER",
            Settings::Plain { .. } => "PLAIN",
            Settings::Scram { hash, .. } => hash.mechanism(),
        }
    }

    /// The user, or the client that a token is asked for; `None`: whoever brings the token.
    pub fn name(&self) -> Option<&str> {
        match self {
            Settings::Oauthbearer(settings) => Some(&settings.client_id),
            Settings::Plain { username, .. } | Settings::Scram { username, .. } => Some(username),
            Settings::Forward => None,
        }
    }

    /// What they mean in use; and for a token of the proxy's own what fetches it.
    pub fn credentials(&self) -> (Credentials, Option<TokenSource>) {
        let credentials = match self {
            Settings::Oauthbearer(settings) => {
                let (source, tokens) = TokenSource::new((**settings).clone());
                return (Credentials::Oauthbearer(tokens), Some(source));
            }
            Settings::Plain { username, password } => Credentials::Plain {
                username: username.as_str().into(),
                password: password.clone(),
            },
            Settings::Scram {
                hash,
                username,
                password,
            } => Credentials::Scram {
                hash: *hash,
                username: username.as_str().into(),
                password: password.clone(),
            },
            Settings::Forward => Credentials::Forward,
        };
        (credentials, None)
    }
}

/// What the proxy proves itself to brokers by. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nothing: brokers do not ask, or TLS has said it.
    #[default]
    None,
    /// OAUTHBEARER with a token of the proxy's own.
    Oauthbearer(Tokens),
    /// PLAIN.
    Plain {
        /// The user.
        username: Arc<str>,
        /// Its password.
        password: Secret,
    },
    /// SCRAM.
    Scram {
        /// Which of the two.
        hash: Hash,
        /// The user.
        username: Arc<str>,
        /// Its password.
        password: Secret,
    },
    /// Each connection by the token of its client, for which nothing can stand in.
    Forward,
    /// OAUTHBEARER with the token of one client.
    Forwarded(Token),
}

/// What is sent for [`Credentials`], read at the moment of use.
pub enum Proof {
    /// OAUTHBEARER.
    Bearer(Token),
    /// PLAIN: the whole message.
    Plain(Bytes),
    /// SCRAM.
    Scram {
        /// Which of the two.
        hash: Hash,
        /// The state, and the message to begin with.
        client: (ScramClient, String),
        /// The password.
        password: Revealed,
    },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mechanism())
    }
}

/// Why a broker does not take the proxy's word, or none can be given. For the operator's log:
/// names no secret and no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslFailure {
    /// There is no token that holds.
    #[error("there is no valid token to authenticate with")]
    NoToken,
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The mechanism is not enabled at the broker.
    #[error("the broker does not offer {wanted}, it offers {offered}")]
    Mechanism {
        /// What was asked for.
        wanted: &'static str,
        /// What there is.
        offered: String,
    },
    /// The broker refuses the credentials.
    #[error("the broker refuses the credentials: {}", .0.message)]
    Refused(Refusal),
    /// SCRAM's messages do not fit together.
    #[error("the broker's part of SCRAM is wrong: {0}")]
    Scram(#[from] ScramError),
    /// The broker is too old, or says something else.
    #[error("the broker answers with something else than SASL")]
    Unexpected,
}

/// A broker's refusal, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error message.
    pub message: String,
    /// What OAUTHBEARER says before it (RFC 7628 §3.2.2).
    pub challenge: Option<String>,
}

impl Credentials {
    /// Whether there is a conversation at all.
    pub fn is_some(&self) -> bool {
        !matches!(self, Credentials::None)
    }

    /// What is sent now; waits so long for a token.
    pub async fn proof(&self, bound: Duration) -> Result<Proof, SaslFailure> {
        match self {
            Credentials::Oauthbearer(tokens) => {
                let token = match tokens.current() {
                    Some(token) => Some(token),
                    None => tokens.wait(bound).await,
                };
                token.map(Proof::Bearer).ok_or(SaslFailure::NoToken)
            }
            Credentials::Plain { username, password } => {
                let password = password.read()?;
                let message = format!("\0{username}\0{}", password.text());
                Ok(Proof::Plain(message.into()))
            }
            Credentials::Scram {
                hash,
                username,
                password,
            } => {
                let mut nonce = [0; NONCE_BYTES];
                aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SaslFailure::Unexpected)?;
                let nonce = URL_SAFE_NO_PAD.encode(nonce);
                Ok(Proof::Scram {
                    hash: *hash,
                    client: ScramClient::first(*hash, username, &nonce),
                    password: password.read()?,
                })
            }
            Credentials::Forwarded(token) => Ok(Proof::Bearer(token.clone())),
            Credentials::None | Credentials::Forward => Err(SaslFailure::NoToken),
        }
    }

    /// The broker has refused what was sent: another token may be needed.
    pub fn refused(&self) {
        if let Credentials::Oauthbearer(tokens) = self {
            tokens.refused();
        }
    }
}

impl Proof {
    fn mechanism(&self) -> &'static str {
        match self {
            Proof::Bearer(_) => "OAUTHBEARER",
            Proof::Plain(_) => "PLAIN",
            Proof::Scram { hash, .. } => hash.mechanism(),
        }
    }
}

/// One conversation. Every message waits for the answer to the last one.
#[derive(Debug)]
pub struct Exchange {
    proof: Proof,
    state: State,
    /// Of SaslAuthenticate; `None` until the broker has said what it knows.
    version: Option<i16>,
}

#[derive(Debug)]
enum State {
    Handshake,
    Authenticate,
    /// SCRAM: the password is proven, the broker's knowledge of it is not.
    Proven,
    /// The broker has said why it refuses the token, and is going to refuse it.
    Refused(String),
}

/// How the conversation goes on.
#[derive(Debug)]
pub enum Step {
    /// With this frame.
    Send(Bytes),
    /// Not at all: the broker believes.
    Done(Granted),
}

/// What a broker grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// When the session ends if it is not renewed; `None`: never.
    pub lifetime: Option<Duration>,
    /// The version of SaslAuthenticate.
    version: i16,
}

impl Exchange {
    /// The conversation at the start of a connection: ApiVersions, whose answer is for
    /// [`versions`](Self::versions), and the handshake, which is not sent before that answer: of
    /// two requests in one TLS record Kafka's broker leaves the second in its buffer, until its
    /// selector wakes up for another reason, at most 300 ms later on an idle broker.
    pub fn first(proof: Proof) -> Option<(Exchange, [Bytes; 2])> {
        let empty = frames::new_request(API_VERSIONS)?;
        let versions = frames::request(API_VERSIONS, VERSIONS_VERSION, CORRELATION_ID, &empty)?;
        let (exchange, handshake) = Self::begin(proof, None)?;
        Some((exchange, [versions, handshake]))
    }

    /// The conversation on a connection that has a session: what is sent first.
    pub fn again(proof: Proof, granted: Granted) -> Option<(Exchange, Bytes)> {
        Self::begin(proof, Some(granted.version))
    }

    fn begin(proof: Proof, version: Option<i16>) -> Option<(Exchange, Bytes)> {
        let mut request = frames::new_request(SASL_HANDSHAKE)?;
        request.set_text("Mechanism", Some(proof.mechanism()));
        let frame = frames::request(SASL_HANDSHAKE, HANDSHAKE_VERSION, CORRELATION_ID, &request)?;
        let exchange = Exchange {
            proof,
            state: State::Handshake,
            version,
        };
        Some((exchange, frame))
    }

    /// Takes the answer to ApiVersions.
    pub fn versions(&mut self, frame: &Bytes) -> Result<(), SaslFailure> {
        let answer = frames::answer(API_VERSIONS, VERSIONS_VERSION, frame);
        let (_, answer) = answer.ok_or(SaslFailure::Unexpected)?;
        let keys = answer.structs("ApiKeys");
        let known = keys
            .iter()
            .find(|key| key.int("ApiKey") == i64::from(SASL_AUTHENTICATE))
            .and_then(|key| i16::try_from(key.int("MaxVersion")).ok());
        let known = known.ok_or(SaslFailure::Unexpected)?;
        self.version = Some(known.min(AUTHENTICATE_VERSION_MAX));
        Ok(())
    }

    /// Takes an answer (without its prefix) and says how it goes on.
    pub fn step(&mut self, frame: &Bytes) -> Result<Step, SaslFailure> {
        let version = self.version.ok_or(SaslFailure::Unexpected)?;
        if let State::Handshake = self.state {
            self.offered(frame)?;
            let message = match &self.proof {
                Proof::Bearer(token) => client_first(token.text()).into(),
                Proof::Plain(message) => message.clone(),
                Proof::Scram { client, .. } => client.1.clone().into(),
            };
            self.state = State::Authenticate;
            return self.message(message, version);
        }
        let answer = frames::answer(SASL_AUTHENTICATE, version, frame);
        let (id, answer) = answer.ok_or(SaslFailure::Unexpected)?;
        if id != CORRELATION_ID {
            return Err(SaslFailure::Unexpected);
        }
        if answer.int("ErrorCode") != 0 {
            let message = answer.text("ErrorMessage").unwrap_or("it gives no reason");
            let challenge = match &self.state {
                State::Refused(challenge) => Some(challenge.clone()),
                _ => None,
            };
            return Err(SaslFailure::Refused(Refusal {
                message: shown(message),
                challenge,
            }));
        }
        let bytes = answer.bytes("AuthBytes").cloned().unwrap_or_default();
        match (&self.state, &mut self.proof) {
            (
                State::Authenticate,
                Proof::Scram {
                    client, password, ..
                },
            ) => {
                let message = client.0.second(&bytes, password.text())?;
                self.state = State::Proven;
                self.message(message.into(), version)
            }
            (State::Proven, Proof::Scram { client, .. }) => {
                // A broker that does not know the password either is none.
                client.0.finish(&bytes)?;
                Ok(granted(&answer, version))
            }
            (State::Authenticate, Proof::Bearer(_)) if !bytes.is_empty() => {
                let challenge = String::from_utf8_lossy(&bytes);
                self.state = State::Refused(shown(&challenge));
                self.message(Bytes::from_static(ABORT), version)
            }
            (State::Authenticate, _) => Ok(granted(&answer, version)),
            _ => Err(SaslFailure::Unexpected),
        }
    }

    fn offered(&self, frame: &Bytes) -> Result<(), SaslFailure> {
        let answer = frames::answer(SASL_HANDSHAKE, HANDSHAKE_VERSION, frame);
        let (id, answer) = answer.ok_or(SaslFailure::Unexpected)?;
        if id != CORRELATION_ID {
            return Err(SaslFailure::Unexpected);
        }
        if answer.int("ErrorCode") == 0 {
            return Ok(());
        }
        let offered: Vec<_> = answer.texts("Mechanisms").map(shown).collect();
        Err(SaslFailure::Mechanism {
            wanted: self.proof.mechanism(),
            offered: match offered.is_empty() {
                true => "none".to_owned(),
                false => offered.join(", "),
            },
        })
    }

    fn message(&self, bytes: Bytes, version: i16) -> Result<Step, SaslFailure> {
        let request = frames::new_request(SASL_AUTHENTICATE);
        let mut request = request.ok_or(SaslFailure::Unexpected)?;
        request.set("AuthBytes", Node::Bytes(Some(bytes)));
        let frame = frames::request(SASL_AUTHENTICATE, version, CORRELATION_ID, &request);
        frame.map(Step::Send).ok_or(SaslFailure::Unexpected)
    }
}

fn granted(answer: &StructNode, version: i16) -> Step {
    let ms = u64::try_from(answer.int("SessionLifetimeMs")).unwrap_or(0);
    let lifetime = (ms > 0).then_some(Duration::from_millis(ms));
    Step::Done(Granted { lifetime, version })
}

/// A broker's text as it may stand in a log: one line, of bounded length.
fn shown(text: &str) -> String {
    let chars = text.chars().take(TEXT_CHARS_MAX);
    chars
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The session of a connection, as the broker granted it.
#[derive(Clone, Debug)]
pub struct Session {
    /// What proves the proxy when the session is renewed.
    pub credentials: Credentials,
    granted: Granted,
    since: Instant,
    due: Option<Instant>,
}

impl Session {
    /// Granted at this moment.
    pub fn new(credentials: Credentials, granted: Granted, now: Instant) -> Self {
        // As Kafka's own client: between 85 and 95 % of it, so that many do not come at once.
        let due = granted.lifetime.and_then(|lifetime| {
            // Under `forward` the client's own session ends no later, and renews this one.
            let is_ours = !matches!(credentials, Credentials::Forwarded(_));
            is_ours.then(|| now.checked_add(portion(lifetime, 850, 950)))?
        });
        Session {
            credentials,
            granted,
            since: now,
            due,
        }
    }

    /// What the broker granted.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// Whether it is time to renew it.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Before this the broker does not let it be renewed.
    pub fn renewable_from(&self) -> Instant {
        self.since + PAUSE_MIN
    }

    /// It could not be renewed: tried again at this moment.
    pub fn put_off(&mut self, until: Instant) {
        self.due = Some(until);
    }
}

#[cfg(test)]
mod tests;
