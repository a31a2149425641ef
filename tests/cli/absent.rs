//! What is not there: the outputs of a step that was skipped or failed, and the message of a condition that holds.

use crate::place::Place;

const LOOKS: &str = r#"runbook: looks
inputs: { thorough: { type: boolean, default: false } }
steps:
  - { id: modules, uses: command, if: "${{ inputs.thorough }}", with: { argv: [echo, seen] } }
  - { id: probe, uses: command, on_failure: continue, with: { argv: ["false"] } }
"#;

fn ran(steps: &str) -> (i32, String) {
    let place = Place::new();
    place.write("looks.yaml", &format!("{LOOKS}{steps}"));
    let ran = place.run(&["exec", "looks.yaml"]);
    (ran.code, ran.err + &ran.out)
}

#[test]
fn a_default_stands_for_the_outputs_of_a_step_that_was_skipped_or_failed() {
    let (code, said) = ran(r#"  - id: told
    uses: assert
    with:
      that: "${{ steps.modules.outputs.stdout | default('none') ~ steps.probe.outputs.stdout | default('!') == 'none!' }}"
"#);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn any_other_use_of_them_fails_and_names_them() {
    for (that, why) in [
        (
            "steps.modules.outputs.stdout != 'x'",
            "`steps.modules.outputs` has no value: `modules` was skipped",
        ),
        ("steps.probe.outputs.stdout == '' or true", "`steps.probe.outputs` has no value: `probe` failed"),
        (
            "steps.probe.outputs.stdout | default('') == '' and steps.probe.outputs.stdout != 1",
            "`steps.probe.outputs` has no value",
        ),
    ] {
        let (code, said) =
            ran(&format!("  - {{ id: told, uses: assert, with: {{ that: \"${{{{ {that} }}}}\" }} }}\n"));
        assert_eq!(code, 4, "{that}: {said}");
        let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(why), "{that}: {said}");
    }
}

#[test]
fn the_message_of_a_condition_speaks_of_what_is_there_only_when_it_does_not_hold() {
    let message = "modules said ${{ steps.modules.outputs.stdout }}";
    let holds = format!(
        "  - id: told
    uses: assert
    with:
      that:
        - {{ that: \"${{{{ steps.modules.status == 'skipped' }}}}\", message: \"{message}\" }}
"
    );
    assert_eq!(ran(&holds).0, 0, "{}", ran(&holds).1);
    let place = Place::new();
    place.write("looks.yaml", &format!("{LOOKS}{holds}"));
    let ran = place.run(&["exec", "looks.yaml", "-i", "thorough=true"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!((ran.err.clone() + &ran.out).contains("modules said seen"), "{}{}", ran.err, ran.out);
}

#[test]
fn a_message_without_a_value_hides_no_condition() {
    let (code, said) = ran(
        "  - { id: told, uses: assert, with: { that: false, message: \"${{ steps.modules.outputs.stdout }}\" } }\n",
    );
    assert_eq!(code, 4, "{said}");
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("a condition does not hold, and its message has no value"), "{said}");
}
