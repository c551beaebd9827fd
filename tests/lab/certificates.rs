//! A certificate authority of the lab: the server's certificate and clients', as PEM files.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
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
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        let authority = Authority { dir, issuer };
        authority.server_into(authority.dir.path());
        for client in clients {
            authority.client_into(client, authority.dir.path());
        }
        authority
    }

    /// Another server certificate, with another key, in `dir`.
    pub fn server_into(&self, dir: &Path) {
        let mut server = named("server");
        let names = CertificateParams::new(SERVER_NAMES.map(str::to_owned)).unwrap();
        server.subject_alt_names = names.subject_alt_names;
        self.sign("server", server, ExtendedKeyUsagePurpose::ServerAuth, dir);
    }

    /// Another certificate of a client, with another key, in `dir`.
    pub fn client_into(&self, name: &str, dir: &Path) {
        self.sign(name, named(name), ExtendedKeyUsagePurpose::ClientAuth, dir);
    }

    /// A revocation list with every certificate of these names, as PEM.
    pub fn revoked(&self, names: &[&str]) -> String {
        let time = OffsetDateTime::now_utc() - Duration::hours(1);
        let entry = |name: &&str| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: time,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: time,
            next_update: OffsetDateTime::now_utc() + Duration::days(DAYS),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
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
        files(self.dir.path(), name)
    }

    fn sign(
        &self,
        name: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        dir: &Path,
    ) {
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(serial(name));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let (files, key) = (files(dir, name), key.serialize_pem());
        write(&files.cert, &cert);
        write(&files.key, &key);
        write(&files.store, &format!("{key}{cert}"));
    }
}

fn files(dir: &Path, name: &str) -> Files {
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    Files {
        cert: file("pem"),
        key: file("key"),
        store: file("store.pem"),
    }
}

/// One for each name, so that a list can name it: its letters.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(name.as_bytes())
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
