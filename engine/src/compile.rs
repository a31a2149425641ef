//! From text to a checked runbook, and from that with inputs to a frozen plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::check::{self, Graph, codes, setting_problems};
use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{self, Node};
use crate::expr::{self, Reason, Scope};
use crate::kinds::{Catalog, Effect, ResourceKindInfo, matches};
use crate::plan::{PLAN_VERSION, Plan, PlannedStep};
use crate::runbook::{self, Resource, Runbook, Setting, Step};

/// Reads and checks a runbook: the runbook when it has no error, and everything found, in the order of the text.
pub fn compile(text: &str, catalog: &Catalog) -> (Option<Runbook>, Vec<Diagnostic>) {
    let (root, mut problems) = document::parse(text);
    let source: Arc<str> = text.into();
    let runbook = root.and_then(|root| {
        let (runbook, more) = runbook::lower(&root, &source);
        problems.extend(more);
        runbook
    });
    if let Some(runbook) = &runbook {
        problems.extend(check::check(runbook, catalog));
    }
    let problems = tidy(text, problems);
    let fit = !problems.iter().any(|problem| problem.severity == Severity::Error);
    (runbook.filter(|_| fit), problems)
}

impl Runbook {
    /// The plan of a run with these inputs: order and needs filled in, what depends on inputs alone resolved and checked again.
    /// What uses steps, the run or secrets stays as it is written. Otherwise every mistake that the inputs lead to.
    pub fn plan(&self, inputs: Map<String, Value>, catalog: &Catalog) -> Result<Plan, Vec<Diagnostic>> {
        let scope = Scope { inputs, ..Scope::default() };
        let mut freezer = Freezer { scope, lazy: &[], problems: Vec::new() };
        let mut resolved = self.clone();
        freezer.resources(&mut resolved.connections, catalog.connections);
        freezer.resources(&mut resolved.collections, catalog.collections);
        for step in resolved.steps.iter_mut().chain(&mut resolved.finally) {
            freezer.step(step, catalog);
        }
        let own = [&mut resolved.limits, &mut resolved.lock, &mut resolved.max_parallel, &mut resolved.drift];
        for setting in own.into_iter().flatten() {
            freezer.setting(setting);
        }
        let drift = freezer.typed(resolved.drift.as_ref(), "drift");
        let limits = freezer.typed(resolved.limits.as_ref(), "limits");
        let lock = freezer.typed::<Option<String>>(resolved.lock.as_ref(), "lock");
        let max_parallel = freezer.max_parallel(resolved.max_parallel.as_ref());
        if let (Some(lock), Some(setting)) = (&lock, &resolved.lock)
            && lock.trim().is_empty()
        {
            freezer.problems.push(Diagnostic::error(
                codes::VALUE,
                setting.node.span.clone(),
                "the lock key is empty",
            ));
        }
        freezer.problems.extend(
            check::safety(&resolved, catalog)
                .into_iter()
                .filter(|problem| problem.severity == Severity::Error),
        );
        let graph = Graph::new(&resolved);
        let steps = freezer.steps(&resolved, &graph, catalog, false);
        let finally = freezer.steps(&resolved, &graph, catalog, true);
        if !freezer.problems.is_empty() {
            freezer.problems.sort_by_key(|problem| problem.span.start);
            return Err(freezer.problems);
        }
        Ok(Plan {
            version: PLAN_VERSION,
            folder: None,
            runbook: resolved.name.value.clone(),
            description: resolved.description.clone(),
            definition: sha256(&self.source),
            inputs: freezer.scope.inputs,
            secrets: self
                .secrets
                .iter()
                .map(|secret| (secret.name.value.clone(), secret.source.clone()))
                .collect::<BTreeMap<_, _>>(),
            connections: authored(&resolved.connections),
            collections: authored(&resolved.collections),
            limits,
            lock,
            max_parallel,
            drift,
            reviewed: None,
            places: BTreeMap::new(),
            steps,
            finally,
        })
    }
}

/// How many mistakes are told. Nobody reads more at a time, and one cause may lead to as many as there are lines.
const MAX_PROBLEMS: usize = 1000;

