//! The faults that a token of any issuer may have, each with the one reason for which it is
//! refused. What makes a token bad is its only fault, so that no case is saved by another check.
//!
//! Told once and tried twice: at the verifier (`corpus.rs`, which adds what takes more than one
//! key), and over the whole way from a client (`tests/it/bad_tokens.rs`, which includes this file).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::TokenError;

/// What it is, the token, and why it is refused.
pub type Case = (&'static str, String, TokenError);

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key of the issuer as its tokens name it.
pub struct Key {
    pub alg: &'static str,
    pub kid: &'static str,
    pub sign: Sign,
}

impl Key {
    fn head(&self) -> Value {
        json!({"alg": self.alg, "kid": self.kid})
    }
}

/// An issuer whose tokens may have any fault, and where they are shown.
pub struct Forge {
    /// The key of its good tokens.
    pub key: Key,
    /// A key of it for ES256.
    pub elliptic: Key,
    /// Signs for `key.alg` with a key that the issuer does not have.
    pub stranger: Sign,
    /// The public half of that, with the id `own`.
    pub stranger_jwk: Value,
    /// What a good token says.
    pub claims: Value,
    /// Seconds since 1970.
    pub now: i64,
    /// A date so many seconds after `now` is still to come, whatever the skew, when it is tried.
    pub ahead: i64,
    /// The thumbprint of the certificate that the connection shows; of any, if it shows none.
    pub shown: String,
}

/// The thumbprint of no certificate.
const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn signed_by(
    sign: impl Fn(&[u8]) -> Vec<u8>,
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
) -> String {
    let [header, claims] = [header.as_ref(), claims.as_ref()].map(|b| URL_SAFE_NO_PAD.encode(b));
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
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

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

fn refused<const N: usize>(why: TokenError, tokens: [(&'static str, String); N]) -> Vec<Case> {
    let case = |(name, token)| (name, token, why.clone());
    tokens.into_iter().map(case).collect()
}

impl Forge {
    /// Every case.
    pub fn cases(&self) -> Vec<Case> {
        [
            self.structure(),
            self.algorithms(),
            self.keys(),
            self.extensions(),
            self.signatures(),
            self.dates(),
            self.content(),
            self.bindings(),
        ]
        .concat()
    }

    /// What has no fault, a signature by the elliptic key included.
    pub fn good(&self) -> [String; 2] {
        [self.token(&self.claims), self.elliptic(|s| s)]
    }

    /// Signed by the issuer, whatever the texts say.
    pub fn signed(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        signed_by(&self.key.sign, header, claims)
    }

    pub fn token(&self, claims: &Value) -> String {
        let mut header = self.key.head();
        header["typ"] = json!("JWT");
        self.signed(header.to_string(), claims.to_string())
    }

    pub fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.token(&claims)
    }

    pub fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        self.token(&claims)
    }

    /// A good token's three parts, put together otherwise.
    pub fn parts(&self, put: impl Fn(&str, &str, &str) -> String) -> String {
        let good = self.token(&self.claims);
        let parts: Vec<&str> = good.split('.').collect();
        put(parts[0], parts[1], parts[2])
    }

    /// Good claims under another header.
    pub fn headed(&self, header: Value) -> String {
        self.signed(header.to_string(), self.claims.to_string())
    }

    /// Good claims under a header with one member more, or another one.
    pub fn headed_with(&self, name: &str, value: Value) -> String {
        let mut header = self.key.head();
        header[name] = value;
        self.headed(header)
    }

    /// The same, signed by the stranger.
    fn forged(&self, changes: Value) -> String {
        let mut header = self.key.head();
        for (name, value) in changes.as_object().unwrap() {
            header[name] = value.clone();
        }
        let claims = self.claims.to_string();
        signed_by(&self.stranger, header.to_string(), claims)
    }

    /// An ES256 token whose signature went through `bend`.
    fn elliptic(&self, bend: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
        let Key { sign, .. } = &self.elliptic;
        let header = self.elliptic.head().to_string();
        signed_by(|m: &[u8]| bend(sign(m)), header, self.claims.to_string())
    }

    fn structure(&self) -> Vec<Case> {
        let head = self.key.head().to_string();
        let text = self.claims.to_string();
        let parts = |put: fn(&str, &str, &str) -> String| self.parts(put);
        let more = |extra: &str| self.signed(&head, format!("{{{extra},{}", &text[1..]));
        let head_more =
            |extra: &str| self.signed(format!("{{{extra},{}", &head[1..]), text.as_str());
        let not_text = |json: &str| [b"{\"x\":\"\xff\",", &json.as_bytes()[1..]].concat();
        let malformed = [
            ("one part", parts(|h, _, _| h.into())),
            ("two parts", parts(|h, c, _| format!("{h}.{c}"))),
            ("four parts", parts(|h, c, s| format!("{h}.{c}.{s}.{s}"))),
            (
                "five parts, as jwe",
                parts(|h, c, s| format!("{h}.{c}.{s}.{s}.{s}")),
            ),
            ("no header", parts(|_, c, s| format!(".{c}.{s}"))),
            ("no claims", parts(|h, _, s| format!("{h}..{s}"))),
            ("header is no json", self.signed("alg=RS256", &text)),
            ("header is a list", self.signed(format!("[{head}]"), &text)),
            ("header is not utf-8", self.signed(not_text(&head), &text)),
            ("claims are text", self.signed(&head, "\"sub\"")),
            ("claims are a list", self.signed(&head, format!("[{text}]"))),
            ("claims are not utf-8", self.signed(&head, not_text(&text))),
            (
                "claims and more",
                self.signed(&head, format!("{text}{text}")),
            ),
            ("half a surrogate", more(r#""x":"\ud800""#)),
            ("not a number", more(r#""x":NaN"#)),
            ("comment", more(r#"/* */"x":1"#)),
        ];
        let duplicate = [
            ("alg twice", head_more(r#""alg":"none""#)),
            ("kid twice", head_more(r#""kid":"x""#)),
            ("sub twice", more(r#""sub":"admin""#)),
            ("iss twice", more(r#""iss":"https://other""#)),
            ("exp twice, escaped", more(r#""\u0065xp":9999999999"#)),
            ("twice far inside", more(r#""x":[{"y":{"a":1,"a":1}}]"#)),
        ];
        let deep = |depth| format!("\"x\":{}", nested(depth));
        let deep = [
            ("deep claims", more(&deep(32))),
            ("very deep claims", more(&deep(5_000))),
            ("deep header", head_more(&deep(32))),
        ];
        let huge = more(&format!("\"x\":\"{}\"", "x".repeat(15_000)));
        [
            refused(TokenError::Malformed, malformed),
            refused(TokenError::Duplicate, duplicate),
            refused(TokenError::Deep, deep),
            refused(TokenError::Long, [("huge", huge)]),
        ]
        .concat()
    }

    fn algorithms(&self) -> Vec<Case> {
        let unsigned = |alg: &str| {
            let header = json!({"alg": alg, "kid": self.key.kid}).to_string();
            let header = URL_SAFE_NO_PAD.encode(header);
            self.parts(|_, c, _| format!("{header}.{c}."))
        };
        let alg = |alg: Value| self.headed_with("alg", alg);
        let tokens = [
            ("alg none", unsigned("none")),
            ("alg None", unsigned("None")),
            ("alg none, signed", alg(json!("none"))),
            ("no alg", self.headed(json!({"kid": self.key.kid}))),
            ("alg a list", alg(json!([self.key.alg]))),
            ("alg in lower case", alg(json!(self.key.alg.to_lowercase()))),
            ("alg symmetric", alg(json!("HS256"))),
            ("alg of a key exchange", alg(json!("RSA-OAEP"))),
        ];
        refused(TokenError::Algorithm, tokens)
    }

    fn keys(&self) -> Vec<Case> {
        let kid = |kid: Value| self.headed_with("kid", kid);
        let own = &self.stranger_jwk;
        let nobodys = [
            ("kid unknown", kid(json!("other"))),
            ("kid empty", kid(json!(""))),
            ("kid a number", kid(json!(1))),
            ("kid null", kid(json!(null))),
            ("kid a path", kid(json!("../../dev/null"))),
            (
                "jwk with its own kid",
                self.forged(json!({"kid": "own", "jwk": own})),
            ),
        ];
        let url = |name: &str| self.forged(json!({name: "https://evil.example/keys"}));
        let brought = [
            ("by a stranger", self.forged(json!({}))),
            ("jwk embedded", self.forged(json!({"jwk": own}))),
            ("jku", url("jku")),
            ("x5u", url("x5u")),
            ("x5c", self.forged(json!({"x5c": ["AAAA"]}))),
        ];
        [
            refused(TokenError::Key, nobodys),
            refused(TokenError::Signature, brought),
        ]
        .concat()
    }

    fn extensions(&self) -> Vec<Case> {
        let Key { alg, kid, .. } = &self.key;
        let crit = |crit: Value| self.headed_with("crit", crit);
        let b64 = json!({"alg": alg, "kid": kid, "crit": ["b64"], "b64": false});
        let critical = [
            ("crit", crit(json!(["exp"]))),
            ("crit empty", crit(json!([]))),
            ("crit b64", self.headed(b64)),
            ("b64 without crit", self.headed_with("b64", json!(false))),
        ];
        let typ = |typ: Value| self.headed_with("typ", typ);
        let types = [
            ("typ of an id token", typ(json!("id+jwt"))),
            ("typ of dpop", typ(json!("dpop+jwt"))),
            ("typ a number", typ(json!(1))),
            ("typ null", typ(json!(null))),
            ("marked as id token", self.with("typ", json!("ID"))),
            (
                "marked as refresh token",
                self.with("typ", json!("Refresh")),
            ),
        ];
        [
            refused(TokenError::Critical, critical),
            refused(TokenError::Type, types),
        ]
        .concat()
    }

    fn signatures(&self) -> Vec<Case> {
        let parts = |put: fn(&str, &str, &str) -> String| self.parts(put);
        let other = self.with("sub", json!("somebody"));
        let foreign = other.rsplit('.').next().unwrap();
        let mut admin = self.claims.clone();
        admin["sub"] = json!("admin");
        let admin = URL_SAFE_NO_PAD.encode(admin.to_string());
        let zeros = parts(|h, c, s| {
            let bytes = URL_SAFE_NO_PAD.decode(s).unwrap().len();
            format!("{h}.{c}.{}", URL_SAFE_NO_PAD.encode(vec![0; bytes]))
        });
        let zero = [0; 32];
        let tokens = [
            ("signature stripped", parts(|h, c, _| format!("{h}.{c}."))),
            (
                "signature of another",
                self.parts(|h, c, _| format!("{h}.{c}.{foreign}")),
            ),
            (
                "signature cut",
                parts(|h, c, s| format!("{h}.{c}.{}", &s[..s.len() - 4])),
            ),
            (
                "signature longer",
                parts(|h, c, s| format!("{h}.{c}.{s}AAAA")),
            ),
            (
                "signature padded",
                parts(|h, c, s| format!("{h}.{c}.{s}==")),
            ),
            ("signature of zeros", zeros),
            (
                "claims swapped",
                self.parts(|h, _, s| format!("{h}.{admin}.{s}")),
            ),
            (
                "es256 with r zero",
                self.elliptic(|s| [&zero, &s[32..]].concat()),
            ),
            (
                "es256 with s zero",
                self.elliptic(|s| [&s[..32], &zero].concat()),
            ),
            ("es256 of zeros", self.elliptic(|_| vec![0; 64])),
            ("es256 with ones", self.elliptic(|_| vec![0xff; 64])),
            ("es256 in der", self.elliptic(|s| der(&s))),
            (
                "es256, halves swapped",
                self.elliptic(|s| [&s[32..], &s[..32]].concat()),
            ),
            ("es256, one byte less", self.elliptic(|s| s[..63].to_vec())),
        ];
        refused(TokenError::Signature, tokens)
    }

    fn dates(&self) -> Vec<Case> {
        let exp = |value: Value| self.with("exp", value);
        let expired = [
            ("expired, a second past the skew", exp(json!(self.now - 31))),
            ("expired, at the skew", exp(json!(self.now - 30))),
            ("expired long ago", exp(json!(0))),
        ];
        let none = [
            ("no expiry", self.without("exp")),
            ("expiry in text", exp(json!("9999999999"))),
            ("expiry null", exp(json!(null))),
            ("expiry before time", exp(json!(-1))),
            ("expiry beyond time", exp(json!(1e300))),
            ("not issued", self.without("iat")),
            ("start in text", self.with("nbf", json!("0"))),
        ];
        let later = json!(self.now + self.ahead);
        let early = [
            ("not valid yet", self.with("nbf", later.clone())),
            ("issued in the future", self.with("iat", later)),
        ];
        [
            refused(TokenError::Expired, expired),
            refused(TokenError::Date, none),
            refused(TokenError::Early, early),
        ]
        .concat()
    }

    fn content(&self) -> Vec<Case> {
        let iss = self.claims["iss"].as_str().unwrap();
        let issuer = |value: Value| self.with("iss", value);
        let issuers = [
            ("no issuer", self.without("iss")),
            ("another issuer", issuer(json!("https://evil.example"))),
            ("issuer and a slash", issuer(json!(format!("{iss}/")))),
            ("issuer in a list", issuer(json!([iss]))),
        ];
        let aud = |value: Value| self.with("aud", value);
        let audiences = [
            ("no audience", self.without("aud")),
            ("another audience", aud(json!("web"))),
            ("audience among others in text", aud(json!("web kafka"))),
            ("audience beside a number", aud(json!(["kafka", 1]))),
        ];
        let scope = |value: Value| self.with("scope", value);
        let scopes = [
            ("no scope", self.without("scope")),
            ("scope as part of a word", scope(json!("kafka-admin"))),
            ("scope an object", scope(json!({"kafka": true}))),
        ];
        let sub = |value: Value| self.with("sub", value);
        let principals = [
            ("no principal", self.without("sub")),
            ("principal a number", sub(json!(1))),
            ("principal null", sub(json!(null))),
            ("principal a list", sub(json!([self.claims["sub"]]))),
            ("principal an object", sub(json!({"name": "a"}))),
            ("principal empty", sub(json!(""))),
            ("principal blank", sub(json!(" \t"))),
            ("principal the wildcard", sub(json!("*"))),
            ("principal with a line", sub(json!("a\nUser:admin"))),
            ("principal with nul", sub(json!("admin\u{0}"))),
            ("principal with a blank behind", sub(json!("admin "))),
            ("principal a spiffe id", sub(json!("spiffe://prod/ns/a"))),
        ];
        let tenants = [
            ("tenant a number", self.with("tenant_id", json!(1))),
            ("tenant the wildcard", self.with("tenant_id", json!("*"))),
        ];
        let groups = |value: Value| self.with("groups", value);
        let groups = [
            ("groups an object", groups(json!({"a": true}))),
            ("a group the wildcard", groups(json!(["a", "*"]))),
        ];
        [
            refused(TokenError::Issuer, issuers),
            refused(TokenError::Audience, audiences),
            refused(TokenError::Scope, scopes),
            refused(TokenError::Principal, principals),
            refused(TokenError::Tenant, tenants),
            refused(TokenError::Groups, groups),
        ]
        .concat()
    }

    /// RFC 8705 and its relatives: a token that says it belongs to a key.
    fn bindings(&self) -> Vec<Case> {
        let cnf = |value: Value| self.with("cnf", value);
        let by = |thumbprint: Value| cnf(json!({"x5t#S256": thumbprint}));
        let own = self.shown.as_str();
        let both = json!({"x5t#S256": own, "jkt": own});
        let tokens = [
            ("bound to another certificate", by(json!(OTHER))),
            ("bound by a padded thumbprint", by(json!(format!("{own}=")))),
            ("bound by half a thumbprint", by(json!(own[..20]))),
            ("bound by nothing", by(json!(""))),
            ("bound by a number", by(json!(1))),
            ("bound by a list", by(json!([own]))),
            ("bound by sha-1", cnf(json!({"x5t": OTHER[..27]}))),
            ("bound by dpop", cnf(json!({"jkt": own}))),
            ("bound by dpop as well", cnf(both)),
            ("bound to an empty object", cnf(json!({}))),
            ("bound to null", cnf(json!(null))),
            ("bound to text", cnf(json!(own))),
        ];
        refused(TokenError::Binding, tokens)
    }
}
