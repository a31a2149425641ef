//! The picture for a terminal: one step a line from top to bottom, steps that run side by side in a bracket, and a rail along
//! those that run while something is frozen.

use console::{Style, measure_text_width};

use super::{Graph, Node, Role};
use crate::report::describe::{one_line, wrap};

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether it shows colours.
    pub colours: bool,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
    /// Its columns; nothing: lines may be as long as they are.
    pub width: Option<usize>,
}

/// Below so many columns, notes stand below their step instead of beside it.
const BESIDE: usize = 24;

/// The lines of the picture.
pub fn render(graph: &Graph, look: Look) -> Vec<String> {
    let tree = Tree::new(graph, look);
    let mut lines = tree.title();
    let mut finally = false;
    for at in 0..graph.nodes.len() {
        if graph.nodes[at].finally && !finally {
            finally = true;
            lines.extend([String::new(), format!("  {}", tree.paint(Style::new().bold(), "finally"))]);
        }
        tree.step(at, &mut lines);
    }
    lines.push(String::new());
    lines.extend(tree.legend());
    lines
}

struct Tree<'a> {
    graph: &'a Graph,
    look: Look,
    /// Each freeze's rail: its column, its first row and its last.
    rails: Vec<(usize, usize, usize)>,
    /// How many columns of rails there are.
    columns: usize,
    /// Whether any steps run side by side.
    brackets: bool,
    id_width: usize,
    kind_width: usize,
}

impl<'a> Tree<'a> {
    fn new(graph: &'a Graph, look: Look) -> Self {
        let mut rails: Vec<(usize, usize, usize)> = Vec::new();
        for (hold, span) in graph.holds.iter().enumerate() {
            let held = graph.nodes.iter().rposition(|node| node.held.contains(&hold));
            let last =
                span.lifts.iter().copied().chain(held).chain([span.freeze]).max().unwrap_or(span.freeze);
            let taken =
                |column: &usize| rails.iter().any(|(other, _, end)| other == column && *end >= span.freeze);
            // To the right of every rail that is there: what is frozen later is drawn inside.
            let column = (0..).find(|column| (*column..rails.len()).all(|right| !taken(&right))).unwrap_or(0);
            rails.push((column, span.freeze, last));
        }
        let columns = rails.iter().map(|(column, ..)| column + 1).max().unwrap_or(0);
        let width = |text: fn(&Node) -> &str| {
            graph.nodes.iter().map(|node| measure_text_width(text(node))).max().unwrap_or(0)
        };
        Self {
            graph,
            look,
            rails,
            columns,
            brackets: graph.nodes.windows(2).any(|pair| side_by_side(&pair[0], &pair[1])),
            id_width: width(|node| &node.id),
            kind_width: width(|node| &node.uses),
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        style.force_styling(self.look.colours).apply_to(text).to_string()
    }

    fn dim(&self, text: &str) -> String {
        self.paint(Style::new().dim(), text)
    }

    fn title(&self) -> Vec<String> {
        let count = self.graph.nodes.len();
        let steps = format!("{count} {}", if count == 1 { "step" } else { "steps" });
        let name = self.paint(Style::new().bold(), &self.graph.runbook);
        let mut lines = vec![format!("  {name}  {}", self.dim(&steps))];
        let description = one_line(&self.graph.description);
        if !description.is_empty() {
            let width = self.look.width.map_or(usize::MAX, |width| width.saturating_sub(3));
            lines.extend(wrap(&description, width).iter().map(|line| format!("  {line}")));
        }
        lines.push(String::new());
        lines
    }

    /// The lines of a step.
    fn step(&self, at: usize, lines: &mut Vec<String>) {
        let node = &self.graph.nodes[at];
        let style = style(node.role);
        let (rail, below) = (self.rail(at, true), self.rail(at, false));
        let prefix = 2 + self.columns * 2 + if self.brackets { 2 } else { 0 };
        let symbol = self.paint(style.clone(), symbol(node.role, self.look.unicode));
        let mut notes = self.after(at);
        notes.extend(node.notes.iter().map(|note| one_line(note)));
        let (id, kind) = (pad(&node.id, self.id_width), pad(&node.uses, self.kind_width));
        let shown = self.paint(style, &node.id);
        let gap = " ".repeat(id.len().saturating_sub(node.id.len()));
        let names = prefix + 2 + self.id_width + 2 + self.kind_width;
        let width = self.look.width.unwrap_or(usize::MAX);
        if names + 1 > width {
            notes.insert(0, node.uses.clone());
            lines.push(format!("{rail}{symbol} {shown}"));
            return self.notes(&notes, &format!("{below}    "), width.saturating_sub(prefix + 5), lines);
        }
        let text = notes.join(self.separator());
        let room = width.saturating_sub(names + 3);
        if measure_text_width(&text) <= room || room >= BESIDE {
            let mut beside = if measure_text_width(&text) <= room {
                vec![text].into_iter()
            } else {
                notes.iter().flat_map(|note| wrap(note, room)).collect::<Vec<_>>().into_iter()
            };
            let first = self.dim(&beside.next().unwrap_or_default());
            lines.push(format!("{rail}{symbol} {shown}{gap}  {kind}  {first}").trim_end().to_owned());
            let indent = " ".repeat(names + 2 - prefix);
            lines.extend(beside.map(|line| format!("{below}{indent}{}", self.dim(&line))));
            return;
        }
        lines.push(format!("{rail}{symbol} {shown}{gap}  {}", node.uses));
        self.notes(&notes, &format!("{below}    "), width.saturating_sub(prefix + 5), lines);
    }

    fn notes(&self, notes: &[String], prefix: &str, width: usize, lines: &mut Vec<String>) {
        let wrapped = notes.iter().flat_map(|note| wrap(note, width));
        lines.extend(wrapped.map(|line| format!("{prefix}{}", self.dim(&line))));
    }

    fn separator(&self) -> &'static str {
        if self.look.unicode { " · " } else { "; " }
    }

