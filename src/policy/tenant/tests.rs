use super::*;

fn tenant(name: &str, matches: Vec<TenantMatch>) -> Tenant {
    Tenant {
        name: name.to_owned(),
        at: RuleRef {
            file: "t.yaml".into(),
            line: 4,
        },
        matches,
        boundary: None,
    }
}

fn who(name: &str, proof: Proof) -> Principal {
    Principal {
        name: format!("User:{name}").into(),
        tenant: "".into(),
        groups: ["dev".into()].into(),
        proof,
        expires_at: None,
    }
}

fn text(text: &str) -> Text {
    let stem = text.strip_suffix('*');
    Text {
        stem: stem.unwrap_or(text).to_owned(),
        is_prefix: stem.is_some(),
    }
}

fn claims(list: &[(&str, &str)]) -> TextClaims {
    let list = list.iter().map(|(n, v)| ((*n).into(), (*v).into()));
    TextClaims(list.collect())
}

fn wanted(list: &[(&str, &str)]) -> TenantMatch {
    let list = list.iter().map(|(n, v)| ((*n).into(), (*v).into()));
    TenantMatch::Claims(list.collect())
}

#[test]
fn what_is_proven_stands_above_what_matches() {
    let tenants = [tenant("a", vec![TenantMatch::User(text("*"))])];
    let mut me = who("me", Proof::Token);
    let none = TextClaims::default();
    assert_eq!(&*tenant_of(&tenants, &me, &none).unwrap(), "a");
    me.tenant = "b".into();
    assert_eq!(&*tenant_of(&tenants, &me, &none).unwrap(), "b");
    me.tenant = "".into();
    assert_eq!(&*tenant_of(&[], &me, &none).unwrap(), "");
}

#[test]
fn each_kind_of_match_holds_for_its_own_proof_only() {
    let id = "spiffe://prod/ns/a/sa/b";
    let (prefix, whole) = (text("spiffe://prod/ns/a/*"), text(id));
    for (one, name, proof, holds) in [
        (
            TenantMatch::Spiffe(prefix.clone()),
            id,
            Proof::Certificate,
            true,
        ),
        (TenantMatch::Spiffe(whole), id, Proof::Certificate, true),
        (
            TenantMatch::Spiffe(prefix.clone()),
            id,
            Proof::Static,
            false,
        ),
        (
            TenantMatch::Spiffe(prefix),
            "spiffe://prod/ns/ab/sa/b",
            Proof::Certificate,
            false,
        ),
        (TenantMatch::User(text("a-*")), "a-b", Proof::Password, true),
        (TenantMatch::User(text("a-*")), "a", Proof::Password, false),
        (TenantMatch::User(text("a")), "ab", Proof::Password, false),
        (TenantMatch::Group(text("dev")), "x", Proof::Token, true),
        (TenantMatch::Group(text("de")), "x", Proof::Token, false),
        (wanted(&[("t", "a")]), "x", Proof::Token, true),
        (wanted(&[("t", "a"), ("s", "p")]), "x", Proof::Token, true),
        (wanted(&[("t", "a"), ("s", "q")]), "x", Proof::Token, false),
        (wanted(&[("t", "a*")]), "x", Proof::Token, false),
        (wanted(&[]), "x", Proof::Token, false),
    ] {
        let said = claims(&[("t", "a"), ("s", "p")]);
        let shown = format!("{one:?} {name}");
        let found = tenant_of(&[tenant("a", vec![one])], &who(name, proof), &said);
        assert_eq!(&*found.unwrap() == "a", holds, "{shown}");
    }
}

#[test]
fn two_matching_tenants_are_an_error_that_names_both() {
    let everybody = || vec![TenantMatch::User(text("*")), TenantMatch::User(text("me"))];
    let one = [tenant("a", everybody())];
    let me = who("me", Proof::Static);
    assert!(tenant_of(&one, &me, &TextClaims::default()).is_ok());
    let two = [tenant("a", everybody()), tenant("b", everybody())];
    let error = tenant_of(&two, &me, &TextClaims::default()).unwrap_err();
    let said = "matches two tenants, `a` (t.yaml:4) and `b` (t.yaml:4)";
    assert_eq!(error.to_string(), said);
}

#[test]
fn claims_are_not_shown() {
    assert_eq!(format!("{:?}", claims(&[("t", "secret")])), "TextClaims(1)");
}
