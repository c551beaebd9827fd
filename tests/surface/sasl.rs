//! SASL in every order of messages: sequences from an alphabet of good, bad and misplaced
//! messages go to a broker's own SASL listener and to Kordon before the same broker, and must be
//! answered alike step by step, to the byte where nothing random stands.
//!
//! The sequences are a tree: a message that a broker takes and that changes what may come next is
//! followed by every other, to a depth; one that changes nothing (an answer that says so, and the
//! connection stays) leads to where the sequence was before. Kordon's side has TLS, since it
//! refuses PLAIN without.

use crate::lab::{
    dice::{self, Dice},
    kafka::{Kafka, Launch},
    kordon::Kordon,
    port,
};
use crate::sasl_every;
use crate::sasl_talk::{Conversation, Heard};
use crate::sasl_users::Users;
use crate::sasl_words::{MECHANISMS, Word};
use crate::tally::Tally;
use kordon::apis::{self, Phase};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections at once: most of the time a refused one waits for its answer.
const AT_ONCE: usize = 6;
/// Of longer sequences, so many are chosen by chance; `--every` runs all.
const SAMPLE: usize = 150;
/// How long a broker may take to hear of a user.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Whether a sequence, and what was heard of its last word at the broker and from Kordon, is such
/// a difference.
type Fits = fn(&[Word], &Heard, &Heard) -> bool;

/// Where Kordon differs, and why. Whatever else differs is a defect.
const ACCEPTED: [(Fits, &str); 2] = [
    (
        |said, broker, kordon| {
            let key = match said.last() {
                Some(Word::Other(key, _)) => *key,
                _ => return false,
            };
            let is_brokers = apis::lookup(key).is_some_and(|api| api.phase == Phase::BrokerOnly);
            is_brokers && broker.is_refused() && kordon.is_closed()
        },
        "what brokers and controllers ask each other ends the connection, here as everywhere",
    ),
    (
        |said, broker, kordon| {
            let is_later = matches!(said.last(), Some(Word::Other(24, 4..)));
            is_later && broker.is_refused() && kordon.is_closed()
        },
        "AddPartitionsToTxn from version 4 is the brokers' own, and is not advertised",
    ),
];

/// What was heard of a broker, and of Kordon.
type Both = (Vec<Heard>, Vec<Heard>);

/// How often both are asked again where they differ: a machine under load is late with the end of
/// a connection.
const TRIES: usize = 4;

/// Runs every sequence.
pub fn run(tally: &mut Tally) {
    let stage = match Stage::start() {
        Ok(stage) => stage,
        Err(why) => return tally.fail("sasl: set-up", why),
    };
    let every = std::env::args().any(|arg| arg == "--every");
    let seed = dice::option("seed", "KORDON_SURFACE_SEED").unwrap_or_else(dice::seed);
    let mut sample = Sample {
        dice: Dice(seed),
        size: if every { usize::MAX } else { SAMPLE },
        left_out: 0,
    };
    println!("surface: sasl, --seed {seed}");
    let mut count = 0;
    let from = Instant::now();
    // Every other request where a message of the mechanism belongs, and where a handshake does.
    let misplaced: Vec<Vec<Word>> = sasl_every::all()
        .into_iter()
        .map(|(key, version)| vec![Word::Handshake(1, "OAUTHBEARER"), Word::Other(key, version)])
        .collect();
    count += misplaced.len();
    stage.compare(&misplaced, tally);
    println!("surface: sasl, {} requests out of place", misplaced.len());
    // From the first byte.
    let mut open = vec![Vec::new()];
    for depth in 1..=4 {
        let words = |case: &[Word]| match depth {
            1 | 2 => Word::all(),
            _ => Word::relevant(case),
        };
        let grown = sample.of(grow(&open, words), depth > 2);
        count += grown.len();
        let lives = stage.compare(&grown, tally);
        println!("surface: sasl, {} sequences of {depth}", grown.len());
        // What is established is continued below.
        open = cases(grown, &lives, |life| life.moved && !life.established);
    }
    // From an established session on.
    let mut open: Vec<Vec<Word>> = MECHANISMS
        .iter()
        .flat_map(|mechanism| [0, 1].map(|version| Word::login(version, mechanism)))
        .collect();
    for depth in 1..=3 {
        let grown = sample.of(grow(&open, |_| Word::again()), depth > 1);
        count += grown.len();
        let lives = stage.compare(&grown, tally);
        println!("surface: sasl again, {} sequences of {depth}", grown.len());
        open = cases(grown, &lives, |life| life.moved);
    }
    // A session may be renewed once a second.
    let mut paused = Vec::new();
    for mechanism in MECHANISMS {
        let login = Word::login(1, mechanism);
        for pause in [None, Some(Word::Pause)] {
            let mut case = login.clone();
            case.extend(login.iter().copied());
            case.extend(pause);
            case.extend(login.iter().copied());
            case.push(Word::Metadata);
            paused.push(case);
        }
    }
    count += paused.len();
    stage.compare(&paused, tally);
    let took = from.elapsed().as_secs();
    let left_out = sample.left_out;
    println!("surface: sasl, {count} sequences on both sides in {took} s, {left_out} left out");
}

