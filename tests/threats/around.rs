//! Ways around Kordon: names with stars, the broker's own door, the admin endpoint, the pod, tokens
//! of the brokers.

use crate::asks::{fetch_code, metadata, produce, produce_code};
use crate::body::{self, Kind, Names, batch};
use crate::lab::{http, part};
use crate::socket::{Seen, Socket, encode, request};
use crate::stage::{APP, PASSWORD, Side, Stage, answer, bearer, handshake, holds};
use kordon::wire::tree::StructNode;
use std::process::Command;

const FORBIDDEN: i64 = 29;
const TOKENS_DISABLED: i64 = 61;

/// Row 31. A rule speaks of `own.${principal}.*`; what a principal is called is text there.
pub fn t31_a_star_in_a_principal_opens_nothing(stage: &mut Stage) {
    let write = |subject: &str| {
        let mut socket = stage.token_listener();
        socket.call(17, 1, &handshake("OAUTHBEARER"));
        let answer = socket.call(36, 2, &bearer(subject, 600));
        if answer.int("ErrorCode") != 0 || !answer.bytes("AuthBytes").is_some_and(|b| b.is_empty())
        {
            return None;
        }
        let event = batch("event", Kind::Plain);
        Some(produce_code(&socket.call(
            0,
            9,
            &produce("own.victim.x", &event),
        )))
    };
    assert_eq!(write("victim"), Some(0));
    let end = stage.end("own.victim.x");
    for subject in [
        "*",
        "v*",
        "victi?",
        "vic*",
        "victim.*",
        "${principal}",
        ".*",
        "victim*",
    ] {
        let code = write(subject);
        assert!(
            code.is_none() || code == Some(FORBIDDEN),
            "{subject}: {code:?}"
        );
    }
    assert_eq!(stage.end("own.victim.x"), end);
}

/// Row 35. The network's part is outside; this is what the broker's credentials are worth.
pub fn t35_the_broker_lets_only_the_sidecar_in(stage: &mut Stage) {
    // With the sidecar's identity the door is open, so it is the identity that counts.
    let names = Names {
        topics: vec!["v.secret".into()],
        ..Names::default()
    };
    let ask = body::request(stage, Side::Kordon, 1, 12, &names);
    assert_eq!(fetch_code(&stage.direct().call(1, 12, &ask)), 0);
    let mut nobody = Socket::open(&stage.sasl);
    nobody.ask(3, 12, &encode(3, 12, &metadata("a.own")));
    assert_eq!(nobody.receive(), Seen::Closed);
    for (user, password) in [
        ("sidecar", "sidecar"),
        ("sidecar", ""),
        ("attacker", "attacker"),
    ] {
        assert_eq!(
            Socket::open(&stage.sasl).plain(user, password),
            58,
            "{user}"
        );
    }
    let mut app = Socket::open(&stage.sasl);
    assert_eq!(app.plain(APP, APP), 0);
    assert_ne!(fetch_code(&app.call(1, 12, &ask)), 0);
    let event = batch("event", Kind::Plain);
    assert_eq!(
        produce_code(&app.call(0, 9, &produce("a.own", &event))),
        FORBIDDEN
    );
    // The app's own credentials open the same topic through Kordon.
    let code = produce_code(
        &stage
            .client("attacker")
            .call(0, 9, &produce("a.own", &event)),
    );
    assert_eq!(code, 0);
}

