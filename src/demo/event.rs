//! The events of the tour, as Avro: written field by field in the order of the schemas under
//! `files/schemas`, in Confluent's framing.

use bytes::Bytes;

use super::client::{Message, confluent};
use crate::wire::records::put_zigzag;

/// The id of `user-authenticated.avsc` in `subjects.json`.
const USER_AUTHENTICATED: u32 = 1;
/// The id of `user-created.avsc`.
const USER_CREATED: u32 = 2;

/// A user of the tour.
const USER: &str = "u-1042";

/// `user.authenticated`: somebody has logged in.
pub fn user_authenticated(number: u32) -> Message {
    let mut avro = common(number);
    string(&mut avro, "198.51.100.7");
    string(&mut avro, "corallum-web/4.2");
    put_zigzag(2, &mut avro); // one block of two permissions, then the end
    string(&mut avro, "workflow.create");
    string(&mut avro, "workflow.read");
    put_zigzag(0, &mut avro);
    message("user.authenticated", confluent(USER_AUTHENTICATED, &avro))
}

/// The same event by a service that was not told of `ipAddress`, `userAgent` and `permissions`.
pub fn user_authenticated_cut_short(number: u32) -> Message {
    let avro = common(number);
    message("user.authenticated", confluent(USER_AUTHENTICATED, &avro))
}

/// `user.created`: somebody has signed up.
pub fn user_created(number: u32) -> Message {
    let avro = common(number);
    message("user.created", confluent(USER_CREATED, &avro))
}

/// `connector.data.raw`: that many bytes of data, which no schema describes.
pub fn data_raw(bytes: usize) -> Message {
    message("connector.data.raw", Bytes::from(vec![b'.'; bytes]))
}

fn message(event_type: &str, value: Bytes) -> Message {
    Message {
        key: Some(Bytes::from_static(USER.as_bytes())),
        value: Some(value),
        headers: vec![("event-type".to_owned(), event_type.to_owned().into())],
        offset: 0,
    }
}

/// `eventId`, `userId`, `tenantId`, `email`, `timestamp`: how both events begin.
fn common(number: u32) -> Vec<u8> {
    let now = crate::clock::since_epoch(crate::clock::wall());
    let mut avro = Vec::new();
    string(&mut avro, &format!("event-{number}"));
    string(&mut avro, USER);
    string(&mut avro, "corallum");
    string(&mut avro, "ada@corallum.example");
    let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    put_zigzag(millis, &mut avro);
    avro
}

fn string(avro: &mut Vec<u8>, text: &str) {
    put_zigzag(text.len() as i64, avro);
    avro.extend_from_slice(text.as_bytes());
}
