//! Reaching a broker: resolve, connect, TLS handshake, each within a bound. Several addresses of
//! one host, or several bootstrap brokers, are tried side by side with a small head start each
//! (RFC 8305), so that one dead address costs a moment and not a timeout. Where brokers ask for
//! SASL, a connection is dialled once the broker believes.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::frames;
use super::sasl::{
    ANSWER_BYTES_MAX, AUTHENTICATION_TIMEOUT, Credentials, Exchange, Proof, SaslFailure, Session,
    Step, TOKEN_TIMEOUT,
};
use crate::broker::BrokerAddr;
use crate::clock;
use crate::net::backoff::random;
use crate::net::stream::Stream;

/// How long resolving a name and connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head start of one address over the next (RFC 8305 §5).
pub const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses of one host are tried.
pub const ADDRESSES_MAX: usize = 16;
/// How many attempts run at the same time.
pub const ATTEMPTS_MAX: usize = 8;

/// Dials brokers, always in the same way. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    /// Shared by clones: a change of the files is one for all.
    tls: Option<Arc<ArcSwap<ClientConfig>>>,
    credentials: Credentials,
    connect_timeout: Duration,
    handshake_timeout: Duration,
}

/// A connection to a broker that is ready for requests.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: Stream,
    /// The session that the broker granted, where it asks for SASL.
    pub session: Option<Session>,
}

/// What went wrong, without saying where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    /// The host's name has no address, or is no name.
    #[error("the broker's name cannot be resolved")]
    Resolve,
    /// Refused or unreachable.
    #[error("the broker cannot be reached")]
    Connect,
    /// Not connected within the bound.
    #[error("the broker cannot be reached in time")]
    ConnectTimeout,
    /// TLS failed: a foreign certificate, or no TLS at all.
    #[error("the tls handshake with the broker failed")]
    Handshake,
    /// No handshake within the bound.
    #[error("the tls handshake with the broker took too long")]
    HandshakeTimeout,
    /// There is nothing to authenticate with: no token yet, or a secret that cannot be read.
    #[error("there is nothing to authenticate to the broker with")]
    Credentials,
    /// The broker does not believe, or does not speak SASL.
    #[error("the broker refuses the proxy's authentication")]
    Refused,
    /// The broker did not decide within the bound.
    #[error("the authentication to the broker took too long")]
    AuthenticationTimeout,
    /// There was nothing to dial.
    #[error("no broker address is known")]
    NoAddress,
}

impl DialFailure {
    /// One word for metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Credentials => "credentials",
            Self::Refused => "refused",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::NoAddress => "no_address",
        }
    }
}

/// Why a broker could not be dialled. What is displayed (and `{:?}`) names no address, because a
/// client may come to see it; the operator's log takes [`detail`](Self::detail).
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct DialError {
    failure: DialFailure,
    detail: String,
    sasl: Option<SaslFailure>,
}

impl DialError {
    fn new(failure: DialFailure, at: &BrokerAddr, cause: impl fmt::Display) -> Self {
        Self {
            failure,
            detail: format!("{}:{}: {cause}", at.host, at.port),
            sasl: None,
        }
    }

    fn of_sasl(sasl: SaslFailure, at: &BrokerAddr) -> Self {
        let failure = match sasl {
            SaslFailure::NoToken | SaslFailure::Secret(_) => DialFailure::Credentials,
            _ => DialFailure::Refused,
        };
        Self {
            sasl: Some(sasl.clone()),
            ..Self::new(failure, at, sasl)
        }
    }

    /// What was wrong about the authentication, where it was that.
    pub fn sasl(&self) -> Option<&SaslFailure> {
        self.sasl.as_ref()
    }

    /// What went wrong.
    pub fn failure(&self) -> DialFailure {
        self.failure
    }

    /// Which address and which cause; only for the operator's log.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Debug for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DialError").field(&self.failure).finish()
    }
}

