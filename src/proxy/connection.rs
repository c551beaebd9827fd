//! One client connection from its first byte to its last: TLS, identity, the broker connection
//! that belongs to it, and then two loops in one task until either side ends or the process
//! drains. One client connection has one broker connection: order, back-pressure, muting and
//! fetch sessions keep Kafka's own meaning.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::client::{Client, Place};
use super::forward;
use super::listener::Identity;
use super::recheck::{Ended, Recheck};
use super::renew::Renewal;
use super::roster::{Roster, Seat};
use super::{Permit, Proxy, prove, requests, responses, revoke};
use crate::broker::{BrokerAddr, Target};
use crate::identity::binding::Thumbprint;
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::Mechanisms;
use crate::net::fault::{HandshakeFault, handshake_fault};
use crate::net::stream::{HANDSHAKE_TIMEOUT, Stream};
use crate::net::tls::Offer;
use crate::policy::tenant::TwoTenants;
use crate::principal::{Principal, TextClaims};
use crate::session::frames;
use crate::session::handshake::{Failure, Handshake, Identified, Outcome, Step};
use crate::session::inflight::InFlight;
use crate::telemetry::audit::{Entry, Verdict};
use crate::telemetry::{ConnectionMetrics, DialStage, Method, Reason};
use crate::upstream::dial::{DialError, DialFailure, Dialer, Dialled};
use crate::upstream::sasl::{Credentials, Session};
use crate::wire::frame;
use crate::{clock, telemetry};

/// How long a client may take to prove who it is.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a refused client waits for its answer (Kafka's
/// `connection.failed.authentication.delay.ms`).
pub(super) const FAILURE_DELAY: Duration = Duration::from_millis(100);
/// How often the end of a session is held against the clock.
const SESSION_LOOK: Duration = Duration::from_secs(60);
/// How long answers are still delivered to a client that is authenticating again as its session
/// ends.
const SESSION_GRACE: Duration = Duration::from_secs(5);
/// How long a connection that ends may take to take its last bytes.
const LINGER: Duration = Duration::from_millis(500);

/// What the two loops of a connection share.
pub struct Link<'p> {
    /// The client.
    pub client: RefCell<Client<'p>>,
    /// What is owed to it.
    pub inflight: RefCell<InFlight>,
    /// The session at the broker.
    pub renewal: Renewal,
    /// Something new is owed.
    pub owed: Notify,
    /// There is room for another request.
    pub room: Notify,
    /// The client has authenticated again.
    pub session: Notify,
    /// No further request is taken; what is owed is still delivered.
    pub last_request_taken: Cell<bool>,
    /// The answer that is due has begun to reach the client.
    pub streams: Cell<bool>,
    /// True once the process drains.
    pub draining: watch::Receiver<bool>,
}

/// Who a client is, and the broker connection, if it had to be opened to know.
type Known = (Identified, Option<(BrokerAddr, Dialled)>);

/// How a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed.
    Client,
    /// The broker closed, or its answer cannot be used.
    Broker,
    /// Nothing more is taken; deliver what is owed, then close.
    Finish,
    /// Close now.
    Now,
}

