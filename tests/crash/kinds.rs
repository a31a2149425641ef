//! No step kind is left out of the runbooks that are tried whole, two crashes deep.

use std::fs;
use std::path::Path;

use runbook_steps::catalog::STEPS;

#[test]
fn every_step_kind_is_in_a_runbook_of_the_matrix() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = fs::read_dir(here.join("tests/crash")).unwrap().map(|one| one.unwrap().path());
    let text: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_there = |kind: &str| {
        let word = format!("uses: {kind}");
        text.match_indices(&word).any(|(at, _)| {
            !text[at + word.len()..].starts_with(|next: char| next == '-' || next.is_alphanumeric())
        })
    };
    let missing: Vec<&str> = STEPS.iter().map(|one| one.info.name).filter(|kind| !is_there(kind)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
