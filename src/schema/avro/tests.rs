//! Examples of the Avro specification, what is refused and where, and a comparison with the
//! decoder of the apache-avro crate on random schemas, values and mutations.

use std::collections::HashMap;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Decimal, Schema};
use serde_json::{Value as Json, json};

use super::*;

fn compiled(schema: Json) -> Compiled {
    Compiled::parse(&schema.to_string()).unwrap()
}

fn ok(schema: Json, payload: &[u8]) {
    assert_eq!(compiled(schema).validate(payload), Ok(()));
}

fn refused(schema: Json, payload: &[u8], said: &str) {
    let violation = compiled(schema).validate(payload).unwrap_err();
    assert_eq!(violation.to_string(), said);
}

fn user() -> Json {
    json!({"type": "record", "name": "User", "namespace": "x", "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "permissions", "type": {"type": "array", "items": "string"}},
        {"name": "note", "type": ["null", "string"]},
        {"name": "extra", "type": {"type": "map", "values": "boolean"}},
    ]})
}

#[test]
fn examples_of_the_specification_pass() {
    let record = json!({"type": "record", "name": "test", "fields": [
        {"name": "a", "type": "long"}, {"name": "b", "type": "string"}]});
    ok(record, &[0x36, 0x06, 0x66, 0x6f, 0x6f]);
    let array = json!({"type": "array", "items": "long"});
    ok(array.clone(), &[0x04, 0x06, 0x36, 0x00]);
    ok(array, &[0x03, 0x04, 0x06, 0x36, 0x00]);
    ok(json!(["null", "string"]), &[0x00]);
    ok(json!(["null", "string"]), &[0x02, 0x02, 0x61]);
    ok(json!("null"), &[]);
}

#[test]
fn a_violation_says_where_and_what_but_not_the_value() {
    let start = |rest: &[u8]| [b"\x02u\x02", rest].concat();
    ok(user(), &start(b"\x04\x02a\x02b\x00\x00\x00"));
    refused(
        user(),
        &start(b"\x08\x02a\x02b\x02c\x02\xff\x00\x00\x00"),
        "`$.permissions[3]`: expected string in UTF-8",
    );
    refused(user(), b"\x02u", "`$.at`: expected long (64 bits)");
    refused(user(), b"\x04u", "`$.id`: expected string");
    refused(
        user(),
        &start(b"\x00\x04\x00"),
        "`$.note`: expected union with one of its branches",
    );
    refused(
        user(),
        &start(b"\x00\x00\x04\x02k\x01\x02l\x02\x00"),
        "`$.extra{1}`: expected boolean (0 or 1)",
    );
    refused(
        user(),
        &start(b"\x00\x00\x00\x00"),
        "`$`: expected nothing after the last field",
    );
}

#[test]
fn numbers_stay_within_their_type() {
    ok(json!("int"), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    refused(
        json!("int"),
        &[0xff, 0xff, 0xff, 0xff, 0x1f],
        "`$`: expected int (32 bits)",
    );
    refused(
        json!("int"),
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        "`$`: expected int (32 bits)",
    );
    let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    ok(json!("long"), &longest);
    let mut wide = longest;
    wide[9] = 0x02;
    refused(json!("long"), &wide, "`$`: expected long (64 bits)");
    let logical = json!({"type": "int", "logicalType": "date"});
    refused(logical, &longest, "`$`: expected int (32 bits)");
    let suit = json!({"type": "enum", "name": "Suit", "symbols": ["A", "B"]});
    ok(suit.clone(), &[2]);
    refused(
        suit.clone(),
        &[4],
        "`$`: expected enum with one of its symbols",
    );
    refused(suit, &[1], "`$`: expected enum with one of its symbols");
}

#[test]
fn blocks_are_as_long_as_they_say() {
    let array = || json!({"type": "array", "items": "long"});
    // two items in two bytes; then one more block
    ok(array(), &[0x03, 0x04, 0x06, 0x36, 0x02, 0x08, 0x00]);
    let lie = "`$`: expected a block as long as it says";
    refused(array(), &[0x03, 0x02, 0x06, 0x36, 0x00], lie);
    let beyond = "`$`: expected a block no longer than the payload";
    refused(array(), &[0x03, 0x7e, 0x06, 0x36, 0x00], beyond);
    refused(array(), &[0x7e, 0x06, 0x36, 0x00], beyond);
    // i64::MIN items
    let least = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00,
    ];
    refused(array(), &least, beyond);
    refused(array(), &[0x02, 0x06], "`$`: expected the count of a block");
}

