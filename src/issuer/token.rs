//! The proxy's own token for the brokers, by the client-credentials grant (RFC 6749 §4.4). A task
//! fetches it ahead of its expiry; where that fails, the token there is serves as long as it is
//! valid, and the endpoint is asked again and again.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::assertion::{Algorithm, AssertionError, Signer};
use crate::clock;
use crate::net::backoff::{Backoff, portion};
use crate::net::http::{HttpClient, HttpError, Url, encoded};
use crate::net::settings::ClientTls;
use crate::secret::{Secret, SecretError};

/// The longest answer of a token endpoint, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long a token is believed to hold where nothing says it (RFC 6749 §5.1 leaves it open).
const LIFETIME_UNKNOWN: Duration = Duration::from_secs(300);
/// No token is believed to hold longer: a new one costs little, and calendars end.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The endpoint is not asked more often than this while it answers.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// After a broker has refused a token, another one is not asked for sooner than this.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// The first and the last bound of the pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// `client_assertion_type` of RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// Who is asked.
    pub endpoint: Url,
    /// As whom.
    pub client_id: String,
    /// `scope`.
    pub scope: Option<String>,
    /// `audience`, which some servers want.
    pub audience: Option<String>,
    /// Authorities that may sign the endpoint's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How that is proven.
    pub proof: ClientProof,
}

/// How the proxy proves to a token endpoint who it is. Files are read at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// A password (`client_secret_basic`).
    Secret(Secret),
    /// A key of its own (`private_key_jwt`).
    PrivateKey {
        /// PEM.
        file: PathBuf,
        /// How it signs.
        algorithm: Algorithm,
        /// `kid`.
        key_id: Option<String>,
    },
    /// A token that somebody else signed and keeps fresh, Kubernetes for one.
    Assertion(Secret),
}

/// A token for the brokers. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: Arc<str>,
    expires: SystemTime,
}

impl Token {
    /// This token, which holds until `expires`.
    pub fn new(text: &str, expires: SystemTime) -> Self {
        let text = text.into();
        Token { text, expires }
    }

