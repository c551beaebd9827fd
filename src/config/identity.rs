//! How the clients of a listener prove who they are: exactly one of `identity.static`,
//! `identity.mtls` and `sasl`; and to which tenant they belong, whatever they prove.

use std::net::SocketAddr;

use super::jwks::CacheFile;
use super::read::Paths;
use super::{oauthbearer, passwords};
use crate::document::{Fields, Node, Value};
use crate::identity::mechanisms::Mechanism;
use crate::identity::name;
use crate::identity::rules::MappingRules;
use crate::identity::scram::Hash;
use crate::identity::settings::{
    CertificateName, IdentitySettings, MtlsSettings, PasswordSettings, SaslSettings,
};
use crate::net::settings::{ClientAuth, ServerTls};
use crate::policy::parse;
use crate::policy::rule::PrincipalPattern;
use crate::principal::{Principal, Proof};
use crate::problem::{Place, Problems};

/// What surrounds `identity` and `sasl` in a listener.
pub(super) struct Surroundings<'a> {
    pub(super) listener: &'a Place,
    /// `Some(None)`: there, with a mistake in it.
    pub(super) tls: Option<&'a Option<ServerTls>>,
    pub(super) bind: Option<SocketAddr>,
    pub(super) token_bytes: usize,
    pub(super) paths: &'a Paths,
}

/// Names that cannot equal those of the other kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// SPIFFE ids, which no token, common name or DNS name may look like.
    Spiffe,
    /// All others.
    Plain,
}

/// Somebody whose word makes names: two of them could mean different people by one name.
pub(super) struct Source {
    /// Equal for listeners that believe the same somebody.
    pub(super) key: String,
    pub(super) what: &'static str,
    /// What is put before every name that it makes.
    pub(super) prefix: String,
    pub(super) space: Space,
    pub(super) shared: bool,
    /// Where the issuer's keys are kept.
    pub(super) cache: Option<CacheFile>,
    pub(super) place: Place,
}

/// Reads the identity of one listener.
pub(super) fn identity(
    identity: Option<&Node>,
    sasl: Option<&Node>,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<IdentitySettings> {
    let (mut fixed, mut mtls, mut tenant, mut anonymous) = (None, None, None, None);
    if let Some(node) = identity {
        let mut fields = Fields::of(node, problems)?;
        fixed = fields.take("static");
        mtls = fields.take("mtls");
        tenant = fields.take("tenant");
        anonymous = fields.take("anonymous");
        let misspelt = fields.misspelt("static") || fields.misspelt("mtls");
        if matches!(&node.value, Value::Mapping(entries) if entries.is_empty()) {
            problems
                .error(&node.place, "an empty `identity`")
                .help(match sasl {
                    None => "`static` or `mtls` says who clients are; or say `sasl: …` beside it",
                    Some(_) => "beside `sasl` it may hold `tenant` and `mtls`; or leave it out",
                });
            return None;
        }
        fields.finish(problems);
        if fixed.is_none() && mtls.is_none() && misspelt {
            return None;
        }
    }
    if let (Some(node), None) = (anonymous, mtls) {
        problems.error(&node.place, "`anonymous` goes with `identity.mtls`");
    }
    if let (Some(Some(tls)), None, None) = (around.tls, mtls, sasl)
        && tls.client_auth == ClientAuth::Requested
    {
        problems
            .error(
                around.listener,
                "`clientAuth: requested` without `identity.mtls` or `sasl`: nothing reads the \
                 certificate",
            )
            .help("say `required`, or leave `clientAuth` out");
    }
    let name = tenant.map_or(Some(""), |n| tenant_name(n, problems));
    match (fixed, mtls, sasl) {
        (Some(node), None, None) => fixed_identity(node, name?, around, problems),
        (None, Some(node), None) => {
            let anonymous = anonymous.map(|n| (n, named(n, name.unwrap_or_default(), problems)));
            mtls_identity(node, name?, anonymous, around, sources, problems)
        }
        (None, None, Some(node)) => {
            let sasl = sasl_identity(node, false, name, around, sources, problems);
            warn_unused(tenant, node, problems);
            sasl
        }
        (None, Some(node), Some(sasl)) => {
            // The certificate names nobody here: it makes no source of names.
            let mut nobody = Vec::new();
            let anonymous = anonymous.map(|n| (n, named(n, name.unwrap_or_default(), problems)));
            let mtls = mtls_identity(node, "", anonymous, around, &mut nobody, problems);
            let needs_certificate = !matches!(
                &mtls,
                Some(IdentitySettings::Mtls(mtls)) if mtls.anonymous.is_some()
            );
            warn_unused(tenant, sasl, problems);
            let sasl = sasl_identity(sasl, needs_certificate, name, around, sources, problems);
            mtls.and(sasl)
        }
        (None, None, None) => {
            let place = identity.map_or(around.listener, |n| &n.place);
            problems
                .error(place, "a listener without an identity")
                .help("add `identity: {static: …}`, `identity: {mtls: …}` or `sasl: …`");
            None
        }
        (Some(node), _, _) => {
            problems.error(
                &node.place,
                "expected exactly one of `identity.static`, `identity.mtls` and `sasl`",
            );
            None
        }
    }
}

/// A tenant that the operator names.
pub(super) fn tenant_name<'a>(node: &'a Node, problems: &mut Problems) -> Option<&'a str> {
    let tenant = node.name(problems)?;
    if let Err(fault) = name::check(tenant) {
        problems.error(&node.place, format!("`tenant`: {fault}"));
        return None;
    }
    Some(tenant)
}

