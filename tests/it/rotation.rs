//! Files change under a proxy that serves: certificates, authorities, revocation lists, key sets
//! and policies come into force by themselves, and sessions resume only as far as they still prove
//! what they did.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kordon::demo::client::{Client, ClientError};
use rcgen::{CertificateParams, DnType};
use rustls::ClientConfig;
use serde_json::json;

use crate::support::*;

const HANDSHAKES: &str = "kordon_tls_handshakes_total";
const RESUMED: &[&str] = &[r#"kind="resumed""#];
const FULL: &[&str] = &[r#"kind="full""#];

/// A lab whose `mesh` listener has a revocation list and these words behind `tls`.
fn listed(more: &str) -> Lab {
    Lab::with(|setup| {
        setup.tls = true;
        setup.lists = vec![2050];
        setup.mesh.0 += ", crl: [0.crl]";
        setup.mesh.0 += more;
    })
}

fn named(name: &str, serial: u64) -> impl Fn(&mut CertificateParams) {
    let name = name.to_owned();
    move |params| {
        params.distinguished_name.push(DnType::CommonName, &name);
        params.serial_number = Some(serial.into());
    }
}

/// The settings of one client, with the tickets that it is given.
fn shows(lab: &Lab, adapt: impl FnOnce(&mut CertificateParams)) -> Arc<ClientConfig> {
    let pki = lab.pki.as_ref().unwrap();
    pki.showing(Some(pki.certificate(adapt)))
}

async fn connect(lab: &Lab, tls: &Arc<ClientConfig>) -> Result<Client, ClientError> {
    Client::connect_tls(lab.address("mesh"), "localhost", Arc::clone(tls), "it").await
}

/// The code of one produced record; `None`: the connection is ended.
async fn writes(client: &mut Client) -> Option<i16> {
    let answer = client.produce("open.a", 0, batch(&[b"x"])).await.ok()?;
    Some(part(&answer, "open.a", 0).error_code)
}

/// Whether a new connection gets as far as a record.
async fn comes_in(lab: &Lab, tls: &Arc<ClientConfig>) -> bool {
    match connect(lab, tls).await {
        Ok(mut client) => writes(&mut client).await == Some(0),
        Err(_) => false,
    }
}

/// Puts a file in the place of another, as a careful program does.
fn replace(lab: &Lab, name: &str, text: &str) {
    let new = lab.path(&format!("{name}.new"));
    fs::write(&new, text).unwrap();
    fs::rename(new, lab.path(name)).unwrap();
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_and_is_the_same() {
    let lab = Lab::with(|setup| setup.tls = true);
    let pki = lab.pki.as_ref().unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let shown = pki.certificate(named("mallory", 70));
        let tls = pki.showing_with(Some((vec![shown.0], shown.1)), &[version]);
        let before = lab.metric(HANDSHAKES, RESUMED);
        for _ in 0..3 {
            // Mallory may not write: the refusal tells who was recognised.
            assert_eq!(
                writes(&mut connect(&lab, &tls).await.unwrap()).await,
                Some(29)
            );
        }
        assert_eq!(lab.metric(HANDSHAKES, RESUMED), before + 2.0, "{version:?}");
    }
    let by_mallory = |line: &&str| line.contains("User:mallory") && line.contains("open.a");
    until("audited", async || {
        lab.file("audit.jsonl").lines().filter(by_mallory).count() == 6
    })
    .await;
}

#[tokio::test]
async fn after_a_revocation_a_ticket_is_worth_nothing() {
    let lab = listed("");
    let pki = lab.pki.as_ref().unwrap();
    let (bad, good) = (
        shows(&lab, named("alice", 67)),
        shows(&lab, named("alice", 70)),
    );
    let mut open = connect(&lab, &bad).await.unwrap();
    assert_eq!(writes(&mut open).await, Some(0));
    assert!(comes_in(&lab, &good).await);
    replace(&lab, "0.crl", &pki.revoked(&[66, 67], 2050));
    until("refused", async || !comes_in(&lab, &bad).await).await;
    lab.audit(&[("detail", "client certificate is revoked")]);
    // The first one to come back under the new list is looked at in full.
    let (full, resumed) = (
        lab.metric(HANDSHAKES, FULL),
        lab.metric(HANDSHAKES, RESUMED),
    );
    assert!(comes_in(&lab, &good).await);
    assert_eq!(lab.metric(HANDSHAKES, FULL), full + 1.0);
    assert_eq!(lab.metric(HANDSHAKES, RESUMED), resumed);
    // Nobody asked for open connections to end.
    assert_eq!(writes(&mut open).await, Some(0));
}

#[tokio::test]
async fn a_ticket_does_not_outlive_its_certificate() {
    let lab = Lab::with(|setup| setup.tls = true);
    let end = SystemTime::now() + Duration::from_secs(6);
    let tls = shows(&lab, |params| {
        named("alice", 70)(params);
        params.not_after = end.into();
    });
    assert!(comes_in(&lab, &tls).await);
    let mut open = connect(&lab, &tls).await.unwrap();
    assert_eq!(writes(&mut open).await, Some(0));
    let resumed = lab.metric(HANDSHAKES, RESUMED);
    assert_eq!(resumed, 1.0);
    until("over", async || {
        SystemTime::now() > end + Duration::from_millis(1_100)
    })
    .await;
    assert!(!comes_in(&lab, &tls).await);
    lab.audit(&[("detail", "client certificate has expired")]);
    assert_eq!(lab.metric(HANDSHAKES, RESUMED), resumed + 1.0);
    assert_eq!(writes(&mut open).await, Some(0), "nobody asked for its end");
}

#[tokio::test]
async fn a_ticket_of_one_listener_opens_no_other() {
    let lab = Lab::with(|setup| setup.tls = true);
    // Both listeners are reached by one name, so that the client offers each the other's ticket.
    let tls = shows(&lab, named("alice", 70));
    assert!(comes_in(&lab, &tls).await);
    let full = lab.metric(HANDSHAKES, FULL);
    let at_bound = lab.address("bound");
    let client = Client::connect_tls(at_bound, "localhost", Arc::clone(&tls), "it").await;
    assert!(client.is_ok());
    lab.metric_is(HANDSHAKES, FULL, full + 1.0);
    assert_eq!(lab.metric(HANDSHAKES, RESUMED), 0.0);
}

#[tokio::test]
async fn with_recheck_a_connection_ends_when_its_certificate_is_revoked_and_no_other_does() {
    let lab = listed(", recheck: true");
    let pki = lab.pki.as_ref().unwrap();
    let mut bad = connect(&lab, &shows(&lab, named("alice", 67)))
        .await
        .unwrap();
    let mut good = connect(&lab, &shows(&lab, named("alice", 70)))
        .await
        .unwrap();
    // One that has not asked for anything yet has no broker connection to end.
    let mut idle = connect(&lab, &shows(&lab, named("alice", 67)))
        .await
        .unwrap();
    for client in [&mut bad, &mut good] {
        assert_eq!(writes(client).await, Some(0));
    }
    replace(&lab, "0.crl", &pki.revoked(&[67], 2050));
    assert!(bad.is_closed().await);
    assert!(idle.is_closed().await);
    let cause = &[r#"cause="revoked""#];
    lab.metric_is("kordon_connections_ended_by_certificate_total", cause, 2.0);
    let detail = ("detail", "client certificate is revoked");
    lab.audit(&[detail, ("principal", "User:alice"), ("listener", "mesh")]);
    assert_eq!(writes(&mut good).await, Some(0));
    lab.metric_is("kordon_connections", &["mesh"], 1.0);
    lab.metric_is("kordon_upstream_connections", &[], 1.0);
    lab.metric_is("kordon_in_flight_requests", &[], 0.0);

    // An authority that is no longer there takes its clients with it.
    replace(&lab, "ca.pem", &Pki::named("other").ca);
    assert!(good.is_closed().await);
    let cause = &[r#"cause="refused""#];
    lab.metric_is("kordon_connections_ended_by_certificate_total", cause, 1.0);
}

#[tokio::test]
async fn with_recheck_a_connection_ends_when_its_certificate_expires() {
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.mesh.0 += ", recheck: true";
    });
    let end = SystemTime::now() + Duration::from_secs(5);
    let tls = shows(&lab, |params| {
        named("alice", 70)(params);
        params.not_after = end.into();
    });
    let mut client = connect(&lab, &tls).await.unwrap();
    assert_eq!(writes(&mut client).await, Some(0));
    assert!(client.is_closed().await);
    // Whole seconds: the last one is still a good one.
    assert!(SystemTime::now() + Duration::from_secs(1) > end);
    let cause = &[r#"cause="expired""#];
    lab.metric_is("kordon_connections_ended_by_certificate_total", cause, 1.0);
}

#[tokio::test]
async fn keys_and_policies_come_into_force_by_themselves() {
    let lab = Lab::new();
    let newer = Signer::new();
    let says = newer.token("alice", json!({}));
    let answer = say_token(&mut lab.client("tokens").await, &says).await;
    assert_eq!(&answer.auth_bytes[..], INVALID_TOKEN.as_bytes());
    replace(&lab, "jwks.json", &newer.jwks.to_string());
    until("believed", async || {
        let mut client = lab.client("tokens").await;
        client.authenticate(&says).await.unwrap().error_code == 0
    })
    .await;
    // What is no key set leaves the keys as they were, and says so until it is mended.
    let failures = "kordon_reload_failures_total";
    let noted = || lab.http("/readyz").unwrap().1.contains("keys of");
    replace(&lab, "jwks.json", "{");
    lab.metric_is(failures, &["keys"], 1.0);
    assert!(noted());
    let mut client = lab.client("tokens").await;
    assert_eq!(client.authenticate(&says).await.unwrap().error_code, 0);
    replace(&lab, "jwks.json", &newer.jwks.to_string());
    until("mended", async || !noted()).await;

    let mut app = lab.app().await;
    assert_eq!(writes(&mut app).await, Some(0));
    let other = POLICY.replace("User:app", "User:nobody");
    replace(&lab, "policies/base.yaml", &other);
    until("in force", async || writes(&mut app).await == Some(29)).await;
    lab.metric_reaches("kordon_policy_generation", 2.0);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_leaves_the_old_one_in_place() {
    let lab = Lab::with(|setup| setup.tls = true);
    let tls = shows(&lab, named("alice", 70));
    let (_, other_key) = lab.pki.as_ref().unwrap().server(2050);
    let old_key = lab.file("server.key");
    replace(&lab, "server.key", &other_key);
    // `mesh`, `sni` and `bound` show the same one.
    lab.metric_is("kordon_reload_failures_total", &["listener_tls"], 3.0);
    let noted = || {
        lab.http("/readyz")
            .unwrap()
            .1
            .contains("tls of listener `mesh`")
    };
    assert!(noted());
    assert!(comes_in(&lab, &tls).await);
    replace(&lab, "server.key", &old_key);
    until("mended", async || !noted()).await;
    assert!(comes_in(&lab, &tls).await);
}

/// Writes over one connection, and over a new one each time, until told to stop; how often.
async fn writes_on(lab: &Lab, tls: Arc<ClientConfig>, stop: &AtomicBool) -> usize {
    let mut kept = connect(lab, &tls).await.unwrap();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(writes(&mut kept).await, Some(0), "the kept connection");
        // A client of its own each time, so that nothing is resumed.
        let anew = match count % 2 {
            0 => Arc::clone(&tls),
            _ => shows(lab, named("alice", 70)),
        };
        let mut new = connect(lab, &anew).await.unwrap();
        assert_eq!(writes(&mut new).await, Some(0), "a new connection");
        count += 1;
    }
    count
}

#[tokio::test]
async fn rotations_under_load_fail_no_request_and_drop_no_connection() {
    const ROTATIONS: i32 = 30;
    let lab = Lab::with(|setup| setup.tls = true);
    let pki = lab.pki.as_ref().unwrap();
    let expiry = || {
        lab.metric(
            "kordon_listener_certificate_expiry_timestamp_seconds",
            &["mesh"],
        )
    };
    let year = |year: i32| {
        let date = rcgen::date_time_ymd(year, 1, 1);
        date.unix_timestamp() as f64
    };
    let rotate = async {
        let mut seen = Vec::new();
        for turn in 0..ROTATIONS {
            let (cert, key) = pki.server(2031 + turn);
            let bundle = pki.ca.clone() + &Pki::named("next").ca;
            let files = [
                ("server.pem", cert),
                ("server.key", key),
                ("ca.pem", bundle),
            ];
            match turn < ROTATIONS / 2 {
                true => files
                    .iter()
                    .for_each(|(name, text)| replace(&lab, name, text)),
                false => mount(&lab, turn, &files),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen.push(expiry() as i64);
        }
        seen.dedup();
        assert!(seen.len() > 3, "certificates came into force: {seen:?}");
        let last = year(2031 + ROTATIONS - 1);
        until("the last one in force", async || expiry() == last).await;
    };
    let stop = AtomicBool::new(false);
    let load = async {
        let clients = (0..3).map(|_| writes_on(&lab, shows(&lab, named("alice", 70)), &stop));
        let clients: Vec<_> = clients.collect();
        futures_of(clients).await
    };
    let ((), counts) = tokio::join!(
        async {
            rotate.await;
            stop.store(true, Ordering::Relaxed);
        },
        load
    );
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    assert_eq!(lab.metric("kordon_authentication_failures_total", &[]), 0.0);
}

/// Polls several futures to their ends in one task.
async fn futures_of<F: Future<Output = usize>>(all: Vec<F>) -> Vec<usize> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done = vec![None; all.len()];
    std::future::poll_fn(move |cx| {
        for (one, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(count) = one.as_mut().poll(cx)
            {
                *done = Some(count);
            }
        }
        match done.iter().copied().collect::<Option<Vec<_>>>() {
            Some(counts) => std::task::Poll::Ready(counts),
            None => std::task::Poll::Pending,
        }
    })
    .await
}

/// The files in a directory of their own, brought in by one link, as Kubernetes does.
fn mount(lab: &Lab, turn: i32, files: &[(&str, String)]) {
    let version = format!("..{turn}");
    fs::create_dir(lab.path(&version)).unwrap();
    for (name, text) in files {
        fs::write(lab.path(&version).join(name), text).unwrap();
    }
    symlink(&version, lab.path("..new")).unwrap();
    fs::rename(lab.path("..new"), lab.path("..data")).unwrap();
    for (name, _) in files {
        if lab.path(name).is_symlink() {
            continue;
        }
        symlink(format!("..data/{name}"), lab.path("..link")).unwrap();
        fs::rename(lab.path("..link"), lab.path(name)).unwrap();
    }
    if turn > 16 {
        let _ = fs::remove_dir_all(lab.path(&format!("..{}", turn - 1)));
    }
}

#[tokio::test]
async fn an_idle_connection_with_tls_holds_little() {
    const BUDGET_KIB: i64 = 64;
    let lab = Lab::with(|setup| (setup.child, setup.tls) = (true, true));
    let tls = shows(&lab, named("alice", 70));
    let mut open = Vec::new();
    let mut before = 0;
    for number in 0..250 {
        if number == 50 {
            before = lab.resident_kib();
        }
        let mut client = connect(&lab, &tls).await.unwrap();
        client.call(3, &versions("it")).await.unwrap();
        open.push(client);
    }
    let each = (lab.resident_kib() - before) / 200;
    println!("{each} KiB for each");
    assert!(each < BUDGET_KIB, "{each} KiB for each connection");
}
