//! `sasl.oauthbearer` as people write it: issuers, rules about claims, names kept apart.

use super::*;
use crate::secret::Secret;

#[test]
fn rules_about_claims_are_read_and_their_mistakes_are_named() {
    let listener = |rules: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "sasl: {{oauthbearer: {{issuer: i, audience: a, jwks: {{file: jwks.json}},\n    \
                 claims: {rules}}}}}"
            ),
        )
    };
    let config = good(&listener(
        "[{pointer: /a/roles, contains: kafka}, {pointer: /n, equals: -1}, \
         {pointer: /b~1c, oneOf: [\"1\", true]}]",
    ));
    let IdentitySettings::Sasl(SaslSettings {
        oauthbearer: issuers,
        ..
    }) = &config.listeners[0].identity
    else {
        panic!()
    };
    let shown = format!("{:?}", issuers[0].claims);
    assert_eq!(
        shown,
        "[ClaimRule { pointer: /a/roles, expected: Contains(Text(\"kafka\")) }, \
         ClaimRule { pointer: /n, expected: Equals(Number(-1)) }, \
         ClaimRule { pointer: /b~1c, expected: OneOf([Text(\"1\"), Boolean(true)]) }]"
    );
    let both = "8:14 expected exactly one of `equals`, `contains` and `oneOf`";
    for (rules, want) in [
        ("[]", "8:13 expected at least one item, got an empty list"),
        ("[{pointer: /a}]", both),
        ("[{pointer: /a, equals: x, contains: x}]", both),
        ("[{pointer: /a, equal: x}]", "8:28 unknown key `equal`"),
        ("[{equals: x}]", "8:14 missing key `pointer`"),
        (
            "[{pointer: a.b, equals: x}]",
            "8:24 expected a JSON pointer, got `a.b`: a pointer begins with `/`",
        ),
        (
            "[{pointer: /a, equals: 1.5}]",
            "8:36 expected text, a whole number or a boolean, got the number `1.5`",
        ),
        (
            "[{pointer: /a, equals: }]",
            "8:34 expected text, a whole number or a boolean, got nothing",
        ),
        (
            "[{pointer: /a, oneOf: []}]",
            "8:35 expected at least one item, got an empty list",
        ),
        ("[{pointer: /a, oneOf: x}]", "8:35 expected a list, got `x`"),
        (
            "[{pointer: /a, contains: [x]}]",
            "8:38 expected text, a whole number or a boolean, got a list",
        ),
    ] {
        assert_eq!(bad(&listener(rules)), [want], "{rules}");
    }
}

#[test]
fn t32_sources_of_names_are_kept_apart_or_shared_on_purpose() {
    let two = |first: &str, second: &str| {
        let token = |name: &str, port: u16, rest: &str| {
            format!(
                "- name: {name}\n  bind: 127.0.0.1:{port}\n  \
                 advertise: {{host: h, ports: {}-{}}}\n  \
                 sasl: {{oauthbearer: {{audience: a, jwks: {{file: jwks.json}}, {rest}}}}}\n",
                port + 1,
                port + 9
            )
        };
        let head = "upstream: {bootstrap: [\"k:1\"]}\npolicies: policies/\nlisteners:\n";
        format!(
            "{head}{}{}",
            token("a", 1000, first),
            token("b", 2000, second)
        )
    };
    good(&two("issuer: i", "issuer: i"));
    good(&two("issuer: i, shared: true", "issuer: j, shared: true"));
    let apart = bad(&two("issuer: i", "issuer: j, shared: true"));
    assert_eq!(
        apart,
        ["7:23 names from these tokens could also come from the tokens on line 11"]
    );
    assert_eq!(bad(&two("issuer: i", "issuer: j")).len(), 2);
    let prefixed = |first: &str, second: &str| {
        two(
            &format!("issuer: i, principalPrefix: {first}"),
            &format!("issuer: j, principalPrefix: {second}"),
        )
    };
    good(&prefixed("x-", "y-"));
    // A prefix of one alone keeps nothing apart: the other may make any name.
    assert_eq!(
        bad(&two("issuer: i, principalPrefix: x-", "issuer: j")).len(),
        2
    );
    // Nor does one that begins with the other: `x` and `-a`, `x-` and `a`.
    assert_eq!(bad(&prefixed("x", "x-")).len(), 2);
    assert_eq!(bad(&prefixed("x-", "x-")).len(), 2);
    // The same issuer under two prefixes is two sources.
    assert_eq!(
        bad(&two("issuer: i", "issuer: i, principalPrefix: x-")).len(),
        2
    );
    for prefix in ["\"*\"", "\" x\"", "spiffe://x/"] {
        let found = bad(&two(
            &format!("issuer: i, principalPrefix: {prefix}"),
            "issuer: i",
        ));
        assert!(found[0].contains("`principalPrefix`: name"), "{found:?}");
    }
}

