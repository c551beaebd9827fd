//! The topics of the embedded broker: names, ids, partitions, and the few configurations that
//! have an effect here. Pure: ids come from outside as random bytes.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::batch::Refusal;
use super::code;
use super::log::{Log, Retention};

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Random; a topic made again under the same name has another.
    pub id: Uuid,
    /// By partition index.
    pub partitions: Vec<Log>,
    /// The configurations set when the topic was made.
    pub configs: BTreeMap<&'static str, String>,
    defaults: Defaults,
}

/// What a topic without configurations of its own has.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `retention.bytes` of each partition.
    pub retention_bytes: usize,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
}

/// How many topics and partitions there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Topics.
    pub topics_max: usize,
    /// Partitions of all topics together.
    pub partitions_max: usize,
}

/// A configuration of a topic: its name and whether it may be set to other than the default.
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// The value where none is set; empty: computed from [`Defaults`].
    pub fixed: Option<&'static str>,
    /// Kafka's `ConfigType` code: 2 string, 3 int, 5 long, 7 list.
    pub kind: i8,
}

/// Every topic configuration there is here. One with a fixed value accepts only that value:
/// nothing is taken that would have no effect.
pub const CONFIG_KEYS: [ConfigKey; 7] = [
    ConfigKey {
        name: "cleanup.policy",
        fixed: Some("delete"),
        kind: 7,
    },
    ConfigKey {
        name: "compression.type",
        fixed: Some("producer"),
        kind: 2,
    },
    ConfigKey {
        name: "max.message.bytes",
        fixed: None,
        kind: 3,
    },
    ConfigKey {
        name: "message.timestamp.type",
        fixed: Some("CreateTime"),
        kind: 2,
    },
    ConfigKey {
        name: "min.insync.replicas",
        fixed: Some("1"),
        kind: 3,
    },
    ConfigKey {
        name: "retention.bytes",
        fixed: None,
        kind: 5,
    },
    ConfigKey {
        name: "retention.ms",
        fixed: None,
        kind: 5,
    },
];

impl Topic {
    /// How much of each partition is kept.
    pub fn retention(&self) -> Retention {
        let own = |key: &str| self.configs.get(key).and_then(|v| v.parse::<i64>().ok());
        let bytes = own("retention.bytes").and_then(|v| usize::try_from(v).ok());
        Retention {
            bytes_max: bytes
                .unwrap_or(self.defaults.retention_bytes)
                .min(self.defaults.retention_bytes),
            age_ms_max: own("retention.ms").filter(|ms| *ms >= 0),
        }
    }

    /// The largest batch taken, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.configs
            .get("max.message.bytes")
            .and_then(|v| v.parse().ok())
            .unwrap_or(self.defaults.message_bytes_max)
    }

    /// The value of a configuration and whether it was set for this topic.
    pub fn config(&self, key: &ConfigKey) -> (String, bool) {
        if let Some(own) = self.configs.get(key.name) {
            return (own.clone(), true);
        }
        let value = match (key.fixed, key.name) {
            (Some(fixed), _) => fixed.to_owned(),
            (None, "retention.bytes") => self.defaults.retention_bytes.to_string(),
            (None, "max.message.bytes") => self.defaults.message_bytes_max.to_string(),
            (None, _) => "-1".to_owned(),
        };
        (value, false)
    }
}

/// All topics.
#[derive(Debug)]
pub struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
    limits: Limits,
    defaults: Defaults,
}

impl Topics {
    /// No topic yet.
    pub fn new(limits: Limits, defaults: Defaults) -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: HashMap::new(),
            limits,
            defaults,
        }
    }

    /// The topic of this name.
    pub fn named(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    /// The topic of this name, to write to.
    pub fn named_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    /// The name of the topic with this id.
    pub fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Every topic, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, t)| (name.as_str(), t))
    }

    /// The partition of the topic, if both exist.
    pub fn partition(&self, topic: &str, index: i32) -> Option<&Log> {
        self.named(topic)?
            .partitions
            .get(usize::try_from(index).ok()?)
    }

    /// Whether a topic could be made so; the configurations as they would be kept.
    pub fn check<'a>(
        &self,
        name: &str,
        partitions: i32,
        configs: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<BTreeMap<&'static str, String>, Refusal> {
        check_name(name)?;
        if self.by_name.contains_key(name) {
            return Err(Refusal::new(
                code::TOPIC_ALREADY_EXISTS,
                format!("topic `{name}` already exists"),
            ));
        }
        if self.by_name.len() >= self.limits.topics_max {
            return Err(Refusal::new(
                code::POLICY_VIOLATION,
                format!(
                    "the embedded broker holds at most {} topics",
                    self.limits.topics_max
                ),
            ));
        }
        self.check_room(partitions)?;
        checked_configs(configs)
    }

    /// Makes a topic.
    pub fn create<'a>(
        &mut self,
        name: &str,
        id: [u8; 16],
        partitions: i32,
        configs: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<&Topic, Refusal> {
        let configs = self.check(name, partitions, configs)?;
        let id = uuid::Builder::from_random_bytes(id).into_uuid();
        let topic = Topic {
            id,
            partitions: (0..partitions).map(|_| Log::default()).collect(),
            configs,
            defaults: self.defaults,
        };
        self.names.insert(id, name.to_owned());
        Ok(self.by_name.entry(name.to_owned()).or_insert(topic))
    }

    /// Removes a topic and its records.
    pub fn delete(&mut self, name: &str) -> Option<Topic> {
        let topic = self.by_name.remove(name)?;
        self.names.remove(&topic.id);
        Some(topic)
    }

    /// Drops what is older than the topics' `retention.ms` allows.
    pub fn expire(&mut self, now_ms: i64) {
        for topic in self.by_name.values_mut() {
            let retention = topic.retention();
            if retention.age_ms_max.is_some() {
                for log in &mut topic.partitions {
                    log.expire(now_ms, retention);
                }
            }
        }
    }

    /// Raises the number of partitions to `count`; `commit` false only checks.
    pub fn grow(&mut self, name: &str, count: i32, commit: bool) -> Result<(), Refusal> {
        let Some(topic) = self.by_name.get(name) else {
            return Err(Refusal::new(
                code::UNKNOWN_TOPIC_OR_PARTITION,
                "the topic does not exist",
            ));
        };
        let present = topic.partitions.len() as i32;
        if count <= present {
            return Err(Refusal::new(
                code::INVALID_PARTITIONS,
                format!("the topic has {present} partitions, got {count}"),
            ));
        }
        self.check_room(count - present)?;
        if commit && let Some(topic) = self.by_name.get_mut(name) {
            topic.partitions.resize_with(count as usize, Log::default);
        }
        Ok(())
    }

    fn check_room(&self, more: i32) -> Result<(), Refusal> {
        let present: usize = self.by_name.values().map(|t| t.partitions.len()).sum();
        match usize::try_from(more) {
            Ok(more) if more > 0 && present.saturating_add(more) <= self.limits.partitions_max => {
                Ok(())
            }
            _ => Err(Refusal::new(
                code::INVALID_PARTITIONS,
                format!(
                    "a topic has at least one partition, all topics at most {}; got {more}",
                    self.limits.partitions_max
                ),
            )),
        }
    }
}