    /// Which steps it waits for, when these are not simply those of the stage before.
    fn after(&self, at: usize) -> Vec<String> {
        let node = &self.graph.nodes[at];
        let before = |other: &usize| {
            let other = &self.graph.nodes[*other];
            other.finally == node.finally && other.stage + 1 == node.stage
        };
        let expected: Vec<usize> =
            (0..at).rev().take_while(|other| self.near(*other, at)).filter(before).collect();
        if node.needs.len() == expected.len() && node.needs.iter().all(before) {
            return Vec::new();
        }
        let names: Vec<&str> = node.needs.iter().map(|need| self.graph.nodes[*need].id.as_str()).collect();
        vec![format!("after {}", names.join(", "))]
    }

    /// Whether a step stands in the same stage as another or in the one before.
    fn near(&self, other: usize, at: usize) -> bool {
        let (other, node) = (&self.graph.nodes[other], &self.graph.nodes[at]);
        other.finally == node.finally && other.stage + 1 >= node.stage
    }

    /// What stands left of a step, or of the lines below it.
    fn rail(&self, at: usize, first: bool) -> String {
        let mut cells = vec![("  ", false); self.columns];
        let mut fill = false;
        let unicode = self.look.unicode;
        let pick = |fine: &'static str, plain: &'static str| if unicode { fine } else { plain };
        for (hold, (column, start, end)) in self.rails.iter().copied().enumerate() {
            let lift = self.graph.holds[hold].lifts.contains(&at);
            let frozen = self.graph.nodes[at].held.contains(&hold) || lift || at == start;
            let cell = match (first, at) {
                (true, at) if at == start && start == end => pick("╺━", "*-"),
                (true, at) if at == start => pick("┏━", ",-"),
                (true, at) if at == end && lift => pick("┗━", "'-"),
                (true, at) if lift && at > start && at < end => pick("┣━", "|-"),
                (true, at) if at > start && at <= end && frozen => pick("┃ ", "| "),
                (false, at) if at >= start && at < end && frozen => pick("┃ ", "| "),
                (_, at) if at > start && at < end => pick("┆ ", ": "),
                _ => continue,
            };
            cells[column] = (cell, true);
            fill |= cell.ends_with(['━', '-']);
        }
        let mut text = String::new();
        let mut filling = false;
        for (cell, there) in cells {
            if there {
                filling = fill && cell.ends_with(['━', '-']);
                text.push_str(cell);
            } else {
                text.push_str(if filling { pick("━━", "--") } else { "  " });
            }
        }
        let rails = if text.trim().is_empty() { text } else { self.paint(Style::new().cyan(), &text) };
        let bracket = if self.brackets { self.dim(self.bracket(at, first)) } else { String::new() };
        format!("  {rails}{bracket}")
    }

