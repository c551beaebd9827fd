//! A connection whose frames a test makes and cuts as it likes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::PATIENCE;

/// A request as it stands on the wire.
pub fn frame_of<R: Request>(version: i16, id: i32, request: &R) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some("raw".into()));
    let mut frame = BytesMut::from(&[0; 4][..]);
    header
        .encode(&mut frame, R::header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    let length = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.to_vec()
}

/// Long enough for the other side to read what is there, most of the time: for tests in which
/// bytes come apart, and which hold if they do not.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// See the module.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw(stream)
    }

    /// Leaves without a goodbye, whatever is still on its way.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.0);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes).await, "the connection has ended");
    }

    /// Sends as much as the other side takes before it ends the connection; whether it took all.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(PATIENCE, self.0.write_all(bytes)).await;
        sent.expect("bytes taken in time").is_ok()
    }

    /// The next frame; `None`: the connection has ended.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.0.read_u32().await.ok()?;
            let mut frame = vec![0; length as usize];
            self.0.read_exact(&mut frame).await.ok()?;
            Some(frame.into())
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// The next answer and the request that it belongs to.
    pub async fn answer<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut frame = self.frame().await.expect("an answer");
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes are left", frame.len());
        (header.correlation_id, response)
    }
}
