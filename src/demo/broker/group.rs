//! Classic consumer groups (the protocol before KIP-848) as a state machine. Pure: time is an
//! argument, ids come from outside, and an answer that must wait is a sender that is kept.
//! A static member (KIP-345) that comes back causes a rebalance, which Kafka can avoid.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::code;
use super::member::{Answer, Commit, Joined, Joining, Member, Phase, Synced};

/// Members of one group.
pub const MEMBERS_MAX: usize = 500;
/// Member ids handed out and not yet used.
const PENDING_MAX: usize = 1_000;
/// Assignment protocols that one member may offer.
const PROTOCOLS_MAX: usize = 50;

/// One group.
#[derive(Debug)]
pub struct Group {
    /// Where it stands.
    pub phase: Phase,
    /// By member id.
    pub members: BTreeMap<String, Member>,
    /// Committed offsets by topic and partition.
    pub commits: BTreeMap<(String, i32), Commit>,
    /// `consumer`, for consumers; empty before the first member.
    pub protocol_type: String,
    /// The protocol in force; empty outside a generation.
    pub protocol: String,
    generation: i32,
    leader: String,
    statics: HashMap<String, String>,
    pending: HashMap<String, Instant>,
    deadline: Option<Instant>,
}

impl Group {
    /// A group without members.
    pub fn new() -> Self {
        Self {
            phase: Phase::Empty,
            members: BTreeMap::new(),
            commits: BTreeMap::new(),
            protocol_type: String::new(),
            protocol: String::new(),
            generation: 0,
            leader: String::new(),
            statics: HashMap::new(),
            pending: HashMap::new(),
            deadline: None,
        }
    }

    /// A client joins; `new_id` becomes its member id if it has none yet.
    pub fn join(&mut self, mut joining: Joining, new_id: String, now: Instant) -> Answer<Joined> {
        let refuse = |error: i16, member_id: &str| {
            Answer::Now(Joined {
                error,
                generation: -1,
                member_id: member_id.to_owned(),
                ..Joined::default()
            })
        };
        let id = joining.member_id.clone();
        if joining.protocols.len() > PROTOCOLS_MAX || !self.fits(&joining) {
            return refuse(code::INCONSISTENT_GROUP_PROTOCOL, &id);
        }
        if id.is_empty() {
            if self.members.len() + self.pending.len() >= MEMBERS_MAX.min(PENDING_MAX) {
                return refuse(code::GROUP_MAX_SIZE_REACHED, &id);
            }
            if joining.id_required && joining.instance_id.is_none() {
                self.pending
                    .insert(new_id.clone(), now + joining.session_timeout);
                return refuse(code::MEMBER_ID_REQUIRED, &new_id);
            }
            if let Some(old) = joining
                .instance_id
                .as_ref()
                .and_then(|i| self.statics.get(i))
            {
                let old = old.clone();
                self.fence(&old);
            }
            joining.member_id.clone_from(&new_id);
        } else if self.fenced(&id, joining.instance_id.as_deref()) {
            return refuse(code::FENCED_INSTANCE_ID, &id);
        } else if self.pending.remove(&id).is_none() {
            let Some(member) = self.members.get_mut(&id) else {
                return refuse(code::UNKNOWN_MEMBER_ID, &id);
            };
            member.seen = now;
            let same = member.joining.protocols == joining.protocols;
            let settled = match self.phase {
                Phase::CompletingRebalance => same,
                Phase::Stable => same && id != self.leader,
                Phase::Empty | Phase::PreparingRebalance => false,
            };
            if settled {
                return Answer::Now(self.joined(&id));
            }
        }
        let id = joining.member_id.clone();
        if let Some(instance) = &joining.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.protocol_type.clone_from(&joining.protocol_type);
        let (sender, receiver) = oneshot::channel();
        let member = self.members.entry(id).or_insert_with(|| Member {
            joining: joining.clone(),
            assignment: Bytes::new(),
            seen: now,
            join: None,
            sync: None,
        });
        member.joining = joining;
        member.join = Some(sender);
        self.rebalance(now);
        self.complete_if_all_joined(now);
        Answer::Later(receiver)
    }

