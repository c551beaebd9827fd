//! A question over plain HTTP, for what the lab's own servers and the admin endpoint tell.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The body of an answer whose status is 2xx. HTTP/1.0, so that the answer ends with the
/// connection and comes in one piece.
pub fn ask(method: &str, addr: &str, path: &str) -> Result<String, String> {
    let ask = || {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e: std::io::Error| format!("{method} {addr}{path}: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(body.to_owned()),
        _ => Err(format!("{method} {addr}{path}: {head}")),
    }
}
