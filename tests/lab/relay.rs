//! A recording relay between a client and the proxy: every byte towards the client is scanned.
//!
//! It stands where the proxy advertises itself (localhost and the same ports), while the proxy
//! listens at another loopback address. So clients connect as ever and every answer passes here.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A chunk's end is kept and scanned again with the next one: no needle is longer than this.
const OVERLAP_BYTES: usize = 64;
/// Bytes kept around a find, for the failure's message.
const CONTEXT_BYTES: usize = 48;
const FINDS_MAX: usize = 20;
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// The relay; stops accepting when dropped.
pub struct Relay {
    /// Where clients bootstrap.
    pub addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    needles: Vec<Vec<u8>>,
    finds: Mutex<Vec<String>>,
    bytes: AtomicU64,
    connections: AtomicU64,
    stop: AtomicBool,
}

impl Relay {
    /// Listens at localhost on `count` ports from `first`, each forwarded to the same port of
    /// `host`; `upstream` are the addresses (`host:port`) that no answer may hold.
    pub fn start(host: &str, first: u16, count: u16, upstream: &[String]) -> Relay {
        let shared = Arc::new(Shared {
            needles: needles(upstream),
            finds: Mutex::default(),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        for port in first..first + count {
            let target: SocketAddr = format!("{host}:{port}").parse().unwrap();
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, target, &shared));
        }
        Relay {
            addr: format!("localhost:{first}"),
            shared,
        }
    }

    /// Places where an upstream address was sent to a client, with the bytes around them.
    pub fn finds(&self) -> Vec<String> {
        self.shared.finds.lock().unwrap().clone()
    }

    /// Bytes sent to clients and scanned so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Connections relayed so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// What must not be seen: the host as text, and the port after a string of any host, as Kafka
/// encodes it (the host's last bytes are unknown, so the port alone would match by chance; the
/// host text with the port as int32 right behind it, and `:port` as text, do not).
pub fn needles(upstream: &[String]) -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for addr in upstream {
        let (host, port) = addr.rsplit_once(':').unwrap();
        let number: i32 = port.parse().unwrap();
        needles.push(host.as_bytes().to_vec());
        needles.push(format!(":{port}").into_bytes());
        // A rewritten host that kept the broker's port: `localhost` and the int32 behind it.
        needles.push([b"localhost".as_slice(), &number.to_be_bytes()].concat());
    }
    needles
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        // A broker port that the proxy does not bind refuses here as it would without the relay.
        let Ok(proxy) = TcpStream::connect(target) else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        client.set_nonblocking(false).unwrap();
        let _ = client.set_nodelay(true);
        let _ = proxy.set_nodelay(true);
        let (from_client, to_proxy) = (client.try_clone().unwrap(), proxy.try_clone().unwrap());
        std::thread::spawn(move || copy(from_client, to_proxy, |_| {}));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut scan = Scan {
                shared: &shared,
                port: target.port(),
                tail: Vec::new(),
            };
            copy(proxy, client, |chunk| scan.feed(chunk));
        });
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut chunk) {
        see(&chunk[..count]);
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

struct Scan<'a> {
    shared: &'a Shared,
    port: u16,
    tail: Vec<u8>,
}

impl Scan<'_> {
    fn feed(&mut self, chunk: &[u8]) {
        self.shared
            .bytes
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let old = self.tail.len();
        self.tail.extend_from_slice(chunk);
        for needle in &self.shared.needles {
            for at in places(&self.tail, needle) {
                // What ended within the last chunk was reported then.
                if at + needle.len() > old {
                    self.report(at, needle);
                }
            }
        }
        let keep = self.tail.len().saturating_sub(OVERLAP_BYTES);
        self.tail.drain(..keep);
    }

    fn report(&self, at: usize, needle: &[u8]) {
        let from = at.saturating_sub(CONTEXT_BYTES);
        let to = (at + needle.len() + CONTEXT_BYTES).min(self.tail.len());
        let mut finds = self.shared.finds.lock().unwrap();
        if finds.len() < FINDS_MAX {
            let around = self.tail[from..to].escape_ascii();
            finds.push(format!(
                "port {}: `{}` in {around}",
                self.port,
                needle.escape_ascii()
            ));
        }
    }
}

fn places<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    hay.windows(needle.len())
        .enumerate()
        .filter(move |(_, w)| *w == needle)
        .map(|(at, _)| at)
}
