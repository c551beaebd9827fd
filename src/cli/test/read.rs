//! `NAME.test.yaml` to cases, with places. Strict, as all files that people write.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::create::Made;
use crate::cli::policies;
use crate::config::file;
use crate::document::{self, Fields, Node, Value, did_you_mean};
use crate::policy::model::{CLUSTER_NAME, Operation, ResourceKind};
use crate::principal::Principal;
use crate::problem::{Place, Problems};
use crate::wire::records::Codec;

/// One thing that a test expects.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The name of its test.
    pub test: String,
    pub place: Place,
    pub principal: Principal,
    pub host: IpAddr,
    pub ask: Ask,
}

/// What is asked, and what answer is wanted.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    May {
        operation: Operation,
        kind: ResourceKind,
        name: String,
        wanted: bool,
    },
    Produce(Sent, Wanted),
    Create(Made, Wanted),
}

/// A record that is produced, and how.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub topic: String,
    pub acks: i64,
    pub idempotent: bool,
    pub compression: Codec,
    pub headers: Vec<(String, Option<String>)>,
    pub key: Option<Json>,
    pub value: Option<Json>,
}

/// What should become of a record or a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Accepted,
    Rejected(Stage),
}

impl Wanted {
    fn says(self) -> String {
        match self {
            Wanted::Accepted => "accepted".to_owned(),
            Wanted::Rejected(stage) => format!("rejected by {}", stage.name()),
        }
    }
}

/// What may reject a record, in the order of judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Authorization,
    TopicRules,
    Key,
    Value,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::Authorization => "authorization",
            Stage::TopicRules => "topicRules",
            Stage::Key => "key",
            Stage::Value => "value",
        }
    }
}

impl Case {
    /// What the case says, for messages.
    pub(super) fn says(&self) -> String {
        match &self.ask {
            Ask::May {
                operation,
                kind,
                name,
                wanted,
            } => {
                let word = if *wanted { "can" } else { "cannot" };
                let what = policies::resource(*kind, name);
                format!("{word} {} {what}", operation.name())
            }
            Ask::Produce(sent, wanted) => {
                let topic = &sent.topic;
                format!("a record to `{topic}` is {}", wanted.says())
            }
            Ask::Create(made, wanted) => {
                let topic = &made.topic;
                format!("a new topic `{topic}` is {}", wanted.says())
            }
        }
    }
}

/// Every case of a file. Mistakes go to `problems`, all of them.
pub(super) fn cases(path: &Path, problems: &mut Problems) -> Vec<Case> {
    match file::named(path, problems) {
        Some((name, text)) => cases_in(&name, &text, problems),
        None => Vec::new(),
    }
}

/// The same of a text that has been read already.
pub(super) fn cases_in(name: &Arc<str>, text: &str, problems: &mut Problems) -> Vec<Case> {
    let mut cases = Vec::new();
    for document in document::parse(name, text, problems) {
        let Some(mut fields) = Fields::of(&document, problems) else {
            continue;
        };
        let tests = fields.require("tests", problems);
        fields.finish(problems);
        let tests = tests.and_then(|n| n.list_not_empty(problems));
        for test in tests.unwrap_or_default() {
            read(test, &mut cases, problems);
        }
    }
    cases
}

