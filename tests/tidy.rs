//! Facts of structure that a compiler does not check: who may import whom, who reads the clock,
//! where metric names live, what a file begins with. Standard library only, under a second.
//!
//! Each check collects everything it finds, so that one run shows all there is to do. A check
//! that finds no file to look at fails: it would otherwise pass for ever.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// For each module of the first level, the modules that its code (tests aside) may name. Read
/// upwards: the pure core first, the edges last. `*`: all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Words that all stages share; they know nothing of ours but each other.
    ("broker", &[]),
    ("clock", &[]),
    ("principal", &[]),
    ("problem", &[]),
    ("secret", &[]),
    ("url", &[]),
    ("document", &["problem"]),
    // Pure stages and knowledge.
    ("wire", &[]),
    ("policy", &["document", "principal", "problem"]),
    ("quota", &["policy", "principal", "problem"]),
    // `wire` for its reader of record batches, and nothing else of it.
    ("topic_rules", &["document", "policy", "problem", "wire"]),
    ("apis", &["policy", "topic_rules", "wire"]),
    // `wire` for its reader of record batches, and nothing else of it.
    ("schema", &["policy", "principal", "problem", "wire"]),
    // Input and output.
    (
        "identity",
        &["clock", "principal", "problem", "secret", "url"],
    ),
    (
        "telemetry",
        &["apis", "clock", "policy", "principal", "secret"],
    ),
    (
        "net",
        &[
            "broker",
            "clock",
            "identity",
            "principal",
            "problem",
            "telemetry",
            "url",
        ],
    ),
    (
        "issuer",
        &[
            "clock",
            "identity",
            "net",
            "principal",
            "secret",
            "telemetry",
            "url",
        ],
    ),
    ("issuer", &["clock", "net", "secret"]),
    (
        "upstream",
        &[
            "apis",
            "broker",
            "clock",
            "identity",
            "issuer",
            "net",
            "problem",
            "secret",
            "telemetry",
            "wire",
        ],
    ),
    // The path of a request.
    (
        "session",
        &[
            "apis",
            "broker",
            "clock",
            "identity",
            "policy",
            "principal",
            "telemetry",
            "topic_rules",
            "wire",
        ],
    ),
    (
        "proxy",
        &[
            "apis",
            "broker",
            "clock",
            "identity",
            "issuer",
            "net",
            "policy",
            "principal",
            "problem",
            "quota",
            "schema",
            "session",
            "telemetry",
            "topic_rules",
            "upstream",
            "wire",
        ],
    ),
    // Edges. `config` fills what the stages own, so it may name their specifications.
    (
        "config",
        &[
            "broker",
            "apis",
            "document",
            "identity",
            "issuer",
            "net",
            "policy",
            "principal",
            "problem",
            "quota",
            "schema",
            "secret",
            "telemetry",
            "upstream",
            "topic_rules",
        ],
    ),
    ("admin", &["clock", "proxy", "telemetry"]),
    ("demo", &["*"]),
    ("cli", &["*"]),
    ("lib", &["*"]),
    ("main", &["*"]),
];

/// Modules that do no input or output, read no clock and do not log.
const PURE: &[&str] = &[
    "apis",
    "document",
    "policy",
    "principal",
    "problem",
    "quota",
    "topic_rules",
    "wire",
];
const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "hyper::",
    "tracing::",
    "metrics::",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "clock::",
];

const NAMES_BANNED: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "handler", "context", "misc",
];

/// Lines of a file without its tests; the files beside it may be longer, for the reason given.
const LINES_MAX: usize = 600;
const LINES_EXEMPT: &[(&str, &str)] = &[("src/apis/table.rs", "one row for each of 93 keys")];

const COLUMNS_MAX: usize = 100;

struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The module of the first level: `wire` of `src/wire/frame.rs`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = inside.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines with their numbers: no comments, nothing from `#[cfg(test)]` on a module that has
    /// its body here to the end of the file, where tests stand.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let body = self
            .text
            .find("#[cfg(test)]\nmod tests {")
            .unwrap_or(self.text.len());
        let end = if self.is_test() { 0 } else { body };
        let lines = self.text[..end].lines().enumerate();
        lines
            .map(|(i, line)| (i + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under a folder of the repository, in order; folders that are never committed left out.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name();
            let kind = entry.file_type().unwrap();
            let skipped = ["target", ".git", "node_modules", ".venv", "__pycache__"];
            if kind.is_dir() && !skipped.iter().any(|s| name == *s) {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Text files under some folders that satisfy `wanted`.
fn sources(folders: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in folders.iter().flat_map(|folder| files(folder)) {
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        if wanted(&name)
            && let Ok(text) = String::from_utf8(fs::read(&path).unwrap())
        {
            sources.push(Source { path: name, text });
        }
    }
    assert!(!sources.is_empty(), "found nothing under {folders:?}");
    sources
}

fn rust(folders: &[&str]) -> Vec<Source> {
    sources(folders, |name| name.ends_with(".rs"))
}

fn report(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}\n", found.join("\n  "));
}

/// The words that follow `crate::` in a line, those of a group `crate::{a, b::c}` included.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(word(rest));
            continue;
        };
        let mut depth = 0;
        found.extend(word(group));
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.extend(word(&group[at + 1..])),
                _ => {}
            }
        }
    }
    found
}

