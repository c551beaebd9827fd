//! Configurations and policy directories as people write them, and what they are told.

mod audit;
mod certificates;

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::identity::settings::{SaslSettings, TokenSource};
use crate::net::settings::{Advertise, ClientAuth};
use crate::policy::topic_pattern::TopicPattern;
use crate::principal::Proof;
use crate::problem::Severity;
use crate::quota::spec::QuotaName;
use crate::schema::spec::{Depth, OnViolation, SubjectName};
use crate::telemetry::audit::{AuditFile, AuditSink};

mod identities;
mod listener_tenant;
mod oauthbearer;
mod passwords;
mod policies;
mod shadow;
mod tenants;
mod upstream;

const FILES: [&str; 9] = [
    "ca.pem",
    "sidecar.pem",
    "sidecar.key",
    "server.pem",
    "server.key",
    "clients-ca.pem",
    "jwks.json",
    "schemas/a.avsc",
    "policies/access.yaml",
];

const ACCESS: &str = "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: a}\n\
    spec: {principals: [\"User:a\"], rules: [{allow: [Read], topics: [t]}]}\n";

/// A directory with every file a configuration may name.
fn directory() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in FILES {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            if name.starts_with("policies") {
                ACCESS
            } else {
                "x"
            },
        )
        .unwrap();
    }
    dir
}

fn load(dir: &TempDir, text: &str) -> (Option<Config>, Guards, Problems) {
    let path = dir.path().join("kordon.yaml");
    fs::write(&path, text).unwrap();
    let environment = |name: &str| (name == "BROKER").then(|| "kafka-9".to_owned());
    read::load(&path, &environment, true)
}

fn shown(problems: &Problems) -> Vec<String> {
    let line = |p: &crate::problem::Problem| {
        let place = p
            .place
            .as_ref()
            .map(|p| format!("{}:{} ", p.line, p.column));
        let severity = if p.severity == Severity::Warning {
            "warning: "
        } else {
            ""
        };
        format!("{}{severity}{}", place.unwrap_or_default(), p.message)
    };
    problems.list.iter().map(line).collect()
}

fn good(text: &str) -> Config {
    let (config, _, problems) = load(&directory(), text);
    config.unwrap_or_else(|| panic!("{:#?}", shown(&problems)))
}

fn bad(text: &str) -> Vec<String> {
    let (config, _, problems) = load(&directory(), text);
    assert!(config.is_none(), "{text} was accepted");
    shown(&problems)
}

const SMALL: &str = "\
upstream: {bootstrap: [\"kafka:9092\"]}
policies: policies/
listeners:
- name: app
  bind: 127.0.0.1:9092
  advertise: {host: localhost, ports: 19092-19191}
  identity: {static: \"User:orders-service\", tenant: shop}
";

/// The small configuration with something replaced in it.
fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replace(from, to)
}

#[test]
fn the_smallest_configuration_has_the_documented_defaults() {
    let config = good(SMALL);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.frame_bytes, 104_857_600);
    assert_eq!(config.limits.token_bytes, 16_384);
    assert_eq!(config.audit, AuditSettings::default());
    assert_eq!(config.admin, None);
    assert!(config.upstream.tls.is_none());
    assert_eq!(
        config.authorization,
        Authorization::Enforced {
            super_users: vec![]
        }
    );
    let IdentitySettings::Static(principal) = &config.listeners[0].identity else {
        panic!()
    };
    assert_eq!(&*principal.name, "User:orders-service");
    assert_eq!(&*principal.tenant, "shop");
    assert_eq!(principal.proof, Proof::Static);
}

