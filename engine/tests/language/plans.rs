//! What a plan freezes.

use proptest::prelude::*;
use runbook_engine::compile::compile;
use runbook_engine::inputs::{Given, resolve_inputs};
use runbook_engine::kinds::{Class, Effect};
use runbook_engine::plan::{OnFailure, Plan, SecretSource};
use serde_json::json;

use crate::catalog::CATALOG;

const TEXT: &str = r#"
runbook: reset
description: Clears.
inputs:
  size: { type: integer, default: 100, maximum: 1000 }
  most: { type: integer, default: 5 }
  zone: { type: string, default: a }
  hold: { type: duration, default: 90s }
  names: { type: list, default: [blobs] }
  effect: { type: string, default: read }
secrets: { key: { env: KEY }, other: { file: /run/key } }
connections:
  store: { type: fountainstore, url: "http://${{ inputs.zone }}.example", api_key: "${{ secrets.key }}" }
collections:
  blobs: { type: fountainstore-documents, connection: store, corpus: "${{ inputs.zone }}", collection: b, key: id }
limits: { max_items: "${{ inputs.most * 2 }}" }
lock: "reset-${{ inputs.zone }}"
steps:
  - { id: z, uses: command, needs: [], with: { argv: [date], effect: { class: "${{ inputs.effect }}" } }, waive: { RB0502: none, RB0501: none } }
  - { id: save, name: "Save ${{ inputs.zone }}", uses: snapshot, needs: [], with: { collection: blobs, page_size: "${{ inputs.size }}" }, timeout: "${{ inputs.hold }}" }
  - { id: confirm, uses: confirm-prompt, with: { message: "Delete ${{ steps.save.outputs.count }}?", phrases: [DELETE] } }
  - id: purge
    uses: delete-batch
    if: "${{ steps.save.outputs.count > 0 }}"
    needs: [confirm, save]
    with: { collections: "${{ inputs.names }}", keys: "${{ steps.save.outputs.manifest }}", batch_size: "${{ inputs.size }}" }
    waive: { RB0501: "the name is an input" }
    retry: { max_attempts: 4 }
    on_failure: continue
finally:
  - { id: tell, uses: command, with: { argv: [echo, "${{ steps.purge.status }}", "${{ run.id }}", "${{ secrets }}x"] } }
"#;

fn text() -> String {
    TEXT.replace(", \"${{ secrets }}x\"", "")
}

fn plan(given: &[(&str, &str)]) -> Result<Plan, Vec<String>> {
    let text = text();
    let (runbook, problems) = compile(&text, &CATALOG);
    let runbook = runbook.unwrap_or_else(|| panic!("{problems:#?}"));
    let given: Vec<_> =
        given.iter().map(|(name, value)| ((*name).to_owned(), Given::Text((*value).to_owned()))).collect();
    let inputs = resolve_inputs(&runbook, &given).unwrap();
    runbook.plan(inputs, &CATALOG).map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| format!("{} {:?} {}", problem.code, &text[problem.span], problem.message))
            .collect()
    })
}

#[test]
fn what_depends_on_inputs_is_resolved_and_the_rest_is_kept() {
    let plan = plan(&[("zone", "eu")]).unwrap();
    assert_eq!(plan.lock.as_deref(), Some("reset-eu"));
    assert_eq!(plan.limits.max_items, Some(10));
    assert_eq!(plan.max_parallel, 8);
    assert_eq!(plan.secrets["key"], SecretSource::Env("KEY".to_owned()));
    assert_eq!(plan.definition.len(), 64);
    assert_eq!(
        plan.connections["store"],
        json!({"type": "fountainstore", "url": "http://eu.example", "api_key": "${{ secrets.key }}"})
    );
    assert_eq!(plan.collections["blobs"]["corpus"], "eu");
    let order: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(order, ["z", "save", "confirm", "purge"]);
    let save = plan.step("save").unwrap();
    assert_eq!(save.name.as_deref(), Some("Save eu"));
    assert_eq!(save.with["page_size"], 100);
    assert_eq!(save.timeout.unwrap().as_millis(), 90_000);
    let purge = plan.step("purge").unwrap();
    assert_eq!(
        purge.with,
        json!({"collections": ["blobs"], "keys": "${{ steps.save.outputs.manifest }}", "batch_size": 100})
    );
    assert_eq!(purge.condition.as_deref(), Some("steps.save.outputs.count > 0"));
    assert_eq!(purge.needs, ["confirm", "save"]);
    assert_eq!(purge.effect, Effect::DESTROY);
    assert_eq!(purge.retry.max_attempts, 4);
    assert_eq!(purge.waived["RB0501"], "the name is an input");
    assert_eq!(purge.on_failure, OnFailure::Continue);
    assert_eq!(plan.step("confirm").unwrap().needs, ["save"]);
    assert_eq!(plan.step("z").unwrap().effect.class, Class::Read);
    assert_eq!(plan.finally[0].with["argv"][1], "${{ steps.purge.status }}");
}

