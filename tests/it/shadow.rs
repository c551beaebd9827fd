//! Policies without effect: what observes and what `authorization.shadow` holds change no answer,
//! and what they would change is counted and told.

use std::fs;
use std::process::Command;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use kordon::demo::client::{Client, fetch_request, topic_name};

use crate::passage::{SPLICED, on_the_way};
use crate::policy::fetch_all;
use crate::support::*;
use crate::visible::commit;

const DENY: &str = "kordon_would_deny_total";
const ALLOW: &str = "kordon_would_allow_total";
const OBSERVE: &str = "set=\"observe\"";
const SHADOW: &str = "set=\"shadow\"";

/// Behind [`POLICY`]: the deny is line 16, the allow line 17.
const OBSERVED: &str = "---
apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: to-come}
spec:
  mode: observe
  principals: [\"User:app\"]
  rules:
    - {deny: [Write], topics: [open.b]}
    - {allow: [Read], topics: [secret.a]}
";

/// What `app` may do by the shadow: less than by [`POLICY`], but for `secret.b`; line 7 allows.
const NEXT: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: next}
spec:
  principals: [\"User:app\"]
  rules:
    - {allow: [All], topics: [open.a, \"secret.*\"], groups: [app.a]}
    - {allow: [IdempotentWrite], cluster: true}
";

const SHADOWED: &str = "authorization: {shadow: next}\n";

fn shadowed(policy: &str, next: &str) -> Lab {
    Lab::with(|setup| {
        setup.policy = policy.to_owned();
        setup.files.push(("next/next.yaml", next.to_owned()));
        setup.more += SHADOWED;
    })
}

async fn writes(client: &mut Client, topic: &str) -> i16 {
    let answer = client.produce(topic, 0, batch(&[b"x"])).await.unwrap();
    part(&answer, topic, 0).error_code
}

fn api(name: &str) -> String {
    format!("api=\"{name}\"")
}

/// How often, by API and set.
fn would(lab: &Lab, metric: &str, name: &str, set: &str) -> f64 {
    lab.metric(metric, &[&api(name), set, "tenant=\"shop\""])
}

#[tokio::test]
async fn what_observes_neither_refuses_nor_allows_and_is_told() {
    let lab = Lab::ruled(&format!("{POLICY}{OBSERVED}"));
    let mut client = lab.app().await;
    for topic in ["open.a", "open.b", "open.b"] {
        assert_eq!(writes(&mut client, topic).await, 0);
    }
    let request = fetch_all(&["open.a", "secret.a", "nowhere"]);
    let answer = client.call(12, &request).await.unwrap();
    let mut codes: Vec<_> = fetched(&answer).into_iter().map(|part| part.2).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 29, 29]);

    assert_eq!(would(&lab, DENY, "Produce", OBSERVE), 2.0);
    assert_eq!(would(&lab, ALLOW, "Fetch", OBSERVE), 1.0);
    assert_eq!(lab.metric(DENY, &[]) + lab.metric(ALLOW, &[]), 3.0);
    let refused = lab.metric("kordon_refusals_total", &[&api("Produce")]);
    assert_eq!(refused, 0.0, "nothing was refused");

    let denied = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:open.b")]);
    assert_eq!(
        [
            &denied["principal"],
            &denied["api"],
            &denied["operation"],
            &denied["set"]
        ],
        ["User:app", "Produce", "Write", "observe"]
    );
    let rule = denied["rule"].as_str().unwrap();
    assert!(rule.ends_with("base.yaml:17"), "{denied}");
    let allowed = lab.audit(&[("decision", "would_allow"), ("resource", "Topic:secret.a")]);
    let rule = allowed["rule"].as_str().unwrap();
    assert!(rule.ends_with("base.yaml:18"), "{allowed}");
    // What became of it stands in a line of its own.
    let line = lab.audit(&[("decision", "deny"), ("resource", "Topic:secret.a")]);
    assert_eq!(line["policy"], allowed["policy"], "{line}");
    let (_, policies) = lab.http("/policies").unwrap();
    assert!(policies.contains("\"set\": \"observe\""), "{policies}");
}

#[tokio::test]
async fn a_shadow_is_decided_beside_every_kind_of_request() {
    let lab = shadowed(POLICY, NEXT);
    let mut direct = Client::connect(lab.broker().address(), "it").await.unwrap();
    direct.call(8, &commit("app.b", &["open.a"])).await.unwrap();

    let mut client = lab.app().await;
    assert_eq!(writes(&mut client, "open.a").await, 0);
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(writes(&mut client, "secret.a").await, 29);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 1.0);
    assert_eq!(would(&lab, ALLOW, "Produce", SHADOW), 1.0);

    let topics = ["open.a", "open.b", "secret.a", "nowhere"];
    client.call(12, &fetch_all(&topics)).await.unwrap();
    assert_eq!(would(&lab, DENY, "Fetch", SHADOW), 1.0);
    assert_eq!(would(&lab, ALLOW, "Fetch", SHADOW), 1.0);

    // Once, though both the request and the answer are asked about.
    client.metadata(Some(&["open.a", "open.b"])).await.unwrap();
    assert_eq!(would(&lab, DENY, "Metadata", SHADOW), 1.0);
    // All topics: `open.b` and `typed.a` would be hidden, `secret.a` shown.
    let all = client.metadata(None).await.unwrap();
    assert_eq!(all.topics.len(), 3);
    assert_eq!(would(&lab, DENY, "Metadata", SHADOW), 3.0);
    assert_eq!(would(&lab, ALLOW, "Metadata", SHADOW), 1.0);

    // Either set allows both topics, in force by a pattern.
    let topic = |name: &'static str| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let topics = ["open.new", "secret.new", "nowhere"].map(topic).to_vec();
    let request = CreateTopicsRequest::default().with_topics(topics);
    client.call(5, &request).await.unwrap();
    assert_eq!(would(&lab, DENY, "CreateTopics", SHADOW), 1.0);
    assert_eq!(would(&lab, ALLOW, "CreateTopics", SHADOW), 1.0);
    let line = lab.audit(&[
        ("decision", "would_allow"),
        ("resource", "Topic:secret.new"),
    ]);
    assert!(line["rule"].as_str().unwrap().ends_with("next.yaml:7"));

    let groups = ["app.a", "app.b", "else"]
        .map(|g| GroupId(g.into()))
        .to_vec();
    let request = DescribeGroupsRequest::default().with_groups(groups);
    client.call(5, &request).await.unwrap();
    assert_eq!(would(&lab, DENY, "DescribeGroups", SHADOW), 1.0);
    // In force Describe on the cluster shows every group; the shadow would show its own.
    let listed = client.call(4, &ListGroupsRequest::default()).await.unwrap();
    let shown = { listed.groups.iter() }.any(|group| &**group.group_id == "app.b");
    assert!(shown, "{listed:?}");
    assert_eq!(would(&lab, DENY, "ListGroups", SHADOW), 1.0);

    let digest = |set: &str| {
        let (_, body) = lab.http("/policies").unwrap();
        let policies: serde_json::Value = serde_json::from_str(&body).unwrap();
        match set {
            "" => policies["digest"].as_str().unwrap().to_owned(),
            _ => policies["shadows"][0]["digest"]
                .as_str()
                .unwrap()
                .to_owned(),
        }
    };
    let begin = line["policy"].as_str().unwrap();
    assert!(digest("shadow").starts_with(begin) && !digest("").starts_with(begin));
}

