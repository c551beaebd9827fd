//! Policies that take something away while it is being used: what waits, what streams, who is a
//! member of a group. Each learns within a second; whoever keeps what it uses notices nothing.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    FetchRequest, GroupId, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, ProduceRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use kordon::demo::client::{Client, fetch_request, messages, produce_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::policy::fetch_all;
use crate::support::*;

/// Longer than any test: who is answered was not answered because time was over.
const LONG: Duration = Duration::from_secs(120);
/// Within which everybody has learnt of a revocation.
const SECOND: Duration = Duration::from_secs(1);

/// `POLICY` without what lies below `open.b` and the groups below `app.b`.
fn without_b() -> String {
    POLICY.replace(
        "{allow: [All], topics: [\"open.*\", \"typed.*\"], groups: [\"app.*\"]}",
        "{allow: [All], topics: [\"open.a\", \"typed.*\"], groups: [\"app.a\"]}",
    )
}

/// A fourth rule, which changes nothing for anybody here.
fn with_more(number: usize) -> String {
    format!("{POLICY}    - {{allow: [Read], topics: [\"more.{number}\"]}}\n")
}

/// Waits until the broker has seen so many requests with this key.
async fn seen(lab: &Lab, key: i16, count: u64) {
    let begun = Instant::now();
    while lab.broker().requests(key) < count {
        assert!(begun.elapsed() < PATIENCE, "the broker has not seen {key}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Writes one record past the proxy.
async fn write(lab: &Lab, topic: &str, value: &[u8]) {
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    let answer = direct.produce(topic, 0, batch(&[value])).await.unwrap();
    assert_eq!(part(&answer, topic, 0).error_code, 0);
}

/// The same request at a version that names topics by id.
async fn by_id(lab: &Lab, mut request: FetchRequest) -> FetchRequest {
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    for topic in &mut request.topics {
        let name: &str = &topic.topic;
        let known = direct.metadata(Some(&[name])).await.unwrap();
        topic.topic_id = known.topics[0].topic_id;
    }
    request
}

/// Waits for the end of a connection, which says nothing more; says how long that took.
async fn ended_after(client: &mut Client, since: Instant) -> Duration {
    assert!(next(client).await.is_none(), "an answer that was revoked");
    let took = since.elapsed();
    println!("ended {took:?} after the policies were in force");
    assert!(took < SECOND, "{took:?}");
    took
}

#[tokio::test]
async fn a_long_poll_ends_within_a_second_and_an_unrelated_one_notices_nothing() {
    let lab = Lab::new();
    let poll = fetch_request("open.b", 0, 0, LONG);
    let mut losing = Vec::new();
    for version in [4, 11, 12, 13, 17] {
        let mut client = lab.app().await;
        let request = match version {
            13.. => by_id(&lab, poll.clone()).await,
            _ => poll.clone(),
        };
        client.send(version, &request).await.unwrap();
        losing.push(client);
    }
    let mut keeping = lab.app().await;
    let kept = fetch_request("open.a", 0, 0, LONG);
    keeping.send(12, &kept).await.unwrap();
    seen(&lab, 1, 6).await;

    lab.reload(&without_b());
    let since = Instant::now();
    for client in &mut losing {
        ended_after(client, since).await;
    }
    write(&lab, "open.a", b"kept").await;
    let (id, answer) = answer::<FetchRequest>(&mut keeping, 12).await;
    let records = &fetched(&answer)[0].3;
    let read = messages(records).unwrap();
    assert_eq!((id, read[0].value.as_deref()), (1, Some(&b"kept"[..])));

    let mut again = lab.app().await;
    let answer = again.call(12, &fetch_all(&["open.b"])).await.unwrap();
    assert_eq!(fetched(&answer)[0].2, 29);
    lab.metric_is("kordon_revocations_total", &["api=\"Fetch\""], 5.0);
    let line = lab.audit(&[("resource", "Topic:open.b"), ("api", "Fetch")]);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("revoked while in use"), "{line}");
    assert_eq!(
        (&line["operation"], &line["decision"]),
        (&"Read".into(), &"deny".into())
    );
}

#[tokio::test]
async fn a_short_poll_is_answered_without_records_and_its_connection_stays() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let poll = fetch_request("open.b", 0, 0, Duration::from_millis(500));
    client.send(12, &poll).await.unwrap();
    seen(&lab, 1, 1).await;
    lab.reload(&without_b());
    write(&lab, "open.b", b"secret by now").await;
    let (id, first) = answer::<FetchRequest>(&mut client, 12).await;
    assert_eq!((id, first.error_code), (1, 0));
    assert!(fetched(&first).iter().all(|part| part.3.is_empty()));
    let answer = client.call(12, &poll).await.unwrap();
    assert_eq!(fetched(&answer)[0].2, 29);
    let answer = client.call(12, &fetch_all(&["open.a"])).await.unwrap();
    assert_eq!(fetched(&answer)[0].2, 0);
}

#[tokio::test]
async fn an_answer_that_has_begun_to_stream_does_not_go_on() {
    let lab = Lab::new();
    for _ in 0..20 {
        write(&lab, "open.b", &vec![b'.'; 1_000_000]).await;
    }
    let mut request = fetch_request("open.b", 0, 0, LONG);
    request.max_bytes = 50 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    for version in [12, 16] {
        let request = match version {
            13.. => by_id(&lab, request.clone()).await,
            _ => request.clone(),
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let address: SocketAddr = lab.address("app");
        let mut stream = socket.connect(address).await.unwrap();
        stream
            .write_all(&frame_of(version, 1, &request))
            .await
            .unwrap();
        let length = stream.read_u32().await.unwrap() as usize;
        assert!(length > 20_000_000);
        lab.reload(&without_b());
        let since = Instant::now();
        lab.metric_reaches("kordon_revocations_total", 1.0);
        println!("cut {:?} after the policies were in force", since.elapsed());
        assert!(since.elapsed() < SECOND);
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(rest.len() < length, "all of it came: version {version}");
        lab.reload(POLICY);
    }
}

#[tokio::test]
async fn what_is_sent_behind_a_long_poll_is_judged_when_its_turn_comes() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    client
        .send(12, &fetch_request("open.a", 0, 0, LONG))
        .await
        .unwrap();
    for topic in ["open.b", "open.a"] {
        let write = produce_request(topic, 0, batch_of(20_000), -1);
        client.send(9, &write).await.unwrap();
    }
    seen(&lab, 1, 1).await;
    lab.reload(&without_b());
    write(&lab, "open.a", b"x").await;
    let (id, polled) = answer::<FetchRequest>(&mut client, 12).await;
    assert_eq!((id, fetched(&polled)[0].2), (1, 0));
    for (expected, topic, code) in [(2, "open.b", 29), (3, "open.a", 0)] {
        let (id, answer) = answer::<ProduceRequest>(&mut client, 9).await;
        let code_found = part(&answer, topic, 0).error_code;
        assert_eq!((id, code_found), (expected, code), "{topic}");
    }
    assert_eq!(lab.broker().end_offset("open.b", 0), Some(0));
}

#[tokio::test]
async fn who_leaves_while_requests_stand_behind_a_poll_is_noticed() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    client
        .send(12, &fetch_request("open.a", 0, 0, LONG))
        .await
        .unwrap();
    let write = produce_request("open.a", 0, batch_of(20_000), -1);
    client.send(9, &write).await.unwrap();
    seen(&lab, 1, 1).await;
    drop(client);
    lab.until_metric("kordon_upstream_connections", 0.0);
}

