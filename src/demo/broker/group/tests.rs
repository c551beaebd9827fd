use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(30);

fn joining(member_id: &str) -> Joining {
    Joining {
        member_id: member_id.to_owned(),
        instance_id: None,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
        id_required: false,
    }
}

fn later<T>(answer: Answer<T>) -> oneshot::Receiver<T> {
    match answer {
        Answer::Later(receiver) => receiver,
        Answer::Now(_) => panic!("answered at once"),
    }
}

fn now<T>(answer: Answer<T>) -> T {
    match answer {
        Answer::Now(answer) => answer,
        Answer::Later(_) => panic!("must wait"),
    }
}

/// A group of two members `a` (the leader) and `b`, stable in generation 2.
fn stable(at: Instant) -> Group {
    let mut group = Group::new();
    let first = later(group.join(joining(""), "a".into(), at));
    drop(first);
    let mut b = later(group.join(joining(""), "b".into(), at));
    assert!(b.try_recv().is_err(), "`a` has not joined again");
    let mut a = later(group.join(joining("a"), String::new(), at));
    let a = a.try_recv().unwrap();
    let b = b.try_recv().unwrap();
    assert_eq!((a.generation, b.generation), (2, 2));
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    let mut waits = later(group.sync("b", None, 2, Some("range"), vec![], at));
    assert!(waits.try_recv().is_err());
    let parts = vec![
        ("a".into(), Bytes::from("A")),
        ("b".into(), Bytes::from("B")),
    ];
    let mut leads = later(group.sync("a", None, 2, None, parts, at));
    assert_eq!(leads.try_recv().unwrap().assignment, "A");
    assert_eq!(waits.try_recv().unwrap().assignment, "B");
    assert_eq!(group.phase, Phase::Stable);
    group
}

#[test]
fn two_members_share_and_one_leaves() {
    let at = Instant::now();
    let mut group = stable(at);
    assert_eq!(group.heartbeat("b", None, 2, at), code::NONE);
    assert_eq!(group.heartbeat("b", None, 1, at), code::ILLEGAL_GENERATION);
    assert_eq!(group.heartbeat("x", None, 2, at), code::UNKNOWN_MEMBER_ID);
    assert_eq!(group.leave("a", None, at), code::NONE);
    assert_eq!(
        group.heartbeat("b", None, 2, at),
        code::REBALANCE_IN_PROGRESS
    );
    let mut b = later(group.join(joining("b"), String::new(), at));
    let b = b.try_recv().unwrap();
    assert_eq!((b.generation, b.leader.as_str()), (3, "b"));
    assert_eq!(group.leave("b", None, at), code::NONE);
    assert_eq!(group.phase, Phase::Empty);
}

#[test]
fn a_silent_member_is_removed() {
    let at = Instant::now();
    let mut group = stable(at);
    let later_on = at + SESSION;
    assert_eq!(group.heartbeat("a", None, 2, at + SESSION / 2), code::NONE);
    group.tick(later_on);
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(group.phase, Phase::PreparingRebalance);
}

#[test]
fn a_rebalance_does_not_wait_for_ever() {
    let at = Instant::now();
    let mut group = stable(at);
    let mut c = later(group.join(joining(""), "c".into(), at));
    for second in 1..30 {
        let moment = at + Duration::from_secs(second);
        group.heartbeat("a", None, 2, moment);
        group.heartbeat("b", None, 2, moment);
        group.tick(moment);
    }
    assert!(c.try_recv().is_err());
    group.tick(at + REBALANCE);
    assert_eq!(c.try_recv().unwrap().members.len(), 1);
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let at = Instant::now();
    let mut group = Group::new();
    let new = Joining {
        id_required: true,
        ..joining("")
    };
    let told = now(group.join(new, "a".into(), at));
    assert_eq!(told.error, code::MEMBER_ID_REQUIRED);
    assert_eq!(told.member_id, "a");
    let mut joined = later(group.join(joining("a"), String::new(), at));
    assert_eq!(joined.try_recv().unwrap().leader, "a");
    let unknown = now(group.join(joining("z"), String::new(), at));
    assert_eq!(unknown.error, code::UNKNOWN_MEMBER_ID);
}

#[test]
fn protocols_must_agree() {
    let at = Instant::now();
    let mut group = stable(at);
    let other = Joining {
        protocols: vec![("sticky".to_owned(), Bytes::new())],
        ..joining("")
    };
    let refused = now(group.join(other, "c".into(), at));
    assert_eq!(refused.error, code::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn a_static_member_that_comes_back_fences_the_old_one() {
    let at = Instant::now();
    let mut group = Group::new();
    let fixed = Joining {
        instance_id: Some("pod-0".to_owned()),
        ..joining("")
    };
    drop(later(group.join(fixed.clone(), "a".into(), at)));
    let mut again = later(group.join(fixed, "b".into(), at));
    assert_eq!(again.try_recv().unwrap().member_id, "b");
    assert_eq!(
        group.heartbeat("a", Some("pod-0"), 1, at),
        code::FENCED_INSTANCE_ID
    );
    assert_eq!(group.leave("", Some("pod-0"), at), code::NONE);
    assert_eq!(group.phase, Phase::Empty);
}

#[test]
fn commits_need_the_generation() {
    let at = Instant::now();
    assert!(Group::new().may_commit("", None, -1, at).is_ok());
    let mut group = stable(at);
    assert_eq!(
        group.may_commit("", None, -1, at),
        Err(code::UNKNOWN_MEMBER_ID)
    );
    assert_eq!(
        group.may_commit("a", None, 1, at),
        Err(code::ILLEGAL_GENERATION)
    );
    assert!(group.may_commit("a", None, 2, at).is_ok());
}
