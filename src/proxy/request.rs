//! What happens to a request. Two passes, the second only if it is needed:
//!
//! 1. [`glance`] reads the frame in place: its row, the session's state, what it charges, and,
//!    on the hot path (Produce, Fetch), whether everything in it is allowed as it stands. Most
//!    requests go on from here byte for byte.
//! 2. [`weigh`](super::weigh::weigh) reads it as a tree, asks the rules about each resource,
//!    takes out what is refused, and has either a smaller request for the broker or an answer.

use bytes::Bytes;

use super::client::Client;
use crate::apis::fetch as fetch_api;
use crate::apis::produce::{self, Scan, TopicRef};
use crate::apis::{self, API_VERSIONS, Access, Api, FETCH, PRODUCE, Phase};
use crate::clock;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::session::inflight::{Expect, FetchWork, Work};
use crate::telemetry::{Outcome, Reason, ViolationAction};
use crate::wire::header::{self, RequestHeader};
use crate::wire::records;

/// What the first pass found.
#[derive(Debug)]
pub enum Glance {
    /// The frame goes on as it is; the answer is owed, unless there is none (acks=0).
    Forward(Option<Box<Expect>>),
    /// Look closer.
    Weigh,
    /// Names topics by ids that are not known yet: ask the cluster, then look again.
    Resolve(Vec<[u8; 16]>),
    /// Answered here.
    Answer(Bytes),
    /// Part of (re-)authentication.
    Sasl,
    /// The connection ends.
    Close(Reason, &'static str),
}

/// First pass; see the module.
pub fn glance(client: &mut Client, frame: &[u8]) -> Glance {
    let Some((key, version)) = header::peek(frame) else {
        return Glance::Close(Reason::Malformed, "frame shorter than a header");
    };
    let Some(api) = apis::lookup(key) else {
        return Glance::Close(Reason::Unsupported, "unknown API key");
    };
    client.refresh();
    // Before anything else a session that has ended may only authenticate again (KIP-368).
    if client.is_expired() && key != apis::SASL_HANDSHAKE && client.reauthentication.is_none() {
        return Glance::Close(Reason::Expired, "session has expired");
    }
    if client.reauthentication.is_some() {
        return Glance::Sasl;
    }
    match api.phase {
        Phase::Retired => return Glance::Close(Reason::Unsupported, "retired API"),
        Phase::BrokerOnly => return Glance::Close(Reason::BrokerOnly, "API between brokers"),
        Phase::Handshake | Phase::Client => {}
    }
    if !api.versions.contains(version) {
        if key == API_VERSIONS
            && let Some(frame) = crate::session::handshake::unsupported_versions_answer(frame)
        {
            return Glance::Answer(frame);
        }
        return Glance::Close(Reason::Unsupported, "unsupported version");
    }
    let Ok(head) = RequestHeader::read(frame, api.flexible(version)) else {
        return Glance::Close(Reason::Malformed, "unreadable header");
    };
    match key {
        PRODUCE => glance_produce(client, api, &head, frame),
        FETCH => glance_fetch(client, api, &head, frame),
        apis::SASL_HANDSHAKE | apis::SASL_AUTHENTICATE => Glance::Sasl,
        _ => glance_other(client, api, &head, frame),
    }
}

fn glance_other(
    client: &mut Client,
    api: &'static Api,
    head: &RequestHeader,
    frame: &[u8],
) -> Glance {
    match api.access {
        Access::Open(_) => {
            let work = work_for(api, head.version, client.view.is_some());
            Glance::Forward(Some(expect(api, head, Outcome::Forwarded, work)))
        }
        Access::Never(why) => Glance::Close(Reason::BrokerOnly, why),
        Access::Cluster(operation) => {
            let mut judge = client.judge();
            use apis::Guard;
            if judge.sees(operation, ResourceKind::Cluster, CLUSTER_NAME) {
                let work = work_for(api, head.version, client.view.is_some());
                return Glance::Forward(Some(expect(api, head, Outcome::Forwarded, work)));
            }
            Glance::Weigh
        }
        Access::Named(_) if client.view.is_some() && api.has_topic_ids(head.version) => {
            match unknown_ids(client, api, head.version, &frame[head.body_at..]) {
                ids if ids.is_empty() => Glance::Weigh,
                ids => Glance::Resolve(ids),
            }
        }
        Access::Named(_) | Access::Answered(..) => Glance::Weigh,
    }
}

/// Topic ids of a request that stand for nothing known here.
fn unknown_ids(client: &mut Client, api: &Api, version: i16, body: &[u8]) -> Vec<[u8; 16]> {
    let Some(layout) = api.layout() else {
        return Vec::new();
    };
    let mut ids = apis::lens::TopicIds::default();
    // A body that cannot be walked is refused by the second pass.
    let _ = crate::wire::walk::walk_prefix(&layout.request, version, body, &mut ids);
    let topology = &client.proxy.cluster.topology;
    let topics = &mut client.topics;
    ids.found.retain(|id| topics.name(id, topology).is_none());
    ids.found
}

/// What an answer needs.
pub(super) fn work_for(api: &Api, version: i16, enforced: bool) -> Work {
    let needs_operations = enforced && api.shows_operations(version);
    match api.filter.is_some() || api.shows_brokers(version) || needs_operations {
        true => Work::Whole,
        false => Work::Pass,
    }
}

pub(super) fn expect(
    api: &'static Api,
    head: &RequestHeader,
    outcome: Outcome,
    work: Work,
) -> Box<Expect> {
    Box::new(Expect {
        correlation_id: head.correlation_id,
        api,
        version: head.version,
        started: clock::now(),
        outcome,
        throttle_ms: 0,
        refused: Vec::new(),
        work,
    })
}

/// Sees the topics and records of a Produce request pass and notices whatever is not plainly
/// allowed.
struct ProduceScan<'c, 'p> {
    client: &'c mut Client<'p>,
    /// The current topic's check, if its records must be looked into.
    check: Option<std::sync::Arc<crate::schema::TopicCheck>>,
    unknown: Vec<[u8; 16]>,
    plain: bool,
    transactional: bool,
}

impl<'b> Scan<'b> for ProduceScan<'_, '_> {
    fn topic(&mut self, topic: TopicRef<'b>) {
        self.check = None;
        let known;
        let name = match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => {
                let topology = &self.client.proxy.cluster.topology;
                match self.client.topics.name(id, topology) {
                    Some(name) => {
                        known = name;
                        &*known
                    }
                    None => {
                        // Without rules and schemas nobody here needs the name.
                        let needed =
                            self.client.view.is_some() || !self.client.snapshot.schemas.is_empty();
                        if needed {
                            self.unknown.push(*id);
                        }
                        return;
                    }
                }
            }
        };
        let allowed = self.client.view.as_ref().is_none_or(|view| {
            view.decide(Operation::Write, ResourceKind::Topic, name)
                .allowed
        });
        self.plain &= allowed && !produce::is_internal(name);
        if allowed && !self.client.snapshot.schemas.is_empty() {
            self.check = self.client.snapshot.schemas.topic(name);
        }
    }

