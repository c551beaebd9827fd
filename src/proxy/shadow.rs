//! Sets of policies that are decided beside the one in force, without effect: where one decides
//! otherwise, that is counted and, sampled, told in the audit log. Nothing here changes a request
//! or an answer, and where there is no such set nothing here is called.
//!
//! What goes on byte for byte is asked about name by name, as on the way in. What is read as a
//! tree is judged whole by each set, on a copy: a set may let a request pass for another reason
//! (Create on the cluster in the place of Create on each topic), so that a single question says
//! little.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::client::Client;
use super::judge::{DECISIONS_MAX, Learned, TopicNames};
use crate::apis::{Answered, Api, Guard, InForce, Question};
use crate::policy::model::{Operation, ResourceKind, RuleRef, Subject};
use crate::policy::tenant::{Tenant, tenant_of};
use crate::policy::{PolicySet, View};
use crate::principal::{Principal, TextClaims};
use crate::telemetry::audit::DIGEST_DIGITS;
use crate::telemetry::{ShadowSet, Would};
use crate::topic_rules::Change;
use crate::upstream::Topology;
use crate::wire::tree::StructNode;

/// Most questions of one request or answer that a set may refuse and that are compared.
pub const COMPARED_MAX: usize = 4_096;

/// A set of policies that is decided beside the one in force.
pub struct Set {
    /// Which one.
    pub which: ShadowSet,
    /// Its rules.
    pub access: PolicySet,
    /// Who belongs to which tenant by it; `None`: to the one that is in force.
    pub tenants: Option<Vec<Tenant>>,
    /// Digest over its files, in hexadecimal.
    pub digest: String,
    /// The files.
    pub files: Vec<String>,
}

/// A set as far as it concerns one client.
pub struct Beside {
    /// Which one.
    pub which: ShadowSet,
    /// Its rules.
    pub view: Arc<View>,
    /// The begin of its digest, as in audit lines.
    pub policy: Option<Arc<str>>,
    /// Where the client belongs by it, if not where it belongs in force.
    pub note: Option<String>,
}

impl Set {
    /// What the set says of a client that has proven `proven` and is `placed` by the policies in
    /// force.
    pub fn beside(
        &self,
        proven: &Principal,
        placed: &Principal,
        claims: &TextClaims,
        host: IpAddr,
    ) -> Beside {
        let nobody = PolicySet::default();
        let (mut principal, mut access, mut note) = (placed.clone(), &self.access, None);
        match self.tenants.as_ref().map(|t| tenant_of(t, proven, claims)) {
            None => {}
            Some(Ok(tenant)) if tenant == placed.tenant => {}
            Some(Ok(tenant)) => {
                note = Some(match &*tenant {
                    "" => "there the client has no tenant".to_owned(),
                    name => format!("there the client's tenant is `{name}`"),
                });
                principal.tenant = tenant;
            }
            // It would not be served.
            Some(Err(two)) => {
                note = Some(format!("there the client {two}"));
                principal.tenant = "".into();
                access = &nobody;
            }
        }
        let subject = Subject {
            principal: &principal,
            host,
        };
        Beside {
            which: self.which,
            view: access.shared_view(&subject),
            policy: self.digest.get(..DIGEST_DIGITS).map(Into::into),
            note,
        }
    }
}

/// What was asked.
pub type Asked = (Operation, ResourceKind, String);

/// One thing that a set would have decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The set.
    pub which: ShadowSet,
    /// What it would have done.
    pub would: Would,
    /// What was asked; `None`: the request as a whole, for a reason that names nothing.
    pub asked: Option<Asked>,
    /// The set's rule.
    pub rule: Option<RuleRef>,
}

/// Differences of one request; most have none.
#[derive(Debug, Default)]
pub struct Differences(pub Option<Box<Found>>);

/// Differences, as many as are remembered.
#[derive(Debug, Default)]
pub struct Found {
    /// These.
    pub list: Vec<Difference>,
    /// How many there were besides, by what would have been done, then by the set.
    pub more: [[u64; ShadowSet::COUNT]; Would::COUNT],
}

impl Differences {
    fn add(&mut self, difference: Difference) {
        let found = self.0.get_or_insert_default();
        if found.list.len() >= DECISIONS_MAX {
            let Difference { which, would, .. } = difference;
            found.more[would as usize][which as usize] += 1;
            return;
        }
        found.list.push(difference);
    }

