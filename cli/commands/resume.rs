//! `runbook resume`.

use runbook_engine::drive::Purpose;
use runbook_engine::store::RunRow;

use crate::app::App;
use crate::args::Resume;
use crate::banner;
use crate::exit::{Failure, Outcome};
use crate::format;
use crate::session::{self, Needs, Prepared};
use crate::state::{self, Prefer};

/// How many changed lines are shown.
const SHOWN: usize = 6;

/// How many columns of one are shown where there is no terminal.
const WIDEST: usize = 200;

/// Goes on with the run.
pub async fn run(app: &App, args: &Resume) -> Outcome {
    let state = app.state().await?;
    let row = match &args.run {
        Some(named) => state::run_named(&state, named, Prefer::Unfinished).await?,
        None => state::only_unfinished(&state).await?,
    };
    banner::show(&state, Some(&row.id)).await;
    if row.status.is_final() {
        let failure =
            Failure::usage(format!("run {} {}: there is nothing to resume", row.id, row.status.said()));
        return Err(failure.help(format!("runbook show {}   shows what it did", row.id)));
    }
    if let Some((owner, until)) = session::live_owner(&state, &row) {
        return Err(session::busy(&row.id, &owner, until));
    }
    let (plan, stands) = session::load(&state, &row).await?;
    session::in_time(&row, &plan, &stands)?;
    session::whole(&state, &row.id).await?;
    let prepared = Prepared::new(&state, &row.id, plan, Needs::All).await?;
    session::announce(&row.id, stands.cancel.is_some());
    tell_difference(&row);
    session::drive(&state, &row, prepared, Purpose::Resume, app.json).await
}

/// Says when the file has changed since the run was created; the run keeps to its own copy.
fn tell_difference(row: &RunRow) {
    let Ok(text) = std::fs::read_to_string(&row.source_name) else {
        eprintln!("{} can not be read any more: the run uses its own copy", row.source_name);
        return;
    };
    if text != row.definition {
        eprintln!("{} has changed since the run was created: the run uses its own copy", row.source_name);
        difference(&row.definition, &text).iter().for_each(|line| eprintln!("  {line}"));
    }
}

/// The lines between the first and the last difference: what the run has, what the file has.
fn difference(own: &str, file: &str) -> Vec<String> {
    let (own, file): (Vec<&str>, Vec<&str>) = (own.lines().collect(), file.lines().collect());
    let same = own.iter().zip(&file).take_while(|(a, b)| a == b).count();
    let rest = own.len().min(file.len()) - same;
    let tail = own.iter().rev().zip(file.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines = vec![format!("from line {}:", same + 1)];
    for (sign, all) in [('-', &own), ('+', &file)] {
        let changed = &all[same..all.len() - tail];
        lines.extend(changed.iter().take(SHOWN).map(|line| shown(sign, line)));
        if changed.len() > SHOWN {
            lines.push(format!("{sign} ... {} more lines", changed.len() - SHOWN));
        }
    }
    lines
}

/// A line as it may be put on a terminal: without control characters, and not longer than it is wide.
fn shown(sign: char, line: &str) -> String {
    let clean: String = line.chars().take(WIDEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let width = format::width().map_or(WIDEST, |width| width.saturating_sub(3));
    console::truncate_str(format!("{sign} {clean}").trim_end(), width, "...").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_only_what_differs() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n"), ["from line 2:", "- b", "+ x", "+ y"]);
        assert_eq!(difference("a\n", "a\nb\n"), ["from line 2:", "+ b"]);
        assert_eq!(difference("a\na\n", "a\n"), ["from line 2:", "- a"]);
        let odd = format!("{}\x1b[31m\n", "y".repeat(WIDEST));
        let told = difference("", &odd);
        assert!(told[1].ends_with("y...") && !told[1].contains('\x1b'), "{told:?}");
        assert_eq!(difference("", "  a\tb\x1b[2J\n")[1], "+   a b [2J");
        let long = "x\n".repeat(40);
        assert_eq!(difference("", &long).last().unwrap(), "+ ... 34 more lines");
    }
}
