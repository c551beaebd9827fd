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
