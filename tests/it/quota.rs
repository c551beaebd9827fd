//! Produce quotas as Kafka gives them (KIP-219): the answer comes at once and says how long, and
//! the connection is not read for that time.

use std::time::{Duration, Instant};

use kordon::demo::client::{Client, produce_request};

use crate::support::*;

/// 1 KiB/s for User:app: a burst counts as a tenth of itself a second, so that this many bytes
/// cost half a second or a little more.
const TOO_MUCH: usize = 10_752;

fn lab() -> Lab {
    let quota = "---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: slow}
spec:
  for: {user: app}
  limits: {produce: 1KiB/s}
";
    Lab::ruled(&format!("{POLICY}{quota}"))
}

/// The throttle time that the answer to one batch of this size says.
async fn told(client: &mut Client, bytes: usize) -> u64 {
    let answer = client.produce("open.a", 0, batch_of(bytes)).await.unwrap();
    assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    u64::try_from(answer.throttle_time_ms).unwrap()
}

#[tokio::test]
async fn what_is_over_the_quota_is_written_and_the_next_request_waits() {
    let lab = lab();
    let mut client = lab.app().await;
    assert_eq!(told(&mut client, 100).await, 0);
    let begun = Instant::now();
    let throttle = told(&mut client, TOO_MUCH).await;
    assert!((500..2_000).contains(&throttle), "{throttle} ms");
    client.metadata(Some(&[])).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(throttle));
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(2));
    let line = lab.audit(&[("reason", "quota"), ("decision", "allow")]);
    assert!(
        line["rule"].as_str().unwrap().ends_with("base.yaml:15"),
        "{line}"
    );
    let seconds = lab.metric("kordon_throttle_seconds_total", &[]);
    assert!(
        (seconds * 1_000.0 - throttle as f64).abs() < 1.0,
        "{seconds}"
    );
}

#[tokio::test]
async fn others_are_not_held_back() {
    let lab = lab();
    assert!(told(&mut lab.app().await, TOO_MUCH).await > 0);
    let mut other = lab.client("other").await;
    assert_eq!(told(&mut other, TOO_MUCH).await, 0);
    assert_eq!(told(&mut other, TOO_MUCH).await, 0);
}

#[tokio::test]
async fn t34_the_quota_is_the_principals_on_every_connection_and_under_every_client_id() {
    let lab = lab();
    assert!(told(&mut lab.app().await, TOO_MUCH).await > 0);
    let mut second = Client::connect(lab.address("app"), "someone-else")
        .await
        .unwrap();
    assert!(told(&mut second, 100).await > 0);
}

#[tokio::test]
async fn produce_without_acknowledgement_is_held_back_as_well() {
    let lab = lab();
    let mut client = lab.app().await;
    let request = produce_request("open.a", 0, batch_of(TOO_MUCH), 0);
    let begun = Instant::now();
    client.send(9, &request).await.unwrap();
    client.metadata(Some(&[])).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(1));
}

#[tokio::test]
async fn what_is_refused_counts_too() {
    let lab = lab();
    let mut client = lab.app().await;
    let answer = client
        .produce("secret.a", 0, batch_of(TOO_MUCH))
        .await
        .unwrap();
    assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
    assert!(answer.throttle_time_ms > 0);
}

#[tokio::test]
async fn a_new_quota_is_in_force_on_open_connections() {
    let lab = lab();
    let mut client = lab.client("other").await;
    assert_eq!(told(&mut client, TOO_MUCH).await, 0);
    let policy = lab.file("policies/base.yaml");
    lab.reload(&policy.replace("for: {user: app}", "for: {user: other}"));
    assert!(told(&mut client, TOO_MUCH).await > 0);
}

#[tokio::test]
async fn t34_the_quota_is_the_principals_however_it_was_proven() {
    let quota = "---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: slow}
spec: {for: {user: alice}, limits: {produce: 1KiB/s}}
";
    let lab = Lab::with(|setup| (setup.tls, setup.policy) = (true, format!("{POLICY}{quota}")));
    let mut mesh = lab
        .tls("mesh", "localhost", Some(&["alice"]))
        .await
        .unwrap();
    assert!(told(&mut mesh, TOO_MUCH).await > 0);
    assert!(told(&mut lab.authenticated("alice").await, 100).await > 0);
}

#[tokio::test]
async fn the_throttle_time_stands_in_an_answer_that_is_refused_in_part_too() {
    let lab = lab();
    let mut client = lab.app().await;
    let parts = ["open.a", "secret.a"].map(|topic| (topic, 0, batch_of(TOO_MUCH / 2)));
    let answer = client.call(9, &produce(-1, &parts)).await.unwrap();
    assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    assert_eq!(part(&answer, "secret.a", 0).error_code, 29);
    assert!(
        answer.throttle_time_ms >= 500,
        "{}",
        answer.throttle_time_ms
    );
}

/// `proxy::requests::pump` waits at `Stop::Muted` for the time to pass or the process to drain,
/// and does not notice that the client has gone: whoever is throttled for an hour and leaves
/// holds one of `limits.connections` for an hour.
#[tokio::test]
async fn t38_a_client_that_leaves_while_it_is_held_back_makes_room() {
    let lab = lab();
    let mut client = lab.app().await;
    assert!(told(&mut client, 200_000).await > 60_000);
    drop(client);
    lab.until_metric("kordon_connections", 0.0);
}
