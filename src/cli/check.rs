//! `kordon check`: configuration and policy files, every mistake at once, each with its place, the
//! line it stands on and what to do next. Returns the exit code; parses no arguments.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Guards, file, guards};
use crate::document::{self, Value};
use crate::policy::lint;
use crate::problem::{Place, Problem, Problems, Severity};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Everything found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By file and place.
    pub problems: Problems,
    /// How many files were read.
    pub files: usize,
}

impl Report {
    fn count(&self, severity: Severity) -> usize {
        let list = self.problems.list.iter();
        list.filter(|p| p.severity == severity).count()
    }

    /// Warns of rules that are probably not meant, where the set is otherwise sound.
    fn lint(&mut self, guards: &Guards) {
        if !self.problems.has_errors() {
            let beside = guards.shadow.iter().map(|s| (&s.access, &s.tenants));
            let sets = [&guards.access, &guards.observing.access];
            let sets = sets.map(|access| (access, &guards.tenants));
            for (access, tenants) in sets.into_iter().chain(beside) {
                lint::lint(access, &mut self.problems);
                lint::bounds::lint(access, tenants, &mut self.problems);
                lint::overlap::rules(access, tenants, &mut self.problems);
            }
            let beside = guards.shadow.iter().map(|shadow| &shadow.tenants);
            for tenants in std::iter::once(&guards.tenants).chain(beside) {
                lint::overlap::boundaries(tenants, &mut self.problems);
            }
        }
    }

    /// 0: nothing wrong; 1: errors, or warnings where `strict`.
    pub fn exit_code(&self, strict: bool) -> u8 {
        let failed = self.count(Severity::Error) > 0 || (strict && !self.problems.list.is_empty());
        u8::from(failed)
    }
}

/// Checks and prints; the exit code: 0 ok, 1 found a problem, 2 used wrongly.
pub fn run(paths: &[PathBuf], format: Format, strict: bool, out: &mut dyn Write) -> io::Result<u8> {
    if paths.is_empty() {
        writeln!(
            out,
            "nothing to check: name a configuration or a policy directory"
        )?;
        return Ok(2);
    }
    let report = check(paths);
    write(&report, format, out)?;
    Ok(report.exit_code(strict))
}

/// Prints a report in the format asked for.
pub fn write(report: &Report, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => write_text(report, out),
        Format::Json => write_json(report, out),
    }
}

/// Checks directories of policies, single policy files and files of tests, and configurations
/// together with the policies they name.
pub fn check(paths: &[PathBuf]) -> Report {
    let mut report = Report::default();
    // Policy files that are named one by one are one set, as those of a directory are.
    let mut single = Vec::new();
    for path in paths {
        if path.is_dir() {
            let guards = guards::load(path, &mut report.problems);
            report.files += guards.files;
            check_not_empty(path, &guards, &mut report.problems);
            report.lint(&guards);
            continue;
        }
        // Read once: a pipe has its text only once, and would seem to be empty afterwards.
        let Some((name, text)) = file::named(path, &mut report.problems) else {
            report.files += 1;
            continue;
        };
        if name.ends_with(guards::TEST_SUFFIX) {
            report.files += 1;
            super::test::check(&name, &text, &mut report.problems);
        } else if is_policy(&name, &text) {
            single.push((path.clone(), text));
        } else {
            let (_, guards, mut problems) = Config::of_text_with_guards(path, &text);
            report.files += 1 + guards.files;
            report.files += guards.shadow.as_ref().map_or(0, |shadow| shadow.files);
            report.problems.list.append(&mut problems.list);
            report.lint(&guards);
        }
    }
    let guards = guards::load_texts(&single, &mut report.problems);
    report.files += guards.files;
    report.lint(&guards);
    unique(&mut report.problems);
    report
}

pub(super) fn check_not_empty(path: &Path, guards: &Guards, problems: &mut Problems) {
    if guards.files == 0 && !problems.has_errors() {
        let message = format!("`{}`: no policy files (`*.yaml`)", path.display());
        problems.error_without_place(message);
    }
}

