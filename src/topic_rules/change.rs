//! Topics that are made or changed, held against the rules: the number of partitions or replicas
//! that a request states or leaves to the cluster, and the configurations that it sets.

use super::spec::{Allowed, CreateSpec, Range, Wanted};
use super::{MESSAGE_CHARS_MAX, Objection, clipped, shown};
use crate::policy::model::{Operation, RuleRef};

/// Most broken rules that one message tells.
const TOLD_MAX: usize = 4;

/// What a request would do to one topic.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// As what it was authorised: Create, Alter, AlterConfigs.
    pub operation: Operation,
    /// Whether the topic is made, so that its name matters.
    pub is_new: bool,
    /// How many partitions it has then; `None`: as many as it has now.
    pub partitions: Option<Count>,
    /// How many replicas its partitions have then, each number that stands in the request.
    pub replicas: Vec<Count>,
    /// The configurations that are touched. One that is absent is the cluster's own word.
    pub configs: Vec<ConfigChange<'a>>,
}

/// A number in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// This one.
    Stated(i64),
    /// Whatever the cluster has as its default.
    Default,
}

/// What the cluster gives topics that state no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `num.partitions`.
    pub partitions: i64,
    /// `default.replication.factor`.
    pub replication_factor: i64,
}

/// One configuration that is touched.
#[derive(Clone, Copy, Debug)]
pub struct ConfigChange<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is done to it.
    pub how: How<'a>,
}

/// What is done to a configuration. What puts it back to the cluster's default is none of these.
#[derive(Clone, Copy, Debug)]
pub enum How<'a> {
    /// It becomes this.
    Set(&'a str),
    /// This is added to its list.
    Append(&'a str),
    /// Something is taken out of its list.
    Subtract,
}

/// Rules that are broken, as they are found.
#[derive(Debug, Default)]
pub(super) struct Found {
    first: Option<RuleRef>,
    told: Vec<String>,
    more: usize,
}

impl Found {
    fn add(&mut self, policy: &str, key: &str, at: &RuleRef, what: impl FnOnce() -> String) {
        self.first.get_or_insert_with(|| at.clone());
        if self.told.len() == TOLD_MAX {
            self.more += 1;
            return;
        }
        let policy = shown(policy);
        self.told
            .push(format!("policy `{policy}`, {key}: {}", what()));
    }

    /// What is said about all of them; `None`: there is none.
    pub(super) fn objection(self) -> Option<Objection> {
        let mut message = self.told.join("; ");
        if self.more > 0 {
            message += &format!("; and {} more", self.more);
        }
        let message = clipped(&message, MESSAGE_CHARS_MAX);
        let rule = self.first?;
        Some(Objection { rule, message })
    }
}

impl CreateSpec {
    /// Adds every rule that the change breaks to `found`.
    pub(super) fn judge(
        &self,
        policy: &str,
        topic: &str,
        change: &Change<'_>,
        defaults: &mut dyn FnMut() -> Option<Defaults>,
        found: &mut Found,
    ) {
        if let Some(rule) = &self.name
            && change.is_new
            && !rule.value.whole.is_match(topic.as_bytes())
        {
            found.add(policy, "create.name", &rule.at, || {
                let (pattern, topic) = (&rule.value.written, shown(topic));
                format!("expected a name that matches `{pattern}`, got `{topic}`")
            });
        }
        if let (Some(rule), Some(count)) = (&self.partitions, change.partitions) {
            let key = "create.partitions";
            let mut default = || defaults().map(|defaults| defaults.partitions);
            if let Some(what) = outside(rule, count, &mut default) {
                found.add(policy, key, &rule.at, || what);
            }
        }
        if let Some(rule) = &self.replication_factor {
            let key = "create.replicationFactor";
            let mut default = || defaults().map(|defaults| defaults.replication_factor);
            let mut broken =
                (change.replicas.iter()).filter_map(|count| outside(rule, *count, &mut default));
            if let Some(what) = broken.next() {
                found.add(policy, key, &rule.at, || what);
            }
        }
        for (name, rule) in &self.configs {
            for config in change.configs.iter().filter(|config| config.name == name) {
                if let Some(what) = unlike(&rule.value, config.how) {
                    let key = format!("create.configs.{name}");
                    found.add(policy, &key, &rule.at, || what);
                }
            }
        }
    }
}

/// What is wrong with a number; `None`: nothing.
fn outside(
    rule: &Wanted<Range>,
    count: Count,
    default: &mut dyn FnMut() -> Option<i64>,
) -> Option<String> {
    let range = rule.value;
    match count {
        Count::Stated(number) if range.contains(number) => None,
        Count::Stated(number) => Some(format!("expected {range}, got {number}")),
        Count::Default => match default() {
            Some(number) if range.contains(number) => None,
            Some(number) => Some(format!(
                "expected {range}, got none, and the cluster's default is {number}"
            )),
            None => Some(format!(
                "expected {range}, got none, and the cluster's default is not known here: state it"
            )),
        },
    }
}

/// What is wrong with a configuration; `None`: nothing.
fn unlike(allowed: &[Allowed], how: How<'_>) -> Option<String> {
    let expected = || {
        let each: Vec<String> = allowed.iter().map(Allowed::to_string).collect();
        each.join(" or ")
    };
    match how {
        How::Set(value) if holds(allowed, value) => None,
        How::Append(value) if value.split(',').all(|item| is_one_of(allowed, item)) => None,
        How::Set(value) => Some(format!("expected {}, got `{}`", expected(), shown(value))),
        How::Append(value) => Some(format!(
            "expected {}, got `{}` to be appended",
            expected(),
            shown(value)
        )),
        How::Subtract => Some(format!(
            "expected {}: set it as a whole, what a subtraction leaves is not known here",
            expected()
        )),
    }
}

/// Whether a value is allowed, or is a list of which each item is.
fn holds(allowed: &[Allowed], value: &str) -> bool {
    is_one_of(allowed, value)
        || (value.contains(',') && value.split(',').all(|item| is_one_of(allowed, item)))
}

fn is_one_of(allowed: &[Allowed], value: &str) -> bool {
    // What Java's `trim` takes off.
    let value = value.trim_matches(|c| c <= ' ');
    allowed.iter().any(|one| one.is(value))
}