/// How a session comes to the poll during which `open.b` is lost.
enum Forgets {
    Nothing,
    /// One of the two partitions that it has.
    Half,
    /// All of them, by the poll itself.
    Now,
    /// All of them, by an earlier request; the poll names nothing.
    Before,
    /// The same, but they have come back since.
    AndAsksAgain,
    /// A poll on one connection; another forgets all of them meanwhile.
    Elsewhere,
}

#[tokio::test]
async fn a_poll_outlives_what_its_session_has_forgotten_and_nothing_else() {
    use kafka_protocol::messages::fetch_request::ForgottenTopic;
    let lab = Lab::with(|setup| {
        setup.gate = Some(Arc::new(Rules {
            sessions: Some(Sessions::default()),
            ..Rules::default()
        }));
    });
    let cases = [
        (Forgets::Nothing, false),
        (Forgets::Half, false),
        (Forgets::Now, true),
        (Forgets::Before, true),
        (Forgets::AndAsksAgain, false),
        (Forgets::Elsewhere, false),
    ];
    let mut lost = 0.0;
    for (version, (forgets, stays)) in [7, 12, 13, 17]
        .into_iter()
        .flat_map(|version| cases.iter().map(move |case| (version, case)))
    {
        lab.reload(POLICY);
        let mut all = fetch_all(&["open.b", "open.a"]);
        all.session_epoch = 0;
        let end = lab.broker().end_offset("open.a", 0).unwrap();
        for topic in &mut all.topics {
            let part = |index| {
                let part = topic.partitions[0].clone().with_partition(index);
                part.with_fetch_offset(if index == 0 { end } else { 0 })
            };
            topic.partitions = vec![part(0), part(1)];
        }
        // Nothing is ever written to `open.b`.
        all.topics[0].partitions[0].fetch_offset = 0;
        if version >= 13 {
            all = by_id(&lab, all).await;
        }
        let b = all.topics[0].clone();
        let mut client = lab.app().await;
        let opened = client.call(version, &all).await.unwrap();
        assert!(opened.session_id > 0 && opened.error_code == 0);
        let on = |epoch: i32, wait: Duration, forgotten: &[i32]| {
            let mut request = fetch_request("open.a", 0, 0, wait);
            request.topics.clear();
            (request.session_id, request.session_epoch) = (opened.session_id, epoch);
            let gone = ForgottenTopic::default()
                .with_topic(b.topic.clone())
                .with_topic_id(b.topic_id)
                .with_partitions(forgotten.to_vec());
            if !forgotten.is_empty() {
                request.forgotten_topics_data = vec![gone];
            }
            request
        };
        let quick = async |client: &mut Client, request: &FetchRequest| {
            let answer = client.call(version, request).await.unwrap();
            assert_eq!(
                (answer.error_code, answer.session_id),
                (0, opened.session_id)
            );
        };
        let mut beside = lab.app().await;
        let before = lab.broker().requests(1);
        let long = match forgets {
            Forgets::Nothing | Forgets::Elsewhere => on(1, LONG, &[]),
            Forgets::Half => on(1, LONG, &[1]),
            Forgets::Now => on(1, LONG, &[0, 1]),
            Forgets::Before => {
                // In two steps.
                quick(&mut client, &on(1, Duration::ZERO, &[1])).await;
                quick(&mut client, &on(2, Duration::ZERO, &[0])).await;
                on(3, LONG, &[])
            }
            Forgets::AndAsksAgain => {
                quick(&mut client, &on(1, Duration::ZERO, &[0, 1])).await;
                let mut again = on(2, LONG, &[]);
                again.topics = vec![b.clone()];
                again
            }
        };
        client.send(version, &long).await.unwrap();
        let sent = match forgets {
            Forgets::Before => 3,
            Forgets::AndAsksAgain => 2,
            _ => 1,
        };
        seen(&lab, 1, before + sent).await;
        if matches!(forgets, Forgets::Elsewhere) {
            quick(&mut beside, &on(2, Duration::ZERO, &[0, 1])).await;
        }
        lab.reload(&without_b());
        let since = Instant::now();
        if !stays {
            ended_after(&mut client, since).await;
            lost += 1.0;
        } else {
            write(&lab, "open.a", b"kept").await;
            let (_, answer) = answer::<FetchRequest>(&mut client, version).await;
            let read = messages(&fetched(&answer)[0].3).unwrap();
            assert_eq!(read[0].value.as_deref(), Some(&b"kept"[..]));
        }
        lab.metric_is("kordon_revocations_total", &["api=\"Fetch\""], lost);
    }
}

