//! The numbers as text: Prometheus' format (version 0.0.4) and OpenMetrics 1.0, which differ in
//! the names of counter and info families, in `# UNIT` and in the closing `# EOF`.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::label::{
    CertificateEnd, DialStage, Direction, DropCause, Expiring, Fetch, Handshake, IssuerOutcome,
    Method, Outcome, Reason, Reloaded, Renewal, ViolationAction,
};
use super::names::{self, Kind, Metric};
use super::store::{self, API_SLOTS, DURATION_BUCKETS, Store};
use crate::clock;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// The format that an `Accept` header (RFC 9110 §12.5.1) prefers; Prometheus' own where the
    /// header is absent, prefers neither, or cannot be read.
    pub fn negotiate(accept: Option<&str>) -> Self {
        // Quality in thousandths, since RFC 9110 allows three digits.
        let (mut open, mut plain) = (0, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.clone().find_map(quality).unwrap_or(1000);
            let known = |v: &str| v.starts_with("1.0") || v.starts_with("0.0");
            match media.as_str() {
                "application/openmetrics-text" => {
                    // Versions that are not spoken here are not acceptable.
                    let spoken = parts.all(|p| p.strip_prefix("version=").is_none_or(known));
                    open = open.max(if spoken { quality } else { 0 });
                }
                "text/plain" | "text/*" | "*/*" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > 0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

fn quality(parameter: &str) -> Option<u32> {
    let text = parameter
        .strip_prefix("q=")
        .or_else(|| parameter.strip_prefix("Q="))?;
    let value: f32 = text.trim().parse().ok()?;
    // The cast saturates, and a NaN becomes zero: not acceptable.
    Some((value.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// Every metric of [`names::ALL`], in its order.
pub(super) fn render(store: &Store, format: Exposition) -> String {
    let mut page = Page {
        out: String::with_capacity(8 * 1024),
        format,
    };
    for metric in names::ALL {
        page.family(metric);
        series(store, metric, &mut page);
    }
    if format == Exposition::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

/// Writes the series of one metric. Series of tenants and APIs appear once they were touched;
/// series without such a label are always there, so that a rate can be taken from the start.
fn series(store: &Store, metric: &Metric, page: &mut Page) {
    let process = &store.process;
    match *metric {
        names::BUILD => page.sample(metric, "", &[env!("CARGO_PKG_VERSION")], 1),
        names::START => page.sample(metric, "", &[], epoch_seconds(store.started)),
        names::RESIDENT => {
            if let Some(bytes) = resident_bytes() {
                page.sample(metric, "", &[], bytes);
            }
        }
        names::REQUESTS | names::REFUSALS | names::REVOCATIONS => requests(store, metric, page),
        names::BYTES | names::SCHEMA_VIOLATIONS | names::THROTTLE | names::CONNECTIONS => {
            tenants(store, metric, page);
        }
        names::DURATION => durations(store, metric, page),
        names::CONNECTIONS_ACCEPTED => page.one(metric, &process.connections_accepted),
        names::CONNECTIONS_REFUSED => page.one(metric, &process.connections_refused),
        names::AUTHENTICATION_FAILURES => {
            let labels = Method::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.authentication_failures);
        }
        names::HANDSHAKES => {
            let labels = Handshake::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.handshakes);
        }
        names::ISSUER_KEYS | names::ISSUER_KEYS_CONFIRMED | names::ISSUER_QUESTIONS => {
            issuers(store, metric, page);
        }
        names::IN_FLIGHT => page.sample(metric, "", &[], process.in_flight.load(Relaxed)),
        names::FETCH_SESSIONS => page.sample(metric, "", &[], process.fetch_sessions.load(Relaxed)),
        names::UPSTREAM_CONNECTIONS => {
            page.sample(metric, "", &[], process.upstream_connections.load(Relaxed));
        }
        names::UPSTREAM_DIAL_FAILURES => {
            let labels = DialStage::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.dial_failures);
        }
        names::UPSTREAM_REAUTHENTICATIONS => {
            let labels = Renewal::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.reauthentications);
        }
        names::UPSTREAM_TOKEN_FETCHES => {
            let labels = Fetch::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.token_fetches);
        }
        names::UPSTREAM_TOKEN_EXPIRY => {
            if let Some(expiry) = store::lock(&process.token_expiry).values().min() {
                page.sample(metric, "", &[], epoch_seconds(*expiry));
            }
        }
        names::POLICY_GENERATION => {
            if let Some(policy) = *store::lock(&process.policy) {
                page.sample(metric, "", &[], policy.generation);
            }
        }
        names::POLICY_LOADED => {
            if let Some(policy) = *store::lock(&process.policy) {
                page.sample(metric, "", &[], epoch_seconds(policy.loaded));
            }
        }
        names::POLICY_RELOAD_FAILURES => page.one(metric, &process.policy_reload_failures),
        names::RELOAD_FAILURES => {
            let labels = Reloaded::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.reload_failures);
        }
        names::LISTENER_EXPIRY => expiries(store, metric, Expiring::Listener, page),
        names::LIST_EXPIRY => expiries(store, metric, Expiring::RevocationList, page),
        names::UPSTREAM_EXPIRY => {
            let all = store::lock(&process.expiries);
            let upstream = all
                .iter()
                .filter(|((what, _), _)| *what == Expiring::Upstream);
            if let Some(first) = upstream.map(|(_, ends)| *ends).min() {
                page.sample(metric, "", &[], epoch_seconds(first));
            }
        }
        names::CERTIFICATE_ENDS => {
            let labels = CertificateEnd::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.certificate_ends);
        }
        names::SPLICED_BYTES => page.one(metric, &process.spliced_bytes),
        names::AUDIT_LINES => page.one(metric, &process.audit_lines),
        names::AUDIT_DROPPED => {
            let labels = DropCause::ALL.iter().map(|l| l.as_str());
            page.each(metric, labels, &process.audit_dropped);
        }
        names::ADMIN_REFUSED => page.one(metric, &process.admin_refused),
        // A test holds every row of the table against what is written here.
        _ => debug_assert!(false, "{} is not rendered", metric.name),
    }
}

