//! The picture in Graphviz' language, for `dot`.

use super::clusters::{Cluster, clusters};
use super::{Graph, Node, Role};

/// The graph.
pub fn render(graph: &Graph) -> String {
    let mut lines = vec![format!("digraph {} {{", quote(&graph.runbook))];
    lines.push("  rankdir=TB; fontname=\"sans-serif\";".to_owned());
    lines.push("  node [fontname=\"sans-serif\", fontsize=11, style=filled, shape=box];".to_owned());
    lines.push("  edge [color=\"#57606a\"];".to_owned());
    let (frames, outside) = clusters(graph);
    outside.iter().for_each(|at| lines.push(format!("  {}", shape(graph, *at))));
    frames.iter().for_each(|frame| cluster(graph, frame, 1, &mut lines));
    let finals: Vec<usize> = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].finally).collect();
    if !finals.is_empty() {
        lines.push("  ended [shape=point];".to_owned());
        lines.push("  subgraph cluster_finally {".to_owned());
        lines.push(
            "    label=\"finally: however the others end\"; style=rounded; color=\"#8c959f\";".to_owned(),
        );
        finals.iter().for_each(|at| lines.push(format!("    {}", shape(graph, *at))));
        lines.push("  }".to_owned());
        graph.ends().iter().for_each(|at| lines.push(format!("  s{at} -> ended [style=dashed];")));
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        node.needs.iter().for_each(|need| lines.push(format!("  s{need} -> s{at};")));
        if node.finally && node.needs.is_empty() {
            lines.push(format!("  ended -> s{at} [style=dashed];"));
        }
    }
    lines.push("}".to_owned());
    lines.join("\n")
}

fn cluster(graph: &Graph, frame: &Cluster, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let freeze = &graph.nodes[graph.holds[frame.hold].freeze];
    lines.push(format!("{indent}subgraph cluster_h{} {{", frame.hold));
    let label = quote(&format!("frozen by {}", freeze.id));
    lines.push(format!(
        "{indent}  label={label}; style=\"rounded,dashed\"; color=\"#0969da\"; fontcolor=\"#0969da\";"
    ));
    frame.nodes.iter().for_each(|at| lines.push(format!("{indent}  {}", shape(graph, *at))));
    frame.inner.iter().for_each(|inner| cluster(graph, inner, depth + 1, lines));
    lines.push(format!("{indent}}}"));
}

fn shape(graph: &Graph, at: usize) -> String {
    let node = &graph.nodes[at];
    let (form, fill, stroke) = match node.role {
        Role::Read => ("box", "#f6f8fa", "#8c959f"),
        Role::Write => ("box", "#fff8c5", "#9a6700"),
        Role::Undetermined => ("box", "#fff8c5", "#9a6700"),
        Role::Save => ("cylinder", "#dafbe1", "#1a7f37"),
        Role::Gate => ("hexagon", "#fbefff", "#8250df"),
        Role::Freeze | Role::Lift => ("oval", "#ddf4ff", "#0969da"),
        Role::Destroy => ("octagon", "#ffebe9", "#cf222e"),
    };
    let lines = if node.role == Role::Undetermined { ", style=\"filled,dashed\"" } else { "" };
    format!("s{at} [label={}, shape={form}, fillcolor=\"{fill}\", color=\"{stroke}\"{lines}];", label(node))
}

fn label(node: &Node) -> String {
    let lines: Vec<&str> = [node.id.as_str(), node.uses.as_str()]
        .into_iter()
        .chain(node.notes.iter().map(String::as_str))
        .collect();
    quote(&lines.join("\n"))
}

/// A quoted text, its line breaks written `\n`.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{}\"", escaped.replace(char::is_control, " "))
}
