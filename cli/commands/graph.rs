//! `runbook graph`.

use runbook_steps::catalog::CATALOG;

use crate::app::App;
use crate::args::{Graph, GraphFormat};
use crate::diagnostics;
use crate::exit::{Exit, Failure, Outcome};
use crate::find;
use crate::format;
use crate::graph::{self, dot, mermaid, tree};
use crate::inputs;

/// Draws a runbook. One with errors is not drawn: they are told instead.
pub fn run(app: &App, args: &Graph) -> Outcome {
    let source = find::runbook(&args.runbook)?;
    let (runbook, found) = inputs::compile(&source);
    let Some(runbook) = runbook else {
        diagnostics::print(&source, &found);
        return Err(Failure::silent(Exit::Invalid));
    };
    let graph = graph::Graph::of(&runbook, &CATALOG);
    if app.json {
        return super::print_json(&graph.to_json());
    }
    super::print(&match args.format {
        GraphFormat::Tree => tree::render(&graph, format::look_of_stdout()).join("\n"),
        GraphFormat::Mermaid => mermaid::render(&graph),
        GraphFormat::Dot => dot::render(&graph),
    })
}
