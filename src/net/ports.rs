//! Which broker has which local port: the first of the range plus the broker's rank by id at
//! first sight, kept for the life of the process. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The mapping of one listener.
#[derive(Clone, Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    assigned: BTreeMap<i32, u16>,
}

/// The range has no port left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no port left for broker {broker} in {first}-{last}")]
pub struct RangeTooSmall {
    /// The broker without a port.
    pub broker: i32,
    /// First port of the range.
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
}

impl Ports {
    /// No broker has a port yet.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Ports {
            range,
            assigned: BTreeMap::new(),
        }
    }

    /// The port of a broker, a new one if it has none. Brokers seen together must be assigned
    /// in the order of their ids.
    pub fn assign(&mut self, broker: i32) -> Result<u16, RangeTooSmall> {
        if let Some(port) = self.assigned.get(&broker) {
            return Ok(*port);
        }
        let (first, last) = (*self.range.start(), *self.range.end());
        let port = u16::try_from(self.assigned.len())
            .ok()
            .and_then(|n| first.checked_add(n));
        match port.filter(|port| *port <= last) {
            Some(port) => {
                self.assigned.insert(broker, port);
                Ok(port)
            }
            None => Err(RangeTooSmall {
                broker,
                first,
                last,
            }),
        }
    }

    /// The port of a broker that has one.
    pub fn port(&self, broker: i32) -> Option<u16> {
        self.assigned.get(&broker).copied()
    }

    /// Every broker with its port.
    pub fn all(&self) -> impl Iterator<Item = (i32, u16)> {
        self.assigned.iter().map(|(broker, port)| (*broker, *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_and_the_range_ends() {
        let mut ports = Ports::new(100..=101);
        assert_eq!(ports.assign(7), Ok(100));
        assert_eq!(ports.assign(2), Ok(101));
        assert_eq!(ports.assign(7), Ok(100));
        assert_eq!(
            ports.assign(3),
            Err(RangeTooSmall {
                broker: 3,
                first: 100,
                last: 101
            })
        );
        assert_eq!(ports.port(3), None);
    }
}
