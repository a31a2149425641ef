//! The declaration of an input.

use regex::Regex;
use serde_json::Value;

use super::fields::{Fields, Keys, written_out, wrong};
use super::lower::name_of;
use super::{Input, InputKind, Pattern};
use crate::check::codes;
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Kind, Node};
use crate::expr::is_template;
use crate::suggest::{did_you_mean, listed};

static INPUT: Keys = Keys {
    what: "an input",
    known: &["type", "description", "required", "default", "enum", "minimum", "maximum", "pattern", "items"],
    needed: &[("type", "type: string")],
    others: &[
        ("min", "write `minimum`"),
        ("max", "write `maximum`"),
        ("minLength", "write `pattern`, or `minimum` for a list"),
        ("options", "write `enum`"),
        ("choices", "write `enum`"),
        ("values", "write `enum`"),
        ("regex", "write `pattern`"),
        ("optional", "write `required: false`"),
        ("value", "write `default`"),
        ("env", "an input is given with `-i name=value`; what is read from the environment is a secret"),
        ("secret", "declare it below `secrets`"),
    ],
};

pub(super) fn input(entry: &Entry, problems: &mut Vec<Diagnostic>) -> Option<Input> {
    let fields = Fields::of(&entry.value, &INPUT, problems)?;
    let kind = kind(&fields, "type", InputKind::NAMES, problems)?;
    let items = match fields.get("items") {
        Some(items) if kind != InputKind::List => {
            let message = format!("`items` is for a list, and this is {}", kind.with_article());
            problems.push(Diagnostic::error(codes::INPUT, items.key_span.clone(), message));
            InputKind::String
        }
        Some(_) => kind_of_items(&fields, problems)?,
        None => InputKind::String,
    };
    let default = fields.get("default");
    let required = match fields.get("required").map(|entry| (&entry.value.kind, entry)) {
        None => default.is_none(),
        Some((Kind::Bool(required), _)) => *required && default.is_none(),
        Some((_, entry)) => {
            problems.push(wrong(&entry.value, "`required`", "true or false"));
            false
        }
    };
    let mut input = Input {
        name: name_of(entry),
        kind,
        items,
        description: fields.text("description", problems).map(|text| text.value).unwrap_or_default(),
        required,
        default: default.map_or(Value::Null, |entry| entry.value.to_json()),
        choices: Vec::new(),
        minimum: None,
        maximum: None,
        pattern: pattern(&fields, kind, items, problems),
    };
    input.minimum = bound(&fields, "minimum", &input, problems);
    input.maximum = bound(&fields, "maximum", &input, problems);
    input.choices = choices(&fields, &input, problems);
    if let (Some(minimum), Some(maximum)) = (&input.minimum, &input.maximum)
        && input.size(minimum) > input.size(maximum)
        && let Some(entry) = fields.get("minimum")
    {
        let message = "`minimum` is greater than `maximum`: no value fits";
        problems.push(Diagnostic::error(codes::INPUT, entry.value.span.clone(), message));
    }
    if let Some(default) = default.filter(|default| default.value.kind != Kind::Null) {
        check_default(&mut input, default, problems);
    }
    Some(input)
}

/// Whether there is an expression in what an input is declared with; each is written down.
fn holds_expression(entry: &Entry, problems: &mut Vec<Diagnostic>) -> bool {
    let before = problems.len();
    entry.value.texts(&mut |_, node, text| {
        if is_template(text) {
            problems.push(written_out(node, &entry.key));
        }
    });
    problems.len() > before
}

fn check_default(input: &mut Input, default: &Entry, problems: &mut Vec<Diagnostic>) {
    if holds_expression(default, problems) {
        return;
    }
    match input.accept(&input.default) {
        Ok(value) => input.default = value,
        Err(why) => {
            let message = format!("the default of `{}` breaks its own rules: {why}", input.name.value);
            // Of a list, the item that is at fault.
            let item = match &default.value.kind {
                Kind::List(items) if input.kind == InputKind::List => {
                    items.iter().find(|item| input.accept_item(&item.to_json()).is_err())
                }
                _ => None,
            };
            let node = item.unwrap_or(&default.value);
            let kind = if item.is_some() { input.items } else { input.kind };
            let mut problem = Diagnostic::error(codes::DEFAULT, node.span.clone(), message);
            problem.help = meant(node, kind);
            problems.push(problem);
        }
    }
}

fn kind(
    fields: &Fields<'_>,
    key: &str,
    names: &'static [&'static str],
    problems: &mut Vec<Diagnostic>,
) -> Option<InputKind> {
    let name = fields.needed_text(key, problems)?;
    if let Some(kind) = InputKind::named(&name.value).filter(|_| names.contains(&name.value.as_str())) {
        return Some(kind);
    }
    let help = match name.value.as_str() {
        "int" | "long" => Some("write `integer`".to_owned()),
        "str" | "text" => Some("write `string`".to_owned()),
        "bool" => Some("write `boolean`".to_owned()),
        "float" | "double" | "decimal" => Some("write `number`".to_owned()),
        "array" | "set" => Some("write `list`".to_owned()),
        "file" | "dir" | "directory" => Some("write `path`".to_owned()),
        other => did_you_mean(other, names.iter().copied()),
    };
    let help = help.unwrap_or_else(|| format!("the types are {}", listed(names.iter().copied())));
    let message = format!("there is no type `{}`", name.value);
    problems.push(Diagnostic::error(codes::INPUT, name.span, message).help(help));
    None
}

