//! A client certificate becomes a principal by one of its names: a SPIFFE id, a DNS name, the
//! subject's common name or the whole subject. That the certificate is genuine has been proven by
//! the TLS handshake (`net::tls`); this only reads the name, and refuses what could be read as two
//! names or as everybody.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::name::{self, NameFault};
use crate::identity::settings::{CertificateName, MtlsSettings};
use crate::identity::{distinguished, spiffe};
use crate::principal::{Principal, Proof};

/// The longest certificate read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("client showed no certificate")]
    Missing,
    /// Not exactly one X.509 certificate of bounded size.
    #[error("client certificate cannot be read")]
    Malformed,
    /// No name of the kind that is asked for.
    #[error("client certificate has no {0}")]
    Absent(CertificateName),
    /// Several names of that kind.
    #[error("client certificate has several names of the kind {0}")]
    Several(CertificateName),
    /// A name of the subject is not text, as its string type demands.
    #[error("{0} of the client certificate is not text")]
    Text(CertificateName),
    /// The URI is no SPIFFE id of a workload.
    #[error("uri of the client certificate is not a valid spiffe id")]
    Spiffe,
    /// The certificate may sign others, which that of a workload may not (X509-SVID, 4.3).
    #[error("client certificate may sign certificates, so its spiffe id is no workload's")]
    Signer,
    /// The DNS name is a wildcard, and so the name of many.
    #[error("dns name of the client certificate is a wildcard")]
    Wildcard,
    /// The DNS name is not of the form of a host name.
    #[error("dns name of the client certificate is no host name")]
    Dns,
    /// No mapping rule is about the name.
    #[error("no mapping rule matches the name of the client certificate")]
    Unmapped,
    /// The name is refused.
    #[error("name of the client certificate is refused: {0}")]
    Name(#[from] NameFault),
}

/// The longest DNS name and the longest of its labels, in bytes (RFC 1035, 2.3.4).
const DNS_NAME_BYTES_MAX: usize = 253;
const DNS_LABEL_BYTES_MAX: usize = 63;

/// The principal of a client: its certificate's or, without one, the anonymous.
pub fn principal_of(
    leaf: Option<&[u8]>,
    settings: &MtlsSettings,
) -> Result<Principal, CertificateError> {
    match leaf {
        Some(der) => principal_from_der(der, settings),
        None => settings.anonymous.clone().ok_or(CertificateError::Missing),
    }
}

/// The subject of a certificate, for people to read; `None`: it is empty or cannot be read.
pub fn subject(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = distinguished::printed(certificate.subject()).ok()?;
    Some(subject).filter(|subject| !subject.is_empty())
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
        CertificateName::Spiffe => spiffe_id(&certificate)?,
        CertificateName::Dns => dns_name(&certificate)?,
        CertificateName::CommonName => common_name(&certificate)?.to_owned(),
        CertificateName::DistinguishedName => distinguished::printed(certificate.subject())?,
    };
    let is_id = settings.from == CertificateName::Spiffe;
    match name::check(&name) {
        Err(NameFault::Spiffe) if is_id => {}
        checked => checked?,
    }
    let name = match &settings.rules {
        None => name,
        Some(rules) => {
            let mapped = rules.apply(&name).ok_or(CertificateError::Unmapped)?;
            match name::check(&mapped) {
                // Only the id that was proven: a rule must not make up another one.
                Err(NameFault::Spiffe) if is_id && mapped == name => {}
                checked => checked?,
            }
            mapped
        }
    };
    let name = match settings.prefix.as_str() {
        "" => name,
        prefix => {
            let prefixed = format!("{prefix}{name}");
            name::check(&prefixed)?;
            prefixed
        }
    };
    Ok(Principal {
        name: format!("User:{name}").into(),
        tenant: settings.tenant.as_str().into(),
        groups: [].into(),
        proof: Proof::Certificate,
        expires_at: None,
    })
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateError> {
    let from = CertificateName::CommonName;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().ok_or(CertificateError::Absent(from))?;
    if names.next().is_some() {
        return Err(CertificateError::Several(from));
    }
    name.as_str().map_err(|_| CertificateError::Text(from))
}

