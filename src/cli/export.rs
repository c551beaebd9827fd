//! `kordon export kafka`: policies as Kafka's own ACLs, as commands of `kafka-acls.sh` or as JSON.
//! What goes beyond Kafka is refused by name.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::check::{self, Format, Report, Sources, printable};
use super::policies;
use crate::config::Guards;
use crate::policy::acl::{self, Acl};
use crate::policy::model::{Operation, ResourceKind, RuleRef};
use crate::policy::tenant::Tenant;
use crate::problem::{Place, Problems};

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to
    #[command(subcommand)]
    pub to: To,
}

/// Where policies go.
#[derive(Debug, clap::Subcommand)]
pub enum To {
    /// Commands of kafka-acls.sh that create the same ACLs; JSON: the ACLs
    #[command(after_help = "Example:\n  kordon export kafka policies/ > acls.sh")]
    Kafka {
        /// Policy directories and files; together they are one set
        #[arg(value_name = "POLICIES", required = true)]
        policies: Vec<PathBuf>,
        /// How ACLs are printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Prints ACLs; the exit code: 0, or 1 where policies are broken or go beyond Kafka.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    export(options, out, &mut io::stderr())
}

fn export(options: &Options, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let To::Kafka { policies, format } = &options.to;
    let mut problems = Problems::default();
    let guards = policies::load(policies, &mut problems);
    let mut sources = Sources::default();
    refuse_boundaries(&guards.tenants, &mut sources, &mut problems);
    let acls = match problems.has_errors() {
        true => Vec::new(),
        false => acl::from_policies(&guards.access).unwrap_or_else(|beyond| {
            for one in beyond {
                let message = format!("Kafka's ACLs cannot say {}", one.what);
                problems.error(&begin(&one.rule, &mut sources), message);
            }
            Vec::new()
        }),
    };
    if *format == Format::Text {
        refuse_unaccepted(&acls, &mut problems);
    }
    if problems.has_errors() {
        let files = guards.files;
        check::write(&Report { problems, files }, *format, err)?;
        return Ok(1);
    }
    let others = left_out(&guards);
    if !others.is_empty() {
        let others = printable(&others.join(", "));
        writeln!(
            err,
            "warning: not exported, since they are no ACLs: {others}"
        )?;
    }
    match format {
        Format::Text => write_commands(&acls, out)?,
        Format::Json => {
            let acls: Vec<Value> = acls.iter().map(json_of).collect();
            serde_json::to_writer_pretty(&mut *out, &json!({ "acls": acls }))?;
            writeln!(out)?;
        }
    }
    Ok(0)
}

/// Where a line of a policy begins, blanks left out.
fn begin(rule: &RuleRef, sources: &mut Sources) -> Place {
    let mut place = Place {
        file: rule.file.clone(),
        line: rule.line,
        column: 1,
    };
    let indent =
        (sources.line(&place)).map_or(0, |line| line.chars().take_while(|c| *c == ' ').count());
    place.column += u32::try_from(indent).unwrap_or(0);
    place
}

/// ACLs that leave a boundary out would allow its tenant more than the policies do.
fn refuse_boundaries(tenants: &[Tenant], sources: &mut Sources, problems: &mut Problems) {
    for boundary in tenants.iter().filter_map(|t| t.boundary.as_ref()) {
        let place = begin(&boundary.at, sources);
        problems
            .error(&place, "Kafka's ACLs cannot say the boundary of a tenant")
            .help("without it members could do more there than here: export files without it");
    }
}

/// Policies about other things than access: they have no ACL.
fn left_out(guards: &Guards) -> Vec<String> {
    let quotas = guards.quotas.iter().map(|q| ("QuotaPolicy", &q.name));
    let schemas = guards.schemas.iter().map(|s| ("SchemaPolicy", &s.name));
    let topics = guards.topics.iter().map(|t| ("TopicPolicy", &t.name));
    let all = quotas.chain(schemas).chain(topics);
    all.map(|(kind, name)| format!("{kind} `{name}`")).collect()
}

/// The tool refuses operations that it does not know for a kind, though brokers take them.
fn refuse_unaccepted(acls: &[Acl], problems: &mut Problems) {
    for acl in acls {
        let delete = acl.kind == ResourceKind::Cluster && acl.operation == Operation::Delete;
        if delete || !acl.kind.knows(acl.operation) {
            problems
                .error_without_place(format!("kafka-acls.sh does not accept: {}", acl.shown()))
                .help("take the operation out, or export as JSON");
        }
        // Shown as another character, it would be another name.
        if [&acl.name, &acl.principal]
            .iter()
            .any(|text| printable(text) != **text)
        {
            problems
                .error_without_place(format!("a character that does not show: {}", acl.shown()))
                .help("export as JSON");
        }
    }
}

fn json_of(acl: &Acl) -> Value {
    json!({
        "resourceType": acl.kind.name(),
        "patternType": if acl.prefixed { "Prefixed" } else { "Literal" },
        "name": acl.name,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation.name(),
        "permission": if acl.deny { "Deny" } else { "Allow" },
    })
}

/// One command for the operations of one principal on one resource.
fn write_commands(acls: &[Acl], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "# KAFKA: host:port of a broker; CONFIG: a file with the client's settings"
    )?;
    let mut grouped: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for acl in acls {
        let key = (
            &acl.principal,
            acl.deny,
            acl.kind,
            acl.prefixed,
            &acl.name,
            &acl.host,
        );
        grouped.entry(key).or_default().push(acl.operation.name());
    }
    for ((principal, deny, kind, prefixed, name, host), operations) in grouped {
        let word = if deny { "deny" } else { "allow" };
        let mut line = format!(
            "kafka-acls.sh --bootstrap-server \"$KAFKA\" --command-config \"$CONFIG\" --add \
             --{word}-principal {} --{word}-host {}",
            shell(principal),
            shell(host)
        );
        for operation in operations {
            line.push_str(&format!(" --operation {operation}"));
        }
        let option = match kind {
            ResourceKind::Topic => "--topic",
            ResourceKind::Group => "--group",
            ResourceKind::Cluster => "--cluster",
            ResourceKind::TransactionalId => "--transactional-id",
            ResourceKind::DelegationToken => "--delegation-token",
            ResourceKind::User => "--user-principal",
        };
        line.push_str(&format!(" {option}"));
        if kind != ResourceKind::Cluster {
            line.push_str(&format!(" {}", shell(name)));
        }
        if prefixed {
            line.push_str(" --resource-pattern-type prefixed");
        }
        writeln!(out, "{}", printable(&line))?;
    }
    Ok(())
}

/// A word of a shell's command.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests;
