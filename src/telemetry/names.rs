//! Every metric: name, kind, unit, labels, help. The only file that holds metric names; the
//! exposition, the published table and the tests are driven by it.
//!
//! Names follow Prometheus' conventions: base units, the unit last, `_total` on counters.

use std::fmt::Write;

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; starts at zero with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in the fixed buckets of [`crate::telemetry::DURATION_BUCKETS`].
    Histogram,
    /// A constant one whose labels are the message (OpenMetrics `info`).
    Info,
}

/// What a metric's value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: requests, connections, lines.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds; for a timestamp, since the Unix epoch.
    Seconds,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name as scraped.
    pub name: &'static str,
    /// Counter, gauge, histogram or info.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// The labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// One sentence for the operator.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric, in the order in which they are exposed.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD: Info Count "kordon_build_info" ["version"]
        "The version that runs.";
    START: Gauge Seconds "kordon_start_timestamp_seconds" []
        "When the process started.";
    RESIDENT: Gauge Bytes "kordon_resident_memory_bytes" []
        "Resident memory of the process (Linux only).";

    REQUESTS: Counter Count "kordon_requests_total" ["tenant", "api", "outcome"]
        "Kafka requests, by what became of them.";
    BYTES: Counter Bytes "kordon_bytes_total" ["tenant", "direction"]
        "Bytes of Kafka frames: `in` from clients, `out` to clients.";
    REFUSALS: Counter Count "kordon_refusals_total" ["tenant", "api", "reason"]
        "Refusals, whole requests and parts of them, by reason.";
    REVOCATIONS: Counter Count "kordon_revocations_total" ["tenant", "api"]
        "What was under way when policies took the right to it: answers that were owed, and \
         members of groups.";
    WOULD_DENY: Counter Count "kordon_would_deny_total" ["tenant", "api", "set"]
        "What went ahead and another set of policies would have refused: `observe`, those in \
         force together with those that observe, or `shadow`, `authorization.shadow`.";
    WOULD_ALLOW: Counter Count "kordon_would_allow_total" ["tenant", "api", "set"]
        "What was refused and another set of policies would have let go ahead.";
    WOULD_THROTTLE: Counter Seconds "kordon_would_throttle_seconds_total" ["tenant"]
        "Time for which quotas that only observe would have told clients to wait, beyond what \
         the others did.";
    CONNECTIONS: Gauge Count "kordon_connections" ["tenant", "listener"]
        "Client connections now open.";
    SCHEMA_VIOLATIONS: Counter Count "kordon_schema_violations_total" ["tenant", "action"]
        "Records that broke their topic's schema policy, by what was done about it.";
    THROTTLE: Counter Seconds "kordon_throttle_seconds_total" ["tenant"]
        "Time for which quotas told clients to wait.";
    DURATION: Histogram Seconds "kordon_request_duration_seconds" ["api"]
        "From the last byte of a request read to the last byte of its answer written, the \
         broker's time and throttling included.";

    CONNECTIONS_ACCEPTED: Counter Count "kordon_connections_accepted_total" []
        "Client connections accepted.";
    CONNECTIONS_REFUSED: Counter Count "kordon_connections_refused_total" []
        "Client connections closed at once because `limits.connections` was reached.";
    AUTHENTICATION_FAILURES: Counter Count "kordon_authentication_failures_total" ["method"]
        "Clients that could not prove who they are.";
    HANDSHAKES: Counter Count "kordon_tls_handshakes_total" ["kind"]
        "TLS handshakes with clients that were finished: `full`, or `resumed` with a ticket.";
    ISSUER_KEYS: Gauge Count "kordon_issuer_keys" ["listener", "issuer"]
        "Keys in use of an issuer that publishes them at a URL.";
    ISSUER_KEYS_CONFIRMED: Gauge Seconds "kordon_issuer_keys_confirmed_timestamp_seconds"
        ["listener", "issuer"]
        "When the issuer last confirmed the keys in use.";
    ISSUER_QUESTIONS: Counter Count "kordon_issuer_questions_total"
        ["listener", "issuer", "outcome"]
        "Questions to issuers, for their keys or about a token, by outcome.";
    IN_FLIGHT: Gauge Count "kordon_in_flight_requests" []
        "Requests forwarded whose answer has not been written yet.";
    FETCH_SESSIONS: Gauge Count "kordon_fetch_sessions" []
        "Incremental fetch sessions (KIP-227) that are open here.";
    SPLICED_BYTES: Counter Bytes "kordon_spliced_bytes_total" []
        "Bytes of large Produce requests that went from socket to socket uncopied.";
    UPSTREAM_CONNECTIONS: Gauge Count "kordon_upstream_connections" []
        "Broker connections now open.";
    UPSTREAM_DIAL_FAILURES: Counter Count "kordon_upstream_dial_failures_total" ["stage"]
        "Broker connections that could not be made, by the stage that failed.";
    UPSTREAM_REAUTHENTICATIONS: Counter Count "kordon_upstream_reauthentications_total" ["outcome"]
        "Sessions at brokers that were to be renewed while their connection was in use (KIP-368), \
         by what became of them.";
    UPSTREAM_TOKEN_FETCHES: Counter Count "kordon_upstream_token_fetches_total" ["outcome"]
        "Questions to a token endpoint for a token to authenticate to the brokers with.";
    UPSTREAM_TOKEN_EXPIRY: Gauge Seconds "kordon_upstream_token_expiry_timestamp_seconds" []
        "When the token fetched last ends; of several identities, the first end.";

    POLICY_GENERATION: Gauge Count "kordon_policy_generation" []
        "Number of the policy snapshot in force; grows by one with each change.";
    POLICY_LOADED: Gauge Seconds "kordon_policy_loaded_timestamp_seconds" []
        "When the policy snapshot in force was loaded.";
    POLICY_RELOAD_FAILURES: Counter Count "kordon_policy_reload_failures_total" []
        "Policy changes that were not taken because they held errors.";

    RELOAD_FAILURES: Counter Count "kordon_reload_failures_total" ["what"]
        "Changes of files that were not taken because they held errors, by what they make.";
    LISTENER_EXPIRY: Gauge Seconds
        "kordon_listener_certificate_expiry_timestamp_seconds" ["listener"]
        "When the certificate that a listener shows ends.";
    LIST_EXPIRY: Gauge Seconds "kordon_revocation_list_expiry_timestamp_seconds" ["listener"]
        "When the first of a listener's revocation lists ends and its clients are refused.";
    UPSTREAM_EXPIRY: Gauge Seconds "kordon_upstream_certificate_expiry_timestamp_seconds" []
        "When the certificate that is shown to brokers ends; of several, the first end.";
    CERTIFICATE_ENDS: Counter Count "kordon_connections_ended_by_certificate_total" ["cause"]
        "Connections that ended because their client certificate no longer holds (`tls.recheck`).";

    AUDIT_LINES: Counter Count "kordon_audit_lines_total" []
        "Audit lines written.";
    AUDIT_DROPPED: Counter Count "kordon_audit_dropped_total" ["cause"]
        "Audit lines lost, by cause.";
    ADMIN_REFUSED: Counter Count "kordon_admin_connections_refused_total" []
        "Connections to the admin endpoint closed at once because its limit was reached.";
}

