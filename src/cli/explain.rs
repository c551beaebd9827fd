//! `kordon explain`: whether a principal may do something, the rule that decided, and every rule
//! that was considered; beside it what observes and what is shadowed. Decides as the proxy does,
//! with the same code.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::json;

use super::check::{self, Format, Report, Sources, printable};
use super::policies;
use crate::config::guards::{self, Guards, Observing};
use crate::policy::model::{CLUSTER_NAME, Decision, Operation, ResourceKind, RuleRef, Subject};
use crate::policy::rule::Effect;
use crate::policy::tenant::Tenant;
use crate::policy::{Considered, PolicySet, View};
use crate::problem::{Place, Problems};

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Policy directories and files; together they are one set. By default those of `--config`
    #[arg(value_name = "POLICIES", required_unless_present = "config")]
    pub policies: Vec<PathBuf>,
    /// Who asks, such as `User:orders-service`
    #[arg(long, value_name = "TYPE:NAME")]
    pub principal: String,
    /// A group the principal is in; may be given again
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// The principal's tenant, as a listener or a token says it; left out: the one whose `match`
    /// holds for the principal or its groups
    #[arg(long)]
    pub tenant: Option<String>,
    /// Where the principal connects from
    #[arg(long, value_name = "IP", default_value_t = policies::DEFAULT_HOST)]
    pub host: IpAddr,
    /// What it wants to do, such as `Write`
    #[arg(long, value_parser = policies::operation)]
    pub operation: Operation,
    /// To what
    #[command(flatten)]
    pub resource: Resource,
    /// Take `authorization` from this configuration: its super users, and its shadow
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
    let tenant = options.tenant.as_deref().unwrap_or_default();
    let asked = match policies::principal(&options.principal, tenant, groups) {
        Ok(principal) => principal,
        Err(message) => {
            eprintln!("error: --principal: {message}");
            return Ok(2);
        }
    };
    let mut problems = Problems::default();
    let configured = policies::configured(options.config.as_deref(), &mut problems);
    let paths = match (&options.policies[..], configured.policies) {
        ([], own) => own.into_iter().collect(),
        (named, _) => named.to_vec(),
    };
    let guards = policies::load(&paths, &mut problems);
    let shadow = configured.shadow.as_deref();
    let shadow = shadow.map(|dir| guards::load_shadow(dir, &mut problems));
    let super_users = configured.super_users;
    if problems.has_errors() {
        let files = guards.files + shadow.map_or(0, |shadow| shadow.files);
        check::write(&Report { problems, files }, options.format, out)?;
        return Ok(1);
    }
    let placed = |tenants: &[Tenant]| match options.tenant {
        Some(_) => Ok((asked.clone(), None)),
        None => policies::placed(&asked, tenants).map_err(|two| format!("no connection: {two}")),
    };
    let (principal, member_by, refused) = match placed(&guards.tenants) {
        Ok((principal, by)) => (principal, by, None),
        Err(reason) => (asked.clone(), None, Some(reason)),
    };
    let subject = Subject {
        principal: &principal,
        host: options.host,
    };
    let (kind, name) = options.resource.named();
    if name.ends_with('*') {
        let asked = policies::resource(kind, name);
        eprintln!(
            "note: {} is one name here, not a pattern",
            printable(&asked)
        );
    }
    if !kind.knows(options.operation) {
        let operation = options.operation.name();
        eprintln!(
            "note: no Kafka API asks for {operation} on a {}",
            kind.name()
        );
    }
    let observed = guards.observed().and_then(|(access, tenants)| {
        let set = PolicySet::new(access, super_users.clone()).within(tenants);
        let view = set.view(&subject);
        Observed::of(&view, &guards, (options.operation, kind, name))
    });
    let question = (options.operation, kind, name);
    let shadow = shadow.map(|guards| {
        // A shadow has tenants of its own.
        let principal = match placed(&guards.tenants) {
            Ok((principal, _)) => principal,
            Err(reason) => return Answer::none(reason),
        };
        let set = PolicySet::new(guards.access, super_users.clone()).within(guards.tenants);
        let subject = Subject {
            principal: &principal,
            ..subject
        };
        Answer::of(&set.view(&subject), question)
    });
    let set = PolicySet::new(guards.access, super_users).within(guards.tenants);
    let answer = match refused {
        Some(reason) => Answer::none(reason),
        None => Answer::of(&set.view(&subject), question),
    };
    let Answer { decision, .. } = &answer;
    match options.format {
        Format::Json => {
            let mut whole = answer.json();
            whole["principal"] = json!(&*principal.name);
            whole["tenant"] = json!(&*principal.tenant);
            whole["tenantMatch"] = policies::rule_json(member_by.as_ref());
            whole["groups"] = json!(options.group);
            whole["host"] = json!(options.host.to_string());
            whole["operation"] = json!(options.operation.name());
            whole["resource"] = json!({"type": kind.name(), "name": name});
            whole["observed"] = json!(observed.as_ref().map(|one| one.json(decision.allowed)));
            // Only there where a configuration names such a set.
            if let Some(shadow) = &shadow {
                whole["shadow"] = shadow.json();
            }
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
            if let Some(at) = &member_by {
                let lead = format!("tenant {} by its match: ", principal.tenant);
                writeln!(out, "{}", printable(&format!("{lead}{at}")))?;
            }
            match &decision.rule {
                Some(rule) => write_rule("decided by ", rule, &mut sources, out)?,
                None => writeln!(out, "decided by no rule: {}", printable(&answer.reason))?,
            }
            for other in answer.others() {
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
            if let Some(shadow) = shadow {
                shadow.write_beside(&mut sources, out)?;
            }
        }
    }
    Ok(0)
}

