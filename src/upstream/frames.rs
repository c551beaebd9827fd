//! Frames of the proxy's own towards brokers.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use crate::apis;
use crate::net::stream::Stream;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, StructNode};

/// A request with nothing filled in.
pub(super) fn new_request(key: i16) -> Option<StructNode> {
    Some(StructNode::new(&apis::layout(key)?.request.body))
}

/// A frame with a request, prefix included.
pub(super) fn request(key: i16, version: i16, id: i32, request: &StructNode) -> Option<Bytes> {
    let api = apis::lookup(key)?;
    let layout = api.layout()?;
    let mut frame = BytesMut::new();
    frame.extend_from_slice(&[0; 4]);
    let head = RequestHeader {
        key,
        version,
        correlation_id: id,
        client_id: Some("kordon"),
        body_at: 0,
    };
    head.write(api.flexible(version), &mut frame);
    frame.extend_from_slice(&tree::encode_to_bytes(request, &layout.request, version));
    let length = u32::try_from(frame.len() - 4).ok()?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Some(frame.freeze())
}

/// Reads one frame of at most `bytes_max` bytes; its prefix is left out. Memory follows the bytes
/// that arrive.
pub(super) async fn read(stream: &mut Stream, bytes_max: usize) -> io::Result<Bytes> {
    let length = usize::try_from(stream.read_i32().await?);
    let length = length.ok().filter(|length| *length <= bytes_max);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    let mut frame = BytesMut::new();
    let mut rest = stream.take(length as u64);
    while frame.len() < length {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(frame.freeze())
}

/// The correlation id and the body of an answer.
pub(super) fn answer(key: i16, version: i16, frame: &Bytes) -> Option<(i32, StructNode)> {
    let api = apis::lookup(key)?;
    let layout = api.layout()?;
    let flexible = api.response_header_flexible(version);
    let (id, body_at) = header::read_response(frame, flexible).ok()?;
    let body = frame.slice(body_at..);
    let answer = tree::decode(&layout.response, version, &body, tree::RESPONSE_NODES_MAX);
    Some((id, answer.ok()?))
}
