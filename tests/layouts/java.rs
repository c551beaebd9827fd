//! Kafka's own classes on a JVM: where the jars are, and the files exchanged with
//! `Messages.java`.

use crate::program::Classes;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

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
    classes: Classes,
}

impl Java {
    /// Compiles the program; the error says what is missing.
    pub fn new() -> Result<Java, String> {
        let jars = jar()?.with_file_name("*");
        let classes = Classes::compile("tests/layouts/Messages.java", &jars)?;
        Ok(Java { classes })
    }

    /// Has Kafka build `count` messages of every API, version and direction.
    pub fn generate(&self, count: usize, seed: u64) -> Vec<Record> {
        let out = self.classes.dir().join("generated");
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
            self.classes.dir().join("sent"),
            self.classes.dir().join("back"),
        );
        write(&sent, records);
        self.run(&["reencode", path(&sent), path(&back)]);
        read(&back)
    }

    fn run(&self, arguments: &[&str]) {
        let run = self
            .classes
            .command(&["-XX:TieredStopAtLevel=1"])
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
