//! A `TopicPolicy` document to its values. Collects every mistake; a document with a mistake
//! yields no policy.

use regex::bytes::RegexBuilder;

use super::spec::{Allowed, CreateSpec, NamePattern, ProduceSpec, Range, TopicSpec, Wanted};
use crate::document::scalar::Literal;
use crate::document::{Fields, Node, Value, did_you_mean};
use crate::policy::mode::Mode;
use crate::policy::parse::rule_ref;
use crate::policy::topic_pattern::topic_pattern;
use crate::problem::Problems;
use crate::wire::records::{BATCH_PLAIN_BYTES_MAX, Codec};

/// Longest pattern for names, characters.
pub const PATTERN_CHARS_MAX: usize = 1_000;
/// Most memory of a compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Most configurations that one policy rules.
pub const CONFIGS_MAX: usize = 100;
/// Most values of one configuration.
pub const VALUES_MAX: usize = 100;
/// Most partitions and most replicas that Kafka's messages can say.
const PARTITIONS_MAX: i64 = i32::MAX as i64;
const REPLICAS_MAX: i64 = i16::MAX as i64;

/// Reads the `spec` of a `TopicPolicy`. `None` if anything in it is wrong.
pub fn topic_policy(name: &str, spec: &Node, problems: &mut Problems) -> Option<TopicSpec> {
    let mut found = Problems::default();
    let policy = read(name, spec, &mut found);
    let sound = !found.has_errors();
    problems.list.append(&mut found.list);
    policy.filter(|_| sound)
}

fn read(name: &str, spec: &Node, problems: &mut Problems) -> Option<TopicSpec> {
    let mut fields = Fields::of(spec, problems)?;
    Mode::take(&mut fields, problems);
    let topics = fields.require("topics", problems);
    let create = fields.take("create");
    let produce = fields.take("produce");
    let misspelt = fields.misspelt("create") || fields.misspelt("produce");
    fields.finish(problems);
    let topics = topics.and_then(|n| n.list_not_empty(problems));
    let topics = (topics.unwrap_or_default().iter())
        .filter_map(|n| topic_pattern(n, "a topic policy", problems))
        .collect();
    if create.is_none() && produce.is_none() && !misspelt {
        problems.error(&spec.place, "a topic policy without `create` or `produce`");
    }
    Some(TopicSpec {
        name: name.to_owned(),
        topics,
        create: create.and_then(|n| create_spec(n, problems)),
        produce: produce.and_then(|n| produce_spec(n, problems)),
    })
}

fn create_spec(node: &Node, problems: &mut Problems) -> Option<CreateSpec> {
    let mut fields = Fields::of(node, problems)?;
    let name = fields.take("name");
    let partitions = fields.take("partitions");
    let replicas = fields.take("replicationFactor");
    let configs = fields.take("configs");
    let keys = ["name", "partitions", "replicationFactor", "configs"];
    let misspelt = keys.iter().any(|key| fields.misspelt(key));
    fields.finish(problems);
    let all = [name, partitions, replicas, configs];
    if all.iter().all(Option::is_none) && !misspelt {
        problems.error(&node.place, "`create` without a rule");
    }
    Some(CreateSpec {
        name: name.and_then(|n| wanted(n, name_pattern(n, problems))),
        partitions: partitions.and_then(|n| wanted(n, count(n, PARTITIONS_MAX, problems))),
        replication_factor: replicas.and_then(|n| wanted(n, count(n, REPLICAS_MAX, problems))),
        configs: configs.map_or_else(Vec::new, |n| configs_of(n, problems)),
    })
}

fn produce_spec(node: &Node, problems: &mut Problems) -> Option<ProduceSpec> {
    let mut fields = Fields::of(node, problems)?;
    let acks = fields.take("acks");
    let idempotent = fields.take("idempotent");
    let compression = fields.take("compression");
    let record_bytes = fields.take("maxRecordBytes");
    let keys = ["acks", "idempotent", "compression", "maxRecordBytes"];
    let misspelt = keys.iter().any(|key| fields.misspelt(key));
    fields.finish(problems);
    let all = [acks, idempotent, compression, record_bytes];
    if all.iter().all(Option::is_none) && !misspelt {
        problems.error(&node.place, "`produce` without a rule");
    }
    let acks = acks.and_then(|n| wanted(n, n.choice(&[("all", Some(()))], problems)));
    let idempotent = idempotent.and_then(|n| {
        if n.boolean(problems)? {
            return wanted(n, Some(()));
        }
        problems
            .error(&n.place, "expected `idempotent: true`, got `false`")
            .help("leave the key out");
        None
    });
    let sizes = 1..=BATCH_PLAIN_BYTES_MAX as u64;
    let record_bytes_max = record_bytes.and_then(|n| {
        let bytes = n.bytes(sizes, problems)?;
        wanted(n, usize::try_from(bytes).ok())
    });
    Some(ProduceSpec {
        acks_all: acks.map(|rule| rule.at),
        idempotent: idempotent.map(|rule| rule.at),
        compression: compression.and_then(|n| wanted(n, codecs(n, problems))),
        record_bytes_max,
    })
}

fn wanted<T>(node: &Node, value: Option<T>) -> Option<Wanted<T>> {
    let at = rule_ref(&node.place);
    value.map(|value| Wanted { at, value })
}

