//! A little issuer on a socket: publishes keys, answers questions about tokens, counts both, and
//! can be down.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::signer::now;

/// How a proxy must prove that it may ask: `me` and `pw`.
const BASIC: &str = "authorization: basic bwu6chc=";

pub struct Idp {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    keys: Mutex<Value>,
    tokens: Mutex<HashMap<String, Value>>,
    key_questions: AtomicUsize,
    token_questions: AtomicUsize,
    down: AtomicBool,
    end: AtomicBool,
}

impl Idp {
    pub fn new(keys: &Value) -> Idp {
        Idp::start(keys, None)
    }

    /// The same with the certificate `server.pem` and `server.key` of a directory.
    pub fn with_tls(keys: &Value, dir: &Path) -> Idp {
        let chain = CertificateDer::pem_file_iter(dir.join("server.pem")).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Idp::start(keys, Some(Arc::new(config.unwrap())))
    }

    fn start(keys: &Value, tls: Option<Arc<ServerConfig>>) -> Idp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State::default());
        *state.keys.lock().unwrap() = keys.clone();
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if serving.end.load(Ordering::SeqCst) {
                    return;
                }
                let (socket, state) = (socket.unwrap(), Arc::clone(&serving));
                // Whoever leaves in the middle is no fault.
                let tls = tls.clone().map(|tls| ServerConnection::new(tls).unwrap());
                std::thread::spawn(move || match tls {
                    None => answer(socket, &state),
                    Some(tls) => answer(StreamOwned::new(tls, socket), &state),
                });
            }
        });
        Idp {
            address,
            scheme,
            state,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}/{path}", self.scheme, self.address.port())
    }

    /// Publishes other keys from now on.
    pub fn publish(&self, keys: &Value) {
        *self.state.keys.lock().unwrap() = keys.clone();
    }

    /// Says this about a token: an hour long, unless `changes` say otherwise. About all others
    /// it says that they are not active.
    pub fn know(&self, token: &str, subject: &str, changes: Value) {
        let mut claims = json!({
            "active": true, "sub": subject, "aud": "kafka", "scope": "kafka",
            "tenant_id": "shop", "exp": now() + 3_600,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut tokens = self.state.tokens.lock().unwrap();
        tokens.insert(token.to_owned(), claims);
    }

    /// Whether connections end before anything is said.
    pub fn down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// How often it was asked for its keys, in vain included.
    pub fn key_questions(&self) -> usize {
        self.state.key_questions.load(Ordering::SeqCst)
    }

    /// How often it was asked about a token, in vain included.
    pub fn token_questions(&self) -> usize {
        self.state.token_questions.load(Ordering::SeqCst)
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.state.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut socket: impl Read + Write, state: &State) -> Option<()> {
    let (head, body) = request(&mut socket)?;
    let about_tokens = head.starts_with("POST /introspect ");
    let count = match about_tokens {
        true => &state.token_questions,
        false => &state.key_questions,
    };
    count.fetch_add(1, Ordering::SeqCst);
    if state.down.load(Ordering::SeqCst) {
        return None;
    }
    let (status, said) = if head.starts_with("GET /jwks ") {
        (200, state.keys.lock().unwrap().to_string())
    } else if !about_tokens {
        (404, String::new())
    } else if !head.to_ascii_lowercase().contains(BASIC) {
        (401, String::new())
    } else {
        let mut fields = body.split('&');
        let token = fields.find_map(|field| field.strip_prefix("token="))?;
        let known = state.tokens.lock().unwrap().get(token).cloned();
        let said = known.unwrap_or_else(|| json!({"active": false}));
        (200, said.to_string())
    };
    let length = said.len();
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{said}");
    socket.write_all(text.as_bytes()).ok()?;
    socket.flush().ok()
}

/// Head and body of a request.
fn request(socket: &mut impl Read) -> Option<(String, String)> {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = socket.read(&mut part).ok().filter(|length| *length > 0)?;
        text.extend_from_slice(&part[..length]);
        let so_far = String::from_utf8_lossy(&text);
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
            continue;
        };
        let announced = head.lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length:")?.trim().parse().ok()
        });
        if body.len() >= announced.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}
