//! Traffic that is disturbed: leaders move, a broker of three is killed, Kordon is told to end.

use crate::Choice;
use crate::lab::client::{self, Client, Report, Traffic};
use crate::lab::kafka::Kafka;
use crate::lab::kordon::{IN_FRONT, Kordon};
use crate::tally::Tally;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const VERSION: &str = "4.3.0";
/// How long a client may take from the end of its producing to its report.
pub const REPORT_LIMIT: Duration = Duration::from_secs(150);
/// How long nothing disturbs the traffic, before and after what does.
const CALM: Duration = Duration::from_secs(3);
/// How long a broker stays away: longer than it takes to be missed.
const AWAY: Duration = Duration::from_secs(8);
const FLOW_LIMIT: Duration = Duration::from_secs(60);
/// A producer that answered fewer events than this did not work at all.
const ACKNOWLEDGED_MIN: u64 = 100;

/// Three brokers: every leader of partition 0 moves, then one broker is killed and comes back,
/// while every client produces and reads; directly and through Kordon.
pub fn leaders(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    let clients = choice.clients("three brokers", tally);
    if let Err(reason) = crate::part::ready(&format!("kafka-{VERSION}")) {
        tally.tier_skipped("three brokers", "all", &reason);
        return Ok(());
    }
    let mut kafka = Kafka::start(VERSION, 3, "")?;
    if choice.way("direct") {
        let bootstrap = kafka.bootstrap();
        disturbed(&mut kafka, &clients, &bootstrap, "direct", tally)?;
    }
    if choice.way("kordon") {
        let mut kordon = Kordon::matrix(IN_FRONT, &kafka.addrs())?;
        let (addr, before) = (kordon.addr.clone(), tally.failures());
        let outcome = disturbed(&mut kafka, &clients, &addr, "kordon", tally);
        if outcome.is_err() || tally.failures() > before {
            println!("the end of Kordon's log:\n{}", kordon.log(60));
        }
        if !kordon.runs() {
            return Err(format!("`kordon run` ended:\n{}", kordon.log(40)));
        }
        outcome?;
    }
    Ok(())
}

fn disturbed(
    kafka: &mut Kafka,
    clients: &[Client],
    bootstrap: &str,
    way: &str,
    tally: &mut Tally,
) -> Result<(), String> {
    let dir = tempfile::Builder::new()
        .prefix("kordon-traffic-")
        .tempdir()
        .unwrap();
    let topics = topics(kafka, clients, way, 3)?;
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let from = Instant::now();
    let mut traffic = start(clients, bootstrap, &topics, 45, dir.path());
    flowing(&traffic, &format!("three brokers {way}"), tally);
    println!(
        "three brokers {way}: traffic flows at {} s",
        from.elapsed().as_secs()
    );
    sleep(CALM);
    let leader = leader(kafka, &topics[0])?;
    let next = leader % 3 + 1;
    kafka.move_leader(&names, 0, next)?;
    println!(
        "three brokers {way}: partition 0 went from broker {leader} to {next} at {} s",
        from.elapsed().as_secs()
    );
    running(&mut traffic, "the leader change", way, tally);
    sleep(CALM);
    kafka.kill_broker(next);
    println!(
        "three brokers {way}: broker {next} killed at {} s",
        from.elapsed().as_secs()
    );
    sleep(AWAY);
    kafka.restart_broker(next)?;
    running(&mut traffic, "the broker's death", way, tally);
    sleep(CALM);
    traffic.iter().for_each(Traffic::stop);
    println!(
        "three brokers {way}: stopped at {} s",
        from.elapsed().as_secs()
    );
    for one in traffic {
        let (client, topic) = (one.client, one.topic.clone());
        let case = "leader change and kill -9";
        let tier = format!("three brokers {way}");
        match one
            .report(REPORT_LIMIT)
            .and_then(|r| survived(kafka, &topic, r, true))
        {
            Ok(line) => {
                println!("{tier} · {}: {line}", client.name);
                tally.pass(&tier, client.name);
            }
            Err(why) => tally.fail(&tier, client.name, case, &why),
        }
    }
    in_sync(kafka, &topics)
}