/// What a set says to the question.
struct Answer {
    decision: Decision,
    /// Why, in a word.
    reason: Cow<'static, str>,
    /// Its rules that match.
    considered: Vec<Considered>,
}

impl Answer {
    fn of(view: &View, (operation, kind, name): (Operation, ResourceKind, &str)) -> Answer {
        let decision = view.decide(operation, kind, name);
        Answer {
            reason: Cow::Borrowed(match (&decision.rule, view.is_super_user()) {
                (_, true) => "super user",
                (Some(_), _) => "rule",
                (None, _) => "no rule matches",
            }),
            considered: view.considered(operation, kind, name),
            decision,
        }
    }

    /// The connection would be refused before anything is asked.
    fn none(reason: String) -> Answer {
        Answer {
            decision: Decision {
                allowed: false,
                rule: None,
            },
            reason: Cow::Owned(reason),
            considered: Vec::new(),
        }
    }

    /// The rules that match and do not decide.
    fn others(&self) -> impl Iterator<Item = &Considered> {
        let decided = self.decision.rule.as_ref();
        (self.considered.iter()).filter(move |one| Some(&one.rule) != decided)
    }

    fn json(&self) -> serde_json::Value {
        let considered: Vec<_> = self.considered.iter().map(considered_json).collect();
        json!({
            "decision": policies::word(self.decision.allowed),
            "rule": policies::rule_json(self.decision.rule.as_ref()),
            "reason": self.reason,
            "considered": considered,
        })
    }

    /// The answer of the shadow, behind that of the policies in force.
    fn write_beside(&self, sources: &mut Sources, out: &mut dyn Write) -> io::Result<()> {
        let word = policies::word(self.decision.allowed);
        match &self.decision.rule {
            Some(rule) => {
                let lead = format!("in the shadow: {word}, decided by ");
                write_rule(&lead, rule, sources, out)?;
            }
            None => {
                let reason = printable(&self.reason);
                writeln!(out, "in the shadow: {word}, decided by no rule: {reason}")?;
            }
        }
        for other in self.others() {
            let lead = format!("in the shadow also matches, {}: ", effect(other.effect));
            write_rule(&lead, &other.rule, sources, out)?;
        }
        Ok(())
    }
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
