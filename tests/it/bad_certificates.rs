//! Certificates that prove nothing: each is shown in a real handshake, refused, and its reason
//! stands in the audit log. What makes each bad is the only thing that is wrong with it: the good
//! ones between them come in.

use std::time::{Duration, SystemTime};

use kordon::demo::client::ClientError;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::*;

type Chain = (Vec<CertificateDer<'static>>, KeyPair);

/// One that nobody may come in with.
struct Bad {
    what: &'static str,
    chain: Chain,
    /// The reason in the audit log.
    detail: &'static str,
}

/// The fixtures were made with OpenSSL, since no library here signs so weakly.
fn fixture(text: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
}

fn fixture_key() -> KeyPair {
    KeyPair::from_pem(include_str!("data/weak-key.pem")).unwrap()
}

/// A client's certificate named `alice`, changed by `adapt`, and the chain above it.
fn alice(
    by: &Pki,
    above: &[&Pki],
    adapt: impl FnOnce(&mut CertificateParams),
) -> (Vec<CertificateDer<'static>>, KeyPair) {
    let (leaf, key) = by.certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "alice");
        adapt(params);
    });
    let above = above.iter().map(|authority| authority.der());
    (std::iter::once(leaf).chain(above).collect(), key)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn same(_: &mut CertificateParams) {}

/// Refused by TLS or by the name: the client gets no answer to its first request.
async fn comes_in(lab: &Lab, chain: Chain) -> Result<(), ClientError> {
    let mut client = lab.mesh_chain(chain).await?;
    client.call(3, &versions("it")).await.map(|_| ())
}

