//! What a token check costs beside the bare check of its signature, for each kind of key, in one
//! run and in alternation: the ratio is what counts. The key is at hand, as it is for all but the
//! first token of an issuer.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kordon::identity::issuers::Issuers;
use kordon::identity::settings::{TokenSettings, TokenSource};
use kordon::identity::token::Verifier;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Rounds that are measured, after one that warms up; each has a stretch of either kind.
const ROUNDS: usize = 15;
/// How long a stretch takes, about.
const STRETCH: Duration = Duration::from_millis(40);

/// A key that signs, as a JWK and as the cryptography library takes it.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    public: ParsedPublicKey,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn main() -> Outcome<()> {
    println!(
        "{:<8} {:>14} {:>14} {:>24}",
        "", "signature, µs", "token, µs", "ratio: min median max"
    );
    for signer in [rsa()?, ecdsa()?, edwards()?] {
        compare(&signer)?;
    }
    Ok(())
}

fn compare(signer: &Signer) -> Outcome<()> {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let header = json!({"alg": signer.algorithm, "typ": "at+jwt", "kid": "k1"});
    // What an access token of an identity provider usually holds.
    let claims = json!({
        "iss": "https://idp.example/realms/prod", "sub": "orders-service",
        "aud": ["kafka", "account"], "exp": seconds + 3600, "iat": seconds, "nbf": seconds,
        "jti": "6f1c7fd0-3c43-4a53-8d57-5f6e0e3b4a11",
        "azp": "orders-service", "scope": "kafka profile email", "tenant_id": "corallum",
        "groups": ["auth", "workers"],
        "realm_access": {"roles": ["offline_access", "kafka-client"]},
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = (signer.sign)(signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
    let issuers = Issuers::new(vec![verifier(signer)?], 16 * 1024);
    issuers.verify(&token, None, now)?;

    let mut bare = || {
        let checked = signer.public.verify_sig(signed.as_bytes(), &signature);
        black_box(checked).is_ok()
    };
    let mut whole = || black_box(issuers.verify(black_box(&token), None, now)).is_ok();
    let count = count(&mut bare);
    time(count, &mut bare);
    time(count, &mut whole);
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| (time(count, &mut bare), time(count, &mut whole)))
        .collect();
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let ratio = |at: usize| rounds[at].1 / rounds[at].0;
    let (bare, whole) = rounds[ROUNDS / 2];
    println!(
        "{:<8} {bare:>14.1} {whole:>14.1} {:>10.2} {:>6.2} {:>6.2}",
        signer.algorithm,
        ratio(0),
        ratio(ROUNDS / 2),
        ratio(ROUNDS - 1)
    );
    Ok(())
}

fn verifier(signer: &Signer) -> Outcome<Verifier> {
    let settings = TokenSettings {
        issuer: "https://idp.example/realms/prod".to_owned(),
        source: TokenSource::KeyFile("jwks.json".into()),
        audience: "kafka".to_owned(),
        algorithms: vec![signer.algorithm.to_owned()],
        clock_skew: Duration::from_secs(30),
        required_scopes: vec!["kafka".to_owned()],
        claims: Vec::new(),
        principal_claim: "sub".to_owned(),
        principal_prefix: String::new(),
        tenant_claim: Some("tenant_id".to_owned()),
        groups_claim: Some("groups".to_owned()),
        session_max: Some(Duration::from_secs(3600)),
        certificate_bound: false,
        types: vec!["JWT".to_owned(), "at+jwt".to_owned()],
        token_bytes_max: 16 * 1024,
    };
    let set = json!({"keys": [signer.jwk]});
    Ok(Verifier::new(&settings, &set.to_string())?)
}

/// How many fill a stretch.
fn count(operation: &mut impl FnMut() -> bool) -> u32 {
    let mut count = 1;
    loop {
        let begun = Instant::now();
        (0..count).for_each(|_| assert!(operation()));
        if begun.elapsed() >= STRETCH {
            return count;
        }
        count *= 2;
    }
}

/// Microseconds for one.
fn time(count: u32, operation: &mut impl FnMut() -> bool) -> f64 {
    let begun = Instant::now();
    (0..count).for_each(|_| assert!(operation()));
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa() -> Outcome<Signer> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let public = pair.public_key();
    let (n, e) = (
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    );
    let jwk = json!({"kty": "RSA", "kid": "k1", "use": "sig", "n": encoded(n), "e": encoded(e)});
    let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref())?;
    let sign = move |message: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        let random = SystemRandom::new();
        let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
        assert!(signed.is_ok());
        signature
    };
    Ok(Signer {
        algorithm: "RS256",
        jwk,
        public,
        sign: Box::new(sign),
    })
}

fn ecdsa() -> Outcome<Signer> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let point = pair.public_key().as_ref().to_vec();
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig",
        "x": encoded(&point[1..33]), "y": encoded(&point[33..65]),
    });
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)?;
    let sign = move |message: &[u8]| {
        let signed = pair.sign(&SystemRandom::new(), message);
        signed.map_or_else(|_| Vec::new(), |signature| signature.as_ref().to_vec())
    };
    Ok(Signer {
        algorithm: "ES256",
        jwk,
        public,
        sign: Box::new(sign),
    })
}

fn edwards() -> Outcome<Signer> {
    let pair = Ed25519KeyPair::generate()?;
    let point = pair.public_key().as_ref().to_vec();
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "k1", "use": "sig", "x": encoded(&point),
    });
    let public = ParsedPublicKey::new(&ED25519, &point)?;
    let sign = move |message: &[u8]| pair.sign(message).as_ref().to_vec();
    Ok(Signer {
        algorithm: "EdDSA",
        jwk,
        public,
        sign: Box::new(sign),
    })
}
