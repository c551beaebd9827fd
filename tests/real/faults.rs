//! Faults of what proves identity, under load: certificates rotate, one is revoked, the OAuth
//! server hangs, its keys roll over; with what each client saw of it, for a person to read.

use crate::Choice;
use crate::disturbance::{REPORT_LIMIT, flowing, survived};
use crate::identity::{KORDON, counted, policy};
use crate::lab::certificates::Authority;
use crate::lab::client::{Client, Outcome, Security, Traffic};
use crate::lab::http;
use crate::lab::issuer::{self, Issuer};
use crate::lab::kordon::{BROKER_PORTS, IN_FRONT, Kordon, Ports};
use crate::lab::secure::Secure;
use crate::tally::Tally;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const VERSION: &str = "4.3.0";
const TIER: &str = "faults";
/// Tokens outlive the outage, also in the view of clients that renew them at four fifths, and are
/// renewed once after the roll-over.
const TOKENS: Duration = Duration::from_secs(75);
const MAX_REAUTH: Duration = Duration::from_secs(15);
/// How often files are rotated, a second apart.
const ROTATIONS: usize = 10;
/// The longest time for which a client that is not meant may be without an acknowledged event.
const GAP_MAX: Duration = Duration::from_secs(3);
/// How soon a revoked client is gone: a second or two, and as much on a machine that is busy.
const CUT_LIMIT: Duration = Duration::from_secs(4);
/// How soon what is awaited comes: a question to the OAuth server fails after ten seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// Until the tokens that were there before the roll-over are gone.
const RENEWAL_LIMIT: Duration = Duration::from_secs(90);
const GRACE_SECONDS: u32 = 8;
const SAMPLE: Duration = Duration::from_millis(25);
/// Where the table is left, below the target directory.
const TABLE: &str = "faults.txt";

/// The files of Kordon behind one link, which is swapped as Kubernetes swaps a volume's.
struct Live {
    dir: tempfile::TempDir,
    count: usize,
}

impl Live {
    fn new() -> Live {
        let dir = tempfile::Builder::new().prefix("kordon-live-").tempdir();
        Live {
            dir: dir.unwrap(),
            count: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("live").join(name)
    }

    /// New certificates and keys for both sides, a bundle with one more authority, and this list.
    fn swap(&mut self, authority: &Authority, revoked: &[&str]) {
        self.count += 1;
        let fresh = self.dir.path().join(self.count.to_string());
        std::fs::create_dir(&fresh).unwrap();
        authority.server_into(&fresh);
        authority.client_into(KORDON, &fresh);
        let other = Authority::new(&[]);
        let read = |ca: PathBuf| std::fs::read_to_string(ca).unwrap();
        let bundle = read(authority.ca()) + &read(other.ca());
        std::fs::write(fresh.join("ca.pem"), bundle).unwrap();
        std::fs::write(fresh.join("crl.pem"), authority.revoked(revoked)).unwrap();
        let link = self.dir.path().join("next");
        std::os::unix::fs::symlink(&fresh, &link).unwrap();
        std::fs::rename(&link, self.dir.path().join("live")).unwrap();
    }
}

/// One client's traffic by one proof.
struct Flow {
    traffic: Traffic,
    proof: &'static str,
    files: Vec<PathBuf>,
    bytes: u64,
    grew: Instant,
    gap: Duration,
    /// Its connections to Kordon, by the kernel's number.
    open: Vec<u64>,
    made: usize,
    ended: usize,
}

impl Flow {
    /// How long the broker has had nothing from it, and which connections came and went.
    fn sample(&mut self, ports: &[u16], connections: bool) {
        let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |m| m.len());
        let bytes = self.files.iter().map(size).sum();
        let now = Instant::now();
        if bytes != self.bytes {
            (self.bytes, self.grew) = (bytes, now);
        }
        self.gap = self.gap.max(now - self.grew);
        if connections {
            let open = connections_of(self.traffic.id(), ports);
            self.made += open.iter().filter(|c| !self.open.contains(c)).count();
            self.ended += self.open.iter().filter(|c| !open.contains(c)).count();
            self.open = open;
        }
    }

    fn begin(&mut self, ports: &[u16]) {
        self.sample(ports, true);
        (self.made, self.ended, self.gap) = (0, 0, Duration::ZERO);
    }
}

