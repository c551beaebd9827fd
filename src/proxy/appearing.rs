//! Topics that a broker makes because somebody asks for them by Metadata. Where a rule speaks
//! against one, the request has been sent so that nothing is made; but whether the topic was there
//! anyway, so that nothing was refused, only the answer says. What is refused, or would be, is
//! therefore counted and told behind the answer.

use super::client::Client;
use crate::apis::errors::{LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC_OR_PARTITION};
use crate::apis::{self, Creation};
use crate::session::inflight::Expect;
use crate::telemetry::Outcome;
use crate::wire::tree::StructNode;

/// What a broker says of a topic that is not there, also of one that it has just begun to make;
/// old ones then use the second.
const ABSENT: [i16; 2] = [UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE];

/// Refuses topics that are not there and that the client may not create, as a broker does that
/// would make them.
pub(super) fn deny(client: &mut Client, expect: &mut Expect, response: &mut StructNode) {
    if expect.creation != Creation::Prevented || !client.proxy.cluster.is_known_to_make_topics() {
        return;
    }
    let (is_refused, denials) = {
        let mut judge = client.judge();
        let is_refused = apis::refuse_creation(response, &mut judge);
        (is_refused, judge.denials)
    };
    if is_refused {
        client.refused(expect.api, denials);
        if expect.outcome == Outcome::Forwarded {
            expect.outcome = Outcome::Partial;
        }
    }
}

/// Counts and tells what topic rules refused of what the request asked for, or would have. The
/// answer is the broker's, without what was refused before.
pub(super) fn tell(client: &mut Client, expect: &mut Expect, response: &StructNode) {
    if expect.creation == Creation::Unasked || !client.proxy.cluster.makes_topics() {
        return;
    }
    let absent = response.structs("Topics").iter().filter(|topic| {
        let code = topic.int("ErrorCode");
        ABSENT.iter().any(|absent| i64::from(*absent) == code)
    });
    let (refused, observed) = {
        let mut judge = client.judge();
        for name in absent.filter_map(|topic| topic.text("Name")) {
            judge.is_absent(name);
        }
        (judge.objections, judge.observed)
    };
    match expect.creation {
        Creation::Prevented if refused.list.is_empty() => {}
        Creation::Prevented => {
            client.objected(expect.api, refused);
            if expect.outcome == Outcome::Forwarded {
                expect.outcome = Outcome::Partial;
            }
        }
        Creation::Asked => client.would_object(expect.api, observed),
        Creation::Unasked => {}
    }
}