/// One request of each kind, with names that the sets decide alike and otherwise.
async fn ask_everything(client: &mut Client) {
    let topics = ["open.a", "open.b", "secret.a", "nowhere"];
    for topic in topics {
        writes(client, topic).await;
    }
    // One that is read as a tree, since it is refused in part.
    let parts = topics.map(|topic| (topic, 0, batch(&[b"x"])));
    client.call(9, &produce(1, &parts)).await.unwrap();
    client.call(12, &fetch_all(&topics)).await.unwrap();
    client.metadata(Some(&topics)).await.unwrap();
    let offsets = topics.map(|name| {
        let mut topic = ListOffsetsTopic::default().with_name(topic_name(name));
        topic.partitions = vec![ListOffsetsPartition::default().with_timestamp(-1)];
        topic
    });
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(offsets.to_vec());
    client.call(7, &request).await.unwrap();
    let configs = topics.map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str(name))
    });
    let request = DescribeConfigsRequest::default().with_resources(configs.to_vec());
    client.call(4, &request).await.unwrap();
    client.call(8, &commit("app.a", &topics)).await.unwrap();
    for group in ["app.b", "else"] {
        client.call(8, &commit(group, &["open.a"])).await.unwrap();
    }
    let keys = ["app.a", "app.b", "else"].map(StrBytes::from_static_str);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(keys.to_vec());
    client.call(4, &request).await.unwrap();
    let names = topics.map(topic_name).to_vec();
    let request = DeleteTopicsRequest::default().with_topic_names(names);
    client.call(5, &request).await.unwrap();
}