/// Row 37. Whoever shares the pod reaches the endpoint on loopback.
pub fn t37_the_admin_endpoint_shows_no_secret_and_changes_nothing(stage: &mut Stage) {
    // A connection and a refusal, so that there is something to show.
    stage.client("attacker").call(3, 12, &metadata("v.secret"));
    let key = crate::signer::Signer::trusted().jwks["keys"][0]["x"]
        .as_str()
        .unwrap();
    let mut shown = 0;
    for path in [
        "/",
        "/metrics",
        "/readyz",
        "/livez",
        "/api/status",
        "/policies",
    ] {
        let text = http::ask("GET", &stage.kordon.admin, path).unwrap();
        shown += text.len();
        for secret in [PASSWORD, key, "127.0.77."] {
            assert!(
                path == "/api/status" || path == "/" || !text.contains(secret),
                "{path}"
            );
            assert!(secret == "127.0.77." || !text.contains(secret), "{path}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let changed = http::ask(method, &stage.kordon.admin, path);
            assert!(changed.is_err(), "{method} {path}: {changed:?}");
        }
    }
    assert!(shown > 1000, "{shown}");
    for path in [
        "/../password",
        "//password",
        "/password",
        "/debug",
        "/config",
    ] {
        let found = http::ask("GET", &stage.kordon.admin, path);
        assert!(found.is_err(), "{path}: {found:?}");
    }
    // Nor do its logs, which more people read than its files.
    let audit = std::fs::read_to_string(stage.kordon.dir().join("audit.jsonl")).unwrap();
    let log = stage.kordon.log(10_000);
    for secret in [PASSWORD, "127.0.77.", crate::stage::SECRET] {
        assert!(!audit.contains(secret), "{secret} in the audit log");
        assert!(
            secret == "127.0.77." || !log.contains(secret),
            "{secret} in the log"
        );
    }
}

/// Row 37. The chart as a pod of its own example has it.
pub fn t37_the_chart_shares_nothing_with_the_app(_: &mut Stage) {
    let built = part::cache().parent().unwrap().join("tools/bin/helm");
    let chart = part::root().join("helm/kordon");
    let full = chart.join("ci/full.yaml");
    let render = |values: &[&str]| {
        let mut helm = Command::new(if built.exists() {
            built.as_os_str()
        } else {
            "helm".as_ref()
        });
        helm.args(["template", "--kube-version", "1.30.0", "try"])
            .arg(&chart);
        helm.args(["--set", "example.enabled=true"]).args(values);
        let output = helm.output().ok()?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(plain) = render(&[]) else {
        assert!(
            !part::all_required(),
            "helm is not there: `tests/all.sh --only helm` builds it"
        );
        return println!("threats: t37_the_chart_shares_nothing_with_the_app SKIPPED: no helm");
    };
    let full = render(&["-f", full.to_str().unwrap()]).unwrap();
    for text in [&plain, &full] {
        for word in [
            "shareProcessNamespace",
            "hostPID",
            "hostNetwork",
            "hostIPC",
            "privileged",
        ] {
            assert!(!text.contains(word), "{word}");
        }
        for line in [
            "automountServiceAccountToken: false",
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
            "runAsNonRoot: true",
            "capabilities: {drop: [ALL]}",
            "bind: 127.0.0.1:9092",
        ] {
            assert!(text.contains(line), "{line}");
        }
        // A checksum and the scraper's words; configuration and secrets are volumes.
        let lines: Vec<&str> = text.lines().collect();
        let at = lines
            .iter()
            .position(|l| l.trim() == "annotations:")
            .unwrap();
        let indent = |line: &str| line.len() - line.trim_start().len();
        let inside = lines[at + 1..]
            .iter()
            .take_while(|l| indent(l) > indent(lines[at]));
        for line in inside {
            let fine =
                line.trim().starts_with("kordon/checksum: ") || line.contains("prometheus.io/");
            assert!(fine, "{line}");
        }
        // The app's container mounts nothing of Kordon's.
        let app = lines
            .iter()
            .position(|l| l.trim() == "- name: app")
            .unwrap();
        let volumes = lines[app..]
            .iter()
            .position(|l| l.trim() == "volumes:")
            .unwrap();
        let mounts = lines[app..app + volumes]
            .iter()
            .any(|l| l.contains("/etc/kordon"));
        assert!(!mounts, "the app sees Kordon's files");
    }
}

/// Row 40. The broker has tokens enabled, and the proxy's identity may make them.
pub fn t40_no_delegation_token_is_made_or_shown(stage: &mut Stage) {
    let create = |version: i16| {
        let mut create = request(38);
        create.set_int("MaxLifetimeMs", 3_600_000);
        if version >= 3 {
            create.set_text("OwnerPrincipalType", None);
            create.set_text("OwnerPrincipalName", None);
        }
        create
    };
    let tokens = |socket: &mut Socket| {
        let mut all = request(41);
        all.set("Owners", kordon::wire::tree::Node::Structs(None));
        let answer = socket.call(41, 3, &all);
        (answer.int("ErrorCode"), answer.structs("Tokens").len())
    };
    let (_, before) = tokens(&mut stage.direct());
    let made = stage.direct().call(38, 3, &create(3));
    assert_eq!(made.int("ErrorCode"), 0, "{made:?}");
    assert_eq!(made.text("PrincipalName"), Some("sidecar"));
    let id = made.text("TokenId").unwrap().to_owned();
    let hmac = made.bytes("Hmac").unwrap().clone();
    crate::stage::until(|| (tokens(&mut stage.direct()) == (0, before + 1)).then_some(()));

    let renew = |key: i16| -> StructNode {
        let mut ask = request(key);
        ask.set("Hmac", kordon::wire::tree::Node::Bytes(Some(hmac.clone())));
        ask
    };
    for client in ["attacker", "admin"] {
        for version in 1..=3 {
            let code = stage
                .client(client)
                .call(38, version, &create(version))
                .int("ErrorCode");
            assert_eq!(code, TOKENS_DISABLED, "{client} {version}");
        }
        for (key, version) in [(39, 1), (39, 2), (40, 1), (40, 2)] {
            let code = stage
                .client(client)
                .call(key, version, &renew(key))
                .int("ErrorCode");
            assert_eq!(
                code, TOKENS_DISABLED,
                "{client}: key {key} version {version}"
            );
        }
        for version in 1..=3 {
            let ask = body::request(stage, Side::Kordon, 41, version, &Names::default());
            let bytes = answer(&mut stage.client(client), 41, version, &ask).unwrap();
            assert!(
                !holds(&bytes, &id) && !holds(&bytes, "sidecar"),
                "{version}"
            );
        }
        assert_eq!(
            tokens(&mut stage.client(client)),
            (TOKENS_DISABLED, 0),
            "{client}"
        );
    }
    // The broker still has the one, and has expired none.
    assert_eq!(tokens(&mut stage.direct()), (0, before + 1));
}
