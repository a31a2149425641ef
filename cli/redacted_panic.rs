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
    let redactors = REDACTORS.lock().unwrap_or_else(PoisonError::into_inner);
    redactors.iter().fold(text.to_owned(), |text, redactor| redactor.text(&text))
}

fn any_known() -> bool {
    !REDACTORS.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// Replaces the panic hook.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let text = if any_known() {
            masked(&info.to_string())
        } else {
            // Before the secrets are known, only the place is safe to tell.
            info.location().map_or_else(|| "somewhere".to_owned(), |at| format!("at {at}"))
        };
        eprintln!("bug: this program panicked: {text}");
    }));
}
