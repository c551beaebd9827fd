//! Bytes of a peer who has proven nothing, or not yet, into every decoder they can reach. A panic
//! ends the run, and so does memory: whatever is read here may allocate no more than a frame
//! before authentication may have bytes.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kordon::apis::{layout, produce};
use kordon::identity::issuers::{Issuers, Proven};
use kordon::identity::mechanisms::Mechanisms;
use kordon::identity::settings::{CertificateName, MtlsSettings, TokenSettings, TokenSource};
use kordon::identity::token::{TokenError, Verifier};
use kordon::identity::{certificate, json, sasl};
use kordon::session::frames;
use kordon::session::handshake::{Evidence, Handshake, Outcome, Step};
use kordon::wire::frame::{self, UNAUTHENTICATED_FRAME_BYTES_MAX};
use kordon::wire::header::{self, RequestHeader};
use kordon::wire::layout::Message;
use kordon::wire::primitive::Reader;
use kordon::wire::walk::{Nothing, walk_prefix};
use kordon::wire::{records, tree};
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The public keys of RFC 7517, appendix A.1, so that `kid` and `alg` find something.
const JWKS: &str = r#"{"keys":[
  {"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
   "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"sig","kid":"1"}]}"#;

static OFFERED: LazyLock<Mechanisms> = LazyLock::new(|| {
    let settings = TokenSettings {
        issuer: "https://idp.example".into(),
        source: TokenSource::KeyFile("jwks.json".into()),
        audience: "kafka".into(),
        algorithms: vec!["ES256".into()],
        clock_skew: Duration::from_secs(30),
        required_scopes: vec!["kafka".into()],
        claims: Vec::new(),
        principal_claim: "sub".into(),
        principal_prefix: String::new(),
        tenant_claim: Some("tenant_id".into()),
        groups_claim: Some("groups".into()),
        session_max: Some(Duration::from_secs(3600)),
        certificate_bound: false,
        types: vec!["JWT".into()],
        token_bytes_max: 16 * 1024,
    };
    let Ok(verifier) = Verifier::new(&settings, JWKS) else {
        panic!("the key set is good");
    };
    Mechanisms {
        oauthbearer: Some(Issuers::new(vec![verifier], 16 * 1024)),
        ..Mechanisms::default()
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((which, data)) = input.split_first() else {
        return;
    };
    LazyLock::force(&OFFERED);
    match which % 10 {
        0 => bounded(data, frame_and_header),
        1 => bounded(data, walked),
        2 => conversation(data),
        3 => bounded(data, |data| drop(sasl::parse_client_first(data, 16 * 1024))),
        4 => bounded(data, token),
        5 => bounded(data, |data| drop(json::parse_object(data))),
        6 => bounded(data, certificates),
        7 => bounded(data, answers),
        8 => bounded(data, record_heads),
        _ => bounded(data, decoded),
    }
});

/// Reads one message; what is allocated for it is added up, freed or not.
fn bounded<'a, T>(message: &'a [u8], read: impl FnOnce(&'a [u8]) -> T) -> T {
    let region = Region::new(ALLOCATOR);
    let result = read(message);
    let allocated = region.change().bytes_allocated;
    assert!(
        allocated <= UNAUTHENTICATED_FRAME_BYTES_MAX,
        "{allocated} bytes allocated for a message of {}",
        message.len()
    );
    result
}

fn frame_and_header(data: &[u8]) {
    let _ = frame::body_length(data, UNAUTHENTICATED_FRAME_BYTES_MAX);
    let _ = header::peek(data);
    for flexible in [false, true] {
        let _ = RequestHeader::read(data, flexible);
        let _ = header::read_response(data, flexible);
    }
}

/// Any message of any API in any version; nothing may be allocated for it.
fn message(data: &[u8]) -> Option<(&'static Message, i16, &[u8])> {
    let ([key, version], body) = data.split_first_chunk()?;
    let layout = layout(i16::from(key & 0x7f))?;
    let message = match key & 0x80 {
        0 => &layout.request,
        _ => &layout.response,
    };
    Some((message, i16::from(*version), body))
}

fn walked(data: &[u8]) {
    let Some((message, version, body)) = message(data) else {
        return;
    };
    let region = Region::new(ALLOCATOR);
    let _ = walk_prefix(message, version, body, &mut Nothing);
    assert_eq!(region.change().bytes_allocated, 0, "a walk allocates");
}

/// What is decoded is encoded again and walked.
fn decoded(data: &[u8]) {
    let Some((message, version, body)) = message(data) else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    if let Ok((node, _)) = tree::decode_prefix(message, version, &body, 256) {
        let bytes = tree::encode_to_bytes(&node, message, version);
        assert_eq!(walk_prefix(message, version, &bytes, &mut Nothing), Ok(0));
    }
}

/// Frames of a connection that authenticates, each with a length of two bytes. A client may ask
/// for versions of the future as often as it likes, so it is each frame that has a bound.
fn conversation(data: &[u8]) {
    let mut handshake = Handshake::initial();
    let mut reader = Reader::new(data);
    while let Ok(length) = reader.u16() {
        let length = usize::from(length).min(reader.remaining());
        let Ok(frame) = reader.take(length) else {
            return;
        };
        match bounded(frame, |frame| answered(&mut handshake, frame)) {
            Step::Send(_) | Step::SendVersions(..) | Step::Refuse(..) => {}
            Step::Done(..) | Step::Prove(_) => panic!("nobody has the key"),
            Step::Fail(..) => return,
        }
    }
}

/// What is answered to a frame, the judgement of a token included.
fn answered(handshake: &mut Handshake, frame: &[u8]) -> Step {
    let frame = Bytes::copy_from_slice(frame);
    match handshake.step(&frame, &OFFERED) {
        Step::Prove(Evidence::Bearer(token)) => {
            let outcome = verify(&token).map(|proven| Outcome::Proven(proven, Bytes::new()));
            handshake.proven(outcome.map_err(Into::into), SystemTime::UNIX_EPOCH)
        }
        step => step,
    }
}

fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(verify(text).is_err());
    }
}

fn verify(token: &str) -> Result<Proven, TokenError> {
    let issuers = OFFERED.oauthbearer.as_ref().expect("it is offered");
    issuers.verify(token, None, SystemTime::UNIX_EPOCH)
}

fn certificates(data: &[u8]) {
    for from in [
        CertificateName::CommonName,
        CertificateName::Dns,
        CertificateName::Spiffe,
        CertificateName::DistinguishedName,
    ] {
        let settings = MtlsSettings {
            from,
            prefix: String::new(),
            rules: None,
            anonymous: None,
            tenant: String::new(),
        };
        let _ = certificate::principal_from_der(data, &settings);
    }
}

fn answers(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let _ = frames::illegal_state(&frame);
    let _ = frames::unsupported_versions_answer(data);
}

fn record_heads(data: &[u8]) {
    let _ = records::inspect(data);
    let Some((version, body)) = data.split_first() else {
        return;
    };
    let mut outline = produce::Outline::new(i16::from(version % 14));
    let mut at = 0;
    loop {
        match outline.next(&body[at..]) {
            (read, produce::Next::Topic(_)) => at += read,
            (read, produce::Next::Records { bytes, .. }) => {
                at = body.len().min((at + read).saturating_add(bytes));
            }
            (_, produce::Next::Short | produce::Next::End) => break,
        }
    }
}
