//! The top level of `kordon.yaml`, and the checks that need more than one part of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::overlap::{self, Ports};
use super::{
    AuditSettings, Authorization, Config, Guards, Upstream, audit, file, guards, identities,
    limits, listener, shadow, upstream,
};
use crate::document::{self, Fields, Node, Value, substitute};
use crate::policy::parse;
use crate::policy::rule::PrincipalPattern;
use crate::problem::{Place, Problems};

/// Where `${NAME}` comes from.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Resolves the paths of one configuration file, relative to the file.
pub(super) struct Paths {
    base: PathBuf,
}

impl Paths {
    pub(super) fn of(config: &Path) -> Paths {
        let base = config.parent().unwrap_or(Path::new("")).to_owned();
        Paths { base }
    }

    fn resolve(&self, node: &Node, problems: &mut Problems) -> Option<PathBuf> {
        Some(self.base.join(node.name(problems)?))
    }

    /// A file that is there.
    pub(super) fn file(&self, node: &Node, problems: &mut Problems) -> Option<PathBuf> {
        self.there(node, "file", Path::is_file, problems)
    }

    /// A directory that is there.
    pub(super) fn directory(&self, node: &Node, problems: &mut Problems) -> Option<PathBuf> {
        self.there(node, "directory", Path::is_dir, problems)
    }

    fn there(
        &self,
        node: &Node,
        what: &str,
        is: fn(&Path) -> bool,
        problems: &mut Problems,
    ) -> Option<PathBuf> {
        let path = self.resolve(node, problems)?;
        if is(&path) {
            return Some(path);
        }
        let shown = node.shown().unwrap_or_default();
        let problem = problems.error(&node.place, format!("no such {what} `{shown}`"));
        if !self.base.as_os_str().is_empty() {
            problem.help(format!("paths are relative to `{}`", self.base.display()));
        }
        None
    }

    /// A file that will be written: its directory must be there.
    pub(super) fn output(&self, node: &Node, problems: &mut Problems) -> Option<PathBuf> {
        let path = self.resolve(node, problems)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        if parent.is_none_or(Path::is_dir) {
            return Some(path);
        }
        let shown = node.shown().unwrap_or_default();
        problems.error(&node.place, format!("no directory for the file `{shown}`"));
        None
    }
}

/// Reads a configuration file and, if asked, the policies it names.
pub(super) fn load(
    path: &Path,
    environment: Environment<'_>,
    with_guards: bool,
) -> (Option<Config>, Guards, Problems) {
    let mut problems = Problems::default();
    let mut guards = Guards::default();
    let Some((name, text)) = file::named(path, &mut problems) else {
        return (None, guards, problems);
    };
    let documents = document::parse(&name, &text, &mut problems);
    let Some(mut document) = single(documents, &name, &mut problems) else {
        return (None, guards, problems);
    };
    substitute(&mut document, environment, &mut problems);
    let parts = parts(&document, &Paths::of(path), &mut problems);
    if let (true, Some(dir)) = (with_guards, &parts.policies) {
        guards = guards::load_beside(
            Some(dir),
            parts.shadow.as_deref(),
            &guards::KnownFiles::default(),
            &mut problems,
        );
        parts.fit(&guards, &mut problems);
    }
    problems.list.sort_by(|a, b| a.place.cmp(&b.place));
    // A file that is named twice is read twice.
    problems.list.dedup();
    let sound = !problems.has_errors();
    (parts.config().filter(|_| sound), guards, problems)
}

fn single(documents: Vec<Node>, name: &Arc<str>, problems: &mut Problems) -> Option<Node> {
    let mut documents = documents.into_iter();
    let first = documents.next();
    if let Some(second) = documents.next() {
        problems.error(
            &second.place,
            "a configuration is one document, got a second one",
        );
    }
    if first.is_none() && !problems.has_errors() {
        let place = Place {
            file: Arc::clone(name),
            line: 1,
            column: 1,
        };
        problems.error(&place, "an empty configuration");
    }
    first
}

/// What could be read so far, mistakes or not.
#[derive(Default)]
struct Parts {
    upstream: Option<Upstream>,
    listeners: Vec<listener::Read>,
    policies: Option<PathBuf>,
    policies_written: Option<String>,
    authorization: Option<Authorization>,
    shadow: Option<PathBuf>,
    schemas: Option<PathBuf>,
    has_schemas_key: bool,
    admin: Option<std::net::SocketAddr>,
    audit: Option<AuditSettings>,
    limits: super::Limits,
}

impl Parts {
    fn config(self) -> Option<Config> {
        Some(Config {
            upstream: self.upstream?,
            listeners: self.listeners.into_iter().map(|l| l.listener).collect(),
            policies: self.policies,
            policies_written: self.policies_written.unwrap_or_default().into(),
            authorization: self.authorization?,
            shadow: self.shadow,
            schemas: self.schemas,
            admin: self.admin,
            audit: self.audit?,
            limits: self.limits,
        })
    }

    /// What policies ask of the configuration.
    fn fit(&self, guards: &Guards, problems: &mut Problems) {
        if self.has_schemas_key {
            return;
        }
        guards.need_schemas(problems);
    }
}

