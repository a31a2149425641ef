//! Step kind `generate-secret`: random bytes in a file of their own.

use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{hex, sha256};
use crate::kind::{Context, End, Step, would};
use crate::new_secret::{self, is_free, write_once};

/// Draws random bytes from the operating system and writes them, as a text in one line, to a file that nobody but its owner may read. It is never
/// written over what is there, and the secret is in no output, log or report. A step that needs it reads the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateSecret {
    /// The file, absolute. Its folder has to be there.
    pub path: PathBuf,
    /// How many random bytes. Default 32.
    #[serde(default = "default_bytes")]
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: usize,
    /// How they are written. Default `hex`.
    #[serde(default)]
    pub encoding: Encoding,
}

fn default_bytes() -> usize {
    32
}

/// How bytes are written as a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Lower-case hex digits.
    #[default]
    Hex,
    /// Base64 with `+`, `/` and `=`.
    Base64,
    /// Base64 with `-` and `_`, without padding.
    Base64Url,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file.
    pub path: PathBuf,
    /// The SHA-256 of what is in it, 64 hex digits: it tells the secret from another one, and not what it is.
    pub sha256: String,
}

#[async_trait]
impl Step for GenerateSecret {
    const NAME: &'static str = "generate-secret";
    const TIDIES: bool = true;
    const SUMMARY: &'static str = "Write random bytes into a file of their own, and never over what is there";
    const EXAMPLE: &'static str = "\
id: session_secret
uses: generate-secret
with:
  path: /etc/hub/session.secret
  encoding: base64-url
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        is_free(&self.path).await?;
        Ok(would(format!("write {} random bytes to {}", self.bytes, self.path.display())))
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        new_secret::tidy(cx, &self.path).await
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let outputs = |text: &str| {
            (!text.is_empty()).then(|| Outputs { path: self.path.clone(), sha256: sha256(text.as_bytes()) })
        };
        write_once(cx, &self.path, || self.draw(), outputs).await.map(End::Done)
    }
}

impl GenerateSecret {
    fn draw(&self) -> Result<String, StepError> {
        let mut bytes = vec![0; self.bytes];
        getrandom::fill(&mut bytes).map_err(|error| {
            StepError::new(
                ErrorKind::Transient,
                format!("the operating system gives no random bytes: {error}"),
            )
        })?;
        let text = match self.encoding {
            Encoding::Hex => hex(&bytes),
            Encoding::Base64 => STANDARD.encode(&bytes),
            Encoding::Base64Url => URL_SAFE_NO_PAD.encode(&bytes),
        };
        Ok(format!("{text}\n"))
    }
}