impl Kind {
    /// The word of the exposition formats.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Unit {
    /// The unit's suffix in a name; `None` for plain counts.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Count => None,
            Self::Bytes => Some("bytes"),
            Self::Seconds => Some("seconds"),
        }
    }
}

/// The table as Markdown, for `kordon docs`.
pub fn markdown() -> String {
    let mut out = String::from("| metric | kind | unit | labels | meaning |\n");
    out.push_str("| --- | --- | --- | --- | --- |\n");
    for metric in ALL {
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit.suffix().unwrap_or("–"),
            labels.join(", "),
            metric.help,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("kordon_"), "{name}");
            assert!(
                name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{name}"
            );
            assert_eq!(
                metric.kind == Kind::Counter,
                name.ends_with("_total"),
                "{name}"
            );
            assert_eq!(metric.kind == Kind::Info, name.ends_with("_info"), "{name}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            if let Some(unit) = metric.unit.suffix() {
                assert!(base.ends_with(unit), "{name} should end in its unit");
            }
            assert!(
                metric.help.ends_with('.') && !metric.help.contains('\n'),
                "{name}"
            );
            for banned in ["client_id", "error", "topic", "principal", "le"] {
                assert!(
                    !metric.labels.contains(&banned),
                    "{name}: unbounded or reserved label"
                );
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn the_contract_of_the_admin_endpoint_is_kept() {
        for (name, labels) in [
            ("kordon_requests_total", &["tenant", "api", "outcome"][..]),
            ("kordon_bytes_total", &["tenant", "direction"]),
            ("kordon_refusals_total", &["tenant", "api", "reason"]),
            ("kordon_connections", &["tenant", "listener"]),
            ("kordon_request_duration_seconds", &["api"]),
        ] {
            let metric = ALL.iter().find(|m| m.name == name).expect(name);
            assert_eq!(metric.labels, labels, "{name}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_metric() {
        let table = markdown();
        assert_eq!(table.lines().count(), ALL.len() + 2);
        assert!(table.lines().all(|line| line.matches('|').count() == 6));
        assert!(
            table.contains("| `kordon_bytes_total` | counter | bytes | `tenant`, `direction` |")
        );
    }
}