    fn bracket(&self, at: usize, first: bool) -> &'static str {
        let nodes = &self.graph.nodes;
        let above = at > 0 && side_by_side(&nodes[at - 1], &nodes[at]);
        let below = nodes.get(at + 1).is_some_and(|next| side_by_side(&nodes[at], next));
        match (above, below, first, self.look.unicode) {
            (false, true, true, true) => "┌ ",
            (true, true, true, true) | (_, true, false, true) => "│ ",
            (true, false, true, true) => "└ ",
            (false, true, true, false) => "/ ",
            (true, true, true, false) | (_, true, false, false) => "| ",
            (true, false, true, false) => "\\ ",
            _ => "  ",
        }
    }

    fn legend(&self) -> Vec<String> {
        let mut words: Vec<(String, String)> = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| self.graph.count(*role) > 0) {
            let mark = self.paint(style(role), symbol(role, self.look.unicode));
            words.push((mark, role.name().to_owned()));
        }
        if !self.graph.holds.is_empty() {
            let rail = if self.look.unicode { "┃" } else { "|" };
            words.push((self.paint(Style::new().cyan(), rail), "while frozen".to_owned()));
        }
        if self.brackets {
            let bracket = if self.look.unicode { "┌└" } else { "/\\" };
            words.push((self.dim(bracket), "side by side".to_owned()));
        }
        let width = self.look.width.unwrap_or(usize::MAX).saturating_sub(1);
        let mut lines = vec![String::from(" ")];
        for (mark, word) in words {
            let entry = format!(" {mark} {}", self.dim(&word));
            let last = lines.last().map_or(0, |line| measure_text_width(line));
            if last > 1 && last + 1 + measure_text_width(&entry) > width {
                lines.push(String::from(" "));
            }
            if let Some(line) = lines.last_mut() {
                if measure_text_width(line) > 1 {
                    line.push(' ');
                }
                line.push_str(&entry);
            }
        }
        lines
    }
}

fn side_by_side(one: &Node, other: &Node) -> bool {
    one.finally == other.finally && one.stage == other.stage
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(measure_text_width(text))))
}

fn symbol(role: Role, unicode: bool) -> &'static str {
    match (role, unicode) {
        (Role::Read, true) => "○",
        (Role::Write, true) => "●",
        (Role::Save, true) => "▣",
        (Role::Gate, true) => "◆",
        (Role::Freeze, true) => "❄",
        (Role::Lift, true) => "↺",
        (Role::Destroy, true) => "✖",
        (Role::Undetermined, _) => "?",
        (Role::Read, false) => "o",
        (Role::Write, false) => "+",
        (Role::Save, false) => "=",
        (Role::Gate, false) => "!",
        (Role::Freeze, false) => "*",
        (Role::Lift, false) => "~",
        (Role::Destroy, false) => "X",
    }
}

fn style(role: Role) -> Style {
    match role {
        Role::Read => Style::new(),
        Role::Write | Role::Undetermined => Style::new().yellow(),
        Role::Save => Style::new().green(),
        Role::Gate => Style::new().magenta(),
        Role::Freeze | Role::Lift => Style::new().cyan(),
        Role::Destroy => Style::new().red().bold(),
    }
}

#[cfg(test)]
mod tests {
    use runbook_engine::compile::compile;
    use runbook_steps::catalog::CATALOG;

    use super::*;

