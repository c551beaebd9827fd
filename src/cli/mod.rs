//! The commands. Exit codes: 0 ok, 1 found a problem, 2 used wrongly.

pub mod audit;
pub mod certs;
pub mod check;
pub mod credential;
pub mod diff;
pub mod docs;
pub mod explain;
pub mod export;
pub mod import;
mod policies;
pub mod replay;
pub mod run;
pub mod test;
mod tokens;
pub mod users;

use std::io::Write;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use check::Format;

/// A Kafka-protocol sidecar proxy: identity, access rules, quotas and schemas in front of Kafka
#[derive(Debug, Parser)]
#[command(name = "kordon", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy in the foreground; SIGTERM drains, SIGHUP reloads policies and schemas
    #[command(after_help = "Example:\n  kordon run -c kordon.yaml")]
    Run {
        /// The configuration
        #[arg(short, long, value_name = "FILE", default_value = "kordon.yaml")]
        config: PathBuf,
    },
    /// Show the whole of the proxy on this machine, on an embedded broker
    #[cfg(feature = "demo")]
    #[command(after_help = "Example:\n  kordon demo --once")]
    Demo {
        /// End after the tour; exit code 1 if any step did not behave
        #[arg(long)]
        once: bool,
    },
    /// Check configurations and policies, all mistakes at once
    #[command(after_help = "Example:\n  kordon check kordon.yaml policies/")]
    Check {
        /// Configuration files and policy directories
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// How results are printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Exit with 1 for warnings too
        #[arg(long)]
        strict: bool,
    },
    /// Say whether a principal may do something, and by which rule
    #[command(
        after_help = "Example:\n  kordon explain policies/ --principal User:auth-service \\\n    \
                      --operation Write --topic user.created\n  \
                      kordon explain -c kordon.yaml --principal User:auth-service \\\n    \
                      --operation Write --topic user.created"
    )]
    Explain(explain::Options),
    /// Run the tests of policies: `NAME.test.yaml` beside them
    #[command(after_help = "Example:\n  kordon test policies/")]
    Test(test::Options),
    /// Say which decisions change between two sets of policies
    #[command(after_help = "Example:\n  kordon diff policies/ policies-next/")]
    Diff(diff::Options),
    /// Print ACLs that are elsewhere as policies
    Import(import::Options),
    /// Print policies as ACLs for elsewhere
    Export(export::Options),
    /// Work with audit files
    #[command(subcommand)]
    Audit(audit::Command),
    /// Say what recorded decisions would be under other policies
    #[command(after_help = "Example:\n  kordon replay audit.jsonl policies-new/")]
    Replay(replay::Options),
    /// Make a development certificate authority and leaf certificates
    #[command(after_help = "Example:\n  kordon certs --out certs --client orders-service")]
    Certs(certs::Options),
    /// Make a line for a users file (SASL/PLAIN, SCRAM) of a password on standard input
    #[command(
        after_help = "Example:\n  kordon credential --user legacy-batch < password >> users.yaml"
    )]
    Credential(credential::Options),
    /// Print the generated tables
    #[command(after_help = "Example:\n  kordon docs apis")]
    Docs {
        /// Which table
        #[arg(value_enum)]
        table: docs::Table,
    },
    /// Print completions for a shell
    #[command(after_help = "Example:\n  kordon completions bash > /etc/bash_completion.d/kordon")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the arguments name; returns the exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut out = std::io::stdout();
    match arguments.command {
        Command::Run { config } => run::run(&config),
        #[cfg(feature = "demo")]
        Command::Demo { once } => crate::demo::run_with(run::start_for_demo, once, &mut out),
        Command::Check {
            paths,
            format,
            strict,
        } => or_broken_pipe(check::run(&paths, format, strict, &mut out)),
        Command::Explain(options) => or_broken_pipe(explain::run(&options, &mut out)),
        Command::Diff(options) => or_broken_pipe(diff::run(&options, &mut out)),
        Command::Import(options) => or_broken_pipe(import::run(&options, &mut out)),
        Command::Export(options) => or_broken_pipe(export::run(&options, &mut out)),
        Command::Test(options) => or_broken_pipe(test::run(&options, &mut out)),
        Command::Audit(command) => or_broken_pipe(audit::run(&command, &mut out)),
        Command::Replay(options) => or_broken_pipe(replay::run(&options, &mut out)),
        Command::Certs(options) => certs::run(&options, &mut out),
        Command::Credential(options) => {
            credential::run(&options, &mut std::io::stdin().lock(), &mut out)
        }
        Command::Docs { table } => {
            or_broken_pipe(out.write_all(table.markdown().as_bytes()).map(|()| 0))
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "kordon", &mut out);
            0
        }
    }
}

/// Whoever reads the output may stop early (`| head`): that is not a problem found.
fn or_broken_pipe(written: std::io::Result<u8>) -> u8 {
    match written {
        Ok(code) => code,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
