//! What is known of the client of a connection, and everything that depends on it: its rules,
//! its quota, its session. Owned by the connection's one task, lent to its two loops in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Proxy;
use super::judge::{Decided, Decisions, Judge, Lookup, Objections, TopicNames};
use super::listener::Listener;
use super::revoke::Membership;
use super::shadow::{Beside, Differences};
use super::snapshot::Snapshot;
use crate::apis::InForce;
use crate::broker::BrokerAddr;
use crate::broker::Target;
use crate::clock;
use crate::identity::binding::Thumbprint;
use crate::identity::issuers::Proven;
use crate::identity::mechanisms::Mechanism;
use crate::policy::model::{Operation, ResourceKind, RuleRef, Subject};
use crate::policy::tenant::TwoTenants;
use crate::policy::{PolicySet, View};
use crate::principal::{Principal, TextClaims};
use crate::quota::{Buckets, Charged};
use crate::schema::Observed;
use crate::session::asked::Lost;
use crate::session::fetch_sessions::Owner;
use crate::session::handshake::{Handshake, Identified};
use crate::session::inflight::{InFlight, Owed};
use crate::session::share_sessions::ShareSessions;
use crate::telemetry::audit::allows::Sampler;
use crate::telemetry::audit::{Entry, Resource, Verdict};
use crate::telemetry::{
    ConnectionMetrics, DropCause, Outcome, Reason, ShadowSet, ViolationAction, Would,
};
use crate::topic_rules::Objection;
use crate::wire::records::Scratch;

/// See the module.
pub struct Client<'p> {
    /// What connections share.
    pub proxy: &'p Proxy,
    /// Through which listener it came.
    pub listener: &'p Listener,
    /// The connection's number.
    pub number: u64,
    /// Where it is.
    pub peer: SocketAddr,
    /// Who it is, with the tenant that it belongs to now.
    pub principal: Principal,
    /// What it has proven: without a tenant that it only matches.
    pub proven: Principal,
    /// What its tenant can be matched by.
    claims: TextClaims,
    /// Two tenants match by now: it is served no more.
    pub is_contested: bool,
    /// When it must have authenticated again (KIP-368).
    pub session_end: Option<SystemTime>,
    /// The certificate it showed, where tokens may be bound to it.
    pub certificate: Option<Thumbprint>,
    /// The SASL mechanism that proved who it is.
    pub mechanism: Option<Mechanism>,
    /// A re-authentication that is under way.
    pub reauthentication: Option<Handshake>,
    /// When the last re-authentication began.
    pub reauthentication_begun: Option<Instant>,
    /// Its numbers.
    pub metrics: ConnectionMetrics,
    /// The broker behind the connection.
    pub broker: BrokerAddr,
    /// Policies in force when it was last looked.
    pub snapshot: Arc<Snapshot>,
    /// The rules that concern it.
    pub view: Option<Arc<View>>,
    /// What other sets say of it, without effect.
    pub beside: Vec<Beside>,
    /// Chooses which allowed decisions go into the audit log.
    pub sampler: Sampler,
    /// Chooses which decisions of other sets do.
    pub(super) difference_sampler: Sampler,
    /// Topics it has met by id.
    pub topics: TopicNames,
    /// The groups that it is a member of.
    pub members: Vec<Membership>,
    /// Its share sessions.
    pub share_sessions: ShareSessions,
    /// Memory for decompression.
    pub scratch: Scratch,
    /// The buckets of the client id it last used.
    buckets: Option<ClientBuckets>,
    /// Until when a quota holds it back.
    pub muted_until: Option<Instant>,
}

/// What requests of one client id are charged to.
struct ClientBuckets {
    client_id: String,
    in_force: Option<Arc<Buckets>>,
    /// Together with quotas that only observe.
    observed: Option<Arc<Buckets>>,
}

/// Where a connection stands before anything is known of its client.
#[derive(Clone, Copy)]
pub struct Place<'p> {
    /// What connections share.
    pub proxy: &'p Proxy,
    /// Through which listener it came.
    pub listener: &'p Listener,
    /// The connection's number.
    pub number: u64,
    /// Where the client is.
    pub peer: SocketAddr,
    /// Where the connection leads.
    pub target: Target,
    /// The certificate it showed, where tokens may be bound to it.
    pub certificate: Option<Thumbprint>,
}

