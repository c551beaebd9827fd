//! A worked example, vectors made with Kafka's own
//! classes, the precedence ladder rung by rung, and the bounds of the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spec::{QuotaEntity, QuotaName, QuotaSpec};
use super::*;

fn rule(line: u32) -> RuleRef {
    RuleRef {
        file: "quotas.yaml".into(),
        line,
    }
}

fn name(text: &str) -> Option<QuotaName> {
    match text {
        "" => None,
        "*" => Some(QuotaName::Default),
        exact => Some(QuotaName::Exact(exact.to_owned())),
    }
}

/// A quota for (tenant, user, client id); "" is not mentioned, "*" the default.
fn quota(line: u32, (tenant, user, client_id): (&str, &str, &str), limit: u64) -> QuotaSpec {
    QuotaSpec {
        name: format!("quota-{line}"),
        rule: rule(line),
        entity: QuotaEntity {
            tenant: name(tenant),
            user: name(user),
            client_id: name(client_id),
        },
        produce_bytes_per_second: Some(limit),
    }
}

fn who<'a>(user: &'a str, client_id: &'a str) -> Charged<'a> {
    Charged {
        tenant: "",
        user,
        client_id: Some(client_id),
    }
}

/// The rule that a huge charge trips over.
fn tripped(quotas: &Quotas, who: &Charged<'_>) -> Option<u32> {
    let delay = quotas.charge_produce(who, 1 << 40, Instant::now());
    delay.rule.map(|rule| rule.line)
}

#[test]
fn worked_example_gives_2100_ms() {
    // Given 500 B/s and 400 B in each of ten seconds
    let quotas = Quotas::new(vec![quota(1, ("", "bob", ""), 500)]);
    let start = Instant::now();
    for second in 0..10 {
        let at = start + Duration::from_secs(second);
        assert_eq!(quotas.charge_produce(&who("bob", "c"), 400, at).ms, 0);
    }
    // When 2300 B follow half a second into the next one
    let at = start + Duration::from_millis(10_500);
    let delay = quotas.charge_produce(&who("bob", "c"), 2300, at);
    // Then
    assert_eq!(
        delay,
        Delay {
            ms: 2100,
            rule: Some(rule(1))
        }
    );
}

#[test]
fn every_throttle_time_is_the_one_kafka_computes() {
    let start = Instant::now();
    let mut quotas = Quotas::default();
    let mut compared = 0;
    for line in include_str!("kafka-4.3.0-rates.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(limit) = line.strip_prefix("limit ") {
            quotas = Quotas::new(vec![quota(1, ("", "u", ""), limit.parse().unwrap())]);
            continue;
        }
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let at = start + Duration::from_millis(numbers[0]);
        let delay = quotas.charge_produce(&who("u", ""), numbers[1], at);
        assert_eq!(u64::from(delay.ms), numbers[2], "{line}");
        compared += 1;
    }
    assert_eq!(compared, 720);
}

#[test]
fn exactly_the_limit_is_no_violation() {
    // Given a rate taken over ten seconds at first
    let quotas = Quotas::new(vec![quota(1, ("", "bob", ""), 100)]);
    let now = Instant::now();
    assert_eq!(quotas.charge_produce(&who("bob", ""), 1000, now).ms, 0);
    assert_eq!(quotas.charge_produce(&who("bob", ""), 1, now).ms, 10);
}

#[test]
fn first_rung_of_the_ladder_that_has_a_quota_decides() {
    let rungs = [
        ("", "bob", "app"),
        ("", "bob", "*"),
        ("", "bob", ""),
        ("", "*", "app"),
        ("", "*", "*"),
        ("", "*", ""),
        ("", "", "app"),
        ("", "", "*"),
    ];
    for first in 0..rungs.len() {
        let specs = (first..rungs.len())
            // larger limits on the upper rungs: precedence is not about size
            .map(|i| quota(i as u32 + 1, rungs[i], 1000 - i as u64))
            .collect();
        let quotas = Quotas::new(specs);
        assert_eq!(tripped(&quotas, &who("bob", "app")), Some(first as u32 + 1));
    }
}

