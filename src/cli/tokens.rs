//! What is told of the proxy's own token for the brokers: in the log, in numbers, in `/readyz`.

use crate::admin::Readiness;
use crate::issuer::token::Report;
use crate::telemetry::Recorder;

/// The subject of the note in `/readyz`.
const SUBJECT: &str = "upstream token";

/// Tells of each question to the token endpoint.
pub(super) fn told(recorder: Recorder, readiness: Readiness) -> impl FnMut(Report<'_>) {
    let mut had_one = false;
    move |report| match report {
        Report::Fetched(token) => {
            recorder.token_fetched(token.expires());
            readiness.clear(SUBJECT);
            if !std::mem::replace(&mut had_one, true) {
                tracing::info!("there is a token for the brokers");
                if readiness.reason().as_deref() == Some(NO_TOKEN) {
                    readiness.not_ready(super::run::NO_BROKERS);
                }
            }
        }
        Report::Failed {
            error,
            current,
            had_one,
        } => {
            recorder.token_failed();
            let holds = current.is_some();
            tracing::warn!(%error, holds, "no new token for the brokers");
            match (had_one, holds) {
                (false, _) => {
                    if readiness.reason().as_deref() == Some(super::run::NO_BROKERS) {
                        readiness.not_ready(NO_TOKEN);
                    }
                }
                (true, true) => {
                    readiness.note(SUBJECT, "cannot be renewed; the old one still holds")
                }
                (true, false) => readiness.note(SUBJECT, "has expired and cannot be renewed"),
            }
        }
    }
}

/// Why a process without any token is not ready.
const NO_TOKEN: &str = "no token for the brokers yet";