/// Shows every one; each must leave one more line in the audit log, with its reason.
async fn all_are_refused(lab: &Lab, bad: Vec<Bad>) {
    let lines = || {
        let text = lab.file("audit.jsonl");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let denials = whole
            .lines()
            .filter(|line| line.contains("\"decision\":\"deny\""));
        denials.map(str::to_owned).collect::<Vec<_>>()
    };
    for Bad {
        what,
        chain,
        detail,
    } in bad
    {
        let before = lines().len();
        assert!(comes_in(lab, chain).await.is_err(), "{what} came in");
        let begun = std::time::Instant::now();
        let line = loop {
            match lines().get(before) {
                Some(line) => break line.clone(),
                None => assert!(begun.elapsed() < PATIENCE, "{what}: no audit line"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(
            line.contains(&format!("\"detail\":\"{detail}\"")),
            "{what}: {line}"
        );
        assert!(
            line.contains("\"reason\":\"authentication\""),
            "{what}: {line}"
        );
    }
    assert_eq!(lab.broker().requests(0), 0);
}

#[tokio::test]
async fn what_a_certificate_must_be_is_checked_in_the_handshake() {
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.authorities = [
            include_str!("data/authority-1024.pem"),
            include_str!("data/authority-2048.pem"),
        ]
        .concat();
    });
    let pki = lab.pki.as_ref().unwrap();
    let second = pki.authority("second", same);
    let third = second.authority("third", same);
    for good in [
        alice(pki, &[], same),
        alice(pki, &[], |params| {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
        alice(&second, &[&second], same),
        alice(&third, &[&third, &second], same),
        (
            vec![fixture(include_str!("data/strong.pem"))],
            fixture_key(),
        ),
    ] {
        assert!(comes_in(&lab, good).await.is_ok());
    }

    let now = SystemTime::now();
    let unknown = "client certificate is of an unknown issuer";
    let expired = "client certificate has expired";
    let usage = "client certificate is not for client authentication";
    let names = "client certificate is outside the names that its issuer may sign for";
    let weak = "client certificate is signed by an algorithm or key that is not accepted";
    let mut bad = Vec::new();
    let mut add = |what, chain, detail| {
        bad.push(Bad {
            what,
            chain,
            detail,
        });
    };

    // Time.
    let chain = alice(pki, &[], |params| {
        params.not_after = date_time_ymd(2020, 1, 1)
    });
    add("expired", chain, expired);
    let chain = alice(pki, &[], |params| {
        params.not_after = (now - Duration::from_secs(1)).into();
    });
    add("expired by a second", chain, expired);
    let chain = alice(pki, &[], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
    });
    add(
        "of the future",
        chain,
        "client certificate is not valid yet",
    );
    let old = pki.authority("old", |params| params.not_after = date_time_ymd(2020, 1, 1));
    add(
        "of an expired authority",
        alice(&old, &[&old], same),
        expired,
    );

    // Usage.
    for (what, purpose) in [
        ("for servers", ExtendedKeyUsagePurpose::ServerAuth),
        ("for code", ExtendedKeyUsagePurpose::CodeSigning),
        ("for mail", ExtendedKeyUsagePurpose::EmailProtection),
    ] {
        let chain = alice(pki, &[], |params| {
            params.extended_key_usages = vec![purpose];
        });
        add(what, chain, usage);
    }
    let chain = alice(pki, &[], |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    });
    let signs = "client certificate has a key that may not sign";
    add("that may not sign", chain, signs);
    let chain = alice(pki, &[], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let authority = "client certificate is that of an authority";
    add("that is an authority's", chain, authority);

    // Issuers.
    let own = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "alice");
    let chain = (vec![params.self_signed(&own).unwrap().der().clone()], own);
    add("that signed itself", chain, unknown);
    let foreign = Pki::named("other");
    add("of another authority", alice(&foreign, &[], same), unknown);
    let chain = alice(&foreign, &[&foreign], same);
    add("that brings its own authority", chain, unknown);
    let twin = Pki::new();
    let signature = "client certificate is not signed by the issuer that it names";
    add(
        "of a twin of the authority",
        alice(&twin, &[], same),
        signature,
    );
    add(
        "without its intermediate",
        alice(&second, &[], same),
        unknown,
    );
    let chain = alice(&third, &[&third], same);
    add("without the upper intermediate", chain, unknown);
    let leaf = pki.authority("leaf", |params| params.is_ca = IsCa::NoCa);
    let no_authority = "client certificate's issuer is no authority";
    add(
        "signed by a leaf",
        alice(&leaf, &[&leaf], same),
        no_authority,
    );
    let silent = pki.authority("silent", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let chain = alice(&silent, &[&silent], same);
    add("of an authority that may not sign", chain, no_authority);
    let last = pki.authority("last", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let beyond = last.authority("beyond", same);
    let chain = alice(&beyond, &[&beyond, &last], same);
    let long = "client certificate's chain is longer than its authority allows";
    add("of an authority beyond the last", chain, long);
    let mut deep = vec![pki.authority("0", same)];
    for at in 1..12 {
        deep.push(deep[at - 1].authority(&at.to_string(), same));
    }
    let above: Vec<_> = deep.iter().rev().collect();
    let chain = alice(&deep[11], &above, same);
    let many = "client certificate's chain takes too many steps to check";
    add("at the end of a long chain", chain, many);

    // Names.
    let only = |subtrees: NameConstraints| {
        pki.authority("constrained", |params| {
            params.name_constraints = Some(subtrees);
        })
    };
    let shop = GeneralSubtree::DnsName("shop.example".into());
    let permitted = only(NameConstraints {
        permitted_subtrees: vec![shop.clone()],
        excluded_subtrees: Vec::new(),
    });
    let excluded = only(NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![shop],
    });
    let named = |name: &'static str| {
        move |params: &mut CertificateParams| params.subject_alt_names = vec![dns(name)]
    };
    let chain = alice(&permitted, &[&permitted], named("bank.example"));
    add("outside the permitted names", chain, names);
    let chain = alice(&excluded, &[&excluded], named("a.shop.example"));
    add("within the excluded names", chain, names);

    // Strength.
    for (what, leaf) in [
        ("signed with sha-1", include_str!("data/weak-sha1.pem")),
        ("signed with md5", include_str!("data/weak-md5.pem")),
    ] {
        add(what, (vec![fixture(leaf)], fixture_key()), weak);
    }

    // The cryptography library does not verify with so short a key, and says no more.
    let leaf = fixture(include_str!("data/weak-authority.pem"));
    let chain = (vec![leaf], fixture_key());
    add("of an authority with 1024 bits", chain, signature);

    // Form.
    let chain = (
        vec![fixture(include_str!("data/version-1.pem"))],
        fixture_key(),
    );
    let unreadable = "client certificate cannot be read";
    add("of version 1", chain, unreadable);
    let chain = alice(pki, &[], |params| {
        let mut strange =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        strange.set_criticality(true);
        params.custom_extensions = vec![strange];
    });
    let critical = "client certificate has a critical extension that is not known";
    add("with an unknown critical extension", chain, critical);
    let (_, key) = alice(pki, &[], same);
    add(
        "that is none",
        (vec![vec![0x30, 3, 1, 1, 0].into()], key),
        unreadable,
    );
    let (mut chain, key) = alice(pki, &[], same);
    let longer = [chain[0].as_ref(), &[0]].concat();
    chain[0] = longer.into();
    add("with bytes behind it", (chain, key), unreadable);
    let (mut chain, key) = alice(pki, &[], same);
    let mut bytes = chain[0].to_vec();
    let at = bytes.windows(5).position(|part| part == b"alice").unwrap();
    bytes[at..at + 5].copy_from_slice(b"admin");
    chain[0] = bytes.into();
    add("changed after it was signed", (chain, key), signature);

    // Possession.
    let (chain, _) = alice(pki, &[], same);
    let chain = (chain, KeyPair::generate().unwrap());
    let possession = "client does not hold the key of the certificate that it shows";
    add("of somebody else", chain, possession);

    all_are_refused(&lab, bad).await;
    assert!(comes_in(&lab, alice(pki, &[], same)).await.is_ok());
}

#[tokio::test]
async fn a_name_that_could_be_taken_for_another_is_refused() {
    let lab = Lab::with(|setup| setup.tls = true);
    let pki = lab.pki.as_ref().unwrap();
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let (leaf, key) = pki.certificate(|params| {
            let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
            for (name, kind) in names.iter().zip(kinds) {
                params.distinguished_name.push(kind, name);
            }
        });
        (vec![leaf], key)
    };
    let refused = "name of the client certificate is refused: name";
    let long = "x".repeat(5000);
    let mut bad = Vec::new();
    for (what, names, detail) in [
        (
            "without a name",
            vec![],
            "client certificate has no common name".to_owned(),
        ),
        (
            "with an empty name",
            vec![""],
            format!("{refused} is empty"),
        ),
        (
            "named *",
            vec!["*"],
            format!("{refused} is the wildcard `*`"),
        ),
        (
            "with two names",
            vec!["alice", "bob"],
            "client certificate has several names of the kind common name".to_owned(),
        ),
        (
            "named like a spiffe id",
            vec!["spiffe://prod/a"],
            format!("{refused} has the form of a spiffe id"),
        ),
        (
            "with a line end",
            vec!["a\nb"],
            format!("{refused} holds a control character"),
        ),
        (
            "with a NUL",
            vec!["alice\0.evil"],
            format!("{refused} holds a control character"),
        ),
        (
            "with a long name",
            vec![&long],
            format!("{refused} is longer than 500 bytes"),
        ),
    ] {
        bad.push(Bad {
            what,
            chain: named(&names),
            detail: Box::leak(detail.into_boxed_str()),
        });
    }
    all_are_refused(&lab, bad).await;
}

#[tokio::test]
async fn what_a_list_revokes_does_not_come_in_wherever_it_stands_in_the_chain() {
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.lists = vec![2050];
        setup.mesh.0 += ", crl: [0.crl]";
    });
    let pki = lab.pki.as_ref().unwrap();
    let serial = |serial: u64| {
        move |params: &mut CertificateParams| {
            params.serial_number = Some(serial.into());
        }
    };
    let revoked = pki.authority("revoked", serial(66));
    let unlisted = pki.authority("unlisted", serial(7));
    let bad = vec![
        Bad {
            what: "revoked",
            chain: alice(pki, &[], serial(66)),
            detail: "client certificate is revoked",
        },
        Bad {
            what: "of an authority that says nothing of revocation",
            chain: alice(&unlisted, &[&unlisted], same),
            detail: "no revocation list of the issuer of the client certificate",
        },
        Bad {
            what: "of a revoked authority",
            chain: alice(&revoked, &[&revoked], same),
            detail: "client certificate is revoked",
        },
    ];
    assert!(comes_in(&lab, alice(pki, &[], same)).await.is_ok());
    all_are_refused(&lab, bad).await;
}
