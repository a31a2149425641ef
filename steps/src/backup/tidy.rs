//! What attempts that were cut off left behind: a backup half written, the database of a probe, the parts of a copy.

use std::collections::BTreeMap;
use std::time::Duration;

use runbook_engine::error::StepError;

use super::copy::{self, Copying};
use super::tools::environment;
use super::{Backup, CopyTo, probe, restore, take};
use crate::connections::sql::Database;
use crate::kind::Context;
use crate::process::quoted;

/// How long the server of a probe has to drop its database.
const LONGEST: Duration = Duration::from_secs(20);

/// Takes away what is left; the error names all that stays, each with what takes it away.
pub(super) async fn tidy(step: &Backup, cx: &Context) -> Result<(), StepError> {
    let mut left = Vec::new();
    if step.file.is_absolute() {
        let part = take::part(step, cx)?;
        match tokio::fs::remove_file(&part).await {
            Ok(()) => cx.live.say(&format!("removed the unfinished backup {}", part.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = part.display().to_string();
                left.push((
                    format!("the unfinished backup {path} ({error})"),
                    format!("rm {}", quoted(&path)),
                ));
            }
        }
    }
    for batch in cx.ledger.view().await?.unsettled {
        if let Some(name) = probe::announced(&batch.what) {
            match dropped(step, cx, &name).await {
                Ok(()) => cx.live.say(&format!("dropped the database {name} of the probe")),
                Err(one) => left.push(one),
            }
        } else if let Some((to, upload)) = step.copy.as_ref().zip(copy::upload(&batch.what)) {
            left.extend(forgotten(to, cx, &upload).await.err());
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let (what, type_this): (Vec<String>, Vec<String>) = left.into_iter().unzip();
    Err(StepError::refused(format!("left: {}", what.join("; ")))
        .with_help(format!("type  {}", type_this.join(" ; "))))
}

/// Takes the parts of a copy away; or what is left then, and what to type.
async fn forgotten(to: &CopyTo, cx: &Context, upload: &str) -> Result<(), (String, String)> {
    let told = |error: StepError, command: String| {
        let what =
            format!("the parts of {} in the bucket of `{}` ({})", to.key, to.connection, error.message);
        (what, command)
    };
    let copying = match Copying::begin(to, cx) {
        Ok(copying) => copying,
        Err(error) => {
            let command = format!(
                "aws s3api abort-multipart-upload --bucket BUCKET --key {} --upload-id {}",
                quoted(&to.key),
                quoted(upload)
            );
            return Err(told(error, command));
        }
    };
    copying.forget(upload).await.map_err(|error| told(error, copying.forgetting(upload)))
}

/// Drops the database of a probe; or what is left then, and what to type.
async fn dropped(step: &Backup, cx: &Context, name: &str) -> Result<(), (String, String)> {
    let on = step.probe.as_deref().unwrap_or(&step.connection);
    let told = |error: String, command: String| {
        (format!("the database {name} of the probe, on the server of connection `{on}` ({error})"), command)
    };
    let server = match cx.resources.connection::<Database>(on) {
        Ok(server) => server,
        Err(error) => {
            let command = restore::dropping(&BTreeMap::new(), name);
            return Err(told(error.message, command));
        }
    };
    let command = || restore::dropping(&environment(&server, on).unwrap_or_default(), name);
    match tokio::time::timeout(LONGEST, probe::drop_database(&server, name)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(told(failure.error.message, command())),
        Err(_) => Err(told("it does not answer".to_owned(), command())),
    }
}
