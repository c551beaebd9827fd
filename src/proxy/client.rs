//! What is known of the client of a connection, and everything that depends on it: its rules,
//! its quota, its session. Owned by the connection's one task, lent to its two loops in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Proxy;
use super::judge::{Decided, Decisions, Judge, TopicNames};
use super::listener::Listener;
use super::revoke::Membership;
use super::snapshot::Snapshot;
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
use crate::session::asked::Lost;
use crate::session::handshake::{Handshake, Identified};
use crate::session::inflight::{InFlight, Owed};
use crate::session::share_sessions::ShareSessions;
use crate::telemetry::audit::allows::Sampler;
use crate::telemetry::audit::{Entry, Resource, Verdict};
use crate::telemetry::{ConnectionMetrics, DropCause, Outcome, Reason};
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
    pub view: Option<View>,
    /// Chooses which allowed decisions go into the audit log.
    pub sampler: Sampler,
    /// Topics it has met by id.
    pub topics: TopicNames,
    /// The groups that it is a member of.
    pub members: Vec<Membership>,
    /// Its share sessions.
    pub share_sessions: ShareSessions,
    /// Memory for decompression.
    pub scratch: Scratch,
    /// The buckets of the client id it last used.
    buckets: Option<(String, Option<Arc<Buckets>>)>,
    /// Until when a quota holds it back.
    pub muted_until: Option<Instant>,
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
            sampler: place.proxy.audit.sampler(),
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
                self.metrics.identified(&self.principal.tenant);
            }
            Err(two) => {
                self.is_contested = true;
                let detail = two.to_string();
                self.refused_otherwise(None, None, Reason::Authentication, detail, None);
                // Answers that are still owed hold nothing of either.
                self.principal.tenant = "".into();
                let nothing = PolicySet::default();
                self.view = self.view.take().map(|_| {
                    nothing.view(&Subject {
                        principal: &self.principal,
                        host: self.peer.ip(),
                    })
                });
            }
        }
    }

    /// The client has authenticated again (KIP-368): what the new proof gives counts from now
    /// on, and what only the old one gave does not.
    pub fn identified_again(&mut self, who: Identified) {
        self.reauthentication = None;
        self.proven = who.principal;
        self.claims = who.claims;
        self.session_end = who.session_end;
        self.place();
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
        Judge {
            view: self.view.as_ref(),
            topics: &mut self.topics,
            topology: &self.proxy.cluster.topology,
            denials: Decisions::default(),
            allowed: Decisions::default(),
            sampler: &mut self.sampler,
            asked: None,
        }
    }

    /// Charges produced bytes; returns how long the client must wait, in milliseconds.
    pub fn charge_produce(&mut self, client_id: Option<&str>, bytes: usize, now: Instant) -> u32 {
        if self.snapshot.quotas.is_empty() {
            return 0;
        }
        let id = client_id.unwrap_or_default();
        if self.buckets.as_ref().is_none_or(|(known, _)| known != id) {
            let who = Charged {
                tenant: &self.principal.tenant,
                user: self.principal.bare_name(),
                client_id,
            };
            self.buckets = Some((id.to_owned(), self.snapshot.quotas.bucket_for(&who)));
        }
        let Some((_, Some(buckets))) = &self.buckets else {
            return 0;
        };
        let delay = buckets.charge(bytes as u64, now);
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

fn view_of(snapshot: &Snapshot, principal: &Principal, peer: SocketAddr) -> Option<View> {
    let access = snapshot.access.as_ref()?;
    Some(access.view(&Subject {
        principal,
        host: peer.ip(),
    }))
}
