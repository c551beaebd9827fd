//! Kafka's `ssl.principal.mapping.rules`: from the name in a certificate to the name of a
//! principal, with the results of `org.apache.kafka.common.security.ssl.SslPrincipalMapper`.
//!
//! Patterns are matched in linear time, so what only a backtracking engine can do (looking around,
//! back references, possessive quantifiers) is refused when the rules are read, never guessed.

use regex::{Captures, Regex, RegexBuilder};

/// How many rules one listener may have.
const RULES_MAX: usize = 100;
/// The longest text of rules, in bytes.
const RULES_BYTES_MAX: usize = 16 * 1024;
/// The most memory that one compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// Rules in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct MappingRules {
    rules: Vec<Rule>,
}

/// What is wrong with the text of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleFault(String);

#[derive(Clone, Debug)]
enum Rule {
    /// The name as it is.
    Default,
    Replace {
        /// Anchored at both ends: a rule is about a whole name.
        whole: Regex,
        /// Not anchored: Kafka replaces each match in turn.
        part: Regex,
        replacement: Vec<Piece>,
        case: Case,
    },
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Group(usize),
}

#[derive(Clone, Copy, Debug)]
enum Case {
    Kept,
    Lower,
    Upper,
}

impl MappingRules {
    /// Reads rules with commas between them; empty ones are ignored, as in Kafka.
    pub fn parse(text: &str) -> Result<Self, RuleFault> {
        if text.len() > RULES_BYTES_MAX {
            return Err(RuleFault(format!("longer than {RULES_BYTES_MAX} bytes")));
        }
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if !rest.starts_with(',') {
                let (rule, behind) = rule(rest)?;
                rules.push(rule);
                rest = behind.trim_start();
            }
            rest = match rest.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if rest.is_empty() => rest,
                None => return fault("unexpected text behind the rule", rest),
            };
        }
        if rules.is_empty() {
            return Err(RuleFault("expected at least one rule".to_owned()));
        }
        Self { rules }.bounded()
    }

    /// Several texts of rules, one behind the other.
    pub fn joined(all: Vec<Self>) -> Result<Self, RuleFault> {
        let rules = all.into_iter().flat_map(|part| part.rules).collect();
        Self { rules }.bounded()
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// What the first rule that matches makes of `name`; `None`: no rule matches.
    pub fn apply(&self, name: &str) -> Option<String> {
        self.rules.iter().find_map(|rule| rule.apply(name))
    }

    fn bounded(self) -> Result<Self, RuleFault> {
        match self.rules.len() > RULES_MAX {
            true => Err(RuleFault(format!("more than {RULES_MAX} rules"))),
            false => Ok(self),
        }
    }
}

impl Rule {
    fn apply(&self, name: &str) -> Option<String> {
        let (whole, part, replacement, case) = match self {
            Rule::Default => return Some(name.to_owned()),
            Rule::Replace {
                whole,
                part,
                replacement,
                case,
            } => (whole, part, replacement, case),
        };
        if !whole.is_match(name) {
            return None;
        }
        let replaced = replaced(name, part, replacement);
        Some(match case {
            Case::Kept => replaced,
            Case::Lower => replaced.to_lowercase(),
            Case::Upper => replaced.to_uppercase(),
        })
    }
}

/// Java's `String.replaceAll`: every match in turn, an empty one right behind another included.
fn replaced(name: &str, part: &Regex, replacement: &[Piece]) -> String {
    let (mut written, mut copied, mut from) = (String::new(), 0, 0);
    while let Some(groups) = part.captures_at(name, from) {
        let Some(found) = groups.get(0) else { break };
        written += &name[copied..found.start()];
        write(&mut written, replacement, &groups);
        copied = found.end();
        from = match found.is_empty() {
            true => match name[found.end()..].chars().next() {
                Some(c) => found.end() + c.len_utf8(),
                None => break,
            },
            false => found.end(),
        };
    }
    written + &name[copied..]
}

fn write(written: &mut String, replacement: &[Piece], groups: &Captures<'_>) {
    for piece in replacement {
        match piece {
            Piece::Text(text) => written.push_str(text),
            Piece::Group(group) => {
                written.push_str(groups.get(*group).map_or("", |found| found.as_str()));
            }
        }
    }
}

fn fault<T>(what: &str, at: &str) -> Result<T, RuleFault> {
    let shown: String = at.chars().take(40).collect();
    Err(RuleFault(format!("{what}: `{shown}`")))
}

