//! Questions over HTTP to issuers and registries: one request on a connection of its own, within
//! a time limit, with a bound on the answer. No redirect is followed and no proxy is asked: what
//! is reached is what the operator named. TLS always, except to the machine itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;
use crate::net::settings::ClientTls;
use crate::net::stream::{HANDSHAKE_TIMEOUT, Stream};
use crate::net::tls;
pub use crate::url::Url;

/// How long one question may take, from the name to the last byte of the answer.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest header of an answer, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How long authorities read from a file serve; then the file is read again.
const AUTHORITIES_TTL: Duration = Duration::from_secs(60);

/// Why there is no answer. Nothing of the answer itself is repeated: it may hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The TLS settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// TLS failed.
    #[error("the tls handshake failed: {0}")]
    Tls(String),
    /// Not HTTP, or the connection broke.
    #[error("gave no HTTP answer: {0}")]
    Broken(String),
    /// Longer than asked for.
    #[error("gave an answer of more than {0} bytes")]
    Long(usize),
    /// Not within [`QUESTION_TIMEOUT`].
    #[error("gave no answer in time")]
    Late,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status, which may be an error.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// How long the answer may be kept: `max-age` of Cache-Control (RFC 9111 §5.2.2.1).
    pub fn max_age(&self) -> Option<Duration> {
        let values = self.headers.get_all(header::CACHE_CONTROL).iter();
        let mut directives = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let seconds = directives.find_map(|directive| {
            let (name, value) = directive.trim().split_once('=')?;
            let value = value.trim_matches('"');
            name.eq_ignore_ascii_case("max-age")
                .then(|| value.parse().ok())?
        })?;
        Some(Duration::from_secs(seconds))
    }
}

/// Asks. Cheap to share; holds no connection.
#[derive(Debug)]
pub struct HttpClient {
    settings: ClientTls,
    config: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl HttpClient {
    /// Trusts what `settings` say; files named there are read anew from time to time.
    pub fn new(settings: ClientTls) -> Self {
        Self {
            settings,
            config: Mutex::new(None),
        }
    }

    /// GET. The body of the answer has at most `bytes_max` bytes.
    pub async fn get(&self, url: &Url, bytes_max: usize) -> Result<Answer, HttpError> {
        self.ask(url, Method::GET, &[], Bytes::new(), bytes_max)
            .await
    }

    /// POST of a form (`application/x-www-form-urlencoded`), with headers such as Authorization.
    pub async fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        headers: &[(HeaderName, HeaderValue)],
        bytes_max: usize,
    ) -> Result<Answer, HttpError> {
        let form = form(fields);
        let mut all = headers.to_vec();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        all.push((header::CONTENT_TYPE, kind));
        self.ask(url, Method::POST, &all, form.into(), bytes_max)
            .await
    }

    async fn ask(
        &self,
        url: &Url,
        method: Method,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Answer, HttpError> {
        let question = async {
            let stream = self.connect(url).await?;
            exchange(stream, url, method, headers, body, bytes_max).await
        };
        let answer = timeout(QUESTION_TIMEOUT, question).await;
        answer.map_err(|_| HttpError::Late)?
    }

    async fn connect(&self, url: &Url) -> Result<Stream, HttpError> {
        let tcp = TcpStream::connect((url.host(), url.port())).await;
        let tcp = tcp.map_err(|error| HttpError::Unreachable(error.to_string()))?;
        if !url.is_tls() {
            return Stream::plain(tcp).map_err(|error| HttpError::Unreachable(error.to_string()));
        }
        let name = ServerName::try_from(url.host().to_owned());
        let name = name.map_err(|error| HttpError::Tls(error.to_string()))?;
        let config = self.config().await?;
        Stream::connect(tcp, &config, name, HANDSHAKE_TIMEOUT)
            .await
            .map_err(|error| HttpError::Tls(error.to_string()))
    }

    /// Files are read away from this thread, whose connections would wait for the disk.
    async fn config(&self) -> Result<Arc<ClientConfig>, HttpError> {
        if let Some((read, config)) = &*self.known()
            && clock::now().duration_since(*read) < AUTHORITIES_TTL
        {
            return Ok(Arc::clone(config));
        }
        let settings = self.settings.clone();
        let reading = tokio::task::spawn_blocking(move || tls::client_config(&settings));
        let config = reading
            .await
            .map_err(|error| HttpError::Settings(error.to_string()))?
            .map_err(|error| HttpError::Settings(error.to_string()))?;
        *self.known() = Some((clock::now(), Arc::clone(&config)));
        Ok(config)
    }

    fn known(&self) -> MutexGuard<'_, Option<(Instant, Arc<ClientConfig>)>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn exchange(
    stream: Stream,
    url: &Url,
    method: Method,
    headers: &[(HeaderName, HeaderValue)],
    body: Bytes,
    bytes_max: usize,
) -> Result<Answer, HttpError> {
    let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEADER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let asking = async {
        let path = url.uri().path_and_query().map_or("/", |path| path.as_str());
        let host = url.uri().authority().map_or("", |host| host.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .header(
                header::USER_AGENT,
                concat!("kordon/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| HttpError::Broken(error.to_string()))?;
        let (parts, mut body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let mut bytes = BytesMut::new();
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else {
                break;
            };
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > bytes_max {
                return Err(HttpError::Long(bytes_max));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: bytes.freeze(),
        })
    };
    // The connection moves while the question waits; what it says after the answer is nothing
    // that anybody needs.
    let mut asking = std::pin::pin!(asking);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = &mut connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// A form as HTML 5 and RFC 6749 appendix B write it.
pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// `application/x-www-form-urlencoded`.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn forms_are_written_as_rfc_6749_says() {
        // Appendix B's own example.
        assert_eq!(encoded(" %&+£€"), "+%25%26%2B%C2%A3%E2%82%AC");
        assert_eq!(form(&[("a", "b c"), ("d", "=")]), "a=b+c&d=%3D");
    }

    /// Answers one connection with `answer` and returns what was asked.
    async fn once(answer: &'static [u8]) -> (Url, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/path?q=1", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer).await.unwrap();
            String::from_utf8(asked[..length].to_vec()).unwrap()
        });
        (Url::parse(&url).unwrap(), served)
    }

    #[tokio::test]
    async fn a_question_gets_its_answer() {
        let (url, served) = once(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\
            cache-control: public, max-age=300\r\n\r\n{}",
        )
        .await;
        let client = HttpClient::new(ClientTls::default());
        let answer = client
            .post_form(&url, &[("a", "b")], &[], 100)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(&answer.body[..], b"{}");
        assert_eq!(answer.max_age(), Some(Duration::from_secs(300)));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("POST /path?q=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\na=b"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_no_redirect_is_followed() {
        let client = HttpClient::new(ClientTls::default());
        let (url, _) = once(b"HTTP/1.1 200 OK\r\n\r\n0123456789").await;
        assert_eq!(client.get(&url, 9).await.unwrap_err(), HttpError::Long(9));
        let (url, _) = once(b"HTTP/1.1 200 OK\r\n\r\n0123456789").await;
        assert_eq!(client.get(&url, 10).await.unwrap().body.len(), 10);
        let elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\
            content-length: 0\r\n\r\n";
        let (url, _) = once(elsewhere).await;
        assert_eq!(client.get(&url, 9).await.unwrap().status, 302);
        let (url, _) = once(b"not http at all\r\n\r\n").await;
        assert!(matches!(
            client.get(&url, 9).await,
            Err(HttpError::Broken(_))
        ));
    }
}