/// What a shadow foretells is what happens when its files are moved.
#[tokio::test]
async fn what_is_told_is_what_happens_once_the_shadow_is_in_force() {
    let apis = [
        "Produce",
        "Fetch",
        "Metadata",
        "ListOffsets",
        "DescribeConfigs",
        "OffsetCommit",
        "FindCoordinator",
        "DeleteTopics",
    ];
    let next = NEXT.replace("groups: [app.a]", "groups: [app.a, else]");
    let lab = shadowed(POLICY, &next);
    let refused = |name: &str| lab.metric("kordon_refusals_total", &[&api(name)]);
    let mut client = lab.app().await;
    ask_everything(&mut client).await;
    let before = apis.map(refused);
    let told = apis.map(|name| {
        (
            would(&lab, DENY, name, SHADOW),
            would(&lab, ALLOW, name, SHADOW),
        )
    });
    lab.reload(&next);
    ask_everything(&mut client).await;
    for ((name, before), (deny, allow)) in apis.into_iter().zip(before).zip(told) {
        assert!(deny > 0.0 && allow > 0.0, "{name}");
        let after = refused(name) - before;
        assert_eq!(
            after,
            before + deny - allow,
            "{name}: {before} +{deny} -{allow}"
        );
        // By now the two are the same.
        let more = would(&lab, DENY, name, SHADOW) + would(&lab, ALLOW, name, SHADOW);
        assert_eq!(more, deny + allow, "{name}");
    }
}

