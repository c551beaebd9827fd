//! Tenants: who belongs to one, and that its members see nothing outside its boundary.

use kafka_protocol::messages::{GroupId, InitProducerIdRequest, JoinGroupRequest, TransactionalId};
use kordon::demo::client::{Client, ClientError};
use kordon::identity::scram::Hash;
use serde_json::json;

use crate::passwords::{PASSWORD, entry, plain, scram};
use crate::policy::fetch_all;
use crate::support::*;

/// Everything allowed to everybody, line 7; the boundary of the tenant of `app` is line 14.
const BOUNDED: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: base}
spec:
  principals: [\"User:*\"]
  rules:
    - {allow: [All], topics: [\"*\"], groups: [\"*\"], transactionalIds: [\"*\"]}
    - {allow: [All], cluster: true}
---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: shop}
spec:
  boundary: {topics: [\"open.*\"], groups: [\"app.*\"], transactionalIds: [\"app.*\"]}
  match: {any: [{principal: \"User:shop-*\"}]}
";

/// Another tenant, to which some names belong as well.
const BANK: &str = "---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: bank}
spec:
  match: {any: [{principal: \"User:bank-*\"}, {principal: \"User:shop-bank\"}]}
";

/// The code of one produced record; `None`: the connection is gone.
async fn writes(client: &mut Result<Client, ClientError>, topic: &str) -> Option<i16> {
    let client = client.as_mut().ok()?;
    let answer = client.produce(topic, 0, batch(&[b"x"])).await.ok()?;
    Some(part(&answer, topic, 0).error_code)
}

/// Certificates name whoever comes to `mesh`, and nothing names a tenant there.
fn mesh_lab(policy: &str, child: bool) -> Lab {
    Lab::with(|setup| {
        setup.tls = true;
        setup.child = child;
        setup.policy = policy.to_owned();
        setup.mesh.1 = "{mtls: {from: cn, shared: true}}".to_owned();
    })
}

#[tokio::test]
async fn what_is_outside_the_boundary_is_refused_and_hidden_as_by_a_rule() {
    let lab = Lab::ruled(BOUNDED);
    let mut client = Ok(lab.app().await);
    assert_eq!(writes(&mut client, "open.a").await, Some(0));
    assert_eq!(writes(&mut client, "secret.a").await, Some(29));
    let line = lab.audit(&[("resource", "Topic:secret.a"), ("decision", "deny")]);
    let rule = line["rule"].as_str().unwrap();
    assert!(rule.ends_with("base.yaml:14"), "{line}");
    assert_eq!(line["reason"], "authorization", "{line}");

    let mut client = client.unwrap();
    let answer = client
        .call(12, &fetch_all(&["open.a", "secret.a"]))
        .await
        .unwrap();
    let mut codes: Vec<_> = fetched(&answer)
        .into_iter()
        .map(|(topic, _, code, _)| (topic, code))
        .collect();
    codes.sort();
    assert_eq!(
        codes,
        [("open.a".to_owned(), 0), ("secret.a".to_owned(), 29)]
    );

    let all = client.metadata(None).await.unwrap();
    let mut names: Vec<String> = (all.topics.iter())
        .map(|topic| topic.name.as_ref().unwrap().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["open.a", "open.b"]);
    let one = client.metadata(Some(&["secret.a"])).await.unwrap();
    assert_eq!(one.topics[0].error_code, 29);
    assert!(one.topics[0].partitions.is_empty());

    let join = JoinGroupRequest::default()
        .with_group_id(GroupId("other.g".into()))
        .with_session_timeout_ms(6_000);
    assert_eq!(client.call(7, &join).await.unwrap().error_code, 30);
    for (id, refused) in [("other-1", true), ("app.1", false)] {
        let start = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(id.into())))
            .with_transaction_timeout_ms(60_000);
        let answer = client.call(4, &start).await.unwrap();
        assert_eq!(answer.error_code == 53, refused);
    }
}

#[tokio::test]
async fn a_super_user_passes_the_boundary_and_a_reload_moves_it() {
    let lab = Lab::with(|setup| {
        setup.child = true;
        setup.policy = BOUNDED.to_owned();
        setup.more = "authorization: {superUsers: [\"User:other\"]}\n".to_owned();
    });
    let mut other = Ok(lab.client("other").await);
    let mut app = Ok(lab.app().await);
    assert_eq!(writes(&mut other, "secret.a").await, Some(0));
    assert_eq!(writes(&mut app, "secret.a").await, Some(29));
    lab.reload(&BOUNDED.replace("\"open.*\"", "\"secret.*\""));
    assert_eq!(writes(&mut app, "secret.a").await, Some(0));
    assert_eq!(writes(&mut app, "open.a").await, Some(29));
    assert_eq!(writes(&mut other, "open.a").await, Some(0));
}

#[tokio::test]
async fn without_authorization_there_is_no_boundary() {
    let lab = Lab::with(|setup| {
        setup.policy = BOUNDED.to_owned();
        setup.more = "authorization: off\n".to_owned();
    });
    assert_eq!(writes(&mut Ok(lab.app().await), "secret.a").await, Some(0));
}

#[tokio::test]
async fn who_matches_belongs_to_the_tenant_and_who_matches_two_is_refused() {
    let lab = mesh_lab(&format!("{BOUNDED}{BANK}"), false);
    for (name, open, secret) in [
        ("shop-a", Some(0), Some(29)),
        ("bank-a", Some(0), Some(0)),
        ("shopper", Some(0), Some(0)),
        ("shop-bank", None, None),
    ] {
        let mut client = lab.tls("mesh", "localhost", Some(&[name])).await;
        assert_eq!(writes(&mut client, "open.a").await, open, "{name}");
        assert_eq!(writes(&mut client, "secret.a").await, secret, "{name}");
    }
    let line = lab.audit(&[("principal", "User:shop-a"), ("decision", "deny")]);
    assert_eq!(line["tenant"], "shop", "{line}");
    let line = lab.audit(&[("principal", "User:shop-bank"), ("decision", "deny")]);
    let detail = line["detail"].as_str().unwrap();
    assert!(
        detail.contains("`shop`") && detail.contains("`bank`"),
        "{line}"
    );
    let labels = ["tenant=\"shop\"", "api=\"Produce\"", "\"authorization\""];
    lab.metric_is("kordon_refusals_total", &labels, 1.0);
}

#[tokio::test]
async fn a_reload_moves_an_open_connection_or_ends_it_where_two_match() {
    let alone = BOUNDED.replace("User:shop-*", "User:nobody");
    let lab = mesh_lab(&alone, true);
    let mut client = lab.tls("mesh", "localhost", Some(&["shop-bank"])).await;
    assert_eq!(writes(&mut client, "secret.a").await, Some(0));
    lab.reload(BOUNDED);
    assert_eq!(writes(&mut client, "secret.a").await, Some(29));
    assert_eq!(writes(&mut client, "open.a").await, Some(0));
    lab.reload(&format!("{BOUNDED}{BANK}"));
    assert_eq!(writes(&mut client, "open.a").await, None);
    let line = lab.audit(&[
        ("principal", "User:shop-bank"),
        ("reason", "authentication"),
    ]);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("two tenants"), "{line}");
}

#[tokio::test]
async fn the_listeners_tenant_stands_before_whatever_sasl_proves() {
    let lab = Lab::with(|setup| {
        setup.tls = true;
        // Two tenants match the user as well, which nobody asks here.
        setup.policy = format!("{BOUNDED}{BANK}").replace("User:bank-*", "User:shop-*");
        setup.users = Some(format!("users:\n{}", entry("shop-bank")));
        setup.mesh.1 = "{mtls: {from: cn}, tenant: bank}
    sasl:
      plain: {users: users.yaml, shared: true}
      scramSha256: {users: users.yaml, tenant: shop, shared: true}
      oauthbearer: {issuer: \"https://issuer.example\", jwks: {file: jwks.json}, audience: kafka,
        algorithms: [ES256], tenantClaim: tenant_id, shared: true}"
            .to_owned();
    });
    let said = |tenant: &str| Signer::trusted().token("shop-bank", json!({"tenant_id": tenant}));
    // Without a tenant of the listener's, the claim is the tenant.
    let mut elsewhere = lab.client("tokens").await;
    let answer = elsewhere.authenticate(&said("shop")).await.unwrap();
    assert_eq!(answer.error_code, 0);
    assert_eq!(writes(&mut Ok(elsewhere), "secret.a").await, Some(29));

    for mechanism in ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256"] {
        let mut client = lab.tls("mesh", "localhost", Some(&["x"])).await.unwrap();
        client.call(1, &handshake(mechanism)).await.unwrap();
        let answer = match mechanism {
            "OAUTHBEARER" => client.call(2, &sasl(first_message(&said("shop")))).await,
            "PLAIN" => Ok(plain(&mut client, &format!("\0shop-bank\0{PASSWORD}")).await),
            _ => Ok(scram(&mut client, Hash::Sha256, "shop-bank", PASSWORD).await),
        };
        assert_eq!(answer.unwrap().error_code, 0, "{mechanism}");
        let mut client = Ok(client);
        assert_eq!(
            writes(&mut client, "secret.a").await,
            Some(0),
            "{mechanism}"
        );
        // What another token claims is no other tenant.
        if mechanism == "OAUTHBEARER" {
            let client = client.as_mut().unwrap();
            client.call(1, &handshake(mechanism)).await.unwrap();
            let again = client.call(2, &sasl(first_message(&said("mine")))).await;
            assert_eq!(again.unwrap().error_code, 0);
        }
        assert_eq!(
            writes(&mut client, "secret.a").await,
            Some(0),
            "{mechanism}"
        );
    }
    let labels = ["tenant=\"bank\"", "api=\"Produce\"", "\"forwarded\""];
    lab.metric_is("kordon_requests_total", &labels, 6.0);
}