impl<'p> Client<'p> {
    /// A client that has just been identified; `broker` is behind its connection.
    pub fn new(place: &Place<'p>, who: Identified, broker: BrokerAddr) -> Result<Self, TwoTenants> {
        let snapshot = place.proxy.snapshot.load_full();
        let principal = snapshot.placed(&who.principal, &who.claims)?;
        let view = view_of(&snapshot, &principal, place.peer);
        let beside = snapshot.beside(&who.principal, &principal, &who.claims, place.peer.ip());
        let recorder = &place.proxy.recorder;
        let metrics = recorder.connection(&principal.tenant, &place.listener.name);
        Ok(Client {
            proxy: place.proxy,
            listener: place.listener,
            number: place.number,
            peer: place.peer,
            principal,
            proven: who.principal,
            claims: who.claims,
            is_contested: false,
            session_end: who.session_end,
            certificate: place.certificate,
            mechanism: who.mechanism,
            reauthentication: None,
            reauthentication_begun: None,
            metrics,
            broker,
            snapshot,
            view,
            beside,
            sampler: place.proxy.audit.sampler(),
            difference_sampler: place.proxy.audit.difference_sampler(),
            topics: TopicNames::default(),
            members: Vec::new(),
            share_sessions: ShareSessions::default(),
            scratch: Scratch::new(),
            buckets: None,
            muted_until: None,
        })
    }

    /// Takes over what is in force now; cheap where nothing changed.
    pub fn refresh(&mut self) {
        let current = self.proxy.snapshot.load();
        if current.generation != self.snapshot.generation {
            self.snapshot = Arc::clone(&current);
            self.place();
        }
    }

    /// Finds the tenant and all that depends on it.
    fn place(&mut self) {
        self.buckets = None;
        match self.snapshot.placed(&self.proven, &self.claims) {
            Ok(principal) => {
                self.is_contested = false;
                self.principal = principal;
                self.view = view_of(&self.snapshot, &self.principal, self.peer);
                let (placed, host) = (&self.principal, self.peer.ip());
                self.beside = (self.snapshot).beside(&self.proven, placed, &self.claims, host);
                self.metrics.identified(&self.principal.tenant);
            }
            Err(two) => {
                self.is_contested = true;
                self.beside = Vec::new();
                let detail = two.to_string();
                self.refused_otherwise(None, None, Reason::Authentication, detail, None);
                // Answers that are still owed hold nothing of either.
                self.principal.tenant = "".into();
                let nothing = PolicySet::default();
                self.view = self.view.take().map(|_| {
                    nothing.shared_view(&Subject {
                        principal: &self.principal,
                        host: self.peer.ip(),
                    })
                });
            }
        }
    }

    /// The client has authenticated again (KIP-368): what the new proof gives counts from now
    /// on, and what only the old one gave does not. Says whether its rights are others now.
    pub fn identified_again(&mut self, who: Identified) -> bool {
        self.reauthentication = None;
        self.proven = who.principal;
        self.claims = who.claims;
        self.session_end = who.session_end;
        let before = self.view.as_ref().map(Arc::as_ptr);
        self.place();
        before != self.view.as_ref().map(Arc::as_ptr)
    }

