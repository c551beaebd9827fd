//! A Produce request read while it arrives: its topics and the head of each partition's records,
//! the records themselves left where they are. What this does not understand is no error: the
//! request is then read as a whole, by the walker, which knows why.

use super::TopicRef;
use crate::wire::primitive::{Reader, WireError};
use crate::wire::records::BATCH_HEADER_BYTES;

/// First version with a transactional id (KIP-98).
const TRANSACTIONAL_ID_SINCE: i16 = 3;
/// First version with compact lengths and tagged fields (KIP-482).
const FLEXIBLE_SINCE: i16 = 9;
/// First version that names topics by id (KIP-516).
const TOPIC_ID_SINCE: i16 = 13;

/// Where in a request of one version the reading stands.
#[derive(Debug)]
pub struct Outline {
    version: i16,
    stage: Stage,
    /// Topics and partitions of the current topic that have not ended yet.
    topics: usize,
    partitions: usize,
    acks: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Topic,
    Partition,
    PartitionEnd,
    TopicEnd,
    Tail,
    Done,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next<'b> {
    /// It has not arrived, or is not what a Produce request has here.
    Short,
    /// The following partitions belong to this topic.
    Topic(TopicRef<'b>),
    /// Records follow; they begin with a batch header.
    Records {
        /// The first bytes of the records.
        head: &'b [u8; BATCH_HEADER_BYTES],
        /// All of the records, the head included.
        bytes: usize,
    },
    /// The request is over.
    End,
}

impl Outline {
    /// At the start of the body of a request.
    pub fn new(version: i16) -> Self {
        Outline {
            version,
            stage: Stage::Start,
            topics: 0,
            partitions: 0,
            acks: 0,
        }
    }

    /// The acknowledgements asked for; known once there was a topic.
    pub fn acks(&self) -> i16 {
        self.acks
    }

    /// Whether nothing but tagged fields follows the records found last.
    pub fn is_last(&self) -> bool {
        self.topics == 1 && self.partitions == 1
    }

    /// Reads on in `bytes`, which begin where the last call stopped (behind the records, if it
    /// found some); says how many bytes it has read. Of records it reads nothing.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> (usize, Next<'b>) {
        let mut done = 0;
        while self.stage != Stage::Done {
            let mut reader = Reader::new(&bytes[done..]);
            match self.step(&mut reader) {
                Ok(found) => {
                    done += reader.position();
                    if let Some(found) = found {
                        return (done, found);
                    }
                }
                Err(_) => return (done, Next::Short),
            }
        }
        (done, Next::End)
    }

    /// One step; leaves everything as it was where the bytes do not suffice.
    fn step<'b>(&mut self, reader: &mut Reader<'b>) -> Result<Option<Next<'b>>, WireError> {
        let flexible = self.version >= FLEXIBLE_SINCE;
        match self.stage {
            Stage::Start => {
                if self.version >= TRANSACTIONAL_ID_SINCE {
                    let length = reader.string_length(flexible)?.unwrap_or_default();
                    // What the walker would not read is not understood here either.
                    std::str::from_utf8(reader.take(length)?).map_err(|_| WireError::Utf8)?;
                }
                let acks = reader.i16()?;
                let _timeout_ms = reader.i32()?;
                self.topics = reader.long_length(flexible)?.ok_or(WireError::Null)?;
                self.acks = acks;
                self.stage = self.topic_or_tail();
            }
            Stage::Topic => {
                let topic = if self.version >= TOPIC_ID_SINCE {
                    let id = reader.take(16)?.first_chunk();
                    TopicRef::Id(id.ok_or(WireError::Truncated)?)
                } else {
                    let length = reader.string_length(flexible)?.ok_or(WireError::Null)?;
                    let name = std::str::from_utf8(reader.take(length)?);
                    TopicRef::Name(name.map_err(|_| WireError::Utf8)?)
                };
                self.partitions = reader.long_length(flexible)?.ok_or(WireError::Null)?;
                self.stage = self.partition_or_end();
                return Ok(Some(Next::Topic(topic)));
            }
            Stage::Partition => {
                let _index = reader.i32()?;
                let bytes = reader.long_length(flexible)?.ok_or(WireError::Null)?;
                let head = reader.rest().first_chunk().ok_or(WireError::Truncated)?;
                if bytes < head.len() {
                    return Err(WireError::Length(bytes as i64));
                }
                self.stage = Stage::PartitionEnd;
                return Ok(Some(Next::Records { head, bytes }));
            }
            Stage::PartitionEnd => {
                self.tags(reader)?;
                self.partitions = self.partitions.saturating_sub(1);
                self.stage = self.partition_or_end();
            }
            Stage::TopicEnd => {
                self.tags(reader)?;
                self.topics = self.topics.saturating_sub(1);
                self.stage = self.topic_or_tail();
            }
            Stage::Tail => {
                self.tags(reader)?;
                self.stage = Stage::Done;
            }
            Stage::Done => {}
        }
        Ok(None)
    }

    fn tags(&self, reader: &mut Reader) -> Result<(), WireError> {
        match self.version >= FLEXIBLE_SINCE {
            true => reader.tags(|_, _, _| Ok(())),
            false => Ok(()),
        }
    }

    fn topic_or_tail(&self) -> Stage {
        match self.topics {
            0 => Stage::Tail,
            _ => Stage::Topic,
        }
    }

    fn partition_or_end(&self) -> Stage {
        match self.partitions {
            0 => Stage::TopicEnd,
            _ => Stage::Partition,
        }
    }
}

#[cfg(test)]
mod tests;
