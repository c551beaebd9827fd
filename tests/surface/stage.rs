//! Two brokers with the same history, and Kordon before one of them.
//!
//! The strict one asks Kafka's own StandardAuthorizer, with ACLs for users who log in by
//! SASL/PLAIN. The open one lets everybody do everything; before it stands Kordon with one
//! listener for each user and policies that say what the ACLs say. The same requests go to the
//! strict broker and through Kordon, so both brokers live through the same changes as long as
//! the decisions agree.

use crate::acl::{self, Acl, CLUSTER, GROUP, OPERATIONS, TOPIC, TRANSACTIONAL_ID};
use crate::asks::{self, POLL, SETTLE_LIMIT, produce, produce_code, settled};
use crate::lab::kafka::{Kafka, authorizer, plain_listener};
use crate::lab::kordon::{Kordon, listener};
use crate::lab::{port, wait};
use crate::sides::Ids;
pub use crate::sides::{SIDES, Side};
use crate::socket::{Socket, request};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The version of Kafka on both sides.
const VERSION: &str = "4.3.0";

/// Topics that exist on both brokers.
pub const TOPICS: [&str; 2] = ["in.orders", "out.orders"];
/// Groups with a committed offset for each topic of `TOPICS`.
pub const GROUPS: [&str; 2] = ["in.group", "out.group"];

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    /// Topics, groups and transactional ids whose names begin so; empty: all of them.
    Names(&'static str),
    /// Topics whose names begin so; empty: all.
    Topics(&'static str),
    /// Groups whose names begin so.
    Groups(&'static str),
    /// The topic of that name.
    Topic(&'static str),
    /// The cluster.
    Cluster,
}

/// One rule: whether it allows, which operation (Kafka's name), on what.
pub type Rule = (bool, &'static str, On);

/// A user and what the user may do.
pub struct User {
    /// The name: principal `User:NAME`.
    pub name: &'static str,
    /// The rules, on both sides.
    pub rules: &'static [Rule],
}

/// Everything, by rules.
pub const ALL: &str = "all";
/// Nothing at all.
pub const NONE: &str = "none";

/// The permission sets.
pub const USERS: [User; 14] = [
    User {
        name: ALL,
        rules: &[(true, "All", On::Names("")), (true, "All", On::Cluster)],
    },
    User {
        name: NONE,
        rules: &[],
    },
    User {
        name: "describe",
        rules: &[(true, "Describe", On::Names("in."))],
    },
    User {
        name: "read",
        rules: &[(true, "Read", On::Names("in."))],
    },
    User {
        name: "write",
        rules: &[(true, "Write", On::Names("in."))],
    },
    User {
        name: "prefix",
        rules: &[(true, "All", On::Names("in."))],
    },
    User {
        name: "deny",
        rules: &[
            (true, "All", On::Names("")),
            (false, "All", On::Topics("out.")),
            (false, "All", On::Groups("out.")),
        ],
    },
    User {
        name: "denyread",
        rules: &[
            (true, "All", On::Names("")),
            (false, "Read", On::Topic("out.orders")),
            (false, "Describe", On::Topic("in.missing")),
        ],
    },
    User {
        name: "cluster",
        rules: &[(true, "All", On::Cluster)],
    },
    User {
        name: "clusterdescribe",
        rules: &[
            (true, "Describe", On::Cluster),
            (true, "Describe", On::Topics("in.")),
        ],
    },
    User {
        name: "clustercreate",
        rules: &[
            (true, "Create", On::Cluster),
            (true, "Delete", On::Cluster),
            (true, "IdempotentWrite", On::Cluster),
        ],
    },
    User {
        name: "create",
        rules: &[
            (true, "Create", On::Topics("in.")),
            (true, "Delete", On::Names("in.")),
            (true, "Alter", On::Topics("in.")),
        ],
    },
    User {
        name: "configs",
        rules: &[
            (true, "DescribeConfigs", On::Names("in.")),
            (true, "AlterConfigs", On::Cluster),
        ],
    },
    User {
        name: "grouponly",
        rules: &[(true, "All", On::Groups("")), (true, "Alter", On::Cluster)],
    },
];

/// The whole set-up.
pub struct Stage {
    /// The broker with ACLs.
    pub strict: Kafka,
    /// The broker without.
    pub open: Kafka,
    /// The proxy before it.
    pub kordon: Kordon,
    sasl: String,
    listeners: BTreeMap<&'static str, String>,
    ids: Ids,
}

impl Stage {
    /// Starts everything and brings both brokers to the same state.
    pub fn start() -> Result<Stage, String> {
        let sasl_port = port::free("127.0.77.1", 1);
        let strict = Kafka::start(VERSION, 1, &strict_properties(sasl_port))?;
        let open = Kafka::start(VERSION, 1, SHARED)?;
        let ports: Vec<u16> = USERS.iter().map(|_| port::free("127.0.0.1", 2)).collect();
        let upstream = open.addrs();
        let config = |own: &crate::lab::kordon::Ports| {
            let mut text = format!(
                "upstream:\n  bootstrap: [\"{}\"]\nlisteners:\n",
                upstream[0]
            );
            // The first is where the lab looks for a sign of life.
            text += &listener("lab", own.app, own.app + 1, "nobody");
            for (user, port) in USERS.iter().zip(&ports) {
                text += &listener(user.name, *port, port + 1, user.name);
            }
            let admin = own.admin;
            let _ = write!(
                text,
                "policies: policies/\nadmin: {{bind: \"127.0.0.1:{admin}\"}}\n"
            );
            text
        };
        let policies = policies();
        let files = [("policies/users.yaml", policies.as_str())];
        let kordon = Kordon::start("127.0.0.1", config, &files)?;
        let listeners = USERS
            .iter()
            .zip(&ports)
            .map(|(user, port)| (user.name, format!("127.0.0.1:{port}")))
            .collect();
        let mut stage = Stage {
            strict,
            open,
            kordon,
            sasl: format!("127.0.77.1:{sasl_port}"),
            listeners,
            ids: Ids::default(),
        };
        for side in SIDES {
            stage.prepare(side)?;
        }
        stage.grant();
        Ok(stage)
    }

    /// A connection of `user`.
    pub fn connect(&self, side: Side, user: &str) -> Socket {
        match side {
            Side::Strict => Socket::open_as(&self.sasl, user),
            Side::Kordon => Socket::open(&self.listeners[user]),
        }
    }

    /// A connection that authenticates nowhere: a super user's at the strict broker, at Kordon
    /// the one of who is allowed everything.
    pub fn plain(&self, side: Side) -> Socket {
        match side {
            Side::Strict => self.admin(side),
            Side::Kordon => self.connect(side, ALL),
        }
    }

    /// Where a user's listener is.
    pub fn address(&self, user: &str) -> &str {
        &self.listeners[user]
    }

    /// A connection to the broker of a side, past everything.
    pub fn admin(&self, side: Side) -> Socket {
        match side {
            Side::Strict => Socket::open(&self.strict.bootstrap()),
            Side::Kordon => Socket::open(&self.open.bootstrap()),
        }
    }

    /// Addresses that nobody may see through Kordon.
    pub fn hidden(&self) -> Vec<String> {
        self.open.addrs()
    }

    /// The id of a topic; a made-up one if it does not exist.
    pub fn id(&self, side: Side, topic: &str) -> [u8; 16] {
        self.ids.id(side, topic)
    }

    /// The topic with that id.
    pub fn topic(&self, side: Side, id: &[u8; 16]) -> Option<&str> {
        self.ids.topic(side, id)
    }

    /// Creates topics of one partition where they are missing, and learns their ids.
    pub fn create(&mut self, side: Side, topics: &[&str]) {
        let found = asks::create(&mut self.admin(side), topics);
        self.ids.of(side).extend(found);
    }

    fn prepare(&mut self, side: Side) -> Result<(), String> {
        self.create(side, &TOPICS);
        let mut admin = self.admin(side);
        for topic in TOPICS {
            let records = crate::body::batch(topic, crate::body::Kind::Plain);
            let write = produce(topic, &records);
            settled(&mut admin, 0, 9, &write, |a| produce_code(a) == 0)?;
        }
        asks::warm(&mut admin, &GROUPS, &TOPICS, ("in.warm", 60_000))
    }

    /// Writes the users' ACLs to the strict broker.
    fn grant(&self) {
        let mut create = request(30);
        let acls: Vec<Acl> = USERS.iter().flat_map(acls).collect();
        acls.iter().for_each(|acl| acl.add_to(&mut create));
        let mut admin = self.admin(Side::Strict);
        let answer = admin.call(30, 3, &create);
        for result in answer.structs("Results") {
            assert_eq!(result.int("ErrorCode"), 0, "{result:?}");
        }
        let mut found = 0;
        let all = wait::until(SETTLE_LIMIT, POLL, || {
            found = acl::count(&admin.call(29, 3, &acl::every()));
            (found == acls.len()).then_some(())
        });
        assert!(all.is_some(), "{found} of {} ACLs", acls.len());
    }
}

fn policies() -> String {
    let mut out = String::new();
    for user in USERS.iter().filter(|user| !user.rules.is_empty()) {
        acl::policy(&mut out, user.name, user.name, "*");
        out.extend(acls(user).iter().map(Acl::rule));
    }
    out
}

/// The ACLs of a user; a rule about several kinds of names is several.
fn acls(user: &'static User) -> Vec<Acl<'static>> {
    let mut acls = Vec::new();
    for (allow, operation, on) in user.rules {
        let operation = OPERATIONS.iter().position(|o| o == operation).unwrap() as i64 + 2;
        for (kind, prefixed, name) in resources(*on) {
            acls.push(Acl {
                allow: *allow,
                user: user.name,
                host: "*",
                operation,
                kind,
                prefixed,
                name,
            });
        }
    }
    acls
}

/// Resource type, whether the name is a prefix, and the name of the ACLs for a rule.
fn resources(on: On) -> Vec<(i64, bool, &'static str)> {
    let named = |kind, prefix: &'static str| match prefix {
        "" => (kind, false, "*"),
        prefix => (kind, true, prefix),
    };
    match on {
        On::Names(prefix) => [TOPIC, GROUP, TRANSACTIONAL_ID]
            .map(|kind| named(kind, prefix))
            .to_vec(),
        On::Topics(prefix) => vec![named(TOPIC, prefix)],
        On::Groups(prefix) => vec![named(GROUP, prefix)],
        On::Topic(name) => vec![(TOPIC, false, name)],
        On::Cluster => vec![(CLUSTER, false, "kafka-cluster")],
    }
}

/// What both brokers share beyond the lab's own properties.
const SHARED: &str = "group.max.session.timeout.ms=1800000
transaction.partition.verification.enable=true
";

fn strict_properties(sasl: u16) -> String {
    let plain = plain_listener(sasl, USERS.map(|user| (user.name, user.name)));
    format!("{SHARED}{plain}{}", authorizer(&[]))
}
