//! Frames of the authentication phase: requests read as trees, answers written whole. What is
//! said when is [`handshake`](super::handshake)'s.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::apis::{self, API_VERSIONS, Api, SASL_AUTHENTICATE, errors, versions};
use crate::policy::model::{Operation, ResourceKind};
use crate::topic_rules::Change;
use crate::wire::header::{self, RequestHeader};
use crate::wire::tree::{self, StructNode};

/// The answer to ApiVersions before authentication: what the broker and the table have in
/// common.
pub fn versions_answer(broker: &StructNode, version: i16, id: i32) -> Option<Bytes> {
    let api = apis::lookup(API_VERSIONS)?;
    let mut response = broker.clone();
    response.set_int("ThrottleTimeMs", 0);
    versions::intersect_for(&mut response, version);
    Some(answer(api, version, id, &response))
}

/// An answer with every field at its default.
pub(super) fn empty(api: &Api) -> StructNode {
    match api.layout() {
        Some(layout) => StructNode::new(&layout.response.body),
        None => unreachable!("{} has a layout", api.name),
    }
}

/// A request before the session is open, if it can be read: row, version, correlation id, body.
pub(super) fn read(frame: &Bytes) -> Option<(&'static Api, i16, i32, StructNode)> {
    let (key, version) = header::peek(frame)?;
    let api = apis::lookup(key)?;
    let layout = api.layout()?;
    if !api.versions.contains(version) {
        return None;
    }
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let body = frame.slice(head.body_at..);
    let nodes_max = tree::UNAUTHENTICATED_NODES_MAX;
    let (request, _) = tree::decode_prefix(&layout.request, version, &body, nodes_max).ok()?;
    Some((api, version, head.correlation_id, request))
}

/// The answer to ApiVersions in a version that is not known here; `None` for anything else.
pub fn unsupported_versions_answer(frame: &[u8]) -> Option<Bytes> {
    let (key, version) = header::peek(frame)?;
    let api = apis::lookup(API_VERSIONS)?;
    if key != API_VERSIONS || api.versions.contains(version) {
        return None;
    }
    // A version of the future has the newest header, a negative one the oldest; the body is not
    // read.
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let mut response = empty(api);
    versions::unsupported(&mut response, (api.versions.min, api.versions.max));
    Some(answer(api, 0, head.correlation_id, &response))
}

/// What is said to ApiVersions of the future in the middle of the exchange.
pub(super) fn misplaced_versions(frame: &[u8]) -> Option<Bytes> {
    let api = apis::lookup(API_VERSIONS)?;
    let (_, version) = header::peek(frame)?;
    let head = RequestHeader::read(frame, api.flexible(version)).ok()?;
    let mut response = empty(api);
    response.set_int("ErrorCode", errors::ILLEGAL_SASL_STATE.into());
    Some(answer(api, 0, head.correlation_id, &response))
}

/// A frame with an answer, prefix included.
pub fn answer(api: &Api, version: i16, correlation_id: i32, response: &StructNode) -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[0; 4]);
    header::write_response(
        correlation_id,
        api.response_header_flexible(version),
        &mut out,
    );
    if let Some(layout) = api.layout() {
        out.extend_from_slice(&tree::encode_to_bytes(response, &layout.response, version));
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Another request in the middle of the exchange gets its own error answer.
pub(super) fn misplaced(frame: &Bytes) -> Option<Bytes> {
    let (api, version, id, mut request) = read(frame)?;
    let mut nobody = Nobody;
    let question = apis::Question::new(api, version, &mut request, &mut nobody);
    let response = apis::misplaced::answer(&question)?;
    Some(answer(api, version, id, &response))
}

/// A message of SASL where nobody has to authenticate.
pub fn illegal_state(frame: &Bytes) -> Option<Bytes> {
    let (api, version, id, mut request) = read(frame)?;
    let mut nobody = Nobody;
    let question = apis::Question::new(api, version, &mut request, &mut nobody);
    match question.refuse(errors::ILLEGAL_SASL_STATE) {
        apis::Refusal::Answer(mut response) => {
            if api.key == SASL_AUTHENTICATE {
                response.set_text("ErrorMessage", Some(OUT_OF_PLACE));
            }
            Some(answer(api, version, id, &response))
        }
        apis::Refusal::Served(_) | apis::Refusal::Close(_) => None,
    }
}

/// What a broker says to SaslAuthenticate when nobody has to authenticate.
const OUT_OF_PLACE: &str = "SaslAuthenticate request received after successful authentication";

/// Nobody may do anything.
struct Nobody;

impl apis::Guard for Nobody {
    fn allows(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        false
    }
    fn sees(&mut self, _: Operation, _: ResourceKind, _: &str) -> bool {
        false
    }
    fn allows_any(&mut self, _: Operation, _: ResourceKind) -> bool {
        false
    }
    fn allows_all(&mut self, _: Operation, _: ResourceKind) -> bool {
        false
    }
    fn within(&mut self, _: ResourceKind, _: Option<&str>) -> bool {
        false
    }
    fn partitions(&mut self, _: &str) -> usize {
        0
    }
    fn topics(&mut self) -> Option<Vec<String>> {
        Some(Vec::new())
    }

    fn topic_name(&mut self, _: &[u8; 16]) -> Option<Arc<str>> {
        None
    }
    fn objection(&mut self, _: &str, _: &Change<'_>) -> Option<String> {
        None
    }
    fn makes_topics(&mut self) -> bool {
        false
    }
    fn may_appear(&mut self, _: &str) -> bool {
        false
    }
    fn rules(&self) -> Option<apis::InForce<'_>> {
        None
    }
}