    /// A member asks for its assignment; the leader brings everyone's.
    pub fn sync(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        protocol: Option<&str>,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> Answer<Synced> {
        let refuse = |error| {
            Answer::Now(Synced {
                error,
                assignment: Bytes::new(),
            })
        };
        if let Err(error) = self.check_member(member_id, instance_id, generation) {
            return refuse(error);
        }
        if protocol.is_some_and(|p| p != self.protocol) {
            return refuse(code::INCONSISTENT_GROUP_PROTOCOL);
        }
        let leads = member_id == self.leader;
        let Some(member) = self.members.get_mut(member_id) else {
            return refuse(code::UNKNOWN_MEMBER_ID);
        };
        member.seen = now;
        match self.phase {
            Phase::Empty => refuse(code::UNKNOWN_MEMBER_ID),
            Phase::PreparingRebalance => refuse(code::REBALANCE_IN_PROGRESS),
            Phase::Stable => Answer::Now(Synced {
                error: code::NONE,
                assignment: member.assignment.clone(),
            }),
            Phase::CompletingRebalance => {
                let (sender, receiver) = oneshot::channel();
                member.sync = Some(sender);
                if leads {
                    self.assign(assignments, now);
                }
                Answer::Later(receiver)
            }
        }
    }

    /// A sign of life; answers Kafka's error code.
    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> i16 {
        if let Err(error) = self.check_member(member_id, instance_id, generation) {
            return error;
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.seen = now;
        }
        match self.phase {
            Phase::PreparingRebalance => code::REBALANCE_IN_PROGRESS,
            _ => code::NONE,
        }
    }

    /// A member leaves, named by its id or, if that is empty, by its instance id.
    pub fn leave(&mut self, member_id: &str, instance_id: Option<&str>, now: Instant) -> i16 {
        let id = match instance_id {
            Some(instance) => match self.statics.get(instance) {
                Some(id) if member_id.is_empty() || member_id == id => id.clone(),
                Some(_) => return code::FENCED_INSTANCE_ID,
                None => return code::UNKNOWN_MEMBER_ID,
            },
            None => member_id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.complete_if_all_joined(now);
            return code::NONE;
        }
        if !self.remove(&id) {
            return code::UNKNOWN_MEMBER_ID;
        }
        self.after_removal(now);
        code::NONE
    }

    /// Whether this member may commit offsets now.
    pub fn may_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        if generation < 0 && self.members.is_empty() {
            return Ok(()); // offsets kept by a client that assigns partitions itself
        }
        self.check_member(member_id, instance_id, generation)?;
        if self.phase == Phase::CompletingRebalance {
            return Err(code::REBALANCE_IN_PROGRESS);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.seen = now;
        }
        Ok(())
    }