impl Guards {
    /// Reports every schema policy, for a configuration that says nothing about schemas.
    pub fn need_schemas(&self, problems: &mut Problems) {
        for schema in &self.schemas {
            let place = Place {
                file: schema.rule.file.clone(),
                line: schema.rule.line,
                column: 1,
            };
            let message = format!("schema policy `{}` without schemas", schema.name);
            problems
                .error(&place, message)
                .help("say `schemas: {directory: schemas/}` in the configuration");
        }
    }
}

fn parts(document: &Node, paths: &Paths, problems: &mut Problems) -> Parts {
    let mut parts = Parts::default();
    let Some(mut fields) = Fields::of(document, problems) else {
        return parts;
    };
    let upstream_node = fields.require("upstream", problems);
    let listeners = fields.require("listeners", problems);
    let policies = fields.take("policies");
    let has_policies = policies.is_some() || fields.misspelt("policies");
    let authorization = fields.take("authorization");
    let schemas = fields.take("schemas");
    fields.refuse("quotas", problems);
    let admin = fields.take("admin");
    let audit_node = fields.take("audit");
    let limits_node = fields.take("limits");
    fields.finish(problems);

    parts.limits = limits::limits(limits_node, problems);
    let token_bytes = parts.limits.token_bytes;
    parts.listeners = listeners.map_or(Vec::new(), |n| {
        listener::listeners(n, token_bytes, paths, problems)
    });
    let named = identities::Listeners::of(listeners, &parts.listeners);
    parts.upstream = upstream_node.and_then(|n| upstream::upstream(n, &named, paths, problems));
    identities::check_forward(parts.upstream.as_ref(), &parts.listeners, problems);
    parts.policies_written = policies.and_then(|n| n.shown().map(str::to_owned));
    parts.policies = policies.and_then(|n| paths.directory(n, problems));
    parts.authorization = match authorization {
        Some(node) => {
            let within = parts.policies.as_deref();
            parts.shadow = shadow::directory(node, within, paths, problems);
            read_authorization(node, problems)
        }
        None => Some(Authorization::Enforced {
            super_users: Vec::new(),
        }),
    };
    let enforced = !matches!(parts.authorization, Some(Authorization::Off));
    if !has_policies && enforced {
        let place = authorization.map_or(&document.place, |n| &n.place);
        problems
            .error(
                place,
                "no `policies`, so that every request would be refused",
            )
            .help("name a directory, or say `authorization: off`");
    }
    parts.has_schemas_key = schemas.is_some();
    parts.schemas = schemas.and_then(|n| read_schemas(n, paths, problems));
    let admin = admin.and_then(|n| read_admin(n, problems));
    parts.admin = admin.as_ref().map(|(addr, _)| *addr);
    parts.audit = match audit_node {
        Some(node) => audit::read(node, paths, problems),
        None => Some(AuditSettings::default()),
    };
    let (settings, upstream) = (parts.audit.as_ref(), parts.upstream.as_ref());
    audit::check_forward(audit_node, settings, upstream, problems);

    let mut ports: Vec<Ports> = Vec::new();
    for read in &parts.listeners {
        ports.extend(overlap::of_listener(&read.listener.net, &read.place));
    }
    if let Some((addr, place)) = admin {
        ports.push(Ports::one("admin".to_owned(), addr, place));
    }
    overlap::check(&ports, problems);
    parts
}

fn read_authorization(node: &Node, problems: &mut Problems) -> Option<Authorization> {
    if let Value::Scalar(scalar) = &node.value {
        if node.is_off() {
            return Some(Authorization::Off);
        }
        let message = format!("expected `off` or a mapping, got `{}`", scalar.shown());
        problems.error(&node.place, message);
        return None;
    }
    let mut fields = Fields::of(node, problems)?;
    let super_users = fields.take("superUsers");
    fields.take(shadow::KEY); // read on its own
    fields.finish(problems);
    let items = super_users
        .and_then(|n| n.list(problems))
        .unwrap_or_default();
    let super_users = items
        .iter()
        .filter_map(|n| super_user(n, problems))
        .collect();
    Some(Authorization::Enforced { super_users })
}

fn super_user(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = node.name(problems)?;
    match parse::principal(text) {
        Ok(PrincipalPattern::User(_)) => return Some(text.to_owned()),
        Ok(PrincipalPattern::Everyone) => {
            problems
                .error(&node.place, "`User:*` would not mean everyone here")
                .help("super users are named one by one; `authorization: off` opens all");
        }
        Ok(_) | Err(_) => {
            node.expected("a super user such as `User:admin`", problems);
        }
    }
    None
}

fn read_schemas(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<PathBuf> {
    let mut fields = Fields::of(node, problems)?;
    let directory = fields.take("directory");
    let registry = fields.take("registry").is_some();
    fields.refuse("registry", problems);
    fields.finish(problems);
    if directory.is_none() && !registry {
        problems.error(&node.place, "missing key `directory`");
    }
    paths.directory(directory?, problems)
}

fn read_admin(node: &Node, problems: &mut Problems) -> Option<(std::net::SocketAddr, Place)> {
    let mut fields = Fields::of(node, problems)?;
    let bind = fields.require("bind", problems);
    fields.finish(problems);
    let bind = bind?;
    Some((bind.socket_addr(problems)?, bind.place.clone()))
}