/// SIGTERM for Kordon during traffic: it exits 0 and every acknowledged event is in the broker.
pub fn term(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    if !choice.way("kordon") {
        return Ok(());
    }
    let tier = "SIGTERM kordon";
    let clients = choice.clients(tier, tally);
    if let Err(reason) = crate::part::ready(&format!("kafka-{VERSION}")) {
        tally.tier_skipped(tier, "all", &reason);
        return Ok(());
    }
    let kafka = Kafka::start(VERSION, 1, "")?;
    let dir = tempfile::Builder::new()
        .prefix("kordon-term-")
        .tempdir()
        .unwrap();
    let mut kordon = Kordon::matrix(IN_FRONT, &kafka.addrs())?;
    let topics = topics(&kafka, &clients, "term", 1)?;
    let traffic = start(&clients, &kordon.addr, &topics, 6, dir.path());
    flowing(&traffic, tier, tally);
    sleep(CALM);
    match kordon.term(Duration::from_secs(40)) {
        Some(status) if status.success() => tally.pass(tier, "exit 0"),
        Some(status) => tally.fail(
            tier,
            "exit 0",
            "exit",
            &format!("{status}\n{}", kordon.log(20)),
        ),
        None => tally.fail(
            tier,
            "exit 0",
            "exit",
            &format!("did not end\n{}", kordon.log(20)),
        ),
    }
    sleep(CALM);
    traffic.iter().for_each(Traffic::stop);
    for one in traffic {
        let (client, topic) = (one.client, one.topic.clone());
        match one
            .report(REPORT_LIMIT)
            .and_then(|r| survived(&kafka, &topic, r, false))
        {
            Ok(line) => {
                println!("{tier} · {}: {line}", client.name);
                tally.pass(tier, client.name);
            }
            Err(why) => tally.fail(tier, client.name, "acknowledged events", &why),
        }
    }
    Ok(())
}

fn topics(
    kafka: &Kafka,
    clients: &[Client],
    way: &str,
    replicas: u16,
) -> Result<Vec<String>, String> {
    let topics: Vec<String> = clients
        .iter()
        .map(|c| format!("matrix.workflow.executed.{way}.{}", c.name))
        .collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    kafka.create(3, replicas, &names)?;
    Ok(topics)
}

fn start(
    clients: &[Client],
    bootstrap: &str,
    topics: &[String],
    grace: u32,
    dir: &Path,
) -> Vec<Traffic> {
    let pairs = clients.iter().zip(topics);
    pairs
        .map(|(client, topic)| client.traffic(bootstrap, topic, grace, dir))
        .collect()
}

/// Waits until every client has had an event acknowledged and read.
pub fn flowing(traffic: &[Traffic], tier: &str, tally: &mut Tally) {
    let until = Instant::now() + FLOW_LIMIT;
    while traffic.iter().any(|one| !one.flows()) && Instant::now() < until {
        sleep(Duration::from_millis(100));
    }
    for one in traffic.iter().filter(|one| !one.flows()) {
        tally.fail(
            tier,
            one.client.name,
            "start",
            &format!("nothing flows in {FLOW_LIMIT:?}"),
        );
    }
}

/// Traffic that ended early proves nothing about what comes next.
fn running(traffic: &mut [Traffic], what: &str, way: &str, tally: &mut Tally) {
    for one in traffic {
        if !one.runs() {
            tally.fail(
                &format!("three brokers {way}"),
                one.client.name,
                what,
                "ended before it",
            );
        }
    }
}

fn leader(kafka: &Kafka, topic: &str) -> Result<u16, String> {
    let leaders = kafka.leaders(topic)?;
    leaders
        .first()
        .map(|(leader, _)| *leader)
        .ok_or_else(|| format!("{topic} has no leaders"))
}

/// Waits until every partition has its three replicas again, so that the next run starts whole.
fn in_sync(kafka: &Kafka, topics: &[String]) -> Result<(), String> {
    for topic in topics {
        for attempt in 0.. {
            if kafka.leaders(topic)?.iter().all(|(_, isr)| *isr == 3) {
                break;
            }
            if attempt == 20 {
                return Err(format!("{topic} is not whole again:\n{}", kafka.logs(10)));
            }
            sleep(Duration::from_millis(500));
        }
    }
    Ok(())
}

/// Nothing acknowledged is missing in the broker, nor (where `to_the_end`) to the consumer, and
/// then the last events were acknowledged too: the client came back.
pub fn survived(
    kafka: &Kafka,
    topic: &str,
    report: Report,
    to_the_end: bool,
) -> Result<String, String> {
    let stored = client::ranges(&kafka.ids(topic, report.acknowledged as usize)?)?;
    let lost = client::lacking(&report.ids, &stored);
    let line = format!(
        "sent {}, acknowledged {}, consumed {}, errors {}",
        report.sent, report.acknowledged, report.consumed, report.errors
    );
    if report.acknowledged < ACKNOWLEDGED_MIN {
        return Err(format!("too little traffic to tell: {line}"));
    }
    if !lost.is_empty() {
        let some = &lost[..lost.len().min(20)];
        return Err(format!(
            "{} acknowledged are not in the broker: {some:?}; {line}",
            lost.len()
        ));
    }
    let last = report.ids.last().map(|(_, last)| last + 1);
    if to_the_end && last != Some(report.sent) {
        return Err(format!(
            "the last acknowledged is {last:?} of {}; {line}",
            report.sent
        ));
    }
    if to_the_end && !report.missing.is_empty() {
        return Err(format!(
            "acknowledged but not consumed: {:?}; {line}",
            report.missing
        ));
    }
    Ok(line)
}