/// In the order of the text, each once, without what only follows from a value that could not be read.
fn tidy(text: &str, mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
    problems.sort_by_key(|problem| problem.span.start);
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    if let Some(next) = problems.get(MAX_PROBLEMS).map(|problem| problem.span.clone()) {
        problems.truncate(MAX_PROBLEMS);
        let message = format!("{more} more mistakes follow from here on, and are not told");
        problems.push(Diagnostic::error(codes::TOO_LARGE, next, message).help("mend the ones above first"));
    }
    let unreadable: Vec<_> = problems
        .iter()
        .filter(|problem| [codes::ALIAS, codes::TAG, codes::KEY, codes::NUMBER].contains(&problem.code))
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| (problem.code, problem.span.clone()))
        .collect();
    problems.retain(|problem| {
        unreadable.iter().all(|(code, span)| {
            let of_document = problem.code.starts_with("RB01");
            // A tag stands before the value that it spoils.
            let tagged = *code == codes::TAG
                && text
                    .get(span.end..problem.span.start)
                    .is_some_and(|between| between.len() < 1000 && between.trim().is_empty());
            let same = problem.span == *span || tagged;
            let around =
                *code == codes::KEY && problem.span.start <= span.start && span.end <= problem.span.end;
            of_document || !(same || around)
        })
    });
    let mut tidied: Vec<Diagnostic> = Vec::with_capacity(problems.len());
    for problem in problems {
        // What an alias repeats is looked at each time.
        let here =
            tidied.iter().rev().take_while(|other: &&Diagnostic| other.span.start == problem.span.start);
        if !here.into_iter().any(|other| *other == problem) {
            tidied.push(problem);
        }
    }
    tidied
}

/// How many steps run at one time when the runbook does not say.
const MAX_PARALLEL: usize = 8;

/// Resolves what depends on inputs alone.
struct Freezer {
    scope: Scope,
    /// Pointers to what need not have a value before the run.
    lazy: &'static [&'static str],
    problems: Vec<Diagnostic>,
}

impl Freezer {
    fn resources(&mut self, all: &mut [Resource], kinds: &'static [ResourceKindInfo]) {
        for resource in all {
            self.setting(&mut resource.settings);
            if let Some(kind) = kinds.iter().find(|kind| kind.name == resource.kind.value) {
                let found = (kind.check)(&resource.settings.value);
                self.problems.extend(setting_problems(found, &resource.settings, &resource.kind.value));
            }
        }
    }

    fn step(&mut self, step: &mut Step, catalog: &Catalog) {
        let own =
            [&mut step.name, &mut step.retry, &mut step.timeout, &mut step.on_failure, &mut step.limits];
        for setting in own.into_iter().flatten() {
            self.setting(setting);
        }
        if self.never(step) {
            return;
        }
        let kind = catalog.step(&step.uses.value);
        self.lazy = kind.map_or(&[], |kind| kind.lazy_fields);
        self.setting(&mut step.with);
        self.lazy = &[];
        if let Some(kind) = kind {
            let found = (kind.check)(&step.with.value);
            self.problems.extend(setting_problems(found, &step.with, &step.uses.value));
        }
    }

    /// Whether the inputs alone say that a step is skipped: its settings are never used, and need not make sense.
    fn never(&self, step: &Step) -> bool {
        let condition = step.condition_text().filter(|text| {
            expr::analyse_expression(text).references.iter().all(|reference| reference.root == "inputs")
        });
        condition.is_some_and(|text| expr::condition(&text, &self.scope) == Ok(false))
    }

    /// Resolves a setting in place.
    fn setting(&mut self, setting: &mut Setting) {
        let node = setting.node.clone();
        self.value(&mut setting.value, &node, &mut String::new());
    }

