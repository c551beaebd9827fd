//! `kind: Tenant` as people write it.

use super::*;
use crate::policy::model::ResourceKind;
use crate::policy::tenant::{TenantMatch, Text};

fn tenant(spec: &str) -> String {
    of_kind("Tenant", "shop", spec)
}

fn text(stem: &str, is_prefix: bool) -> Text {
    Text {
        stem: stem.to_owned(),
        is_prefix,
    }
}

#[test]
fn a_tenant_as_the_reference_shows_it() {
    let spec = "\n  match: {any: [{claim: {tenant_id: shop, stage: prod}}, \
        {spiffe: \"spiffe://prod/ns/shop/*\"}, {principal: \"User:shop-*\"}, \
        {principal: \"Group:shop\"}]}\n  \
        boundary: {topics: [\"shop.*\", {literal: \"a*\"}], groups: [\"${tenant}.*\"]}";
    let (guards, problems) = guards(&[("t.yaml", &tenant(spec))]);
    assert_eq!(problems, [""; 0]);
    let [tenant] = &guards.tenants[..] else {
        panic!("{:?}", guards.tenants);
    };
    let claims = [("tenant_id", "shop"), ("stage", "prod")];
    let claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(tenant.name, "shop");
    assert_eq!(
        tenant.matches,
        [
            TenantMatch::Claims(claims.to_vec()),
            TenantMatch::Spiffe(text("spiffe://prod/ns/shop/", true)),
            TenantMatch::User(text("shop-", true)),
            TenantMatch::Group(text("shop", false)),
        ]
    );
    let boundary = tenant.boundary.as_ref().unwrap();
    assert_eq!(boundary.at.line, 6);
    let kinds: Vec<_> = boundary.resources.iter().map(|r| r.kind).collect();
    let (topic, group) = (ResourceKind::Topic, ResourceKind::Group);
    assert_eq!(kinds, [topic, topic, group]);
}

#[test]
fn mistakes_in_a_tenant() {
    let any = |item: &str| format!("{{match: {{any: [{item}]}}}}");
    for (spec, want) in [
        ("{mach: {any: []}}".to_owned(), "4:8 unknown key `mach`"),
        ("{match: {}}".to_owned(), "4:15 missing key `any`"),
        (
            any("{}"),
            "expected exactly one of `claim`, `spiffe` and `principal`",
        ),
        (
            any("{claim: {a: b}, principal: \"User:a\"}"),
            "expected exactly one of `claim`, `spiffe` and `principal`",
        ),
        (
            any("{claim: {}}"),
            "expected between 1 and 16 claims, got 0",
        ),
        (any("{claim: tenant_id}"), "expected a mapping of claims"),
        (any("{claim: {a: [b]}}"), "expected text"),
        (any("{spiffe: \"spiffe://prod*\"}"), "expected a SPIFFE id"),
        (any("{spiffe: \"spiffe://prod/\"}"), "expected a SPIFFE id"),
        (
            any("{spiffe: \"spiffe://*/ns/a\"}"),
            "a star may only stand at the end",
        ),
        (any("{spiffe: \"*\"}"), "expected a SPIFFE id"),
        (
            any("{principal: shop}"),
            "expected a principal such as `User:shop-*`",
        ),
        (
            any("{principal: \"Tenant:shop\"}"),
            "expected a principal such as",
        ),
        (
            any("{principal: \"User:\"}"),
            "expected a principal such as",
        ),
        (
            any("{principal: \"User:a*b\"}"),
            "a star may only stand at the end",
        ),
        (
            any("{principal: \"User:${tenant}\"}"),
            "variables may only stand",
        ),
        (
            "{boundary: {topic: [a]}}".to_owned(),
            "4:19 unknown key `topic`",
        ),
        ("{boundary: {topics: a}}".to_owned(), "expected a list"),
        ("{boundary: {topics: []}}".to_owned(), "at least one"),
        (
            "{boundary: {topics: [\"a*b\"]}}".to_owned(),
            "a star may only stand at the end",
        ),
        (
            "{boundary: {cluster: true}}".to_owned(),
            "4:19 the cluster is not bounded",
        ),
        (
            "{mode: observed, boundary: {topics: [a]}}".to_owned(),
            "4:14 expected `enforce` or `observe`, got `observed`",
        ),
    ] {
        let text = tenant(&spec);
        let (guards, found) = guards(&[("t.yaml", &text)]);
        let told = found.iter().any(|problem| problem.contains(want));
        assert!(told, "{spec}\nwanted {want}\n{found:#?}");
        assert!(guards.tenants.is_empty(), "{spec}");
    }
}

#[test]
fn two_tenants_of_one_name_are_one_too_many() {
    let one = tenant("{boundary: {topics: [a]}}");
    let (_, found) = guards(&[("a.yaml", &one), ("b.yaml", &one)]);
    let told = |p: &String| p.contains("a second Tenant with the name `shop`");
    assert!(found.iter().any(told), "{found:#?}");
}

#[test]
fn a_name_that_no_proof_could_bring_is_refused() {
    let spec = "{boundary: {topics: [a]}}";
    let (_, found) = guards(&[("a.yaml", &of_kind("Tenant", "\"*\"", spec))]);
    let told = |p: &String| p.contains("name is the wildcard `*`");
    assert!(found.iter().any(told), "{found:#?}");
}
