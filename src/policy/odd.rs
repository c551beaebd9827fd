//! Names that nothing has: they look right, and a rule about them says nothing. A deny is then a
//! door left open, so that the author is told.

use super::model::ResourceKind;
use super::rule::{NamePattern, Part, Template};
use crate::document::Node;
use crate::problem::Problems;

/// The longest name of a topic, in characters, all of them ASCII.
const TOPIC_CHARS_MAX: usize = 249;

/// Warns of a pattern that no name of its kind can match.
pub(super) fn names(kind: ResourceKind, pattern: &NamePattern, node: &Node, to: &mut Problems) {
    let (Template(parts), is_one) = match pattern {
        NamePattern::All => return,
        NamePattern::Literal(template) => (template, true),
        NamePattern::Prefix(template) => (template, false),
    };
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Tenant | Part::Principal => None,
    });
    if kind == ResourceKind::Topic {
        // A star is there only where it was spelt out, which nobody does unknowingly.
        let of_a_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
        let chars = texts.clone().flat_map(str::chars);
        if let Some(strange) = chars.clone().find(|c| !of_a_topic(*c)) {
            let message = format!("no topic has {} in its name", shown(strange));
            to.warning(&node.place, message)
                .help("Kafka's are of ASCII letters, digits, `.`, `_` and `-`: this matches none");
        } else if chars.count() > TOPIC_CHARS_MAX {
            let message = format!("no topic has a name of more than {TOPIC_CHARS_MAX} characters");
            to.warning(&node.place, message);
        }
        return;
    }
    for text in texts {
        hidden(text, node, to);
    }
    let ends = |part: Option<&Part>, at_end: bool| match part {
        Some(Part::Text(text)) => blank(text, at_end),
        _ => false,
    };
    if ends(parts.first(), false) || (is_one && ends(parts.last(), true)) {
        blanks(node, to);
    }
}

/// Warns of a principal whom nobody can be: no proof brings a name with blanks around it.
pub(super) fn principal(name: &str, node: &Node, to: &mut Problems) {
    hidden(name, node, to);
    if blank(name, false) || blank(name, true) {
        blanks(node, to);
    }
}

fn blank(text: &str, at_end: bool) -> bool {
    match at_end {
        true => text.ends_with(char::is_whitespace),
        false => text.starts_with(char::is_whitespace),
    }
}

fn blanks(node: &Node, to: &mut Problems) {
    to.warning(&node.place, "a name with a blank at its begin or end")
        .help("names are compared character by character; take the blank out");
}

fn hidden(text: &str, node: &Node, to: &mut Problems) {
    if let Some(found) = text.chars().find(|c| is_hidden(*c)) {
        to.warning(&node.place, format!("a name with {} in it", shown(found)))
            .help("the character does not show, and counts when names are compared");
    }
}

/// Characters that do not show (Unicode's default ignorable ones, as far as keyboards and copied
/// text bring them).
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
    )
}

/// A character for people, who may not see it or take it for another one.
fn shown(c: char) -> String {
    match c {
        ' ' => "a blank".to_owned(),
        c if c.is_ascii() => format!("`{c}`"),
        c if is_hidden(c) || c.is_whitespace() => format!("U+{:04X}", u32::from(c)),
        c => format!("`{c}` (U+{:04X})", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use crate::policy::parse::access_policy;

    /// What is said about a rule or a principal, without the help.
    fn said(principal: &str, resource: &str) -> Vec<String> {
        let text =
            format!("principals: [\"{principal}\"]\nrules: [{{deny: [Read], {resource}}}]\n");
        let mut problems = Problems::default();
        let documents = document::parse(&"p.yaml".into(), &text, &mut problems);
        assert!(access_policy("p", &documents[0], &mut problems).is_some());
        let list = problems.list.into_iter();
        list.map(|p| p.message).collect()
    }

    #[test]
    fn a_topic_that_cannot_be_is_told() {
        for (name, strange) in [
            ("orders ", "a blank"),
            ("ord/ers", "`/`"),
            ("^orders$", "`^`"),
            // Cyrillic: a deny of it denies nothing.
            ("ord\u{435}rs", "`\u{435}` (U+0435)"),
            ("orders\u{200b}", "U+200B"),
            ("${tenant} .*", "a blank"),
        ] {
            let message = format!("no topic has {strange} in its name");
            assert_eq!(said("User:a", &format!("topics: [\"{name}\"]")), [message]);
        }
        let long = said("User:a", &format!("topics: [{}]", "x".repeat(250)));
        assert_eq!(long, ["no topic has a name of more than 249 characters"]);
        let sound = "topics: [a.B-c_1, \"${tenant}.${principal}*\", \"*\"]";
        assert_eq!(said("User:a", sound), [""; 0]);
    }

    #[test]
    fn other_names_may_be_odd_but_not_by_what_does_not_show() {
        assert_eq!(
            said("User:a b", "groups: [\"my group/1\", \"gr\u{fc}n *\"]"),
            [""; 0]
        );
        let blank = "a name with a blank at its begin or end";
        assert_eq!(
            said("User:a", "groups: [\"g \", \" g*\", \"g\"]"),
            [blank; 2]
        );
        assert_eq!(said("User: a", "groups: [g]"), [blank]);
        assert_eq!(said("Group:a\u{a0}", "groups: [g]"), [blank]);
        let hidden = "a name with U+200D in it";
        assert_eq!(said("User:a", "groups: [\"a\u{200d}b\"]"), [hidden]);
        assert_eq!(said("User:a\u{200d}b", "groups: [g]"), [hidden]);
    }
}
