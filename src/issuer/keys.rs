//! The keys of one issuer, fetched from where it publishes them: at start without anybody
//! waiting, again before they expire, and at once for a token that names a key nobody knows.
//!
//! Whoever holds a forged token can name such a key, too. All who wait share one question, they
//! wait a moment only, and a pause follows in which nobody asks or waits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::cache::{self, Kept, Unused};
use super::desk::Health;
use crate::clock;
use crate::identity::issuers::{AskKeys, Pending};
use crate::identity::keys::KEY_SET_BYTES_MAX;
use crate::identity::settings::KeyUrl;
use crate::identity::token::Verifier;
use crate::net::backoff::{Backoff, portion};
use crate::net::http::HttpClient;
use crate::net::settings::ClientTls;
use crate::telemetry::{IssuerMetrics, IssuerOutcome};

/// How long an answer is fresh that does not say so.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// The shortest time for which an answer counts as fresh, whatever it says.
const FRESH_MIN: Duration = Duration::from_secs(60);
/// The longest.
const FRESH_MAX: Duration = Duration::from_secs(60 * 60);
/// The part of that time after which the issuer is asked again, in thousandths, by chance.
const REFRESH_AT: (u32, u32) = (750, 850);
/// The least pause after a question that failed.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The first bound of the pause after a question that failed.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// The last bound.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The least time between two questions because of tokens with unknown keys.
pub const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// How long such a token waits, from the beginning of the question.
pub const UNKNOWN_KEY_WAIT: Duration = Duration::from_secs(1);

/// Keeps the keys of one verifier up to date.
pub struct KeyFeed {
    pub(super) verifier: Arc<Verifier>,
    settings: KeyUrl,
    client: HttpClient,
    metrics: IssuerMetrics,
    health: Arc<Health>,
    state: Mutex<State>,
    wanted: Notify,
    /// How many questions have come to their end.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// When the question began that is under way or about to be.
    begun: Option<Instant>,
    /// When a token last caused one.
    caused: Option<Instant>,
    /// One is about to be, before its time.
    wanted: bool,
}

impl fmt::Debug for KeyFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFeed")
            .field("url", &self.settings.url)
            .finish_non_exhaustive()
    }
}

impl KeyFeed {
    /// Fills `verifier` from the cache file where there is one that may be believed.
    pub fn new(
        verifier: Arc<Verifier>,
        settings: KeyUrl,
        metrics: IssuerMetrics,
        health: Arc<Health>,
    ) -> Self {
        let client = HttpClient::new(ClientTls {
            ca: settings.ca.clone(),
            identity: None,
        });
        let feed = Self {
            verifier,
            settings,
            client,
            metrics,
            health,
            state: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::channel(0).0,
        };
        feed.recall(clock::wall());
        if feed.verifier.key_count() == 0 {
            feed.health
                .begins("its keys have not come yet, its tokens are refused");
        }
        feed
    }

