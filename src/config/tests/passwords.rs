//! `sasl.plain` and SCRAM as people write them, and their users files.

use std::num::NonZeroU32;

use super::*;
use crate::identity::scram::{Credential, Hash};

const TLS: &str = "tls: {cert: server.pem, key: server.key}\n  ";

fn credential(hash: Hash) -> String {
    let iterations = NonZeroU32::new(4096).unwrap();
    Credential::of_password(hash, "hunter2", b"salt", iterations).text()
}

fn entry(name: &str, rest: &str) -> String {
    let credential = credential(Hash::Sha512);
    format!("- {{name: {name}, credential: \"{credential}\"{rest}}}\n")
}

fn listener(rest: &str) -> String {
    small(
        "identity: {static: \"User:orders-service\", tenant: shop}",
        rest,
    )
}

/// What is said about a listener, with this users file.
fn told(rest: &str, users: &str) -> Vec<String> {
    let dir = directory();
    fs::write(dir.path().join("users.yaml"), users).unwrap();
    let (config, _, problems) = load(&dir, &listener(rest));
    assert_eq!(config.is_none(), problems.has_errors());
    let shown = shown(&problems);
    let all = format!("{shown:?} {config:?}");
    assert!(!all.contains("hunter2") && !all.contains("c2FsdA"), "{all}");
    shown
}

#[test]
fn several_mechanisms_share_a_users_file() {
    let dir = directory();
    let both = [Hash::Sha256, Hash::Sha512].map(credential);
    let users = format!("users: [{{name: a, credential: {both:?}}}]\n");
    fs::write(dir.path().join("users.yaml"), users).unwrap();
    let text = listener(&format!(
        "{TLS}sasl:\n    plain: {{users: users.yaml, tenant: shop, maxSession: 1h}}\n    \
         scramSha256: {{users: users.yaml}}\n    scramSha512: {{users: users.yaml}}"
    ));
    let (config, _, problems) = load(&dir, &text);
    let config = config.unwrap_or_else(|| panic!("{:?}", shown(&problems)));
    let IdentitySettings::Sasl(sasl) = &config.listeners[0].identity else {
        panic!()
    };
    let plain = sasl.plain.as_ref().unwrap();
    assert_eq!(plain.tenant, "shop");
    assert_eq!(plain.session_max, Some(Duration::from_secs(3600)));
    assert!(sasl.oauthbearer.is_empty());
    assert!(sasl.scram_sha256.is_some() && sasl.scram_sha512.is_some());
}

#[test]
fn passwords_do_not_cross_a_network_in_clear() {
    let users = format!("users:\n{}", entry("a", ""));
    let plain = "sasl: {plain: {users: users.yaml}}";
    assert_eq!(told(plain, &users), ["7:17 PLAIN refused without TLS"]);
    assert_eq!(told(&format!("{TLS}{plain}"), &users), [""; 0]);
    let scram = "sasl: {scramSha512: {users: users.yaml}}";
    assert_eq!(told(scram, &users), [""; 0]);
    let dir = directory();
    fs::write(dir.path().join("users.yaml"), &users).unwrap();
    let outside = listener(scram).replace("bind: 127.0.0.1", "bind: 192.0.2.1");
    assert_eq!(
        shown(&load(&dir, &outside).2),
        ["7:23 proofs of passwords would cross the network in clear at 192.0.2.1:9092"]
    );
}

#[test]
fn mistakes_around_the_users_file_have_places() {
    let users = format!("users:\n{}", entry("a", ""));
    for (rest, want) in [
        ("sasl: {}", "7:9 `sasl` without a mechanism"),
        ("sasl: {scramSha512: {}}", "7:23 missing key `users`"),
        (
            "sasl: {scramSha512: {users: missing.yaml}}",
            "7:31 no such file `missing.yaml`",
        ),
        (
            "sasl: {scramSha512: {users: users.yaml, maxSession: 0s}}",
            "7:55 expected a session longer than nothing, got `0s`",
        ),
        (
            "sasl: {scramSha512: {users: users.yaml, principalPrefix: \"*\"}}",
            "7:60 `principalPrefix`: name is the wildcard `*`",
        ),
        (
            "sasl: {scramSha512: {users: users.yaml, password: hunter2}}",
            "7:43 unknown key `password`",
        ),
    ] {
        assert_eq!(told(rest, &users), [want], "{rest}");
    }
    assert_eq!(
        told("sasl: {scramSha256: {users: users.yaml}}", &users),
        ["2:3 the user `a` has no credential of SCRAM-SHA-256, which uses this file"]
    );
}