/// Who belongs to which tenant is the shadow's own question, where nothing proves a tenant.
#[tokio::test]
async fn a_shadow_takes_clients_for_members_of_its_own_tenants() {
    let everybody = NEXT
        .replace("User:app", "User:*")
        .replace("open.a", "\"*\"");
    let tenant = "---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: bank}
spec: {match: {any: [{principal: \"User:bank-*\"}]}, boundary: {topics: [open.a]}}
";
    let lab = Lab::with(|setup| {
        setup.tls = true;
        setup.policy = everybody.clone();
        setup.mesh.1 = "{mtls: {from: cn, shared: true}}".to_owned();
        setup
            .files
            .push(("next/next.yaml", format!("{everybody}{tenant}")));
        setup.more += SHADOWED;
    });
    for name in ["bank-a", "shop-a"] {
        let client = lab.tls("mesh", "localhost", Some(&[name])).await;
        let mut client = client.unwrap();
        assert_eq!(writes(&mut client, "open.a").await, 0);
        assert_eq!(writes(&mut client, "open.b").await, 0);
    }
    assert_eq!(lab.metric(DENY, &[&api("Produce"), "tenant=\"\""]), 1.0);
    let line = lab.audit(&[("decision", "would_deny"), ("principal", "User:bank-a")]);
    assert_eq!(line["resource"], "Topic:open.b", "{line}");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("`bank`") && line["tenant"] == "", "{line}");
}

#[tokio::test]
async fn what_observes_and_a_shadow_are_told_apart() {
    let lab = shadowed(&format!("{POLICY}{OBSERVED}"), NEXT);
    let mut client = lab.app().await;
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(writes(&mut client, "typed.a").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", OBSERVE), 1.0);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 2.0);
    for set in ["observe", "shadow"] {
        lab.audit(&[("resource", "Topic:open.b"), ("set", set)]);
    }
    // Another client, whom the shadow allows nothing.
    let mut other = lab.client("other").await;
    assert_eq!(writes(&mut other, "open.a").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", OBSERVE), 1.0);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 3.0);
}

#[tokio::test]
async fn a_shadow_is_reloaded_with_the_policies_or_not_at_all() {
    let lab = shadowed(POLICY, NEXT);
    let mut client = lab.app().await;
    let write_next = |text: &str| fs::write(lab.path("next/next.yaml"), text).unwrap();
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 1.0);

    write_next(&NEXT.replace("rules", "ruels"));
    lab.reload_in_vain(&POLICY.replace("\"open.*\"", "\"secret.*\""));
    lab.metric_reaches("kordon_policy_reload_failures_total", 1.0);
    let (code, body) = lab.http("/readyz").unwrap();
    assert_eq!(code, 200);
    let note = "policies and shadow set: the last change holds errors";
    assert!(
        body.contains(note) && body.contains("next.yaml:6:3"),
        "{body}"
    );
    // Neither the shadow nor the policies have changed.
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 2.0);

    write_next(&NEXT.replace("open.a", "\"open.*\""));
    lab.reload(POLICY);
    assert!(!lab.http("/readyz").unwrap().1.contains("shadow"));
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(writes(&mut client, "typed.a").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", SHADOW), 3.0);
}

/// The file is noticed without a signal, as policies are.
#[tokio::test]
async fn a_changed_shadow_is_noticed() {
    let lab = shadowed(POLICY, NEXT);
    let next = NEXT.replace("open.a", "\"open.*\"");
    fs::write(lab.path("next/next.yaml"), next).unwrap();
    lab.metric_reaches("kordon_policy_generation", 2.0);
    assert_eq!(writes(&mut lab.app().await, "open.b").await, 0);
    assert_eq!(lab.metric(DENY, &[]), 0.0);
}

#[tokio::test]
async fn a_long_poll_is_neither_held_back_nor_asked_about_again() {
    let lab = shadowed(POLICY, NEXT);
    let mut client = lab.app().await;
    let request = fetch_request("open.b", 0, 0, Duration::from_secs(30));
    client.send(12, &request).await.unwrap();
    // Told while the broker still waits.
    lab.metric_is(DENY, &[&api("Fetch")], 1.0);
    lab.reload(&format!("{POLICY}{OBSERVED}"));
    let mut other = lab.client("other").await;
    assert_eq!(writes(&mut other, "open.b").await, 0);
    let (_, response) = answer::<FetchRequest>(&mut client, 12).await;
    let parts = fetched(&response);
    assert_eq!((parts[0].2, parts[0].3.is_empty()), (0, false));
    assert_eq!(would(&lab, DENY, "Fetch", SHADOW), 1.0);
}

#[tokio::test]
async fn large_produce_requests_take_their_way_and_are_asked_about_once() {
    let lab = shadowed(POLICY, NEXT);
    let mut raw = on_the_way(&lab, "app").await;
    let before = would(&lab, DENY, "Produce", SHADOW);
    assert_eq!(before, 2.0);
    let spliced = lab.metric(SPLICED, &[]);
    let topics = ["open.a", "open.b"].map(|topic| (topic, 0, batch_of(100_000)));
    raw.send(&frame_of(9, 5, &produce(1, &topics))).await;
    let (_, answer) = raw.answer::<ProduceRequest>(9).await;
    assert_eq!(part(&answer, "open.b", 0).error_code, 0);
    lab.metric_reaches(SPLICED, spliced + 200_000.0);
    lab.metric_is(DENY, &[&api("Produce"), SHADOW], before + 1.0);
}

#[tokio::test]
async fn schemas_and_quotas_that_observe_count_what_they_would_do() {
    let observed = "---
apiVersion: kordon/v1
kind: SchemaPolicy
metadata: {name: orders}
spec:
  mode: observe
  topics: [typed.a]
  value: {format: avro}
---
apiVersion: kordon/v1
kind: QuotaPolicy
metadata: {name: slow}
spec:
  mode: observe
  for: {user: app}
  limits: {produce: 1KiB/s}
";
    let lab = Lab::ruled(&format!("{POLICY}{observed}"));
    let mut client = lab.app().await;
    let bad = batch(&[b"no Avro", b"none either"]);
    // One request that is looked at in place, and one that is read as a tree.
    for topics in [&["typed.a"][..], &["typed.a", "nowhere"]] {
        let parts: Vec<_> = topics.iter().map(|t| (*t, 0, bad.clone())).collect();
        let answer = client.call(9, &produce(1, &parts)).await.unwrap();
        assert_eq!(part(&answer, "typed.a", 0).error_code, 0);
    }
    let violations = "kordon_schema_violations_total";
    assert_eq!(lab.metric(violations, &["action=\"observe\""]), 4.0);
    assert_eq!(lab.metric(violations, &["action=\"reject\""]), 0.0);
    assert_eq!(would(&lab, DENY, "Produce", OBSERVE), 2.0);
    let line = lab.audit(&[("decision", "would_deny"), ("reason", "value")]);
    assert_eq!(line["resource"], "Topic:typed.a", "{line}");
    assert!(
        line["rule"].as_str().unwrap().ends_with("base.yaml:14"),
        "{line}"
    );

    let answer = client
        .produce("open.a", 0, batch_of(100_000))
        .await
        .unwrap();
    assert_eq!(answer.throttle_time_ms, 0);
    assert!(lab.metric("kordon_would_throttle_seconds_total", &[]) > 1.0);
    assert_eq!(lab.metric("kordon_throttle_seconds_total", &[]), 0.0);
}

/// The boundary of a tenant that observes, around a client that is proven to belong to it.
#[tokio::test]
async fn a_boundary_that_observes_holds_nobody_back() {
    let tenant = "---
apiVersion: kordon/v1
kind: Tenant
metadata: {name: shop}
spec: {mode: observe, boundary: {topics: [open.a], groups: [\"*\"]}}
";
    let lab = Lab::ruled(&format!("{POLICY}{tenant}"));
    let mut client = lab.app().await;
    assert_eq!(writes(&mut client, "open.a").await, 0);
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(would(&lab, DENY, "Produce", OBSERVE), 1.0);
    let line = lab.audit(&[("decision", "would_deny"), ("resource", "Topic:open.b")]);
    assert!(
        line["rule"].as_str().unwrap().ends_with("base.yaml:13"),
        "{line}"
    );
}

#[tokio::test]
async fn the_log_stays_one_that_can_be_verified_and_replayed() {
    let lab = Lab::with(|setup| {
        setup.files.push(("next/next.yaml", NEXT.to_owned()));
        setup.more += SHADOWED;
        setup.audit = "{file: {path: audit.jsonl}, allows: all}";
    });
    let mut client = lab.app().await;
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(writes(&mut client, "open.b").await, 0);
    assert_eq!(writes(&mut client, "secret.a").await, 29);
    // The last line of all.
    lab.audit(&[("decision", "would_allow"), ("resource", "Topic:secret.a")]);
    lab.metric_is("kordon_audit_lines_total", &[], 6.0);
    let kordon = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kordon"));
        command.args(words).current_dir(lab.path(""));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, text) = kordon(&["audit", "verify", "audit.jsonl"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = kordon(&["replay", "audit.jsonl", "policies", "--format", "json"]);
    let replayed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let counts = ["same", "beside", "incomplete"].map(|key| replayed[key].as_u64());
    assert_eq!((code, counts), (Some(0), [3, 3, 0].map(Some)), "{text}");
    // What the shadow would change is what replaying by it says.
    let (code, text) = kordon(&["replay", "audit.jsonl", "next"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("newly denied") && text.contains("newly allowed"),
        "{text}"
    );
}
