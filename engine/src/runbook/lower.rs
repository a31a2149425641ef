//! The outermost map of a runbook.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fields::{Fields, Keys, kebab_case, plain_text, snake_case, wrong};
use super::inputs::input;
use super::steps::{settings, steps};
use super::{Resource, Runbook, Secret, Setting, Spanned};
use crate::check::codes;
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Kind, Node};
use crate::plan::{Drift, Limits, SecretSource};

const MANIFEST: &str = "this is no Kubernetes manifest: a runbook begins with `runbook: its-name`";

static RUNBOOK: Keys = Keys {
    what: "a runbook",
    known: &[
        "runbook",
        "description",
        "inputs",
        "secrets",
        "connections",
        "collections",
        "limits",
        "lock",
        "max_parallel",
        "drift",
        "steps",
        "finally",
    ],
    needed: &[("runbook", "runbook: its-name"), ("steps", "steps: [{ id: its_name, uses: command }]")],
    others: &[
        ("name", "write `runbook: its-name`"),
        ("vars", "write `inputs`"),
        ("variables", "write `inputs`"),
        ("params", "write `inputs`"),
        ("parameters", "write `inputs`"),
        ("args", "write `inputs`"),
        ("jobs", "write `steps`"),
        ("tasks", "write `steps`"),
        ("always", "write `finally`"),
        ("ensure", "write `finally`"),
        ("on_exit", "write `finally`"),
        ("env", "write `secrets` for credentials and `inputs` for the rest"),
        ("concurrency", "write `max_parallel` for steps at one time, or `lock` for runs at one time"),
        ("targets", "write `connections`"),
        ("hosts", "write `connections`"),
        ("on", "nothing starts a runbook but `runbook exec`"),
        ("schedule", "nothing starts a runbook but `runbook exec`: let cron call it"),
        ("apiVersion", MANIFEST),
        ("kind", MANIFEST),
        ("metadata", MANIFEST),
        ("spec", MANIFEST),
        ("arguments", "write `inputs`"),
        ("entrypoint", "the first step is the one above the others"),
        ("templates", "write `steps`"),
        ("onExit", "write `finally`"),
        ("defaults", "write a `default` for each of the `inputs`"),
        ("permissions", "a step does what its connection may do"),
        ("title", "write `description`"),
        ("timeout", "write `limits: { max_duration: 30m }`"),
    ],
};

static SECRET: Keys = Keys {
    what: "a secret",
    known: &["env", "file"],
    needed: &[],
    others: &[
        ("value", "a secret is never written into a runbook: name the `env` variable or the `file` it is in"),
        ("vault", "write `env: VARIABLE` or `file: PATH`, and let the vault put it there"),
        ("from", "write `env: VARIABLE` or `file: PATH`"),
    ],
};

pub(super) fn lower(root: &Node, source: &Arc<str>) -> (Option<Runbook>, Vec<Diagnostic>) {
    let mut problems = Vec::new();
    let runbook = runbook(root, source, &mut problems);
    (runbook, problems)
}

fn runbook(root: &Node, source: &Arc<str>, problems: &mut Vec<Diagnostic>) -> Option<Runbook> {
    let fields = Fields::of(root, &RUNBOOK, problems)?;
    let name = fields.needed_text("runbook", problems);
    if let Some(name) = &name {
        kebab_case(name, "a runbook", problems);
    }
    let description = fields.text("description", problems).map(|text| text.value).unwrap_or_default();
    let mut runbook = Runbook {
        source: source.clone(),
        name: name.unwrap_or(Spanned { value: String::new(), span: root.span.clone() }),
        description,
        inputs: Vec::new(),
        secrets: Vec::new(),
        connections: Vec::new(),
        collections: Vec::new(),
        limits: fields.setting("limits"),
        lock: fields.setting("lock"),
        max_parallel: fields.setting("max_parallel"),
        drift: fields.setting("drift"),
        steps: Vec::new(),
        finally: Vec::new(),
        unread: BTreeSet::new(),
    };
    runbook.inputs = named(&fields, "inputs", "an input", problems, input);
    runbook.secrets = named(&fields, "secrets", "a secret", problems, secret);
    runbook.connections = named(&fields, "connections", "a connection", problems, |entry, problems| {
        resource(entry, CONNECTION, problems)
    });
    runbook.collections = named(&fields, "collections", "a collection", problems, |entry, problems| {
        resource(entry, COLLECTION, problems)
    });
    if let Some(limits) = &runbook.limits {
        settings::<Limits>(limits, "limits", problems);
    }
    if let Some(drift) = &runbook.drift {
        settings::<Drift>(drift, "drift", problems);
    }
    if let Some(lock) = &runbook.lock
        && lock.node.as_str().is_none_or(str::is_empty)
    {
        problems.push(wrong(&lock.node, "`lock`", "a text"));
    }
    if let Some(parallel) = &runbook.max_parallel
        && !parallel.node.is_template()
        && parallel.value.as_u64().is_none_or(|count| count == 0)
    {
        problems.push(wrong(&parallel.node, "`max_parallel`", "a whole number of at least 1"));
    }
    if let Some(entry) = fields.needed("steps", problems) {
        runbook.steps = steps(&entry.value, "steps", problems);
        if matches!(&entry.value.kind, Kind::List(items) if items.is_empty())
            || entry.value.kind == Kind::Null
        {
            problems.push(Diagnostic::error(
                codes::VALUE,
                entry.key_span.clone(),
                "a runbook has at least one step",
            ));
        }
    }
    if let Some(entry) = fields.get("finally") {
        runbook.finally = steps(&entry.value, "finally", problems);
    }
    runbook.unread = unread(&fields, &runbook);
    Some(runbook)
}