/// Kafka's rule: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Refusal::new(
        code::INVALID_TOPIC_EXCEPTION,
        "a topic name is 1 to 249 ASCII letters, digits, `.`, `_` or `-`",
    ))
}

fn checked_configs<'a>(
    configs: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<BTreeMap<&'static str, String>, Refusal> {
    let refuse = |message: String| Refusal::new(code::INVALID_CONFIG, message);
    let mut kept = BTreeMap::new();
    for (name, value) in configs {
        let Some(key) = CONFIG_KEYS.iter().find(|key| key.name == name) else {
            return Err(refuse(format!(
                "the embedded broker has no topic configuration `{name}`"
            )));
        };
        let Some(value) = value else {
            return Err(refuse(format!("`{name}` needs a value")));
        };
        match key.fixed {
            Some(fixed) if fixed != value => {
                return Err(refuse(format!(
                    "the embedded broker supports only `{fixed}` for `{name}`, got `{value}`"
                )));
            }
            None if value.parse::<i64>().is_ok_and(|n| n >= -1) => {}
            None => return Err(refuse(format!("`{name}` is a number, got `{value}`"))),
            Some(_) => {}
        }
        kept.insert(key.name, value.to_owned());
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        let limits = Limits {
            topics_max: 2,
            partitions_max: 5,
        };
        let defaults = Defaults {
            retention_bytes: 1000,
            message_bytes_max: 100,
        };
        Topics::new(limits, defaults)
    }

    fn none<'a>() -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        std::iter::empty()
    }

    #[test]
    fn topics_and_partitions_are_bounded() {
        let mut topics = topics();
        topics.create("a", [1; 16], 3, none()).unwrap();
        let refused = topics.create("b", [2; 16], 3, none()).unwrap_err();
        assert_eq!(refused.code, code::INVALID_PARTITIONS);
        topics.create("b", [2; 16], 1, none()).unwrap();
        let refused = topics.create("c", [3; 16], 1, none()).unwrap_err();
        assert_eq!(refused.code, code::POLICY_VIOLATION);
        assert!(topics.grow("b", 3, true).is_err());
        topics.grow("b", 2, true).unwrap();
        assert!(topics.partition("b", 1).is_some());
        assert!(topics.partition("b", 2).is_none());
        assert!(topics.partition("b", -1).is_none());
    }

    #[test]
    fn a_deleted_topic_takes_its_id_along() {
        let mut topics = topics();
        let id = topics.create("a", [1; 16], 1, none()).unwrap().id;
        assert_eq!(topics.name_of(id), Some("a"));
        assert!(topics.delete("a").is_some());
        assert_eq!(topics.name_of(id), None);
        assert!(topics.delete("a").is_none());
    }

    #[test]
    fn names_and_configurations_are_checked() {
        let mut topics = topics();
        for name in ["", ".", "..", "a b", "a/b", &"x".repeat(250)] {
            let refused = topics.create(name, [0; 16], 1, none()).unwrap_err();
            assert_eq!(refused.code, code::INVALID_TOPIC_EXCEPTION, "{name}");
        }
        for (key, value, good) in [
            ("retention.ms", "604800000", true),
            ("retention.ms", "week", false),
            ("cleanup.policy", "compact", false),
            ("cleanup.policy", "delete", true),
            ("segment.bytes", "1", false),
        ] {
            let configs = [(key, Some(value))].into_iter();
            assert_eq!(topics.check("a", 1, configs).is_ok(), good, "{key}={value}");
        }
    }
}
