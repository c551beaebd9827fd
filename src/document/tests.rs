//! The reader as its users see it: positions, mistakes, bounds.

use std::time::Duration;

use super::*;
use crate::problem::Problems;

fn documents(text: &str) -> (Vec<Node>, Problems) {
    let mut problems = Problems::default();
    let documents = parse(&"f.yaml".into(), text, &mut problems);
    (documents, problems)
}

fn messages(problems: &Problems) -> Vec<String> {
    let shown = |p: &crate::problem::Problem| {
        let place = p
            .place
            .as_ref()
            .map(|p| format!("{}:{} ", p.line, p.column));
        let help = p.help.as_ref().map(|h| format!(" | {h}"));
        format!(
            "{}{}{}",
            place.unwrap_or_default(),
            p.message,
            help.unwrap_or_default()
        )
    };
    problems.list.iter().map(shown).collect()
}

/// The one value of a document that is just that value.
fn value(text: &str) -> Node {
    let (mut documents, problems) = documents(text);
    assert!(problems.list.is_empty(), "{problems:?}");
    documents.remove(0)
}

#[test]
fn documents_come_with_places_and_empty_ones_are_left_out() {
    let (documents, problems) = documents("---\n# nothing\n---\na: 1\n---\n\n- é: [x,\n   yy]\n");
    assert!(problems.list.is_empty());
    assert_eq!(documents.len(), 2);
    let Value::List(items) = &documents[1].value else {
        panic!()
    };
    let Value::Mapping(entries) = &items[0].value else {
        panic!()
    };
    assert_eq!((entries[0].place.line, entries[0].place.column), (7, 3));
    let Value::List(inner) = &entries[0].value.value else {
        panic!()
    };
    // Columns count characters, not bytes.
    assert_eq!((inner[0].place.line, inner[0].place.column), (7, 7));
    assert_eq!((inner[1].place.line, inner[1].place.column), (8, 4));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let (documents, problems) = documents("\u{feff}a: b\r\nc: d\r\n");
    assert!(problems.list.is_empty(), "{problems:?}");
    let Value::Mapping(entries) = &documents[0].value else {
        panic!()
    };
    assert_eq!(entries[0].key, "a");
    assert_eq!(entries[1].place.line, 2);
    assert_eq!(entries[1].value.shown(), Some("d"));
}

#[test]
fn a_syntax_error_keeps_what_came_before() {
    let (documents, problems) = documents("a: 1\n---\nb: [1\n");
    assert_eq!(documents.len(), 1);
    assert_eq!(problems.list.len(), 1);
    assert!(
        problems.list[0].message.starts_with("not YAML: "),
        "{problems:?}"
    );
    let (_, star) = self::documents("topics: [*]");
    assert_eq!(
        star.list[0].help.as_deref(),
        Some("a star at the beginning needs quotes: `\"*\"`")
    );
}