/// A pattern is about ASCII, as names of topics are, and means the whole name.
fn name_pattern(node: &Node, problems: &mut Problems) -> Option<NamePattern> {
    let written = node.name(problems)?;
    if written.chars().count() > PATTERN_CHARS_MAX {
        let message = format!("a pattern of more than {PATTERN_CHARS_MAX} characters");
        problems.error(&node.place, message);
        return None;
    }
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    // By itself first, since what is no pattern could become one between the others' brackets.
    let whole = compile(written).and_then(|_| compile(&format!(r"\A(?:{written})\z")));
    match whole {
        Ok(whole) => Some(NamePattern {
            written: written.to_owned(),
            whole,
        }),
        Err(error) => {
            // The first lines draw the pattern; the last one says what is wrong with it.
            let said = error.to_string();
            let said = said.lines().last().unwrap_or_default().trim();
            let said = said.trim_start_matches("error: ");
            let message = format!("the pattern `{written}` cannot be used: {said}");
            let problem = problems.error(&node.place, message);
            problem.help("patterns are regular expressions without look-around or back-references");
            None
        }
    }
}

/// A number of partitions or replicas, or a range of them.
fn count(node: &Node, most: i64, problems: &mut Problems) -> Option<Range> {
    let range = match node.literal(problems)? {
        Literal::Number(number) => Some(exactly(number)),
        Literal::Text(text) => range(&text),
        Literal::Boolean(_) => None,
    };
    let Some(range) = range else {
        node.expected(
            "a number or a range such as `6`, `1..24`, `..24` or `1..`",
            problems,
        );
        return None;
    };
    let known = |end: &Option<i64>| end.is_none_or(|end| (1..=most).contains(&end));
    if !known(&range.from) || !known(&range.to) {
        let message = format!("expected numbers from 1 to {most}, got `{range}`");
        problems.error(&node.place, message);
        return None;
    }
    not_empty(node, range, problems)
}

fn exactly(number: i64) -> Range {
    Range {
        from: Some(number),
        to: Some(number),
    }
}

/// `6`, `1..24`, `..24`, `1..`.
fn range(text: &str) -> Option<Range> {
    let number = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| plain)
    };
    let Some((from, to)) = text.split_once("..") else {
        return number(text).map(exactly);
    };
    let end = |text: &str| match text.is_empty() {
        true => Some(None),
        false => number(text).map(Some),
    };
    let (from, to) = (end(from)?, end(to)?);
    (from.is_some() || to.is_some()).then_some(Range { from, to })
}

fn not_empty(node: &Node, range: Range, problems: &mut Problems) -> Option<Range> {
    if range.to.is_none_or(|to| range.contains(to)) {
        return Some(range);
    }
    let message = format!("no number lies in the range `{range}`");
    let problem = problems.error(&node.place, message);
    match (range.from, range.to) {
        (Some(from), Some(to)) => problem.help(format!("did you mean `{to}..{from}`?")),
        _ => problem.help("a range without a begin starts at 0"),
    };
    None
}

fn codecs(node: &Node, problems: &mut Problems) -> Option<u8> {
    let words = Codec::EVERY.map(|codec| (codec.name(), Some(codec.bit())));
    let items = node.list_not_empty(problems)?;
    let bits = items.iter().filter_map(|n| n.choice(&words, problems));
    Some(bits.fold(0, |all, bit| all | bit))
}

/// The configurations of topics that Kafka 4.3 has; others' brokers have more.
const KNOWN_CONFIGS: [&str; 31] = [
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

fn configs_of(node: &Node, problems: &mut Problems) -> Vec<(String, Wanted<Vec<Allowed>>)> {
    let Value::Mapping(entries) = &node.value else {
        node.expected("a mapping of configurations", problems);
        return Vec::new();
    };
    if entries.is_empty() || entries.len() > CONFIGS_MAX {
        let (got, most) = (entries.len(), CONFIGS_MAX);
        let message = format!("expected 1 to {most} configurations, got {got}");
        problems.error(&node.place, message);
        return Vec::new();
    }
    let mut configs = Vec::new();
    for entry in entries {
        if entry.key.is_empty() {
            problems.error(&entry.place, "expected the name of a configuration");
        }
        if !KNOWN_CONFIGS.contains(&entry.key.as_str())
            && let Some(near) = did_you_mean(&entry.key, KNOWN_CONFIGS.into_iter())
        {
            let message = format!("Kafka has no topic configuration `{}`", entry.key);
            problems
                .warning(&entry.place, message)
                .help(format!("did you mean `{near}`?"));
        }
        let values = allowed(&entry.value, problems);
        configs.extend(wanted(&entry.value, values).map(|rule| (entry.key.clone(), rule)));
    }
    configs
}

/// A value, a range, or a list of such.
fn allowed(node: &Node, problems: &mut Problems) -> Option<Vec<Allowed>> {
    let Value::List(_) = &node.value else {
        return allowed_value(node, problems).map(|one| vec![one]);
    };
    let items = node.list_not_empty(problems)?;
    if items.len() > VALUES_MAX {
        let message = format!("more than {VALUES_MAX} values");
        problems.error(&node.place, message);
        return None;
    }
    let values = items.iter().filter_map(|n| allowed_value(n, problems));
    Some(values.collect())
}

fn allowed_value(node: &Node, problems: &mut Problems) -> Option<Allowed> {
    // Text, since a number such as 0.5 is one value for Kafka, and no range.
    let text = match &node.value {
        Value::Scalar(scalar) if !node.is_nothing() && !scalar.text.is_empty() => &scalar.text,
        _ => {
            node.expected("a value or a range such as `..86400000`", problems);
            return None;
        }
    };
    if text.contains("..") && range(text).is_none() {
        node.expected("a range such as `1..24`, `..24` or `1..`", problems);
        return None;
    }
    match range(text) {
        Some(range) => not_empty(node, range, problems).map(Allowed::Number),
        None => Some(match text.as_str() {
            text if text.eq_ignore_ascii_case("true") => Allowed::Boolean(true),
            text if text.eq_ignore_ascii_case("false") => Allowed::Boolean(false),
            text => Allowed::Text(text.to_owned()),
        }),
    }
}
