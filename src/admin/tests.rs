//! The endpoint over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::clock;
use crate::telemetry::{Direction, Expiring, Outcome};

struct Fixed;

impl StatusSource for Fixed {
    fn listeners(&self) -> Vec<ListenerStatus> {
        vec![ListenerStatus {
            name: "app<script>".into(),
            bind: SocketAddr::from(([127, 0, 0, 1], 9092)),
            tls: false,
            identity: "static",
            issuers: vec![IssuerStatus {
                issuer: "<idp>".into(),
                tokens: "keys from a URL",
                keys: 3,
                keys_age_seconds: Some(77),
            }],
            brokers: vec![BrokerStatus {
                id: 4,
                advertised: "localhost:19093".into(),
            }],
        }]
    }

    fn upstream(&self) -> Vec<IdentityStatus> {
        vec![IdentityStatus {
            whose: "principals",
            names: (0..11).map(|at| format!("User:<{at}>")).collect(),
            mechanism: Some("PLAIN"),
            name: Some("a&b".into()),
            certificate: Some("CN=<kordon>".into()),
        }]
    }

    fn policy(&self) -> PolicyStatus {
        PolicyStatus {
            authorization: true,
            digest: "ab12".into(),
            generation: 2,
            loaded: clock::wall() - Duration::from_secs(90),
            files: vec!["policies/auth.yaml".into()],
            shadows: vec![ShadowStatus {
                set: "shadow",
                digest: "cd34".into(),
                files: vec!["next/auth.yaml".into()],
            }],
        }
    }
}

/// The endpoint on a thread of its own, on a current-thread runtime as in the program.
struct Endpoint {
    addr: SocketAddr,
    state: AdminState,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = AdminState {
            recorder: Recorder::new(|key| (key == 0).then_some("Produce")),
            readiness: Readiness::new(),
            source: Arc::new(Fixed),
        };
        let (stop, stopped) = oneshot::channel();
        let served = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let shutdown = async { drop(stopped.await) };
            runtime
                .unwrap()
                .block_on(serve(listener, served, shutdown))
                .unwrap();
        });
        Self {
            addr,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
    }

    fn ask(&self, head: &str) -> Answer {
        let mut stream = self.connect();
        write!(stream, "{head}\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Answer::read(&text)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        Self {
            code: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

#[test]
fn readiness_follows_its_handle_and_liveness_does_not() {
    let endpoint = Endpoint::start();
    let readiness = &endpoint.state.readiness;
    let answer = endpoint.get("/readyz");
    assert_eq!((answer.code, &*answer.body), (503, "not ready: starting\n"));
    assert_eq!(endpoint.get("/livez").code, 200);

    readiness.ready();
    assert_eq!(endpoint.get("/readyz").code, 200);

    readiness.note("policies", "version 3 was not taken");
    let answer = endpoint.get("/readyz");
    assert_eq!(answer.code, 200);
    assert_eq!(answer.body, "ready\npolicies: version 3 was not taken\n");
    readiness.clear("policies");

    readiness.not_ready("draining");
    let answer = endpoint.get("/readyz");
    assert_eq!((answer.code, &*answer.body), (503, "not ready: draining\n"));
}

#[test]
fn metrics_come_in_the_format_that_was_asked_for() {
    let endpoint = Endpoint::start();
    let connection = endpoint.state.recorder.connection("shop", "app");
    connection.request(0, Outcome::Refused);
    connection.bytes(Direction::In, 42);

    let plain = endpoint.get("/metrics");
    assert!(
        plain
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    let series = r#"kordon_requests_total{tenant="shop",api="Produce",outcome="refused"} 1"#;
    assert!(
        plain.body.lines().any(|line| line == series),
        "{}",
        plain.body
    );
    assert!(!plain.body.contains("# EOF"));

    let open = endpoint.ask("GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text");
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(open.body.contains("# TYPE kordon_requests counter\n"));
    assert!(open.body.lines().any(|line| line == series));
    assert!(open.body.ends_with("# EOF\n"));
}

#[test]
fn the_status_is_the_same_as_json_and_as_a_page() {
    let endpoint = Endpoint::start();
    endpoint.state.readiness.ready();
    let _connection = endpoint.state.recorder.connection("<b>\"&'", "app");

    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    let recorder = &endpoint.state.recorder;
    recorder.expiry(Expiring::Listener, "app<i>", Some(ends));
    recorder.expiry(Expiring::Upstream, "", Some(ends));
    recorder.expiry(Expiring::Upstream, "", None);
    let status: Value = serde_json::from_str(&endpoint.get("/api/status").body).unwrap();
    assert_eq!(status["ready"], true);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        status["listeners"][0]["brokers"][0]["advertised"],
        "localhost:19093"
    );
    assert_eq!(status["listeners"][0]["issuers"][0]["keys_age_seconds"], 77);
    assert_eq!(status["connections"]["<b>\"&'"]["app"], 1);
    let expiry = serde_json::json!(
        {"what": "listener", "listener": "app<i>", "ends": "1970-01-02T00:00:00.000Z"});
    assert_eq!(status["expiries"], serde_json::json!([expiry]));
    assert_eq!(status["policy"]["digest"], "ab12");
    assert!((90..100).contains(&status["policy_age_seconds"].as_u64().unwrap()));

    let page = endpoint.get("/");
    assert!(page.head.contains("content-type: text/html"));
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'")
    );
    assert!(
        page.body
            .contains("app&lt;i&gt;<td>1970-01-02T00:00:00.000Z")
    );
    assert!(page.body.contains("4 → <code>localhost:19093</code>"));
    assert!(page.body.contains("<td>&lt;idp&gt;<td>"), "{}", page.body);
    assert!(page.body.contains("<td>3<td>77 s ago"));
    assert!(page.body.contains("&lt;b&gt;&quot;&amp;&#39;"));
    for hostile in ["<script", "<b>", "http:", "https:", "src="] {
        assert!(!page.body.contains(hostile), "{hostile}");
    }
}

#[test]
fn policies_are_listed_with_their_digest() {
    let endpoint = Endpoint::start();
    let policies: Value = serde_json::from_str(&endpoint.get("/policies").body).unwrap();
    assert_eq!(policies["digest"], "ab12");
    assert_eq!(policies["files"][0], "policies/auth.yaml");
    let shadow = &policies["shadows"][0];
    assert_eq!([&shadow["set"], &shadow["digest"]], ["shadow", "cd34"]);
    let loaded = policies["loaded"].as_str().unwrap();
    assert!(loaded.ends_with('Z') && loaded.len() == 24, "{loaded}");
}

#[test]
fn only_reading_is_possible() {
    let endpoint = Endpoint::start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = endpoint.ask(&format!("{method} /readyz HTTP/1.1"));
        assert_eq!(answer.code, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{method}");
    }
    for path in [
        "/nothing",
        "/metrics/",
        "/api",
        "/api/status/x",
        "//",
        "/../etc/passwd",
    ] {
        assert_eq!(endpoint.get(path).code, 404, "{path}");
    }
    assert_eq!(
        endpoint.get("/livez?probe=1").code,
        200,
        "a query does not matter"
    );
}

#[test]
fn head_is_get_without_its_body() {
    let endpoint = Endpoint::start();
    let get = endpoint.get("/policies");
    let head = endpoint.ask("HEAD /policies HTTP/1.1");
    assert_eq!((head.code, &*head.body), (200, ""));
    let length = format!("content-length: {}", get.body.len());
    assert!(head.head.contains(&length), "{}", head.head);
}

#[test]
fn a_body_is_not_waited_for() {
    let endpoint = Endpoint::start();
    let mut stream = endpoint.connect();
    let begun = clock::now();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert!((clock::now() - begun) < HEADER_TIME_MAX);
}

#[test]
fn bytes_that_are_not_http_are_refused() {
    let endpoint = Endpoint::start();
    for bytes in [
        &b"\x00\x00\x00\x04\x00\x12\x00\x00\r\n\r\n"[..],
        b"\x16\x03\x01\r\n\r\n",
    ] {
        let mut stream = endpoint.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Closed with or without an answer; a reset is an error to the reader.
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{answer:?}"
        );
    }
    let long = format!(
        "GET /livez HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(2 * HEADER_BYTES_MAX)
    );
    let mut stream = endpoint.connect();
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(endpoint.get("/livez").code, 200, "the endpoint lives on");
}

