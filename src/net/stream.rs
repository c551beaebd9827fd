//! One connection, with or without TLS, as the rest of the crate sees it: bytes in, bytes out,
//! and what the handshake proved.
//!
//! * [`Stream::split`] lends the two directions to two loops of **one** task. Plaintext costs no
//!   lock; TLS shares its state behind one that is never contended.
//! * `arrival` and `readable` wait without a buffer, so an idle connection holds none.
//! * With TLS, written bytes may rest in the session: flush before waiting for an answer.
//! * A peer that closes without `close_notify` reads as end of stream; Kafka's frames carry
//!   their length, so a cut frame is noticed one layer up.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, tcp};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long a TLS handshake may take, unless the caller says otherwise.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is silent before the kernel asks whether the peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// The time between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// After how many unanswered questions the connection is broken.
pub const KEEPALIVE_PROBES: u32 = 4;

/// A connection to a client or to a broker.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, the handshake being done.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A connection without TLS.
    pub fn plain(tcp: TcpStream) -> io::Result<Self> {
        tune(&tcp)?;
        Ok(Self::Plain(tcp))
    }

    /// Finishes the handshake with a client; [`io::ErrorKind::TimedOut`] after `limit`.
    pub async fn accept(
        tcp: TcpStream,
        config: &Arc<ServerConfig>,
        limit: Duration,
    ) -> io::Result<Self> {
        tune(&tcp)?;
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(tcp);
        let tls = timeout(limit, handshake).await??;
        Ok(Self::Tls(Box::new(tls.into())))
    }

    /// Finishes the handshake with a broker whose certificate must be `name`'s;
    /// [`io::ErrorKind::TimedOut`] after `limit`.
    pub async fn connect(
        tcp: TcpStream,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        limit: Duration,
    ) -> io::Result<Self> {
        tune(&tcp)?;
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
        let tls = timeout(limit, handshake).await??;
        Ok(Self::Tls(Box::new(tls.into())))
    }

    /// The peer's certificates, leaf first; empty without TLS or where none was shown.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Plain(_) => &[],
            Self::Tls(tls) => tls.get_ref().1.peer_certificates().unwrap_or_default(),
        }
    }

    /// Whether the session goes on from an earlier one, so that what it proves was proven then.
    pub fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// The name that the client asked for (SNI, RFC 6066 §3), in lower case.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Tls(tls) => match &**tls {
                TlsStream::Server(server) => server.get_ref().1.server_name(),
                TlsStream::Client(_) => None,
            },
            Self::Plain(_) => None,
        }
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// The address the peer reached.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// Waits for the peer's first bytes, and leaves them where they are; false: it closed without
    /// having sent any.
    pub async fn arrival(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(tcp) => Ok(tcp.peek(&mut [0]).await? > 0),
            Self::Tls(tls) => {
                poll_fn(|cx| match ready!(Pin::new(&mut **tls).poll_fill_buf(cx)) {
                    Ok(bytes) => Poll::Ready(Ok(!bytes.is_empty())),
                    Err(error) => Poll::Ready(end_is_no_error(Err(error)).map(|_| false)),
                })
                .await
            }
        }
    }

    /// Lends the two directions to two loops of the calling task. Not for two tasks: with TLS
    /// both directions wait for the same socket, which remembers one task for each event.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.split();
                (ReadHalf(Read::Plain(read)), WriteHalf(Write::Plain(write)))
            }
            Self::Tls(tls) => {
                let shared = Shared(Arc::new(Mutex::new(&mut **tls)));
                let read = Read::Tls(Shared(Arc::clone(&shared.0)));
                (ReadHalf(read), WriteHalf(Write::Tls(shared)))
            }
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// The reading direction of a [`Stream`].
#[derive(Debug)]
pub struct ReadHalf<'a>(Read<'a>);

/// The writing direction of a [`Stream`].
#[derive(Debug)]
pub struct WriteHalf<'a>(Write<'a>);