/// The kernel's numbers of a process's open connections to these ports (Linux only).
fn connections_of(process: u32, ports: &[u16]) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let numbers = links.filter_map(|link| {
        let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        link.parse::<u64>().ok()
    });
    let sockets: Vec<u64> = numbers.collect();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let text = read("/proc/self/net/tcp") + &read("/proc/self/net/tcp6");
    let open = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = words.get(2)?.rsplit(':').next()?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let (state, number) = (*words.get(3)?, words.get(9)?.parse().ok()?);
        (state == "01" && ports.contains(&port)).then_some(number)
    });
    open.filter(|number| sockets.contains(number)).collect()
}

struct Stage {
    flows: Vec<Flow>,
    ports: Vec<u16>,
    table: String,
    kordon: Kordon,
    secure: Secure,
    issuer: Issuer,
    authority: Authority,
    live: Live,
    dir: tempfile::TempDir,
    looker: Client,
    /// Tokens granted before the roll-over, and when that was.
    rolled: Vec<usize>,
    rolled_at: Instant,
    started: Instant,
}

/// Every fault in turn, while every client produces and reads by certificate and by token.
pub fn under_load(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    if !choice.way("kordon") {
        return Ok(());
    }
    let clients = choice.clients(TIER, tally);
    for part in [&format!("kafka-{VERSION}"), "issuer"] {
        if let Err(reason) = crate::part::ready(part) {
            tally.tier_skipped(TIER, "all", &reason);
            return Ok(());
        }
    }
    let Some(looker) = clients.last().copied() else {
        return Ok(());
    };
    let mut stage = start(&clients, looker)?;
    let before = tally.failures();
    let from = Instant::now();
    let outcome = stage.run(&clients, tally);
    println!("faults took {} s under load", from.elapsed().as_secs());
    if outcome.is_err() || tally.failures() > before {
        println!("the end of Kordon's log:\n{}", stage.kordon.log(40));
        println!("the OAuth server's log:\n{}", stage.issuer.log(10));
    }
    print!("{}", stage.table);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let _ = std::fs::write(target.join(TABLE), &stage.table);
    outcome?;
    if !stage.kordon.runs() {
        return Err(format!("`kordon run` ended:\n{}", stage.kordon.log(40)));
    }
    Ok(())
}

fn start(clients: &[Client], looker: Client) -> Result<Stage, String> {
    let mut names: Vec<&str> = clients.iter().map(|c| c.name).collect();
    names.push(KORDON);
    let authority = Authority::new(&names);
    let issuer = Issuer::start(&issuer::Settings::new(TOKENS, &names))?;
    let secure = Secure::start(VERSION, &authority, &issuer, &names, Some(MAX_REAUTH))?;
    let mut live = Live::new();
    live.swap(&authority, &[]);
    let (policy, secret) = (policy(clients), issuer::secret(KORDON));
    let files = [
        ("policies/clients.yaml", policy.as_str()),
        ("secret", secret.as_str()),
    ];
    let config = |ports: &Ports| config(ports, &live, &issuer, &secure);
    let kordon = Kordon::start(IN_FRONT, config, &files)?;
    let dir = tempfile::Builder::new().prefix("kordon-faults-").tempdir();
    let second = kordon.second.rsplit(':').next().unwrap().parse::<u16>();
    let ports = [kordon.first_port, second.unwrap()]
        .into_iter()
        .flat_map(|first| first..=first + BROKER_PORTS)
        .collect();
    Ok(Stage {
        flows: Vec::new(),
        ports,
        table: String::new(),
        kordon,
        secure,
        issuer,
        authority,
        live,
        dir: dir.unwrap(),
        looker,
        rolled: Vec::new(),
        rolled_at: Instant::now(),
        started: Instant::now(),
    })
}

impl Stage {
    fn run(&mut self, clients: &[Client], tally: &mut Tally) -> Result<(), String> {
        self.flow(clients, tally)?;
        let kept = self.token(self.looker.name)?;
        self.outage(&kept, tally)?;
        self.roll_over(tally)?;
        self.rotation(tally)?;
        self.renewal(tally)?;
        self.revocation(clients[0], tally)?;
        self.end(clients[0], tally)?;
        self.forgotten(tally)
    }

