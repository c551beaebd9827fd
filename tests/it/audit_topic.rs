//! Audit lines as records of a topic: each once and in order, so that they verify as a chain;
//! whatever becomes of the broker meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use kordon::demo::client::{Client, fetch_request};
use kordon::wire::records::{Limits, Scratch, batches, records};

use crate::audit::kordon;
use crate::support::*;

/// A topic that every lab has; no rule lets a client near it.
const TOPIC: &str = "secret.a";

fn lab(more: impl FnOnce(&mut crate::support::Setup)) -> Lab {
    Lab::with(|setup| {
        setup.audit = "{topic: secret.a, allows: all}";
        more(setup);
    })
}

/// Every record of the topic, read past the proxy: key and value, by partition.
async fn consumed(lab: &Lab) -> Vec<(String, String)> {
    let mut client = Client::connect(lab.broker().address(), "it").await.unwrap();
    let mut all = Vec::new();
    for partition in 0..2 {
        let mut offset = 0;
        while Some(offset) < lab.broker().end_offset(TOPIC, partition) {
            let request = fetch_request(TOPIC, partition, offset, Duration::ZERO);
            let answer = client.call(12, &request).await.unwrap();
            let bytes = fetched(&answer).remove(0).3;
            for batch in batches(&bytes) {
                let batch = batch.unwrap();
                let mut scratch = Scratch::new();
                scratch.begin_request();
                for record in records(&batch, &mut scratch, &Limits::default()).unwrap() {
                    let record = record.unwrap();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    all.push((text(record.key.unwrap()), text(record.value.unwrap())));
                }
                offset = batch.base_offset() + i64::from(batch.count());
            }
        }
    }
    all
}

/// Waits until a record holds all these texts, and gives all there are.
async fn until(lab: &Lab, texts: &[&str]) -> Vec<(String, String)> {
    let begun = Instant::now();
    loop {
        let found = consumed(lab).await;
        let holds = |(_, line): &(String, String)| texts.iter().all(|text| line.contains(text));
        if found.iter().any(holds) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "no {texts:?} in {found:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What `kordon audit verify` says of the values, each in a line of a file.
fn verified(lab: &Lab, found: &[(String, String)]) -> (i32, String) {
    let lines: String = found.iter().map(|(_, line)| format!("{line}\n")).collect();
    let path = lab.path("consumed.jsonl");
    std::fs::write(&path, lines).unwrap();
    kordon(&["audit", "verify", &path.display().to_string()])
}

/// Waits until `/readyz` says what it should.
async fn readyz(lab: &Lab, fine: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    loop {
        let text = lab
            .http("/readyz")
            .map(|(_, text)| text)
            .unwrap_or_default();
        if fine(&text) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn refused(lab: &Lab, times: usize) {
    let mut client = lab.app().await;
    for _ in 0..times {
        let answer = client.produce("secret.a", 0, batch(&[b"x"])).await.unwrap();
        assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
    }
}

#[tokio::test]
async fn consumed_lines_verify_as_a_chain() {
    let lab = lab(|_| {});
    refused(&lab, 300).await;
    lab.metric_is("kordon_audit_lines_total", &[], 300.0);
    let found = consumed(&lab).await;
    // The line that begins the chain comes first; nobody's writing of lines makes lines.
    assert_eq!(found.len(), 301);
    assert!(found[0].1.contains("\"chain\":\"begin\""), "{}", found[0].1);
    assert!(found.iter().all(|(_, line)| !line.contains('\n')));
    let keys: BTreeSet<&String> = found.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 1, "one process, one key: {keys:?}");
    let (code, text) = verified(&lab, &found);
    assert_eq!(code, 0, "{text}");
    // A line that is missing shows.
    let without = [&found[..100], &found[101..]].concat();
    assert_eq!(verified(&lab, &without).0, 1);
    assert_eq!(lab.metric("kordon_audit_dropped_total", &[]), 0.0);
}

#[tokio::test]
async fn a_process_that_ends_delivers_its_last_lines() {
    let mut lab = lab(|setup| setup.child = true);
    refused(&lab, 20).await;
    lab.signal("TERM");
    assert_eq!(lab.ended().await.code(), Some(0));
    let found = consumed(&lab).await;
    assert_eq!(found.len(), 22);
    assert!(found[21].1.contains("\"chain\":\"end\""), "{}", found[21].1);
    let (code, text) = verified(&lab, &found);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test]
async fn without_a_broker_it_starts_says_so_and_delivers_later() {
    let mut lab = lab(|setup| setup.late_broker = true);
    // Without a broker nobody is served; that they came is a line all the same.
    let mut client = Client::connect(lab.address("tokens"), "it").await.unwrap();
    let answer = client.authenticate("no.real.token").await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.error_code != 0));
    readyz(&lab, |text| {
        text.contains("the audit topic `secret.a` cannot be written")
    })
    .await;
    lab.start_broker(1);
    let found = until(&lab, &["\"reason\":\"authentication\""]).await;
    assert_eq!(verified(&lab, &found).0, 0);
    readyz(&lab, |text| !text.contains("audit")).await;
}

fn gated(rules: &Arc<Rules>) -> Lab {
    lab(|setup| {
        setup.gate = Some(Arc::clone(rules));
        setup.upstream = ", sasl: {plain: {username: kordon, password: {file: pw}}}".to_owned();
        setup.files = vec![("pw", "s3cret, =pass".to_owned())];
    })
}

#[tokio::test]
async fn a_line_whose_answer_was_lost_is_not_there_twice() {
    let rules = Arc::new(Rules::default());
    let lab = gated(&rules);
    let mut lines = 0;
    for losses in [0, 1, 2, 1] {
        // Clients write nothing that goes to the broker: every answer is one to the proxy.
        rules.loses.store(losses, SeqCst);
        refused(&lab, 7).await;
        lines += 7;
        lab.metric_is("kordon_audit_lines_total", &[], f64::from(lines));
        assert!(rules.loses.load(SeqCst) < 0, "nothing was lost");
    }
    let found = consumed(&lab).await;
    let (code, text) = verified(&lab, &found);
    assert_eq!((code, found.len()), (0, lines as usize + 1), "{text}");
}

#[tokio::test]
async fn sessions_at_the_broker_that_end_cost_and_repeat_nothing() {
    let rules = Arc::new(Rules::default());
    rules.lifetime_ms.store(200, SeqCst);
    let lab = gated(&rules);
    let mut lines = 0;
    let opened = rules.opened.load(SeqCst);
    while rules.opened.load(SeqCst) < opened + 8 {
        refused(&lab, 2).await;
        lines += 2;
        lab.metric_is("kordon_audit_lines_total", &[], f64::from(lines));
    }
    let found = consumed(&lab).await;
    let (code, text) = verified(&lab, &found);
    assert_eq!((code, found.len()), (0, lines as usize + 1), "{text}");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_told_and_stops_nobody() {
    let lab = Lab::with(|setup| setup.audit = "{topic: not.there}");
    refused(&lab, 3).await;
    readyz(&lab, |text| text.contains("does not exist")).await;
    // Told, and yet ready: clients are served.
    assert_eq!(lab.http("/readyz").unwrap().0, 200);
    refused(&lab, 3).await;
    // It is given up when the process ends, within a bound.
    let begun = Instant::now();
    drop(lab);
    assert!(begun.elapsed() < PATIENCE);
}
