//! Threat 40: a delegation token that is made through the proxy would be one for the proxy's own
//! identity. The broker here has them enabled, and the proxy's identity may make, renew, expire
//! and see them; through the proxy nobody can, whatever is asked by whom under whichever rules.

use crate::compare::show;
use crate::lab::kafka::{Kafka, plain_listener};
use crate::lab::kordon::{Kordon, Ports, listener};
use crate::lab::port;
use crate::socket::{Socket, request};
use crate::tally::Tally;
use kordon::apis::lookup;
use kordon::wire::tree::{Node, StructNode};

const CREATE: i16 = 38;
const RENEW: i16 = 39;
const EXPIRE: i16 = 40;
const DESCRIBE: i16 = 41;
const DISABLED: i64 = 61;
/// As whom the proxy is known to the broker.
const PROXY: &str = "proxy";

/// Everything for `all` and `boss`, nothing for `none`.
const POLICY: &str = "apiVersion: kordon/v1
kind: AccessPolicy
metadata: {name: all}
spec:
  principals: [\"User:all\"]
  rules:
    - {allow: [All], cluster: true}
    - {allow: [All], topics: [\"*\"], users: [\"*\"], delegationTokens: [\"*\"]}
";

/// Runs it.
pub fn t40(tally: &mut Tally) -> Result<(), String> {
    let port = port::free("127.0.77.1", 1);
    let kafka = Kafka::start("4.3.0", 1, &properties(port))?;
    let broker = format!("127.0.77.1:{port}");
    let mut direct = Socket::open_as(&broker, PROXY);
    let made = direct.call(CREATE, 3, &create(None, "User"));
    tally.check("t40", made.int("ErrorCode") == 0, || {
        format!("not enabled at the broker: {}", show(&made))
    });
    let hmac = made.bytes("Hmac").cloned().unwrap_or_default();
    let before = tokens(&mut direct);
    tally.check("t40", before.len() == 1, || format!("{before:?}"));
    for authorization in ["{superUsers: [\"User:boss\"]}", "off"] {
        let kordon = proxy(&broker, authorization)?;
        for user in ["all", "boss", "none"] {
            let at = address(&kordon, user);
            for (key, what, asked) in questions(&hmac) {
                let versions = lookup(key).unwrap().versions;
                for version in versions.min..=versions.max {
                    let mut asked = asked.clone();
                    if version < 3 && key == CREATE {
                        asked.set_text("OwnerPrincipalType", None);
                        asked.set_text("OwnerPrincipalName", None);
                    }
                    let answer = Socket::open(&at).call(key, version, &asked);
                    let shows = answer.has("Tokens") && !answer.structs("Tokens").is_empty();
                    let hands =
                        answer.has("Hmac") && answer.bytes("Hmac").is_some_and(|h| !h.is_empty());
                    let fine = answer.int("ErrorCode") == DISABLED && !shows && !hands;
                    tally.check("t40", fine, || {
                        let answer = show(&answer);
                        format!("key {key} v{version}, {what}, {user}, {authorization}: {answer}")
                    });
                }
            }
        }
    }
    let after = tokens(&mut direct);
    tally.check("t40", before == after, || format!("{before:?} {after:?}"));
    drop(kafka);
    Ok(())
}

/// What may be asked, in the ways that a broker tells apart.
fn questions(hmac: &[u8]) -> Vec<(i16, &'static str, StructNode)> {
    let with = |key: i16, hmac: &[u8], field: &str, period: i64| {
        let mut asked = request(key);
        asked
            .set("Hmac", Node::Bytes(Some(hmac.to_vec().into())))
            .set_int(field, period);
        asked
    };
    let mut everybody = request(DESCRIBE);
    everybody.set("Owners", Node::Structs(None));
    let nobody = request(DESCRIBE);
    let mut own = request(DESCRIBE);
    let mut owner = own.element("Owners");
    owner
        .set_text("PrincipalType", Some("User"))
        .set_text("PrincipalName", Some(PROXY));
    own.structs_mut("Owners").push(owner);
    vec![
        (CREATE, "for oneself", create(None, "User")),
        (CREATE, "for somebody else", create(Some("all"), "User")),
        (CREATE, "for the proxy", create(Some(PROXY), "User")),
        (CREATE, "a renewer that is no user", create(None, "Group")),
        (RENEW, "a token", with(RENEW, hmac, "RenewPeriodMs", 1)),
        (RENEW, "no token", with(RENEW, b"x", "RenewPeriodMs", 1)),
        (
            EXPIRE,
            "a token",
            with(EXPIRE, hmac, "ExpiryTimePeriodMs", -1),
        ),
        (
            EXPIRE,
            "no token",
            with(EXPIRE, b"", "ExpiryTimePeriodMs", -1),
        ),
        (DESCRIBE, "everybody's", everybody),
        (DESCRIBE, "nobody's", nobody),
        (DESCRIBE, "the proxy's", own),
    ]
}

fn create(owner: Option<&str>, renewer: &str) -> StructNode {
    let mut create = request(CREATE);
    create
        .set_text("OwnerPrincipalType", owner.map(|_| "User"))
        .set_text("OwnerPrincipalName", owner)
        .set_int("MaxLifetimeMs", -1);
    let mut element = create.element("Renewers");
    element
        .set_text("PrincipalType", Some(renewer))
        .set_text("PrincipalName", Some("all"));
    create.structs_mut("Renewers").push(element);
    create
}

/// Every token that the broker has, with its end.
fn tokens(direct: &mut Socket) -> Vec<(Option<String>, i64)> {
    let mut everybody = request(DESCRIBE);
    everybody.set("Owners", Node::Structs(None));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let answer = direct.call(DESCRIBE, 3, &everybody);
        let tokens = answer.structs("Tokens").iter();
        let tokens: Vec<_> = tokens
            .map(|t| {
                (
                    t.text("TokenId").map(str::to_owned),
                    t.int("ExpiryTimestamp"),
                )
            })
            .collect();
        // The broker is told of a token a moment after it was made.
        if !tokens.is_empty() || std::time::Instant::now() > until {
            return tokens;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn proxy(broker: &str, authorization: &str) -> Result<Kordon, String> {
    let config = |ports: &Ports| {
        let mut text = format!(
            "upstream:
  bootstrap: [\"{broker}\"]
  sasl: {{plain: {{username: {PROXY}, password: {{file: password}}}}}}
policies: policies/
authorization: {authorization}
listeners:
"
        );
        // The listener has more ports than it needs: two for each user.
        for (at, user) in (0..).step_by(2).zip(["all", "boss", "none"]) {
            text += &listener(user, ports.app + at, ports.app + at + 1, user);
        }
        text
    };
    let files = [("policies/p.yaml", POLICY), ("password", PROXY)];
    Kordon::start("127.0.0.1", config, &files)
}

fn address(kordon: &Kordon, user: &str) -> String {
    let at = ["all", "boss", "none"].iter().position(|u| *u == user);
    format!("127.0.0.1:{}", kordon.first_port + 2 * at.unwrap() as u16)
}

fn properties(sasl: u16) -> String {
    let plain = plain_listener(sasl, [(PROXY, PROXY)]);
    format!("{plain}delegation.token.secret.key=a-secret-of-this-test\n")
}