/// The identifier that a text begins with.
fn word(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    Some(&text[..end.unwrap_or(text.len())]).filter(|word| !word.is_empty())
}

#[test]
fn imports_are_read_from_lines_as_rustfmt_writes_them() {
    assert_eq!(imports("use crate::wire::frame;"), ["wire"]);
    assert_eq!(
        imports("use crate::{apis::{table, row}, clock};"),
        ["apis", "clock"]
    );
    assert_eq!(
        imports("use crate::{clock, problem::Place};"),
        ["clock", "problem"]
    );
    assert_eq!(imports("let now = crate::clock::now();"), ["clock"]);
    assert_eq!(
        imports("pub(crate) fn f(p: crate::net::Peer, q: crate::wire::X)"),
        ["net", "wire"]
    );
    assert_eq!(imports("extern crate std;"), [""; 0]);
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let mut found = Vec::new();
    for source in rust(&["src"]) {
        let module = source.module();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            found.push(format!(
                "{}: `{module}` is not in the table of tests/tidy.rs",
                source.path
            ));
            continue;
        };
        for (line, text) in source.code() {
            for import in imports(text) {
                let own = import == module || allowed.contains(&"*") || allowed.contains(&import);
                // A name that is no module is an item of the crate's root: a macro.
                let known = MAY_IMPORT.iter().any(|(name, _)| *name == import);
                if known && !own {
                    found.push(format!(
                        "{}:{line}: `{module}` may not import `{import}`",
                        source.path
                    ));
                }
            }
        }
    }
    report("dependency direction (MAY_IMPORT in tests/tidy.rs)", &found);
}

#[test]
fn the_table_of_imports_has_no_cycle() {
    // Read in order, a module may name only those above it; the edges (`*`) may name all.
    let mut found = Vec::new();
    for (at, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        for import in allowed.iter().filter(|import| **import != "*") {
            if !MAY_IMPORT[..at].iter().any(|(name, _)| name == import) {
                found.push(format!(
                    "`{module}` names `{import}`, which stands below it"
                ));
            }
        }
    }
    report("order of MAY_IMPORT", &found);
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut found = Vec::new();
    for source in rust(&["src"]) {
        if !PURE.contains(&source.module()) {
            continue;
        }
        for (line, text) in source.code() {
            for word in IMPURE_WORDS.iter().filter(|word| text.contains(**word)) {
                found.push(format!("{}:{line}: {word}", source.path));
            }
        }
    }
    report(
        "pure modules do no I/O, read no clock and do not log",
        &found,
    );
}

/// Lines of code that must not be, as `FILE:LINE: TEXT`.
fn lines_where(bad: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in rust(&["src"]) {
        for (line, text) in source.code().filter(|(_, text)| bad(&source, text)) {
            found.push(format!("{}:{line}: {}", source.path, text.trim()));
        }
    }
    found
}

#[test]
fn only_the_clock_reads_time() {
    let reads = [
        "Instant::now",
        "SystemTime::now",
        ".elapsed()",
        "now_utc",
        "now_local",
    ];
    let found = lines_where(|source, text| {
        source.path != "src/clock.rs" && reads.iter().any(|word| text.contains(word))
    });
    report("only src/clock.rs reads time", &found);
}

#[test]
fn only_the_table_of_metrics_names_them() {
    let found = lines_where(|source, text| {
        source.path != "src/telemetry/names.rs" && text.contains("\"kordon_")
    });
    report("metric names stand in src/telemetry/names.rs", &found);
}

