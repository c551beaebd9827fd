//! The second pass over a request (see [`request`](super::request)): read as a tree, judged
//! resource by resource, and either a smaller request for the broker or an answer.

use bytes::{Bytes, BytesMut};

use super::client::Client;
use super::judge::{Judge, Learned, Objections, Wanted};
use super::request::{expect, work_for};
use super::revoke::note_member;
use super::shadow;
use super::share;
use crate::apis::fetch as fetch_api;
use crate::apis::produce::{self, Refused};
use crate::apis::{self, Api, Creation, FETCH, Listing, METADATA, PRODUCE};
use crate::apis::{Question, Refusal};
use crate::clock;
use crate::policy::model::{Operation, ResourceKind};
use crate::schema::{self, BatchFault};
use crate::session::asked::{Asked, NAMES_BYTES_MAX};
use crate::session::frames::answer;
use crate::session::inflight::{Expect, FetchWork, Work};
use crate::telemetry::{Outcome, Reason, ViolationAction};
use crate::topic_rules::Rejection;
use crate::topic_rules::produce::Fault;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, Segments, StructNode};

/// What the second pass decided.
#[derive(Debug)]
pub enum Weighed {
    /// This goes to the broker; the answer is owed, unless there is none. `last`: something was
    /// refused that cannot be answered (acks=0), so the connection ends afterwards.
    Forward {
        /// The request, in pieces.
        frame: Vec<Bytes>,
        /// The answer that is owed.
        expect: Option<Box<Expect>>,
        /// Whether the connection ends.
        last: bool,
    },
    /// Answered here.
    Answer(Bytes),
    /// The cluster must be asked this first; then weigh again.
    Ask(Wanted),
    /// The connection ends.
    Close(Reason, &'static str),
}

/// Second pass. The cluster has been asked about unknown topic ids: what is unknown now stays so.
/// `learned`: what it has said to what an earlier pass wanted to ask.
pub fn weigh(client: &mut Client, frame: &Bytes, learned: Option<&Learned>) -> Weighed {
    let Some((key, version)) = header::peek(frame) else {
        return Weighed::Close(Reason::Malformed, "frame shorter than a header");
    };
    let Some((api, layout)) = apis::lookup(key).and_then(|api| Some((api, api.layout()?))) else {
        return Weighed::Close(Reason::Unsupported, "unknown API key");
    };
    let flexible = api.flexible(version);
    let Ok(head) = RequestHeader::read(frame, flexible) else {
        return Weighed::Close(Reason::Malformed, "unreadable header");
    };
    let started = clock::now();
    let body = frame.slice(head.body_at..);
    let nodes_max = tree::REQUEST_NODES_MAX;
    let Ok((mut request, _)) = tree::decode_prefix(&layout.request, version, &body, nodes_max)
    else {
        return Weighed::Close(Reason::Malformed, "unreadable request");
    };
    let no_answer = key == PRODUCE && request.int("Acks") == 0;
    let throttle_ms = match key {
        PRODUCE => client.charge_produce(head.client_id, frame.len() + 4, started),
        _ => 0,
    };
    let mut renumbered = false;
    if key == FETCH {
        match whose_session(client, version, &request) {
            Whose::Own => {}
            Whose::Nobodys => {
                request.set_int("SessionId", 0);
                renumbered = true;
            }
            Whose::Unknown => return unknown_session(client, api, &head),
        }
    }
    let forgotten = forgotten_topics(key, &request);
    let creates = |version, request: &StructNode| {
        key == METADATA && apis::asks_for_creation(version, request)
    };
    let wanted = creates(version, &request);
    let judged = match judge(client, api, version, &mut request, learned) {
        Ok(judged) => judged,
        Err(wanted) => return Weighed::Ask(wanted),
    };
    let Judged {
        verdict,
        changed,
        refused,
        told,
        ask_version,
        mut asked,
        listing,
    } = judged;
    let outcome = match (&verdict, refused.is_empty()) {
        (Err(Refusal::Served(_)), _) => Outcome::Answered,
        (Err(_), _) => Outcome::Refused,
        (Ok(()), true) => Outcome::Forwarded,
        (Ok(()), false) => Outcome::Partial,
    };
    if let Err(refusal) = verdict {
        client
            .metrics
            .request(key, if no_answer { Outcome::Closed } else { outcome });
        return match refusal {
            Refusal::Answer(_) if no_answer => {
                Weighed::Close(Reason::Authorization, "refused without acknowledgement")
            }
            Refusal::Answer(mut response) | Refusal::Served(mut response) => {
                if throttle_ms > 0 {
                    response.set_int("ThrottleTimeMs", throttle_ms.into());
                }
                Weighed::Answer(answer(api, version, head.correlation_id, &response))
            }
            Refusal::Close(why) => Weighed::Close(Reason::Unsupported, why),
        };
    }
    note_member(client, api, &request);
    if let Some(answered) = share::session(client, api, &head, &request, &mut asked) {
        return answered;
    }
    let frame = match changed || renumbered {
        false => whole(frame),
        true => {
            let asked = RequestHeader {
                version: ask_version,
                ..head
            };
            let flexible = api.flexible(ask_version);
            rewrite(&asked, flexible, &request, layout, ask_version)
        }
    };
    if no_answer {
        client.metrics.request(key, outcome);
        return Weighed::Forward {
            frame,
            expect: None,
            last: !refused.is_empty(),
        };
    }
    let work = match key {
        PRODUCE => Work::Produce,
        FETCH => fetch_work(client, version, &request),
        _ => work_for(api, version, client.view.is_some()),
    };
    let as_asked = refused.is_empty() && ask_version == version;
    let work = match (work, as_asked) {
        (Work::Pass, false) => Work::Whole,
        (work, _) => work,
    };
    if key == FETCH {
        asked = with_partitions(client, version, &request, asked);
    }
    let refused = match key {
        FETCH => with_session(client, &request, refused, &forgotten, &asked),
        _ => refused,
    };
    let mut owed = expect(client, api, &head, work, asked);
    owed.outcome = outcome;
    owed.waits_ms = api.waits_ms(&request);
    owed.started = started;
    owed.throttle_ms = throttle_ms;
    owed.asked_version = ask_version;
    owed.refused = refused;
    owed.told = told;
    owed.listing = listing;
    owed.forgotten = forgotten_parts(client, version, &forgotten);
    owed.creation = match (wanted, creates(ask_version, &request)) {
        (false, _) => Creation::Unasked,
        (true, true) => Creation::Asked,
        (true, false) => Creation::Prevented,
    };
    Weighed::Forward {
        frame,
        expect: Some(owed),
        last: false,
    }
}

type Parts = Vec<(&'static str, StructNode)>;

/// What the guards said of a request.
struct Judged {
    verdict: Result<(), Refusal>,
    changed: bool,
    refused: Parts,
    /// See [`Expect`].
    told: Vec<u64>,
    ask_version: i16,
    asked: Asked,
    /// See [`Expect`].
    listing: Option<Listing>,
}

/// The order of the guards: access rules first, then topic rules, then what the records must be.
/// An error: this must be known first.
fn judge(
    client: &mut Client,
    api: &'static Api,
    version: i16,
    request: &mut StructNode,
    learned: Option<&Learned>,
) -> Result<Judged, Wanted> {
    let snapshot = std::sync::Arc::clone(&client.snapshot);
    let differences = shadow::of_request(client, api, version, request, learned);
    let mut observed = Vec::new();
    let mut scratch = std::mem::take(&mut client.scratch);
    let mut violations = Vec::new();
    let mut broken = Objections::default();
    let (mut would_change, mut would_break) = (Objections::default(), Objections::default());
    let rules_produce = api.key == PRODUCE && snapshot.topic_rules.rules_produce();
    let checks_produce = api.key == PRODUCE && !snapshot.schemas.is_empty();
    let acks = request_acks(api, request);
    let (judged, denials, allowed, objections, wanted, unsupported) = {
        let mut judge: Judge = client.judge();
        judge.lookup.learned = learned;
        judge.needs_names = rules_produce || (checks_produce && snapshot.schemas.refuses());
        judge.asked = Some(Asked::default());
        let mut question = Question::new(api, version, request, &mut judge);
        let mut verdict = question.judge();
        if verdict.is_ok() && rules_produce {
            verdict = produce::refuse_partitions(&mut question, |topic, bytes| {
                let rules = snapshot.topic_rules.produce(topic)?;
                let rejection = rules.check(acks, bytes, &mut scratch).err()?;
                broken.produced(topic, &rejection);
                Some(topic_refusal(rejection))
            });
        }
        if verdict.is_ok() && checks_produce {
            verdict = produce::refuse_partitions(&mut question, |topic, bytes| {
                let check = snapshot.schemas.topic(topic)?;
                let outcome = check.check_batchset(bytes, &mut scratch);
                observed.extend(outcome.would_be_refused().map(|o| (topic.to_owned(), o)));
                let refused = schema_refusal(&outcome)?;
                violations.push((topic.to_owned(), outcome));
                Some(refused)
            });
        }
        // What is refused already, or is not even sent, is refused with these rules or without.
        let beside = &snapshot.observed_topic_rules;
        if verdict.is_ok() && api.key == PRODUCE && beside.rules_produce() {
            produce::look_at_partitions(&mut question, |topic, bytes| {
                let rules = beside.produce(topic);
                let checked = rules.map(|rules| rules.check(acks, bytes, &mut scratch));
                if let Some(Err(rejection)) = checked {
                    would_break.produced(topic, &rejection);
                }
            });
        }
        let goes_on = verdict.is_ok();
        let mut judged = Judged {
            verdict,
            changed: question.changed,
            refused: std::mem::take(&mut question.refused),
            told: differences.told(),
            ask_version: question.ask_version,
            asked: Asked::default(),
            listing: question.listing.take(),
        };
        let unsupported = question.unsupported;
        judged.asked = judge.asked.take().unwrap_or_default();
        if goes_on && !judge.observed.list.is_empty() {
            judge.observed.without(&judge.objections);
            would_change = judge.observed;
        }
        let wanted = judge.lookup.wanted;
        (
            judged,
            judge.denials,
            judge.allowed,
            judge.objections,
            wanted,
            unsupported,
        )
    };
    client.scratch = scratch;
    if !wanted.is_nothing() {
        return Err(wanted);
    }
    client.refused(api, denials);
    client.objected(api, objections);
    client.objected(api, broken);
    client.allowed(api, allowed);
    client.differed(api, differences);
    client.would_object(api, would_change);
    client.would_object(api, would_break);
    for (topic, found) in observed {
        client.would_reject(api, topic, found);
    }
    for (topic, outcome) in violations {
        let records = outcome.bad.len().max(1) as u64;
        client
            .metrics
            .schema_violations(ViolationAction::Reject, records);
        let (detail, rule) = match (&outcome.whole, outcome.bad.first()) {
            (Some(whole), _) => (whole.message.clone(), Some(whole.rule.clone())),
            (None, Some(bad)) => {
                let detail = schema::told(bad, outcome.bad.len() as u64);
                (detail, Some(bad.rule.clone()))
            }
            (None, None) => (String::new(), None),
        };
        client.refused_otherwise(Some(api), Some(&topic), Reason::Value, detail, rule);
    }
    if let Some(why) = unsupported {
        client.refused_otherwise(Some(api), None, Reason::Unsupported, why, None);
    }
    Ok(judged)
}

/// The acknowledgements that a Produce request asks for.
fn request_acks(api: &Api, request: &StructNode) -> i64 {
    match api.key {
        PRODUCE => request.int("Acks"),
        _ => 0,
    }
}

fn topic_refusal(rejection: Rejection) -> Refused {
    let code = match rejection.fault {
        Fault::Rule => apis::errors::POLICY_VIOLATION,
        Fault::Corrupt => apis::errors::CORRUPT_MESSAGE,
        Fault::Unreadable => apis::errors::INVALID_RECORD,
    };
    Refused {
        code,
        message: Some(rejection.message),
        records: rejection.records,
    }
}

fn schema_refusal(outcome: &crate::schema::Outcome) -> Option<Refused> {
    if let Some(whole) = &outcome.whole {
        let code = match whole.fault {
            BatchFault::Corrupt => apis::errors::CORRUPT_MESSAGE,
            _ => apis::errors::INVALID_RECORD,
        };
        let message = Some(whole.message.clone());
        return Some(Refused {
            code,
            message,
            records: Vec::new(),
        });
    }
    if outcome.bad.is_empty() {
        return None;
    }
    let message = match outcome.bad.len() {
        1 => "1 record does not match the topic's schema".to_owned(),
        n => format!("{n} records do not match the topic's schema"),
    };
    let records = outcome
        .bad
        .iter()
        .map(|bad| (bad.index, bad.message.clone()))
        .collect();
    Some(Refused {
        code: apis::errors::INVALID_RECORD,
        message: Some(message),
        records,
    })
}

/// Whose fetch session a request names.
enum Whose {
    /// This client's, or there is none.
    Own,
    /// Not this client's, but the request only ends it and begins anew.
    Nobodys,
    /// Not this client's, or of no number.
    Unknown,
}

/// Epochs that go on with no session: a new one is begun, or none.
const FULL_EPOCHS: [i64; 2] = [0, -1];

fn whose_session(client: &Client, version: i16, request: &StructNode) -> Whose {
    if version < fetch_api::SESSIONS_SINCE {
        return Whose::Own;
    }
    let session_id = request.int("SessionId") as i32;
    let is_full = FULL_EPOCHS.contains(&request.int("SessionEpoch"));
    let key = (client.broker.clone(), session_id);
    let sessions = &client.proxy.fetch_sessions;
    match (session_id, is_full) {
        (0, true) => Whose::Own,
        (0, false) => Whose::Unknown,
        _ if sessions.refused(&key, &client.owner()).is_some() => Whose::Own,
        (_, true) => Whose::Nobodys,
        (_, false) => Whose::Unknown,
    }
}

/// The answer to a session that is not this client's.
fn unknown_session(client: &Client, api: &'static Api, head: &RequestHeader) -> Weighed {
    client.metrics.request(api.key, Outcome::Refused);
    let Some(layout) = api.layout() else {
        return Weighed::Close(Reason::Unsupported, "no layout");
    };
    let mut response = StructNode::new(&layout.response.body);
    response.set_int("ErrorCode", apis::errors::FETCH_SESSION_ID_NOT_FOUND.into());
    let frame = answer(api, head.version, head.correlation_id, &response);
    Weighed::Answer(frame)
}

fn fetch_work(client: &Client, version: i16, request: &StructNode) -> Work {
    let sessions = version >= fetch_api::SESSIONS_SINCE;
    Work::Fetch(FetchWork {
        session_id: request.int("SessionId") as i32,
        opens: sessions && request.int("SessionEpoch") == 0,
        epoch: match sessions {
            true => request.int("SessionEpoch") as i32,
            false => -1,
        },
        generation: client.snapshot.generation,
    })
}

/// Topics that a Fetch request takes out of its session, with their partitions.
fn forgotten_topics(key: i16, request: &StructNode) -> Vec<StructNode> {
    match key {
        FETCH => request.structs("ForgottenTopicsData").to_vec(),
        _ => Vec::new(),
    }
}

/// The same with the names of the topics, as many as are remembered of one request; one that
/// nobody knows takes nothing out of what is remembered.
fn forgotten_parts(
    client: &mut Client,
    version: i16,
    forgotten: &[StructNode],
) -> Vec<fetch_api::TopicParts> {
    if client.view.is_none() || forgotten.is_empty() {
        return Vec::new();
    }
    let (topics, topology) = (&mut client.topics, &client.proxy.cluster.topology);
    let parts = fetch_api::parts_of(forgotten, version, |id| topics.name(id, topology));
    let mut bytes = 0;
    let few = parts.flatten().take_while(|topic| {
        bytes += topic.name.len() + size_of_val(&topic.partitions[..]);
        bytes <= NAMES_BYTES_MAX
    });
    few.collect()
}

/// What was allowed of a Fetch request, with the partitions of each topic: what is left of them
/// in the request.
fn with_partitions(
    client: &mut Client,
    version: i16,
    request: &StructNode,
    allowed: Asked,
) -> Asked {
    if client.view.is_none() || version < fetch_api::SESSIONS_SINCE {
        return allowed;
    }
    let (topics, topology) = (&mut client.topics, &client.proxy.cluster.topology);
    let name_of = |id: &[u8; 16]| topics.name(id, topology);
    let mut asked = Asked::default();
    for topic in fetch_api::parts_of(request.structs("Topics"), version, name_of) {
        let Some(topic) = topic else { return allowed };
        asked.add(Operation::Read, ResourceKind::Topic, &topic.name);
        for partition in &topic.partitions {
            asked.add_partition(topic.tag, *partition);
        }
    }
    asked
}

/// What was refused in the whole session: earlier requests count as well, since the broker
/// never heard of those partitions and so cannot repeat their errors.
fn with_session(
    client: &Client,
    request: &StructNode,
    refused: Parts,
    forgotten: &[StructNode],
    asked: &Asked,
) -> Parts {
    let session_id = request.int("SessionId") as i32;
    if session_id == 0 || request.int("SessionEpoch") <= 0 {
        return refused;
    }
    let key = (client.broker.clone(), session_id);
    let sessions = &client.proxy.fetch_sessions;
    let before = sessions.refused(&key, &client.owner()).unwrap_or_default();
    let refused = refused.into_iter().map(|(_, element)| element);
    let all = fetch_api::refused_in_session(before, forgotten, refused);
    let epoch = request.int("SessionEpoch") as i32;
    sessions.go_on(&key, epoch, Some(all.clone()), asked);
    all.into_iter()
        .map(|element| ("Responses", element))
        .collect()
}

/// The frame as it came, with its prefix.
fn whole(frame: &Bytes) -> Vec<Bytes> {
    let prefix = Bytes::copy_from_slice(&(frame.len() as u32).to_be_bytes());
    vec![prefix, frame.clone()]
}

fn rewrite(
    head: &RequestHeader,
    flexible: bool,
    request: &StructNode,
    layout: &crate::wire::layout::Layout,
    version: i16,
) -> Vec<Bytes> {
    let mut start = BytesMut::new();
    head.write(flexible, &mut start);
    let mut out = Segments::starting_with(start);
    tree::encode(request, &layout.request, version, &mut out);
    framed(out.finish())
}

/// Puts the length in front.
pub fn framed(mut segments: Vec<Bytes>) -> Vec<Bytes> {
    let length = tree::total(&segments) as u32;
    let prefix = length.to_be_bytes();
    // One write for what is small.
    match segments.first_mut() {
        Some(first) if first.len() < 64 * 1024 => {
            *first = [&prefix[..], &first[..]].concat().into();
        }
        _ => segments.insert(0, Bytes::copy_from_slice(&prefix)),
    }
    segments
}
