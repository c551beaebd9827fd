//! How the rest of the program records: one [`Recorder`] for the process, one
//! [`ConnectionMetrics`] for each client connection, which holds its tenant's cells so that
//! recording looks nothing up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::exposition::{self, Exposition};
use super::issuer::IssuerMetrics;
use super::label::{
    CertificateEnd, DialStage, Direction, DropCause, Expiring, Fetch, Handshake, Method, Outcome,
    Reason, Reloaded, Renewal, ShadowSet, ViolationAction, Would,
};
use super::store::{self, PolicyInForce, Store, Tenant};
use crate::clock;

/// Records for the process as a whole; a clone records to the same place.
#[derive(Clone)]
pub struct Recorder {
    store: Arc<Store>,
}

/// Records for one client connection; dropping it closes the connection's gauges.
pub struct ConnectionMetrics {
    store: Arc<Store>,
    tenant: Arc<Tenant>,
    listener: Arc<str>,
    open: Arc<AtomicI64>,
    /// This connection's share of the process's gauge, given back when it ends.
    in_flight: AtomicI64,
    fetch_sessions: AtomicI64,
}

impl Recorder {
    /// An empty recorder. `api_name` gives the `api` label of an API key, and `None` for a number
    /// Kafka does not have.
    pub fn new(api_name: fn(i16) -> Option<&'static str>) -> Self {
        Self {
            store: Arc::new(Store::new(api_name, clock::wall())),
        }
    }

    /// A client connection that is open from now on. The tenant is the empty string until it is
    /// known; see [`ConnectionMetrics::identified`].
    pub fn connection(&self, tenant: &str, listener: &str) -> ConnectionMetrics {
        ConnectionMetrics::new(Arc::clone(&self.store), tenant, listener)
    }

    /// A client connection was accepted.
    pub fn connection_accepted(&self) {
        add(&self.store.process.connections_accepted, 1);
    }

    /// A client connection was closed at once: `limits.connections` was reached.
    pub fn connection_refused(&self) {
        add(&self.store.process.connections_refused, 1);
    }

    /// A client could not prove who it is.
    pub fn authentication_failure(&self, method: Method) {
        add(
            &self.store.process.authentication_failures[method as usize],
            1,
        );
    }

    /// A TLS handshake with a client was finished.
    pub fn handshake(&self, kind: Handshake) {
        add(&self.store.process.handshakes[kind as usize], 1);
    }

    /// The numbers of an issuer that is asked; called once for each of a listener.
    pub fn issuer(&self, listener: &str, issuer: &str) -> IssuerMetrics {
        let (metrics, cells) = IssuerMetrics::new(listener, issuer);
        store::lock(&self.store.process.issuers).push(cells);
        metrics
    }

    /// A broker connection could not be made.
    pub fn dial_failure(&self, stage: DialStage) {
        add(&self.store.process.dial_failures[stage as usize], 1);
    }

    /// The proxy has authenticated to a broker again, or has not.
    pub fn reauthenticated(&self, outcome: Renewal) {
        add(&self.store.process.reauthentications[outcome as usize], 1);
    }

    /// There is a new token for the brokers, which ends at this moment; `identity` tells tokens
    /// apart and is not shown.
    pub fn token_fetched(&self, identity: &str, expires: SystemTime) {
        add(&self.store.process.token_fetches[Fetch::Ok as usize], 1);
        store::lock(&self.store.process.token_expiry).insert(identity.into(), expires);
    }

    /// The token endpoint gave no token.
    pub fn token_failed(&self) {
        add(&self.store.process.token_fetches[Fetch::Failed as usize], 1);
    }

    /// Bytes of requests have gone from socket to socket uncopied.
    pub fn spliced(&self, bytes: u64) {
        add(&self.store.process.spliced_bytes, bytes);
    }

    /// A broker connection is open from now on.
    pub fn upstream_opened(&self) {
        self.store
            .process
            .upstream_connections
            .fetch_add(1, Relaxed);
    }

    /// A broker connection has ended.
    pub fn upstream_closed(&self) {
        self.store
            .process
            .upstream_connections
            .fetch_sub(1, Relaxed);
    }

    /// A policy snapshot is in force from now on.
    pub fn policy_in_force(&self, policy: PolicyInForce) {
        *store::lock(&self.store.process.policy) = Some(policy);
    }

