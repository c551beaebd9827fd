//! A directory of policy files to access rules, quotas, schema and topic rules. Every `*.yaml`
//! below it is read, in the order of its path, except `*.test.yaml`; names that begin with a dot
//! are skipped.

mod known;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{file, quota_policy, schema_policy, tenant};
use crate::document::{Fields, Node, Value, did_you_mean};
use crate::policy::mode::Mode;
use crate::policy::parse;
use crate::policy::rule::AccessPolicy;
use crate::policy::tenant::Tenant;
use crate::problem::{Place, Problems};
use crate::quota::spec::QuotaSpec;
use crate::schema::spec::SchemaSpec;
use crate::topic_rules::{self, TopicSpec};

pub use known::KnownFiles;

/// How many policy files one directory may hold.
pub const FILES_MAX: usize = 10_000;

/// How deep directories may nest below the one given.
pub const DIRECTORY_DEPTH_MAX: usize = 16;

/// What the name of a file of policy tests ends in.
pub const TEST_SUFFIX: &str = ".test.yaml";

/// Every policy of a directory. Policies with `mode: observe` stand apart, so that nobody takes
/// them for policies in force; a SchemaPolicy says by itself that it only observes.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    /// `kind: AccessPolicy`.
    pub access: Vec<AccessPolicy>,
    /// `kind: Tenant`; without their boundaries where these are only observed.
    pub tenants: Vec<Tenant>,
    /// `kind: QuotaPolicy`.
    pub quotas: Vec<QuotaSpec>,
    /// `kind: SchemaPolicy`.
    pub schemas: Vec<SchemaSpec>,
    /// What is decided beside them, without effect.
    pub observing: Observing,
    /// The directory that is decided beside this one (`authorization.shadow`).
    pub shadow: Option<Box<Guards>>,
    /// `kind: TopicPolicy`.
    pub topics: Vec<TopicSpec>,
    /// SHA-256 over the paths and contents of the files, in hexadecimal.
    pub digest: String,
    /// How many files were read.
    pub files: usize,
    /// Their paths, in the order read.
    pub paths: Vec<PathBuf>,
    /// What each of them says by itself, for the next reading.
    pub known: KnownFiles,
}

/// Policies with `mode: observe`.
#[derive(Clone, Debug, Default)]
pub struct Observing {
    /// `kind: AccessPolicy`.
    pub access: Vec<AccessPolicy>,
    /// `kind: Tenant`, those that have a boundary.
    pub tenants: Vec<Tenant>,
    /// `kind: QuotaPolicy`.
    pub quotas: Vec<QuotaSpec>,
    /// `kind: TopicPolicy`.
    pub topics: Vec<TopicSpec>,
}

impl Guards {
    /// What the files say by themselves, those of the directory beside them included.
    pub fn take_known(&mut self) -> KnownFiles {
        let own = std::mem::take(&mut self.known);
        match &mut self.shadow {
            Some(shadow) => own.and(std::mem::take(&mut shadow.known)),
            None => own,
        }
    }

    /// Adds the policies of one more file.
    fn add(&mut self, file: &Guards) {
        let Guards {
            access,
            tenants,
            quotas,
            schemas,
            observing,
            topics,
            ..
        } = file;
        self.access.extend_from_slice(access);
        self.tenants.extend_from_slice(tenants);
        self.quotas.extend_from_slice(quotas);
        self.schemas.extend_from_slice(schemas);
        self.topics.extend_from_slice(topics);
        let own = &mut self.observing;
        own.access.extend_from_slice(&observing.access);
        own.tenants.extend_from_slice(&observing.tenants);
        own.quotas.extend_from_slice(&observing.quotas);
        own.topics.extend_from_slice(&observing.topics);
    }

    /// The policies in force together with those that only observe; `None`: there are none of
    /// these that decide over access.
    pub fn observed(&self) -> Option<(Vec<AccessPolicy>, Vec<Tenant>)> {
        let Observing {
            access, tenants, ..
        } = &self.observing;
        if access.is_empty() && tenants.is_empty() {
            return None;
        }
        // A set takes the first tenant of a name, here the one with its boundary.
        let tenants = tenants.iter().chain(&self.tenants).cloned().collect();
        Some(([&self.access[..], access].concat(), tenants))
    }
}

const API_VERSION: &str = "kordon/v1";

/// Reads every policy file below `dir`. What could be read is returned even if there are errors;
/// use it only if `problems` has none.
pub fn load(dir: &Path, problems: &mut Problems) -> Guards {
    load_again(dir, &KnownFiles::default(), problems)
}

fn load_again(dir: &Path, known: &KnownFiles, problems: &mut Problems) -> Guards {
    let mut paths = policy_files(dir, problems);
    paths.sort();
    load_known(dir, &paths, known, problems)
}