#[test]
fn items_without_bytes_are_bounded_over_the_whole_payload() {
    let nulls = json!({"type": "array", "items": "null"});
    // 65 536 and 65 537, zig-zag
    ok(nulls.clone(), &[0x80, 0x80, 0x08, 0x00]);
    let few = "expected fewer items that take no bytes";
    refused(
        nulls.clone(),
        &[0x82, 0x80, 0x08, 0x00],
        &format!("`$`: {few}"),
    );
    let nested = json!({"type": "array", "items": nulls});
    ok(
        nested.clone(),
        &[0x04, 0x80, 0x80, 0x04, 0x00, 0x80, 0x80, 0x04, 0x00, 0x00],
    );
    refused(
        nested,
        &[0x04, 0x80, 0x80, 0x04, 0x00, 0x82, 0x80, 0x04, 0x00, 0x00],
        &format!("`$[1]`: {few}"),
    );
    let hollow = json!({"type": "record", "name": "Hollow", "fields": [
        {"name": "a", "type": "null"},
        {"name": "b", "type": {"type": "fixed", "name": "None", "size": 0}}]});
    let array = json!({"type": "array", "items": hollow});
    refused(
        array,
        &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0x00],
        &format!("`$`: {few}"),
    );
}

#[test]
fn types_may_refer_to_themselves_up_to_a_depth() {
    let list = json!({"type": "record", "name": "Node", "namespace": "a.b", "fields": [
        {"name": "next", "type": ["null", "a.b.Node"]}]});
    let of_depth = |n: usize| [vec![2; n], vec![0]].concat();
    ok(list.clone(), &of_depth(60));
    let deep = compiled(list).validate(&of_depth(1_000_000)).unwrap_err();
    assert_eq!(deep.expected, "values that nest less deeply");
    assert!(deep.path.chars().count() <= PATH_CHARS_MAX + 1);
    let tree = json!({"type": "record", "name": "Tree", "fields": [
        {"name": "kids", "type": {"type": "array", "items": "Tree"}}]});
    ok(tree, &[0x04, 0x00, 0x02, 0x00, 0x00, 0x00]);
}

#[test]
fn names_resolve_within_their_namespace() {
    let schema = json!({"type": "record", "name": "Outer", "namespace": "a", "fields": [
        {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 2}},
        {"name": "in", "type": {"type": "record", "name": "Inner", "namespace": "b", "fields": [
            {"name": "id", "type": "a.Id"},
            {"name": "own", "type": {"type": "fixed", "name": "Id", "size": 1}},
            {"name": "again", "type": "Id"}]}},
        {"name": "last", "type": "Id"}]});
    let compiled = compiled(schema.clone());
    assert_eq!(compiled.name(), Some("a.Outer"));
    ok(schema.clone(), &[1, 1, 2, 2, 3, 4, 5, 5]);
    refused(
        schema,
        &[1, 1, 2, 2, 3, 4, 5],
        "`$.last`: expected fixed with all of its bytes",
    );
}

#[test]
fn schemas_that_cannot_work_are_refused() {
    let endless = json!({"type": "record", "name": "Ouroboros", "fields": [
        {"name": "tail", "type": "Ouroboros"}]});
    assert_eq!(
        Compiled::parse(&endless.to_string()).unwrap_err(),
        SchemaError::Endless("Ouroboros".to_owned())
    );
    for text in [
        "",
        "{",
        "\"strnig\"",
        "{\"type\": \"record\"}",
        "[\"null\", \"null\"]",
    ] {
        assert!(
            matches!(Compiled::parse(text), Err(SchemaError::Parse(_))),
            "{text}"
        );
    }
    // doubling: small as text, huge as a value, cheap to compile
    let mut schema = json!("long");
    for i in 0..40 {
        let inner = if i == 0 { schema } else { json!(schema) };
        let name = format!("R{i}");
        let again = match i {
            0 => json!("long"),
            _ => json!(format!("R{}", i - 1)),
        };
        schema = json!({"type": "record", "name": name, "fields": [
            {"name": "a", "type": inner}, {"name": "b", "type": again}]});
    }
    assert!(compiled(schema).validate(&[0; 100]).is_err());
}

