//! The loop from client to broker: cut frames, glance at each, and send on, in one write, the
//! run of frames that go on as they are. Frames are held until they are complete, since what a
//! Produce request names stands between its records.

use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;

use super::client::Client;
use super::connection::{End, FAILURE_DELAY, Link};
use super::judge::{Learned, Wanted};
use super::listener::Identity;
use super::passage::{self, After, PASSAGE_BYTES_MIN, Usual};
use super::prove;
use super::renew::{self, Forwarded};
use super::request::{Glance, glance};
use super::weigh::{Weighed, weigh};
use crate::clock;
use crate::net::buffer;
use crate::net::stream::{ReadHalf, WriteHalf};
use crate::session::frames;
use crate::session::handshake::{self, Failure, Handshake, Step};
use crate::session::inflight::Owed;
use crate::telemetry::{Direction, Outcome, Reason};
use crate::upstream::control::AskError;
use crate::wire::frame::{self, PREFIX_BYTES};

/// Frames that are read here after one that was meant to pass unread and could not: what one
/// needs, a transaction say, the next ones need as well.
const USUAL_FRAMES: u32 = 16;

/// Bytes below which a piece of a frame is copied to be written with its neighbours.
const SMALL_BYTES: usize = 4 * 1024;

/// Runs until the client or the process ends, or something must not go on.
///
/// `buffer` holds what the client sent behind its authentication.
pub async fn run(
    link: &Link<'_>,
    mut client: ReadHalf<'_>,
    mut broker: WriteHalf<'_>,
    mut buffer: bytes::BytesMut,
) -> End {
    let end = pump(link, &mut client, &mut broker, &mut buffer).await;
    buffer::give(buffer);
    end.unwrap_or(End::Broker)
}

async fn pump(
    link: &Link<'_>,
    client: &mut ReadHalf<'_>,
    broker: &mut WriteHalf<'_>,
    buffer: &mut bytes::BytesMut,
) -> std::io::Result<End> {
    let frame_bytes_max = link.client.borrow().proxy.bounds.frame_bytes_max;
    let mut draining = link.draining.clone();
    // Whether the last frame was a large one, and how many frames are read here whatever their
    // size, since one had to be.
    let (mut large, mut usual) = (false, 0u32);
    loop {
        // Everything at the front that goes on as it is, in one write.
        let mut accepted = 0;
        let stop = loop {
            if link.client.borrow().muted_until.is_some() {
                break Stop::Muted;
            }
            if !link.inflight.borrow().has_room() {
                break Stop::Full;
            }
            if link.renewal.is_due() {
                break Stop::Renew;
            }
            let rest = &buffer[accepted..];
            let length = match frame::body_length(rest, frame_bytes_max) {
                Ok(Some(length)) if rest.len() - PREFIX_BYTES >= length => length,
                Ok(Some(length)) => break Stop::Incomplete(length + PREFIX_BYTES - rest.len()),
                Ok(None) => break Stop::Incomplete(PREFIX_BYTES - rest.len()),
                Err(error) => {
                    let client = link.client.borrow();
                    let text = error.to_string();
                    client.refused_otherwise(None, None, Reason::Limit, text, None);
                    break Stop::Close;
                }
            };
            if *draining.borrow_and_update() {
                break Stop::Finish;
            }
            let whole = &rest[PREFIX_BYTES..PREFIX_BYTES + length];
            if link.inflight.borrow().is_waiting() && !is_sasl(&link.client.borrow(), whole) {
                break Stop::Behind;
            }
            // Not in the `match` itself: the borrow would live as long as its arms.
            let glanced = glance(&mut link.client.borrow_mut(), whole);
            match glanced {
                Glance::Forward(expect) => {
                    accepted += PREFIX_BYTES + length;
                    large = length >= PASSAGE_BYTES_MIN;
                    usual = usual.saturating_sub(1);
                    if let Some(expect) = expect {
                        owe(link, Owed::Broker(expect));
                    }
                }
                other => break Stop::Look(other, length),
            }
        };
        if accepted > 0 {
            broker.write_all(&buffer[..accepted]).await?;
            broker.flush().await?;
            link.client
                .borrow()
                .metrics
                .bytes(Direction::In, accepted as u64);
            buffer.advance(accepted);
        }
        match stop {
            Stop::Incomplete(missing) => {
                if let (Some(from), Some(to)) = (client.tcp(), broker.tcp())
                    && large
                    && usual == 0
                    && buffer.is_empty()
                    && !link.inflight.borrow().is_waiting()
                {
                    match passage::run(link, from, to, buffer).await? {
                        After::Usual(Usual::Other) => large = false,
                        After::Usual(Usual::Contents) => usual = USUAL_FRAMES,
                        After::Usual(Usual::Busy) => usual = 1,
                        After::End(end) => return Ok(end),
                    }
                    continue;
                }
                // A drain does not wait for the rest of a frame: it was never accepted.
                let read = tokio::select! {
                    read = buffer::read(client, buffer, missing) => read,
                    _ = draining.wait_for(|draining| *draining) => return Ok(End::Finish),
                };
                if !matches!(read, Ok(1..)) {
                    return Ok(End::Client);
                }
            }
            Stop::Muted => {
                let until = link.client.borrow_mut().muted_until.take();
                if let Some(until) = until
                    && let Some(end) = mute(client, buffer, until, &mut draining).await
                {
                    return Ok(end);
                }
            }
            Stop::Behind => {
                if let Some(end) = stay_behind(link, client, buffer, &mut draining).await {
                    return Ok(end);
                }
            }
            Stop::Full => link.room.notified().await,
            Stop::Renew => match hold(client, buffer, renew::renew_own(link, broker), true).await {
                Ok(may_go_on) => {
                    if !may_go_on? {
                        return Ok(End::Finish);
                    }
                }
                Err(end) => return Ok(end),
            },
            Stop::Finish => return Ok(End::Finish),
            Stop::Close => return Ok(End::Now),
            Stop::Look(glance, length) => {
                buffer.advance(PREFIX_BYTES);
                let frame = buffer.split_to(length).freeze();
                let bytes_in = (PREFIX_BYTES + length) as u64;
                link.client.borrow().metrics.bytes(Direction::In, bytes_in);
                if let Some(end) = look(link, broker, glance, frame).await? {
                    return Ok(end);
                }
            }
        }
    }
}

