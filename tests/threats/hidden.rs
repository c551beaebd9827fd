//! What one may not see: topics by their ids, names that exist, addresses of brokers, groups and
//! transactions of others.

use crate::asks::{commit, committed, fetch_code, metadata, produce, produce_code, text};
use crate::body::{self, Kind, Names, batch};
use crate::socket::{Seen, Socket, encode, read, request};
use crate::stage::{SECRET, Side, Stage, answer, both, holds, until};
use kordon::apis::{self, Api, Phase};
use kordon::wire::layout::Role;
use kordon::wire::tree::{Node, StructNode};

const FORBIDDEN: i64 = 29;
/// The brokers' hosts, as every address of theirs begins.
const BROKERS: &str = "127.0.77.";

fn clients() -> impl Iterator<Item = &'static Api> {
    let table = apis::table::TABLE.iter();
    table.filter(|api| api.phase == Phase::Client)
}

/// A request that names one topic by an id, and by nothing else.
fn by_id(stage: &Stage, (key, version): (i16, i16), id: [u8; 16]) -> StructNode {
    let mut names = Names::of("a.own", "a.group", "a.txn");
    names.by_id = true;
    let mut request = body::request(stage, Side::Kordon, key, version, &names);
    let topics = ["Topics", "TopicData", "TopicPartitions"];
    let array = topics.into_iter().find(|a| request.has(a)).unwrap();
    if key == 68 {
        request.set("TopicPartitions", Node::Structs(Some(Vec::new())));
        let mut element = request.element("TopicPartitions");
        element.array_mut("Partitions").push(Node::Int(0));
        request.structs_mut(array).push(element);
    }
    for topic in request.structs_mut(array) {
        topic.set("TopicId", Node::Uuid(id));
        if topic.has("Name") {
            topic.set_text("Name", None);
        }
    }
    request
}

/// Row 1. At the broker the id alone opens the topic.
pub fn t01_a_foreign_topic_id_opens_nothing(stage: &mut Stage) {
    stage.create(&["v.doomed"]);
    let foreign = stage.id(Side::Kordon, "v.secret");
    let mut broker = stage.direct();
    let (bytes, found) = both(&mut broker, 1, 13, &by_id(stage, (1, 13), foreign));
    assert!(
        fetch_code(&found) == 0 && holds(&bytes, SECRET),
        "{found:?}"
    );
    let (bytes, _) = both(&mut broker, 3, 12, &by_id(stage, (3, 12), foreign));
    assert!(holds(&bytes, "v.secret"));
    let written = broker.call(0, 13, &by_id(stage, (0, 13), foreign));
    assert_eq!(produce_code(&written), 0);
    let doomed = stage.id(Side::Kordon, "v.doomed");
    let deleted = broker.call(20, 6, &by_id(stage, (20, 6), doomed));
    assert_eq!(deleted.structs("Responses")[0].int("ErrorCode"), 0);

    let end = stage.end("v.secret");
    let mut asked = 0;
    for (key, from) in [
        (0, 13),
        (1, 13),
        (3, 12),
        (20, 6),
        (8, 10),
        (9, 10),
        (68, 0),
        (78, 1),
    ] {
        for version in from..=apis::lookup(key).unwrap().versions.max {
            for id in [foreign, [0x5a; 16], [0; 16]] {
                asked += 1;
                let ask = match key {
                    9 => offset_fetch(id),
                    _ => by_id(stage, (key, version), id),
                };
                let bytes = answer(&mut stage.client("attacker"), key, version, &ask);
                let what = format!("key {key} version {version} id {id:?}: {bytes:?}");
                let Some(bytes) = bytes else { continue };
                assert!(
                    !holds(&bytes, SECRET) && !holds(&bytes, "v.secret"),
                    "{what}"
                );
                let (_, node) = read(key, version, &bytes).unwrap();
                assert!(key == 68 || errors(&node).any(|code| code != 0), "{what}");
            }
        }
    }
    assert!(asked > 40, "{asked}");
    // A name of one's own beside the id of another's: the name must not vouch for the id.
    for version in 12..=13 {
        let mut ask = by_id(stage, (3, version), foreign);
        ask.structs_mut("Topics")[0].set_text("Name", Some("a.own"));
        let bytes = answer(&mut stage.client("attacker"), 3, version, &ask);
        assert!(!bytes.is_some_and(|b| holds(&b, "v.secret")), "{version}");
    }
    let mut ask = by_id(stage, (20, 6), foreign);
    ask.structs_mut("Topics")[0].set_text("Name", Some("a.own"));
    answer(&mut stage.client("attacker"), 20, 6, &ask);
    assert!(stage.topics().contains(&"v.secret".to_owned()));
    assert_eq!(stage.end("v.secret"), end);
    stage.create(&["a.own"]);
}

