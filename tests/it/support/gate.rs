//! A broker that asks for SASL: a gate in front of the embedded broker that behaves as Kafka's
//! does. It takes one request at a time; a session's end is looked at when a request comes, and
//! the connection then closes without an answer, unless the request is SaslHandshake.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FetchRequest, FetchResponse, ProduceRequest, RequestHeader,
    ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kordon::identity::scram::{ClientFirst, Credential, Hash, ServerExchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::fetching::Sessions;

/// Kafka refuses a re-authentication sooner after the last one.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// What the gate knows and has seen; a test changes it while it runs.
pub struct Rules {
    /// Passwords of users.
    pub users: BTreeMap<&'static str, &'static str>,
    /// Whether a token is good.
    pub token: fn(&str) -> bool,
    /// `session_lifetime_ms`.
    pub lifetime_ms: AtomicI64,
    /// Nobody is believed any more.
    pub refuses: AtomicBool,
    /// No token is good any more.
    pub distrusts: AtomicBool,
    /// What a refused token is answered with.
    pub challenge: &'static str,
    /// Who connects need not say who it is, and fetches in sessions.
    pub sessions: Option<Sessions>,
    /// How many answers to Produce are still to be lost: the connection ends in their place.
    pub loses: AtomicI64,
    /// Sessions opened, renewed, and ended because a request came too late.
    pub opened: AtomicU64,
    pub renewed: AtomicU64,
    pub expired: AtomicU64,
    /// Tokens shown, in order.
    pub tokens: Mutex<Vec<String>>,
    /// Users whose PLAIN password was right, in order; and those that renewed a session by it.
    pub names: Mutex<Vec<String>>,
    pub renewed_names: Mutex<Vec<String>>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            users: BTreeMap::from([("kordon", "s3cret, =pass")]),
            token: |_| true,
            lifetime_ms: AtomicI64::new(0),
            refuses: AtomicBool::new(false),
            distrusts: AtomicBool::new(false),
            challenge: r#"{"status":"invalid_token"}"#,
            sessions: None,
            loses: AtomicI64::new(0),
            opened: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            tokens: Mutex::default(),
            names: Mutex::default(),
            renewed_names: Mutex::default(),
        }
    }
}

