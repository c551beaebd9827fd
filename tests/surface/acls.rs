//! DescribeAcls: whoever may ask finds, with any filter, the same ACLs as at a broker with the
//! same rules; and what a broker cannot read ends the connection here as well.

use crate::accepted::excuse;
use crate::acl::every;
use crate::compare::{comparable, differences};
use crate::socket::{Seen, Socket, encode, read};
use crate::stage::{SIDES, Side, Stage};
use crate::tally::Tally;
use kordon::wire::tree::StructNode;

const KEY: i16 = 29;
const VERSION: i16 = 3;

/// Codes of each kind, the unknown ones (0, and one that nobody has) included.
const KINDS: [i64; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 99];
const PATTERNS: [i64; 6] = [0, 1, 2, 3, 4, 99];
const OPERATIONS: [i64; 7] = [0, 1, 2, 3, 8, 12, 99];
const PERMISSIONS: [i64; 5] = [0, 1, 2, 3, 99];
const NAMES: [Option<&str>; 10] = [
    None,
    Some(""),
    Some("*"),
    Some("i"),
    Some("in."),
    Some("in.orders"),
    Some("in.missing"),
    Some("out.orders"),
    Some("out.orders.more"),
    Some("kafka-cluster"),
];
const PRINCIPALS: [Option<&str>; 5] = [
    None,
    Some(""),
    Some("User:*"),
    Some("User:denyread"),
    Some("denyread"),
];
const HOSTS: [Option<&str>; 4] = [None, Some(""), Some("*"), Some("127.0.0.1")];

/// Asks both sides with every filter about resources, and with every other one.
pub fn run(stage: &mut Stage, tally: &mut Tally) {
    let mut asked = Asked {
        stage,
        sockets: SIDES.map(|side| stage.connect(side, "clusterdescribe")),
        count: 0,
    };
    for kind in KINDS {
        for pattern in PATTERNS {
            for name in NAMES {
                let mut filter = every();
                filter
                    .set_int("ResourceTypeFilter", kind)
                    .set_int("PatternTypeFilter", pattern)
                    .set_text("ResourceNameFilter", name);
                asked.both(tally, &filter);
            }
        }
    }
    for principal in PRINCIPALS {
        for host in HOSTS {
            for operation in OPERATIONS {
                for permission in PERMISSIONS {
                    let mut filter = every();
                    filter
                        .set_text("PrincipalFilter", principal)
                        .set_text("HostFilter", host)
                        .set_int("Operation", operation)
                        .set_int("PermissionType", permission);
                    asked.both(tally, &filter);
                }
            }
        }
    }
    println!("surface: {} filters for ACLs", asked.count);
    tools(stage, tally);
}

/// kafka-acls.sh lists what it lists at the broker, and what it would change is refused with a
/// text that it prints.
fn tools(stage: &Stage, tally: &mut Tally) {
    let run = |server: &str, words: &[&str]| {
        let words = [&["--bootstrap-server", server], words].concat();
        let class = "org.apache.kafka.tools.AclCommand";
        stage.strict.own_tool(class, &words)
    };
    let strict = stage.strict.bootstrap();
    for words in [
        &["--list"][..],
        &[
            "--list",
            "--topic",
            "in.orders",
            "--resource-pattern-type",
            "match",
        ],
        &["--list", "--principal", "User:denyread"],
        &["--list", "--cluster"],
    ] {
        let [broker, kordon] = [&strict, stage.address("clusterdescribe")].map(|server| {
            let (fine, text) = run(server, words);
            let mut lines: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
            lines.sort();
            (fine, lines)
        });
        let some = broker.1.iter().any(|line| line.contains("operation="));
        tally.check("acls", broker == kordon && broker.0 && some, || {
            format!("kafka-acls.sh {words:?}: {broker:?} {kordon:?}")
        });
    }
    let add = [
        "--add",
        "--allow-principal",
        "User:eve",
        "--topic",
        "in.orders",
    ];
    let remove = ["--remove", "--force", "--topic", "in.orders"];
    for (words, user, said) in [
        (&add[..], "all", "change those in `policies/`"),
        (&remove[..], "all", "change those in `policies/`"),
        (
            &add[..],
            "clusterdescribe",
            "ClusterAuthorizationException: Cluster authorization failed.",
        ),
        (
            &remove[..],
            "clusterdescribe",
            "ClusterAuthorizationException: Cluster authorization failed.",
        ),
    ] {
        let (_, text) = run(stage.address(user), words);
        tally.check("acls", text.contains(said), || format!("{words:?}: {text}"));
    }
}

struct Asked<'s> {
    stage: &'s Stage,
    sockets: [Socket; 2],
    count: u32,
}

impl Asked<'_> {
    fn both(&mut self, tally: &mut Tally, filter: &StructNode) {
        self.count += 1;
        let bytes = encode(KEY, VERSION, filter);
        let mut seen = Vec::new();
        for (socket, side) in self.sockets.iter_mut().zip(SIDES) {
            socket.ask(KEY, VERSION, &bytes);
            seen.push(socket.receive());
            if !matches!(seen.last(), Some(Seen::Answer(_))) {
                *socket = self.stage.connect(side, "clusterdescribe");
            }
        }
        let label = || format!("DescribeAcls {}", crate::compare::show(filter));
        let [Seen::Answer(broker), Seen::Answer(kordon)] = &seen[..] else {
            let alike = seen[0] == seen[1];
            return tally.check("acls", alike, || format!("{}: {seen:?}", label()));
        };
        let text = |side: Side, bytes| {
            let (_, answer) = read(KEY, VERSION, bytes).unwrap();
            comparable(self.stage, side, KEY, VERSION, &answer)
        };
        let broker = text(Side::Strict, broker);
        let kordon = text(Side::Kordon, kordon);
        let mut found = differences(&broker, &kordon);
        found.retain(|d| excuse(KEY, &[], d).is_none());
        tally.check("acls", found.is_empty(), || {
            format!("{}: {found:?}", label())
        });
    }
}
