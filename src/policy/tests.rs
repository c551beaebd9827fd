//! The rows of Kafka's decision procedure, one test each, on policies as people write them; and
//! the grammar of rules with its mistakes.

use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Decision, Operation as O, ResourceKind as K, Subject};
use super::parse::access_policy;
use super::rule::AccessPolicy;
use super::{PolicySet, View};
use crate::document;
use crate::principal::{Principal, Proof};
use crate::problem::{Problems, Severity};

fn parsed(spec: &str) -> (Option<AccessPolicy>, Problems) {
    let mut problems = Problems::default();
    let documents = document::parse(&"p.yaml".into(), spec, &mut problems);
    let policy = documents
        .first()
        .and_then(|d| access_policy("p", d, &mut problems));
    (policy, problems)
}

fn policy(spec: &str) -> AccessPolicy {
    let (policy, problems) = parsed(spec);
    policy.unwrap_or_else(|| panic!("{:#?}", problems.list))
}

/// Rules for everybody.
fn rules(rules: &str) -> AccessPolicy {
    let lines: String = rules
        .lines()
        .map(|l| format!("  - {}\n", l.trim()))
        .collect();
    policy(&format!("principals: [\"User:*\"]\nrules:\n{lines}"))
}

pub(super) fn principal(name: &str, tenant: &str, groups: &[&str]) -> Principal {
    Principal {
        name: name.into(),
        tenant: tenant.into(),
        groups: groups.iter().map(|g| Arc::from(*g)).collect(),
        proof: Proof::Token,
        expires_at: None,
    }
}

fn view_of(policy: AccessPolicy, principal: &Principal, host: &str) -> View {
    let host: IpAddr = host.parse().unwrap();
    PolicySet::new(vec![policy], vec!["User:admin".to_owned()]).view(&Subject { principal, host })
}

fn view(text: &str) -> View {
    view_of(rules(text), &principal("User:alice", "", &[]), "10.0.0.1")
}

fn allowed(decision: Decision) -> bool {
    decision.allowed
}

#[test]
fn nothing_matches_is_no() {
    let view = view("{allow: [Read], topics: [a]}");
    let decision = view.decide(O::Read, K::Topic, "b");
    assert_eq!(
        decision,
        Decision {
            allowed: false,
            rule: None
        }
    );
}

#[test]
fn a_super_user_beats_every_deny() {
    let deny = rules("{deny: [All], topics: [\"*\"], cluster: true}");
    let view = view_of(deny, &principal("User:admin", "", &[]), "10.0.0.1");
    let decision = view.decide(O::Write, K::Topic, "a");
    assert_eq!(
        decision,
        Decision {
            allowed: true,
            rule: None
        }
    );
    assert!(view.decide_any(O::Write, K::Topic).allowed);
    assert!(view.allows_all(O::Write, K::Topic));
}

#[test]
fn a_super_user_is_the_exact_string() {
    for name in ["User:Admin", "User:admin2", "Group:admin", "User:"] {
        let view = view_of(
            rules("{allow: [Read], topics: [a]}"),
            &principal(name, "", &[]),
            "::1",
        );
        assert!(!view.is_super_user(), "{name}");
    }
}

#[test]
fn principals_match_by_type_and_case() {
    let spec = |who: &str| {
        policy(&format!(
            "principals: [\"{who}\"]\nrules: [{{allow: [Read], topics: [a]}}]"
        ))
    };
    let alice = principal("User:alice", "shop", &["team"]);
    let cases = [
        ("User:alice", true),
        ("User:Alice", false),
        ("User:*", true),
        ("Group:team", true),
        ("Group:alice", false),
        ("Group:*", false),
        ("Tenant:shop", true),
        ("Tenant:Shop", false),
        ("Tenant:*", false),
        ("User:ali*", false),
    ];
    for (who, want) in cases {
        let view = view_of(spec(who), &alice, "10.0.0.1");
        assert_eq!(allowed(view.decide(O::Read, K::Topic, "a")), want, "{who}");
    }
    // `Group:*` is a plain name.
    let odd = principal("User:x", "", &["*"]);
    assert!(
        view_of(spec("Group:*"), &odd, "::1")
            .decide(O::Read, K::Topic, "a")
            .allowed
    );
}