fn read(node: &Node, cases: &mut Vec<Case>, problems: &mut Problems) {
    let Some(mut fields) = Fields::of(node, problems) else {
        return;
    };
    let name = fields.require("name", problems);
    let subject = fields.require("as", problems);
    let list = fields.take("cases");
    let produce = fields.take("produce");
    let create = fields.take("create");
    let expect = fields.take("expect");
    let misspelt = ["cases", "produce", "create"].map(|key| fields.misspelt(key));
    let misspelt = misspelt.contains(&true);
    fields.finish(problems);
    let name = name.and_then(|n| n.name(problems)).map(str::to_owned);
    let subject = subject.and_then(|n| who(n, problems));
    let mut asked = Vec::new();
    for item in list
        .and_then(|n| n.list_not_empty(problems))
        .unwrap_or_default()
    {
        asked.extend(case(item, problems).map(|ask| (item.place.clone(), ask)));
    }
    if let (Some(_), Some(second)) = (produce, create) {
        problems
            .error(
                &second.place,
                "expected either `produce` or `create`, got both",
            )
            .help("make two tests of it");
        return;
    }
    match (produce.or(create), expect) {
        (Some(node), Some(wanted)) => {
            let place = node.place.clone();
            let expected = expected(wanted, produce.is_some(), problems);
            let ask = match produce {
                Some(_) => { record(node, problems) }.zip(expected).map(produced),
                None => { Made::read(node, problems) }.zip(expected).map(made),
            };
            asked.extend(ask.map(|ask| (place, ask)));
        }
        (Some(node), None) => {
            let key = if produce.is_some() {
                "produce"
            } else {
                "create"
            };
            problems
                .error(&node.place, format!("`{key}` without `expect`"))
                .help("add `expect: {accepted: true}` or `expect: {rejected: topicRules}`");
        }
        (None, Some(wanted)) => {
            problems.error(&wanted.place, "`expect` without `produce` or `create`");
        }
        (None, None) if list.is_none() && !misspelt => {
            problems.error(&node.place, "a test without `cases`, `produce` or `create`");
        }
        (None, None) => {}
    }
    let (Some(test), Some((principal, host))) = (name, subject) else {
        return;
    };
    for (place, ask) in asked {
        let (test, principal) = (test.clone(), principal.clone());
        cases.push(Case {
            test,
            place,
            principal,
            host,
            ask,
        });
    }
}

fn produced((sent, wanted): (Sent, Wanted)) -> Ask {
    Ask::Produce(sent, wanted)
}

fn made((made, wanted): (Made, Wanted)) -> Ask {
    Ask::Create(made, wanted)
}

fn who(node: &Node, problems: &mut Problems) -> Option<(Principal, IpAddr)> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.require("principal", problems);
    let tenant = fields.take("tenant");
    let host = fields.take("host");
    let groups = fields.take("groups");
    fields.finish(problems);
    let tenant = match tenant {
        Some(node) => node.name(problems)?,
        None => "",
    };
    let groups = match groups {
        Some(node) => node.names(problems)?,
        None => Vec::new(),
    };
    let host = match host {
        None => Some(policies::DEFAULT_HOST),
        Some(node) => {
            let address = node.text(problems).and_then(|text| text.parse().ok());
            if address.is_none() {
                node.expected("an address such as `10.0.0.1`", problems);
            }
            address
        }
    };
    let node = name?;
    match policies::principal(node.name(problems)?, tenant, &groups) {
        Ok(principal) => Some((principal, host?)),
        Err(message) => {
            problems.error(&node.place, message);
            None
        }
    }
}

/// The keys that name a resource.
const RESOURCES: [(&str, ResourceKind); 5] = [
    ("topic", ResourceKind::Topic),
    ("consumerGroup", ResourceKind::Group),
    ("transactionalId", ResourceKind::TransactionalId),
    ("delegationToken", ResourceKind::DelegationToken),
    ("user", ResourceKind::User),
];

fn case(node: &Node, problems: &mut Problems) -> Option<Ask> {
    let mut fields = Fields::of(node, problems)?;
    let can = fields.take("can");
    let cannot = fields.take("cannot");
    let mut named = Vec::new();
    for (key, kind) in RESOURCES {
        named.extend(fields.take(key).map(|node| (kind, node)));
    }
    if let Some(cluster) = fields.take("cluster") {
        named.push((ResourceKind::Cluster, cluster));
    }
    let before = problems.list.len();
    fields.finish(problems);
    let misspelt = problems.list.len() > before;
    let (operation, wanted) = match (can, cannot) {
        (Some(operation), None) => (operation, true),
        (None, Some(operation)) => (operation, false),
        _ if misspelt => return None,
        _ => {
            problems.error(&node.place, "expected either `can` or `cannot`");
            return None;
        }
    };
    let [(kind, resource)] = named[..] else {
        if !misspelt {
            let message = "expected one of `topic`, `consumerGroup`, `transactionalId`, `cluster`";
            problems
                .error(&node.place, message)
                .help("one resource a case; write a case for each");
        }
        return None;
    };
    let name = match kind {
        ResourceKind::Cluster => {
            if resource.boolean(problems)? {
                CLUSTER_NAME
            } else {
                problems.error(&resource.place, "expected `cluster: true`, got `false`");
                return None;
            }
        }
        _ => resource.name(problems)?,
    };
    let text = operation.text(problems)?;
    let Some(found) = Operation::named(text) else {
        let problem = problems.error(&operation.place, format!("unknown operation `{text}`"));
        if let Some(near) = did_you_mean(text, Operation::EVERY.iter().map(|o| o.name())) {
            problem.help(format!("did you mean `{near}`?"));
        }
        return None;
    };
    if !kind.knows(found) {
        let message = format!("`{text}` has no meaning for {} resources", kind.name());
        problems
            .warning(&operation.place, message)
            .help("Kafka never asks for it, so the case says nothing");
    }
    Some(Ask::May {
        operation: found,
        kind,
        name: name.to_owned(),
        wanted,
    })
}

