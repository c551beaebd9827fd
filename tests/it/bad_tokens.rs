//! Tokens that prove nothing, over the whole way: each is shown in a real SASL exchange, refused
//! as a broker refuses it, and its reason stands in the audit log. What makes each bad is the
//! only thing that is wrong with it: a good one comes in before and behind them.
//!
//! The corpus of the verifier (`src/identity/token/tests/corpus.rs`) says why each is refused;
//! here it counts that whatever the verifier refuses is refused to the end. What both try is told
//! once, in `faults.rs` beside that one.

use std::time::{Duration, Instant};

use kordon::demo::client::Client;
use kordon::identity::token::TokenError;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::*;
use faults::{Case, Forge, Key};

#[path = "../../src/identity/token/tests/faults.rs"]
mod faults;

/// How long a line of the audit log may take.
const LINE_LIMIT: Duration = Duration::from_secs(10);

fn forge() -> Forge {
    let key = || Key {
        alg: "ES256",
        kid: "k1",
        sign: Box::new(|message| Signer::trusted().signature(message)),
    };
    let stranger = Signer::with_key_id("own");
    Forge {
        key: key(),
        elliptic: key(),
        stranger_jwk: stranger.jwks["keys"][0].clone(),
        stranger: Box::new(move |message| stranger.signature(message)),
        claims: Signer::claims("alice"),
        now: now(),
        // The clock goes on while they are shown.
        ahead: 600,
        // None: what is bound to any is refused.
        shown: "B".repeat(42) + "A",
    }
}

/// What the audit log says of each failed authentication, once there are `count`.
async fn reasons(lab: &Lab, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let text = lab.file("audit.jsonl");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        let refused = lines.filter(|line| line["reason"] == "authentication");
        let found: Vec<String> = refused
            .map(|line| line["detail"].as_str().unwrap_or_default().to_owned())
            .collect();
        if found.len() >= count {
            return found;
        }
        assert!(
            begun.elapsed() < LINE_LIMIT,
            "{count} lines expected:\n{text}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The client has read that its token is bad, and says so.
async fn gives_up(name: &str, mut client: Client) {
    let last = client.call(2, &sasl(&b"\x01"[..])).await.unwrap();
    let text = last.error_message.as_deref();
    assert_eq!((last.error_code, text), (58, Some(INVALID_TOKEN)), "{name}");
    assert!(client.is_closed().await, "{name}");
}

#[tokio::test]
async fn t33_every_bad_token_is_refused_over_sasl_for_its_own_reason() {
    // Given
    let lab = Lab::new();
    let forge = forge();
    for same in forge.good() {
        let good = say_token(&mut lab.client("tokens").await, &same).await;
        assert_eq!((good.error_code, good.auth_bytes.len()), (0, 0));
    }
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
    let unlisted = forge.headed_with("alg", json!("RS256"));
    let cases: Vec<Case> = [
        forge.cases(),
        vec![("alg not listed", unlisted, TokenError::Algorithm)],
    ]
    .concat();
    assert!(cases.len() >= 120, "{}", cases.len());
    // When each is shown, and the client is told
    let mut ends = JoinSet::new();
    let mut wrong = Vec::new();
    for (at, (name, bad, why)) in cases.iter().enumerate() {
        let mut client = lab.client("tokens").await;
        let first = say_token(&mut client, bad).await;
        let told = (
            first.error_code,
            first.session_lifetime_ms,
            &first.auth_bytes[..],
        );
        if told != (0, 0, INVALID_TOKEN.as_bytes()) {
            wrong.push(format!("{name}: {first:?}"));
            continue;
        }
        // Then why stands in the audit log, before the client says anything more
        let found = reasons(&lab, at + 1).await;
        if found[at] != why.to_string() {
            wrong.push(format!("{name}: {}, expected {why}", found[at]));
        }
        ends.spawn(gives_up(name, client));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    ends.join_all().await;
    // Then nothing was sent on, or written twice, and nobody else suffers
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
    let failures = cases.len() as f64;
    lab.metric_is(
        "kordon_authentication_failures_total",
        &["oauthbearer"],
        failures,
    );
    let log = lab.file("audit.jsonl");
    for (name, bad, _) in &cases {
        assert!(!log.contains(bad.as_str()), "{name}");
    }
    assert_eq!(reasons(&lab, 0).await.len(), cases.len());
    lab.authenticated("alice").await;
}

#[tokio::test]
async fn a_token_outside_the_grammar_is_refused_at_once_and_recorded() {
    let lab = Lab::new();
    let forge = forge();
    let parts = |put: fn(&str, &str, &str) -> String| forge.parts(put);
    let bad = [
        ("empty", String::new()),
        (
            "blank before a dot",
            parts(|h, c, s| format!("{h} .{c}.{s}")),
        ),
        ("padded header", parts(|h, c, s| format!("{h}=.{c}.{s}"))),
        ("padded claims", parts(|h, c, s| format!("{h}.{c}==.{s}"))),
        ("nul", parts(|h, c, s| format!("{h}.{c}.{s}\0"))),
        (
            "a letter beyond ascii",
            parts(|h, c, s| format!("{h}.{c}.{s}é")),
        ),
    ];
    for (at, (name, token)) in bad.iter().enumerate() {
        let mut client = lab.client("tokens").await;
        let only = say_token(&mut client, token).await;
        assert_eq!((only.error_code, only.auth_bytes.len()), (58, 0), "{name}");
        assert!(client.is_closed().await, "{name}");
        assert_eq!(reasons(&lab, at + 1).await.len(), at + 1, "{name}");
    }
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
}

#[tokio::test]
async fn a_client_that_hangs_up_once_it_is_told_has_left_its_line() {
    let lab = Lab::new();
    let mut client = lab.client("tokens").await;
    say_token(&mut client, &forge().with("aud", json!("web"))).await;
    drop(client);
    assert_eq!(reasons(&lab, 1).await, [TokenError::Audience.to_string()]);
    lab.metric_is(
        "kordon_authentication_failures_total",
        &["oauthbearer"],
        1.0,
    );
}