fn join(group: &str, member: &StrBytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(Bytes::from_static(b"m"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(group.to_owned().into()))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(120_000)
        .with_member_id(member.clone())
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol])
}

#[tokio::test]
async fn members_of_a_lost_group_end_and_are_refused_when_they_come_again() {
    let lab = Lab::new();
    let nobody = StrBytes::default();
    let mut leader = lab.app().await;
    let first = leader.call(3, &join("app.b", &nobody)).await.unwrap();
    assert_eq!(first.error_code, 0);
    // The second waits for the first to join again, which it does not.
    let mut waiting = lab.app().await;
    waiting.send(3, &join("app.b", &nobody)).await.unwrap();
    // A follower of another lost group waits for what its leader assigns.
    let mut members = [lab.app().await, lab.app().await];
    let second = members[0].call(3, &join("app.bb", &nobody)).await.unwrap();
    members[1].send(3, &join("app.bb", &nobody)).await.unwrap();
    seen(&lab, 11, 4).await;
    let again = members[0]
        .call(3, &join("app.bb", &second.member_id))
        .await
        .unwrap();
    let (_, follower) = answer::<JoinGroupRequest>(&mut members[1], 3).await;
    assert_eq!((again.error_code, follower.error_code), (0, 0));
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId("app.bb".into()))
        .with_generation_id(follower.generation_id)
        .with_member_id(follower.member_id.clone());
    let leads = usize::from(follower.leader == follower.member_id);
    assert_eq!(leads, 0, "the one that joined first leads");
    members[1].send(2, &sync).await.unwrap();
    seen(&lab, 14, 1).await;

    lab.reload(&without_b());
    let since = Instant::now();
    ended_after(&mut waiting, since).await;
    ended_after(&mut members[1], since).await;
    // Those that wait for nothing end as well.
    ended_after(&mut members[0], since).await;
    ended_after(&mut leader, since).await;
    let mut leader = lab.app().await;
    let beat = HeartbeatRequest::default()
        .with_group_id(GroupId("app.b".into()))
        .with_generation_id(first.generation_id)
        .with_member_id(first.member_id.clone());
    assert_eq!(leader.call(3, &beat).await.unwrap().error_code, 30);
    let commit = OffsetCommitRequest::default().with_group_id(GroupId("app.b".into()));
    let topics = {
        use kafka_protocol::messages::offset_commit_request::{
            OffsetCommitRequestPartition, OffsetCommitRequestTopic,
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(kordon::demo::client::topic_name("open.a"))
            .with_partitions(vec![OffsetCommitRequestPartition::default()]);
        vec![topic]
    };
    let answer = leader.call(7, &commit.with_topics(topics)).await.unwrap();
    assert_eq!(answer.topics[0].partitions[0].error_code, 30);
    assert_eq!(
        leader
            .call(3, &join("app.b", &nobody))
            .await
            .unwrap()
            .error_code,
        30
    );
    for (api, count) in [("JoinGroup", 3.0), ("SyncGroup", 1.0)] {
        let label = format!("api=\"{api}\"");
        lab.metric_is("kordon_revocations_total", &[&label], count);
    }
}

