//! Accept loops: one for each bound address, opened and closed while the process runs. What is
//! accepted is handed on at once; nothing is read here.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::broker::Target;

/// Pause after a failed accept (out of file descriptors, say), so that it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Names an address: the listener's index in the configuration, and where it leads.
pub type Door = (usize, Target);

/// Opens and closes doors from any thread.
#[derive(Clone, Debug)]
pub struct Doors(UnboundedSender<Change>);

#[derive(Debug)]
enum Change {
    Open(Door, StdListener),
    Close(Door),
    CloseAll,
}

/// A connection that was just accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Through which door.
    pub door: Door,
    /// The connection, non-blocking.
    pub socket: StdStream,
    /// Who is there.
    pub peer: SocketAddr,
}

/// Makes the two ends: one to change doors with, one for [`run`].
pub fn doors() -> (Doors, Changes) {
    let (sender, receiver) = unbounded_channel();
    (Doors(sender), Changes(receiver))
}

/// The end for [`run`].
#[derive(Debug)]
pub struct Changes(UnboundedReceiver<Change>);

impl Doors {
    /// Binds now, so that whoever is told of the address can connect to it; accepting begins
    /// soon after.
    pub fn open(&self, door: Door, addr: SocketAddr) -> io::Result<()> {
        let socket = StdListener::bind(addr)?;
        socket.set_nonblocking(true)?;
        // Fails only once nothing listens any more, at the end of the process.
        let _ = self.0.send(Change::Open(door, socket));
        Ok(())
    }

    /// Stops listening; connections that are open stay so.
    pub fn close(&self, door: Door) {
        let _ = self.0.send(Change::Close(door));
    }

    /// Stops listening everywhere.
    pub fn close_all(&self) {
        let _ = self.0.send(Change::CloseAll);
    }
}

/// Accepts on all open doors until there is nobody left to open one. Runs on a `LocalSet`.
pub async fn run(mut changes: Changes, accepted: impl Fn(Accepted) + Clone + 'static) {
    let mut open: HashMap<Door, JoinHandle<()>> = HashMap::new();
    while let Some(change) = changes.0.recv().await {
        match change {
            Change::Open(door, socket) => match TcpListener::from_std(socket) {
                Ok(listener) => {
                    let task = accept(door, listener, accepted.clone());
                    if let Some(old) = open.insert(door, tokio::task::spawn_local(task)) {
                        old.abort();
                    }
                }
                Err(error) => tracing::error!(%error, "cannot listen"),
            },
            Change::Close(door) => {
                if let Some(task) = open.remove(&door) {
                    task.abort();
                }
            }
            Change::CloseAll => open.drain().for_each(|(_, task)| task.abort()),
        }
    }
}

async fn accept(door: Door, listener: TcpListener, accepted: impl Fn(Accepted)) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match stream.into_std() {
                Ok(socket) => accepted(Accepted { door, socket, peer }),
                Err(error) => tracing::warn!(%error, "connection lost on arrival"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
