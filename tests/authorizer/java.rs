//! Kafka's StandardAuthorizer on a JVM, asked over pipes (the format is in `Authorizer.java`).

use crate::lab::java::{Classes, Program};
use crate::lab::part;
use crate::random::{Acl, Round};
use std::io::{BufReader, Read, Write};
use std::net::IpAddr;
use std::process::{ChildStdout, Stdio};

/// A running JVM.
pub struct Java {
    program: Program,
    output: BufReader<ChildStdout>,
}

impl Java {
    /// Compiles the program and starts it; the error says what is missing.
    pub fn start() -> Result<Java, String> {
        part::ready("kafka-4.3.0")?;
        let classes = Classes::compile("tests/authorizer/Authorizer.java", &part::jars())?;
        let (program, output) = Program::start(classes, &[], Stdio::inherit())?;
        Ok(Java {
            program,
            output: BufReader::new(output),
        })
    }

    /// What Kafka says to each question of a round: no, yes, or 2 for an exception.
    pub fn answers(&mut self, round: &Round, acls: &[Acl]) -> Vec<u8> {
        let mut out = Vec::new();
        text(&mut out, &round.super_users.join(";"));
        count(&mut out, acls.len());
        for acl in acls {
            let pattern = if acl.prefixed { 4 } else { 3 };
            let permission = if acl.allow { 3 } else { 2 };
            out.extend([acl.kind as u8, pattern, acl.operation as u8, permission]);
            text(&mut out, &acl.name);
            text(&mut out, acl.principal);
            text(&mut out, &acl.host);
        }
        count(&mut out, round.askers.len());
        for asker in &round.askers {
            let (kind, name) = asker.principal.name.split_once(':').unwrap();
            text(&mut out, kind);
            text(&mut out, name);
            match asker.host {
                IpAddr::V4(host) => {
                    out.push(4);
                    out.extend(host.octets());
                }
                IpAddr::V6(host) => {
                    out.push(16);
                    out.extend(host.octets());
                }
            }
        }
        count(&mut out, round.questions.len());
        for question in &round.questions {
            count(&mut out, question.asker);
            let any = u8::from(question.name.is_none());
            out.extend([any, question.operation as u8, question.kind as u8]);
            text(&mut out, question.name.as_deref().unwrap_or_default());
        }
        let mut answers = vec![0; round.questions.len()];
        self.program.input.write_all(&out).unwrap();
        self.output.read_exact(&mut answers).unwrap();
        answers
    }
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend(u16::try_from(count).unwrap().to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend(text.as_bytes());
}
