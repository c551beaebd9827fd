//! Typed readers: a node to text, a number, a duration, a size, a rate, an address. Each reports
//! what it got and what it expected, and answers `None`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::did_you_mean;
use super::tree::{Node, Scalar, Style, Value};
use super::unsupported;
use crate::problem::Problems;

/// What a plain scalar is by YAML's core schema (YAML 1.2.2, 10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Boolean,
    Number,
    Text,
}

/// A scalar with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A boolean.
    Boolean(bool),
}

impl Scalar {
    pub(super) fn kind(&self) -> Kind {
        if self.style != Style::Plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Nothing,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Boolean,
            text if is_number(text) => Kind::Number,
            _ => Kind::Text,
        }
    }

    /// Whether this is text only because it stands in quotes.
    fn looks_otherwise(&self) -> bool {
        let plain = Scalar {
            style: Style::Plain,
            ..self.clone()
        };
        self.style == Style::Quoted && !matches!(plain.kind(), Kind::Text | Kind::Nothing)
    }

    /// Whether the text means the same without quotes, in a list too.
    fn is_a_word(&self) -> bool {
        let of_a_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/');
        self.text.starts_with(char::is_alphanumeric)
            && self.text.chars().all(of_a_word)
            && !self.text.ends_with(':')
            && !self.looks_otherwise()
    }

    /// The text as messages show it: before substitution.
    pub fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }
}