#[tokio::test]
async fn a_second_tenant_ends_idle_and_waiting_connections_within_a_second() {
    let tenant = |name: &str, principal: &str| {
        format!(
            "---\napiVersion: kordon/v1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec:\n  \
             match: {{any: [{{principal: \"User:{principal}\"}}]}}\n"
        )
    };
    let everybody = POLICY.replace("\"User:alice\"", "\"User:alice\", \"User:both\"");
    let one = format!("{everybody}{}", tenant("shop", "both"));
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.policy = one.clone();
        setup.mesh.1 = "{mtls: {from: cn, shared: true}}".to_owned();
    });
    let mut idle = lab.tls("mesh", "localhost", Some(&["both"])).await.unwrap();
    idle.metadata(Some(&[])).await.unwrap();
    let mut waiting = lab.tls("mesh", "localhost", Some(&["both"])).await.unwrap();
    waiting
        .send(12, &fetch_request("open.a", 0, 0, LONG))
        .await
        .unwrap();
    seen(&lab, 1, 1).await;
    lab.reload(&format!("{one}{}", tenant("bank", "both")));
    let since = Instant::now();
    ended_after(&mut idle, since).await;
    ended_after(&mut waiting, since).await;
}

/// A long poll of what is lost, until it ends; says how long after `change` that was.
async fn measured(lab: &Lab, polls: u64, change: impl FnOnce()) -> Duration {
    let mut client = lab.app().await;
    client
        .send(12, &fetch_request("open.b", 0, 0, LONG))
        .await
        .unwrap();
    seen(lab, 1, polls).await;
    let generation = lab.metric("kordon_policy_generation", &[]);
    let since = Instant::now();
    change();
    let in_force = async {
        while lab.metric("kordon_policy_generation", &[]) == generation {
            assert!(since.elapsed() < PATIENCE, "the change is not noticed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        since.elapsed()
    };
    let ended = async {
        assert!(next(&mut client).await.is_none());
        since.elapsed()
    };
    let (in_force, ended) = tokio::join!(in_force, ended);
    println!("in force after {in_force:?}, ended after {ended:?}");
    assert!(ended.saturating_sub(in_force) < SECOND);
    ended
}

#[tokio::test]
async fn a_file_that_is_renamed_or_a_link_that_is_moved_takes_effect_within_a_second() {
    let lab = Lab::new();
    let dir = lab.path("policies");
    let file = dir.join("base.yaml");
    measured(&lab, 1, || {
        fs::write(dir.join(".new"), without_b()).unwrap();
        fs::rename(dir.join(".new"), &file).unwrap();
    })
    .await;
    // As Kubernetes mounts a ConfigMap.
    for (version, text) in [("..1", POLICY), ("..2", &without_b())] {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("base.yaml"), text).unwrap();
    }
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/base.yaml", dir.join(".link")).unwrap();
    let before = lab.metric("kordon_policy_generation", &[]);
    fs::rename(dir.join(".link"), &file).unwrap();
    lab.metric_reaches("kordon_policy_generation", before + 1.0);
    // The watch follows the links by now, or looks again soon after it does.
    measured(&lab, 2, || {
        symlink("..2", dir.join("..next")).unwrap();
        fs::rename(dir.join("..next"), dir.join("..data")).unwrap();
    })
    .await;
}

#[test]
fn a_thousand_reloads_under_traffic_lose_nothing() {
    let lab = Lab::new();
    let over = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..1_000).for_each(|number| lab.reload_in_vain(&with_more(number)));
            over.store(true, Ordering::Relaxed);
        });
        runtime.block_on(traffic(&lab, &over));
    });
    assert!(lab.metric("kordon_policy_generation", &[]) >= 1_001.0);
    assert_eq!(lab.metric("kordon_revocations_total", &[]), 0.0);
}