/// In the order of the files; two paths given may lead to the same one.
fn unique(problems: &mut Problems) {
    let mut kept: Vec<Problem> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for problem in problems.list.drain(..) {
        if seen.insert((problem.place.clone(), problem.message.clone())) {
            kept.push(problem);
        }
    }
    kept.sort_by(|a, b| a.place.cmp(&b.place));
    problems.list = kept;
}

/// A policy names its kind; a configuration has no such key.
fn is_policy(name: &Arc<str>, text: &str) -> bool {
    let documents = document::parse(name, text, &mut Problems::default());
    documents.iter().any(|d| match &d.value {
        Value::Mapping(entries) => entries
            .iter()
            .any(|e| e.key == "kind" || e.key == "apiVersion"),
        _ => false,
    })
}

/// Prints a report for people.
pub fn write_text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut sources = Sources::default();
    for problem in &report.problems.list {
        write_problem(problem, &mut sources, out)?;
    }
    let (errors, warnings) = (
        report.count(Severity::Error),
        report.count(Severity::Warning),
    );
    let files = counted(report.files, "file");
    if errors == 0 && warnings == 0 {
        writeln!(out, "{files} checked, nothing wrong")
    } else {
        let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
        writeln!(out, "{files} checked: {errors}, {warnings}")
    }
}

pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Prints one problem: `file:line:col: what`, the line with a caret, and the help.
pub(super) fn write_problem(
    p: &Problem,
    sources: &mut Sources,
    out: &mut dyn Write,
) -> io::Result<()> {
    let severity = match p.severity {
        Severity::Error => "",
        Severity::Warning => "warning: ",
    };
    let message = printable(&p.message);
    match &p.place {
        None => writeln!(out, "{severity}{message}")?,
        Some(place) => {
            writeln!(
                out,
                "{}: {severity}{message}",
                printable(&place.to_string())
            )?;
            if let Some((line, caret)) = sources.line(place).map(|l| window(l, place.column)) {
                let number = place.line.to_string();
                let margin = " ".repeat(number.len());
                let indent = " ".repeat(caret);
                writeln!(out, " {number} | {line}")?;
                writeln!(out, " {margin} | {indent}^")?;
            }
        }
    }
    if let Some(help) = &p.help {
        writeln!(out, "  help: {}", printable(help))?;
    }
    Ok(())
}

/// The widest part of a source line that is shown, in characters.
const LINE_CHARS_MAX: usize = 120;

/// The part of a line around a column (from 1), and where the column is in it (from 0).
fn window(line: &str, column: u32) -> (String, usize) {
    let chars: Vec<char> = line.chars().collect();
    let at = (column as usize).saturating_sub(1).min(chars.len());
    let from = if chars.len() <= LINE_CHARS_MAX {
        0
    } else {
        at.saturating_sub(LINE_CHARS_MAX / 2)
    };
    let shown: String = chars.iter().skip(from).take(LINE_CHARS_MAX).collect();
    (printable(&shown), at - from)
}

/// Characters that would move the cursor or speak to the terminal become one that does not, so
/// that the caret stays below its column. A tab becomes a space.
pub(super) fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() || is_direction_mark(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(plain).collect()
}

/// Marks that reorder what a terminal shows (Unicode UAX 9).
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The files that problems point into, read once each.
#[derive(Default)]
pub(super) struct Sources {
    files: HashMap<Arc<str>, Option<String>>,
}

impl Sources {
    pub(super) fn line(&mut self, place: &Place) -> Option<&str> {
        let text = self
            .files
            .entry(Arc::clone(&place.file))
            .or_insert_with(|| file::read(Path::new(&*place.file)).ok());
        let text = text.as_deref()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        text.lines().nth((place.line as usize).checked_sub(1)?)
    }
}

/// Prints a report for programs.
pub fn write_json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let problems: Vec<serde_json::Value> = report.problems.list.iter().map(json).collect();
    let whole = serde_json::json!({
        "ok": !report.problems.has_errors(),
        "files": report.files,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "problems": problems,
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

pub(super) fn json(problem: &Problem) -> serde_json::Value {
    let place = problem.place.as_ref();
    serde_json::json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "file": place.map(|p| &*p.file),
        "line": place.map(|p| p.line),
        "column": place.map(|p| p.column),
        "message": problem.message,
        "help": problem.help,
    })
}

#[cfg(test)]
mod tests;
