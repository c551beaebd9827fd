//! A client certificate becomes a principal by its subject's common name. That the certificate
//! is genuine has been proven by the TLS handshake (`net::tls`); this only reads the name, and
//! refuses what could be read as two names or as everybody.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::name::{self, NameFault};
use crate::identity::settings::{CertificateName, MtlsSettings};
use crate::principal::{Principal, Proof};

/// The longest certificate read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not exactly one X.509 certificate of bounded size.
    #[error("client certificate cannot be read")]
    Malformed,
    /// The subject has no common name.
    #[error("client certificate has no common name")]
    Absent,
    /// The subject has several common names.
    #[error("client certificate has several common names")]
    Several,
    /// The common name is not text, as its string type demands.
    #[error("common name of the client certificate is not text")]
    Text,
    /// The name is refused.
    #[error("common name of the client certificate is refused: {0}")]
    Name(#[from] NameFault),
}

impl CertificateError {
    /// One word for metrics and the audit log.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Absent => "absent",
            Self::Several => "several",
            Self::Text => "text",
            Self::Name(_) => "name",
        }
    }
}

/// The principal that the leaf certificate `der` names.
pub fn principal_from_der(
    der: &[u8],
    settings: &MtlsSettings,
) -> Result<Principal, CertificateError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateError::Malformed);
    }
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let name = match settings.from {
        CertificateName::CommonName => common_name(&certificate)?,
    };
    name::check(name)?;
    Ok(Principal {
        name: format!("User:{name}").into(),
        tenant: settings.tenant.as_str().into(),
        groups: [].into(),
        proof: Proof::Certificate,
        expires_at: None,
    })
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateError> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().ok_or(CertificateError::Absent)?;
    if names.next().is_some() {
        return Err(CertificateError::Several);
    }
    name.as_str().map_err(|_| CertificateError::Text)
}
