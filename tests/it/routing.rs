//! Which addresses clients are told, and where those lead.

use std::time::Duration;

use kafka_protocol::messages::{DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use kordon::demo::client::{Client, fetch_request};

use crate::support::*;

/// Node, host and port of every broker that Metadata tells.
async fn told(client: &mut Client) -> Vec<(i32, String, i32)> {
    let answer = client.metadata(Some(&[])).await.unwrap();
    let brokers = answer.brokers.iter();
    brokers
        .map(|b| (*b.node_id, b.host.to_string(), b.port))
        .collect()
}

fn expected(lab: &Lab, listener: &str, id: i32, nth: u16) -> Vec<(i32, String, i32)> {
    let port = lab.broker_port(listener) + nth;
    vec![(id, "localhost".to_owned(), i32::from(port))]
}

#[tokio::test]
async fn each_listener_tells_its_own_port_for_a_broker_and_it_leads_there() {
    let lab = Lab::new();
    for listener in ["app", "other"] {
        let mut client = lab.client(listener).await;
        assert_eq!(told(&mut client).await, expected(&lab, listener, 1, 0));
        let address = ([127, 0, 0, 1], lab.broker_port(listener)).into();
        let mut client = Client::connect(address, "it").await.unwrap();
        let answer = client.produce("open.a", 0, batch(&[b"x"])).await.unwrap();
        assert_eq!(part(&answer, "open.a", 0).error_code, 0);
    }
    assert_eq!(lab.broker().end_offset("open.a", 0), Some(2));
}

#[tokio::test]
async fn t16_metadata_tells_no_upstream_address_at_any_version() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 0..=13 {
        let answer = client
            .call(version, &MetadataRequest::default())
            .await
            .unwrap();
        let ports: Vec<i32> = answer.brokers.iter().map(|b| b.port).collect();
        assert_eq!(
            ports,
            [i32::from(lab.broker_port("app"))],
            "version {version}"
        );
    }
}

#[tokio::test]
async fn t16_the_coordinator_is_told_by_the_listeners_address() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    let port = i32::from(lab.broker_port("app"));
    let key = StrBytes::from_static_str("app.g");
    for version in 0..=6 {
        let request = match version {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![key.clone()]),
            _ => FindCoordinatorRequest::default().with_key(key.clone()),
        };
        let answer = client.call(version, &request).await.unwrap();
        let found = match version {
            4.. => (
                answer.coordinators[0].host.clone(),
                answer.coordinators[0].port,
            ),
            _ => (answer.host, answer.port),
        };
        assert_eq!(
            (&*found.0, found.1),
            ("localhost", port),
            "version {version}"
        );
    }
}

#[tokio::test]
async fn t16_describe_cluster_is_told_by_the_listeners_address() {
    let lab = Lab::new();
    let mut client = lab.app().await;
    for version in 0..=2 {
        let answer = client
            .call(version, &DescribeClusterRequest::default())
            .await
            .unwrap();
        let brokers: Vec<_> = answer.brokers.iter().map(|b| (&*b.host, b.port)).collect();
        assert_eq!(brokers, [("localhost", i32::from(lab.broker_port("app")))]);
    }
}

#[tokio::test]
async fn a_second_broker_has_the_next_port() {
    let mut lab = Lab::new();
    lab.stop_broker();
    lab.start_broker(2);
    let mut client = lab.app().await;
    assert_eq!(told(&mut client).await, expected(&lab, "app", 2, 1));
    let address = ([127, 0, 0, 1], lab.broker_port("app") + 1).into();
    let mut client = Client::connect(address, "it").await.unwrap();
    assert_eq!(told(&mut client).await, expected(&lab, "app", 2, 1));
}

#[tokio::test]
async fn a_range_that_is_too_small_leaves_a_broker_out_and_says_so() {
    let mut lab = Lab::with(|setup| (setup.broker_ports, setup.child) = (1, true));
    lab.stop_broker();
    lab.start_broker(2);
    let mut client = lab.app().await;
    assert_eq!(told(&mut client).await, []);
    lab.log_says("no port left for broker 2");
    let key = StrBytes::from_static_str("app.g");
    let request = FindCoordinatorRequest::default().with_key(key.clone());
    let answer = client.call(3, &request).await.unwrap();
    assert_eq!(
        (answer.error_code, answer.port, &*answer.host),
        (15, -1, "")
    );
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![key]);
    let answer = client.call(4, &request).await.unwrap();
    let found = &answer.coordinators[0];
    assert_eq!((found.error_code, found.port, &*found.host), (15, -1, ""));
}

#[tokio::test]
async fn sni_names_of_brokers_lead_to_them_and_all_others_to_any() {
    let mut lab = Lab::with(|setup| setup.tls = true);
    lab.stop_broker();
    lab.start_broker(2);
    let mut any = lab.tls("sni", "any.kordon.example", None).await.unwrap();
    let host = "broker-2.kordon.example".to_owned();
    let port = i32::from(lab.address("sni").port());
    assert_eq!(told(&mut any).await, [(2, host.clone(), port)]);
    let mut second = lab.tls("sni", &host, None).await.unwrap();
    assert_eq!(told(&mut second).await, [(2, host, port)]);
    for gone in ["broker-1.kordon.example", "broker-99.kordon.example"] {
        let mut client = lab.tls("sni", gone, None).await.unwrap();
        assert!(client.metadata(None).await.is_err(), "{gone}");
    }
}

#[tokio::test]
async fn a_broker_that_goes_takes_its_connections_along_and_brings_service_back() {
    let mut lab = Lab::new();
    let mut waiting = lab.app().await;
    let mut idle = lab.app().await;
    told(&mut idle).await;
    let poll = fetch_request("open.a", 0, 0, Duration::from_secs(60));
    waiting.send(11, &poll).await.unwrap();
    while lab.broker().requests(1) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lab.stop_broker();
    assert!(waiting.is_closed().await && idle.is_closed().await);
    assert!(lab.app().await.metadata(None).await.is_err());
    lab.start_broker(1);
    assert_eq!(
        told(&mut lab.app().await).await,
        expected(&lab, "app", 1, 0)
    );
    lab.metric_is("kordon_requests_total", &["Fetch", "failed"], 1.0);
}
