//! Who asks, and which links the API gave out.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::crypto;

/// How long a link lasts, in milliseconds.
const LIFETIME_MS: i64 = 24 * 60 * 60 * 1000;

fn sign(secret: &str, message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes()).as_ref().to_vec()
}

/// A JSON Web Token (HS256) that says that its bearer is `subject`.
pub fn token(secret: &str, subject: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed =
        format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(json!({ "sub": subject })));
    let signature = URL_SAFE_NO_PAD.encode(sign(secret, &signed));
    format!("{signed}.{signature}")
}

/// Who bears this token, when it is one of ours and not over.
pub(crate) fn bearer(secret: &str, token: &str) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if !crypto::verify_hmac(secret, signed.as_bytes(), &crypto::hex(&signature)) {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let over = claims["exp"].as_i64().is_some_and(|until| until <= jiff::Timestamp::now().as_second());
    if over { None } else { claims["sub"].as_str().map(str::to_owned) }
}

/// A link to an attachment, and when it ends, in milliseconds since 1970.
pub(super) fn link(secret: &str, id: &str) -> (String, i64) {
    let until = jiff::Timestamp::now().as_millisecond() + LIFETIME_MS;
    let signature = crypto::hex(&sign(secret, &format!("{id}:{until}")));
    (format!("/v1/chat/attachments/{id}/download?exp={until}&sig={signature}"), until)
}

/// Whether the link is one of ours, and not over.
pub(super) fn holds(secret: &str, id: &str, until: i64, signature: &str) -> bool {
    let ours = crypto::verify_hmac(secret, format!("{id}:{until}").as_bytes(), signature);
    ours && until > jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_out_counts() {
        assert_eq!(bearer("s", &token("s", "ada")).as_deref(), Some("ada"));
        assert_eq!(bearer("t", &token("s", "ada")), None);
        assert_eq!(bearer("s", "x"), None);
        let (url, until) = link("s", "id");
        let signature = url.rsplit('=').next().unwrap();
        assert!(holds("s", "id", until, signature) && !holds("s", "id", until + 1, signature));
        assert!(!holds("s", "other", until, signature));
        let past = 1_000;
        assert!(!holds("s", "id", past, &crypto::hex(&sign("s", &format!("id:{past}")))));
    }
}
