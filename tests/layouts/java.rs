//! Kafka's own classes on a JVM: where the jars are, and the files exchanged with
//! `Messages.java`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One record of an exchanged file.
#[derive(Clone, Debug)]
pub struct Record {
    /// API key.
    pub key: i16,
    /// 0: request, 1: response, 2: facts about the API.
    pub direction: u8,
    /// API version.
    pub version: i16,
    /// The message.
    pub bytes: Vec<u8>,
    /// Kafka's JSON, or a refusal.
    pub text: Vec<u8>,
}

/// A JVM with the classes of one Kafka release.
pub struct Java {
    class_path: String,
    directory: tempfile::TempDir,
}

impl Java {
    /// Compiles the program; the error says what is missing.
    pub fn new() -> Result<Java, String> {
        let jar = jar()?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts/Messages.java");
        let jars = jar.with_file_name("*");
        let compiled = Command::new("javac")
            .args(["-nowarn", "-proc:none", "-cp"])
            .arg(&jars)
            .arg("-d")
            .arg(directory.path())
            .arg(source)
            .output()
            .map_err(|e| format!("javac: {e}"))?;
        if !compiled.status.success() {
            // Not a reason to skip: the program is ours.
            panic!(
                "Messages.java: {}",
                String::from_utf8_lossy(&compiled.stderr)
            );
        }
        let class_path = format!("{}:{}", directory.path().display(), jars.display());
        Ok(Java {
            class_path,
            directory,
        })
    }

    /// Has Kafka build `count` messages of every API, version and direction.
    pub fn generate(&self, count: usize, seed: u64) -> Vec<Record> {
        let out = self.directory.path().join("generated");
        self.run(&[
            "generate",
            &count.to_string(),
            &seed.to_string(),
            path(&out),
        ]);
        read(&out)
    }

    /// Has Kafka read and write `records`; a non-empty text is a refusal.
    pub fn reencode(&self, records: &[Record]) -> Vec<Record> {
        let (sent, back) = (
            self.directory.path().join("sent"),
            self.directory.path().join("back"),
        );
        write(&sent, records);
        self.run(&["reencode", path(&sent), path(&back)]);
        read(&back)
    }

    fn run(&self, arguments: &[&str]) {
        let run = Command::new("java")
            .args([
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .args([self.class_path.as_str(), "Messages"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

/// The clients' jar of Kafka 4.3.0, beside the jars it needs.
pub fn jar() -> Result<PathBuf, String> {
    let below = |root: String, rest: &str| Path::new(&root).join(rest);
    let places = [
        env::var("KORDON_KAFKA_LIBS").ok().map(PathBuf::from),
        env::var("KORDON_CACHE")
            .ok()
            .map(|cache| below(cache, "kafka/4.3.0/libs")),
        env::var("HOME")
            .ok()
            .map(|home| below(home, ".cache/kordon/kafka/4.3.0/libs")),
    ];
    let jar = "kafka-clients-4.3.0.jar";
    places
        .into_iter()
        .flatten()
        .map(|libs| libs.join(jar))
        .find(|path| path.is_file())
        .ok_or(format!("no {jar} (KORDON_KAFKA_LIBS, KORDON_CACHE)"))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(path: &Path, records: &[Record]) {
    let mut out = Vec::new();
    for record in records {
        out.extend(record.key.to_be_bytes());
        out.push(record.direction);
        out.extend(record.version.to_be_bytes());
        for part in [&record.bytes, &record.text] {
            out.extend((part.len() as u32).to_be_bytes());
            out.extend(part);
        }
    }
    fs::write(path, out).unwrap();
}

fn read(path: &Path) -> Vec<Record> {
    let file = fs::read(path).unwrap();
    let mut rest = file.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.push(Record {
            key: i16::from_be_bytes(take(&mut rest)),
            direction: u8::from_be_bytes(take(&mut rest)),
            version: i16::from_be_bytes(take(&mut rest)),
            bytes: part(&mut rest),
            text: part(&mut rest),
        });
    }
    records
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_first_chunk().unwrap();
    *rest = left;
    *taken
}

fn part(rest: &mut &[u8]) -> Vec<u8> {
    let length = u32::from_be_bytes(take(rest)) as usize;
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken.to_vec()
}
