//! Tokens that prove nothing, over the whole way: each is shown in a real SASL exchange, refused
//! as a broker refuses it, and its reason stands in the audit log. What makes each bad is the
//! only thing that is wrong with it: a good one comes in before and behind them.
//!
//! The corpus of the verifier (`src/identity/token/tests/corpus.rs`) says why each is refused;
//! here it counts that whatever the verifier refuses is refused to the end.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kordon::demo::client::Client;
use kordon::identity::token::TokenError;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::*;

type Case = (&'static str, String, TokenError);

const HEAD: &str = r#"{"alg":"ES256","kid":"k1"}"#;
/// How long a line of the audit log may take.
const LINE_LIMIT: Duration = Duration::from_secs(10);

fn claims() -> Value {
    Signer::claims("alice")
}

/// Signed by the trusted issuer, whatever the texts say.
fn signed(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    Signer::trusted().signed(header, claims)
}

fn headed(header: Value) -> String {
    signed(header.to_string(), claims().to_string())
}

fn with(name: &str, value: Value) -> String {
    Signer::trusted().token("alice", json!({ name: value }))
}

fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    signed(HEAD, claims.to_string())
}

/// A good token's three parts, put together otherwise.
fn parts(put: impl Fn(&str, &str, &str) -> String) -> String {
    let good = token("alice");
    let parts: Vec<&str> = good.split('.').collect();
    put(parts[0], parts[1], parts[2])
}

fn bent(bend: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    parts(|h, c, s| {
        let signature = bend(URL_SAFE_NO_PAD.decode(s).unwrap());
        format!("{h}.{c}.{}", URL_SAFE_NO_PAD.encode(signature))
    })
}