fn expiries(store: &Store, metric: &Metric, wanted: Expiring, page: &mut Page) {
    for ((what, listener), ends) in store::lock(&store.process.expiries).iter() {
        if *what == wanted {
            let labels = [&**listener];
            page.sample(
                metric,
                "",
                &labels[..metric.labels.len()],
                epoch_seconds(*ends),
            );
        }
    }
}

fn requests(store: &Store, metric: &Metric, page: &mut Page) {
    for tenant in store.all_tenants() {
        for (slot, cells) in tenant.apis.iter().enumerate() {
            let Some(cells) = cells.get() else { continue };
            let api = store.slot_name(slot);
            if *metric == names::REVOCATIONS {
                match cells.revocations.load(Relaxed) {
                    0 => {}
                    value => page.sample(metric, "", &[&tenant.name, api], value),
                }
                continue;
            }
            let mut write = |label: &str, cell: &AtomicU64| match cell.load(Relaxed) {
                0 => {}
                value => page.sample(metric, "", &[&tenant.name, api, label], value),
            };
            if *metric == names::REQUESTS {
                let pairs = Outcome::ALL.iter().zip(&cells.requests);
                pairs.for_each(|(label, cell)| write(label.as_str(), cell));
            } else {
                let pairs = Reason::ALL.iter().zip(&cells.refusals);
                pairs.for_each(|(label, cell)| write(label.as_str(), cell));
            }
        }
    }
}

fn issuers(store: &Store, metric: &Metric, page: &mut Page) {
    for cells in store::lock(&store.process.issuers).iter() {
        let (listener, issuer) = (&*cells.listener, &*cells.issuer);
        let mut keys = |value: &AtomicU64| {
            // Who is asked about tokens has none.
            if cells.confirmed.load(Relaxed) > 0 {
                page.sample(metric, "", &[listener, issuer], value.load(Relaxed));
            }
        };
        match *metric {
            names::ISSUER_KEYS => keys(&cells.keys),
            names::ISSUER_KEYS_CONFIRMED => keys(&cells.confirmed),
            _ => {
                for (label, cell) in IssuerOutcome::ALL.iter().zip(&cells.questions) {
                    let labels = [listener, issuer, label.as_str()];
                    page.sample(metric, "", &labels, cell.load(Relaxed));
                }
            }
        }
    }
}