/// The names that the text declares and the runbook does not have.
fn unread(fields: &Fields<'_>, runbook: &Runbook) -> BTreeSet<String> {
    let maps =
        ["inputs", "secrets", "connections", "collections"].into_iter().filter_map(|key| fields.get(key));
    let named = maps.filter_map(|entry| entry.value.entries()).flatten().map(|entry| entry.key.as_str());
    let lists = ["steps", "finally"].into_iter().filter_map(|key| match &fields.get(key)?.value.kind {
        Kind::List(items) => Some(items),
        _ => None,
    });
    let ids = lists.flatten().filter_map(|step| step.entry("id")?.value.as_str());
    let declared: BTreeSet<&str> = named.chain(ids).collect();
    let resources = runbook.connections.iter().chain(&runbook.collections).map(|one| &one.name);
    let read: BTreeSet<&str> = (runbook.inputs.iter().map(|input| &input.name))
        .chain(runbook.secrets.iter().map(|secret| &secret.name))
        .chain(resources)
        .chain(runbook.all_steps().map(|step| &step.id))
        .map(|name| name.value.as_str())
        .collect();
    declared.difference(&read).map(|name| (*name).to_owned()).collect()
}

/// The entries of a map of names.
fn named<T>(
    fields: &Fields<'_>,
    key: &str,
    what: &str,
    problems: &mut Vec<Diagnostic>,
    mut read: impl FnMut(&Entry, &mut Vec<Diagnostic>) -> Option<T>,
) -> Vec<T> {
    let Some(entry) = fields.get(key) else { return Vec::new() };
    let Some(entries) = entry.value.entries() else {
        if entry.value.kind != Kind::Null {
            problems.push(wrong(&entry.value, &format!("`{key}`"), "a map of names"));
        }
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries {
        snake_case(&name_of(entry), what, problems);
        all.extend(read(entry, problems));
    }
    all
}

pub(super) fn name_of(entry: &Entry) -> Spanned<String> {
    Spanned { value: entry.key.clone(), span: entry.key_span.clone() }
}

const READ_FROM: &str = "name where it is read from: `{ env: VARIABLE }` or `{ file: PATH }`";

fn secret(entry: &Entry, problems: &mut Vec<Diagnostic>) -> Option<Secret> {
    if entry.value.as_str().is_some() {
        problems.push(wrong(&entry.value, "a secret", "a map").help(READ_FROM));
        return None;
    }
    let fields = Fields::of(&entry.value, &SECRET, problems)?;
    let source = match (fields.get("env"), fields.get("file")) {
        (Some(env), None) => SecretSource::Env(plain_text(&env.value, "env", problems)?.value),
        (None, Some(file)) => SecretSource::File(plain_text(&file.value, "file", problems)?.value),
        (None, None) => {
            let message = format!("the secret `{}` has neither `env` nor `file`", entry.key);
            problems
                .push(Diagnostic::error(codes::MISSING_KEY, entry.key_span.clone(), message).help(READ_FROM));
            return None;
        }
        (Some(_), Some(file)) => {
            let message = format!("the secret `{}` has both `env` and `file`", entry.key);
            problems.push(Diagnostic::error(codes::VALUE, file.key_span.clone(), message).help(READ_FROM));
            return None;
        }
    };
    Some(Secret { name: name_of(entry), source })
}

const CONNECTION: &str = "a connection";
const COLLECTION: &str = "a collection";

fn resource(entry: &Entry, what: &str, problems: &mut Vec<Diagnostic>) -> Option<Resource> {
    let Some(entries) = entry.value.entries() else {
        problems.push(wrong(&entry.value, what, "a map"));
        return None;
    };
    let Some(kind) = entry.value.entry("type") else {
        let message = format!("{what} has no `type`");
        problems.push(
            Diagnostic::error(codes::MISSING_KEY, entry.key_span.clone(), message)
                .help("`type` names its kind, such as `type: http`"),
        );
        return None;
    };
    let kind = plain_text(&kind.value, "type", problems)?;
    let rest = entries.iter().filter(|entry| entry.key != "type").cloned().collect();
    let node = Arc::new(Node { span: entry.value.span.clone(), kind: Kind::Map(rest) });
    Some(Resource { name: name_of(entry), kind, settings: Setting::new(&node, &entry.key_span) })
}
