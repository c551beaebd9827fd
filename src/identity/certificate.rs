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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn read(der: &[u8]) -> Result<Principal, CertificateError> {
        let settings = MtlsSettings {
            from: CertificateName::CommonName,
            tenant: "shop".into(),
        };
        principal_from_der(der, &settings)
    }

    #[test]
    fn the_common_name_is_the_principal() {
        let names = [
            (DnType::OrganizationName, "Shop"),
            (DnType::CommonName, "orders"),
        ];
        let principal = read(&certificate(&names)).unwrap();
        assert_eq!(&*principal.name, "User:orders");
        assert_eq!(&*principal.tenant, "shop");
        assert_eq!(principal.proof, Proof::Certificate);
        assert_eq!(principal.expires_at, None);
    }

    #[test]
    fn names_that_would_confuse_an_authorizer_are_refused() {
        for (name, fault) in [
            ("", NameFault::Empty),
            ("*", NameFault::Wildcard),
            ("orders\0.evil", NameFault::Control),
            ("a\nb", NameFault::Control),
            (" a", NameFault::Blank),
            ("spiffe://prod/a", NameFault::Spiffe),
        ] {
            let der = certificate(&[(DnType::CommonName, name)]);
            assert_eq!(read(&der), Err(CertificateError::Name(fault)), "{name:?}");
        }
    }

    #[test]
    fn the_subject_must_have_exactly_one_common_name() {
        let none = certificate(&[(DnType::OrganizationName, "Shop")]);
        assert_eq!(read(&none), Err(CertificateError::Absent));
        // rcgen keeps one value of a kind, so the second comes under the id of another kind of
        // the same length and is renamed in the finished bytes.
        let mut two = certificate(&[
            (DnType::CommonName, "orders"),
            (DnType::OrganizationName, "admin"),
        ]);
        let organization = [0x06, 0x03, 0x55, 0x04, 0x0a];
        for at in 0..two.len() - 5 {
            if two[at..at + 5] == organization {
                two[at + 4] = 0x03;
            }
        }
        assert_eq!(read(&two), Err(CertificateError::Several));
    }

    #[test]
    fn a_name_in_a_string_type_that_is_no_text_is_refused() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let wide = rcgen::string::BmpString::try_from("orders").unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, DnValue::BmpString(wide));
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert!(read(&der).is_err(), "{:?}", read(&der));
    }

    #[test]
    fn broken_bytes_are_refused_without_a_panic() {
        let good = certificate(&[(DnType::CommonName, "orders")]);
        for end in 0..good.len() {
            assert_eq!(
                read(&good[..end]),
                Err(CertificateError::Malformed),
                "{end}"
            );
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(read(&longer), Err(CertificateError::Malformed));
        let huge = vec![0x30; CERTIFICATE_BYTES_MAX + 1];
        assert_eq!(read(&huge), Err(CertificateError::Malformed));
        for at in 0..good.len() {
            let mut bent = good.clone();
            bent[at] ^= 0xff;
            let _ = read(&bent);
        }
    }
}