fn offset_fetch(id: [u8; 16]) -> StructNode {
    let mut ask = request(9);
    let mut group = ask.element("Groups");
    group.set_text("GroupId", Some("a.group"));
    let mut topic = group.element("Topics");
    topic.set("TopicId", Node::Uuid(id));
    topic.array_mut("PartitionIndexes").push(Node::Int(0));
    group.set("Topics", Node::Structs(Some(vec![topic])));
    ask.structs_mut("Groups").push(group);
    ask
}

/// Every error code in an answer.
fn errors(node: &StructNode) -> Box<dyn Iterator<Item = i64> + '_> {
    let fields = node.layout().fields.iter().enumerate();
    Box::new(
        fields.flat_map(|(at, field)| -> Box<dyn Iterator<Item = i64> + '_> {
            match node.at(at) {
                Some(Node::Int(code)) if field.role == Role::ErrorCode => {
                    Box::new(std::iter::once(*code))
                }
                Some(Node::Structs(Some(all))) => Box::new(all.iter().flat_map(errors)),
                _ => Box::new(std::iter::empty()),
            }
        }),
    )
}

/// Row 2. The connections are open all the time, so that nothing is learned by connecting.
pub fn t02_a_topic_made_anew_is_judged_by_its_new_id(stage: &mut Stage) {
    stage.create(&["v.cycle"]);
    let [mut victim, mut attacker] = ["victim", "attacker"].map(|name| stage.client(name));
    let fetch = |stage: &Stage, id| by_id(stage, (1, 13), id);
    let old = stage.id(Side::Kordon, "v.cycle");
    let mut codes = |stage: &Stage, id| {
        let victims = fetch_code(&victim.call(1, 13, &fetch(stage, id)));
        (
            victims,
            fetch_code(&attacker.call(1, 13, &fetch(stage, id))),
        )
    };
    assert_eq!(codes(stage, old), (0, FORBIDDEN));
    stage.delete("v.cycle");
    let (gone, foreign) = codes(stage, old);
    assert!(gone != 0 && foreign != 0, "{gone} {foreign}");
    stage.create(&["v.cycle"]);
    let new = stage.id(Side::Kordon, "v.cycle");
    assert_ne!(old, new);
    assert_eq!(codes(stage, new), (0, FORBIDDEN));
    let (gone, foreign) = codes(stage, old);
    assert!(gone != 0 && foreign != 0, "{gone} {foreign}");
}

/// Row 2. Offsets of all topics of a group, where the answer names topics by id alone: what was
/// made a moment ago, and not through the proxy, is neither missing nor shown to others.
pub fn t02_offsets_of_a_new_topic_are_its_readers(stage: &mut Stage) {
    let mut attacker = stage.client("attacker");
    for topics in [["a.made", "v.made"], ["a.made2", "v.made2"]] {
        stage.create(&topics);
        let commit = commit("a.group", &topics);
        let mut harness = stage.harness();
        until(|| committed(&harness.call(8, 9, &commit)).then_some(()));
        let mut ask = offset_fetch([0; 16]);
        ask.structs_mut("Groups")[0].set("Topics", Node::Structs(None));
        let ids = |socket: &mut Socket| -> Vec<[u8; 16]> {
            let answer = socket.call(9, 10, &ask);
            let topics = answer.structs("Groups")[0].structs("Topics").iter();
            topics.map(|t| t.uuid("TopicId")).collect()
        };
        let [own, foreign] = topics.map(|topic| stage.id(Side::Kordon, topic));
        let found = ids(&mut stage.direct());
        assert!(found.contains(&own) && found.contains(&foreign));
        let found = ids(&mut attacker);
        assert!(
            found.contains(&own) && !found.contains(&foreign),
            "{found:?}"
        );
    }
}

