//! Policies without effect: those that observe, and the directory of `authorization.shadow`.

use super::*;

fn with_shadow(files: &[(&str, &str)], text: &str) -> (Option<Config>, Guards, Problems) {
    let dir = directory();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    load(&dir, text)
}

fn shadowed(dir: &str) -> String {
    format!("{SMALL}authorization: {{superUsers: [\"User:root\"], shadow: {dir}}}\n")
}

#[test]
fn the_shadow_is_a_set_of_its_own() {
    let next = ACCESS.replace("[Read]", "[Write]");
    let (config, guards, problems) = with_shadow(&[("next/a.yaml", &next)], &shadowed("next/"));
    let config = config.unwrap_or_else(|| panic!("{:#?}", shown(&problems)));
    assert!(config.shadow.unwrap().ends_with("next"));
    let super_users = vec!["User:root".to_owned()];
    assert_eq!(
        config.authorization,
        Authorization::Enforced { super_users }
    );
    let shadow = guards.shadow.unwrap();
    // One name may stand in both.
    assert_eq!((guards.access.len(), shadow.access.len()), (1, 1));
    assert_ne!(guards.digest, shadow.digest);
}

#[test]
fn a_shadow_is_read_as_strictly_as_policies_are() {
    let wrong = ACCESS.replace("rules", "ruels");
    let (config, _, problems) = with_shadow(&[("next/a.yaml", &wrong)], &shadowed("next/"));
    assert!(config.is_none());
    let told = shown(&problems);
    assert!(
        told.iter().any(|p| p.contains("unknown key `ruels`")),
        "{told:#?}"
    );
    for (dir, files, want) in [
        ("gone/", &[][..], "no such directory `gone/`"),
        ("policies", &[], "lie in one another"),
        (".", &[], "lie in one another"),
        (
            "policies/next",
            &[(
                "policies/next/b.yaml",
                &*ACCESS.replace("name: a", "name: b"),
            )],
            "lie in one another",
        ),
        ("next", &[("next/README", "")], "no policy files"),
    ] {
        let (config, _, problems) = with_shadow(files, &shadowed(dir));
        let told = shown(&problems);
        assert!(config.is_none(), "{dir}");
        assert!(told.iter().any(|p| p.contains(want)), "{dir} {told:#?}");
    }
}

#[test]
fn what_observes_stands_apart_from_what_is_in_force() {
    let observe = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: kordon/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n\
             spec: {{mode: observe, {spec}}}\n"
        )
    };
    let text = [
        ACCESS.to_owned(),
        observe(
            "AccessPolicy",
            "b",
            "principals: [\"User:*\"], rules: [{deny: [All], topics: [t]}]",
        ),
        observe(
            "Tenant",
            "shop",
            "match: {any: [{principal: \"User:a\"}]}, boundary: {topics: [t]}",
        ),
        observe("Tenant", "open", "match: {any: [{principal: \"User:b\"}]}"),
        observe(
            "QuotaPolicy",
            "q",
            "for: {tenant: shop}, limits: {produce: 1MiB/s}",
        ),
        observe("SchemaPolicy", "s", "topics: [t], value: {format: avro}"),
        observe("TopicPolicy", "h", "topics: [t], create: {partitions: 6}"),
        observe(
            "SchemaPolicy",
            "w",
            "topics: [t], value: {format: avro}, onViolation: warn",
        ),
    ]
    .concat();
    let files = [("policies/access.yaml", &*text)];
    let schemas = format!("{SMALL}schemas: {{directory: schemas/}}\n");
    let (config, guards, problems) = with_shadow(&files, &schemas);
    assert!(config.is_some(), "{:#?}", shown(&problems));

    assert_eq!((guards.access.len(), guards.quotas.len()), (1, 0));
    assert_eq!(guards.observing.quotas.len(), 1);
    assert_eq!((guards.topics.len(), guards.observing.topics.len()), (0, 1));
    let bounds: Vec<_> = { guards.tenants.iter() }
        .map(|t| (&*t.name, t.matches.len(), t.boundary.is_some()))
        .collect();
    assert_eq!(bounds, [("shop", 1, false), ("open", 1, false)]);
    let kinds: Vec<_> = guards.schemas.iter().map(|s| s.on_violation).collect();
    assert_eq!(kinds, [OnViolation::Observe, OnViolation::Warn]);

    let (access, tenants) = guards.observed().unwrap();
    assert_eq!(access.len(), 2);
    let shop = tenants.iter().find(|tenant| tenant.name == "shop");
    assert!(shop.unwrap().boundary.is_some());
}

/// A second set costs every decision twice.
#[test]
fn what_decides_nothing_over_access_makes_no_second_set() {
    let text = format!(
        "{ACCESS}---\napiVersion: kordon/v1\nkind: Tenant\nmetadata: {{name: shop}}\n\
         spec: {{mode: observe, match: {{any: [{{principal: \"User:a\"}}]}}}}\n"
    );
    let (_, guards, _) = with_shadow(&[("policies/access.yaml", &text)], SMALL);
    assert!(guards.observed().is_none() && guards.tenants.len() == 1);
}