fn kind_of_items(fields: &Fields<'_>, problems: &mut Vec<Diagnostic>) -> Option<InputKind> {
    let scalars = &InputKind::NAMES[..InputKind::NAMES.len() - 1];
    if let Some(entry) = fields.get("items")
        && let Some(name) = entry.value.entry("type").and_then(|entry| entry.value.as_str())
    {
        problems.push(
            wrong(&entry.value, "`items`", "the name of a type").help(format!("write `items: {name}`")),
        );
        return None;
    }
    kind(fields, "items", scalars, problems)
}

fn pattern(
    fields: &Fields<'_>,
    kind: InputKind,
    items: InputKind,
    problems: &mut Vec<Diagnostic>,
) -> Option<Pattern> {
    let text = fields.text("pattern", problems)?;
    let of = if kind == InputKind::List { items } else { kind };
    if !matches!(of, InputKind::String | InputKind::Url | InputKind::Path) {
        let message = format!("`pattern` is for texts, and this is {}", of.with_article());
        problems.push(Diagnostic::error(codes::INPUT, text.span, message));
        return None;
    }
    match Regex::new(&format!("^(?:{})$", text.value)) {
        Ok(regex) => Some(Pattern { text: text.value, regex }),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            problems.push(Diagnostic::error(
                codes::INPUT,
                text.span,
                format!("this is no regular expression: {why}"),
            ));
            None
        }
    }
}

fn bound(fields: &Fields<'_>, key: &str, input: &Input, problems: &mut Vec<Diagnostic>) -> Option<Value> {
    let entry = fields.get(key).filter(|entry| !holds_expression(entry, problems))?;
    let value = entry.value.to_json();
    let wanted = match input.kind {
        InputKind::Integer | InputKind::Number if value.is_number() => return Some(value),
        InputKind::List if value.is_u64() => return Some(value),
        InputKind::Duration if input.size(&value).is_some() => return Some(value),
        InputKind::Integer | InputKind::Number => "a number",
        InputKind::List => "a whole number, since it bounds the length",
        InputKind::Duration => "a duration such as 5m",
        other => {
            let message =
                format!("`{key}` is for numbers, durations and lists, and this is {}", other.with_article());
            let mut problem = Diagnostic::error(codes::INPUT, entry.key_span.clone(), message);
            if matches!(other, InputKind::String | InputKind::Url | InputKind::Path) {
                problem = problem.help("a text is bounded by a pattern, such as `pattern: \".{3,20}\"`");
            }
            problems.push(problem);
            return None;
        }
    };
    let message = format!("`{key}` of {} must be {wanted}", input.kind.with_article());
    problems.push(Diagnostic::error(codes::INPUT, entry.value.span.clone(), message));
    None
}

fn choices(fields: &Fields<'_>, input: &Input, problems: &mut Vec<Diagnostic>) -> Vec<Value> {
    let Some(entry) = fields.get("enum") else { return Vec::new() };
    let Kind::List(items) = &entry.value.kind else {
        problems.push(wrong(&entry.value, "`enum`", "a list"));
        return Vec::new();
    };
    if items.is_empty() {
        problems.push(Diagnostic::error(
            codes::INPUT,
            entry.value.span.clone(),
            "`enum` allows no value at all",
        ));
    }
    let mut choices = Vec::new();
    if holds_expression(entry, problems) {
        return Vec::new();
    }
    for item in items {
        match one(input, item) {
            Ok(value) => choices.push(value),
            Err(why) => {
                let message = format!("a value of `enum` breaks the input's own rules: {why}");
                let mut problem = Diagnostic::error(codes::INPUT, item.span.clone(), message);
                problem.help =
                    meant(item, if input.kind == InputKind::List { input.items } else { input.kind });
                problems.push(problem);
            }
        }
    }
    choices
}

/// What was probably meant by a value that YAML reads as another type than it looks like.
fn meant(node: &Node, kind: InputKind) -> Option<String> {
    let text = matches!(kind, InputKind::String | InputKind::Path | InputKind::Url);
    match (&node.kind, kind) {
        (Kind::Number(_) | Kind::Bool(_), _) if text => {
            Some("put quotes around it, and it is the text that is written".to_owned())
        }
        (Kind::Number(number), InputKind::Duration) => {
            Some(format!("write the unit too: {number}s, {number}m or {number}h"))
        }
        (Kind::String(word), InputKind::Boolean) => match word.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => Some("write `true`".to_owned()),
            "no" | "off" | "n" | "false" => Some("write `false`".to_owned()),
            _ => None,
        },
        (Kind::String(word), InputKind::Integer | InputKind::Number) if word.parse::<f64>().is_ok() => {
            Some(format!("write {word} without quotes"))
        }
        (Kind::String(word), InputKind::List) => Some(format!("write [{word}]")),
        _ => None,
    }
}

/// A value of `enum`, which for a list is one item.
fn one(input: &Input, item: &Node) -> Result<Value, String> {
    if input.kind == InputKind::List {
        input.accept_item(&item.to_json())
    } else {
        input.accept(&item.to_json())
    }
}