#[test]
fn hosts_are_addresses_or_networks() {
    let spec = |host: &str| {
        policy(&format!(
            "principals: [\"User:*\"]\nhosts: [\"{host}\"]\nrules: [{{allow: [Read], topics: [a]}}]"
        ))
    };
    let cases = [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "10.0.0.1", false),
        ("2001:db8::/32", "2001:db8:ffff::1", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("::1", "0:0:0:0:0:0:0:1", true),
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("::ffff:10.0.0.1", "10.0.0.1", true),
    ];
    for (host, peer, want) in cases {
        let view = view_of(spec(host), &principal("User:a", "", &[]), peer);
        assert_eq!(
            allowed(view.decide(O::Read, K::Topic, "a")),
            want,
            "{host} {peer}"
        );
    }
}

#[test]
fn patterns_are_united_and_none_is_more_important() {
    let view = view(
        "{allow: [Read], topics: [orders, \"user.*\"]}
         {deny: [Read], topics: [\"user.secret.*\"]}
         {deny: [Read], topics: [\"u*\"], groups: [x]}
         {allow: [Read], topics: [user.secret.open]}",
    );
    assert!(view.decide(O::Read, K::Topic, "orders").allowed);
    assert!(!view.decide(O::Read, K::Topic, "orders2").allowed);
    assert!(!view.decide(O::Read, K::Topic, "order").allowed);
    // The literal allow does not win over the shorter deny.
    assert!(!view.decide(O::Read, K::Topic, "user.secret.open").allowed);
    assert!(!view.decide(O::Read, K::Topic, "user.created").allowed);
    // Kinds are apart.
    assert!(!view.decide(O::Read, K::Group, "orders").allowed);
}

#[test]
fn the_wildcard_matches_the_empty_name_and_a_prefix_star_does_not() {
    let all = view("{allow: [Read], topics: [\"*\"]}");
    assert!(all.decide(O::Read, K::Topic, "").allowed);
    // Where Kafka 4.3 differs: names that begin with a star are names as well.
    assert!(all.decide(O::Read, K::Topic, "*a").allowed);
    let starred = view("{allow: [Read], topics: [{prefix: \"*\"}]}");
    assert!(starred.decide(O::Read, K::Topic, "*a").allowed);
    assert!(!starred.decide(O::Read, K::Topic, "a").allowed);
    let literal = view("{allow: [Read], topics: [{literal: \"a*\"}]}");
    assert!(literal.decide(O::Read, K::Topic, "a*").allowed);
    assert!(!literal.decide(O::Read, K::Topic, "ab").allowed);
}

#[test]
fn an_allow_implies_describe_and_nothing_else() {
    for operation in O::EVERY {
        let view = view(&format!("{{allow: [{}], topics: [a]}}", operation.name()));
        for asked in O::EVERY {
            let implied = match operation {
                O::All => true,
                O::Read | O::Write | O::Delete | O::Alter => asked == O::Describe,
                O::AlterConfigs => asked == O::DescribeConfigs,
                _ => false,
            };
            let got = view.decide(asked, K::Topic, "a").allowed;
            assert_eq!(
                got,
                implied || asked == operation,
                "{operation:?} {asked:?}"
            );
        }
    }
    // The kind of resource makes no difference.
    assert!(
        view("{allow: [Alter], cluster: true}")
            .decide(O::Describe, K::Cluster, "kafka-cluster")
            .allowed
    );
}

#[test]
fn a_deny_implies_nothing() {
    let read = view("{allow: [All], topics: [a]}\n{deny: [Read], topics: [a]}");
    assert!(!read.decide(O::Read, K::Topic, "a").allowed);
    assert!(read.decide(O::Describe, K::Topic, "a").allowed);
    let describe = view("{allow: [All], topics: [a]}\n{deny: [Describe], topics: [a]}");
    assert!(describe.decide(O::Read, K::Topic, "a").allowed);
    assert!(!describe.decide(O::Describe, K::Topic, "a").allowed);
    let all = view("{allow: [Read], topics: [a]}\n{deny: [All], topics: [a]}");
    assert!(
        O::EVERY
            .iter()
            .all(|o| !all.decide(*o, K::Topic, "a").allowed)
    );
}

#[test]
fn the_first_rule_that_matters_is_named() {
    let view = view(
        "{allow: [Write], topics: [a]}
         {allow: [Read], topics: [\"a*\"]}
         {allow: [Read], topics: [a]}
         {deny: [Write], topics: [\"*\"]}
         {deny: [Write], topics: [a]}",
    );
    let line = |operation| view.decide(operation, K::Topic, "a").rule.unwrap().line;
    assert_eq!(line(O::Read), 4);
    assert_eq!(line(O::Write), 6);
    let considered: Vec<u32> = view
        .considered(O::Write, K::Topic, "a")
        .iter()
        .map(|c| c.rule.line)
        .collect();
    assert_eq!(considered, [3, 6, 7]);
}

#[test]
fn ladders_of_prefixes_are_all_seen() {
    // Given every second prefix of a name, with neighbours that sort in between
    let view = view(
        "{deny: [Read], topics: [\"a*\"]}
         {allow: [Read], topics: [\"aaa*\", \"aab*\", \"ab*\", \"aaaaa*\", \"b*\"]}",
    );
    // When a name is asked for whose nearest entry is no prefix of it
    // Then the shortest prefix still decides
    assert_eq!(
        view.decide(O::Read, K::Topic, "aaaab").rule.unwrap().line,
        3
    );
    assert_eq!(view.decide(O::Read, K::Topic, "azz").rule.unwrap().line, 3);
    assert!(view.decide(O::Read, K::Topic, "bb").allowed);
    assert!(!view.decide(O::Read, K::Topic, "c").allowed);
}

#[test]
fn variables_are_literal_text() {
    let text = "{allow: [Read], topics: [\"${tenant}.*\", \"home-${principal}\"]}";
    let of = |name, tenant| view_of(rules(text), &principal(name, tenant, &[]), "::1");
    let alice = of("User:alice", "shop");
    assert!(alice.decide(O::Read, K::Topic, "shop.orders").allowed);
    assert!(alice.decide(O::Read, K::Topic, "home-alice").allowed);
    assert!(!alice.decide(O::Read, K::Topic, "home-alice2").allowed);
    // A tenant called `*` gains nothing.
    let star = of("User:*", "*");
    assert!(!star.decide(O::Read, K::Topic, "shop.orders").allowed);
    assert!(star.decide(O::Read, K::Topic, "*.orders").allowed);
}

#[test]
fn a_variable_without_a_value_is_safe_either_way() {
    let nobody = principal("User:alice", "", &[]);
    let allow = view_of(
        rules("{allow: [Read], topics: [\"${tenant}.*\"]}"),
        &nobody,
        "::1",
    );
    assert!(!allow.decide(O::Read, K::Topic, ".a").allowed);
    assert!(!allow.decide(O::Read, K::Topic, "").allowed);
    let deny = "{allow: [All], topics: [\"*\"]}\n{deny: [Read], topics: [\"${tenant}.x\"]}";
    let deny = view_of(rules(deny), &nobody, "::1");
    assert!(!deny.decide(O::Read, K::Topic, "anything").allowed);
    assert!(deny.decide(O::Write, K::Topic, "anything").allowed);
    assert!(deny.decide(O::Read, K::Group, "g").rule.is_none());
}

#[test]
fn asking_about_a_kind() {
    // The table of kafka-clients' `Authorizer.authorizeByResourceType`, row by row.
    let cases = [
        (
            "{allow: [Write], topics: [\"*\"]}\n{deny: [Write], topics: [\"*\"]}",
            false,
        ),
        (
            "{allow: [Write], topics: [\"*\"]}\n{deny: [Write], topics: [\"a*\"]}",
            true,
        ),
        (
            "{allow: [Write], topics: [\"*\"]}\n{deny: [Write], topics: [\"h*\"]}",
            true,
        ),
        (
            "{allow: [Write], topics: [a]}\n{deny: [Write], topics: [a]}",
            false,
        ),
        (
            "{allow: [Write], topics: [\"a*\"]}\n{deny: [Write], topics: [a]}",
            true,
        ),
        (
            "{allow: [Write], topics: [\"ab*\"]}\n{deny: [Write], topics: [\"a*\"]}",
            false,
        ),
        (
            "{allow: [Write], topics: [\"ab*\"]}\n{deny: [Write], topics: [\"ab*\"]}",
            false,
        ),
        (
            "{allow: [Write], topics: [\"a*\"]}\n{deny: [Write], topics: [\"ab*\"]}",
            true,
        ),
        ("{allow: [All], topics: [a]}", true),
        ("{allow: [Read], topics: [a]}", false),
        ("{allow: [Write], groups: [a]}", false),
        (
            "{allow: [Write], topics: [a, b]}\n{deny: [All], topics: [a]}",
            true,
        ),
        (
            "{allow: [Write], topics: [hardcode]}\n{deny: [Write], topics: [a]}",
            true,
        ),
    ];
    for (text, want) in cases {
        assert_eq!(
            view(text).decide_any(O::Write, K::Topic).allowed,
            want,
            "{text}"
        );
    }
    assert!(!allowed(
        view_of(
            policy("principals: [\"User:bob\"]\nrules: [{allow: [Write], topics: [a]}]"),
            &principal("User:alice", "", &[]),
            "::1"
        )
        .decide_any(O::Write, K::Topic)
    ));
    // No implication, except by way of the name that Kafka tries first.
    assert!(
        !view("{allow: [Write], topics: [a]}")
            .decide_any(O::Describe, K::Topic)
            .allowed
    );
    assert!(
        view("{allow: [Write], topics: [\"*\"]}")
            .decide_any(O::Describe, K::Topic)
            .allowed
    );
}

#[test]
fn asking_about_a_kind_names_a_rule() {
    let view = view("{allow: [Write], topics: [\"ab*\", c]}\n{deny: [Write], topics: [\"a*\"]}");
    assert_eq!(view.decide_any(O::Write, K::Topic).rule.unwrap().line, 3);
    let denied = self::view("{allow: [Write], topics: [ab]}\n{deny: [Write], topics: [\"a*\"]}");
    assert_eq!(denied.decide_any(O::Write, K::Topic).rule.unwrap().line, 4);
}

#[test]
fn all_names_allowed_is_said_only_without_any_deny() {
    assert!(view("{allow: [Read], topics: [\"*\"]}").allows_all(O::Describe, K::Topic));
    assert!(!view("{allow: [Read], topics: [\"a*\"]}").allows_all(O::Read, K::Topic));
    let denied = view("{allow: [All], topics: [\"*\"]}\n{deny: [Read], topics: [x]}");
    assert!(!denied.allows_all(O::Read, K::Topic));
    assert!(denied.allows_all(O::Write, K::Topic));
    let all = view("{allow: [All], topics: [\"*\"]}\n{deny: [All], topics: [x]}");
    assert!(O::EVERY.iter().all(|o| !all.allows_all(*o, K::Topic)));
}

#[test]
fn every_kind_of_resource_can_be_named() {
    let view = view(
        "{allow: [Describe], topics: [n], groups: [n], transactionalIds: [n]}
         {allow: [Describe], delegationTokens: [n]}
         {allow: [CreateTokens], users: [\"User:n\"]}
         {allow: [Create], cluster: true}",
    );
    for kind in [K::Topic, K::Group, K::TransactionalId, K::DelegationToken] {
        assert!(view.decide(O::Describe, kind, "n").allowed, "{kind:?}");
    }
    assert!(view.decide(O::CreateTokens, K::User, "User:n").allowed);
    assert!(
        view.decide(O::Create, K::Cluster, super::model::CLUSTER_NAME)
            .allowed
    );
    assert!(!view.decide(O::Create, K::Cluster, "other").allowed);
}

/// The first error, with its place and help.
fn error(spec: &str) -> String {
    let (policy, problems) = parsed(spec);
    assert!(policy.is_none(), "{spec} was accepted");
    let error = problems
        .list
        .iter()
        .find(|p| p.severity == Severity::Error)
        .unwrap();
    let place = error.place.as_ref().unwrap();
    let help = error.help.as_deref().unwrap_or("-");
    format!("{}:{} {} | {help}", place.line, place.column, error.message)
}

#[test]
fn mistakes_in_rules_have_a_place_and_a_way_out() {
    let in_rule = |rule: &str| error(&format!("principals: [\"User:*\"]\nrules:\n  - {rule}"));
    let cases = [
        (
            in_rule("{alow: [Read], topics: [a]}"),
            "3:6 unknown key `alow` | did you mean `allow`?",
        ),
        (
            in_rule("{allow: [read], topics: [a]}"),
            "3:14 unknown operation `read` | did you mean `Read`?",
        ),
        (
            in_rule("{allow: [Wrte], topics: [a]}"),
            "3:14 unknown operation `Wrte` | did you mean `Write`?",
        ),
        (
            in_rule("{allow: Read, topics: [a]}"),
            "3:13 expected a list, got `Read` | write `[Read]`",
        ),
        (
            in_rule("{allow: [], topics: [a]}"),
            "3:13 expected at least one item, got an empty list | -",
        ),
        (
            in_rule("{topics: [a]}"),
            "3:5 a rule without `allow` or `deny` | -",
        ),
        (
            in_rule("{allow: [Read], deny: [Read], topics: [a]}"),
            "3:27 a rule has either `allow` or `deny`, got both | make two rules of it",
        ),
        (
            in_rule("{allow: [Read]}"),
            "3:5 a rule that names no resource | add `topics`, `groups`, `cluster: true`, \
             `transactionalIds`, …",
        ),
        (
            in_rule("{allow: [Read], topics: [\"a*b\"]}"),
            "3:30 a star may only stand at the end, got `a*b` | such a name is \
             `{literal: \"a*\"}` or `{prefix: \"a*\"}`",
        ),
        (
            in_rule("{allow: [Read], topics: [\"${tenent}.*\"]}"),
            "3:30 unknown variable `tenent`, expected `tenant` or `principal` | -",
        ),
        (
            in_rule("{allow: [Read], topics: [5]}"),
            "3:30 expected text, got the number `5` | write it in quotes: \"5\"",
        ),
        (
            in_rule("{allow: [Read], topics: [\"\"]}"),
            "3:30 expected a name, got an empty text | -",
        ),
        (
            in_rule("{allow: [Create], cluster: false}"),
            "3:32 expected `cluster: true`, got `false` | leave the key out",
        ),
        (
            error("principals: [orders]\nrules: []"),
            "1:14 expected a principal such as `User:orders`, got `orders` | -",
        ),
        (
            error("principals: [\"Usr:orders\"]\nrules: []"),
            "1:14 expected a principal of type `User`, `Group` or `Tenant`, got `Usr:orders` | -",
        ),
        (error("rules: []"), "1:1 missing key `principals` | -"),
        (
            error("principals: [\"User:a\"]\nhosts: [\"*\"]\nrules: []"),
            "2:9 expected an address or CIDR such as `10.0.0.0/8`, got `*` | leave out `hosts` to \
             mean every host",
        ),
        (
            error("principals: [\"User:a\"]\nhosts: [10.0.0.0/33]\nrules: []"),
            "2:9 expected an address or CIDR such as `10.0.0.0/8`, got `10.0.0.0/33` | -",
        ),
        (
            error("mode: obsreve\nprincipals: [\"User:a\"]\nrules: []"),
            "1:7 expected `enforce` or `observe`, got `obsreve` | did you mean `observe`?",
        ),
    ];
    for (got, want) in cases {
        assert_eq!(got, want);
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let (_, problems) = parsed(
        "principals: [x, \"User:a\"]\nrules:\n  - {allow: [Raed], topics: [\"*a\"]}\n  \
         - {dney: [All]}",
    );
    let errors = problems
        .list
        .iter()
        .filter(|p| p.severity == Severity::Error);
    assert!(errors.count() >= 4, "{:#?}", problems.list);
}

#[test]
fn rules_that_probably_mean_something_else_are_warned_about() {
    let warnings = |text: &str| {
        let (policy, problems) = parsed(text);
        assert!(policy.is_some());
        let messages = problems.list.into_iter().map(|p| p.message);
        messages.collect::<Vec<_>>().join("; ")
    };
    let rule = |rule: &str| warnings(&format!("principals: [\"User:*\"]\nrules:\n  - {rule}"));
    assert_eq!(
        rule("{allow: [Read, Write], groups: [g]}"),
        "`Write` has no meaning for Group resources"
    );
    assert_eq!(
        rule("{allow: [Read, Read], topics: [a]}"),
        "`Read` is listed twice"
    );
    assert_eq!(
        rule("{allow: [Read], topics: [{literal: \"*\"}]}"),
        "`{literal: \"*\"}` is only the name `*`"
    );
    assert_eq!(
        warnings("principals: [\"User:a*\"]\nhosts: [10.1.0.0/8]\nrules: []"),
        "the star in `User:a*` means itself; `10.1.0.0/8` has bits set behind its prefix; a policy \
         without rules"
    );
    assert_eq!(
        rule("{allow: [All], topics: [a], groups: [\"*\"], cluster: true}"),
        ""
    );
}