fn structure() -> Vec<Case> {
    use TokenError::{Deep, Duplicate, Long, Malformed};
    let text = claims().to_string();
    let more = |extra: &str| signed(HEAD, format!("{{{extra},{}", &text[1..]));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let not_text = [b"{\"x\":\"\xff\",", &text.as_bytes()[1..]].concat();
    let deep_head = format!("{{\"x\":{},{}", nested(32), &HEAD[1..]);
    vec![
        ("one part", parts(|h, _, _| h.into()), Malformed),
        ("two parts", parts(|h, c, _| format!("{h}.{c}")), Malformed),
        (
            "four parts",
            parts(|h, c, s| format!("{h}.{c}.{s}.{s}")),
            Malformed,
        ),
        (
            "five parts",
            parts(|h, c, s| format!("{h}.{c}.{s}.{s}.{s}")),
            Malformed,
        ),
        ("no header", parts(|_, c, s| format!(".{c}.{s}")), Malformed),
        ("no claims", parts(|h, _, s| format!("{h}..{s}")), Malformed),
        ("header is no json", signed("alg=ES256", &text), Malformed),
        (
            "header is a list",
            signed(format!("[{HEAD}]"), &text),
            Malformed,
        ),
        ("claims are text", signed(HEAD, "\"sub\""), Malformed),
        (
            "claims are a list",
            signed(HEAD, format!("[{text}]")),
            Malformed,
        ),
        ("claims are not utf-8", signed(HEAD, not_text), Malformed),
        (
            "claims and more",
            signed(HEAD, format!("{text}{text}")),
            Malformed,
        ),
        ("half a surrogate", more(r#""x":"\ud800""#), Malformed),
        ("not a number", more(r#""x":NaN"#), Malformed),
        ("comment", more(r#"/* */"x":1"#), Malformed),
        (
            "alg twice",
            signed(r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, &text),
            Duplicate,
        ),
        ("sub twice", more(r#""sub":"admin""#), Duplicate),
        (
            "exp twice, escaped",
            more(r#""\u0065xp":9999999999"#),
            Duplicate,
        ),
        (
            "twice far inside",
            more(r#""x":[{"y":{"a":1,"a":1}}]"#),
            Duplicate,
        ),
        ("deep claims", more(&format!("\"x\":{}", nested(32))), Deep),
        ("deep header", signed(deep_head, &text), Deep),
        (
            "huge",
            more(&format!("\"x\":\"{}\"", "x".repeat(15_000))),
            Long,
        ),
    ]
}

fn header() -> Vec<Case> {
    use TokenError::{Algorithm, Critical, Key, Signature, Type};
    let unsigned = parts(|_, c, _| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"k1"}"#);
        format!("{header}.{c}.")
    });
    let stranger = Signer::new();
    let forged = |name: &str, value: Value| {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        header[name] = value;
        stranger.signed(header.to_string(), claims().to_string())
    };
    let own = stranger.jwks["keys"][0].clone();
    vec![
        ("alg none", unsigned, Algorithm),
        (
            "alg none, signed",
            headed(json!({"alg": "none", "kid": "k1"})),
            Algorithm,
        ),
        ("no alg", headed(json!({"kid": "k1"})), Algorithm),
        (
            "alg a list",
            headed(json!({"alg": ["ES256"], "kid": "k1"})),
            Algorithm,
        ),
        (
            "alg in lower case",
            headed(json!({"alg": "es256", "kid": "k1"})),
            Algorithm,
        ),
        (
            "alg symmetric",
            headed(json!({"alg": "HS256", "kid": "k1"})),
            Algorithm,
        ),
        (
            "alg not listed",
            headed(json!({"alg": "RS256", "kid": "k1"})),
            Algorithm,
        ),
        (
            "kid unknown",
            headed(json!({"alg": "ES256", "kid": "other"})),
            Key,
        ),
        ("kid empty", headed(json!({"alg": "ES256", "kid": ""})), Key),
        (
            "kid a number",
            headed(json!({"alg": "ES256", "kid": 1})),
            Key,
        ),
        (
            "kid null",
            headed(json!({"alg": "ES256", "kid": null})),
            Key,
        ),
        (
            "kid a path",
            headed(json!({"alg": "ES256", "kid": "../../dev/null"})),
            Key,
        ),
        (
            "by a stranger",
            stranger.token("alice", json!({})),
            Signature,
        ),
        ("jwk embedded", forged("jwk", own), Signature),
        (
            "jku",
            forged("jku", json!("https://evil.example/jwks")),
            Signature,
        ),
        (
            "x5u",
            forged("x5u", json!("https://evil.example/x.pem")),
            Signature,
        ),
        ("x5c", forged("x5c", json!(["AAAA"])), Signature),
        (
            "crit",
            headed(json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]})),
            Critical,
        ),
        (
            "crit empty",
            headed(json!({"alg": "ES256", "kid": "k1", "crit": []})),
            Critical,
        ),
        (
            "b64",
            headed(json!({"alg": "ES256", "kid": "k1", "b64": false})),
            Critical,
        ),
        (
            "typ of an id token",
            headed(json!({"alg": "ES256", "kid": "k1", "typ": "id+jwt"})),
            Type,
        ),
        (
            "typ of dpop",
            headed(json!({"alg": "ES256", "kid": "k1", "typ": "dpop+jwt"})),
            Type,
        ),
        (
            "typ a number",
            headed(json!({"alg": "ES256", "kid": "k1", "typ": 1})),
            Type,
        ),
    ]
}

fn signatures() -> Vec<Case> {
    use TokenError::Signature;
    let foreign = token("somebody");
    let foreign = foreign.rsplit('.').next().unwrap();
    let zero = [0; 32];
    vec![
        ("stripped", parts(|h, c, _| format!("{h}.{c}.")), Signature),
        (
            "of another",
            parts(|h, c, _| format!("{h}.{c}.{foreign}")),
            Signature,
        ),
        (
            "cut",
            parts(|h, c, s| format!("{h}.{c}.{}", &s[..s.len() - 4])),
            Signature,
        ),
        (
            "longer",
            parts(|h, c, s| format!("{h}.{c}.{s}AAAA")),
            Signature,
        ),
        (
            "padded",
            parts(|h, c, s| format!("{h}.{c}.{s}==")),
            Signature,
        ),
        (
            "claims swapped",
            parts(|h, _, s| {
                let admin = Signer::claims("admin").to_string();
                format!("{h}.{}.{s}", URL_SAFE_NO_PAD.encode(admin))
            }),
            Signature,
        ),
        ("r zero", bent(|s| [&zero, &s[32..]].concat()), Signature),
        ("s zero", bent(|s| [&s[..32], &zero].concat()), Signature),
        ("zeros", bent(|_| vec![0; 64]), Signature),
        ("ones", bent(|_| vec![0xff; 64]), Signature),
        (
            "halves swapped",
            bent(|s| [&s[32..], &s[..32]].concat()),
            Signature,
        ),
        ("one byte less", bent(|s| s[..63].to_vec()), Signature),
    ]
}

fn content() -> Vec<Case> {
    use TokenError::{
        Audience, Binding, Date, Early, Expired, Groups, Issuer, Principal, Scope, Tenant, Type,
    };
    vec![
        ("no issuer", without("iss"), Issuer),
        (
            "another issuer",
            with("iss", json!("https://evil.example")),
            Issuer,
        ),
        (
            "issuer and a slash",
            with("iss", json!("https://issuer.example/")),
            Issuer,
        ),
        (
            "issuer in a list",
            with("iss", json!(["https://issuer.example"])),
            Issuer,
        ),
        ("no audience", without("aud"), Audience),
        ("another audience", with("aud", json!("web")), Audience),
        (
            "audience in a sentence",
            with("aud", json!("web kafka")),
            Audience,
        ),
        (
            "audience beside a number",
            with("aud", json!(["kafka", 1])),
            Audience,
        ),
        ("marked as id token", with("typ", json!("ID")), Type),
        (
            "marked as refresh token",
            with("typ", json!("Refresh")),
            Type,
        ),
        (
            "expired past the skew",
            with("exp", json!(now() - 31)),
            Expired,
        ),
        ("expired long ago", with("exp", json!(0)), Expired),
        ("no expiry", without("exp"), Date),
        ("expiry in text", with("exp", json!("9999999999")), Date),
        ("expiry null", with("exp", json!(null)), Date),
        ("expiry before time", with("exp", json!(-1)), Date),
        ("expiry beyond time", with("exp", json!(1e300)), Date),
        ("not valid yet", with("nbf", json!(now() + 600)), Early),
        (
            "issued in the future",
            with("iat", json!(now() + 600)),
            Early,
        ),
        ("not issued", without("iat"), Date),
        ("no scope", without("scope"), Scope),
        (
            "scope part of a word",
            with("scope", json!("kafka-admin")),
            Scope,
        ),
        (
            "scope an object",
            with("scope", json!({"kafka": true})),
            Scope,
        ),
        ("no principal", without("sub"), Principal),
        ("principal a number", with("sub", json!(1)), Principal),
        ("principal a list", with("sub", json!(["alice"])), Principal),
        ("principal empty", with("sub", json!("")), Principal),
        ("principal the wildcard", with("sub", json!("*")), Principal),
        (
            "principal with a line",
            with("sub", json!("a\nUser:admin")),
            Principal,
        ),
        (
            "principal with nul",
            with("sub", json!("admin\u{0}")),
            Principal,
        ),
        (
            "principal with a blank",
            with("sub", json!("admin ")),
            Principal,
        ),
        ("tenant a number", with("tenant_id", json!(1)), Tenant),
        ("tenant the wildcard", with("tenant_id", json!("*")), Tenant),
        (
            "groups an object",
            with("groups", json!({"a": true})),
            Groups,
        ),
        (
            "a group the wildcard",
            with("groups", json!(["a", "*"])),
            Groups,
        ),
        (
            "bound to a certificate",
            with("cnf", json!({"x5t#S256": "A".repeat(43)})),
            Binding,
        ),
        (
            "bound by dpop",
            with("cnf", json!({"jkt": "A".repeat(43)})),
            Binding,
        ),
        ("bound to null", with("cnf", json!(null)), Binding),
    ]
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
    let same = signed(HEAD, claims().to_string());
    let good = say_token(&mut lab.client("tokens").await, &same).await;
    assert_eq!((good.error_code, good.auth_bytes.len()), (0, 0));
    lab.metric_is("kordon_upstream_connections", &[], 0.0);
    let cases: Vec<Case> = [structure(), header(), signatures(), content()].concat();
    assert!(cases.len() >= 60, "{}", cases.len());
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
    say_token(&mut client, &with("aud", json!("web"))).await;
    drop(client);
    assert_eq!(reasons(&lab, 1).await, [TokenError::Audience.to_string()]);
    lab.metric_is(
        "kordon_authentication_failures_total",
        &["oauthbearer"],
        1.0,
    );
}
