//! SASL/OAUTHBEARER from the first byte to the end of a session (kafka-semantics: KIP-43,
//! KIP-152, KIP-255, KIP-368, KIP-511).

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, HeartbeatRequest, MetadataRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kordon::demo::client::{Client, fetch_request, produce_request};
use serde_json::json;

use crate::support::*;

/// An open session that can write.
async fn can_write(client: &mut Client) -> bool {
    let answer = client.produce("open.a", 0, batch(&[b"x"])).await.unwrap();
    part(&answer, "open.a", 0).error_code == 0
}

#[tokio::test]
async fn a_good_token_opens_a_session_that_lives_as_long_as_the_token() {
    let lab = Lab::new();
    for version in 0..=2 {
        let mut client = lab.client("tokens").await;
        client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
        let token = Signer::trusted().token("alice", json!({"exp": now() + 100}));
        let answer = client
            .call(version, &sasl(first_message(&token)))
            .await
            .unwrap();
        assert_eq!((answer.error_code, answer.auth_bytes.len()), (0, 0));
        let expected = if version == 0 {
            0..=0
        } else {
            95_000..=101_000
        };
        assert!(expected.contains(&answer.session_lifetime_ms), "{answer:?}");
        assert!(can_write(&mut client).await);
    }
}

#[tokio::test]
async fn the_configured_session_is_the_limit_where_the_token_lives_longer() {
    let lab = Lab::with(|setup| setup.max_session = "5s");
    let answer = say_token(&mut lab.client("tokens").await, &token("alice")).await;
    assert_eq!(answer.session_lifetime_ms, 5_000);
}

#[tokio::test]
async fn handshake_v0_takes_a_raw_token() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    let offered = client.call(0, &handshake("OAUTHBEARER")).await.unwrap();
    assert_eq!(offered.error_code, 0);
    raw(&mut client, &first_message(&token("alice"))).await;
    assert_eq!(next(&mut client).await.unwrap().len(), 0);
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn handshake_v0_says_bare_that_a_token_is_bad_and_then_nothing() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    client.call(0, &handshake("OAUTHBEARER")).await.unwrap();
    let expired = Signer::trusted().token("alice", json!({"exp": now() - 100}));
    raw(&mut client, &first_message(&expired)).await;
    let text = next(&mut client).await.unwrap();
    assert_eq!(&text[..], INVALID_TOKEN.as_bytes());
    raw(&mut client, b"\x01").await;
    assert!(next(&mut client).await.is_none());
}

async fn raw(client: &mut Client, bytes: &[u8]) {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_slice(bytes);
    client.send_raw(frame).await.unwrap();
}

#[tokio::test]
async fn a_bad_token_is_told_twice_late_and_then_the_connection_ends() {
    let lab = Lab::new();
    let trusted = Signer::trusted();
    for bad in [
        trusted.token("alice", json!({"exp": now() - 100})),
        trusted.token("alice", json!({"aud": "other"})),
        trusted.token("alice", json!({"iss": "https://elsewhere.example"})),
        trusted.token("alice", json!({"scope": "mail"})),
        trusted.token("alice", json!({"iat": now() + 500, "nbf": now() + 500})),
        trusted.token("*", json!({})),
        Signer::new().token("alice", json!({})),
        "e30.e30.".to_owned(),
    ] {
        let mut client = lab.client("tokens").await;
        let first = say_token(&mut client, &bad).await;
        assert_eq!((first.error_code, first.session_lifetime_ms), (0, 0));
        assert_eq!(&first.auth_bytes[..], INVALID_TOKEN.as_bytes());
        let begun = Instant::now();
        let last = client.call(2, &sasl(&b"\x01"[..])).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100));
        let text = last.error_message.as_deref();
        assert_eq!((last.error_code, text), (58, Some(INVALID_TOKEN)));
        assert!(client.is_closed().await);
        lab.audit(&[
            ("listener", "tokens"),
            ("reason", "authentication"),
            ("decision", "deny"),
        ]);
        assert!(!lab.file("audit.jsonl").contains(&bad));
    }
    lab.metric_is(
        "kordon_authentication_failures_total",
        &["oauthbearer"],
        8.0,
    );
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
}

#[tokio::test]
async fn t05_a_second_token_after_a_refused_one_is_judged_and_the_first_was_recorded() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    say_token(&mut client, "bad.bad.bad").await;
    let again = sasl(first_message("worse.worse.worse"));
    let answer = client.call(2, &again).await.unwrap();
    assert_eq!(&answer.auth_bytes[..], INVALID_TOKEN.as_bytes());
    lab.metric_is(
        "kordon_authentication_failures_total",
        &["oauthbearer"],
        2.0,
    );
    let good = sasl(first_message(&token("alice")));
    let answer = client.call(2, &good).await.unwrap();
    assert_eq!((answer.error_code, answer.auth_bytes.len()), (0, 0));
    assert!(can_write(&mut client).await);
    lab.audit(&[("listener", "tokens"), ("reason", "authentication")]);
}

