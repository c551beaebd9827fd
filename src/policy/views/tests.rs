//! Who shares a view, and that finding the policies of a subject is the same as asking each.

use super::*;
use crate::document;
use crate::policy::model::{Operation, ResourceKind};
use crate::policy::parse::access_policy;
use crate::policy::tests::principal;
use crate::problem::Problems;

fn set(specs: &[&str]) -> PolicySet {
    let mut policies = Vec::new();
    for spec in specs {
        let mut problems = Problems::default();
        let documents = document::parse(&"p.yaml".into(), spec, &mut problems);
        let policy = access_policy("p", &documents[0], &mut problems);
        policies.push(policy.unwrap_or_else(|| panic!("{:#?}", problems.list)));
    }
    PolicySet::new(policies, vec!["User:admin".to_owned()])
}

fn shared(set: &PolicySet, principal: &Principal, host: &str) -> Arc<View> {
    set.shared_view(&Subject {
        principal,
        host: host.parse().unwrap(),
    })
}

const OPEN: &str = "principals: [\"User:*\"]\nrules:\n- {allow: [Read], topics: [open]}\n";
const OFFICE: &str = "principals: [\"Group:staff\"]\nhosts: [10.0.0.0/8]\nrules:\n\
    - {allow: [Write], topics: [office]}\n";
const OWN: &str = "principals: [\"Tenant:shop\"]\nrules:\n\
    - {allow: [Write], topics: [\"${principal}.*\"]}\n";

#[test]
fn whom_the_same_rules_concern_shares_one_view() {
    let set = set(&[OPEN, OFFICE, OWN]);
    let (ann, ben) = (
        principal("User:ann", "", &[]),
        principal("User:ben", "", &[]),
    );
    let view = shared(&set, &ann, "10.0.0.1");
    assert!(Arc::ptr_eq(&view, &shared(&set, &ann, "192.0.2.1")));
    assert!(Arc::ptr_eq(&view, &shared(&set, &ben, "::1")));
    // A host that a policy asks for, a super user and a variable each make a difference.
    let staff = principal("User:ann", "", &["staff"]);
    let inside = shared(&set, &staff, "10.0.0.1");
    assert!(!Arc::ptr_eq(&view, &inside));
    assert!(Arc::ptr_eq(&inside, &shared(&set, &staff, "10.9.9.9")));
    assert!(Arc::ptr_eq(&view, &shared(&set, &staff, "192.0.2.1")));
    let admin = shared(&set, &principal("User:admin", "", &[]), "10.0.0.1");
    assert!(admin.is_super_user() && !Arc::ptr_eq(&view, &admin));
    let (ann, ben) = (
        principal("User:ann", "shop", &[]),
        principal("User:ben", "shop", &[]),
    );
    let (anns, bens) = (shared(&set, &ann, "::1"), shared(&set, &ben, "::1"));
    assert!(!Arc::ptr_eq(&anns, &bens));
    assert!(Arc::ptr_eq(&anns, &shared(&set, &ann, "::2")));
    let writes = |view: &View, topic| {
        let decision = view.decide(Operation::Write, ResourceKind::Topic, topic);
        decision.allowed
    };
    assert!(writes(&anns, "ann.x") && !writes(&anns, "ben.x"));
    assert!(writes(&bens, "ben.x") && !writes(&bens, "ann.x"));
}

#[test]
fn the_policies_of_a_subject_are_those_that_name_it() {
    let names = ["", "a", "b", "a:b", "User:a", "*"];
    let mut patterns = vec![PrincipalPattern::Everyone];
    for name in names {
        patterns.push(PrincipalPattern::User(name.into()));
        patterns.push(PrincipalPattern::Group(name.into()));
        patterns.push(PrincipalPattern::Tenant(name.into()));
    }
    // Each pattern alone, and each beside its neighbour.
    let policies: Vec<AccessPolicy> = (0..patterns.len())
        .flat_map(|at| [patterns[at..=at].to_vec(), patterns[..=at].to_vec()])
        .map(|principals| AccessPolicy {
            name: "p".into(),
            principals,
            hosts: Vec::new(),
            rules: [].into(),
        })
        .collect();
    let concerned = Concerned::new(&policies);
    for kind in ["User:", "Group:", "Tenant:", "Robot:", ""] {
        for name in names {
            for tenant in names {
                for groups in [&[][..], &["a"], &["b", "a:b", ""], &["a", "a"]] {
                    let who = principal(&format!("{kind}{name}"), tenant, groups);
                    let subject = Subject {
                        principal: &who,
                        host: "::1".parse().unwrap(),
                    };
                    let naming = policies.iter().enumerate().filter(|(_, policy)| {
                        let mut patterns = policy.principals.iter();
                        patterns.any(|pattern| pattern.matches(&subject))
                    });
                    let naming: Vec<u32> = naming.map(|(at, _)| at as u32).collect();
                    assert_eq!(concerned.by(&who), naming, "{who:?}");
                }
            }
        }
    }
}

#[test]
fn a_new_set_is_prepared_for_those_who_are_there() {
    let old = set(&[OPEN, OFFICE]);
    let (ann, gone) = (
        principal("User:ann", "", &["staff"]),
        principal("User:gone", "", &[]),
    );
    let _held = shared(&old, &ann, "10.0.0.1");
    drop(shared(&old, &gone, "10.0.0.1"));
    let new = set(&[OFFICE, OPEN, OWN]);
    new.prepared_for(&old);
    assert_eq!(new.views(), 1);
    shared(&new, &ann, "10.0.0.1");
    assert_eq!(new.views(), 1);
}

#[test]
fn no_more_views_are_remembered_than_may_be() {
    let set = set(&[OWN]);
    let mut held = Vec::new();
    for number in 0..VIEWS_MAX + 10 {
        let who = principal(&format!("User:u{number}"), "shop", &[]);
        let view = shared(&set, &who, "::1");
        let topic = format!("u{number}.x");
        let write = view.decide(Operation::Write, ResourceKind::Topic, &topic);
        assert!(write.allowed);
        held.push(view);
        assert!(set.views() <= VIEWS_MAX);
    }
    // What nobody holds makes room.
    held.clear();
    shared(&set, &principal("User:late", "shop", &[]), "::1");
    assert_eq!(set.views(), 1);
}
