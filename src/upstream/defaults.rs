//! What the cluster gives topics that state no numbers (`num.partitions` and
//! `default.replication.factor`), and whether it makes topics by itself: asked of a broker when
//! somebody needs to know, and kept for a while. The proxy's own identity needs DescribeConfigs on
//! the cluster for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use super::control::{AskError, Cluster, ask};
use super::frames;
use crate::clock;
use crate::wire::tree::{Node, StructNode};

/// How long an answer serves before the cluster is asked again.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// How long nobody asks again after a question without an answer.
const PAUSE: Duration = Duration::from_secs(10);
/// The key of DescribeConfigs, and a version that every broker has.
const DESCRIBE_CONFIGS: i16 = 32;
const DESCRIBE_CONFIGS_VERSION: i16 = 1;
/// Kafka's `ConfigResource.Type` code of brokers.
const BROKER: i64 = 4;
const PARTITIONS: &str = "num.partitions";
const REPLICATION_FACTOR: &str = "default.replication.factor";
const MAKES_TOPICS: &str = "auto.create.topics.enable";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDefaults {
    /// `num.partitions`.
    pub partitions: i64,
    /// `default.replication.factor`.
    pub replication_factor: i64,
    /// `auto.create.topics.enable`.
    pub makes_topics: bool,
}

/// What is known of the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// These, a minute ago at most; or later, where the cluster did not answer since.
    Defaults(TopicDefaults),
    /// The cluster has not answered.
    Nothing,
    /// Nobody has asked lately.
    Ask,
}

/// The last answer, and when to ask again.
#[derive(Debug, Default)]
pub(super) struct Cell {
    state: Mutex<State>,
    /// One question at a time: those who wait find the answer already there.
    asking: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct State {
    defaults: Option<TopicDefaults>,
    good_until: Option<Instant>,
}

impl Cluster {
    /// What is known; asks nobody.
    pub fn topic_defaults(&self) -> Known {
        let state = self.defaults.state.lock();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        match (state.good_until, state.defaults) {
            (Some(until), _) if clock::now() >= until => Known::Ask,
            (None, _) => Known::Ask,
            (Some(_), Some(defaults)) => Known::Defaults(defaults),
            (Some(_), None) => Known::Nothing,
        }
    }

    /// Whether the cluster makes topics because somebody asks for them, as far as is known: Kafka's
    /// own default is that it does. Asks nobody.
    pub fn makes_topics(&self) -> bool {
        let state = self.defaults.state.lock();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.defaults.is_none_or(|known| known.makes_topics)
    }

    /// Whether the cluster has said that it does. Asks nobody.
    pub fn is_known_to_make_topics(&self) -> bool {
        let state = self.defaults.state.lock();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.defaults.is_some_and(|known| known.makes_topics)
    }

    /// Asks a broker, unless somebody else just has. Afterwards it is known, or it is known that
    /// it cannot be known for now.
    pub async fn learn_topic_defaults(&self) {
        let _one_at_a_time = self.defaults.asking.lock().await;
        if self.topic_defaults() != Known::Ask {
            return;
        }
        let answer = self.ask_topic_defaults().await;
        let state = self.defaults.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(defaults) => {
                state.defaults = Some(defaults);
                state.good_until = clock::now().checked_add(FRESH_FOR);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask the cluster for its defaults for new topics");
                // What it said before is still the best guess. A right that is missing is not
                // there a moment later.
                let pause = match error {
                    AskError::Refused(_) => FRESH_FOR,
                    _ => PAUSE,
                };
                state.good_until = clock::now().checked_add(pause);
            }
        }
    }

    async fn ask_topic_defaults(&self) -> Result<TopicDefaults, AskError> {
        let known = self.topology.brokers();
        let addresses: Vec<_> = known.iter().map(|(_, addr)| addr.clone()).collect();
        let (addr, mut dialled) = self.asking()?.race(&addresses).await?;
        // A broker describes itself, by its id, and no other.
        let id = known.iter().find(|(_, known)| *known == addr);
        let (id, _) = id.ok_or(AskError::Unreadable)?;
        let mut request = frames::new_request(DESCRIBE_CONFIGS).ok_or(AskError::Unreadable)?;
        let mut resource = request.element("Resources");
        let keys = [PARTITIONS, REPLICATION_FACTOR, MAKES_TOPICS];
        let keys = keys.map(|key| Node::Bytes(Some(key.as_bytes().into())));
        resource
            .set_int("ResourceType", BROKER)
            .set_text("ResourceName", Some(&id.to_string()))
            .set("ConfigurationKeys", Node::Array(Some(keys.into())));
        request.structs_mut("Resources").push(resource);
        let stream = &mut dialled.stream;
        let version = DESCRIBE_CONFIGS_VERSION;
        let answer = ask(stream, DESCRIBE_CONFIGS, version, &request).await?;
        let described = answer.structs("Results").first();
        let described = described.ok_or(AskError::Unreadable)?;
        match described.int("ErrorCode") {
            0 => read(described).ok_or(AskError::Unreadable),
            code => Err(AskError::Refused(code as i16)),
        }
    }
}

fn read(described: &StructNode) -> Option<TopicDefaults> {
    let configs = described.structs("Configs");
    let value = |name: &str| {
        let config = configs
            .iter()
            .find(|config| config.text("Name") == Some(name));
        config?.text("Value")
    };
    let number = |name: &str| value(name)?.parse().ok();
    Some(TopicDefaults {
        partitions: number(PARTITIONS)?,
        replication_factor: number(REPLICATION_FACTOR)?,
        makes_topics: value(MAKES_TOPICS) != Some("false"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(configs: &[(&str, Option<&str>)]) -> StructNode {
        let layout = crate::apis::layout(DESCRIBE_CONFIGS).unwrap();
        let mut result = StructNode::new(&layout.response.body).element("Results");
        for (name, value) in configs {
            let mut config = result.element("Configs");
            config
                .set_text("Name", Some(name))
                .set_text("Value", *value);
            result.structs_mut("Configs").push(config);
        }
        result
    }

    #[test]
    fn both_numbers_must_be_there() {
        let both = [(PARTITIONS, Some("6")), (REPLICATION_FACTOR, Some("3"))];
        let known = TopicDefaults {
            partitions: 6,
            replication_factor: 3,
            makes_topics: true,
        };
        assert_eq!(read(&described(&both)), Some(known));
        for (value, makes_topics) in [("false", false), ("true", true)] {
            let all = [both[0], both[1], (MAKES_TOPICS, Some(value))];
            let known = TopicDefaults {
                makes_topics,
                ..known
            };
            assert_eq!(read(&described(&all)), Some(known));
        }
        assert_eq!(read(&described(&both[..1])), None);
        for value in [None, Some("many"), Some("")] {
            let odd = [both[0], (REPLICATION_FACTOR, value)];
            assert_eq!(read(&described(&odd)), None, "{value:?}");
        }
    }
}
