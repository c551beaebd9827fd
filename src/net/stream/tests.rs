//! Real handshakes and transfers over loopback.

use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::clock;
use crate::net::testing::{Authority, connected, expired, serving, trusting};

const LIMIT: Duration = Duration::from_secs(5);
const MEBIBYTE: usize = 1024 * 1024;

fn named(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// Both ends of a handshake: client, server. The client also waits for one byte, because in
/// TLS 1.3 it learns only then that its certificate was refused.
async fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let (near, far) = connected().await;
    let accepting = async {
        let mut stream = Stream::accept(far, server, LIMIT).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let connecting = async {
        let mut stream = Stream::connect(near, client, named(name), LIMIT).await?;
        match stream.read(&mut [0]).await? {
            1 => Ok(stream),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    tokio::join!(connecting, accepting)
}

async fn tls_pair() -> (Stream, Stream) {
    let authority = Authority::new();
    let server = serving(authority.server(), None);
    let client = trusting(authority.ca(), None);
    let (near, far) = shake(&server, &client, "localhost").await;
    (near.unwrap(), far.unwrap())
}

async fn plain_pair() -> (Stream, Stream) {
    let (near, far) = connected().await;
    (Stream::plain(near).unwrap(), Stream::plain(far).unwrap())
}

#[tokio::test]
async fn a_handshake_shows_the_server_name_and_no_client_certificate() {
    let authority = Authority::new();
    let server = serving(authority.server(), None);
    let client = trusting(authority.ca(), None);
    let (near, far) = shake(&server, &client, "Broker-7.kordon.example").await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(far.server_name(), Some("broker-7.kordon.example"));
    assert!(far.peer_certificates().is_empty());
    assert_eq!(near.server_name(), None);
    assert_eq!(near.peer_certificates().len(), 1);
    assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
}

#[tokio::test]
async fn tls_1_2_is_spoken_as_well() {
    let authority = Authority::new();
    let server = serving(authority.server(), None);
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(authority.ca()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = shake(&server, &Arc::new(client), "localhost").await;
    assert!(near.is_ok() && far.is_ok());
}

#[tokio::test]
async fn a_required_client_certificate_reaches_the_server() {
    let authority = Authority::new();
    let server = serving(authority.server(), Some(authority.ca()));
    let leaf = authority.client("orders");
    let shown = CertificateDer::from_pem_file(&leaf.0).unwrap();
    let client = trusting(authority.ca(), Some(leaf));
    let (near, far) = shake(&server, &client, "localhost").await;
    assert!(near.is_ok());
    assert_eq!(far.unwrap().peer_certificates(), [shown]);
}

#[tokio::test]
async fn a_client_without_an_acceptable_certificate_is_refused_by_the_server() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    for (case, identity) in [
        ("none", None),
        ("foreign", Some(foreign.client("orders"))),
        ("expired", Some(authority.leaf("old", usage, expired))),
        ("a server's", Some(authority.server())),
    ] {
        let server = serving(authority.server(), Some(authority.ca()));
        let client = trusting(authority.ca(), identity);
        let (near, far) = shake(&server, &client, "localhost").await;
        assert!(near.is_err() && far.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_server_without_an_acceptable_certificate_is_refused_by_the_client() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    for (case, leaf, name) in [
        ("foreign", foreign.server(), "localhost"),
        (
            "expired",
            authority.leaf("old", usage, expired),
            "localhost",
        ),
        ("another name", authority.server(), "kordon.example"),
        ("a client's", authority.client("orders"), "localhost"),
    ] {
        let server = serving(leaf, None);
        let (near, far) = shake(&server, &trusting(authority.ca(), None), name).await;
        assert!(near.is_err() && far.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_nonsense_does_not_hold_the_handshake() {
    let authority = Authority::new();
    let server = serving(authority.server(), None);
    let (_near, far) = connected().await;
    let started = clock::now();
    let silent = Stream::accept(far, &server, Duration::from_millis(100)).await;
    assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(started.elapsed() < LIMIT);

    let (mut near, far) = connected().await;
    near.write_all(b"\0\0\0\x1a\0\x12\0\x03 a kafka request")
        .await
        .unwrap();
    let nonsense = Stream::accept(far, &server, LIMIT).await;
    assert_eq!(nonsense.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

/// Sends and receives a mebibyte at the same time, in one task, and returns what came.
async fn exchange(mut stream: Stream, seed: u8) -> Vec<u8> {
    let sent: Vec<u8> = (0..MEBIBYTE).map(|i| (i / 7) as u8 ^ seed).collect();
    let mut received = vec![0; MEBIBYTE];
    let (mut reading, mut writing) = stream.split();
    let write = async {
        writing.write_all(&sent).await.unwrap();
        writing.flush().await.unwrap();
    };
    let read = async {
        let mut at = 0;
        while at < MEBIBYTE {
            reading.readable().await.unwrap();
            // Small and odd pieces, so that plaintext stays behind in the session.
            let end = MEBIBYTE.min(at + 10_007);
            match reading.try_read(&mut received[at..end]) {
                Ok(0) => panic!("ended early"),
                Ok(count) => at += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    };
    tokio::join!(write, read);
    received
}

async fn exchange_both_ways(near: Stream, far: Stream) {
    // Spawned: the halves must not keep a future from moving between threads.
    let near = tokio::spawn(exchange(near, 1));
    let far = tokio::spawn(exchange(far, 2));
    let both = async { (near.await.unwrap(), far.await.unwrap()) };
    let (near, far) = timeout(Duration::from_secs(20), both).await.unwrap();
    assert!(
        near.iter()
            .enumerate()
            .all(|(i, b)| *b == (i / 7) as u8 ^ 2)
    );
    assert!(far.iter().enumerate().all(|(i, b)| *b == (i / 7) as u8 ^ 1));
}

#[tokio::test]
async fn halves_move_data_both_ways_at_once_without_tls() {
    let (near, far) = plain_pair().await;
    exchange_both_ways(near, far).await;
}

#[tokio::test]
async fn halves_move_data_both_ways_at_once_with_tls() {
    let (near, far) = tls_pair().await;
    exchange_both_ways(near, far).await;
}

#[tokio::test]
async fn readable_waits_for_bytes_and_sees_those_that_are_buffered() {
    for (mut near, mut far) in [plain_pair().await, tls_pair().await] {
        // Given silence, readable waits, split or not.
        let brief = Duration::from_millis(30);
        assert!(timeout(brief, far.arrival()).await.is_err());
        // (A first readiness may be false without TLS; a read that finds nothing ends it.)
        let _ = timeout(brief, far.split().0.readable()).await;
        let error = far.split().0.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(timeout(brief, far.split().0.readable()).await.is_err());
        // When some bytes arrive and one of them is read
        near.write_all(b"some bytes").await.unwrap();
        near.flush().await.unwrap();
        assert!(timeout(LIMIT, far.arrival()).await.unwrap().unwrap());
        let (mut reading, _) = far.split();
        timeout(LIMIT, reading.readable()).await.unwrap().unwrap();
        assert_eq!(reading.try_read(&mut [0]).unwrap(), 1);
        // Then the rest is still announced, though the socket stays silent.
        timeout(LIMIT, reading.readable()).await.unwrap().unwrap();
        let mut rest = [0; 9];
        reading.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"ome bytes");
        let error = reading.try_read(&mut rest).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

async fn has_ended(far: &mut Stream) {
    assert!(!timeout(LIMIT, far.arrival()).await.unwrap().unwrap());
    timeout(LIMIT, far.split().0.readable())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(far.split().0.try_read(&mut [0]).unwrap(), 0);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_end_is_an_end_with_and_without_farewell() {
    for (mut near, mut far) in [plain_pair().await, tls_pair().await] {
        near.shutdown().await.unwrap();
        has_ended(&mut far).await;
    }
    // A socket closed under the TLS session: no `close_notify`.
    let (near, mut far) = tls_pair().await;
    drop(near);
    has_ended(&mut far).await;
}

#[tokio::test]
async fn several_parts_go_out_in_one_write() {
    for (mut near, mut far) in [plain_pair().await, tls_pair().await] {
        let (_, mut writing) = near.split();
        assert!(writing.is_write_vectored());
        let parts = [
            IoSlice::new(b"head"),
            IoSlice::new(b" and "),
            IoSlice::new(b"body"),
        ];
        assert_eq!(writing.write_vectored(&parts).await.unwrap(), 13);
        writing.flush().await.unwrap();
        let mut all = [0; 13];
        far.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"head and body");
    }
}

#[tokio::test]
async fn sockets_are_tuned() {
    let (near, _far) = plain_pair().await;
    let socket = socket2::SockRef::from(near.tcp());
    assert!(near.tcp().nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
}
