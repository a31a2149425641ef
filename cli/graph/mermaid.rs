//! The picture as a Mermaid flowchart, for pages that draw it, such as a README.

use super::clusters::{Cluster, clusters};
use super::{Graph, Node, Role};

/// The flowchart.
pub fn render(graph: &Graph) -> String {
    let mut lines = vec!["---".to_owned(), format!("title: {}", graph.runbook), "---".to_owned()];
    lines.push("flowchart TD".to_owned());
    let (frames, outside) = clusters(graph);
    outside.iter().for_each(|at| lines.push(format!("  {}", shape(graph, *at))));
    frames.iter().for_each(|frame| cluster(graph, frame, 1, &mut lines));
    let finals: Vec<usize> = (0..graph.nodes.len()).filter(|at| graph.nodes[*at].finally).collect();
    if !finals.is_empty() {
        lines.push("  ended(( ))".to_owned());
        lines.push("  subgraph finally [\"finally: however the others end\"]".to_owned());
        finals.iter().for_each(|at| lines.push(format!("    {}", shape(graph, *at))));
        lines.push("  end".to_owned());
        graph.ends().iter().for_each(|at| lines.push(format!("  s{at} -.-> ended")));
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        node.needs.iter().for_each(|need| lines.push(format!("  s{need} --> s{at}")));
        if node.finally && node.needs.is_empty() {
            lines.push(format!("  ended -.-> s{at}"));
        }
    }
    for role in Role::ALL.into_iter().filter(|role| graph.count(*role) > 0) {
        let name = class(role);
        lines.push(format!("  classDef {name} {}", style(role)));
        let of_role = graph.nodes.iter().enumerate().filter(|(_, node)| node.role == role);
        let members: Vec<String> = of_role.map(|(at, _)| format!("s{at}")).collect();
        lines.push(format!("  class {} {name}", members.join(",")));
    }
    lines.join("\n")
}

fn cluster(graph: &Graph, frame: &Cluster, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let freeze = &graph.nodes[graph.holds[frame.hold].freeze];
    lines.push(format!("{indent}subgraph h{} [\"frozen by {}\"]", frame.hold, escape(&freeze.id)));
    frame.nodes.iter().for_each(|at| lines.push(format!("{indent}  {}", shape(graph, *at))));
    frame.inner.iter().for_each(|inner| cluster(graph, inner, depth + 1, lines));
    lines.push(format!("{indent}end"));
}

fn shape(graph: &Graph, at: usize) -> String {
    let node = &graph.nodes[at];
    let text = label(node);
    match node.role {
        Role::Gate => format!("s{at}{{{{\"{text}\"}}}}"),
        Role::Destroy => format!("s{at}[[\"{text}\"]]"),
        Role::Save => format!("s{at}[(\"{text}\")]"),
        Role::Freeze | Role::Lift => format!("s{at}([\"{text}\"])"),
        _ => format!("s{at}[\"{text}\"]"),
    }
}

fn label(node: &Node) -> String {
    let mut lines = vec![format!("<b>{}</b>", escape(&node.id)), escape(&node.uses)];
    lines.extend(node.notes.iter().map(|note| format!("<i>{}</i>", escape(note))));
    lines.join("<br/>")
}

/// A text in which nothing means anything to Mermaid.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' ' | '_' | '-' | '.' | ',' | ':' | '/' => escaped.push(character),
            plain if plain.is_alphanumeric() => escaped.push(plain),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push_str(&format!("#{};", u32::from(other))),
        }
    }
    escaped
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Read => "looks",
        Role::Write => "changes",
        Role::Undetermined => "undeclared",
        Role::Save => "saves",
        Role::Gate => "asks",
        Role::Freeze => "freezes",
        Role::Lift => "lifts",
        Role::Destroy => "destroys",
    }
}

fn style(role: Role) -> &'static str {
    match role {
        Role::Read => "fill:#f6f8fa,stroke:#8c959f,color:#1f2328",
        Role::Write => "fill:#fff8c5,stroke:#9a6700,color:#1f2328",
        Role::Undetermined => "fill:#fff8c5,stroke:#9a6700,color:#1f2328,stroke-dasharray:4 3",
        Role::Save => "fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
        Role::Gate => "fill:#fbefff,stroke:#8250df,color:#1f2328",
        Role::Freeze | Role::Lift => "fill:#ddf4ff,stroke:#0969da,color:#1f2328",
        Role::Destroy => "fill:#ffebe9,stroke:#cf222e,color:#82071e,stroke-width:2px",
    }
}