    fn records(&mut self, bytes: &'b [u8]) {
        // What cannot be read is the broker's to refuse, unless it must be looked into here.
        if let Ok(summary) = records::inspect(bytes) {
            self.plain &= !summary.control;
            self.transactional |= summary.transactional;
        }
        if let (Some(check), true) = (&self.check, self.plain) {
            let outcome = check.check_batchset(bytes, &mut self.client.scratch);
            if outcome.warned.records > 0 {
                let metrics = &self.client.metrics;
                metrics.schema_violations(ViolationAction::Warn, outcome.warned.records);
            }
            self.plain &= !outcome.refused();
        }
    }
}

fn glance_produce(
    client: &mut Client,
    api: &'static Api,
    head: &RequestHeader,
    frame: &[u8],
) -> Glance {
    let Some(layout) = api.layout() else {
        return Glance::Close(Reason::Unsupported, "no layout");
    };
    let (unknown, plain, transactional, scanned) = {
        let mut scan = ProduceScan {
            client: &mut *client,
            check: None,
            unknown: Vec::new(),
            plain: true,
            transactional: false,
        };
        let body = &frame[head.body_at..];
        let scanned = produce::scan(&layout.request, head.version, body, &mut scan);
        (scan.unknown, scan.plain, scan.transactional, scanned)
    };
    let Ok(scanned) = scanned else {
        return Glance::Close(Reason::Malformed, "unreadable Produce request");
    };
    if !unknown.is_empty() {
        return Glance::Resolve(unknown);
    }
    // A transaction needs WRITE on its id: seldom enough for the second pass.
    if !plain || (transactional && client.view.is_some()) {
        return Glance::Weigh;
    }
    let now = clock::now();
    let throttle_ms = client.charge_produce(head.client_id, frame.len() + 4, now);
    if scanned.acks == 0 {
        client.metrics.request(api.key, Outcome::Forwarded);
        return Glance::Forward(None);
    }
    let mut owed = expect(api, head, Outcome::Forwarded, Work::Produce);
    owed.throttle_ms = throttle_ms;
    Glance::Forward(Some(owed))
}

fn glance_fetch(
    client: &mut Client,
    api: &'static Api,
    head: &RequestHeader,
    frame: &[u8],
) -> Glance {
    let Some(layout) = api.layout() else {
        return Glance::Close(Reason::Unsupported, "no layout");
    };
    let mut unknown = Vec::new();
    let mut plain = true;
    let scanned = {
        let topology = &client.proxy.cluster.topology;
        let (view, topics) = (client.view.as_ref(), &mut client.topics);
        fetch_api::scan(
            &layout.request,
            head.version,
            &frame[head.body_at..],
            |topic| {
                let Some(view) = view else { return };
                let allowed = |name: &str| {
                    view.decide(Operation::Read, ResourceKind::Topic, name)
                        .allowed
                };
                match topic {
                    TopicRef::Name(name) => plain &= allowed(name),
                    TopicRef::Id(id) => match topics.name(id, topology) {
                        Some(name) => plain &= allowed(&name),
                        None => unknown.push(*id),
                    },
                }
            },
        )
    };
    let Ok(scanned) = scanned else {
        return Glance::Close(Reason::Malformed, "unreadable Fetch request");
    };
    if !unknown.is_empty() {
        // An id that nobody knows is refused as a broker refuses it, by the second pass.
        return Glance::Resolve(unknown);
    }
    if scanned.replica_id >= 0 || !plain {
        return Glance::Weigh;
    }
    let generation = client.snapshot.generation;
    if scanned.session_id != 0 {
        let key = (client.broker.clone(), scanned.session_id);
        let sessions = &client.proxy.fetch_sessions;
        match sessions.refused(&key, &client.principal, generation) {
            Some(refused) if refused.is_empty() => {}
            // Either somebody else's, or with refused partitions to be repeated.
            _ => return Glance::Weigh,
        }
    }
    let opens = head.version >= fetch_api::SESSIONS_SINCE && scanned.session_epoch == 0;
    let work = FetchWork {
        session_id: scanned.session_id,
        opens,
        generation,
    };
    Glance::Forward(Some(expect(
        api,
        head,
        Outcome::Forwarded,
        Work::Fetch(work),
    )))
}