/// Which of the longer sequences are run.
struct Sample {
    dice: Dice,
    size: usize,
    left_out: usize,
}

impl Sample {
    fn of(&mut self, mut all: Vec<Vec<Word>>, is_long: bool) -> Vec<Vec<Word>> {
        if is_long {
            while all.len() > self.size {
                all.swap_remove(self.dice.below(all.len()));
                self.left_out += 1;
            }
        }
        all
    }
}

fn grow(open: &[Vec<Word>], words: impl Fn(&[Word]) -> Vec<Word>) -> Vec<Vec<Word>> {
    let grown = open.iter().flat_map(|case| {
        words(case).into_iter().map(|word| {
            let mut case = case.clone();
            case.push(word);
            case
        })
    });
    grown.collect()
}

fn cases(all: Vec<Vec<Word>>, lives: &[Life], keep: fn(&Life) -> bool) -> Vec<Vec<Word>> {
    let kept = all.into_iter().zip(lives).filter(|(_, life)| keep(life));
    kept.map(|(case, _)| case).collect()
}

/// The reason for a difference, which lies at the first word that is answered differently.
fn is_accepted(case: &[Word], broker: &[Heard], kordon: &[Heard]) -> Option<&'static str> {
    let step = (0..case.len()).find(|step| broker.get(*step) != kordon.get(*step))?;
    let (broker, kordon) = (broker.get(step)?, kordon.get(step)?);
    let fits = |(fits, _): &&(Fits, &str)| fits(&case[..=step], broker, kordon);
    ACCEPTED.iter().find(fits).map(|(_, why)| *why)
}

/// What became of a sequence at the broker.
#[derive(Clone, Copy, Default)]
struct Life {
    /// The connection is open, and what was said last changed what may come next.
    moved: bool,
    established: bool,
}

struct Stage {
    broker: String,
    kafka: Kafka,
    kordon: Kordon,
    users: Users,
    /// Holds the broker's key set.
    _keys: tempfile::TempDir,
}

impl Stage {
    fn start() -> Result<Stage, String> {
        let users = Users::new();
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        // The broker looks at the file again and again, and without it refuses every token.
        let jwks = dir.path().join("jwks.json");
        std::fs::write(&jwks, &users.jwks).map_err(|e| e.to_string())?;
        let url = format!("file://{}", jwks.display());
        let port = port::free("127.0.77.1", 1);
        let allowed = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={url}");
        let launch = Launch {
            java: vec![allowed],
            ..Launch::default()
        };
        let kafka = Kafka::start_with("4.3.0", 1, &properties(port, &url, &users), launch)?;
        let upstream = kafka.addrs();
        let config = |own: &crate::lab::kordon::Ports| configuration(&upstream[0], own);
        let files = [
            ("jwks.json", users.jwks.as_str()),
            ("users.yaml", users.file.as_str()),
            ("server.pem", users.certificate.as_str()),
            ("server.key", users.key.as_str()),
        ];
        let kordon = Kordon::start("127.0.0.1", config, &files)?;
        users.tell(&kafka.bootstrap());
        let stage = Stage {
            broker: format!("127.0.77.1:{port}"),
            kafka,
            kordon,
            users,
            _keys: dir,
        };
        stage.settle()?;
        Ok(stage)
    }