/// The one alternative name of a kind; names of other kinds may stand beside it.
fn alternative<'a>(
    certificate: &'a X509Certificate<'_>,
    from: CertificateName,
    pick: fn(&GeneralName<'a>) -> Option<&'a str>,
) -> Result<&'a str, CertificateError> {
    let extension = certificate.subject_alternative_name();
    let extension = extension.map_err(|_| CertificateError::Malformed)?;
    let all = extension.map_or(&[][..], |found| &found.value.general_names);
    // What cannot be read may be a second name.
    if (all.iter()).any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(CertificateError::Malformed);
    }
    let mut names = all.iter().filter_map(pick);
    let name = names.next().ok_or(CertificateError::Absent(from))?;
    match names.next() {
        Some(_) => Err(CertificateError::Several(from)),
        None => Ok(name),
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let id = alternative(certificate, CertificateName::Spiffe, |name| match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    })?;
    if !spiffe::is_workload_id(id) {
        return Err(CertificateError::Spiffe);
    }
    let usage = certificate.key_usage();
    let usage = usage.map_err(|_| CertificateError::Malformed)?;
    if usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(CertificateError::Signer);
    }
    Ok(id.to_owned())
}

fn dns_name(certificate: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let name = alternative(certificate, CertificateName::Dns, |name| match name {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    })?;
    if name.contains('*') {
        return Err(CertificateError::Wildcard);
    }
    let in_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=DNS_LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(in_label)
    };
    if name.len() > DNS_NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(CertificateError::Dns);
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;
    use crate::identity::rules::MappingRules;

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
        read_from(CertificateName::CommonName, der)
    }

    fn read_from(from: CertificateName, der: &[u8]) -> Result<Principal, CertificateError> {
        let settings = MtlsSettings {
            from,
            prefix: String::new(),
            rules: None,
            anonymous: None,
            tenant: "shop".into(),
        };
        principal_from_der(der, &settings)
    }

    #[test]
    fn a_prefix_stands_before_every_name() {
        let orders = certificate(&[(DnType::CommonName, "orders")]);
        let id = alternatives(&[uri("spiffe://prod/ns/shop")], |_| {});
        for (from, der, name) in [
            (CertificateName::CommonName, &orders, "User:c-orders"),
            (CertificateName::Spiffe, &id, "User:c-spiffe://prod/ns/shop"),
        ] {
            let settings = MtlsSettings {
                from,
                prefix: "c-".into(),
                rules: None,
                anonymous: None,
                tenant: String::new(),
            };
            assert_eq!(&*principal_from_der(der, &settings).unwrap().name, name);
        }
    }

    #[test]
    fn rules_turn_the_name_into_another_which_is_checked_too() {
        let orders = certificate(&[(DnType::CommonName, "orders")]);
        let id = alternatives(&[uri("spiffe://prod/ns/shop")], |_| {});
        let (cn, spiffe) = (CertificateName::CommonName, CertificateName::Spiffe);
        let (dn, fault) = (CertificateName::DistinguishedName, CertificateError::Name);
        for (from, der, rules, outcome) in [
            (dn, &orders, "RULE:^CN=(.*)$/$1/U", Ok("User:ORDERS")),
            (cn, &orders, "RULE:CN=(.*)/$1/, DEFAULT", Ok("User:orders")),
            (
                cn,
                &orders,
                "RULE:CN=(.*)/$1/",
                Err(CertificateError::Unmapped),
            ),
            // A part of a name is no match.
            (
                cn,
                &orders,
                "RULE:order/admin/",
                Err(CertificateError::Unmapped),
            ),
            (cn, &orders, "RULE:orders//", Err(fault(NameFault::Empty))),
            (
                cn,
                &orders,
                "RULE:orders/*/",
                Err(fault(NameFault::Wildcard)),
            ),
            (
                cn,
                &orders,
                r"RULE:orders/spiffe:\/\/p\/a/",
                Err(fault(NameFault::Spiffe)),
            ),
            (spiffe, &id, "DEFAULT", Ok("User:spiffe://prod/ns/shop")),
            (
                spiffe,
                &id,
                r"RULE:^spiffe:\/\/prod\/ns\/(.*)$/$1/",
                Ok("User:shop"),
            ),
            (
                spiffe,
                &id,
                "RULE:(.*)shop/$1admin/",
                Err(fault(NameFault::Spiffe)),
            ),
        ] {
            let settings = MtlsSettings {
                from,
                prefix: String::new(),
                rules: Some(MappingRules::parse(rules).unwrap()),
                anonymous: None,
                tenant: String::new(),
            };
            let read = named(principal_from_der(der, &settings));
            assert_eq!(read, outcome.map(str::to_owned), "{rules}");
        }
    }

    /// A certificate with these alternative names and the subject `CN=orders`.
    fn alternatives(names: &[SanType], adapt: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "orders");
        params.subject_alt_names = names.to_vec();
        adapt(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn named(read: Result<Principal, CertificateError>) -> Result<String, CertificateError> {
        read.map(|principal| principal.name.to_string())
    }

    #[test]
    fn the_one_uri_is_a_spiffe_id() {
        use CertificateError::{Absent, Several, Signer, Spiffe};
        let from = CertificateName::Spiffe;
        let id = uri("spiffe://prod/ns/shop");
        for (names, outcome) in [
            (vec![id.clone()], Ok("User:spiffe://prod/ns/shop")),
            (
                vec![dns("a.b"), id.clone()],
                Ok("User:spiffe://prod/ns/shop"),
            ),
            (vec![], Err(Absent(from))),
            (vec![dns("a.b")], Err(Absent(from))),
            (vec![id.clone(), uri("spiffe://prod/b")], Err(Several(from))),
            (vec![id.clone(), uri("https://prod/b")], Err(Several(from))),
            (vec![uri("https://prod/b")], Err(Spiffe)),
            (vec![uri("spiffe://Prod/b")], Err(Spiffe)),
            (vec![uri("spiffe://prod")], Err(Spiffe)),
        ] {
            let der = alternatives(&names, |_| {});
            let outcome = outcome.map(str::to_owned);
            assert_eq!(named(read_from(from, &der)), outcome, "{names:?}");
        }
        let signs = |params: &mut CertificateParams| {
            params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        };
        assert_eq!(
            named(read_from(from, &alternatives(&[id], signs))),
            Err(Signer)
        );
    }

    #[test]
    fn the_one_dns_name_is_the_principal_in_lower_case() {
        use CertificateError::{Absent, Dns, Several, Wildcard};
        let from = CertificateName::Dns;
        for (names, outcome) in [
            (
                vec![dns("Orders.Shop.example")],
                Ok("User:orders.shop.example"),
            ),
            (vec![uri("https://x"), dns("a_1-b")], Ok("User:a_1-b")),
            (vec![], Err(Absent(from))),
            (vec![dns("a.b"), dns("a.c")], Err(Several(from))),
            (vec![dns("a.b"), dns("a.b")], Err(Several(from))),
            (vec![dns("*.shop.example")], Err(Wildcard)),
            (vec![dns("*")], Err(Wildcard)),
            (vec![dns("")], Err(Dns)),
            (vec![dns("a..b")], Err(Dns)),
            (vec![dns("a.b.")], Err(Dns)),
            (vec![dns("a b")], Err(Dns)),
            (vec![dns("spiffe://a/b")], Err(Dns)),
            (vec![dns("a\0b")], Err(Dns)),
        ] {
            let der = alternatives(&names, |_| {});
            let outcome = outcome.map(str::to_owned);
            assert_eq!(named(read_from(from, &der)), outcome, "{names:?}");
        }
    }

    #[test]
    fn the_whole_subject_is_the_principal() {
        let from = CertificateName::DistinguishedName;
        let names = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Shop, Inc"),
            (DnType::CommonName, "orders"),
        ];
        assert_eq!(
            named(read_from(from, &certificate(&names))),
            Ok(r"User:CN=orders,O=Shop\, Inc,C=DE".to_owned())
        );
        for (names, fault) in [
            (&[][..], NameFault::Empty),
            (&[(DnType::CommonName, "a\0b")], NameFault::Control),
            (&[(DnType::CommonName, "a ")], NameFault::Blank),
        ] {
            let der = certificate(names);
            assert_eq!(named(read_from(from, &der)), Err(fault.into()), "{names:?}");
        }
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
        assert_eq!(
            read(&none),
            Err(CertificateError::Absent(CertificateName::CommonName))
        );
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
        assert_eq!(
            read(&two),
            Err(CertificateError::Several(CertificateName::CommonName))
        );
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
