//! Listeners that know their clients by certificate.

use super::*;

#[test]
fn certificates_are_sources_of_names_too() {
    let names = |listeners: &[&str]| {
        let listeners = listeners.iter().enumerate().map(|(at, identity)| {
            let port = 1000 * (at + 1);
            format!(
                "- name: l{at}\n  bind: 127.0.0.1:{port}\n  advertise: {{host: h, ports: {}-{}}}\n  \
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
    // But a second authority could sign the ids of the first.
    let two = names(&[&spiffe, &spiffe]);
    good(&two);
    let at = two.rfind("ca.pem").unwrap();
    let apart = format!("{}clients-ca.pem{}", &two[..at], &two[at + 6..]);
    assert_eq!(bad(&apart).len(), 2);
}
