//! Certificates: an authority, the server's, and any client's.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its key.
pub type Shown = (CertificateDer<'static>, KeyPair);

/// An authority and its certificate as PEM.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub ca: String,
}

impl Pki {
    pub fn new() -> Pki {
        Pki::named("authority")
    }

    pub fn named(name: &str) -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Pki { issuer, ca }
    }

    /// Writes `ca.pem`, `server.pem` and `server.key`.
    pub fn write(&self, dir: &Path) {
        let names = ["localhost", "*.kordon.example"];
        let (cert, key) = self.leaf(&["server"], &names, ExtendedKeyUsagePurpose::ServerAuth);
        fs::write(dir.join("ca.pem"), &self.ca).unwrap();
        fs::write(dir.join("server.pem"), cert).unwrap();
        fs::write(dir.join("server.key"), key).unwrap();
    }

    /// A server's certificate that ends with a year, and its key, as PEM.
    pub fn server(&self, until: i32) -> (String, String) {
        let names = ["localhost", "*.kordon.example"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A revocation list of this authority with these serial numbers, until that year.
    pub fn revoked(&self, serials: &[u64], until: i32) -> String {
        let time = rcgen::date_time_ymd(2020, 1, 1);
        let entry = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: time,
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: time,
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A certificate and its key; several common names make one that names nobody.
    fn leaf(
        &self,
        common_names: &[&str],
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (name, kind) in common_names.iter().zip(kinds) {
            params.distinguished_name.push(kind, *name);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A client's certificate, changed by `adapt`.
    pub fn certificate(&self, adapt: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        adapt(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key)
    }

    /// An authority that this one has signed.
    pub fn authority(&self, name: &str, adapt: impl FnOnce(&mut CertificateParams)) -> Pki {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        adapt(&mut params);
        let key = KeyPair::generate().unwrap();
        let ca = params.signed_by(&key, &self.issuer).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Pki { issuer, ca }
    }

    /// The authority's own certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()
    }

    /// A client's settings that trust this authority; `None`: without a certificate.
    pub fn client(&self, signed_by: &Pki, common_names: Option<&[&str]>) -> Arc<ClientConfig> {
        self.client_and_thumbprint(signed_by, common_names).0
    }

    /// The same with the thumbprint of the certificate (`x5t#S256`); empty without one.
    pub fn client_and_thumbprint(
        &self,
        signed_by: &Pki,
        common_names: Option<&[&str]>,
    ) -> (Arc<ClientConfig>, String) {
        let shown = common_names.map(|names| {
            let usage = ExtendedKeyUsagePurpose::ClientAuth;
            let (cert, key) = signed_by.leaf(names, &[], usage);
            let der = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            (der, KeyPair::from_pem(&key).unwrap())
        });
        let thumbprint = shown.as_ref().map_or_else(String::new, |(leaf, _)| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
            URL_SAFE_NO_PAD.encode(digest)
        });
        (self.showing(shown), thumbprint)
    }

    /// A client's settings that trust this authority and show this certificate.
    pub fn showing(&self, shown: Option<Shown>) -> Arc<ClientConfig> {
        let shown = shown.map(|(leaf, key)| (vec![leaf], key));
        self.showing_with(shown, rustls::DEFAULT_VERSIONS)
    }

    /// The same with a chain, which is shown as it is (the key need not even belong to it), and
    /// with these protocol versions only.
    pub fn showing_with(
        &self,
        shown: Option<(Vec<CertificateDer<'static>>, KeyPair)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let Some((chain, key)) = shown else {
            return Arc::new(builder.with_no_client_auth());
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = rustls::sign::CertifiedKey::new(chain, key);
        let resolver = rustls::sign::SingleCertAndKey::from(certified);
        Arc::new(builder.with_client_cert_resolver(Arc::new(resolver)))
    }
}