#[test]
fn bound_tokens_need_client_certificates() {
    let listener = |tls: &str, bound: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "{tls}sasl: {{oauthbearer: {{issuer: i, audience: a, \
                 jwks: {{file: jwks.json}},\n    \
                 certificateBound: {bound}}}}}"
            ),
        )
    };
    let tls = |rest: &str| format!("tls: {{cert: server.pem, key: server.key{rest}}}\n  ");
    let asks = tls(", clientCa: ca.pem, clientAuth: required");
    let config = good(&listener(&asks, "true"));
    let IdentitySettings::Sasl(SaslSettings {
        oauthbearer: issuers,
        ..
    }) = &config.listeners[0].identity
    else {
        panic!()
    };
    assert!(issuers[0].certificate_bound);
    good(&listener("", "false"));
    let needs = "5 `certificateBound: true` needs `tls.clientCa`";
    assert_eq!(bad(&listener("", "true")), [format!("8:{needs}")]);
    assert_eq!(bad(&listener(&tls(""), "true")), [format!("9:{needs}")]);
}

#[test]
fn one_listener_may_believe_several_issuers() {
    let listener = |issuers: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!("sasl:\n    oauthbearer:\n{issuers}"),
        )
    };
    let one = |name: &str, rest: &str| {
        format!("    - {{issuer: {name}, audience: a, jwks: {{file: jwks.json}}{rest}}}\n")
    };
    let second = one("j", ", principalPrefix: j-").replace("audience: a", "audience: b");
    let config = good(&listener(&(one("i", ", principalPrefix: i-") + &second)));
    let IdentitySettings::Sasl(SaslSettings {
        oauthbearer: issuers,
        ..
    }) = &config.listeners[0].identity
    else {
        panic!()
    };
    let read: Vec<_> = issuers
        .iter()
        .map(|i| (&*i.issuer, &*i.audience, &*i.principal_prefix))
        .collect();
    assert_eq!(read, [("i", "a", "i-"), ("j", "b", "j-")]);
    let apart = bad(&listener(&(one("i", "") + &one("j", ""))));
    assert_eq!(
        apart,
        [
            "9:7 names from these tokens could also come from the tokens on line 10",
            "10:7 names from these tokens could also come from the tokens on line 9",
        ]
    );
    let twice = bad(&listener(&(one("i", "") + &one("i", ""))));
    assert_eq!(twice, ["10:7 the issuer `i` a second time"]);
    let many: String = (0..33)
        .map(|n| one(&format!("i{n}"), ", shared: true"))
        .collect();
    assert_eq!(
        bad(&listener(&many)),
        ["9:7 33 issuers, at most 32 are allowed"]
    );
    assert_eq!(
        bad(&listener("      []\n")),
        ["9:7 expected at least one item, got an empty list"]
    );
}

#[test]
fn tokens_need_tls_off_loopback_and_safe_algorithms() {
    let listener = |rest: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "sasl: {{oauthbearer: {{issuer: i, audience: a, jwks: {{file: jwks.json}}{rest}}}}}"
            ),
        )
    };
    good(&listener(""));
    let open = bad(&listener("").replace("127.0.0.1:9092", "0.0.0.0:9092"));
    assert_eq!(
        open,
        ["7:23 tokens would cross the network in clear at 0.0.0.0:9092"]
    );
    for algorithm in ["HS256", "none", "rs256"] {
        let found = bad(&listener(&format!(", algorithms: [{algorithm}]")));
        assert!(
            found[0].contains(&format!("got `{algorithm}`")),
            "{found:?}"
        );
    }
    assert!(bad(&listener(", algorithms: []"))[0].contains("got an empty list"));
    assert!(bad(&listener(", clockSkew: 1h"))[0].contains("expected at most `300s`, got `1h`"));
    assert!(bad(&listener(", maxSession: 0s"))[0].contains("longer than nothing"));
}