    /// A change of files was not taken.
    pub fn reload_failure(&self, what: Reloaded) {
        add(&self.store.process.reload_failures[what as usize], 1);
        if what == Reloaded::Policies {
            add(&self.store.process.policy_reload_failures, 1);
        }
    }

    /// A connection ended because its client certificate no longer holds.
    pub fn certificate_end(&self, why: CertificateEnd) {
        add(&self.store.process.certificate_ends[why as usize], 1);
    }

    /// When something ends; `None`: it is no longer there, or has no end. `listener` is empty
    /// for the upstream.
    pub fn expiry(&self, what: Expiring, listener: &str, ends: Option<SystemTime>) {
        let mut expiries = store::lock(&self.store.process.expiries);
        let key = (what, Arc::from(listener));
        match ends {
            Some(ends) => expiries.insert(key, ends),
            None => expiries.remove(&key),
        };
    }

    /// What ends when: certificates and revocation lists, with the listener's name.
    pub fn expiries(&self) -> Vec<(Expiring, Arc<str>, SystemTime)> {
        let expiries = store::lock(&self.store.process.expiries);
        let all = expiries.iter();
        all.map(|((what, listener), ends)| (*what, Arc::clone(listener), *ends))
            .collect()
    }

    /// Audit lines were written.
    pub(crate) fn audit_lines(&self, lines: u64) {
        add(&self.store.process.audit_lines, lines);
    }

    /// Audit lines were lost.
    pub(crate) fn audit_dropped(&self, cause: DropCause, lines: u64) {
        add(&self.store.process.audit_dropped[cause as usize], lines);
    }

    /// A connection to the admin endpoint was closed at once.
    pub(crate) fn admin_refused(&self) {
        add(&self.store.process.admin_refused, 1);
    }

    /// When the recorder, and with it the process, started.
    pub fn started(&self) -> SystemTime {
        self.store.started
    }

    /// Open connections by tenant label, then by listener; those at zero are left out.
    pub fn connections(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
        for tenant in self.store.all_tenants() {
            for (listener, gauge) in store::lock(&tenant.connections).iter() {
                let open = u64::try_from(gauge.load(Relaxed)).unwrap_or_default();
                if open > 0 {
                    let listeners = all.entry(tenant.name.to_string()).or_default();
                    listeners.insert(listener.to_string(), open);
                }
            }
        }
        all
    }

    /// Every metric, in the format asked for.
    pub fn render(&self, format: Exposition) -> String {
        exposition::render(&self.store, format)
    }
}

impl ConnectionMetrics {
    fn new(store: Arc<Store>, tenant: &str, listener: &str) -> Self {
        let tenant = store.tenant(tenant);
        let open = tenant.connections(listener);
        open.fetch_add(1, Relaxed);
        Self {
            store,
            tenant,
            listener: listener.into(),
            open,
            in_flight: AtomicI64::new(0),
            fetch_sessions: AtomicI64::new(0),
        }
    }

    /// The connection's tenant is known from now on: its gauge and all that is recorded later move
    /// there; what was recorded before stays.
    pub fn identified(&mut self, tenant: &str) {
        if *self.tenant.name == *tenant {
            return;
        }
        self.tenant = self.store.tenant(tenant);
        let open = self.tenant.connections(&self.listener);
        open.fetch_add(1, Relaxed);
        self.open.fetch_sub(1, Relaxed);
        self.open = open;
    }