fn record(node: &Node, problems: &mut Problems) -> Option<Sent> {
    let mut fields = Fields::of(node, problems)?;
    let topic = fields.require("topic", problems);
    let acks = fields.take("acks");
    let idempotent = fields.take("idempotent");
    let compression = fields.take("compression");
    let headers = fields.take("headers");
    let key = fields.take("key");
    let json = fields.take("json");
    fields.finish(problems);
    let acks = acks.map_or(Some(ACKS_ALL), |n| acknowledgements(n, problems));
    let idempotent = idempotent.map_or(Some(true), |n| n.boolean(problems));
    let codecs = Codec::EVERY.map(|codec| (codec.name(), Some(codec)));
    let compression = compression.map_or(Some(Codec::None), |n| n.choice(&codecs, problems));
    let value = json.map(|n| n.json(problems));
    let key = key.map(|n| n.json(problems));
    let mut pairs = Vec::new();
    if let Some(node) = headers {
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    let text = match entry.value.is_nothing() {
                        true => None,
                        false => Some(entry.value.text(problems)?.to_owned()),
                    };
                    pairs.push((entry.key.clone(), text));
                }
            }
            _ => node.expected("a mapping of headers", problems),
        }
    }
    Some(Sent {
        topic: topic?.name(problems)?.to_owned(),
        acks: acks?,
        idempotent: idempotent?,
        compression: compression?,
        headers: pairs,
        key: flat(key)?,
        value: flat(value)?,
    })
}

/// `all`, `1` or `0`, as producers call them.
fn acknowledgements(node: &Node, problems: &mut Problems) -> Option<i64> {
    match node.shown() {
        Some("all" | "-1") => Some(ACKS_ALL),
        Some("1") => Some(1),
        Some("0") => Some(0),
        _ => {
            node.expected("`all`, `1` or `0`", problems);
            None
        }
    }
}

/// What producers do unless they are told otherwise.
const ACKS_ALL: i64 = -1;

/// A payload that was not given, or is null, is Kafka's null; one that cannot be read is none.
fn flat(given: Option<Option<Json>>) -> Option<Option<Json>> {
    match given {
        None => Some(None),
        Some(None) => None,
        Some(Some(json)) => Some(Some(json).filter(|json| !json.is_null())),
    }
}

/// `expect` of a record, or of a topic.
fn expected(node: &Node, of_record: bool, problems: &mut Problems) -> Option<Wanted> {
    let mut fields = Fields::of(node, problems)?;
    let accepted = fields.take("accepted");
    let rejected = fields.take("rejected");
    let before = problems.list.len();
    fields.finish(problems);
    match (accepted, rejected) {
        (Some(accepted), None) => {
            if accepted.boolean(problems)? {
                return Some(Wanted::Accepted);
            }
            problems
                .error(&accepted.place, "expected `accepted: true`, got `false`")
                .help("write `rejected` and what should reject it");
            None
        }
        (None, Some(rejected)) => {
            let words = [
                ("authorization", Some(Stage::Authorization)),
                ("topicRules", Some(Stage::TopicRules)),
                ("headers", None),
                ("key", Some(Stage::Key)),
                ("value", Some(Stage::Value)),
            ];
            let words = if of_record { &words[..] } else { &words[..2] };
            rejected.choice(words, problems).map(Wanted::Rejected)
        }
        _ => {
            if problems.list.len() == before {
                problems.error(&node.place, "expected either `accepted` or `rejected`");
            }
            None
        }
    }
}