/// A listener whose one issuer says this about where its word comes from, on line 8.
fn source(text: &str) -> String {
    small(
        "identity: {static: \"User:orders-service\", tenant: shop}",
        &format!("sasl: {{oauthbearer: {{issuer: i, audience: a,\n    {text}}}}}"),
    )
}

fn read_source(text: &str) -> TokenSource {
    let config = good(&source(text));
    let IdentitySettings::Sasl(SaslSettings { oauthbearer, .. }) = &config.listeners[0].identity
    else {
        panic!()
    };
    oauthbearer[0].source.clone()
}

#[test]
fn keys_may_come_from_a_url() {
    let TokenSource::KeyUrl(keys) = read_source("jwks: {url: \"https://i/jwks\"}") else {
        panic!()
    };
    assert_eq!(keys.url.to_string(), "https://i/jwks");
    assert_eq!((keys.ca, keys.cache_file), (None, None));
    assert_eq!(keys.stale_max, Duration::from_secs(86_400));
    let all = "jwks: {url: \"https://i\", ca: ca.pem, cacheFile: keys.json, maxStale: 90m}";
    let TokenSource::KeyUrl(keys) = read_source(all) else {
        panic!()
    };
    assert!(keys.ca.unwrap().ends_with("ca.pem"));
    // The file need not be there yet.
    assert!(keys.cache_file.unwrap().ends_with("keys.json"));
    assert_eq!(keys.stale_max, Duration::from_secs(5_400));
    read_source("jwks: {url: \"http://localhost:8080/jwks\"}");
}

#[test]
fn an_issuer_may_be_asked_about_tokens() {
    let least = "introspection: {url: \"https://i/ask\", clientId: me, \
        clientSecret: {file: sidecar.key}}";
    let TokenSource::Introspection(asking) = read_source(least) else {
        panic!()
    };
    assert_eq!(asking.url.to_string(), "https://i/ask");
    assert_eq!((&*asking.client_id, asking.ca), ("me", None));
    assert!(matches!(asking.client_secret, Secret::File(path) if path.ends_with("sidecar.key")));
    assert_eq!(asking.cache_for, Duration::from_secs(60));
    let more = least.replace("clientId", "ca: ca.pem, cacheFor: 0s, clientId");
    let TokenSource::Introspection(asking) = read_source(&more) else {
        panic!()
    };
    assert!(asking.ca.is_some());
    assert_eq!(asking.cache_for, Duration::ZERO);
}