/// Holds the client back (KIP-219): nothing of what it sends is looked at until then. A buffer's
/// worth is taken all the same, to notice that the client has left: its connection counts.
async fn mute(
    client: &mut ReadHalf<'_>,
    buffer: &mut bytes::BytesMut,
    until: std::time::Instant,
    draining: &mut tokio::sync::watch::Receiver<bool>,
) -> Option<End> {
    let over = async {
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => None,
            _ = draining.wait_for(|draining| *draining) => Some(End::Finish),
        }
    };
    hold(client, buffer, over, true).await.unwrap_or_else(Some)
}

/// Waits until no answer is owed that may wait for long. A broker takes one request at a time:
/// what is behind such a one would lie there, allowed once, and be done when it is no longer.
async fn stay_behind(
    link: &Link<'_>,
    client: &mut ReadHalf<'_>,
    buffer: &mut bytes::BytesMut,
    draining: &mut tokio::sync::watch::Receiver<bool>,
) -> Option<End> {
    let over = async {
        while link.inflight.borrow().is_waiting() {
            tokio::select! {
                () = link.room.notified() => {}
                _ = draining.wait_for(|draining| *draining) => return Some(End::Finish),
            }
        }
        None
    };
    hold(client, buffer, over, false).await.unwrap_or_else(Some)
}

/// Whether the frame belongs to a re-authentication, which waits for nothing.
fn is_sasl(client: &Client, frame: &[u8]) -> bool {
    let key = crate::wire::header::peek(frame).map(|(key, _)| key);
    let sasl = [crate::apis::SASL_HANDSHAKE, crate::apis::SASL_AUTHENTICATE];
    client.reauthentication.is_some() || key.is_some_and(|key| sasl.contains(&key))
}

/// Does `work` before anything more of the client is looked at. A buffer's worth is taken all the
/// same, to notice that the client has left; `keeps`: what it sent before that is still done.
async fn hold<T>(
    client: &mut ReadHalf<'_>,
    buffer: &mut bytes::BytesMut,
    work: impl Future<Output = T>,
    keeps: bool,
) -> Result<T, End> {
    let mut work = std::pin::pin!(work);
    let mut at_end = false;
    loop {
        let room = buffer::BUFFER_BYTES.saturating_sub(buffer.len());
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            read = buffer::read(client, buffer, 1), if room > 0 && !at_end => match read {
                Ok(1..) => {}
                Ok(0) if keeps && holds_frame(buffer) => at_end = true,
                _ => return Err(End::Client),
            }
        }
    }
}

fn holds_frame(buffer: &[u8]) -> bool {
    let length = frame::body_length(buffer, usize::MAX);
    matches!(length, Ok(Some(length)) if buffer.len() - PREFIX_BYTES >= length)
}

/// Why the run of frames that go on as they are has ended.
enum Stop {
    /// So many bytes of the next frame are missing.
    Incomplete(usize),
    /// A quota holds the client back.
    Muted,
    /// The broker may be waiting before it answers, and would not look at more.
    Behind,
    /// As many answers are owed as may be.
    Full,
    /// The proxy authenticates to the broker again.
    Renew,
    /// The process drains.
    Finish,
    /// The connection ends.
    Close,
    /// This frame, of so many bytes, needs a closer look.
    Look(Glance, usize),
}