#[test]
fn everything_supported_is_read() {
    let dir = directory();
    let (config, guards, problems) = load(
        &dir,
        r#"
upstream:
  bootstrap: ["${BROKER}.kafka.svc:9093", "[::1]:9093"]
  tls: {ca: ca.pem, cert: sidecar.pem, key: sidecar.key}
listeners:
  - name: app
    bind: 127.0.0.1:9092
    advertise: {host: localhost, ports: 19092-19191}
    identity: {static: "User:orders-service", tenant: shop}
  - name: mesh
    bind: 0.0.0.0:9094
    advertise: {host: "broker-{id}.kordon.example", port: 9094, sni: true}
    tls: {cert: server.pem, key: server.key, clientCa: clients-ca.pem, clientAuth: required}
    identity: {mtls: {from: cn, shared: true}, tenant: mesh}
  - name: tokens
    bind: 127.0.0.1:9095
    advertise: {host: localhost, ports: 19192-19291}
    tls: {cert: server.pem, key: server.key}
    sasl:
      oauthbearer:
        issuer: https://idp.example/realms/prod
        jwks: {file: jwks.json}
        audience: kafka
        algorithms: [RS256, ES256, EdDSA]
        clockSkew: 10s
        requiredScopes: [kafka]
        principalClaim: azp
        tenantClaim: tenant_id
        groupsClaim: groups
        maxSession: 1h
        certificateBound: false
        shared: true
policies: policies/
authorization: {superUsers: ["User:admin"]}
schemas: {directory: schemas/}
admin: {bind: 127.0.0.1:9096}
audit: {file: {path: audit.jsonl}}
limits: {frameBytes: 1MiB, connections: 10, inFlight: 3, tokenBytes: 8KiB}
"#,
    );
    let config = config.unwrap_or_else(|| panic!("{:#?}", shown(&problems)));
    assert!(problems.list.is_empty(), "{problems:?}");
    assert_eq!(config.upstream.bootstrap[0].host, "kafka-9.kafka.svc");
    assert_eq!(config.upstream.bootstrap[1].host, "::1");
    let tls = config.upstream.tls.unwrap();
    assert_eq!(tls.ca, Some(dir.path().join("ca.pem")));
    assert_eq!(tls.identity.unwrap().1, dir.path().join("sidecar.key"));
    let [app, mesh, tokens] = &config.listeners[..] else {
        panic!()
    };
    let Advertise::Ports { ports, .. } = &app.net.advertise else {
        panic!()
    };
    assert_eq!(*ports, 19092..=19191);
    let Advertise::Sni { host, port } = &mesh.net.advertise else {
        panic!()
    };
    assert_eq!((host.as_str(), *port), ("broker-{id}.kordon.example", 9094));
    assert_eq!(
        mesh.net.tls.as_ref().unwrap().client_auth,
        ClientAuth::Required
    );
    let IdentitySettings::Mtls(mtls) = &mesh.identity else {
        panic!()
    };
    assert_eq!(mtls.tenant, "mesh");
    let IdentitySettings::Sasl(SaslSettings {
        oauthbearer: issuers,
        ..
    }) = &tokens.identity
    else {
        panic!()
    };
    let [token] = &issuers[..] else { panic!() };
    assert_eq!(token.clock_skew, Duration::from_secs(10));
    assert_eq!(token.session_max, Some(Duration::from_secs(3600)));
    assert_eq!(token.principal_claim, "azp");
    assert_eq!(token.types, ["JWT", "at+jwt"]);
    assert_eq!(token.token_bytes_max, 8192);
    assert_eq!(
        config.audit.sink,
        AuditSink::File(AuditFile {
            path: dir.path().join("audit.jsonl"),
            rotation: None
        })
    );
    let super_users = vec!["User:admin".to_owned()];
    assert_eq!(
        config.authorization,
        Authorization::Enforced { super_users }
    );
    assert_eq!((guards.files, guards.access.len()), (1, 1));
}

