//! What a refusal says beside its error code: clients print it.

use super::errors::{
    CLUSTER_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED, TOPIC_AUTHORIZATION_FAILED,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION,
};
use crate::wire::tree::{Node, StructNode};

/// What a broker's refusal says beside its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// What the definition of the answer gives a text that nobody sets: nothing, or an empty one.
    Unset,
    /// Nothing.
    Null,
    /// What Kafka's `Errors` says of the code. A broker that checks a right on the cluster says a
    /// print of its request instead, which holds addresses.
    OfCode,
}

/// What Kafka's `Errors` says of a code with which something is refused here in the words of a
/// broker; `None`: what is said of it depends on the case.
fn of_code(code: i16) -> Option<&'static str> {
    Some(match code {
        UNKNOWN_TOPIC_OR_PARTITION => "This server does not host this topic-partition.",
        TOPIC_AUTHORIZATION_FAILED => "Topic authorization failed.",
        GROUP_AUTHORIZATION_FAILED => "Group authorization failed.",
        CLUSTER_AUTHORIZATION_FAILED => "Cluster authorization failed.",
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "Transactional Id authorization failed.",
        UNKNOWN_TOPIC_ID => "This server does not host this topic ID.",
        _ => return None,
    })
}

/// Visits each error that an answer, or a part of one, holds and has a text for.
pub fn each_worded(node: &mut StructNode, visit: &mut dyn FnMut(&mut StructNode)) {
    if node.has("ErrorCode") && node.has("ErrorMessage") && node.int("ErrorCode") != 0 {
        visit(node);
    }
    for index in 0..node.layout().fields.len() {
        if let Some(Node::Structs(Some(inner))) = node.at_mut(index) {
            inner
                .iter_mut()
                .for_each(|element| each_worded(element, visit));
        }
    }
}

/// Says beside the errors of a refusal what a broker says, where nothing is said yet.
pub(super) fn put_into_words(words: Words, refusal: &mut StructNode) {
    each_worded(refusal, &mut |error| {
        if error
            .text("ErrorMessage")
            .is_some_and(|text| !text.is_empty())
        {
            return;
        }
        match (words, of_code(error.int("ErrorCode") as i16)) {
            (Words::OfCode, Some(text)) => _ = error.set_text("ErrorMessage", Some(text)),
            (Words::Null, _) => _ = error.set_text("ErrorMessage", None),
            (Words::OfCode, None) | (Words::Unset, _) => {}
        }
    });
}
