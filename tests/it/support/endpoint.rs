//! A token endpoint.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What the endpoint does and has seen.
pub struct Endpoint {
    pub address: SocketAddr,
    /// Answers 503.
    pub is_down: AtomicBool,
    /// `expires_in`.
    pub lifetime: AtomicU64,
    /// Requests, their headers in lower case.
    pub asked: Mutex<Vec<String>>,
}

impl Endpoint {
    /// Gives the tokens `token-1`, `token-2` … for so many seconds each.
    pub fn start(lifetime: u64) -> Arc<Endpoint> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Arc::new(Endpoint {
            address: listener.local_addr().unwrap(),
            is_down: AtomicBool::new(false),
            lifetime: AtomicU64::new(lifetime),
            asked: Mutex::default(),
        });
        let served = Arc::clone(&endpoint);
        // Ends with the process, as the whole of the tests do.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = served.answer(stream.unwrap());
            }
        });
        endpoint
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part)?;
            bytes.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                break;
            }
        }
        let mut asked = self.asked.lock().unwrap();
        asked.push(String::from_utf8(bytes).unwrap());
        let (status, body) = match self.is_down.load(SeqCst) {
            true => (
                "503 Service Unavailable",
                r#"{"error":"temporarily_unavailable"}"#.into(),
            ),
            false => {
                let number = asked.len();
                let lifetime = self.lifetime.load(SeqCst);
                let body = serde_json::json!({
                    "access_token": format!("token-{number}"),
                    "token_type": "Bearer",
                    "expires_in": lifetime,
                })
                .to_string();
                ("200 OK", body)
            }
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }
}
