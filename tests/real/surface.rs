//! Every API key at one version below its first, at every version, and one above its last, over
//! real sockets: through Kordon the same kind of answer, or the same close, as from a broker.
//!
//! Requests hold every field at its default: no topics, no groups. What is compared is whether
//! an answer comes, that it reads by the layout to its last byte, and the error codes in it.

use crate::Choice;
use crate::lab::kafka::Kafka;
use crate::lab::kordon::{IN_FRONT, Kordon};
use crate::tally::Tally;
use bytes::{Bytes, BytesMut};
use kordon::apis;
use kordon::wire::header::{self, RequestHeader};
use kordon::wire::layout::Role;
use kordon::wire::tree::{self, Node, StructNode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const VERSION: &str = "4.3.0";
const TIER: &str = "4.3.0 surface";
const NODES_MAX: usize = 1_000_000;
/// Nothing of what is asked here takes a broker this long, unless it waits for good.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
const CORRELATION_ID: i32 = 4711;

/// What came of one request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answered(Vec<String>),
    Unreadable(String),
    Closed,
    Silent,
}

/// Every key and version, directly and through Kordon.
pub fn surface(choice: &Choice, tally: &mut Tally) -> Result<(), String> {
    if !choice.way("kordon") {
        return Ok(());
    }
    if let Err(reason) = crate::part::ready(&format!("kafka-{VERSION}")) {
        tally.tier_skipped(TIER, "raw", &reason);
        return Ok(());
    }
    let kafka = Kafka::start(VERSION, 1, "")?;
    let mut kordon = Kordon::permissive(IN_FRONT, &kafka.addrs())?;
    let broker = &kafka.addrs()[0];
    // A broker that has just started answers for its coordinators only after a moment.
    std::thread::sleep(Duration::from_secs(3));
    for key in -1..=apis::KEYS as i16 {
        let layout = apis::layout(key);
        let versions = layout.map_or(0..=0, |l| {
            l.request.versions.min - 1..=l.request.versions.max + 1
        });
        for version in versions {
            let name = layout.map_or("no such API", |l| &l.request.name);
            let case = format!("{name} ({key}) v{version}");
            let request = request(key, version);
            let direct = ask(broker, key, version, &request);
            let through = ask(&kordon.addr, key, version, &request);
            let refused = differs(key, version);
            match refused {
                _ if direct == through => tally.pass(TIER, "raw"),
                Some(why) => tally.skip(TIER, "raw", &case, &format!("by design: {why}")),
                _ => {
                    let why = format!("directly {direct:?}, through {through:?}");
                    tally.fail(TIER, "raw", &case, &why);
                }
            }
        }
        if !kordon.runs() {
            return Err(format!(
                "`kordon run` ended at key {key}:\n{}",
                kordon.log(30)
            ));
        }
    }
    Ok(())
}

/// The differences from a broker that are meant, and why.
fn differs(key: i16, version: i16) -> Option<&'static str> {
    const ADD_PARTITIONS_TO_TXN: i16 = 24;
    match apis::lookup(key)?.access {
        apis::Access::Never(why) | apis::Access::Answered(_, why) => Some(why),
        _ if key == ADD_PARTITIONS_TO_TXN && version >= 4 => {
            Some("brokers use these versions among themselves; one leaves an empty list unanswered")
        }
        _ => None,
    }
}

fn request(key: i16, version: i16) -> Bytes {
    let layout = apis::layout(key);
    let known = layout.filter(|l| l.request.versions.contains(version));
    let flexible = known.is_some_and(|l| l.request.flexible.contains(version));
    let mut out = BytesMut::new();
    let header = RequestHeader {
        key,
        version,
        correlation_id: CORRELATION_ID,
        client_id: Some("surface"),
        body_at: 0,
    };
    header.write(flexible, &mut out);
    if let Some(layout) = known {
        let mut body = StructNode::new(&layout.request.body);
        if body.has("Acks") {
            // The default, 0, asks for no answer.
            body.set_int("Acks", 1);
        }
        out.extend_from_slice(&tree::encode_to_bytes(&body, &layout.request, version));
    }
    out.freeze()
}

fn ask(addr: &str, key: i16, version: i16, request: &Bytes) -> Outcome {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    let length = (request.len() as u32).to_be_bytes();
    if stream
        .write_all(&[&length, request.as_ref()].concat())
        .is_err()
    {
        return Outcome::Closed;
    }
    let mut length = [0; 4];
    if let Err(error) = stream.read_exact(&mut length) {
        let waited = matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        );
        return if waited {
            Outcome::Silent
        } else {
            Outcome::Closed
        };
    }
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    if stream.read_exact(&mut frame).is_err() {
        return Outcome::Unreadable("ends within the frame".to_owned());
    }
    read(key, version, frame.into()).unwrap_or_else(Outcome::Unreadable)
}

fn read(key: i16, version: i16, frame: Bytes) -> Result<Outcome, String> {
    let row = apis::lookup(key).ok_or("an answer to no known API")?;
    let layout = row.layout().ok_or("an answer to a retired API")?;
    let flexible = row.response_header_flexible(version);
    let (id, body_at) = header::read_response(&frame, flexible).map_err(|e| e.to_string())?;
    if id != CORRELATION_ID {
        return Err(format!("correlation id {id}"));
    }
    // ApiVersions answers an unknown version in version 0.
    let version = if layout.response.versions.contains(version) {
        version
    } else {
        0
    };
    let body = tree::decode(
        &layout.response,
        version,
        &frame.slice(body_at..),
        NODES_MAX,
    )
    .map_err(|e| e.to_string())?;
    let mut codes = Vec::new();
    errors(&body, "", &mut codes);
    Ok(Outcome::Answered(codes))
}

/// Every error code by its path.
fn errors(body: &StructNode, path: &str, codes: &mut Vec<String>) {
    for (index, field) in body.layout().fields.iter().enumerate() {
        let path = format!("{path}/{}", field.name);
        match body.at(index) {
            Some(Node::Int(code)) if field.role == Role::ErrorCode => {
                codes.push(format!("{path}={code}"));
            }
            Some(Node::Structs(Some(elements))) => {
                elements
                    .iter()
                    .for_each(|element| errors(element, &path, codes));
            }
            Some(Node::Struct(Some(nested))) => errors(nested, &path, codes),
            _ => {}
        }
    }
}
