//! The servers started by hand, and the help.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::client::SANDBOX;

#[test]
fn a_server_ends_when_its_standard_input_does() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["store", "--port", "0", "--db", "s.db"][..], &["gateway", "--port", "0"][..]] {
        let mut child = Command::new(SANDBOX)
            .args(arguments)
            .current_dir(dir.path())
            .env("FOUNTAINSTORE_API_KEY", "key")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} must run as long as its input is open");
        drop(child.stdin.take());
        let asked = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(asked.elapsed() < Duration::from_secs(5), "{arguments:?} still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_server_without_its_key_says_what_is_missing() {
    let output = Command::new(SANDBOX)
        .args(["gateway", "--port", "0"])
        .env_remove("FOUNTAINSTORE_API_KEY")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "sandbox: FOUNTAINSTORE_API_KEY is not set\n");
}

#[test]
fn every_subcommand_has_help() {
    let help = |arguments: &[&str]| {
        let output = Command::new(SANDBOX).args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let overview = help(&[]);
    for name in ["chatkit", "store", "gateway", "restart"] {
        assert!(overview.contains(name), "{overview}");
        assert!(help(&[name]).len() > 200, "{name}");
    }
}

#[test]
fn images_have_rows_and_files_but_for_those_that_are_lost() {
    let script = "psql -XtA --dbname=\"$DATABASE_URL\" -c 'select count(*) from images'; cat \"$RUNBOOK_INPUTS\"; exit 4";
    let arguments = ["images", "--images", "5", "--lost", "2", "--", "sh", "-c", script];
    let output = Command::new(SANDBOX).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("5\n") && said.contains("bucket: real-staging"), "{said}");
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}