    fn flow(&mut self, clients: &[Client], tally: &mut Tally) -> Result<(), String> {
        let topic =
            |client: &Client, proof: &str| format!("identity.{}.faults.{proof}", client.name);
        let topics: Vec<String> = clients
            .iter()
            .flat_map(|client| crate::PROOFS.map(|proof| topic(client, proof)))
            .collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.secure.kafka.create(3, 1, &topics)?;
        let (mut traffic, mut proofs) = (Vec::new(), Vec::new());
        for client in clients {
            let files = self.authority.of(client.name);
            let mtls = Security::Mtls {
                ca: self.authority.ca(),
                cert: files.cert,
                key: files.key,
            };
            let oauth = self.oauth(*client, &self.issuer.token_url());
            let ways = [
                ("mtls", mtls, &self.kordon.addr),
                ("oauth", oauth, &self.kordon.second),
            ];
            for (proof, security, addr) in ways {
                let topic = topic(client, proof);
                let dir = self.dir.path();
                traffic.push(client.traffic_as(&security, addr, &topic, GRACE_SECONDS, dir));
                proofs.push(proof);
            }
        }
        flowing(&traffic, TIER, tally);
        for (traffic, proof) in traffic.into_iter().zip(proofs) {
            self.flows.push(Flow {
                files: self.secure.kafka.segments(&traffic.topic),
                traffic,
                proof,
                bytes: 0,
                grew: Instant::now(),
                gap: Duration::ZERO,
                open: Vec::new(),
                made: 0,
                ended: 0,
            });
        }
        Ok(())
    }

    fn oauth(&self, client: Client, token_url: &str) -> Security {
        Security::Oauth {
            ca: self.authority.ca(),
            token_url: token_url.to_owned(),
            id: client.name.to_owned(),
            secret: issuer::secret(client.name),
        }
    }

    /// Looks at the traffic for so long, or until `done`.
    fn watch(&mut self, limit: Duration, mut done: impl FnMut(&Stage) -> bool) -> bool {
        let until = Instant::now() + limit;
        for round in 0.. {
            for flow in &mut self.flows {
                flow.sample(&self.ports, round % 10 == 0);
            }
            if round % 10 == 0 && done(self) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(SAMPLE);
        }
        false
    }

    fn begin(&mut self) {
        let seconds = self.started.elapsed().as_secs();
        println!("faults: the next begins at {seconds} s");
        for flow in &mut self.flows {
            flow.begin(&self.ports);
        }
    }

    /// A line for each client; `spared`: whose traffic must not have stood still.
    fn told(&mut self, fault: &str, spared: impl Fn(&Flow) -> bool, tally: &mut Tally) {
        for flow in &mut self.flows {
            flow.sample(&self.ports, true);
            let (client, gap) = (flow.traffic.client.name, flow.gap.as_millis());
            writeln!(
                self.table,
                "{fault:<12} {client:<11} {:<6} longest gap {gap:>5} ms, \
                 connections made {}, ended {}",
                flow.proof, flow.made, flow.ended
            )
            .unwrap();
            if !spared(flow) {
                continue;
            }
            if flow.gap > GAP_MAX {
                let why = format!("{}: nothing was taken for {gap} ms", flow.proof);
                tally.fail(TIER, client, fault, &why);
            } else {
                tally.pass(TIER, client);
            }
        }
    }

    /// The tokens that each client was given, and Kordon itself.
    fn granted(&self) -> Vec<usize> {
        let clients = self.flows.iter().map(|flow| flow.traffic.client.name);
        let names = clients.chain([KORDON]);
        names.map(|name| self.issuer.granted(name)).collect()
    }

    fn check(&self, fault: &str, holds: bool, why: &str, tally: &mut Tally) {
        if holds {
            tally.pass(TIER, "kordon");
        } else {
            tally.fail(TIER, "kordon", fault, why);
        }
    }

    fn notes(&self) -> String {
        http::ask("GET", &self.kordon.admin, "/readyz").unwrap_or_else(|error| error)
    }

    /// Whether one more client with exactly this token is let in, while the traffic is watched.
    fn enters(&mut self, token: &str, what: &str) -> bool {
        let endpoint = Endpoint::start(token);
        let security = self.oauth(self.looker, &endpoint.url);
        self.looks(&security, what, self.kordon.second.clone())
    }

