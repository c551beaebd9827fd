//! What happens to a request. Two passes, the second only if it is needed:
//!
//! 1. [`glance`] reads the frame in place: its row, the session's state, what it charges, and,
//!    on the hot path (Produce, Fetch), whether everything in it is allowed as it stands. Most
//!    requests go on from here byte for byte.
//! 2. [`weigh`](super::weigh::weigh) reads it as a tree, asks the rules about each resource,
//!    takes out what is refused, and has either a smaller request for the broker or an answer.

use std::sync::Arc;

use bytes::Bytes;

use super::client::Client;
use super::judge::{Decisions, Objections};
use super::shadow::Differences;
use crate::apis::fetch::{self as fetch_api, Wanted};
use crate::apis::produce::{self, Scan, TopicRef};
use crate::apis::{self, API_VERSIONS, Access, Api, Creation, FETCH, PRODUCE, Phase};
use crate::clock;
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::schema::{Observed, TopicCheck};
use crate::session::asked::Asked;
use crate::session::inflight::{Expect, FetchWork, Work};
use crate::telemetry::{Outcome, Reason, ViolationAction};
use crate::topic_rules::ProduceRules;
use crate::wire::frame::PREFIX_BYTES;
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
    let (api, head) = match admit(client, frame) {
        Ok(admitted) => admitted,
        Err(glance) => return glance,
    };
    match api.key {
        PRODUCE => glance_produce(client, api, &head, frame),
        FETCH => glance_fetch(client, api, &head, frame),
        apis::SASL_HANDSHAKE | apis::SASL_AUTHENTICATE => Glance::Sasl,
        _ => glance_other(client, api, &head, frame),
    }
}

/// What holds for every request, whatever it asks: its API, its version, its header, and whether
/// the session may ask anything. `frame` needs no more than the header.
pub(super) fn admit<'f>(
    client: &mut Client,
    frame: &'f [u8],
) -> Result<(&'static Api, RequestHeader<'f>), Glance> {
    // Its messages may stand bare in their frames (handshake version 0).
    if client.reauthentication.is_some() {
        client.refresh();
        return Err(Glance::Sasl);
    }
    let Some((key, version)) = header::peek(frame) else {
        let why = "frame shorter than a header";
        return Err(Glance::Close(Reason::Malformed, why));
    };
    let Some(api) = apis::lookup(key) else {
        return Err(Glance::Close(Reason::Unsupported, "unknown API key"));
    };
    client.refresh();
    if client.is_contested {
        return Err(Glance::Close(Reason::Authentication, "matches two tenants"));
    }
    // Before anything else a session that has ended may only authenticate again (KIP-368).
    if client.is_expired() && key != apis::SASL_HANDSHAKE {
        return Err(Glance::Close(Reason::Expired, "session has expired"));
    }
    match api.phase {
        Phase::Retired => return Err(Glance::Close(Reason::Unsupported, "retired API")),
        Phase::BrokerOnly => return Err(Glance::Close(Reason::BrokerOnly, "API between brokers")),
        Phase::Handshake | Phase::Client => {}
    }
    if !api.versions.contains(version) {
        if key == API_VERSIONS
            && let Some(frame) = crate::session::frames::unsupported_versions_answer(frame)
        {
            return Err(Glance::Answer(frame));
        }
        return Err(Glance::Close(Reason::Unsupported, "unsupported version"));
    }
    match RequestHeader::read(frame, api.flexible(version)) {
        Ok(head) => Ok((api, head)),
        Err(_) => Err(Glance::Close(Reason::Malformed, "unreadable header")),
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
            Glance::Forward(Some(expect(client, api, head, work, Asked::default())))
        }
        Access::Never(why) => Glance::Close(Reason::BrokerOnly, why),
        Access::Cluster(operation) => {
            let mut judge = client.judge();
            judge.asked = Some(Asked::default());
            use apis::Guard;
            // A refusal is the second pass's to record.
            if judge.allows(operation, ResourceKind::Cluster, CLUSTER_NAME) {
                let asked = judge.asked.take().unwrap_or_default();
                let allowed = judge.allowed;
                client.allowed(api, allowed);
                if !client.beside.is_empty() {
                    let mut differences = Differences::default();
                    let kind = ResourceKind::Cluster;
                    differences.allowed(&client.beside, operation, kind, CLUSTER_NAME);
                    client.differed(api, differences);
                }
                let work = work_for(api, head.version, client.view.is_some());
                return Glance::Forward(Some(expect(client, api, head, work, asked)));
            }
            Glance::Weigh
        }
        Access::Named(_) if client.view.is_some() && api.has_topic_ids(head.version) => {
            match unknown_ids(client, api, head.version, &frame[head.body_at..]) {
                ids if ids.is_empty() => Glance::Weigh,
                ids => Glance::Resolve(ids),
            }
        }
        Access::Rules(..) if client.view.is_none() => {
            let work = work_for(api, head.version, false);
            Glance::Forward(Some(expect(client, api, head, work, Asked::default())))
        }
        Access::Named(_) | Access::Answered(..) | Access::Rules(..) => Glance::Weigh,
    }
}

