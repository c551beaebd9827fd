//! A real broker that knows Kordon only, Kordon before it, and those who come: a victim whose
//! names begin with `v.`, an attacker whose names begin with `a.`, and a few with one right each.
//!
//! The broker's super user is the proxy's identity, as in a cluster whose rules live in Kordon.
//! A test shows what an attack does with that identity at the broker itself (`direct`), then that
//! it does nothing through Kordon.

use crate::asks::{
    self, POLL, SETTLE_LIMIT, commit, committed, end_offset, find, found, init_producer, produce,
    produce_code, text,
};
use crate::lab::kafka::{Kafka, authorizer, plain_listener};
use crate::lab::kordon::{BROKER_PORTS, Kordon, Ports, listener};
use crate::lab::{port, wait};
use crate::signer::Signer;
use crate::socket::{CLIENT_ID, Seen, Socket, encode, frame, read, request};
use bytes::Bytes;
use kordon::wire::tree::{Node, StructNode};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

const VERSION: &str = "4.3.0";
/// The name and the password under which Kordon goes to the broker.
const SIDECAR: &str = "sidecar";
/// Its password, which nobody else may ever see.
pub const PASSWORD: &str = "what-only-the-sidecar-knows";
/// The app's own name at the broker, which has no rights there.
pub const APP: &str = "app";
/// What stands in the victim's topic.
pub const SECRET: &str = "victim-secret";

/// Topics of one partition that are there from the beginning.
const TOPICS: [&str; 11] = [
    "v.secret",
    "a.own",
    "w.seen",
    "l.left",
    "q.limited",
    "p.users",
    "p.orders",
    "own.victim.x",
    "see.there",
    "g.read",
    "t.scan",
];

/// Who has a listener; `User:` and the name is the principal, `NAME-2` another one of NAME's.
const CLIENTS: [&str; 9] = [
    "victim",
    "attacker",
    "admin",
    "bounded",
    "leaver",
    "watcher",
    "typist",
    "limited",
    "limited-2",
];

/// One side is all there is: the requests of `surface` ask for whom they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The only broker.
    Kordon,
}

/// Everything that runs.
pub struct Stage {
    /// The broker.
    pub kafka: Kafka,
    /// The proxy before it.
    pub kordon: Kordon,
    /// Where the broker wants to know who comes.
    pub sasl: String,
    listeners: BTreeMap<&'static str, String>,
    tokens: String,
    ids: HashMap<String, [u8; 16]>,
}

impl Stage {
    /// Starts the broker and Kordon, and lets the victim write.
    pub fn start() -> Result<Stage, String> {
        let sasl = port::free("127.0.77.1", 1);
        let kafka = Kafka::start(VERSION, 1, &properties(sasl))?;
        let sasl = format!("127.0.77.1:{sasl}");
        let ports: Vec<u16> = CLIENTS.iter().map(|_| port::free("127.0.0.1", 2)).collect();
        let tokens = port::free("127.0.0.1", 2);
        let config = |own: &Ports| configuration(own, &sasl, &ports, tokens);
        let jwks = Signer::trusted().jwks.to_string();
        let files = [
            ("password", PASSWORD),
            ("jwks.json", jwks.as_str()),
            ("policies/all.yaml", POLICIES),
            ("policies/leaver.yaml", LEAVER),
            ("schemas/subjects.json", SUBJECTS),
            ("schemas/user.avsc", USER),
            ("schemas/order.avsc", ORDER),
        ];
        let kordon = Kordon::start("127.0.0.1", config, &files)?;
        let at = |port: &u16| format!("127.0.0.1:{port}");
        let mut stage = Stage {
            kafka,
            kordon,
            sasl,
            listeners: CLIENTS.into_iter().zip(ports.iter().map(at)).collect(),
            tokens: at(&tokens),
            ids: HashMap::new(),
        };
        stage.create(&TOPICS);
        stage.warm();
        Ok(stage)
    }

    /// A connection of a client, through Kordon.
    pub fn client(&self, name: &str) -> Socket {
        Socket::open(&self.listeners[name])
    }

    /// A connection to the broker itself, with the proxy's identity: what an attack would be
    /// worth if nobody stood in the way.
    pub fn direct(&self) -> Socket {
        let mut socket = Socket::open(&self.sasl);
        assert_eq!(socket.plain(SIDECAR, PASSWORD), 0);
        socket
    }

    /// A connection to the broker itself, for what a test arranges and looks up.
    pub fn harness(&self) -> Socket {
        Socket::open(&self.kafka.bootstrap())
    }

    /// A connection to the listener that wants tokens.
    pub fn token_listener(&self) -> Socket {
        Socket::open(&self.tokens)
    }

