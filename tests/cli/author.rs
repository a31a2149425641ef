//! What an author uses before anything runs: a new runbook, and its picture.

use std::time::Duration;

use expectrl::{Eof, Expect, Session};

use crate::place::Place;

const TEMPLATES: [&str; 5] = ["empty", "clean-up", "purge-documents", "maintenance", "health-check"];

#[test]
fn every_template_gives_a_runbook_that_passes_check_and_can_be_drawn() {
    let place = Place::new();
    let help = place.run(&["new", "--help"]).out;
    for template in TEMPLATES {
        assert!(help.contains(&format!("- {template}:")), "{help}");
        let name = format!("my-{template}");
        let file = format!("{name}.yaml");
        let ran = place.run(&["new", &name, "--template", template]);
        assert_eq!((ran.code, ran.out.trim()), (0, file.as_str()), "{}", ran.err);
        let checked = place.run(&["check", &file]);
        assert!(checked.code == 0 && !checked.err.contains("warning"), "{}", checked.err);
        assert!(place.run(&["graph", &file]).out.contains(&name));
    }
    assert_eq!(help.matches("\n          - ").count(), TEMPLATES.len(), "all of them are tried: {help}");
    assert_eq!(place.run(&["exec", "my-empty.yaml", "-i", "who=you"]).code, 0);
}

#[test]
fn a_new_runbook_overwrites_nothing_and_is_not_written_when_it_is_wrong() {
    let place = Place::new();
    place.write("mine.yaml", "my work");
    let ran = place.run(&["new", "mine", "--template", "empty"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("mine.yaml is there already"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(place.path("mine.yaml")).unwrap(), "my work");
    for (wrong, said) in [
        (&["new", "Not_Kebab", "--template", "empty"][..], "kebab-case"),
        (&["new", "a", "--template", "clean-up", "--set", "phrase= x"], "spaces at its ends"),
        (&["new", "a", "--template", "clean-up", "--set", "fraze=x"], "has no `fraze`"),
        (&["new", "a", "--template", "clean-up", "--set", "phrase"], "has no `=`"),
        (&["new", "a", "--template", "cleanup"], "clean-up"),
        (&["new", "a"], "purge-documents"),
        (&["new", "--template", "empty"], "which name is not said"),
        (&["new", "a", "--template", "empty", "--output", "no/folder.yaml"], "nothing was written"),
    ] {
        let ran = place.run(wrong);
        assert_eq!(ran.code, 2, "{wrong:?}");
        assert!(ran.err.contains(said), "{wrong:?}: {}", ran.err);
    }
    assert!(!place.path("a.yaml").exists() && !place.path("Not_Kebab.yaml").exists());
}

#[test]
fn a_new_runbook_stands_beside_the_others_and_names_the_schema_that_is_there() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("runbooks")).unwrap();
    std::fs::create_dir_all(place.path("schemas")).unwrap();
    place.write("schemas/runbook.schema.json", "{}");
    assert_eq!(place.run(&["new", "a", "--template", "empty"]).out.trim(), "runbooks/a.yaml");
    let text = std::fs::read_to_string(place.path("runbooks/a.yaml")).unwrap();
    assert!(
        text.starts_with("# yaml-language-server: $schema=../schemas/runbook.schema.json\nrunbook: a\n"),
        "{text}"
    );
}

#[test]
fn at_a_terminal_what_is_not_given_is_asked_until_it_is_right() {
    let place = Place::new();
    let open = |args: &[&str]| {
        let mut session = Session::spawn(place.bare(args)).unwrap();
        session.set_expect_timeout(Some(Duration::from_secs(20)));
        session
    };
    let mut session = open(&["new", "--template", "clean-up"]);
    session.expect("Its name").unwrap();
    session.send_line("Wrong_Name").unwrap();
    session.expect("kebab-case: write").unwrap();
    session.send("\u{15}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}right\r").unwrap();
    session.expect("What it is for").unwrap();
    session.send_line("").unwrap();
    session.expect("Which files").unwrap();
    session.send_line("*.gz").unwrap();
    session.expect("The phrase").unwrap();
    session.send_line("GO ON").unwrap();
    session.expect("right.yaml").unwrap();
    session.expect(Eof).unwrap();
    let text = std::fs::read_to_string(place.path("right.yaml")).unwrap();
    assert!(text.contains("pattern: \"*.gz\"") && text.contains("phrases: [GO ON]"), "{text}");

    let mut session = open(&["new", "left", "--template", "clean-up"]);
    session.expect("What it is for").unwrap();
    session.send("\u{3}").unwrap();
    session.expect("nothing was written").unwrap();
    session.expect(Eof).unwrap();
    assert!(!place.path("left.yaml").exists());
}

#[test]
fn a_runbook_with_errors_is_told_and_not_drawn() {
    let place = Place::new();
    place.runbook("wrong", "steps: [{ id: a, uses: comand }]\n");
    for format in ["tree", "mermaid", "dot"] {
        let ran = place.run(&["graph", "wrong.yaml", "--format", format]);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", ran.err);
        assert!(ran.err.contains("did you mean `command`"), "{}", ran.err);
    }
}
