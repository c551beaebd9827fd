//! The threads that connections are spread over: each has a runtime of its own, and a
//! connection stays on the thread it was given. A byte copier moved more on several
//! current-thread runtimes than on one multi-thread runtime, and needs no locks this way.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::roster::Roster;
use super::{Permit, Proxy, connection};
use crate::net::listen::Accepted;

/// Most threads for connections, however many cores there are.
pub const WORKERS_MAX: usize = 16;

/// The threads.
pub struct Workers {
    senders: Vec<UnboundedSender<(Accepted, Permit)>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(proxy: &Arc<Proxy>, count: usize) -> io::Result<Workers> {
        let mut workers = Workers {
            senders: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
        };
        for number in 0..count.clamp(1, WORKERS_MAX) {
            let (sender, receiver) = unbounded_channel();
            let proxy = Arc::clone(proxy);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(proxy, receiver))?;
            workers.senders.push(sender);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Gives a connection to the next thread.
    pub fn give(&self, accepted: Accepted, permit: Permit) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.senders.len().max(1);
        if let Some(sender) = self.senders.get(next) {
            // Fails only when the process ends; the connection closes then.
            let _ = sender.send((accepted, permit));
        }
    }

    /// Takes no more connections and waits until the open ones have ended.
    pub fn join(self) {
        drop(self.senders);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// A runtime of its own kind: on a `LocalSet` each event that wakes a connection also writes to
/// the poller's own descriptor, which costs two system calls.
fn work(proxy: Arc<Proxy>, receiver: UnboundedReceiver<(Accepted, Permit)>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(serve(proxy, receiver)),
        Err(error) => tracing::error!(%error, "cannot start a worker"),
    }
}

async fn serve(proxy: Arc<Proxy>, mut accepted: UnboundedReceiver<(Accepted, Permit)>) {
    let mut connections = JoinSet::new();
    let roster = Rc::new(Roster::default());
    let changes = proxy.swapped.subscribe();
    let telling = tokio::task::spawn_local(Rc::clone(&roster).tell(changes));
    loop {
        tokio::select! {
            next = accepted.recv() => {
                let Some((accepted, permit)) = next else { break };
                let Ok(socket) = TcpStream::from_std(accepted.socket) else { continue };
                let (listener, target) = accepted.door;
                let (proxy, roster) = (Arc::clone(&proxy), Rc::clone(&roster));
                let peer = accepted.peer;
                connections.spawn_local(connection::serve(
                    proxy, roster, listener, target, socket, peer, permit,
                ));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    telling.abort();
}
