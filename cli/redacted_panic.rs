//! A panic says where it happened, with every known secret replaced.

use std::panic;
use std::sync::OnceLock;

use runbook_engine::redact::Redactor;

static REDACTOR: OnceLock<Redactor> = OnceLock::new();

/// From now on the secrets that `redactor` knows are kept out of panic messages.
pub fn protect(redactor: &Redactor) {
    let _ = REDACTOR.set(redactor.clone());
}

/// The text without the secrets that are known.
pub fn masked(text: &str) -> String {
    REDACTOR.get().map_or_else(|| text.to_owned(), |redactor| redactor.text(text))
}

/// Replaces the panic hook.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let text = match REDACTOR.get() {
            Some(redactor) => redactor.text(&info.to_string()),
            // Before the secrets are known, only the place is safe to tell.
            None => info.location().map_or_else(|| "somewhere".to_owned(), |at| format!("at {at}")),
        };
        eprintln!("bug: this program panicked: {text}");
    }));
}
