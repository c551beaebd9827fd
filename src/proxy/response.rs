//! What happens to an answer: filtered for its client, joined with what was refused here, and
//! every broker address replaced by one of ours. Nothing that a client receives names an
//! upstream host.

use bytes::{Bytes, BytesMut};

use super::appearing;
use super::client::Client;
use super::shadow;
use super::weigh::framed;
use crate::apis::errors::{COORDINATOR_NOT_AVAILABLE, FETCH_SESSION_ID_NOT_FOUND};
use crate::apis::lens::{self, recompute_operations, role_node};
use crate::apis::{self, API_VERSIONS, Answered, METADATA, fetch as fetch_api};
use crate::broker::BrokerAddr;
use crate::broker::BrokerId;
use crate::session::fetch_sessions::Owner;
use crate::session::frames::answer;
use crate::session::inflight::{Expect, FetchWork};
use crate::wire::header;
use crate::wire::layout::{Layout, Role};
use crate::wire::primitive::{self, WireError};
use crate::wire::tree::{self, Node, Segments, StructNode};

/// An answer of the broker that cannot be read: the connection ends.
#[derive(Debug, thiserror::Error)]
#[error("unreadable answer to {api}: {what}")]
pub struct Unreadable {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// What is wrong.
    pub what: WireError,
}

/// Topic ids in an answer by which its filter is to decide, and that stand for nothing known here:
/// somebody else's topic, most often, that this proxy has not met. `frame` is without its prefix.
pub fn unknown_ids(client: &mut Client, expect: &Expect, frame: &[u8]) -> Vec<[u8; 16]> {
    let (api, version) = (expect.api, expect.asked_version);
    let judged = client.view.is_some() || !client.beside.is_empty();
    let Some(layout) = api.layout().filter(|_| judged) else {
        return Vec::new();
    };
    let flexible = api.response_header_flexible(version);
    match header::read_response(frame, flexible) {
        Ok((_, at)) if api.filters_by_topic_id(version) => {
            let (body, topology) = (&frame[at..], &client.proxy.cluster.topology);
            let topics = &mut client.topics;
            topics.unknown(&layout.response, version, body, topology)
        }
        _ => Vec::new(),
    }
}

/// Rewrites a whole answer; `frame` is without its prefix, the result has one.
pub fn whole(
    client: &mut Client,
    expect: &mut Expect,
    frame: &Bytes,
) -> Result<Vec<Bytes>, Unreadable> {
    let api = expect.api;
    let unreadable = |what| Unreadable {
        api: api.name,
        what,
    };
    let layout = api
        .layout()
        .ok_or(unreadable(WireError::Version(expect.version)))?;
    let asked = expect.asked_version;
    let flexible = api.response_header_flexible(asked);
    let (_, body_at) = header::read_response(frame, flexible).map_err(unreadable)?;
    let body = frame.slice(body_at..);
    let mut version = asked;
    if api.key == API_VERSIONS && body.starts_with(&UNSUPPORTED) {
        // A broker that lacks the version says so in version 0 (KIP-511).
        version = 0;
    }
    let mut response = tree::decode(&layout.response, version, &body, tree::RESPONSE_NODES_MAX)
        .map_err(unreadable)?;
    adapt(client, expect, version, &mut response);
    if asked != expect.version {
        version = expect.version;
    }
    let flexible = api.response_header_flexible(expect.version);
    Ok(write(
        expect.correlation_id,
        flexible,
        layout,
        version,
        &response,
    ))
}

/// UNSUPPORTED_VERSION, at the start of an ApiVersions answer.
const UNSUPPORTED: [u8; 2] = [0, 35];

/// Everything that is done to an answer, in order.
fn adapt(client: &mut Client, expect: &mut Expect, version: i16, response: &mut StructNode) {
    let enforced = client.view.is_some();
    if expect.api.key == METADATA {
        learn_topics(client, version, response);
        appearing::deny(client, expect, response);
        appearing::tell(client, expect, response);
    }
    if let Some(listing) = &expect.listing {
        apis::answer_listing(response, listing);
    }
    if expect.api.shows_brokers(version) {
        learn_brokers(client, version, response, None);
        rewrite_brokers(client, version, response, None);
    }
    if let (Some(filter), false) = (expect.api.filter, client.beside.is_empty()) {
        let found = shadow::of_answer(client, filter, version, response, &expect.told);
        client.differed(expect.api, found);
    }
    {
        let mut judge = client.judge();
        if let Some(filter) = expect.api.filter {
            let response = &mut *response;
            filter(&mut Answered {
                version,
                response,
                guard: &mut judge,
            });
        }
    }
    let refused = std::mem::take(&mut expect.refused);
    lens::merge(expect.api.key, response, refused);
    if enforced && expect.api.shows_operations(version) {
        recompute_operations(response, version, &mut client.judge());
    }
    if expect.throttle_ms > 0 {
        let throttle = response
            .int("ThrottleTimeMs")
            .max(expect.throttle_ms.into());
        response.set_int("ThrottleTimeMs", throttle);
    }
}