    /// The id of a topic; a made-up one if it does not exist.
    pub fn id(&self, _: Side, topic: &str) -> [u8; 16] {
        self.ids.get(topic).copied().unwrap_or([7; 16])
    }

    /// Creates topics of one partition where they are missing, and learns their ids.
    pub fn create(&mut self, topics: &[&str]) {
        let found = asks::create(&mut self.harness(), topics);
        self.ids.extend(found);
    }

    /// Deletes a topic and waits until the broker knows it no more.
    pub fn delete(&self, topic: &str) {
        let mut harness = self.harness();
        let mut delete = request(20);
        delete.array_mut("TopicNames").push(text(topic));
        delete.set_int("TimeoutMs", 5000);
        harness.call(20, 5, &delete);
        until(|| (!self.topics().contains(&topic.to_owned())).then_some(()));
    }

    /// The names of all topics the broker has.
    pub fn topics(&self) -> Vec<String> {
        let mut all = request(3);
        all.set("Topics", Node::Structs(None));
        let answer = self.harness().call(3, 12, &all);
        let names = answer.structs("Topics").iter();
        names
            .filter_map(|t| t.text("Name"))
            .map(str::to_owned)
            .collect()
    }

    /// The offset of the next record of a topic, asked at the broker.
    pub fn end(&self, topic: &str) -> i64 {
        end_offset(&mut self.harness(), topic, false)
    }

    /// Replaces a policy file and waits until Kordon has taken it: `done` asks for its effect.
    pub fn rewrite(&self, file: &str, content: &str, mut done: impl FnMut() -> bool) {
        let path: PathBuf = self.kordon.dir().join(file);
        std::fs::write(path, content).unwrap();
        self.kordon.hang_up();
        until(|| done().then_some(()));
    }

    /// Coordinators are found and the victim has left traces of every kind.
    fn warm(&self) {
        let mut harness = self.harness();
        for (kind, key) in [(0, "v.group"), (1, "v.txn")] {
            until(|| found(&harness.call(10, 6, &find(kind, key))).then_some(()));
        }
        let mut victim = self.client("victim");
        let secret = crate::body::batch(SECRET, crate::body::Kind::Plain);
        until(|| {
            (produce_code(&victim.call(0, 9, &produce("v.secret", &secret))) == 0).then_some(())
        });
        let commit = commit("v.group", &["v.secret"]);
        until(|| committed(&victim.call(8, 9, &commit)).then_some(()));
        let init = init_producer("v.txn", 60_000);
        until(|| (victim.call(22, 5, &init).int("ErrorCode") == 0).then_some(()));
    }
}

/// Asks again and again until there is an answer, for as long as a broker may take.
pub fn until<T>(ask: impl FnMut() -> Option<T>) -> T {
    let found = wait::until(SETTLE_LIMIT, POLL, ask);
    found.unwrap_or_else(|| panic!("did not come about in {SETTLE_LIMIT:?}"))
}

/// Whether an answer holds a text anywhere.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// The bytes that come for a request; none where the connection ends.
pub fn answer(socket: &mut Socket, key: i16, version: i16, request: &StructNode) -> Option<Bytes> {
    socket.ask(key, version, &encode(key, version, request));
    match socket.receive() {
        Seen::Answer(bytes) => Some(bytes),
        Seen::Closed => None,
        Seen::Silent => panic!("key {key} version {version}: no answer in time"),
    }
}

/// The answer as bytes and as a tree.
pub fn both(socket: &mut Socket, key: i16, version: i16, ask: &StructNode) -> (Bytes, StructNode) {
    let bytes = answer(socket, key, version, ask).expect("an answer");
    let (_, node) = read(key, version, &bytes).unwrap();
    (bytes, node)
}

/// A frame of this client.
pub fn framed(key: i16, version: i16, request: &StructNode) -> Vec<u8> {
    frame(key, version, 7, CLIENT_ID, &encode(key, version, request))
}

/// SaslHandshake for a mechanism.
pub fn handshake(mechanism: &str) -> StructNode {
    let mut handshake = request(17);
    handshake.set_text("Mechanism", Some(mechanism));
    handshake
}

/// SaslAuthenticate with the token of a subject that ends in so many seconds.
pub fn bearer(subject: &str, seconds: i64) -> StructNode {
    let changes = json!({"exp": crate::signer::now() + seconds});
    bearer_of(&Signer::trusted().token(subject, changes))
}

/// SaslAuthenticate with a token.
pub fn bearer_of(token: &str) -> StructNode {
    let mut authenticate = request(36);
    let bytes = format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes();
    authenticate.set("AuthBytes", Node::Bytes(Some(bytes.into())));
    authenticate
}