/// Topic ids of a request that stand for nothing known here.
fn unknown_ids(client: &mut Client, api: &Api, version: i16, body: &[u8]) -> Vec<[u8; 16]> {
    let message = api.layout().map(|layout| &layout.request);
    let topology = &client.proxy.cluster.topology;
    // A body that cannot be walked is refused by the second pass.
    message.map_or_else(Vec::new, |message| {
        client.topics.unknown(message, version, body, topology)
    })
}

/// What an answer needs.
pub(super) fn work_for(api: &Api, version: i16, enforced: bool) -> Work {
    let needs_operations = enforced && api.shows_operations(version);
    match api.filter.is_some() || api.shows_brokers(version) || needs_operations {
        true => Work::Whole,
        false => Work::Pass,
    }
}

/// The answer to a request that has been judged and goes on as it is.
pub(super) fn expect(
    client: &Client,
    api: &'static Api,
    head: &RequestHeader,
    work: Work,
    asked: Asked,
) -> Box<Expect> {
    Box::new(Expect {
        correlation_id: head.correlation_id,
        api,
        version: head.version,
        asked_version: head.version,
        started: clock::now(),
        outcome: Outcome::Forwarded,
        throttle_ms: 0,
        refused: Vec::new(),
        told: Vec::new(),
        listing: None,
        creation: Creation::Unasked,
        work,
        waits_ms: 0,
        asked,
        forgotten: Vec::new(),
        generation: client.snapshot.generation,
    })
}

/// What was seen of a Produce request: whether anything in it is not plainly allowed.
pub(super) struct Seen {
    /// The current topic's check, if its records must be looked into.
    check: Option<Arc<TopicCheck>>,
    /// The current topic's rules, if there are any for what is produced to it.
    rules: Option<Arc<ProduceRules>>,
    /// Whether those rules need a look into the records last seen.
    look: bool,
    /// The current topic, if there are rules for what is produced to it that only observe.
    observed: Option<ObservedTopic>,
    /// Whether these need a look into the records last seen.
    look_beside: bool,
    /// What they would object to.
    objections: Objections,
    /// Whether the broker has a part of the request: what only observes or warns may not ask for a
    /// look that cannot be had any more.
    under_way: bool,
    /// The acknowledgements that the request asks for.
    acks: i64,
    /// Topic ids that stand for nothing known here.
    unknown: Vec<[u8; 16]>,
    plain: bool,
    transactional: bool,
    /// Decisions for the audit log.
    allowed: Decisions,
    /// What was allowed.
    asked: Asked,
    /// What other sets would have refused.
    differences: Differences,
}

/// A topic with rules that only observe.
struct ObservedTopic {
    name: Box<str>,
    rules: Arc<ProduceRules>,
}

impl Seen {
    /// Nothing yet.
    pub fn new() -> Self {
        Seen {
            check: None,
            rules: None,
            look: false,
            observed: None,
            look_beside: false,
            objections: Objections::default(),
            under_way: false,
            acks: 0,
            unknown: Vec::new(),
            plain: true,
            transactional: false,
            allowed: Decisions::default(),
            asked: Asked::default(),
            differences: Differences::default(),
        }
    }

    /// What was allowed, to be remembered for as long as the answer is owed.
    pub fn asked(&mut self) -> Asked {
        std::mem::take(&mut self.asked)
    }

    /// What other sets would have decided, now that the request is accepted.
    pub fn differences(&mut self) -> Differences {
        std::mem::take(&mut self.differences)
    }

    /// What topic rules that only observe would object to, now that the request is accepted.
    pub fn objections(&mut self) -> Objections {
        std::mem::take(&mut self.objections)
    }

    /// The decisions that go into the audit log, now that the request is accepted.
    pub fn decisions(&mut self) -> Decisions {
        std::mem::take(&mut self.allowed)
    }

    /// As at the begin of the topics, what their records have shown being known. `under_way`: the
    /// broker has a part of the request.
    pub fn again(&self, under_way: bool) -> Self {
        Seen {
            under_way,
            transactional: self.transactional,
            acks: self.acks,
            ..Seen::new()
        }
    }

    /// Whether everything so far goes on as it is, and the records of the current topic need no
    /// look. A transaction needs WRITE on its id: seldom enough for the second pass.
    pub fn goes_on(&self, client: &Client) -> bool {
        let transaction = self.transactional && client.view.is_some();
        let unread = self.check.is_some() || self.look || self.look_beside;
        self.plain && !transaction && self.unknown.is_empty() && !unread
    }

