//! `kordon explain`: whether a principal may do something, the rule that decided, and every rule
//! that was considered. Decides as the proxy does, with the same code.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::json;

use super::check::{self, Format, Report, Sources, printable};
use super::policies;
use crate::config::Guards;
use crate::config::guards::Observing;
use crate::policy::model::{CLUSTER_NAME, Decision, Operation, ResourceKind, RuleRef, Subject};
use crate::policy::rule::Effect;
use crate::policy::{Considered, PolicySet, View};
use crate::problem::{Place, Problems};

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Policy directories and files; together they are one set
    #[arg(value_name = "POLICIES", required = true)]
    pub policies: Vec<PathBuf>,
    /// Who asks, such as `User:orders-service`
    #[arg(long, value_name = "TYPE:NAME")]
    pub principal: String,
    /// A group the principal is in; may be given again
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// The principal's tenant
    #[arg(long, default_value = "", hide_default_value = true)]
    pub tenant: String,
    /// Where the principal connects from
    #[arg(long, value_name = "IP", default_value_t = policies::DEFAULT_HOST)]
    pub host: IpAddr,
    /// What it wants to do, such as `Write`
    #[arg(long, value_parser = policies::operation)]
    pub operation: Operation,
    /// To what
    #[command(flatten)]
    pub resource: Resource,
    /// Take `authorization.superUsers` from this configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// The resource in question: exactly one.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Resource {
    /// A topic
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// A consumer group
    #[arg(long, value_name = "NAME")]
    pub consumer_group: Option<String>,
    /// A transactional id
    #[arg(long, value_name = "NAME")]
    pub transactional_id: Option<String>,
    /// The cluster
    #[arg(long)]
    pub cluster: bool,
    /// A delegation token
    #[arg(long, value_name = "NAME")]
    pub delegation_token: Option<String>,
    /// A user, such as `User:a`
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

impl Resource {
    fn named(&self) -> (ResourceKind, &str) {
        let named = [
            (ResourceKind::Topic, &self.topic),
            (ResourceKind::Group, &self.consumer_group),
            (ResourceKind::TransactionalId, &self.transactional_id),
            (ResourceKind::DelegationToken, &self.delegation_token),
            (ResourceKind::User, &self.user),
        ];
        let one = named
            .into_iter()
            .find_map(|(kind, name)| Some((kind, name.as_deref()?)));
        one.unwrap_or((ResourceKind::Cluster, CLUSTER_NAME))
    }
}

