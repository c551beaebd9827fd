//! Audit lines that go to a topic of real brokers: whatever leader moves and whichever broker is
//! killed, each line is there once and in its place, so that what a consumer reads verifies.

use crate::Choice;
use crate::lab::kafka::Kafka;
use crate::lab::kordon::{BROKER_PORTS, IN_FRONT, Kordon, Ports, binary};
use crate::tally::Tally;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

const VERSION: &str = "4.3.0";
const TOPIC: &str = "audit.events";
const PARTITIONS: u16 = 3;
const TIER: &str = "audit topic";
/// How long nothing disturbs the traffic, before and after what does.
const CALM: Duration = Duration::from_secs(1);
/// How long a broker stays away: longer than it takes to be missed.
const AWAY: Duration = Duration::from_secs(6);
const IN_SYNC_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(30);
/// Between two requests, each of which leaves a line.
const PAUSE: Duration = Duration::from_millis(2);

/// DescribeAcls version 1 of everything, which no rule allows.
const REQUEST: &[u8] =
    b"\0\0\0\x16\0\x1d\0\x01\0\0\0\x01\0\x02it\x01\xff\xff\x01\xff\xff\xff\xff\x01\x01";
/// CLUSTER_AUTHORIZATION_FAILED, behind length, correlation id and throttle time.
const REFUSED: [u8; 2] = [0, 31];

/// Runs the scenario.
pub fn topic(_: &Choice, tally: &mut Tally) -> Result<(), String> {
    if let Err(reason) = crate::part::ready(&format!("kafka-{VERSION}")) {
        tally.tier_skipped(TIER, "all", &reason);
        return Ok(());
    }
    let mut kafka = Kafka::start(VERSION, 3, "")?;
    kafka.create(PARTITIONS, 3, &[TOPIC])?;
    let bootstrap = serde_json::to_string(&kafka.addrs()).unwrap();
    let config = |ports: &Ports| {
        format!(
            "upstream: {{bootstrap: {bootstrap}}}
listeners:
  - name: app
    bind: {IN_FRONT}:{app}
    advertise: {{host: localhost, ports: {first}-{last}}}
    identity: {{static: \"User:app\"}}
policies: policies/
audit: {{topic: {TOPIC}}}
",
            app = ports.app,
            first = ports.app + 1,
            last = ports.app + BROKER_PORTS,
        )
    };
    let policy = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: app}
spec: {principals: [\"User:app\"], rules: [{allow: [Read], topics: [app]}]}
";
    let mut kordon = Kordon::start(IN_FRONT, config, &[("policies/app.yaml", policy)])?;
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = {
        let (addr, stop) = (kordon.addr.clone(), Arc::clone(&stop));
        std::thread::spawn(move || refused(&addr, &stop))
    };
    let outcome = disturb(&mut kafka);
    stop.store(true, SeqCst);
    let (answered, cut) = traffic.join().unwrap();
    sleep(CALM);
    let ended = kordon.term(END_LIMIT);
    if outcome.is_err() || !ended.is_some_and(|status| status.success()) {
        return Err(format!("{outcome:?} {ended:?}\n{}", kordon.log(60)));
    }
    let found = consumed(&kafka)?;
    let told = format!("{} lines of {answered} requests, {cut} cut", found.len());
    println!("audit topic: {told}");
    let file = kordon.dir().join("consumed.jsonl");
    std::fs::write(&file, found.concat()).unwrap();
    let verified = Command::new(binary())
        .args(["audit", "verify"])
        .arg(&file)
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    // One line more that begins the chain, and one that ends it.
    let expected = answered + 2..=answered + 2 + cut;
    match verified.status.success() && answered > 1000 && expected.contains(&found.len()) {
        true => tally.pass(TIER, "kordon"),
        false => {
            let log = kordon.log(60);
            tally.fail(
                TIER,
                "kordon",
                "the chain",
                &format!("{told}: {text}\n{log}"),
            );
        }
    }
    Ok(())
}

/// Moves every leader, then kills each broker in turn.
fn disturb(kafka: &mut Kafka) -> Result<(), String> {
    sleep(CALM);
    for (partition, (leader, _)) in (0..).zip(kafka.leaders(TOPIC)?) {
        kafka.move_leader(&[TOPIC], partition, leader % 3 + 1)?;
        sleep(CALM);
    }
    for broker in 1..=3 {
        kafka.kill_broker(broker);
        sleep(AWAY);
        kafka.restart_broker(broker)?;
        let until = Instant::now() + IN_SYNC_LIMIT;
        while kafka
            .leaders(TOPIC)?
            .iter()
            .any(|(_, in_sync)| *in_sync < 3)
        {
            if Instant::now() > until {
                return Err(format!("broker {broker} is not in sync again"));
            }
            sleep(CALM);
        }
        println!("audit topic: broker {broker} was killed and is back");
    }
    Ok(())
}

/// Asks what is refused until it is to stop: how often it was, and how many connections ended
/// with their broker, and perhaps an answer with them.
fn refused(addr: &str, stop: &AtomicBool) -> (usize, usize) {
    let (mut answered, mut ended) = (0, 0);
    while !stop.load(SeqCst) {
        let Ok(mut stream) = TcpStream::connect(addr) else {
            continue;
        };
        while !stop.load(SeqCst) && ask(&mut stream).is_ok() {
            answered += 1;
            sleep(PAUSE);
        }
        ended += 1;
        sleep(PAUSE);
    }
    (answered, ended)
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(END_LIMIT))?;
    stream.write_all(REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer[8..10], REFUSED);
    Ok(())
}

/// What Kafka's own consumer prints of the topic, line by line.
fn consumed(kafka: &Kafka) -> Result<Vec<String>, String> {
    let bootstrap = kafka.bootstrap();
    let words = [
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        TOPIC,
        "--from-beginning",
        "--timeout-ms",
        "10000",
    ];
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let (_, text) = kafka.own_tool(class, &words);
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<String> = lines.map(|line| format!("{line}\n")).collect();
    match lines.is_empty() {
        true => Err(text),
        false => Ok(lines),
    }
}
