//! Whether there is any row in a dump: read until the first one.

use std::path::Path;

use runbook_engine::error::StepError;

use super::Backup;
use super::tools::process;
use crate::kind::Context;
use crate::process::Ended;

/// How much of a line is looked at, in bytes: the names of the columns stand in the lines before the rows.
const LINE: usize = 256 * 1024;

/// Looks for the first row in what `pg_restore` writes of the data of a dump.
#[derive(Default)]
struct Rows {
    line: Vec<u8>,
    /// Whether the lines are rows, until one that says they are over.
    copying: bool,
    found: bool,
}

impl Rows {
    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.line_ended();
            }
        }
    }

    fn line_ended(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.copying {
            self.copying = line != b"\\.";
            self.found |= self.copying;
        } else {
            self.copying = line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;");
            self.found |= line.starts_with(b"INSERT INTO ");
        }
    }
}

/// Whether a dump has a row of any table.
pub(super) async fn any(step: &Backup, cx: &Context, file: &Path) -> Result<bool, StepError> {
    let mut rows = Rows::default();
    let stop = cx.stop.child_token();
    let mut hear = |bytes: &[u8]| {
        rows.hear(bytes);
        if rows.found {
            stop.cancel();
        }
    };
    let path = file.display().to_string();
    let process = process(step, "pg_restore", &["--data-only", "--file=-", &path]);
    let finished = process.run_hearing(&cx.engine, &stop, &mut hear).await?;
    if rows.found {
        return Ok(true);
    }
    match finished.ended {
        Ended::Exited if finished.code() == Some(0) => Ok(false),
        Ended::Exited => Err(StepError::gate(format!("the rows of the backup {path} can not be read"))),
        Ended::Stopped | Ended::TimedOut => Err(StepError::interrupted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, pieces: usize) -> bool {
        let mut rows = Rows::default();
        text.as_bytes().chunks(pieces).for_each(|piece| rows.hear(piece));
        rows.found
    }

    #[test]
    fn the_first_row_is_found_however_it_comes() {
        let empty = "--\n-- Data for Name: a\n--\n\nCOPY public.a (id) FROM stdin;\n\\.\n\nCOPY public.b (id) FROM stdin;\n\\.\n\n\
                     SELECT pg_catalog.setval('public.a_id_seq', 1, false);\n";
        for pieces in [1, 7, 4096] {
            assert!(!found(empty, pieces));
            assert!(!found("", pieces));
            assert!(found(&empty.replace("b (id) FROM stdin;\n", "b (id) FROM stdin;\n1\n"), pieces));
            // A row of one empty text.
            assert!(found("COPY public.a (id) FROM stdin;\n\n\\.\n", pieces));
            assert!(found("INSERT INTO public.a VALUES (1);\n", pieces));
        }
    }
}
