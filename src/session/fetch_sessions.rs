//! Whose fetch session is whose (KIP-227). A broker ties a session neither to a connection nor
//! to a principal, and all clients here share one identity towards it: without an owner, a
//! session's number would be enough to read another's records (threat 8).
//!
//! A session is honoured for the principal that opened it, with the rights that it had then (its
//! groups may be fewer in a new token, and others at another host), through the same broker, under
//! the policies it was judged by; anything else answers FETCH_SESSION_ID_NOT_FOUND, and the client
//! begins a full fetch that is judged afresh.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::asked::{Asked, NAMES_BYTES_MAX};
use crate::broker::BrokerAddr;
use crate::policy::View;
use crate::principal::Principal;
use crate::wire::tree::StructNode;

/// Most sessions that are remembered, in sessions; the oldest is forgotten first. (A broker
/// keeps 1,000 by default.)
pub const SESSIONS_MAX: usize = 20_000;
/// Most refused topics that are remembered for one session; one with more is forgotten, so that
/// its client fetches in full each time.
pub const REFUSED_TOPICS_MAX: usize = 1_000;

/// Most memory that what was refused in one session may take, in bytes.
pub const REFUSED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What a topic takes beside its name, in bytes.
const TOPIC_BYTES: usize = 48;
/// Most memory that all sessions may take, in bytes; the oldest is forgotten first.
pub const SESSIONS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Names a session: the broker that knows it, and its number there.
pub type SessionKey = (BrokerAddr, i32);

/// Who comes with a session.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// The rules that concern it; `None`: none are in force. Those who have the same rights share
    /// one view.
    pub view: Option<&'a Arc<View>>,
    /// The policies by which it is judged.
    pub generation: u64,
}

/// Everything known of the sessions of the process.
#[derive(Debug, Default)]
pub struct FetchSessions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<SessionKey, Session>,
    order: VecDeque<SessionKey>,
    /// What the sessions take, in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct Session {
    principal: Arc<str>,
    tenant: Arc<str>,
    /// Tells whose rights are the same; does not keep them.
    view: Option<Weak<View>>,
    generation: u64,
    /// Elements of the answer for partitions that were refused and never reached the broker:
    /// a broker repeats such errors in every answer of the session.
    refused: Vec<StructNode>,
    /// How many bytes these take.
    refused_bytes: usize,
    /// Topics that were ever asked for in it, those included that it has forgotten since: what
    /// a request that names none of them may be answered with.
    topics: HashSet<Box<str>>,
    /// How many bytes their names have.
    bytes: usize,
}

impl Session {
    fn belongs_to(&self, owner: &Owner) -> bool {
        let same_rights = match (&self.view, owner.view) {
            (None, None) => true,
            (Some(view), Some(other)) => std::ptr::eq(view.as_ptr(), Arc::as_ptr(other)),
            _ => false,
        };
        same_rights
            && self.principal == owner.principal.name
            && self.tenant == owner.principal.tenant
            && self.generation == owner.generation
    }

    /// Remembers what is refused.
    fn refuse(&mut self, refused: Vec<StructNode>) {
        self.refused_bytes = refused.iter().map(StructNode::memory).sum();
        self.refused = refused;
    }

    /// How many bytes it takes.
    fn memory(&self) -> usize {
        self.bytes + self.topics.len() * TOPIC_BYTES + self.refused_bytes
    }

    /// Remembers topics; `false`: there are too many, or too much is refused.
    fn add(&mut self, asked: &Asked) -> bool {
        for name in asked.topics() {
            if !self.topics.contains(name) {
                self.bytes += name.len();
                self.topics.insert(name.into());
            }
        }
        self.bytes <= NAMES_BYTES_MAX
            && self.refused.len() <= REFUSED_TOPICS_MAX
            && self.refused_bytes <= REFUSED_BYTES_MAX
    }
}

