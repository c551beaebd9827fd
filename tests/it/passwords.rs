//! SASL/PLAIN and SCRAM from the first byte to the end of a session.

use std::num::NonZeroU32;

use kafka_protocol::messages::SaslAuthenticateResponse;
use kordon::demo::client::Client;
use kordon::identity::scram::{Credential, Hash, ScramClient};

use crate::support::*;

pub const PASSWORD: &str = "correct-horse";
const REFUSED: &str = "Authentication failed: Invalid username or password";

pub fn entry(name: &str) -> String {
    let iterations = NonZeroU32::new(4096).unwrap();
    let texts = [Hash::Sha256, Hash::Sha512]
        .map(|hash| Credential::of_password(hash, PASSWORD, b"salt", iterations).text());
    format!("- {{name: {name}, credential: {texts:?}}}\n")
}

fn lab() -> Lab {
    Lab::with(|setup| {
        setup.tls = true;
        setup.users = Some(format!("users:\n{}{}", entry("alice"), entry("other")));
    })
}

async fn client(lab: &Lab, mechanism: &str) -> Client {
    let mut client = lab.tls("passwords", "localhost", None).await.unwrap();
    let offered = client.call(1, &handshake(mechanism)).await.unwrap();
    assert_eq!(offered.error_code, 0);
    assert_eq!(offered.mechanisms.len(), 4);
    client
}

pub async fn plain(client: &mut Client, message: &str) -> SaslAuthenticateResponse {
    client.call(2, &sasl(message.to_owned())).await.unwrap()
}

/// A SCRAM exchange; the server's signature is checked.
pub async fn scram(
    client: &mut Client,
    hash: Hash,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse {
    let (mut own, first) = ScramClient::first(hash, user, "nonce");
    let challenge = client.call(2, &sasl(first)).await.unwrap();
    if challenge.error_code != 0 {
        return challenge;
    }
    let proof = own.second(&challenge.auth_bytes, password).unwrap();
    let last = client.call(2, &sasl(proof)).await.unwrap();
    if last.error_code == 0 {
        assert_eq!(own.finish(&last.auth_bytes), Ok(()));
    }
    last
}

async fn can_write(client: &mut Client, topic: &str) -> bool {
    let answer = client.produce(topic, 0, batch(&[b"x"])).await.unwrap();
    part(&answer, topic, 0).error_code == 0
}

#[tokio::test]
async fn a_password_opens_a_session_with_the_users_rights() {
    let lab = lab();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut client = client(&lab, mechanism).await;
        let answer = match mechanism {
            "PLAIN" => plain(&mut client, &format!("\0alice\0{PASSWORD}")).await,
            "SCRAM-SHA-256" => scram(&mut client, Hash::Sha256, "alice", PASSWORD).await,
            _ => scram(&mut client, Hash::Sha512, "alice", PASSWORD).await,
        };
        assert_eq!(answer.error_code, 0, "{mechanism} {answer:?}");
        assert_eq!(answer.session_lifetime_ms, 3_600_000);
        assert!(can_write(&mut client, "open.a").await);
        assert!(!can_write(&mut client, "secret.a").await);
        let line = lab.audit(&[("principal", "User:alice"), ("reason", "authorization")]);
        assert_eq!(line["tenant"], "shop");
    }
}

#[tokio::test]
async fn handshake_v0_takes_bare_messages() {
    use bytes::{BufMut, BytesMut};
    async fn say(client: &mut Client, text: &str) -> Option<String> {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_slice(text.as_bytes());
        client.send_raw(frame).await.unwrap();
        let answer = next(client).await?;
        Some(String::from_utf8(answer.to_vec()).unwrap())
    }
    let lab = lab();
    let mut client = lab.tls("passwords", "localhost", None).await.unwrap();
    client.call(0, &handshake("SCRAM-SHA-512")).await.unwrap();
    let (mut own, first) = ScramClient::first(Hash::Sha512, "alice", "nonce");
    let challenge = say(&mut client, &first).await.unwrap();
    let proof = own.second(challenge.as_bytes(), PASSWORD).unwrap();
    let last = say(&mut client, &proof).await.unwrap();
    assert_eq!(own.finish(last.as_bytes()), Ok(()));
    assert!(can_write(&mut client, "open.a").await);
    // What is wrong is told by the end alone.
    let mut client = lab.tls("passwords", "localhost", None).await.unwrap();
    client.call(0, &handshake("PLAIN")).await.unwrap();
    assert_eq!(say(&mut client, "\0alice\0wrong-horse").await, None);
}

