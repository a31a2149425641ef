//! Whether this program can work on a plan, and the systems it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use runbook_engine::expr::{self, ExprError, Scope};
use runbook_engine::kinds::SettingProblem;
use runbook_engine::plan::Plan;
use runbook_engine::redact::Redactor;
use runbook_steps::catalog;
use runbook_steps::kind::Vault;
use runbook_steps::resources::{Named, Resources};
use serde_json::{Map, Value};

use super::Needs;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;

/// Everything in the plan that this program does not know or can not read, one line each.
pub fn decodes(plan: &Plan) -> Vec<String> {
    let mut problems = Vec::new();
    for step in plan.all_steps() {
        match catalog::step(&step.uses) {
            Some(kind) => tell(&mut problems, &format!("step `{}`", step.id), (kind.info.check)(&step.with)),
            None => problems.push(format!("step `{}`: there is no step kind `{}`", step.id, step.uses)),
        }
    }
    for (name, settings) in &plan.connections {
        let (kind, rest) = typed(settings);
        match catalog::connection(&kind) {
            Some(entry) => tell(&mut problems, &format!("connection `{name}`"), (entry.info.check)(&rest)),
            None => problems.push(format!("connection `{name}`: there is no type `{kind}`")),
        }
    }
    for (name, settings) in &plan.collections {
        let (kind, rest) = typed(settings);
        match catalog::collection(&kind) {
            Some(entry) => tell(&mut problems, &format!("collection `{name}`"), (entry.info.check)(&rest)),
            None => problems.push(format!("collection `{name}`: there is no type `{kind}`")),
        }
    }
    problems
}

fn tell(problems: &mut Vec<String>, who: &str, found: Vec<SettingProblem>) {
    problems.extend(found.into_iter().map(|problem| {
        let at = problem.pointer.replace('/', ".");
        format!(
            "{who}{}{}: {}",
            if at.is_empty() { "" } else { " at " },
            at.trim_start_matches('.'),
            problem.message
        )
    }));
}

fn typed(settings: &Value) -> (String, Value) {
    let mut rest = settings.as_object().cloned().unwrap_or_default();
    let kind = rest.remove("type").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    (kind, Value::Object(rest))
}

/// Opens the connections and collections of the plan, with inputs and secrets in place of their expressions.
pub(super) fn resources(
    plan: &Plan,
    secrets: &BTreeMap<String, String>,
    needs: Needs,
    redactor: &Redactor,
    vault: &Arc<dyn Vault>,
) -> Outcome<Resources> {
    let scope = Scope { inputs: plan.inputs.clone(), secrets: secrets.clone(), ..Scope::default() };
    let mut left_out = Vec::new();
    let resolve =
        |settings: &Value| expr::resolve_learning(settings, &scope, &|secret| redactor.learn(secret));
    let connections = settings(Named::Connection, &plan.connections, resolve, needs, &mut left_out)?;
    let mut collections = settings(Named::Collection, &plan.collections, resolve, needs, &mut left_out)?;
    collections.retain(|name, settings| {
        let connection = settings.get("connection").and_then(Value::as_str);
        let there = connection.is_none_or(|connection| connections.contains_key(connection));
        if !there {
            left_out.push((Named::Collection, name.clone(), "its connection is left out".to_owned()));
        }
        there || needs == Needs::All
    });
    let opened = Resources::open(&connections, &collections, redactor, vault);
    let mut opened =
        opened.map_err(|error| Failure::new(Exit::Invalid, redactor.text(&error.to_string())))?;
    for (what, name, why) in left_out {
        format::warn(&format!("{what} `{name}`: {why}; what needs it will fail"));
        opened.leave_out(what, &name, &why);
    }
    Ok(opened)
}

fn settings(
    what: Named,
    authored: &Map<String, Value>,
    resolve: impl Fn(&Value) -> Result<Value, ExprError>,
    needs: Needs,
    left_out: &mut Vec<(Named, String, String)>,
) -> Outcome<Map<String, Value>> {
    let mut resolved = Map::new();
    for (name, settings) in authored {
        match resolve(settings) {
            Ok(settings) => {
                resolved.insert(name.clone(), settings);
            }
            Err(error) => {
                if needs == Needs::All {
                    return Err(Failure::new(Exit::Invalid, format!("{what} `{name}`: {error}")));
                }
                left_out.push((what, name.clone(), error.to_string()));
            }
        }
    }
    Ok(resolved)
}
