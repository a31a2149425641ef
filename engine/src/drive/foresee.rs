//! What a run would do, found out by reads alone: step by step in the plan's order, each with what is known of those before it.

mod each_run;
mod tries;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::acts::masked;
use super::live::LiveHub;
use super::{LEASE, lazy, ledger::Ledger, obligations::Obligations};
use crate::artifact::Artifacts;
use crate::error::{ErrorKind, StepError};
use crate::event::{Event, EventKind, Question};
use crate::expr::{self, Scope};
use crate::kinds::Class;
use crate::plan::{OnFailure, Plan, PlannedStep, StepId};
use crate::redact::Redactor;
use crate::saved::{Foreseen, Foresight, SavedPlan, Standing, TargetSet};
use crate::scope;
use crate::step::{Executor, History, RunInfo, StepContext};
use crate::store::memory::MemoryStore;
use crate::store::{NewRun, Store, StoreError};

/// What [`Foreseer::foresee`] works with.
pub struct Foreseer {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What knows of steps.
    pub executor: Arc<dyn Executor>,
    /// Progress and talk.
    pub live: LiveHub,
    /// Large outputs of what is read; needed no longer than the sets are.
    pub artifacts: Artifacts,
    /// A folder for what means nothing on another machine.
    pub scratch: PathBuf,
    /// Replaces secrets.
    pub redactor: Redactor,
    /// The secrets, by name.
    pub secrets: BTreeMap<String, String>,
    /// What expressions see of the run that is not there yet.
    pub run: RunInfo,
    /// The saved plan that this is held against, if there is one: what is another thing in each run is in settings what it was there.
    pub against: Option<SavedPlan>,
    /// Whether the limits are asked for what would be destroyed. Not where only a part of what is found would be.
    pub limits: bool,
    /// Fires when it should stop.
    pub stop: CancellationToken,
}

/// The walk over the plan.
struct Walk {
    with: Foreseer,
    /// A run that nobody drives: what steps find when they look at their own record.
    store: Arc<dyn Store>,
    /// `steps.ID` of those that are known.
    known: Map<String, Value>,
    /// Connections and collections that a step before would change, with that step.
    changed: BTreeMap<String, StepId>,
    /// The steps that would fail.
    failing: BTreeSet<StepId>,
    /// The steps that would change something.
    would: BTreeSet<StepId>,
}

impl Foreseer {
    /// Every step, the final ones last. After one that would fail and stop the run, nothing is looked at; each final step is, whatever
    /// another one comes to. Nothing is changed in the world; an error of kind interrupted when it was stopped.
    pub async fn foresee(self) -> Result<Vec<Foreseen>, StepError> {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        imagine(&*store, &self).await.map_err(|error| error.for_step())?;
        let plan = Arc::clone(&self.plan);
        let mut walk = Walk {
            with: self,
            store,
            known: Map::new(),
            changed: BTreeMap::new(),
            failing: BTreeSet::new(),
            would: BTreeSet::new(),
        };
        let (mut all, mut failed) = (Vec::new(), None);
        for step in plan.all_steps() {
            if walk.with.stop.is_cancelled() {
                return Err(StepError::interrupted());
            }
            let foreseen = match &failed {
                Some(before) => nothing(step, Standing::After(vec![StepId::clone(before)])),
                None => walk.step(step).await?,
            };
            let stops = step.on_failure == OnFailure::Stop && plan.steps.iter().any(|one| one.id == step.id);
            if matches!(foreseen.standing, Standing::Fails(_)) && stops {
                failed = failed.or(Some(step.id.clone()));
            }
            all.push(foreseen);
        }
        Ok(all)
    }
}

