//! `kordon test`: what policies decide, held against what their authors expect. Tests stand in
//! `NAME.test.yaml` beside the policies; a case is decided by the code that decides in the proxy.

mod create;
mod produce;
mod read;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use self::produce::{Guarded, Verdict};
use self::read::{Ask, Case, Stage, Wanted};
use super::check::{self, Format, Report, Sources, counted, printable};
use super::policies;
use crate::config::guards;
use crate::policy::model::{Operation, RuleRef, Subject};
use crate::policy::tenant::TwoTenants;
use crate::policy::{PolicySet, View};
use crate::problem::{Place, Problem, Problems, Severity};

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directories (their policies, and every `*.test.yaml` below), or single `*.test.yaml`
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Policies for single test files; otherwise those of the directory that a file is in
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Schemas for `produce`; otherwise `schemas/` in or beside the policies
    #[arg(long, value_name = "DIR")]
    pub schemas: Option<PathBuf>,
    /// Take super users from this configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// One case and what became of it.
struct Outcome {
    case: Case,
    /// Why it failed, and the rule that decided; `None`: as expected.
    failure: Option<String>,
    rule: Option<RuleRef>,
    decision: String,
}

/// Runs every test; the exit code: 0 all as expected, 1 a case failed, none was found, or a file
/// is broken.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let mut problems = Problems::default();
    let super_users = policies::super_users(options.config.as_deref(), &mut problems);
    let mut outcomes = Vec::new();
    let mut files = 0;
    for path in &options.paths {
        let run = Run {
            options,
            super_users: &super_users,
        };
        files += run.path(path, &mut outcomes, &mut problems);
    }
    if problems.has_errors() {
        check::write(&Report { problems, files }, options.format, out)?;
        return Ok(1);
    }
    match options.format {
        Format::Text => write_text(&outcomes, &problems, files, out)?,
        Format::Json => write_json(&outcomes, files, out)?,
    }
    let failed = outcomes.is_empty() || outcomes.iter().any(|o| o.failure.is_some());
    Ok(u8::from(failed))
}

/// Reports what is wrong with a file of tests, without running them.
pub(super) fn check(name: &Arc<str>, text: &str, problems: &mut Problems) {
    read::cases_in(name, text, problems);
}

struct Run<'a> {
    options: &'a Options,
    super_users: &'a [String],
}

impl Run<'_> {
    /// Runs the tests of one path; how many test files there were.
    fn path(&self, path: &Path, outcomes: &mut Vec<Outcome>, problems: &mut Problems) -> usize {
        let (tests, beside) = if path.is_dir() {
            (guards::test_files(path, problems), path)
        } else if path.to_string_lossy().ends_with(guards::TEST_SUFFIX) {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            (vec![path.to_owned()], parent.unwrap_or(Path::new(".")))
        } else {
            let shown = path.display();
            problems
                .error_without_place(format!("`{shown}` is neither a directory nor a test file"))
                .help(format!("tests stand in `NAME{}`", guards::TEST_SUFFIX));
            return 0;
        };
        let cases: Vec<Case> = tests
            .iter()
            .flat_map(|file| read::cases(file, problems))
            .collect();
        let from = match &self.options.policies {
            Some(policies) if !path.is_dir() => policies,
            _ => beside,
        };
        let guards = policies::load(&[from.to_owned()], problems);
        let guarded = Guarded::load(from, self.options.schemas.as_deref(), &guards, problems);
        if problems.has_errors() {
            return tests.len();
        }
        let set = PolicySet::new(guards.access, self.super_users.to_vec());
        let set = set.within(guards.tenants.clone());
        for mut case in cases {
            match policies::placed(&case.principal, &guards.tenants) {
                Ok((principal, _)) => {
                    case.principal = principal;
                    outcomes.push(judge(case, &set, &guarded));
                }
                Err(two) => outcomes.push(no_connection(case, &two)),
            }
        }
        tests.len()
    }
}

/// Who matches two tenants is refused before there is anything to decide.
fn no_connection(case: Case, two: &TwoTenants) -> Outcome {
    let (as_wanted, decision) = match &case.ask {
        Ask::May { wanted, .. } => (!wanted, policies::word(false).to_owned()),
        Ask::Produce(_, wanted) | Ask::Create(_, wanted) => {
            let stage = Stage::Authorization;
            let decision = format!("rejected: {}", stage.name());
            (*wanted == Wanted::Rejected(stage), decision)
        }
    };
    Outcome {
        case,
        failure: (!as_wanted).then(|| format!("there is no connection: {two}")),
        rule: None,
        decision,
    }
}

