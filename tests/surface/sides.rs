//! The two sides of a comparison with a broker, and the ids that a topic has on each.

use crate::asks::made_up;
use std::collections::HashMap;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// To the broker with Kafka's authorizer.
    Strict,
    /// Through Kordon, to the open broker.
    Kordon,
}

/// Both sides.
pub const SIDES: [Side; 2] = [Side::Strict, Side::Kordon];

/// The ids of the topics of a side.
pub type Topics = HashMap<String, [u8; 16]>;

/// What is known of both.
#[derive(Default)]
pub struct Ids(HashMap<Side, Topics>);

impl Ids {
    /// The topics of a side.
    pub fn of(&mut self, side: Side) -> &mut Topics {
        self.0.entry(side).or_default()
    }

    /// The id of a topic; a made-up one if it does not exist.
    pub fn id(&self, side: Side, topic: &str) -> [u8; 16] {
        let known = self.0.get(&side).and_then(|ids| ids.get(topic));
        known.copied().unwrap_or_else(|| made_up(topic))
    }

    /// The topic with that id.
    pub fn topic(&self, side: Side, id: &[u8; 16]) -> Option<&str> {
        let ids = self.0.get(&side)?;
        let found = ids.iter().find(|(_, known)| *known == id);
        found.map(|(name, _)| name.as_str())
    }
}
