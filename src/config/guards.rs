//! A directory of policy files to access rules, quotas, schema and topic rules. Every `*.yaml`
//! below it is read, in the order of its path, except `*.test.yaml`; names that begin with a dot
//! are skipped.

mod known;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{file, tenant};
use crate::document::{Fields, Node, did_you_mean};
use crate::policy::mode::Mode;
use crate::policy::parse::{self, rule_ref};
use crate::policy::rule::AccessPolicy;
use crate::policy::tenant::Tenant;
use crate::policy::topic_pattern::topic_pattern;
use crate::problem::{Place, Problems};
use crate::quota::spec::{QuotaEntity, QuotaName, QuotaSpec};
use crate::schema::spec::{Depth, Format, OnViolation, PayloadSpec, SchemaSpec, SubjectName};
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
    guards.shadow = shadow.map(|dir| {
        let shadow = load(dir, problems);
        if shadow.files == 0 && !problems.has_errors() {
            let shown = dir.display();
            problems.error_without_place(format!("`{shown}`: no policy files (`*.yaml`)"));
        }
        Box::new(shadow)
    });
    guards
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
    let mut guards = Guards::default();
    let mut seen: HashMap<(&str, String), Place> = HashMap::new();
    let mut digest = Sha256::new();
    for path in paths {
        let Some((name, text)) = file::named(path, problems) else {
            continue;
        };
        let relative = path.strip_prefix(base).unwrap_or(path).to_string_lossy();
        let file = known.file(path, &name, &text);
        digest.update(relative.len().to_le_bytes());
        digest.update(relative.as_bytes());
        digest.update(file.digest);
        guards.files += 1;
        guards.paths.push(path.clone());
        problems.list.extend_from_slice(&file.problems);
        for (kind, name, place) in &file.names {
            match seen.entry((kind, name.clone())) {
                Entry::Occupied(first) => {
                    problems
                        .error(place, format!("a second {kind} with the name `{name}`"))
                        .help(format!("the first one is at {}", first.get()));
                }
                Entry::Vacant(first) => drop(first.insert(place.clone())),
            }
        }
        guards.add(&file.guards);
        guards.known.keep(path, file);
    }
    let hex = digest.finalize();
    guards.digest = hex.iter().map(|b| format!("{b:02x}")).collect();
    guards
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
        if path.is_dir() {
            walk(&path, depth + 1, tests, paths, problems);
        } else if name.ends_with(".yml") && !tests {
            problems
                .error_without_place(format!("`{}`: policy files end in `.yaml`", path.display()))
                .help("rename it; a `.yml` would be left out silently otherwise");
        } else if name.ends_with(".yaml") && name.ends_with(TEST_SUFFIX) == tests {
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
            list.extend(quota(&name, spec, problems));
        }
        "TopicPolicy" => {
            let list = if observed { topics } else { &mut guards.topics };
            list.extend(topic_rules::parse::topic_policy(&name, spec, problems));
        }
        _ => guards.schemas.extend(schema(&name, spec, problems)),
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

fn quota(name: &str, spec: &Node, problems: &mut Problems) -> Option<QuotaSpec> {
    let mut fields = Fields::of(spec, problems)?;
    Mode::take(&mut fields, problems);
    let entity = fields.require("for", problems);
    if let Some(scope) = fields.take("scope") {
        scope.choice(&[("local", Some(())), ("fleet", None)], problems);
    }
    let limits = fields.require("limits", problems);
    fields.finish(problems);

    let entity = entity.and_then(|node| quota_entity(node, problems));
    let limits_node = limits?;
    let mut fields = Fields::of(limits_node, problems)?;
    let produce = fields.take("produce");
    let mut others = false;
    for key in [
        "fetch",
        "requests",
        "connections",
        "connectionRate",
        "mutations",
    ] {
        others |= fields.take(key).is_some();
        fields.refuse(key, problems);
    }
    fields.finish(problems);
    if produce.is_none() && !others {
        problems.error(&limits_node.place, "a quota without a limit");
    }
    Some(QuotaSpec {
        name: name.to_owned(),
        rule: rule_ref(&limits_node.place),
        entity: entity?,
        produce_bytes_per_second: produce.and_then(|n| n.bytes_per_second(problems)),
    })
}