#[test]
fn other_names_fall_through_to_the_defaults() {
    let quotas = Quotas::new(vec![
        quota(1, ("", "bob", "app"), 1),
        quota(2, ("", "bob", ""), 1),
        quota(3, ("", "*", "app"), 1),
        quota(4, ("", "", "*"), 1),
    ]);
    assert_eq!(tripped(&quotas, &who("bob", "app")), Some(1));
    assert_eq!(tripped(&quotas, &who("bob", "x")), Some(2));
    assert_eq!(tripped(&quotas, &who("eve", "app")), Some(3));
    assert_eq!(tripped(&quotas, &who("eve", "x")), Some(4));
    let quotas = Quotas::new(vec![quota(1, ("", "bob", ""), 1)]);
    assert!(quotas.bucket_for(&who("eve", "app")).is_none());
    assert_eq!(
        quotas
            .charge_produce(&who("eve", "app"), u64::MAX, Instant::now())
            .ms,
        0
    );
    assert_eq!(quotas.buckets(), 0);
}

/// Whether a charge by one is felt by the other.
fn share(quotas: &Quotas, one: Charged<'_>, other: Charged<'_>) -> bool {
    let now = Instant::now();
    quotas.charge_produce(&one, 1 << 30, now);
    quotas.charge_produce(&other, 0, now).ms > 0
}

#[test]
fn default_entity_gives_each_its_own_bucket() {
    let user = || Quotas::new(vec![quota(1, ("", "*", ""), 10)]);
    assert!(!share(&user(), who("a", "c"), who("b", "c")));
    assert!(share(&user(), who("a", "c"), who("a", "d")));

    let client = || Quotas::new(vec![quota(1, ("", "", "*"), 10)]);
    assert!(
        share(&client(), who("a", "c"), who("b", "c")),
        "shared by all users"
    );
    assert!(!share(&client(), who("a", "c"), who("a", "d")));

    let both = || Quotas::new(vec![quota(1, ("", "*", "*"), 10)]);
    assert!(!share(&both(), who("a", "c"), who("b", "c")));
    assert!(!share(&both(), who("a", "c"), who("a", "d")));
    assert!(share(&both(), who("a", "c"), who("a", "c")));

    let tenant = || Quotas::new(vec![quota(1, ("*", "", ""), 10)]);
    let of = |tenant, user| Charged {
        tenant,
        user,
        client_id: None,
    };
    assert!(!share(&tenant(), of("shop", "a"), of("bank", "a")));
    assert!(share(&tenant(), of("shop", "a"), of("shop", "b")));
}

/// Threat 34: in Kafka an empty client id matches no client quota at all.
#[test]
fn t34_empty_client_id_does_not_escape() {
    let quotas = Quotas::new(vec![
        quota(1, ("", "bob", "*"), 1000),
        quota(2, ("", "", "*"), 500),
    ]);
    assert_eq!(tripped(&quotas, &who("bob", "")), Some(1));
    assert_eq!(tripped(&quotas, &who("eve", "")), Some(2));
    let nameless = Charged {
        client_id: None,
        ..who("eve", "")
    };
    assert!(
        share(&quotas, who("eve", ""), nameless),
        "null and empty are one client"
    );
}

#[test]
fn tenant_is_charged_beside_and_the_larger_delay_wins() {
    // Given a tenant whose limit is tighter than the user's
    let quotas = Quotas::new(vec![
        quota(1, ("shop", "", ""), 100),
        quota(2, ("", "bob", ""), 1000),
    ]);
    let bob = Charged {
        tenant: "shop",
        user: "bob",
        client_id: None,
    };
    let now = Instant::now();
    assert_eq!(
        quotas.charge_produce(&bob, 20_000, now),
        Delay {
            ms: 190_000,
            rule: Some(rule(1))
        }
    );
    // Then another of the tenant pays, too, and one of no tenant does not
    let amy = Charged { user: "amy", ..bob };
    assert_eq!(quotas.charge_produce(&amy, 0, now).ms, 190_000);
    let stranger = Charged { tenant: "", ..amy };
    assert_eq!(quotas.charge_produce(&stranger, 1 << 40, now).ms, 0);
}

#[test]
fn smaller_of_two_limits_for_one_entity_counts() {
    let quotas = Quotas::new(vec![
        quota(1, ("", "bob", ""), 500),
        quota(2, ("", "bob", ""), 100),
        quota(3, ("", "bob", ""), 900),
    ]);
    assert_eq!(tripped(&quotas, &who("bob", "")), Some(2));
}

