//! HTTP/1 on the admin address: a few short connections at a time, each for one request and with
//! a deadline, so that a peer that dawdles costs one slot for seconds and never more.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{AdminState, page, status::Status};
use crate::telemetry::Exposition;

/// Connections at a time; more are closed at once and counted.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a peer may take to send its request's header.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(20);
/// The longest request header, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// How long answers under way may take once the endpoint shuts down.
const DRAIN: Duration = Duration::from_secs(1);
/// The pause after a failed accept (no file descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Serves until `shutdown` is done; answers under way get a moment to finish.
pub async fn serve(
    listener: std::net::TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, state.clone()));
                }
                Ok(_) => state.recorder.admin_refused(),
                Err(error) => {
                    tracing::warn!(%error, "admin endpoint cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is left after that is aborted as the set is dropped.
    let _ = tokio::time::timeout(DRAIN, drained).await;
    Ok(())
}

async fn connection(stream: TcpStream, state: AdminState) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &state);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Neither a peer that leaves nor one that is too slow is news.
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
}

fn answer(request: &Request<Incoming>, state: &AdminState) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
        let allow = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(header::ALLOW, allow);
        return answer;
    }
    match request.uri().path() {
        "/" => respond(StatusCode::OK, HTML, page::render(&Status::of(state))),
        "/metrics" => metrics(request, state),
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => ready(state),
        "/api/status" => json(&Status::of(state)),
        "/policies" => json(&state.source.policy()),
        _ => text(StatusCode::NOT_FOUND, "no such page\n".into()),
    }
}

fn metrics(request: &Request<Incoming>, state: &AdminState) -> Response<Full<Bytes>> {
    // A list may come as several headers (RFC 9110 §5.3).
    let accept = request.headers().get_all(header::ACCEPT).iter();
    let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Exposition::negotiate(Some(&accept.join(",")));
    let body = state.recorder.render(format);
    let mut answer = respond(StatusCode::OK, format.content_type(), body);
    let vary = HeaderValue::from_static("Accept");
    answer.headers_mut().insert(header::VARY, vary);
    answer
}

fn ready(state: &AdminState) -> Response<Full<Bytes>> {
    let (code, mut body) = match state.readiness.reason() {
        None => (StatusCode::OK, String::from("ready\n")),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    };
    for (subject, note) in state.readiness.notes() {
        body.push_str(&format!("{subject}: {note}\n"));
    }
    text(code, body)
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => respond(StatusCode::OK, JSON, body + "\n"),
        Err(error) => {
            tracing::error!(%error, "status cannot be written as JSON");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot be written as JSON\n".into(),
            )
        }
    }
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(code, TEXT, body)
}

fn respond(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = code;
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            page::CONTENT_SECURITY_POLICY,
        ),
    ];
    for (name, value) in headers {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}
