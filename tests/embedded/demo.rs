//! The tour passes with the proxy and cannot pass without it.

use std::any::Any;

use kordon::demo::run_with;
use kordon::demo::tour::STEPS;
use kordon::problem::Problems;

#[test]
fn the_tour_passes_with_the_proxy() {
    let mut out = Vec::new();
    let code = run_with(kordon::cli::run::start_for_demo, true, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches('✓').count(), STEPS, "{text}");
    assert!(!text.contains('\u{1b}'), "no colour off a terminal: {text}");
    for rule in [
        "deny policies/corallum.yaml:",
        "schema policies/",
        "quota policies/",
    ] {
        assert!(text.contains(rule), "{rule} is missing in {text}");
    }
}

#[test]
fn without_a_proxy_every_step_is_reported_as_failed() {
    let mut out = Vec::new();
    let nothing = |_: &std::path::Path| -> Result<Box<dyn Any>, Problems> { Ok(Box::new(())) };
    assert_eq!(run_with(nothing, true, &mut out), 1);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('✗').count(), STEPS, "{text}");
    assert!(text.contains("0 of 11 steps behaved"), "{text}");
    assert!(text.contains("step `forged token`: expected"), "{text}");
}

#[test]
fn a_proxy_that_does_not_start_is_said() {
    let mut out = Vec::new();
    let refuses = |_: &std::path::Path| -> Result<Box<dyn Any>, Problems> {
        let mut problems = Problems::default();
        problems.error_without_place("port taken");
        Err(problems)
    };
    assert_eq!(run_with(refuses, true, &mut out), 1);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "error: the proxy does not start: port taken\n");
}
