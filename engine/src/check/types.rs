//! What an expression comes to fits where it stands, as far as that is known before the run.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use schemars::schema_for;
use serde_json::{Value, json};

use super::shapes::{Shape, Types};
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::{Kind, Node};
use crate::duration::Duration;
use crate::expr::{
    Outcome, Part, Reference, analyse, analyse_expression, is_template, outcomes, split, unescape, whole,
};
use crate::plan::{Limits, OnFailure, Retry};
use crate::runbook::{Input, InputKind, Resource, Setting};
use crate::suggest::{closest, listed};

/// The key of a step's condition, an expression also without `${{ }}`.
const CONDITION: &str = "if";

/// Whose schema it is: kinds of different sorts may have one name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Engine,
    Connection,
    Collection,
    Step,
}

type Key<'c> = (Of, &'c str);

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let mut schemas = schemas_of_the_engine();
    for (key, setting) in places(cx) {
        if !schemas.contains_key(&key)
            && let Some(schema) = schema(cx, key)
        {
            schemas.insert(key, schema);
        }
        let Some(schema) = schemas.get(&key) else { continue };
        let mut rule = Rule { cx, what: format!("`{}`", key.1), schema, root: &setting.node, problems };
        rule.value(&setting.node, &mut String::new());
    }
}

fn schemas_of_the_engine<'c>() -> HashMap<Key<'c>, Value> {
    let all = [
        ("limits", schema_for!(Limits).to_value()),
        ("retry", schema_for!(Retry).to_value()),
        ("timeout", schema_for!(Duration).to_value()),
        ("on_failure", schema_for!(OnFailure).to_value()),
        ("lock", json!({ "type": "string" })),
        ("name", json!({ "type": "string" })),
        ("max_parallel", json!({ "type": "integer" })),
        (CONDITION, json!({ "type": "boolean" })),
    ];
    all.into_iter().map(|(name, schema)| ((Of::Engine, name), schema)).collect()
}

/// The schema of a kind's settings.
fn schema(cx: &Context<'_>, (of, name): Key<'_>) -> Option<Value> {
    let config = match of {
        Of::Engine => return None,
        Of::Connection => super::kinds::find(cx.catalog.connections, name)?.config,
        Of::Collection => super::kinds::find(cx.catalog.collections, name)?.config,
        Of::Step => cx.catalog.step(name)?.config,
    };
    Some(config().to_value())
}

/// Every setting, and whose schema it has.
fn places<'c>(cx: &'c Context<'_>) -> Vec<(Key<'c>, &'c Setting)> {
    let runbook = cx.runbook;
    let mut places = Vec::new();
    let mut own = |all: &[(&'static str, &'c Option<Setting>)]| {
        let set = all.iter().filter_map(|(name, setting)| Some(((Of::Engine, *name), setting.as_ref()?)));
        places.extend(set);
    };
    own(&[("limits", &runbook.limits), ("lock", &runbook.lock), ("max_parallel", &runbook.max_parallel)]);
    for step in cx.graph.steps.iter().copied() {
        own(&[
            ("name", &step.name),
            (CONDITION, &step.condition),
            ("retry", &step.retry),
            ("timeout", &step.timeout),
            ("on_failure", &step.on_failure),
            ("limits", &step.limits),
        ]);
    }
    let resource = |of: Of| move |one: &'c Resource| ((of, one.kind.value.as_str()), &one.settings);
    places.extend(runbook.connections.iter().map(resource(Of::Connection)));
    places.extend(runbook.collections.iter().map(resource(Of::Collection)));
    places.extend(cx.graph.steps.iter().map(|step| ((Of::Step, step.uses.value.as_str()), &step.with)));
    places
}

struct Rule<'r, 'c> {
    cx: &'r Context<'c>,
    /// What the setting is, for messages.
    what: String,
    schema: &'r Value,
    /// The whole setting.
    root: &'r Node,
    problems: &'r mut Vec<Diagnostic>,
}

