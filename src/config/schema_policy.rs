//! A `SchemaPolicy` document: what records of which topics must be.

use crate::document::{Fields, Node};
use crate::policy::mode::Mode;
use crate::policy::parse::rule_ref;
use crate::policy::topic_pattern::topic_pattern;
use crate::problem::Problems;
use crate::schema::spec::{Depth, Format, OnViolation, PayloadSpec, SchemaSpec, SubjectName};

/// Reads the `spec` of a `SchemaPolicy`.
pub(super) fn schema(name: &str, spec: &Node, problems: &mut Problems) -> Option<SchemaSpec> {
    let mut fields = Fields::of(spec, problems)?;
    let mode = Mode::take(&mut fields, problems);
    let topics = fields.require("topics", problems);
    let value = fields.take("value");
    let key = fields.take("key");
    let headers = fields.take("headers").is_some();
    fields.refuse("headers", problems);
    let violation = fields.take("onViolation");
    fields.refuse("onRegistryDown", problems);
    fields.finish(problems);

    let topics = topics
        .and_then(|n| n.list_not_empty(problems))
        .unwrap_or_default();
    let topics = (topics.iter())
        .filter_map(|n| topic_pattern(n, "a schema policy", problems))
        .collect();
    if value.is_none() && key.is_none() && !headers {
        problems.error(&spec.place, "a schema policy without `value` or `key`");
    }
    let reject = OnViolation::Reject;
    let on_violation = violation.map_or(Some(reject), |node| {
        let words = [
            ("reject", Some(reject)),
            ("warn", Some(OnViolation::Warn)),
            ("deadLetter", None),
        ];
        node.choice(&words, problems)
    });
    Some(SchemaSpec {
        name: name.to_owned(),
        rule: rule_ref(&spec.place),
        topics,
        value: value.and_then(|n| payload(n, problems)),
        key: key.and_then(|n| payload(n, problems)),
        on_violation: match (on_violation?, mode) {
            (OnViolation::Reject, Mode::Observe) => OnViolation::Observe,
            (as_said, _) => as_said,
        },
    })
}

fn payload(node: &Node, problems: &mut Problems) -> Option<PayloadSpec> {
    let mut fields = Fields::of(node, problems)?;
    let format = fields.require("format", problems);
    let encoding = fields.take("encoding");
    let subject = fields.take("subject");
    let check = fields.take("check");
    let empty = fields.take("empty");
    if let Some(framing) = fields.take("framing") {
        let words = [("prefix", Some(())), ("header", None), ("either", None)];
        framing.choice(&words, problems);
    }
    fields.refuse("at", problems);
    fields.finish(problems);
    let format = format.and_then(|n| {
        let words = [
            ("avro", Some(Format::Avro)),
            ("protobuf", None),
            ("json", None),
        ];
        n.choice(&words, problems)
    });
    if let Some(encoding) = encoding {
        encoding.choice(&[("confluent", Some(())), ("json", None)], problems);
    }
    let subject = subject.map_or(Some(SubjectName::Topic), |n| subject_name(n, problems));
    let check = check.map_or(Some(Depth::Full), |n| {
        n.choice(
            &[("id", Some(Depth::Id)), ("full", Some(Depth::Full))],
            problems,
        )
    });
    let empty_allowed = empty.map_or(Some(true), |n| {
        n.choice(&[("allow", Some(true)), ("reject", Some(false))], problems)
    });
    Some(PayloadSpec {
        format: format?,
        subject: subject?,
        check: check?,
        empty_allowed: empty_allowed?,
    })
}

fn subject_name(node: &Node, problems: &mut Problems) -> Option<SubjectName> {
    if !node.is_mapping() {
        let words = [
            ("topic", Some(SubjectName::Topic)),
            ("record", Some(SubjectName::Record)),
            ("topicRecord", Some(SubjectName::TopicRecord)),
        ];
        return node.choice(&words, problems);
    }
    let mut fields = Fields::of(node, problems)?;
    fields.refuse("pointer", problems);
    let pointer = fields.take("pointer").is_some();
    let name = if pointer {
        fields.take("name")
    } else {
        fields.require("name", problems)
    };
    fields.finish(problems);
    Some(SubjectName::Fixed(name?.name(problems)?.to_owned()))
}