/// Makes the run that nobody drives.
async fn imagine(store: &dyn Store, with: &Foreseer) -> Result<(), StoreError> {
    let (run, at) = (&with.run, with.run.created_at);
    let first = Event { seq: 1, at, what: EventKind::created(&run.by) };
    store
        .create(NewRun {
            id: run.id.clone(),
            runbook: run.runbook.clone(),
            plan: serde_json::to_string(&*with.plan).unwrap_or_default(),
            definition: String::new(),
            source_name: String::new(),
            seed: run.seed,
            lock: None,
            applies: None,
            first,
        })
        .await?;
    store.claim(&run.id, "nobody", at, LEASE.after(at)).await?;
    Ok(())
}

fn nothing(step: &PlannedStep, standing: Standing) -> Foreseen {
    Foreseen {
        step: step.id.clone(),
        effect: step.effect,
        standing,
        does: String::new(),
        touches: Vec::new(),
        items: 0,
        binds: BTreeMap::new(),
        asks: Vec::new(),
        notes: Vec::new(),
        settings: None,
        fleeting: Map::new(),
        outputs: None,
        last_took_ms: None,
    }
}

/// The steps that a value's expressions name.
fn named(value: &Value, found: &mut BTreeSet<StepId>) {
    match value {
        Value::String(text) if expr::is_template(text) => {
            let steps = expr::references(text).into_iter().filter(|reference| reference.root == "steps");
            found.extend(steps.filter_map(|one| Some(one.text().split('.').nth(1)?.to_owned())));
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, found)),
        Value::Object(map) => map.values().for_each(|item| named(item, found)),
        _ => {}
    }
}

/// A setting in lines, one for each value in it; lists are one value, and a text of several lines is one of each.
fn leaves(name: &str, value: &Value, lines: &mut Vec<String>) {
    let several = |value: &Value| value.as_str().is_some_and(|text| text.trim_end().contains('\n'));
    match value {
        Value::Null => {}
        Value::Object(map) => {
            map.iter().for_each(|(key, below)| leaves(&format!("{name}.{key}"), below, lines));
        }
        Value::Array(items) if items.iter().any(|item| several(item) || item.is_object()) => {
            items.iter().enumerate().for_each(|(at, item)| leaves(&format!("{name}.{at}"), item, lines));
        }
        Value::String(text) if several(value) => {
            lines
                .extend(text.lines().enumerate().map(|(at, line)| format!("{name} line {}: {line}", at + 1)));
        }
        Value::String(text) => lines.push(format!("{name}: {text}")),
        other => lines.push(format!("{name}: {other}")),
    }
}

/// Whether every text of a setting stands in a sentence as it is.
fn is_told(value: &Value, does: &str) -> bool {
    match value {
        Value::String(text) => !text.contains('\n') && does.contains(text.as_str()),
        Value::Array(items) => items.iter().all(|item| is_told(item, does)),
        Value::Object(map) => map.values().all(|item| is_told(item, does)),
        Value::Null => true,
        other => does.contains(&other.to_string()),
    }
}

/// The connections and collections that a step works on, as its settings name them at the top.
fn resources(with: &Value) -> Vec<String> {
    let at = ["connection", "collection", "collections"].into_iter().filter_map(|key| with.get(key));
    at.flat_map(|value| match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect::<Vec<_>>(),
    })
    .collect()
}

impl Walk {
    async fn step(&mut self, step: &PlannedStep) -> Result<Foreseen, StepError> {
        let failing = step.needs.iter().filter(|need| self.failing.contains(*need));
        let after: Vec<String> = failing
            .map(|need| format!("it needs `{need}`, which would fail, and runs all the same"))
            .collect();
        let mut foreseen = self.looked_at(step).await?;
        if step.effect.class != Class::Read
            && matches!(foreseen.standing, Standing::Would | Standing::After(_))
        {
            self.would.insert(step.id.clone());
        }
        if foreseen.standing != Standing::Skipped {
            foreseen.notes.extend(after);
        }
        Ok(foreseen)
    }

