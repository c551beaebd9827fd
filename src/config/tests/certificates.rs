//! Listeners that know their clients by certificate.

use super::*;

#[test]
fn certificates_are_sources_of_names_too() {
    let names = |listeners: &[&str]| {
        let listeners = listeners.iter().enumerate().map(|(at, identity)| {
            let port = 1000 * (at + 1);
            format!(
                "- name: l{at}\n  bind: 127.0.0.1:{port}\n  \
                 advertise: {{host: h, ports: {}-{}}}\n  \
                 tls: {{cert: server.pem, key: server.key, clientCa: CA, clientAuth: required}}\n  \
                 {identity}\n",
                port + 1,
                port + 9
            )
        });
        let head = "upstream: {bootstrap: [\"k:1\"]}\npolicies: policies/\nlisteners:\n";
        format!("{head}{}", listeners.collect::<String>()).replace("CA", "ca.pem")
    };
    let mtls = |rest: &str| format!("identity: {{mtls: {{{rest}}}}}");
    let token = "sasl: {oauthbearer: {audience: a, jwks: {file: jwks.json}, issuer: i}}";
    for from in ["cn", "dns", "dn"] {
        let one = mtls(&format!("from: {from}"));
        good(&names(&[&one, &one]));
        assert_eq!(bad(&names(&[&one, token])).len(), 2, "{from}");
        let shared = mtls(&format!("from: {from}, shared: true"));
        assert_eq!(bad(&names(&[&shared, token])).len(), 1, "{from}");
    }
    // The same authority, but another part of its certificates.
    let (cn, dns) = (mtls("from: cn"), mtls("from: dns"));
    assert_eq!(bad(&names(&[&cn, &dns])).len(), 2);
    // A SPIFFE id is no token's claim and no common name.
    let spiffe = mtls("from: spiffe");
    good(&names(&[&spiffe, token]));
    good(&names(&[&spiffe, &cn]));
    // Unless a rule makes another name of it.
    let mapped = mtls("from: spiffe, rules: [DEFAULT]");
    good(&names(&[&mapped, &mapped]));
    assert_eq!(bad(&names(&[&mapped, token])).len(), 2);
    assert_eq!(bad(&names(&[&mapped, &spiffe])).len(), 2);
    // But a second authority could sign the ids of the first.
    let two = names(&[&spiffe, &spiffe]);
    good(&two);
    let at = two.rfind("ca.pem").unwrap();
    let apart = format!("{}clients-ca.pem{}", &two[..at], &two[at + 6..]);
    assert_eq!(bad(&apart).len(), 2);
}

#[test]
fn beside_sasl_a_certificate_is_asked_for_and_names_nobody() {
    let with = |auth: &str, identity: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, \
                 clientAuth: {auth}}}\n  identity: {{{identity}}}\n  \
                 sasl: {{oauthbearer: {{audience: a, jwks: {{file: jwks.json}}, issuer: i}}}}"
            ),
        )
    };
    let anonymous = "mtls: {from: cn}, anonymous: \"User:ANONYMOUS\"";
    for (auth, identity, asked) in [
        ("required", "mtls: {from: cn}", ClientAuth::Required),
        ("requested", "mtls: {from: cn}", ClientAuth::Required),
        ("requested", anonymous, ClientAuth::Requested),
    ] {
        let config = good(&with(auth, identity));
        let listener = &config.listeners[0];
        assert!(matches!(listener.identity, IdentitySettings::Sasl(_)));
        let tls = listener.net.tls.as_ref().unwrap();
        assert_eq!(tls.client_auth, asked, "{auth} {identity}");
    }
}

#[test]
fn a_prefix_keeps_the_names_of_certificates_apart() {
    let with = |prefix: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, \
                 clientAuth: required}}\n  identity: {{mtls: {{from: cn{prefix}}}}}\n\
                 - name: tokens\n  bind: 127.0.0.1:9999\n  \
                 advertise: {{host: localhost, ports: 29092-29099}}\n  \
                 sasl: {{oauthbearer: {{audience: a, jwks: {{file: jwks.json}}, issuer: i, \
                 principalPrefix: t-}}}}"
            ),
        )
    };
    good(&with(", principalPrefix: c-"));
    assert_eq!(bad(&with("")).len(), 2);
    assert_eq!(bad(&with(", principalPrefix: t-x")).len(), 2);
    let found = bad(&with(", principalPrefix: \"spiffe://x\""));
    assert!(found[0].contains("`principalPrefix`: name"), "{found:?}");
}

