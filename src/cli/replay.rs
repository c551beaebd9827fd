//! `kordon replay`: what recorded decisions would be under other policies.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;

use super::Format;
use super::check::{self, printable};
use crate::config::guards;
use crate::policy::model::{Operation, ResourceKind, Subject};
use crate::policy::{PolicySet, View};
use crate::principal::{Principal, Proof};
use crate::problem::Problems;
use crate::telemetry::audit::MORE;
use crate::telemetry::audit::chain::LINE_BYTES_MAX;
use crate::telemetry::{Reason, Would};

/// Most different subjects whose rules are held at a time.
const VIEWS_MAX: usize = 1024;
/// Most different changes that are told one by one.
const CHANGES_MAX: usize = 100_000;

/// Options of `kordon replay`.
#[derive(Debug, Args)]
pub struct Options {
    /// The audit file; `-` is standard input
    #[arg(value_name = "AUDIT.jsonl")]
    audit: PathBuf,
    /// The other policies: a directory or a file
    #[arg(value_name = "POLICIES")]
    policies: PathBuf,
    /// A super user (`authorization.superUsers`); may be repeated
    #[arg(long = "super-user", value_name = "PRINCIPAL")]
    super_users: Vec<String>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command; the exit code: 0 nothing changes, 1 something does, 2 it cannot be told.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let mut problems = Problems::default();
    let path = &options.policies;
    let guards = if path.is_dir() {
        guards::load(path, &mut problems)
    } else {
        let base = path.parent().unwrap_or(Path::new(""));
        guards::load_files(base, std::slice::from_ref(path), &mut problems)
    };
    if guards.files == 0 && !problems.has_errors() {
        // Without a file every request would be refused, which nobody means by a wrong path.
        let message = format!("`{}`: no policy files (`*.yaml`)", path.display());
        problems.error_without_place(message);
    }
    if problems.has_errors() {
        let files = guards.files;
        check::write_text(&check::Report { problems, files }, &mut io::stderr())?;
        return Ok(2);
    }
    let mut replay = Replay {
        policies: PolicySet::new(guards.access, options.super_users.clone()).within(guards.tenants),
        views: HashMap::new(),
        found: Found::default(),
    };
    let read = match options.audit.as_os_str() == "-" {
        true => replay.all(BufReader::new(io::stdin())),
        false => File::open(&options.audit).and_then(|file| replay.all(BufReader::new(file))),
    };
    if let Err(error) = read {
        eprintln!("error: `{}`: {error}", options.audit.display());
        return Ok(2);
    }
    let found = replay.found;
    match options.format {
        Format::Text => write_text(&found, out)?,
        Format::Json => write_json(&found, out)?,
    }
    Ok(match (found.changes.is_empty(), found.told()) {
        (false, _) => 1,
        // Nothing that could be read is not the same as nothing that changes.
        (true, 0) if found.unreadable > 0 => 2,
        (true, _) => 0,
    })
}

/// What a line must hold to be decided again.
#[derive(Deserialize)]
struct Line {
    principal: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    host: Option<IpAddr>,
    operation: Option<String>,
    resource: Option<String>,
    decision: Option<String>,
    reason: Option<String>,
    rule: Option<String>,
    count: Option<u64>,
}

/// Whom rules are collected for.
type Who = (String, String, Vec<String>, IpAddr);

/// Decisions that change alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    /// Allowed now, where it was denied.
    allowed: bool,
    principal: String,
    tenant: String,
    operation: String,
    resource: String,
    was: Option<String>,
    is: Option<String>,
}

#[derive(Debug, Default)]
struct Found {
    changes: BTreeMap<Change, u64>,
    /// Decisions that change and are not told one by one.
    more_changes: u64,
    /// Decisions that stay as they were.
    same: u64,
    /// Lines about no access rule: failed authentication, quotas, schemas, marks.
    others: u64,
    /// Lines about what other sets of policies would have decided: each stands beside the request
    /// that it is about.
    beside: u64,
    /// Lines that do not say all that the decision needs.
    incomplete: u64,
    /// What is no audit line.
    unreadable: u64,
}

