//! `upstream.identities` as people write it.

use super::*;
use crate::upstream::identities::{IDENTITIES_MAX, Whom};
use crate::upstream::sasl::Settings;

const PLAIN: &str = "sasl: {plain: {username: u, password: {file: ca.pem}}}";

/// Listeners `mesh`, which is static, and `tokens`, which brings tokens.
fn with(upstream: &str) -> String {
    let bearer = "oauthbearer: {issuer: \"https://idp\", jwks: {file: jwks.json}, audience: k, \
         algorithms: [ES256]}";
    format!(
        "upstream:\n  bootstrap: [\"kafka:9093\"]\n{upstream}listeners:\n  \
         - {{name: mesh, bind: \"127.0.0.1:1\", advertise: {{host: h, ports: 2-3}}, \
         identity: {{static: \"User:a\"}}}}\n  \
         - {{name: tokens, bind: \"127.0.0.1:4\", advertise: {{host: h, ports: 5-6}}, \
         sasl: {{{bearer}}}}}\npolicies: policies\n"
    )
}

fn secured(entries: &str) -> String {
    with(&format!(
        "  tls: {{ca: ca.pem}}\n  identities: [{entries}]\n"
    ))
}

fn mistakes(text: &str) -> Vec<String> {
    let (config, _, problems) = load(&directory(), text);
    assert!(config.is_none(), "{text}");
    let help = |p: &crate::problem::Problem| p.help.clone().unwrap_or_default();
    let helps = problems.list.iter().map(help);
    let lines = shown(&problems).into_iter().zip(helps);
    lines
        .map(|(line, help)| format!("{line} | {help}"))
        .collect()
}

#[test]
fn each_entry_says_whose_connections_and_what_differs() {
    let text = secured(&format!(
        "{{principals: [\"User:a\", \"User:b\"], tls: {{cert: sidecar.pem, key: sidecar.key}}}}, \
         {{listeners: [mesh], {PLAIN}}}, {{listeners: [tokens], sasl: {{forward: true}}}}"
    ));
    let identities = good(&text).upstream.identities;
    let [first, second, third] = &identities[..] else {
        panic!("{identities:?}");
    };
    let names = ["User:a".to_owned(), "User:b".to_owned()];
    assert_eq!(first.whom, Whom::Principals(names.to_vec()));
    let (cert, key) = first.certificate.as_ref().unwrap();
    assert!(cert.ends_with("sidecar.pem") && key.ends_with("sidecar.key"));
    assert!(first.sasl.is_none());
    assert_eq!(second.whom, Whom::Listeners(vec!["mesh".to_owned()]));
    assert!(second.certificate.is_none());
    assert!(matches!(&second.sasl, Some(Settings::Plain { username, .. }) if username == "u"));
    assert_eq!(third.sasl, Some(Settings::Forward));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        ("".to_owned(), "4:15 expected at least one item"),
        (
            format!("{{{PLAIN}}}"),
            "4:16 expected exactly one of `listeners` and `principals`",
        ),
        (
            format!("{{listeners: [mesh], principals: [\"User:a\"], {PLAIN}}}"),
            "4:16 expected exactly one of `listeners` and `principals`",
        ),
        (
            "{listeners: [mesh]}".to_owned(),
            "4:16 neither `tls` nor `sasl`",
        ),
        (
            format!("{{listeners: [mseh], {PLAIN}}}"),
            "4:29 no listener has the name `mseh` | did you mean `mesh`?",
        ),
        (
            format!("{{listeners: [other], {PLAIN}}}"),
            "4:29 no listener has the name `other` | there are `mesh`, `tokens`",
        ),
        (format!("{{listeners: [], {PLAIN}}}"), "4:28 "),
        (
            format!("{{listeners: [mesh], {PLAIN}}},\n    {{listeners: [mesh], {PLAIN}}}"),
            "5:18 `mesh` has an identity already | it is named first on line 4",
        ),
        (
            format!("{{principals: [\"User:a\", \"User:a\"], {PLAIN}}}"),
            "4:40 `User:a` has an identity already | it is named first on line 4",
        ),
        (
            format!("{{principals: [orders], {PLAIN}}}"),
            "4:30 expected a principal such as `User:orders`",
        ),
        (
            format!("{{principals: [\"Group:g\"], {PLAIN}}}"),
            "4:30 expected a principal such as `User:orders`",
        ),
        (
            format!("{{principals: [\"User:*\"], {PLAIN}}}"),
            "4:30 `User:*` would not mean everyone here",
        ),
        (
            "{listeners: [mesh], tls: {cert: sidecar.pem}}".to_owned(),
            "4:41 missing key `key`",
        ),
        (
            "{listeners: [mesh], tls: {ca: ca.pem, cert: sidecar.pem, key: sidecar.key}}"
                .to_owned(),
            "4:46 the authorities are those of `upstream.tls`",
        ),
        (
            "{principals: [\"User:a\"], sasl: {forward: true}}".to_owned(),
            "4:41 `forward` goes with `listeners`",
        ),
        (
            "{listeners: [tokens, mesh], sasl: {forward: true}}".to_owned(),
            "4:37 `forward` sends clients' tokens on, but those of listener `mesh` bring none",
        ),
        (
            format!("{{listeners: [mesh], {}}}", PLAIN.replace("sasl", "sals")),
            "4:36 unknown key `sals` | did you mean `sasl`?",
        ),
    ];
    for (entries, message) in cases {
        let shown = mistakes(&secured(&entries));
        assert_eq!(shown.len(), 1, "{entries}: {shown:#?}");
        assert!(shown[0].starts_with(message), "{entries}: {shown:#?}");
    }
}

