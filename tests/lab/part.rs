//! What `setup.sh` could get and what it could not: a tier without its toolchain is skipped,
//! loudly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder outside the tree that holds jars, environments and built clients.
pub fn cache() -> PathBuf {
    let root = std::env::var_os("KORDON_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/kordon")
        });
    root.join("lab")
}

/// Kafka's own jars, for a class path.
pub fn jars() -> PathBuf {
    cache().join("kafka-4.3.0/libs/*")
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The option by which Java looks names up in `tests/lab/hosts`.
pub fn hosts() -> String {
    format!(
        "-Djdk.net.hosts.file={}",
        root().join("tests/lab/hosts").display()
    )
}

/// Runs `tests/lab/setup.sh` once in this process; quick when everything is there already.
pub fn set_up() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let status = Command::new("bash")
            .arg(root().join("tests/lab/setup.sh"))
            .status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "tests/lab/setup.sh failed"
        );
    });
}

/// `Err(reason)` when the part named (`java`, `kafka-4.3.0`, …) could not be set up.
pub fn ready(name: &str) -> Result<(), String> {
    set_up();
    let line = std::fs::read_to_string(cache().join("parts").join(name)).unwrap_or_default();
    match line.trim() {
        "ok" => Ok(()),
        "" => Err(format!("`{name}` was never set up")),
        skipped => Err(skipped.trim_start_matches("skipped: ").to_owned()),
    }
}

/// Whether a skipped tier must count as failed, as in CI.
pub fn all_required() -> bool {
    std::env::var("KORDON_REQUIRE_ALL").is_ok_and(|v| v == "1")
}