#[test]
fn what_could_surprise_is_refused() {
    let cases = [
        (
            "a: 1\nb: 2\na: 3",
            "3:1 duplicate key `a` | the first one is on line 1",
        ),
        (
            "a: &x [1]\nb: *x",
            "2:4 aliases are not supported | write the value out where it is used",
        ),
        ("a: !secret x", "1:4 tags are not supported"),
        (
            "[a]: 1",
            "1:1 expected text as a key, got a list or mapping",
        ),
    ];
    for (text, want) in cases {
        let (_, problems) = documents(text);
        assert!(
            messages(&problems).iter().any(|m| m == want),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn nesting_and_size_are_bounded() {
    for (open, depth) in [("[", 1000), ("{a: ", 1000), ("[", 100_000), ("- ", 10_000)] {
        let (documents, problems) = documents(&open.repeat(depth));
        assert!(documents.is_empty());
        assert!(problems.has_errors());
    }
    let (_, deep) = documents(&format!("{}{}", "[".repeat(33), "]".repeat(33)));
    assert_eq!(messages(&deep), ["1:33 nested deeper than 32 levels"]);
    let (ok, fine) = documents(&format!("{}x{}", "[".repeat(32), "]".repeat(32)));
    assert!(ok.len() == 1 && fine.list.is_empty());
    let (_, many) = documents(&format!("[{}]", "a,".repeat(NODES_MAX)));
    assert!(messages(&many)[0].contains("more than 200000 values"));
    // An alias bomb never unfolds.
    let bomb: String = (1..40)
        .map(|i| format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1))
        .collect();
    let (_, problems) = documents(&format!("a0: &a0 x\n{bomb}"));
    assert!(problems.has_errors());
}

#[test]
fn fields_report_unknown_missing_and_misspelt_keys() {
    let node = value("hosts: [1]\nprincpals: x\nzzz: 1");
    let mut problems = Problems::default();
    let mut fields = Fields::of(&node, &mut problems).unwrap();
    assert!(fields.require("principals", &mut problems).is_none());
    assert!(fields.require("rules", &mut problems).is_none());
    assert!(fields.take("hosts").is_some());
    fields.finish(&mut problems);
    assert_eq!(
        messages(&problems),
        [
            "1:1 missing key `rules`",
            "2:1 unknown key `princpals` | did you mean `principals`?",
            "3:1 unknown key `zzz` | expected one of `principals`, `rules`, `hosts`",
        ]
    );
}

#[test]
fn scalars_are_read_or_refused() {
    let mut problems = Problems::default();
    let p = &mut problems;
    assert_eq!(value("30s").duration(p), Some(Duration::from_secs(30)));
    assert_eq!(value("500ms").duration(p), Some(Duration::from_millis(500)));
    assert_eq!(value("1h").duration(p), Some(Duration::from_secs(3600)));
    assert_eq!(value("512KiB").bytes(0..=u64::MAX, p), Some(512 * 1024));
    assert_eq!(value("100MiB").bytes(0..=u64::MAX, p), Some(100 << 20));
    assert_eq!(value("4096").bytes(0..=u64::MAX, p), Some(4096));
    assert_eq!(value("10MiB/s").bytes_per_second(p), Some(10 << 20));
    assert_eq!(value("500/s").per_second(p), Some(500));
    assert_eq!(
        value("a-b.c:9093").host_port(p),
        Some(("a-b.c".to_owned(), 9093))
    );
    assert_eq!(
        value("\"[::1]:9093\"").host_port(p),
        Some(("::1".to_owned(), 9093))
    );
    assert_eq!(value("19092-19191").port_range(p), Some(19092..=19191));
    assert_eq!(
        value("127.0.0.1:9092").socket_addr(p),
        Some(([127, 0, 0, 1], 9092).into())
    );
    assert_eq!(value("true").boolean(p), Some(true));
    assert_eq!(value("64").number(1..=100, p), Some(64));
    assert_eq!(value("\"5\"").text(p), Some("5"));
    assert!(value("off").is_off() && value("false").is_off() && value("\"off\"").is_off());
    assert!(!value("\"false\"").is_off() && !value("on").is_off());
    assert!(problems.list.is_empty(), "{problems:?}");
}

/// A reader that must refuse.
type Refuses = dyn Fn(&Node, &mut Problems) -> bool;

#[test]
fn scalars_that_are_not_what_was_expected() {
    let cases: [(&str, &Refuses, &str); 21] = [
        (
            "30",
            &|n, p| n.duration(p).is_none(),
            "expected a duration such as `30s` or `1h`, got the number `30`",
        ),
        (
            "99999999999999999999s",
            &|n, p| n.duration(p).is_none(),
            "expected a duration such as `30s` or `1h`, got `99999999999999999999s`",
        ),
        (
            "18446744073709551615d",
            &|n, p| n.duration(p).is_none(),
            "expected a duration such as `30s` or `1h`, got `18446744073709551615d`",
        ),
        (
            "5KB",
            &|n, p| n.bytes(0..=9, p).is_none(),
            "expected a size such as `512KiB` or a number of bytes, got `5KB`",
        ),
        (
            "17179869184TiB",
            &|n, p| n.bytes(0..=9, p).is_none(),
            "expected a size such as `512KiB` or a number of bytes, got `17179869184TiB`",
        ),
        (
            "10",
            &|n, p| n.bytes(0..=9, p).is_none(),
            "expected a size from 0 to 9 bytes, got the number `10`",
        ),
        (
            "10MiB",
            &|n, p| n.bytes_per_second(p).is_none(),
            "expected a rate such as `10MiB/s`, got `10MiB`",
        ),
        (
            "0/s",
            &|n, p| n.per_second(p).is_none(),
            "expected a rate such as `500/s`, got `0/s`",
        ),
        (
            "kafka",
            &|n, p| n.host_port(p).is_none(),
            "expected `host:port`, got `kafka`",
        ),
        (
            "kafka:0",
            &|n, p| n.host_port(p).is_none(),
            "expected `host:port`, got `kafka:0`",
        ),
        (
            "kafka:65536",
            &|n, p| n.host_port(p).is_none(),
            "expected `host:port`, got `kafka:65536`",
        ),
        (
            "http://kafka:9092",
            &|n, p| n.host_port(p).is_none(),
            "expected `host:port`, got `http://kafka:9092`",
        ),
        (
            "2-1",
            &|n, p| n.port_range(p).is_none(),
            "expected ports such as `19092-19191`, got `2-1`",
        ),
        (
            "0-1",
            &|n, p| n.port_range(p).is_none(),
            "expected ports such as `19092-19191`, got `0-1`",
        ),
        (
            "localhost:1",
            &|n, p| n.socket_addr(p).is_none(),
            "expected an IP address and port such as `127.0.0.1:9092`, got `localhost:1`",
        ),
        (
            "\"true\"",
            &|n, p| n.boolean(p).is_none(),
            "expected `true` or `false`, got the text `\"true\"`",
        ),
        (
            "\"5\"",
            &|n, p| n.number(1..=9, p).is_none(),
            "expected a number from 1 to 9, got the text `\"5\"`",
        ),
        (
            "-5",
            &|n, p| n.number(1..=9, p).is_none(),
            "expected a number from 1 to 9, got the number `-5`",
        ),
        (
            "{a: b}",
            &|n, p| n.text(p).is_none(),
            "expected text, got a mapping",
        ),
        (
            "a: ",
            &|n, p| {
                Fields::of(n, p)
                    .unwrap()
                    .take("a")
                    .unwrap()
                    .list(p)
                    .is_none()
            },
            "expected a list, got nothing",
        ),
        (
            "\"a\\u0007\"",
            &|n, p| n.name(p).is_none(),
            "a name holds no control characters",
        ),
    ];
    for (text, read, want) in cases {
        let mut problems = Problems::default();
        assert!(read(&value(text), &mut problems), "{text}");
        assert_eq!(problems.list[0].message, want);
    }
}

#[test]
fn numbers_that_are_text_elsewhere_are_not_text() {
    for number in [
        "1", "-1", "+1", "1.5", ".5", "1e3", "0x1F", "0o17", ".inf", "-.inf", ".nan",
    ] {
        let mut problems = Problems::default();
        assert!(value(number).text(&mut problems).is_none(), "{number}");
    }
    for text in [
        "a", "1a", "1.2.3", "e5", "off", "yes", "0x", "inf", "nan", "10.0.0.1",
    ] {
        let mut problems = Problems::default();
        assert_eq!(value(text).text(&mut problems), Some(text));
    }
}

#[test]
fn variables_of_the_environment_are_substituted() {
    let lookup = |name: &str| match name {
        "HOST" => Some("kafka-0".to_owned()),
        "PORT" => Some("9093".to_owned()),
        _ => None,
    };
    let mut problems = Problems::default();
    let mut node = value("b: \"${HOST}:${PORT}\"\np: ${PORT}\nk: a-${HOST}-b\n\"${HOST}\": x");
    substitute(&mut node, &lookup, &mut problems);
    let mut fields = Fields::of(&node, &mut problems).unwrap();
    let p = &mut problems;
    assert_eq!(
        fields.take("b").unwrap().host_port(p),
        Some(("kafka-0".to_owned(), 9093))
    );
    // Text or number, as it is needed.
    let port = fields.take("p").unwrap();
    assert_eq!(
        (port.number(1..=65535, p), port.text(p)),
        (Some(9093), Some("9093"))
    );
    assert_eq!(fields.take("k").unwrap().text(p), Some("a-kafka-0-b"));
    // Keys stay.
    assert!(fields.take("${HOST}").is_some());
    assert!(problems.list.is_empty());
}

#[test]
fn a_variable_that_is_missing_is_an_error_and_its_value_never_shows() {
    let lookup = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    let mut problems = Problems::default();
    let mut node = value("[\"${NOPE}\", \"${SECRET}\", \"${open\", \"${}\", \"$PLAIN\"]");
    substitute(&mut node, &lookup, &mut problems);
    for item in node.list(&mut problems).unwrap().to_vec() {
        item.host_port(&mut problems);
    }
    assert_eq!(
        messages(&problems),
        [
            "1:2 environment variable `NOPE` is not set",
            "1:26 `${` without `}`",
            "1:36 expected a name of a variable between `${` and `}`",
            "1:13 expected `host:port`, got `${SECRET}`",
            "1:43 expected `host:port`, got `$PLAIN`",
        ]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}:,&*!|>'\"%@`#\\-? \\na-c$\\t0-9é]{0,60}") {
        let mut problems = Problems::default();
        for mut node in parse(&"f.yaml".into(), &text, &mut problems) {
            substitute(&mut node, &|_| None, &mut problems);
            if let Some(fields) = Fields::of(&node, &mut problems) {
                fields.finish(&mut problems);
            }
        }
    }
}
