//! Files become TLS settings: what a listener offers and what brokers are held to. TLS 1.2 and
//! 1.3 with aws-lc-rs, named explicitly so that no process-wide default decides. A mistake names
//! the file it is in. The handshakes themselves are in [`stream`](crate::net::stream); what a
//! listener offers is in [`offer`].

pub mod offer;
mod tickets;

pub use offer::Offer;
pub use tickets::TICKET_LIFETIME;

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::identity::certificate;
use crate::net::settings::ClientTls;

/// The longest PEM file read, in bytes; a system's whole bundle has about 250 KiB.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How many brokers' sessions are remembered for resumption.
pub const BROKER_SESSIONS_MAX: usize = 64;

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why settings cannot be used; for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    message: String,
    help: Option<&'static str>,
}

impl TlsError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    fn in_file(path: &Path, fault: impl fmt::Display) -> Self {
        Self::new(format!("`{}`: {fault}", path.display()))
    }

    /// What to do next, if there is something to say beyond the message.
    pub fn help(&self) -> Option<&'static str> {
        self.help
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsError {}

/// The revocation lists in a file: several as PEM, or one as DER.
pub fn revocation_lists(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(path)?;
    // A DER list is a SEQUENCE.
    let lists = match bytes.first() {
        Some(0x30) => vec![CertificateRevocationListDer::from(bytes)],
        _ => CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::in_file(path, error))?,
    };
    if lists.is_empty() {
        return Err(TlsError::in_file(path, "no revocation list in the file"));
    }
    for (at, list) in lists.iter().enumerate() {
        webpki::BorrowedCertRevocationList::from_der(list).map_err(|error| {
            let fault = format!("revocation list {} cannot be used: {error}", at + 1);
            TlsError::in_file(path, fault)
        })?;
    }
    Ok(lists)
}

/// What brokers are held to, and who we are to them.
pub fn client_config(settings: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &settings.ca {
        Some(path) => authorities(path)?,
        None => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| TlsError::new(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(chain(cert)?, private_key(key)?)
            .map_err(|error| pair_error(cert, key, &error))?,
    };
    config.resumption = Resumption::in_memory_sessions(BROKER_SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// When the first certificate in a file ends, and whose it is, where that can be read.
pub fn shown(path: &Path) -> Result<(Option<SystemTime>, Option<String>), TlsError> {
    let chain = chain(path)?;
    let leaf = chain.first();
    let ends = leaf.and_then(|leaf| offer::end_of(leaf));
    Ok((ends, leaf.and_then(|leaf| certificate::subject(leaf))))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn pair_error(cert: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    let (cert, key) = (cert.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::new(format!(
            "the key `{key}` does not belong to the certificate `{cert}`"
        )),
        _ => TlsError::new(format!("`{cert}` with `{key}`: {error}")),
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| TlsError::in_file(path, error))?;
    match chain.is_empty() {
        true => Err(TlsError::in_file(path, "no pem certificate in the file")),
        false => Ok(chain),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
        match error {
            rustls_pki_types::pem::Error::NoItemsFound if is_encrypted => TlsError {
                help: Some("decrypt it first, for example with `openssl pkey -in KEY -out NEW`"),
                ..TlsError::in_file(path, "the private key is encrypted")
            },
            rustls_pki_types::pem::Error::NoItemsFound => {
                TlsError::in_file(path, "no pem private key in the file")
            }
            // The parser's text may quote the line it stumbled over: a piece of the key.
            _ => TlsError::in_file(path, "the private key cannot be read"),
        }
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in chain(path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            let fault = format!("certificate {} is no usable authority: {error}", at + 1);
            TlsError::in_file(path, fault)
        })?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold certificates that cannot be used; one that can is enough.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(TlsError {
            help: Some("name the brokers' authority with `tls: {ca: FILE}`"),
            ..TlsError::new("the system has no certificate authorities")
        }),
        false => Ok(roots),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|error| TlsError::in_file(path, format!("cannot be read: {error}")))?;
    match text.len() as u64 > PEM_BYTES_MAX {
        true => Err(TlsError::in_file(path, "longer than 4 MiB")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests;