/// A producer, a consumer, a long poll and an idle connection that are `over` without a loss.
async fn traffic(lab: &Lab, over: &AtomicBool) {
    let (mut producer, mut consumer, mut idle) =
        (lab.app().await, lab.app().await, lab.app().await);
    idle.metadata(Some(&[])).await.unwrap();
    let mut waiting = lab.app().await;
    waiting
        .send(12, &fetch_request("open.b", 0, 0, LONG))
        .await
        .unwrap();
    let produced = Cell::new(None);
    let produce = async {
        let mut count = 0i64;
        while !over.load(Ordering::Relaxed) {
            let record = batch(&[count.to_string().as_bytes()]);
            let answer = producer.produce("open.a", 0, record).await.unwrap();
            let part = part(&answer, "open.a", 0);
            assert_eq!((part.error_code, part.base_offset), (0, count));
            count += 1;
        }
        produced.set(Some(count));
    };
    let consume = async {
        let mut at = 0i64;
        while produced.get() != Some(at) {
            let poll = fetch_request("open.a", 0, at, Duration::from_millis(50));
            let answer = consumer.call(12, &poll).await.unwrap();
            let (_, _, code, records) = fetched(&answer).remove(0);
            assert_eq!(code, 0);
            let read = messages(&records).unwrap();
            for message in &read {
                assert_eq!(message.offset, at);
                assert_eq!(message.value, Some(at.to_string().into()));
                at += 1;
            }
        }
    };
    let begun = Instant::now();
    tokio::join!(produce, consume);
    println!("{:?} records in {:?}", produced.get(), begun.elapsed());
    write(lab, "open.b", b"x").await;
    let (id, answer) = answer::<FetchRequest>(&mut waiting, 12).await;
    assert_eq!((id, fetched(&answer)[0].2), (1, 0));
    idle.metadata(Some(&[])).await.unwrap();
}
