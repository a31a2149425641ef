//! The program beside a backup that has it in place of what is there: what a person types is short then, and can be copied from any terminal or report.

use std::path::{Path, PathBuf};

use runbook_engine::error::StepError;

use super::Outputs;
use crate::kind::Context;
use crate::new_secret::{read, write_beside};
use crate::process::quoted;

/// For its owner alone, as the backup is.
const MODE: u32 = 0o700;

/// Where it is, beside a backup.
pub(super) fn path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".restore.sh");
    path.into()
}

/// What the line calls the backup when it is run by the program: what stands beside that, wherever both were moved to.
pub(super) fn beside_it(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!("\"$(dirname -- \"$0\")\"/{}", quoted(&name))
}

/// All of it, which runs this line.
pub(super) fn text(line: &str) -> String {
    format!(
        "#!/bin/sh\n# Has the database as it is in the backup beside this file, all of it or nothing. What is there now is put aside under another name.\n\
         # It goes on when its terminal is closed.\ntrap '' HUP\n{line}\n"
    )
}

/// What to type.
pub(super) fn typed(file: &Path) -> String {
    format!("sh {}", quoted(&path(file).display().to_string()))
}

/// Whether it is there, with this text.
pub(super) async fn is_there(file: &Path, text: &str) -> bool {
    read(&path(file)).await.is_ok_and(|there| there.as_deref() == Some(text))
}

/// Writes it beside the backup that these outputs tell of. One that is there already is fine.
pub(super) async fn write(cx: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let path = path(&outputs.file);
    // A backup that a program without this made has none.
    if outputs.restore_program.is_empty()
        || write_beside(cx, &path, outputs.restore_program.clone(), MODE).await?
    {
        return Ok(());
    }
    Err(StepError::refused(format!(
        "{} is there already and was not written over; the backup that it is to bring back is made, and in its place",
        path.display()
    ))
    .with_help("move it away, then resume: the backup that was made is kept"))
}