/// Row 14. The broker creates what it is asked for; the attacker may describe `see.*` only.
pub fn t14_asking_for_a_topic_does_not_make_it(stage: &mut Stage) {
    let ask = |topics: &[String]| {
        let mut ask = metadata(&topics[0]);
        for topic in &topics[1..] {
            let mut element = ask.element("Topics");
            element.set_text("Name", Some(topic));
            ask.structs_mut("Topics").push(element);
        }
        ask.set_int("AllowAutoTopicCreation", 1);
        ask
    };
    let made = |stage: &Stage, name: &str| stage.topics().contains(&name.to_owned());
    stage.direct().call(3, 12, &ask(&["see.direct".to_owned()]));
    until(|| made(stage, "see.direct").then_some(()));
    let mut attacker = stage.client("attacker");
    for version in 0..=13 {
        // One that may not be made keeps all of a request from being made.
        for topics in [
            ["see.new", "v.new"],
            ["see.new", "a.beside"],
            ["v.new", "a.new"],
        ] {
            let topics = topics.map(|name| format!("{name}{version}"));
            let answer = attacker.call(3, version, &ask(&topics));
            assert_eq!(answer.structs("Topics").len(), 2, "{version}");
        }
    }
    // One's own are made, by the last of these requests: the others have had their time.
    until(|| {
        (0..=13)
            .all(|v| made(stage, &format!("a.new{v}")))
            .then_some(())
    });
    let topics = stage.topics();
    let never = ["see.new", "v.new", "a.beside"];
    let foreign = |topic: &&String| never.iter().any(|name| topic.starts_with(name));
    assert_eq!(topics.iter().find(foreign), None);
}

/// A first heartbeat of a streams application (KIP-1071) that reads one topic and keeps its state
/// in another one.
fn streams_heartbeat(group: &str, source: &str, changelog: &str) -> StructNode {
    let mut beat = request(88);
    beat.set_text("GroupId", Some(group))
        .set_text("MemberId", Some("AAAAAAAAAAAAAAAAAAAABA"))
        .set_text("ProcessId", Some("process"))
        .set_int("RebalanceTimeoutMs", 60_000);
    for tasks in ["ActiveTasks", "StandbyTasks", "WarmupTasks"] {
        beat.set(tasks, Node::Structs(Some(Vec::new())));
    }
    let mut topology = beat.element("Topology");
    topology.set_int("Epoch", 1);
    let mut part = topology.element("Subtopologies");
    part.set_text("SubtopologyId", Some("0"));
    part.array_mut("SourceTopics").push(text(source));
    let mut state = part.element("StateChangelogTopics");
    state.set_text("Name", Some(changelog));
    part.structs_mut("StateChangelogTopics").push(state);
    topology.structs_mut("Subtopologies").push(part);
    beat.set("Topology", Node::Struct(Some(Box::new(topology))));
    beat
}