fn write(
    correlation_id: i32,
    flexible: bool,
    layout: &Layout,
    version: i16,
    response: &StructNode,
) -> Vec<Bytes> {
    let mut start = BytesMut::new();
    header::write_response(correlation_id, flexible, &mut start);
    let mut out = Segments::starting_with(start);
    tree::encode(response, &layout.response, version, &mut out);
    framed(out.finish())
}

/// Every Metadata answer that passes tells which topic an id stands for.
fn learn_topics(client: &Client, version: i16, response: &StructNode) {
    if version < 10 {
        return;
    }
    for topic in response.structs("Topics") {
        if let (0, Some(name)) = (topic.int("ErrorCode"), topic.text("Name")) {
            client
                .proxy
                .cluster
                .topology
                .learn_topic(topic.uuid("TopicId"), name);
        }
    }
}

/// Visits every struct that holds an address, with the id of the broker it belongs to: its own,
/// or that of the struct around it.
fn each_address(
    element: &mut StructNode,
    version: i16,
    around: Option<BrokerId>,
    visit: &mut dyn FnMut(&mut StructNode, Option<BrokerId>) -> bool,
) -> bool {
    let own = match role_node(element, Role::BrokerId, version) {
        Some(Node::Int(id)) => Some(*id as BrokerId),
        _ => around,
    };
    let layout = element.layout();
    for (index, field) in layout.fields.iter().enumerate() {
        if field.nested().is_none() || !field.versions.contains(version) {
            continue;
        }
        match element.at_mut(index) {
            Some(Node::Structs(Some(elements))) => {
                elements.retain_mut(|inner| each_address(inner, version, own, visit));
            }
            Some(Node::Struct(Some(inner))) => {
                each_address(inner, version, own, visit);
            }
            _ => {}
        }
    }
    match role_node(element, Role::Host, version) {
        Some(_) => visit(element, own),
        None => true,
    }
}

fn learn_brokers(
    client: &Client,
    version: i16,
    response: &mut StructNode,
    around: Option<BrokerId>,
) {
    let mut found = Vec::new();
    each_address(response, version, around, &mut |element, id| {
        // Names inside DescribeQuorum are controllers' listeners, not brokers'.
        let is_listener = element.has("Listeners") || element.has("Name");
        if let (Some(id), Some(host), false) = (id, host_of(element, version), is_listener)
            && let Some(Node::Int(port)) = role_node(element, Role::Port, version)
            && let (true, Ok(port)) = (!host.is_empty(), u16::try_from(*port))
        {
            found.push((
                id,
                BrokerAddr {
                    host: host.to_owned(),
                    port,
                },
            ));
        }
        true
    });
    // Ranks are given by id among those seen together.
    found.sort_by_key(|(id, _)| *id);
    for (id, addr) in found {
        client.proxy.cluster.learn_broker(id, addr);
    }
}

fn host_of(element: &StructNode, version: i16) -> Option<&str> {
    role_node(element, Role::Host, version).and_then(Node::text)
}

/// Replaces every address by the one that this listener advertises; a broker that cannot be
/// reached through it is left out of lists, and elsewhere has no address.
fn rewrite_brokers(
    client: &Client,
    version: i16,
    response: &mut StructNode,
    around: Option<BrokerId>,
) {
    let listener = client.listener;
    each_address(response, version, around, &mut |element, id| {
        if host_of(element, version).is_none_or(str::is_empty) {
            return true;
        }
        let advertised = id.and_then(|id| listener.advertised(id));
        let keep = advertised.is_some();
        let (host, port) = advertised.unwrap_or((String::new(), 0));
        let port = if keep { i64::from(port) } else { -1 };
        lens::set_role_at(element, Role::Host, version, Node::Bytes(Some(host.into())));
        lens::set_role_at(element, Role::Port, version, Node::Int(port));
        if !keep && element.has("NodeId") && element.has("ErrorCode") {
            // A coordinator: clients want an answer for each key they named.
            element.set_int("NodeId", -1);
            element.set_int("ErrorCode", COORDINATOR_NOT_AVAILABLE.into());
            return true;
        }
        keep
    });
}

/// What a Produce answer needs, found without changing it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProduceLook {
    /// Whether it holds broker addresses (KIP-951).
    pub addresses: bool,
    /// Where the throttle time stands, in the body.
    pub throttle_at: Option<usize>,
}

impl<'b> crate::wire::walk::Visitor<'b> for ProduceLook {
    fn scalar(
        &mut self,
        field: &crate::wire::layout::Field,
        _value: crate::wire::walk::Scalar<'b>,
        at: std::ops::Range<usize>,
    ) -> Result<(), WireError> {
        match field.role {
            Role::Host => self.addresses = true,
            Role::ThrottleMs => self.throttle_at = Some(at.start),
            _ => {}
        }
        Ok(())
    }
}

