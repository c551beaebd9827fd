//! `kordon diff`: which decisions change between two sets of policies, by principal and resource.
//! Compares what is decided, not what is written.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::check::{self, Format, Report, counted, printable};
use super::policies;
use crate::config::Guards;
use crate::policy::compare::{self, Change};
use crate::policy::model::{ResourceKind, RuleRef};
use crate::policy::tenant::{Tenant, TenantMatch};
use crate::problem::Problems;

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The policies in force: a directory or a file
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The policies to come
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Compares; the exit code: 0 all is decided alike, 1 decisions differ or a set is broken.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let mut problems = Problems::default();
    let [old, new] = [&options.old, &options.new]
        .map(|path| policies::load(std::slice::from_ref(path), &mut problems));
    let files = old.files + new.files;
    let changes = match problems.has_errors() {
        true => Vec::new(),
        false => compare::compare_within(side(&old), side(&new)).unwrap_or_else(|_| {
            let message = format!(
                "too many names to compare exactly: more than {} decisions or {} subjects",
                compare::DECISIONS_MAX,
                compare::SUBJECTS_MAX
            );
            problems
                .error_without_place(message)
                .help("compare parts: two files, or two smaller directories");
            Vec::new()
        }),
    };
    if problems.has_errors() {
        check::write(&Report { problems, files }, options.format, out)?;
        return Ok(1);
    }
    let moved = moved(&old.tenants, &new.tenants);
    match options.format {
        Format::Text => write_text(&changes, &moved, out)?,
        Format::Json => write_json(&changes, &moved, out)?,
    }
    Ok(u8::from(!changes.is_empty() || !moved.is_empty()))
}

/// A tenant to which others may belong than before: what its members may do is compared as for
/// any tenant, but who they are depends on what each brings.
struct Moved {
    tenant: String,
    old: Option<RuleRef>,
    new: Option<RuleRef>,
}

/// The tenants whose `match` says something else in the two sets, in any order of its items.
fn moved(old: &[Tenant], new: &[Tenant]) -> Vec<Moved> {
    let find = |set: &[Tenant], name: &str| -> (Vec<TenantMatch>, Option<RuleRef>) {
        let Some(tenant) = set.iter().find(|tenant| tenant.name == name) else {
            return (Vec::new(), None);
        };
        let items = tenant.matches.iter().cloned().map(|item| match item {
            TenantMatch::Claims(mut claims) => {
                claims.sort();
                TenantMatch::Claims(claims)
            }
            other => other,
        });
        (items.collect(), Some(tenant.at.clone()))
    };
    let names: BTreeSet<&str> = (old.iter().chain(new))
        .map(|tenant| tenant.name.as_str())
        .collect();
    let compared = names.into_iter().filter_map(|name| {
        let (before, old) = find(old, name);
        let (after, new) = find(new, name);
        let within =
            |some: &[TenantMatch], all: &[TenantMatch]| some.iter().all(|m| all.contains(m));
        let same = within(&before, &after) && within(&after, &before);
        (!same).then(|| Moved {
            tenant: name.to_owned(),
            old,
            new,
        })
    });
    compared.collect()
}

fn side(guards: &Guards) -> compare::Side<'_> {
    compare::Side {
        policies: &guards.access,
        tenants: &guards.tenants,
    }
}

fn write_text(changes: &[Change], moved: &[Moved], out: &mut dyn Write) -> io::Result<()> {
    let sides = |old, new, none: &str, out: &mut dyn Write| -> io::Result<()> {
        for (side, rule) in [("old", old), ("new", new)] {
            let rule: &Option<RuleRef> = rule;
            let rule = rule.as_ref().map_or(none.to_owned(), RuleRef::to_string);
            writeln!(out, "  {side}: {}", printable(&rule))?;
        }
        Ok(())
    };
    for Moved { tenant, old, new } in moved {
        let line = format!("changed: who belongs to the tenant `{tenant}`");
        writeln!(out, "{}", printable(&line))?;
        sides(old, new, "no such tenant", out)?;
    }
    for change in changes {
        writeln!(out, "{}", printable(&line(change)))?;
        sides(&change.old, &change.new, "no rule", out)?;
        if !change.not_all.is_empty() {
            writeln!(out, "  not all of it: {}", printable(&few(&change.not_all)))?;
        }
    }
    let gained = changes.iter().filter(|c| c.gained).count();
    let lost = changes.len() - gained;
    match changes.is_empty() {
        true if moved.is_empty() => writeln!(out, "every decision stays"),
        true => writeln!(out, "every decision about the members of a tenant stays"),
        false => writeln!(
            out,
            "{}: {gained} gained, {lost} lost",
            counted(changes.len(), "difference")
        ),
    }
}

/// How many facts one line of text shows.
const FACTS_SHOWN_MAX: usize = 10;

fn few(facts: &[String]) -> String {
    let mut out = facts[..facts.len().min(FACTS_SHOWN_MAX)].join(", ");
    if let Some(more) = facts.len().checked_sub(FACTS_SHOWN_MAX).filter(|n| *n > 0) {
        out.push_str(&format!(" and {more} more"));
    }
    out
}

/// `gained: User:a can Read, Write topics orders.*`
fn line(change: &Change) -> String {
    let word = if change.gained { "gained" } else { "lost" };
    let verb = if change.gained {
        "can"
    } else {
        "can no longer"
    };
    let who = match change.who.is_empty() {
        true => "everybody".to_owned(),
        false => change.who.join(" + "),
    };
    let names = change.names.join(", ");
    let what = match change.kind {
        ResourceKind::Cluster => "the cluster".to_owned(),
        ResourceKind::Topic => format!("topics {names}"),
        ResourceKind::Group => format!("consumer groups {names}"),
        ResourceKind::TransactionalId => format!("transactional ids {names}"),
        ResourceKind::DelegationToken => format!("delegation tokens {names}"),
        ResourceKind::User => format!("users {names}"),
    };
    let mut out = format!(
        "{word}: {who} {verb} {} {what}",
        change.operations.join(", ")
    );
    if !change.except.is_empty() {
        out.push_str(&format!(" except {}", change.except.join(", ")));
    }
    if !change.hosts.is_empty() {
        out.push_str(&format!(" from {}", change.hosts.join(", ")));
    }
    if !change.except_hosts.is_empty() {
        out.push_str(&format!(" except {}", change.except_hosts.join(", ")));
    }
    out
}

fn write_json(changes: &[Change], moved: &[Moved], out: &mut dyn Write) -> io::Result<()> {
    let list: Vec<Value> = changes.iter().map(change_json).collect();
    let tenants = moved.iter().map(|Moved { tenant, old, new }| {
        json!({
            "tenant": tenant,
            "old": policies::rule_json(old.as_ref()),
            "new": policies::rule_json(new.as_ref()),
        })
    });
    let gained = changes.iter().filter(|c| c.gained).count();
    let whole = json!({
        "differs": !changes.is_empty() || !moved.is_empty(),
        "gained": gained,
        "lost": changes.len() - gained,
        "changes": list,
        "tenants": tenants.collect::<Vec<_>>(),
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

fn change_json(change: &Change) -> Value {
    json!({
        "change": if change.gained { "gained" } else { "lost" },
        "principals": change.who,
        "hosts": change.hosts,
        "exceptHosts": change.except_hosts,
        "notAll": change.not_all,
        "operations": change.operations,
        "resource": {"type": change.kind.name(), "names": change.names, "except": change.except},
        "old": policies::rule_json(change.old.as_ref()),
        "new": policies::rule_json(change.new.as_ref()),
    })
}

#[cfg(test)]
mod tests;
