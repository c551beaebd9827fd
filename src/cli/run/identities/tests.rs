//! Certificates of identities, before a broker that asks for one.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::broker::BrokerAddr;
use crate::identity::certificate;
use crate::net::stream::Stream;
use crate::net::testing::{Authority, serving};

const SHORT: Duration = Duration::from_secs(5);

/// Everybody's certificate is `all`; `User:a` has `one`, and `User:b` only other words for SASL.
fn configured(authority: &Authority) -> Upstream {
    let whom = |name: &str| Whom::Principals(vec![name.to_owned()]);
    Upstream {
        bootstrap: Vec::new(),
        tls: Some(ClientTls {
            ca: Some(authority.ca()),
            identity: Some(authority.client("all")),
        }),
        sasl: None,
        identities: vec![
            UpstreamIdentity {
                whom: whom("User:a"),
                certificate: Some(authority.client("one")),
                sasl: None,
            },
            UpstreamIdentity {
                whom: whom("User:b"),
                certificate: None,
                sasl: Some(Settings::Forward),
            },
        ],
    }
}

/// Whose certificate a broker sees.
async fn seen(authority: &Authority, dialer: &Dialer) -> Option<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let broker = BrokerAddr {
        host: "localhost".into(),
        port: listener.local_addr().unwrap().port(),
    };
    let config = serving(authority.server(), Some(authority.ca()));
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        Stream::accept(tcp, &config, SHORT).await.unwrap()
    };
    let bare = dialer.bare();
    let (near, far) = tokio::join!(bare.dial(&broker), accept);
    near.unwrap();
    certificate::subject(&far.peer_certificates()[0])
}

#[tokio::test]
async fn each_identity_shows_its_own_certificate_or_everybodys() {
    let authority = Authority::new();
    let upstream = configured(&authority);
    let mut problems = Problems::default();
    let (identities, sources) = identities(&upstream, &mut problems).unwrap();
    assert!(problems.list.is_empty() && sources.is_empty());
    let subject = |name: &str| tls::shown(&authority.client(name).0).unwrap().1;
    let (all, one) = (subject("all"), subject("one"));
    assert_ne!(all, one);
    for (principal, expected) in [("User:a", &one), ("User:b", &all), ("User:c", &all)] {
        let dialer = &identities.choose("app", principal).dialer;
        assert_eq!(seen(&authority, dialer).await, *expected, "{principal}");
    }
    // A change of everybody's certificate reaches those who share it, and nobody else.
    let settings = ClientTls {
        ca: Some(authority.ca()),
        identity: Some(authority.client("new")),
    };
    let everybody = identities.everybody();
    everybody
        .dialer
        .replace_tls(tls::client_config(&settings).unwrap());
    everybody.replace_subject(subject("new"));
    let new = subject("new");
    for (principal, expected) in [("User:a", &one), ("User:b", &new), ("User:c", &new)] {
        let dialer = &identities.choose("app", principal).dialer;
        assert_eq!(seen(&authority, dialer).await, *expected, "{principal}");
    }
    assert_eq!(identities.choose("app", "User:b").subject(), new);
    assert_eq!(identities.choose("app", "User:a").subject(), None);
    let shown: Vec<_> = status(&identities)
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(shown, [None, None, Some("the client's own token".into())]);
}

#[test]
fn files_of_each_certificate_are_watched_and_all_mistakes_told() {
    let authority = Authority::new();
    let mut upstream = configured(&authority);
    assert_eq!(units(&upstream).len(), 2);
    let (cert, _) = authority.client("x");
    let (_, key) = authority.client("y");
    let pair = Some((cert, key));
    upstream.tls.as_mut().unwrap().identity = pair.clone();
    upstream.identities[0].certificate = pair;
    let mut problems = Problems::default();
    assert!(identities(&upstream, &mut problems).is_none());
    assert_eq!(problems.list.len(), 2);
}