async fn look(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    glance: Glance,
    frame: Bytes,
) -> std::io::Result<Option<End>> {
    match glance {
        Glance::Forward(_) => {}
        Glance::Answer(answer) => owe(link, Owed::Local(answer)),
        Glance::Sasl => return sasl(link, broker, &frame).await,
        Glance::Close(reason, why) => return Ok(Some(close(link, &frame, reason, why))),
        Glance::Resolve(ids) => {
            let proxy = link.client.borrow().proxy;
            if let Err(error) = proxy.cluster.resolve_topics(&ids).await {
                tracing::warn!(%error, "cannot ask the cluster for topic ids");
            }
            return weighed(link, broker, frame).await;
        }
        Glance::Weigh => return weighed(link, broker, frame).await,
    }
    Ok(None)
}

async fn weighed(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    frame: Bytes,
) -> std::io::Result<Option<End>> {
    let mut weighed = weigh_by_the_newest(link, &frame, None);
    if let Weighed::Ask(wanted) = &weighed {
        let learned = ask(link, wanted).await;
        weighed = weigh_by_the_newest(link, &frame, Some(&learned));
    }
    match weighed {
        Weighed::Forward {
            frame,
            expect,
            last,
        } => {
            if let Some(expect) = expect {
                owe(link, Owed::Broker(expect));
            }
            // Without Nagle's delay each write is a packet: small pieces go together.
            let mut small = bytes::BytesMut::new();
            for segment in &frame {
                if segment.len() < SMALL_BYTES {
                    small.extend_from_slice(segment);
                    continue;
                }
                broker.write_all_buf(&mut small).await?;
                broker.write_all(segment).await?;
            }
            broker.write_all_buf(&mut small).await?;
            broker.flush().await?;
            Ok(last.then_some(End::Finish))
        }
        Weighed::Answer(answer) => {
            owe(link, Owed::Local(answer));
            Ok(None)
        }
        // It has been asked, and what cannot be done without is not known: the client comes again.
        Weighed::Ask(_) => Ok(Some(End::Finish)),
        Weighed::Close(reason, why) => Ok(Some(close(link, &frame, reason, why))),
    }
}

/// Asks the cluster what a request cannot be judged without. What it does not answer is not known,
/// and what is not known is not there.
async fn ask(link: &Link<'_>, wanted: &Wanted) -> Learned {
    let proxy = link.client.borrow().proxy;
    let cluster = &proxy.cluster;
    if wanted.defaults {
        cluster.learn_topic_defaults().await;
    }
    let mut learned = Learned::default();
    let failed = |error: &AskError| {
        tracing::warn!(%error, "cannot ask the cluster which topics there are");
    };
    if !wanted.topics.is_empty() {
        let existing = cluster.existing(&wanted.topics).await;
        learned.existing = existing.inspect_err(failed).unwrap_or_default();
    }
    if wanted.all_topics {
        learned.topics = cluster.topics().await.inspect_err(failed).ok();
    }
    learned
}

/// Weighs a request by the policies of now: the cluster may have been asked meanwhile.
fn weigh_by_the_newest(link: &Link<'_>, frame: &Bytes, learned: Option<&Learned>) -> Weighed {
    let mut client = link.client.borrow_mut();
    client.refresh();
    match client.is_contested {
        true => Weighed::Close(Reason::Authentication, "matches two tenants"),
        false => weigh(&mut client, frame, learned),
    }
}

pub(super) fn owe(link: &Link<'_>, owed: Owed) {
    if matches!(owed, Owed::Broker(_)) {
        link.client.borrow().metrics.in_flight_added();
    }
    link.inflight.borrow_mut().push(owed);
    link.owed.notify_one();
}

/// The connection ends as it does at a broker; what is owed already is still delivered.
fn close(link: &Link<'_>, frame: &[u8], reason: Reason, why: &'static str) -> End {
    let client = link.client.borrow();
    let api = crate::wire::header::peek(frame).and_then(|(key, _)| crate::apis::lookup(key));
    if let Some(api) = api
        && reason != Reason::Authorization
    {
        client.metrics.request(api.key, Outcome::Closed);
    }
    client.refused_otherwise(api, None, reason, why, None);
    tracing::info!(
        connection = client.number,
        api = api.map(|a| a.name),
        why,
        "closed"
    );
    End::Finish
}

