//! A runbook as a picture: its steps in the order they may run, what each does to the world, and which of them run while
//! something is frozen.

mod clusters;
pub mod dot;
pub mod mermaid;
pub mod tree;

use std::collections::HashMap;

use runbook_engine::kinds::{Catalog, Class};
use runbook_engine::reach::reach;
use runbook_engine::runbook::{Runbook, Step};
use serde_json::{Value, json};

/// What a step is to the one who reads the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It only looks.
    Read,
    /// It changes things that can be changed back.
    Write,
    /// Nobody declared what it does.
    Undetermined,
    /// It saves what may be destroyed later.
    Save,
    /// It asks a person.
    Gate,
    /// It freezes something.
    Freeze,
    /// It lifts a freeze.
    Lift,
    /// It destroys.
    Destroy,
}

impl Role {
    /// The roles in the order of a legend.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Undetermined,
        Self::Save,
        Self::Gate,
        Self::Freeze,
        Self::Lift,
        Self::Destroy,
    ];

    /// What such a step does, for a legend and as data.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "looks",
            Self::Write => "changes",
            Self::Undetermined => "undeclared",
            Self::Save => "saves",
            Self::Gate => "asks a person",
            Self::Freeze => "freezes",
            Self::Lift => "lifts a freeze",
            Self::Destroy => "destroys",
        }
    }

    fn of(step: &Step, catalog: &Catalog) -> Self {
        let class = catalog.step(&step.uses.value).map(|kind| (kind.effect)(&step.with.value).class);
        match (step.uses.value.as_str(), class) {
            (_, Some(Class::Destroy)) => Self::Destroy,
            ("confirm-prompt" | "approval", _) => Self::Gate,
            ("snapshot", _) => Self::Save,
            ("freeze", _) => Self::Freeze,
            ("unfreeze", _) => Self::Lift,
            (_, Some(Class::Read)) => Self::Read,
            (_, Some(Class::Write)) => Self::Write,
            _ => Self::Undetermined,
        }
    }
}

/// A step in the picture.
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub uses: String,
    /// What it is.
    pub role: Role,
    /// The places of the steps it waits for, without those that the others wait for anyhow.
    pub needs: Vec<usize>,
    /// How many steps must have run one after the other before it.
    pub stage: usize,
    /// Whether it runs when the others have ended.
    pub finally: bool,
    /// The freezes, by their place in [`Graph::holds`], that are surely in force while it runs.
    pub held: Vec<usize>,
    /// What else is worth knowing, in words.
    pub notes: Vec<String>,
}

/// A freeze, from the step that takes it on to the one that lifts it.
pub struct Hold {
    /// The place of the freeze.
    pub freeze: usize,
    /// The places of the steps that lift it; nothing: the end of the run does.
    pub lifts: Vec<usize>,
}

/// The picture of a runbook.
pub struct Graph {
    /// The runbook's name.
    pub runbook: String,
    /// What it is for.
    pub description: String,
    /// Its steps, by stage and then in the order of the text; the final ones last.
    pub nodes: Vec<Node>,
    /// Its freezes, in the order of `nodes`.
    pub holds: Vec<Hold>,
}

