//! What Kordon must reach, and whether the run showed it. A target is judged on the median, of
//! the ratios where it is relative, for every client that ran.

use crate::case::{CASES, Kind};
use crate::report::Report;
use crate::route::Route;

/// The name under which start and memory stand in the report.
pub const START: &str = "start";
/// Memory of an idle proxy.
pub const MEMORY: &str = "memory";

/// One line of the list.
pub struct Verdict {
    /// What is asked.
    pub what: String,
    /// The bound, as text.
    pub target: String,
    /// What was measured, as text.
    pub got: String,
    /// Whether it holds.
    pub met: bool,
}

enum Bound {
    /// At least so many times the value of the other route.
    AtLeastOf(Route, f64),
    /// At most so many times the value of the other route.
    AtMostOf(Route, f64),
    /// At most this.
    AtMost(f64),
    /// Below this.
    Below(f64),
}

/// Judges everything that was measured for Kordon.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut ask = |case: &str, figure: &str, bound: Bound| {
        verdicts.extend(verdict(report, case, figure, &bound));
    };
    for case in CASES {
        let throughput = case.kind != Kind::RoundTrip;
        if case.record_bytes == 1024 {
            match case.kind {
                Kind::Produce | Kind::ProduceLz4 => {
                    ask(case.name, "MiB/s", Bound::AtLeastOf(Route::Direct, 0.97));
                }
                Kind::Consume => {
                    ask(case.name, "MiB/s", Bound::AtLeastOf(Route::Haproxy, 1.0));
                    ask(case.name, "MiB/s", Bound::AtLeastOf(Route::Direct, 0.83));
                }
                Kind::RoundTrip => {
                    ask(case.name, "p50 ms", Bound::AtMostOf(Route::Haproxy, 1.0));
                    ask(case.name, "p99 ms", Bound::AtMostOf(Route::Haproxy, 1.0));
                }
            }
            if matches!(case.kind, Kind::Produce | Kind::Consume) {
                ask(
                    case.name,
                    "proxy CPU s/GiB",
                    Bound::AtMostOf(Route::Haproxy, 0.8),
                );
            }
        }
        if throughput {
            ask(case.name, "proxy peak MiB", Bound::AtMost(24.0));
        }
    }
    ask(START, "first Metadata s", Bound::AtMost(0.05));
    ask(MEMORY, "idle MiB", Bound::Below(12.0));
    ask(MEMORY, "KiB a connection", Bound::Below(64.0));
    ask(MEMORY, "peak MiB, 50 MiB answers", Bound::AtMost(24.0));
    ask(MEMORY, "growth MiB, 50 MiB answers", Bound::AtMost(1.0));
    ask(MEMORY, "peak MiB, 8 slow consumers", Bound::AtMost(24.0));
    verdicts
}

fn verdict(report: &Report, case: &str, figure: &str, bound: &Bound) -> Option<Verdict> {
    let own = report.spread(case, figure, Route::Kordon)?;
    let (target, value, met) = match *bound {
        Bound::AtLeastOf(route, share) => {
            let value = report.ratio(case, figure, Route::Kordon, route)?;
            (
                format!("≥ {share} of {route}"),
                value,
                value.median >= share,
            )
        }
        Bound::AtMostOf(route, share) => {
            let value = report.ratio(case, figure, Route::Kordon, route)?;
            (
                format!("≤ {share} of {route}"),
                value,
                value.median <= share,
            )
        }
        Bound::AtMost(limit) => (format!("≤ {limit}"), own, own.median <= limit),
        Bound::Below(limit) => (format!("< {limit}"), own, own.median < limit),
    };
    let got = format!("{:.3} ({:.3}–{:.3})", value.median, value.min, value.max);
    Some(Verdict {
        what: format!("{case}: {figure}"),
        target,
        got,
        met,
    })
}

/// The list as rows for a table.
pub fn rows(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let mut lines = vec![
        ["must reach", "target", "got", ""]
            .map(String::from)
            .to_vec(),
    ];
    for verdict in verdicts {
        let met = if verdict.met { "met" } else { "MISSED" };
        let Verdict {
            what, target, got, ..
        } = verdict;
        lines.push(vec![
            what.clone(),
            target.clone(),
            got.clone(),
            met.to_owned(),
        ]);
    }
    lines
}