fn tenants(store: &Store, metric: &Metric, page: &mut Page) {
    for tenant in store.all_tenants() {
        let name: &str = &tenant.name;
        match *metric {
            names::BYTES => {
                for (label, cell) in Direction::ALL.iter().zip(&tenant.bytes) {
                    page.sample(metric, "", &[name, label.as_str()], cell.load(Relaxed));
                }
            }
            names::SCHEMA_VIOLATIONS => {
                for (label, cell) in ViolationAction::ALL.iter().zip(&tenant.violations) {
                    page.sample(metric, "", &[name, label.as_str()], cell.load(Relaxed));
                }
            }
            names::THROTTLE => {
                let ms = tenant.throttle_ms.load(Relaxed);
                page.sample(metric, "", &[name], decimal(ms, 1000));
            }
            _ => {
                for (listener, gauge) in store::lock(&tenant.connections).iter() {
                    page.sample(metric, "", &[name, listener], gauge.load(Relaxed));
                }
            }
        }
    }
}

fn durations(store: &Store, metric: &Metric, page: &mut Page) {
    for slot in 0..API_SLOTS {
        let Some(histogram) = store.durations[slot].get() else {
            continue;
        };
        let api = store.slot_name(slot);
        let (counts, sum_micros) = histogram.read();
        let bounds = DURATION_BUCKETS
            .iter()
            .map(|&(_, text)| text)
            .chain(["+Inf"]);
        for (bound, count) in bounds.zip(counts) {
            page.bucket(metric, &[api], bound, count);
        }
        page.sample(metric, "_sum", &[api], decimal(sum_micros, 1_000_000));
        page.sample(metric, "_count", &[api], counts[DURATION_BUCKETS.len()]);
    }
}

/// The text so far.
struct Page {
    out: String,
    format: Exposition,
}

impl Page {
    /// The lines that open a family. OpenMetrics names a counter's family without `_total`, an
    /// info's without `_info`, and adds the unit.
    fn family(&mut self, metric: &Metric) {
        let open = self.format == Exposition::OpenMetrics;
        let (name, kind) = match metric.kind {
            Kind::Counter if open => (strip(metric.name, "_total"), "counter"),
            Kind::Info if open => (strip(metric.name, "_info"), "info"),
            Kind::Info => (metric.name, "gauge"),
            kind => (metric.name, kind.as_str()),
        };
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        if open && let Some(unit) = metric.unit.suffix() {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.out, "# HELP {name} {}", metric.help);
    }

    fn sample(&mut self, metric: &Metric, suffix: &str, labels: &[&str], value: impl Display) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        self.out.push_str(metric.name);
        self.out.push_str(suffix);
        let pairs = metric.labels.iter().copied().zip(labels.iter().copied());
        self.labels(pairs);
        let _ = writeln!(self.out, " {value}");
    }

    fn bucket(&mut self, metric: &Metric, labels: &[&str], bound: &str, count: u64) {
        self.out.push_str(metric.name);
        self.out.push_str("_bucket");
        let pairs = metric.labels.iter().copied().zip(labels.iter().copied());
        self.labels(pairs.chain([("le", bound)]));
        let _ = writeln!(self.out, " {count}");
    }

    fn one(&mut self, metric: &Metric, cell: &AtomicU64) {
        self.sample(metric, "", &[], cell.load(Relaxed));
    }

    fn each<'a>(
        &mut self,
        metric: &Metric,
        labels: impl Iterator<Item = &'a str>,
        cells: &[AtomicU64],
    ) {
        for (label, cell) in labels.zip(cells) {
            self.sample(metric, "", &[label], cell.load(Relaxed));
        }
    }

    fn labels<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut opened = false;
        for (name, value) in pairs {
            self.out.push(if opened { ',' } else { '{' });
            opened = true;
            let _ = write!(self.out, "{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if opened {
            self.out.push('}');
        }
    }
}

fn strip<'a>(name: &'a str, suffix: &str) -> &'a str {
    name.strip_suffix(suffix).unwrap_or(name)
}

/// `value / scale` without the rounding of a float, for scales that are powers of ten.
fn decimal(value: u64, scale: u64) -> String {
    let digits = scale.ilog10() as usize;
    format!("{}.{:0digits$}", value / scale, value % scale)
}

fn epoch_seconds(at: std::time::SystemTime) -> String {
    let since = clock::since_epoch(at);
    decimal(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), 1000)
}

/// Resident memory as Linux tells it; `None` elsewhere.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests;