impl Table {
    fn insert(&mut self, key: SessionKey, session: Session) {
        self.bytes += session.memory();
        match self.sessions.insert(key.clone(), session) {
            None => self.order.push_back(key),
            Some(former) => self.bytes -= former.memory(),
        }
        self.make_room();
    }

    fn remove(&mut self, key: &SessionKey) {
        if let Some(session) = self.sessions.remove(key) {
            self.bytes -= session.memory();
        }
    }

    fn make_room(&mut self) {
        while self.sessions.len() > SESSIONS_MAX
            || self.order.len() > 2 * SESSIONS_MAX
            || self.bytes > SESSIONS_BYTES_MAX
        {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.remove(&oldest);
        }
    }
}

impl FetchSessions {
    /// What was refused in a session; `None` if the session is not this owner's.
    pub fn refused(&self, key: &SessionKey, owner: &Owner) -> Option<Vec<StructNode>> {
        let table = self.lock();
        let session = table.sessions.get(key)?;
        session.belongs_to(owner).then(|| session.refused.clone())
    }

    /// A session was opened for what was asked.
    pub fn open(&self, key: SessionKey, owner: &Owner, refused: Vec<StructNode>, asked: &Asked) {
        let mut table = self.lock();
        let mut session = Session {
            principal: owner.principal.name.clone(),
            tenant: owner.principal.tenant.clone(),
            view: owner.view.map(Arc::downgrade),
            generation: owner.generation,
            refused: Vec::new(),
            refused_bytes: 0,
            topics: HashSet::new(),
            bytes: 0,
        };
        session.refuse(refused);
        match session.add(asked) {
            true => table.insert(key, session),
            false => table.remove(&key),
        }
    }

    /// A session goes on with more topics, and with other refused partitions if `refused` says so.
    pub fn go_on(&self, key: &SessionKey, refused: Option<Vec<StructNode>>, asked: &Asked) {
        let mut table = self.lock();
        let Some(session) = table.sessions.get_mut(key) else {
            return;
        };
        let before = session.memory();
        if let Some(refused) = refused {
            session.refuse(refused);
        }
        let (fits, after) = (session.add(asked), session.memory());
        table.bytes = table.bytes - before + after;
        match fits {
            true => table.make_room(),
            false => table.remove(key),
        }
    }

    /// A topic of the session for which `may_read` is false. `Some(None)`: the session is not
    /// remembered, so that nobody can tell.
    pub fn unreadable(
        &self,
        key: &SessionKey,
        may_read: impl Fn(&str) -> bool,
    ) -> Option<Option<Box<str>>> {
        let table = self.lock();
        let Some(session) = table.sessions.get(key) else {
            return Some(None);
        };
        let lost = session.topics.iter().find(|name| !may_read(name));
        lost.map(|name| Some(name.clone()))
    }

    /// The session has ended.
    pub fn forget(&self, key: &SessionKey) {
        self.lock().remove(key);
    }

    /// How many sessions are remembered.
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicySet;
    use crate::policy::model::{Operation, ResourceKind, Subject};
    use crate::principal::Proof;

    fn principal(name: &str) -> Principal {
        Principal {
            name: name.into(),
            tenant: "".into(),
            groups: [].into(),
            proof: Proof::Static,
            expires_at: None,
        }
    }

