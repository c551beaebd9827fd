//! A certificate authority of the lab: the server's certificate and clients', as PEM files.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// Every name and address at which a server of the lab is reached.
const SERVER_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "127.0.77.1", "127.0.78.1"];
const DAYS: i64 = 30;

/// An authority and what it has signed; the files are deleted when dropped.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of one certificate.
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key (PKCS #8).
    pub key: PathBuf,
    /// Both in one file, as Kafka's PEM key stores are.
    pub store: PathBuf,
}

impl Authority {
    /// A new authority with a server certificate and one for each of the clients, whose common
    /// name is the client's.
    pub fn new(clients: &[&str]) -> Authority {
        let dir = tempfile::Builder::new()
            .prefix("kordon-certificates-")
            .tempdir()
            .unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = named("lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        let authority = Authority { dir, issuer };
        let mut server = named("server");
        let names = CertificateParams::new(SERVER_NAMES.map(str::to_owned)).unwrap();
        server.subject_alt_names = names.subject_alt_names;
        authority.sign("server", server, ExtendedKeyUsagePurpose::ServerAuth);
        for client in clients {
            authority.sign(client, named(client), ExtendedKeyUsagePurpose::ClientAuth);
        }
        authority
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The server's files.
    pub fn server(&self) -> Files {
        self.of("server")
    }

    /// The files of a client or the server.
    pub fn of(&self, name: &str) -> Files {
        let file = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        Files {
            cert: file("pem"),
            key: file("key"),
            store: file("store.pem"),
        }
    }

    fn sign(&self, name: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let (files, key) = (self.of(name), key.serialize_pem());
        write(&files.cert, &cert);
        write(&files.key, &key);
        write(&files.store, &format!("{key}{cert}"));
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(DAYS);
    params
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
