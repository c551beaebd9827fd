//! Requests of every API and version in a place where SASL wants other messages: filled, so that
//! each array of an error answer has something to mirror.

use crate::socket::request;
use kordon::apis::layout;
use kordon::apis::table::TABLE;
use kordon::wire::layout::{Default, Field, Role, Struct, Type};
use kordon::wire::tree::{Node, StructNode};

/// Every API and version that can be encoded, those of SASL itself apart.
pub fn all() -> Vec<(i16, i16)> {
    let readable = TABLE.iter().filter_map(|api| {
        let versions = layout(api.key)?.request.versions;
        (!matches!(api.key, 17 | 18 | 36)).then_some((api.key, versions))
    });
    readable
        .flat_map(|(key, versions)| (versions.min..=versions.max).map(move |v| (key, v)))
        .collect()
}

/// A request with one element in each array.
pub fn filled(key: i16, version: i16) -> StructNode {
    let mut node = request(key);
    fill(&mut node, &layout(key).unwrap().request.body, version);
    own_words(key, &mut node);
    node
}

fn fill(node: &mut StructNode, layout: &'static Struct, version: i16) {
    for (index, field) in layout.fields.iter().enumerate() {
        if !field.versions.contains(version) || field.is_tagged(version) {
            continue;
        }
        if let Some(value) = value(field, version) {
            *node.at_mut(index).unwrap() = value;
        }
    }
}

fn value(field: &'static Field, version: i16) -> Option<Node> {
    let text = || Node::Bytes(Some("missing".into()));
    let nested = |layout: &'static Struct| {
        let mut node = StructNode::new(layout);
        fill(&mut node, layout, version);
        node
    };
    Some(match &field.kind {
        Type::Array(element) => match &**element {
            Type::Struct(layout) => Node::Structs(Some(vec![nested(layout)])),
            Type::String => Node::Array(Some(vec![text()])),
            Type::Int32 => Node::Array(Some(vec![Node::Int(7)])),
            _ => return None,
        },
        Type::Struct(layout) if field.default != Default::Null => {
            Node::Struct(Some(Box::new(nested(layout))))
        }
        Type::String => text(),
        Type::Uuid => Node::Uuid(*b"an id of a topic"),
        Type::Int32 if field.role == Role::Partition => Node::Int(7),
        _ => return None,
    })
}

/// What Kafka's classes check while they read, before anybody asks for the place.
fn own_words(key: i16, node: &mut StructNode) {
    match key {
        0 => {
            node.set_int("Acks", 1);
            for topic in node.structs_mut("TopicData") {
                for partition in topic.structs_mut("PartitionData") {
                    let records = crate::body::batch("missing", crate::body::Kind::Plain);
                    partition.set("Records", Node::Bytes(Some(records)));
                }
            }
        }
        29 => {
            node.set_int("ResourceTypeFilter", 2)
                .set_int("PatternTypeFilter", 3)
                .set_int("Operation", 1)
                .set_int("PermissionType", 1);
        }
        30 => {
            for creation in node.structs_mut("Creations") {
                creation
                    .set_int("ResourceType", 2)
                    .set_int("ResourcePatternType", 3)
                    .set_int("Operation", 3)
                    .set_int("PermissionType", 3);
            }
        }
        31 => {
            for filter in node.structs_mut("Filters") {
                filter
                    .set_int("ResourceTypeFilter", 2)
                    .set_int("PatternTypeFilter", 3)
                    .set_int("Operation", 1)
                    .set_int("PermissionType", 1);
            }
        }
        32 | 33 | 44 => {
            for resource in node.structs_mut("Resources") {
                resource.set_int("ResourceType", 2);
            }
        }
        _ => {}
    }
}