#[test]
fn an_entry_is_held_to_tls_as_the_default_is() {
    let entry = format!("  identities: [{{listeners: [mesh], {PLAIN}}}]\n");
    let shown = mistakes(&with(&entry));
    assert!(shown[0].contains("the password would cross"), "{shown:#?}");
    let entry = "  identities: [{listeners: [mesh], tls: {cert: sidecar.pem, key: sidecar.key}}]\n";
    let shown = mistakes(&with(entry));
    assert!(
        shown[0].contains("a client certificate without `upstream.tls`"),
        "{shown:#?}"
    );
}

#[test]
fn listeners_with_credentials_of_their_own_need_no_tokens_to_forward() {
    let text = |entry: &str| {
        with(&format!(
            "  tls: {{ca: ca.pem}}\n  sasl: {{forward: true}}\n{entry}"
        ))
    };
    let missing = "those of listener `mesh` bring none";
    assert!(mistakes(&text(""))[0].contains(missing));
    // A certificate does not stand in for a token that is still to be sent on.
    let shown = mistakes(&text(
        "  identities: [{listeners: [mesh], tls: {cert: sidecar.pem, key: sidecar.key}}]\n",
    ));
    assert!(shown[0].contains(missing), "{shown:#?}");
    for whom in ["listeners: [mesh]", "principals: [\"User:a\"]"] {
        good(&text(&format!("  identities: [{{{whom}, {PLAIN}}}]\n")));
    }
    let other = format!("  identities: [{{principals: [\"User:b\"], {PLAIN}}}]\n");
    assert!(mistakes(&text(&other))[0].contains(missing));
}

#[test]
fn a_listener_with_a_mistake_is_not_missed_as_well() {
    let text = secured(&format!("{{listeners: [mesh], {PLAIN}}}"));
    let shown = mistakes(&text.replace("ports: 2-3", "ports: none"));
    assert_eq!(shown.len(), 1, "{shown:#?}");
    assert!(shown[0].contains("none"), "{shown:#?}");
}

#[test]
fn there_are_so_many_at_most() {
    let entry = |at: usize| format!("{{principals: [\"User:{at}\"], {PLAIN}}}");
    let entries = |count| (0..count).map(entry).collect::<Vec<_>>().join(", ");
    good(&secured(&entries(IDENTITIES_MAX)));
    let shown = mistakes(&secured(&entries(IDENTITIES_MAX + 1)));
    assert!(shown[0].contains("65 identities, at most 64"), "{shown:#?}");
}