#[test]
fn limits_without_produce_do_not_stand_on_the_ladder() {
    let mut silent = quota(1, ("", "bob", "app"), 0);
    silent.produce_bytes_per_second = None;
    let quotas = Quotas::new(vec![silent.clone(), quota(2, ("", "bob", ""), 1)]);
    assert_eq!(tripped(&quotas, &who("bob", "app")), Some(2));
    assert!(Quotas::new(vec![silent]).is_empty());
}

#[test]
fn extreme_numbers_stay_in_range() {
    let quotas = Quotas::new(vec![quota(1, ("", "*", ""), 0)]);
    let now = Instant::now();
    assert_eq!(quotas.charge_produce(&who("a", ""), 0, now).ms, 0);
    assert_eq!(
        quotas.charge_produce(&who("a", ""), 1, now).ms,
        i32::MAX as u32
    );
    assert_eq!(
        quotas.charge_produce(&who("a", ""), u64::MAX, now).ms,
        i32::MAX as u32
    );
    // time that runs backwards between threads
    let quotas = Quotas::new(vec![quota(1, ("", "*", ""), 10)]);
    quotas.charge_produce(&who("a", ""), 1, now + Duration::from_secs(5));
    quotas.charge_produce(&who("a", ""), 1, now);
    quotas.charge_produce(&who("a", ""), 1, now + Duration::from_secs(1 << 40));
}

#[test]
fn reload_keeps_what_was_charged() {
    let quotas = Quotas::new(vec![quota(1, ("", "bob", ""), 1 << 40)]);
    let now = Instant::now();
    assert_eq!(quotas.charge_produce(&who("bob", ""), 20_000, now).ms, 0);
    let tighter = quotas.reloaded(vec![quota(7, ("", "bob", ""), 1000)]);
    let delay = tighter.charge_produce(&who("bob", ""), 0, now);
    assert_eq!(
        delay,
        Delay {
            ms: 10_000,
            rule: Some(rule(7))
        }
    );
}

#[test]
fn threads_lose_no_byte() {
    let quotas = Arc::new(Quotas::new(vec![quota(1, ("", "bob", ""), 100)]));
    let now = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let buckets = quotas.bucket_for(&who("bob", "c")).unwrap();
                for _ in 0..1000 {
                    buckets.charge(5, now);
                }
            });
        }
    });
    // 20 000 B over 10 s at 100 B/s
    assert_eq!(quotas.charge_produce(&who("bob", "d"), 0, now).ms, 190_000);
}

#[test]
fn table_is_bounded_and_held_buckets_outlive_idle_ones() {
    let quotas = Quotas::new(vec![quota(1, ("", "", "*"), 1000)]);
    let now = Instant::now();
    // Given a connection that holds its bucket and has long been idle
    let held = quotas.bucket_for(&who("u", "held")).unwrap();
    held.charge(1_000_000, now);
    // When more client ids come by than there is room for
    for i in 0..BUCKETS_MAX + 10 {
        let at = now + Duration::from_millis(i as u64 / 10);
        quotas.charge_produce(&who("u", &format!("c{i}")), 20_000, at);
        assert!(quotas.buckets() <= BUCKETS_MAX);
    }
    // Then the held one is still the one that others find, the oldest other is forgotten,
    // and the newest is not
    let later = now + Duration::from_secs(4);
    assert!(quotas.charge_produce(&who("u", "held"), 0, later).ms > 0);
    assert_eq!(quotas.charge_produce(&who("u", "c0"), 0, later).ms, 0);
    let newest = format!("c{}", BUCKETS_MAX + 9);
    assert!(quotas.charge_produce(&who("u", &newest), 0, later).ms > 0);
}

#[test]
fn long_names_do_not_fill_the_memory() {
    let quotas = Quotas::new(vec![quota(1, ("", "", "*"), 10)]);
    let one = "x".repeat(30_000) + "1";
    let other = "x".repeat(30_000) + "2";
    assert!(share(&quotas, who("a", &one), who("a", &other)));
    assert_eq!(quotas.buckets(), 1);
}