    /// Whose its fetch sessions are.
    pub fn owner(&self) -> Owner<'_> {
        Owner {
            principal: &self.principal,
            view: self.view.as_ref(),
            generation: self.snapshot.generation,
        }
    }

    /// What is proven, with the tenant that it belongs to.
    pub fn placed(&self, proven: &Proven) -> Result<Principal, TwoTenants> {
        self.snapshot.placed(&proven.principal, &proven.claims)
    }

    /// Whether the client should have authenticated again by now.
    pub fn is_expired(&self) -> bool {
        self.session_end.is_some_and(|end| clock::wall() >= end)
    }

    /// Whom the API rows ask.
    pub fn judge(&mut self) -> Judge<'_> {
        let rules = self.snapshot.access.as_ref();
        Judge {
            view: self.view.as_deref(),
            rules: rules.map(|rules| InForce {
                policies: rules.policies(),
                path: &self.snapshot.place,
            }),
            topics: &mut self.topics,
            topology: &self.proxy.cluster.topology,
            denials: Decisions::default(),
            allowed: Decisions::default(),
            sampler: &mut self.sampler,
            topic_rules: &self.snapshot.topic_rules,
            observed_topic_rules: &self.snapshot.observed_topic_rules,
            lookup: Lookup::new(&self.proxy.cluster),
            objections: Objections::default(),
            observed: Objections::default(),
            needs_names: false,
            asked: None,
        }
    }

    /// Charges produced bytes; returns how long the client must wait, in milliseconds.
    pub fn charge_produce(&mut self, client_id: Option<&str>, bytes: usize, now: Instant) -> u32 {
        let (quotas, observed) = (&self.snapshot.quotas, &self.snapshot.observed_quotas);
        if quotas.is_empty() && observed.is_empty() {
            return 0;
        }
        let id = client_id.unwrap_or_default();
        if (self.buckets.as_ref()).is_none_or(|known| known.client_id != id) {
            let who = Charged {
                tenant: &self.principal.tenant,
                user: self.principal.bare_name(),
                client_id,
            };
            self.buckets = Some(ClientBuckets {
                client_id: id.to_owned(),
                in_force: quotas.bucket_for(&who),
                observed: observed.bucket_for(&who),
            });
        }
        let Some(buckets) = &self.buckets else {
            return 0;
        };
        let charge = |buckets: &Option<Arc<Buckets>>| {
            let charged = buckets.as_ref().map(|b| b.charge(bytes as u64, now));
            charged.unwrap_or_default()
        };
        let (delay, observed) = (charge(&buckets.in_force), charge(&buckets.observed));
        if observed.ms > delay.ms {
            let beyond = std::time::Duration::from_millis((observed.ms - delay.ms).into());
            self.metrics.would_throttle(beyond);
        }
        if delay.ms > 0 {
            let wait = std::time::Duration::from_millis(delay.ms.into());
            self.metrics.throttled(wait);
            self.muted_until = Some(now + wait);
            self.audit_throttle(delay.ms, delay.rule);
        }
        delay.ms
    }

    /// The connection has ended: what was still owed never came.
    pub fn ended(&self, inflight: &mut InFlight) {
        while let Some(owed) = inflight.pop() {
            if let Owed::Broker(expect) = owed {
                self.metrics.in_flight_removed();
                self.metrics.request(expect.api.key, Outcome::Failed);
            }
        }
    }

    /// Records refusals, in the numbers and in the audit log.
    pub fn refused(&self, api: &'static crate::apis::Api, denials: Decisions) {
        for denial in denials.list {
            self.metrics.refusal(api.key, Reason::Authorization);
            if self.proxy.audit.is_on() {
                let entry = self.decided(api, Verdict::Deny, denial);
                self.proxy.audit.record(entry);
            }
        }
        self.proxy
            .audit
            .drop_lines(DropCause::Request, denials.more);
    }

    /// Records allowed decisions, those of them that were chosen to be kept.
    pub fn allowed(&self, api: &'static crate::apis::Api, allowed: Decisions) {
        for decision in allowed.list {
            let entry = self.decided(api, Verdict::Allow, decision);
            self.proxy.audit.allowed(entry);
        }
        self.proxy
            .audit
            .drop_lines(DropCause::Request, allowed.more);
    }

    /// Records that something under way does not go on because it is no longer allowed.
    pub fn revoked(&self, api: &'static crate::apis::Api, lost: Lost, what: &str) {
        self.metrics.refusal(api.key, Reason::Authorization);
        self.metrics.revocation(api.key);
        let (operation, kind, name) = (lost.operation, lost.kind, lost.name);
        tracing::info!(connection = self.number, api = api.name, what, "revoked");
        let resource = Resource { kind, name };
        self.audit(
            Some(api.name),
            Some((operation, resource)),
            Reason::Authorization,
            Some(format!("revoked while in use: {what}")),
            lost.decision.rule,
        );
    }

    /// Whether two tenants match by now, asked without taking over what is in force.
    pub fn is_contested_now(&self) -> bool {
        let current = self.proxy.snapshot.load();
        current.generation != self.snapshot.generation
            && current.placed(&self.proven, &self.claims).is_err()
    }

    /// Records what other sets would have decided otherwise.
    pub fn differed(&mut self, api: &'static crate::apis::Api, differences: Differences) {
        let Some(differences) = differences.0 else {
            return;
        };
        let audit = &self.proxy.audit;
        let mut left_out = 0;
        for (&would, more) in Would::ALL.iter().zip(differences.more) {
            for (&set, more) in ShadowSet::ALL.iter().zip(more) {
                if more > 0 {
                    self.metrics.would(api.key, would, set, more);
                    left_out += more;
                }
            }
        }
        audit.drop_lines(DropCause::Request, left_out);
        for one in differences.list {
            self.metrics.would(api.key, one.would, one.which, 1);
            if !self.difference_sampler.takes() {
                continue;
            }
            let (operation, resource) = (one.asked)
                .map(|(operation, kind, name)| (operation, Resource { kind, name }))
                .unzip();
            let set = self.beside.iter().find(|set| set.which == one.which);
            self.proxy.audit.differs(Entry {
                api: Some(api.name),
                operation,
                resource,
                verdict: Verdict::Would(one.would, one.which),
                detail: set.and_then(|set| set.note.clone()),
                rule: one.rule,
                policy: set.and_then(|set| set.policy.clone()),
                ..self.entry()
            });
        }
    }

    /// Records that schema policies that only observe would have refused what is produced to a
    /// topic, for its value or key.
    pub fn would_reject(&mut self, api: &'static crate::apis::Api, topic: String, found: Observed) {
        let (records, detail, rule) = found;
        self.metrics
            .schema_violations(ViolationAction::Observe, records);
        let objection = Objection {
            rule,
            message: detail,
        };
        self.observed(api, Operation::Write, topic, Reason::Value, objection);
    }

    /// Counts and tells what a policy that only observes would have refused of a topic.
    fn observed(
        &mut self,
        api: &'static crate::apis::Api,
        operation: Operation,
        name: String,
        reason: Reason,
        objection: Objection,
    ) {
        let (would, set) = (Would::Deny, ShadowSet::Observe);
        self.metrics.would(api.key, would, set, 1);
        if !self.difference_sampler.takes() {
            return;
        }
        let kind = ResourceKind::Topic;
        self.proxy.audit.differs(Entry {
            api: Some(api.name),
            operation: Some(operation),
            resource: Some(Resource { kind, name }),
            verdict: Verdict::Would(would, set),
            reason,
            detail: Some(objection.message),
            rule: Some(objection.rule),
            ..self.entry()
        });
    }

    /// Records what topic rules that only observe would object to.
    pub fn would_object(&mut self, api: &'static crate::apis::Api, objections: Objections) {
        for (operation, name, objection) in objections.list {
            self.observed(api, operation, name, Reason::TopicRules, objection);
        }
        if objections.more > 0 {
            let (would, set) = (Would::Deny, ShadowSet::Observe);
            self.metrics.would(api.key, would, set, objections.more);
            let audit = &self.proxy.audit;
            audit.drop_lines(DropCause::Request, objections.more);
        }
    }

    fn decided(&self, api: &'static crate::apis::Api, verdict: Verdict, d: Decided) -> Entry {
        Entry {
            api: Some(api.name),
            operation: Some(d.operation),
            resource: Some(Resource {
                kind: d.kind,
                name: d.name,
            }),
            verdict,
            rule: d.rule,
            ..self.entry()
        }
    }

    /// Records what topic rules object to.
    pub fn objected(&self, api: &'static crate::apis::Api, objections: Objections) {
        for (operation, name, objection) in objections.list {
            let kind = ResourceKind::Topic;
            let about = Some((operation, Resource { kind, name }));
            let (detail, rule) = (Some(objection.message), Some(objection.rule));
            self.metrics.refusal(api.key, Reason::TopicRules);
            self.audit(Some(api.name), about, Reason::TopicRules, detail, rule);
        }
        self.proxy
            .audit
            .drop_lines(DropCause::Request, objections.more);
    }

    /// Records a refusal that no access rule made.
    pub fn refused_otherwise(
        &self,
        api: Option<&'static crate::apis::Api>,
        topic: Option<&str>,
        reason: Reason,
        detail: impl Into<String>,
        rule: Option<RuleRef>,
    ) {
        if let Some(api) = api {
            self.metrics.refusal(api.key, reason);
        }
        let about = topic.map(|topic| {
            let resource = Resource {
                kind: ResourceKind::Topic,
                name: topic.to_owned(),
            };
            (Operation::Write, resource)
        });
        self.audit(
            api.map(|api| api.name),
            about,
            reason,
            Some(detail.into()),
            rule,
        );
    }

    fn audit_throttle(&self, ms: u32, rule: Option<RuleRef>) {
        let detail = Some(format!("throttled for {ms} ms"));
        self.write(
            Some("Produce"),
            None,
            Verdict::Allow,
            Reason::Quota,
            detail,
            rule,
        );
    }

    fn audit(
        &self,
        api: Option<&'static str>,
        about: Option<(Operation, Resource)>,
        reason: Reason,
        detail: Option<String>,
        rule: Option<RuleRef>,
    ) {
        self.write(api, about, Verdict::Deny, reason, detail, rule);
    }

    fn write(
        &self,
        api: Option<&'static str>,
        about: Option<(Operation, Resource)>,
        verdict: Verdict,
        reason: Reason,
        detail: Option<String>,
        rule: Option<RuleRef>,
    ) {
        if !self.proxy.audit.is_on() {
            return;
        }
        let (operation, resource) = about.unzip();
        self.proxy.audit.record(Entry {
            api,
            operation,
            resource,
            verdict,
            reason,
            detail,
            rule,
            ..self.entry()
        });
    }

    /// What all lines about the client have in common.
    fn entry(&self) -> Entry {
        Entry {
            connection: self.number,
            listener: self.listener.name.clone(),
            host: self.peer.ip(),
            principal: Some(self.principal.name.clone()),
            proof: Some(self.principal.proof),
            tenant: self.principal.tenant.clone(),
            groups: self.principal.groups.clone(),
            api: None,
            operation: None,
            resource: None,
            verdict: Verdict::Deny,
            reason: Reason::Authorization,
            detail: None,
            rule: None,
            policy: self.snapshot.short_digest.clone(),
            count: None,
        }
    }
}

fn view_of(snapshot: &Snapshot, principal: &Principal, peer: SocketAddr) -> Option<Arc<View>> {
    let access = snapshot.access.as_ref()?;
    Some(access.shared_view(&Subject {
        principal,
        host: peer.ip(),
    }))
}
