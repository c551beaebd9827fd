//! `kordon import`: ACLs of a live cluster, or of Strimzi's `KafkaUser`s, as access policies that
//! decide the same. What policies cannot say exactly is an error that names it.

mod strimzi;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::runtime::Builder;

use super::check::{self, Format, Report, printable};
use crate::config::Config;
use crate::policy::acl::{self, Acl};
use crate::policy::model::{Operation, ResourceKind};
use crate::problem::Problems;
use crate::upstream::Cluster;
use crate::upstream::control::AskError;
use crate::upstream::dial::Dialer;
use crate::upstream::sasl::Credentials;
use crate::wire::tree::StructNode;

/// What the command is asked.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where from
    #[command(subcommand)]
    pub from: From,
}

/// Where ACLs come from.
#[derive(Debug, clap::Subcommand)]
pub enum From {
    /// The ACLs of the cluster that a configuration names
    #[command(after_help = "Example:\n  kordon import kafka -c kordon.yaml > policies/kafka.yaml")]
    Kafka {
        /// The configuration; its `upstream` says how to reach the cluster
        #[arg(short, long, value_name = "FILE", default_value = "kordon.yaml")]
        config: PathBuf,
    },
    /// Strimzi's `KafkaUser` resources
    #[command(after_help = "Example:\n  kordon import strimzi users.yaml > policies/users.yaml")]
    Strimzi {
        /// YAML files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Prints policies; the exit code: 0, or 1 where they cannot say all.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let mut problems = Problems::default();
    let (acls, files) = match &options.from {
        From::Strimzi { files } => (strimzi::acls(files, &mut problems), files.len()),
        From::Kafka { config } => (live(config, &mut problems), 1),
    };
    let yaml = match problems.has_errors() {
        true => String::new(),
        false => acl::to_yaml(&acls).unwrap_or_else(|mistakes| {
            for mistake in mistakes {
                problems.error_without_place(format!("cannot be said exactly: {mistake}"));
            }
            String::new()
        }),
    };
    if !problems.list.is_empty() {
        let failed = problems.has_errors();
        let report = Report { problems, files };
        check::write(&report, Format::Text, &mut io::stderr())?;
        if failed {
            return Ok(1);
        }
    }
    match acls.is_empty() {
        true => writeln!(out, "# no ACLs")?,
        false => out.write_all(yaml.as_bytes())?,
    }
    Ok(0)
}

/// The ACLs of a cluster.
fn live(config: &Path, problems: &mut Problems) -> Vec<Acl> {
    let (config, mut found) = Config::load(config);
    problems.list.append(&mut found.list);
    let Some(config) = config.filter(|_| !problems.has_errors()) else {
        return Vec::new();
    };
    let tls = config
        .upstream
        .tls
        .as_ref()
        .map(crate::net::tls::client_config);
    let dialer = match tls.transpose() {
        Ok(tls) => Dialer::new(tls),
        Err(error) => {
            problems.error_without_place(error.to_string());
            return Vec::new();
        }
    };
    let (credentials, source) = match &config.upstream.sasl {
        Some(settings) => settings.credentials(),
        None => (Credentials::None, None),
    };
    let dialer = dialer.with_credentials(credentials);
    let cluster = Cluster::new(dialer, config.upstream.bootstrap);
    let asking = async {
        let token = async {
            match source {
                Some(source) => source.run(|_| ()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            asked = cluster.describe_acls() => asked,
            () = token => Err(AskError::NoAnswer),
        }
    };
    let asked = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(asking),
        Err(error) => {
            problems.error_without_place(format!("cannot start: {error}"));
            return Vec::new();
        }
    };
    match asked {
        Ok(answer) => read(&answer, problems),
        Err(error) => {
            problems.error_without_place(format!("cannot ask the cluster for its ACLs: {error}"));
            Vec::new()
        }
    }
}

/// The answer to DescribeAcls.
fn read(answer: &StructNode, problems: &mut Problems) -> Vec<Acl> {
    let code = answer.int("ErrorCode");
    if code != 0 {
        let problem = problems.error_without_place(format!("the cluster answers error {code}"));
        match code {
            31 => problem.help("the credentials of `upstream` need Describe on the cluster"),
            54 => problem.help("the brokers have no authorizer, so there are no ACLs"),
            _ => problem,
        };
        return Vec::new();
    }
    let mut acls = Vec::new();
    for resource in answer.structs("Resources") {
        let name = resource.text("ResourceName").unwrap_or_default();
        let (kind, pattern) = (resource.int("ResourceType"), resource.int("PatternType"));
        let found = ResourceKind::EVERY
            .into_iter()
            .find(|k| i64::from(*k as u8) == kind);
        for acl in resource.structs("Acls") {
            let (operation, permission) = (acl.int("Operation"), acl.int("PermissionType"));
            let found_operation = Operation::EVERY
                .into_iter()
                .find(|o| i64::from(*o as u8) == operation);
            let (Some(kind), Some(operation), 3 | 4, 2 | 3) =
                (found, found_operation, pattern, permission)
            else {
                let name = printable(name);
                problems.error_without_place(format!(
                    "an ACL on `{name}` has a type, pattern or operation that is not known here \
                     ({kind}, {pattern}, {operation}, {permission})"
                ));
                continue;
            };
            acls.push(Acl {
                kind,
                prefixed: pattern == 4,
                name: name.to_owned(),
                principal: acl.text("Principal").unwrap_or_default().to_owned(),
                host: acl.text("Host").unwrap_or_default().to_owned(),
                operation,
                deny: permission == 2,
            });
        }
    }
    acls
}

#[cfg(test)]
mod tests;
