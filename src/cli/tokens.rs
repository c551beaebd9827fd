//! What is told of the proxy's own token for the brokers: in the log, in numbers, in `/readyz`.

use crate::admin::Readiness;
use crate::issuer::token::Report;
use crate::telemetry::Recorder;
use crate::upstream::identities::Whom;

/// The subject of the note in `/readyz`.
const SUBJECT: &str = "upstream token";

/// Tells of each question to the token endpoint.
pub(super) fn told(
    whom: &Whom,
    recorder: Recorder,
    readiness: Readiness,
) -> impl FnMut(Report<'_>) + use<> {
    let is_everybodys = *whom == Whom::Everybody;
    // Its own questions wait for everybody's token; any other one concerns some clients only.
    let (subject, identity) = match is_everybodys {
        true => (SUBJECT.to_owned(), String::new()),
        false => (format!("{SUBJECT} of {whom}"), whom.to_string()),
    };
    let mut had_one = false;
    move |report| match report {
        Report::Fetched(token) => {
            recorder.token_fetched(&identity, token.expires());
            readiness.clear(&subject);
            if !std::mem::replace(&mut had_one, true) {
                tracing::info!(identity, "there is a token for the brokers");
                if is_everybodys && readiness.reason().as_deref() == Some(NO_TOKEN) {
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
            tracing::warn!(identity, %error, holds, "no new token for the brokers");
            match (had_one, holds) {
                (false, _) if !is_everybodys => {
                    readiness.note(&*subject, "there is none yet");
                }
                (false, _) => {
                    if readiness.reason().as_deref() == Some(super::run::NO_BROKERS) {
                        readiness.not_ready(NO_TOKEN);
                    }
                }
                (true, true) => {
                    readiness.note(&*subject, "cannot be renewed; the old one still holds")
                }
                (true, false) => readiness.note(&*subject, "has expired and cannot be renewed"),
            }
        }
    }
}

/// Why a process without any token is not ready.
const NO_TOKEN: &str = "no token for the brokers yet";
