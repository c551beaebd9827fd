//! Every issuer of the process that is asked for something, and what is wrong with it.
//!
//! An issuer that is down stops nobody whom it has vouched for: keys stay in use until `maxStale`
//! and answers until `cacheFor`. Beyond that nothing is let in.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::introspection::Introspector;
use super::keys::KeyFeed;
use crate::identity::issuers::{Asked, Issuer};
use crate::identity::settings::{Introspection, KeyUrl, TokenSettings};
use crate::identity::token::{KeySetError, Verifier};
use crate::telemetry::Recorder;

/// Every issuer of the process that is asked for something.
#[derive(Default)]
pub struct Desk {
    feeds: Vec<Arc<KeyFeed>>,
    health: Vec<Arc<Health>>,
    changed: Arc<Notify>,
}

impl Desk {
    /// An issuer on this listener that publishes its keys. The keys of its cache file are in use
    /// at once, others when [`run`](Self::run) has fetched them.
    pub fn key_url(
        &mut self,
        listener: &str,
        settings: &TokenSettings,
        keys: &KeyUrl,
        recorder: &Recorder,
    ) -> Result<Issuer, KeySetError> {
        let verifier = Arc::new(Verifier::without_keys(settings)?);
        let metrics = recorder.issuer(listener, &settings.issuer);
        let health = self.health(listener, settings);
        let feed = KeyFeed::new(Arc::clone(&verifier), keys.clone(), metrics, health);
        let feed = Arc::new(feed);
        self.feeds.push(Arc::clone(&feed));
        Ok(Issuer {
            verifier,
            asked: Some(Asked::Keys(feed)),
        })
    }

    /// An issuer on this listener that is asked about each token.
    pub fn introspection(
        &mut self,
        listener: &str,
        settings: &TokenSettings,
        asking: &Introspection,
        recorder: &Recorder,
    ) -> Result<Issuer, KeySetError> {
        let verifier = Arc::new(Verifier::without_keys(settings)?);
        let metrics = recorder.issuer(listener, &settings.issuer);
        let health = self.health(listener, settings);
        let asker = Introspector::new(asking.clone(), metrics, health);
        Ok(Issuer {
            verifier,
            asked: Some(Asked::Token(Arc::new(asker))),
        })
    }

    fn health(&mut self, listener: &str, settings: &TokenSettings) -> Arc<Health> {
        let health = Arc::new(Health {
            listener: listener.into(),
            issuer: settings.issuer.as_str().into(),
            trouble: Mutex::new(None),
            changed: Arc::clone(&self.changed),
        });
        self.health.push(Arc::clone(&health));
        health
    }

    /// Fetches keys for as long as it runs, and says what is wrong each time that changes;
    /// `None`: nothing.
    pub async fn run(self, note: impl Fn(Option<String>)) {
        let mut fetching = JoinSet::new();
        for feed in &self.feeds {
            fetching.spawn(Arc::clone(feed).run());
        }
        loop {
            let troubles: Vec<_> = self.health.iter().filter_map(|one| one.shown()).collect();
            note((!troubles.is_empty()).then(|| troubles.join("; ")));
            self.changed.notified().await;
        }
    }
}

/// What is wrong with one issuer, as an operator should know it.
#[derive(Debug)]
pub struct Health {
    listener: Arc<str>,
    issuer: Arc<str>,
    trouble: Mutex<Option<String>>,
    changed: Arc<Notify>,
}

impl Health {
    /// The last question was answered.
    pub(super) fn well(&self) {
        let trouble = self.lock().take();
        if trouble.is_some() {
            let (listener, issuer) = (&self.listener, &self.issuer);
            tracing::info!(%listener, %issuer, "the issuer answers");
            self.changed.notify_one();
        }
    }

    /// Something is wrong. Logged when it changes: whoever asks may ask often.
    pub(super) fn ill(&self, trouble: String) {
        let mut known = self.lock();
        if known.as_deref() == Some(&trouble) {
            return;
        }
        let (listener, issuer) = (&self.listener, &self.issuer);
        tracing::warn!(%listener, %issuer, "{trouble}");
        *known = Some(trouble);
        self.changed.notify_one();
    }

    /// Something is still to come, as at every start: no news for the log.
    pub(super) fn begins(&self, trouble: &str) {
        *self.lock() = Some(trouble.to_owned());
    }

    fn shown(&self) -> Option<String> {
        let trouble = self.lock();
        let trouble = trouble.as_ref()?;
        Some(format!(
            "`{}` on listener `{}`: {trouble}",
            self.issuer, self.listener
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
