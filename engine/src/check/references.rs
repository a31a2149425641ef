//! Every expression can be read, and what it refers to exists and is known where it stands.

use std::ops::Range;

use super::places::{Place, all};
use super::shell::is_script;
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Node};
use crate::expr::{
    Analysis, ProblemKind, ROOTS, Reference, analyse, analyse_expression, is_template, unescape,
};
use crate::kinds::matches;
use crate::runbook::EACH;
use crate::suggest::{closest, did_you_mean, listed};

/// What a step offers beside its outputs.
const STEP_FIELDS: &[&str] = &["outputs", "status", "attempts", "started_at", "ended_at"];
/// What others call it.
const STEP_FIELDS_ELSEWHERE: &[(&str, &str)] = &[
    ("state", "status"),
    ("result", "status"),
    ("outcome", "status"),
    ("conclusion", "status"),
    ("success", "status"),
    ("failed", "status"),
    ("output", "outputs"),
    ("out", "outputs"),
    ("finished_at", "ended_at"),
    ("completed_at", "ended_at"),
    ("end", "ended_at"),
    ("start", "started_at"),
    ("retries", "attempts"),
];
/// What the names of credentials hold, among the settings that may hold a secret.
const CREDENTIALS: &[&str] =
    &["api_key", "apikey", "authorization", "cookie", "credential", "passw", "secret", "token"];
/// What is known of the run.
const RUN_FIELDS: &[&str] = &["id", "runbook", "definition", "created_at", "by", "cancelled"];

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let mut orders = Vec::new();
    for place in all(cx) {
        let mut rule = Rule { cx, place: &place, orders: &mut orders, problems };
        place.node.texts(&mut |pointer, node, text| rule.text(pointer, node, text));
        place.node.each_entry(&mut |entry| rule.key(entry));
    }
    // All at once, because one walk over the graph answers many of them.
    let pairs: Vec<(usize, usize)> = orders.iter().map(|order| (order.step, order.target)).collect();
    let known = cx.graph.ended_before(&pairs);
    let wrong = orders.into_iter().zip(known).filter(|(_, known)| !known);
    problems.extend(wrong.map(|(order, _)| not_upstream(cx, order)));
}

/// That a step refers to another, which must have ended before.
struct Order {
    step: usize,
    target: usize,
    span: Range<usize>,
}

struct Rule<'r, 'a> {
    cx: &'r Context<'a>,
    place: &'r Place<'a>,
    orders: &'r mut Vec<Order>,
    problems: &'r mut Vec<Diagnostic>,
}

impl Rule<'_, '_> {
    fn text(&mut self, pointer: &str, node: &Node, text: &str) {
        let analysis = if is_template(text) {
            analyse(text)
        } else if self.place.condition {
            analyse_expression(text)
        } else {
            self.written_secret(pointer, node, text);
            return self.braces(node, text);
        };
        let code = matches(pointer, self.place.code) || is_script(self.place.node, pointer);
        if code && is_template(text) {
            self.code(node, &analysis);
        }
        for problem in &analysis.problems {
            let code = match problem.kind {
                ProblemKind::Syntax => codes::EXPRESSION,
                ProblemKind::UnknownFunction => codes::FUNCTION,
                ProblemKind::UnknownVariable => codes::VARIABLE,
            };
            let span = self.span(node, problem.span.clone());
            let mut diagnostic = Diagnostic::error(code, span, problem.message.clone());
            let name = text.get(problem.span.clone()).filter(|_| code == codes::VARIABLE);
            diagnostic.help = name.and_then(|name| self.rooted(name)).or_else(|| problem.help.clone());
            self.problems.push(diagnostic);
        }
        for reference in &analysis.references {
            match reference.root.as_str() {
                "inputs" => self.input(node, reference),
                "secrets" => self.secret(node, reference, pointer),
                "run" => self.run(node, reference),
                "steps" => self.step(node, reference),
                _ => {}
            }
        }
    }