/// SASL on a connection that is open: re-authentication (KIP-368), or out of place.
async fn sasl(
    link: &Link<'_>,
    broker: &mut WriteHalf<'_>,
    frame: &Bytes,
) -> std::io::Result<Option<End>> {
    let Some(mut step) = reauthenticate(&mut link.client.borrow_mut(), frame) else {
        return Ok(out_of_place(link, frame));
    };
    if let Step::Prove(evidence) = step {
        let (listener, certificate) = {
            let client = link.client.borrow();
            (client.listener, client.certificate)
        };
        let Identity::Sasl(offered) = &listener.identity else {
            return Ok(Some(End::Now));
        };
        let token = evidence.bearer().map(str::to_owned);
        let mut outcome = prove::prove(offered, evidence, certificate.as_ref()).await;
        if let Ok(handshake::Outcome::Proven(proven, _)) = &outcome
            && let Err(two) = link.client.borrow().placed(proven)
        {
            outcome = Err(two.into());
        }
        let accepted = match (&link.client.borrow().reauthentication, &outcome) {
            (None, _) => return Ok(Some(End::Now)),
            (Some(handshake), Ok(handshake::Outcome::Proven(proven, _))) => {
                handshake.accept(proven).is_ok()
            }
            _ => false,
        };
        if let Ok(handshake::Outcome::Proven(proven, _)) = &mut outcome
            && accepted
        {
            match renew::renew_forwarded(link, broker, token.as_deref(), proven).await? {
                Forwarded::Goes => {}
                Forwarded::Refused(failure) => outcome = Err(failure),
                Forwarded::Lost => return Ok(Some(End::Finish)),
            }
        }
        let mut client = link.client.borrow_mut();
        let Some(handshake) = client.reauthentication.as_mut() else {
            return Ok(Some(End::Now));
        };
        step = handshake.proven(outcome, clock::wall());
    }
    Ok(answer(link, step).await)
}

/// Answers one message of a re-authentication.
async fn answer(link: &Link<'_>, step: Step) -> Option<End> {
    match step {
        Step::Send(answer) => owe(link, Owed::Local(answer)),
        Step::Done(answer, proven) => {
            if link.client.borrow_mut().identified_again(*proven) {
                link.inflight.borrow_mut().judge_again();
            }
            link.session.notify_one();
            owe(link, Owed::Local(answer));
        }
        Step::Refuse(answer, failure) => {
            not_proven(&link.client.borrow(), &failure);
            owe(link, Owed::Local(answer));
        }
        Step::Fail(answer, failure) => {
            if let Some(failure) = failure {
                not_proven(&link.client.borrow(), &failure);
            }
            tokio::time::sleep(FAILURE_DELAY).await;
            if let Some(answer) = answer {
                owe(link, Owed::Local(answer));
            }
            return Some(End::Finish);
        }
        // ApiVersions has no place in a re-authentication, and no answer asks for more proof.
        Step::SendVersions(..) | Step::Prove(_) => return Some(End::Finish),
    }
    None
}

/// A session's client brought what proves nothing.
fn not_proven(client: &Client, failure: &Failure) {
    let mechanism = client
        .reauthentication
        .as_ref()
        .and_then(Handshake::mechanism);
    let method = prove::method(mechanism, failure);
    client.proxy.recorder.authentication_failure(method);
    let detail = failure.to_string();
    client.refused_otherwise(None, None, Reason::Authentication, detail, None);
}

/// The next step of a re-authentication; `None`: the message has no place here.
fn reauthenticate(client: &mut Client, frame: &Bytes) -> Option<Step> {
    let Identity::Sasl(offered) = &client.listener.identity else {
        return None;
    };
    if client.reauthentication.is_none() {
        let key = crate::wire::header::peek(frame).map(|(key, _)| key);
        let now = clock::now();
        let too_soon = client
            .reauthentication_begun
            .is_some_and(|begun| now.duration_since(begun) < REAUTHENTICATION_PAUSE);
        if key != Some(crate::apis::SASL_HANDSHAKE) || client.session_end.is_none() || too_soon {
            return None;
        }
        client.reauthentication_begun = Some(now);
        let current = client.proven.clone();
        client.reauthentication = Some(Handshake::again(current, client.mechanism?));
    }
    let handshake = client.reauthentication.as_mut()?;
    Some(handshake.step(frame, offered))
}

/// A re-authentication that begins sooner after the last one is out of place, as at a broker.
const REAUTHENTICATION_PAUSE: Duration = Duration::from_secs(1);

/// ILLEGAL_SASL_STATE; the connection stays, as at a broker.
fn out_of_place(link: &Link<'_>, frame: &Bytes) -> Option<End> {
    match frames::illegal_state(frame) {
        Some(answer) => {
            owe(link, Owed::Local(answer));
            None
        }
        None => Some(End::Finish),
    }
}