/// Reads the rule at the beginning of `text`; with it, what stands behind.
fn rule(text: &str) -> Result<(Rule, &str), RuleFault> {
    if let Some(rest) = text.strip_prefix("DEFAULT") {
        return Ok((Rule::Default, rest));
    }
    let Some(rest) = text.strip_prefix("RULE:") else {
        return fault("expected `DEFAULT` or `RULE:pattern/replacement/`", text);
    };
    let parts = until_slash(rest).and_then(|(pattern, rest)| {
        let (replacement, rest) = until_slash(rest)?;
        Some((pattern, replacement, rest))
    });
    let Some((pattern, replacement, rest)) = parts else {
        return fault("expected `RULE:pattern/replacement/`, got", text);
    };
    let (case, rest) = match rest.as_bytes().first() {
        Some(b'L') => (Case::Lower, &rest[1..]),
        Some(b'U') => (Case::Upper, &rest[1..]),
        _ => (Case::Kept, rest),
    };
    let java = as_java_means(pattern)?;
    let part = compile(&java, pattern)?;
    let whole = compile(&format!(r"\A(?:{java})\z"), pattern)?;
    let replacement = pieces(replacement, part.captures_len() - 1)?;
    let rule = Rule::Replace {
        whole,
        part,
        replacement,
        case,
    };
    Ok((rule, rest))
}

/// What stands before and behind the first `/` without a backslash.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '/' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn compile(java: &str, shown: &str) -> Result<Regex, RuleFault> {
    let built = RegexBuilder::new(java)
        .size_limit(PATTERN_BYTES_MAX)
        .build();
    built.map_err(|error| {
        // The first lines draw the pattern; the last one says what is wrong with it.
        let said = error.to_string();
        let said = said.lines().last().unwrap_or_default();
        let said = said.trim().trim_start_matches("error: ").to_owned();
        RuleFault(format!("pattern `{shown}` cannot be used: {said}"))
    })
}

/// The pattern in the notation of `regex`, where the two differ: `\d`, `\w`, `\s` and `\b` are
/// about ASCII in Java, `\<` is the character itself.
fn as_java_means(pattern: &str) -> Result<String, RuleFault> {
    let mut written = String::new();
    let (mut depth, mut quantified) = (0_usize, false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let was_quantified = std::mem::take(&mut quantified);
        match c {
            '\\' => match chars.next() {
                Some('d') => written.push_str("[0-9]"),
                Some('D') => written.push_str("[^0-9]"),
                Some('w') => written.push_str("[0-9A-Za-z_]"),
                Some('W') => written.push_str("[^0-9A-Za-z_]"),
                Some('s') => written.push_str(r"[ \t\n\x0B\f\r]"),
                Some('S') => written.push_str(r"[^ \t\n\x0B\f\r]"),
                Some('b') => written.push_str(r"(?-u:\b)"),
                Some('B') => written.push_str(r"(?-u:\B)"),
                Some('<') => written.push('<'),
                Some('>') => written.push('>'),
                Some(other) => written.extend(['\\', other]),
                None => written.push('\\'),
            },
            '+' if was_quantified && depth == 0 => {
                return fault("possessive quantifiers are not supported", pattern);
            }
            _ => {
                match c {
                    '[' => depth += 1,
                    ']' => depth = depth.saturating_sub(1),
                    '*' | '+' | '?' | '}' if depth == 0 => quantified = true,
                    _ => {}
                }
                written.push(c);
            }
        }
    }
    Ok(written)
}