/// Serves one connection to its end.
pub async fn serve(
    proxy: Arc<Proxy>,
    roster: Rc<Roster>,
    listener_index: usize,
    target: Target,
    socket: TcpStream,
    peer: SocketAddr,
    _permit: Permit,
) {
    let Some(listener) = proxy.listeners.get(listener_index) else {
        return;
    };
    let mut draining = proxy.draining.subscribe();
    if *draining.borrow() {
        return;
    }
    let mut place = Place {
        proxy: &proxy,
        listener,
        number: proxy.next_number(),
        peer,
        target,
        certificate: None,
    };
    let mut offers = listener.tls.as_ref().map(watch::Sender::subscribe);
    let mut stream = match place.accept(socket, offers.as_mut()).await {
        Ok(stream) => stream,
        Err(error) => {
            place.no_handshake(&error);
            return;
        }
    };
    let mut recheck = Recheck::new(listener, &stream, offers);
    if let Target::Bootstrap = target {
        place.target = listener.target_of(stream.server_name());
    }
    if let Identity::Sasl(_) = &listener.identity {
        let leaf = stream.peer_certificates().first();
        place.certificate = leaf.map(|leaf| Thumbprint::of(leaf));
    }
    let mut buffer = BytesMut::new();
    let identifying = place.identify(&mut stream, &mut buffer);
    let identified = tokio::select! {
        identified = timeout(AUTHENTICATION_TIMEOUT, identifying) => identified,
        ended = recheck.ended() => return place.certificate_ended(stream, ended).await,
        _ = draining.wait_for(|draining| *draining) => return,
    };
    let Ok(Some((who, dialled))) = identified else {
        return;
    };
    if let Err(two) = proxy.snapshot.load().placed(&who.principal, &who.claims) {
        return place.two_tenants(stream, &who.principal, &two).await;
    }
    // The broker connection is opened when the first request needs it: who only looks whether
    // somebody listens, as probes do, reaches no broker.
    if buffer.is_empty() {
        tokio::select! {
            arrived = stream.arrival() => if !matches!(arrived, Ok(true)) { return },
            ended = recheck.ended() => return place.certificate_ended(stream, ended).await,
            _ = draining.wait_for(|draining| *draining) => return,
        }
    }
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => place.dial(place.dialer(&who.principal)).await,
    };
    let Ok((addr, upstream)) = dialled else {
        return;
    };
    let proven = who.principal.clone();
    let client = match Client::new(&place, who, addr) {
        Ok(client) => client,
        // The policies have changed in this very moment.
        Err(two) => return place.two_tenants(stream, &proven, &two).await,
    };
    proxy.recorder.upstream_opened();
    let seat = roster.seat(client.number);
    run(
        client,
        stream,
        upstream,
        buffer,
        draining,
        &mut recheck,
        &seat,
    )
    .await;
    proxy.recorder.upstream_closed();
}

async fn run(
    client: Client<'_>,
    mut stream: Stream,
    upstream: Dialled,
    buffer: BytesMut,
    draining: watch::Receiver<bool>,
    recheck: &mut Recheck,
    seat: &Seat,
) {
    let in_flight_max = client.proxy.bounds.in_flight_max;
    let Dialled {
        stream: mut upstream,
        session,
    } = upstream;
    let link = Link {
        client: RefCell::new(client),
        inflight: RefCell::new(InFlight::new(in_flight_max)),
        renewal: Renewal::new(session),
        owed: Notify::new(),
        room: Notify::new(),
        session: Notify::new(),
        last_request_taken: Cell::new(false),
        streams: Cell::new(false),
        draining,
    };
    let end = {
        let (client_read, client_write) = stream.split();
        let (upstream_read, upstream_write) = upstream.split();
        let mut requests =
            std::pin::pin!(requests::run(&link, client_read, upstream_write, buffer));
        let mut responses = std::pin::pin!(responses::run(&link, upstream_read, client_write));
        let mut session = std::pin::pin!(session_over(&link));
        let mut revoked = std::pin::pin!(revoke::watch(&link, &seat.pulse));
        tokio::select! {
            biased;
            end = &mut requests => match end {
                End::Finish => {
                    link.last_request_taken.set(true);
                    link.owed.notify_one();
                    tokio::select! {
                        biased;
                        end = &mut responses => end,
                        end = &mut session => end,
                        end = &mut revoked => end,
                    }
                }
                end => end,
            },
            end = &mut responses => end,
            end = &mut session => end,
            end = &mut revoked => end,
            (why, detail) = recheck.ended() => {
                let client = link.client.borrow();
                client.proxy.recorder.certificate_end(why);
                client.refused_otherwise(None, None, Reason::Authentication, detail, None);
                End::Now
            }
        }
    };
    link.client.borrow().ended(&mut link.inflight.borrow_mut());
    match end {
        // The broker may still be reading what was not to be answered: closing with unread
        // bytes on our side would reset the connection under it.
        End::Client => linger(&mut upstream).await,
        End::Finish => {
            tokio::join!(linger(&mut upstream), linger(&mut stream));
        }
        End::Broker | End::Now => linger(&mut stream).await,
    }
}