    /// Lets time pass: removes members that were silent too long and ends a rebalance that has
    /// waited long enough.
    pub fn tick(&mut self, now: Instant) {
        let before = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.join.is_none() && m.sync.is_none())
            .filter(|(_, m)| now.duration_since(m.seen) >= m.joining.session_timeout)
            .map(|(id, _)| id.clone())
            .collect();
        let mut removed = 0;
        for id in silent {
            removed += usize::from(self.remove(&id));
        }
        if removed > 0 {
            self.after_removal(now);
        } else if before != self.pending.len() {
            self.complete_if_all_joined(now);
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.give_up_waiting(now);
        }
    }

    /// Whether nothing would be lost if the group were forgotten.
    pub fn is_forgettable(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && self.commits.is_empty()
    }

    fn fits(&self, joining: &Joining) -> bool {
        if joining.protocol_type.is_empty() || joining.protocols.is_empty() {
            return false;
        }
        let others = || {
            self.members
                .iter()
                .filter(|(id, _)| **id != joining.member_id)
        };
        if others().next().is_some() && joining.protocol_type != self.protocol_type {
            return false;
        }
        joining.protocols.iter().any(|(name, _)| {
            others().all(|(_, m)| m.joining.protocols.iter().any(|(other, _)| other == name))
        })
    }

    fn fenced(&self, member_id: &str, instance_id: Option<&str>) -> bool {
        instance_id
            .and_then(|i| self.statics.get(i))
            .is_some_and(|current| current != member_id)
    }

    fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), i16> {
        if self.fenced(member_id, instance_id) {
            return Err(code::FENCED_INSTANCE_ID);
        }
        if !self.members.contains_key(member_id) {
            return Err(code::UNKNOWN_MEMBER_ID);
        }
        if generation != self.generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        Ok(())
    }

    /// The old incarnation of a static member hears that another has taken its place.
    fn fence(&mut self, member_id: &str) {
        let Some(old) = self.members.remove(member_id) else {
            return;
        };
        if let Some(sender) = old.join {
            let _ = sender.send(Joined {
                error: code::FENCED_INSTANCE_ID,
                generation: -1,
                member_id: member_id.to_owned(),
                ..Joined::default()
            });
        }
        if let Some(sender) = old.sync {
            let _ = sender.send(Synced {
                error: code::FENCED_INSTANCE_ID,
                assignment: Bytes::new(),
            });
        }
    }

    fn remove(&mut self, member_id: &str) -> bool {
        let Some(member) = self.members.remove(member_id) else {
            return false;
        };
        if let Some(instance) = &member.joining.instance_id {
            self.statics.remove(instance);
        }
        if let Some(sender) = member.join {
            let _ = sender.send(Joined {
                error: code::UNKNOWN_MEMBER_ID,
                generation: -1,
                member_id: member_id.to_owned(),
                ..Joined::default()
            });
        }
        if let Some(sender) = member.sync {
            let _ = sender.send(Synced {
                error: code::UNKNOWN_MEMBER_ID,
                assignment: Bytes::new(),
            });
        }
        true
    }

    fn after_removal(&mut self, now: Instant) {
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => {
                self.rebalance(now);
                self.complete_if_all_joined(now);
            }
            Phase::PreparingRebalance => self.complete_if_all_joined(now),
            Phase::Empty => {}
        }
    }

    fn rebalance(&mut self, now: Instant) {
        if self.phase == Phase::PreparingRebalance {
            return;
        }
        for member in self.members.values_mut() {
            if let Some(sender) = member.sync.take() {
                let _ = sender.send(Synced {
                    error: code::REBALANCE_IN_PROGRESS,
                    assignment: Bytes::new(),
                });
            }
        }
        self.phase = Phase::PreparingRebalance;
        self.deadline = Some(now + self.longest_rebalance());
    }

    fn longest_rebalance(&self) -> Duration {
        let timeouts = self.members.values().map(|m| m.joining.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }

    fn give_up_waiting(&mut self, now: Instant) {
        let late: Vec<String> = match self.phase {
            Phase::PreparingRebalance => {
                self.pending.clear();
                let absent = self.members.iter().filter(|(_, m)| m.join.is_none());
                absent.map(|(id, _)| id.clone()).collect()
            }
            Phase::CompletingRebalance => {
                let absent = self.members.iter().filter(|(_, m)| m.sync.is_none());
                absent.map(|(id, _)| id.clone()).collect()
            }
            Phase::Empty | Phase::Stable => Vec::new(),
        };
        self.deadline = None;
        for id in late {
            self.remove(&id);
        }
        self.after_removal(now);
    }

    fn complete_if_all_joined(&mut self, now: Instant) {
        if self.phase != Phase::PreparingRebalance
            || !self.pending.is_empty()
            || self.members.values().any(|m| m.join.is_none())
        {
            return;
        }
        self.generation += 1;
        self.deadline = None;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol.clear();
            self.leader.clear();
            return;
        }
        self.protocol = self.elected_protocol();
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        self.phase = Phase::CompletingRebalance;
        self.deadline = Some(now + self.longest_rebalance());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.seen = now;
                member.assignment = Bytes::new();
                if let Some(sender) = member.join.take() {
                    let _ = sender.send(answer);
                }
            }
        }
    }

    /// Each member votes for the first of its protocols that all support; most votes win.
    fn elected_protocol(&self) -> String {
        let offered = |m: &Member| -> HashSet<String> {
            m.joining.protocols.iter().map(|(n, _)| n.clone()).collect()
        };
        let mut all = self.members.values().map(offered);
        let first = all.next().unwrap_or_default();
        let common = all.fold(first, |a, b| a.intersection(&b).cloned().collect());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.joining.protocols.iter().map(|(name, _)| name);
            if let Some(name) = choice.into_iter().find(|name| common.contains(*name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let winner = votes.into_iter().max_by_key(|(_, count)| *count);
        winner.map_or_else(String::new, |(name, _)| name.to_owned())
    }

    fn joined(&self, member_id: &str) -> Joined {
        let metadata = |m: &Member| {
            let chosen = m
                .joining
                .protocols
                .iter()
                .find(|(n, _)| *n == self.protocol);
            chosen.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
        };
        let members = if member_id == self.leader {
            self.members
                .iter()
                .map(|(id, m)| (id.clone(), m.joining.instance_id.clone(), metadata(m)))
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            error: code::NONE,
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: Some(self.protocol.clone()),
            leader: self.leader.clone(),
            member_id: member_id.to_owned(),
            members,
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Instant) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        self.deadline = None;
        for member in self.members.values_mut() {
            member.seen = now;
            if let Some(sender) = member.sync.take() {
                let _ = sender.send(Synced {
                    error: code::NONE,
                    assignment: member.assignment.clone(),
                });
            }
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
