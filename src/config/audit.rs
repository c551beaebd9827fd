//! `audit`: where audit lines go, which allowed decisions are among them, and the key of their
//! chain.

use std::ops::RangeInclusive;

use super::Upstream;
use super::outside;
use super::read::Paths;
use crate::document::{Fields, Node};
use crate::problem::Problems;
use crate::telemetry::audit::allows::Allows;
use crate::telemetry::audit::{AuditFile, AuditSettings, AuditSink, Rotation};
use crate::upstream::sasl::Settings;

/// How large a file may be before it is full; less would be a file for every few lines.
const MAX_BYTES: RangeInclusive<u64> = 64 * 1024..=1 << 40;
/// Kafka's bound on names of topics.
const TOPIC_BYTES_MAX: usize = 249;
const KEEP: RangeInclusive<u64> = 1..=1000;
/// How many full files are kept where nothing is said.
const KEEP_DEFAULT: u32 = 10;

/// Reads `audit`.
pub(super) fn read(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<AuditSettings> {
    if !node.is_mapping() {
        let words = [("stdout", Some(AuditSink::Stdout))];
        let sink = node.choice(&words, problems)?;
        return Some(AuditSettings {
            sink,
            ..AuditSettings::default()
        });
    }
    let mut fields = Fields::of(node, problems)?;
    let stdout = fields.take("stdout");
    let file = fields.take("file");
    let topic = fields.take("topic");
    let allows = fields.take("allows");
    let key = fields.take("key");
    fields.finish(problems);
    let allows = match allows {
        Some(node) => read_allows(node, problems),
        None => Some(Allows::None),
    };
    let key = match key {
        Some(node) => outside::secret(node, paths, problems).map(Some),
        None => Some(None),
    };
    let sink = match (stdout, file, topic) {
        (Some(options), None, None) => {
            Fields::of(options, problems)?.finish(problems);
            AuditSink::Stdout
        }
        (None, Some(file), None) => AuditSink::File(read_file(file, paths, problems)?),
        (None, None, Some(topic)) => AuditSink::Topic(read_topic(topic, problems)?),
        _ => {
            problems.error(&node.place, "expected one of `stdout`, `file` and `topic`");
            return None;
        }
    };
    Some(AuditSettings {
        sink,
        allows: allows?,
        key: key?,
    })
}

/// Kafka's rule for names of topics.
fn read_topic(node: &Node, problems: &mut Problems) -> Option<String> {
    let name = node.name(problems)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let is_legal = (1..=TOPIC_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal);
    if is_legal && name != "." && name != ".." {
        return Some(name.to_owned());
    }
    node.expected("the name of a topic, such as `audit.events`", problems);
    None
}

/// Lines for a topic go under the proxy's own name: clients' tokens speak for clients.
pub(super) fn check_forward(
    node: Option<&Node>,
    audit: Option<&AuditSettings>,
    upstream: Option<&Upstream>,
    problems: &mut Problems,
) {
    let to_topic = audit.is_some_and(|audit| matches!(audit.sink, AuditSink::Topic(_)));
    let forwards = upstream.is_some_and(|u| matches!(u.sasl, Some(Settings::Forward)));
    if let (Some(node), true, true) = (node, to_topic, forwards) {
        let message = "`audit.topic` needs credentials of the proxy's own, but \
                       `upstream.sasl.forward` has only those of clients";
        problems.error(&node.place, message).help(
            "give `upstream.sasl` credentials, and `forward` to listeners in `upstream.identities`",
        );
    }
}

fn read_file(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<AuditFile> {
    let mut fields = Fields::of(node, problems)?;
    let path = fields.require("path", problems);
    let max_bytes = fields.take("maxBytes");
    let keep = fields.take("keep");
    fields.finish(problems);
    let rotation = match (max_bytes, keep) {
        (None, None) => None,
        (None, Some(keep)) => {
            problems
                .error(&keep.place, "`keep` without `maxBytes`")
                .help("for example `maxBytes: 100MiB`: a file that is never full is never kept");
            return None;
        }
        (Some(max_bytes), keep) => {
            let max_bytes = max_bytes.bytes(MAX_BYTES, problems);
            let keep = match keep {
                Some(keep) => keep.number(KEEP, problems),
                None => Some(KEEP_DEFAULT.into()),
            };
            Some(Rotation {
                max_bytes: max_bytes?,
                keep: keep?.try_into().ok()?,
            })
        }
    };
    let path = paths.output(path?, problems)?;
    Some(AuditFile { path, rotation })
}

fn read_allows(node: &Node, problems: &mut Problems) -> Option<Allows> {
    if !node.is_mapping() {
        let words = [
            ("none", Some(Allows::None)),
            ("counted", Some(Allows::Counted)),
            ("all", Some(Allows::All)),
        ];
        return node.choice(&words, problems);
    }
    let mut fields = Fields::of(node, problems)?;
    let sample = fields.require("sample", problems);
    fields.finish(problems);
    let sample = sample?;
    let share = sample.shown().and_then(|text| text.parse::<f64>().ok());
    match share {
        Some(share) if share > 0.0 && share <= 1.0 => Some(Allows::Sample(share)),
        _ => {
            sample.expected("a share above 0 and up to 1, such as `0.01`", problems);
            None
        }
    }
}
