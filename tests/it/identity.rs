//! Who a client is: by certificate, by token, or by where it stands.

use kordon::demo::client::{Client, ClientError};

use serde_json::json;

use crate::support::*;

/// The code of one produced record; `None`: the client is not let in.
async fn writes(client: Result<Client, ClientError>, topic: &str) -> Option<i16> {
    let answer = client.ok()?.produce(topic, 0, batch(&[b"x"])).await.ok()?;
    Some(part(&answer, topic, 0).error_code)
}

fn tls_lab() -> Lab {
    Lab::with(|setup| setup.tls = true)
}

#[tokio::test]
async fn the_common_name_of_a_certificate_is_the_principal() {
    let lab = tls_lab();
    for (name, code) in [("alice", 0), ("bob", 29), ("Alice", 29), ("User:alice", 29)] {
        let client = lab.tls("mesh", "localhost", Some(&[name])).await;
        assert_eq!(writes(client, "open.a").await, Some(code), "{name}");
    }
    let line = lab.audit(&[("principal", "User:bob"), ("decision", "deny")]);
    assert_eq!(
        (&line["listener"], &line["tenant"]),
        (&"mesh".into(), &"shop".into())
    );
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(1));
}

#[tokio::test]
async fn without_a_certificate_nobody_comes_in() {
    let lab = tls_lab();
    assert_eq!(
        writes(lab.tls("mesh", "localhost", None).await, "open.a").await,
        None
    );
    lab.metric_is("kordon_authentication_failures_total", &["tls"], 1.0);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let lab = tls_lab();
    let foreign = Pki::new();
    let tls = lab.pki.as_ref().unwrap().client(&foreign, Some(&["alice"]));
    let client = Client::connect_tls(lab.address("mesh"), "localhost", tls, "it").await;
    assert_eq!(writes(client, "open.a").await, None);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn a_certificate_that_names_two_or_everybody_names_nobody() {
    let lab = tls_lab();
    let all: [&[&str]; 4] = [&["alice", "bob"], &[], &["*"], &[""]];
    for names in all {
        let client = lab.tls("mesh", "localhost", Some(names)).await;
        assert_eq!(writes(client, "open.a").await, None, "{names:?}");
    }
    lab.audit(&[("listener", "mesh"), ("reason", "authentication")]);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn a_listener_with_tls_does_not_speak_without() {
    let lab = tls_lab();
    assert_eq!(writes(Ok(lab.client("mesh").await), "open.a").await, None);
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn each_listener_gives_the_identity_that_it_says() {
    let lab = Lab::ruled(&POLICY.replace(r#""User:other", "#, ""));
    assert_eq!(writes(Ok(lab.app().await), "open.a").await, Some(0));
    assert_eq!(
        writes(Ok(lab.client("other").await), "open.a").await,
        Some(29)
    );
    lab.audit(&[("principal", "User:other"), ("resource", "Topic:open.a")]);
}

#[tokio::test]
async fn a_tokens_subject_is_the_principal_and_its_claim_the_tenant() {
    let lab = Lab::new();
    assert_eq!(
        writes(Ok(lab.authenticated("alice").await), "open.a").await,
        Some(0)
    );
    assert_eq!(
        writes(Ok(lab.authenticated("mallory").await), "open.a").await,
        Some(29)
    );
    let line = lab.audit(&[("principal", "User:mallory"), ("listener", "tokens")]);
    assert_eq!(line["tenant"], "shop");
}

#[tokio::test]
async fn t31_a_star_in_a_principal_matches_only_itself() {
    let policy = POLICY.replace("User:other", "User:*");
    let lab = Lab::ruled(&policy.replace(r#""User:app", "User:*", "User:alice""#, r#""User:ap""#));
    assert_eq!(writes(Ok(lab.app().await), "open.a").await, Some(29));
    let bad = say_token(&mut lab.client("tokens").await, &token("*")).await;
    assert_eq!(&bad.auth_bytes[..], INVALID_TOKEN.as_bytes());
}

#[tokio::test]
async fn a_bound_token_is_good_with_its_certificate_and_with_no_other() {
    // Given a token that belongs to one of two certificates of the same name
    let lab = tls_lab();
    let pki = lab.pki.as_ref().unwrap();
    let (mine, thumbprint) = pki.client_and_thumbprint(pki, Some(&["alice"]));
    let (other, _) = pki.client_and_thumbprint(pki, Some(&["alice"]));
    let bound = json!({"cnf": {"x5t#S256": thumbprint}});
    let bound = Signer::trusted().token("alice", bound);
    let tls = async |tls| {
        let client = Client::connect_tls(lab.address("bound"), "localhost", tls, "it").await;
        client.unwrap()
    };
    // Then
    let mut client = tls(mine.clone()).await;
    assert_eq!(&say_token(&mut client, &bound).await.auth_bytes[..], b"");
    assert_eq!(writes(Ok(client), "open.a").await, Some(0));
    let plain = token("alice");
    for (config, token) in [(other, &bound), (mine, &plain)] {
        let refused = say_token(&mut tls(config).await, token).await;
        assert_eq!(&refused.auth_bytes[..], INVALID_TOKEN.as_bytes());
    }
    // A listener that asks for no certificate does not take it for a plain token either.
    let refused = say_token(&mut lab.client("tokens").await, &bound).await;
    assert_eq!(&refused.auth_bytes[..], INVALID_TOKEN.as_bytes());
}