/// Looks at a Produce answer; `frame` is without its prefix. The offset of the throttle time
/// counts from the start of `frame`.
pub fn look_at_produce(expect: &Expect, frame: &[u8]) -> Result<ProduceLook, Unreadable> {
    let api = expect.api;
    let unreadable = |what| Unreadable {
        api: api.name,
        what,
    };
    let layout = api
        .layout()
        .ok_or(unreadable(WireError::Version(expect.version)))?;
    let flexible = api.response_header_flexible(expect.version);
    let (_, body_at) = header::read_response(frame, flexible).map_err(unreadable)?;
    let body = frame.get(body_at..).unwrap_or_default();
    let mut look = ProduceLook::default();
    crate::wire::walk::walk(&layout.response, expect.version, body, &mut look)
        .map_err(|error| unreadable(error.what))?;
    look.throttle_at = look.throttle_at.map(|at| at + body_at);
    Ok(look)
}

/// The start of a Fetch answer.
#[derive(Debug)]
pub struct FetchStart {
    /// What goes to the client in its place: the prefix with the new length, header, head, and
    /// the topics that were refused here. `None`: it goes on as it is.
    pub bytes: Option<Bytes>,
    /// How many bytes of the broker's frame (prefix not counted) it stands for.
    pub consumed: usize,
    /// Topics of the broker that follow.
    pub topics: usize,
}

/// Most bytes the start of a Fetch answer can take: header, its tags, and the head.
pub const FETCH_START_BYTES_MAX: usize = 4096;

/// Reads the start of a Fetch answer of `length` bytes, of which `bytes` are there; `None`:
/// more are needed. Puts what was refused in front of the broker's topics.
pub fn fetch_start(
    client: &mut Client,
    expect: &mut Expect,
    work: FetchWork,
    bytes: &[u8],
    length: usize,
) -> Result<Option<FetchStart>, Unreadable> {
    let api = expect.api;
    let unreadable = |what| Unreadable {
        api: api.name,
        what,
    };
    let flexible = api.response_header_flexible(expect.version);
    let complete = bytes.len() >= length.min(FETCH_START_BYTES_MAX);
    let early = |what| match what {
        WireError::Truncated | WireError::Length(0..) if !complete => Ok(None),
        what => Err(unreadable(what)),
    };
    let body_at = match header::read_response(bytes, flexible) {
        Ok((_, body_at)) => body_at,
        Err(what) => return early(what),
    };
    let body = bytes.get(body_at..).unwrap_or_default();
    let head = match fetch_api::head(expect.version, body) {
        Ok(head) => head,
        Err(what) => return early(what),
    };
    let refused = std::mem::take(&mut expect.refused);
    keep_session(client, work, &head, &refused, expect);
    let consumed = body_at + head.end;
    let topics = head.topics;
    if refused.is_empty() {
        return Ok(Some(FetchStart {
            bytes: None,
            consumed,
            topics,
        }));
    }
    let layout = api
        .layout()
        .ok_or(unreadable(WireError::Version(expect.version)))?;
    let mut out = BytesMut::new();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&bytes[..body_at + head.topics_at]);
    let compact = layout.response.flexible.contains(expect.version);
    primitive::put_long_length(&mut out, Some(topics + refused.len()), compact);
    for (_, element) in &refused {
        out.extend_from_slice(&tree::encode_element(
            element,
            &layout.response,
            expect.version,
        ));
    }
    let new_length = (out.len() - 4) + (length - consumed);
    out[..4].copy_from_slice(&(new_length as u32).to_be_bytes());
    Ok(Some(FetchStart {
        bytes: Some(out.freeze()),
        consumed,
        topics,
    }))
}

/// The answer in place of one that may no longer be seen: a session is not known any more, or no
/// records have come. Either makes the client ask again, which is judged like any request.
pub fn fetch_again(client: &Client, expect: &Expect, work: FetchWork) -> Result<Bytes, Unreadable> {
    let api = expect.api;
    let layout = api.layout().ok_or(Unreadable {
        api: api.name,
        what: WireError::Version(expect.version),
    })?;
    let mut response = StructNode::new(&layout.response.body);
    if work.session_id != 0 {
        let key = (client.broker.clone(), work.session_id);
        client.proxy.fetch_sessions.forget(&key);
    }
    if work.session_id != 0 || work.opens {
        response.set_int("ErrorCode", FETCH_SESSION_ID_NOT_FOUND.into());
    }
    let (version, id) = (expect.version, expect.correlation_id);
    Ok(answer(api, version, id, &response))
}

/// Remembers whose session it is that the answer opens, and forgets the one that it ends.
fn keep_session(
    client: &mut Client,
    work: FetchWork,
    head: &fetch_api::Head,
    refused: &[(&'static str, StructNode)],
    expect: &Expect,
) {
    let key = |id| (client.broker.clone(), id);
    let sessions = &client.proxy.fetch_sessions;
    if work.session_id != 0 && (head.session_id != work.session_id || head.error_code != 0) {
        sessions.forget(&key(work.session_id));
    } else if work.session_id != 0 && !expect.forgotten.is_empty() {
        sessions.without(&key(work.session_id), work.epoch, &expect.forgotten);
    }
    if work.opens && head.session_id != 0 && head.error_code == 0 {
        let refused = refused.iter().map(|(_, element)| element.clone()).collect();
        let owner = Owner {
            generation: work.generation,
            ..client.owner()
        };
        sessions.open(key(head.session_id), &owner, refused, &expect.asked);
    }
}
