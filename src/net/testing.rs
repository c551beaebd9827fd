//! A certificate authority of one test: real keys and PEM files in a directory that goes away
//! with it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::net::settings::{ClientAuth, ClientTls, ServerTls};
use crate::net::tls;

/// Certificate and key of a leaf.
pub(crate) type Leaf = (PathBuf, PathBuf);

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn leaf(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        adapt: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let names = vec!["localhost".into(), "*.kordon.example".into()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        adapt(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        fs::write(&files.0, certificate.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn server(&self) -> Leaf {
        self.leaf("server", ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    pub(crate) fn client(&self, name: &str) -> Leaf {
        self.leaf(name, ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }
}

pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

/// What a listener is told; with `client_ca`, client certificates are required.
pub(crate) fn server(leaf: Leaf, client_ca: Option<PathBuf>) -> ServerTls {
    let client_auth = match client_ca {
        Some(_) => ClientAuth::Required,
        None => ClientAuth::None,
    };
    let (cert, key) = leaf;
    ServerTls {
        cert,
        key,
        client_ca,
        client_auth,
        crl: Vec::new(),
        recheck: false,
    }
}

/// The same, loaded.
pub(crate) fn serving(leaf: Leaf, client_ca: Option<PathBuf>) -> Arc<ServerConfig> {
    tls::Offer::load(&server(leaf, client_ca)).unwrap().config
}

/// A client's settings.
pub(crate) fn trusting(ca: PathBuf, identity: Option<Leaf>) -> Arc<ClientConfig> {
    let settings = ClientTls {
        ca: Some(ca),
        identity,
    };
    tls::client_config(&settings).unwrap()
}

/// Two ends of one TCP connection: who connected, who accepted.
pub(crate) async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}
