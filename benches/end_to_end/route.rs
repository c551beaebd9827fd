//! The ways from a client to the broker that are compared: none between, haproxy in TCP mode as
//! the floor of a bare forwarder, and Kordon with ACLs on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::broker::Ports;
use crate::process::{Process, free_ports};
use crate::protocol::Connection;

/// How long a proxy may take to its first answer before the run is given up.
const START_MAX: Duration = Duration::from_secs(20);

/// Rules for other principals, so that the policy in force is not a toy.
const OTHER_PRINCIPALS: usize = 100;

/// A topic that is none of the bench's business.
const FOREIGN_TOPIC: &str = "team-1.orders";

/// TOPIC_AUTHORIZATION_FAILED.
const TOPIC_REFUSED: i16 = 29;

/// One way to the broker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Route {
    /// The client speaks to the broker itself.
    Direct,
    /// haproxy, `mode tcp`, `nbthread 2`.
    Haproxy,
    /// Kordon, static identity, ACLs on, plaintext on both sides.
    Kordon,
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Route::Direct => "direct",
            Route::Haproxy => "haproxy",
            Route::Kordon => "kordon",
        })
    }
}

/// How to start the proxies: made once, used for every start.
pub struct Launcher {
    folder: PathBuf,
    ports: Ports,
    kordon: PathBuf,
    kordon_ports: u16,
}

/// A route in use.
pub struct Running {
    /// Which one.
    pub route: Route,
    /// The bootstrap address for clients.
    pub address: String,
    /// The proxy; none on the direct route.
    pub proxy: Option<Process>,
    /// From the start of the process to the first Metadata answer.
    pub first_answer: Duration,
}

impl Running {
    /// The process id of the proxy, if there is one.
    pub fn pid(&self) -> Option<u32> {
        self.proxy.as_ref().map(Process::pid)
    }

    /// An error on this route, with what the proxy had to say.
    pub fn blame(&self, error: &dyn std::fmt::Display) -> String {
        let log = self
            .proxy
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default();
        format!("over {}: {error}\n{log}", self.route)
    }
}

impl Launcher {
    /// Writes the proxies' configuration below `folder`.
    pub fn new(folder: &Path, ports: Ports, kordon: &Path) -> Outcome<Launcher> {
        let kordon_ports = free_ports(6)?;
        fs::write(folder.join("haproxy.cfg"), haproxy_configuration(&ports))?;
        fs::create_dir_all(folder.join("policies"))?;
        fs::write(folder.join("policies/bench.yaml"), policy())?;
        fs::write(
            folder.join("kordon.yaml"),
            kordon_configuration(&ports, kordon_ports),
        )?;
        let kordon = kordon.to_path_buf();
        Ok(Launcher {
            folder: folder.to_path_buf(),
            ports,
            kordon,
            kordon_ports,
        })
    }

    /// Starts what the route needs and waits for the first Metadata answer through it.
    pub fn start(&self, route: Route) -> Outcome<Running> {
        let begun = Instant::now();
        let (address, proxy) = match route {
            Route::Direct => (format!("127.0.0.1:{}", self.ports.direct), None),
            Route::Haproxy => {
                let mut command = Command::new("haproxy");
                command
                    .arg("-db")
                    .arg("-f")
                    .arg(self.folder.join("haproxy.cfg"));
                let process = Process::start(&mut command, self.folder.join("haproxy.log"))?;
                (
                    format!("127.0.0.1:{}", self.ports.haproxy_front),
                    Some(process),
                )
            }
            Route::Kordon => {
                let mut command = Command::new(&self.kordon);
                command
                    .arg("run")
                    .arg("-c")
                    .arg(self.folder.join("kordon.yaml"));
                let process = Process::start(&mut command, self.folder.join("kordon.log"))?;
                (format!("127.0.0.1:{}", self.kordon_ports), Some(process))
            }
        };
        let mut running = Running {
            route,
            address,
            proxy,
            first_answer: Duration::ZERO,
        };
        loop {
            let answered =
                Connection::open(&running.address).and_then(|mut client| client.metadata(&[]));
            running.first_answer = begun.elapsed();
            if let Ok(answer) = answered
                && let Some(broker) = answer.brokers.first()
            {
                self.check(route, &running.address, broker.port)?;
                return Ok(running);
            }
            if let Some(process) = &mut running.proxy {
                process
                    .check_alive()
                    .map_err(|error| format!("{route} {error}"))?;
                if running.first_answer > START_MAX {
                    let log = process.log_tail();
                    return Err(format!("{route} gave no Metadata answer:\n{log}").into());
                }
            } else if running.first_answer > START_MAX {
                return Err("the broker gave no Metadata answer".into());
            }
            sleep(Duration::from_micros(200));
        }
    }
}

impl Launcher {
    /// A figure counts only if the clients cannot get past the proxy and the ACLs are in force.
    fn check(&self, route: Route, address: &str, advertised: i32) -> Outcome<()> {
        let Ports {
            direct,
            haproxy_back,
            kordon_back,
            ..
        } = self.ports;
        let own = [direct, haproxy_back, kordon_back].map(i32::from);
        if route != Route::Direct && own.contains(&advertised) {
            return Err(format!("Metadata leads past {route}, to port {advertised}").into());
        }
        if route == Route::Kordon {
            let answer = Connection::open(address)?.metadata(&[FOREIGN_TOPIC])?;
            let refused = answer
                .topics
                .iter()
                .all(|row| row.error_code == TOPIC_REFUSED);
            if !refused || answer.topics.is_empty() {
                return Err(format!("{route} shows `{FOREIGN_TOPIC}`: no ACLs in force").into());
            }
        }
        Ok(())
    }
}

fn haproxy_configuration(ports: &Ports) -> String {
    format!(
        "global\n  nbthread 2\n  maxconn 4000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n\
         frontend kafka\n  bind 127.0.0.1:{}\n  default_backend broker\n\
         backend broker\n  server broker 127.0.0.1:{}\n",
        ports.haproxy_front, ports.haproxy_back
    )
}

fn kordon_configuration(ports: &Ports, first: u16) -> String {
    format!(
        "upstream:\n  bootstrap: [\"127.0.0.1:{}\"]\n\
         listeners:\n  - name: app\n    bind: 127.0.0.1:{first}\n    \
         advertise: {{host: 127.0.0.1, ports: {}-{}}}\n    \
         identity: {{static: \"User:bench\"}}\n\
         policies: policies/\n\
         admin: {{bind: 127.0.0.1:{}}}\n",
        ports.kordon_back,
        first + 1,
        first + 4,
        first + 5
    )
}

fn policy() -> String {
    let mut text = String::from(
        "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: bench}\nspec:\n  \
         principals: [\"User:bench\"]\n  rules:\n    \
         - {allow: [Write, Read, Describe, Create], topics: [\"bench.*\"]}\n    \
         - {allow: [Read, Describe], groups: [\"bench.*\"]}\n    \
         - {deny: [All], topics: [\"bench.closed.*\"]}\n",
    );
    for number in 0..OTHER_PRINCIPALS {
        text.push_str(&format!(
            "---\napiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {{name: team-{number}}}\n\
             spec:\n  principals: [\"User:team-{number}\"]\n  rules:\n    \
             - {{allow: [Read, Write], topics: [\"team-{number}.*\"]}}\n    \
             - {{allow: [Read], topics: [shared.events], groups: [\"team-{number}.*\"]}}\n"
        ));
    }
    text
}
