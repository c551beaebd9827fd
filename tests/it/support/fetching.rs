//! Fetch sessions as a broker has them (KIP-227), in front of the embedded broker, which has none:
//! each request of a session is made a full one, and its answer an incremental one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use uuid::Uuid;

const NOT_FOUND: i16 = 70;
const INVALID_EPOCH: i16 = 71;

type Parts = BTreeMap<(TopicName, Uuid, i32), FetchPartition>;

/// The sessions of a broker.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<i32, (i32, Parts)>>);

/// What becomes of an answer.
pub struct Wanted {
    session_id: i32,
    is_full: bool,
}

impl Sessions {
    /// Makes a full request of one, or says why that cannot be.
    pub fn full(&self, request: &mut FetchRequest) -> Result<Wanted, i16> {
        let mut sessions = self.0.lock().unwrap();
        let (id, epoch) = (request.session_id, request.session_epoch);
        let session_id = match (id, epoch) {
            (0, 0) => {
                let id = 1_000 + sessions.len() as i32;
                sessions.insert(id, (0, Parts::new()));
                id
            }
            (0, _) => {
                return Ok(Wanted {
                    session_id: 0,
                    is_full: true,
                });
            }
            (id, _) => id,
        };
        let (next, parts) = sessions.get_mut(&session_id).ok_or(NOT_FOUND)?;
        if *next != epoch {
            return Err(INVALID_EPOCH);
        }
        *next += 1;
        for topic in std::mem::take(&mut request.topics) {
            for part in topic.partitions {
                parts.insert((topic.topic.clone(), topic.topic_id, part.partition), part);
            }
        }
        for gone in std::mem::take(&mut request.forgotten_topics_data) {
            for part in gone.partitions {
                parts.remove(&(gone.topic.clone(), gone.topic_id, part));
            }
        }
        let topic = |((name, id, _), part): (&(TopicName, Uuid, i32), &FetchPartition)| {
            FetchTopic::default()
                .with_topic(name.clone())
                .with_topic_id(*id)
                .with_partitions(vec![part.clone()])
        };
        request.topics = parts.iter().map(topic).collect();
        (request.session_id, request.session_epoch) = (0, -1);
        Ok(Wanted {
            session_id,
            is_full: epoch == 0,
        })
    }
}

impl Wanted {
    /// Makes the session's answer of a full one.
    pub fn answer(&self, answer: &mut FetchResponse) {
        answer.session_id = self.session_id;
        if self.is_full {
            return;
        }
        for topic in &mut answer.responses {
            let has_news = |records: &Option<bytes::Bytes>| {
                records.as_ref().is_some_and(|records| !records.is_empty())
            };
            (topic.partitions).retain(|part| part.error_code != 0 || has_news(&part.records));
        }
        answer
            .responses
            .retain(|topic| !topic.partitions.is_empty());
    }
}
