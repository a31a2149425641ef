//! A panic says where it happened, with every known secret replaced.

use std::panic;
use std::sync::{Mutex, PoisonError};

use runbook_engine::redact::Redactor;

/// One for each run that this process dealt with.
static REDACTORS: Mutex<Vec<Redactor>> = Mutex::new(Vec::new());

/// From now on the secrets that `redactor` knows are kept out of panic messages.
pub fn protect(redactor: &Redactor) {
    REDACTORS.lock().unwrap_or_else(PoisonError::into_inner).push(redactor.clone());
}

/// The text without the secrets that are known.
pub fn masked(text: &str) -> String {
    known().iter().fold(text.to_owned(), |text, redactor| redactor.text(&text))
}

/// A copy, so that a panic on the way finds them free.
fn known() -> Vec<Redactor> {
    REDACTORS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Replaces the panic hook.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let text = if known().is_empty() {
            // Before the secrets are known, only the place is safe to tell.
            info.location().map_or_else(|| "somewhere".to_owned(), |at| format!("at {at}"))
        } else {
            masked(&info.to_string())
        };
        eprintln!("bug: this program panicked: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    /// Set in the process that panics.
    const PANICS: &str = "RUNBOOK_TEST_PANICS";

    #[test]
    fn a_panic_that_nobody_reads_ends_its_task_and_not_the_process() {
        if std::env::var_os(PANICS).is_some() {
            super::install();
            let ended = std::thread::spawn(|| panic!("on purpose")).join();
            assert!(ended.is_err());
            return;
        }
        let name = "redacted_panic::tests::a_panic_that_nobody_reads_ends_its_task_and_not_the_process";
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(PANICS, "1")
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }

    #[test]
    fn a_panic_says_where_it_happened_and_no_secret() {
        const SECRET: &str = "correct horse battery";
        if std::env::var_os(PANICS).is_some() {
            super::install();
            super::protect(&runbook_engine::redact::Redactor::new([SECRET.to_owned()]));
            let ended = std::thread::spawn(|| panic!("it was {SECRET:?}")).join();
            assert!(ended.is_err());
            return;
        }
        let name = "redacted_panic::tests::a_panic_says_where_it_happened_and_no_secret";
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .unwrap();
        let told = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success() && told.contains("redacted_panic.rs"), "{told}");
        assert!(told.contains("it was \"[REDACTED]\"") && !told.contains(SECRET), "{told}");
    }
}