    /// The tenant as labelled: the overflow's name beyond the bound.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant.name
    }

    /// A request has ended thus. Every request is recorded once.
    pub fn request(&self, api_key: i16, outcome: Outcome) {
        add(&self.tenant.api(api_key).requests[outcome as usize], 1);
    }

    /// A request, or a part of it, was refused.
    pub fn refusal(&self, api_key: i16, reason: Reason) {
        add(&self.tenant.api(api_key).refusals[reason as usize], 1);
    }

    /// Something of this API was under way when policies took the right to it.
    pub fn revocation(&self, api_key: i16) {
        add(&self.tenant.api(api_key).revocations, 1);
    }

    /// A set that is decided beside the one in force would have done this to so many.
    pub fn would(&self, api_key: i16, would: Would, set: ShadowSet, count: u64) {
        let cells = self.tenant.api(api_key);
        add(&cells.would[would as usize][set as usize], count);
    }

    /// Quotas that only observe would have told the client to wait so much longer.
    pub fn would_throttle(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        add(&self.tenant.would_throttle_ms, wait_ms);
    }

    /// From the last byte of a request read to the last byte of its answer written.
    pub fn duration(&self, api_key: i16, duration: Duration) {
        self.store.durations[store::slot(api_key)]
            .get_or_init(Box::default)
            .observe(duration);
    }

    /// Bytes of frames, their length prefixes included; best in bulk, once for each read or write.
    pub fn bytes(&self, direction: Direction, bytes: u64) {
        add(&self.tenant.bytes[direction as usize], bytes);
    }

    /// A quota told the client to wait.
    pub fn throttled(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        add(&self.tenant.throttle_ms, wait_ms);
    }

    /// Records broke their topic's schema policy.
    pub fn schema_violations(&self, action: ViolationAction, records: u64) {
        add(&self.tenant.violations[action as usize], records);
    }

    /// A request was forwarded.
    pub fn in_flight_added(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.store.process.in_flight.fetch_add(1, Relaxed);
    }

    /// The answer of a forwarded request was written.
    pub fn in_flight_removed(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.store.process.in_flight.fetch_sub(1, Relaxed);
    }

    /// How many fetch sessions the connection has open now.
    pub fn fetch_sessions(&self, open: u32) {
        let before = self.fetch_sessions.swap(i64::from(open), Relaxed);
        let change = i64::from(open) - before;
        self.store.process.fetch_sessions.fetch_add(change, Relaxed);
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        let process = &self.store.process;
        process
            .in_flight
            .fetch_sub(*self.in_flight.get_mut(), Relaxed);
        process
            .fetch_sessions
            .fetch_sub(*self.fetch_sessions.get_mut(), Relaxed);
    }
}

fn add(cell: &AtomicU64, amount: u64) {
    cell.fetch_add(amount, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(|key| (key == 0).then_some("Produce"))
    }

    fn value(recorder: &Recorder, series: &str) -> Option<String> {
        let text = recorder.render(Exposition::Prometheus);
        let prefix = format!("{series} ");
        text.lines()
            .find_map(|l| l.strip_prefix(&prefix))
            .map(str::to_owned)
    }

    #[test]
    fn a_connection_moves_to_its_tenant_once_that_is_known() {
        let recorder = recorder();
        let mut connection = recorder.connection("", "app");
        connection.identified("shop");
        connection.identified("shop");
        connection.request(0, Outcome::Forwarded);

        let open = recorder.connections();
        assert_eq!(open.len(), 1);
        assert_eq!(open["shop"]["app"], 1);
        let series = r#"kordon_connections{tenant="",listener="app"}"#;
        assert_eq!(value(&recorder, series).as_deref(), Some("0"));
        let series = r#"kordon_requests_total{tenant="shop",api="Produce",outcome="forwarded"}"#;
        assert_eq!(value(&recorder, series).as_deref(), Some("1"));
    }

    #[test]
    fn a_connection_that_ends_gives_back_what_it_held() {
        let recorder = recorder();
        let connection = recorder.connection("shop", "app");
        connection.in_flight_added();
        connection.in_flight_added();
        connection.in_flight_removed();
        connection.fetch_sessions(3);
        connection.fetch_sessions(2);
        assert_eq!(
            value(&recorder, "kordon_in_flight_requests").as_deref(),
            Some("1")
        );
        assert_eq!(
            value(&recorder, "kordon_fetch_sessions").as_deref(),
            Some("2")
        );

        drop(connection);

        assert_eq!(
            value(&recorder, "kordon_in_flight_requests").as_deref(),
            Some("0")
        );
        assert_eq!(
            value(&recorder, "kordon_fetch_sessions").as_deref(),
            Some("0")
        );
        assert!(recorder.connections().is_empty());
    }

    #[test]
    fn counts_from_many_threads_add_up() {
        let recorder = recorder();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let connection = recorder.connection("shop", "app");
                    for _ in 0..1000 {
                        connection.request(0, Outcome::Forwarded);
                        connection.bytes(Direction::In, 10);
                    }
                });
            }
        });
        let series = r#"kordon_bytes_total{tenant="shop",direction="in"}"#;
        assert_eq!(value(&recorder, series).as_deref(), Some("40000"));
    }

    #[test]
    fn what_is_held_for_each_tenant_and_connection_is_small() {
        // 64 KiB for each idle connection is the budget of everything together.
        assert!(
            size_of::<ConnectionMetrics>() <= 96,
            "{}",
            size_of::<ConnectionMetrics>()
        );
        assert!(size_of::<Tenant>() <= 2 * 1024, "{}", size_of::<Tenant>());
    }
}
