//! Questions about tokens (RFC 7662). An answer is believed for a while, what is no good for a
//! moment, so that neither a client that comes back often nor one in a loop keeps the issuer
//! busy. All who bring one token at a time share one question.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::desk::Health;
use crate::clock;
use crate::identity::issuers::{AskToken, Pending};
use crate::identity::json::{self, Json, Object};
use crate::identity::settings::Introspection;
use crate::identity::token::TokenError;
use crate::net::http::{HttpClient, encoded};
use crate::net::settings::ClientTls;
use crate::telemetry::{IssuerMetrics, IssuerOutcome};

/// How many answers are kept.
pub const ANSWERS_MAX: usize = 4096;
/// The longest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// How many questions may be under way.
pub const QUESTIONS_MAX: usize = 64;
/// How long one may take; the client waits meanwhile.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it is believed that a token is not active.
const INACTIVE_FOR: Duration = Duration::from_secs(5);
/// How long the issuer is left alone about a token after a question that failed.
const FAILED_FOR: Duration = Duration::from_secs(1);

type Claims = Arc<Object<'static>>;
/// A digest keeps the table free of tokens.
type Digest = [u8; 32];

/// Asks one issuer about tokens.
pub struct Introspector {
    settings: Introspection,
    client: HttpClient,
    metrics: IssuerMetrics,
    health: Arc<Health>,
    pub(super) answers: Mutex<HashMap<Digest, Arc<OnceCell<Kept>>>>,
    slots: Semaphore,
}

/// An answer and how long it is believed.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) outcome: Result<Claims, TokenError>,
    pub(super) until: Instant,
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector")
            .field("url", &self.settings.url)
            .finish_non_exhaustive()
    }
}

impl Introspector {
    /// Asks as `settings` say.
    pub fn new(settings: Introspection, metrics: IssuerMetrics, health: Arc<Health>) -> Self {
        let client = HttpClient::new(ClientTls {
            ca: settings.ca.clone(),
            identity: None,
        });
        Self {
            settings,
            client,
            metrics,
            health,
            answers: Mutex::default(),
            slots: Semaphore::new(QUESTIONS_MAX),
        }
    }

    async fn answer(&self, token: &str) -> Result<Claims, TokenError> {
        let digest = Sha256::digest(token.as_bytes()).into();
        let cell = self.cell(digest, clock::now());
        // Should the one who asks go away, the next one who waits asks in its place.
        let kept = cell.get_or_init(|| self.question(token)).await;
        kept.outcome.clone()
    }

    /// The place of the answer about this token, which may still be to come.
    pub(super) fn cell(&self, digest: Digest, now: Instant) -> Arc<OnceCell<Kept>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let current = |cell: &OnceCell<Kept>| cell.get().is_none_or(|kept| now < kept.until);
        if let Some(cell) = answers.get(&digest).filter(|cell| current(cell)) {
            return Arc::clone(cell);
        }
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, cell| current(cell) && (cell.get().is_some() || shared(cell)));
        }
        if answers.len() >= ANSWERS_MAX {
            // What is no good goes first: whoever floods has only that. Then what ends soonest.
            let worth = |cell: &OnceCell<Kept>| {
                let kept = cell.get();
                kept.map(|kept| (kept.outcome.is_ok(), kept.until))
            };
            let least = answers
                .iter()
                .filter_map(|(digest, cell)| Some((worth(cell)?, *digest)))
                .min_by_key(|(worth, _)| *worth)
                .map(|(_, digest)| digest);
            // If all are still to come, the answer to this question is simply not kept.
            let Some(least) = least else {
                return Arc::default();
            };
            answers.remove(&least);
        }
        let cell = Arc::new(OnceCell::new());
        answers.insert(digest, Arc::clone(&cell));
        cell
    }

    async fn question(&self, token: &str) -> Kept {
        let Ok(_slot) = self.slots.try_acquire() else {
            return Kept {
                outcome: Err(TokenError::Busy),
                until: clock::now(),
            };
        };
        match self.ask_issuer(token).await {
            Ok(claims) => {
                self.metrics.asked(IssuerOutcome::Answered);
                self.health.well();
                self.kept(claims)
            }
            Err((outcome, trouble)) => {
                self.metrics.asked(outcome);
                self.health.ill(format!(
                    "no answer from `introspection.url` ({trouble}); its tokens are refused"
                ));
                Kept {
                    outcome: Err(TokenError::Unasked),
                    until: clock::now() + FAILED_FOR,
                }
            }
        }
    }

    pub(super) fn kept(&self, claims: Object<'static>) -> Kept {
        let now = clock::now();
        if claims.get("active") != Some(&Json::Boolean(true)) {
            return Kept {
                outcome: Err(TokenError::Inactive),
                until: now + INACTIVE_FOR,
            };
        }
        let expires = claims.get("exp").and_then(Json::as_f64);
        let expires = expires.and_then(|at| Duration::try_from_secs_f64(at).ok());
        let left = expires.map_or(Duration::ZERO, |at| {
            let now = clock::wall().duration_since(UNIX_EPOCH);
            at.saturating_sub(now.unwrap_or_default())
        });
        let until = now.checked_add(left.min(self.settings.cache_for));
        Kept {
            outcome: Ok(Arc::new(claims)),
            until: until.unwrap_or(now),
        }
    }

    async fn ask_issuer(&self, token: &str) -> Result<Object<'static>, (IssuerOutcome, String)> {
        let failed = |trouble: String| (IssuerOutcome::Unreachable, trouble);
        let unusable = |trouble: String| (IssuerOutcome::Unusable, trouble);
        let secret = self.settings.client_secret.read();
        let secret = secret.map_err(|error| failed(error.to_string()))?;
        // RFC 6749 §2.3.1: both are form-encoded before they are joined.
        let pair = format!(
            "{}:{}",
            encoded(&self.settings.client_id),
            encoded(secret.text())
        );
        let basic = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
        let mut basic = basic.map_err(|error| failed(error.to_string()))?;
        basic.set_sensitive(true);
        let fields = [("token", token), ("token_type_hint", "access_token")];
        let headers = [(AUTHORIZATION, basic)];
        let asked = self
            .client
            .post_form(&self.settings.url, &fields, &headers, ANSWER_BYTES_MAX);
        let answer = timeout(QUESTION_TIMEOUT, asked)
            .await
            .map_err(|_| failed("gave no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if answer.status != StatusCode::OK {
            let status = answer.status.as_u16();
            return Err(unusable(format!("answers with status {status}")));
        }
        let claims = json::parse_object(&answer.body)
            .map_err(|fault| unusable(format!("the answer is {fault}")))?;
        match claims.get("active") {
            Some(Json::Boolean(_)) => Ok(claims.into_owned()),
            _ => Err(unusable("the answer has no `active`".to_owned())),
        }
    }
}

/// Whether somebody waits for what is to come.
fn shared(cell: &Arc<OnceCell<Kept>>) -> bool {
    Arc::strong_count(cell) > 1
}

impl AskToken for Introspector {
    fn ask<'a>(&'a self, token: &'a str) -> Pending<'a, Result<Claims, TokenError>> {
        Box::pin(self.answer(token))
    }
}