/// Reads the policies in force, and the directory that is decided beside them. What `known` says
/// of a file that has not changed since is not found out again.
pub fn load_beside(
    policies: Option<&Path>,
    shadow: Option<&Path>,
    known: &KnownFiles,
    problems: &mut Problems,
) -> Guards {
    let load = |dir, problems: &mut Problems| load_again(dir, known, problems);
    let mut guards = policies.map_or_else(Guards::default, |dir| load(dir, problems));
    guards.shadow = shadow.map(|dir| Box::new(load_shadow(dir, problems)));
    guards
}

/// Reads the directory of `authorization.shadow`; one without a file is an error.
pub fn load_shadow(dir: &Path, problems: &mut Problems) -> Guards {
    let shadow = load(dir, problems);
    if shadow.files == 0 && !problems.has_errors() {
        let shown = dir.display();
        problems.error_without_place(format!("`{shown}`: no policy files (`*.yaml`)"));
    }
    shadow
}

fn policy_files(dir: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    walk(dir, 0, false, &mut paths, problems);
    paths
}

/// Every file of policy tests below a directory, in the order of its path.
pub fn test_files(dir: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    walk(dir, 0, true, &mut paths, problems);
    paths.sort();
    paths
}

/// Reads directories and single files as one set.
pub fn load_paths(paths: &[PathBuf], problems: &mut Problems) -> Guards {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.append(&mut policy_files(path, problems));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    load_files(Path::new(""), &files, problems)
}

/// Reads single policy files. Names in the digest are relative to `base`.
pub fn load_files(base: &Path, paths: &[PathBuf], problems: &mut Problems) -> Guards {
    load_known(base, paths, &KnownFiles::default(), problems)
}

fn load_known(
    base: &Path,
    paths: &[PathBuf],
    known: &KnownFiles,
    problems: &mut Problems,
) -> Guards {
    let mut loader = Loader::default();
    for path in paths {
        if let Some((_, text)) = file::named(path, problems) {
            loader.add(base, path, &text, known, problems);
        }
    }
    loader.finish()
}

/// The same of texts that have been read already, as one set.
pub fn load_texts(texts: &[(PathBuf, String)], problems: &mut Problems) -> Guards {
    let mut loader = Loader::default();
    for (path, text) in texts {
        let known = KnownFiles::default();
        loader.add(Path::new(""), path, text, &known, problems);
    }
    loader.finish()
}

#[derive(Default)]
struct Loader {
    guards: Guards,
    /// Where the policies of each kind and name stand.
    seen: HashMap<(&'static str, String), Place>,
    digest: Sha256,
}

impl Loader {
    fn add(
        &mut self,
        base: &Path,
        path: &Path,
        text: &str,
        known: &KnownFiles,
        problems: &mut Problems,
    ) {
        let name: Arc<str> = path.to_string_lossy().into();
        if name.ends_with(TEST_SUFFIX) {
            problems
                .error_without_place(format!("`{name}`: tests of policies, and no policies"))
                .help("leave it out, or name the directory: `kordon test` reads the tests");
            return;
        }
        let relative = path.strip_prefix(base).unwrap_or(path).to_string_lossy();
        let file = known.file(path, &name, text);
        self.digest.update(relative.len().to_le_bytes());
        self.digest.update(relative.as_bytes());
        self.digest.update(file.digest);
        problems.list.extend_from_slice(&file.problems);
        for (kind, name, place) in &file.names {
            match self.seen.entry((kind, name.clone())) {
                Entry::Occupied(first) => {
                    problems
                        .error(place, format!("a second {kind} with the name `{name}`"))
                        .help(format!("the first one is at {}", first.get()));
                }
                Entry::Vacant(first) => drop(first.insert(place.clone())),
            }
        }
        self.guards.files += 1;
        self.guards.paths.push(path.to_owned());
        self.guards.add(&file.guards);
        self.guards.known.keep(path, file);
    }