/// Row 14. The broker makes the topics that a streams application lacks, for the proxy's identity.
pub fn t14_a_streams_application_makes_only_what_it_may_create(stage: &mut Stage) {
    let beat = |socket: &mut Socket, group: &str, source: &str, changelog: &str| {
        let ask = streams_heartbeat(group, source, changelog);
        until(|| {
            let code = socket.call(88, 0, &ask).int("ErrorCode");
            (![14, 15, 16].contains(&code)).then_some(code)
        })
    };
    let there = |stage: &Stage, topic: &str| stage.topics().contains(&topic.to_owned());
    let mut direct = stage.direct();
    assert_eq!(beat(&mut direct, "d.streams", "w.seen", "x.direct"), 0);
    until(|| there(stage, "x.direct").then_some(()));

    // Who may see every topic may make none.
    let mut watcher = stage.client("watcher");
    let code = beat(&mut watcher, "w.streams", "w.seen", "x.watcher");
    assert_eq!(code, FORBIDDEN);
    // Those that are there already it may use.
    assert_eq!(beat(&mut watcher, "w.streams", "w.seen", "x.direct"), 0);
    // Who may create makes them.
    let mut attacker = stage.client("attacker");
    assert_eq!(beat(&mut attacker, "a.streams", "a.own", "a.changes"), 0);
    until(|| there(stage, "a.changes").then_some(()));
    assert!(!there(stage, "x.watcher"));
}

/// Row 15. With the proxy's identity the broker tells which topics there are.
pub fn t15_what_is_forbidden_looks_like_what_is_missing(stage: &mut Stage) {
    const THERE: &str = "v.secret";
    const ABSENT: &str = "v.absent";
    assert!(!stage.topics().contains(&ABSENT.to_owned()));
    let same = |socket: &mut dyn FnMut() -> Socket, key: i16, version: i16| {
        let texts = [THERE, ABSENT].map(|topic| {
            let names = Names::of(topic, "a.group", "a.txn");
            let ask = body::request(stage, Side::Kordon, key, version, &names);
            let bytes = answer(&mut socket(), key, version, &ask);
            bytes.map(|b| b.escape_ascii().to_string().replace(topic, "TOPIC"))
        });
        (texts[0] == texts[1], texts)
    };
    for (key, version) in [(1, 12), (2, 7), (3, 9), (23, 4)] {
        let (same, texts) = same(&mut || stage.direct(), key, version);
        assert!(!same, "key {key}: {texts:?}");
    }
    let mut asked = 0;
    for api in clients() {
        let layout = &api.layout().unwrap().request.body;
        for version in [api.versions.min, api.versions.max] {
            // By id, unknown ones are told apart at a broker too.
            let by_id = api.has_topic_ids(version) && api.key != 3;
            if by_id
                || !(body::names(layout, Role::TopicName, version)
                    || matches!(api.key, 32 | 33 | 44))
            {
                continue;
            }
            asked += 1;
            let (same, texts) = same(&mut || stage.client("attacker"), api.key, version);
            assert!(same, "{} {version}: {texts:?}", api.name);
        }
    }
    assert!(asked > 30, "{asked}");
    // What the proxy's identity may do is nobody's business: the bits are the attacker's own.
    let mut ask = metadata("see.there");
    ask.set_int("IncludeTopicAuthorizedOperations", 1);
    let bits = |mut socket: Socket| {
        let answer = socket.call(3, 12, &ask);
        answer.structs("Topics")[0].int("TopicAuthorizedOperations")
    };
    let describe = 1 << 8;
    assert_ne!(bits(stage.direct()), describe);
    assert_eq!(bits(stage.client("attacker")), describe);
}

/// Row 16. Every API at every version, asked by who may do everything.
pub fn t16_no_answer_names_an_address_of_the_brokers(stage: &mut Stage) {
    // Whatever else moves at the broker, it does so for topics of this test only.
    let scan = |stage: &Stage, open: &dyn Fn() -> Socket| {
        let (mut asked, mut telling) = (0, Vec::new());
        for api in clients() {
            let mut socket = open();
            for version in api.versions.min..=api.versions.max {
                for ask in asks(stage, api.key, version) {
                    asked += 1;
                    socket.ask(api.key, version, &encode(api.key, version, &ask));
                    match socket.receive() {
                        Seen::Answer(bytes) if holds(&bytes, BROKERS) => telling.push(api.name),
                        Seen::Answer(_) => {}
                        _ => socket = open(),
                    }
                }
            }
        }
        telling.dedup();
        (asked, telling)
    };
    let (asked, telling) = scan(stage, &|| stage.direct());
    let telling_apis = [
        "Metadata",
        "FindCoordinator",
        "DescribeCluster",
        "DescribeConfigs",
    ];
    let all = telling_apis.iter().all(|api| telling.contains(api));
    assert!(all && asked > 400, "{asked} {telling:?}");
    let (_, telling) = scan(stage, &|| stage.client("admin"));
    assert!(telling.is_empty(), "{telling:?}");
}