    fn looks(&mut self, security: &Security, what: &str, addr: String) -> bool {
        let (client, dir) = (self.looker, self.dir.path().to_owned());
        let prefix = format!("identity.{}.{what}.", client.name);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let cases = ["admin/describe-cluster"];
                let answers = client.matrix_as(security, &addr, &prefix, &cases, &dir);
                over.store(true, Ordering::SeqCst);
                let passed = |answers: crate::lab::client::Answers| {
                    answers.values().any(|a| a.outcome == Outcome::Passed)
                };
                answers.is_ok_and(passed)
            });
            self.watch(LIMIT * 4, |_| over.load(Ordering::SeqCst));
            looking.join().unwrap()
        })
    }

    /// The OAuth server hangs: keys and tokens that are there go on.
    fn outage(&mut self, kept: &str, tally: &mut Tally) -> Result<(), String> {
        let fault = "outage";
        self.begin();
        self.issuer.freeze(true);
        let entered = self.enters(kept, "outage");
        // A key nobody knows makes Kordon ask, and learn that nobody answers.
        let forged = self.enters(&with_other_key(kept), "forged");
        let noted = self.watch(LIMIT, |stage| stage.notes().contains("issuer"));
        let notes = self.notes();
        self.issuer.freeze(false);
        let cleared = self.watch(LIMIT, |stage| stage.notes() == "ready\n");
        self.told(fault, |_| true, tally);
        self.check(fault, entered, "a token of before it was refused", tally);
        self.check(fault, !forged, "a forged token was let in", tally);
        self.check(fault, noted, &format!("/readyz says: {notes}"), tally);
        let why = format!("/readyz still says: {}", self.notes());
        self.check(fault, cleared, &why, tally);
        writeln!(
            self.table,
            "{fault:<12} /readyz: {}",
            notes.trim().replace('\n', "; ")
        )
        .unwrap();
        Ok(())
    }

    /// Another key signs; the old one is published still.
    fn roll_over(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.begin();
        self.issuer.roll(false)?;
        (self.rolled, self.rolled_at) = (self.granted(), Instant::now());
        let token = self.token(self.looker.name)?;
        let entered = self.enters(&token, "rolled");
        self.told("roll-over", |_| true, tally);
        self.check(
            "roll-over",
            entered,
            "a token of the new key was refused",
            tally,
        );
        Ok(())
    }

    /// Every file is another one each second.
    fn rotation(&mut self, tally: &mut Tally) -> Result<(), String> {
        let fault = "rotation";
        let admin = self.kordon.admin.clone();
        let failed = |what: &str| counted(&admin, what);
        let before = failed("kordon_reload_failures_total")?;
        self.begin();
        let loads = |stage: &Stage| stage.kordon.log(usize::MAX).matches("taken from").count();
        let loaded = loads(self);
        for _ in 0..ROTATIONS {
            self.live.swap(&self.authority, &[]);
            self.watch(Duration::from_secs(1), |_| false);
        }
        self.told(fault, |_| true, tally);
        let loaded = loads(self) - loaded;
        let why = format!("only {loaded} reloads in {ROTATIONS} rotations");
        self.check(fault, loaded >= ROTATIONS, &why, tally);
        let failures = failed("kordon_reload_failures_total")? - before;
        self.check(
            fault,
            failures == 0,
            &format!("{failures} reloads failed"),
            tally,
        );
        let ended = failed("kordon_connections_ended_by_certificate_total")?;
        self.check(
            fault,
            ended == 0,
            &format!("{ended} connections were ended"),
            tally,
        );
        writeln!(
            self.table,
            "{fault:<12} {loaded} reloads, {failures} failed, {ended} connections ended"
        )
        .unwrap();
        Ok(())
    }

    /// Everyone comes to have a token of the new key.
    fn renewal(&mut self, tally: &mut Tally) -> Result<(), String> {
        let fault = "renewal";
        self.begin();
        let (before, from) = (self.rolled.clone(), self.rolled_at);
        // Two at each client, for its producer and its consumer; or all older ones have expired.
        let renewed = self.watch(RENEWAL_LIMIT, |stage| {
            let now = stage.granted();
            let mut both = now.iter().zip(&before);
            both.all(|(now, before)| *now >= before + 2) || from.elapsed() > TOKENS
        });
        self.check(fault, renewed, "not everyone has a new token", tally);
        // Who connects again because its token ends may stand still as long as it likes.
        self.told(fault, |flow| flow.proof == "mtls", tally);
        Ok(())
    }

    /// Only a new key is published: what the one before has signed is refused.
    fn forgotten(&mut self, tally: &mut Tally) -> Result<(), String> {
        let fault = "key gone";
        let old = self.token(self.looker.name)?;
        self.issuer.roll(true)?;
        let token = self.token(self.looker.name)?;
        // This token makes Kordon ask for the keys, at most once in ten seconds.
        let until = Instant::now() + LIMIT;
        let mut entered = false;
        while !entered && Instant::now() < until {
            entered = self.enters(&token, "forgotten");
        }
        self.check(
            fault,
            entered,
            "a token of the newest key was refused",
            tally,
        );
        let old = self.enters(&old, "old");
        self.check(fault, !old, "a token of the old key was let in", tally);
        Ok(())
    }

    /// One client's certificate is revoked.
    fn revocation(&mut self, revoked: Client, tally: &mut Tally) -> Result<(), String> {
        let fault = "revocation";
        let is_cut = |flow: &Flow| flow.traffic.client == revoked && flow.proof == "mtls";
        self.begin();
        let admin = self.kordon.admin.clone();
        let cut = self.flows.iter().filter(|f| is_cut(f));
        let had = cut.map(|f| f.open.len() as u64).sum::<u64>();
        self.live.swap(&self.authority, &[revoked.name]);
        let from = Instant::now();
        // It comes again and again, so that connections of its own say nothing.
        let ended =
            || counted(&admin, "kordon_connections_ended_by_certificate_total").unwrap_or(0);
        let gone = self.watch(CUT_LIMIT, |_| ended() >= had);
        let took = from.elapsed().as_millis();
        // What was on its way when it was cut off is at the broker by then.
        self.watch(Duration::from_secs(1), |_| false);
        let held: u64 = self
            .flows
            .iter()
            .filter(|f| is_cut(f))
            .map(|f| f.bytes)
            .sum();
        self.watch(Duration::from_secs(3), |_| false);
        let then: u64 = self
            .flows
            .iter()
            .filter(|f| is_cut(f))
            .map(|f| f.bytes)
            .sum();
        self.told(fault, |flow| !is_cut(flow), tally);
        self.check(fault, gone, "the revoked client is still connected", tally);
        self.check(fault, held == then, "the revoked client came back", tally);
        let ended = ended();
        self.check(
            fault,
            ended == had,
            "Kordon ended other connections too",
            tally,
        );
        writeln!(
            self.table,
            "{fault:<12} {ended} connections ended after {took} ms"
        )
        .unwrap();
        Ok(())
    }

    /// Nothing acknowledged is lost, to those that were not cut off not even unread.
    fn end(&mut self, revoked: Client, tally: &mut Tally) -> Result<(), String> {
        self.flows.iter().for_each(|flow| flow.traffic.stop());
        for flow in std::mem::take(&mut self.flows) {
            let (client, topic) = (flow.traffic.client, flow.traffic.topic.clone());
            let to_the_end = flow.proof != "mtls" || client != revoked;
            let report = flow.traffic.report(REPORT_LIMIT);
            let stored = records(&flow.files);
            let outcome = report.and_then(|mut report| {
                // Also those whose acknowledgement was cut off: they are to be read, too.
                report.acknowledged = report.acknowledged.max(stored);
                survived(&self.secure.kafka, &topic, report, to_the_end)
            });
            let (line, name) = (outcome.clone(), client.name);
            let line = line.unwrap_or_else(|why| why);
            let cut = if to_the_end { "" } else { " (revoked)" };
            writeln!(
                self.table,
                "{:<12} {name:<11} {:<6} {line}, stored {stored}{cut}",
                "all", flow.proof
            )
            .unwrap();
            match outcome {
                Ok(_) => tally.pass(TIER, name),
                Err(why) => tally.fail(TIER, name, "records", &why),
            }
        }
        let metric = "kordon_upstream_reauthentications_total";
        let all = counted(&self.kordon.admin, metric)?;
        let good = counted(
            &self.kordon.admin,
            &format!("{metric}{{outcome=\"renewed\""),
        )?;
        writeln!(
            self.table,
            "{:<12} Kordon renewed {good} of {all} sessions at the broker",
            "all"
        )
        .unwrap();
        self.check(
            "upstream",
            good > 0,
            "no session at the broker was renewed",
            tally,
        );
        Ok(())
    }

    /// A token of this client, from the OAuth server.
    fn token(&self, client: &str) -> Result<String, String> {
        let account = BASE64_STANDARD.encode(format!("{client}:{}", issuer::secret(client)));
        let addr = self.issuer.url.trim_start_matches("http://");
        let body = "grant_type=client_credentials&scope=kafka";
        let ask = || {
            let mut stream = TcpStream::connect(addr)?;
            write!(
                stream,
                "POST /token HTTP/1.0\r\nhost: {addr}\r\nauthorization: Basic {account}\r\n\
                 content-type: application/x-www-form-urlencoded\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|e: std::io::Error| e.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
        let token = body["access_token"].as_str();
        Ok(token.ok_or("no access_token")?.to_owned())
    }
}

/// The same token under the name of a key that nobody has.
fn with_other_key(token: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    let head = r#"{"alg":"RS256","typ":"at+jwt","kid":"nobody-has-it"}"#;
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(head))
}

