//! A YAML value as the JSON value that it looks like, for payloads that people write into tests.

use serde_json::Value as Json;

use super::scalar::Kind;
use super::tree::{Node, Value};
use crate::problem::Problems;

impl Node {
    /// The value as JSON. Numbers that JSON does not have (`.inf`, `0x1f`) are reported.
    pub fn json(&self, problems: &mut Problems) -> Option<Json> {
        match &self.value {
            Value::Unreadable => None,
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|n| n.json(problems)).collect();
                Some(Json::Array(items.into_iter().collect::<Option<_>>()?))
            }
            Value::Mapping(entries) => {
                let entries: Vec<_> = (entries.iter())
                    .map(|e| Some((e.key.clone(), e.value.json(problems)?)))
                    .collect();
                Some(Json::Object(entries.into_iter().collect::<Option<_>>()?))
            }
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Text => Some(Json::String(scalar.text.clone())),
                Kind::Nothing => Some(Json::Null),
                Kind::Boolean => Some(Json::Bool(scalar.text.eq_ignore_ascii_case("true"))),
                Kind::Number => {
                    let number = serde_json::from_str::<serde_json::Number>(&scalar.text);
                    if number.is_err() {
                        self.expected("a number as JSON writes it", problems);
                    }
                    number.ok().map(Json::Number)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::parse;

    fn read(text: &str) -> (Option<Json>, Problems) {
        let mut problems = Problems::default();
        let nodes = parse(&"f".into(), text, &mut problems);
        let json = nodes[0].json(&mut problems);
        (json, problems)
    }

    #[test]
    fn values_are_what_they_look_like() {
        let text = "{a: x, b: \"5\", c: 5, d: -1.5e3, e: ~, f: True, g: [1, {h: []}], n: 1e2}";
        let want = json!({"a": "x", "b": "5", "c": 5, "d": -1500.0, "e": null, "f": true,
            "g": [1, {"h": []}], "n": 100.0});
        assert_eq!(read(text).0, Some(want));
        let large = read("18446744073709551615").0;
        assert_eq!(large, Some(json!(u64::MAX)));
    }

    #[test]
    fn numbers_that_json_does_not_have_are_reported() {
        for text in ["[.inf]", "[0x1f]", "[+1]", "[.5]"] {
            let (json, problems) = read(text);
            assert_eq!((json, problems.list.len()), (None, 1), "{text}");
        }
    }
}
