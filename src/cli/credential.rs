//! `kordon credential`: a line for a users file, made of a password that is read from standard
//! input. The password itself is nowhere afterwards.

use std::io::{BufRead, Read as _, Write};
use std::num::NonZeroU32;

use clap::ValueEnum;

use crate::identity::name;
use crate::identity::scram::{Credential, Hash, ITERATIONS_MAX, ITERATIONS_MIN};

/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Iterations where none are asked for: some hundredths of a second of a core.
pub const ITERATIONS_DEFAULT: u32 = 65_536;
/// The length of a salt, in bytes.
const SALT_BYTES: usize = 32;

/// What `kordon credential` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The user's name, as clients say it
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// The mechanism that will use it; `plain` takes either
    #[arg(long, value_enum, default_value_t = Mechanism::ScramSha512)]
    pub mechanism: Mechanism,
    /// How often the password is hashed: more is slower for who guesses, and for every login
    #[arg(long, value_name = "COUNT", default_value_t = ITERATIONS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(
            ITERATIONS_MIN as i64..=ITERATIONS_MAX as i64))]
    pub iterations: u32,
}

/// The mechanisms with a credential of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    /// SCRAM-SHA-256
    #[value(name = "scramSha256")]
    ScramSha256,
    /// SCRAM-SHA-512
    #[value(name = "scramSha512")]
    ScramSha512,
}

/// Prints the line. 0: done; 2: a name or a password that cannot be used.
pub fn run(options: &Options, input: &mut dyn BufRead, out: &mut dyn Write) -> u8 {
    match line(options, input) {
        Ok(line) => match writeln!(out, "{line}") {
            Ok(()) => 0,
            Err(_) => 2,
        },
        Err(text) => {
            eprintln!("error: {text}");
            2
        }
    }
}

fn line(options: &Options, input: &mut dyn BufRead) -> Result<String, String> {
    name::check(&options.user).map_err(|fault| format!("`--user`: {fault}"))?;
    let password = password(input)?;
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| "the machine has no randomness to give")?;
    let hash = match options.mechanism {
        Mechanism::ScramSha256 => Hash::Sha256,
        Mechanism::ScramSha512 => Hash::Sha512,
    };
    let iterations = NonZeroU32::new(options.iterations).unwrap_or(NonZeroU32::MIN);
    let credential = Credential::of_password(hash, &password, &salt, iterations);
    // JSON's quotes are also YAML's: a name such as `yes` or `a: b` stays text.
    let user = serde_json::Value::from(options.user.as_str());
    let text = credential.text();
    Ok(format!("- {{name: {user}, credential: \"{text}\"}}"))
}

/// The first line, without its end.
fn password(input: &mut dyn BufRead) -> Result<String, String> {
    let mut bytes = Vec::new();
    let bound = PASSWORD_BYTES_MAX as u64 + 2;
    let mut input = input.take(bound);
    let read = input.read_until(b'\n', &mut bytes);
    read.map_err(|error| format!("standard input cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "the password is not UTF-8")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("no password on standard input".to_owned());
    }
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "the password is longer than {PASSWORD_BYTES_MAX} bytes"
        ));
    }
    if text.contains('\0') {
        return Err("the password holds a NUL, which PLAIN cannot carry".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(user: &str, mechanism: Mechanism) -> Options {
        Options {
            user: user.to_owned(),
            mechanism,
            iterations: ITERATIONS_MIN,
        }
    }

    fn credential_of(line: &str) -> Credential {
        let text = line.split("credential: \"").nth(1).unwrap();
        Credential::parse(text.strip_suffix("\"}").unwrap()).unwrap()
    }

    #[test]
    fn the_line_holds_a_credential_of_the_password() {
        for (mechanism, hash) in [
            (Mechanism::ScramSha256, Hash::Sha256),
            (Mechanism::ScramSha512, Hash::Sha512),
        ] {
            let options = options("legacy-batch", mechanism);
            let line = line(&options, &mut &b"hunter 2\r\nmore"[..]).unwrap();
            assert!(line.starts_with("- {name: \"legacy-batch\", credential: \"SCRAM"));
            let credential = credential_of(&line);
            assert_eq!(credential.hash(), hash);
            assert!(credential.verify("hunter 2") && !credential.verify("hunter 2\r"));
        }
    }

    #[test]
    fn the_salt_is_another_one_each_time() {
        let options = options("a", Mechanism::ScramSha256);
        let one = line(&options, &mut &b"p"[..]).unwrap();
        assert_ne!(one, line(&options, &mut &b"p"[..]).unwrap());
    }

    #[test]
    fn names_and_passwords_that_cannot_be_used_are_refused() {
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        for (user, password, want) in [
            ("*", "p", "wildcard"),
            ("a", "", "no password"),
            ("a", "\n", "no password"),
            ("a", "p\0q", "NUL"),
            ("a", long.as_str(), "longer"),
        ] {
            let options = options(user, Mechanism::ScramSha512);
            let error = line(&options, &mut password.as_bytes()).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        let longest = &long[1..];
        let options = options("a", Mechanism::ScramSha512);
        assert!(line(&options, &mut longest.as_bytes()).is_ok());
    }
}