#[test]
fn inputs_that_lead_to_wrong_settings_are_refused() {
    let problems = plan(&[("most", "-3"), ("names", "[]")]).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("max_items"), "{problems:#?}");
}

#[test]
fn the_settings_of_a_step_that_the_inputs_skip_need_not_make_sense() {
    let text = |condition: &str| {
        format!(
            r#"
runbook: maybe
inputs: {{ items: {{ type: integer, default: -1, description: How many. }} }}
steps: [{{ id: a, uses: command, if: "${{{{ {condition} }}}}", with: {{ effect: {{ class: read, items: "${{{{ inputs.items }}}}" }} }} }}]
"#
        )
    };
    let plan = |condition: &str| {
        let (runbook, problems) = compile(&text(condition), &CATALOG);
        let runbook = runbook.unwrap_or_else(|| panic!("{problems:#?}"));
        runbook.plan(resolve_inputs(&runbook, &[]).unwrap(), &CATALOG)
    };
    assert_eq!(plan("inputs.items >= 0").unwrap().steps[0].with["effect"]["items"], "${{ inputs.items }}");
    assert_eq!(plan("inputs.items < 0").unwrap_err()[0].code, "RB0402");
}

#[test]
fn inputs_cannot_bring_in_expressions() {
    let problems = plan(&[("zone", "${{ secrets.key }}")]).unwrap_err();
    assert!(problems.iter().all(|problem| problem.starts_with("RB0313")), "{problems:#?}");
    assert!(!problems.is_empty());
}

#[test]
fn an_input_cannot_turn_a_harmless_step_into_one_that_destroys_unasked() {
    let text = text().replace(", waive: { RB0502: none, RB0501: none }", "");
    let (runbook, _) = compile(&text, &CATALOG);
    let runbook = runbook.unwrap();
    let inputs =
        resolve_inputs(&runbook, &[("effect".to_owned(), Given::Text("destroy".to_owned()))]).unwrap();
    let codes: Vec<_> =
        runbook.plan(inputs, &CATALOG).unwrap_err().into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["RB0501", "RB0502"]);
}

#[test]
fn whole_roots_are_refused() {
    let (runbook, problems) = compile(TEXT, &CATALOG);
    assert!(runbook.is_none());
    assert!(problems.iter().any(|problem| problem.message == "`secrets` alone is no value"), "{problems:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A runbook with one part replaced by anything is checked without a panic, and every place is in the text.
    #[test]
    fn no_text_panics(at in 0..TEXT.len(), len in 0_usize..40, piece in r#"([a-z&*!<>|\-?:,#\[\]{}'" \n]|\$\{\{|\}\}|steps\.|\PC){0,12}"#) {
        let floor = |mut at: usize| { at = at.min(TEXT.len()); while !TEXT.is_char_boundary(at) { at -= 1; } at };
        let text = format!("{}{piece}{}", &TEXT[..floor(at)], &TEXT[floor(at + len)..]);
        let (runbook, problems) = compile(&text, &CATALOG);
        for problem in &problems {
            prop_assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        }
        if let Some(runbook) = runbook
            && let Ok(inputs) = resolve_inputs(&runbook, &[])
        {
            let _ = runbook.plan(inputs, &CATALOG);
        }
    }

    /// The order of a plan respects needs, and is the order of the file where they allow it.
    #[test]
    fn plans_are_in_order(needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12)) {
        let mut text = String::from("runbook: a\nsteps:\n");
        for (at, needs) in needs.iter().enumerate().rev() {
            let needs: Vec<String> = needs.iter().filter(|_| at > 0).map(|need| format!("s{}", need.index(at.max(1)))).collect();
            text += &format!("  - {{ id: s{at}, uses: command, needs: [{}], with: {{ argv: [x] }} }}\n", needs.join(", "));
        }
        let (runbook, problems) = compile(&text, &CATALOG);
        prop_assert!(problems.is_empty(), "{problems:?}");
        let plan = runbook.unwrap().plan(serde_json::Map::new(), &CATALOG).unwrap();
        prop_assert_eq!(plan.steps.len(), needs.len());
        for (at, step) in plan.steps.iter().enumerate() {
            prop_assert!(step.needs.iter().all(|need| plan.steps[..at].iter().any(|earlier| earlier.id == *need)));
            // Nothing that stands above it in the file could have run at this point instead.
            let number = |id: &str| id[1..].parse::<usize>().unwrap();
            let ready = plan.steps[at..].iter().filter(|later| later.needs.iter().all(|need| plan.steps[..at].iter().any(|earlier| earlier.id == *need)));
            prop_assert!(ready.map(|later| number(&later.id)).max() == Some(number(&step.id)));
        }
    }
}