#[test]
fn authorization_off_needs_no_policies() {
    for off in ["off", "false", "\"off\""] {
        let text = small("policies: policies/", &format!("authorization: {off}"));
        assert_eq!(good(&text).authorization, Authorization::Off);
    }
    assert_eq!(
        bad(&small("policies: policies/\n", "")),
        ["1:1 no `policies`, so that every request would be refused"]
    );
    assert_eq!(
        bad(&small("policies:", "authorization: on\npolicies:")),
        ["2:16 expected `off` or a mapping, got `on`"]
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    assert_eq!(
        bad("\
upstream: {bootstrap: kafka:9092, tsl: {}}
listeners:
- name: app
  bind: localhost:9092
  advertise: {host: localhost, ports: 19092}
  identity: {statik: \"User:a\"}
polices: p
limits: {frameBytes: lots}
"),
        [
            "1:23 expected a list, got `kafka:9092`",
            "1:35 unknown key `tsl`",
            "4:9 expected an IP address and port such as `127.0.0.1:9092`, got `localhost:9092`",
            "5:39 expected ports such as `19092-19191`, got the number `19092`",
            "6:14 unknown key `statik`",
            "7:1 unknown key `polices`",
            "8:22 expected a size such as `512KiB` or a number of bytes, got `lots`",
        ]
    );
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let no = |what: &str| format!("`{what}` is not supported by this version");
    let cases = [
        (format!("{SMALL}quotas: {{fleet: {{}}}}\n"), "quotas"),
        (
            format!("{SMALL}schemas: {{registry: {{url: \"http://r\"}}}}\n"),
            "registry",
        ),
    ];
    for (text, what) in cases {
        let found = bad(&text);
        assert!(
            found.iter().any(|m| m.ends_with(&no(what))),
            "{text}\n{found:#?}"
        );
    }
}

#[test]
fn parts_that_do_not_fit_together() {
    let listener = |rest: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            rest,
        )
    };
    let tls = "{cert: server.pem, key: server.key}";
    let fixed = "identity: {static: \"User:a\"}";
    let cases = [
        (listener("tls: null"), "7:8 expected a mapping, got nothing"),
        (
            listener("identity: {tenant: shop}"),
            "7:13 a listener without an identity",
        ),
        (
            SMALL.replace(
                "  identity: {static: \"User:orders-service\", tenant: shop}\n",
                "",
            ),
            "4:3 a listener without an identity",
        ),
        (
            listener(&format!("sasl: {{}}\n  {fixed}")),
            "8:22 expected exactly one of `identity.static`, `identity.mtls` and `sasl`",
        ),
        (
            listener("identity: {mtls: {from: cn}}"),
            "7:20 `identity.mtls` needs `tls`",
        ),
        (
            listener(&format!("identity: {{mtls: {{from: cn}}}}\n  tls: {tls}")),
            "7:20 `identity.mtls` needs `clientAuth: required`",
        ),
        (
            listener(&format!(
                "{fixed}\n  tls: {{cert: server.pem, key: server.key, clientAuth: required}}"
            )),
            "8:56 `clientAuth: required` needs `clientCa`",
        ),
        (
            listener(&format!(
                "{fixed}\n  tls: {{cert: server.pem, key: server.key, clientCa: ca.pem}}"
            )),
            "8:54 `clientCa` has no effect without `clientAuth: required`",
        ),
        (
            small("ports: 19092-19191", "sni: true, port: 9092").replace("localhost", "\"b-{id}\""),
            "6:14 `sni` without `tls`: only TLS carries a server name",
        ),
        (
            small("ports: 19092-19191", "sni: true, port: 9092"),
            "6:21 with `sni` the host needs `{id}` in it",
        ),
        (
            small("localhost", "\"b-{id}\""),
            "6:21 `{id}` in the host needs `sni: true`",
        ),
        (
            small("ports: 19092-19191", "port: 1"),
            "6:14 neither `ports` nor `sni: true`",
        ),
        (
            small("ports: 19092-19191", "ports: 9092-9192"),
            "4:3 ports 9092-9192 of listener `app` overlaps port 9092 of listener `app`",
        ),
        (
            format!("{SMALL}admin: {{bind: 0.0.0.0:19100}}\n"),
            "8:15 port 19100 of admin overlaps ports 19092-19191 of listener `app`",
        ),
        (
            small("kafka:9092\"]", "${NOPE}:9092\"]"),
            "1:24 environment variable `NOPE` is not set",
        ),
        (
            small("policies/", "nope/"),
            "2:11 no such directory `nope/`",
        ),
        (
            small("policies/", "ca.pem"),
            "2:11 no such directory `ca.pem`",
        ),
        (
            small("}\npol", ", tls: {ca: nope.pem}}\npol"),
            "1:49 no such file `nope.pem`",
        ),
        (
            small("}\npol", ", tls: {cert: ca.pem}}\npol"),
            "1:51 `cert` without `key`",
        ),
        (
            small("\"User:orders-service\"", "\"Group:x\""),
            "7:22 expected a principal such as `User:orders`, got `Group:x`",
        ),
        (
            format!("{SMALL}authorization: {{superUsers: [\"User:*\"]}}\n"),
            "8:30 `User:*` would not mean everyone here",
        ),
        (
            format!("{SMALL}authorization: {{superUsers: [admin]}}\n"),
            "8:30 expected a super user such as `User:admin`, got `admin`",
        ),
        (
            format!("{SMALL}audit: {{file: {{path: no/where.jsonl}}}}\n"),
            "8:22 no directory for the file `no/where.jsonl`",
        ),
        (
            format!("{SMALL}---\na: b\n"),
            "9:1 a configuration is one document, got a second one",
        ),
        (String::new(), "1:1 an empty configuration"),
    ];
    for (text, want) in cases {
        let found = bad(&text);
        assert!(
            found.iter().any(|m| m == want),
            "{text}\nwanted {want}\n{found:#?}"
        );
    }
}

#[test]
fn a_static_identity_in_the_open_is_warned_about() {
    let (config, _, problems) = load(
        &directory(),
        &small("bind: 127.0.0.1:9092", "bind: 0.0.0.0:9092"),
    );
    assert!(config.is_some());
    assert_eq!(problems.list[0].severity, Severity::Warning);
}

fn guards(files: &[(&str, &str)]) -> (Guards, Vec<String>) {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut problems = Problems::default();
    let guards = guards::load(dir.path(), &mut problems);
    let dir = dir.path().display().to_string();
    (
        guards,
        shown(&problems)
            .iter()
            .map(|m| m.replace(&dir, "DIR"))
            .collect(),
    )
}

/// A document of that kind.
fn of_kind(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: kordon/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn files_that_cannot_be_read() {
    let (config, problems) = Config::load(Path::new("/nonexistent/kordon.yaml"));
    assert!(config.is_none());
    assert_eq!(
        shown(&problems),
        ["`/nonexistent/kordon.yaml`: no such file or directory"]
    );
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), b"a: \xff").unwrap();
    fs::write(
        dir.path().join("b.yaml"),
        "#".repeat(crate::document::FILE_BYTES_MAX + 1),
    )
    .unwrap();
    let mut problems = Problems::default();
    guards::load(dir.path(), &mut problems);
    assert!(
        problems.list[0]
            .message
            .ends_with("not UTF-8 text, on line 1")
    );
    assert!(
        problems.list[1]
            .message
            .ends_with("longer than 4194304 bytes")
    );
}
