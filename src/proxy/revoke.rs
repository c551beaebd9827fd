//! What is owed when policies change is judged again. An answer that may wait does not outlive
//! the right to it: a Fetch that was to wait shortly is answered without records, so that its
//! client asks again and learns the usual way; whatever waits for longer, or has begun to
//! stream, ends with its connection. So does a member of a group, whose client would otherwise
//! take a refused heartbeat for a passing failure. What is still allowed notices nothing.
//!
//! Two occasions: an answer that arrives later than a change (see [`arrived`]), and a change
//! that arrives earlier than the answer (see [`watch`]). Which connections look when is
//! [`super::roster`].

use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::client::Client;
use super::connection::{End, Link};
use crate::apis::Api;
use crate::clock;
use crate::policy::model::{Decision, Operation, ResourceKind};
use crate::session::asked::Lost;
use crate::session::inflight::{Expect, FetchWork, LONG_WAIT_MS, Work};
use crate::wire::tree::StructNode;

/// How long an answer may still come that was not asked to wait, and of which nobody learns what
/// it should not: the result of a write that was allowed, say. Somewhat longer than a Fetch
/// waits that is not said to wait for long.
const GRACE: Duration = Duration::from_millis(LONG_WAIT_MS as u64 + 100);

/// Most groups that a connection is remembered to be a member of. Kafka's clients have one.
const GROUPS_MAX: usize = 8;

/// A group that the client of a connection belongs to.
#[derive(Debug)]
pub struct Membership {
    group: Box<str>,
    /// The request by which it did.
    api: &'static Api,
}

/// Remembers of which group the sender of a request that goes on is a member.
pub fn note_member(client: &mut Client, api: &'static Api, request: &StructNode) {
    if client.view.is_none() || !request.has("GroupId") || !request.has("MemberId") {
        return;
    }
    // Who has no number yet is given one, but whoever names topics without one is no member.
    let is_nobody = request.text("MemberId").is_none_or(str::is_empty);
    if is_nobody && request.has("Topics") {
        return;
    }
    let group = request.text("GroupId").unwrap_or_default();
    let leaves = request.has("MemberEpoch") && request.int("MemberEpoch") < 0;
    let members = &mut client.members;
    if leaves || api.leaves_groups() {
        members.retain(|one| *one.group != *group);
        return;
    }
    if let Some(known) = members.iter_mut().find(|one| *one.group == *group) {
        known.api = api;
        return;
    }
    if members.len() >= GROUPS_MAX {
        members.remove(0);
    }
    let group = group.into();
    members.push(Membership { group, api });
}

/// What becomes of an answer that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The client gets it.
    Good,
    /// It is a Fetch answer that the client may no longer see.
    Withheld,
    /// The connection ends.
    Ended,
}

/// Judges the answer that is due, if policies have changed since its request was.
pub fn arrived(link: &Link<'_>) -> Arrived {
    let mut client = link.client.borrow_mut();
    let mut inflight = link.inflight.borrow_mut();
    let Some((true, expect)) = inflight.expected().next() else {
        return Arrived::Good;
    };
    client.refresh();
    let Some(lost) = lost(&client, expect) else {
        return Arrived::Good;
    };
    match expect.work {
        Work::Fetch(_) => {
            client.revoked(expect.api, lost, "its client is to ask again");
            Arrived::Withheld
        }
        _ if expect.api.waits() => {
            client.revoked(expect.api, lost, "the connection ends");
            Arrived::Ended
        }
        // It says what has become of a request that was allowed when it was made.
        _ => Arrived::Good,
    }
}

/// Waits until the connection has to end because of what it has lost; `pulse`: policies may have
/// changed.
pub async fn watch(link: &Link<'_>, pulse: &Notify) -> End {
    let mut over: Option<Instant> = None;
    loop {
        let now = clock::now();
        over = match look(link, over.is_some_and(|over| now >= over)) {
            Found::Nothing => None,
            Found::Soon => over.or(Some(now + GRACE)),
            Found::End => return End::Now,
        };
        match over {
            None => pulse.notified().await,
            Some(over) => {
                let _ = timeout_at(over.into(), pulse.notified()).await;
            }
        }
    }
}

enum Found {
    /// Nothing is lost.
    Nothing,
    /// What is lost has a moment to be answered.
    Soon,
    /// The connection ends.
    End,
}

/// Judges everything that is owed; `over`: nothing has a moment left.
fn look(link: &Link<'_>, over: bool) -> Found {
    let mut client = link.client.borrow_mut();
    let mut inflight = link.inflight.borrow_mut();
    // An idle connection costs little: its next request finds out about all else.
    let is_idle = inflight.is_empty() && client.members.is_empty();
    if is_idle && !client.is_contested_now() {
        return Found::Nothing;
    }
    client.refresh();
    if client.is_contested {
        tracing::info!(connection = client.number, "closed: matches two tenants");
        return Found::End;
    }
    if let Some((api, lost)) = lost_group(&client) {
        client.revoked(api, lost, "its client is a member, the connection ends");
        return Found::End;
    }
    let mut found = Found::Nothing;
    for (is_due, expect) in inflight.expected() {
        let Some(lost) = lost(&client, expect) else {
            continue;
        };
        let is_fetch = matches!(expect.work, Work::Fetch(_));
        let streams = is_due && is_fetch && link.streams.get();
        if over || streams || expect.waits_long() {
            client.revoked(expect.api, lost, "the connection ends");
            return Found::End;
        }
        found = Found::Soon;
    }
    found
}

/// A group that the client belongs to and may no longer read.
fn lost_group(client: &Client) -> Option<(&'static Api, Lost)> {
    let view = client.view.as_ref()?;
    let (operation, kind) = (Operation::Read, ResourceKind::Group);
    client.members.iter().find_map(|one| {
        let decision = view.decide(operation, kind, &one.group);
        let name = one.group.to_string();
        let lost = Lost {
            operation,
            kind,
            name,
            decision,
        };
        (!lost.decision.allowed).then_some((one.api, lost))
    })
}

/// What is no longer allowed of a request; `None`: nothing, and that is remembered.
fn lost(client: &Client, expect: &mut Expect) -> Option<Lost> {
    let current = client.snapshot.generation;
    let view = client.view.as_ref()?;
    if expect.generation == current {
        return None;
    }
    let lost = expect.asked.lost(view);
    let lost = lost.or_else(|| match expect.work {
        Work::Fetch(work) if work.session_id != 0 => lost_in_session(client, expect, work),
        _ => None,
    });
    if lost.is_none() {
        expect.generation = current;
    }
    lost
}

/// A request within a session may be answered with all that the session was asked for before, and
/// has not forgotten since.
fn lost_in_session(client: &Client, expect: &Expect, work: FetchWork) -> Option<Lost> {
    let view = client.view.as_ref()?;
    let (operation, kind) = (Operation::Read, ResourceKind::Topic);
    let key = (client.broker.clone(), work.session_id);
    let sessions = &client.proxy.fetch_sessions;
    let may_read = |name: &str| view.decide(operation, kind, name).allowed;
    let name = sessions.unreadable(&key, work.epoch, &expect.forgotten, may_read)?;
    let decision = match &name {
        Some(name) => view.decide(operation, kind, name),
        None => Decision {
            allowed: false,
            rule: None,
        },
    };
    let name = name.map(String::from).unwrap_or_default();
    Some(Lost {
        operation,
        kind,
        name,
        decision,
    })
}