    /// The acknowledgements that the request asks for; comes before its topics.
    pub fn acks(&mut self, acks: i64) {
        self.acks = acks;
    }

    /// The following records belong to this topic.
    pub fn topic(&mut self, client: &mut Client, topic: TopicRef) {
        self.check = None;
        self.rules = None;
        self.observed = None;
        let observes = client.snapshot.observed_topic_rules.rules_produce();
        let known;
        let name = match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => match client.topics.name(id, &client.proxy.cluster.topology) {
                Some(name) => {
                    known = name;
                    &*known
                }
                None => {
                    // Without rules and schemas nobody here needs the name.
                    let snapshot = &client.snapshot;
                    let told = observes || !snapshot.schemas.is_empty();
                    let looked_into = snapshot.schemas.refuses()
                        || snapshot.topic_rules.rules_produce()
                        || (told && !self.under_way);
                    if client.view.is_some() || looked_into {
                        self.unknown.push(*id);
                    }
                    return;
                }
            },
        };
        let allowed = client.view.as_ref().is_none_or(|view| {
            let (write, topic) = (Operation::Write, ResourceKind::Topic);
            let decision = view.decide(write, topic, name);
            if decision.allowed {
                self.asked.add(write, topic, name);
                self.differences.allowed(&client.beside, write, topic, name);
                if client.sampler.takes() {
                    self.allowed.add(write, topic, name, decision.rule);
                }
            }
            decision.allowed
        });
        self.plain &= allowed && !produce::is_internal(name);
        if allowed && !client.snapshot.schemas.is_empty() {
            let check = client.snapshot.schemas.topic(name);
            self.check = check.filter(|check| check.refuses() || !self.under_way);
        }
        if allowed && client.snapshot.topic_rules.rules_produce() {
            self.rules = client.snapshot.topic_rules.produce(name);
        }
        if allowed && observes {
            let rules = client.snapshot.observed_topic_rules.produce(name);
            let name = name.into();
            self.observed = rules.map(|rules| ObservedTopic { name, rules });
        }
    }

    /// The headers of a partition's records.
    pub fn headers(&mut self, summary: &records::Summary) {
        self.plain &= !summary.control;
        self.transactional |= summary.transactional;
        if let Some(rules) = &self.rules {
            self.plain &= rules.heads_pass(self.acks, summary);
            self.look |= rules.must_look(summary);
        }
        if let Some(ObservedTopic { name, rules }) = &self.observed {
            let heads = match summary.magic_ok {
                true => rules.check_heads(self.acks, summary),
                false => Ok(()),
            };
            match heads {
                Err(rejection) => self.objections.produced(name, &rejection),
                Ok(()) => {
                    let unclear = !summary.magic_ok || rules.must_look(summary);
                    self.look_beside |= unclear && !self.under_way;
                }
            }
        }
    }

    /// What only observes looks into records of which the heads say too little.
    fn looked(&mut self, bytes: &[u8], scratch: &mut records::Scratch) {
        if std::mem::take(&mut self.look_beside)
            && let (Some(ObservedTopic { name, rules }), true) = (&self.observed, self.plain)
            && let Err(rejection) = rules.check(self.acks, bytes, scratch)
        {
            self.objections.produced(name, &rejection);
        }
    }
}

struct ProduceScan<'c, 'p> {
    client: &'c mut Client<'p>,
    seen: Seen,
    /// What schema policies that only observe would have refused, by topic.
    observed: Vec<(String, Observed)>,
}

impl<'b> Scan<'b> for ProduceScan<'_, '_> {
    fn topic(&mut self, topic: TopicRef<'b>) {
        self.seen.topic(self.client, topic);
    }

    fn acks(&mut self, acks: i64) {
        self.seen.acks(acks);
    }

