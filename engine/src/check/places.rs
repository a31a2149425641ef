//! Every place in a runbook where an expression is evaluated, and what it may refer to there.

use super::{Context, kinds};
use crate::document::Node;
use crate::runbook::Setting;

/// What expressions of one part of the runbook may use.
pub(super) struct Place<'a> {
    /// What the part is, for messages.
    pub(super) what: String,
    /// Its tree.
    pub(super) node: &'a Node,
    /// The step whose start is when they are evaluated; nothing for what is fixed before the run begins.
    pub(super) step: Option<usize>,
    /// Pointers below which a secret is allowed.
    pub(super) secrets: &'static [&'static str],
    /// Pointers to code of another language.
    pub(super) code: &'static [&'static str],
    /// Pointers to texts that are evaluated only when their step asks for them.
    pub(super) lazy: &'static [&'static str],
    /// Whether the text is an expression even without `${{ }}`.
    pub(super) condition: bool,
}

pub(super) fn all<'a>(cx: &Context<'a>) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    let fixed = |what: String, setting: &'a Setting| Place {
        what,
        node: &setting.node,
        step: None,
        secrets: &[],
        code: &[],
        lazy: &[],
        condition: false,
    };
    let runbook = cx.runbook;
    for (what, setting) in
        [("`limits`", &runbook.limits), ("`lock`", &runbook.lock), ("`max_parallel`", &runbook.max_parallel)]
    {
        places.extend(setting.as_ref().map(|setting| fixed(what.to_owned(), setting)));
    }
    for resource in &runbook.connections {
        let kind = kinds::find(cx.catalog.connections, &resource.kind.value);
        places.push(Place {
            secrets: kind.map_or(&[], |kind| kind.secret_fields),
            ..fixed(format!("the connection `{}`", resource.name.value), &resource.settings)
        });
    }
    for resource in &runbook.collections {
        let kind = kinds::find(cx.catalog.collections, &resource.kind.value);
        places.push(Place {
            code: kind.map_or(&[], |kind| kind.code_fields),
            ..fixed(format!("the collection `{}`", resource.name.value), &resource.settings)
        });
    }
    for (at, step) in cx.graph.steps.iter().copied().enumerate() {
        let kind = cx.catalog.step(&step.uses.value);
        places.push(Place {
            step: Some(at),
            secrets: kind.map_or(&[], |kind| kind.secret_fields),
            code: kind.map_or(&[], |kind| kind.code_fields),
            lazy: kind.map_or(&[], |kind| kind.lazy_fields),
            ..fixed(format!("`with` of `{}`", step.id.value), &step.with)
        });
        if let Some(condition) = &step.condition {
            let what = format!("`if` of `{}`", step.id.value);
            places.push(Place { step: Some(at), condition: true, ..fixed(what, condition) });
        }
        let own = [
            ("name", &step.name),
            ("retry", &step.retry),
            ("timeout", &step.timeout),
            ("on_failure", &step.on_failure),
            ("limits", &step.limits),
        ];
        for (key, setting) in own {
            places.extend(
                setting.as_ref().map(|setting| fixed(format!("`{key}` of `{}`", step.id.value), setting)),
            );
        }
    }
    places
}
