//! `kordon audit verify`: whether the hash chain of audit files holds.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;
use super::check::printable;
use crate::secret::Secret;
use crate::telemetry::audit::verify::{self, Finding, Report};
use crate::telemetry::audit::{AuditError, sealer};

/// What can be done with audit files.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check that no line was changed, removed, inserted or moved
    #[command(after_help = "Examples:\n  kordon audit verify audit.jsonl*\n  \
        kordon audit verify --key-file audit.key audit.jsonl\n\nLines that are missing at the end \
        do not show; without a key, neither does a\nchain that was written anew as a whole.")]
    Verify(Verify),
}

/// Options of `kordon audit verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The audit file and the files it was rotated to, in any order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The file with the key of the chain (`audit.key.file`)
    #[arg(long, value_name = "FILE", conflicts_with = "key_env")]
    key_file: Option<PathBuf>,
    /// The environment variable with the key of the chain (`audit.key.env`)
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command; the exit code: 0 the chain holds, 1 it does not, 2 it cannot be verified.
pub fn run(command: &Command, out: &mut dyn Write) -> io::Result<u8> {
    let Command::Verify(options) = command;
    let key = match (&options.key_file, &options.key_env) {
        (Some(file), _) => Some(Secret::File(file.clone())),
        (None, Some(name)) => Some(Secret::Variable(name.clone())),
        (None, None) => None,
    };
    let report = match sealer(key.as_ref()) {
        Ok(sealer) => verify::verify(&options.files, &sealer).map_err(|e| e.to_string()),
        Err(AuditError::Key(error)) => Err(format!("the key: {error}")),
        Err(error) => Err(error.to_string()),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(2);
        }
    };
    match options.format {
        Format::Text => write_text(&report, out)?,
        Format::Json => write_json(&report, out)?,
    }
    Ok(u8::from(!report.holds()))
}

fn place(finding: &Finding) -> String {
    let file = printable(&finding.file.display().to_string());
    match finding.line {
        0 => file,
        line => format!("{file}:{line}"),
    }
}

fn write_text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for fault in &report.faults {
        writeln!(out, "{}: {}", place(fault), fault.text)?;
    }
    if report.more_faults > 0 {
        writeln!(out, "and {} more", report.more_faults)?;
    }
    for note in &report.notes {
        writeln!(out, "{}: note: {}", place(note), note.text)?;
    }
    if report.lost > 0 {
        writeln!(
            out,
            "{} lines were lost, as the log itself says",
            report.lost
        )?;
    }
    let lines = report.lines;
    match (report.holds(), report.head) {
        (false, _) => writeln!(out, "{lines} lines, the chain does not hold"),
        (true, None) => writeln!(out, "no lines, nothing to verify"),
        (true, Some((seq, hash))) => writeln!(
            out,
            "{lines} lines, the chain holds; the last one has the number {seq} and the hash\n{hash}"
        ),
    }
}

fn write_json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let json = |finding: &Finding| {
        serde_json::json!({
            "file": finding.file.display().to_string(),
            "line": (finding.line > 0).then_some(finding.line),
            "message": finding.text,
        })
    };
    let files = report.files.iter().map(|file| file.display().to_string());
    let whole = serde_json::json!({
        "ok": report.holds(),
        "files": files.collect::<Vec<_>>(),
        "lines": report.lines,
        "lost": report.lost,
        "faults": report.faults.iter().map(json).collect::<Vec<_>>(),
        "moreFaults": report.more_faults,
        "notes": report.notes.iter().map(json).collect::<Vec<_>>(),
        "last": report.head.map(|(seq, hash)| {
            serde_json::json!({"seq": seq, "hash": hash.to_string()})
        }),
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::Recorder;
    use crate::telemetry::audit::{Audit, AuditFile, AuditSettings, AuditSink, Entry, Verdict};

    fn verify(files: &[PathBuf], key_file: Option<PathBuf>, format: Format) -> (u8, String) {
        let options = Verify {
            files: files.to_vec(),
            key_file,
            key_env: None,
            format,
        };
        let mut out = Vec::new();
        let code = run(&Command::Verify(options), &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    fn log(path: &std::path::Path, key: Option<Secret>) {
        let settings = AuditSettings {
            sink: AuditSink::File(AuditFile {
                path: path.to_owned(),
                rotation: None,
            }),
            key,
            ..AuditSettings::default()
        };
        let audit = Audit::start(settings, &Recorder::new(|_| None)).unwrap();
        for connection in 1..=3 {
            audit.record(Entry {
                connection,
                listener: "app".into(),
                host: [127, 0, 0, 1].into(),
                principal: None,
                proof: None,
                tenant: "".into(),
                groups: [].into(),
                api: None,
                operation: None,
                resource: None,
                verdict: Verdict::Deny,
                reason: crate::telemetry::Reason::Authentication,
                detail: None,
                rule: None,
                policy: None,
                count: None,
            });
        }
        assert!(audit.close());
    }

    #[test]
    fn the_exit_code_says_whether_the_chain_holds_and_the_line_where_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        log(&path, None);
        let (code, text) = verify(std::slice::from_ref(&path), None, Format::Text);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("5 lines, the chain holds"), "{text}");

        let changed =
            fs::read_to_string(&path)
                .unwrap()
                .replacen("\"connection\":2", "\"connection\":7", 1);
        fs::write(&path, changed).unwrap();
        let (code, text) = verify(std::slice::from_ref(&path), None, Format::Text);
        assert_eq!(code, 1);
        assert!(
            text.contains("audit.jsonl:3: the line was changed"),
            "{text}"
        );
        let (code, text) = verify(std::slice::from_ref(&path), None, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &json["ok"], &json["faults"][0]["line"]),
            (1, &false.into(), &3.into())
        );

        let (code, _) = verify(&[folder.path().join("absent")], None, Format::Text);
        assert_eq!(code, 2);
    }

    #[test]
    fn a_keyed_chain_is_not_verified_without_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("audit.jsonl"), folder.path().join("key"));
        fs::write(&key, "sixteen bytes or more").unwrap();
        log(&path, Some(Secret::File(key.clone())));
        let paths = [path];
        assert_eq!(verify(&paths, None, Format::Text).0, 2);
        assert_eq!(verify(&paths, Some(key.clone()), Format::Text).0, 0);
        fs::write(&key, "sixteen other bytes").unwrap();
        assert_eq!(verify(&paths, Some(key), Format::Text).0, 1);
    }
}