/// What may make a broker speak of itself: names, everything, and each kind of thing.
fn asks(stage: &Stage, key: i16, version: i16) -> Vec<StructNode> {
    let kinds: &[i64] = match key {
        10 => &[0, 1, 2],
        32 => &[2, 4, 8, 16, 32],
        _ => &[0],
    };
    let asks = kinds
        .iter()
        .flat_map(|kind| [false, true].map(|all| (*kind, all)));
    asks.map(|(kind, all)| {
        let names = Names {
            kind,
            all,
            ..Names::of("t.scan", "t.group", "t.txn")
        };
        let mut ask = body::request(stage, Side::Kordon, key, version, &names);
        match key {
            // A broker's settings, all of them.
            32 => ask.structs_mut("Resources").iter_mut().for_each(|r| {
                r.set("ConfigurationKeys", Node::Array(None));
            }),
            11 => alone(&mut ask, version),
            // The topic is needed to the end.
            20 => {
                ask.set("Topics", Node::Structs(Some(Vec::new())));
            }
            _ => {}
        }
        if key == 20 && version < 6 {
            ask.array_mut("TopicNames").clear();
        }
        ask
    })
    .collect()
}

/// A group of its own for each version: nobody waits for the members that joined before.
fn alone(join: &mut StructNode, version: i16) {
    let group = format!("{}-{version}", join.text("GroupId").unwrap_or_default());
    join.set_text("GroupId", Some(&group))
        .set_int("SessionTimeoutMs", 1000)
        .set_int("RebalanceTimeoutMs", 1000);
}

/// Row 15. A listing of all topics in pages, however long, ends its pages where it would if hidden
/// topics were not there.
pub fn t15_a_page_does_not_end_with_a_hidden_name(stage: &mut Stage) {
    let (all, hidden) = pages(&mut stage.direct(), &[], 1000);
    assert!(hidden, "{all:?}");
    let names = all.iter().flat_map(|(topics, _)| topics);
    let own = names.map(|(name, _)| name.as_str());
    let own: Vec<&str> = own
        .filter(|name| name.starts_with("a.") || name.starts_with("see."))
        .collect();
    assert!(own.len() > 1, "{all:?}");
    for limit in [1, 2, 3, 1000] {
        let (wanted, _) = pages(&mut stage.direct(), &own, limit);
        let (told, hidden) = pages(&mut stage.client("attacker"), &[], limit);
        assert!(!hidden, "{told:?}");
        assert_eq!(told, wanted, "all, {limit} a page");
        let (told, _) = pages(&mut stage.client("attacker"), &own, limit);
        assert_eq!(told, wanted, "by name, {limit} a page");
    }
}

/// A page: its topics with the number of their partitions, and where the next one begins.
type Page = (Vec<(String, usize)>, Option<(String, i64)>);

/// All pages of a listing, and whether the victim's topic stood in any.
fn pages(socket: &mut Socket, topics: &[&str], limit: i64) -> (Vec<Page>, bool) {
    let (mut pages, mut hidden) = (Vec::new(), false);
    let mut cursor = None;
    for _ in 0..400 {
        let ask = page(topics, limit, cursor.as_ref());
        let (bytes, answer) = both(socket, 75, 0, &ask);
        hidden |= holds(&bytes, "v.secret");
        let told = answer.structs("Topics").iter().map(|topic| {
            let name = topic.text("Name").unwrap_or_default().to_owned();
            (name, topic.structs("Partitions").len())
        });
        cursor = answer.nested("NextCursor").map(|next| {
            let name = next.text("TopicName").unwrap_or_default().to_owned();
            (name, next.int("PartitionIndex"))
        });
        pages.push((told.collect(), cursor.clone()));
        if cursor.is_none() {
            return (pages, hidden);
        }
    }
    panic!("the pages have no end: {pages:?}");
}