#[test]
fn mapping_rules_are_a_list_or_kafkas_own_text() {
    let with = |rules: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, \
                 clientAuth: required}}\n  \
                 identity: {{mtls: {{from: dn, rules: {rules}}}}}"
            ),
        )
    };
    for rules in [
        r#"["RULE:^CN=(.*?),.*$/$1/L", DEFAULT]"#,
        r#""RULE:^CN=(.*?),.*$/$1/L, DEFAULT""#,
        "DEFAULT",
    ] {
        let config = good(&with(rules));
        let IdentitySettings::Mtls(mtls) = &config.listeners[0].identity else {
            panic!("mtls");
        };
        let rules = mtls.rules.as_ref().unwrap();
        assert!(rules.apply("CN=A,O=B").is_some());
    }
    for (rules, fault) in [
        ("[]", "expected at least one item, got an empty list"),
        ("[\"DEFAULT,DEFAULT\"]", "expected one rule in each item"),
        ("\"\"", "expected at least one rule"),
        ("[1]", "expected text, got the number `1`"),
        (
            "[\"RULE:a(?=b)/c/\"]",
            "pattern `a(?=b)` cannot be used: look-around, including look-ahead and look-behind, \
            is not supported",
        ),
    ] {
        let found = bad(&with(rules));
        assert!(found.len() == 1 && found[0].ends_with(fault), "{found:?}");
    }
}

#[test]
fn certificates_are_asked_for_where_something_reads_them() {
    let with = |tls: &str, identity: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!("tls: {{cert: server.pem, key: server.key, {tls}}}\n  {identity}"),
        )
    };
    let requested = "clientCa: ca.pem, clientAuth: requested";
    let required = "clientCa: ca.pem, clientAuth: required";
    let anonymous = "identity: {mtls: {from: cn}, anonymous: \"User:ANONYMOUS\", tenant: t}";
    let config = good(&with(requested, anonymous));
    let IdentitySettings::Mtls(mtls) = &config.listeners[0].identity else {
        panic!("mtls");
    };
    let nobody = mtls.anonymous.as_ref().unwrap();
    assert_eq!((&*nobody.name, &*nobody.tenant), ("User:ANONYMOUS", "t"));
    good(&with(requested, "identity: {mtls: {from: cn}}"));
    let fixed = "identity: {static: \"User:a\"}";
    for (tls, identity, fault) in [
        (
            required,
            anonymous,
            "`anonymous` has no effect with `clientAuth: required`",
        ),
        (
            requested,
            fixed,
            "`clientAuth: requested` without `identity.mtls` or `sasl`: nothing reads the \
             certificate",
        ),
        (
            required,
            "identity: {static: \"User:a\", anonymous: \"User:b\"}",
            "`anonymous` goes with `identity.mtls`",
        ),
        (
            "clientAuth: requested",
            fixed,
            "`clientAuth: requested` needs `clientCa`",
        ),
        (
            "crl: [ca.pem]",
            fixed,
            "`crl` has no effect without `clientAuth: required`",
        ),
        (
            "recheck: true",
            fixed,
            "`recheck` has no effect without `clientAuth: required`",
        ),
        (
            "clientCa: ca.pem, clientAuth: required, crl: []",
            fixed,
            "expected at least one item, got an empty list",
        ),
        (
            "clientCa: ca.pem, clientAuth: required, crl: [missing.pem]",
            fixed,
            "no such file `missing.pem`",
        ),
        (
            "clientCa: ca.pem, clientAuth: required, crl: [ca.pem]",
            fixed,
            "no revocation list in the file",
        ),
    ] {
        let found = bad(&with(tls, identity));
        let said = |m: &String| m.ends_with(fault) && m.starts_with(|c: char| c.is_ascii_digit());
        assert!(found.iter().any(said), "{fault}: {found:?}");
    }
}