    fn records(&mut self, bytes: &'b [u8]) {
        // What cannot be read is the broker's to refuse, unless it must be looked into here. What
        // stands before it may be taken.
        match records::heads(bytes) {
            (heads, None) => self.seen.headers(&heads),
            (heads, Some(_)) => {
                self.seen.plain &= self.seen.rules.is_none() && !heads.control;
                self.seen.transactional |= heads.transactional;
                self.seen.look_beside |= self.seen.observed.is_some();
            }
        }
        if std::mem::take(&mut self.seen.look)
            && let (Some(rules), true) = (&self.seen.rules, self.seen.plain)
        {
            let acks = self.seen.acks;
            let checked = rules.check(acks, bytes, &mut self.client.scratch);
            self.seen.plain &= checked.is_ok();
        }
        self.seen.looked(bytes, &mut self.client.scratch);
        if let (Some(check), true) = (&self.seen.check, self.seen.plain) {
            let outcome = check.check_batchset(bytes, &mut self.client.scratch);
            if outcome.warned.records > 0 {
                let metrics = &self.client.metrics;
                metrics.schema_violations(ViolationAction::Warn, outcome.warned.records);
            }
            self.seen.plain &= !outcome.refused();
            if let Some(found) = outcome.would_be_refused() {
                self.observed.push((check.topic().to_owned(), found));
            }
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
    let mut scan = ProduceScan {
        client,
        seen: Seen::new(),
        observed: Vec::new(),
    };
    let body = &frame[head.body_at..];
    let scanned = produce::scan(&layout.request, head.version, body, &mut scan);
    let ProduceScan {
        client,
        mut seen,
        observed,
    } = scan;
    let Ok(scanned) = scanned else {
        return Glance::Close(Reason::Malformed, "unreadable Produce request");
    };
    if !seen.unknown.is_empty() {
        return Glance::Resolve(seen.unknown);
    }
    // The records have been looked into.
    seen.check = None;
    if !seen.goes_on(client) {
        return Glance::Weigh;
    }
    client.allowed(api, seen.decisions());
    let silent = scanned.acks == 0;
    client.differed(api, seen.differences());
    client.would_object(api, seen.objections());
    for (topic, found) in observed {
        client.would_reject(api, topic, found);
    }
    let owed = take_produce(client, api, head, frame.len(), silent, seen.asked());
    Glance::Forward(owed)
}

/// A Produce request of so many bytes goes on as it is: charges it, and says what is owed.
pub(super) fn take_produce(
    client: &mut Client,
    api: &'static Api,
    head: &RequestHeader,
    frame_bytes: usize,
    silent: bool,
    asked: Asked,
) -> Option<Box<Expect>> {
    let now = clock::now();
    let throttle_ms = client.charge_produce(head.client_id, frame_bytes + PREFIX_BYTES, now);
    if silent {
        client.metrics.request(api.key, Outcome::Forwarded);
        return None;
    }
    let mut owed = expect(client, api, head, Work::Produce, asked);
    owed.throttle_ms = throttle_ms;
    Some(owed)
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
    let mut decisions = Decisions::default();
    let mut asked = Asked::default();
    let mut differences = Differences::default();
    let mut tag = 0;
    let scanned = {
        let topology = &client.proxy.cluster.topology;
        let (view, topics) = (client.view.as_ref(), &mut client.topics);
        let (sampler, beside) = (&mut client.sampler, &client.beside);
        fetch_api::scan(
            &layout.request,
            head.version,
            &frame[head.body_at..],
            |wanted| {
                let Some(view) = view else { return };
                let topic = match wanted {
                    Wanted::Topic(topic) => topic,
                    Wanted::Partition(partition) => return asked.add_partition(tag, partition),
                };
                let mut allowed = |name: &str| {
                    let (read, topic) = (Operation::Read, ResourceKind::Topic);
                    let decision = view.decide(read, topic, name);
                    if decision.allowed {
                        asked.add(read, topic, name);
                        differences.allowed(beside, read, topic, name);
                        if sampler.takes() {
                            decisions.add(read, topic, name, decision.rule);
                        }
                    }
                    decision.allowed
                };
                match topic {
                    TopicRef::Name(name) => plain &= allowed(name),
                    TopicRef::Id(id) => match topics.name(id, topology) {
                        Some(name) => {
                            tag = fetch_api::tag_of(id);
                            plain &= allowed(&name);
                        }
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
    // What a session forgets is seldom named, and read as a tree.
    let forgets = scanned.forgets && scanned.session_id != 0 && client.view.is_some();
    if scanned.replica_id >= 0 || !plain || forgets {
        return Glance::Weigh;
    }
    let generation = client.snapshot.generation;
    if scanned.session_id != 0 {
        let key = (client.broker.clone(), scanned.session_id);
        let sessions = &client.proxy.fetch_sessions;
        match sessions.refused(&key, &client.owner()) {
            Some(refused) if refused.is_empty() => {
                sessions.go_on(&key, scanned.session_epoch, None, &asked);
            }
            // Either somebody else's, or with refused partitions to be repeated.
            _ => return Glance::Weigh,
        }
    }
    client.allowed(api, decisions);
    client.differed(api, differences);
    let opens = head.version >= fetch_api::SESSIONS_SINCE && scanned.session_epoch == 0;
    let work = FetchWork {
        session_id: scanned.session_id,
        opens,
        epoch: scanned.session_epoch,
        generation,
    };
    let mut owed = expect(client, api, head, Work::Fetch(work), asked);
    owed.waits_ms = u32::try_from(scanned.max_wait_ms).unwrap_or(0);
    Glance::Forward(Some(owed))
}
