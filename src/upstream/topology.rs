//! What is known of the cluster: brokers with their real addresses, and topics by id. Learned
//! from the proxy's own questions and from every answer that passes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::broker::{BrokerAddr, BrokerId};

/// Most brokers that are remembered.
pub const BROKERS_MAX: usize = 10_000;
/// Most topic ids that are remembered; the oldest is forgotten first and asked for again.
pub const TOPIC_IDS_MAX: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Topology {
    brokers: Mutex<BTreeMap<BrokerId, BrokerAddr>>,
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    names: HashMap<[u8; 16], Arc<str>>,
    order: VecDeque<[u8; 16]>,
}

impl Topology {
    /// Remembers a broker; true if it is new. A known broker that moved keeps its local port.
    pub fn learn_broker(&self, id: BrokerId, addr: BrokerAddr) -> bool {
        let mut brokers = lock(&self.brokers);
        if brokers.get(&id) == Some(&addr) {
            return false;
        }
        if brokers.len() >= BROKERS_MAX && !brokers.contains_key(&id) {
            return false;
        }
        brokers.insert(id, addr).is_none()
    }

    /// The real address of a broker.
    pub fn broker(&self, id: BrokerId) -> Option<BrokerAddr> {
        lock(&self.brokers).get(&id).cloned()
    }

    /// Every broker seen so far.
    pub fn brokers(&self) -> Vec<(BrokerId, BrokerAddr)> {
        lock(&self.brokers)
            .iter()
            .map(|(id, addr)| (*id, addr.clone()))
            .collect()
    }

    /// Remembers what topic an id stands for. Kafka never gives an id to another topic, and a
    /// topic that is made again gets a new one, so what is remembered cannot become wrong.
    pub fn learn_topic(&self, id: [u8; 16], name: &str) {
        let mut topics = lock(&self.topics);
        if id == [0; 16] || topics.names.contains_key(&id) {
            return;
        }
        if topics.names.len() >= TOPIC_IDS_MAX {
            let oldest = topics.order.pop_front();
            oldest.and_then(|oldest| topics.names.remove(&oldest));
        }
        topics.names.insert(id, name.into());
        topics.order.push_back(id);
    }

    /// The topic with that id, if it is known here.
    pub fn topic(&self, id: &[u8; 16]) -> Option<Arc<str>> {
        lock(&self.topics).names.get(id).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_broker_may_move_but_is_not_new() {
        let topology = Topology::default();
        let addr = |port| BrokerAddr {
            host: "b".into(),
            port,
        };
        assert!(topology.learn_broker(1, addr(1)));
        assert!(!topology.learn_broker(1, addr(1)));
        assert!(!topology.learn_broker(1, addr(2)));
        assert_eq!(topology.broker(1), Some(addr(2)));
    }

    #[test]
    fn the_oldest_topic_id_is_forgotten_first() {
        let topology = Topology::default();
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
            id
        };
        for n in 0..=TOPIC_IDS_MAX {
            topology.learn_topic(id(n), "t");
        }
        assert_eq!(topology.topic(&id(0)), None);
        assert!(topology.topic(&id(TOPIC_IDS_MAX)).is_some());
        topology.learn_topic([0; 16], "zero");
        assert_eq!(topology.topic(&[0; 16]), None);
    }
}
