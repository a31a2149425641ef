//! Digests, signatures, random secrets and identifiers.

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};

/// The bytes as lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    String::from_utf8(text).unwrap_or_default()
}

/// SHA-256 as 64 lowercase hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Whether `signature` (hexadecimal) is the HMAC-SHA256 of `message` under `key`; compared in constant time.
pub(crate) fn verify_hmac(key: &str, message: &[u8], signature: &str) -> bool {
    let Some(tag) = unhex(signature) else { return false };
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message, &tag).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// `N` random bytes in base64, so that `+`, `/` and `=` can occur.
pub(crate) fn random_base64<const N: usize>() -> String {
    STANDARD.encode(random::<N>())
}

/// The bytes in the form of a lowercase version 4 UUID.
pub(crate) fn uuid_from(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A fresh lowercase version 4 UUID.
pub(crate) fn uuid() -> String {
    uuid_from(random())
}
