//! An address that may be asked over HTTP: with TLS always, except on the machine itself.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// An address that may be asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Url {
    /// `https://…`, or `http://…` where the host is this machine. The fault completes a sentence
    /// that begins with what was read.
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user or password, which belong elsewhere");
        }
        if text.contains('#') {
            return Err("it holds a fragment");
        }
        let host = uri.host().unwrap_or_default();
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = literal.unwrap_or(host).to_owned();
        if host.is_empty() {
            return Err("it names no host");
        }
        let is_local = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_local => false,
            Some("http") => return Err("only `https` is safe beyond this machine"),
            _ => return Err("it does not begin with `https://`"),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Url {
            uri,
            host,
            port,
            is_tls,
        })
    }

    /// Whether answers come over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The whole address.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host: a name or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's own where none is named.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine_may_be_asked() {
        for good in [
            "https://idp.example/realms/prod/jwks",
            "https://idp.example:8443",
            "http://localhost:8080/jwks?x=1",
            "http://127.0.0.1:1/",
            "http://[::1]/",
        ] {
            assert!(Url::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/jwks",
            "idp.example/jwks",
            "http://idp.example/jwks",
            "http://localhost.example/",
            "ftp://localhost/",
            "file:///etc/passwd",
            "https://me:pw@idp.example/",
            "https://idp.example/#here",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
