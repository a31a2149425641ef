//! `runbook check`.

use serde_json::{Value, json};

use crate::app::App;
use crate::args::Check;
use crate::diagnostics::{self, position};
use crate::exit::{Exit, Failure, Outcome};
use crate::find;
use crate::format;
use crate::inputs;

/// Looks for mistakes in each of the runbooks; all of them are looked at.
pub fn run(app: &App, args: &Check) -> Outcome {
    let mut exit = Exit::Succeeded;
    let mut documents = Vec::new();
    for named in &args.runbooks {
        let source = match find::runbook(named) {
            Ok(source) => source,
            Err(failure) if args.runbooks.len() > 1 => {
                format::failure(&failure);
                exit = Exit::Usage;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let (_, found) = inputs::compile(&source);
        if diagnostics::fatal(&found) && exit == Exit::Succeeded {
            exit = Exit::Invalid;
        }
        if app.json {
            let diagnostics: Vec<Value> = found
                .iter()
                .map(|one| {
                    let (line, column) = position(&source.text, one.span.start);
                    json!({
                        "code": one.code,
                        "severity": one.severity,
                        "message": one.message,
                        "line": line,
                        "column": column,
                        "span": one.span,
                        "label": one.label,
                        "labels": one.labels,
                        "help": one.help,
                    })
                })
                .collect();
            documents.push(json!({ "file": source.name, "diagnostics": diagnostics }));
        } else {
            diagnostics::print(&source, &found);
            if found.is_empty() {
                eprintln!("{}: no mistakes found", source.name);
            }
        }
    }
    if app.json {
        super::print_json(&Value::Array(documents))?;
    }
    if exit == Exit::Succeeded { Ok(exit) } else { Err(Failure::silent(exit)) }
}