    /// What was meant by a name that is declared, and written without where it comes from.
    fn rooted(&self, name: &str) -> Option<String> {
        let runbook = self.cx.runbook;
        if runbook.inputs.iter().any(|input| input.name.value == name) {
            return Some(format!("write `inputs.{name}`"));
        }
        if runbook.secrets.iter().any(|secret| secret.name.value == name) {
            return Some(format!("write `secrets.{name}`"));
        }
        if self.cx.graph.find(name).is_some() {
            return Some(format!("write `steps.{name}.outputs.NAME`"));
        }
        let help = match name {
            "env" => "the environment is not read: declare an input, or a secret with `env: VARIABLE`",
            "vars" | "params" | "parameters" | "var" => "write `inputs.NAME`",
            "needs" | "jobs" | "tasks" => "write `steps.ID.outputs.NAME`",
            "github" | "workflow" | "context" => {
                "of the run there are `run.id`, `run.runbook`, `run.definition`, `run.created_at`, `run.by` and `run.cancelled`; anything else is an input"
            }
            "item" | "items" | "matrix" | "each" | "loop" => EACH,
            _ => return None,
        };
        Some(help.to_owned())
    }

    fn key(&mut self, entry: &Entry) {
        if is_template(&entry.key) {
            let help = "write the key out; an expression may give the value".to_owned();
            self.error(
                codes::REFERENCE,
                entry.key_span.clone(),
                "a key can hold no expression".to_owned(),
                help,
            );
        }
    }

    fn span(&self, node: &Node, part: Range<usize>) -> Range<usize> {
        node.place(&self.cx.runbook.source, part)
    }

    fn error(
        &mut self,
        code: &'static str,
        span: Range<usize>,
        message: String,
        help: impl Into<Option<String>>,
    ) {
        let mut diagnostic = Diagnostic::error(code, span, message);
        diagnostic.help = help.into();
        self.problems.push(diagnostic);
    }

    /// The place of one name of a reference, or of the whole.
    fn part(&self, node: &Node, reference: &Reference, at: usize) -> Range<usize> {
        let part = reference.path.get(at).map_or(reference.span.clone(), |segment| segment.span.clone());
        self.span(node, part)
    }

