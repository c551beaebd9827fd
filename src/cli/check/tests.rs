//! What people and programs are told, and that the shipped policies are sound.

use std::fs;

use tempfile::TempDir;

use super::*;

fn printed(files: &[(&str, &str)], format: Format) -> (String, u8) {
    let dir = TempDir::new().unwrap();
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let mut out = Vec::new();
    let code = run(&paths, format, false, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    (
        shown.replace(&dir.path().display().to_string(), "DIR"),
        code,
    )
}

const POLICY: &str = "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: a}\n\
    spec: {principals: [\"User:a\"], rules: [{allow: [Read], topics: [t]}]}\n";

#[test]
fn a_mistake_is_shown_with_its_line_a_caret_and_a_way_out() {
    let (shown, code) = printed(
        &[("a.yaml", &POLICY.replace("topics", "topcs"))],
        Format::Text,
    );
    assert_eq!(
        shown,
        "DIR/a.yaml:4:56: unknown key `topcs`\n \
         4 | spec: {principals: [\"User:a\"], rules: [{allow: [Read], topcs: [t]}]}\n   \
         |                                                        ^\n  \
         help: did you mean `topics`?\n\
         1 file checked: 1 error, 0 warnings\n"
    );
    assert_eq!(code, 1);
}

/// The last line of a policy and what is said about it, without the count.
fn said(last: &str) -> String {
    let head = "apiVersion: kordon/v1\nkind: AccessPolicy\nmetadata: {name: a}\n";
    let (shown, code) = printed(&[("a.yaml", &format!("{head}{last}\n"))], Format::Text);
    assert_eq!(code, 1);
    let (said, _) = shown.rsplit_once("1 file checked").unwrap();
    said.to_owned()
}

#[test]
fn a_tab_a_wrong_type_and_a_bad_pattern_are_shown_as_people_see_them() {
    assert_eq!(
        said("spec:\n\tprincipals: [\"User:a\"]"),
        "DIR/a.yaml:5:1: not YAML: tabs disallowed within this context (block indentation)
 5 |  principals: [\"User:a\"]
   | ^
  help: indent with spaces
"
    );
    assert_eq!(
        said("spec:\tnone"),
        "DIR/a.yaml:4:6: not YAML: ':' must be followed by a valid YAML whitespace
 4 | spec: none
   |      ^
  help: this is a tab; write a space
"
    );
    assert_eq!(
        said("spec: {principals: \"User:a\", rules: [{allow: [Read], topics: [5]}]}"),
        "DIR/a.yaml:4:20: expected a list, got `User:a`
 4 | spec: {principals: \"User:a\", rules: [{allow: [Read], topics: [5]}]}
   |                    ^
  help: write `[User:a]`
DIR/a.yaml:4:63: expected text, got the number `5`
 4 | spec: {principals: \"User:a\", rules: [{allow: [Read], topics: [5]}]}
   |                                                               ^
  help: write it in quotes: \"5\"
"
    );
    assert_eq!(
        said("spec: {principals: [\"User:a\"], rules: [{allow: [Read], topics: [\"a*b\"]}]}"),
        "DIR/a.yaml:4:65: a star may only stand at the end, got `a*b`
 4 | spec: {principals: [\"User:a\"], rules: [{allow: [Read], topics: [\"a*b\"]}]}
   |                                                                 ^
  help: such a name is `{literal: \"a*\"}` or `{prefix: \"a*\"}`
"
    );
}

#[test]
fn nothing_wrong_is_said_in_one_line() {
    let (shown, code) = printed(&[("a.yaml", POLICY)], Format::Text);
    assert_eq!(
        (shown.as_str(), code),
        ("1 file checked, nothing wrong\n", 0)
    );
}

#[test]
fn programs_get_json() {
    let (shown, code) = printed(&[("a.yaml", &POLICY.replace("Read", "Raed"))], Format::Json);
    let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (json["ok"].as_bool(), json["errors"].as_u64(), code),
        (Some(false), Some(1), 1)
    );
    let problem = &json["problems"][0];
    assert_eq!(problem["line"], 4);
    assert_eq!(problem["message"], "unknown operation `Raed`");
    assert_eq!(problem["help"], "did you mean `Read`?");
}

#[test]
fn warnings_fail_only_when_strict() {
    let dir = TempDir::new().unwrap();
    let text = POLICY
        .replace("topics: [t]", "groups: [t]")
        .replace("Read", "Write");
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    let report = check(&[dir.path().to_owned()]);
    assert_eq!((report.exit_code(false), report.exit_code(true)), (0, 1));
}

#[test]
fn a_rule_beyond_the_boundary_of_its_tenant_is_told_where_the_boundary_is_in_force() {
    let policy = POLICY.replace("User:a", "Tenant:shop");
    let tenant = "apiVersion: kordon/v1\nkind: Tenant\nmetadata: {name: shop}\n\
        spec: {boundary: {topics: [\"orders.*\"]}}\n";
    let observing = tenant.replace("spec: {", "spec: {mode: observe, ");
    let said = "DIR/a.yaml:4:1: warning: allows nothing: all of it is outside of `shop`'s \
        boundary, DIR/a.yaml:9 [out-of-bounds]";
    for (tenant, told) in [(tenant, true), (&observing, false)] {
        let both = format!("{policy}---\n{tenant}");
        let (shown, code) = printed(&[("a.yaml", &both)], Format::Text);
        assert_eq!((shown.contains(said), code), (told, 0), "{shown}");
        let wrong = shown.contains("nothing wrong");
        assert_eq!(wrong, !told, "{shown}");
    }
}

#[test]
fn a_configuration_is_checked_with_its_policies_and_each_problem_once() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(
        dir.path().join("policies/a.yaml"),
        POLICY.replace("[t]", "[5]"),
    )
    .unwrap();
    let config = dir.path().join("kordon.yaml");
    fs::write(
        &config,
        "listeners: []\npolicies: policies\nupstream: {bootstrap: [k:1]}",
    )
    .unwrap();
    let report = check(&[config, dir.path().join("policies")]);
    let messages: Vec<&str> = report
        .problems
        .list
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    let empty = "expected at least one item, got an empty list";
    assert_eq!(messages, [empty, "expected text, got the number `5`"]);
}

#[test]
fn what_is_not_there_is_an_error_and_no_path_is_wrong_use() {
    let report = check(&["/nonexistent".into()]);
    assert_eq!(
        report.problems.list[0].message,
        "`/nonexistent`: no such file or directory"
    );
    assert_eq!(run(&[], Format::Text, false, &mut Vec::new()).unwrap(), 2);
    let empty = TempDir::new().unwrap();
    assert!(check(&[empty.path().to_owned()]).problems.has_errors());
}

#[test]
fn terminals_are_not_spoken_to_and_long_lines_are_cut_around_the_caret() {
    assert_eq!(printable("a\u{1b}[2J\tb\u{202e}"), "a\u{fffd}[2J b\u{fffd}");
    let (shown, caret) = window(&format!("{}X{}", "a".repeat(500), "b".repeat(500)), 501);
    assert_eq!((shown.chars().count(), caret), (120, 60));
    assert_eq!(shown.chars().nth(caret), Some('X'));
    assert_eq!(window("ab", 9), ("ab".to_owned(), 2));
}

#[test]
fn the_sample_policies_are_sound() {
    let report = check(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")]);
    assert!(
        report.problems.list.is_empty(),
        "{:#?}",
        report.problems.list
    );
    assert!(report.files >= 5);
}

/// Tests held against the sample policies: what is said of those that fail, and the exit code.
fn tested(path: PathBuf) -> (String, u8) {
    let options = crate::cli::test::Options {
        paths: vec![path],
        policies: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")),
        schemas: None,
        config: None,
        format: Format::Text,
    };
    let mut out = Vec::new();
    let code = crate::cli::test::run(&options, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let failed = out.lines().filter(|l| !l.ends_with("all as expected"));
    (failed.collect(), code)
}

#[test]
fn the_sample_policies_do_what_their_tests_say() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    assert_eq!(tested(samples.clone()), (String::new(), 0));
    // Each sample with rules has its tests beside it.
    let files = [
        "access/corallum",
        "access/pipeline",
        "access/platform",
        "schemas",
        "topics",
    ];
    for name in files {
        assert!(
            samples.join(format!("{name}.test.yaml")).is_file(),
            "{name}"
        );
    }
}

#[test]
fn every_example_of_the_policy_reference_is_sound() {
    let text = include_str!("../../../policies/README.md");
    let mut problems = Problems::default();
    let dir = TempDir::new().unwrap();
    let mut paths = Vec::new();
    let mut tests = 0;
    for (number, block) in text.split("```yaml\n").skip(1).enumerate() {
        let block = block.split("```").next().unwrap();
        if block.starts_with("tests:") {
            let path = dir.path().join(format!("{number}.test.yaml"));
            fs::write(&path, block).unwrap();
            assert_eq!(tested(path), (String::new(), 0));
            tests += 1;
            continue;
        }
        let path = dir.path().join(format!("{number}.yaml"));
        fs::write(&path, block).unwrap();
        paths.push(path);
    }
    assert_eq!(tests, 1);
    let guards = guards::load_files(dir.path(), &paths, &mut problems);
    assert!(problems.list.is_empty(), "{problems:#?}");
    let (access, other) = (
        guards.access.len(),
        guards.quotas.len() + guards.schemas.len() + guards.tenants.len() + guards.topics.len(),
    );
    let observing = guards.observing.access.len();
    assert_eq!((access, other, observing, paths.len()), (3, 4, 1, 8));
}

#[cfg(unix)]
#[test]
fn what_comes_through_a_pipe_is_checked_and_not_taken_for_empty() {
    use std::os::fd::AsRawFd;
    let config = "listeners: []\nupstream: {bootstrap: [k:1]}\nauthorization: off\n";
    for (text, wrong) in [
        (POLICY.replace("Read", "Raed"), "unknown operation `Raed`"),
        (config.to_owned(), "expected at least one item"),
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let report = check(&[path]);
        let messages: Vec<&str> = (report.problems.list.iter())
            .map(|p| p.message.as_str())
            .collect();
        assert!(
            messages.iter().any(|m| m.starts_with(wrong)),
            "{messages:?}"
        );
    }
}

#[test]
fn files_that_are_named_one_by_one_are_one_set() {
    let twice = [("a.yaml", POLICY), ("b.yaml", POLICY)];
    let (shown, code) = printed(&twice, Format::Text);
    assert_eq!(code, 1);
    assert!(
        shown.contains("DIR/b.yaml:3:18: a second AccessPolicy with the name `a`"),
        "{shown}"
    );
    let other = POLICY.replace("name: a", "name: b");
    let (shown, _) = printed(&[("a.yaml", POLICY), ("b.yaml", &other)], Format::Text);
    assert!(shown.contains("[duplicate]"), "{shown}");
}

#[test]
fn a_file_of_tests_is_checked_as_one() {
    let test = "tests: [{name: t, as: {principal: \"User:a\"}, cases: [{can: Raed, topic: t}]}]\n";
    let (shown, code) = printed(&[("a.test.yaml", test)], Format::Text);
    assert_eq!(code, 1, "{shown}");
    assert!(
        shown.starts_with("DIR/a.test.yaml:1:60: unknown operation `Raed`\n"),
        "{shown}"
    );
    let right = test.replace("Raed", "Read");
    let (shown, code) = printed(&[("p.yaml", POLICY), ("a.test.yaml", &right)], Format::Text);
    assert_eq!((&*shown, code), ("2 files checked, nothing wrong\n", 0));
    // Under a name that makes it a policy it is one mistake, with a way out.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a_test.yaml"), &right).unwrap();
    let report = check(&[dir.path().to_owned()]);
    let [problem] = &report.problems.list[..] else {
        panic!("{report:?}")
    };
    assert_eq!(problem.message, "tests of policies, and no policy");
}

#[test]
fn a_file_without_anything_in_it_is_told() {
    for text in ["", "# later\n", "---\n---\n"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("a.yaml"), text).unwrap();
        let report = check(&[dir.path().to_owned()]);
        let messages: Vec<_> = report.problems.list.iter().map(|p| &*p.message).collect();
        assert_eq!(messages, ["nothing in this file"], "{text:?}");
        assert_eq!((report.exit_code(false), report.exit_code(true)), (0, 1));
    }
}

#[cfg(unix)]
#[test]
fn nothing_of_a_directory_is_left_out_silently_nor_waited_for() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a.yaml"), POLICY).unwrap();
    fs::write(path("b.YAML"), POLICY).unwrap();
    fs::write(path("notes.txt"), "not ours").unwrap();
    std::os::unix::fs::symlink("nowhere", path("more")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(path("c.yaml"))
        .status();
    assert!(made.unwrap().success());
    let report = check(&[dir.path().to_owned()]);
    let shown = dir.path().display().to_string();
    let mut messages: Vec<String> = (report.problems.list.iter())
        .map(|p| p.message.replace(&shown, "DIR"))
        .collect();
    messages.sort();
    assert_eq!(
        messages,
        [
            "`DIR/b.YAML`: policy files end in `.yaml`",
            "`DIR/c.yaml`: not a file",
            "`DIR/more`: no such file or directory",
        ]
    );
}

#[test]
fn the_way_out_that_is_shown_is_one() {
    let head = "spec: {principals: [\"User:a\"], rules: [{allow: [Read], ";
    let list = said(&format!("{head}topics: \"*\"}}]}}"));
    assert!(list.contains("help: write `[\"*\"]`"), "{list}");
    let list = said(&format!("{head}topics: orders}}]}}"));
    assert!(list.contains("help: write `[orders]`"), "{list}");
    let text = said(&format!("{head}cluster: \"true\"}}]}}"));
    assert!(
        text.contains("expected `true` or `false`, got the text `\"true\"`"),
        "{text}"
    );
    let block = "spec:\n  principals: [\"User:a\"]\n  rules:\n    - allow: [Read]\n      \
        topics:\n        - |\n          orders";
    let block = said(block);
    assert!(
        block.contains("help: a block (`|`, `>`) ends with"),
        "{block}"
    );
}