impl Graph {
    /// The picture of a runbook that has no errors.
    pub fn of(runbook: &Runbook, catalog: &Catalog) -> Self {
        let mut nodes = Vec::new();
        lay_out(runbook, &runbook.steps, false, catalog, &mut nodes);
        lay_out(runbook, &runbook.finally, true, catalog, &mut nodes);
        let places: HashMap<String, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.id.clone(), at)).collect();
        let steps: HashMap<&str, &Step> =
            runbook.all_steps().map(|step| (step.id.value.as_str(), step)).collect();
        let reach = Reach::new(&nodes);
        let holds = holds(&nodes, &steps, &reach);
        for (at, hold) in holds.iter().enumerate() {
            let freeze = steps[nodes[hold.freeze].id.as_str()];
            // A step that comes neither before nor after one that lifts the freeze may run beside it.
            let lifts = hold.lifts.iter().filter(|lift| !nodes[**lift].finally);
            let until: Vec<Vec<bool>> = lifts.map(|lift| reach.before(*lift)).collect();
            for (place, after) in reach.after(hold.freeze).into_iter().enumerate() {
                let node = &mut nodes[place];
                let sure = freeze.always_ran(steps[node.id.as_str()]);
                if after && sure && !node.finally && until.iter().all(|before| before[place]) {
                    node.held.push(at);
                }
            }
        }
        reduce(&mut nodes);
        debug_assert_eq!(places.len(), nodes.len(), "ids are unique in a runbook without errors");
        Self { runbook: runbook.name.value.clone(), description: runbook.description.clone(), nodes, holds }
    }

    /// How many steps have this role.
    pub fn count(&self, role: Role) -> usize {
        self.nodes.iter().filter(|node| node.role == role).count()
    }

    /// The places of the steps that no other waits for, final ones apart.
    pub fn ends(&self) -> Vec<usize> {
        let mut waited_for = vec![false; self.nodes.len()];
        self.nodes.iter().flat_map(|node| &node.needs).for_each(|need| waited_for[*need] = true);
        (0..self.nodes.len()).filter(|at| !waited_for[*at] && !self.nodes[*at].finally).collect()
    }

    /// The same as data.
    pub fn to_json(&self) -> Value {
        let id = |at: &usize| Value::from(self.nodes[*at].id.as_str());
        let ids = |places: &[usize]| places.iter().map(id).collect::<Vec<_>>();
        let steps = self.nodes.iter().map(|node| {
            let freezes: Vec<usize> = node.held.iter().map(|hold| self.holds[*hold].freeze).collect();
            json!({ "id": node.id, "uses": node.uses, "role": node.role.name(), "needs": ids(&node.needs),
                    "finally": node.finally, "frozen_by": ids(&freezes), "notes": node.notes })
        });
        let freezes = self
            .holds
            .iter()
            .map(|hold| json!({ "freeze": id(&hold.freeze), "lifted_by": ids(&hold.lifts) }));
        json!({ "runbook": self.runbook, "description": self.description,
                "steps": steps.collect::<Vec<_>>(), "freezes": freezes.collect::<Vec<_>>() })
    }
}

/// Adds the steps of a list by stage, those of a stage in the order of the text.
fn lay_out(runbook: &Runbook, list: &[Step], finally: bool, catalog: &Catalog, nodes: &mut Vec<Node>) {
    let index: HashMap<&str, usize> =
        list.iter().enumerate().map(|(at, step)| (step.id.value.as_str(), at)).collect();
    let needs: Vec<Vec<usize>> = (0..list.len())
        .map(|at| Runbook::needs(list, at).into_iter().filter_map(|id| index.get(id).copied()).collect())
        .collect();
    let stages = stages(&needs);
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|at| (stages[*at], *at));
    let offset = nodes.len();
    let mut place = vec![0; list.len()];
    order.iter().enumerate().for_each(|(to, at)| place[*at] = offset + to);
    for at in order {
        let step = &list[at];
        let role = Role::of(step, catalog);
        nodes.push(Node {
            id: step.id.value.clone(),
            uses: step.uses.value.clone(),
            role,
            needs: needs[at].iter().map(|need| place[*need]).collect(),
            stage: stages[at],
            finally,
            held: Vec::new(),
            notes: notes(step, role, runbook),
        });
    }
}

/// The longest way to each step, counted in steps; the needs hold no circle.
fn stages(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut stages: Vec<Option<usize>> = vec![None; needs.len()];
    for start in 0..needs.len() {
        let mut open = vec![start];
        while let Some(&at) = open.last() {
            let before = open.len();
            open.extend(needs[at].iter().copied().filter(|need| stages[*need].is_none()));
            if open.len() == before {
                open.pop();
                stages[at] = Some(
                    needs[at]
                        .iter()
                        .filter_map(|need| stages[*need])
                        .map(|stage| stage + 1)
                        .max()
                        .unwrap_or(0),
                );
            }
        }
    }
    stages.into_iter().map(Option::unwrap_or_default).collect()
}