fn properties(sasl: u16) -> String {
    let plain = plain_listener(sasl, [(SIDECAR, PASSWORD), (APP, APP)]);
    let authorizer = authorizer(&[SIDECAR]);
    format!(
        "{plain}{authorizer}auto.create.topics.enable=true
delegation.token.secret.key=what-signs-tokens
group.max.session.timeout.ms=1800000
"
    )
}

fn configuration(own: &Ports, sasl: &str, ports: &[u16], tokens: u16) -> String {
    let mut text = format!(
        "upstream:
  bootstrap: [\"{sasl}\"]
  sasl: {{plain: {{username: {SIDECAR}, password: {{file: password}}}}}}
policies: policies/
schemas: {{directory: schemas/}}
admin: {{bind: \"127.0.0.1:{admin}\"}}
audit: {{file: {{path: audit.jsonl}}}}
listeners:
  - name: tokens
    bind: 127.0.0.1:{tokens}
    advertise: {{host: localhost, ports: {first}-{first}}}
    sasl:
      oauthbearer:
        issuer: https://issuer.example
        jwks: {{file: jwks.json}}
        audience: kafka
        algorithms: [ES256]
        clockSkew: 0s
        tenantClaim: tenant_id
        groupsClaim: groups
",
        admin = own.admin,
        first = tokens + 1,
    );
    // The first is where the lab looks for a sign of life.
    let lab = [("nobody", own.app, own.app + BROKER_PORTS)];
    let clients = CLIENTS
        .iter()
        .zip(ports)
        .map(|(name, port)| (*name, *port, port + 1));
    for (name, port, broker) in lab.into_iter().chain(clients) {
        let user = name.trim_end_matches("-2");
        text += &listener(name, port, broker, user);
    }
    text
}

const POLICIES: &str = r#"apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: victim}
spec:
  principals: ["User:victim"]
  rules:
    - {allow: [All], topics: ["v.*"]}
    - {allow: [All], groups: ["v.*", squad]}
    - {allow: [All], transactionalIds: ["v.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: attacker}
spec:
  principals: ["User:attacker"]
  rules:
    - {allow: [All], topics: ["a.*"]}
    - {allow: [Describe], topics: ["see.*"]}
    - {allow: [All], groups: ["a.*", team, squad]}
    - {allow: [All], transactionalIds: ["a.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: admin}
spec:
  principals: ["User:admin"]
  rules:
    - {allow: [All], topics: ["*"], groups: ["*"], transactionalIds: ["*"], cluster: true}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: bounded}
spec:
  principals: ["User:bounded"]
  rules:
    - {allow: [All], topics: ["*"], groups: ["*"], cluster: true}
---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: bounded}
spec:
  match: {any: [{principal: "User:bounded"}]}
  boundary: {topics: ["b.*"], groups: ["b.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: watcher}
spec:
  principals: ["User:watcher"]
  rules:
    - {allow: [Describe], topics: ["*"]}
    - {allow: [Read], topics: ["w.*"]}
    - {allow: [Read], groups: ["w.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: typist}
spec:
  principals: ["User:typist"]
  rules:
    - {allow: [Read, Write], topics: ["p.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: limited}
spec:
  principals: ["User:limited"]
  rules:
    - {allow: [Read, Write], topics: ["q.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: own}
spec:
  principals: ["User:*"]
  rules:
    - {allow: [Write], topics: ["own.${principal}.*"]}
---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: readers}
spec:
  principals: ["Group:readers"]
  rules:
    - {allow: [Read], topics: ["g.*"]}
---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: limited}
spec:
  for: {user: limited}
  limits: {produce: 1KiB/s}
---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: typed}
spec:
  topics: ["p.*"]
  value: {format: avro, encoding: confluent, subject: topic, check: full, empty: reject}
  onViolation: reject
"#;

/// The rule that is taken away while its client reads.
pub const LEAVER: &str = r#"apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: leaver}
spec:
  principals: ["User:leaver"]
  rules:
    - {allow: [Read], topics: ["l.*"]}
    - {allow: [Read], groups: [leavers]}
"#;

const SUBJECTS: &str = r#"{"subjects": [
  {"subject": "p.users-value", "version": 1, "id": 1, "file": "user.avsc"},
  {"subject": "p.orders-value", "version": 1, "id": 2, "file": "order.avsc"}
]}"#;
const USER: &str = r#"{"type": "record", "name": "User", "fields": [
  {"name": "id", "type": "string"}, {"name": "note", "type": "string"}
]}"#;
const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [
  {"name": "id", "type": "string"}, {"name": "note", "type": "string"}
]}"#;
