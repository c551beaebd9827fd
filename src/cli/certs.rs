//! `kordon certs`: a certificate authority, a server certificate and client certificates for
//! development. Not for production: the authority's key lies beside the rest, and nothing is
//! ever revoked.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::clock;

/// The host names and addresses of the server certificate.
pub const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "*.kordon.example"];
/// The longest validity, in days.
pub const DAYS_MAX: u32 = 3650;
/// How many client certificates one call writes.
pub const CLIENTS_MAX: usize = 256;

/// What `kordon certs` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directory to write into; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub out: PathBuf,
    /// Common name of a client certificate, which is the principal `User:NAME`; may be repeated
    #[arg(long = "client", value_name = "NAME", default_value = "client")]
    pub clients: Vec<String>,
    /// Validity in days
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    pub days: u32,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// Why nothing was written, or not all.
#[derive(Debug, thiserror::Error)]
enum CertsError {
    #[error("{0}")]
    Usage(String),
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    #[error("`{}` cannot be written: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
    #[error("certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Writes the files and prints their names. 0: done; 1: a file exists or cannot be written;
/// 2: wrong options.
pub fn run(options: &Options, out: &mut dyn Write) -> u8 {
    let result = write_all(options, out);
    let Err(error) = result else { return 0 };
    let _ = writeln!(out, "error: {error}");
    if matches!(error, CertsError::Exists(_)) {
        let _ = writeln!(
            out,
            "help: `--force` replaces it, and the authority with it"
        );
    }
    match error {
        CertsError::Usage(_) => 2,
        _ => 1,
    }
}

/// One certificate and its key, both PEM.
struct Pair {
    name: String,
    cert: String,
    key: String,
}

fn write_all(options: &Options, out: &mut dyn Write) -> Result<(), CertsError> {
    check(options)?;
    let directory = &options.out;
    let pairs = make_all(options)?;
    let files: Vec<(PathBuf, &str, u32)> = pairs
        .iter()
        .flat_map(|pair| {
            let file = |end| directory.join(format!("{}.{end}", pair.name));
            [
                (file("key"), pair.key.as_str(), 0o600),
                (file("pem"), pair.cert.as_str(), 0o644),
            ]
        })
        .collect();
    if !options.force
        && let Some((path, ..)) = files
            .iter()
            .find(|(path, ..)| path.symlink_metadata().is_ok())
    {
        return Err(CertsError::Exists(path.clone()));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| CertsError::Write(path, error)
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for (path, text, mode) in &files {
        write_file(path, text, *mode).map_err(failed(path))?;
        writeln!(out, "{}", path.display()).map_err(failed(path))?;
    }
    Ok(())
}

fn check(options: &Options) -> Result<(), CertsError> {
    let usage = |text: String| Err(CertsError::Usage(text));
    if options.days == 0 || options.days > DAYS_MAX {
        return usage(format!(
            "`--days` is {}, expected 1 to {DAYS_MAX}",
            options.days
        ));
    }
    if options.clients.len() > CLIENTS_MAX {
        return usage(format!("more than {CLIENTS_MAX} clients"));
    }
    for (at, name) in options.clients.iter().enumerate() {
        // The name is also the file's name; RFC 5280 bounds a common name to 64 characters.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed)
        {
            return usage(format!(
                "client name `{}` is not 1 to 64 letters, digits, `-`, `_` and `.`",
                name.escape_default()
            ));
        }
        if ["ca", "server"].contains(&name.as_str()) || options.clients[..at].contains(name) {
            return usage(format!("client name `{name}` is taken"));
        }
    }
    Ok(())
}

fn make_all(options: &Options) -> Result<Vec<Pair>, CertsError> {
    let until = OffsetDateTime::from(clock::wall()) + Duration::days(options.days.into());
    let authority_key = KeyPair::generate()?;
    let mut authority = params("Kordon development authority", &[], until)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut pairs = vec![Pair {
        name: "ca".to_owned(),
        cert: authority.self_signed(&authority_key)?.pem(),
        key: authority_key.serialize_pem(),
    }];
    let issuer = Issuer::new(authority, authority_key);
    let mut leaf = |name: &str, names: &[&str], usage| -> Result<(), CertsError> {
        let key = KeyPair::generate()?;
        let mut leaf = params(name, names, until)?;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        pairs.push(Pair {
            name: name.to_owned(),
            cert: leaf.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
        });
        Ok(())
    };
    leaf("server", &SERVER_NAMES, ExtendedKeyUsagePurpose::ServerAuth)?;
    for name in &options.clients {
        leaf(name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(pairs)
}

fn params(
    common_name: &str,
    names: &[&str],
    until: OffsetDateTime,
) -> Result<CertificateParams, CertsError> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // A machine whose clock is a little behind accepts the certificate too.
    params.not_before = OffsetDateTime::from(clock::wall()) - Duration::hours(1);
    params.not_after = until;
    Ok(params)
}

/// Writes beside the file and renames, so that a reader sees the old text or the new one, and a
/// key is never readable by others, not even for a moment.
fn write_file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::certificate::principal_from_der;
    use crate::identity::settings::{CertificateName, MtlsSettings};
    use crate::net::settings::{ClientAuth, ClientTls, ServerTls};
    use crate::net::stream::Stream;
    use crate::net::testing::connected;
    use crate::net::tls::{Offer, client_config};

    fn options(out: &Path, clients: &[&str]) -> Options {
        Options {
            out: out.to_owned(),
            clients: clients.iter().map(|&name| name.to_owned()).collect(),
            days: 30,
            force: false,
        }
    }

    fn told(options: &Options) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(options, &mut out);
        (code, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn the_files_make_a_handshake_that_names_the_client() {
        // Given
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("new/certs");
        let (code, printed) = told(&options(&out, &["orders-service", "audit"]));
        assert_eq!(code, 0, "{printed}");
        let file = |name: &str| out.join(name);
        let server = ServerTls {
            cert: file("server.pem"),
            key: file("server.key"),
            client_ca: Some(file("ca.pem")),
            client_auth: ClientAuth::Required,
            crl: Vec::new(),
            recheck: false,
        };
        let client = ClientTls {
            ca: Some(file("ca.pem")),
            identity: Some((file("orders-service.pem"), file("orders-service.key"))),
        };
        let (server, client) = (
            Offer::load(&server).unwrap().config,
            client_config(&client).unwrap(),
        );
        for name in ["localhost", "127.0.0.1", "broker-1.kordon.example"] {
            // When
            let (near, far) = connected().await;
            let limit = std::time::Duration::from_secs(5);
            let name = rustls_pki_types::ServerName::try_from(name).unwrap();
            let near = Stream::connect(near, &client, name, limit);
            let (near, far) = tokio::join!(near, Stream::accept(far, &server, limit));
            // Then
            assert!(near.is_ok());
            let settings = MtlsSettings {
                from: CertificateName::CommonName,
                prefix: String::new(),
                rules: None,
                anonymous: None,
                tenant: String::new(),
            };
            let far = far.unwrap();
            let principal = principal_from_der(&far.peer_certificates()[0], &settings).unwrap();
            assert_eq!(&*principal.name, "User:orders-service");
        }
        // And nobody but the owner reads a key, and nothing is left over.
        let mut names = Vec::new();
        for entry in fs::read_dir(&out).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let private = name.ends_with(".key");
            assert_eq!(mode & 0o077 == 0, private, "{name} {mode:o}");
            assert!(printed.contains(&name));
            names.push(name);
        }
        assert_eq!(names.len(), 8, "{names:?}");
    }

    #[test]
    fn existing_files_are_kept_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let mut again = options(directory.path(), &["a"]);
        assert_eq!(told(&again).0, 0);
        let ca = directory.path().join("ca.pem");
        let before = fs::read(&ca).unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();

        let (code, printed) = told(&again);
        assert_eq!(code, 1);
        assert!(
            printed.starts_with("error: `") && printed.contains("exists already"),
            "{printed}"
        );
        assert_eq!(fs::read(&ca).unwrap(), before);
        assert!(
            !directory.path().join("ca.key").exists(),
            "nothing may be written"
        );

        again.force = true;
        assert_eq!(told(&again).0, 0);
        assert_ne!(fs::read(&ca).unwrap(), before);
    }

    #[test]
    fn names_that_are_no_file_names_or_taken_are_wrong_use() {
        let directory = tempfile::tempdir().unwrap();
        let long = "x".repeat(65);
        for names in [
            &[""][..],
            &["../a"],
            &["a/b"],
            &[".a"],
            &["a b"],
            &["*"],
            &["a\n"],
            &[&long],
            &["ca"],
            &["server"],
            &["a", "a"],
        ] {
            let (code, printed) = told(&options(directory.path(), names));
            assert_eq!(code, 2, "{names:?}: {printed}");
            assert_eq!(printed.lines().count(), 1, "{printed}");
        }
        for days in [0, DAYS_MAX + 1] {
            let options = Options {
                days,
                ..options(directory.path(), &["a"])
            };
            assert_eq!(told(&options).0, 2);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let (code, printed) = told(&options(&file.join("certs"), &["a"]));
        assert_eq!(code, 1);
        assert!(printed.contains("cannot be written"), "{printed}");
    }
}
