//! The blast radius, over a directory of files: asked before the batch that would cross it, kept across crashes and resumes.

use std::time::Duration;

use crate::place::{Place, Ran, Started, asks, reads, wait_until};

/// How many files there are, of ten bytes each.
const FILES: usize = 60;

/// A place whose runbook deletes all files within these limits: `of_run` of the run, `of_step` of the step.
fn place(of_run: &str, of_step: &str, batch_size: u32) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    (0..FILES).for_each(|number| place.write(&format!("logs/{number:04}.log"), "ten bytes\n"));
    let of_run = if of_run.is_empty() { String::new() } else { format!("limits: {{ {of_run} }}\n") };
    let of_step = if of_step.is_empty() { String::new() } else { format!("    limits: {{ {of_step} }}\n") };
    place.runbook("limits", &place.clean_up(&of_run, batch_size, &of_step));
    place
}

/// Each limit of the run, then the same of the step.
fn both(limit: &str) -> [(String, String); 2] {
    [(limit.to_owned(), String::new()), ("max_errors: 0".to_owned(), limit.to_owned())]
}

fn left(place: &Place) -> usize {
    std::fs::read_dir(place.path("logs")).unwrap().count()
}

/// Runs until the files are to be deleted, and lets a person agree.
fn agreed(place: &Place) -> String {
    place.expect(5, &["exec", "limits.yaml"]);
    place.newest()
}

/// A limit stopped it after so many files: also when it is resumed, and resumed again.
fn stopped_at(place: &Place, deleted: usize, said: &str) {
    let run = agreed(place);
    let mut ran: Ran = place.expect(10, &["answer", &run, "DELETE"]);
    for _ in 0..2 {
        assert_eq!(FILES - left(place), deleted, "{}", ran.err);
        assert!(ran.err.contains(said) && ran.err.contains("the batch was not begun"), "{}", ran.err);
        assert!(ran.err.contains("raise it in") && !ran.err.contains("  runbook resume"), "{}", ran.err);
        ran = place.expect(10, &["resume", &run]);
    }
}

#[test]
fn max_items_of_the_run_and_of_a_step() {
    for (of_run, of_step) in both("max_items: 25") {
        // Batches of 10: the third would cross it.
        stopped_at(&place(&of_run, &of_step, 10), 20, "10 more items would cross the limit of 25");
    }
}

#[test]
fn max_percent_of_what_was_there_first() {
    for (of_run, of_step) in both("max_percent: 50") {
        stopped_at(&place(&of_run, &of_step, 8), 24, "limit of 30 (max_percent 50 of 60)");
    }
    // Small sets are not rounded down to nothing.
    for (of_run, of_step) in both("max_percent: 1") {
        stopped_at(&place(&of_run, &of_step, 1), 1, "limit of 1 (max_percent 1 of 60)");
    }
    for (of_run, of_step) in both("max_percent: 0") {
        stopped_at(&place(&of_run, &of_step, 1), 0, "limit of 0 (max_percent 0 of 60)");
    }
}

#[test]
fn max_percent_of_the_run_is_of_what_its_first_step_found() {
    let place = place("max_percent: 50", "", 10);
    let text = place.text("limits.yaml");
    // The first half goes, the limit stops the rest; and then a second step has a try at what is left.
    let (begin, steps) = text.split_once("steps:\n").unwrap();
    let (asks, purge) = steps.split_once("  - id: purge\n").unwrap();
    let again = format!("{asks}  - id: purge\n{purge}")
        .replace("  - id: ", "  - id: again_")
        .replace("steps.snapshot", "steps.again_snapshot");
    let first = format!("  - id: purge\n    on_failure: continue\n{purge}");
    place.write("limits.yaml", &format!("{begin}steps:\n{asks}{first}{again}"));
    let run = agreed(&place);
    place.expect(5, &["answer", &run, "DELETE"]);
    assert_eq!(left(&place), FILES / 2);
    for _ in 0..2 {
        let ran = place.run(&["answer", &run, "DELETE"]);
        assert_eq!(left(&place), FILES / 2, "{}", ran.err);
    }
    let ran = place.expect(10, &["resume", &run]);
    assert!(ran.err.contains("max_percent 50 of the 60 that there were first"), "{}", ran.err);
    assert_eq!(left(&place), FILES / 2);
}