    /// Until everybody can log in on both sides.
    fn settle(&self) -> Result<(), String> {
        let until = Instant::now() + SETTLE_LIMIT;
        for mechanism in MECHANISMS {
            let case = Word::login(1, mechanism);
            loop {
                let (broker, kordon) = self.both(&case, false);
                let done = |heard: &[Heard]| heard.last().is_some_and(Heard::is_established);
                if done(&broker) && done(&kordon) {
                    break;
                }
                if Instant::now() > until {
                    let (log, own) = (self.kafka.logs(20), self.kordon.log(20));
                    return Err(format!(
                        "{mechanism}: {broker:?} at the broker, {kordon:?} at Kordon\n{log}\n{own}"
                    ));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn both(&self, case: &[Word], patient: bool) -> Both {
        let broker = Conversation::plain(&self.broker, &self.users).say(case, patient);
        let kordon = Conversation::tls(&self.kordon.addr, &self.users).say(case, patient);
        (broker, kordon)
    }

    /// Says every sequence to both and compares what is heard.
    fn compare(&self, all: &[Vec<Word>], tally: &mut Tally) -> Vec<Life> {
        let next = AtomicUsize::new(0);
        let lives = Mutex::new(vec![Life::default(); all.len()]);
        let found: Mutex<BTreeMap<usize, Both>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(all.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = all.get(at) else { return };
                        let (mut broker, mut kordon) = self.both(case, false);
                        for _ in 0..TRIES {
                            if broker == kordon || is_accepted(case, &broker, &kordon).is_some() {
                                break;
                            }
                            (broker, kordon) = self.both(case, true);
                        }
                        let last = broker.last();
                        lives.lock().unwrap()[at] = Life {
                            moved: broker.len() == case.len() && last.is_some_and(Heard::moves),
                            established: broker.iter().any(Heard::is_established),
                        };
                        if broker != kordon {
                            // At once, since the rest may take minutes.
                            if is_accepted(case, &broker, &kordon).is_none() {
                                println!("surface: sasl, {case:?} differs");
                            }
                            found.lock().unwrap().insert(at, (broker, kordon));
                        }
                    }
                });
            }
        });
        let found = found.into_inner().unwrap();
        for (at, case) in all.iter().enumerate() {
            let Some((broker, kordon)) = found.get(&at) else {
                tally.pass();
                continue;
            };
            match is_accepted(case, broker, kordon) {
                Some(why) => tally.accept(why),
                None => {
                    let kind = format!("sasl: {:?} at {}", case.last().unwrap(), case.len());
                    let what =
                        format!("{case:?}\n      broker {broker:?}\n      kordon {kordon:?}");
                    tally.fail(&kind, what);
                }
            }
        }
        lives.into_inner().unwrap()
    }
}

fn properties(port: u16, jwks: &str, users: &Users) -> String {
    const MODULES: &str = "org.apache.kafka.common.security";
    let mut text = format!(
        "listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{port},CONTROLLER://$HOST:$CONTROLLER
advertised.listeners=PLAINTEXT://$HOST:$PORT,SASL://$HOST:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=OAUTHBEARER,PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
connections.max.reauth.ms=3600000
connection.failed.authentication.delay.ms=20
sasl.oauthbearer.jwks.endpoint.url={jwks}
sasl.oauthbearer.expected.audience=kafka
sasl.oauthbearer.expected.issuer=https://issuer.example
listener.name.sasl.oauthbearer.sasl.server.callback.handler.class={MODULES}.oauthbearer.\
OAuthBearerValidatorCallbackHandler
listener.name.sasl.oauthbearer.sasl.jaas.config={MODULES}.oauthbearer.OAuthBearerLoginModule \
required;
listener.name.sasl.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required {};
",
        users.jaas()
    );
    for hash in ["256", "512"] {
        let _ = writeln!(
            text,
            "listener.name.sasl.scram-sha-{hash}.sasl.jaas.config={MODULES}.scram.ScramLoginModule \
             required;"
        );
    }
    text
}

fn configuration(upstream: &str, own: &crate::lab::kordon::Ports) -> String {
    let (app, first, last) = (own.app, own.app + 1, own.app + 2);
    let users = "{users: users.yaml, maxSession: 1h, shared: true}";
    format!(
        "upstream: {{bootstrap: [\"{upstream}\"]}}
listeners:
  - name: app
    bind: 127.0.0.1:{app}
    advertise: {{host: localhost, ports: {first}-{last}}}
    tls: {{cert: server.pem, key: server.key}}
    sasl:
      oauthbearer: {{issuer: \"https://issuer.example\", jwks: {{file: jwks.json}}, audience: kafka,
        maxSession: 1h, shared: true}}
      plain: {users}
      scramSha256: {users}
      scramSha512: {users}
authorization: off
admin: {{bind: \"127.0.0.1:{}\"}}
",
        own.admin
    )
}