impl Found {
    fn told(&self) -> u64 {
        self.same + self.changes.values().sum::<u64>()
    }
}

struct Replay {
    policies: PolicySet,
    views: HashMap<Who, View>,
    found: Found,
}

impl Replay {
    fn all(&mut self, mut reader: impl io::BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = LINE_BYTES_MAX as u64 + 1;
            if reader.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.len() as u64 == most && !line.ends_with(b"\n") {
                // Its rest is no line of its own, whatever it looks like.
                reader.skip_until(b'\n')?;
                self.found.unreadable += 1;
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(line) => self.line(line),
                Err(_) => self.found.unreadable += 1,
            }
        }
    }

    fn line(&mut self, line: Line) {
        let count = line.count.unwrap_or(1).max(1);
        if line.reason.as_deref() != Some(Reason::Authorization.as_str()) {
            self.found.others += 1;
            return;
        }
        let beside = |word: &str| Would::ALL.iter().any(|would| would.as_str() == word);
        if line.decision.as_deref().is_some_and(beside) {
            self.found.beside += 1;
            return;
        }
        let is_cut = |text: &str| text.ends_with(MORE);
        let (Some(principal), Some(host), Some(operation), Some(resource), Some(decision)) = (
            line.principal.filter(|text| !is_cut(text)),
            line.host,
            line.operation,
            line.resource.filter(|text| !is_cut(text)),
            line.decision,
        ) else {
            self.found.incomplete += count;
            return;
        };
        let tenant = line.tenant.unwrap_or_default();
        let kind = resource.split_once(':').and_then(|(kind, name)| {
            let kind = ResourceKind::EVERY.into_iter().find(|k| k.name() == kind)?;
            Some((kind, name))
        });
        let asked = Operation::named(&operation).zip(kind);
        let was_allowed = match decision.as_str() {
            "allow" => Some(true),
            "deny" => Some(false),
            _ => None,
        };
        let cut = is_cut(&tenant) || line.groups.last().is_some_and(|group| is_cut(group));
        let (Some((asked, (kind, name))), Some(was_allowed), false) = (asked, was_allowed, cut)
        else {
            self.found.incomplete += count;
            return;
        };
        let who = (principal, tenant, line.groups, host);
        let decision = self.view(&who).decide(asked, kind, name);
        if decision.allowed == was_allowed {
            self.found.same += count;
            return;
        }
        let change = Change {
            allowed: decision.allowed,
            principal: who.0,
            tenant: who.1,
            operation,
            resource,
            was: line.rule,
            is: decision.rule.map(|rule| rule.to_string()),
        };
        let changes = &mut self.found.changes;
        if changes.len() < CHANGES_MAX || changes.contains_key(&change) {
            *changes.entry(change).or_default() += count;
        } else {
            self.found.more_changes += count;
        }
    }

    fn view(&mut self, who: &Who) -> &View {
        if self.views.len() >= VIEWS_MAX && !self.views.contains_key(who) {
            self.views.clear();
        }
        let policies = &self.policies;
        self.views.entry(who.clone()).or_insert_with(|| {
            let groups: Vec<Arc<str>> = who.2.iter().map(|g| g.as_str().into()).collect();
            let principal = Principal {
                name: who.0.as_str().into(),
                tenant: who.1.as_str().into(),
                groups: groups.into(),
                // Rules do not ask how a name was proven, nor for how long.
                proof: Proof::Static,
                expires_at: None,
            };
            policies.view(&Subject {
                principal: &principal,
                host: who.3,
            })
        })
    }
}