#[tokio::test]
async fn t05_produce_before_authentication_reaches_nobody() {
    let lab = Lab::new();
    let write = produce_request("open.a", 0, batch(&[b"x"]), -1);
    // First of all; behind the handshake; behind ApiVersions; behind a refused token.
    for case in 0..4 {
        let mut client = lab.client("tokens").await;
        match case {
            1 => client.send(1, &handshake("OAUTHBEARER")).await.unwrap(),
            2 => client.send(3, &versions("it")).await.unwrap(),
            3 => drop(say_token(&mut client, "bad.bad.bad").await),
            _ => {}
        }
        client.send(9, &write).await.unwrap();
        assert!(ends(&mut client).await, "case {case}");
    }
    assert_eq!(lab.broker().requests(0), 0);
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(0));
}

#[tokio::test]
async fn t05_requests_between_handshake_and_token_get_their_own_error_and_the_end() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
    let answer = client.call(4, &HeartbeatRequest::default()).await.unwrap();
    assert_eq!(answer.error_code, 34);
    assert!(client.is_closed().await);
    assert_eq!(lab.broker().requests(12), 0);
}

#[tokio::test]
async fn t05_metadata_and_produce_in_that_place_get_an_error_for_what_they_name() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
    let topic = MetadataRequestTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("open.a"))));
    let every = MetadataRequest::default().with_topics(Some(vec![topic]));
    let answer = client.call(9, &every).await.unwrap();
    assert_eq!(answer.brokers.len(), 0);
    let codes: Vec<_> = answer.topics.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [34]);
    assert!(client.is_closed().await);
    let mut client = lab.client("tokens").await;
    client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
    let write = produce_request("open.a", 0, batch(&[b"x"]), -1);
    let answer = client.call(9, &write).await.unwrap();
    let refused = part(&answer, "open.a", 0);
    assert_eq!((refused.error_code, refused.base_offset), (34, -1));
    let text = "Unexpected Kafka request of type PRODUCE during SASL authentication.";
    assert_eq!(refused.error_message.as_deref(), Some(text));
    assert!(client.is_closed().await);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn t05_every_other_api_is_closed_before_authentication() {
    let lab = Lab::new();
    for key in (0..93)
        .filter(|key| ![17, 18, 36].contains(key))
        .chain([-1, 10_000, 32_767])
    {
        let mut client = lab.client("tokens").await;
        send_bytes(&mut client, key, 0, &[0; 8]).await;
        assert!(next(&mut client).await.is_none(), "key {key}");
    }
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
}