impl Node {
    /// Whether the node is YAML's null.
    pub fn is_nothing(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.kind() == Kind::Nothing)
    }

    /// Whether the node is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Mapping(_))
    }

    /// Whether the node says `off`; YAML's `false` is the same.
    pub fn is_off(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.text == "off"
            || (s.kind() == Kind::Boolean && s.text.eq_ignore_ascii_case("false")))
    }

    /// The text of a scalar as messages show it.
    pub fn shown(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar.shown()),
            _ => None,
        }
    }

    /// Reports that something else was expected here.
    pub fn expected(&self, what: &str, problems: &mut Problems) {
        if !matches!(self.value, Value::Unreadable) {
            problems.error(&self.place, format!("expected {what}, got {}", self.got()));
        }
    }

    /// Text. A bare number, boolean or null is not text: `"5"` is.
    pub fn text(&self, problems: &mut Problems) -> Option<&str> {
        if let Value::Scalar(scalar) = &self.value {
            match scalar.kind() {
                Kind::Text => return Some(&scalar.text),
                Kind::Nothing => {}
                Kind::Boolean | Kind::Number => {
                    let message = format!("expected text, got {}", self.got());
                    problems
                        .error(&self.place, message)
                        .help(format!("write it in quotes: \"{}\"", scalar.text));
                    return None;
                }
            }
        }
        self.expected("text", problems);
        None
    }

    /// Text that is not empty and holds no control character.
    pub fn name(&self, problems: &mut Problems) -> Option<&str> {
        let text = self.text(problems)?;
        if text.is_empty() {
            problems.error(&self.place, "expected a name, got an empty text");
            return None;
        }
        if text.chars().any(char::is_control) {
            let problem = problems.error(&self.place, "a name holds no control characters");
            if text.trim_end_matches('\n').chars().all(|c| !c.is_control()) {
                problem.help("a block (`|`, `>`) ends with a line break: write the name in quotes");
            }
            return None;
        }
        Some(text)
    }

    /// A list; a bare scalar is not a list of one.
    pub fn list(&self, problems: &mut Problems) -> Option<&[Node]> {
        if let Value::List(items) = &self.value {
            return Some(items);
        }
        if let Value::Scalar(scalar) = &self.value
            && scalar.kind() != Kind::Nothing
        {
            let message = format!("expected a list, got {}", self.got());
            // In quotes it stays what it is: a bare star or number would be something else.
            let item = match scalar.style {
                Style::Quoted if !scalar.is_a_word() => format!("{:?}", clipped(scalar.shown())),
                _ => clipped(scalar.shown()),
            };
            problems
                .error(&self.place, message)
                .help(format!("write `[{item}]`"));
            return None;
        }
        self.expected("a list", problems);
        None
    }

    /// A list with at least one item.
    pub fn list_not_empty(&self, problems: &mut Problems) -> Option<&[Node]> {
        let items = self.list(problems)?;
        if items.is_empty() {
            problems.error(&self.place, "expected at least one item, got an empty list");
            return None;
        }
        Some(items)
    }

    /// A list of names; items that are none are reported and left out.
    pub fn names(&self, problems: &mut Problems) -> Option<Vec<String>> {
        let items = self.list(problems)?;
        let names = items
            .iter()
            .filter_map(|i| i.name(problems))
            .map(str::to_owned);
        Some(names.collect())
    }

    /// `true` or `false`.
    pub fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        if let Value::Scalar(scalar) = &self.value
            && scalar.style != Style::Quoted
        {
            match scalar.text.as_str() {
                "true" | "True" | "TRUE" => return Some(true),
                "false" | "False" | "FALSE" => return Some(false),
                _ => {}
            }
        }
        self.expected("`true` or `false`", problems);
        None
    }

    /// Text, a whole number or a boolean, each as it was written: `"1"` is text, `1` a number.
    pub fn literal(&self, problems: &mut Problems) -> Option<Literal> {
        if let Value::Scalar(scalar) = &self.value {
            match scalar.kind() {
                Kind::Text => return Some(Literal::Text(scalar.text.clone())),
                Kind::Boolean => return self.boolean(problems).map(Literal::Boolean),
                Kind::Number => {
                    let unsigned = scalar.text.strip_prefix('-').unwrap_or(&scalar.text);
                    if digits(unsigned).is_some()
                        && let Ok(number) = scalar.text.parse()
                    {
                        return Some(Literal::Number(number));
                    }
                }
                Kind::Nothing => {}
            }
        }
        self.expected("text, a whole number or a boolean", problems);
        None
    }

    /// A whole number within bounds.
    pub fn number(&self, range: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let parse = |text: &str| digits(text).filter(|n| range.contains(n));
        self.parsed_plain(&what, parse, problems)
    }

    /// A duration: `500ms`, `30s`, `5m`, `1h`, `1d`.
    pub fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        self.parsed("a duration such as `30s` or `1h`", duration, problems)
    }

    /// A size within bounds, in bytes: `512KiB`, `100MiB`, or a plain number of bytes.
    pub fn bytes(&self, range: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let size = self.parsed(
            "a size such as `512KiB` or a number of bytes",
            bytes,
            problems,
        )?;
        if range.contains(&size) {
            return Some(size);
        }
        let (from, to) = (range.start(), range.end());
        self.expected(&format!("a size from {from} to {to} bytes"), problems);
        None
    }

    /// Bytes per second: `10MiB/s`.
    pub fn bytes_per_second(&self, problems: &mut Problems) -> Option<u64> {
        let parse = |text: &str| bytes(text.strip_suffix("/s")?).filter(|n| *n > 0);
        self.parsed("a rate such as `10MiB/s`", parse, problems)
    }

    /// Events per second: `500/s`.
    pub fn per_second(&self, problems: &mut Problems) -> Option<u64> {
        let parse = |text: &str| digits(text.strip_suffix("/s")?).filter(|n| *n > 0);
        self.parsed("a rate such as `500/s`", parse, problems)
    }

    /// A host name or address and a port: `kafka-0.kafka.svc:9093`, `[::1]:9092`.
    pub fn host_port(&self, problems: &mut Problems) -> Option<(String, u16)> {
        self.parsed("`host:port`", host_port, problems)
    }

    /// An IP address and a port to bind: `127.0.0.1:9092`.
    pub fn socket_addr(&self, problems: &mut Problems) -> Option<SocketAddr> {
        let what = "an IP address and port such as `127.0.0.1:9092`";
        self.parsed(what, |text| text.parse().ok(), problems)
    }

    /// Ports from-to, both included: `19092-19191`.
    pub fn port_range(&self, problems: &mut Problems) -> Option<RangeInclusive<u16>> {
        self.parsed("ports such as `19092-19191`", port_range, problems)
    }

    /// One of the words given, each with its meaning; `None` as meaning: the product knows the
    /// word, this version does not have it.
    pub fn choice<T: Clone>(
        &self,
        words: &[(&str, Option<T>)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(problems)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, Some(meaning))) => return Some(meaning.clone()),
            Some((word, None)) => {
                problems.error(&self.place, unsupported(word));
            }
            None => {
                let names: Vec<String> = words.iter().map(|(w, _)| format!("`{w}`")).collect();
                let message = format!("expected {}, got {}", names.join(" or "), self.got());
                let problem = problems.error(&self.place, message);
                if let Some(near) = did_you_mean(text, words.iter().map(|(w, _)| *w)) {
                    problem.help(format!("did you mean `{near}`?"));
                }
            }
        }
        None
    }

    /// A scalar that may have been written as a number or as text.
    fn parsed<T>(
        &self,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        if let Value::Scalar(scalar) = &self.value
            && let Some(value) = parse(&scalar.text)
        {
            return Some(value);
        }
        self.expected(what, problems);
        None
    }

    /// A scalar that is a number, not text that looks like one.
    fn parsed_plain<T>(
        &self,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
        problems: &mut Problems,
    ) -> Option<T> {
        if matches!(&self.value, Value::Scalar(s) if s.style == Style::Quoted) {
            self.expected(what, problems);
            return None;
        }
        self.parsed(what, parse, problems)
    }

    /// What stands here, for a message.
    fn got(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Unreadable => "something unreadable".to_owned(),
            Value::Scalar(scalar) => {
                let shown = clipped(scalar.shown());
                match scalar.kind() {
                    Kind::Nothing => "nothing".to_owned(),
                    Kind::Boolean => format!("the boolean `{shown}`"),
                    Kind::Number => format!("the number `{shown}`"),
                    Kind::Text if scalar.looks_otherwise() => format!("the text `\"{shown}\"`"),
                    Kind::Text => format!("`{shown}`"),
                }
            }
        }
    }
}

/// The longest user input repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// One line of bounded length without control characters.
fn clipped(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) || (unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().any(|b| b.is_ascii_digit())
        && text.parse::<f64>().is_ok())
}

/// Decimal digits and nothing else, unlike `str::parse`, which takes a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A number and what follows it.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(end)?;
    Some((digits(number)?, unit))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = with_unit(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = with_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = digits(port)
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<IpAddr>().ok().map(|ip| ip.to_string())?,
        None => Some(host).filter(|h| is_host(h))?.to_owned(),
    };
    Some((host, port))
}

/// Whether text could be a host name (RFC 1123) or an IPv4 address.
pub fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-')?;
    let port = |t: &str| {
        digits(t)
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p > 0)
    };
    let (from, to) = (port(from)?, port(to)?);
    (from <= to).then_some(from..=to)
}
