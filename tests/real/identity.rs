//! Who is speaking: clients prove it by certificate and by token, to a real broker that requires
//! it and to Kordon in front of that broker, with their own stock settings and a real OAuth server.

use crate::disturbance::{REPORT_LIMIT, flowing, survived};
use crate::lab::certificates::Authority;
use crate::lab::client::{Answers, Client, Outcome, Security, Traffic};
use crate::lab::http;
use crate::lab::issuer::{self, Issuer};
use crate::lab::kordon::{BROKER_PORTS, IN_FRONT, Kordon, Ports};
use crate::lab::secure::Secure;
use crate::tally::Tally;
use crate::{Choice, matrix};
use std::fmt::Write as _;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::Duration;

const VERSION: &str = "4.3.0";
/// Kordon's own name, at the broker and at the OAuth server.
pub const KORDON: &str = "kordon";
/// What is asked of one client for each other way in which Kordon proves itself to the broker.
const UPSTREAM_CASES: [&str; 3] = [
    "admin/describe-cluster",
    "produce/gzip/acks=all",
    "group/classic",
];
/// What is asked of each client: every codec, idempotence, a group, transactions, two admin calls.
const CASES: [&str; 10] = [
    "admin/describe-cluster",
    "admin/describe-topics",
    "produce/none/acks=all",
    "produce/gzip/acks=all",
    "produce/snappy/acks=all",
    "produce/lz4/acks=all",
    "produce/zstd/acks=all",
    "produce/none/idempotent",
    "group/classic",
    "transaction/commit-abort",
];
/// Tokens that outlive the run.
const LONG: Duration = Duration::from_secs(600);
/// Tokens that do not: connections live for a few of them.
const SHORT: Duration = Duration::from_secs(20);
/// How long traffic flows while tokens expire.
const TRAFFIC: Duration = Duration::from_secs(45);
/// The tokens that a client must have had by then: at 20 s and 40 s the first two have expired.
const TOKENS_MIN: usize = 3;
/// As long as the last events may take to be acknowledged, and then to be read.
const GRACE_SECONDS: u32 = 20;

/// How Kordon proves itself to the broker.
#[derive(Clone, Copy, Debug)]
enum Upstream {
    Token,
    Certificate,
    Scram,
    Plain,
}

/// The servers of a scenario: an authority, an OAuth server, the broker and Kordon before it.
struct Stage {
    authority: Authority,
    issuer: Issuer,
    secure: Secure,
    kordon: Option<Kordon>,
}

impl Stage {
    /// `Ok(None)` when a part is missing here, which is told.
    fn start(
        tier: &str,
        choice: &Choice,
        clients: &[Client],
        tokens: Duration,
        tally: &mut Tally,
    ) -> Result<Option<Stage>, String> {
        for part in [&format!("kafka-{VERSION}"), "issuer"] {
            if let Err(reason) = crate::part::ready(part) {
                tally.tier_skipped(tier, "all", &reason);
                return Ok(None);
            }
        }
        let mut names: Vec<String> = clients.iter().map(|c| c.name.to_owned()).collect();
        names.extend(clients.iter().map(|c| direct(*c)));
        names.push(KORDON.to_owned());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let authority = Authority::new(&names);
        let issuer = Issuer::start(&issuer::Settings::new(tokens, &names))?;
        // The broker names a session's end only where it has a bound; here it is the token's or,
        // with a token that is still young, this one.
        let max_reauth = Some(tokens * 3 / 4);
        let secure = Secure::start(VERSION, &authority, &issuer, &names, max_reauth)?;
        let kordon = choice
            .way("kordon")
            .then(|| kordon(&authority, &issuer, &secure, clients, Upstream::Token))
            .transpose()?;
        Ok(Some(Stage {
            authority,
            issuer,
            secure,
            kordon,
        }))
    }

    fn by_certificate(&self, name: &str) -> Security {
        let files = self.authority.of(name);
        Security::Mtls {
            ca: self.authority.ca(),
            cert: files.cert,
            key: files.key,
        }
    }

