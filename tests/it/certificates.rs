//! Which certificates name whom, over real handshakes, and what is said of those that do not.

use kordon::demo::client::{Client, ClientError};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};

use crate::support::*;

/// Whether a client gets as far as a request.
async fn comes_in(client: Result<Client, ClientError>) -> bool {
    let Ok(mut client) = client else { return false };
    client.call(3, &versions("it")).await.is_ok()
}

/// A lab whose `mesh` listener has these words behind `tls` and in `identity`.
fn mesh(tls: &str, identity: &str) -> Lab {
    Lab::with(|setup| {
        setup.tls = true;
        setup.mesh = (tls.to_owned(), identity.to_owned());
    })
}

/// The `mesh` listener by common name, with one revocation list that holds until a year.
fn listed(until: i32) -> Lab {
    Lab::with(|setup| {
        setup.tls = true;
        setup.lists = vec![until];
        setup.mesh.0 += ", crl: [0.crl]";
    })
}

fn from(kind: &str) -> Lab {
    let shared = if kind == "spiffe" {
        ""
    } else {
        ", shared: true"
    };
    mesh(
        "clientAuth: required",
        &format!("{{mtls: {{from: {kind}{shared}}}, tenant: shop}}"),
    )
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn common_name(name: &str) -> impl Fn(&mut CertificateParams) {
    let name = name.to_owned();
    move |params| params.distinguished_name.push(DnType::CommonName, &name)
}

fn alternatives(names: Vec<SanType>) -> impl Fn(&mut CertificateParams) {
    move |params| params.subject_alt_names = names.clone()
}

/// The principal of a client that is let in is the one in the audit line of a refused write.
async fn principal_is(lab: &Lab, shown: Option<Shown>, principal: &str) {
    let mut client = lab.mesh(shown).await.unwrap();
    let answer = client.produce("secret.a", 0, batch(&[b"x"])).await.unwrap();
    assert_eq!(part(&answer, "secret.a", 0).error_code, 29, "{principal}");
    lab.audit(&[("listener", "mesh"), ("principal", principal)]);
}

async fn is_refused(lab: &Lab, shown: Option<Shown>, detail: &str) {
    assert!(!comes_in(lab.mesh(shown).await).await, "{detail}");
    let reason = ("reason", "authentication");
    lab.audit(&[("listener", "mesh"), reason, ("detail", detail)]);
}

#[tokio::test]
async fn each_part_of_a_certificate_can_be_the_name() {
    let subject = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::CommonName, "orders");
        params.subject_alt_names = vec![uri("spiffe://prod/orders"), dns("Orders.example")];
    };
    for (kind, principal) in [
        ("spiffe", "User:spiffe://prod/orders"),
        ("dns", "User:orders.example"),
        ("cn", "User:orders"),
        ("dn", "User:CN=orders,C=DE"),
    ] {
        let lab = from(kind);
        let shown = lab.pki.as_ref().unwrap().certificate(subject);
        principal_is(&lab, Some(shown), principal).await;
    }
}

#[tokio::test]
async fn a_certificate_without_one_clear_name_is_refused_with_the_reason() {
    type Change = Box<dyn Fn(&mut CertificateParams)>;
    let change = |change: Change| change;
    let cases: [(&str, Vec<(Change, &str)>); 4] = [
        (
            "spiffe",
            vec![
                (
                    change(Box::new(common_name("orders"))),
                    "client certificate has no uri",
                ),
                (
                    change(Box::new(alternatives(vec![uri("spiffe://Prod/a")]))),
                    "uri of the client certificate is not a valid spiffe id",
                ),
                (
                    change(Box::new(alternatives(vec![
                        uri("spiffe://prod/a"),
                        uri("spiffe://prod/b"),
                    ]))),
                    "client certificate has several names of the kind uri",
                ),
            ],
        ),
        (
            "dns",
            vec![
                (
                    change(Box::new(alternatives(vec![dns("*.shop.example")]))),
                    "dns name of the client certificate is a wildcard",
                ),
                (
                    change(Box::new(alternatives(vec![dns("a.b"), dns("a.c")]))),
                    "client certificate has several names of the kind dns name",
                ),
                (
                    change(Box::new(alternatives(vec![dns("a..b")]))),
                    "dns name of the client certificate is no host name",
                ),
            ],
        ),
        (
            "cn",
            vec![
                (
                    change(Box::new(common_name("*"))),
                    "name of the client certificate is refused: name is the wildcard `*`",
                ),
                (
                    change(Box::new(common_name("spiffe://prod/a"))),
                    "name of the client certificate is refused: name has the form of a spiffe id",
                ),
                (
                    change(Box::new(|params| {
                        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
                        params.distinguished_name.push(DnType::CommonName, "alice");
                        params.distinguished_name.push(second, "bob");
                    })),
                    "client certificate has several names of the kind common name",
                ),
            ],
        ),
        (
            "dn",
            vec![
                (
                    change(Box::new(alternatives(vec![dns("a.b")]))),
                    "name of the client certificate is refused: name is empty",
                ),
                (
                    change(Box::new(common_name("a\0b"))),
                    "name of the client certificate is refused: name holds a control character",
                ),
            ],
        ),
    ];
    for (kind, bad) in cases {
        let lab = from(kind);
        for (adapt, detail) in bad {
            let shown = lab.pki.as_ref().unwrap().certificate(adapt);
            is_refused(&lab, Some(shown), detail).await;
        }
        assert_eq!(lab.broker().requests(0), 0);
    }
}

