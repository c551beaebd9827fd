//! `${NAME}` in the scalar values of a tree; for `kordon.yaml` only, since `${tenant}` in a policy
//! means something else.

use super::tree::{Node, Scalar, Style, Value};
use crate::problem::{Place, Problems};

/// The longest text a scalar may become, in bytes.
const SUBSTITUTED_BYTES_MAX: usize = 64 * 1024;

/// Replaces `${NAME}` by what `lookup` answers, everywhere below `node`; keys stay as they are.
pub fn substitute(
    node: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    match &mut node.value {
        Value::Scalar(scalar) if scalar.text.contains("${") => {
            match substituted(&scalar.text, &node.place, lookup, problems) {
                Some(text) => {
                    let style = match scalar.style {
                        Style::Quoted => Style::Quoted,
                        Style::Plain | Style::Substituted => Style::Substituted,
                    };
                    let written = Some(std::mem::take(&mut scalar.text));
                    *scalar = Scalar {
                        text,
                        style,
                        written,
                    };
                }
                None => node.value = Value::Unreadable,
            }
        }
        Value::Scalar(_) | Value::Unreadable => {}
        Value::List(items) => {
            for item in items {
                substitute(item, lookup, problems);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                substitute(&mut entry.value, lookup, problems);
            }
        }
    }
}

fn substituted(
    text: &str,
    place: &Place,
    lookup: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut complete = true;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            problems.error(place, "`${` without `}`");
            return None;
        };
        if !is_name(name) {
            problems.error(place, "expected a name of a variable between `${` and `}`");
            complete = false;
        } else if let Some(value) = lookup(name) {
            out.push_str(&value);
        } else {
            problems.error(place, format!("environment variable `{name}` is not set"));
            complete = false;
        }
        rest = behind;
    }
    out.push_str(rest);
    if out.len() > SUBSTITUTED_BYTES_MAX {
        problems.error(
            place,
            format!("longer than {SUBSTITUTED_BYTES_MAX} bytes after substitution"),
        );
        return None;
    }
    complete.then_some(out)
}

/// A name as POSIX has it.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
