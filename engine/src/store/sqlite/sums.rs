//! Checksums of rows. SQLite itself has none: a bit that flips on the disk inside a text or a number makes another text or number,
//! which would be put back as an original value, or run as a statement.

use sha2::{Digest as _, Sha256};

use super::read::corrupt;
use crate::store::StoreError;

/// How many bytes of the digest are kept: no chance finds the same again, and nobody who may write to the file is kept from it.
const BYTES: usize = 8;

/// The checksum of these texts in this order, 16 hex digits.
pub fn sum(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        // With its length, so that no text can begin in another one.
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.finalize()[..BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails when a row does not say what was written. A row of a program that kept no sums is taken as it is.
pub fn check(run: &str, what: &str, kept: Option<&str>, texts: &[&str]) -> Result<(), StoreError> {
    match kept {
        Some(kept) if kept != sum(texts) => Err(corrupt(
            run,
            format!(
                "{what} does not match its checksum: the file was damaged, or changed by another program"
            ),
        )),
        _ => Ok(()),
    }
}

/// What the sum of a settled batch is made of, beside its cursor and its outcome.
pub fn numbers(done: i64, already: i64, failed: i64) -> String {
    format!("{done} {already} {failed}")
}
