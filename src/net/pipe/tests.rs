//! Over real sockets: what the system says of them is what this is about.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    (near, far)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Fills the pipe until it holds so many bytes.
async fn fill_to(pipe: &mut Pipe, from: &TcpStream, bytes: usize) {
    while pipe.held() < bytes {
        match pipe.try_fill(from, bytes - pipe.held()) {
            Ok(Filled::Moved(n)) => assert!(n > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                timeout(PATIENCE, from.readable()).await.unwrap().unwrap();
            }
            other => panic!("{other:?} with {} bytes held", pipe.held()),
        }
    }
}

/// Sends single bytes, each a slot of its own, until the pipe has no room; says how many it took.
async fn fill_up(pipe: &mut Pipe, near: &mut TcpStream, far: &TcpStream) -> usize {
    loop {
        near.write_all(b"x").await.unwrap();
        // A byte that is there makes the socket readable or the pipe full.
        let filled = loop {
            match pipe.try_fill(far, 1) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout(PATIENCE, far.readable()).await.unwrap().unwrap();
                }
                other => break other.unwrap(),
            }
        };
        match filled {
            Filled::Moved(_) => {}
            Filled::Full => return pipe.held(),
            Filled::End => panic!("the peer is there"),
        }
        assert!(pipe.held() < 100_000, "the pipe has no end");
    }
}

#[tokio::test]
async fn bytes_go_through_a_pipe_and_only_those_asked_for() {
    let ((mut client, from), (to, mut broker)) = (pair().await, pair().await);
    let sent = pattern(100_000);
    client.write_all(&sent).await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    fill_to(&mut pipe, &from, sent.len()).await;
    pipe.drain(&to, 60_001, true).await.unwrap();
    assert_eq!(pipe.held(), 39_999);
    pipe.drain(&to, 0, false).await.unwrap();
    let mut rest = BytesMut::from(&b"before"[..]);
    pipe.unload(&mut rest).unwrap();
    assert_eq!(pipe.held(), 0);
    assert!(rest[..6] == *b"before" && rest[6..] == sent[60_001..]);
    drop(to);
    let mut arrived = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut broker, &mut arrived)
        .await
        .unwrap();
    assert!(arrived == sent[..60_001], "other bytes");
}

#[tokio::test]
async fn a_glimpse_takes_nothing_out_and_leaves_nothing_behind() {
    let (mut client, from) = pair().await;
    let sent = pattern(100_000);
    client.write_all(&sent).await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    fill_to(&mut pipe, &from, sent.len()).await;
    for stop in [0, 7, 99_000] {
        let mut glimpse = pipe.glimpse().unwrap();
        let mut window = [0; 64];
        assert_eq!(glimpse.read(&mut window).unwrap(), 64);
        assert!(window == sent[..64]);
        glimpse.go_to(64 + stop).unwrap();
        assert_eq!(glimpse.read(&mut window).unwrap(), 64);
        assert!(window == sent[64 + stop..][..64]);
        assert_eq!(glimpse.at(), 128 + stop);
        assert!(glimpse.go_to(64).is_err(), "there is no way back");
        assert!(glimpse.go_to(sent.len() + 1).is_err(), "nor past the end");
        glimpse.go_to(sent.len()).unwrap();
        assert_eq!(glimpse.read(&mut window).unwrap(), 0);
        drop(pipe.glimpse());
    }
    let mut back = BytesMut::new();
    pipe.unload(&mut back).unwrap();
    assert!(back[..] == sent);
}

/// The system gives a user so many pages of pipes, and small pipes from then on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_glimpse_through_a_smaller_pipe_ends_early() {
    let (mut client, from) = pair().await;
    let mut pipe = Pipe::take().unwrap();
    for at in 1..=20 {
        client.write_all(b"x").await.unwrap();
        fill_to(&mut pipe, &from, at).await;
    }
    let small = system::open().unwrap();
    rustix::pipe::fcntl_setpipe_size(&small.write, 4096).unwrap();
    MIRROR.set(Some(small));
    let mut glimpse = pipe.glimpse().unwrap();
    assert!(glimpse.go_to(20).is_err());
    assert!(glimpse.read(&mut [0; 64]).unwrap() < 20);
    assert_eq!(glimpse.read(&mut [0; 64]).unwrap(), 0);
    drop(glimpse);
    drop(MIRROR.take());
    assert_eq!(pipe.held(), 20);
}

#[tokio::test]
async fn a_full_pipe_is_told_from_an_empty_socket() {
    let (mut near, far) = pair().await;
    let mut pipe = Pipe::take().unwrap();
    let empty = pipe.try_fill(&far, 1).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    let held = fill_up(&mut pipe, &mut near, &far).await;
    assert_eq!(pipe.try_fill(&far, 1).unwrap(), Filled::Full);
    // With room again the byte that waited comes.
    let (to, _broker) = pair().await;
    pipe.drain(&to, held, false).await.unwrap();
    assert_eq!(pipe.try_fill(&far, 9).unwrap(), Filled::Moved(1));
    let mut back = BytesMut::new();
    pipe.unload(&mut back).unwrap();
}

/// The peer's end makes a socket readable for ever; a pipe that is full says "not now" for ever.
#[tokio::test]
async fn a_peer_that_leaves_while_the_pipe_is_full_has_left() {
    let (mut near, far) = pair().await;
    let mut pipe = Pipe::take().unwrap();
    fill_up(&mut pipe, &mut near, &far).await;
    let mut waiting = [0; 64];
    assert_eq!(far.try_read(&mut waiting).unwrap(), 1);
    drop(near);
    let begun = Instant::now();
    loop {
        match pipe.try_fill(&far, 1) {
            Ok(Filled::End) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                timeout(PATIENCE, far.readable()).await.unwrap().unwrap();
            }
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "readable, and nothing to read");
    }
}

#[tokio::test]
async fn a_pipe_with_bytes_in_it_is_not_used_again() {
    let (mut near, far) = pair().await;
    let mut pipe = Pipe::take().unwrap();
    assert_eq!(OPEN.get(), 1);
    near.write_all(b"secret").await.unwrap();
    fill_to(&mut pipe, &far, 6).await;
    drop(pipe);
    assert_eq!((OPEN.get(), POOL.with_borrow(Vec::len)), (0, 0));
    // An empty one is, though bytes have been in it.
    let mut pipe = Pipe::take().unwrap();
    near.write_all(b"secret").await.unwrap();
    fill_to(&mut pipe, &far, 6).await;
    pipe.unload(&mut BytesMut::new()).unwrap();
    drop(pipe);
    assert_eq!((OPEN.get(), POOL.with_borrow(Vec::len)), (1, 1));
    assert_eq!(Pipe::take().unwrap().held(), 0);
    assert_eq!(OPEN.get(), 1);
}

#[test]
fn a_thread_has_so_many_pipes_and_no_more() {
    let all: Vec<Pipe> = (0..PIPES_MAX).map(|_| Pipe::take().unwrap()).collect();
    assert!(Pipe::take().is_none());
    drop(all);
    assert!(Pipe::take().is_some());
}