    /// `{{ inputs.x }}`: surely an expression was meant.
    fn braces(&mut self, node: &Node, text: &str) {
        for (open, _) in text.match_indices("${") {
            let inner = &text[open + 2..];
            let Some(length) = inner.find('}') else { continue };
            if ROOTS.iter().any(|root| inner.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))) {
                let span = self.span(node, open..open + 3 + length);
                let help = format!("write `${{{{ {} }}}}`", &inner[..length]);
                let message = "this is text: an expression begins with `${{`";
                self.problems.push(Diagnostic::warning(codes::BRACES, span, message).help(help));
            }
        }
        for (open, _) in text.match_indices("{{") {
            let inner = text[open + 2..].trim_start();
            let Some(length) = text[open..].find("}}") else { continue };
            if !ROOTS.iter().any(|root| inner.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))) {
                continue;
            }
            let part = open..open + length + 2;
            let help = format!("write `${}`", &text[part.clone()]);
            let span = self.span(node, part);
            let message = "this is text: an expression begins with `${{`";
            self.problems.push(Diagnostic::warning(codes::BRACES, span, message).help(help));
        }
    }

    /// A credential that everybody can read who can read the file.
    fn written_secret(&mut self, pointer: &str, node: &Node, text: &str) {
        let key = unescape(pointer.rsplit('/').next().unwrap_or_default());
        let name = key.to_lowercase().replace('-', "_");
        if text.is_empty()
            || !matches(pointer, self.place.secrets)
            || !CREDENTIALS.iter().any(|word| name.contains(word))
        {
            return;
        }
        let message = format!("`{key}` is written out in {}", self.place.what);
        let help =
            "declare it below `secrets`, as in `key: { env: API_KEY }`, and write `${{ secrets.key }}` here";
        self.problems.push(Diagnostic::warning(codes::WRITTEN_SECRET, node.span.clone(), message).help(help));
    }

    fn code(&mut self, node: &Node, analysis: &Analysis) {
        let part = analysis.references.first().map(|reference| reference.span.clone());
        let span = part.map_or(node.span.clone(), |part| self.span(node, part));
        let help = "hand the value over as data: a variable of `env`, an argument after the script, one of the `parameters` of a statement, or one of the `values` of a query";
        let message = "no expression may be pasted into code of another language".to_owned();
        self.error(codes::CODE_FIELD, span, message, help.to_owned());
    }

    fn input(&mut self, node: &Node, reference: &Reference) {
        let names = || self.cx.runbook.inputs.iter().map(|input| input.name.value.as_str());
        let Some(name) = reference.name(0) else { return self.incomplete(node, reference, "inputs.NAME") };
        if !names().any(|known| known == name) && !self.cx.runbook.unread.contains(name) {
            let help = did_you_mean(name, names())
                .unwrap_or_else(|| format!("declare it: `inputs: {{ {name}: {{ type: string }} }}`"));
            let span = self.part(node, reference, 0);
            self.error(codes::UNKNOWN_INPUT, span, format!("there is no input `{name}`"), help);
        }
    }

    fn secret(&mut self, node: &Node, reference: &Reference, pointer: &str) {
        let Some(name) = reference.name(0) else { return self.incomplete(node, reference, "secrets.NAME") };
        let names = || self.cx.runbook.secrets.iter().map(|secret| secret.name.value.as_str());
        if !names().any(|known| known == name) && !self.cx.runbook.unread.contains(name) {
            let help = did_you_mean(name, names()).unwrap_or_else(|| {
                format!("declare it: `secrets: {{ {name}: {{ env: {} }} }}`", name.to_uppercase())
            });
            let span = self.part(node, reference, 0);
            self.error(codes::UNKNOWN_SECRET, span, format!("there is no secret `{name}`"), help);
        }
        if !matches(pointer, self.place.secrets) {
            let dotted = |pointer: &str| unescape(&pointer.trim_start_matches('/').replace('/', "."));
            let help = if self.place.secrets.is_empty() {
                "secrets belong into the credentials of a connection".to_owned()
            } else {
                let allowed: Vec<String> = self.place.secrets.iter().map(|one| dotted(one)).collect();
                format!("a secret may stand in {}", listed(allowed.iter().map(String::as_str)))
            };
            let span = self.span(node, reference.span.clone());
            // An alias is shown where it was first written, so the message says where it stands.
            let at = if pointer.is_empty() { String::new() } else { format!("`{}` in ", dotted(pointer)) };
            let message = format!("the secret `{name}` could leak from {at}{}", self.place.what);
            self.error(codes::SECRET, span, message, help);
        }
    }

    fn run(&mut self, node: &Node, reference: &Reference) {
        if self.place.step.is_none() {
            return self.not_yet(node, reference);
        }
        match reference.name(0) {
            Some(name) if !RUN_FIELDS.contains(&name) => {
                let span = self.part(node, reference, 0);
                let help = field_help(name, RUN_FIELDS);
                self.error(codes::UNKNOWN_OUTPUT, span, format!("a run has no `{name}`"), help);
            }
            Some(_) => {}
            None => self.incomplete(node, reference, "run.id"),
        }
    }

    fn not_yet(&mut self, node: &Node, reference: &Reference) {
        let span = self.span(node, reference.span.clone());
        let message = format!("{} is fixed before the run begins and can use only inputs", self.place.what);
        let help = "take an input; what a run or a step comes to is known only later".to_owned();
        self.error(codes::REFERENCE, span, message, help);
    }

    /// A whole root, which would hand everything below it on.
    fn incomplete(&mut self, node: &Node, reference: &Reference, full: &str) {
        let span = self.span(node, reference.span.clone());
        let message = if reference.dynamic {
            format!("the name after `{}` must be written out", reference.root)
        } else {
            format!("`{}` alone is no value", reference.root)
        };
        self.error(codes::REFERENCE, span, message, format!("write `{full}`"));
    }

    fn step(&mut self, node: &Node, reference: &Reference) {
        let Some(at) = self.place.step else { return self.not_yet(node, reference) };
        let Some(id) = reference.name(0) else {
            return self.incomplete(node, reference, "steps.ID.outputs.NAME");
        };
        let Some(target) = self.cx.graph.find(id) else {
            if self.cx.runbook.unread.contains(id) {
                return;
            }
            let ids = self.cx.graph.steps.iter().map(|step| step.id.value.as_str());
            let help =
                did_you_mean(id, ids.clone()).unwrap_or_else(|| format!("the steps are {}", listed(ids)));
            let span = self.part(node, reference, 0);
            return self.error(codes::UNKNOWN_STEP, span, format!("there is no step `{id}`"), help);
        };
        let span = self.span(node, reference.span.clone());
        self.orders.push(Order { step: at, target, span });
        self.output(node, reference, target);
    }

    fn output(&mut self, node: &Node, reference: &Reference, target: usize) {
        let step = self.cx.graph.steps[target];
        let id = &step.id.value;
        let Some(field) = reference.name(1) else {
            if !reference.dynamic {
                self.incomplete(node, reference, &format!("steps.{id}.outputs.NAME"));
            }
            return;
        };
        let outputs = self.cx.outputs.get(step.uses.value.as_str());
        let names: Option<Vec<&str>> = outputs
            .and_then(|schema| schema.get("properties")?.as_object())
            .map(|properties| properties.keys().map(String::as_str).collect());
        let names = names.unwrap_or_default();
        if !STEP_FIELDS.contains(&field) {
            let span = self.part(node, reference, 1);
            let help = if names.contains(&field) {
                format!("write `steps.{id}.outputs.{field}`")
            } else if let Some((_, ours)) = STEP_FIELDS_ELSEWHERE.iter().find(|(other, _)| *other == field) {
                format!("write `steps.{id}.{ours}`")
            } else {
                did_you_mean(field, STEP_FIELDS.iter().copied())
                    .unwrap_or_else(|| format!("what the step came to stands below `steps.{id}.outputs`"))
            };
            let message = format!("a step has no `{field}`, only {}", listed(STEP_FIELDS.iter().copied()));
            return self.error(codes::UNKNOWN_OUTPUT, span, message, help);
        }
        let open = outputs.is_some_and(|schema| {
            schema.get("additionalProperties").is_some_and(|more| *more != serde_json::Value::Bool(false))
        });
        let known = outputs.is_some() && !open;
        if let (true, "outputs", Some(name)) = (known, field, reference.name(2))
            && !names.contains(&name)
        {
            let span = self.part(node, reference, 2);
            let help = if names.is_empty() {
                format!("`{}` has no outputs", step.uses.value)
            } else {
                field_help(name, &names)
            };
            let message = format!("step `{id}` (`{}`) has no output `{name}`", step.uses.value);
            self.error(codes::UNKNOWN_OUTPUT, span, message, help);
        }
    }
}

fn not_upstream(cx: &Context<'_>, order: Order) -> Diagnostic {
    let (own, other) = (&cx.graph.steps[order.step].id, &cx.graph.steps[order.target].id);
    if order.step == order.target {
        return Diagnostic::error(
            codes::NOT_UPSTREAM,
            order.span,
            format!("`{}` refers to itself", own.value),
        )
        .help("what a step comes to is known only when it has ended");
    }
    let message = format!("`{}` may not have ended when `{}` starts", other.value, own.value);
    Diagnostic::error(codes::NOT_UPSTREAM, order.span, message)
        .also(other.span.clone(), "this step")
        .help(format!("let `{}` need `{}`, directly or through other steps", own.value, other.value))
}

fn field_help(name: &str, all: &[&str]) -> String {
    closest(name, all.iter().copied()).map_or_else(
        || format!("there are {}", listed(all.iter().copied())),
        |close| format!("did you mean `{close}`?"),
    )
}