#[test]
fn every_file_says_what_it_is() {
    let mut found = Vec::new();
    for source in rust(&["src", "tests", "benches"]) {
        let head = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"));
        let words: usize = head.map(|line| line.split_whitespace().count() - 1).sum();
        // Tests of one module stand beside it, which says what they are about.
        if words < 3 && !source.path.ends_with("/tests.rs") {
            found.push(source.path);
        }
    }
    report(
        "a file begins with `//!`: what it is, what it is not",
        &found,
    );
}

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for source in rust(&["src"]) {
        let body = source
            .text
            .find("#[cfg(test)]\nmod tests {")
            .unwrap_or(source.text.len());
        let lines = source.text[..body].lines().count();
        let exempt = LINES_EXEMPT.iter().any(|(path, _)| *path == source.path);
        if lines > LINES_MAX && !exempt && !source.is_test() {
            found.push(format!("{}: {lines} lines without tests", source.path));
        }
    }
    for source in rust(&["src", "tests", "benches"]) {
        for (line, text) in source.text.lines().enumerate() {
            if text.chars().count() > COLUMNS_MAX && !text.contains("https://") {
                found.push(format!(
                    "{}:{}: above {COLUMNS_MAX} columns",
                    source.path,
                    line + 1
                ));
            }
        }
    }
    report("sizes", &found);
}

#[test]
fn module_names_say_something() {
    let mut found = Vec::new();
    for path in files("src") {
        let path = path.strip_prefix(root()).unwrap();
        for part in path
            .with_extension("")
            .iter()
            .filter_map(|part| part.to_str())
        {
            if NAMES_BANNED.contains(&part) {
                found.push(path.display().to_string());
            }
        }
    }
    report("names that say nothing", &found);
}

/// How many rows the list of threats has.
const THREATS: usize = 40;

/// A row of `tests/threats.md` is a line with its number, then a line for each test: the folder it
/// is in, and its name; or `none:` and the reason.
#[test]
fn every_threat_has_its_tests_or_a_reason() {
    let list = fs::read_to_string(root().join("tests/threats.md")).unwrap();
    let mut rows: Vec<(usize, Vec<(&str, &str)>)> = Vec::new();
    for line in list.lines() {
        let number = line.split_once(". ").and_then(|(n, _)| n.parse().ok());
        if let Some(number) = number {
            rows.push((number, Vec::new()));
        } else if let Some(entry) = line.strip_prefix("   - ") {
            rows.last_mut().unwrap().1.extend(entry.split_once(": "));
        }
    }
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=THREATS).collect::<Vec<_>>());
    let tests = ["threats", "surface", "it"].map(|home| (home, rust(&[&format!("tests/{home}")])));
    let units = [("src", rust(&["src"]))];
    let homes: Vec<_> = tests.iter().chain(&units).collect();
    let mut found = Vec::new();
    for (number, entries) in rows {
        if entries.is_empty() {
            found.push(format!("row {number}: neither a test nor a reason"));
        }
        for (home, what) in entries {
            if home == "none" {
                if what.split_whitespace().count() < 8 {
                    found.push(format!("row {number}: that is no reason: {what}"));
                }
                continue;
            }
            let name = what.trim_matches('`');
            if !format!("_{name}").contains(&format!("_t{number:02}_")) {
                found.push(format!("row {number}: `{name}` is not named after it"));
            }
            let Some((_, sources)) = homes.iter().find(|(known, _)| *known == home) else {
                found.push(format!("row {number}: no tests are in `{home}`"));
                continue;
            };
            let written = format!("fn {name}(");
            if !sources.iter().any(|source| source.text.contains(&written)) {
                found.push(format!("row {number}: `{name}` is not in {home}"));
            }
        }
    }
    report("tests/threats.md", &found);
}

/// Where packages come from is the setting of each machine, never of the project: a mirror's
/// address in a lock file breaks everybody else's build.
#[test]
fn no_file_pins_where_packages_come_from() {
    let hosts = [
        concat!("registry.npm", "js.org"),
        concat!("registry.yarn", "pkg.com"),
        concat!("pypi", ".org/simple"),
        concat!("pythonhosted", ".org"),
        concat!("repo.maven", ".apache.org"),
        concat!("repo1", ".maven.org"),
        concat!("proxy.golang", ".org"),
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
        concat!("deb.debian", ".org"),
        concat!("--index", "-url"),
        concat!("extra-index", "-url"),
        concat!("replace", "-with = "),
        concat!("\"resol", "ved\": "),
        // A home directory is a path of one machine.
        concat!("/ro", "ot/."),
        concat!("/ro", "ot/work"),
    ];
    let mut found = Vec::new();
    for source in sources(&["."], |name| name != "Cargo.lock") {
        for (line, text) in source.text.lines().enumerate() {
            for host in hosts.iter().filter(|host| text.contains(**host)) {
                found.push(format!("{}:{}: {host}", source.path, line + 1));
            }
        }
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        if line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"" {
            found.push(format!("Cargo.lock: {line}"));
        }
    }
    report("no registry's address in the project", &found);
}