    fn finish(mut self) -> Guards {
        let hex = self.digest.finalize();
        self.guards.digest = hex.iter().map(|b| format!("{b:02x}")).collect();
        self.guards
    }
}

/// Policy files, or files of tests; what is wrong with a directory is said with the former.
fn walk(dir: &Path, depth: usize, tests: bool, paths: &mut Vec<PathBuf>, problems: &mut Problems) {
    let shown = dir.display();
    if depth > DIRECTORY_DEPTH_MAX {
        let message = format!("`{shown}`: nested deeper than {DIRECTORY_DEPTH_MAX} directories");
        problems.error_without_place(message);
        return;
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            problems.error_without_place(format!("`{shown}`: {}", file::reason(&e)));
            return;
        }
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(e) => {
                problems.error_without_place(format!("`{shown}`: {}", file::reason(&e)));
                continue;
            }
        };
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        let is_yaml = name.ends_with(".yaml");
        let found = match std::fs::metadata(&path) {
            Ok(found) => found,
            // What a link leads to may be a whole directory, which would be left out silently. Any
            // other file that is gone by now was none of ours, such as an editor's.
            Err(e) if is_yaml || path.is_symlink() => {
                let message = format!("`{}`: {}", path.display(), file::reason(&e));
                problems.error_without_place(message);
                continue;
            }
            Err(_) => continue,
        };
        let lower = name.to_ascii_lowercase();
        let nearly = lower.ends_with(".yml") || (lower.ends_with(".yaml") && !is_yaml);
        if found.is_dir() {
            walk(&path, depth + 1, tests, paths, problems);
        } else if nearly && !tests {
            problems
                .error_without_place(format!("`{}`: policy files end in `.yaml`", path.display()))
                .help("rename it; it would be left out silently otherwise");
        } else if is_yaml && !found.is_file() && !tests {
            // Opening a pipe waits for somebody who writes into it.
            problems.error_without_place(format!("`{}`: not a file", path.display()));
        } else if is_yaml && name.ends_with(TEST_SUFFIX) == tests && found.is_file() {
            if paths.len() == FILES_MAX {
                let message = format!("`{shown}`: more than {FILES_MAX} policy files");
                problems.error_without_place(message);
                return;
            }
            paths.push(path);
        }
    }
}

/// Kinds of policies that the product knows.
const KINDS: [&str; 5] = [
    "AccessPolicy",
    "QuotaPolicy",
    "SchemaPolicy",
    "Tenant",
    "TopicPolicy",
];

fn read(
    document: &Node,
    names: &mut Vec<(&'static str, String, Place)>,
    guards: &mut Guards,
    problems: &mut Problems,
) {
    if let Value::Mapping(entries) = &document.value
        && let Some(tests) = entries.iter().find(|e| e.key == "tests")
        && !entries.iter().any(|e| e.key == "kind")
    {
        problems
            .error(&tests.place, "tests of policies, and no policy")
            .help(format!("files of tests are called `NAME{TEST_SUFFIX}`"));
        return;
    }
    let Some(mut fields) = Fields::of(document, problems) else {
        return;
    };
    let version = fields.require("apiVersion", problems);
    let kind = fields.require("kind", problems);
    let metadata = fields.require("metadata", problems);
    let spec = fields.require("spec", problems);
    if let Some(version) = version {
        version.choice(&[(API_VERSION, Some(()))], problems);
    }
    fields.finish(problems);
    let name = metadata.and_then(|m| metadata_name(m, problems));
    let Some(kind_node) = kind else { return };
    let Some(text) = kind_node.text(problems) else {
        return;
    };
    let Some(kind) = KINDS.into_iter().find(|k| *k == text) else {
        let problem = problems.error(&kind_node.place, format!("unknown kind `{text}`"));
        problem.help(match did_you_mean(text, KINDS.into_iter()) {
            _ if text == "KafkaUser" => "`kordon import strimzi` makes policies of it".to_owned(),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", KINDS.join(", ")),
        });
        return;
    };
    names.extend(
        name.iter()
            .map(|(name, place)| (kind, name.clone(), place.clone())),
    );
    let name = name.map(|(name, _)| name).unwrap_or_default();
    let Some(spec) = spec else { return };
    let observed = Mode::of(spec) == Mode::Observe;
    let Observing {
        access,
        tenants,
        quotas,
        topics,
    } = &mut guards.observing;
    match kind {
        "AccessPolicy" => {
            let list = if observed { access } else { &mut guards.access };
            list.extend(parse::access_policy(&name, spec, problems));
        }
        "Tenant" => {
            let tenant = tenant::tenant(&name, spec, problems);
            // Who belongs to it is no question of effect; its boundary is.
            guards.tenants.extend(tenant.clone().map(|tenant| Tenant {
                boundary: tenant.boundary.filter(|_| !observed),
                ..tenant
            }));
            tenants.extend(tenant.filter(|tenant| observed && tenant.boundary.is_some()));
        }
        "QuotaPolicy" => {
            let list = if observed { quotas } else { &mut guards.quotas };
            list.extend(quota_policy::quota(&name, spec, problems));
        }
        "TopicPolicy" => {
            let list = if observed { topics } else { &mut guards.topics };
            list.extend(topic_rules::parse::topic_policy(&name, spec, problems));
        }
        _ => guards
            .schemas
            .extend(schema_policy::schema(&name, spec, problems)),
    }
}

fn metadata_name(metadata: &Node, problems: &mut Problems) -> Option<(String, Place)> {
    let mut fields = Fields::of(metadata, problems)?;
    let name = fields.require("name", problems);
    for key in ["labels", "annotations"] {
        // Kubernetes tools write them; they mean nothing here.
        if let Some(node) = fields.take(key)
            && !node.is_mapping()
        {
            node.expected("a mapping", problems);
        }
    }
    fields.finish(problems);
    let name = name?;
    Some((name.name(problems)?.to_owned(), name.place.clone()))
}