/// Asks for a page; of no topics: of all.
fn page(topics: &[&str], limit: i64, cursor: Option<&(String, i64)>) -> StructNode {
    let mut ask = request(75);
    for topic in topics {
        let mut element = ask.element("Topics");
        element.set_text("Name", Some(topic));
        ask.structs_mut("Topics").push(element);
    }
    ask.set_int("ResponsePartitionLimit", limit);
    if let Some((topic, partition)) = cursor {
        let mut from = ask.element("Cursor");
        from.set_text("TopicName", Some(topic))
            .set_int("PartitionIndex", *partition);
        ask.set("Cursor", Node::Struct(Some(Box::new(from))));
    }
    ask
}

/// Row 15. A page may begin at any name; at a hidden one it is what it is at a missing one.
pub fn t15_the_place_of_a_hidden_name_cannot_be_searched(stage: &mut Stage) {
    let mut attacker = stage.client("attacker");
    let mut told = Vec::new();
    for from in [
        ("v.secre", 0),
        ("v.secret", 0),
        ("v.secret", 7),
        ("v.secrex", 7),
    ] {
        let from = (from.0.to_owned(), from.1);
        let mut answer = both(&mut attacker, 75, 0, &page(&[], 1000, Some(&from))).1;
        answer.set_int("ThrottleTimeMs", 0);
        told.push(answer);
    }
    assert!(told[0].structs("Topics").is_empty(), "{told:?}");
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    // A page ends there if the topic is there, but only for who may see it.
    let before = ("p.users".to_owned(), 0);
    let end = |socket: &mut Socket| {
        let answer = both(socket, 75, 0, &page(&[], 1, Some(&before))).1;
        let next = answer
            .nested("NextCursor")
            .and_then(|next| next.text("TopicName"));
        next.map(str::to_owned)
    };
    assert!(end(&mut stage.direct()).is_some_and(|next| &*next < "see."));
    let own = end(&mut attacker);
    assert!(
        own.as_ref().is_none_or(|next| next.starts_with("see.")),
        "{own:?}"
    );
}

/// Row 18. With the proxy's identity the broker lists and describes everybody's.
pub fn t18_lists_and_descriptions_show_ones_own(stage: &mut Stage) {
    const VICTIMS: [&str; 3] = ["v.secret", "v.group", "v.txn"];
    // Nothing of the victim's is named: whatever comes of it, the broker has told.
    let names = Names {
        all: true,
        ..Names::of("a.own", "a.group", "a.txn")
    };
    let mut asks = Vec::new();
    for api in clients().filter(|api| api.key != 20) {
        for version in api.versions.min..=api.versions.max {
            let mut ask = body::request(stage, Side::Kordon, api.key, version, &names);
            if api.key == 11 {
                alone(&mut ask, version);
            }
            asks.push((api, version, ask));
        }
    }
    let tellers = |open: &dyn Fn() -> Socket| {
        let mut found = Vec::new();
        let mut socket = open();
        for (api, version, ask) in &asks {
            socket.ask(api.key, *version, &encode(api.key, *version, ask));
            match socket.receive() {
                Seen::Answer(bytes) if VICTIMS.iter().any(|name| holds(&bytes, name)) => {
                    found.push(api.name);
                }
                Seen::Answer(_) => {}
                _ => socket = open(),
            }
        }
        found.dedup();
        found
    };
    let direct = tellers(&|| stage.direct());
    for api in [
        "Metadata",
        "ListGroups",
        "ListTransactions",
        "DescribeLogDirs",
    ] {
        assert!(direct.contains(&api), "{direct:?}");
    }
    assert_eq!(tellers(&|| stage.client("attacker")), [""; 0]);

    // Named, they look like groups and transactions that are not there.
    for key in [9, 10, 15, 42, 47, 61, 65, 69, 77, 89, 90, 92] {
        let api = apis::lookup(key).unwrap();
        for version in [api.versions.min, api.versions.max] {
            let texts = [("v.group", "v.txn"), ("v.grouq", "v.txm")].map(|(group, transaction)| {
                let mut names = Names::of("v.secret", group, transaction);
                names.kind = i64::from(key == 10 && version % 2 == 1);
                let ask = body::request(stage, Side::Kordon, key, version, &names);
                let bytes = answer(&mut stage.client("attacker"), key, version, &ask);
                let text = bytes.map(|b| b.escape_ascii().to_string());
                text.map(|t| {
                    t.replace(group, "GROUP")
                        .replace(transaction, "TRANSACTION")
                })
            });
            assert_eq!(texts[0], texts[1], "{} {version}", api.name);
            assert!(!texts[0].as_ref().is_some_and(|t| t.contains(SECRET)));
        }
    }
    // Deleted groups and offsets were the attacker's to ask for, not to have.
    let mut ask = request(16);
    ask.array_mut("StatesFilter").clear();
    let groups = stage.harness().call(16, 4, &ask);
    let mut groups = groups.structs("Groups").iter();
    assert!(groups.any(|g| g.text("GroupId") == Some("v.group")));
    let mut write = stage.direct();
    let bytes = batch("still here", Kind::Plain);
    assert_eq!(
        produce_code(&write.call(0, 9, &produce("v.secret", &bytes))),
        0
    );
    let mut find = request(10);
    find.array_mut("CoordinatorKeys").push(text("v.group"));
    let (bytes, found) = both(&mut stage.client("attacker"), 10, 6, &find);
    assert_ne!(found.structs("Coordinators")[0].int("ErrorCode"), 0);
    assert!(!holds(&bytes, BROKERS));
}

