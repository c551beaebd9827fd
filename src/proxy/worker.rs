//! The threads that connections are spread over: each has a runtime of its own, and a
//! connection stays on the thread it was given. A byte copier moved more on several
//! current-thread runtimes than on one multi-thread runtime, and needs no locks this way.
//!
//! The first of them also accepts, and keeps every so-manieth connection: where there is only
//! one worker, no connection crosses from thread to thread.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::roster::Roster;
use super::{Permit, Proxy, connection};
use crate::net::listen::{self, Accepted, Changes, Door};

/// Most threads for connections, however many cores there are.
pub const WORKERS_MAX: usize = 16;

/// The threads.
pub struct Workers {
    /// What ends the first when it is dropped; the others end with the first.
    end: oneshot::Sender<Infallible>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection on its way to another worker: a socket that no runtime knows.
struct Given {
    door: Door,
    socket: StdStream,
    peer: SocketAddr,
    permit: Permit,
}

impl Workers {
    /// Starts `count` threads, which serve what comes through the doors.
    pub fn start(proxy: &Arc<Proxy>, count: usize, doors: Changes) -> io::Result<Workers> {
        let (end, ended) = oneshot::channel();
        let mut threads = Vec::new();
        let mut others = Vec::new();
        for number in 1..count.clamp(1, WORKERS_MAX) {
            let (sender, given) = unbounded_channel();
            let proxy = Arc::clone(proxy);
            threads.push(thread(number, move || on_runtime(serve(proxy, given)))?);
            others.push(sender);
        }
        let proxy = Arc::clone(proxy);
        threads.push(thread(0, move || {
            on_runtime(receive(proxy, doors, others, ended));
        })?);
        Ok(Workers { end, threads })
    }

    /// Takes no more connections and waits until the open ones have ended.
    pub fn join(self) {
        drop(self.end);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn thread(number: usize, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(body)
}

/// A runtime of its own kind: on a `LocalSet` each event that wakes a connection also writes to
/// the poller's own descriptor, which costs two system calls.
fn on_runtime(work: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => tracing::error!(%error, "cannot start a worker"),
    }
}

/// The first worker: connections in turn to all, itself included, until `ended`.
async fn receive(
    proxy: Arc<Proxy>,
    doors: Changes,
    others: Vec<UnboundedSender<Given>>,
    ended: oneshot::Receiver<Infallible>,
) {
    // A queue within the thread, since what accepts is a task for each door.
    let (own, mut kept) = unbounded_channel();
    let turn = Arc::new(AtomicUsize::new(0));
    let accepting = {
        let proxy = Arc::clone(&proxy);
        move |accepted: Accepted| {
            proxy.recorder.connection_accepted();
            let Some(permit) = proxy.admit() else {
                proxy.recorder.connection_refused();
                return;
            };
            let turn = turn.fetch_add(1, Ordering::Relaxed) % (others.len() + 1);
            match turn.checked_sub(1).and_then(|other| others.get(other)) {
                // Either fails only when the process ends; the connection closes then.
                None => {
                    let _ = own.send((accepted, permit));
                }
                Some(other) => match accepted.socket.into_std() {
                    Ok(socket) => {
                        let (door, peer) = (accepted.door, accepted.peer);
                        let _ = other.send(Given {
                            door,
                            socket,
                            peer,
                            permit,
                        });
                    }
                    Err(error) => tracing::warn!(%error, "connection lost on arrival"),
                },
            }
        }
    };
    let mut connections = Connections::new(proxy);
    {
        let mut ended = std::pin::pin!(ended);
        let mut doors = std::pin::pin!(listen::run(doors, accepting));
        let mut open = true;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                () = &mut doors, if open => open = false,
                Some((accepted, permit)) = kept.recv() => {
                    let Accepted { door, socket, peer } = accepted;
                    connections.begin(door, socket, peer, permit);
                }
                Some(_) = connections.open.join_next() => {}
            }
        }
    }
    connections.end().await;
}

/// Any other worker: what it is given, until nothing can come any more.
async fn serve(proxy: Arc<Proxy>, mut given: UnboundedReceiver<Given>) {
    let mut connections = Connections::new(proxy);
    loop {
        tokio::select! {
            next = given.recv() => {
                let Some(Given { door, socket, peer, permit }) = next else { break };
                let Ok(socket) = TcpStream::from_std(socket) else { continue };
                connections.begin(door, socket, peer, permit);
            }
            Some(_) = connections.open.join_next() => {}
        }
    }
    connections.end().await;
}

/// The connections of one worker.
struct Connections {
    proxy: Arc<Proxy>,
    roster: Rc<Roster>,
    /// Tells those on the roster of changes.
    telling: tokio::task::JoinHandle<()>,
    open: JoinSet<()>,
}

impl Connections {
    /// None yet. Called within the worker's runtime.
    fn new(proxy: Arc<Proxy>) -> Connections {
        let roster = Rc::new(Roster::default());
        let changes = proxy.swapped.subscribe();
        let telling = tokio::task::spawn_local(Rc::clone(&roster).tell(changes));
        Connections {
            proxy,
            roster,
            telling,
            open: JoinSet::new(),
        }
    }

    fn begin(
        &mut self,
        (listener, target): Door,
        socket: TcpStream,
        peer: SocketAddr,
        permit: Permit,
    ) {
        let (proxy, roster) = (Arc::clone(&self.proxy), Rc::clone(&self.roster));
        self.open.spawn_local(connection::serve(
            proxy, roster, listener, target, socket, peer, permit,
        ));
    }

    async fn end(mut self) {
        while self.open.join_next().await.is_some() {}
        self.telling.abort();
    }
}
