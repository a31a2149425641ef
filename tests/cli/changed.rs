//! Files that changed between the snapshot and the delete: they are left, counted and told; the others go.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::place::{Place, wait_until};

/// How many files there are.
const FILES: usize = 20;

fn name(number: usize) -> String {
    format!("logs/{number:02}.log")
}

/// A place that waits for the answer before it deletes its files in batches of this size.
fn asked(limits: &str, batch_size: u32) -> (Place, String) {
    let place = Place::new();
    fs::create_dir(place.path("logs")).unwrap();
    (0..FILES).for_each(|number| place.write(&name(number), "as it was\n"));
    let report = "finally:\n  - { id: report, uses: report }\n";
    place.runbook("changed", &(place.clean_up(limits, batch_size, "") + report));
    place.expect(5, &["exec", "changed.yaml"]);
    let run = place.newest();
    (place, run)
}

fn left(place: &Place) -> Vec<usize> {
    (0..FILES).filter(|number| place.path(&name(*number)).exists()).collect()
}

fn modified(place: &Place, number: usize) -> SystemTime {
    fs::metadata(place.path(&name(number))).unwrap().modified().unwrap()
}

fn set_modified(place: &Place, number: usize, at: SystemTime) {
    File::options().append(true).open(place.path(&name(number))).unwrap().set_modified(at).unwrap();
}

#[test]
fn what_changed_since_the_snapshot_is_left_and_told_and_the_rest_goes() {
    let (place, run) = asked("", 6);
    // Grown; the same bytes at another time; deleted and made anew; other bytes of the same size and time; no file any more.
    place.write(&name(1), "as it was\nand more\n");
    set_modified(&place, 4, modified(&place, 4) + Duration::from_secs(1));
    fs::remove_file(place.path(&name(9))).unwrap();
    place.write(&name(9), "made anew\n");
    let then = modified(&place, 13);
    place.write(&name(13), "as it is.\n");
    set_modified(&place, 13, then);
    fs::remove_file(place.path(&name(17))).unwrap();
    fs::create_dir(place.path(&name(17))).unwrap();
    // Gone is no change that matters.
    fs::remove_file(place.path(&name(2))).unwrap();

    let changed = [1, 4, 9, 13, 17];
    // What a resume meets is the same.
    for arguments in [&["answer", &run, "DELETE"][..], &["resume", &run]] {
        let ran = place.expect(4, arguments);
        assert_eq!(left(&place), changed, "{}", ran.err);
        assert!(ran.err.contains("5 of 20 keys could not be deleted"), "{}", ran.err);
        assert!(ran.err.contains("`01.log` changed since the snapshot"), "{}", ran.err);
        assert!(ran.err.contains("takes a new snapshot"), "{}", ran.err);
    }
    assert_eq!(place.text(&name(1)), "as it was\nand more\n");
    assert_eq!(place.query("select amount || '' from counters where counter = 'run:errors'"), ["5"]);
    let texts: Vec<String> =
        place.state_files().iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    for number in changed {
        let key = format!("{number:02}.log");
        let listed = format!("\"key\":\"{key}\",\"collection\":\"logs\",\"kind\":\"gate\"");
        assert!(texts.iter().any(|text| text.contains(&listed)), "failures: {key}");
        let reported = format!("- purge: {key} failed: ");
        assert!(texts.iter().any(|text| text.contains(&reported)), "report: {key}");
    }

    // Somebody looks at them and deletes them: the run ends well.
    [1, 4, 9, 13].into_iter().for_each(|number| fs::remove_file(place.path(&name(number))).unwrap());
    fs::remove_dir(place.path(&name(17))).unwrap();
    place.expect(0, &["resume", &run]);
}

#[test]
fn what_changed_counts_as_an_error() {
    let (place, run) = asked("limits: { max_errors: 1 }\n", 5);
    [1, 3].into_iter().for_each(|number| place.write(&name(number), "changed\n"));
    let ran = place.expect(10, &["answer", &run, "DELETE"]);
    assert!(ran.err.contains("2 items failed, and max_errors is 1"), "{}", ran.err);
    assert_eq!(left(&place).len(), FILES - 3, "the second batch was not begun");
}

#[test]
fn a_new_snapshot_takes_what_changed() {
    let (place, run) = asked("", 5);
    place.write(&name(3), "changed\n");
    place.expect(4, &["answer", &run, "DELETE"]);
    assert_eq!(left(&place), [3]);
    place.expect(5, &["exec", "changed.yaml"]);
    place.expect(0, &["answer", &place.newest(), "DELETE"]);
    assert_eq!(left(&place), Vec::<usize>::new());
}

#[test]
fn what_changes_between_a_kill_and_a_resume_is_left() {
    let (place, run) = asked("", 1);
    let started = place.start(&["answer", &run, "DELETE"]);
    wait_until("some are deleted", || left(&place).len() <= FILES - 3);
    started.kill();
    // What was deleted is there again, and the last of what was not is another one.
    let deleted: Vec<_> = (0..FILES).filter(|number| !left(&place).contains(number)).collect();
    assert!(deleted.len() < FILES, "it was killed too late");
    let changed = [deleted, vec![FILES - 1]].concat();
    changed.iter().for_each(|number| place.write(&name(*number), "changed\n"));
    place.expect(4, &["resume", &run]);
    assert_eq!(left(&place), changed);
    assert!(changed.iter().all(|number| place.text(&name(*number)) == "changed\n"));
}