    fn by_token(&self, issuer: &Issuer, name: &str) -> Security {
        Security::Oauth {
            ca: self.authority.ca(),
            token_url: issuer.token_url(),
            id: name.to_owned(),
            secret: issuer::secret(name),
        }
    }

    /// A client's proof, and where it goes directly and through Kordon.
    fn proof(&self, proof: &str, client: Client) -> (Security, &str, Option<&str>) {
        let kordon = self.kordon.as_ref();
        match proof {
            "mtls" => (
                self.by_certificate(client.name),
                &self.secure.mtls,
                kordon.map(|kordon| kordon.addr.as_str()),
            ),
            _ => (
                self.by_token(&self.issuer, client.name),
                &self.secure.sasl,
                kordon.map(|kordon| kordon.second.as_str()),
            ),
        }
    }

    /// The runs of a client, each direct one before the one through Kordon.
    fn every_way<'a>(
        &'a self,
        choice: &Choice,
        client: Client,
        proofs: &[&'a str],
    ) -> Vec<Run<'a>> {
        let mut runs = Vec::new();
        for proof in proofs {
            let (security, broker, kordon) = self.proof(proof, client);
            let direct = choice.way("direct").then_some(broker);
            let ways = [("direct", direct), ("kordon", kordon)];
            runs.extend(ways.into_iter().filter_map(|(way, addr)| {
                Some(Run {
                    client,
                    security: security.clone(),
                    proof,
                    way,
                    addr: addr?,
                })
            }));
        }
        runs
    }

    /// The ends of the servers' logs, when something failed.
    fn print_logs(&self) {
        println!(
            "the end of the OAuth server's log:\n{}",
            self.issuer.log(10)
        );
        println!(
            "the end of the broker's log:\n{}",
            self.secure.kafka.logs(20)
        );
        if let Some(kordon) = &self.kordon {
            println!("the end of Kordon's log:\n{}", kordon.log(40));
        }
    }

    /// Kordon lived through it; logs where something failed since `before`.
    fn end(mut self, before: usize, tally: &Tally) -> Result<(), String> {
        if tally.failures() > before {
            self.print_logs();
        }
        if let Some(kordon) = &mut self.kordon
            && !kordon.runs()
        {
            return Err(format!("`kordon run` ended:\n{}", kordon.log(40)));
        }
        Ok(())
    }
}

/// The name by which a client's direct run gets tokens of its own.
fn direct(client: Client) -> String {
    format!("{}-direct", client.name)
}

/// Every client by certificate and by token, directly and through Kordon, with the same facts;
/// then strangers, whom neither lets in.
pub fn proven(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    let clients = choice.clients("identity", tally);
    let Some(stage) = Stage::start("identity", choice, &clients, LONG, tally)? else {
        return Ok(());
    };
    let before = tally.failures();
    let dir = tempfile::Builder::new()
        .prefix("kordon-identity-")
        .tempdir()
        .unwrap();
    let proofs: Vec<&str> = crate::PROOFS
        .into_iter()
        .filter(|proof| choice.proof(proof))
        .collect();
    for client in &clients {
        let runs = stage.every_way(choice, *client, &proofs);
        // In pairs: four virtual machines at once starve each other on a small machine.
        let answers = runs
            .chunks(2)
            .flat_map(|pair| side_by_side("known", pair, &CASES, dir.path()));
        let mut direct: Option<(&str, Answers)> = None;
        for (run, answers) in runs.iter().zip(answers) {
            let tier = format!("{} {}", run.proof, run.way);
            let seen = direct.take().filter(|(proof, _)| *proof == run.proof);
            let seen = seen.as_ref().map(|(_, answers)| answers);
            let answers = matrix::count(&tier, client.name, answers, seen, tally);
            direct = (run.way == "direct").then_some((run.proof, answers));
        }
    }
    strangers(&stage, choice, &clients, &proofs, dir.path(), tally)?;
    if let Some(client) = clients.first().filter(|_| choice.way("kordon")) {
        by_other_proofs(&stage, *client, dir.path(), tally)?;
    }
    stage.end(before, tally)
}

