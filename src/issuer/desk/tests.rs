//! Fetching keys and asking about tokens, against a small issuer on a socket.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::identity::settings::TokenSource;
use crate::url::Url;

mod introspection;
mod keys;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An issuer that answers every request in the same way.
struct Idp {
    url: Url,
    answer: watch::Sender<String>,
    /// How many requests have come, and what they were.
    asked: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    /// While `false`, requests come in and nothing goes out.
    open: watch::Sender<bool>,
}

fn ok(body: &str) -> String {
    with_headers("", body)
}

fn with_headers(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

impl Idp {
    async fn start(answer: String) -> Idp {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/path", listener.local_addr().unwrap());
        let idp = Idp {
            url: Url::parse(&url).unwrap(),
            answer: watch::channel(answer).0,
            asked: Arc::default(),
            requests: Arc::default(),
            open: watch::channel(true).0,
        };
        let (answer, asked) = (idp.answer.subscribe(), Arc::clone(&idp.asked));
        let (requests, open) = (Arc::clone(&idp.requests), idp.open.subscribe());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (answer, asked) = (answer.clone(), Arc::clone(&asked));
                let (requests, mut open) = (Arc::clone(&requests), open.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !is_whole(&request) {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    requests.lock().unwrap().push(request);
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _ = open.wait_for(|open| *open).await;
                    let answer = answer.borrow().clone();
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        idp
    }

    fn answers(&self, answer: String) {
        self.answer.send_replace(answer);
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Whether the header and the body that it announces are here.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(done.is_ok(), "not in time: {what}");
}

/// An address where nobody listens.
async fn nowhere() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    Url::parse(&url).unwrap()
}

fn settings(source: TokenSource) -> TokenSettings {
    TokenSettings {
        issuer: "https://idp.example".into(),
        source,
        audience: "kafka".into(),
        algorithms: vec!["ES256".into()],
        clock_skew: Duration::from_secs(30),
        required_scopes: Vec::new(),
        claims: Vec::new(),
        principal_claim: "sub".into(),
        principal_prefix: String::new(),
        tenant_claim: None,
        groups_claim: None,
        session_max: None,
        certificate_bound: false,
        types: vec!["JWT".into()],
        token_bytes_max: 16 * 1024,
    }
}

fn health() -> (Arc<Health>, Arc<Notify>) {
    let changed = Arc::new(Notify::new());
    let health = Health {
        listener: "tokens".into(),
        issuer: "https://idp.example".into(),
        trouble: Mutex::new(None),
        changed: Arc::clone(&changed),
    };
    (Arc::new(health), changed)
}

fn recorder() -> Recorder {
    Recorder::new(|_| None)
}

#[tokio::test]
async fn what_is_wrong_is_noted_until_it_is_not() {
    // Given an issuer that is down
    let idp = Idp::start("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".into()).await;
    let keys = keys::from(&idp.url, None);
    let mut desk = Desk::default();
    let settings = settings(TokenSource::KeyUrl(keys.clone()));
    let issuer = desk.key_url("tokens", &settings, &keys, &recorder());
    let issuer = issuer.unwrap();
    let (notes, mut noted) = watch::channel(None);
    tokio::spawn(async move {
        desk.run(move |note| {
            notes.send_replace(Some(note));
        })
        .await;
    });
    let mut says = async |wanted: &str| {
        let text = noted.wait_for(|note| {
            let text = note.clone().map(|note| note.unwrap_or_default());
            text.is_some_and(|text| match wanted {
                "" => text.is_empty(),
                wanted => text.contains(wanted),
            })
        });
        let found = tokio::time::timeout(PATIENCE, text).await;
        found.unwrap().unwrap().clone().unwrap()
    };
    // Then the note says so,
    let note = says("status 503").await.unwrap();
    assert_eq!(
        note,
        "`https://idp.example` on listener `tokens`: no keys from `jwks.url` (answers with \
         status 503); there are no current keys, its tokens are refused"
    );
    // and is taken back when it answers again.
    idp.answers(ok(&keys::set(&["a"])));
    says("").await;
    assert_eq!(issuer.verifier.key_count(), 1);
}