#[tokio::test]
async fn an_unknown_mechanism_is_told_which_there_are() {
    let lab = Lab::new();
    for mechanism in ["PLAIN", "SCRAM-SHA-512", "", "oauthbearer"] {
        let mut client = lab.client("tokens").await;
        let answer = client.call(1, &handshake(mechanism)).await.unwrap();
        assert_eq!(answer.error_code, 33);
        assert_eq!(answer.mechanisms.len(), 1);
        assert_eq!(&*answer.mechanisms[0], "OAUTHBEARER");
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn api_versions_may_come_once_before_the_handshake() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    let answer = client.call(3, &versions("it")).await.unwrap();
    let produce = answer.api_keys.iter().find(|api| api.api_key == 0).unwrap();
    assert_eq!((answer.error_code, produce.min_version), (0, 0));
    client.send(3, &versions("it")).await.unwrap();
    assert!(next(&mut client).await.is_none());
}

#[tokio::test]
async fn api_versions_of_the_future_are_answered_in_version_0_and_the_handshake_follows() {
    let lab = Lab::new();
    for authenticated in [false, true] {
        let mut client = match authenticated {
            false => lab.client("tokens").await,
            true => lab.app().await,
        };
        send_bytes(&mut client, 18, 99, &[0, 1, 2, 3]).await;
        let answer = next(&mut client).await.unwrap();
        let expected: [u8; 16] = [0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
        assert_eq!(&answer[..], expected);
        if !authenticated {
            client.call(3, &versions("it")).await.unwrap();
            say_token(&mut client, &token("alice")).await;
        }
        assert!(can_write(&mut client).await);
    }
}

#[tokio::test]
async fn a_bad_software_name_is_an_invalid_request_and_the_connection_stays() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    for name in ["", "a-", "a b", "a_b"] {
        let answer = client.call(3, &versions(name)).await.unwrap();
        assert_eq!(answer.error_code, 42, "{name:?}");
    }
    assert_eq!(
        client
            .call(3, &versions("a.b-c1"))
            .await
            .unwrap()
            .error_code,
        0
    );
    say_token(&mut client, &token("alice")).await;
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn long_frames_before_authentication_end_the_connection() {
    let lab = Lab::new();
    for (claim, closed) in [
        (524_289, true),
        (i32::MAX, true),
        (-1, true),
        (524_288, false),
    ] {
        let mut client = lab.client("tokens").await;
        let mut stream = tokio::net::TcpStream::connect(lab.address("tokens"))
            .await
            .unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_i32(claim).await.unwrap();
        let wait = Duration::from_millis(if closed { 10_000 } else { 100 });
        let read = tokio::time::timeout(wait, stream.read_u8()).await;
        assert_eq!(read.is_ok_and(|read| read.is_err()), closed, "{claim}");
        // Others are not concerned.
        say_token(&mut client, &token("alice")).await;
    }
}

#[tokio::test]
async fn sasl_on_a_listener_without_it_is_out_of_place_and_the_connection_stays() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 0..=1 {
        let answer = client
            .call(version, &handshake("OAUTHBEARER"))
            .await
            .unwrap();
        assert_eq!(answer.error_code, 34);
    }
    let answer = client
        .call(2, &sasl(first_message(&token("root"))))
        .await
        .unwrap();
    assert_eq!(answer.error_code, 34);
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn an_authorization_id_must_be_the_principal() {
    let lab = Lab::new();
    for (name, code) in [("alice", 0), ("root", 58)] {
        let mut client = lab.client("tokens").await;
        client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
        let text = format!("n,a={name},\u{1}auth=Bearer {}\u{1}\u{1}", token("alice"));
        let answer = client.call(2, &sasl(text)).await.unwrap();
        assert_eq!(answer.error_code, code);
        let silent = answer.error_message.is_none_or(|text| text.is_empty());
        assert_eq!(code == 0, silent);
        if code == 58 {
            assert!(client.is_closed().await);
        }
    }
}

#[tokio::test]
async fn an_unreadable_first_message_is_refused_in_kafkas_words() {
    let lab = Lab::new();
    for bytes in [
        "",
        "n,,",
        "y,,\u{1}auth=Bearer x\u{1}\u{1}",
        "n,,\u{1}auth=Bearer\u{1}\u{1}",
    ] {
        let mut client = lab.client("tokens").await;
        client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
        let answer = client.call(2, &sasl(bytes)).await.unwrap();
        let text = "Authentication failed during authentication due to invalid credentials with \
                    SASL mechanism OAUTHBEARER";
        assert_eq!(
            (answer.error_code, answer.error_message.as_deref()),
            (58, Some(text))
        );
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn authenticating_again_extends_the_session() {
    let lab = Lab::with(|setup| setup.max_session = "2s");
    let mut client = lab.authenticated("alice").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let answer = say_token(&mut client, &token("alice")).await;
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 2_000));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn t06_authenticating_again_as_somebody_else_ends_the_connection() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    let answer = say_token(&mut client, &token("other")).await;
    assert_eq!(answer.error_code, 58);
    let text = answer.error_message.unwrap();
    assert!(
        text.starts_with("Cannot change principals during re-authentication"),
        "{text}"
    );
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn t06_a_refused_token_ends_a_session_that_was_good() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    let answer = say_token(&mut client, "bad.bad.bad").await;
    assert_eq!(&answer.auth_bytes[..], INVALID_TOKEN.as_bytes());
    let last = client.call(2, &sasl(&b"\x01"[..])).await.unwrap();
    assert_eq!(last.error_code, 58);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn t06_nothing_else_may_come_while_authenticating_again() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
    client
        .send(9, &produce_request("open.a", 0, batch(&[b"x"]), -1))
        .await
        .unwrap();
    let (_, answer) = answer::<ProduceRequest>(&mut client, 9).await;
    assert_eq!(part(&answer, "open.a", 0).error_code, 34);
    assert!(client.is_closed().await);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn t07_an_expired_session_ends_with_the_next_request() {
    let lab = Lab::with(|setup| setup.max_session = "300ms");
    let mut client = lab.authenticated("alice").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.send(12, &MetadataRequest::default()).await.unwrap();
    assert!(next(&mut client).await.is_none());
    lab.audit(&[("principal", "User:alice"), ("reason", "expired")]);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn t07_an_expired_session_may_authenticate_again_if_that_comes_first() {
    let lab = Lab::with(|setup| setup.max_session = "1s");
    let mut client = lab.authenticated("alice").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answer = say_token(&mut client, &token("alice")).await;
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 1_000));
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn t07_a_long_poll_ends_with_its_session_and_is_not_answered() {
    let lab = Lab::with(|setup| setup.max_session = "500ms");
    let mut client = lab.authenticated("alice").await;
    let poll = fetch_request("open.a", 0, 0, Duration::from_secs(300));
    let begun = Instant::now();
    client.send(11, &poll).await.unwrap();
    assert!(next(&mut client).await.is_none());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    lab.audit(&[("principal", "User:alice"), ("reason", "expired")]);
}

#[tokio::test]
async fn t07_a_long_poll_goes_on_where_the_client_authenticates_again_in_time() {
    let lab = Lab::with(|setup| setup.max_session = "2s");
    let mut client = lab.authenticated("alice").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // Its answer comes after the first session would have ended, and within the second.
    let poll = fetch_request("open.a", 0, 0, Duration::from_millis(1_200));
    client.send(11, &poll).await.unwrap();
    client.send(1, &handshake("OAUTHBEARER")).await.unwrap();
    client
        .send(2, &sasl(first_message(&token("alice"))))
        .await
        .unwrap();
    let (_, polled) = answer::<FetchRequest>(&mut client, 11).await;
    assert_eq!(polled.error_code, 0);
    answer::<SaslHandshakeRequest>(&mut client, 1).await;
    let (_, proven) = answer::<SaslAuthenticateRequest>(&mut client, 2).await;
    assert_eq!((proven.error_code, proven.session_lifetime_ms), (0, 2_000));
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn answers_before_and_during_authentication_carry_the_ids_of_their_requests() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    client.send(3, &versions("it")).await.unwrap();
    client.send(1, &handshake("OAUTHBEARER")).await.unwrap();
    client
        .send(2, &sasl(first_message(&token("alice"))))
        .await
        .unwrap();
    assert_eq!(answer::<ApiVersionsRequest>(&mut client, 3).await.0, 1);
    assert_eq!(answer::<SaslHandshakeRequest>(&mut client, 1).await.0, 2);
    assert_eq!(answer::<SaslAuthenticateRequest>(&mut client, 2).await.0, 3);
    assert!(can_write(&mut client).await);
}

#[tokio::test]
async fn api_versions_offer_sasl_and_nothing_that_is_between_brokers() {
    let lab = Lab::new();
    for version in 0..=4 {
        let mut client = lab.client("tokens").await;
        let answer = client.call(version, &versions("it")).await.unwrap();
        assert_eq!(answer.error_code, 0, "version {version}");
        let keys: Vec<i16> = answer.api_keys.iter().map(|api| api.api_key).collect();
        assert!(
            [0, 1, 3, 17, 18, 36].iter().all(|key| keys.contains(key)),
            "{keys:?}"
        );
        assert!(
            [4, 27, 52, 56, 58, 83]
                .iter()
                .all(|key| !keys.contains(key)),
            "{keys:?}"
        );
        say_token(&mut client, &token("alice")).await;
        let again = client.call(version, &versions("it")).await.unwrap();
        assert_eq!(again.error_code, 0, "version {version}");
        assert!(can_write(&mut client).await);
    }
}

#[tokio::test]
async fn versions_of_sasl_that_do_not_exist_end_the_connection() {
    let lab = Lab::new();
    for (key, version) in [(17, 2), (17, -1), (36, 3), (36, 99)] {
        let mut client = lab.client("tokens").await;
        if key == 36 {
            client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
        }
        send_bytes(&mut client, key, version, &[0; 16]).await;
        assert!(next(&mut client).await.is_none(), "{key} {version}");
    }
}

#[tokio::test]
async fn t06_another_mechanism_ends_the_session() {
    let lab = Lab::new();
    let mut client = lab.authenticated("alice").await;
    client.send(1, &handshake("PLAIN")).await.unwrap();
    assert!(next(&mut client).await.is_none());
}

#[tokio::test]
async fn an_unauthenticated_connection_costs_no_connection_to_the_broker() {
    let lab = Lab::new();
    let before = lab.broker().connections();
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut client = lab.client("tokens").await;
        client.call(1, &handshake("OAUTHBEARER")).await.unwrap();
        open.push(client);
    }
    assert!(lab.broker().connections() <= before);
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
}

#[tokio::test]
async fn t33_a_token_that_is_too_long_is_refused_though_its_signature_is_good() {
    let lab = Lab::new();
    for (bytes, good) in [(8_000, true), (14_000, false), (60_000, false)] {
        let long = json!({"pad": "x".repeat(bytes)});
        let mut client = lab.client("tokens").await;
        let answer = say_token(&mut client, &Signer::trusted().token("alice", long)).await;
        let opened = answer.error_code == 0 && answer.auth_bytes.is_empty();
        assert_eq!(opened, good, "{bytes} bytes");
    }
}
