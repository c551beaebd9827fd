//! `identity.tenant`: it may stand with every source of principals.

use super::*;

/// A listener with this identity and, where there is any, this `sasl`.
fn listener(identity: &str, sasl: &str) -> String {
    let sasl = match sasl {
        "" => String::new(),
        some => format!("\n  sasl: {{{some}}}"),
    };
    small(
        "identity: {static: \"User:orders-service\", tenant: shop}",
        &format!(
            "tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, clientAuth: required}}\n  \
             identity: {identity}{sasl}"
        ),
    )
}

const BEARER: &str = "oauthbearer: {audience: a, jwks: {file: jwks.json}, issuer: i";

#[test]
fn a_tenant_stands_with_every_source_of_principals() {
    let bearer = format!("{BEARER}}}");
    for (identity, sasl) in [
        ("{static: \"User:a\", tenant: bank}", ""),
        ("{mtls: {from: cn}, tenant: bank}", ""),
        ("{tenant: bank}", &*bearer),
        ("{mtls: {from: cn}, tenant: bank}", &bearer),
    ] {
        let dir = directory();
        let (config, _, problems) = load(&dir, &listener(identity, sasl));
        assert!(problems.list.is_empty(), "{:?}", shown(&problems));
        let tenant = match &config.unwrap().listeners[0].identity {
            IdentitySettings::Static(principal) => principal.tenant.to_string(),
            IdentitySettings::Mtls(mtls) => mtls.tenant.clone(),
            IdentitySettings::Sasl(sasl) => {
                assert_eq!(sasl.needs_certificate, identity.contains("mtls"));
                sasl.tenant.clone()
            }
        };
        assert_eq!(tenant, "bank", "{identity} {sasl}");
    }
    let IdentitySettings::Sasl(sasl) = &good(&listener("{mtls: {from: cn}}", &bearer)).listeners[0]
        .identity
        .clone()
    else {
        panic!("sasl")
    };
    assert_eq!(sasl.tenant, "");
}

#[test]
fn another_tenant_beside_it_is_told_that_nobody_gets_it() {
    let two = format!("{BEARER}, tenantClaim: t}}, scramSha512: {{users: u.yaml, tenant: shop}}");
    let dir = directory();
    fs::write(dir.path().join("u.yaml"), "users: []\n").unwrap();
    let (_, _, problems) = load(&dir, &listener("{tenant: bank}", &two));
    let told: Vec<_> = shown(&problems)
        .into_iter()
        .filter(|problem| problem.contains("warning: "))
        .collect();
    assert_eq!(
        told,
        [
            "9:73 warning: `tenantClaim` has no effect beside `identity.tenant`",
            "9:119 warning: `tenant` has no effect beside `identity.tenant`"
        ]
    );
    let list = "oauthbearer: [{audience: a, jwks: {file: jwks.json}, issuer: i, tenantClaim: t}]";
    let (config, _, problems) = load(&dir, &listener("{tenant: bank}", list));
    assert!(config.is_some(), "a warning is no error");
    assert_eq!(
        shown(&problems),
        ["9:74 warning: `tenantClaim` has no effect beside `identity.tenant`"]
    );
    let help = problems.list[0].help.as_deref().unwrap();
    assert!(help.contains("the tenant on line 8"), "{help}");
}

#[test]
fn mistakes_around_it_have_places() {
    let bearer = format!("{BEARER}}}");
    for (identity, sasl, want) in [
        ("{}", "", "8:13 an empty `identity`"),
        ("{}", &*bearer, "8:13 an empty `identity`"),
        ("{tenant: bank}", "", "8:13 a listener without an identity"),
        (
            "{tenant: \"*\"}",
            &bearer,
            "8:22 `tenant`: name is the wildcard `*`",
        ),
        (
            "{tenant: [bank]}",
            &bearer,
            "8:22 expected text, got a list",
        ),
        ("{tenent: bank}", &bearer, "8:14 unknown key `tenent`"),
        (
            "{static: \"User:a\", tenant: bank}",
            &bearer,
            "8:22 expected exactly one of `identity.static`, `identity.mtls` and `sasl`",
        ),
    ] {
        assert_eq!(bad(&listener(identity, sasl)), [want], "{identity} {sasl}");
    }
}