    /// Fetches keys for as long as it runs.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX);
        loop {
            self.begin(clock::now());
            let pause = match self.fetch().await {
                Some(fresh) => {
                    backoff.reset();
                    portion(fresh, REFRESH_AT.0, REFRESH_AT.1)
                }
                None => backoff.delay().max(RETRY_MIN),
            };
            self.end();
            self.rest(pause).await;
        }
    }

    fn begin(&self, now: Instant) {
        let mut state = self.lock();
        state.begun.get_or_insert(now);
        state.wanted = false;
    }

    pub(super) fn end(&self) {
        self.lock().begun = None;
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Until it is time, or a token needs keys.
    async fn rest(&self, pause: Duration) {
        let mut over = std::pin::pin!(sleep(pause));
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.wanted.notified() => if self.lock().wanted { return },
            }
        }
    }

    /// How long a token with an unknown key should wait for newer ones; `None`: not at all.
    pub(super) fn claim(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        if let Some(begun) = state.begun {
            let waited = now.saturating_duration_since(begun);
            let left = UNKNOWN_KEY_WAIT.saturating_sub(waited);
            return (!left.is_zero()).then_some(left);
        }
        let rests = |caused| now.saturating_duration_since(caused) < UNKNOWN_KEY_PAUSE;
        if state.caused.is_some_and(rests) {
            return None;
        }
        state.caused = Some(now);
        state.begun = Some(now);
        state.wanted = true;
        self.wanted.notify_one();
        Some(UNKNOWN_KEY_WAIT)
    }

    /// One question; how long its answer is fresh, if it was any good.
    pub(super) async fn fetch(&self) -> Option<Duration> {
        let (outcome, trouble) = match self.client.get(&self.settings.url, KEY_SET_BYTES_MAX).await
        {
            Err(error) => (IssuerOutcome::Unreachable, error.to_string()),
            Ok(answer) if answer.status != StatusCode::OK => {
                let status = answer.status.as_u16();
                (
                    IssuerOutcome::Unusable,
                    format!("answers with status {status}"),
                )
            }
            Ok(answer) => match self.take(&answer.body, clock::wall()) {
                Ok(()) => {
                    self.metrics.asked(IssuerOutcome::Answered);
                    self.health.well();
                    self.remember(&answer.body).await;
                    let fresh = answer.max_age().unwrap_or(FRESH);
                    let fresh = fresh.clamp(FRESH_MIN, FRESH_MAX);
                    return Some(fresh.min(self.settings.stale_max));
                }
                Err(fault) => (IssuerOutcome::Unusable, fault),
            },
        };
        self.metrics.asked(outcome);
        let confirmed = self.verifier.keys_confirmed();
        let until = confirmed.map(|confirmed| self.until(confirmed));
        let left = match until {
            Some(until) if clock::wall() < until => "its last keys are used until `maxStale`",
            _ => "there are no current keys, its tokens are refused",
        };
        self.health
            .ill(format!("no keys from `jwks.url` ({trouble}); {left}"));
        None
    }

    fn take(&self, body: &[u8], confirmed: SystemTime) -> Result<(), String> {
        let text = std::str::from_utf8(body).map_err(|_| "the key set is no text".to_owned())?;
        let until = self.until(confirmed);
        self.verifier
            .replace_keys_until(text, confirmed, until)
            .map_err(|error| error.to_string())?;
        self.metrics.keys(self.verifier.key_count(), confirmed);
        Ok(())
    }

    fn until(&self, confirmed: SystemTime) -> SystemTime {
        let until = confirmed.checked_add(self.settings.stale_max);
        until.unwrap_or(confirmed)
    }

    /// Takes the keys of the cache file.
    fn recall(&self, now: SystemTime) {
        let Some(path) = &self.settings.cache_file else {
            return;
        };
        let (issuer, url) = self.who();
        let taken = cache::read(path, (&issuer, &url), self.settings.stale_max, now)
            .and_then(|kept| Ok((kept.confirmed().ok_or(Unused::Broken)?, kept)))
            .and_then(|(confirmed, kept)| {
                let taken = self.take(kept.keys.as_bytes(), confirmed);
                taken.map_err(|_| Unused::Broken)
            });
        match taken {
            Ok(()) | Err(Unused::Absent) => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(issuer, "the cache file `{path}` is not used: {error}");
            }
        }
    }

    /// Writes the cache file, away from this thread: disks may be slow.
    async fn remember(&self, body: &[u8]) {
        let Some(path) = self.settings.cache_file.clone() else {
            return;
        };
        let (issuer, url) = self.who();
        let kept = Kept {
            issuer,
            url,
            confirmed: clock::since_epoch(clock::wall()).as_secs(),
            keys: String::from_utf8_lossy(body).into_owned(),
        };
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || cache::write(&path, &kept)).await;
        if let Ok(Err(error)) = written {
            let issuer = &self.verifier.settings().issuer;
            tracing::warn!(%issuer, %error, "the cache file `{shown}` cannot be written");
        }
    }

    fn who(&self) -> (String, String) {
        let issuer = self.verifier.settings().issuer.clone();
        (issuer, self.settings.url.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AskKeys for KeyFeed {
    fn newer(&self, than: u64) -> Pending<'_, bool> {
        Box::pin(async move {
            let mut ended = self.ended.subscribe();
            if self.verifier.generation() == than
                && let Some(left) = self.claim(clock::now())
            {
                // Late or not, what counts is whether there are others now.
                let _ = timeout(left, ended.changed()).await;
            }
            self.verifier.generation() != than
        })
    }
}