    async fn looked_at(&mut self, step: &PlannedStep) -> Result<Foreseen, StepError> {
        let condition = step.condition.as_ref().map(|text| Value::from(format!("${{{{ {text} }}}}")));
        match self.condition(step, condition.as_ref(), &self.scope()) {
            Ok(true) => {}
            Ok(false) => {
                self.known.insert(step.id.clone(), json!({ "status": "skipped", "attempts": 0 }));
                return Ok(nothing(step, Standing::Skipped));
            }
            Err(Standing::Fails(error)) => return Ok(self.fails(step, error, 0)),
            Err(standing) => return Ok(self.unknown(step, standing)),
        }
        if let Some(before) = self.disturbed(step).filter(|_| step.effect.class == Class::Read) {
            return Ok(self.unknown(step, Standing::After(vec![before])));
        }
        let waits = self.waits_for(&step.with);
        if !waits.is_empty() {
            return Ok(self.unknown(step, Standing::After(waits)));
        }
        let scope = self.scope_as_planned();
        let fields = self.with.executor.lazy_fields(&step.uses);
        let call = match lazy::call(step, fields, &scope, &self.with.redactor) {
            Ok(call) => call,
            Err(error) => {
                // Of a step that is known in part, what is missing is known after it.
                let named = self.partly(&step.with);
                if named.is_empty() {
                    return Ok(self.fails(step, StepError::invalid(error.message), 1));
                }
                return Ok(self.unknown(step, Standing::After(named)));
            }
        };
        let (seen, attempts) = self.tries(step, &call).await?;
        Ok(match seen {
            Ok(seen) => {
                let asks = !seen.asks.is_empty();
                let bound = asks || step.effect.class != Class::Read && seen.touches.is_empty();
                let kind = |uses: &str| self.with.executor.kind(uses);
                let settings = scope::settings_digest(&self.with.plan, step, &kind, &scope);
                let mut notes = self.shown_settings(step, &call.with, &seen.does);
                notes.extend(self.unforeseeable(step, &call.with, &seen.asks));
                let mut seen = self.seen(step, seen, attempts).await?;
                seen.notes.extend(notes);
                Foreseen { settings: settings.filter(|_| bound), ..seen }
            }
            Err(error) => match self.pending(step).filter(|_| self.looks(step)) {
                // What is not so yet may be what that step makes so.
                Some(before) => {
                    let note = format!("looked at now, before `{before}`, it fails: {}", error.message);
                    let unknown = self.unknown(step, Standing::After(vec![before]));
                    Foreseen { notes: vec![self.with.redactor.text(&note)], ..unknown }
                }
                None => self.fails(step, error, attempts),
            },
        })
    }

    /// Those settings of a step that a reviewer has to see as they are, where the sentence about it does not hold all of them.
    fn shown_settings(&self, step: &PlannedStep, with: &Value, does: &str) -> Vec<String> {
        let fields = self.with.executor.kind(&step.uses).map_or(&[][..], |kind| kind.shown_fields);
        let fields = if step.effect.class == Class::Read { &[][..] } else { fields };
        let mut lines = Vec::new();
        for pointer in fields {
            if let Some(value) = with.pointer(pointer).filter(|value| !is_told(value, does)) {
                leaves(&pointer[1..].replace('/', "."), value, &mut lines);
            }
        }
        lines.into_iter().map(|text| self.with.redactor.text(&text)).collect()
    }

    /// Whether a step only looks at the world, and may see something else once that is changed.
    fn looks(&self, step: &PlannedStep) -> bool {
        let looks = self.with.executor.kind(&step.uses).is_none_or(|kind| kind.looks);
        step.effect.class == Class::Read && looks
    }

