//! The share sessions of one connection (KIP-932). A broker knows a session by its group and
//! member, and it ends with the connection; a request that goes on with it names none of its
//! topics, so they are remembered here for as long as it lasts.

use std::collections::HashSet;

use super::asked::{Asked, NAMES_BYTES_MAX};

/// Most sessions of one connection; the oldest is forgotten first. Kafka's client has one.
pub const SESSIONS_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct ShareSessions(Vec<Session>);

#[derive(Debug)]
struct Session {
    group: Box<str>,
    member: Box<str>,
    topics: HashSet<Box<str>>,
    bytes: usize,
}

impl ShareSessions {
    /// A session begins, in place of an earlier one of the same member.
    pub fn open(&mut self, group: &str, member: &str, asked: &Asked) {
        self.forget(group, member);
        if self.0.len() >= SESSIONS_MAX {
            self.0.remove(0);
        }
        self.0.push(Session {
            group: group.into(),
            member: member.into(),
            topics: HashSet::new(),
            bytes: 0,
        });
        self.go_on(group, member, asked);
    }

    /// A session goes on with more topics. One with more than are remembered is forgotten.
    pub fn go_on(&mut self, group: &str, member: &str, asked: &Asked) {
        let Some(session) = self.0.iter_mut().find(|one| one.is(group, member)) else {
            return;
        };
        for name in asked.topics() {
            if !session.topics.contains(name) {
                session.bytes += name.len();
                session.topics.insert(name.into());
            }
        }
        if session.bytes > NAMES_BYTES_MAX {
            self.forget(group, member);
        }
    }

    /// Every topic that was asked for in a session; `None`: it is not known on this connection.
    pub fn topics(&self, group: &str, member: &str) -> Option<impl Iterator<Item = &str>> {
        let session = self.0.iter().find(|one| one.is(group, member))?;
        Some(session.topics.iter().map(|name| &**name))
    }

    /// A session has ended.
    pub fn forget(&mut self, group: &str, member: &str) {
        self.0.retain(|one| !one.is(group, member));
    }
}

impl Session {
    fn is(&self, group: &str, member: &str) -> bool {
        *self.group == *group && *self.member == *member
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{Operation, ResourceKind};

    fn asked(name: &str) -> Asked {
        let mut asked = Asked::default();
        asked.add(Operation::Read, ResourceKind::Topic, name);
        asked
    }

    fn topics(sessions: &ShareSessions, member: &str) -> Option<Vec<String>> {
        let topics = sessions.topics("g", member)?;
        let mut all: Vec<String> = topics.map(str::to_owned).collect();
        all.sort();
        Some(all)
    }

    #[test]
    fn a_session_gathers_topics_until_it_begins_again() {
        let mut sessions = ShareSessions::default();
        sessions.go_on("g", "m", &asked("a"));
        assert_eq!(topics(&sessions, "m"), None);
        sessions.open("g", "m", &asked("a"));
        sessions.go_on("g", "m", &asked("b"));
        assert_eq!(topics(&sessions, "m").unwrap(), ["a", "b"]);
        assert!(sessions.topics("h", "m").is_none());
        sessions.open("g", "m", &asked("c"));
        assert_eq!(topics(&sessions, "m").unwrap(), ["c"]);
    }

    #[test]
    fn sessions_and_their_names_are_bounded() {
        let mut sessions = ShareSessions::default();
        for number in 0..=SESSIONS_MAX {
            sessions.open("g", &number.to_string(), &asked("a"));
        }
        assert!(topics(&sessions, "0").is_none() && topics(&sessions, "1").is_some());
        for number in 0..2_000 {
            sessions.go_on("g", "1", &asked(&format!("{number:0200}")));
        }
        assert_eq!(topics(&sessions, "1"), None);
    }
}
