//! Step kind `keygen`: a key pair of Ed25519, made or looked at.

mod form;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::form::Public;
use crate::kind::{Context, End, Step, read_now, would};
use crate::new_secret::{self, is_free, learn, others_may_read, read, write_beside, write_once};

/// Makes a key pair of Ed25519 and writes the private key, PKCS#8 in PEM as `openssl genpkey -algorithm Ed25519` does, to a file that nobody but its owner
/// may read. It is never written over what is there, and the key is in no output, log or report: of the pair, only the public key is told.
///
/// With `mode: check` it makes nothing, and fails unless a key is there in the right form: in a file of its owner alone, or in a `value`, such as a
/// secret out of a variable of the environment.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["path"]}, {"required": ["value", "mode"]}]))]
pub struct Keygen {
    /// What is done. Default `make`.
    #[serde(default)]
    pub mode: Mode,
    /// The file with the private key, absolute. Its folder has to be there.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The private key itself, to `check` it. May hold a secret.
    #[serde(default)]
    pub value: Option<String>,
    /// How the key is written. Default `pem`.
    #[serde(default)]
    pub encoding: Encoding,
    /// A file that the public key of a new pair is written to, absolute, PEM as `openssl pkey -pubout` does. Default: none.
    #[serde(default)]
    pub public_path: Option<PathBuf>,
}

/// What is done about a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "KeyMode")]
pub enum Mode {
    /// It is made.
    #[default]
    Make,
    /// One that is there is held to its form.
    Check,
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

/// What may be said of the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file with the private key, where it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How it is written there.
    pub encoding: Encoding,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo, DER), 64 hex digits: what `openssl pkey -pubout -outform DER | sha256sum` says.
    pub fingerprint: String,
    /// The public key, 32 bytes in Base64 for URLs: the `x` of a JSON Web Key.
    pub public_key: String,
}

#[async_trait]
impl Step for Keygen {
    const NAME: &'static str = "keygen";
    const TIDIES: bool = true;
    const SUMMARY: &'static str =
        "Make a key pair of Ed25519 in a file of its own, or hold a key that is there to its form";
    const SECRET_FIELDS: &'static [&'static str] = &["/value"];
    const EXAMPLE: &'static str = "\
id: badge_key
uses: keygen
with:
  path: /etc/hub/badge-key
  encoding: base64-pem
  public_path: /etc/hub/badge-key.pub
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        let checks = with.get("mode").and_then(Value::as_str) == Some("check");
        if checks { Effect::READ } else { Effect::WRITE }
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect == Effect::READ {
            return read_now(self, cx).await;
        }
        let path = self.to_make()?;
        is_free(path).await?;
        let mut does = format!("make a key of Ed25519 and write it to {}", path.display());
        if let Some(public) = &self.public_path {
            is_free(public).await?;
            does.push_str(&format!(", and the public key to {}", public.display()));
        }
        Ok(would(does))
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        for path in self.path.iter().chain(&self.public_path) {
            new_secret::tidy(cx, path).await?;
        }
        Ok(())
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        match self.mode {
            Mode::Make => self.make(cx).await,
            Mode::Check => self.check(cx).await,
        }
        .map(End::Done)
    }
}

impl Keygen {
    fn to_make(&self) -> Result<&Path, StepError> {
        match (&self.path, &self.value) {
            (Some(path), None) => Ok(path),
            _ => Err(StepError::invalid(
                "a key is made in a file: `path` says in which, and `value` is for `check`",
            )),
        }
    }

    async fn make(&self, cx: &Context) -> Result<Outputs, StepError> {
        let path = self.to_make()?;
        if let Some(public) = &self.public_path
            && read(path).await?.is_none()
        {
            is_free(public).await?;
        }
        let failed =
            |_| StepError::new(ErrorKind::Bug, format!("no key could be made for {}", path.display()));
        let outputs = write_once(
            cx,
            path,
            || form::make(self.encoding).map_err(failed),
            |text| self.public(cx, text).map(|public| self.outputs(&public)),
        )
        .await?;
        if let Some(beside) = &self.public_path {
            let public = read(path).await?.and_then(|text| self.public(cx, &text));
            let public = public.ok_or_else(|| StepError::gate(format!("{} holds no key", path.display())))?;
            if !write_beside(cx, beside, public.pem(), 0o644).await? {
                return Err(taken_beside(beside));
            }
        }
        Ok(outputs)
    }

    async fn check(&self, cx: &Context) -> Result<Outputs, StepError> {
        if self.public_path.is_some() {
            return Err(StepError::invalid("`public_path` is for a key that is made"));
        }
        let (text, place) = match (&self.path, &self.value) {
            (Some(path), None) => {
                let place = path.display().to_string();
                let text = read(path).await?;
                let text = text.ok_or_else(|| StepError::gate(format!("there is no key {place}")))?;
                if others_may_read(path).await? {
                    return Err(StepError::gate(format!("others than its owner may read the key {place}"))
                        .with_help(format!("type `chmod 600 {place}`; who has read it has the key")));
                }
                (text, place)
            }
            (None, Some(value)) => (value.clone(), "the value".to_owned()),
            _ => return Err(StepError::invalid("give one of `path` and `value`")),
        };
        let public = self.public(cx, &text).ok_or_else(|| {
            let why = form::why_not(&text, self.encoding);
            StepError::gate(format!("{place} is no key of Ed25519 in the form that is needed: {why}"))
        })?;
        Ok(self.outputs(&public))
    }

    /// The public key of a private one, which the redactor learns.
    fn public(&self, cx: &Context, text: &str) -> Option<Public> {
        let pem = form::pem(text, self.encoding)?;
        let public = form::public(&pem)?;
        learn(cx, text);
        // Written in Base64, the key itself is another text.
        learn(cx, &pem);
        Some(public)
    }

    fn outputs(&self, public: &Public) -> Outputs {
        Outputs {
            path: self.path.clone(),
            encoding: self.encoding,
            fingerprint: public.fingerprint(),
            public_key: public.x(),
        }
    }
}

fn taken_beside(path: &Path) -> StepError {
    StepError::refused(format!(
        "{} is there already and was not written over; the secret that it belongs to is made and in its place",
        path.display()
    ))
    .with_help("move it away, then resume: the secret that was made is kept")
}