/// How many records a topic holds: the last offset of the last batch of each file, and one more.
fn records(files: &[PathBuf]) -> u64 {
    let last = |file: &PathBuf| {
        let bytes = std::fs::read(file).unwrap_or_default();
        let (mut at, mut count) = (0, 0);
        while let Some(batch) = bytes.get(at..at + 27) {
            let base = u64::from_be_bytes(batch[..8].try_into().unwrap());
            let length = u32::from_be_bytes(batch[8..12].try_into().unwrap());
            let delta = u32::from_be_bytes(batch[23..27].try_into().unwrap());
            count = base + u64::from(delta) + 1;
            at += 12 + length as usize;
        }
        count
    };
    files.iter().map(last).sum()
}

/// A token endpoint that gives everyone one and the same token; ends when dropped.
struct Endpoint {
    url: String,
    addr: String,
    over: std::sync::Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Endpoint {
    fn start(token: &str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":40}}"#);
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let ends = std::sync::Arc::clone(&over);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                // The whole question, or it would be cut off with the connection.
                let mut asked = [0; 4096];
                while matches!(stream.read(&mut asked), Ok(n) if n > 0)
                    && !asked.windows(10).any(|w| w == b"grant_type")
                {}
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                     connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Endpoint {
            url: format!("http://{addr}/token"),
            addr,
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(ports: &Ports, live: &Live, issuer: &Issuer, secure: &Secure) -> String {
    let file = |name: &str| live.path(name).display().to_string();
    let (app, second) = (ports.app, ports.second);
    let tls = format!("cert: {}, key: {}", file("server.pem"), file("server.key"));
    format!(
        "upstream:
  bootstrap: [\"{broker}\"]
  tls: {{ca: {ca}, cert: {own_cert}, key: {own_key}}}
  sasl:
    oauthbearer:
      tokenEndpoint: {token}
      clientId: {KORDON}
      clientSecret: {{file: secret}}
      scope: kafka
listeners:
  - name: mesh
    bind: {IN_FRONT}:{app}
    advertise: {{host: localhost, ports: {}-{}}}
    tls: {{{tls}, clientCa: {ca}, clientAuth: required, crl: [{crl}], recheck: true}}
    identity: {{mtls: {{from: cn, shared: true}}}}
  - name: tokens
    bind: {IN_FRONT}:{second}
    advertise: {{host: localhost, ports: {}-{}}}
    tls: {{{tls}}}
    sasl:
      oauthbearer:
        issuer: {issuer}
        jwks: {{url: {jwks}}}
        audience: kafka
        requiredScopes: [kafka]
        shared: true
policies: policies/
admin: {{bind: \"127.0.0.1:{admin}\"}}
",
        app + 1,
        app + BROKER_PORTS,
        second + 1,
        second + BROKER_PORTS,
        broker = secure.sasl,
        ca = file("ca.pem"),
        own_cert = file(&format!("{KORDON}.pem")),
        own_key = file(&format!("{KORDON}.key")),
        crl = file("crl.pem"),
        token = issuer.token_url(),
        jwks = issuer.jwks_url(),
        issuer = issuer.url,
        admin = ports.admin,
    )
}