impl<'r> Rule<'r, '_> {
    fn value(&mut self, node: &Node, pointer: &mut String) {
        let length = pointer.len();
        match &node.kind {
            Kind::String(text) => self.text(node, text, pointer),
            Kind::Number(number) => self.number(node, &number.to_string(), pointer),
            Kind::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    pointer.push_str(&format!("/{at}"));
                    self.value(item, pointer);
                    pointer.truncate(length);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    pointer.push('/');
                    pointer.push_str(&crate::expr::escape(&entry.key));
                    self.value(&entry.value, pointer);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }

    /// A number that becomes a text, and does not look as it is written then.
    fn number(&mut self, node: &Node, number: &str, pointer: &str) {
        let text = Types::STRING;
        let wanted = Shape::new(self.schema).at(pointer).and_then(Shape::types);
        if !wanted.is_some_and(|wanted| wanted.fits(text) && wanted.fits(Types::NUMBER)) {
            return;
        }
        let Some(written) = self.cx.runbook.source.get(node.span.clone()) else { return };
        // `Display` of a float leaves `.0` out, and that is how it is handed on.
        let shown = number.parse::<f64>().map_or(number.to_owned(), |float| match number.parse::<i64>() {
            Ok(_) => number.to_owned(),
            Err(_) => float.to_string(),
        });
        if written != shown
            && written.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.')
        {
            let message = format!("`{written}` is a number here, and is handed on as the text `{shown}`");
            self.problems.push(
                Diagnostic::warning(codes::NUMBER, node.span.clone(), message)
                    .help(format!("write \"{written}\", or {shown}")),
            );
        }
    }

    fn text(&mut self, node: &Node, text: &str, pointer: &str) {
        let condition = self.what == "`if`" && pointer.is_empty();
        let template = is_template(text);
        if !template && !condition {
            return;
        }
        let analysis = if template { analyse(text) } else { analyse_expression(text) };
        if !analysis.problems.is_empty() {
            return;
        }
        for reference in &analysis.references {
            self.path(node, reference);
        }
        let source = if template { whole(text) } else { Some((text, 0)) };
        let Some((source, start)) = source else { return self.parts(node, text, pointer) };
        let Some(wanted) = Shape::new(self.schema).at(pointer).and_then(Shape::types) else { return };
        let Some(got) = self.come_to(source) else { return };
        if !got.fits(wanted) {
            let start = start + source.len() - source.trim_start().len();
            let source = source.trim();
            let span = node.place(&self.cx.runbook.source, start..start + source.len());
            let reference = analysis.references.first();
            let alone = reference.filter(|one| text.get(one.span.clone()) == Some(source));
            self.misfit(pointer, span, (&format!("`{source}`"), got), wanted, alone);
        }
    }

    /// A text with expressions in it.
    fn parts(&mut self, node: &Node, text: &str, pointer: &str) {
        for part in split(text).unwrap_or_default() {
            let Part::Expr(source, start) = part else { continue };
            let Some(got) = self.come_to(source) else { continue };
            if got.fits(Types::STRING | Types::NUMBER | Types::BOOLEAN)
                || !got.fits(Types::ARRAY | Types::MAP)
            {
                continue;
            }
            let start = start + source.len() - source.trim_start().len();
            let source = source.trim();
            let span = node.place(&self.cx.runbook.source, start..start + source.len());
            let message = format!("`{source}` is {}, and stands inside of a text", got.describe());
            let help = if got.fits(Types::ARRAY) {
                format!("write `{source} | join(' ')`")
            } else {
                format!("write `{source} | to_json`, or name a part of it")
            };
            self.problems.push(Diagnostic::error(codes::TYPE, span, message).help(help));
        }
        let wanted = Shape::new(self.schema).at(pointer).and_then(Shape::types);
        if let Some(wanted) = wanted.filter(|wanted| !Types::STRING.fits(*wanted)) {
            let name = "a text with an expression in it";
            self.misfit(pointer, node.span.clone(), (name, Types::STRING), wanted, None);
        }
    }

    /// The types that an expression can come to, when they are known.
    fn come_to(&self, source: &str) -> Option<Types> {
        let mut all: Option<Types> = None;
        for outcome in outcomes(source)? {
            let types = match outcome {
                Outcome::Null => return None,
                Outcome::Boolean => Types::BOOLEAN,
                Outcome::Integer => Types::INTEGER,
                Outcome::Number => Types::NUMBER,
                Outcome::Text => Types::STRING,
                Outcome::List => Types::ARRAY,
                Outcome::Map => Types::MAP,
                Outcome::Reference(names) => self.types(&names)?,
            };
            all = Some(all.map_or(types, |all| all | types));
        }
        all
    }

    fn misfit(
        &mut self,
        pointer: &str,
        span: Range<usize>,
        (name, got): (&str, Types),
        wanted: Types,
        reference: Option<&Reference>,
    ) {
        let key = pointer.rsplit('/').find(|name| !name.is_empty() && name.parse::<usize>().is_err());
        let of = key.map_or(self.what.clone(), |key| format!("`{}` of {}", unescape(key), self.what));
        let message = if name.starts_with('`') {
            format!("{of} must be {}, and {name} is {}", wanted.describe(), got.describe())
        } else {
            format!("{of} must be {}, and this is {name}", wanted.describe())
        };
        let mut problem = Diagnostic::error(codes::TYPE, span, message);
        problem.help = reference
            .and_then(|reference| self.fitting(reference, wanted))
            .or_else(|| self.converted(pointer, name, got, wanted));
        self.problems.push(problem);
    }

    /// How a value becomes what is wanted.
    fn converted(&self, pointer: &str, name: &str, got: Types, wanted: Types) -> Option<String> {
        if !name.starts_with('`') {
            return None;
        }
        let name = name.trim_matches('`');
        if wanted.fits(Types::BOOLEAN) && !wanted.fits(Types::STRING) && got != Types::MAP {
            return Some(if got.fits(Types::NUMBER) {
                format!("compare it: `{name} > 0`")
            } else {
                format!("compare it: `{name} == …`, or `{name} | length > 0` of a list or a text")
            });
        }
        if got == Types::ARRAY && wanted.fits(Types::STRING) {
            return Some(
                self.as_items(pointer, name).unwrap_or_else(|| format!("write `{name} | join(' ')`")),
            );
        }
        let text = wanted.fits(Types::STRING) && got.fits(Types::NUMBER | Types::BOOLEAN);
        let duration = Shape::new(self.schema).at(pointer).is_some_and(Shape::is_duration);
        match (text, duration) {
            (true, true) => Some(format!("a duration has a unit: write \"${{{{ {name} }}}}s\"")),
            (true, false) => Some(format!("write `{name} | string`")),
            _ => None,
        }
    }

    /// How the items of a list come into the list in which it stands as one item.
    fn as_items(&self, pointer: &str, name: &str) -> Option<String> {
        let (parent, at) = pointer.rsplit_once('/')?;
        let at: usize = at.parse().ok()?;
        let Kind::List(items) = &self.root.at(parent)?.kind else { return None };
        let key = parent.rsplit('/').find(|name| !name.is_empty() && name.parse::<usize>().is_err())?;
        let plain = |node: &Arc<Node>| match &node.kind {
            Kind::String(text) if is_template(text) => {
                let (source, _) = whole(text)?;
                Some(source.trim().to_owned())
            }
            Kind::String(text) if !text.contains(['\'', '\\', '"', '\n']) => Some(format!("'{text}'")),
            Kind::Number(number) => Some(format!("'{number}'")),
            _ => None,
        };
        let listed = |items: &[Arc<Node>]| -> Option<String> {
            let items: Option<Vec<String>> = items.iter().map(plain).collect();
            Some(format!("[{}]", items?.join(", ")))
        };
        let parts = [listed(&items[..at]), Some(name.to_owned()), listed(items.get(at + 1..)?)];
        // What can not be written inside of an expression, inside of quotes, is left to the author.
        let parts = parts.map(|part| part.unwrap_or_else(|| "[…]".to_owned()));
        let parts: Vec<String> = parts.into_iter().filter(|part| part != "[]").collect();
        Some(format!("write `{}: \"${{{{ {} }}}}\"`", unescape(key), parts.join(" + ")))
    }

    /// The outputs of the same step that would fit.
    fn fitting(&self, reference: &Reference, wanted: Types) -> Option<String> {
        let id = reference.name(0).filter(|_| reference.root == "steps" && reference.path.len() == 3)?;
        let outputs = self.outputs(id)?;
        let shape = Shape::new(outputs);
        let fitting: Vec<&str> = shape
            .names()?
            .into_iter()
            .filter(|name| shape.below(name).and_then(Shape::types).is_some_and(|types| types.fits(wanted)))
            .collect();
        if fitting.is_empty() || fitting.len() > 4 {
            return None;
        }
        Some(format!("of the outputs of `{id}`, {} would fit", listed(fitting)))
    }

    fn outputs(&self, id: &str) -> Option<&'r Value> {
        let step = self.cx.graph.steps[self.cx.graph.find(id)?];
        self.cx.outputs.get(step.uses.value.as_str())
    }

    fn input(&self, name: &str) -> Option<&Input> {
        self.cx.runbook.inputs.iter().find(|input| input.name.value == name)
    }

    /// The types that a reference can come to, when they are known.
    fn types(&self, names: &[String]) -> Option<Types> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (root, names) = names.split_first()?;
        match (*root, names) {
            ("inputs", [name]) => Some(types_of(self.input(name)?.kind)),
            ("inputs", [name, index]) if index.parse::<usize>().is_ok() => {
                let input = self.input(name).filter(|input| input.kind == InputKind::List)?;
                Some(types_of(input.items))
            }
            ("steps", [_, "attempts"]) => Some(Types::INTEGER),
            ("run", ["cancelled"]) => Some(Types::BOOLEAN),
            ("steps", [_, "status" | "started_at" | "ended_at"]) | ("run" | "secrets", [_]) => {
                Some(Types::STRING)
            }
            ("steps", [id, "outputs", rest @ ..]) if !rest.is_empty() => {
                let outputs = self.outputs(id)?;
                rest.iter().try_fold(Shape::new(outputs), |shape, name| shape.below(name))?.types()
            }
            _ => None,
        }
    }

    /// A name below something that has no such part.
    fn path(&mut self, node: &Node, reference: &Reference) {
        let segments = reference.path.as_slice();
        match (reference.root.as_str(), segments) {
            ("inputs", [name, below, ..]) => {
                let Some(input) = self.input(&name.name) else { return };
                if types_of(input.kind).is_scalar() {
                    let message = format!(
                        "the input `{}` is {}, and has no `{}`",
                        name.name,
                        input.kind.with_article(),
                        below.name
                    );
                    self.no_part(node, below.span.clone(), message, None);
                }
            }
            ("steps", [id, outputs, first, rest @ ..]) if outputs.name == "outputs" => {
                let Some(all) = self.outputs(&id.name) else { return };
                let mut shape = Shape::new(all).below(&first.name);
                let mut above = first;
                for segment in rest {
                    let Some(here) = shape else { return };
                    let names = here.names().filter(|names| !names.contains(&segment.name.as_str()));
                    if here.types().is_some_and(Types::is_scalar) {
                        let is = here.types().map(Types::describe).unwrap_or_default();
                        let message = format!("`{}` is {is}, and has no `{}`", above.name, segment.name);
                        return self.no_part(node, segment.span.clone(), message, None);
                    } else if let Some(names) =
                        names.filter(|_| !here.types().is_some_and(|types| types.fits(Types::ARRAY)))
                    {
                        let help = closest(&segment.name, names.iter().copied()).map_or_else(
                            || format!("there are {}", listed(names.iter().copied())),
                            |close| format!("did you mean `{close}`?"),
                        );
                        let message = format!("`{}` has no `{}`", above.name, segment.name);
                        return self.no_part(node, segment.span.clone(), message, Some(help));
                    }
                    shape = here.below(&segment.name);
                    above = segment;
                }
            }
            _ => {}
        }
    }

    fn no_part(&mut self, node: &Node, part: Range<usize>, message: String, help: Option<String>) {
        let span = node.place(&self.cx.runbook.source, part);
        self.problems.push(Diagnostic { help, ..Diagnostic::error(codes::UNKNOWN_OUTPUT, span, message) });
    }
}

fn types_of(kind: InputKind) -> Types {
    match kind {
        InputKind::String | InputKind::Url | InputKind::Path | InputKind::Duration => Types::STRING,
        InputKind::Integer => Types::INTEGER,
        InputKind::Number => Types::NUMBER,
        InputKind::Boolean => Types::BOOLEAN,
        InputKind::List => Types::ARRAY,
    }
}
