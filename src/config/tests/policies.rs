//! Directories of policies as people write them: what is read, in which order, and what is wrong.

use super::*;

#[test]
fn a_directory_is_read_in_order_without_tests_and_hidden_names() {
    let access = |name: &str| ACCESS.replace("{name: a}", &format!("{{name: {name}}}"));
    let (guards, problems) = guards(&[
        ("b.yaml", &access("b")),
        ("a/z.yaml", &access("a")),
        ("c.test.yaml", "tests: []"),
        (".hidden.yaml", "["),
        ("..data/b.yaml", "["),
        ("notes.txt", "["),
        ("d.yml", &access("d")),
    ]);
    assert_eq!(problems, ["`DIR/d.yml`: policy files end in `.yaml`"]);
    let names: Vec<&str> = guards.access.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((guards.files, guards.digest.len()), (2, 64));
}

#[test]
fn the_digest_follows_contents_and_names_only() {
    let digest = |files: &[(&str, &str)]| guards(files).0.digest;
    let one = digest(&[("a.yaml", ACCESS)]);
    assert_eq!(one, digest(&[("a.yaml", ACCESS), ("a.test.yaml", "x")]));
    assert_ne!(one, digest(&[("b.yaml", ACCESS)]));
    assert_ne!(one, digest(&[("a.yaml", &format!("{ACCESS}\n"))]));
}

#[test]
fn documents_of_every_kind() {
    let (guards, problems) = guards(&[(
        "all.yaml",
        &[
            of_kind(
                "AccessPolicy",
                "x",
                "{principals: [\"User:a\"], rules: [{allow: [Read], topics: [t]}]}",
            ),
            of_kind(
                "QuotaPolicy",
                "x",
                "{for: {tenant: t}, scope: local, limits: {produce: 10MiB/s}}",
            ),
            of_kind(
                "QuotaPolicy",
                "y",
                "{for: {user: \"*\", clientId: c}, limits: {produce: 1/s}}",
            ),
            of_kind(
                "SchemaPolicy",
                "x",
                "{topics: [a, \"b.*\", \"*\"], value: {format: avro, encoding: confluent, subject: \
                 {name: fixed}, check: id, empty: reject}, onViolation: warn}",
            ),
            of_kind("SchemaPolicy", "y", "{topics: [a], key: {format: avro}}"),
        ]
        .join("---\n"),
    )]);
    assert_eq!(problems, [] as [&str; 0]);
    let [tenant, user] = &guards.quotas[..] else {
        panic!()
    };
    assert_eq!(tenant.entity.tenant, Some(QuotaName::Exact("t".to_owned())));
    assert_eq!(tenant.produce_bytes_per_second, Some(10 << 20));
    assert_eq!(tenant.rule.line, 9);
    assert_eq!(user.entity.user, Some(QuotaName::Default));
    let [x, y] = &guards.schemas[..] else {
        panic!()
    };
    assert_eq!(
        x.topics,
        [
            TopicPattern::Literal("a".to_owned()),
            TopicPattern::Prefix("b.".to_owned()),
            TopicPattern::All
        ]
    );
    let value = x.value.as_ref().unwrap();
    assert_eq!(value.subject, SubjectName::Fixed("fixed".to_owned()));
    assert_eq!((value.check, value.empty_allowed), (Depth::Id, false));
    assert_eq!(x.on_violation, OnViolation::Warn);
    let key = y.key.as_ref().unwrap();
    assert_eq!((key.check, key.empty_allowed), (Depth::Full, true));
    assert_eq!(y.on_violation, OnViolation::Reject);
}