#[test]
fn a_plan_sees_that_two_steps_together_take_more_than_their_share() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    (0..20).for_each(|number| place.write(&format!("logs/{number:02}.log"), "x"));
    let purge = |id: &str, of: &str| {
        format!(
            "  - id: {id}\n    uses: delete-batch\n    waive: {{ RB0501: the keys are those of a part of it }}\n    \
             with: {{ collections: logs, keys: \"${{{{ steps.{of}.outputs.manifest }}}}\" }}\n"
        )
    };
    let collection = |name: &str, pattern: &str| {
        format!("  {name}: {{ type: files, connection: here, pattern: \"{pattern}\" }}\n")
    };
    place.runbook(
        "two",
        &[
            format!(
                "connections:\n  here: {{ type: directory, path: \"{}\" }}\ncollections:\n",
                place.path("logs").display()
            ),
            collection("logs", "*.log"),
            collection("ones", "0*.log"),
            collection("tens", "1*.log"),
            "limits: { max_percent: 60 }\nsteps:\n".to_owned(),
            "  - { id: ones, uses: snapshot, with: { collection: ones } }\n".to_owned(),
            "  - { id: tens, uses: snapshot, with: { collection: tens } }\n".to_owned(),
            asks("sure", "DELETE"),
            purge("purge_ones", "ones"),
            purge("purge_tens", "tens"),
        ]
        .concat(),
    );
    let ran = place.expect(4, &["plan", "two.yaml"]);
    let said = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("10 items, after 10 of the steps before it"), "{}{}", ran.out, ran.err);
    assert!(said.contains("max_percent 60 of the 20 that there were first"), "{}", ran.out);
}

#[test]
fn max_bytes_of_the_run_and_of_a_step() {
    for (of_run, of_step) in both("max_bytes: 250") {
        stopped_at(&place(&of_run, &of_step, 10), 20, "100 more bytes would cross the limit of 250");
    }
}

#[test]
fn max_errors_of_the_run_and_of_a_step() {
    for (of_run, of_step) in [("max_errors: 2", ""), ("", "max_errors: 2")] {
        let place = place(of_run, of_step, 10);
        let run = agreed(&place);
        // Folders in the place of files can not be deleted: two in the first batch, two in the second.
        for number in [3, 7, 11, 15] {
            let path = place.path(&format!("logs/{number:04}.log"));
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }
        let mut ran = place.expect(10, &["answer", &run, "DELETE"]);
        // What failed is counted on: a resume does not begin the third batch either, which nothing would keep from being deleted.
        for _ in 0..2 {
            assert!(ran.err.contains("4 items failed, and max_errors is 2"), "{}", ran.err);
            assert_eq!(left(&place), FILES - 20 + 4, "the third batch was not begun");
            ran = place.expect(10, &["resume", &run]);
        }
        assert_eq!(place.query("select amount || '' from counters where counter = 'run:errors'"), ["4"]);
    }
}

/// Starts deleting one by one, and kills it on the way; how many are deleted then.
fn killed_on_the_way(place: &Place, run: &str) -> usize {
    let started: Started = place.start(&["answer", run, "DELETE"]);
    wait_until("some are deleted", || left(place) <= FILES - 5);
    started.kill();
    FILES - left(place)
}

#[test]
fn a_kill_and_a_resume_do_not_widen_a_limit() {
    for (limits, most) in [("max_items: 40", 40), ("max_percent: 50", 30), ("max_bytes: 350", 35)] {
        let place = place(limits, "", 1);
        let run = agreed(&place);
        let before = killed_on_the_way(&place, &run);
        assert!(before < most, "{limits}: it was killed too late, after {before}");
        place.expect(10, &["resume", &run]);
        assert_eq!(FILES - left(&place), most, "{limits}");
        place.expect(10, &["resume", &run]);
        assert_eq!(FILES - left(&place), most, "{limits}");
    }
}

#[test]
fn max_duration_of_the_run_and_of_a_step_goes_on_through_a_kill() {
    for of_run in [true, false] {
        let place = Place::new();
        let limit = "limits: { max_duration: 3s }\n";
        let nap = reads("nap", "echo x >> naps; exec sleep 20");
        let (of_run, of_step) =
            if of_run { (limit.to_owned(), String::new()) } else { (String::new(), format!("    {limit}")) };
        place.runbook("limits", &format!("{of_run}steps:\n{nap}{of_step}{}", reads("after", "touch after")));
        let begun = std::time::Instant::now();
        let started = place.start(&["exec", "limits.yaml"]);
        wait_until("it naps", || !place.text("naps").is_empty());
        std::thread::sleep(Duration::from_millis(1500));
        started.kill();
        let ran = place.expect(10, &["resume"]);
        assert!(ran.err.contains("max_duration"), "{}", ran.err);
        // The time before the kill counts: a limit that began anew would let it nap to 4.5 seconds and more.
        let took = begun.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_millis(4300)).contains(&took), "{took:?}");
        // It is over for every later resume as well.
        let naps = place.text("naps");
        let ran = place.expect(10, &["resume"]);
        assert!(ran.err.contains("max_duration"), "{}", ran.err);
        assert_eq!(place.text("naps"), naps, "it naps no more");
        assert!(!place.path("after").exists());
    }
}
