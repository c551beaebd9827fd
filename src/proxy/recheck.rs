//! Connections that end with their client certificate (`tls.recheck`): it is held against time,
//! and against the listener's files whenever those have changed. Without that setting nothing is
//! kept, and what the handshake proved is good for the life of the connection.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::listener::Listener;
use crate::clock;
use crate::net::fault::certificate_fault;
use crate::net::stream::Stream;
use crate::net::tls::Offer;
use crate::net::tls::offer::end_of;
use crate::telemetry::CertificateEnd;

/// The longest sleep. Calendar time may jump, for example with a virtual machine that was
/// stopped, and a timer does not see that.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a connection ends.
pub type Ended = (CertificateEnd, String);

/// The end of a connection's certificate, to be waited for beside everything else.
pub struct Recheck(Option<Pin<Box<dyn Future<Output = Ended>>>>);

impl Recheck {
    /// For a connection whose handshake was done with the offer that `offers` has seen last.
    pub fn new(
        listener: &Listener,
        stream: &Stream,
        offers: Option<watch::Receiver<Arc<Offer>>>,
    ) -> Recheck {
        let wanted = listener
            .settings
            .tls
            .as_ref()
            .is_some_and(|tls| tls.recheck);
        let shown = stream.peer_certificates();
        match offers {
            Some(offers) if wanted && !shown.is_empty() => {
                Recheck(Some(Box::pin(watch_over(shown.to_vec(), offers))))
            }
            _ => Recheck(None),
        }
    }

    /// Waits until the certificate no longer holds; for ever where nobody asks.
    pub async fn ended(&mut self) -> Ended {
        match &mut self.0 {
            Some(ended) => ended.await,
            None => pending().await,
        }
    }
}

async fn watch_over(
    shown: Vec<CertificateDer<'static>>,
    mut offers: watch::Receiver<Arc<Offer>>,
) -> Ended {
    let mut next = next_end(&shown, clock::wall());
    loop {
        let sleep = next.map_or(SLEEP_MAX, |at| {
            let left = at.duration_since(clock::wall()).unwrap_or_default();
            left.min(SLEEP_MAX)
        });
        tokio::select! {
            changed = offers.changed() => if changed.is_err() { return pending().await },
            () = tokio::time::sleep(sleep) => {
                if next.is_none_or(|at| clock::wall() < at) {
                    continue;
                }
            }
        }
        let (offer, now) = (offers.borrow_and_update().clone(), clock::wall());
        if let Err(error) = offer.check(&shown, now) {
            return certificate_fault(&error);
        }
        next = next_end(&shown, now);
    }
}

/// The first moment at which a certificate of the chain has expired: the last second named by
/// `notAfter` is still a good one (RFC 5280, 4.1.2.5).
fn next_end(shown: &[CertificateDer<'_>], now: SystemTime) -> Option<SystemTime> {
    let ends = shown.iter().filter_map(|one| end_of(one));
    let over = ends.filter_map(|end| end.checked_add(Duration::from_secs(1)));
    over.filter(|at| *at > now).min()
}