/// Ends the connection when its session ends while something is owed: what was asked for within
/// the session is not answered beyond it, however long a poll waits. With nothing owed the
/// connection stays, for a request that authenticates again (KIP-368), as at a broker.
async fn session_over(link: &Link<'_>) -> End {
    loop {
        let end = link.client.borrow().session_end;
        let Some(end) = end else {
            link.session.notified().await;
            continue;
        };
        // Calendar time may be set: it is looked at again from time to time.
        let left = end.duration_since(clock::wall()).unwrap_or_default();
        if !left.is_zero() {
            let _ = timeout(left.min(SESSION_LOOK), link.session.notified()).await;
            continue;
        }
        if link.inflight.borrow().is_empty() {
            link.session.notified().await;
            continue;
        }
        // Its answers stand behind what is owed; a client that has begun in time gets a moment.
        let begun = link.client.borrow().reauthentication.is_some();
        if begun
            && timeout(SESSION_GRACE, link.session.notified())
                .await
                .is_ok()
        {
            continue;
        }
        let client = link.client.borrow();
        let why = "session has expired, answers that were owed are dropped";
        client.refused_otherwise(None, None, Reason::Expired, why, None);
        tracing::info!(connection = client.number, why, "closed");
        return End::Now;
    }
}

/// Says goodbye and takes what still comes, so that nothing on its way is lost to a reset.
async fn linger(stream: &mut Stream) {
    let goodbye = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 1024];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    };
    let _ = timeout(LINGER, goodbye).await;
}

fn stage(error: &DialError) -> DialStage {
    match error.failure() {
        DialFailure::Handshake | DialFailure::HandshakeTimeout => DialStage::Tls,
        DialFailure::Resolve => DialStage::Resolve,
        DialFailure::Credentials | DialFailure::Refused | DialFailure::AuthenticationTimeout => {
            DialStage::Sasl
        }
        _ => DialStage::Connect,
    }
}

