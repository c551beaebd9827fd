//! The JSON Schema of policy files against the reader: what one takes, the other takes, for every
//! sample and for each of them with one thing changed.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::cli::check;
use crate::document;
use crate::problem::Problems;

/// As much of JSON Schema as the schema uses; a word that it does not know fails the test.
fn takes(schema: &Json, root: &Json, value: &Json) -> bool {
    let rules = schema.as_object().unwrap();
    let list = |rule: &Json| rule.as_array().unwrap().clone();
    let size = |rule: &Json| rule.as_u64().unwrap() as usize;
    rules.iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "title" | "description" | "definitions" => true,
        "$ref" => {
            let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
            takes(root.pointer(pointer).unwrap(), root, value)
        }
        "oneOf" => list(rule).iter().filter(|s| takes(s, root, value)).count() == 1,
        "anyOf" => list(rule).iter().any(|s| takes(s, root, value)),
        "const" => rule == value,
        "enum" => list(rule).contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("type `{other}`"),
        },
        "pattern" => {
            let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
            value.as_str().is_none_or(|text| pattern.is_match(text))
        }
        "minLength" => value
            .as_str()
            .is_none_or(|t| t.chars().count() >= size(rule)),
        "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|n| n <= rule.as_i64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|a| a.len() <= size(rule)),
        "minItems" => value.as_array().is_none_or(|a| a.len() >= size(rule)),
        "minProperties" => value.as_object().is_none_or(|o| o.len() >= size(rule)),
        "maxProperties" => value.as_object().is_none_or(|o| o.len() <= size(rule)),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| takes(rule, root, item))),
        "required" => value.as_object().is_none_or(|object| {
            list(rule)
                .iter()
                .all(|key| object.contains_key(key.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let known = rule.as_object().unwrap();
            object.iter().all(|(key, value)| {
                known
                    .get(key)
                    .is_none_or(|schema| takes(schema, root, value))
            })
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = rules.get("properties").and_then(Json::as_object);
            let mut others = (object.iter())
                .filter(|(key, _)| !known.is_some_and(|known| known.contains_key(*key)));
            match rule {
                Json::Bool(false) => others.next().is_none(),
                _ => others.all(|(_, value)| takes(rule, root, value)),
            }
        }),
        other => panic!("word `{other}`"),
    })
}

fn schema() -> Json {
    serde_json::from_str(super::POLICY_SCHEMA).unwrap()
}

/// Whether the reader takes a document, which may be written as JSON.
fn read(document: &Json) -> bool {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.yaml"), document.to_string()).unwrap();
    !check::check(&[dir.path().to_owned()]).problems.has_errors()
}

/// The documents of the samples and of the reference.
fn samples() -> Vec<Json> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut texts: Vec<String> = ["access/corallum", "access/pipeline", "access/platform"]
        .iter()
        .chain(&["quotas", "schemas", "tenants", "topics"])
        .map(|name| fs::read_to_string(root.join(format!("{name}.yaml"))).unwrap())
        .collect();
    let reference = fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = reference.split("```yaml\n").skip(1);
    let blocks = blocks.map(|b| b.split("```").next().unwrap().to_owned());
    texts.extend(blocks.filter(|b| !b.starts_with("tests:")));
    let mut problems = Problems::default();
    let mut samples = Vec::new();
    for text in texts {
        for node in document::parse(&"s.yaml".into(), &text, &mut problems) {
            samples.push(node.json(&mut problems).unwrap());
        }
    }
    assert!(problems.list.is_empty() && samples.len() > 20);
    samples
}

/// The document with one value changed at a time: an unknown key, a key taken out, a value of
/// another type, an empty list.
fn spoilt(value: &Json) -> Vec<Json> {
    let mut all = vec![
        Json::Null,
        Json::from(5),
        Json::from("zzz"),
        Json::Array(vec![]),
    ];
    match value {
        Json::Object(object) => {
            // Labels hold anything.
            let mut more = object.clone();
            more.insert("zzz".to_owned(), Json::from(1));
            all.push(Json::Object(more));
            for (key, inner) in object {
                let mut less = object.clone();
                less.remove(key);
                all.push(Json::Object(less));
                for changed in spoilt(inner) {
                    let mut object = object.clone();
                    object.insert(key.clone(), changed);
                    all.push(Json::Object(object));
                }
            }
        }
        Json::Array(items) => {
            for changed in items.first().map(spoilt).unwrap_or_default() {
                let mut items = items.clone();
                items[0] = changed;
                all.push(Json::Array(items));
            }
        }
        _ => {}
    }
    all
}

#[test]
fn the_schema_takes_what_the_reader_takes_and_nothing_else() {
    let schema = schema();
    let mut refused = 0;
    let mut differ = Vec::new();
    for sample in samples() {
        assert!(
            takes(&schema, &schema, &sample) && read(&sample),
            "{sample}"
        );
        // An empty document is left out by the reader; editors see none either.
        for spoilt in spoilt(&sample).into_iter().filter(|s| !s.is_null()) {
            // What an address is, the reader judges alone.
            let hosts = spoilt.pointer("/spec/hosts").is_some();
            let (described, read) = (takes(&schema, &schema, &spoilt), read(&spoilt));
            if described != read && !(hosts && described) {
                differ.push(format!("described {described}, read {read}: {spoilt}"));
            }
            refused += usize::from(!read);
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(refused > 500);
}

/// A key that the reader knows and the schema does not would be underlined in every editor.
#[test]
fn every_key_of_the_reader_is_in_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Refused by name until they are built.
    let unbuilt = [
        "headers",
        "onRegistryDown",
        "at",
        "pointer",
        "fetch",
        "requests",
        "connections",
        "connectionRate",
        "mutations",
    ];
    let mut keys = 0;
    let files = ["guards.rs", "tenant.rs"].map(|file| format!("src/config/{file}"));
    let parsers = ["policy", "topic_rules"].map(|stage| format!("src/{stage}/parse.rs"));
    for file in files.into_iter().chain(parsers) {
        let text = fs::read_to_string(root.join(&file)).unwrap();
        for call in [".take(\"", ".require(\"", ".entry(\""] {
            for rest in text.split(call).skip(1) {
                let key = rest.split('"').next().unwrap();
                let quoted = format!("\"{key}\": ");
                let known = super::POLICY_SCHEMA.contains(&quoted) || unbuilt.contains(&key);
                assert!(known, "{file}: `{key}` is not in policy.schema.json");
                keys += 1;
            }
        }
    }
    assert!(keys > 20);
}