/// Answers; the exit code: 0 for either decision, 1 for broken policies, 2 used wrongly.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let groups = &options.group;
    let principal = match policies::principal(&options.principal, &options.tenant, groups) {
        Ok(principal) => principal,
        Err(message) => {
            eprintln!("error: --principal: {message}");
            return Ok(2);
        }
    };
    let mut problems = Problems::default();
    let guards = policies::load(&options.policies, &mut problems);
    let super_users = policies::super_users(options.config.as_deref(), &mut problems);
    if problems.has_errors() {
        let files = guards.files;
        check::write(&Report { problems, files }, options.format, out)?;
        return Ok(1);
    }
    let subject = Subject {
        principal: &principal,
        host: options.host,
    };
    let (kind, name) = options.resource.named();
    let observed = guards.observed().and_then(|(access, tenants)| {
        let set = PolicySet::new(access, super_users.clone()).within(tenants);
        let view = set.view(&subject);
        Observed::of(&view, &guards, (options.operation, kind, name))
    });
    let set = PolicySet::new(guards.access, super_users).within(guards.tenants);
    let view = set.view(&subject);
    let decision = view.decide(options.operation, kind, name);
    let considered = view.considered(options.operation, kind, name);
    let reason = match (&decision.rule, view.is_super_user()) {
        (_, true) => "super user",
        (Some(_), _) => "rule",
        (None, _) => "no rule matches",
    };
    match options.format {
        Format::Json => {
            let considered: Vec<_> = considered.iter().map(considered_json).collect();
            let whole = json!({
                "decision": policies::word(decision.allowed),
                "rule": policies::rule_json(decision.rule.as_ref()),
                "reason": reason,
                "principal": &*principal.name,
                "tenant": &*principal.tenant,
                "groups": options.group,
                "host": options.host.to_string(),
                "operation": options.operation.name(),
                "resource": {"type": kind.name(), "name": name},
                "considered": considered,
                "observed": observed.as_ref().map(|one| one.json(decision.allowed)),
            });
            serde_json::to_writer_pretty(&mut *out, &whole)?;
            writeln!(out)?;
        }
        Format::Text => {
            let asked = format!(
                "{}: {} may{} {} {} from {}",
                policies::word(decision.allowed),
                policies::shown(&principal),
                if decision.allowed { "" } else { " not" },
                options.operation.name(),
                policies::resource(kind, name),
                options.host,
            );
            writeln!(out, "{}", printable(&asked))?;
            let mut sources = Sources::default();
            match &decision.rule {
                Some(rule) => write_rule("decided by ", rule, &mut sources, out)?,
                None => writeln!(out, "decided by no rule: {reason}")?,
            }
            let others = considered
                .iter()
                .filter(|c| Some(&c.rule) != decision.rule.as_ref());
            for other in others {
                let lead = format!("also matches, {}: ", effect(other.effect));
                write_rule(&lead, &other.rule, &mut sources, out)?;
            }
            for other in observed.iter().flat_map(|one| &one.considered) {
                let lead = format!("observed only, {}: ", effect(other.effect));
                write_rule(&lead, &other.rule, &mut sources, out)?;
            }
            if let Some(one) = observed {
                let then = match one.decision.allowed == decision.allowed {
                    true => "no change",
                    false => policies::word(one.decision.allowed),
                };
                writeln!(out, "if what is observed were in force: {then}")?;
            }
        }
    }
    Ok(0)
}

/// What policies that observe say to the question.
struct Observed {
    /// What would be decided if they were in force too.
    decision: Decision,
    /// Those of their rules that match.
    considered: Vec<Considered>,
}

impl Observed {
    /// `view` is that of all policies together; `None`: no rule that observes matches.
    fn of(
        view: &View,
        guards: &Guards,
        (operation, kind, name): (Operation, ResourceKind, &str),
    ) -> Option<Observed> {
        let Observing {
            access, tenants, ..
        } = &guards.observing;
        let rules = access.iter().flat_map(|policy| policy.rules.iter());
        let boundaries = tenants.iter().filter_map(|tenant| tenant.boundary.as_ref());
        let observing: HashSet<&RuleRef> = (rules.map(|rule| &rule.at))
            .chain(boundaries.map(|boundary| &boundary.at))
            .collect();
        let mut considered = view.considered(operation, kind, name);
        considered.retain(|one| observing.contains(&one.rule));
        (!considered.is_empty()).then(|| Observed {
            decision: view.decide(operation, kind, name),
            considered,
        })
    }

    fn json(&self, allowed: bool) -> serde_json::Value {
        let considered: Vec<_> = self.considered.iter().map(considered_json).collect();
        json!({
            "decision": policies::word(self.decision.allowed),
            "rule": policies::rule_json(self.decision.rule.as_ref()),
            "changes": self.decision.allowed != allowed,
            "considered": considered,
        })
    }
}

fn considered_json(considered: &Considered) -> serde_json::Value {
    json!({
        "effect": effect(considered.effect),
        "file": &*considered.rule.file,
        "line": considered.rule.line,
    })
}

fn effect(effect: Effect) -> &'static str {
    policies::word(effect == Effect::Allow)
}

fn write_rule(
    lead: &str,
    rule: &RuleRef,
    sources: &mut Sources,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{lead}{}", printable(&rule.to_string()))?;
    let place = Place {
        file: rule.file.clone(),
        line: rule.line,
        column: 1,
    };
    match sources.line(&place) {
        Some(line) => writeln!(out, "  {}", printable(line.trim())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
