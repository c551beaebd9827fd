//! Kafka's StandardAuthorizer on a JVM, asked over pipes (the format is in `Authorizer.java`).

use crate::lab::part;
use crate::random::{Acl, Round};
use std::io::{BufReader, Read, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running JVM; it ends when its input does.
pub struct Java {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _classes: tempfile::TempDir,
}

impl Java {
    /// Compiles the program and starts it; the error says what is missing.
    pub fn start() -> Result<Java, String> {
        part::ready("kafka-4.3.0")?;
        let jars = part::cache().join("kafka-4.3.0/libs/*");
        let classes = tempfile::tempdir().map_err(|e| e.to_string())?;
        let compiled = Command::new("javac")
            .args(["-nowarn", "-proc:none", "-cp"])
            .arg(&jars)
            .arg("-d")
            .arg(classes.path())
            .arg(part::root().join("tests/authorizer/Authorizer.java"))
            .output()
            .map_err(|e| format!("javac: {e}"))?;
        if !compiled.status.success() {
            // Not a reason to skip: the program is ours.
            panic!("{}", String::from_utf8_lossy(&compiled.stderr));
        }
        let mut child = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}:{}", classes.path().display(), jars.display()))
            .arg("Authorizer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("java: {e}"))?;
        let output = BufReader::new(child.stdout.take().unwrap());
        Ok(Java {
            input: child.stdin.take(),
            output,
            child,
            _classes: classes,
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
        self.input.as_mut().unwrap().write_all(&out).unwrap();
        self.output.read_exact(&mut answers).unwrap();
        answers
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend(u16::try_from(count).unwrap().to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend(text.as_bytes());
}
