//! Every bad token that we know of, each with the one reason for which it is refused. What
//! makes a token bad is its only fault, so that no case is saved by another check.

use aws_lc_rs::hmac;

use super::*;
use crate::identity::binding::Thumbprint;

/// The certificate that the connection of the corpus shows.
const CERTIFICATE: &[u8] = b"the certificate of this connection";

fn signed_by(
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
    sign: impl Fn(&[u8]) -> Vec<u8>,
) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", base64url(signature))
}

/// Signed by the issuer's key for RS256, whatever the texts say.
fn signed(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    signed_by(header, claims, |message| sign("RS256", message))
}

fn by_stranger(header: &Value) -> String {
    signed_by(header.to_string(), claims().to_string(), |message| {
        let mut signature = vec![0; KEYS.other_rsa.public_modulus_len()];
        let chance = SystemRandom::new();
        let encoding = &signature::RSA_PKCS1_SHA256;
        KEYS.other_rsa
            .sign(encoding, &chance, message, &mut signature)
            .unwrap();
        signature
    })
}

fn by_secret(alg: &str, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let header = json!({"alg": alg, "kid": "rsa"}).to_string();
    signed_by(header, claims().to_string(), |message| {
        let key = hmac::Key::new(algorithm, secret);
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

/// An ES256 token whose signature went through `bend`.
fn elliptic(bend: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    let header = json!({"alg": "ES256", "kid": "p256"}).to_string();
    signed_by(header, claims().to_string(), |message| {
        bend(sign("ES256", message))
    })
}

/// A signature as ASN.1 writes it, which JWS does not (RFC 7518 §3.4).
fn der(fixed: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let zeros = half.iter().take_while(|byte| **byte == 0).count();
        let mut bytes = half[zeros..].to_vec();
        if bytes[0] >= 0x80 {
            bytes.insert(0, 0);
        }
        [vec![2, bytes.len() as u8], bytes].concat()
    };
    let both = [integer(&fixed[..32]), integer(&fixed[32..])].concat();
    [vec![0x30, both.len() as u8], both].concat()
}

/// A good token's three parts, put together otherwise.
fn parts(put: impl Fn(&str, &str, &str) -> String) -> String {
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    put(parts[0], parts[1], parts[2])
}

const HEAD: &str = r#"{"alg":"RS256","kid":"rsa"}"#;

type Case = (&'static str, String, TokenError);

fn structure() -> Vec<Case> {
    use TokenError::{Deep, Duplicate, Long, Malformed};
    let text = claims().to_string();
    let with = |extra: &str| format!("{{{extra},{}", &text[1..]);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let not_text = [b"{\"x\":\"\xff\",", &text.as_bytes()[1..]].concat();
    vec![
        ("empty", String::new(), Malformed),
        ("one part", parts(|h, _, _| h.into()), Malformed),
        ("two parts", parts(|h, c, _| format!("{h}.{c}")), Malformed),
        (
            "four parts",
            parts(|h, c, s| format!("{h}.{c}.{s}.{s}")),
            Malformed,
        ),
        (
            "five parts, as jwe",
            parts(|h, c, s| format!("{h}.{c}.{s}.{s}.{s}")),
            Malformed,
        ),
        ("no header", parts(|_, c, s| format!(".{c}.{s}")), Malformed),
        ("no claims", parts(|h, _, s| format!("{h}..{s}")), Malformed),
        (
            "padded header",
            parts(|h, c, s| format!("{h}=.{c}.{s}")),
            Malformed,
        ),
        (
            "padded claims",
            parts(|h, c, s| format!("{h}.{c}==.{s}")),
            Malformed,
        ),
        (
            "blank before",
            parts(|h, c, s| format!(" {h}.{c}.{s}")),
            Malformed,
        ),
        ("header is no json", signed("alg=RS256", &text), Malformed),
        (
            "header is a list",
            signed(format!("[{HEAD}]"), &text),
            Malformed,
        ),
        (
            "header is not utf-8",
            signed(b"{\"alg\":\"RS256\",\"x\":\"\xff\"}", &text),
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
        (
            "half a surrogate",
            signed(HEAD, with(r#""x":"\ud800""#)),
            Malformed,
        ),
        ("not a number", signed(HEAD, with(r#""x":NaN"#)), Malformed),
        ("comment", signed(HEAD, with(r#"/* */"x":1"#)), Malformed),
        (
            "alg twice",
            signed(r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#, &text),
            Duplicate,
        ),
        (
            "kid twice",
            signed(r#"{"alg":"RS256","kid":"x","kid":"rsa"}"#, &text),
            Duplicate,
        ),
        (
            "sub twice",
            signed(HEAD, with(r#""sub":"admin""#)),
            Duplicate,
        ),
        (
            "iss twice",
            signed(HEAD, with(r#""iss":"https://other""#)),
            Duplicate,
        ),
        (
            "exp twice, escaped",
            signed(HEAD, with(r#""\u0065xp":9999999999"#)),
            Duplicate,
        ),
        (
            "twice far inside",
            signed(HEAD, with(r#""x":[{"y":{"a":1,"a":1}}]"#)),
            Duplicate,
        ),
        (
            "deep claims",
            signed(HEAD, with(&format!("\"x\":{}", nested(32)))),
            Deep,
        ),
        (
            "very deep claims",
            signed(HEAD, with(&format!("\"x\":{}", nested(5_000)))),
            Deep,
        ),
        (
            "deep header",
            signed(format!("{{\"x\":{},{}", nested(32), &HEAD[1..]), &text),
            Deep,
        ),
        (
            "huge",
            signed(HEAD, with(&format!("\"x\":\"{}\"", "x".repeat(20_000)))),
            Long,
        ),
        ("huge, no json", "x".repeat(1 << 20), Long),
    ]
}

fn header() -> Vec<Case> {
    use TokenError::{Algorithm, Critical, Key, Signature, Type};
    let case = |header: Value| token_with_header(header);
    let unsigned = |alg: &str| {
        let header = base64url(json!({"alg": alg, "kid": "rsa"}).to_string());
        format!("{header}.{}.", base64url(claims().to_string()))
    };
    let public = KEYS.rsa.public_key().as_ref().to_vec();
    let own = rsa_jwk("own", &KEYS.other_rsa);
    let forged = |name: &str, value: Value| {
        let mut header = json!({"alg": "RS256", "kid": "rsa"});
        header[name] = value;
        by_stranger(&header)
    };
    vec![
        ("alg none", unsigned("none"), Algorithm),
        ("alg None", unsigned("None"), Algorithm),
        (
            "alg none, signed",
            case(json!({"alg": "none", "kid": "rsa"})),
            Algorithm,
        ),
        ("no alg", case(json!({"kid": "rsa"})), Algorithm),
        (
            "alg a list",
            case(json!({"alg": ["RS256"], "kid": "rsa"})),
            Algorithm,
        ),
        (
            "alg in lower case",
            case(json!({"alg": "rs256", "kid": "rsa"})),
            Algorithm,
        ),
        (
            "alg of a key exchange",
            case(json!({"alg": "RSA-OAEP", "kid": "rsa"})),
            Algorithm,
        ),
        (
            "hs256 with the public key",
            by_secret("HS256", hmac::HMAC_SHA256, &public),
            Algorithm,
        ),
        (
            "hs512 with the public key",
            by_secret("HS512", hmac::HMAC_SHA512, &public),
            Algorithm,
        ),
        (
            "hs256 with nothing",
            by_secret("HS256", hmac::HMAC_SHA256, b""),
            Algorithm,
        ),
        (
            "kid unknown",
            case(json!({"alg": "RS256", "kid": "other"})),
            Key,
        ),
        ("kid empty", case(json!({"alg": "RS256", "kid": ""})), Key),
        ("kid a number", case(json!({"alg": "RS256", "kid": 1})), Key),
        ("kid null", case(json!({"alg": "RS256", "kid": null})), Key),
        (
            "kid a path",
            case(json!({"alg": "RS256", "kid": "../../dev/null"})),
            Key,
        ),
        (
            "key of another type",
            case(json!({"alg": "RS256", "kid": "p256"})),
            Key,
        ),
        (
            "curve of another key",
            case(json!({"alg": "ES384", "kid": "p256"})),
            Key,
        ),
        (
            "edwards with an rsa key",
            case(json!({"alg": "EdDSA", "kid": "rsa"})),
            Key,
        ),
        (
            "pss that is pkcs1",
            case(json!({"alg": "PS256", "kid": "rsa"})),
            Signature,
        ),
        (
            "another hash",
            case(json!({"alg": "RS512", "kid": "rsa"})),
            Signature,
        ),
        ("jwk embedded", forged("jwk", own.clone()), Signature),
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
            "jwk with its own kid",
            by_stranger(&json!({"alg": "RS256", "kid": "own", "jwk": own})),
            Key,
        ),
        (
            "crit",
            case(json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]})),
            Critical,
        ),
        (
            "crit empty",
            case(json!({"alg": "RS256", "kid": "rsa", "crit": []})),
            Critical,
        ),
        (
            "crit b64",
            case(json!({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false})),
            Critical,
        ),
        (
            "b64 without crit",
            case(json!({"alg": "RS256", "kid": "rsa", "b64": false})),
            Critical,
        ),
        (
            "typ of an id token",
            case(json!({"alg": "RS256", "kid": "rsa", "typ": "id+jwt"})),
            Type,
        ),
        (
            "typ of dpop",
            case(json!({"alg": "RS256", "kid": "rsa", "typ": "dpop+jwt"})),
            Type,
        ),
        (
            "typ a number",
            case(json!({"alg": "RS256", "kid": "rsa", "typ": 1})),
            Type,
        ),
        (
            "typ null",
            case(json!({"alg": "RS256", "kid": "rsa", "typ": null})),
            Type,
        ),
    ]
}

fn signatures() -> Vec<Case> {
    use TokenError::Signature;
    let other = token(&claims_with("sub", json!("somebody")));
    let foreign = other.rsplit('.').next().unwrap().to_owned();
    let zero = [0; 32];
    vec![
        (
            "signature stripped",
            parts(|h, c, _| format!("{h}.{c}.")),
            Signature,
        ),
        (
            "signature of another",
            parts(|h, c, _| format!("{h}.{c}.{foreign}")),
            Signature,
        ),
        (
            "signature cut",
            parts(|h, c, s| format!("{h}.{c}.{}", &s[..s.len() - 4])),
            Signature,
        ),
        (
            "signature longer",
            parts(|h, c, s| format!("{h}.{c}.{s}AAAA")),
            Signature,
        ),
        (
            "signature padded",
            parts(|h, c, s| format!("{h}.{c}.{s}==")),
            Signature,
        ),
        (
            "signature and a line",
            parts(|h, c, s| format!("{h}.{c}.{s}\n")),
            Signature,
        ),
        (
            "signature of zeros",
            parts(|h, c, _| format!("{h}.{c}.{}", base64url([0; 256]))),
            Signature,
        ),
        (
            "by a stranger",
            by_stranger(&json!({"alg": "RS256", "kid": "rsa"})),
            Signature,
        ),
        (
            "claims swapped",
            parts(|h, _, s| {
                let admin = claims_with("sub", json!("admin")).to_string();
                format!("{h}.{}.{s}", base64url(admin))
            }),
            Signature,
        ),
        (
            "es256 with r zero",
            elliptic(|s| [&zero, &s[32..]].concat()),
            Signature,
        ),
        (
            "es256 with s zero",
            elliptic(|s| [&s[..32], &zero].concat()),
            Signature,
        ),
        ("es256 of zeros", elliptic(|_| vec![0; 64]), Signature),
        ("es256 in der", elliptic(|s| der(&s)), Signature),
        (
            "es256, halves swapped",
            elliptic(|s| [&s[32..], &s[..32]].concat()),
            Signature,
        ),
        (
            "es256, one byte less",
            elliptic(|s| s[..63].to_vec()),
            Signature,
        ),
        ("es256 with ones", elliptic(|_| vec![0xff; 64]), Signature),
    ]
}

fn content() -> Vec<Case> {
    use TokenError::{
        Audience, Date, Early, Expired, Groups, Issuer, Principal, Scope, Tenant, Type,
    };
    let with = |name: &str, value: Value| token(&claims_with(name, value));
    let without = |name: &str| token(&claims_without(name));
    vec![
        ("no issuer", without("iss"), Issuer),
        (
            "another issuer",
            with("iss", json!("https://evil.example")),
            Issuer,
        ),
        (
            "issuer and a slash",
            with("iss", json!("https://idp.example/realms/prod/")),
            Issuer,
        ),
        (
            "issuer in a list",
            with("iss", json!(["https://idp.example/realms/prod"])),
            Issuer,
        ),
        ("no audience", without("aud"), Audience),
        ("another audience", with("aud", json!("web")), Audience),
        (
            "audience among others in text",
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
            "expired, a second past the skew",
            with("exp", json!(NOW - 31)),
            Expired,
        ),
        (
            "expired, at the skew",
            with("exp", json!(NOW - 30)),
            Expired,
        ),
        ("expired long ago", with("exp", json!(0)), Expired),
        ("no expiry", without("exp"), Date),
        ("expiry in text", with("exp", json!("9999999999")), Date),
        ("expiry null", with("exp", json!(null)), Date),
        ("expiry before time", with("exp", json!(-1)), Date),
        ("expiry beyond time", with("exp", json!(1e300)), Date),
        ("not valid yet", with("nbf", json!(NOW + 31)), Early),
        ("issued in the future", with("iat", json!(NOW + 31)), Early),
        ("not issued", without("iat"), Date),
        ("start in text", with("nbf", json!("0")), Date),
        ("no scope", without("scope"), Scope),
        (
            "scope as part of a word",
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
        ("principal null", with("sub", json!(null)), Principal),
        (
            "principal a list",
            with("sub", json!(["orders-service"])),
            Principal,
        ),
        (
            "principal an object",
            with("sub", json!({"name": "a"})),
            Principal,
        ),
        ("principal empty", with("sub", json!("")), Principal),
        ("principal blank", with("sub", json!(" \t")), Principal),
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
            "principal with a blank behind",
            with("sub", json!("admin ")),
            Principal,
        ),
        (
            "principal a spiffe id",
            with("sub", json!("spiffe://prod/ns/a")),
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
    ]
}

/// RFC 8705 and its relatives: a token that says it belongs to a key.
fn bindings() -> Vec<Case> {
    let bound = |cnf: Value| (token(&claims_with("cnf", cnf)), TokenError::Binding);
    let own = Thumbprint::of(CERTIFICATE);
    let own = own.to_string();
    let other = Thumbprint::of(b"another certificate");
    let cases = [
        (
            "bound to another certificate",
            json!({"x5t#S256": other.to_string()}),
        ),
        (
            "bound by a padded thumbprint",
            json!({"x5t#S256": format!("{own}=")}),
        ),
        (
            "bound by half a thumbprint",
            json!({"x5t#S256": &own[..20]}),
        ),
        ("bound by nothing", json!({"x5t#S256": ""})),
        ("bound by a number", json!({"x5t#S256": 1})),
        ("bound by a list", json!({"x5t#S256": [own]})),
        (
            "bound by sha-1",
            json!({"x5t": "AAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
        ),
        ("bound by dpop", json!({"jkt": own})),
        (
            "bound by dpop as well",
            json!({"x5t#S256": own, "jkt": own}),
        ),
        ("bound to an empty object", json!({})),
        ("bound to null", json!(null)),
        ("bound to text", json!(own)),
    ];
    let case = |(name, cnf)| {
        let (token, why) = bound(cnf);
        (name, token, why)
    };
    cases.into_iter().map(case).collect()
}

#[test]
fn t33_every_bad_token_is_refused_for_its_own_reason() {
    // Given a verifier that accepts what has no fault
    let verifier = verifier();
    let shown = Thumbprint::of(CERTIFICATE);
    let bound = claims_with("cnf", json!({"x5t#S256": shown.to_string()}));
    for good in [
        token(&claims()),
        token(&bound),
        elliptic(|signature| signature),
    ] {
        assert_eq!(verifier.verify(&good, Some(&shown), at(NOW)).err(), None);
    }
    // When every fault we know is tried
    let parts = [structure(), header(), signatures(), content(), bindings()];
    let cases: Vec<Case> = parts.into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for (name, token, why) in &cases {
        let verdict = verifier
            .verify(token, Some(&shown), at(NOW))
            .map(|_| "accepted");
        if verdict.as_ref().err() != Some(why) {
            wrong.push(format!("{name}: {verdict:?}, expected {why:?}"));
        }
    }
    // Then
    assert!(wrong.is_empty(), "{wrong:#?}");
    let names: std::collections::HashSet<_> = cases.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), cases.len(), "a name occurs twice");
    assert!(cases.len() >= 60, "{}", cases.len());
}
