//! How the clients of a listener prove who they are: exactly one of `identity.static`,
//! `identity.mtls` and `sasl`.

use std::net::SocketAddr;
use std::time::Duration;

use super::read::Paths;
use crate::document::{Fields, Node, Value, unsupported};
use crate::identity::rules::MappingRules;
use crate::identity::settings::{CertificateName, IdentitySettings, MtlsSettings, TokenSettings};
use crate::net::settings::{ClientAuth, ServerTls};
use crate::policy::parse;
use crate::policy::rule::PrincipalPattern;
use crate::principal::{Principal, Proof};
use crate::problem::{Place, Problems};

/// Tolerance on a token's times where `clockSkew` is not given.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// The most tolerance that can be asked for; more would make expiry meaningless.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Signature algorithms (RFC 7518, RFC 8037) that can be verified. Keyed hashes are not among
/// them: a public key would become a secret.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

/// Accepted where `algorithms` is not given.
const ALGORITHMS_DEFAULT: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// Accepted where `types` is not given (RFC 7519, RFC 9068).
const TYPES_DEFAULT: [&str; 2] = ["JWT", "at+jwt"];

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
enum Space {
    /// SPIFFE ids, which no token, common name or DNS name may look like.
    Spiffe,
    /// All others.
    Plain,
}

