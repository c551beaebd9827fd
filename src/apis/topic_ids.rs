//! The ids of the topics that a request names, to be known by name before it is judged.

use crate::wire::layout::{Field, Role};
use crate::wire::primitive::WireError;
use crate::wire::walk::{Scalar, Visitor};

/// Collects the topic ids of a request as it is walked; the zero id names nothing.
#[derive(Debug, Default)]
pub struct TopicIds {
    /// What was found, in order.
    pub found: Vec<[u8; 16]>,
}

/// Most ids of one request that are asked for; the others stay unknown.
const TOPIC_IDS_MAX: usize = 10_000;

impl<'b> Visitor<'b> for TopicIds {
    fn scalar(
        &mut self,
        field: &Field,
        value: Scalar<'b>,
        _at: std::ops::Range<usize>,
    ) -> Result<(), WireError> {
        if let (Role::TopicId, Scalar::Uuid(id)) = (field.role, value)
            && *id != [0; 16]
            && self.found.len() < TOPIC_IDS_MAX
        {
            self.found.push(*id);
        }
        Ok(())
    }
}
