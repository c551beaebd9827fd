//! Dialling real listeners on loopback: live, dead, silent and speaking something else.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::clock;
use crate::net::testing::{Authority, serving, trusting};

const SHORT: Duration = Duration::from_millis(300);

async fn listener() -> (TcpListener, BrokerAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, at("localhost", port))
}

fn at(host: &str, port: u16) -> BrokerAddr {
    BrokerAddr {
        host: host.into(),
        port,
    }
}

/// A port that was free a moment ago.
async fn dead() -> BrokerAddr {
    listener().await.1
}

fn plain() -> Dialer {
    Dialer::new(None).with_timeouts(Duration::from_secs(5), SHORT)
}

fn tls(authority: &Authority) -> Dialer {
    Dialer::new(Some(trusting(authority.ca(), None))).with_timeouts(Duration::from_secs(5), SHORT)
}

/// Checks that only the detail tells the address.
#[track_caller]
fn failed<T>(dialled: Result<T, DialError>, failure: DialFailure, at: &BrokerAddr) {
    let error = dialled.err().unwrap();
    assert_eq!(error.failure(), failure, "{}", error.detail());
    let port = at.port.to_string();
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains(&at.host) && !shown.contains(&port),
        "{shown}"
    );
    assert!(error.detail().contains(&format!("{}:{port}", at.host)));
}

#[tokio::test]
async fn a_broker_is_reached_by_name_and_by_address() {
    let (listener, addr) = listener().await;
    for host in ["localhost", "127.0.0.1"] {
        let mut stream = plain().dial(&at(host, addr.port)).await.unwrap().stream;
        let (mut far, _) = listener.accept().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn an_ipv6_literal_may_have_brackets() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return println!("skipped: no ipv6 here");
    };
    let port = listener.local_addr().unwrap().port();
    for host in ["::1", "[::1]"] {
        assert!(plain().dial(&at(host, port)).await.is_ok(), "{host}");
    }
}

#[tokio::test]
async fn failures_tell_the_address_only_in_their_detail() {
    let addr = dead().await;
    failed(plain().dial(&addr).await, DialFailure::Connect, &addr);
    let nowhere = at("no such host", 9092);
    failed(plain().dial(&nowhere).await, DialFailure::Resolve, &nowhere);
}

#[tokio::test]
async fn a_broker_that_does_not_accept_is_given_up() {
    // Given a queue of pending connections that is full, so that the kernel answers nothing
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(1).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let addr = at("127.0.0.1", port);
    let hurried = plain().with_timeouts(SHORT, SHORT);
    let mut waiting = Vec::new();
    for _ in 0..8 {
        match hurried.dial(&addr).await {
            Ok(stream) => waiting.push(stream),
            // Then
            refused => return failed(refused, DialFailure::ConnectTimeout, &addr),
        }
    }
    panic!("the queue never fills");
}

#[tokio::test]
async fn tls_brokers_prove_their_name() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let (listener, addr) = listener().await;
    let config = serving(authority.server(), None);
    let serve = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            kept.push(Stream::accept(tcp, &config, SHORT).await);
        }
    });
    assert!(tls(&authority).dial(&addr).await.is_ok());
    // A change of the files counts for every clone.
    let changed = tls(&foreign);
    let clone = changed.clone();
    changed.replace_tls(trusting(authority.ca(), None));
    assert!(clone.dial(&addr).await.is_ok());
    failed(
        tls(&foreign).dial(&addr).await,
        DialFailure::Handshake,
        &addr,
    );
    let by_address = at("127.0.0.1", addr.port);
    let dialled = tls(&authority).dial(&by_address).await;
    failed(dialled, DialFailure::Handshake, &by_address);
    serve.abort();
}

#[tokio::test]
async fn a_broker_that_does_not_speak_tls_fails_the_handshake() {
    let authority = Authority::new();
    let (silent, addr) = listener().await;
    failed(
        tls(&authority).dial(&addr).await,
        DialFailure::HandshakeTimeout,
        &addr,
    );
    drop(silent);
    let (listener, addr) = listener().await;
    let talk = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"\0\0\0\x04\0\0\0\x01").await.unwrap();
        tcp
    };
    let dialer = tls(&authority);
    let (dialled, _kept) = tokio::join!(dialer.dial(&addr), talk);
    failed(dialled, DialFailure::Handshake, &addr);
}

#[tokio::test]
async fn a_race_goes_to_the_broker_that_answers() {
    let authority = Authority::new();
    let (silent, silent_addr) = listener().await;
    let (live, live_addr) = listener().await;
    let config = serving(authority.server(), None);
    let serve = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((tcp, _)) = live.accept().await {
            kept.push(Stream::accept(tcp, &config, SHORT).await);
        }
    });
    let dialer = tls(&authority).with_timeouts(Duration::from_secs(5), Duration::from_secs(60));
    let brokers = [dead().await, silent_addr, live_addr.clone()];
    // The beginning is random: repeated, every order comes up.
    for _ in 0..6 {
        let started = clock::now();
        let (winner, _stream) = dialer.race(&brokers).await.unwrap();
        assert_eq!(winner, live_addr);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // The losers are gone: what the silent one accepted has ended.
    if let Ok(Ok((mut tcp, _))) = timeout(SHORT, silent.accept()).await {
        let mut seen = Vec::new();
        let ended = timeout(Duration::from_secs(5), tcp.read_to_end(&mut seen)).await;
        assert!(ended.is_ok(), "the loser's connection is still open");
    }
    serve.abort();
}

#[tokio::test]
async fn a_race_nobody_wins_tells_of_all() {
    let mut brokers = Vec::new();
    for _ in 0..12 {
        brokers.push(dead().await);
    }
    let started = clock::now();
    let error = plain().race(&brokers).await.err().unwrap();
    assert!(
        started.elapsed() < 8 * STAGGER,
        "a failure must not wait for its turn"
    );
    assert_eq!(error.failure(), DialFailure::Connect);
    for broker in &brokers {
        assert!(error.detail().contains(&broker.port.to_string()));
    }
    let error = plain().race(&[]).await.err().unwrap();
    assert_eq!(error.failure(), DialFailure::NoAddress);
}

#[tokio::test]
async fn more_brokers_than_attempts_are_all_tried() {
    let (_live, live_addr) = listener().await;
    let mut brokers = Vec::new();
    for _ in 0..ATTEMPTS_MAX * 3 {
        brokers.push(dead().await);
    }
    brokers.insert(ATTEMPTS_MAX * 2, live_addr.clone());
    assert_eq!(plain().race(&brokers).await.unwrap().0, live_addr);
}

#[test]
fn the_name_to_prove_is_the_host_without_its_notation() {
    let name = |host| server_name(&at(host, 1)).map(|name| name.to_str().into_owned());
    assert_eq!(name("kafka-0.kafka.svc.").unwrap(), "kafka-0.kafka.svc");
    assert_eq!(name("[::1]").unwrap(), "::1");
    assert_eq!(name("10.0.0.1").unwrap(), "10.0.0.1");
    assert_eq!(
        name("no such host").unwrap_err().failure(),
        DialFailure::Resolve
    );
}

#[test]
fn address_families_alternate() {
    let six = |n: u16| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, n], 1));
    let four = |n: u8| SocketAddr::from(([127, 0, 0, n], 1));
    assert_eq!(
        interleave(vec![six(1), six(2), six(3), four(1)]),
        [six(1), four(1), six(2), six(3)]
    );
    assert_eq!(interleave(vec![four(1), six(1)]), [four(1), six(1)]);
    assert!(interleave(Vec::new()).is_empty());
}
