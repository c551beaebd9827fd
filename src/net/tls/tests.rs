//! What is wrong with a file is said with its name, and never with its content. Handshakes are
//! tested in `stream`.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::clock;
use crate::net::settings::{ClientAuth, ServerTls};
use crate::net::testing::{self, Authority, serving};

fn server(cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> ServerTls {
    testing::server((cert, key), client_ca)
}

fn fault(settings: &ServerTls) -> String {
    Offer::load(settings).unwrap_err().to_string()
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let (cert, key) = authority.server();
    let (_, other_key) = authority.client("other");
    let (missing, empty) = (authority.file("missing.pem"), authority.file("empty.pem"));
    fs::write(&empty, "nothing here\n").unwrap();
    let at = |path: &PathBuf, fault: &str| format!("`{}`: {fault}", path.display());

    let none = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(
        fault(&server(missing.clone(), key.clone(), None)),
        at(&missing, none)
    );
    assert_eq!(
        fault(&server(cert.clone(), missing.clone(), None)),
        at(&missing, none)
    );
    let told = fault(&server(cert.clone(), key.clone(), Some(missing.clone())));
    assert_eq!(told, at(&missing, none));

    let none = "no pem certificate in the file";
    assert_eq!(
        fault(&server(empty.clone(), key.clone(), None)),
        at(&empty, none)
    );
    assert_eq!(
        fault(&server(key.clone(), key.clone(), None)),
        at(&key, none)
    );
    let told = fault(&server(cert.clone(), key.clone(), Some(empty.clone())));
    assert_eq!(told, at(&empty, none));
    let none = "no pem private key in the file";
    assert_eq!(
        fault(&server(cert.clone(), cert.clone(), None)),
        at(&cert, none)
    );

    let told = fault(&server(cert.clone(), other_key.clone(), None));
    assert_eq!(
        told,
        format!(
            "the key `{}` does not belong to the certificate `{}`",
            other_key.display(),
            cert.display()
        )
    );
}

#[test]
fn a_broken_or_encrypted_key_is_not_quoted() {
    let authority = Authority::new();
    let (cert, key) = authority.server();
    let text = fs::read_to_string(&key).unwrap();
    let bent = authority.file("bent.key");
    fs::write(
        &bent,
        text.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----\n!secret!"),
    )
    .unwrap();
    let told = fault(&server(cert.clone(), bent.clone(), None));
    assert_eq!(
        told,
        format!("`{}`: the private key cannot be read", bent.display())
    );
    // Cut in half: the armour is whole, the key is not.
    let lines: Vec<_> = text.lines().collect();
    fs::write(
        &bent,
        [lines[0], lines[1], lines[lines.len() - 1]].join("\n"),
    )
    .unwrap();
    let told = fault(&server(cert.clone(), bent.clone(), None));
    assert!(!told.contains(lines[1]), "{told}");

    fs::write(&bent, text.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")).unwrap();
    let error = Offer::load(&server(cert, bent, None)).unwrap_err();
    assert!(
        error.to_string().ends_with("the private key is encrypted"),
        "{error}"
    );
    assert!(error.help().is_some());
}

#[test]
fn client_authentication_is_said_completely() {
    let authority = Authority::new();
    let (cert, key) = authority.server();
    let mut settings = server(cert, key, None);
    settings.client_auth = ClientAuth::Required;
    assert_eq!(fault(&settings), "`clientAuth: required` needs `clientCa`");
    settings.client_auth = ClientAuth::None;
    settings.client_ca = Some(authority.ca());
    assert_eq!(
        fault(&settings),
        "`clientCa` has no effect with `clientAuth: none`"
    );
}

#[test]
fn an_authority_that_is_none_and_a_file_too_long_are_refused() {
    let authority = Authority::new();
    let path = authority.file("bad.pem");
    let armour =
        |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    fs::write(&path, armour("AAAA")).unwrap();
    let settings = ClientTls {
        ca: Some(path.clone()),
        identity: None,
    };
    let told = client_config(&settings).unwrap_err().to_string();
    assert!(
        told.contains("certificate 1 is no usable authority"),
        "{told}"
    );

    let file = fs::File::create(&path).unwrap();
    file.set_len(PEM_BYTES_MAX + 1).unwrap();
    let told = client_config(&settings).unwrap_err().to_string();
    assert_eq!(told, format!("`{}`: longer than 4 MiB", path.display()));
}

#[test]
fn clients_may_show_a_certificate_and_must_own_its_key() {
    let authority = Authority::new();
    let (cert, key) = authority.client("sidecar");
    let (_, other) = authority.client("other");
    let with = |key: PathBuf| ClientTls {
        ca: Some(authority.ca()),
        identity: Some((cert.clone(), key)),
    };
    assert!(
        client_config(&with(key))
            .unwrap()
            .client_auth_cert_resolver
            .has_certs()
    );
    let told = client_config(&with(other)).unwrap_err().to_string();
    assert!(
        told.contains("does not belong to the certificate"),
        "{told}"
    );
}

#[test]
fn sessions_rest_with_clients_and_one_ticket_is_given() {
    let authority = Authority::new();
    let config = serving(authority.server(), None);
    assert_eq!(config.send_tls13_tickets, 1);
    assert!(!config.session_storage.can_cache());
    assert!(config.ticketer.enabled());
    assert_eq!(
        u64::from(config.ticketer.lifetime()),
        TICKET_LIFETIME.as_secs()
    );
    // Early data could be sent twice by anybody.
    assert_eq!(config.max_early_data_size, 0);
}

#[test]
fn what_was_resumed_is_held_against_time() {
    let authority = Authority::new();
    let (cert, key) = authority.server();
    let offer = Offer::load(&server(cert, key, Some(authority.ca()))).unwrap();
    let leaf = |name: &str, adapt: fn(&mut rcgen::CertificateParams)| {
        let (path, _) = authority.leaf(name, rcgen::ExtendedKeyUsagePurpose::ClientAuth, adapt);
        chain(&path).unwrap()
    };
    let shown = leaf("orders", |params| {
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    });
    let ends = offer::end_of(&shown[0]).unwrap();
    let second = std::time::Duration::from_secs(1);
    assert_eq!(offer.check_resumed(&shown, clock::wall()), Ok(()));
    // The last second is still a good one, and the verifier says so.
    assert_eq!(offer.check_resumed(&shown, ends), Ok(()));
    let error = offer.check_resumed(&shown, ends + second).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let none = offer.check_resumed(&[], clock::wall());
    assert_eq!(none, Err(rustls::Error::NoCertificatesPresented));
}
