//! Share sessions (KIP-932): a request that goes on with one names none of its topics, and the
//! broker, to which all clients are the proxy, would answer with all of them. So each such
//! request is judged by every topic of its session, and a session is honoured only on the
//! connection that began it; anything else is a session that is not found, and the client begins
//! another one that is judged afresh.

use super::client::Client;
use super::judge::Decisions;
use super::weigh::Weighed;
use crate::apis::Api;
use crate::apis::errors::SHARE_SESSION_NOT_FOUND;
use crate::policy::model::{Operation, ResourceKind};
use crate::session::asked::Asked;
use crate::session::frames::answer;
use crate::telemetry::{Outcome, Reason};
use crate::wire::header::RequestHeader;
use crate::wire::tree::StructNode;

/// The epoch that ends a session.
const LAST_EPOCH: i64 = -1;

/// What the session of a request says to it; `None`: it goes on, and `asked` holds all that it
/// may be answered with.
pub fn session(
    client: &mut Client,
    api: &'static Api,
    head: &RequestHeader,
    request: &StructNode,
    asked: &mut Asked,
) -> Option<Weighed> {
    if client.view.is_none() || !request.has("ShareSessionEpoch") {
        return None;
    }
    let group = request.text("GroupId").unwrap_or_default();
    let member = request.text("MemberId").unwrap_or_default();
    let sessions = &mut client.share_sessions;
    match request.int("ShareSessionEpoch") {
        // Only what fetches can begin one.
        0 if request.has("MaxWaitMs") => sessions.open(group, member, asked),
        0 => {}
        epoch => {
            sessions.go_on(group, member, asked);
            let Some(topics) = sessions.topics(group, member) else {
                return Some(not_found(client, api, head));
            };
            let view = client.view.as_ref()?;
            let (read, topic) = (Operation::Read, ResourceKind::Topic);
            let mut denied = Decisions::default();
            for name in topics {
                let decision = view.decide(read, topic, name);
                match decision.allowed {
                    true => asked.add(read, topic, name),
                    false => denied.add(read, topic, name, decision.rule),
                }
            }
            if epoch == LAST_EPOCH || !denied.list.is_empty() {
                client.share_sessions.forget(group, member);
            }
            if !denied.list.is_empty() {
                client.refused(api, denied);
                return Some(not_found(client, api, head));
            }
        }
    }
    None
}

fn not_found(client: &Client, api: &'static Api, head: &RequestHeader) -> Weighed {
    client.metrics.request(api.key, Outcome::Refused);
    let Some(layout) = api.layout() else {
        return Weighed::Close(Reason::Unsupported, "no layout");
    };
    let mut response = StructNode::new(&layout.response.body);
    response.set_int("ErrorCode", SHARE_SESSION_NOT_FOUND.into());
    let frame = answer(api, head.version, head.correlation_id, &response);
    Weighed::Answer(frame)
}
