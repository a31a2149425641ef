//! The key that badges are signed with.

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// A key of Ed25519.
pub(crate) struct Key {
    pair: Ed25519KeyPair,
    /// Whether it was made by this process and is lost with it.
    pub(super) ephemeral: bool,
}

impl Key {
    /// The key of the variable: Base64 of PKCS#8 in PEM, and nothing else. Of another form, or without one, a key is made, and why is said.
    pub(super) fn load(variable: Option<&str>) -> Result<(Self, Option<String>)> {
        let why = match variable.filter(|text| !text.is_empty()) {
            None => "it is not set".to_owned(),
            Some(text) => match read(text) {
                Ok(pair) => return Ok((Self { pair, ephemeral: false }, None)),
                Err(error) => format!("{error:#}"),
            },
        };
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no key could be made"))?;
        Ok((Self { pair, ephemeral: true }, Some(why)))
    }

    /// The public key as a JSON Web Key.
    pub(super) fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref()) })
    }

    /// A new key, as the variable holds one.
    pub(crate) fn drawn() -> Result<String> {
        let key = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let key = key.map_err(|_| anyhow!("no key could be made"))?;
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key));
        Ok(STANDARD.encode(pem))
    }

    /// The signature of a text, Base64.
    pub(super) fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }

    /// Whether this key signed a text so.
    pub(super) fn signed(&self, text: &str, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref());
        STANDARD.decode(signature).is_ok_and(|signature| key.verify(text.as_bytes(), &signature).is_ok())
    }
}

fn read(text: &str) -> Result<Ed25519KeyPair> {
    let pem = String::from_utf8(STANDARD.decode(text.trim()).context("it is no Base64")?)
        .context("it is no PEM in Base64")?;
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PRIVATE KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
        .context("it is no PEM in Base64")?;
    let der = STANDARD.decode(body.split_whitespace().collect::<String>()).context("its PEM is damaged")?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
        .map_err(|error| anyhow!("it is no key of Ed25519: {error}"))
}
