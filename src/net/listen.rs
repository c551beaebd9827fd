//! Accept loops: one for each bound address, opened and closed while the process runs. What is
//! accepted is handed on at once; nothing is read here. They run where the connections do: to be
//! woken for each, and to wake another thread for it, costs as much as a good part of a handshake.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
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
    /// The connection.
    pub socket: TcpStream,
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

/// An accept loop; it ends with this.
struct Loop(JoinHandle<()>);

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Accepts on all open doors until there is nobody left to open one. Runs on a local runtime.
pub async fn run(mut changes: Changes, accepted: impl Fn(Accepted) + Clone + 'static) {
    let mut open: HashMap<Door, Loop> = HashMap::new();
    while let Some(change) = changes.0.recv().await {
        match change {
            Change::Open(door, socket) => match TcpListener::from_std(socket) {
                Ok(listener) => {
                    let task = accept(door, listener, accepted.clone());
                    open.insert(door, Loop(tokio::task::spawn_local(task)));
                }
                Err(error) => tracing::error!(%error, "cannot listen"),
            },
            Change::Close(door) => {
                open.remove(&door);
            }
            Change::CloseAll => open.clear(),
        }
    }
}

async fn accept(door: Door, listener: TcpListener, accepted: impl Fn(Accepted)) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => accepted(Accepted { door, socket, peer }),
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
