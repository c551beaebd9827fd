//! `audit`: the sink, rotation, allowed decisions and the key.

use super::*;
use crate::secret::Secret;
use crate::telemetry::audit::allows::Allows;
use crate::telemetry::audit::{AuditFile, AuditSettings, AuditSink, Rotation};

fn audit(text: &str) -> String {
    format!("{SMALL}audit: {text}\n")
}

fn read(text: &str) -> AuditSettings {
    good(&audit(text)).audit
}

#[test]
fn everything_that_can_be_said_is_read() {
    assert_eq!(read("stdout").sink, AuditSink::Stdout);
    let settings = read("{stdout: {}, allows: counted}");
    assert_eq!(
        (settings.sink, settings.allows),
        (AuditSink::Stdout, Allows::Counted)
    );
    let settings = read(
        "{file: {path: a.jsonl, maxBytes: 100MiB, keep: 3}, allows: {sample: 0.01},\n  \
         key: {file: ca.pem}}",
    );
    let AuditSink::File(AuditFile { path, rotation }) = settings.sink else {
        panic!()
    };
    assert!(path.ends_with("a.jsonl"));
    let (max_bytes, keep) = (100 * 1024 * 1024, 3);
    assert_eq!(rotation, Some(Rotation { max_bytes, keep }));
    assert_eq!(settings.allows, Allows::Sample(0.01));
    let Some(Secret::File(key)) = settings.key else {
        panic!()
    };
    assert!(key.ends_with("ca.pem"));

    let AuditSink::File(file) = read("{file: {path: a, maxBytes: 1MiB}}").sink else {
        panic!()
    };
    assert_eq!(file.rotation.unwrap().keep, 10);
    assert_eq!(read("{stdout: {}, allows: all}").allows, Allows::All);
    assert_eq!(read("{stdout: {}, allows: none}").allows, Allows::None);

    let settings = read("{topic: audit.events, allows: all}");
    let topic = AuditSink::Topic("audit.events".to_owned());
    assert_eq!((settings.sink, settings.allows), (topic, Allows::All));
}

#[test]
fn mistakes_say_what_was_expected() {
    for (text, expected) in [
        (
            "{topic: a, stdout: {}}",
            "one of `stdout`, `file` and `topic`",
        ),
        ("{topic: \"a b\"}", "the name of a topic"),
        ("{topic: ..}", "the name of a topic"),
        ("{topic: [a]}", "text"),
        ("{file: {path: a, keep: 3}}", "`keep` without `maxBytes`"),
        ("{file: {path: a, maxBytes: 1KiB}}", "expected a size from"),
        (
            "{file: {path: a, maxBytes: 1MiB, keep: 0}}",
            "a number from 1",
        ),
        ("{file: {path: a, maxByte: 1MiB}}", "maxByte"),
        ("{stdout: {}, allows: some}", "expected `none` or `counted`"),
        ("{stdout: {}, allows: {sample: 0}}", "a share above 0"),
        ("{stdout: {}, allows: {sample: 1.5}}", "a share above 0"),
        ("{stdout: {}, allows: {sample: NaN}}", "a share above 0"),
        ("{stdout: {}, allows: {}}", "sample"),
        ("{stdout: {}, key: secret}", "does not stand in the config"),
        ("{stdout: {}, key: {file: absent}}", "no such file"),
        (
            "{allows: all}",
            "expected one of `stdout`, `file` and `topic`",
        ),
        ("{stdout: {}, file: {path: a}}", "expected one of `stdout`"),
    ] {
        let found = bad(&audit(text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn lines_for_a_topic_need_credentials_of_the_proxys_own() {
    let listener = "  - name: tokens
    bind: 127.0.0.1:19092
    advertise: {host: localhost, ports: 19093-19095}
    sasl: {oauthbearer: {issuer: \"https://i\", jwks: {file: jwks.json}, audience: kafka, \
                    algorithms: [ES256], shared: true}}
";
    let text = |upstream: &str, audit: &str| {
        format!(
            "upstream: {{bootstrap: [\"b:1\"], tls: {{ca: ca.pem}}, {upstream}}}\n\
             listeners:\n{listener}policies: policies/\naudit: {audit}\n"
        )
    };
    let found = bad(&text("sasl: {forward: true}", "{topic: audit.events}"));
    let says = |m: &String| m.contains("`audit.topic` needs credentials of the proxy's own");
    assert!(found.iter().any(says), "{found:#?}");
    good(&text("sasl: {forward: true}", "stdout"));
    let own = "sasl: {plain: {username: kordon, password: {file: ca.pem}}}, \
               identities: [{listeners: [tokens], sasl: {forward: true}}]";
    good(&text(own, "{topic: audit.events}"));
}