fn quota_entity(node: &Node, problems: &mut Problems) -> Option<QuotaEntity> {
    let mut fields = Fields::of(node, problems)?;
    let mut name = |key: &'static str, problems: &mut Problems| {
        let text = fields.take(key)?.name(problems)?;
        Some(match text {
            "*" => QuotaName::Default,
            _ => QuotaName::Exact(text.to_owned()),
        })
    };
    let entity = QuotaEntity {
        tenant: name("tenant", problems),
        user: name("user", problems),
        client_id: name("clientId", problems),
    };
    let given: Vec<bool> = ["tenant", "user", "clientId"]
        .map(|key| fields.take(key).is_some())
        .to_vec();
    fields.finish(problems);
    match given[..] {
        [false, false, false] => {
            problems.error(
                &node.place,
                "expected `tenant`, `user` or `clientId`, got none",
            );
        }
        [true, user, client] if user || client => {
            problems.error(
                &node.place,
                "`tenant` goes with neither `user` nor `clientId`",
            );
        }
        _ => {}
    }
    if let Some(QuotaName::Exact(user)) = &entity.user
        && user.starts_with("User:")
    {
        problems
            .error(
                &node.place,
                format!("expected a user's name without its type, got `{user}`"),
            )
            .help("quotas of Kafka know names only, not types");
    }
    Some(entity)
}

fn schema(name: &str, spec: &Node, problems: &mut Problems) -> Option<SchemaSpec> {
    let mut fields = Fields::of(spec, problems)?;
    let mode = Mode::take(&mut fields, problems);
    let topics = fields.require("topics", problems);
    let value = fields.take("value");
    let key = fields.take("key");
    let headers = fields.take("headers").is_some();
    fields.refuse("headers", problems);
    let violation = fields.take("onViolation");
    fields.refuse("onRegistryDown", problems);
    fields.finish(problems);

    let topics = topics
        .and_then(|n| n.list_not_empty(problems))
        .unwrap_or_default();
    let topics = (topics.iter())
        .filter_map(|n| topic_pattern(n, "a schema policy", problems))
        .collect();
    if value.is_none() && key.is_none() && !headers {
        problems.error(&spec.place, "a schema policy without `value` or `key`");
    }
    let reject = OnViolation::Reject;
    let on_violation = violation.map_or(Some(reject), |node| {
        let words = [
            ("reject", Some(reject)),
            ("warn", Some(OnViolation::Warn)),
            ("deadLetter", None),
        ];
        node.choice(&words, problems)
    });
    Some(SchemaSpec {
        name: name.to_owned(),
        rule: rule_ref(&spec.place),
        topics,
        value: value.and_then(|n| payload(n, problems)),
        key: key.and_then(|n| payload(n, problems)),
        on_violation: match (on_violation?, mode) {
            (OnViolation::Reject, Mode::Observe) => OnViolation::Observe,
            (as_said, _) => as_said,
        },
    })
}

fn payload(node: &Node, problems: &mut Problems) -> Option<PayloadSpec> {
    let mut fields = Fields::of(node, problems)?;
    let format = fields.require("format", problems);
    let encoding = fields.take("encoding");
    let subject = fields.take("subject");
    let check = fields.take("check");
    let empty = fields.take("empty");
    if let Some(framing) = fields.take("framing") {
        let words = [("prefix", Some(())), ("header", None), ("either", None)];
        framing.choice(&words, problems);
    }
    fields.refuse("at", problems);
    fields.finish(problems);
    let format = format.and_then(|n| {
        let words = [
            ("avro", Some(Format::Avro)),
            ("protobuf", None),
            ("json", None),
        ];
        n.choice(&words, problems)
    });
    if let Some(encoding) = encoding {
        encoding.choice(&[("confluent", Some(())), ("json", None)], problems);
    }
    let subject = subject.map_or(Some(SubjectName::Topic), |n| subject_name(n, problems));
    let check = check.map_or(Some(Depth::Full), |n| {
        n.choice(
            &[("id", Some(Depth::Id)), ("full", Some(Depth::Full))],
            problems,
        )
    });
    let empty_allowed = empty.map_or(Some(true), |n| {
        n.choice(&[("allow", Some(true)), ("reject", Some(false))], problems)
    });
    Some(PayloadSpec {
        format: format?,
        subject: subject?,
        check: check?,
        empty_allowed: empty_allowed?,
    })
}

fn subject_name(node: &Node, problems: &mut Problems) -> Option<SubjectName> {
    if !node.is_mapping() {
        let words = [
            ("topic", Some(SubjectName::Topic)),
            ("record", Some(SubjectName::Record)),
            ("topicRecord", Some(SubjectName::TopicRecord)),
        ];
        return node.choice(&words, problems);
    }
    let mut fields = Fields::of(node, problems)?;
    fields.refuse("pointer", problems);
    let pointer = fields.take("pointer").is_some();
    let name = if pointer {
        fields.take("name")
    } else {
        fields.require("name", problems)
    };
    fields.finish(problems);
    Some(SubjectName::Fixed(name?.name(problems)?.to_owned()))
}
