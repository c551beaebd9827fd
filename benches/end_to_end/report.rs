//! Figures by case, route and round; their min, median and max; the ratios of the same round; and
//! what must be reached. Text, Markdown and JSON from the same rows.

use std::fmt::Write;

use crate::route::Route;

/// Every value measured.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    case: String,
    figure: String,
    /// One list for each of `ROUTES`, a value a round.
    values: [Vec<f64>; 3],
}

const ROUTES: [Route; 3] = [Route::Direct, Route::Haproxy, Route::Kordon];

/// Min, median and max.
#[derive(Clone, Copy)]
pub struct Spread {
    /// Lowest.
    pub min: f64,
    /// Middle; the mean of the two middle ones of an even count.
    pub median: f64,
    /// Highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread { min, median, max })
    }

    fn text(self) -> String {
        let digits = match self.median.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 0.01 => 2,
            _ => 4,
        };
        let Spread { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

impl Report {
    /// Adds the value of one round.
    pub fn note(&mut self, case: &str, figure: &str, route: Route, value: f64) {
        let at = self
            .rows
            .iter()
            .position(|row| row.case == case && row.figure == figure);
        let at = at.unwrap_or_else(|| {
            let (case, figure) = (case.to_owned(), figure.to_owned());
            self.rows.push(Row {
                case,
                figure,
                values: Default::default(),
            });
            self.rows.len() - 1
        });
        self.rows[at].values[route as usize].push(value);
    }

    fn row(&self, case: &str, figure: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.case == case && row.figure == figure)
    }

    /// Min, median and max over the rounds.
    pub fn spread(&self, case: &str, figure: &str, route: Route) -> Option<Spread> {
        Spread::of(&self.row(case, figure)?.values[route as usize])
    }

    /// Min, median and max of the ratios, each between two values of the same round.
    pub fn ratio(&self, case: &str, figure: &str, of: Route, to: Route) -> Option<Spread> {
        ratio(self.row(case, figure)?, of, to)
    }

    /// The tables, `markdown` or aligned for a terminal.
    pub fn table(&self, markdown: bool, all_figures: bool) -> String {
        let mut lines: Vec<Vec<String>> = vec![
            ["case", "figure", "direct", "haproxy", "kordon"]
                .map(String::from)
                .to_vec(),
        ];
        lines[0].extend(["haproxy/direct", "kordon/direct", "kordon/haproxy"].map(String::from));
        let aside = |row: &&Row| {
            row.figure.starts_with("broker CPU") || row.figure.starts_with("client CPU")
        };
        for row in self.rows.iter().filter(|row| all_figures || !aside(row)) {
            let cell = |spread: Option<Spread>| spread.map_or("–".to_owned(), Spread::text);
            let mut line = vec![row.case.clone(), row.figure.clone()];
            line.extend(ROUTES.map(|route| cell(Spread::of(&row.values[route as usize]))));
            line.push(cell(ratio(row, Route::Haproxy, Route::Direct)));
            line.push(cell(ratio(row, Route::Kordon, Route::Direct)));
            line.push(cell(ratio(row, Route::Kordon, Route::Haproxy)));
            lines.push(line);
        }
        if markdown {
            as_markdown(&lines)
        } else {
            as_text(&lines)
        }
    }

    /// Every value, for a reader of its own.
    pub fn json(&self, about: &[(String, String)]) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let [direct, haproxy, kordon] = &row.values;
                serde_json::json!({
                    "case": row.case, "figure": row.figure,
                    "direct": direct, "haproxy": haproxy, "kordon": kordon,
                })
            })
            .collect();
        let about: serde_json::Map<_, _> = about
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        serde_json::json!({"about": about, "rows": rows})
    }
}

fn ratio(row: &Row, of: Route, to: Route) -> Option<Spread> {
    let pairs = row.values[of as usize].iter().zip(&row.values[to as usize]);
    let ratios: Vec<f64> = pairs
        .filter(|(_, base)| **base > 0.0)
        .map(|(value, base)| value / base)
        .collect();
    Spread::of(&ratios)
}

/// A Markdown table of rows whose first is the head.
pub fn as_markdown(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(line.len()));
        }
    }
    text
}

/// The same rows in columns.
pub fn as_text(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}
