//! A Java program of the tests that stands on Kafka's jars: compiled, started, and ended with its
//! owner.

use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A compiled program of one file.
pub struct Classes {
    main: String,
    path: String,
    dir: tempfile::TempDir,
}

impl Classes {
    /// Compiles a file of the project (`tests/…/Main.java`) beside the jars of a folder
    /// (`…/libs/*`); the error says what is missing.
    pub fn compile(source: &str, jars: &Path) -> Result<Classes, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let compiled = Command::new("javac")
            .args(["-nowarn", "-proc:none", "-cp"])
            .arg(jars)
            .arg("-d")
            .arg(dir.path())
            .arg(&source)
            .output()
            .map_err(|e| format!("javac: {e}"))?;
        if !compiled.status.success() {
            // Not a reason to skip: the program is ours.
            let said = String::from_utf8_lossy(&compiled.stderr);
            panic!("{}: {said}", source.display());
        }
        let main = source.file_stem().unwrap().to_str().unwrap().to_owned();
        let path = format!("{}:{}", dir.path().display(), jars.display());
        Ok(Classes { main, path, dir })
    }

    /// The command that runs it; arguments follow. `options` are the virtual machine's own.
    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:+UseSerialGC"])
            .args(options)
            .args(["-cp", &self.path, &self.main]);
        command
    }

    /// A folder that is there as long as the classes are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A running program; it is killed when dropped.
pub struct Program {
    /// What it reads.
    pub input: ChildStdin,
    child: Child,
    _classes: Classes,
}

impl Program {
    /// Starts it, and gives what it prints.
    pub fn start(
        classes: Classes,
        arguments: &[&str],
        errors: Stdio,
    ) -> Result<(Program, ChildStdout), String> {
        let mut child = classes
            .command(&[])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("java: {e}"))?;
        let output = child.stdout.take().unwrap();
        let program = Program {
            input: child.stdin.take().unwrap(),
            child,
            _classes: classes,
        };
        Ok((program, output))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