#[test]
fn mistakes_in_the_users_file_have_places() {
    let two = format!("users:\n{}{}", entry("a", ""), entry("a", ""));
    let twice = format!("users: [{{name: a, credential: {:?}}}]\n", {
        [credential(Hash::Sha512), credential(Hash::Sha512)]
    });
    for (users, want) in [
        ("", "`USERS`: expected one document with `users`"),
        (
            "users: []\n",
            "1:8 expected at least one item, got an empty list",
        ),
        (&two, "3:3 the user `a` a second time"),
        (&twice, "1:241 a second credential of `a` for SCRAM-SHA-512"),
        (
            &format!("users:\n{}", entry("\"*\"", "")),
            "2:10 name is the wildcard `*`",
        ),
        (
            &format!("users:\n{}", entry("spiffe://a", "")),
            "2:10 name has the form of a spiffe id",
        ),
        (
            &format!("users:\n{}", entry("\"a\\nb\"", "")),
            "2:10 name holds a control character",
        ),
        (
            "users: [{name: a, password: hunter2}]\n",
            "1:19 a password does not stand in a users file",
        ),
        (
            "users: [{name: a, credential: hunter2}]\n",
            "1:31 the credential of `a`: not `SCRAM-SHA-512$ITERATIONS:SALT$STOREDKEY:SERVERKEY`",
        ),
        (
            "users: [{name: a, credential: {hunter2: x}}]\n",
            "1:31 expected a credential of `a` as a text",
        ),
        ("users: [{name: a}]\n", "1:9 missing key `credential`"),
    ] {
        let found = told("sasl: {scramSha512: {users: users.yaml}}", users);
        let want = match want.strip_prefix("`USERS`") {
            Some(rest) => rest,
            None => want,
        };
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(want), "{users}: {found:?}");
    }
}

#[test]
fn a_users_file_is_a_source_of_names() {
    let dir = directory();
    let users = format!("users:\n{}", entry("a", ""));
    fs::write(dir.path().join("users.yaml"), &users).unwrap();
    fs::write(dir.path().join("other.yaml"), &users).unwrap();
    let token = "oauthbearer: {issuer: i, audience: a, jwks: {file: jwks.json}";
    for (rest, good) in [
        ("{scramSha512: {users: users.yaml}}", true),
        (
            "{scramSha512: {users: users.yaml}, plain: {users: users.yaml}}",
            true,
        ),
        (
            "{scramSha512: {users: users.yaml}, plain: {users: other.yaml}}",
            false,
        ),
        (
            "{scramSha512: {users: users.yaml, principalPrefix: s-}, \
             plain: {users: other.yaml, principalPrefix: p-}}",
            true,
        ),
        (
            &format!("{{scramSha512: {{users: users.yaml}}, {token}}}}}"),
            false,
        ),
        (
            &format!(
                "{{scramSha512: {{users: users.yaml, shared: true}}, {token}, shared: true}}}}"
            ),
            true,
        ),
    ] {
        let (config, _, problems) = load(&dir, &listener(&format!("{TLS}sasl: {rest}")));
        assert_eq!(config.is_some(), good, "{rest} {:?}", shown(&problems));
        let named = shown(&problems)
            .iter()
            .any(|p| p.contains("names from these users could also come from"));
        assert_eq!(named, !good, "{rest}");
    }
}

#[test]
fn a_bad_new_version_of_a_users_file_leaves_the_old_one_in_force() {
    use crate::identity::users::UserTable;
    let dir = directory();
    let path = dir.path().join("users.yaml");
    fs::write(&path, format!("users:\n{}", entry("a", ""))).unwrap();
    let mut problems = Problems::default();
    let users = users::read(&path, &[Hash::Sha512], &mut problems).unwrap();
    let table = UserTable::new(path.clone(), vec![Hash::Sha512], users);
    fs::write(&path, "users: [{name: b, credential: x}]").unwrap();
    assert!(!users::reload(&table, &mut problems));
    assert!(format!("{table:?}").contains("1 users"), "{table:?}");
    fs::write(
        &path,
        format!("users:\n{}{}", entry("a", ""), entry("b", "")),
    )
    .unwrap();
    assert!(users::reload(&table, &mut problems));
    assert!(format!("{table:?}").contains("2 users"), "{table:?}");
}