impl Dialer {
    /// With `tls`, every connection is TLS; the bounds are [`CONNECT_TIMEOUT`] and
    /// [`HANDSHAKE_TIMEOUT`].
    pub fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            tls: tls.map(|config| Arc::new(ArcSwap::new(config))),
            credentials: Credentials::None,
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }

    /// TLS of connections that are dialled from now on; nothing where brokers speak none.
    pub fn replace_tls(&self, config: Arc<ClientConfig>) {
        if let Some(tls) = &self.tls {
            tls.store(config);
        }
    }

    /// The same, proving itself to brokers by these.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// What it proves itself to brokers by.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The same without SASL: a broker answers nothing but ApiVersions then.
    pub fn bare(&self) -> Self {
        self.clone().with_credentials(Credentials::None)
    }

    /// The same with other bounds.
    pub fn with_timeouts(self, connect: Duration, handshake: Duration) -> Self {
        Self {
            connect_timeout: connect,
            handshake_timeout: handshake,
            ..self
        }
    }

    /// One connection to this broker, ready for Kafka's requests.
    pub async fn dial(&self, broker: &BrokerAddr) -> Result<Dialled, DialError> {
        if !self.credentials.is_some() {
            let stream = self.connect(broker).await?;
            return Ok(Dialled {
                stream,
                session: None,
            });
        }
        let of_sasl = |failure| DialError::of_sasl(failure, broker);
        // Before the connection, which would wait for it in the broker's time.
        let proof = self
            .credentials
            .proof(TOKEN_TIMEOUT)
            .await
            .map_err(of_sasl)?;
        let mut stream = self.connect(broker).await?;
        let late = |late| DialError::new(DialFailure::AuthenticationTimeout, broker, late);
        let session = timeout(
            AUTHENTICATION_TIMEOUT,
            authenticate(&mut stream, proof, &self.credentials),
        );
        let session = Some(session.await.map_err(late)?.map_err(of_sasl)?);
        Ok(Dialled { stream, session })
    }

    async fn connect(&self, broker: &BrokerAddr) -> Result<Stream, DialError> {
        let name = match &self.tls {
            None => None,
            Some(config) => Some((config.load_full(), server_name(broker)?)),
        };
        let tcp = timeout(self.connect_timeout, connect(broker))
            .await
            .map_err(|late| DialError::new(DialFailure::ConnectTimeout, broker, late))??;
        let Some((config, name)) = name else {
            return Stream::plain(tcp)
                .map_err(|error| DialError::new(DialFailure::Connect, broker, error));
        };
        Stream::connect(tcp, &config, name, self.handshake_timeout)
            .await
            .map_err(|error| {
                let failure = match error.kind() {
                    std::io::ErrorKind::TimedOut => DialFailure::HandshakeTimeout,
                    _ => DialFailure::Handshake,
                };
                DialError::new(failure, broker, error)
            })
    }

    /// The first of these brokers that answers. Where to begin is left to chance, so that many
    /// proxies do not all begin with the same broker; the others are dropped.
    pub async fn race(&self, brokers: &[BrokerAddr]) -> Result<(BrokerAddr, Dialled), DialError> {
        let mut order = brokers.to_vec();
        if !order.is_empty() {
            let first = random() as usize % order.len();
            order.rotate_left(first);
        }
        stagger(order, |broker| {
            let dialer = self.clone();
            async move {
                let dialled = dialer.dial(&broker).await?;
                Ok((broker, dialled))
            }
        })
        .await
    }
}

/// The conversation on a connection that has said nothing yet.
async fn authenticate(
    stream: &mut Stream,
    proof: Proof,
    credentials: &Credentials,
) -> Result<Session, SaslFailure> {
    // A broker without SASL, or with another protocol, closes or says something else.
    let lost = |_| SaslFailure::Unexpected;
    let first = Exchange::first(proof).ok_or(SaslFailure::Unexpected)?;
    let (mut exchange, [versions, mut frame]) = first;
    let versions = asked(stream, &versions).await.map_err(lost)?;
    exchange.versions(&versions)?;
    loop {
        let answer = asked(stream, &frame).await.map_err(lost)?;
        match exchange.step(&answer) {
            Ok(Step::Send(next)) => frame = next,
            Ok(Step::Done(granted)) => {
                return Ok(Session::new(credentials.clone(), granted, clock::now()));
            }
            Err(failure) => {
                if let SaslFailure::Refused(_) = failure {
                    credentials.refused();
                }
                return Err(failure);
            }
        }
    }
}