/// A running gate.
pub struct Gate {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    pub fn start(port: u16, broker: SocketAddr, rules: Arc<Rules>) -> Gate {
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::spawn(async move {
                    loop {
                        let (client, _) = listener.accept().await.unwrap();
                        client.set_nodelay(true).unwrap();
                        tokio::spawn(Connection::serve(client, broker, Arc::clone(&rules)));
                    }
                });
                let _ = stopped.await;
            });
        });
        Gate {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

struct Connection {
    client: TcpStream,
    broker: TcpStream,
    rules: Arc<Rules>,
    state: State,
    /// When the session ends.
    end: Option<Instant>,
    /// When the last re-authentication began.
    begun: Option<Instant>,
    is_open: bool,
}

enum State {
    Open,
    Mechanism(String),
    Scram(ServerExchange),
    Abort,
}

/// What a mechanism says to a message.
enum Verdict {
    Good(Vec<u8>),
    More(Vec<u8>, State),
    Bad(String),
}

impl Connection {
    async fn serve(client: TcpStream, broker: SocketAddr, rules: Arc<Rules>) -> Option<()> {
        let broker = TcpStream::connect(broker).await.ok()?;
        broker.set_nodelay(true).ok()?;
        let mut connection = Connection {
            client,
            broker,
            rules,
            state: State::Open,
            end: None,
            begun: None,
            is_open: false,
        };
        connection.is_open = connection.rules.sessions.is_some();
        loop {
            let frame = frame(&mut connection.client).await?;
            connection.request(frame).await?;
        }
    }

    /// `None`: the connection ends.
    async fn request(&mut self, frame: Bytes) -> Option<()> {
        let key = ApiKey::try_from(i16::from_be_bytes([frame[0], frame[1]])).ok()?;
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let mut body = frame.clone();
        let header = RequestHeader::decode(&mut body, key.request_header_version(version)).ok()?;
        let id = header.correlation_id;
        let state = std::mem::replace(&mut self.state, State::Open);
        match (key, state) {
            (ApiKey::SaslHandshake, State::Open) => {
                if self.is_open {
                    let now = Instant::now();
                    let too_soon = self.begun.is_some_and(|b| now - b < PAUSE_MIN);
                    if self.end.is_none() || too_soon {
                        let answer = SaslHandshakeResponse::default().with_error_code(34);
                        return self.answer(key, version, id, &answer).await;
                    }
                    self.begun = Some(now);
                }
                let wanted = SaslHandshakeRequest::decode(&mut body, version).ok()?;
                let wanted = wanted.mechanism.to_string();
                let names = ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
                let answer = SaslHandshakeResponse::default()
                    .with_mechanisms(names.map(StrBytes::from_static_str).to_vec());
                if !names.contains(&wanted.as_str()) {
                    let answer = answer.with_error_code(33);
                    self.answer(key, version, id, &answer).await?;
                    return None;
                }
                self.state = State::Mechanism(wanted);
                self.answer(key, version, id, &answer).await
            }
            (ApiKey::SaslAuthenticate, state) if !matches!(state, State::Open) => {
                let request = SaslAuthenticateRequest::decode(&mut body, version).ok()?;
                let verdict = self.judge(state, &request.auth_bytes);
                let mut answer = SaslAuthenticateResponse::default();
                match verdict {
                    Verdict::Bad(text) => {
                        let text = StrBytes::from_string(text);
                        answer = answer.with_error_code(58).with_error_message(Some(text));
                        self.answer(key, version, id, &answer).await?;
                        None
                    }
                    Verdict::More(bytes, state) => {
                        self.state = state;
                        let answer = answer.with_auth_bytes(bytes.into());
                        self.answer(key, version, id, &answer).await
                    }
                    Verdict::Good(bytes) => {
                        let ms = self.rules.lifetime_ms.load(SeqCst);
                        let lifetime = u64::try_from(ms).ok().filter(|ms| *ms > 0);
                        self.end = lifetime.map(|ms| Instant::now() + Duration::from_millis(ms));
                        let count = match std::mem::replace(&mut self.is_open, true) {
                            true => &self.rules.renewed,
                            false => &self.rules.opened,
                        };
                        count.fetch_add(1, SeqCst);
                        let answer = answer
                            .with_auth_bytes(bytes.into())
                            .with_session_lifetime_ms(ms);
                        self.answer(key, version, id, &answer).await
                    }
                }
            }
            (ApiKey::ApiVersions, State::Open) if !self.is_open => {
                self.broker.write_all(&prefixed(&frame)).await.ok()?;
                let mut answer = self::frame(&mut self.broker).await?;
                let header = key.response_header_version(version);
                ResponseHeader::decode(&mut answer, header).ok()?;
                let mut answer = ApiVersionsResponse::decode(&mut answer, version).ok()?;
                for (key, max) in [(17, 1), (36, 2)] {
                    let row = ApiVersion::default()
                        .with_api_key(key)
                        .with_max_version(max);
                    answer.api_keys.push(row);
                }
                self.answer(key, version, id, &answer).await
            }
            (_, State::Open) if self.is_open => {
                if self.end.is_some_and(|end| Instant::now() >= end) {
                    self.rules.expired.fetch_add(1, SeqCst);
                    return None;
                }
                if let (ApiKey::Fetch, Some(_)) = (key, &self.rules.sessions) {
                    return self.fetch(version, header, &mut body).await;
                }
                self.broker.write_all(&prefixed(&frame)).await.ok()?;
                let silent = key == ApiKey::Produce
                    && ProduceRequest::decode(&mut body, version).ok()?.acks == 0;
                if silent {
                    return Some(());
                }
                let answer = self::frame(&mut self.broker).await?;
                if key == ApiKey::Produce && self.rules.loses.fetch_sub(1, SeqCst) > 0 {
                    return None;
                }
                self.client.write_all(&prefixed(&answer)).await.ok()
            }
            _ => None,
        }
    }

    /// A Fetch of a session, or without one.
    async fn fetch(&mut self, version: i16, head: RequestHeader, body: &mut Bytes) -> Option<()> {
        let (key, id) = (ApiKey::Fetch, head.correlation_id);
        let mut request = FetchRequest::decode(body, version).ok()?;
        let wanted = self.rules.sessions.as_ref()?.full(&mut request);
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(code) => {
                let answer = FetchResponse::default().with_error_code(code);
                return self.answer(key, version, id, &answer).await;
            }
        };
        let mut frame = BytesMut::new();
        head.encode(&mut frame, key.request_header_version(version))
            .ok()?;
        request.encode(&mut frame, version).ok()?;
        self.broker.write_all(&prefixed(&frame)).await.ok()?;
        let mut answer = self::frame(&mut self.broker).await?;
        ResponseHeader::decode(&mut answer, key.response_header_version(version)).ok()?;
        let mut answer = FetchResponse::decode(&mut answer, version).ok()?;
        wanted.answer(&mut answer);
        self.answer(key, version, id, &answer).await
    }

    fn judge(&self, state: State, message: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(message).into_owned();
        if self.rules.refuses.load(SeqCst) {
            return Verdict::Bad("Authentication failed: nobody is believed".into());
        }
        match state {
            State::Mechanism(name) if name == "PLAIN" => {
                let mut parts = text.split('\0').skip(1);
                let (user, password) = (parts.next(), parts.next());
                let known = user.and_then(|user| self.rules.users.get(user));
                match known.is_some_and(|known| Some(*known) == password) {
                    true => {
                        let names = match self.is_open {
                            true => &self.rules.renewed_names,
                            false => &self.rules.names,
                        };
                        let name = user.unwrap_or_default().to_owned();
                        names.lock().unwrap().push(name);
                        Verdict::Good(Vec::new())
                    }
                    false => {
                        Verdict::Bad("Authentication failed: Invalid username or password".into())
                    }
                }
            }
            State::Mechanism(name) if name == "OAUTHBEARER" => {
                let token = text.split("auth=Bearer ").nth(1).unwrap();
                let token = token.split('\u{1}').next().unwrap().to_owned();
                let good = (self.rules.token)(&token) && !self.rules.distrusts.load(SeqCst);
                self.rules.tokens.lock().unwrap().push(token);
                match good {
                    true => Verdict::Good(Vec::new()),
                    false => Verdict::More(self.rules.challenge.into(), State::Abort),
                }
            }
            State::Mechanism(name) => {
                let hash = match name.as_str() {
                    "SCRAM-SHA-256" => Hash::Sha256,
                    _ => Hash::Sha512,
                };
                let first = ClientFirst::parse(message).unwrap();
                let password = self.rules.users.values().next().unwrap();
                let iterations = 4096.try_into().unwrap();
                let credential = Credential::of_password(hash, password, b"salt", iterations);
                let (exchange, answer) = ServerExchange::begin(&first, &credential, "server");
                Verdict::More(answer.into_bytes(), State::Scram(exchange))
            }
            State::Scram(exchange) => match exchange.finish(message) {
                Ok(answer) => Verdict::Good(answer.into_bytes()),
                Err(error) => Verdict::Bad(error.to_string()),
            },
            State::Abort => Verdict::Bad(self.rules.challenge.into()),
            State::Open => unreachable!(),
        }
    }

    async fn answer<R: Encodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        id: i32,
        answer: &R,
    ) -> Option<()> {
        let mut frame = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(id);
        let header_version = key.response_header_version(version);
        header.encode(&mut frame, header_version).unwrap();
        answer.encode(&mut frame, version).unwrap();
        self.client.write_all(&prefixed(&frame)).await.ok()
    }
}

fn prefixed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap();
    [&length.to_be_bytes(), frame].concat()
}

async fn frame(stream: &mut TcpStream) -> Option<Bytes> {
    let length = stream.read_u32().await.ok()?;
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame.into())
}