    /// Two freezes, one inside the other, beside a step that is not frozen.
    const NESTED: &str = r#"
runbook: nested
connections: { d: { type: directory, path: /tmp } }
collections: { c: { type: files, connection: d, pattern: "*" } }
limits: { max_items: 5 }
steps:
  - { id: outer, uses: freeze, needs: [], with: { env_file: { path: a, variable: A, value: "1" } } }
  - { id: side, uses: count, needs: [], with: { collections: [c] } }
  - { id: inner, uses: freeze, needs: [outer], with: { env_file: { path: b, variable: A, value: "1" } } }
  - { id: save, uses: snapshot, needs: [outer, inner], with: { collection: c } }
  - { id: ask, uses: confirm-prompt, with: { message: Sure?, phrases: [YES] } }
  - { id: purge, uses: delete-batch, needs: [ask, save], with: { collections: [c], keys: "${{ steps.save.outputs.manifest }}" } }
  - { id: thaw, uses: unfreeze, with: { freeze: inner } }
  - { id: lift, uses: unfreeze, with: { freeze: outer } }
finally:
  - { id: report, uses: report }
"#;

    fn drawn(text: &str, unicode: bool, width: Option<usize>) -> String {
        let (runbook, found) = compile(text, &CATALOG);
        let graph = Graph::of(&runbook.unwrap_or_else(|| panic!("{found:#?}")), &CATALOG);
        let lines = render(&graph, Look { colours: false, unicode, width });
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        lines.join("\n")
    }

    #[test]
    fn freezes_are_rails_and_what_runs_side_by_side_is_in_a_bracket() {
        let wanted = "  nested  9 steps

  ┏━━━┌ ❄ outer   freeze
  ┆   └ ○ side    count
  ┃ ┏━  ❄ inner   freeze          after outer
  ┃ ┃   ▣ save    snapshot        saves c
  ┃ ┃   ◆ ask     confirm-prompt  type YES
  ┃ ┃   ✖ purge   delete-batch    destroys c
  ┃ ┗━  ↺ thaw    unfreeze
  ┗━━━  ↺ lift    unfreeze

  finally
        ○ report  report

  ○ looks  ▣ saves  ◆ asks a person  ❄ freezes  ↺ lifts a freeze  ✖ destroys  ┃ while frozen  ┌└ side by side";
        assert_eq!(drawn(NESTED, true, None), wanted, "\n{}", drawn(NESTED, true, None));
        let ascii = drawn(NESTED, false, None);
        assert!(
            ascii.is_ascii() && ascii.contains("  | |   X purge   delete-batch    destroys c"),
            "{ascii}"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 30..90 {
            let text = drawn(NESTED, true, Some(width));
            let longest = text.lines().map(measure_text_width).max().unwrap_or(0);
            assert!(longest <= width, "{width} columns, {longest} wide:\n{text}");
            assert!(text.contains("destroys c") && text.contains("type YES"), "{text}");
        }
    }

    #[test]
    fn a_freeze_that_no_step_lifts_lasts_to_the_end() {
        let lifted_at_the_end = NESTED.replace(
            "{ id: lift, uses: unfreeze, with: { freeze: outer } }",
            "{ id: look, uses: count, with: { collections: [c] } }",
        );
        let text = drawn(&lifted_at_the_end, true, None);
        assert!(text.contains("  ┃     ○ look    count"), "{text}");
        assert!(text.contains("\n        ○ report  report"), "lifted before the final steps:\n{text}");
    }

    #[test]
    fn only_what_surely_runs_while_something_is_frozen_is_drawn_so() {
        let beside = NESTED.replace(
            "{ id: thaw, uses: unfreeze, with",
            "{ id: looks, uses: count, needs: [inner], with: { collections: [c] } }\n  - { id: thaw, uses: unfreeze, needs: [purge], with",
        );
        let text = drawn(&beside, true, None);
        assert!(text.contains("○ looks") && text.contains("✖ purge"), "{text}");
        let line = |text: &str, id: &str| text.lines().find(|line| line.contains(id)).unwrap().to_owned();
        assert!(line(&text, "✖ purge").starts_with("  ┃ ┃"), "{text}");
        assert!(line(&text, "○ looks").starts_with("  ┆ ┆"), "it may run beside `thaw` and `lift`:\n{text}");

        let may_fail = NESTED
            .replace("{ id: inner, uses: freeze,", "{ id: inner, uses: freeze, on_failure: continue,")
            .replace("{ id: purge, ", "{ id: purge, waive: { RB0516: it holds anyhow }, ");
        let text = drawn(&may_fail, true, None);
        assert!(line(&text, "✖ purge").starts_with("  ┃ ┆"), "{text}");
    }
}