// --- against apache-avro ---

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A random type; `named` are types to refer to, all of them finite behind a union or a block.
fn schema(random: &mut Random, depth: usize, named: &mut Vec<String>) -> Json {
    let scalars = [
        json!("null"),
        json!("boolean"),
        json!("int"),
        json!("long"),
        json!("float"),
        json!("double"),
        json!("bytes"),
        json!("string"),
        json!({"type": "int", "logicalType": "date"}),
        json!({"type": "int", "logicalType": "time-millis"}),
        json!({"type": "long", "logicalType": "timestamp-millis"}),
        json!({"type": "long", "logicalType": "local-timestamp-micros"}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
    ];
    let refer = |random: &mut Random, named: &mut Vec<String>| match named.len() {
        0 => None,
        n => (random.below(3) == 0).then(|| json!(named[random.below(n)])),
    };
    match random.below(if depth > 3 { 10 } else { 16 }) {
        0..8 => scalars[random.below(scalars.len())].clone(),
        8 => {
            let name = format!("F{}", random.next());
            json!({"type": "fixed", "name": name, "size": random.below(5)})
        }
        9 => {
            let name = format!("E{}", random.next());
            let symbols = &["A", "B", "C"][..1 + random.below(3)];
            json!({"type": "enum", "name": name, "symbols": symbols})
        }
        10 => {
            let items = refer(random, named).unwrap_or_else(|| schema(random, depth + 1, named));
            json!({"type": "array", "items": items})
        }
        11 => {
            let values = refer(random, named).unwrap_or_else(|| schema(random, depth + 1, named));
            json!({"type": "map", "values": values})
        }
        12 | 13 => {
            let other =
                refer(random, named).unwrap_or_else(|| json!(["long", "string"][random.below(2)]));
            json!(["null", other, "double"])
        }
        _ => {
            let name = format!("R{}", random.next());
            named.push(name.clone());
            let fields: Vec<Json> = (0..random.below(5))
                .map(|i| json!({"name": format!("f{i}"), "type": schema(random, depth + 1, named)}))
                .collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
}

fn collect<'s>(schema: &'s Schema, named: &mut HashMap<String, &'s Schema>) {
    match schema {
        Schema::Record(record) => {
            named.insert(record.name.fullname(None), schema);
            for field in &record.fields {
                collect(&field.schema, named);
            }
        }
        Schema::Array(array) => collect(&array.items, named),
        Schema::Map(map) => collect(&map.types, named),
        Schema::Union(union) => union.variants().iter().for_each(|v| collect(v, named)),
        _ => {}
    }
}

fn value(
    schema: &Schema,
    named: &HashMap<String, &Schema>,
    random: &mut Random,
    depth: usize,
) -> Value {
    let few = |random: &mut Random| if depth > 6 { 0 } else { random.below(4) };
    let n = random.next() >> random.below(64);
    match schema {
        Schema::Null => Value::Null,
        Schema::Boolean => Value::Boolean(n.is_multiple_of(2)),
        Schema::Int => Value::Int(n as i32),
        Schema::Long => Value::Long(n as i64),
        Schema::Float => Value::Float(n as f32),
        Schema::Double => Value::Double(n as f64),
        Schema::Bytes => Value::Bytes(n.to_le_bytes()[..random.below(9)].to_vec()),
        Schema::String => Value::String("añ€x".repeat(random.below(20))),
        Schema::Date => Value::Date(n as i32),
        Schema::TimeMillis => Value::TimeMillis(n as i32),
        Schema::TimestampMillis => Value::TimestampMillis(n as i64),
        Schema::LocalTimestampMicros => Value::LocalTimestampMicros(n as i64),
        Schema::Decimal(_) => Value::Decimal(Decimal::from((n as i32 % 1000).to_be_bytes())),
        Schema::Fixed(fixed) => Value::Fixed(fixed.size, vec![n as u8; fixed.size]),
        Schema::Enum(e) => {
            let at = random.below(e.symbols.len());
            Value::Enum(at as u32, e.symbols[at].clone())
        }
        Schema::Array(array) => Value::Array(
            (0..few(random))
                .map(|_| value(&array.items, named, random, depth + 1))
                .collect(),
        ),
        Schema::Map(map) => Value::Map(
            (0..few(random))
                .map(|i| (format!("k{i}"), value(&map.types, named, random, depth + 1)))
                .collect(),
        ),
        Schema::Union(union) => {
            let variants = union.variants();
            let at = if depth > 6 {
                0
            } else {
                random.below(variants.len())
            };
            let inner = value(&variants[at], named, random, depth + 1);
            Value::Union(at as u32, Box::new(inner))
        }
        Schema::Record(record) => Value::Record(
            record
                .fields
                .iter()
                .map(|f| (f.name.clone(), value(&f.schema, named, random, depth + 1)))
                .collect(),
        ),
        Schema::Ref { name } => value(named[&name.fullname(None)], named, random, depth + 1),
        other => panic!("not generated: {other:?}"),
    }
}

fn mutate(payload: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(payload.len().max(1));
    match random.below(6) {
        _ if payload.is_empty() => payload.push(random.next() as u8),
        0 => payload[at] = random.next() as u8,
        1 => payload[at] ^= 1 << random.below(8),
        2 => payload.truncate(at),
        3 => payload.insert(at, [0, 1, 2, 0x80, 0xff][random.below(5)]),
        4 => payload.push(random.next() as u8),
        _ => {
            payload.remove(at);
        }
    }
}

/// On a large stack: their decoder has no bound of depth.
#[test]
fn t28_agrees_with_the_decoder_of_apache_avro() {
    let compared = std::thread::Builder::new()
        .stack_size(256 << 20)
        .spawn(compare);
    compared.unwrap().join().unwrap();
}

fn compare() {
    // it reserves what a count claims, up to this
    apache_avro::util::max_allocation_bytes(16 << 20);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut both, mut stricter, mut neither) = (0, 0, 0);
    for _ in 0..400 {
        let text = json!({"type": "record", "name": "Root", "fields": [
            {"name": "a", "type": schema(&mut random, 0, &mut vec!["Root".to_owned()])},
            {"name": "b", "type": "string"},
        ]});
        let text = text.to_string();
        let theirs = match Schema::parse_str(&text) {
            Ok(schema) => schema,
            Err(e) => panic!("{e}: {text}"),
        };
        let Ok(ours) = Compiled::parse(&text) else {
            // a record that holds itself without an end
            assert!(text.matches("Root").count() > 1 || text.contains("\"R"));
            continue;
        };
        let reader = GenericDatumReader::builder(&theirs).build().unwrap();
        let writer = GenericDatumWriter::builder(&theirs).build().unwrap();
        let mut named = HashMap::new();
        collect(&theirs, &mut named);
        for _ in 0..5 {
            let value = value(&theirs, &named, &mut random, 0);
            let payload = writer.write_value_to_vec(value).unwrap();
            assert_eq!(ours.validate(&payload), Ok(()), "{text} {payload:?}");
            for _ in 0..40 {
                let mut payload = payload.clone();
                for _ in 0..=random.below(2) {
                    mutate(&mut payload, &mut random);
                }
                let ours = ours.validate(&payload);
                let mut rest = &payload[..];
                let theirs = reader.read_value(&mut rest);
                let whole = theirs.is_ok() && rest.is_empty();
                match ours {
                    Ok(()) => {
                        assert!(whole, "only ours accepts {payload:?} as {text}: {theirs:?}");
                        both += 1;
                    }
                    Err(violation) => {
                        // what they read and write back unchanged is beyond doubt; what they
                        // cannot write back is an end of input taken for a null
                        let again = theirs.ok().filter(|_| rest.is_empty());
                        let again = again.and_then(|v| writer.write_value_to_vec(v).ok());
                        assert_ne!(again.as_ref(), Some(&payload), "{violation} {text}");
                        match again {
                            Some(_) => stricter += 1,
                            None => neither += 1,
                        }
                    }
                }
            }
        }
    }
    assert!(
        both > 5_000 && neither > 5_000,
        "{both} both, {neither} neither"
    );
    // overlong numbers and untrue block sizes are rare
    assert!(stricter < both / 20, "{stricter} of {both}");
    println!("{both} accepted by both, {stricter} only by theirs, {neither} by neither");
}