/// Which steps come after which.
struct Reach {
    needs: Vec<Vec<usize>>,
    followers: Vec<Vec<usize>>,
    /// The place of the first final step.
    main: usize,
}

impl Reach {
    fn new(nodes: &[Node]) -> Self {
        let mut followers = vec![Vec::new(); nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            node.needs.iter().for_each(|need| followers[*need].push(at));
        }
        let needs = nodes.iter().map(|node| node.needs.clone()).collect();
        Self { needs, followers, main: nodes.iter().filter(|node| !node.finally).count() }
    }

    /// The steps that surely run after this one; final ones run after all the others.
    fn after(&self, at: usize) -> Vec<bool> {
        let mut reached = reach(&self.followers, at);
        if at < self.main {
            reached[self.main..].fill(true);
        }
        reached
    }

    /// The steps of the same list that have surely ended when this one starts.
    fn before(&self, at: usize) -> Vec<bool> {
        reach(&self.needs, at)
    }
}

fn holds(nodes: &[Node], steps: &HashMap<&str, &Step>, reach: &Reach) -> Vec<Hold> {
    let of_role = |role| (0..nodes.len()).filter(move |at| nodes[*at].role == role);
    of_role(Role::Freeze)
        .map(|freeze| {
            let after = reach.after(freeze);
            let names = |lift: &usize| {
                let step = steps.get(nodes[*lift].id.as_str());
                let named = step.and_then(|step| step.with.value.get("freeze"));
                named.is_none_or(|named| named == nodes[freeze].id.as_str())
            };
            Hold { freeze, lifts: of_role(Role::Lift).filter(|lift| after[*lift] && names(lift)).collect() }
        })
        .collect()
}

/// Takes away the needs that follow from the others.
fn reduce(nodes: &mut [Node]) {
    for at in 0..nodes.len() {
        let mut needs = nodes[at].needs.clone();
        needs.sort_unstable();
        needs.dedup();
        if needs.len() > 1 {
            let lowest = needs[0];
            let mut implied = vec![false; at];
            let mut open: Vec<usize> = needs.iter().flat_map(|need| nodes[*need].needs.clone()).collect();
            while let Some(next) = open.pop() {
                // What comes before all of them implies none of them.
                if next >= lowest && !std::mem::replace(&mut implied[next], true) {
                    open.extend(&nodes[next].needs);
                }
            }
            needs.retain(|need| !implied[*need]);
        }
        nodes[at].needs = needs;
    }
}

/// What a reader should know of a step beside its kind.
fn notes(step: &Step, role: Role, runbook: &Runbook) -> Vec<String> {
    let with = &step.with.value;
    let texts = |value: &Value| match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut notes = Vec::new();
    match role {
        Role::Destroy => {
            let what = ["collections", "collection"].iter().find_map(|key| with.get(*key)).map(texts);
            notes.push(what.map_or_else(|| "destroys".to_owned(), |what| format!("destroys {what}")));
        }
        Role::Save => notes.extend(with.get("collection").map(|what| format!("saves {}", texts(what)))),
        Role::Gate => notes.extend(with.get("phrases").map(|phrases| format!("type {}", texts(phrases)))),
        Role::Undetermined => notes.push("nobody declared what it does".to_owned()),
        _ => {}
    }
    notes.extend(step.condition_text().map(|condition| format!("if {condition}")));
    if step.on_failure.as_ref().is_some_and(|setting| setting.value == "continue") {
        notes.push("its failure stops nothing".to_owned());
    }
    let waived = step.waive.iter().map(|waiver| format!("waives {}: {}", waiver.code.value, waiver.reason));
    notes.extend(waived);
    // What the whole runbook says holds for a step that destroys.
    if role == Role::Destroy && runbook.limits.is_none() && step.limits.is_none() {
        notes.push("without limits".to_owned());
    }
    notes
}