#[tokio::test]
async fn mapping_rules_make_the_name_and_without_a_match_nobody_comes_in() {
    let rules = r#"["RULE:^CN=([a-z-]+),O=Shop$/$1/U", "RULE:^CN=x$/y/"]"#;
    let identity = format!("{{mtls: {{from: dn, rules: {rules}, shared: true}}}}");
    let lab = mesh("clientAuth: required", &identity);
    let subject = |common_name: &'static str| {
        move |params: &mut CertificateParams| {
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Shop");
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
        }
    };
    let pki = lab.pki.as_ref().unwrap();
    let orders = pki.certificate(subject("orders"));
    principal_is(&lab, Some(orders), "User:ORDERS").await;
    let other = pki.certificate(subject("orders2"));
    let unmapped = "no mapping rule matches the name of the client certificate";
    is_refused(&lab, Some(other), unmapped).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_anonymous_only_where_that_is_said() {
    let requested = "clientAuth: requested";
    let named = r#"{mtls: {from: cn, shared: true}, anonymous: "User:ANONYMOUS"}"#;
    let lab = mesh(requested, named);
    principal_is(&lab, None, "User:ANONYMOUS").await;
    let pki = lab.pki.as_ref().unwrap();
    let alice = pki.certificate(common_name("mallory"));
    principal_is(&lab, Some(alice), "User:mallory").await;
    // A bad certificate does not make its owner anonymous.
    let star = pki.certificate(common_name("*"));
    let refused = "name of the client certificate is refused: name is the wildcard `*`";
    is_refused(&lab, Some(star), refused).await;
    let foreign = Pki::named("other").certificate(common_name("alice"));
    let unknown = "client certificate is of an unknown issuer";
    is_refused(&lab, Some(foreign), unknown).await;

    let lab = mesh(requested, "{mtls: {from: cn, shared: true}}");
    is_refused(&lab, None, "client showed no certificate").await;
    let lab = mesh("clientAuth: required", "{mtls: {from: cn, shared: true}}");
    is_refused(&lab, None, "client showed no certificate").await;
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_with_the_check_that_failed() {
    let lab = listed(2050);
    let pki = lab.pki.as_ref().unwrap();
    let alice = |adapt: fn(&mut CertificateParams)| {
        move |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            adapt(params);
        }
    };
    let good = pki.certificate(alice(|_| {}));
    assert!(comes_in(lab.mesh(Some(good)).await).await);
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::default();
    own.distinguished_name.push(DnType::CommonName, "alice");
    let own = (own.self_signed(&key).unwrap().der().clone(), key);
    for (shown, detail) in [
        (
            pki.certificate(alice(|params| params.not_after = date_time_ymd(2020, 1, 1))),
            "client certificate has expired",
        ),
        (
            pki.certificate(alice(|params| {
                params.not_before = date_time_ymd(2090, 1, 1)
            })),
            "client certificate is not valid yet",
        ),
        (
            pki.certificate(alice(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "client certificate is not for client authentication",
        ),
        (
            pki.certificate(alice(|params| params.serial_number = Some(66_u64.into()))),
            "client certificate is revoked",
        ),
        (
            Pki::new().certificate(alice(|_| {})),
            "client certificate is not signed by the issuer that it names",
        ),
        (
            Pki::named("other").certificate(alice(|_| {})),
            "client certificate is of an unknown issuer",
        ),
        (own, "client certificate is of an unknown issuer"),
    ] {
        is_refused(&lab, Some(shown), detail).await;
    }
    let lab = listed(2021);
    let shown = lab.pki.as_ref().unwrap().certificate(common_name("alice"));
    let expired = "revocation list of the issuer of the client certificate has expired";
    is_refused(&lab, Some(shown), expired).await;
}
