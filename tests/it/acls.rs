//! ACLs are policy files: who may describe the cluster sees those in force, nobody changes them
//! through Kafka's API, and no such request reaches the broker: this one does not know them, and
//! would end the connection.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::support::*;

const ANY: i8 = 1;
const UNKNOWN: i8 = 0;
const KEYS: [i16; 3] = [29, 30, 31];

/// `app` may describe the cluster and alter it, `other` nothing of it.
const RULES: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: base}
spec:
  principals: [\"User:app\", \"Group:ops\"]
  hosts: [\"127.0.0.0/8\"]
  rules:
    - {allow: [Read], topics: [\"open.*\", \"${tenant}.*\"]}
    - {allow: [Describe, Alter], cluster: true}
";

fn every() -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

fn shown(answer: &DescribeAclsResponse) -> Vec<String> {
    let mut all = Vec::new();
    for resource in &answer.resources {
        for acl in &resource.acls {
            all.push(format!(
                "{} {} {} {} {} {} {}",
                resource.resource_type,
                resource.pattern_type,
                resource.resource_name,
                acl.principal,
                acl.host,
                acl.operation,
                acl.permission_type
            ));
        }
    }
    all
}

fn creation() -> AclCreation {
    AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("open.a"))
        .with_resource_pattern_type(3)
        .with_principal(StrBytes::from_static_str("User:eve"))
        .with_host(StrBytes::from_static_str("*"))
        .with_operation(2)
        .with_permission_type(3)
}

fn filter() -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

#[tokio::test]
async fn the_rules_in_force_are_listed_as_acls() {
    let lab = Lab::ruled(RULES);
    let mut client = lab.app().await;
    let cluster = |principal: &str, operation: i8| {
        format!("4 3 kafka-cluster {principal} 127.0.0.0/8 {operation} 3")
    };
    let expected = [
        "2 4 ${tenant}. Group:ops 127.0.0.0/8 3 3".to_owned(),
        "2 4 ${tenant}. User:app 127.0.0.0/8 3 3".to_owned(),
        "2 4 open. Group:ops 127.0.0.0/8 3 3".to_owned(),
        "2 4 open. User:app 127.0.0.0/8 3 3".to_owned(),
        cluster("Group:ops", 7),
        cluster("Group:ops", 8),
        cluster("User:app", 7),
        cluster("User:app", 8),
    ];
    for version in 1..=3 {
        let answer = client.call(version, &every()).await.unwrap();
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.resources.len(), 3, "one element for each pattern");
        assert_eq!(shown(&answer), expected, "version {version}");
    }
    let mut one = every()
        .with_pattern_type_filter(2)
        .with_resource_type_filter(2);
    one.resource_name_filter = Some(StrBytes::from_static_str("open.a"));
    one.principal_filter = Some(StrBytes::from_static_str("User:app"));
    let answer = client.call(3, &one).await.unwrap();
    assert_eq!(shown(&answer), expected[3..4]);
    // It is no refusal.
    let labels = ["api=\"DescribeAcls\"", "outcome=\"answered\""];
    assert_eq!(lab.metric("kordon_requests_total", &labels), 4.0);
}

#[tokio::test]
async fn what_is_listed_is_what_is_in_force_now() {
    let lab = Lab::ruled(RULES);
    let mut client = lab.app().await;
    assert_eq!(shown(&client.call(3, &every()).await.unwrap()).len(), 8);
    lab.reload(&RULES.replace("\"User:app\", \"Group:ops\"", "\"User:app\""));
    assert_eq!(shown(&client.call(3, &every()).await.unwrap()).len(), 4);
    lab.reload(&RULES.replace("[Describe, Alter]", "[IdempotentWrite]"));
    let answer = client.call(3, &every()).await.unwrap();
    assert_eq!((answer.error_code, answer.resources.len()), (31, 0));
}

#[tokio::test]
async fn who_may_not_is_refused_as_by_a_broker() {
    let lab = Lab::ruled(RULES);
    let mut client = lab.client("other").await;
    for version in 1..=3 {
        let answer = client.call(version, &every()).await.unwrap();
        assert_eq!((answer.error_code, answer.resources.len()), (31, 0));
        let create = CreateAclsRequest::default().with_creations(vec![creation(), creation()]);
        let answer = client.call(version, &create).await.unwrap();
        let codes: Vec<i16> = answer.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [31, 31]);
        let delete = DeleteAclsRequest::default().with_filters(vec![filter()]);
        let answer = client.call(version, &delete).await.unwrap();
        let codes: Vec<i16> = answer.filter_results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [31]);
    }
    lab.audit(&[("api", "CreateAcls"), ("operation", "Alter")]);
}

#[tokio::test]
async fn who_may_is_told_where_the_files_are() {
    let lab = Lab::ruled(RULES);
    let mut client = lab.app().await;
    for version in 1..=3 {
        let create = CreateAclsRequest::default().with_creations(vec![creation(), creation()]);
        let answer = client.call(version, &create).await.unwrap();
        assert_eq!(answer.results.len(), 2);
        for result in &answer.results {
            assert_eq!(result.error_code, 44);
            let message = result.error_message.as_ref().unwrap();
            assert!(message.ends_with("in `policies`"), "{message}");
        }
        let delete = DeleteAclsRequest::default().with_filters(vec![filter()]);
        let answer = client.call(version, &delete).await.unwrap();
        let result = &answer.filter_results[0];
        assert_eq!((result.error_code, result.matching_acls.len()), (44, 0));
        assert!(
            result
                .error_message
                .as_ref()
                .unwrap()
                .contains("`policies`")
        );
    }
    assert_eq!(shown(&client.call(3, &every()).await.unwrap()).len(), 8);
    lab.audit(&[("api", "DeleteAcls"), ("reason", "unsupported")]);
}

#[tokio::test]
async fn an_unknown_kind_ends_the_connection_as_at_a_broker() {
    let lab = Lab::ruled(RULES);
    for key in KEYS {
        let mut client = lab.app().await;
        let answered = match key {
            29 => client
                .call(3, &every().with_operation(UNKNOWN))
                .await
                .is_ok(),
            30 => {
                let creations = vec![creation(), creation().with_permission_type(UNKNOWN)];
                let request = CreateAclsRequest::default().with_creations(creations);
                client.call(3, &request).await.is_ok()
            }
            _ => {
                let filters = vec![filter().with_pattern_type_filter(UNKNOWN)];
                let request = DeleteAclsRequest::default().with_filters(filters);
                client.call(3, &request).await.is_ok()
            }
        };
        assert!(!answered, "key {key}");
    }
}

#[tokio::test]
async fn without_rules_here_the_acls_are_the_brokers() {
    let lab = Lab::with(|setup| setup.more = "authorization: off\n".to_owned());
    let mut client = lab.app().await;
    assert!(client.call(3, &every()).await.is_err());
    let labels = ["api=\"DescribeAcls\"", "outcome=\"failed\""];
    lab.metric_is("kordon_requests_total", &labels, 1.0);
}
