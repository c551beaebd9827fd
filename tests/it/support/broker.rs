//! The embedded broker on a thread of its own, so that it answers whatever a test waits for.

use std::sync::mpsc;
use std::thread::JoinHandle;

use kordon::demo::broker::{Broker, BrokerSettings};
use tokio::sync::oneshot;

/// A running broker; dropping it closes its port and connections.
pub struct Node {
    pub broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(settings: BrokerSettings, topics: &[(&str, i32)]) -> Node {
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
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