/// The answer to one frame: nothing else is under way.
async fn asked(stream: &mut Stream, frame: &[u8]) -> std::io::Result<Bytes> {
    stream.write_all(frame).await?;
    stream.flush().await?;
    frames::read(stream, ANSWER_BYTES_MAX).await
}

async fn connect(broker: &BrokerAddr) -> Result<TcpStream, DialError> {
    let unresolved = |cause: &dyn fmt::Display| DialError::new(DialFailure::Resolve, broker, cause);
    let found = lookup_host((bare_host(broker), broker.port))
        .await
        .map_err(|error| unresolved(&error))?;
    let addresses = interleave(found.take(ADDRESSES_MAX).collect());
    if addresses.is_empty() {
        return Err(unresolved(&"no address"));
    }
    stagger(addresses, |address| {
        let broker = broker.clone();
        async move {
            let reach = TcpStream::connect(address).await;
            reach.map_err(|error| DialError::new(DialFailure::Connect, &broker, error))
        }
    })
    .await
}

/// Starts the attempts one after the other: the next when its turn has come or one has failed.
/// Dropping the set ends those that lost.
async fn stagger<I, T, F>(items: Vec<I>, mut attempt: impl FnMut(I) -> F) -> Result<T, DialError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DialError>> + Send + 'static,
{
    let mut items = items.into_iter();
    let mut running = JoinSet::new();
    let mut failure: Option<DialError> = None;
    loop {
        if running.len() < ATTEMPTS_MAX
            && let Some(item) = items.next()
        {
            running.spawn(attempt(item));
        }
        let may_start = running.len() < ATTEMPTS_MAX && items.len() > 0;
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(Ok(won))) => return Ok(won),
                Some(Ok(Err(error))) => failure = Some(merge(failure, error)),
                Some(Err(_)) => {} // the runtime is shutting down
                None if items.len() == 0 => break,
                None => {}
            },
            () = sleep(STAGGER), if may_start => {}
        }
    }
    Err(failure.unwrap_or(DialError {
        failure: DialFailure::NoAddress,
        detail: DialFailure::NoAddress.to_string(),
        sasl: None,
    }))
}

/// The later failure counts, or the one that got as far as SASL; the detail tells of all.
fn merge(earlier: Option<DialError>, later: DialError) -> DialError {
    let Some(earlier) = earlier else { return later };
    let got_further = earlier.sasl.is_some() && later.sasl.is_none();
    DialError {
        failure: match got_further {
            true => earlier.failure,
            false => later.failure,
        },
        detail: format!("{}; {}", earlier.detail, later.detail),
        sasl: later.sasl.or(earlier.sasl),
    }
}

/// Alternates between the address families, the resolver's first one first (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|a| a.is_ipv6() == first);
    one.reverse();
    other.reverse();
    let mut mixed = Vec::with_capacity(one.len() + other.len());
    while !one.is_empty() || !other.is_empty() {
        mixed.extend(one.pop());
        mixed.extend(other.pop());
    }
    mixed
}

/// The host without the brackets of an IPv6 literal.
fn bare_host(broker: &BrokerAddr) -> &str {
    let host = broker.host.as_str();
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    literal.unwrap_or(host)
}

fn server_name(broker: &BrokerAddr) -> Result<ServerName<'static>, DialError> {
    // A trailing dot makes a name absolute for the resolver and is not part of a certificate.
    let host = bare_host(broker);
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned())
        .map_err(|error| DialError::new(DialFailure::Resolve, broker, error))
}

#[cfg(test)]
mod tests;