/// Somebody whose word makes names: two of them could mean different people by one name.
pub(super) struct Source {
    /// Equal for listeners that believe the same somebody.
    key: String,
    what: &'static str,
    space: Space,
    shared: bool,
    place: Place,
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
        fields.finish(problems);
        if fixed.is_none() && mtls.is_none() && misspelt {
            return None;
        }
    }
    if let (Some(node), None) = (anonymous, mtls) {
        problems.error(&node.place, "`anonymous` goes with `identity.mtls`");
    }
    if let (Some(Some(tls)), None) = (around.tls, mtls)
        && tls.client_auth == ClientAuth::Requested
    {
        problems
            .error(
                around.listener,
                "`clientAuth: requested` without `identity.mtls`: nothing reads the certificate",
            )
            .help("say `required`, or leave `clientAuth` out");
    }
    let name = tenant.map_or(Some(""), |n| n.name(problems));
    match (fixed, mtls, sasl) {
        (Some(node), None, None) => fixed_identity(node, name?, around, problems),
        (None, Some(node), None) => {
            let anonymous = anonymous.map(|n| (n, named(n, name.unwrap_or_default(), problems)));
            mtls_identity(node, name?, anonymous, around, sources, problems)
        }
        (None, None, Some(node)) => {
            if let Some(tenant) = tenant {
                let message = unsupported("identity.tenant` with `sasl");
                problems
                    .error(&tenant.place, message)
                    .help("`tenantClaim` names the claim that is the tenant");
            }
            sasl_identity(node, around, sources, problems)
        }
        (None, Some(node), Some(_)) => {
            problems.error(&node.place, unsupported("identity.mtls` with `sasl"));
            None
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
    fields.refuse("principalPrefix", problems);
    fields.finish(problems);
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
            let spaces: &[Space] = match (from, rules_node) {
                (None, _) => &[],
                (Some(CertificateName::Spiffe), None) => &[Space::Spiffe],
                (Some(CertificateName::Spiffe), Some(_)) => &[Space::Spiffe, Space::Plain],
                (Some(_), _) => &[Space::Plain],
            };
            let from = from.map_or_else(String::new, |from| from.to_string());
            // Two fields of one certificate are not the same name, nor are they under two rules.
            let rules = rules.as_ref().map(|rules| format!("{rules:?}"));
            let key = format!("certificate {} {from} {rules:?}", ca.display());
            sources.extend(spaces.iter().map(|space| Source {
                key: key.clone(),
                what: "certificates",
                space: *space,
                shared,
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
        anonymous: match anonymous {
            Some((_, principal)) => Some(principal?),
            None => None,
        },
        tenant: tenant.to_owned(),
    }))
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
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<IdentitySettings> {
    let mut fields = Fields::of(node, problems)?;
    let mut refused = false;
    for key in ["plain", "scramSha256", "scramSha512"] {
        refused |= fields.take(key).is_some();
        fields.refuse(key, problems);
    }
    let bearer = if refused {
        fields.take("oauthbearer")
    } else {
        fields.require("oauthbearer", problems)
    };
    fields.finish(problems);
    let bearer = bearer?;
    if let (None, Some(bind)) = (around.tls, around.bind)
        && !bind.ip().is_loopback()
    {
        problems
            .error(
                &bearer.place,
                format!("tokens would cross the network in clear at {bind}"),
            )
            .help("add `tls`, or bind a loopback address");
    }
    let bearer = match &bearer.value {
        Value::List(items) => match &items[..] {
            [one] => one,
            _ => {
                problems.error(&bearer.place, unsupported("oauthbearer: a list of issuers"));
                return None;
            }
        },
        _ => bearer,
    };
    token_settings(bearer, around, sources, problems).map(IdentitySettings::Oauthbearer)
}

fn token_settings(
    node: &Node,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<TokenSettings> {
    let mut fields = Fields::of(node, problems)?;
    let issuer = fields.require("issuer", problems);
    let jwks = fields.require("jwks", problems);
    let audience = fields.require("audience", problems);
    let algorithms = fields.take("algorithms");
    let skew = fields.take("clockSkew");
    let scopes = fields.take("requiredScopes");
    let principal_claim = fields.take("principalClaim");
    let tenant_claim = fields.take("tenantClaim");
    let groups_claim = fields.take("groupsClaim");
    let session = fields.take("maxSession");
    let bound = fields.entry("certificateBound");
    let types = fields.take("types");
    let shared = fields.take("shared");
    for key in ["claims", "introspection", "principalPrefix"] {
        fields.refuse(key, problems);
    }
    fields.finish(problems);

    if let Some(bound) = bound
        && bound.value.boolean(problems) == Some(true)
    {
        problems.error(&bound.place, unsupported("certificateBound: true"));
    }
    let mut name = |n: Option<&Node>| n.and_then(|n| n.name(problems)).map(str::to_owned);
    let issuer = name(issuer);
    let audience = name(audience);
    let tenant_claim = name(tenant_claim);
    let groups_claim = name(groups_claim);
    let principal_claim = match principal_claim {
        Some(node) => name(Some(node)),
        None => Some("sub".to_owned()),
    };
    let jwks_file = jwks.and_then(|n| jwks_file(n, around.paths, problems));
    let algorithms = match algorithms {
        Some(node) => algorithm_list(node, problems),
        None => Some(ALGORITHMS_DEFAULT.map(str::to_owned).to_vec()),
    };
    let types = match types {
        Some(node) => node
            .list_not_empty(problems)
            .and_then(|_| node.names(problems)),
        None => Some(TYPES_DEFAULT.map(str::to_owned).to_vec()),
    };
    let clock_skew = skew.map_or(Some(CLOCK_SKEW), |n| n.duration(problems));
    if let (Some(node), Some(skew)) = (skew, clock_skew)
        && skew > CLOCK_SKEW_MAX
    {
        let most = CLOCK_SKEW_MAX.as_secs();
        node.expected(&format!("at most `{most}s`"), problems);
    }
    let session_max = session.and_then(|n| n.duration(problems));
    if let (Some(node), Some(Duration::ZERO)) = (session, session_max) {
        node.expected("a session longer than nothing", problems);
    }
    let required_scopes = scopes.map_or(Some(Vec::new()), |n| n.names(problems));
    let shared = shared.and_then(|n| n.boolean(problems)).unwrap_or(false);
    let settings = TokenSettings {
        issuer: issuer?,
        jwks_file: jwks_file?,
        audience: audience?,
        algorithms: algorithms?,
        clock_skew: clock_skew?,
        required_scopes: required_scopes?,
        principal_claim: principal_claim?,
        tenant_claim,
        groups_claim,
        session_max,
        types: types?,
        token_bytes_max: around.token_bytes,
    };
    sources.push(Source {
        key: format!(
            "token {} {} {}",
            settings.issuer,
            settings.jwks_file.display(),
            settings.principal_claim
        ),
        what: "tokens",
        space: Space::Plain,
        shared,
        place: node.place.clone(),
    });
    Some(settings)
}

fn jwks_file(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<std::path::PathBuf> {
    let mut fields = Fields::of(node, problems)?;
    let url = fields.entry("url");
    let file = if url.is_some() {
        fields.take("file")
    } else {
        fields.require("file", problems)
    };
    for key in ["cacheFile", "maxStale"] {
        fields.refuse(key, problems);
    }
    fields.finish(problems);
    if let Some(url) = url {
        problems
            .error(&url.place, unsupported("jwks.url"))
            .help("save the key set to a file and say `jwks: {file: jwks.json}`");
    }
    paths.file(file?, problems)
}

fn algorithm_list(node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
    let items = node.list_not_empty(problems)?;
    let words = ALGORITHMS.map(|a| (a, Some(a.to_owned())));
    Some(
        items
            .iter()
            .filter_map(|n| n.choice(&words, problems))
            .collect(),
    )
}

/// Two sources that could mean different people by one name must say that they mean the same.
pub(super) fn check_shared(sources: &[Source], problems: &mut Problems) {
    for source in sources.iter().filter(|s| !s.shared) {
        let mut rivals = sources.iter().filter(|s| s.space == source.space);
        if rivals.any(|s| s.key != source.key) {
            let message = format!(
                "names from these {} could also come from another listener",
                source.what
            );
            problems
                .error(&source.place, message)
                .help("if one name means one person on all of them, say `shared: true` on each");
        }
    }
}