    /// The token itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Until when it holds.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether it holds now.
    pub fn is_valid(&self) -> bool {
        clock::wall() < self.expires
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why no token was had. Nothing of an answer's body is repeated but its error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error("the token endpoint {0}")]
    Http(#[from] HttpError),
    /// What proves who asks cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What proves who asks cannot be made.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// Refused.
    #[error("the token endpoint answers {0}{1}")]
    Refused(u16, String),
    /// Not what RFC 6749 §5.1 says.
    #[error("the token endpoint's answer {0}")]
    Unusable(&'static str),
}

/// The newest token, for those who dial. A clone sees the same.
#[derive(Clone)]
pub struct Tokens {
    newest: watch::Receiver<Option<Token>>,
    refused: Arc<Notify>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    /// The token to use now, if there is one that holds.
    pub fn current(&self) -> Option<Token> {
        let newest = self.newest.borrow();
        newest.as_ref().filter(|token| token.is_valid()).cloned()
    }

    /// The same; waits so long for one.
    pub async fn wait(&self, bound: Duration) -> Option<Token> {
        let mut newest = self.newest.clone();
        let valid = newest.wait_for(|token| token.as_ref().is_some_and(Token::is_valid));
        timeout(bound, valid).await.ok()?.ok()?.clone()
    }

    /// A broker does not believe the token: another one is asked for soon.
    pub fn refused(&self) {
        self.refused.notify_one();
    }
}

/// What is told after each question.
#[derive(Debug)]
pub enum Report<'a> {
    /// There is a new token.
    Fetched(&'a Token),
    /// There is none, for this reason.
    Failed {
        /// Why.
        error: &'a FetchError,
        /// The token there is, while it holds.
        current: Option<Token>,
        /// Whether there has ever been one.
        had_one: bool,
    },
}

/// Keeps [`Tokens`] supplied.
pub struct TokenSource {
    settings: TokenSettings,
    http: HttpClient,
    newest: watch::Sender<Option<Token>>,
    refused: Arc<Notify>,
}

impl TokenSource {
    /// A source that has not asked yet, and where its tokens are found.
    pub fn new(settings: TokenSettings) -> (TokenSource, Tokens) {
        let (sender, receiver) = watch::channel(None);
        let refused = Arc::new(Notify::new());
        let http = HttpClient::new(ClientTls {
            ca: settings.ca.clone(),
            identity: None,
        });
        let tokens = Tokens {
            newest: receiver,
            refused: Arc::clone(&refused),
        };
        let source = TokenSource {
            settings,
            http,
            newest: sender,
            refused,
        };
        (source, tokens)
    }

    /// Asks for the life of the process.
    pub async fn run(self, mut report: impl FnMut(Report<'_>)) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            match self.fetch().await {
                Ok(token) => {
                    backoff.reset();
                    report(Report::Fetched(&token));
                    let left = token.expires.duration_since(clock::wall());
                    self.newest.send_replace(Some(token));
                    // About four fifths of its life: many proxies do not ask at one moment.
                    let pause = portion(left.unwrap_or_default(), 750, 850).max(PAUSE_MIN);
                    self.pause(pause).await;
                }
                Err(error) => {
                    let newest = self.newest.borrow().clone();
                    report(Report::Failed {
                        error: &error,
                        had_one: newest.is_some(),
                        current: newest.filter(Token::is_valid),
                    });
                    sleep(backoff.delay().max(BACKOFF.0 / 2)).await;
                }
            }
        }
    }

    /// Waits, unless a broker refuses the token meanwhile.
    async fn pause(&self, pause: Duration) {
        let early = async {
            sleep(REFUSED_PAUSE).await;
            self.refused.notified().await;
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = early => {}
        }
    }

    /// Asks once.
    pub async fn fetch(&self) -> Result<Token, FetchError> {
        let settings = &self.settings;
        let asked = clock::wall();
        let assertion = match &settings.proof {
            ClientProof::Secret(_) => None,
            ClientProof::Assertion(secret) => Some(secret.read()?.text().trim().to_owned()),
            ClientProof::PrivateKey {
                file,
                algorithm,
                key_id,
            } => {
                let audience = settings.endpoint.to_string();
                let signer = Signer::read(file, *algorithm)?;
                let key_id = key_id.as_deref();
                Some(signer.assertion(&settings.client_id, &audience, key_id, asked)?)
            }
        };
        let mut fields = vec![("grant_type", "client_credentials")];
        fields.extend(settings.scope.as_deref().map(|scope| ("scope", scope)));
        fields.extend(settings.audience.as_deref().map(|to| ("audience", to)));
        if let Some(assertion) = &assertion {
            fields.push(("client_id", &settings.client_id));
            fields.push(("client_assertion_type", JWT_BEARER));
            fields.push(("client_assertion", assertion));
        }
        let headers = match &settings.proof {
            ClientProof::Secret(secret) => vec![basic(&settings.client_id, secret.read()?.text())?],
            _ => Vec::new(),
        };
        let answer = self
            .http
            .post_form(&settings.endpoint, &fields, &headers, ANSWER_BYTES_MAX);
        let answer = answer.await?;
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if !answer.status.is_success() {
            let code = error_code(body.as_ref());
            return Err(FetchError::Refused(answer.status.as_u16(), code));
        }
        let body = body.ok_or(FetchError::Unusable("is no JSON"))?;
        read_token(&body, asked)
    }
}

/// `client_secret_basic` (RFC 6749 §2.3.1): both parts are written as in a form first.
fn basic(id: &str, secret: &str) -> Result<(HeaderName, HeaderValue), FetchError> {
    let pair = format!("{}:{}", encoded(id), encoded(secret));
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(|_| FetchError::Unusable("cannot be asked for"))?;
    value.set_sensitive(true);
    Ok((AUTHORIZATION, value))
}

/// The code of RFC 6749 §5.2, which is a word of a few known characters.
fn error_code(body: Option<&Value>) -> String {
    let code = body.and_then(|body| body.get("error")?.as_str());
    let is_word = |code: &&str| {
        code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let code = code.filter(is_word).map(|code| format!(" ({code})"));
    code.unwrap_or_default()
}

fn read_token(body: &Value, asked: SystemTime) -> Result<Token, FetchError> {
    let kind = body.get("token_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(FetchError::Unusable("brings no bearer token"));
    }
    let text = body.get("access_token").and_then(Value::as_str);
    let text = text.ok_or(FetchError::Unusable("holds no `access_token`"))?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_~+/.=".contains(&b);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(FetchError::Unusable(
            "holds a token that no broker can read",
        ));
    }
    let seconds = match body.get("expires_in") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_f64(),
        None => None,
    };
    let lifetime = seconds
        .filter(|seconds| *seconds >= 0.0)
        .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX));
    let lifetime = lifetime.map(|lifetime| lifetime.min(LIFETIME_MAX));
    // `expires_in` first: it holds whatever the two clocks say.
    let expires = match (lifetime, expiry(text)) {
        (Some(lifetime), _) => asked + lifetime,
        (None, Some(inside)) => inside.min(asked + LIFETIME_MAX),
        (None, None) => asked + LIFETIME_UNKNOWN,
    };
    Ok(Token::new(text, expires))
}

/// `exp` of a token that is a JWT. It is read and not believed: the broker decides.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let seconds = Duration::try_from_secs_f64(payload.get("exp")?.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(seconds)
}

#[cfg(test)]
mod tests;