/// Beside `identity.tenant`, says of each other tenant that nobody gets it.
fn warn_unused(tenant: Option<&Node>, sasl: &Node, problems: &mut Problems) {
    let (Some(tenant), Value::Mapping(mechanisms)) = (tenant, &sasl.value) else {
        return;
    };
    let read = mechanisms
        .iter()
        .flat_map(|entry| match &entry.value.value {
            Value::List(issuers) => issuers.as_slice(),
            _ => std::slice::from_ref(&entry.value),
        });
    for node in read {
        let Value::Mapping(entries) = &node.value else {
            continue;
        };
        let keys = ["tenantClaim", "tenant"];
        for entry in entries.iter().filter(|e| keys.contains(&e.key.as_str())) {
            let message = format!("`{}` has no effect beside `identity.tenant`", entry.key);
            problems.warning(&entry.place, message).help(format!(
                "every client of the listener belongs to the tenant on line {}; leave out one",
                tenant.place.line
            ));
        }
    }
}

fn fixed_identity(
    node: &Node,
    tenant: &str,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<IdentitySettings> {
    let principal = named(node, tenant, problems)?;
    if let Some(bind) = around.bind
        && !bind.ip().is_loopback()
    {
        problems
            .warning(
                &node.place,
                "whoever reaches this listener has this identity, without credentials",
            )
            .help("bind 127.0.0.1, or use `mtls` or `sasl`");
    }
    Some(IdentitySettings::Static(principal))
}

/// A principal that the operator names.
fn named(node: &Node, tenant: &str, problems: &mut Problems) -> Option<Principal> {
    let text = node.name(problems)?;
    let Ok(PrincipalPattern::User(_)) = parse::principal(text) else {
        node.expected("a principal such as `User:orders`", problems);
        return None;
    };
    Some(Principal {
        name: text.into(),
        tenant: tenant.into(),
        groups: [].into(),
        proof: Proof::Static,
        expires_at: None,
    })
}

fn mtls_identity(
    node: &Node,
    tenant: &str,
    anonymous: Option<(&Node, Option<Principal>)>,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<IdentitySettings> {
    let mut fields = Fields::of(node, problems)?;
    let from = fields.require("from", problems);
    let rules_node = fields.take("rules");
    let shared = fields.take("shared");
    let prefix = fields.take("principalPrefix");
    fields.finish(problems);
    let prefix = prefix.map_or(Some(String::new()), |n| principal_prefix(n, problems));
    let from = from.and_then(|n| {
        let words = [
            ("spiffe", Some(CertificateName::Spiffe)),
            ("dns", Some(CertificateName::Dns)),
            ("cn", Some(CertificateName::CommonName)),
            ("dn", Some(CertificateName::DistinguishedName)),
        ];
        n.choice(&words, problems)
    });
    let rules = rules_node.map(|n| mapping_rules(n, problems));
    let shared = shared.and_then(|n| n.boolean(problems)).unwrap_or(false);
    match around.tls {
        None => {
            problems.error(&node.place, "`identity.mtls` needs `tls`");
        }
        Some(Some(tls)) if tls.client_auth == ClientAuth::None => {
            problems
                .error(&node.place, "`identity.mtls` needs `clientAuth: required`")
                .help("say `tls: {…, clientCa: ca.pem, clientAuth: required}`");
        }
        Some(Some(tls)) => {
            let ca = tls.client_ca.clone().unwrap_or_default();
            // A rule may make any name of an id, or leave it as it is.
            // What is wrong there has been reported, and would only be reported again.
            let from = from.filter(|_| prefix.is_some());
            let prefix = prefix.clone().unwrap_or_default();
            let spaces: &[Space] = match (from, rules_node) {
                (None, _) => &[],
                (Some(_), _) if !prefix.is_empty() => &[Space::Plain],
                (Some(CertificateName::Spiffe), None) => &[Space::Spiffe],
                (Some(CertificateName::Spiffe), Some(_)) => &[Space::Spiffe, Space::Plain],
                (Some(_), _) => &[Space::Plain],
            };
            let from = from.map_or_else(String::new, |from| from.to_string());
            // Two fields of one certificate are not the same name, nor are they under two rules.
            let rules = rules.as_ref().map(|rules| format!("{rules:?}"));
            let key = format!("certificate {} {from} {rules:?} {prefix}", ca.display());
            sources.extend(spaces.iter().map(|space| Source {
                key: key.clone(),
                what: "certificates",
                prefix: prefix.clone(),
                space: *space,
                shared,
                cache: None,
                place: node.place.clone(),
            }));
        }
        Some(None) => {}
    }
    if let (Some((node, _)), Some(Some(tls))) = (&anonymous, around.tls)
        && tls.client_auth == ClientAuth::Required
    {
        problems
            .error(
                &node.place,
                "`anonymous` has no effect with `clientAuth: required`",
            )
            .help("say `clientAuth: requested`");
    }
    Some(IdentitySettings::Mtls(MtlsSettings {
        from: from?,
        rules: match rules {
            Some(rules) => Some(rules?),
            None => None,
        },
        prefix: prefix?,
        anonymous: match anonymous {
            Some((_, principal)) => Some(principal?),
            None => None,
        },
        tenant: tenant.to_owned(),
    }))
}

/// A prefix follows the rules of the names that it begins.
pub(super) fn principal_prefix(node: &Node, problems: &mut Problems) -> Option<String> {
    let prefix = node.name(problems)?;
    if let Err(fault) = name::check(prefix) {
        problems
            .error(&node.place, format!("`principalPrefix`: {fault}"))
            .help("for example `partner-`");
        return None;
    }
    Some(prefix.to_owned())
}

/// A list with one rule each, or one text with commas between them, as Kafka has it.
fn mapping_rules(node: &Node, problems: &mut Problems) -> Option<MappingRules> {
    let read = |node: &Node, is_item: bool, problems: &mut Problems| {
        let rules = MappingRules::parse(node.text(problems)?);
        let fault = match rules {
            Ok(rules) if is_item && rules.count() != 1 => "expected one rule in each item".into(),
            Ok(rules) => return Some(rules),
            Err(fault) => fault.to_string(),
        };
        let help = "`RULE:pattern/replacement/`, with `L` or `U` behind it, or `DEFAULT`";
        problems.error(&node.place, fault).help(help);
        None
    };
    if !matches!(node.value, Value::List(_)) {
        return read(node, false, problems);
    }
    let items = node.list_not_empty(problems)?;
    let read: Vec<_> = items
        .iter()
        .map(|item| read(item, true, problems))
        .collect();
    let rules = read.into_iter().collect::<Option<Vec<_>>>()?;
    match MappingRules::joined(rules) {
        Ok(rules) => Some(rules),
        Err(fault) => {
            problems.error(&node.place, fault.to_string());
            None
        }
    }
}

fn sasl_identity(
    node: &Node,
    needs_certificate: bool,
    tenant: Option<&str>,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<IdentitySettings> {
    let mut fields = Fields::of(node, problems)?;
    let bearer = fields.take("oauthbearer");
    let plain = fields.take("plain");
    let sha256 = fields.take("scramSha256");
    let sha512 = fields.take("scramSha512");
    let none = [bearer, plain, sha256, sha512].iter().all(Option::is_none);
    let words = ["oauthbearer", "plain", "scramSha256", "scramSha512"];
    if none && !words.iter().any(|key| fields.misspelt(key)) {
        problems
            .error(fields.place(), "`sasl` without a mechanism")
            .help("`oauthbearer`, `scramSha512`, `scramSha256` or `plain`");
    }
    fields.finish(problems);
    if let (None, Some(bind)) = (around.tls, around.bind)
        && !bind.ip().is_loopback()
    {
        for (node, what) in [
            (bearer, "tokens"),
            (sha256, "proofs of passwords"),
            (sha512, "proofs of passwords"),
        ] {
            let Some(node) = node else { continue };
            problems
                .error(
                    &node.place,
                    format!("{what} would cross the network in clear at {bind}"),
                )
                .help("add `tls`, or bind a loopback address");
        }
    }
    let bearer = bearer.map(|n| oauthbearer::issuers(n, around, sources, problems));
    let mut passwords = |node: Option<&Node>, mechanism| {
        node.map(|n| passwords::passwords(n, mechanism, around, sources, problems))
    };
    let plain = passwords(plain, Mechanism::Plain);
    let sha256 = passwords(sha256, Mechanism::Scram(Hash::Sha256));
    let sha512 = passwords(sha512, Mechanism::Scram(Hash::Sha512));
    // A mechanism with a mistake in it leaves the listener out; one that is not there does not.
    let sound = |one: Option<Option<PasswordSettings>>| match one {
        Some(settings) => settings.map(Some),
        None => Some(None),
    };
    Some(IdentitySettings::Sasl(SaslSettings {
        oauthbearer: match bearer {
            Some(issuers) => issuers?,
            None => Vec::new(),
        },
        plain: sound(plain)?,
        scram_sha256: sound(sha256)?,
        scram_sha512: sound(sha512)?,
        needs_certificate,
        tenant: tenant?.to_owned(),
    }))
    .filter(|_| !none)
}

/// Two sources that could mean different people by one name must say that they mean the same.
pub(super) fn check_shared(sources: &[Source], problems: &mut Problems) {
    for source in sources.iter().filter(|s| !s.shared) {
        let Some(other) = sources.iter().find(|other| source.could_meet(other)) else {
            continue;
        };
        problems
            .error(
                &source.place,
                format!(
                    "names from these {} could also come from the {} on line {}",
                    source.what, other.what, other.place.line
                ),
            )
            .help(
                "give each a `principalPrefix` of its own, or say `shared: true` on each if one \
                 name means one person on all of them",
            );
    }
}

impl Source {
    /// Whether both could make the same name: one prefix begins with the other, the empty one
    /// being the beginning of every name.
    fn could_meet(&self, other: &Source) -> bool {
        let (one, two) = (&self.prefix, &other.prefix);
        self.space == other.space
            && self.key != other.key
            && (one.starts_with(two) || two.starts_with(one))
    }
}
