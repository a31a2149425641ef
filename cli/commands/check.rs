//! `runbook check`.

use crate::app::App;
use crate::args::{Check, CheckFormat};
use crate::diagnostics::{self, formats, formats::Looked};
use crate::exit::{Exit, Failure, Outcome};
use crate::find::{self, Source};
use crate::format;
use crate::inputs;

/// Looks for mistakes in each of the runbooks; all of them are looked at.
pub fn run(app: &App, args: &Check) -> Outcome {
    let format = match (args.format, app.json) {
        (None, false) => CheckFormat::Human,
        (None, true) => CheckFormat::Json,
        (Some(format), json) if !json || format == CheckFormat::Json => format,
        _ => return Err(Failure::usage("`--json` is `--format json`; leave one of them out")),
    };
    let all: Vec<Looked> = args.runbooks.iter().map(|named| look(named)).collect();
    match format {
        CheckFormat::Human => all.iter().for_each(tell),
        CheckFormat::Json => drop(super::print_json(&formats::json(&all))?),
        CheckFormat::Sarif => drop(super::print_json(&formats::sarif(&all))?),
        CheckFormat::Github => {
            let lines = formats::github(&all);
            if !lines.is_empty() {
                super::print(&lines)?;
            }
        }
    }
    // What could not be read weighs more than what is wrong in what could.
    let exits: Vec<Exit> = all.iter().map(Looked::exit).filter(|exit| *exit != Exit::Succeeded).collect();
    let worst = exits.iter().find(|exit| **exit != Exit::Invalid).or(exits.first());
    worst.map_or(Ok(Exit::Succeeded), |exit| Err(Failure::silent(*exit)))
}

fn look(named: &str) -> Looked {
    let source = if named == "-" { Source::stdin() } else { find::runbook(named) };
    match source {
        Ok(source) => {
            let (_, found) = inputs::compile(&source);
            Looked::Read(source, found)
        }
        Err(failure) => Looked::Unread(named.to_owned(), failure),
    }
}

fn tell(looked: &Looked) {
    match looked {
        Looked::Read(source, found) => {
            diagnostics::print(source, found);
            if found.is_empty() {
                eprintln!("{}: no mistakes found", source.name);
            }
        }
        Looked::Unread(_, failure) => format::failure(failure),
    }
}
