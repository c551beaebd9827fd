//! Ports that two listeners would both bind.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::net::settings::{Advertise, ListenerSettings};
use crate::problem::{Place, Problems};

/// Ports bound on one address.
pub(super) struct Ports {
    owner: String,
    ip: IpAddr,
    ports: RangeInclusive<u16>,
    place: Place,
}

impl Ports {
    pub(super) fn one(owner: String, addr: SocketAddr, place: Place) -> Ports {
        let ports = addr.port()..=addr.port();
        let ip = addr.ip();
        Ports {
            owner,
            ip,
            ports,
            place,
        }
    }

    fn shown(&self) -> String {
        match (self.ports.start(), self.ports.end()) {
            (from, to) if from == to => format!("port {from} of {}", self.owner),
            (from, to) => format!("ports {from}-{to} of {}", self.owner),
        }
    }
}

/// What a listener binds: its bootstrap port and one port for each broker.
pub(super) fn of_listener(listener: &ListenerSettings, place: &Place) -> Vec<Ports> {
    let owner = format!("listener `{}`", listener.name);
    let mut all = vec![Ports::one(owner.clone(), listener.bind, place.clone())];
    if let Advertise::Ports { ports, .. } = &listener.advertise {
        all.push(Ports {
            owner,
            ip: listener.bind.ip(),
            ports: ports.clone(),
            place: place.clone(),
        });
    }
    all
}

/// Reports each pair that meets. Port 0 is any free port and meets nothing.
pub(super) fn check(all: &[Ports], problems: &mut Problems) {
    for (at, one) in all.iter().enumerate() {
        for earlier in all.iter().take(at) {
            let apart = one.ports.end() < earlier.ports.start()
                || earlier.ports.end() < one.ports.start()
                || *one.ports.start() == 0
                || *earlier.ports.start() == 0;
            if !apart && same_interface(one.ip, earlier.ip) {
                let message = format!("{} overlaps {}", one.shown(), earlier.shown());
                problems.error(&one.place, message);
            }
        }
    }
}

/// An unspecified address binds every interface; `::` usually takes IPv4 as well.
fn same_interface(a: IpAddr, b: IpAddr) -> bool {
    let takes =
        |any: IpAddr, other: IpAddr| any.is_unspecified() && (any.is_ipv6() || other.is_ipv4());
    a == b || takes(a, b) || takes(b, a)
}
