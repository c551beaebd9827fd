//! `upstream.sasl` as people write it.

use super::*;
use crate::identity::scram::Hash;
use crate::issuer::token::ClientProof;
use crate::secret::Secret;
use crate::upstream::sasl::Settings;

const BEARER: &str = "oauthbearer: {tokenEndpoint: \"https://idp/token\", clientId: kordon";

fn with(upstream: &str) -> String {
    let listener = "{name: a, bind: \"127.0.0.1:1\", advertise: {host: h, ports: 2-3}, \
         identity: {static: \"User:a\"}}";
    format!("upstream: {{{upstream}}}\nlisteners: [{listener}]\npolicies: policies\n")
}

/// With TLS, so that nothing crosses the network in clear.
fn secured(sasl: &str) -> String {
    with(&format!(
        "bootstrap: [\"kafka:9093\"], tls: {{}}, sasl: {{{sasl}}}"
    ))
}

fn settings(sasl: &str) -> Settings {
    good(&secured(sasl)).upstream.sasl.unwrap()
}

#[test]
fn each_mechanism_is_read_and_its_secrets_are_not() {
    let Settings::Oauthbearer(token) = settings(&format!(
        "{BEARER}, scope: kafka, audience: k, ca: ca.pem, clientSecret: {{file: ca.pem}}}}"
    )) else {
        panic!("another mechanism");
    };
    assert_eq!(token.endpoint.to_string(), "https://idp/token");
    assert_eq!(
        (token.scope.as_deref(), token.audience.as_deref()),
        (Some("kafka"), Some("k"))
    );
    assert!(matches!(token.proof, ClientProof::Secret(Secret::File(_))));
    let assertion = settings(&format!("{BEARER}, assertion: {{file: ca.pem}}}}"));
    assert!(matches!(
        assertion,
        Settings::Oauthbearer(token) if matches!(token.proof, ClientProof::Assertion(_))
    ));
    for (key, hash) in [("scramSha256", Hash::Sha256), ("scramSha512", Hash::Sha512)] {
        let scram = settings(&format!(
            "{key}: {{username: u, password: {{file: ca.pem}}}}"
        ));
        assert!(matches!(scram, Settings::Scram { hash: h, .. } if h == hash));
    }
    let plain = settings("plain: {username: u, password: {file: ca.pem}}");
    assert!(matches!(plain, Settings::Plain { username, .. } if username == "u"));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let one = "expected exactly one of";
    let account = "{username: u, password: {file: ca.pem}}";
    let cases = [
        ("".to_owned(), one),
        (format!("plain: {account}, scramSha256: {account}"), one),
        (format!("plian: {account}"), "unknown key `plian`"),
        ("forward: false".to_owned(), "`forward` can only be `true`"),
        (
            "plain: {username: u, password: hunter2}".to_owned(),
            "a secret does not stand",
        ),
        (
            "plain: {username: u, password: {file: gone}}".to_owned(),
            "no such file `gone`",
        ),
        (format!("{BEARER}}}"), one),
        (
            format!("{BEARER}, clientSecret: {{env: A}}, assertion: {{file: ca.pem}}}}"),
            one,
        ),
        (
            format!("{BEARER}, privateKey: {{file: ca.pem, algorithm: RS256}}}}"),
            "holds no private key in PEM",
        ),
        (
            format!("{BEARER}, privateKey: {{file: ca.pem, algorithm: HS256}}}}"),
            "`RS256`",
        ),
        (
            "oauthbearer: {tokenEndpoint: \"http://idp/t\", clientId: k, \
             clientSecret: {file: ca.pem}}"
                .to_owned(),
            "only `https` is safe",
        ),
        (
            "forward: true".to_owned(),
            "sends clients' tokens on, but those of listener `a` bring none",
        ),
    ];
    for (sasl, message) in cases {
        let (config, _, problems) = load(&directory(), &secured(&sasl));
        let shown = shown(&problems);
        assert!(config.is_none(), "{sasl}");
        assert!(
            shown.iter().any(|line| line.contains(message)),
            "{sasl}: {shown:#?}"
        );
        assert!(
            !shown.iter().any(|line| line.contains("hunter2")),
            "{shown:#?}"
        );
    }
}

#[test]
fn a_secret_does_not_cross_the_network_in_clear() {
    let plain = "sasl: {plain: {username: u, password: {file: ca.pem}}}";
    let scram = plain.replace("plain", "scramSha512");
    let cases = [
        ("\"kafka:9092\"", plain, Some(false)),
        ("\"localhost:9092\", \"kafka:9092\"", plain, Some(false)),
        (
            "\"localhost:9092\", \"[::1]:9092\", \"127.0.0.2:1\"",
            plain,
            Some(true),
        ),
        ("\"kafka:9092\"", &scram, Some(true)),
    ];
    for (brokers, sasl, is_warning) in cases {
        let text = with(&format!("bootstrap: [{brokers}], {sasl}"));
        let (config, _, problems) = load(&directory(), &text);
        let shown = shown(&problems);
        assert_eq!(shown.len(), 1, "{brokers}: {shown:#?}");
        assert_eq!(Some(config.is_some()), is_warning, "{brokers}: {shown:#?}");
        assert_eq!(
            Some(shown[0].contains("warning: ")),
            is_warning,
            "{shown:#?}"
        );
        assert!(shown[0].contains("in clear"), "{shown:#?}");
    }
}
