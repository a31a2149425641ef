//! What attempts that were cut off left behind: a backup half written, the database of a probe, the parts of a copy.

use std::time::Duration;

use runbook_engine::error::{ErrorKind, StepError};

use super::copy::{self, Begun, Copying};
use super::probe::{self, Announced};
use super::tools::environment;
use super::{Backup, CopyTo, program, restore, take};
use crate::connections::sql::{Database, psql};
use crate::kind::Context;
use crate::new_secret;
use crate::process::quoted;

/// How long the server of a probe has to drop its database.
const LONGEST: Duration = Duration::from_secs(20);

/// Something that was not taken away.
struct Left {
    /// What, where and why.
    what: String,
    /// What takes it away.
    type_this: String,
    /// Whether a second cancel may: it was not reached, so that nobody has said that it can not be taken away.
    again: bool,
}

/// Takes away what is left; the error names all that stays, each with what takes it away. What was made elsewhere than the connections lead to now is left
/// alone, and named by what was recorded when it was made.
pub(super) async fn tidy(step: &Backup, cx: &Context) -> Result<(), StepError> {
    let mut left = Vec::new();
    if step.file.is_absolute() {
        let part = take::part(step, cx)?;
        match tokio::fs::remove_file(&part).await {
            Ok(()) => cx.live.say(&format!("removed the unfinished backup {}", part.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = part.display().to_string();
                left.push(Left {
                    what: format!("the unfinished backup {path} ({error})"),
                    type_this: format!("rm {}", quoted(&path)),
                    again: false,
                });
            }
        }
    }
    if step.file.is_absolute()
        && let Err(error) = new_secret::tidy(cx, &program::path(&step.file)).await
    {
        let type_this = error.help.unwrap_or_default();
        left.push(Left { what: error.message, type_this, again: false });
    }
    for batch in cx.ledger.view().await?.unsettled {
        if let Some(made) = probe::announced(&batch.what) {
            match dropped(step, cx, &made).await {
                Ok(()) => cx.live.say(&format!("dropped the database {} of the probe", made.probe_database)),
                Err(one) => left.push(one),
            }
        } else if let Some((to, begun)) = step.copy.as_ref().zip(copy::begun(&batch.what)) {
            left.extend(forgotten(to, cx, &begun).await.err());
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let kind = if left.iter().any(|one| one.again) { ErrorKind::Transient } else { ErrorKind::Refused };
    let (what, type_this): (Vec<String>, Vec<String>) =
        left.into_iter().map(|one| (one.what, one.type_this)).unzip();
    Err(StepError::new(kind, format!("left: {}", what.join("; ")))
        .with_help(format!("type  {}", type_this.join(" ; "))))
}

/// Takes the parts of a copy away.
async fn forgotten(to: &CopyTo, cx: &Context, begun: &Begun) -> Result<(), Left> {
    let told = |error: String, command: String| Left {
        what: format!("the parts of {}, by connection `{}` ({error})", begun.url, to.connection),
        type_this: begun.forget.clone().unwrap_or(command),
        again: true,
    };
    let copying = match Copying::begin(to, cx) {
        Ok(copying) => copying,
        Err(_) => {
            let at = begun.url.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
            let command = format!(
                "aws s3api abort-multipart-upload --bucket {} --key {} --upload-id {}",
                quoted(at.unwrap_or_default()),
                quoted(&to.key),
                quoted(&begun.upload)
            );
            return Err(told(elsewhere(cx, &to.connection), command));
        }
    };
    let command = copying.forgetting(&begun.upload);
    if begun.forget.as_ref().is_some_and(|recorded| *recorded != command) {
        return Err(told(format!("`{}` leads elsewhere now", to.connection), command));
    }
    copying.forget(&begun.upload).await.map_err(|error| told(error.message, command))
}

/// Drops the database of a probe.
async fn dropped(step: &Backup, cx: &Context, made: &Announced) -> Result<(), Left> {
    let on = step.probe.as_deref().unwrap_or(&step.connection);
    let Announced { probe_database: name, server: recorded } = made;
    let told = |error: String, again: bool| {
        let place =
            psql::place(recorded).map_or_else(|| "its server".to_owned(), |at| format!("the server {at}"));
        Left {
            what: format!("the database {name} of the probe, on {place} by connection `{on}` ({error})"),
            type_this: restore::dropping(recorded, name),
            again,
        }
    };
    let Ok(server) = cx.resources.connection::<Database>(on) else {
        return Err(told(elsewhere(cx, on), true));
    };
    let now = psql::reached(&environment(&server, on).unwrap_or_default());
    let now = now.into_iter().map(|(name, value)| (name, cx.redactor.text(&value))).collect();
    if psql::elsewhere(recorded, &now) {
        return Err(told(format!("`{on}` leads elsewhere now"), true));
    }
    let dropping = async {
        let mut session = server.open().await.map_err(|failure| (failure, true))?;
        let ran = session.script(&probe::dropping(name)).await;
        ran.map_err(|failure| {
            let lost = failure.lost;
            (failure, lost)
        })?;
        session.finish().await;
        Ok(())
    };
    match tokio::time::timeout(LONGEST, dropping).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err((failure, again))) => Err(told(failure.error.message, again)),
        Err(_) => Err(told("it does not answer".to_owned(), true)),
    }
}

/// Why a connection of the run is not there: it leads elsewhere than when the run began, or what it needs is missing.
fn elsewhere(cx: &Context, connection: &str) -> String {
    match cx.history.plan.places.get(connection) {
        Some(place) => format!("`{connection}` is not what it was, {}", place.words),
        None => format!("`{connection}` can not be used"),
    }
}