#[test]
fn mistakes_about_where_an_issuers_word_comes_from_are_named() {
    let one = "expected exactly one of `url` and `file`";
    let url = "url: \"https://i/jwks\"";
    let ask = "url: \"https://i\", clientId: me, clientSecret: {file: sidecar.key}";
    for (text, want) in [
        ("jwks: {}", vec![format!("8:11 {one}")]),
        (
            &*format!("jwks: {{{url}, file: jwks.json}}"),
            vec![format!("8:11 {one}")],
        ),
        (
            "jwks: {file: jwks.json, cacheFile: c, maxStale: 1h, ca: ca.pem}",
            vec![
                "8:29 `cacheFile` goes with `jwks.url`, not with a file".into(),
                "8:43 `maxStale` goes with `jwks.url`, not with a file".into(),
                "8:57 `ca` goes with `jwks.url`, not with a file".into(),
            ],
        ),
        ("jwks: {urls: x}", vec!["8:12 unknown key `urls`".into()]),
        (
            "jwks: {url: \"http://i/jwks\"}",
            vec![
                "8:17 expected an address to ask, got `http://i/jwks`: only `https` is safe \
                 beyond this machine"
                    .into(),
            ],
        ),
        (
            "jwks: {url: \"http://localhost/\", ca: ca.pem}",
            vec!["8:42 `ca` has no effect without TLS: the URL begins with `http://`".into()],
        ),
        (
            &format!("jwks: {{{url}, ca: nope.pem}}"),
            vec!["8:39 no such file `nope.pem`".into()],
        ),
        (
            &format!("jwks: {{{url}, cacheFile: nope/keys.json}}"),
            vec!["8:46 no directory for the file `nope/keys.json`".into()],
        ),
        (
            &format!("jwks: {{{url}, maxStale: 59s}}"),
            vec!["8:45 expected a duration from `60s` to `2592000s`, got `59s`".into()],
        ),
        (
            &format!("jwks: {{{url}}}, introspection: {{{ask}}}"),
            vec!["8:36 expected exactly one of `jwks` and `introspection`".into()],
        ),
        ("jwk: {}", vec!["8:5 unknown key `jwk`".into()]),
        (
            "introspection: {}",
            vec![
                "8:20 missing key `url`".into(),
                "8:20 missing key `clientId`".into(),
                "8:20 missing key `clientSecret`".into(),
            ],
        ),
        (
            &format!("introspection: {{{ask}, cacheFor: 2h}}"),
            vec!["8:98 expected a duration from `0s` to `3600s`, got `2h`".into()],
        ),
        (
            "introspection: {url: \"https://i\", clientId: me, clientSecret: hunter2}",
            vec!["8:67 a secret does not stand in the configuration".into()],
        ),
        (
            &format!("introspection: {{{ask}}}, algorithms: [RS256], types: [JWT]"),
            vec![
                "8:101 `algorithms` goes with `jwks`: no signature is checked here".into(),
                "8:117 `types` goes with `jwks`: no signature is checked here".into(),
            ],
        ),
    ] {
        assert_eq!(bad(&source(text)), want, "{text}");
    }
    let neither = bad(&source("types: [JWT]"));
    assert_eq!(neither, ["7:23 expected one of `jwks` and `introspection`"]);
}

#[test]
fn several_sources_of_one_listener_do_not_get_in_each_others_way() {
    let listener = |first: &str, second: &str| {
        small(
            "identity: {static: \"User:orders-service\", tenant: shop}",
            &format!(
                "sasl:\n    oauthbearer:\n    \
                 - {{issuer: i, audience: a, shared: true, {first}}}\n    \
                 - {{issuer: j, audience: a, shared: true, {second}}}"
            ),
        )
    };
    let ask = "introspection: {url: \"https://i\", clientId: me, clientSecret: {file: ca.pem}}";
    let keys = |cache: &str| format!("jwks: {{url: \"https://i\", cacheFile: {cache}}}");
    good(&listener(ask, &keys("j.json")));
    good(&listener(&keys("i.json"), &keys("j.json")));
    assert_eq!(
        bad(&listener(ask, ask)),
        ["10:7 a second issuer with `introspection`: an opaque token names neither"]
    );
    assert_eq!(
        bad(&listener(&keys("k.json"), &keys("k.json"))),
        ["10:7 the `cacheFile` of this issuer is also that of the one on line 9"]
    );
    // The same issuer from another URL is somebody else until `shared` says otherwise.
    let token = |name: &str, port: u16, url: &str| {
        format!(
            "- name: {name}\n  bind: 127.0.0.1:{port}\n  \
             advertise: {{host: h, ports: {}-{}}}\n  \
             sasl: {{oauthbearer: {{issuer: i, audience: a, jwks: {{url: \"{url}\"}}}}}}\n",
            port + 1,
            port + 9
        )
    };
    let two = |second: &str| {
        let head = "upstream: {bootstrap: [\"k:1\"]}\npolicies: policies/\nlisteners:\n";
        let first = token("a", 1000, "https://i/jwks");
        format!("{head}{first}{}", token("b", 2000, second))
    };
    good(&two("https://i/jwks"));
    assert_eq!(bad(&two("https://i/other")).len(), 2);
}