#[tokio::test]
async fn what_proves_nothing_is_refused_in_kafkas_words_and_recorded_without_the_password() {
    let lab = lab();
    let generic = |mechanism: &str| {
        format!(
            "Authentication failed during authentication due to invalid credentials with SASL \
             mechanism {mechanism}"
        )
    };
    let mut count = 0.0;
    for (message, text, detail) in [
        ("\0alice\0wrong-horse", REFUSED, "password is wrong"),
        ("\0nobody\0wrong-horse", REFUSED, "user is unknown"),
        ("\0Alice\0wrong-horse", REFUSED, "user is unknown"),
        (
            "alice\0wrong-horse",
            "Invalid SASL/PLAIN response: expected 3 tokens, got 2",
            "Invalid SASL/PLAIN response: expected 3 tokens, got 2",
        ),
        (
            "other\0alice\0correct-horse",
            "Authentication failed: Client requested an authorization id that is different from \
             username",
            "authorization id differs from the user",
        ),
    ] {
        let mut client = client(&lab, "PLAIN").await;
        let answer = plain(&mut client, message).await;
        assert_eq!(answer.error_code, 58);
        assert_eq!(answer.error_message.as_deref(), Some(text));
        assert!(client.is_closed().await);
        let line = lab.audit(&[("reason", "authentication"), ("detail", detail)]);
        assert_eq!(line["listener"], "passwords");
        count += 1.0;
        lab.metric_is("kordon_authentication_failures_total", &["plain"], count);
    }
    for (user, detail) in [
        ("alice", "scram proof is wrong"),
        ("nobody", "user is unknown"),
    ] {
        let mut client = client(&lab, "SCRAM-SHA-256").await;
        let answer = scram(&mut client, Hash::Sha256, user, "wrong-horse").await;
        assert_eq!(answer.error_code, 58);
        let text = answer.error_message.as_deref();
        assert_eq!(text, Some(generic("SCRAM-SHA-256").as_str()));
        assert!(client.is_closed().await);
        lab.audit(&[("reason", "authentication"), ("detail", detail)]);
    }
    lab.metric_is("kordon_authentication_failures_total", &["scram"], 2.0);
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
    let written = lab.file("audit.jsonl") + &lab.log();
    assert!(!written.contains("horse"), "{written}");
}

#[tokio::test]
async fn t06_authenticating_again_takes_the_same_user_and_the_same_mechanism() {
    let lab = lab();
    let mut same = client(&lab, "PLAIN").await;
    plain(&mut same, &format!("\0alice\0{PASSWORD}")).await;
    assert_eq!(
        same.call(1, &handshake("PLAIN")).await.unwrap().error_code,
        0
    );
    let answer = plain(&mut same, &format!("\0other\0{PASSWORD}")).await;
    assert_eq!(answer.error_code, 58);
    let text = answer.error_message.unwrap();
    assert!(text.contains("from User.alice: User.other"), "{text}");
    assert!(same.is_closed().await);

    let mut changed = client(&lab, "PLAIN").await;
    plain(&mut changed, &format!("\0alice\0{PASSWORD}")).await;
    let offered = changed.call(1, &handshake("SCRAM-SHA-512")).await.unwrap();
    assert_eq!(offered.error_code, 0);
    let (_, first) = ScramClient::first(Hash::Sha512, "alice", "nonce");
    changed.send(2, &sasl(first)).await.unwrap();
    assert!(next(&mut changed).await.is_none());
    lab.audit(&[("detail", "mechanism changed during re-authentication")]);
}

#[tokio::test]
async fn users_change_with_a_reload_and_a_broken_file_changes_nothing() {
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.users = Some(format!("users:\n{}", entry("alice")));
    });
    let can = async |name: &str| {
        let mut client = client(&lab, "PLAIN").await;
        let message = format!("\0{name}\0{PASSWORD}");
        plain(&mut client, &message).await.error_code == 0
    };
    assert!(can("alice").await && !can("other").await);
    let broken = "users: [{name: other, password: x}]";
    std::fs::write(lab.path("users.yaml"), broken).unwrap();
    lab.reload_in_vain(POLICY);
    assert!(can("alice").await && !can("other").await);
    let other = format!("users:\n{}", entry("other"));
    std::fs::write(lab.path("users.yaml"), other).unwrap();
    lab.reload_in_vain(POLICY);
    assert!(can("other").await && !can("alice").await);
}
