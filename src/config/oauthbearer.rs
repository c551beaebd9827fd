//! `sasl.oauthbearer`: whose tokens are believed, and what they must fulfil.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::identity::{Source, Space, Surroundings};
use super::read::Paths;
use crate::document::scalar::Literal;
use crate::document::{Fields, Node, Value, unsupported};
use crate::identity::claims::{self, CLAIM_RULES_MAX, ClaimRule, Expected, Pointer};
use crate::identity::issuers::ISSUERS_MAX;
use crate::identity::name;
use crate::identity::settings::TokenSettings;
use crate::problem::Problems;

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

/// Reads one issuer, or a list of them.
pub(super) fn issuers(
    node: &Node,
    around: &Surroundings<'_>,
    sources: &mut Vec<Source>,
    problems: &mut Problems,
) -> Option<Vec<TokenSettings>> {
    let nodes = match &node.value {
        Value::List(_) => node.list_not_empty(problems)?,
        _ => std::slice::from_ref(node),
    };
    if nodes.len() > ISSUERS_MAX {
        let message = format!("{} issuers, at most {ISSUERS_MAX} are allowed", nodes.len());
        problems.error(&node.place, message);
        return None;
    }
    let mut lines: HashMap<String, u32> = HashMap::new();
    let mut read = Vec::new();
    for node in nodes {
        let settings = issuer(node, around, sources, problems);
        if let Some(settings) = &settings
            && let Some(line) = lines.insert(settings.issuer.clone(), node.place.line)
        {
            problems
                .error(
                    &node.place,
                    format!("the issuer `{}` a second time", settings.issuer),
                )
                .help(format!("the first one is on line {line}"));
        }
        read.push(settings);
    }
    read.into_iter().collect()
}

/// Reads what one issuer's tokens must fulfil.
fn issuer(
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
    let rules = fields.take("claims");
    let prefix = fields.take("principalPrefix");
    fields.refuse("introspection", problems);
    fields.finish(problems);

    let bound = bound.map_or(Some(false), |entry| {
        let bound = entry.value.boolean(problems)?;
        let asks = match around.tls {
            None => false,
            Some(None) => true, // the mistake there has been reported
            Some(Some(tls)) => tls.client_ca.is_some(),
        };
        if bound && !asks {
            problems
                .error(
                    &entry.place,
                    "`certificateBound: true` needs `tls.clientCa`",
                )
                .help("say `tls: {…, clientCa: ca.pem, clientAuth: required}`");
        }
        Some(bound)
    });
    let mut text = |n: Option<&Node>| n.and_then(|n| n.name(problems)).map(str::to_owned);
    let issuer = text(issuer);
    let audience = text(audience);
    let tenant_claim = text(tenant_claim);
    let groups_claim = text(groups_claim);
    let principal_claim = match principal_claim {
        Some(node) => text(Some(node)),
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
    let prefix = prefix.map_or(Some(String::new()), |n| principal_prefix(n, problems));
    let rules = rules.map_or(Some(Vec::new()), |n| claim_rules(n, problems));
    let shared = shared.and_then(|n| n.boolean(problems)).unwrap_or(false);
    let settings = TokenSettings {
        issuer: issuer?,
        jwks_file: jwks_file?,
        audience: audience?,
        algorithms: algorithms?,
        clock_skew: clock_skew?,
        required_scopes: required_scopes?,
        claims: rules?,
        principal_claim: principal_claim?,
        principal_prefix: prefix?,
        tenant_claim,
        groups_claim,
        session_max,
        certificate_bound: bound?,
        types: types?,
        token_bytes_max: around.token_bytes,
    };
    sources.push(Source {
        key: format!(
            "token {} {} {} {}",
            settings.issuer,
            settings.jwks_file.display(),
            settings.principal_claim,
            settings.principal_prefix
        ),
        what: "tokens",
        prefix: settings.principal_prefix.clone(),
        space: Space::Plain,
        shared,
        place: node.place.clone(),
    });
    Some(settings)
}

fn jwks_file(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<PathBuf> {
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

/// `claims`: every rule is read, so that all mistakes are reported at once.
fn claim_rules(node: &Node, problems: &mut Problems) -> Option<Vec<ClaimRule>> {
    let items = node.list_not_empty(problems)?;
    if items.len() > CLAIM_RULES_MAX {
        let message = format!(
            "{} rules about claims, at most {CLAIM_RULES_MAX} are allowed",
            items.len()
        );
        problems.error(&node.place, message);
        return None;
    }
    let rules: Vec<_> = items.iter().map(|n| claim_rule(n, problems)).collect();
    rules.into_iter().collect()
}

fn claim_rule(node: &Node, problems: &mut Problems) -> Option<ClaimRule> {
    let mut fields = Fields::of(node, problems)?;
    let pointer = fields.require("pointer", problems);
    let (equals, contains, one_of) = (
        fields.take("equals"),
        fields.take("contains"),
        fields.take("oneOf"),
    );
    let misspelt = ["equals", "contains", "oneOf"]
        .iter()
        .any(|key| fields.misspelt(key));
    fields.finish(problems);
    let pointer = pointer.and_then(|n| claim_pointer(n, problems));
    let expected = match (equals, contains, one_of) {
        (Some(value), None, None) => Expected::Equals(literal(value, problems)?),
        (None, Some(value), None) => Expected::Contains(literal(value, problems)?),
        (None, None, Some(values)) => {
            let values = values.list_not_empty(problems)?;
            let read: Vec<_> = values.iter().map(|n| literal(n, problems)).collect();
            Expected::OneOf(read.into_iter().collect::<Option<_>>()?)
        }
        (None, None, None) if misspelt => return None,
        _ => {
            problems
                .error(
                    &node.place,
                    "expected exactly one of `equals`, `contains` and `oneOf`",
                )
                .help("for example `{pointer: /realm_access/roles, contains: kafka}`");
            return None;
        }
    };
    Some(ClaimRule {
        pointer: pointer?,
        expected,
    })
}

fn claim_pointer(node: &Node, problems: &mut Problems) -> Option<Pointer> {
    let text = node.name(problems)?;
    match Pointer::parse(text) {
        Ok(pointer) => Some(pointer),
        Err(fault) => {
            let shown = node.shown().unwrap_or_default();
            problems
                .error(
                    &node.place,
                    format!("expected a JSON pointer, got `{shown}`: {fault}"),
                )
                .help("for example `/realm_access/roles` (RFC 6901)");
            None
        }
    }
}

fn literal(node: &Node, problems: &mut Problems) -> Option<claims::Literal> {
    Some(match node.literal(problems)? {
        Literal::Text(text) => claims::Literal::Text(text),
        Literal::Number(number) => claims::Literal::Number(number),
        Literal::Boolean(boolean) => claims::Literal::Boolean(boolean),
    })
}