/// Java's replacement: `$1` is a group, a backslash takes the next character as it is. A group
/// that the pattern does not have is literal, as in Kafka.
fn pieces(replacement: &str, groups: usize) -> Result<Vec<Piece>, RuleFault> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            '$' => {
                let digit = |c: &char| c.to_digit(10).map(|digit| digit as usize);
                let Some(mut group) = chars.peek().and_then(digit) else {
                    return fault("`$` without the number of a group", replacement);
                };
                chars.next();
                if group > groups && groups == 0 {
                    return fault("the pattern has no groups", replacement);
                }
                if group > groups {
                    text += &format!("${group}");
                    continue;
                }
                // More digits belong to the number as long as there is such a group.
                while let Some(longer) = chars.peek().and_then(digit).map(|d| group * 10 + d) {
                    if longer > groups {
                        break;
                    }
                    group = longer;
                    chars.next();
                }
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Group(group));
            }
            c => text.push(c),
        }
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(rules: &str, name: &str) -> Option<String> {
        MappingRules::parse(rules).unwrap().apply(name)
    }

    /// Rules, a name, and what `SslPrincipalMapper.fromRules(rules).getName(name)` of
    /// kafka-clients 4.3.0 makes of it; `None` is its `NoMatchingRule`.
    #[test]
    fn a_name_is_mapped_as_kafka_maps_it() {
        let kafka: &[(&str, &str, Option<&str>)] = &[
            ("DEFAULT", "CN=a,O=b", Some("CN=a,O=b")),
            (
                "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/",
                "CN=serviceuser,OU=ServiceUsers,O=Unknown",
                Some("serviceuser"),
            ),
            (
                "RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L",
                "CN=Duke,OU=JavaSoft,O=Sun,L=X,ST=Y,C=US",
                Some("duke@javasoft"),
            ),
            (
                "RULE:^cn=(.*?),ou=(.*?),dc=(.*?),dc=(.*?)$/$1@$2/U",
                "cn=a,ou=b,dc=c,dc=d",
                Some("A@B"),
            ),
            (
                "RULE:^CN=(.*?),OU=X$/$1/L, RULE:^CN=([^,]+).*$/$1/U, DEFAULT",
                "CN=ab,O=b",
                Some("AB"),
            ),
            // Kafka replaces every match, the empty one at the end included.
            ("RULE:.*/x/", "abc", Some("xx")),
            ("RULE:(.*)/u-$1/", "abc", Some("u-abcu-")),
            ("RULE:^(.*)$/u-$1/", "abc", Some("u-abc")),
            ("RULE:a|ab/x/", "ab", Some("xb")),
            ("RULE:CN=(a)/$1@$4/", "CN=a", Some("a@$4")),
            ("RULE:CN=(a)/$12/", "CN=a", Some("a2")),
            ("RULE:CN=(a)/$10x/", "CN=a", Some("a0x")),
            ("RULE:CN=(a)/$0/", "CN=a", Some("CN=a")),
            ("RULE:CN=(a)/$01/", "CN=a", Some("a")),
            (
                "RULE:(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)(k)/$11-$12/",
                "abcdefghijk",
                Some("k-a2"),
            ),
            ("RULE:CN=a/$0/", "CN=a", Some("CN=a")),
            (r"RULE:CN=a/\$1/", "CN=a", Some("$1")),
            (r"RULE:CN=(a)/\$1\/b/", "CN=a", Some("$1/b")),
            ("RULE:CN=(a)|b/x$1/", "b", Some("x")),
            (r"RULE:CN=a\/b/ok/", "CN=a/b", Some("ok")),
            (r"RULE:CN=\w+/ok/", "CN=é", None),
            ("RULE:CN=./ok/", "CN=é", Some("ok")),
            (r"RULE:CN=\d+/ok/", "CN=12", Some("ok")),
            (r"RULE:CN=[\w.-]+/ok/", "CN=a-b.c", Some("ok")),
            (r"RULE:CN=[\d\s]*\S\D/ok/", "CN=1 2xy", Some("ok")),
            (r"RULE:CN=\<a/ok/", "CN=<a", Some("ok")),
            (r"RULE:\bCN=(a)\b/$1/", "CN=a", Some("a")),
            ("RULE:a{1,2}/b/,DEFAULT", "aa", Some("b")),
            ("RULE:CN=a/b/L", "CN=x", None),
            (",DEFAULT,", "CN=a", Some("CN=a")),
            ("RULE:^CN=(.*)$/$1/U", "CN=straße", Some("STRASSE")),
            ("RULE:CN=a//", "CN=a", Some("")),
            (" RULE:CN=a/b/ , DEFAULT ", "CN=x", Some("CN=x")),
            ("RULE:CN=( a )/$1/", "CN= a ", Some(" a ")),
        ];
        for (rules, name, java) in kafka {
            assert_eq!(mapped(rules, name).as_deref(), *java, "{rules} on {name}");
        }
    }

    #[test]
    fn rules_that_kafka_refuses_or_fails_on_are_refused() {
        for text in [
            "",
            " , ",
            "default",
            "RULE:CN=a/b",
            "RULE:CN=a/b/X",
            "RULE:CN=a/b/LU",
            "RULE:CN=a/b/ DEFAULT",
            "DEFAULT/L",
            "RULE:CN=a/$1/",
            "RULE:CN=(a)/$x/",
            "RULE:CN=(a/b/",
            "RULE:CN=a\\",
        ] {
            assert!(MappingRules::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_linear_time_cannot_do_is_refused() {
        for text in [
            "RULE:CN=(?!a).*/ok/",
            "RULE:CN=(?<=a)b/ok/",
            r"RULE:(a)\1/ok/",
            "RULE:CN=a++/ok/",
            "RULE:CN=a{9999}{9999}/ok/",
        ] {
            let fault = MappingRules::parse(text).unwrap_err().to_string();
            assert!(!fault.contains('\n'), "{fault}");
        }
        assert!(MappingRules::parse(&"DEFAULT,".repeat(101)).is_err());
        assert!(MappingRules::parse(&" ".repeat(RULES_BYTES_MAX + 1)).is_err());
    }
}
