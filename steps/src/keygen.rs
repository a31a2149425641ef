//! Step kind `keygen`: a new key pair of Ed25519.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::sha256;
use crate::kind::{Context, End, Step, would};
use crate::new_secret::{is_free, learn, write_once};

/// Makes a key pair of Ed25519 and writes the private key, PKCS#8 in PEM as `openssl genpkey -algorithm Ed25519` does, to a file that nobody but its owner
/// may read. It is never written over what is there, and the key is in no output, log or report: of the pair, only the fingerprint of the public
/// key is told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keygen {
    /// The file, absolute. Its folder has to be there.
    pub path: PathBuf,
    /// How the key is written. Default `pem`.
    #[serde(default)]
    pub encoding: Encoding,
}

/// How a private key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// PEM.
    #[default]
    Pem,
    /// PEM, and that in Base64 in one line: for programs that take a key from a variable of their environment.
    Base64Pem,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file with the private key.
    pub path: PathBuf,
    /// How it is written there.
    pub encoding: Encoding,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo, DER), 64 hex digits: what `openssl pkey -pubout -outform DER | sha256sum` says.
    pub fingerprint: String,
}

#[async_trait]
impl Step for Keygen {
    const NAME: &'static str = "keygen";
    const SUMMARY: &'static str =
        "Make a key pair of Ed25519 in a file of its own, and never over what is there";
    const EXAMPLE: &'static str = "\
id: badge_key
uses: keygen
with:
  path: /etc/hub/badge-key
  encoding: base64-pem
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        is_free(&self.path).await?;
        Ok(would(format!("make a key of Ed25519 and write it to {}", self.path.display())))
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let outputs = |text: &str| {
            let pem = pem(text, self.encoding)?;
            // Written in Base64, the key itself is another text.
            learn(cx, &pem);
            let fingerprint = fingerprint(&pem)?;
            Some(Outputs { path: self.path.clone(), encoding: self.encoding, fingerprint })
        };
        write_once(cx, &self.path, || make(&self.path, self.encoding), outputs).await.map(End::Done)
    }
}

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What stands before the 32 bytes of a public key of Ed25519 in DER: RFC 8410, section 4.
const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn make(path: &Path, encoding: Encoding) -> Result<String, StepError> {
    let failed = |_| StepError::new(ErrorKind::Bug, format!("no key could be made for {}", path.display()));
    // Version 1 of PKCS#8, which holds the private key alone: not every program reads the other one.
    let key = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(failed)?;
    // 48 bytes are one line of 64 characters.
    let pem = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(key.as_ref()));
    Ok(match encoding {
        Encoding::Pem => pem,
        Encoding::Base64Pem => format!("{}\n", STANDARD.encode(pem)),
    })
}

/// The PEM that a text in this encoding stands for.
fn pem(text: &str, encoding: Encoding) -> Option<String> {
    match encoding {
        Encoding::Pem => Some(text.to_owned()),
        Encoding::Base64Pem => String::from_utf8(STANDARD.decode(text.trim_end()).ok()?).ok(),
    }
}

/// The fingerprint of the public key that belongs to a private one in PEM; nothing when the text is none.
fn fingerprint(pem: &str) -> Option<String> {
    let body = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let der = STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()?;
    Some(sha256(&[&PUBLIC[..], pair.public_key().as_ref()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_a_key_known_elsewhere() {
        // RFC 8410, section 10.3.
        let key = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        let text = format!("{BEGIN}\n{key}\n{END}\n");
        let public = STANDARD.decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        assert_eq!(fingerprint(&text), Some(sha256(&public)));
        assert_eq!(pem(&STANDARD.encode(&text), Encoding::Base64Pem), Some(text.clone()));
        assert_eq!((fingerprint(key), pem(&text, Encoding::Base64Pem)), (None, None));
    }
}