    fn owner(principal: &Principal, generation: u64) -> Owner<'_> {
        Owner {
            principal,
            view: None,
            generation,
        }
    }

    #[test]
    fn a_session_belongs_to_those_with_the_same_rights() {
        let sessions = FetchSessions::default();
        let broker = BrokerAddr {
            host: "b".into(),
            port: 1,
        };
        let (key, a) = ((broker, 7), principal("User:a"));
        let view = || {
            let subject = Subject {
                principal: &a,
                host: [127, 0, 0, 1].into(),
            };
            Arc::new(PolicySet::default().view(&subject))
        };
        let (one, other) = (view(), view());
        let with = |view| Owner {
            view,
            ..owner(&a, 1)
        };
        let opener = with(Some(&one));
        sessions.open(key.clone(), &opener, Vec::new(), &Asked::default());
        assert!(sessions.refused(&key, &opener).is_some());
        for stranger in [Some(&other), None] {
            assert!(sessions.refused(&key, &with(stranger)).is_none());
        }
    }

    #[test]
    fn a_session_belongs_to_its_principal_broker_and_policies() {
        let sessions = FetchSessions::default();
        let key = |port, id| {
            (
                BrokerAddr {
                    host: "b".into(),
                    port,
                },
                id,
            )
        };
        let (a, b) = (principal("User:a"), principal("User:b"));
        sessions.open(key(1, 7), &owner(&a, 1), Vec::new(), &Asked::default());
        assert!(sessions.refused(&key(1, 7), &owner(&a, 1)).is_some());
        assert!(
            sessions.refused(&key(1, 7), &owner(&b, 1)).is_none(),
            "another principal"
        );
        assert!(
            sessions.refused(&key(2, 7), &owner(&a, 1)).is_none(),
            "another broker"
        );
        assert!(
            sessions.refused(&key(1, 7), &owner(&a, 2)).is_none(),
            "other policies"
        );
        sessions.forget(&key(1, 7));
        assert!(sessions.refused(&key(1, 7), &owner(&a, 1)).is_none());
    }

    #[test]
    fn a_session_knows_every_topic_it_was_asked_for() {
        let sessions = FetchSessions::default();
        let broker = BrokerAddr {
            host: "b".into(),
            port: 1,
        };
        let (key, a) = ((broker, 7), principal("User:a"));
        let asked = |names: &[&str]| {
            let mut asked = Asked::default();
            for name in names {
                asked.add(Operation::Read, ResourceKind::Topic, name);
            }
            asked
        };
        assert_eq!(sessions.unreadable(&key, |_| true), Some(None));
        sessions.open(key.clone(), &owner(&a, 1), Vec::new(), &asked(&["one"]));
        sessions.go_on(&key, None, &asked(&["two", "one"]));
        assert_eq!(sessions.unreadable(&key, |_| true), None);
        for lost in ["one", "two"] {
            let found = sessions.unreadable(&key, |name| name != lost);
            assert_eq!(found, Some(Some(lost.into())));
        }
        // One with more topics than are remembered is not known any more.
        for number in 0..2_000 {
            let name = format!("{number:0200}");
            sessions.go_on(&key, None, &asked(&[&name]));
        }
        assert!(sessions.refused(&key, &owner(&a, 1)).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = FetchSessions::default();
        let a = principal("User:a");
        for id in 0..SESSIONS_MAX as i32 + 10 {
            sessions.open(
                (
                    BrokerAddr {
                        host: "b".into(),
                        port: 1,
                    },
                    id,
                ),
                &owner(&a, 1),
                Vec::new(),
                &Asked::default(),
            );
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }

    #[test]
    fn t38_sessions_share_one_budget() {
        let sessions = FetchSessions::default();
        let a = principal("User:a");
        let broker = BrokerAddr {
            host: "b".into(),
            port: 1,
        };
        let mut asked = Asked::default();
        let name = "x".repeat(NAMES_BYTES_MAX / 2);
        asked.add(Operation::Read, ResourceKind::Topic, &name);
        let fit = SESSIONS_BYTES_MAX / (name.len() + TOPIC_BYTES);
        for id in 0..fit as i32 + 10 {
            let key = (broker.clone(), id);
            sessions.open(key, &owner(&a, 1), Vec::new(), &asked);
        }
        assert_eq!(sessions.len(), fit);
        for id in 0..fit as i32 + 10 {
            sessions.forget(&(broker.clone(), id));
        }
        assert!(sessions.is_empty() && sessions.lock().bytes == 0);
    }
}