#[test]
fn silent_peers_are_closed_in_time_and_bounded_in_number() {
    let endpoint = Endpoint::start();
    let begun = clock::now();
    let mut silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| endpoint.connect()).collect();

    // One more is closed at once and counted.
    let refused = endpoint.connect().read(&mut [0; 1]);
    assert!(matches!(refused, Ok(0) | Err(_)));
    assert!((clock::now() - begun) < HEADER_TIME_MAX);

    // The silent ones are closed when their time is over, and there is room again.
    for stream in &mut silent {
        assert!(matches!(stream.read(&mut [0; 64]), Ok(_) | Err(_)));
    }
    let waited = clock::now() - begun;
    assert!(
        waited >= HEADER_TIME_MAX - Duration::from_millis(500),
        "{waited:?}"
    );
    assert!(
        waited < HEADER_TIME_MAX + Duration::from_secs(10),
        "{waited:?}"
    );
    // A client sees the end a moment before the endpoint counts it.
    std::thread::sleep(Duration::from_secs(1));
    let metrics = endpoint.get("/metrics").body;
    assert!(
        metrics.contains("kordon_admin_connections_refused_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn shutting_down_ends_the_endpoint_soon_even_with_a_silent_peer() {
    let endpoint = Endpoint::start();
    let _silent = endpoint.connect();
    assert_eq!(endpoint.get("/livez").code, 200);
    let addr = endpoint.addr;
    let begun = clock::now();
    drop(endpoint);
    assert!((clock::now() - begun) < Duration::from_secs(3));
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn a_clock_that_was_set_back_does_not_break_the_status() {
    struct Future;
    impl StatusSource for Future {
        fn listeners(&self) -> Vec<ListenerStatus> {
            Vec::new()
        }
        fn upstream(&self) -> Vec<IdentityStatus> {
            Vec::new()
        }
        fn policy(&self) -> PolicyStatus {
            PolicyStatus {
                loaded: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40),
                ..Fixed.policy()
            }
        }
    }
    let status = Status::of(&AdminState {
        recorder: Recorder::new(|_| None),
        readiness: Readiness::new(),
        source: Arc::new(Future),
    });
    assert_eq!(status.policy_age_seconds, 0);
}
