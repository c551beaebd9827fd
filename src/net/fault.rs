//! Why a TLS handshake with a client failed, in words that an operator can act on. Nothing that
//! the client chose is repeated.

use std::io;

use crate::telemetry::CertificateEnd;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::net::verifier::Unfit;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The client went away. Health checks and port scans do, so it is no refusal.
    Gone,
    /// A check failed.
    Refused(String),
}

/// Why a client certificate that was good is refused now.
pub fn certificate_fault(error: &Error) -> (CertificateEnd, String) {
    use CertificateError as Fault;
    let end = match error {
        Error::InvalidCertificate(Fault::Expired | Fault::ExpiredContext { .. }) => {
            CertificateEnd::Expired
        }
        Error::InvalidCertificate(Fault::Revoked) => CertificateEnd::Revoked,
        _ => CertificateEnd::Refused,
    };
    (end, refused(error))
}

/// What a failed [`Stream::accept`](super::stream::Stream::accept) means.
pub fn handshake_fault(error: &io::Error) -> HandshakeFault {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let said = match (tls, error.kind()) {
        (Some(error), _) => refused(error),
        (None, io::ErrorKind::TimedOut) => "tls handshake took too long".to_owned(),
        (None, _) => return HandshakeFault::Gone,
    };
    HandshakeFault::Refused(said)
}

fn refused(error: &Error) -> String {
    use PeerIncompatible as Peer;
    let said = match error {
        Error::NoCertificatesPresented => "client showed no certificate",
        Error::InvalidCertificate(error) => return certificate(error),
        Error::PeerIncompatible(
            Peer::Tls12NotOffered
            | Peer::Tls12NotOfferedOrEnabled
            | Peer::SupportedVersionsExtensionRequired,
        ) => "client offers no protocol version from tls 1.2 on",
        Error::PeerIncompatible(
            Peer::NoCipherSuitesInCommon
            | Peer::NoKxGroupsInCommon
            | Peer::NoSignatureSchemesInCommon
            | Peer::NoCertificateRequestSignatureSchemesInCommon,
        ) => "client and listener have no cipher, group or signature in common",
        Error::InvalidMessage(_) => "client does not speak tls",
        Error::DecryptError => "client sent what cannot be decrypted",
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "client does not know the authority of the listener's certificate"
        }
        Error::AlertReceived(alert) => return format!("client refused the listener: {alert:?}"),
        other => return format!("tls handshake failed: {other}"),
    };
    said.to_owned()
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as Fault;
    let said = match error {
        Fault::UnknownIssuer => "client certificate is of an unknown issuer",
        Fault::BadSignature => "client certificate is not signed by the issuer that it names",
        Fault::Expired | Fault::ExpiredContext { .. } => "client certificate has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "client certificate is not valid yet"
        }
        Fault::Revoked => "client certificate is revoked",
        Fault::UnknownRevocationStatus => {
            "no revocation list of the issuer of the client certificate"
        }
        Fault::ExpiredRevocationList | Fault::ExpiredRevocationListContext { .. } => {
            "revocation list of the issuer of the client certificate has expired"
        }
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "client certificate is not for client authentication"
        }
        Fault::BadEncoding => "client certificate cannot be read",
        Fault::UnsupportedSignatureAlgorithmContext { .. }
        | Fault::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "client certificate is signed by an algorithm or key that is not accepted"
        }
        Fault::Other(other) => return unfit(&*other.0),
        other => return format!("client certificate is refused: {other}"),
    };
    said.to_owned()
}

/// What has no word of its own in rustls.
fn unfit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    use webpki::Error as Fault;
    if let Some(unfit) = error.downcast_ref::<Unfit>() {
        return unfit.to_string();
    }
    let said = match error.downcast_ref::<Fault>() {
        Some(Fault::CaUsedAsEndEntity) => "client certificate is that of an authority",
        Some(Fault::EndEntityUsedAsCa) => "client certificate's issuer is no authority",
        Some(Fault::PathLenConstraintViolated) => {
            "client certificate's chain is longer than its authority allows"
        }
        Some(
            Fault::MaximumPathDepthExceeded
            | Fault::MaximumPathBuildCallsExceeded
            | Fault::MaximumSignatureChecksExceeded
            | Fault::MaximumNameConstraintComparisonsExceeded,
        ) => "client certificate's chain takes too many steps to check",
        Some(Fault::NameConstraintViolation) => {
            "client certificate is outside the names that its issuer may sign for"
        }
        Some(Fault::UnsupportedCriticalExtension) => {
            "client certificate has a critical extension that is not known"
        }
        Some(Fault::UnsupportedCertVersion) => "client certificate cannot be read",
        _ => return format!("client certificate is refused: {error}"),
    };
    said.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_away_is_not_refused_and_who_waits_is() {
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset] {
            assert_eq!(handshake_fault(&kind.into()), HandshakeFault::Gone);
        }
        let late = handshake_fault(&io::ErrorKind::TimedOut.into());
        assert!(matches!(late, HandshakeFault::Refused(_)));
    }

    #[test]
    fn a_failed_check_is_named() {
        let said =
            |error: Error| handshake_fault(&io::Error::new(io::ErrorKind::InvalidData, error));
        let refused = |text: &str| HandshakeFault::Refused(text.to_owned());
        let old = PeerIncompatible::Tls12NotOfferedOrEnabled;
        assert_eq!(
            said(Error::PeerIncompatible(old)),
            refused("client offers no protocol version from tls 1.2 on")
        );
        let alert = AlertDescription::BadCertificate;
        assert_eq!(
            said(Error::AlertReceived(alert)),
            refused("client refused the listener: BadCertificate")
        );
    }
}