    /// The last step before this one that would change something, near or far.
    fn pending(&self, step: &PlannedStep) -> Option<StepId> {
        let plan = &self.with.plan;
        let is_final = plan.finally.iter().any(|one| one.id == step.id);
        let mut before: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = step.needs.iter().map(String::as_str).collect();
        if is_final {
            open.extend(plan.steps.iter().map(|one| one.id.as_str()));
        }
        while let Some(id) = open.pop() {
            if before.insert(id)
                && let Some(step) = plan.all_steps().find(|one| one.id == id)
            {
                open.extend(step.needs.iter().map(String::as_str));
            }
        }
        let last = plan
            .all_steps()
            .filter(|one| before.contains(one.id.as_str()) && self.would.contains(&one.id))
            .last();
        last.map(|one| one.id.clone())
    }

    /// A step that would fail for good.
    fn fails(&mut self, step: &PlannedStep, error: StepError, attempts: u32) -> Foreseen {
        self.failed(step, attempts);
        self.unknown(step, Standing::Fails(error))
    }

    /// Whether the step would run; how it stands when that can not be told.
    fn condition(&self, step: &PlannedStep, text: Option<&Value>, scope: &Scope) -> Result<bool, Standing> {
        let (Some(text), Some(condition)) = (text, &step.condition) else { return Ok(true) };
        let waits = self.waits_for(text);
        if !waits.is_empty() {
            return Err(Standing::After(waits));
        }
        expr::condition(condition, scope).map_err(|error| match self.partly(text) {
            named if named.is_empty() => Standing::Fails(StepError::invalid(error.message)),
            named => Standing::After(named),
        })
    }

    /// The steps that a value names and of which nothing is known.
    fn waits_for(&self, value: &Value) -> Vec<StepId> {
        let mut found = BTreeSet::new();
        named(value, &mut found);
        found.into_iter().filter(|id| !self.known.contains_key(id)).collect()
    }

    /// The steps that a value names and of which not everything is known.
    fn partly(&self, value: &Value) -> Vec<StepId> {
        let mut found = BTreeSet::new();
        named(value, &mut found);
        let whole = |id: &String| self.known.get(id).is_some_and(|facts| facts.get("ended_at").is_some());
        found.into_iter().filter(|id| !whole(id)).collect()
    }

    /// The step before that changes what this one works on.
    fn disturbed(&self, step: &PlannedStep) -> Option<StepId> {
        let plan = &self.with.plan;
        let of = |name: &str| plan.collections.get(name)?.get("connection")?.as_str().map(str::to_owned);
        resources(&step.with).into_iter().find_map(|name| {
            let below = plan.collections.keys().filter(|other| of(other).as_deref() == Some(&*name));
            let around = [Some(name.clone()), of(&name)].into_iter().flatten().chain(below.cloned());
            around.into_iter().find_map(|name| self.changed.get(&name).cloned())
        })
    }

    /// A step of which no more is known than how it stands.
    fn unknown(&mut self, step: &PlannedStep, standing: Standing) -> Foreseen {
        self.changes(step, None);
        nothing(step, standing)
    }

    fn changes(&mut self, step: &PlannedStep, told: Option<Vec<String>>) {
        if step.effect.class != Class::Read {
            for name in told.unwrap_or_else(|| resources(&step.with)) {
                self.changed.insert(name, step.id.clone());
            }
        }
    }

    async fn seen(
        &mut self,
        step: &PlannedStep,
        seen: Foresight,
        attempts: u32,
    ) -> Result<Foreseen, StepError> {
        let (crossed, notes) = self.limits(step, &seen).await?;
        self.changes(step, seen.changes);
        // As a run would record them.
        let outputs = seen.outputs.map(|outputs| self.with.redactor.value(&outputs));
        let shown = outputs.clone().filter(|_| seen.done);
        let fleeting = shown.as_ref().map_or_else(Map::new, |outputs| self.fleeting(step, outputs));
        if let Some(outputs) = outputs {
            let at = self.with.run.created_at.to_string();
            let mut facts = json!({ "status": "succeeded", "attempts": attempts, "outputs": outputs });
            if seen.done {
                (facts["started_at"], facts["ended_at"]) = (json!(at), json!(at));
            }
            self.known.insert(step.id.clone(), facts);
        }
        let standing = match crossed {
            Some(error) => {
                self.failed(step, attempts);
                Standing::Fails(error)
            }
            None if seen.done => Standing::Read,
            None => Standing::Would,
        };
        Ok(Foreseen {
            does: self.with.redactor.text(&seen.does),
            touches: seen.touches.into_iter().map(|set| self.shown(set)).collect(),
            items: seen.items,
            binds: seen.binds,
            asks: seen.asks.into_iter().map(|question| self.asked(question)).collect(),
            notes,
            fleeting,
            outputs: shown,
            ..nothing(step, standing)
        })
    }

