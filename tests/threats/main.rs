//! The list of threats, row by row: each is an attack on a real broker, which works there with the
//! proxy's identity where that can be shown, and does nothing through Kordon.
//!
//! `cargo test --test threats` runs every test; words select those whose names begin so (`t08`).
//! What each row of the list has for a test stands in `tests/threats.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../lab/mod.rs"]
mod lab;

#[allow(dead_code)]
#[path = "../surface/asks.rs"]
mod asks;
#[allow(dead_code)]
#[path = "../surface/body.rs"]
mod body;
#[allow(dead_code)]
#[path = "../it/support/signer.rs"]
mod signer;
#[allow(dead_code)]
#[path = "../surface/socket.rs"]
mod socket;
#[allow(dead_code)]
#[path = "../surface/tally.rs"]
mod tally;

mod around;
mod hidden;
mod leaders;
mod protocol;
mod reading;
mod stage;
mod writing;

use lab::part;
use stage::Stage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;
use tally::Tally;

type Test = fn(&mut Stage);

/// The tests, in the order of their numbers.
macro_rules! tests {
    ($($file:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), $file::$name)),*]
    };
}
const TESTS: &[(&str, Test)] = tests![
    hidden::t01_a_foreign_topic_id_opens_nothing,
    hidden::t02_a_topic_made_anew_is_judged_by_its_new_id,
    hidden::t02_offsets_of_a_new_topic_are_its_readers,
    protocol::t03_keys_that_nobody_knows_end_the_connection,
    protocol::t04_versions_that_are_not_offered_end_the_connection,
    protocol::t05_nothing_passes_before_a_good_token,
    protocol::t06_a_second_token_makes_nobody_somebody_else,
    protocol::t06_nothing_of_an_earlier_token_goes_on,
    protocol::t07_a_long_poll_ends_with_its_token,
    reading::t08_a_fetch_session_is_its_owners,
    reading::t08_a_right_that_is_gone_is_gone_from_open_sessions,
    reading::t08_a_share_session_delivers_what_one_may_read,
    reading::t08_a_share_session_of_two_delivers_to_each_what_one_may_read,
    reading::t09_an_idle_consumer_waits,
    protocol::t10_nobody_is_a_replica,
    protocol::t11_apis_of_brokers_are_not_for_clients,
    protocol::t12_no_envelope_says_who_somebody_is,
    protocol::t13_no_client_id_opens_internal_topics,
    hidden::t14_asking_for_a_topic_does_not_make_it,
    hidden::t14_a_streams_application_makes_only_what_it_may_create,
    hidden::t15_what_is_forbidden_looks_like_what_is_missing,
    hidden::t15_a_page_does_not_end_with_a_hidden_name,
    hidden::t15_the_place_of_a_hidden_name_cannot_be_searched,
    hidden::t16_no_answer_names_an_address_of_the_brokers,
    leaders::t17_a_new_leader_is_told_by_the_listeners_address,
    hidden::t18_lists_and_descriptions_show_ones_own,
    hidden::t18_a_right_on_the_cluster_ends_at_the_boundary,
    reading::t19_a_group_is_joined_by_its_exact_name,
    reading::t20_a_regular_expression_needs_every_topic,
    writing::t21_transactions_of_others_are_theirs,
    writing::t21_a_batch_that_is_cut_off_hides_no_transaction,
    writing::t22_no_client_writes_control_batches_or_markers,
    writing::t23_bombs_wrong_codecs_and_old_formats_are_refused,
    writing::t24_a_batch_is_what_its_header_says_and_arrives_unchanged,
    writing::t25_an_id_in_front_of_other_bytes_is_refused,
    writing::t26_null_and_empty_values_are_refused_where_the_policy_says_so,
    writing::t27_a_schema_id_in_a_header_is_refused,
    writing::t30_refused_without_acknowledgement_ends_the_connection,
    around::t31_a_star_in_a_principal_opens_nothing,
    writing::t34_a_quota_follows_the_principal,
    around::t35_the_broker_lets_only_the_sidecar_in,
    around::t37_the_admin_endpoint_shows_no_secret_and_changes_nothing,
    around::t37_the_chart_shares_nothing_with_the_app,
    protocol::t38_hostile_lengths_take_no_memory,
    protocol::t38_what_is_refused_at_length_takes_neither_time_nor_memory,
    writing::t39_bytes_of_one_topic_are_refused_on_another,
    around::t40_no_delegation_token_is_made_or_shown,
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| !w.starts_with('-'))
        .collect();
    if std::env::args().any(|w| w == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.starts_with(w));
    if !TESTS.iter().any(|(name, _)| wanted(name)) {
        println!("threats: no test's name begins with {words:?}: none is run");
        return ExitCode::SUCCESS;
    }
    let mut tally = Tally::default();
    part::set_up();
    if let Err(reason) = part::ready("kafka-4.3.0") {
        tally.skip("everything", &reason);
        return tally.exit();
    }
    let from = Instant::now();
    let mut stage = match catch_unwind(Stage::start) {
        Ok(Ok(stage)) => stage,
        Ok(Err(why)) => {
            tally.fail("set-up", why);
            return tally.exit();
        }
        Err(_) => {
            tally.fail("set-up", "see the message above".to_owned());
            return tally.exit();
        }
    };
    println!("threats: set up in {} s", from.elapsed().as_secs());
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let from = Instant::now();
        // The message of a panic has been printed when it comes here.
        match catch_unwind(AssertUnwindSafe(|| test(&mut stage))) {
            Ok(()) => tally.pass(),
            Err(_) => tally.fail(name, "see the message above".to_owned()),
        }
        println!("threats: {name} took {} ms", from.elapsed().as_millis());
    }
    let alive = stage.kordon.runs();
    tally.check("process", alive, || stage.kordon.log(40));
    tally.exit()
}