impl Place<'_> {
    /// The connection as its bytes are to be read: with TLS once the handshake is done, and for
    /// a resumed session once it is known that it still proves what it did.
    async fn accept(
        &self,
        socket: TcpStream,
        offers: Option<&mut watch::Receiver<Arc<Offer>>>,
    ) -> io::Result<Stream> {
        let Some(offers) = offers else {
            return Stream::plain(socket);
        };
        let offer = Arc::clone(&offers.borrow_and_update());
        let stream = Stream::accept(socket, &offer.config, HANDSHAKE_TIMEOUT).await?;
        let recorder = &self.proxy.recorder;
        if !stream.is_resumed() {
            recorder.handshake(telemetry::Handshake::Full);
            return Ok(stream);
        }
        recorder.handshake(telemetry::Handshake::Resumed);
        match offer.check_resumed(stream.peer_certificates(), clock::wall()) {
            Ok(()) => Ok(stream),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// As whom the broker connection of this principal is opened.
    fn dialer(&self, principal: &Principal) -> &Dialer {
        let identities = &self.proxy.identities;
        &identities
            .choose(&self.listener.name, &principal.name)
            .dialer
    }

    /// A broker connection for the client.
    async fn dial(&self, dialer: &Dialer) -> Result<(BrokerAddr, Dialled), DialError> {
        let dialled = self.proxy.cluster.dial(self.target, dialer).await;
        if let Err(error) = &dialled {
            self.proxy.recorder.dial_failure(stage(error));
            tracing::warn!(listener = %self.listener.name, target = ?self.target, %error,
                detail = error.detail(), "cannot reach the broker");
        }
        dialled
    }

    /// Who is there. `buffer` is left with what the client sent behind its proof.
    async fn identify(&self, stream: &mut Stream, buffer: &mut BytesMut) -> Option<Known> {
        let known = |principal: Principal| Some((without_end(principal), None));
        match &self.listener.identity {
            Identity::Static(principal) => known(principal.clone()),
            Identity::Mtls(settings) => {
                let leaf = stream.peer_certificates().first().map(|leaf| leaf.as_ref());
                match crate::identity::certificate::principal_of(leaf, settings) {
                    Ok(principal) => known(principal),
                    Err(error) => {
                        self.refused(Method::Tls, error.to_string());
                        None
                    }
                }
            }
            Identity::Sasl(offered) => self.authenticate(stream, offered, buffer).await,
        }
    }

    /// The SASL exchange: one frame, one answer, until it is done.
    async fn authenticate(
        &self,
        stream: &mut Stream,
        offered: &Mechanisms,
        buffer: &mut BytesMut,
    ) -> Option<Known> {
        let metrics = self.proxy.recorder.connection("", &self.listener.name);
        let mut handshake = Handshake::initial();
        let mut dialled = None;
        loop {
            let message = read_frame(stream, buffer).await?;
            let mut step = handshake.step(&message, offered);
            if let Step::Prove(evidence) = step {
                let forward = self.proxy.identities.forward();
                let token = evidence.bearer().filter(|_| forward).map(str::to_owned);
                let mut outcome = prove::prove(offered, evidence, self.certificate.as_ref()).await;
                if let Ok(Outcome::Proven(proven, _)) = &outcome {
                    let snapshot = self.proxy.snapshot.load();
                    if let Err(two) = snapshot.placed(&proven.principal, &proven.claims) {
                        outcome = Err(two.into());
                    }
                }
                if let Ok(Outcome::Proven(proven, _)) = &mut outcome
                    && let dialer = self.dialer(&proven.principal)
                    && let Credentials::Forward = dialer.credentials()
                    && handshake.accept(proven).is_ok()
                {
                    match self.forward(&token?, proven, dialer).await? {
                        Ok(open) => dialled = Some(open),
                        Err(failure) => outcome = Err(failure),
                    }
                }
                step = handshake.proven(outcome, clock::wall());
            }
            match step {
                Step::Send(frame) => send(stream, &frame, &metrics).await?,
                Step::SendVersions(version, id) => {
                    let frame = self.versions(version, id).await?;
                    send(stream, &frame, &metrics).await?;
                }
                Step::Done(frame, proven) => {
                    send(stream, &frame, &metrics).await?;
                    return Some((*proven, dialled));
                }
                // Answered above, and no answer asks for more proof.
                Step::Prove(_) => return None,
                Step::Refuse(frame, failure) => {
                    let method = prove::method(handshake.mechanism(), &failure);
                    self.refused(method, failure.to_string());
                    send(stream, &frame, &metrics).await?;
                }
                Step::Fail(frame, failure) => {
                    if let Some(failure) = failure {
                        let method = prove::method(handshake.mechanism(), &failure);
                        self.refused(method, failure.to_string());
                    }
                    tokio::time::sleep(FAILURE_DELAY).await;
                    if let Some(frame) = frame {
                        send(stream, &frame, &metrics).await?;
                    }
                    linger(stream).await;
                    return None;
                }
            }
        }
    }

    /// A broker connection that the client's own token has opened; `None`: there is none to be
    /// had, and nothing to be said. The broker's grant bounds the client's session.
    async fn forward(
        &self,
        token: &str,
        proven: &mut Proven,
        dialer: &Dialer,
    ) -> Option<Result<(BrokerAddr, Dialled), Failure>> {
        let token = forward::token(token, proven);
        let credentials = Credentials::Forwarded(token.clone());
        let dialer = dialer.clone().with_credentials(credentials);
        match self.dial(&dialer).await {
            Ok(open) => {
                forward::bound(proven, open.1.session.as_ref().map(Session::granted));
                self.proxy.cluster.brought(token);
                Some(Ok(open))
            }
            Err(error) => forward::refusal(error.sasl()?).map(Err),
        }
    }

    async fn versions(&self, version: i16, id: i32) -> Option<Bytes> {
        match self.proxy.cluster.api_versions(self.target).await {
            Ok(broker) => frames::versions_answer(&broker, version, id),
            Err(error) => {
                tracing::warn!(%error, "cannot ask the broker for its versions");
                self.proxy.recorder.dial_failure(DialStage::Versions);
                None
            }
        }
    }

    /// A failed TLS handshake. Who merely went away is counted, and no refusal.
    fn no_handshake(&self, error: &io::Error) {
        match handshake_fault(error) {
            HandshakeFault::Refused(detail) => self.refused(Method::Tls, detail),
            HandshakeFault::Gone => {
                let (listener, peer) = (&self.listener.name, self.peer);
                tracing::debug!(%listener, %peer, %error, "client left during the TLS handshake");
                self.proxy.recorder.authentication_failure(Method::Tls);
            }
        }
    }

    /// The certificate of a client that is not served yet no longer holds.
    async fn certificate_ended(&self, mut stream: Stream, (why, detail): Ended) {
        self.proxy.recorder.certificate_end(why);
        self.refused(Method::Tls, detail);
        linger(&mut stream).await;
    }

    /// Two tenants match the client: it is not served.
    async fn two_tenants(&self, mut stream: Stream, who: &Principal, two: &TwoTenants) {
        let (listener, peer) = (&self.listener.name, self.peer);
        if let Some(left_out) = self.listener.warnings.admit(clock::now()) {
            tracing::warn!(%listener, %peer, error = %two, left_out, "client refused");
        }
        if self.proxy.audit.is_on() {
            self.proxy.audit.record(Entry {
                principal: Some(who.name.clone()),
                proof: Some(who.proof),
                groups: who.groups.clone(),
                ..self.refusal(None, two.to_string())
            });
        }
        linger(&mut stream).await;
    }

    fn refused(&self, method: Method, detail: String) {
        if method == Method::Tls
            && let Some(left_out) = self.listener.warnings.admit(clock::now())
        {
            let (listener, peer) = (&self.listener.name, self.peer);
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(%listener, %peer, %detail, left_out,
                "client refused by TLS or its certificate");
        }
        self.proxy.recorder.authentication_failure(method);
        if !self.proxy.audit.is_on() {
            return;
        }
        let api = match method {
            Method::Tls => None,
            _ => Some("SaslAuthenticate"),
        };
        self.proxy.audit.record(self.refusal(api, detail));
    }

    /// The audit line about a client of whom nothing is known.
    fn refusal(&self, api: Option<&'static str>, detail: String) -> Entry {
        Entry {
            connection: self.number,
            listener: self.listener.name.clone(),
            host: self.peer.ip(),
            principal: None,
            proof: None,
            tenant: "".into(),
            groups: [].into(),
            api,
            operation: None,
            resource: None,
            verdict: Verdict::Deny,
            reason: Reason::Authentication,
            detail: Some(detail),
            rule: None,
            policy: self.proxy.snapshot.load().short_digest.clone(),
            count: None,
        }
    }
}

fn without_end(principal: Principal) -> Identified {
    Identified {
        principal,
        claims: TextClaims::default(),
        session_end: None,
        mechanism: None,
    }
}

/// Reads one frame of a client that has not authenticated; `None`: it is gone, or sent what no
/// client sends. Memory follows the bytes that arrive.
async fn read_frame(stream: &mut Stream, buffer: &mut BytesMut) -> Option<Bytes> {
    loop {
        let max = frame::UNAUTHENTICATED_FRAME_BYTES_MAX;
        match frame::body_length(buffer, max).ok()? {
            Some(length) if buffer.len() >= frame::PREFIX_BYTES + length => {
                buffer.advance(frame::PREFIX_BYTES);
                return Some(buffer.split_to(length).freeze());
            }
            _ => {}
        }
        buffer.reserve(1024);
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn send(stream: &mut Stream, frame: &[u8], metrics: &ConnectionMetrics) -> Option<()> {
    stream.write_all(frame).await.ok()?;
    stream.flush().await.ok()?;
    metrics.bytes(crate::telemetry::Direction::Out, frame.len() as u64);
    Some(())
}