    /// Asks the limits for what a step would destroy, as the run would: what the one says that it would cross, and what is not known.
    async fn limits(
        &self,
        step: &PlannedStep,
        seen: &Foresight,
    ) -> Result<(Option<StepError>, Vec<String>), StepError> {
        let items = seen.at_least.unwrap_or(seen.items);
        let sums = seen.touches.iter().fold((items, 0), |sums, set| (sums.0 + set.count, sums.1 + set.bytes));
        let mut notes = Vec::new();
        if !self.with.limits || sums == (0, 0) {
            return Ok((None, notes));
        }
        let ledger = self.ledger(step);
        match (&seen.population, self.disturbed(step)) {
            (Some((of, population)), None) => {
                ledger.measure(*population, of).await?;
            }
            (Some((of, _)), Some(before)) => {
                ledger.destroys_from(of).await?;
                notes.push(format!("how many items `max_percent` lets it destroy is known after {before}"));
            }
            (None, _) => {}
        }
        match ledger.foresee(sums.0, sums.1).await {
            Ok(()) => Ok((None, notes)),
            Err(error) if error.kind == ErrorKind::Limit => Ok((Some(error), notes)),
            Err(error) => Err(error),
        }
    }

    /// What is shown of a set; its items are raw, because they are what is held against the world.
    fn shown(&self, set: TargetSet) -> TargetSet {
        let redactor = &self.with.redactor;
        let examples = set.examples.iter().map(|key| redactor.text(key)).collect();
        TargetSet { what: redactor.text(&set.what), examples, ..set }
    }

    fn asked(&self, question: Question) -> Question {
        question.map(|text| self.with.redactor.text(&text))
    }

    /// What conditions see: everything as it is now, because they decide whether a step runs at all.
    fn scope(&self) -> Scope {
        scope::of_foresight(&self.with.plan, &self.known, &self.with.run, &self.with.secrets)
    }

    /// What settings see.
    fn scope_as_planned(&self) -> Scope {
        let run = each_run::as_planned(&self.with.run, self.with.against.as_ref());
        scope::of_foresight(&self.with.plan, &self.known_as_planned(), &run, &self.with.secrets)
    }

    fn ledger(&self, step: &PlannedStep) -> Ledger {
        let (store, limits) = (Arc::clone(&self.store), self.with.plan.limits.clone());
        Ledger::new(store, &self.with.run.id, &step.id, 1, limits, step.limits.clone())
    }

    fn context(&self, step: &PlannedStep, attempt: u32, stop: CancellationToken) -> StepContext {
        let with = &self.with;
        // Nobody is at the other end: what has to be put back is not foreseen but done.
        let (requests, _) = mpsc::channel(1);
        StepContext {
            run: each_run::as_planned(&with.run, with.against.as_ref()),
            step: step.id.clone(),
            attempt,
            answers: Vec::new(),
            ledger: self.ledger(step),
            obligations: Obligations::new(&step.id, requests),
            artifacts: with.artifacts.clone(),
            scratch: with.scratch.clone(),
            live: with.live.step(&step.id),
            abandon: stop.clone(),
            stop,
            redactor: with.redactor.clone(),
            history: History {
                plan: Arc::clone(&with.plan),
                store: Arc::clone(&self.store),
                run: with.run.id.clone(),
            },
        }
    }
}