fn write_text(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for (allowed, title) in [(false, "newly denied"), (true, "newly allowed")] {
        let changes = found.changes.iter().filter(|(c, _)| c.allowed == allowed);
        let mut is_first = true;
        for (change, count) in changes {
            if std::mem::take(&mut is_first) {
                writeln!(out, "{title}:")?;
            }
            let tenant = match change.tenant.as_str() {
                "" => String::new(),
                tenant => format!(" (tenant {})", printable(tenant)),
            };
            let (who, what) = (printable(&change.principal), printable(&change.resource));
            writeln!(
                out,
                "  {who}{tenant} {} {what}, {count} times",
                change.operation
            )?;
            let rule = |rule: &Option<String>| match rule {
                Some(rule) => printable(rule),
                None => "no rule".to_owned(),
            };
            writeln!(
                out,
                "    was {}, is {}",
                rule(&change.was),
                rule(&change.is)
            )?;
        }
    }
    if found.more_changes > 0 {
        writeln!(out, "and {} more decisions that change", found.more_changes)?;
    }
    let changed = found.changes.values().sum::<u64>() + found.more_changes;
    writeln!(
        out,
        "{} decisions replayed, {changed} change",
        found.same + changed
    )?;
    for (count, what) in [
        (found.others, "lines are about no access rule"),
        (
            found.beside,
            "lines are what other sets of policies would have decided",
        ),
        (found.incomplete, "do not say enough to be decided again"),
        (found.unreadable, "lines are no audit lines"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    Ok(())
}

fn write_json(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    let changes = found.changes.iter().map(|(change, count)| {
        serde_json::json!({
            "decision": if change.allowed { "allow" } else { "deny" },
            "principal": change.principal,
            "tenant": change.tenant,
            "operation": change.operation,
            "resource": change.resource,
            "was": change.was,
            "is": change.is,
            "count": count,
        })
    });
    let whole = serde_json::json!({
        "ok": found.changes.is_empty(),
        "changes": changes.collect::<Vec<_>>(),
        "moreChanges": found.more_changes,
        "same": found.same,
        "others": found.others,
        "beside": found.beside,
        "incomplete": found.incomplete,
        "unreadable": found.unreadable,
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    const POLICY: &str = "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: a}\n\
        spec: {principals: [\"User:a\", \"Group:writers\"], hosts: [10.0.0.0/8], rules: [\n\
        {allow: [Write], topics: [\"${tenant}.*\"]}]}\n";

    fn line(changes: &[(&str, Value)]) -> String {
        let mut line = json!({
            "time": "2026-01-01T00:00:00.000Z", "connection": 1, "listener": "app",
            "host": "10.0.0.1", "principal": "User:a", "tenant": "shop", "api": "Produce",
            "operation": "Write", "resource": "Topic:shop.orders", "decision": "allow",
            "reason": "authorization", "rule": "old.yaml:3",
        });
        for (key, value) in changes {
            line[*key] = value.clone();
        }
        line.to_string() + "\n"
    }

    fn replayed(audit: &str, super_users: &[&str]) -> (u8, Value) {
        let dir = tempfile::tempdir().unwrap();
        let (log, policy) = (dir.path().join("audit.jsonl"), dir.path().join("new.yaml"));
        fs::write(&log, audit).unwrap();
        fs::write(&policy, POLICY).unwrap();
        let options = Options {
            audit: log,
            policies: policy,
            super_users: super_users.iter().map(|&s| s.to_owned()).collect(),
            format: Format::Json,
        };
        let mut out = Vec::new();
        let code = run(&options, &mut out).unwrap();
        (code, serde_json::from_slice(&out).unwrap_or(Value::Null))
    }

    #[test]
    fn what_stays_as_it_was_is_no_change() {
        let denied = [
            ("resource", "Topic:other".into()),
            ("decision", "deny".into()),
        ];
        let (code, found) = replayed(&(line(&[]) + &line(&denied)), &[]);
        assert_eq!((code, &found["same"]), (0, &2.into()), "{found}");
    }

    #[test]
    fn what_changes_is_grouped_and_names_both_rules() {
        let gone = |count: u64| line(&[("resource", "Topic:x".into()), ("count", count.into())]);
        let new = line(&[("decision", "deny".into()), ("rule", Value::Null)]);
        let (code, found) = replayed(&(gone(5) + &gone(2) + &new), &[]);
        assert_eq!(code, 1);
        let [denied, allowed] = &found["changes"].as_array().unwrap()[..] else {
            panic!("{found}")
        };
        assert_eq!(
            (&denied["decision"], &denied["count"]),
            (&"deny".into(), &7.into())
        );
        assert_eq!(
            (&denied["was"], &denied["is"]),
            (&"old.yaml:3".into(), &Value::Null)
        );
        assert_eq!(
            (&allowed["decision"], &allowed["was"]),
            (&"allow".into(), &Value::Null)
        );
        assert!(
            allowed["is"].as_str().unwrap().ends_with("new.yaml:5"),
            "{allowed}"
        );
    }

    #[test]
    fn everything_that_rules_speak_of_is_taken_from_the_line() {
        for (changes, code) in [
            (vec![("host", json!("192.168.0.1"))], 1),
            (vec![("tenant", json!("other"))], 1),
            (vec![("principal", json!("User:b"))], 1),
            (
                vec![
                    ("principal", json!("User:b")),
                    ("groups", json!(["writers"])),
                ],
                0,
            ),
            (vec![("operation", json!("Read"))], 1),
            (vec![("resource", json!("Group:shop.orders"))], 1),
        ] {
            assert_eq!(replayed(&line(&changes), &[]).0, code, "{changes:?}");
        }
        let other = line(&[("principal", "User:root".into())]);
        assert_eq!(replayed(&other, &[]).0, 1);
        assert_eq!(replayed(&other, &["User:root"]).0, 0);
    }

    #[test]
    fn what_cannot_be_decided_again_is_counted_and_not_guessed() {
        let audit = [
            line(&[("reason", "quota".into())]),
            // Beside a line of what was decided; read as one it would be a change.
            line(&[
                ("decision", "would_deny".into()),
                ("resource", "Topic:x".into()),
            ]),
            line(&[("decision", "would_allow".into())]),
            line(&[("groups", json!(["a", "…"]))]),
            line(&[("operation", Value::Null)]),
            line(&[("operation", "Fly".into())]),
            line(&[("resource", "Topic:shop.a…".into())]),
            "half a li".to_owned(),
        ];
        let (code, found) = replayed(&(line(&[]) + &audit.concat()), &[]);
        assert_eq!(code, 0, "{found}");
        let counts = ["same", "others", "beside", "incomplete", "unreadable"];
        let counts = counts.map(|k| found[k].clone());
        assert_eq!(counts, [1, 1, 2, 4, 1].map(Value::from), "{found}");
        // A file of something else is not a log in which nothing changes.
        assert_eq!(replayed("something else\n", &[]).0, 2);
        assert_eq!(replayed("", &[]).0, 0);
    }

    #[test]
    fn the_rest_of_a_line_that_is_too_long_is_not_read_as_a_line() {
        let forged = line(&[("resource", "Topic:x".into())]);
        let long = "x".repeat(LINE_BYTES_MAX + 1) + &forged;
        let (code, found) = replayed(&(line(&[]) + &long + &line(&[])), &[]);
        let counts = ["same", "unreadable"].map(|k| found[k].clone());
        assert_eq!((code, counts), (0, [2, 1].map(Value::from)), "{found}");
    }

    #[test]
    fn policies_with_mistakes_answer_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        fs::write(&log, line(&[])).unwrap();
        let wrong = dir.path().join("wrong.yaml");
        fs::write(&wrong, "apiVersion: kordon/v1\nkind: Nothing\n").unwrap();
        for policies in [dir.path().join("absent"), wrong] {
            let options = Options {
                audit: log.clone(),
                policies,
                super_users: Vec::new(),
                format: Format::Text,
            };
            assert_eq!(run(&options, &mut Vec::new()).unwrap(), 2);
        }
    }
}
