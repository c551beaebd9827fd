//! What a broker says to a request in the middle of authentication: ILLEGAL_SASL_STATE where the
//! API's answer has room for it (the `getErrorResponse` of Kafka's request classes). Here every
//! API has such an answer, those included that are never refused whole otherwise.

use crate::wire::layout::Role;
use crate::wire::tree::{Node, StructNode};

use super::errors::ILLEGAL_SASL_STATE;
use super::lens::{Question, Refusal, mirror, set_role};
use super::words::each_worded;
use super::{Api, Phase, Refuse};

/// APIs whose errors stand on each element of an array: (key, of the request, of the response).
const EACH: [(i16, &str, &str); 16] = [
    (3, "Topics", "Topics"),
    (9, "Groups", "Groups"),
    (10, "CoordinatorKeys", "Coordinators"),
    (15, "Groups", "Groups"),
    (20, "TopicNames", "Responses"),
    (20, "Topics", "Responses"),
    (32, "Resources", "Results"),
    (33, "Resources", "Responses"),
    (42, "GroupsNames", "Results"),
    (44, "Resources", "Responses"),
    (65, "TransactionalIds", "TransactionStates"),
    (69, "GroupIds", "Groups"),
    (75, "Topics", "Topics"),
    (77, "GroupIds", "Groups"),
    (89, "GroupIds", "Groups"),
    (90, "Groups", "Groups"),
];

/// APIs whose answers hold the text of the exception.
const SAY_TYPE: [i16; 18] = [
    0, 19, 29, 30, 31, 33, 37, 43, 44, 45, 46, 48, 50, 51, 57, 60, 64, 90,
];

/// APIs whose answers hold the text of the error code.
const SAY_CODE: [i16; 8] = [10, 32, 49, 55, 80, 81, 91, 92];

const CODE_TEXT: &str = "Request is not valid given the current SASL state.";

/// The answer; `None` for requests that clients have no business with.
pub fn answer(question: &Question) -> Option<StructNode> {
    let api = question.api;
    if api.phase == Phase::BrokerOnly {
        return None;
    }
    let mut response = match shaped(question) {
        Some(response) => response,
        None => match question.refuse(ILLEGAL_SASL_STATE) {
            Refusal::Answer(response) => response,
            Refusal::Served(_) | Refusal::Close(_) => return None,
        },
    };
    defaults(question, &mut response);
    if SAY_TYPE.contains(&api.key) {
        say(&mut response, &type_text(api));
    } else if SAY_CODE.contains(&api.key) {
        say(&mut response, CODE_TEXT);
    }
    Some(response)
}

/// The answers of rows that have no shape for a refusal, or another one for this.
fn shaped(question: &Question) -> Option<StructNode> {
    let (key, version) = (question.api.key, question.version);
    let code = Node::Int(ILLEGAL_SASL_STATE.into());
    let mut response = question.empty_response();
    // Older versions ask about one thing, and have room for one error.
    let single = matches!((key, version), (9, ..8) | (10, ..4));
    if key == 9 && single {
        return None;
    }
    let each: Vec<_> = EACH.iter().filter(|(k, ..)| *k == key && !single).collect();
    if each.is_empty() {
        if !matches!(question.api.refuse, Refuse::Unused) {
            return None;
        }
        set_role(&mut response, Role::ErrorCode, code);
        return Some(response);
    }
    for (_, from, to) in each {
        let model = question.response_element(to)?;
        let elements = elements(question, from, &model);
        response.structs_mut(to).extend(elements);
    }
    if (key, version) == (3, 13) {
        response.set_int("ErrorCode", ILLEGAL_SASL_STATE.into());
    }
    Some(response)
}

/// An element of the answer for each one of the request's, structures or names.
fn elements(question: &Question, from: &str, model: &StructNode) -> Vec<StructNode> {
    let (code, version) = (ILLEGAL_SASL_STATE, question.version);
    if question.request.has(from) && !question.request.structs(from).is_empty() {
        let structs = question.request.structs(from).iter();
        return structs.map(|e| mirror(e, model, version, code)).collect();
    }
    let names = question.request.texts(from);
    names
        .map(|name| {
            let mut element = model.clone();
            for role in [Role::GroupId, Role::TransactionalId, Role::TopicName] {
                set_role(&mut element, role, text(name));
            }
            if question.api.key == 10 {
                element.set_text("Key", Some(name));
            }
            set_role(&mut element, Role::ErrorCode, Node::Int(code.into()));
            element
        })
        .collect()
}

fn text(name: &str) -> Node {
    Node::Bytes(Some(bytes::Bytes::copy_from_slice(name.as_bytes())))
}

/// Values that Kafka's classes give to what they do not know.
fn defaults(question: &Question, response: &mut StructNode) {
    let version = question.version;
    let of_partitions = |response: &mut StructNode, topics, partitions, field| {
        for topic in response.structs_mut(topics) {
            for partition in topic.structs_mut(partitions) {
                partition.set_int(field, -1);
            }
        }
    };
    match question.api.key {
        0 => of_partitions(response, "Responses", "PartitionResponses", "BaseOffset"),
        1 => {
            of_partitions(response, "Responses", "Partitions", "HighWatermark");
            if version >= 7 {
                response.set_int("ErrorCode", ILLEGAL_SASL_STATE.into());
            }
            // Topics by id are not named in an error of the session.
            if version >= 13 {
                response.structs_mut("Responses").clear();
            }
        }
        3 => {
            for topic in response.structs_mut("Topics") {
                if topic.text("Name").is_none() {
                    topic.set_text("Name", Some(""));
                }
            }
        }
        10 => {
            let nowhere = |node: &mut StructNode| {
                node.set_int("NodeId", -1).set_int("Port", -1);
            };
            match version {
                ..4 => nowhere(response),
                _ => response
                    .structs_mut("Coordinators")
                    .iter_mut()
                    .for_each(nowhere),
            }
        }
        21 => of_partitions(response, "Topics", "Partitions", "LowWatermark"),
        38 => {
            // Whom a broker takes somebody for who has proven nothing yet.
            for (kind, name) in [
                ("PrincipalType", "PrincipalName"),
                ("TokenRequesterPrincipalType", "TokenRequesterPrincipalName"),
            ] {
                response.set_text(kind, Some("User"));
                response.set_text(name, Some("ANONYMOUS"));
            }
            for time in ["IssueTimestampMs", "ExpiryTimestampMs", "MaxTimestampMs"] {
                response.set_int(time, -1);
            }
        }
        _ => {}
    }
}

/// Puts a text beside each error.
fn say(node: &mut StructNode, text: &str) {
    each_worded(node, &mut |error| {
        _ = error.set_text("ErrorMessage", Some(text))
    });
}

/// The exception's text; Kafka writes the API's name as a constant.
fn type_text(api: &Api) -> String {
    let mut constant = String::with_capacity(api.name.len() + 8);
    for (at, letter) in api.name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            constant.push('_');
        }
        constant.push(letter.to_ascii_uppercase());
    }
    format!("Unexpected Kafka request of type {constant} during SASL authentication.")
}
