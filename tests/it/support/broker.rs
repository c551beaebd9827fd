//! The embedded broker on a thread of its own, so that it answers whatever a test waits for.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use kordon::demo::broker::{Broker, BrokerSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A running broker; dropping it closes its port and connections.
pub struct Node {
    pub broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The sizes of the pieces in which a broker's answers arrive, in turn.
const PIECES: [usize; 6] = [1, 3, 7, 61, 1_009, 2_503];

impl Node {
    pub fn start(settings: BrokerSettings, topics: &[(&str, i32)]) -> Node {
        Self::start_behind(settings, None, topics)
    }

    /// A broker that says it is at `port`, where its answers come in pieces.
    pub fn start_in_pieces(settings: BrokerSettings, port: u16, topics: &[(&str, i32)]) -> Node {
        let advertised = Some(("127.0.0.1".to_owned(), port));
        Self::start_behind(
            BrokerSettings {
                advertised,
                ..settings
            },
            Some(port),
            topics,
        )
    }

    fn start_behind(settings: BrokerSettings, relay: Option<u16>, topics: &[(&str, i32)]) -> Node {
        let address = settings.listeners[0];
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                if let Some(port) = relay {
                    let bound = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
                    tokio::spawn(relay_in_pieces(bound, address));
                }
                sender.send(Broker::start(settings).await).unwrap();
                let _ = stopped.await;
            });
        });
        let broker = receiver.recv().unwrap().unwrap();
        for (name, partitions) in topics {
            assert!(broker.create_topic(name, *partitions).is_ok(), "{name}");
        }
        Node {
            broker,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn relay_in_pieces(bound: TcpListener, broker: SocketAddr) {
    loop {
        let (client, _) = bound.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let broker = TcpStream::connect(broker).await.unwrap();
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_broker, mut to_broker) = broker.into_split();
            let up = async {
                let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
                let _ = to_broker.shutdown().await;
            };
            let down = async {
                let mut piece = [0; 4_096];
                for size in PIECES.into_iter().cycle() {
                    let Ok(read @ 1..) = from_broker.read(&mut piece[..size]).await else {
                        break;
                    };
                    if to_client.write_all(&piece[..read]).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = to_client.shutdown().await;
            };
            tokio::join!(up, down);
        });
    }
}