/// One client through a Kordon that proves itself to the broker by certificate, SCRAM and PLAIN.
fn by_other_proofs(
    stage: &Stage,
    client: Client,
    dir: &Path,
    tally: &mut Tally,
) -> Result<(), String> {
    for upstream in [Upstream::Certificate, Upstream::Scram, Upstream::Plain] {
        let (authority, secure) = (&stage.authority, &stage.secure);
        let kordon = kordon(authority, &stage.issuer, secure, &[client], upstream)?;
        let what = format!("{upstream:?}").to_lowercase();
        let prefix = format!("identity.{}.upstream-{what}.", client.name);
        let security = stage.by_certificate(client.name);
        let answers = client.matrix_as(&security, &kordon.addr, &prefix, &UPSTREAM_CASES, dir);
        let (tier, before) = (format!("upstream {what}"), tally.failures());
        matrix::count(&tier, client.name, answers, None, tally);
        if tally.failures() > before {
            println!("the end of Kordon's log:\n{}", kordon.log(20));
        }
    }
    Ok(())
}

/// One run of one client.
struct Run<'a> {
    client: Client,
    security: Security,
    proof: &'a str,
    way: &'static str,
    addr: &'a str,
}

/// The runs' answers in their order; all at once, since each of them mostly waits. `what` is part
/// of the names of each run, which has output and topics of its own.
fn side_by_side(
    what: &str,
    runs: &[Run<'_>],
    cases: &[&str],
    dir: &Path,
) -> Vec<Result<Answers, String>> {
    let run = |run: &Run<'_>| {
        let (name, proof, way) = (run.client.name, run.proof, run.way);
        let prefix = format!("identity.{name}.{what}-{proof}.{way}.");
        run.client
            .matrix_as(&run.security, run.addr, &prefix, cases, dir)
    };
    thread::scope(|scope| {
        let running: Vec<_> = runs
            .iter()
            .map(|one| scope.spawn(move || run(one)))
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// Clients with a certificate of another authority or a token of another issuer, which carry the
/// names of those who may: nothing is answered to them, and Kordon counts each failure.
fn strangers(
    stage: &Stage,
    choice: &Choice,
    clients: &[Client],
    proofs: &[&str],
    dir: &Path,
    tally: &mut Tally,
) -> Result<(), String> {
    let names: Vec<&str> = clients.iter().map(|c| c.name).collect();
    let authority = Authority::new(&names);
    let issuer = Issuer::start(&issuer::Settings::new(LONG, &names))?;
    let mut runs = Vec::new();
    for client in clients {
        runs.extend(stage.every_way(choice, *client, proofs));
    }
    for run in &mut runs {
        run.security = match &run.security {
            Security::Oauth { .. } => stage.by_token(&issuer, run.client.name),
            _ => {
                let files = authority.of(run.client.name);
                Security::Mtls {
                    ca: stage.authority.ca(),
                    cert: files.cert,
                    key: files.key,
                }
            }
        };
    }
    let failed = || match &stage.kordon {
        Some(kordon) => failures(&kordon.admin),
        None => Ok(0),
    };
    let before = failed()?;
    let answers = side_by_side("stranger", &runs, &CASES[..1], dir);
    for (run, answers) in runs.iter().zip(answers) {
        let tier = format!("strangers {} {}", run.proof, run.way);
        match answers.map(|answers| let_in(&answers)) {
            Ok(Some(case)) => tally.fail(&tier, run.client.name, &case, "it was let in"),
            Ok(None) | Err(_) => tally.pass(&tier, run.client.name),
        }
    }
    let tried = runs.iter().filter(|run| run.way == "kordon").count() as u64;
    let counted = failed()? - before;
    if counted < tried {
        let why = format!("Kordon counted {counted} failures of {tried} clients");
        tally.fail("strangers", "all", "metric", &why);
    }
    Ok(())
}

/// A case that passed.
fn let_in(answers: &Answers) -> Option<String> {
    answers
        .iter()
        .find(|(_, answer)| answer.outcome == Outcome::Passed)
        .map(|(case, _)| case.clone())
}

/// Failed authentications that Kordon has counted.
fn failures(admin: &str) -> Result<u64, String> {
    counted(admin, "kordon_authentication_failures_total")
}

/// The sum of Kordon's samples whose line begins like this.
pub fn counted(admin: &str, begins: &str) -> Result<u64, String> {
    let metrics = http::ask("GET", admin, "/metrics")?;
    let values = metrics
        .lines()
        .filter(|line| line.starts_with(begins))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum::<f64>() as u64)
}

/// Every client with tokens that expire while traffic flows, directly and through Kordon at the
/// same time: whether it authenticates again or connects again, no event is lost and none refused.
pub fn again(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    let clients = choice.clients("reauth", tally);
    if !choice.proof("oauth") {
        return Ok(());
    }
    let Some(stage) = Stage::start("reauth", choice, &clients, SHORT, tally)? else {
        return Ok(());
    };
    let before = tally.failures();
    let dir = tempfile::Builder::new()
        .prefix("kordon-reauth-")
        .tempdir()
        .unwrap();
    let topics: Vec<String> = clients
        .iter()
        .flat_map(|client| crate::WAYS.map(|way| traffic_topic(*client, way)))
        .collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    stage.secure.kafka.create(3, 1, &topics)?;
    let (mut traffic, mut told) = (Vec::new(), Vec::new());
    for client in &clients {
        let (_, broker, kordon) = stage.proof("oauth", *client);
        let ways = [
            (
                "direct",
                choice.way("direct").then_some(broker),
                direct(*client),
            ),
            ("kordon", kordon, client.name.to_owned()),
        ];
        for (way, addr, id) in ways {
            let Some(addr) = addr else { continue };
            let topic = traffic_topic(*client, way);
            let security = stage.by_token(&stage.issuer, &id);
            traffic.push(client.traffic_as(&security, addr, &topic, GRACE_SECONDS, dir.path()));
            told.push((way, id));
        }
    }
    flowing(&traffic, "reauth", tally);
    sleep(TRAFFIC);
    traffic.iter().for_each(Traffic::stop);
    for (one, (way, id)) in traffic.into_iter().zip(told) {
        let (client, topic, tier) = (one.client, one.topic.clone(), format!("reauth {way}"));
        let tokens = stage.issuer.granted(&id);
        let outcome = one
            .report(REPORT_LIMIT)
            .and_then(|report| survived(&stage.secure.kafka, &topic, report, true))
            .and_then(|line| match tokens {
                few if few < TOKENS_MIN => Err(format!("only {few} tokens were asked for; {line}")),
                _ => Ok(format!("{line}, tokens {tokens}")),
            });
        match outcome {
            Ok(line) => {
                println!("{tier} · {}: {line}", client.name);
                tally.pass(&tier, client.name);
            }
            Err(why) => tally.fail(&tier, client.name, "tokens that expire", &why),
        }
    }
    if let Some(kordon) = &stage.kordon {
        // Whoever does not authenticate again (aiokafka) is sent away, and connects again.
        let log = kordon.log(usize::MAX);
        let closed = log.matches("session has expired").count();
        println!("reauth: Kordon closed {closed} connections whose session had expired");
        own_sessions(&kordon.admin, tally)?;
    }
    stage.end(before, tally)
}

fn traffic_topic(client: Client, way: &str) -> String {
    format!("identity.{}.reauth.{way}", client.name)
}

/// Kordon's own sessions at the broker were renewed under the traffic, and none in vain.
fn own_sessions(admin: &str, tally: &mut Tally) -> Result<(), String> {
    let of = |outcome: &str| {
        let sample = "kordon_upstream_reauthentications_total{outcome=\"";
        counted(admin, &format!("{sample}{outcome}\""))
    };
    let all = counted(admin, "kordon_upstream_reauthentications_total")?;
    let renewed = of("renewed")?;
    println!("reauth: Kordon renewed {renewed} of {all} of its sessions at the broker");
    if renewed == 0 || renewed < all {
        let why = format!("{renewed} of {all} renewals of Kordon's sessions went well");
        tally.fail("reauth kordon", "all", "upstream sessions", &why);
    }
    Ok(())
}

/// Kordon in front of the broker, with a listener for certificates and a second one for tokens.
fn kordon(
    authority: &Authority,
    issuer: &Issuer,
    secure: &Secure,
    clients: &[Client],
    upstream: Upstream,
) -> Result<Kordon, String> {
    let policy = policy(clients);
    // Also the password of the broker's user of that name.
    let secret = issuer::secret(KORDON);
    let files = [
        ("policies/clients.yaml", policy.as_str()),
        ("secret", secret.as_str()),
    ];
    let config = |ports: &Ports| config(ports, authority, issuer, secure, upstream);
    Kordon::start(IN_FRONT, config, &files)
}

fn config(
    ports: &Ports,
    authority: &Authority,
    issuer: &Issuer,
    secure: &Secure,
    upstream: Upstream,
) -> String {
    let (ca, own, server) = (authority.ca(), authority.of(KORDON), authority.server());
    let account = format!("{{username: {KORDON}, password: {{file: secret}}}}");
    let (broker, tls, sasl) = match upstream {
        Upstream::Token => (
            &secure.sasl,
            String::new(),
            format!(
                "oauthbearer: {{tokenEndpoint: {}, clientId: {KORDON}, \
                 clientSecret: {{file: secret}}, scope: kafka}}",
                issuer.token_url()
            ),
        ),
        Upstream::Certificate => (
            &secure.mtls,
            format!(", cert: {}, key: {}", own.cert.display(), own.key.display()),
            String::new(),
        ),
        Upstream::Scram => (
            &secure.sasl,
            String::new(),
            format!("scramSha512: {account}"),
        ),
        Upstream::Plain => (&secure.sasl, String::new(), format!("plain: {account}")),
    };
    let mut upstream = format!(
        "  bootstrap: [\"{broker}\"]
  tls: {{ca: {}{tls}}}",
        ca.display()
    );
    if !sasl.is_empty() {
        write!(upstream, "\n  sasl: {{{sasl}}}").unwrap();
    }
    let keys = format!("{{url: {}}}", issuer.jwks_url());
    let (app, second) = (ports.app, ports.second);
    let tls = format!(
        "cert: {}, key: {}",
        server.cert.display(),
        server.key.display()
    );
    format!(
        "upstream:
{upstream}
listeners:
  - name: mesh
    bind: {IN_FRONT}:{app}
    advertise: {{host: localhost, ports: {}-{}}}
    tls: {{{tls}, clientCa: {ca}, clientAuth: required}}
    identity: {{mtls: {{from: cn, shared: true}}}}
  - name: tokens
    bind: {IN_FRONT}:{second}
    advertise: {{host: localhost, ports: {}-{}}}
    tls: {{{tls}}}
    sasl:
      oauthbearer:
        issuer: {issuer}
        jwks: {keys}
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
        ca = ca.display(),
        issuer = issuer.url,
        admin = ports.admin,
    )
}

/// Each client has every right on names of its own, and none on another's.
pub fn policy(clients: &[Client]) -> String {
    let mut text = String::new();
    for client in clients {
        let name = client.name;
        write!(
            text,
            "---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {{name: {name}}}
spec:
  principals: [\"User:{name}\"]
  rules:
    - {{allow: [All], topics: [\"identity.{name}.*\"]}}
    - {{allow: [All], groups: [\"identity.{name}.*\"]}}
    - {{allow: [All], transactionalIds: [\"identity.{name}.*\"]}}
    - {{allow: [All], cluster: true}}
"
        )
        .unwrap();
    }
    text
}