fn judge(case: Case, set: &PolicySet, guarded: &Guarded) -> Outcome {
    let view = set.view(&Subject {
        principal: &case.principal,
        host: case.host,
    });
    let (failure, rule, decision) = match &case.ask {
        Ask::May {
            operation,
            kind,
            name,
            wanted,
        } => {
            let asked: Vec<Operation> = match operation {
                // `All` of a test is each one, whichever way it points.
                Operation::All => (Operation::EVERY.into_iter())
                    .filter(|o| *o != Operation::All && kind.knows(*o))
                    .collect(),
                one => vec![*one],
            };
            let mut last = (None, None, policies::word(*wanted).to_owned());
            for one in asked {
                let decision = view.decide(one, *kind, name);
                let differs = decision.allowed != *wanted;
                last = (
                    differs.then(|| failure(one, decision.allowed, &decision.rule, &view)),
                    decision.rule,
                    policies::word(decision.allowed).to_owned(),
                );
                if differs {
                    break;
                }
            }
            last
        }
        Ask::Produce(sent, wanted) => held(guarded.judge(sent, &view), *wanted, &view),
        Ask::Create(made, wanted) => held(made.judge(&guarded.topics, &view), *wanted, &view),
    };
    Outcome {
        case,
        failure,
        rule,
        decision,
    }
}

/// A verdict held against what was wanted: why it failed, the rule, the decision.
fn held(
    verdict: Verdict,
    wanted: Wanted,
    view: &View,
) -> (Option<String>, Option<RuleRef>, String) {
    let as_wanted = match (wanted, &verdict.rejected) {
        (Wanted::Accepted, None) => true,
        (Wanted::Rejected(stage), Some(found)) => stage == *found,
        _ => false,
    };
    let decision = verdict.rejected.map_or_else(
        || "accepted".to_owned(),
        |stage| format!("rejected: {}", stage.name()),
    );
    let failure = (!as_wanted).then(|| {
        let by = by(&verdict.rule, view);
        let why = verdict.message.as_deref().unwrap_or("nothing objects");
        format!("{decision} ({why}){by}")
    });
    (failure, verdict.rule, decision)
}

fn failure(operation: Operation, allowed: bool, rule: &Option<RuleRef>, view: &View) -> String {
    let word = if allowed { "allowed" } else { "denied" };
    format!("{} is {word}{}", operation.name(), by(rule, view))
}

fn by(rule: &Option<RuleRef>, view: &View) -> String {
    match rule {
        Some(rule) => format!(" by {rule}"),
        None if view.is_super_user() => ": a super user".to_owned(),
        None => ": no rule matches".to_owned(),
    }
}

fn write_text(
    outcomes: &[Outcome],
    problems: &Problems,
    files: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut sources = Sources::default();
    for warning in &problems.list {
        check::write_problem(warning, &mut sources, out)?;
    }
    for outcome in outcomes {
        let Some(failure) = &outcome.failure else {
            continue;
        };
        let case = &outcome.case;
        let problem = Problem {
            severity: Severity::Error,
            place: Some(case.place.clone()),
            message: format!("FAILED: {}: {}, but {failure}", case.test, case.says()),
            help: Some(format!("asked as {}", policies::shown(&case.principal))),
        };
        check::write_problem(&problem, &mut sources, out)?;
        if let Some(rule) = &outcome.rule {
            let place = Place {
                file: rule.file.clone(),
                line: rule.line,
                column: 1,
            };
            if let Some(line) = sources.line(&place) {
                writeln!(out, "  the rule: {}", printable(line.trim()))?;
            }
        }
    }
    let failed = outcomes.iter().filter(|o| o.failure.is_some()).count();
    let (files, cases) = (counted(files, "file"), counted(outcomes.len(), "case"));
    match (outcomes.len(), failed) {
        (0, _) => writeln!(
            out,
            "{files}, no case found: tests stand in `NAME.test.yaml`"
        ),
        (_, 0) => writeln!(out, "{files}, {cases}, all as expected"),
        _ => writeln!(out, "{files}, {cases}, {failed} FAILED"),
    }
}

fn write_json(outcomes: &[Outcome], files: usize, out: &mut dyn Write) -> io::Result<()> {
    let failed = outcomes.iter().filter(|o| o.failure.is_some()).count();
    let results: Vec<Value> = outcomes.iter().map(result).collect();
    let whole = json!({
        "ok": failed == 0 && !outcomes.is_empty(),
        "files": files,
        "cases": outcomes.len(),
        "failed": failed,
        "results": results,
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

fn result(outcome: &Outcome) -> Value {
    let case = &outcome.case;
    json!({
        "test": case.test,
        "case": case.says(),
        "file": &*case.place.file,
        "line": case.place.line,
        "column": case.place.column,
        "ok": outcome.failure.is_none(),
        "decision": outcome.decision,
        "rule": policies::rule_json(outcome.rule.as_ref()),
        "message": outcome.failure,
    })
}

#[cfg(test)]
mod tests;
