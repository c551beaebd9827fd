//! The deliberate differences between a broker and Kordon with the same rules, each with its
//! reason. Whatever differs otherwise is a defect.

use crate::compare::Difference;

/// Where Kordon answers otherwise than a broker with the same rules.
struct Accepted {
    key: i16,
    /// The ways of asking; empty: all.
    words: &'static [&'static str],
    /// The path of the field, or its beginning.
    path: &'static str,
    /// What the broker and Kordon say there; empty: anything.
    values: (&'static str, &'static str),
    why: &'static str,
}

const fn row(
    key: i16,
    words: &'static [&'static str],
    path: &'static str,
    values: (&'static str, &'static str),
    why: &'static str,
) -> Accepted {
    Accepted {
        key,
        words,
        path,
        values,
        why,
    }
}

/// What creating and deleting an ACL is answered.
const FILES: &str = "\"ACLs are policy files of the proxy: change those in `policies/`\"";

const ACLS: &str = "ACLs are policy files, which Kafka's API does not change";
const TOKENS: &str = "a delegation token would carry the proxy's power: 61 (threat 40)";

const CONTROL: &str = "control batches are refused before the broker is asked (threat 22)";
const INTERNAL: &str = "an internal topic is refused before anybody looks at the rest";
const EMPTY: &str = "a broker fails on an empty name";
const ID_TOLD: &str = "a broker tells the id of a topic that may not be read";
const SHARE_FETCH: &str = "a broker fails with -1 on an unknown topic id; here it answers 100";
const ADDRESSES: &str = "settings that hold the brokers' addresses are hidden";
const SHARE: &str = "coordinators of share groups' state are looked up by brokers alone";
const MARKERS: &str = "ClusterAction is the brokers' own: an admin who aborts needs Alter";
const IDS: &str = "the text holds the id of a topic, which is each broker's own";
const NAMES: &str = "what is wrong with a topic's name is told by its code";
const CONNECTION: &str = "a share session is honoured on the connection that began it (threat 8)";
const NO_SESSION: &str = "a fetch session of refused topics alone is not begun";
const OWN: &str = "a broker looks at values of its own settings before it asks for permission";

const PEER: &str = "the broker sees the proxy's address, not the client's";

const SAID: &str = "the text of the code, where a broker has none";

/// The deliberate differences.
const ACCEPTED: &[Accepted] = &[
    // Whether a broker would make it or calls it senseless.
    row(30, &[], "Results.ErrorCode", ("", "44"), ACLS),
    row(31, &[], "FilterResults.ErrorCode", ("", "44"), ACLS),
    row(1, &[], "SessionId", ("1", "0"), NO_SESSION),
    row(33, &["broker"], "Responses.ErrorCode", ("", "31"), OWN),
    row(44, &["broker"], "Responses.ErrorCode", ("", "31"), OWN),
    row(33, &["broker"], "Responses.ErrorMessage", ("", ""), OWN),
    row(44, &["broker"], "Responses.ErrorMessage", ("", ""), OWN),
    row(
        61,
        &[],
        "Topics.Partitions.ErrorMessage",
        ("", "null"),
        NAMES,
    ),
    row(88, &[], "ErrorMessage", ("", "null"), NAMES),
    row(91, &[], "ErrorMessage", ("", ""), IDS),
    row(31, &[], "FilterResults.MatchingAcls", ("", "[]"), ACLS),
    row(30, &[], "Results.ErrorMessage", ("", FILES), ACLS),
    row(31, &[], "FilterResults.ErrorMessage", ("", FILES), ACLS),
    row(
        27,
        &[],
        "Markers.Topics.Partitions.ErrorCode",
        ("3", "31"),
        MARKERS,
    ),
    row(27, &[], "Markers", ("[]", ""), MARKERS),
    row(38, &[], "", ("", ""), TOKENS),
    row(39, &[], "", ("", ""), TOKENS),
    row(40, &[], "", ("", ""), TOKENS),
    row(41, &[], "", ("", ""), TOKENS),
    row(15, &[], "Groups.Members.ClientHost", ("", ""), PEER),
    row(69, &[], "Groups.Members.ClientHost", ("", ""), PEER),
    row(77, &[], "Groups.Members.ClientHost", ("", ""), PEER),
    row(89, &[], "Groups.Members.ClientHost", ("", ""), PEER),
    row(75, &[], "Topics.ErrorCode", ("-1", "29"), EMPTY),
    row(0, &["control"], "", ("", ""), CONTROL),
    row(
        0,
        &[],
        "Responses.PartitionResponses.ErrorCode",
        ("", "17"),
        INTERNAL,
    ),
    row(10, &["kind"], "Coordinators.ErrorCode", ("", "31"), SHARE),
    row(10, &["kind"], "Coordinators.Host", ("", "\"\""), SHARE),
    row(10, &["kind"], "Coordinators.NodeId", ("1", "-1"), SHARE),
    row(10, &["kind"], "Coordinators.Port", ("", "-1"), SHARE),
    row(10, &[], "Coordinators.ErrorMessage", ("\"\"", ""), SAID),
    row(44, &["kind"], "Responses.ErrorMessage", ("null", ""), SAID),
    row(90, &[], "Groups.ErrorMessage", ("null", ""), SAID),
    row(91, &[], "Responses.TopicId", ("", ""), ID_TOLD),
    row(78, &[], "ErrorCode", ("0", "122"), CONNECTION),
    row(79, &[], "ErrorCode", ("0", "122"), CONNECTION),
    row(78, &["missing", "two", "every"], "", ("", ""), SHARE_FETCH),
    row(
        32,
        &["kind"],
        "Results.Configs.Value",
        ("", "null"),
        ADDRESSES,
    ),
    row(
        32,
        &["kind"],
        "Results.Configs.IsSensitive",
        ("0", "1"),
        ADDRESSES,
    ),
    row(
        32,
        &["kind"],
        "Results.Configs.Synonyms",
        ("", ""),
        ADDRESSES,
    ),
];

/// Why two answers may differ so; `words`: what is special about the request.
pub fn excuse(key: i16, words: &[&str], difference: &Difference) -> Option<&'static str> {
    let says = |expected: &str, got: &str| expected.is_empty() || expected == got;
    let found = ACCEPTED.iter().find(|row| {
        row.key == key
            && (row.words.is_empty() || row.words.iter().any(|w| words.contains(w)))
            && difference.path.starts_with(row.path)
            && says(row.values.0, &difference.broker)
            && says(row.values.1, &difference.kordon)
    });
    if let Some(row) = found {
        return Some(row.why);
    }
    // Where a right on the cluster is missing, a broker prints its request, with addresses.
    let (broker, kordon) = (&difference.broker, &difference.kordon);
    (broker.starts_with("\"Request Request(") && kordon == "\"Cluster authorization failed.\"")
        .then_some("a broker's print of its request")
}
