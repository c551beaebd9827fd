//! A client as bare as can be: frames over a socket, bodies from the layout table. What comes
//! back is an answer, a close, or nothing in time.

use bytes::{Bytes, BytesMut};
use kordon::apis::{self, layout};
use kordon::wire::header::{self, RequestHeader};
use kordon::wire::tree::{self, StructNode};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Longer than any broker of the lab takes for an answer that comes at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// What this client calls itself.
pub const CLIENT_ID: &str = "surface";

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A frame, without its prefix.
    Answer(Bytes),
    /// The connection ended without an answer.
    Closed,
    /// Neither, in time.
    Silent,
}

/// One connection.
pub struct Socket {
    stream: TcpStream,
    next: i32,
}

impl Socket {
    /// Connects to `host:port`.
    pub fn open(addr: &str) -> Socket {
        Socket::open_from(addr, "127.0.0.1")
    }

    /// Connects from a local address, which is who the peer takes the client to be.
    pub fn open_from(addr: &str, source: &str) -> Socket {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        let peer = addr.to_socket_addrs().unwrap().find(SocketAddr::is_ipv4);
        let connected = socket.connect(&peer.unwrap().into());
        connected.unwrap_or_else(|e| panic!("{addr}: {e}"));
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        Socket { stream, next: 1 }
    }

    /// Whether the peer has not closed.
    #[allow(dead_code)] // the binaries that include this file need different parts of it
    pub fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        match seen {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// Connects and authenticates by SASL/PLAIN, the password being the name.
    pub fn open_as(addr: &str, user: &str) -> Socket {
        Socket::open(addr).log_in(user)
    }

    /// Authenticates by SASL/PLAIN, the password being the name.
    pub fn log_in(mut self, user: &str) -> Socket {
        assert_eq!(self.plain(user, user), 0, "authentication of {user}");
        self
    }

    /// Authenticates by SASL/PLAIN and gives the error code.
    pub fn plain(&mut self, user: &str, password: &str) -> i64 {
        let mut handshake = request(17);
        handshake.set_text("Mechanism", Some("PLAIN"));
        let answer = self.call(17, 1, &handshake);
        assert_eq!(answer.int("ErrorCode"), 0, "handshake");
        let mut token = request(36);
        let bytes = format!("\0{user}\0{password}").into_bytes();
        token.set("AuthBytes", tree::Node::Bytes(Some(bytes.into())));
        self.call(36, 2, &token).int("ErrorCode")
    }

    /// Sends bytes as they are; whether the peer took them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one frame.
    pub fn receive(&mut self) -> Seen {
        let mut prefix = [0; 4];
        if let Err(seen) = self.fill(&mut prefix) {
            return seen;
        }
        let mut frame = vec![0; i32::from_be_bytes(prefix).try_into().unwrap()];
        match self.fill(&mut frame) {
            Ok(()) => Seen::Answer(frame.into()),
            Err(seen) => seen,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Seen> {
        self.stream.read_exact(bytes).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Seen::Silent,
            _ => Seen::Closed,
        })
    }

    /// A correlation id of its own for the next request.
    pub fn correlation(&mut self) -> i32 {
        self.next += 1;
        self.next
    }

    /// Sends a request; the answer is still to be received.
    pub fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> i32 {
        let id = self.correlation();
        self.send(&frame(key, version, id, CLIENT_ID, body));
        id
    }

    /// Sends a request and reads its answer, which must come and be readable.
    pub fn call(&mut self, key: i16, version: i16, request: &StructNode) -> StructNode {
        let body = encode(key, version, request);
        let id = self.ask(key, version, &body);
        match self.receive() {
            Seen::Answer(frame) => {
                let (got, node) = read(key, version, &frame).unwrap();
                assert_eq!(got, id, "correlation id");
                node
            }
            other => panic!("key {key} version {version}: {other:?}"),
        }
    }
}

/// A request at its defaults.
pub fn request(key: i16) -> StructNode {
    StructNode::new(&layout(key).unwrap().request.body)
}

/// The body of a request.
pub fn encode(key: i16, version: i16, request: &StructNode) -> Bytes {
    tree::encode_to_bytes(request, &layout(key).unwrap().request, version)
}

/// A frame with its prefix.
pub fn frame(key: i16, version: i16, id: i32, client_id: &str, body: &[u8]) -> Vec<u8> {
    let flexible = layout(key).is_some_and(|l| l.request.flexible.contains(version));
    let head = RequestHeader {
        key,
        version,
        correlation_id: id,
        client_id: Some(client_id),
        body_at: 0,
    };
    let mut out = BytesMut::new();
    out.extend_from_slice(&[0; 4]);
    head.write(flexible, &mut out);
    out.extend_from_slice(body);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.to_vec()
}

/// The correlation id and the body of an answer.
pub fn read(key: i16, version: i16, frame: &Bytes) -> Result<(i32, StructNode), String> {
    let layout = layout(key).ok_or("no layout")?;
    let flexible = layout.response.flexible.contains(version) && key != apis::API_VERSIONS;
    let (id, at) = header::read_response(frame, flexible).map_err(|e| e.to_string())?;
    let body = frame.slice(at..);
    let mut version = version;
    if key == apis::API_VERSIONS && body.starts_with(&[0, 35]) {
        version = 0;
    }
    let node = tree::decode(&layout.response, version, &body, tree::RESPONSE_NODES_MAX);
    Ok((id, node.map_err(|e| e.to_string())?))
}