    /// Those that are remembered.
    pub fn list(&self) -> &[Difference] {
        self.0.as_ref().map_or(&[], |found| &found.list)
    }

    /// Something was allowed: would it be?
    pub fn allowed(
        &mut self,
        sets: &[Beside],
        operation: Operation,
        kind: ResourceKind,
        name: &str,
    ) {
        for set in sets {
            let decision = set.view.decide(operation, kind, name);
            if !decision.allowed {
                self.add(Difference {
                    which: set.which,
                    would: Would::Deny,
                    asked: Some((operation, kind, name.to_owned())),
                    rule: decision.rule,
                });
            }
        }
    }

    /// What stands for the differences in [`of_answer`]: of a name that the request was about, the
    /// answer tells nothing more.
    pub fn told(&self) -> Vec<u64> {
        self.list().iter().map(about).collect()
    }
}

fn about(difference: &Difference) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Difference {
        which,
        would,
        asked,
        ..
    } = difference;
    let name = asked.as_ref().map(|(_, kind, name)| (kind, name));
    (which, would, name).hash(&mut hasher);
    hasher.finish()
}

/// What the sets say of a request that is judged as a tree.
pub fn of_request(
    client: &mut Client,
    api: &'static Api,
    version: i16,
    request: &StructNode,
    learned: Option<&Learned>,
) -> Differences {
    let mut found = Differences::default();
    let Some(view) = client.view.as_ref().filter(|_| !client.beside.is_empty()) else {
        return found;
    };
    let (topics, topology) = (&mut client.topics, &client.proxy.cluster.topology);
    let run = |view: &View| {
        let mut copy = request.clone();
        let mut guard = Recorder {
            learned,
            ..Recorder::new(view, topics, topology)
        };
        let mut question = Question::new(api, version, &mut copy, &mut guard);
        let passed = question.judge().is_ok();
        let refused = question.refused.len();
        Run {
            passed,
            refused,
            ..guard.run
        }
    };
    compare_all(&client.beside, view, run, &mut found);
    found
}

/// What the sets would leave in an answer, or take from it. `told` stands for what was told of
/// the request.
pub fn of_answer(
    client: &mut Client,
    filter: fn(&mut Answered),
    version: i16,
    response: &StructNode,
    told: &[u64],
) -> Differences {
    let mut found = Differences::default();
    let Some(view) = client.view.as_ref().filter(|_| !client.beside.is_empty()) else {
        return found;
    };
    let (topics, topology) = (&mut client.topics, &client.proxy.cluster.topology);
    let run = |view: &View| {
        let mut copy = response.clone();
        let mut guard = Recorder {
            sees_too: true,
            ..Recorder::new(view, topics, topology)
        };
        filter(&mut Answered {
            version,
            response: &mut copy,
            guard: &mut guard,
        });
        Run {
            passed: true,
            ..guard.run
        }
    };
    compare_all(&client.beside, view, run, &mut found);
    if let Some(found) = &mut found.0 {
        found.list.retain(|one| !told.contains(&about(one)));
    }
    found
}

/// Runs the judgement by the set in force, then by each of the others, and compares.
fn compare_all(
    beside: &[Beside],
    view: &View,
    mut run: impl FnMut(&View) -> Run,
    found: &mut Differences,
) {
    let in_force = run(view);
    for set in beside {
        let other = run(&set.view);
        compare(set.which, (&in_force, view), (&other, &set.view), found);
    }
}

/// What one set refuses of a request.
#[derive(Default)]
struct Run {
    denied: HashMap<Asked, Option<RuleRef>>,
    /// There was more than is compared.
    is_cut: bool,
    passed: bool,
    refused: usize,
}

impl Run {
    fn deny(&mut self, asked: Asked, rule: Option<RuleRef>) {
        match self.denied.len() < COMPARED_MAX {
            true => _ = self.denied.entry(asked).or_insert(rule),
            false => self.is_cut = true,
        }
    }

    /// Whether it lets pass what the other set refuses. What was not asked about is not refused
    /// only where nothing else ended the judgement before.
    fn lets_pass(&self, view: &View, (operation, kind, name): &Asked) -> bool {
        let asked = (*operation, *kind, name.clone());
        !self.denied.contains_key(&asked)
            && ((self.passed && !self.is_cut) || view.decide(*operation, *kind, name).allowed)
    }
}

