//! Keys: when they are fetched, how long they are believed, what a flood does.

use super::*;
use crate::clock;
use crate::identity::issuers::AskKeys as _;
use crate::issuer::cache;
use crate::issuer::keys::{UNKNOWN_KEY_PAUSE, UNKNOWN_KEY_WAIT};

const DAY: Duration = Duration::from_secs(86_400);

/// A key set with these key ids; the key is that of RFC 7517, appendix A.1.
pub(super) fn set(kids: &[&str]) -> String {
    let keys: Vec<Value> = kids
        .iter()
        .map(|kid| {
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid,
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

pub(super) fn from(url: &Url, cache_file: Option<&Path>) -> KeyUrl {
    KeyUrl {
        url: url.clone(),
        ca: None,
        cache_file: cache_file.map(Path::to_owned),
        stale_max: DAY,
    }
}

fn feed(keys: KeyUrl) -> Arc<KeyFeed> {
    let settings = settings(TokenSource::KeyUrl(keys.clone()));
    let verifier = Arc::new(Verifier::without_keys(&settings).unwrap());
    let metrics = recorder().issuer("tokens", &settings.issuer);
    Arc::new(KeyFeed::new(verifier, keys, metrics, health().0))
}

#[tokio::test]
async fn an_answer_is_fresh_for_as_long_as_it_says_within_bounds() {
    let idp = Idp::start(String::new()).await;
    let feed_until = |stale_max| {
        feed(KeyUrl {
            stale_max,
            ..from(&idp.url, None)
        })
    };
    let minutes = |count: u64| Some(Duration::from_secs(60 * count));
    for (headers, stale_max, fresh) in [
        ("", DAY, minutes(10)),
        ("cache-control: no-store\r\n", DAY, minutes(10)),
        ("cache-control: max-age=0\r\n", DAY, minutes(1)),
        ("cache-control: public, max-age=900\r\n", DAY, minutes(15)),
        ("cache-control: max-age=86400\r\n", DAY, minutes(60)),
        // Fetched again before they are too old.
        ("", 5 * minutes(1).unwrap(), minutes(5)),
    ] {
        idp.answers(with_headers(headers, &set(&["a"])));
        assert_eq!(feed_until(stale_max).fetch().await, fresh, "{headers}");
    }
}

#[tokio::test]
async fn a_bad_answer_keeps_the_old_keys() {
    let idp = Idp::start(ok(&set(&["a", "b"]))).await;
    let feed = feed(from(&idp.url, None));
    assert_eq!(feed.verifier.key_count(), 0);
    feed.fetch().await.unwrap();
    let (generation, confirmed) = (feed.verifier.generation(), feed.verifier.keys_confirmed());
    let body = set(&["c"]);
    let length = body.len();
    for answer in [
        format!("HTTP/1.1 500 X\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("HTTP/1.1 203 X\r\ncontent-length: {length}\r\n\r\n{body}"),
        "HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".into(),
        ok(""),
        ok("<html>"),
        ok(r#"{"keys":[]}"#),
        ok(&format!("{body}{}", " ".repeat(256 * 1024))),
        "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{".into(),
        "not http\r\n\r\n".into(),
        String::new(),
    ] {
        idp.answers(answer.clone());
        assert_eq!(feed.fetch().await, None, "{answer:.60}");
        assert_eq!(feed.verifier.generation(), generation, "{answer:.60}");
        assert_eq!(feed.verifier.keys_confirmed(), confirmed, "{answer:.60}");
    }
    assert_eq!(feed.verifier.key_count(), 2);
}

#[tokio::test]
async fn all_who_wait_for_newer_keys_share_one_question() {
    let idp = Idp::start(ok(&set(&["a"]))).await;
    let feed = feed(from(&idp.url, None));
    tokio::spawn(Arc::clone(&feed).run());
    until("first keys", || feed.verifier.generation() == 1).await;
    // Given an issuer that has other keys, and takes its time
    idp.answers(ok(&set(&["a", "b"])));
    idp.open.send_replace(false);
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let feed = Arc::clone(&feed);
            tokio::spawn(async move { feed.newer(1).await })
        })
        .collect();
    until("the second question", || idp.count() == 2).await;
    idp.open.send_replace(true);
    // Then
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert_eq!((idp.count(), feed.verifier.key_count()), (2, 2));
    // Others than the first are known by now; nobody need be asked for them.
    assert!(feed.newer(1).await);
    // No newer ones for a while, and nobody waits.
    let begun = clock::now();
    for _ in 0..1_000 {
        assert!(!feed.newer(2).await);
    }
    assert!(clock::now() - begun < UNKNOWN_KEY_WAIT);
    assert_eq!(idp.count(), 2);
}

#[tokio::test]
async fn nobody_waits_long_for_an_issuer_that_does_not_answer() {
    let idp = Idp::start(ok(&set(&["a"]))).await;
    idp.open.send_replace(false);
    let feed = feed(from(&idp.url, None));
    tokio::spawn(Arc::clone(&feed).run());
    until("a question", || idp.count() == 1).await;
    let begun = clock::now();
    assert!(!feed.newer(0).await);
    // The question is still under way, and its moment is over.
    for _ in 0..1_000 {
        assert!(!feed.newer(0).await);
    }
    assert!(clock::now() - begun < 3 * UNKNOWN_KEY_WAIT);
    assert_eq!(idp.count(), 1);
}

#[tokio::test]
async fn tokens_cause_one_question_in_each_pause() {
    let feed = feed(from(&nowhere().await, None));
    let start = clock::now();
    assert_eq!(feed.claim(start), Some(UNKNOWN_KEY_WAIT));
    let later = UNKNOWN_KEY_WAIT / 4;
    assert_eq!(feed.claim(start + later), Some(UNKNOWN_KEY_WAIT - later));
    assert_eq!(feed.claim(start + UNKNOWN_KEY_WAIT), None);
    feed.end();
    assert_eq!(feed.claim(start + UNKNOWN_KEY_WAIT), None);
    let almost = UNKNOWN_KEY_PAUSE - Duration::from_millis(1);
    assert_eq!(feed.claim(start + almost), None);
    let next = start + UNKNOWN_KEY_PAUSE;
    assert_eq!(feed.claim(next), Some(UNKNOWN_KEY_WAIT));
    assert_eq!(feed.claim(next), Some(UNKNOWN_KEY_WAIT));
}

fn cache_file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("keys.json")
}

/// A cache file of keys that were confirmed so long ago.
fn write_cache(path: &Path, url: &Url, age: Duration, keys: &str) {
    let kept = cache::Kept {
        issuer: "https://idp.example".into(),
        url: url.to_string(),
        confirmed: clock::since_epoch(clock::wall() - age).as_secs(),
        keys: keys.into(),
    };
    cache::write(path, &kept).unwrap();
}

#[tokio::test]
async fn keys_survive_in_the_cache_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = cache_file(&dir);
    let idp = Idp::start(ok(&set(&["a"]))).await;
    let before = clock::wall();
    feed(from(&idp.url, Some(&path))).fetch().await.unwrap();
    // Another process finds them, with their age.
    let other = feed(from(&idp.url, Some(&path)));
    assert_eq!(other.verifier.key_count(), 1);
    let confirmed = other.verifier.keys_confirmed().unwrap();
    let second = Duration::from_secs(1);
    assert!(confirmed >= before - second && confirmed <= SystemTime::now());
    assert_eq!(idp.count(), 1);
    // A file that cannot be written loses nobody their keys.
    let nowhere = dir.path().join("none/keys.json");
    let third = feed(from(&idp.url, Some(&nowhere)));
    assert!(third.fetch().await.is_some());
    assert_eq!(third.verifier.key_count(), 1);
}

#[tokio::test]
async fn a_cache_file_that_cannot_be_believed_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = cache_file(&dir);
    let url = nowhere().await;
    let good = set(&["a", "b"]);
    let count = || feed(from(&url, Some(&path))).verifier.key_count();
    assert_eq!(count(), 0);
    write_cache(&path, &url, DAY - Duration::from_secs(60), &good);
    assert_eq!(count(), 2);
    write_cache(&path, &url, DAY, &good);
    assert_eq!(count(), 0);
    write_cache(&path, &url, Duration::ZERO, r#"{"keys":[]}"#);
    assert_eq!(count(), 0);
    let elsewhere = Url::parse("https://idp.example/other").unwrap();
    write_cache(&path, &elsewhere, Duration::ZERO, &good);
    assert_eq!(count(), 0);
    std::fs::write(&path, "{").unwrap();
    assert_eq!(count(), 0);
}