    fn value(&mut self, value: &mut Value, node: &Node, pointer: &mut String) {
        let length = pointer.len();
        match value {
            Value::String(text) if expr::only_inputs(text) => match expr::resolve(value, &self.scope) {
                Ok(resolved) => {
                    if holds_template(&resolved) {
                        let message =
                            "the value reads as an expression itself: an input may not bring in `${{`";
                        self.problem(node, pointer, Reason::Wrong, message.to_owned());
                    }
                    *value = resolved;
                }
                // It is evaluated when it is needed, and may have a value then.
                Err(_) if matches(pointer, self.lazy) => {}
                Err(error) => self.problem(node, pointer, error.reason, error.message),
            },
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    pointer.push_str(&format!("/{at}"));
                    self.value(item, node, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Object(map) => {
                for (key, item) in map.iter_mut() {
                    pointer.push('/');
                    pointer.push_str(&expr::escape(key));
                    self.value(item, node, pointer);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn problem(&mut self, node: &Node, pointer: &str, reason: Reason, message: String) {
        let mut problem = Diagnostic::error(codes::EVALUATION, node.locate(pointer, false), message);
        if reason == Reason::Absent {
            problem = problem.help("give an input from which it has a value, or write `value | default(…)`");
        }
        self.problems.push(problem);
    }

    /// A resolved setting as the type it must have; the type's default when there is none or it is wrong.
    fn typed<T: DeserializeOwned + Default + JsonSchema + 'static>(
        &mut self,
        setting: Option<&Setting>,
        what: &str,
    ) -> T {
        let Some(setting) = setting else { return T::default() };
        let before = self.problems.len();
        runbook::settings::<T>(setting, what, &mut self.problems);
        match serde_json::from_value(setting.value.clone()) {
            Ok(value) => value,
            Err(error) => {
                // What has no value was told already.
                if self.problems.len() == before && !holds_template(&setting.value) {
                    let message = format!("`{what}`: {error}");
                    self.problems.push(Diagnostic::error(codes::VALUE, setting.node.span.clone(), message));
                }
                T::default()
            }
        }
    }

    fn max_parallel(&mut self, setting: Option<&Setting>) -> usize {
        let Some(setting) = setting else { return MAX_PARALLEL };
        let count =
            setting.value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        count.unwrap_or_else(|| {
            let message = "`max_parallel` must be a whole number of at least 1";
            self.problems.push(Diagnostic::error(codes::VALUE, setting.node.span.clone(), message));
            MAX_PARALLEL
        })
    }

    fn steps(
        &mut self,
        runbook: &Runbook,
        graph: &Graph<'_>,
        catalog: &Catalog,
        finally: bool,
    ) -> Vec<PlannedStep> {
        let (list, offset) = if finally { (&runbook.finally, graph.main) } else { (&runbook.steps, 0) };
        let Some(order) = graph.order(finally) else {
            // The check refuses cycles; a runbook that was not checked has no plan either.
            self.problems.push(Diagnostic::error(
                codes::CYCLE,
                0..0,
                "steps wait for each other in a circle",
            ));
            return Vec::new();
        };
        order
            .into_iter()
            .map(|at| {
                let step = &list[at - offset];
                let needs = Runbook::needs(list, at - offset).into_iter().map(str::to_owned).collect();
                self.planned(step, needs, catalog)
            })
            .collect()
    }

    fn planned(&mut self, step: &Step, needs: Vec<String>, catalog: &Catalog) -> PlannedStep {
        let retry = self.typed(step.retry.as_ref(), "retry");
        let effect = catalog
            .step(&step.uses.value)
            .map_or(Effect::UNDETERMINED, |kind| (kind.effect)(&step.with.value));
        PlannedStep {
            id: step.id.value.clone(),
            name: self.typed(step.name.as_ref(), "name"),
            uses: step.uses.value.clone(),
            with: step.with.value.clone(),
            needs,
            condition: step.condition_text(),
            effect,
            retry,
            timeout: self.typed(step.timeout.as_ref(), "timeout"),
            on_failure: self.typed(step.on_failure.as_ref(), "on_failure"),
            limits: self.typed(step.limits.as_ref(), "limits"),
            waived: step
                .waive
                .iter()
                .map(|waiver| (waiver.code.value.clone(), waiver.reason.clone()))
                .collect(),
        }
    }
}

fn holds_template(value: &Value) -> bool {
    match value {
        Value::String(text) => expr::is_template(text),
        Value::Array(items) => items.iter().any(holds_template),
        Value::Object(map) => map.iter().any(|(key, item)| expr::is_template(key) || holds_template(item)),
        _ => false,
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Connections or collections as the plan keeps them: `type` and the settings.
fn authored(all: &[Resource]) -> Map<String, Value> {
    all.iter()
        .map(|resource| {
            let mut settings =
                Map::from_iter([("type".to_owned(), Value::from(resource.kind.value.as_str()))]);
            if let Value::Object(more) = &resource.settings.value {
                settings.extend(more.clone());
            }
            (resource.name.value.clone(), Value::Object(settings))
        })
        .collect()
}
