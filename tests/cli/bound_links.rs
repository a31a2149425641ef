//! Symbolic links that take the place of what a plan saw, between the plan and the step.

use std::fs;
use std::os::unix::fs::symlink;

use crate::place::Place;

#[test]
fn a_folder_that_became_a_link_leads_to_no_file_of_another_one() {
    let place = Place::new();
    for folder in ["t/a/x", "t/b/x", "t/backup"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    place.write("t/a/x/1.log", "one");
    place.write("t/b/x/2.log", "two");
    place.write("t/backup/1.log", "one");
    // The same down to its time.
    let time = fs::metadata(place.path("t/a/x/1.log")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(place.path("t/backup/1.log")).unwrap().set_modified(time).unwrap();
    place.runbook(
        "it",
        &format!(
            "connections: {{ disk: {{ type: directory, path: \"{}\" }} }}\n\
             collections: {{ old: {{ type: files, connection: disk, pattern: \"*/x/*.log\" }} }}\nlimits: {{ max_items: 10 }}\nsteps:\n\
             \x20 - {{ id: before, uses: snapshot, with: {{ collection: old }} }}\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n\
             \x20 - {{ id: clear, uses: delete-batch, with: {{ collections: old, keys: \"${{{{ steps.before.outputs.manifest }}}}\" }} }}\n\
             \x20 - {{ id: left, uses: count, with: {{ collections: old, expect: 0 }} }}\n",
            place.path("t").display()
        ),
    );
    for planned in [true, false] {
        place.write("t/b/x/2.log", "two");
        let exec: &[&str] = if planned { &["exec", "--plan", "plan.json"] } else { &["exec", "it.yaml"] };
        if planned {
            place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]);
        }
        place.expect(5, exec);
        fs::rename(place.path("t/a/x"), place.path("t/a/was")).unwrap();
        symlink("../backup", place.path("t/a/x")).unwrap();
        let ran = place.run(&["answer", &place.newest(), "YES"]);
        assert_ne!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("symbolic link"), "{}", ran.err);
        assert_eq!(place.text("t/backup/1.log"), "one");
        assert_eq!(place.text("t/a/was/1.log"), "one");
        fs::remove_file(place.path("t/a/x")).unwrap();
        fs::rename(place.path("t/a/was"), place.path("t/a/x")).unwrap();
    }
}

#[test]
fn an_env_file_that_became_a_link_is_not_frozen() {
    let place = Place::new();
    fs::create_dir(place.path("staging")).unwrap();
    fs::create_dir(place.path("production")).unwrap();
    let before = "MODE=rw\nWHO=production\n";
    place.write("production/app.env", before);
    place.runbook(
        "it",
        &format!(
            "steps:\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n\
             \x20 - {{ id: hold, uses: freeze, with: {{ env_file: {{ path: \"{}\", variable: MODE, value: ro }} }} }}\n\
             \x20 - {{ id: lift, uses: unfreeze, with: {{ freeze: hold }} }}\n",
            place.path("staging/app.env").display()
        ),
    );
    place.write("staging/app.env", "MODE=rw\n");
    place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    fs::remove_file(place.path("staging/app.env")).unwrap();
    symlink("../production/app.env", place.path("staging/app.env")).unwrap();
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("target: env_file:") && ran.err.contains("nothing was frozen"), "{}", ran.err);
    assert_eq!(place.text("production/app.env"), before);
    // Another value is drift as well, and the one that was planned is not.
    for (now, code) in [("MODE=other\n", 9), ("MODE=rw\n", 0)] {
        fs::remove_file(place.path("staging/app.env")).unwrap();
        place.write("staging/app.env", "MODE=rw\n");
        place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]);
        place.expect(5, &["exec", "--plan", "plan.json"]);
        place.write("staging/app.env", now);
        place.expect(code, &["answer", &place.newest(), "YES"]);
        assert_eq!(place.text("staging/app.env"), now);
    }
}