#[derive(Debug)]
enum Read<'a> {
    Plain(tcp::ReadHalf<'a>),
    Tls(Shared<'a>),
}

#[derive(Debug)]
enum Write<'a> {
    Plain(tcp::WriteHalf<'a>),
    Tls(Shared<'a>),
}

/// Both directions of a TLS session. A lock, not a `RefCell`, keeps the future movable between
/// threads; within one task it is always free.
#[derive(Debug)]
struct Shared<'a>(Arc<Mutex<&'a mut TlsStream<TcpStream>>>);

impl<'a> Shared<'a> {
    fn lock(&self) -> MutexGuard<'_, &'a mut TlsStream<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteHalf<'_> {
    /// The socket, where the bytes written are the bytes on the wire: without TLS.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Write::Plain(tcp) => Some(tcp.as_ref()),
            Write::Tls(_) => None,
        }
    }
}

impl ReadHalf<'_> {
    /// As [`WriteHalf::tcp`].
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Read::Plain(tcp) => Some(tcp.as_ref()),
            Read::Tls(_) => None,
        }
    }

    /// Waits until a read gives bytes, the end or an error. May be wrong without TLS, as the
    /// kernel's readiness may: a read can still find nothing.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.0 {
            Read::Plain(tcp) => tcp.readable().await,
            Read::Tls(shared) => poll_fn(|cx| poll_readable(&mut shared.lock(), cx)).await,
        }
    }

    /// Reads what is there after [`readable`](Self::readable), without waiting:
    /// [`io::ErrorKind::WouldBlock`] where nothing is, 0 at the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Read::Plain(tcp) => tcp.try_read(buffer),
            Read::Tls(shared) => end_is_no_error(match &mut **shared.lock() {
                TlsStream::Server(tls) => tls.get_mut().1.reader().read(buffer),
                TlsStream::Client(tls) => tls.get_mut().1.reader().read(buffer),
            }),
        }
    }
}

impl ReadHalf<'_> {
    /// As [`try_read`](Self::try_read), into the room that the buffer has.
    pub fn try_read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.0 {
            Read::Plain(tcp) => tcp.try_read_buf(buffer),
            Read::Tls(_) => {
                let old = buffer.len();
                let room = (buffer.capacity() - old).min(TLS_READ_BYTES_MAX);
                buffer.resize(old + room, 0);
                let read = self.try_read(&mut buffer[old..]);
                buffer.truncate(old + read.as_ref().map_or(0, |n| *n));
                read
            }
        }
    }
}

/// Most plaintext taken from a TLS session in one go: the room must be zeroed before.
const TLS_READ_BYTES_MAX: usize = 64 * 1024;

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => poll_tls_read(tls, cx, buffer),
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Read::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Read::Tls(shared) => poll_tls_read(&mut shared.lock(), cx, buffer),
        }
    }
}

/// Writes through to whatever carries the bytes; the same for the whole and for the half.
macro_rules! write_through {
    ($self:ident, $carrier:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(tcp) => {
                let $carrier = Pin::new(tcp);
                $call
            }
            Stream::Tls(tls) => {
                let $carrier = Pin::new(&mut **tls);
                $call
            }
        }
    };
    (half $self:ident, $carrier:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Write::Plain(tcp) => {
                let $carrier = Pin::new(tcp);
                $call
            }
            Write::Tls(shared) => {
                let mut tls = shared.lock();
                let $carrier = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        write_through!(self, carrier => carrier.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_through!(self, carrier => carrier.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_through!(self, carrier => carrier.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_through!(self, carrier => carrier.poll_shutdown(cx))
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        write_through!(half self, carrier => carrier.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_through!(half self, carrier => carrier.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_through!(half self, carrier => carrier.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_through!(half self, carrier => carrier.poll_shutdown(cx))
    }
}

/// Plaintext that the session holds already counts: the socket may stay silent for ever.
fn poll_readable(tls: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match ready!(Pin::new(tls).poll_fill_buf(cx)) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Poll::Ready(Err(error)),
        _ => Poll::Ready(Ok(())),
    }
}

fn poll_tls_read(
    tls: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let read = ready!(Pin::new(tls).poll_read(cx, buffer));
    Poll::Ready(end_is_no_error(read.map(|()| 0)).map(|_| ()))
}

fn end_is_no_error(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

/// Kafka's messages are requests that somebody waits for: no Nagle. Keepalive finds peers that
/// went away without a word; Kafka has no ping of its own.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests;