/// Row 18. A right on the cluster stands for the same right on every topic and group; on those of
/// other tenants it does not.
pub fn t18_a_right_on_the_cluster_ends_at_the_boundary(stage: &mut Stage) {
    let mut bounded = stage.client("bounded");
    let mut create = request(19);
    for topic in ["b.made", "x.made"] {
        let mut element = create.element("Topics");
        element.set_text("Name", Some(topic));
        element
            .set_int("NumPartitions", 1)
            .set_int("ReplicationFactor", 1);
        create.structs_mut("Topics").push(element);
    }
    create.set_int("timeoutMs", 5000);
    let answer = bounded.call(19, 7, &create);
    let codes = answer.structs("Topics").iter();
    let mut codes: Vec<_> = codes
        .map(|t| (t.text("Name").unwrap(), t.int("ErrorCode")))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [("b.made", 0), ("x.made", FORBIDDEN)]);
    until(|| stage.topics().contains(&"b.made".to_owned()).then_some(()));

    for version in 1..=6 {
        let delete = |name: Option<&str>, id: [u8; 16]| {
            let mut delete = request(20);
            delete.set_int("TimeoutMs", 5000);
            let mut topic = delete.element("Topics");
            topic.set_text("Name", name).set("TopicId", Node::Uuid(id));
            match name {
                Some(name) if version < 6 => delete.array_mut("TopicNames").push(text(name)),
                _ => delete.structs_mut("Topics").push(topic),
            }
            delete
        };
        let mut asks = vec![delete(Some("v.secret"), [0; 16])];
        if version == 6 {
            asks.push(delete(None, stage.id(Side::Kordon, "v.secret")));
        }
        for ask in asks {
            let answer = bounded.call(20, version, &ask);
            let found = &answer.structs("Responses")[0];
            assert_eq!(found.int("ErrorCode"), FORBIDDEN, "{version}");
        }
    }
    let topics = stage.topics();
    assert!(topics.contains(&"v.secret".to_owned()) && !topics.contains(&"x.made".to_owned()));

    let groups = |mut socket: Socket| holds(&both(&mut socket, 16, 4, &request(16)).0, "v.group");
    assert!(groups(stage.direct()) && groups(stage.client("admin")));
    assert!(!groups(stage.client("bounded")));
}
