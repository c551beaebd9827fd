//! Client certificates are held against what webpki leaves out: the key usage (RFC 5280 §4.2.1.3).
//! A certificate whose key may not sign proves nothing in a handshake (RFC 8446 §4.4.2.2), and one
//! that may not sign certificates makes no clients. A signature of the handshake that does not
//! verify is told apart from one in the chain.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, KeyUsage, X509Certificate};

/// What is wrong with a certificate that webpki would let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Key usage without digitalSignature.
    #[error("client certificate has a key that may not sign")]
    MayNotSign,
    /// A certificate above it has a key usage without keyCertSign.
    #[error("client certificate's issuer is no authority")]
    IssuerMayNotSign,
    /// A certificate of the chain cannot be read.
    #[error("client certificate cannot be read")]
    Unreadable,
    /// The signature of the handshake is not that of the certificate's key.
    #[error("client does not hold the key of the certificate that it shows")]
    NotHeld,
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Error {
        CertificateError::Other(OtherError(Arc::new(unfit))).into()
    }
}

/// All that `inner` demands, and the rest.
#[derive(Debug)]
pub struct StrictVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl StrictVerifier {
    /// `inner` decides about chain, time, purpose and revocation.
    pub fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self { inner }
    }
}

impl ClientCertVerifier for StrictVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        demand(end_entity, Unfit::MayNotSign, KeyUsage::digital_signature)?;
        // Also those that the chain did not need: a client has no reason to send them.
        for above in intermediates {
            demand(above, Unfit::IssuerMayNotSign, KeyUsage::key_cert_sign)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self
            .inner
            .verify_tls12_signature(message, certificate, signature);
        verified.map_err(possession)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self
            .inner
            .verify_tls13_signature(message, certificate, signature);
        verified.map_err(possession)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// A certificate without key usage may do everything.
fn demand(
    certificate: &CertificateDer<'_>,
    otherwise: Unfit,
    may: impl Fn(&KeyUsage) -> bool,
) -> Result<(), Unfit> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unfit::Unreadable)?;
    let usage = certificate.key_usage().map_err(|_| Unfit::Unreadable)?;
    match usage.is_none_or(|usage| may(usage.value)) {
        true => Ok(()),
        false => Err(otherwise),
    }
}

fn possession(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => Unfit::NotHeld.into(),
        other => other,
    }
}
