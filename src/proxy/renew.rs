//! The session that the broker granted to the proxy (KIP-368), on a connection in use: it is
//! renewed between two requests of the client, who does not notice. The broker reads requests one
//! by one, so the answers to a re-authentication come behind all that are owed before; the loop
//! of answers takes them out and hands them over here.
//!
//! There is no timer: a broker looks at a session's end when a request comes, and lets an ended
//! one be renewed if that is what comes first. So the time is looked at before each request.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::connection::Link;
use super::forward;
use super::requests::owe;
use crate::clock;
use crate::identity::issuers::Proven;
use crate::net::stream::WriteHalf;
use crate::session::handshake::Failure;
use crate::session::inflight::Owed;
use crate::telemetry::Renewal as Outcome;
use crate::upstream::sasl::{Credentials, Exchange, Granted, SaslFailure, Session, Step};

/// How long after a failure to find credentials it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The session of one broker connection, and the way of its answers from loop to loop.
#[derive(Debug, Default)]
pub struct Renewal {
    session: RefCell<Option<Session>>,
    answer: RefCell<Option<Bytes>>,
    answered: Notify,
    refused: Cell<bool>,
}

impl Renewal {
    /// Of a connection on which the broker granted this.
    pub fn new(session: Option<Session>) -> Self {
        Renewal {
            session: RefCell::new(session),
            ..Renewal::default()
        }
    }

    /// Whether the session is to be renewed before anything else is sent.
    pub fn is_due(&self) -> bool {
        match &*self.session.borrow() {
            None => false,
            Some(session) => session.is_due(clock::now()),
        }
    }

    /// The session; `None`: the broker did not ask for one.
    pub fn session(&self) -> Option<Session> {
        self.session.borrow().clone()
    }

    /// An answer of the broker's to the re-authentication (without its prefix).
    pub fn answered(&self, frame: Bytes) {
        *self.answer.borrow_mut() = Some(frame);
        self.answered.notify_one();
    }

    /// Whether the broker has refused the client's token and closes, while the client is still
    /// being told.
    pub fn is_refused(&self) -> bool {
        self.refused.get()
    }

    async fn answer(&self) -> Bytes {
        loop {
            if let Some(answer) = self.answer.borrow_mut().take() {
                return answer;
            }
            self.answered.notified().await;
        }
    }
}

/// Renews the session by what the connection was opened with. Whether the connection may go on.
pub(super) async fn renew_own(link: &Link<'_>, broker: &mut WriteHalf<'_>) -> io::Result<bool> {
    let Some(Session { credentials, .. }) = link.renewal.session() else {
        return Ok(true);
    };
    Ok(match renew(link, broker, credentials).await? {
        Ok(_) => true,
        // Nothing was sent: the session lives until the broker ends it.
        Err(SaslFailure::NoToken | SaslFailure::Secret(_)) => {
            let later = clock::now() + RETRY_PAUSE;
            if let Some(session) = &mut *link.renewal.session.borrow_mut() {
                session.put_off(later);
            }
            true
        }
        Err(_) => false,
    })
}

/// What became of a token that a client brought to go on with.
pub(super) enum Forwarded {
    /// It counts, at the broker too where that was asked.
    Goes,
    /// The broker refuses it.
    Refused(Failure),
    /// The connection is of no use any more.
    Lost,
}

/// Where the client's own token opened the connection, renews the session by the new one.
pub(super) async fn renew_forwarded(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    token: Option<&str>,
    proven: &mut Proven,
) -> io::Result<Forwarded> {
    let session = link.renewal.session();
    let Some(session) = session.filter(|s| matches!(s.credentials, Credentials::Forwarded(_)))
    else {
        return Ok(Forwarded::Goes);
    };
    let Some(token) = token else {
        return Ok(Forwarded::Lost);
    };
    let token = forward::token(token, proven);
    // A broker takes no second word where the first one counts for ever.
    if session.granted().lifetime.is_some() {
        let credentials = Credentials::Forwarded(token.clone());
        match renew(link, broker, credentials).await? {
            Ok(granted) => forward::bound(proven, Some(granted)),
            Err(failure) => {
                let refusal = forward::refusal(&failure);
                link.renewal.refused.set(refusal.is_some());
                return Ok(refusal.map_or(Forwarded::Lost, Forwarded::Refused));
            }
        }
    }
    let proxy = link.client.borrow().proxy;
    proxy.cluster.brought(token);
    Ok(Forwarded::Goes)
}

/// Renews the session by `credentials`; what has not been renewed is logged and counted.
pub(super) async fn renew(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    credentials: Credentials,
) -> io::Result<Result<Granted, SaslFailure>> {
    let renewed = exchange(link, broker, &credentials).await?;
    let client = link.client.borrow();
    let outcome = match &renewed {
        Ok(granted) => {
            let session = Session::new(credentials, *granted, clock::now());
            *link.renewal.session.borrow_mut() = Some(session);
            Outcome::Renewed
        }
        Err(SaslFailure::NoToken | SaslFailure::Secret(_)) => Outcome::Failed,
        Err(failure) => {
            if let SaslFailure::Refused(_) = failure {
                credentials.refused();
            }
            Outcome::Refused
        }
    };
    client.proxy.recorder.reauthenticated(outcome);
    if let Err(error) = &renewed {
        tracing::warn!(connection = client.number, listener = %client.listener.name, %error,
            "cannot authenticate to the broker again");
    }
    Ok(renewed)
}

async fn exchange(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    credentials: &Credentials,
) -> io::Result<Result<Granted, SaslFailure>> {
    let Some(session) = link.renewal.session() else {
        return Ok(Err(SaslFailure::Unexpected));
    };
    let proof = match credentials.proof(Duration::ZERO).await {
        Ok(proof) => proof,
        Err(failure) => return Ok(Err(failure)),
    };
    tokio::time::sleep_until(session.renewable_from().into()).await;
    let Some((mut exchange, mut frame)) = Exchange::again(proof, session.granted()) else {
        return Ok(Err(SaslFailure::Unexpected));
    };
    loop {
        while !link.inflight.borrow().has_room() {
            link.room.notified().await;
        }
        owe(link, Owed::Sasl);
        broker.write_all(&frame).await?;
        broker.flush().await?;
        let answer = link.renewal.answer().await;
        match exchange.step(&answer) {
            Ok(Step::Send(next)) => frame = next,
            Ok(Step::Done(granted)) => return Ok(Ok(granted)),
            Err(failure) => return Ok(Err(failure)),
        }
    }
}