#[test]
fn mistakes_in_policies() {
    let quota = |spec: &str| of_kind("QuotaPolicy", "x", spec);
    let schema = |spec: &str| of_kind("SchemaPolicy", "x", spec);
    let no = "is not supported by this version";
    let cases = [
        (
            ACCESS.replace("kordon/v1", "kordon/v2"),
            "1:13 expected `kordon/v1`, got `kordon/v2`".to_owned(),
        ),
        (
            ACCESS.replace("AccessPolicy", "AcessPolicy"),
            "2:7 unknown kind `AcessPolicy`".to_owned(),
        ),
        (
            ACCESS.replace("metadata: {name: a}\n", ""),
            "1:1 missing key `metadata`".to_owned(),
        ),
        (
            ACCESS.replace("kind: AccessPolicy\n", ""),
            "1:1 missing key `kind`".to_owned(),
        ),
        (
            of_kind("Tenant", "t", "{}"),
            "4:7 a tenant without `match` or `boundary`".to_owned(),
        ),
        (
            of_kind("TopicPolicy", "t", "{topics: [a]}"),
            "4:7 a topic policy without `create` or `produce`".to_owned(),
        ),
        (
            quota("{for: {tenant: t}, scope: fleet, limits: {produce: 1/s}}"),
            format!("4:33 `fleet` {no}"),
        ),
        (
            quota("{for: {tenant: t}, limits: {produce: 1/s, fetch: 1/s}}"),
            format!("4:49 `fetch` {no}"),
        ),
        (
            quota("{for: {tenant: t}, limits: {}}"),
            "4:34 a quota without a limit".to_owned(),
        ),
        (
            quota("{for: {}, limits: {produce: 1/s}}"),
            "4:13 expected `tenant`, `user` or `clientId`, got none".to_owned(),
        ),
        (
            quota("{for: {tenant: t, user: u}, limits: {produce: 1/s}}"),
            "4:13 `tenant` goes with neither `user` nor `clientId`".to_owned(),
        ),
        (
            quota("{for: {user: \"User:u\"}, limits: {produce: 1/s}}"),
            "4:13 expected a user's name without its type, got `User:u`".to_owned(),
        ),
        (
            quota("{for: {tenant: t}, limits: {produce: 10}}"),
            "4:44 expected a rate such as `10MiB/s`, got the number `10`".to_owned(),
        ),
        (
            schema("{topics: [a], value: {format: protobuf}}"),
            format!("4:37 `protobuf` {no}"),
        ),
        (
            schema("{topics: [a], value: {format: avro, encoding: json}}"),
            format!("4:53 `json` {no}"),
        ),
        (
            schema("{topics: [a], value: {format: avro, at: /p}}"),
            format!("4:43 `at` {no}"),
        ),
        (
            schema("{topics: [a], value: {format: avro, subject: {pointer: /p}}}"),
            format!("4:53 `pointer` {no}"),
        ),
        (
            schema("{topics: [a], value: {format: avro}, onViolation: deadLetter}"),
            format!("4:57 `deadLetter` {no}"),
        ),
        (
            schema("{topics: [a], value: {format: avro}, onRegistryDown: allow}"),
            format!("4:44 `onRegistryDown` {no}"),
        ),
        (
            schema("{topics: [a], headers: {}}"),
            format!("4:21 `headers` {no}"),
        ),
        (
            schema("{topics: [a]}"),
            "4:7 a schema policy without `value` or `key`".to_owned(),
        ),
        (
            schema("{topics: [\"${tenant}.a\"], value: {format: avro}}"),
            "4:17 variables may not stand in the topics of a schema policy".to_owned(),
        ),
    ];
    for (text, want) in cases {
        let (_, found) = guards(&[("p.yaml", &text)]);
        assert!(found.contains(&want), "{text}\nwanted {want}\n{found:#?}");
    }
}

#[test]
fn a_second_policy_of_the_same_name_names_both_places() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), ACCESS).unwrap();
    fs::write(dir.path().join("b.yaml"), ACCESS).unwrap();
    let mut problems = Problems::default();
    guards::load(dir.path(), &mut problems);
    let [problem] = &problems.list[..] else {
        panic!("{problems:?}")
    };
    assert!(problem.place.as_ref().unwrap().file.ends_with("b.yaml"));
    assert_eq!(problem.message, "a second AccessPolicy with the name `a`");
    assert!(
        problem.help.as_ref().unwrap().ends_with("a.yaml:3:18"),
        "{problem:?}"
    );
}

#[test]
fn a_schema_policy_needs_schemas() {
    let dir = directory();
    let schema = of_kind("SchemaPolicy", "s", "{topics: [a], value: {format: avro}}");
    fs::write(dir.path().join("policies/s.yaml"), schema).unwrap();
    let (config, _, problems) = load(&dir, SMALL);
    assert!(config.is_none());
    assert_eq!(shown(&problems), ["4:1 schema policy `s` without schemas"]);
    let (config, _, _) = load(&dir, &format!("{SMALL}schemas: {{directory: schemas}}\n"));
    assert!(config.is_some());
}