/// Adds what the other set decides otherwise than the one in force.
fn compare(
    which: ShadowSet,
    (in_force, view): (&Run, &View),
    (other, others): (&Run, &View),
    found: &mut Differences,
) {
    let before = found.list().len();
    for (asked, rule) in &other.denied {
        if in_force.lets_pass(view, asked) {
            found.add(Difference {
                which,
                would: Would::Deny,
                asked: Some(asked.clone()),
                rule: rule.clone(),
            });
        }
    }
    for asked in in_force.denied.keys() {
        if other.lets_pass(others, asked) {
            let (operation, kind, name) = asked;
            let decision = others.decide(*operation, *kind, name);
            found.add(Difference {
                which,
                would: Would::Allow,
                asked: Some(asked.clone()),
                rule: decision.rule.filter(|_| decision.allowed),
            });
        }
    }
    if found.list().len() > before {
        return;
    }
    // Refused without a question about one name: a regular expression over all topics, say.
    let let_pass = |run: &Run| (run.passed, std::cmp::Reverse(run.refused));
    let would = match let_pass(other).cmp(&let_pass(in_force)) {
        std::cmp::Ordering::Less => Would::Deny,
        std::cmp::Ordering::Greater => Would::Allow,
        std::cmp::Ordering::Equal => return,
    };
    found.add(Difference {
        which,
        would,
        asked: None,
        rule: None,
    });
}

/// Answers by one set, and remembers what it refuses.
struct Recorder<'a> {
    view: &'a View,
    topics: &'a mut TopicNames,
    topology: &'a Topology,
    /// What the cluster has said for this request's sake.
    learned: Option<&'a Learned>,
    /// Also what is only not shown; the cluster apart, of which answers ask only whether single
    /// names matter at all.
    sees_too: bool,
    run: Run,
}

impl<'a> Recorder<'a> {
    fn new(view: &'a View, topics: &'a mut TopicNames, topology: &'a Topology) -> Self {
        Recorder {
            view,
            topics,
            topology,
            learned: None,
            sees_too: false,
            run: Run::default(),
        }
    }
}

impl Guard for Recorder<'_> {
    fn allows(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool {
        let decision = self.view.decide(operation, kind, name);
        if !decision.allowed {
            let asked = (operation, kind, name.to_owned());
            self.run.deny(asked, decision.rule);
        }
        decision.allowed
    }

    fn sees(&mut self, operation: Operation, kind: ResourceKind, name: &str) -> bool {
        match self.sees_too && kind != ResourceKind::Cluster {
            true => self.allows(operation, kind, name),
            false => self.view.decide(operation, kind, name).allowed,
        }
    }

    fn allows_any(&mut self, operation: Operation, kind: ResourceKind) -> bool {
        self.view.decide_any(operation, kind).allowed
    }

    fn allows_all(&mut self, operation: Operation, kind: ResourceKind) -> bool {
        self.view.allows_all(operation, kind)
    }

    fn within(&mut self, kind: ResourceKind, name: Option<&str>) -> bool {
        self.view.within(kind, name)
    }

    fn topic_name(&mut self, id: &[u8; 16]) -> Option<Arc<str>> {
        self.topics.name(id, self.topology)
    }

    /// Nobody is asked for the sake of what has no effect: where it matters, it is there.
    fn partitions(&mut self, _topic: &str) -> usize {
        usize::MAX
    }

    /// Nor here; what is not listed then is compared name by name.
    fn topics(&mut self) -> Option<Vec<String>> {
        let topics = self.learned?.topics.clone()?;
        self.sees_too = true;
        Some(topics)
    }

    /// Topic rules are the same beside either set; those that only observe are asked behind those
    /// in force.
    fn objection(&mut self, _topic: &str, _change: &Change<'_>) -> Option<String> {
        None
    }

    fn makes_topics(&mut self) -> bool {
        true
    }

    fn may_appear(&mut self, _topic: &str) -> bool {
        true
    }

    /// What rules there are is told by the set in force alone.
    fn rules(&self) -> Option<InForce<'_>> {
        None
    }
}

#[cfg(test)]
mod tests;
