//! Kinds with the shapes that the rules look at.

use std::collections::BTreeMap;

use runbook_engine::document::check_kind;
use runbook_engine::duration::Duration;
use runbook_engine::kinds::{Catalog, Effect, ResourceKindInfo, SettingProblem, StepKindInfo};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident { $($field:ident: $type:ty,)* })+) => {
        $(#[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        $(#[$attribute])*
        #[expect(dead_code, reason = "only its shape is read")]
        struct $name { $($field: $type,)* })+
    };
}

settings! {
    Command { argv: Option<Vec<String>>, script: Option<String>, env: Option<BTreeMap<String, String>>, effect: Option<Declared>, }
    Declared { class: String, repeat: Option<String>, items: Option<u64>, }
    Ran { exit_code: i32, stdout: String, }
    Snapshot { collection: String, only: Option<Vec<String>>, page_size: Option<u32>, }
    Saved { count: u64, manifest: String, }
    Delete { collections: Vec<String>, keys: String, batch_size: Option<u32>, wait: Option<Duration>, }
    Deleted { deleted: u64, }
    Count { collections: Vec<String>, }
    Confirm { message: String, phrases: Vec<String>, }
    #[schemars(extend("oneOf" = [{"required": ["command"]}, {"required": ["http"]}]))]
    Freeze { command: Option<Vec<String>>, http: Option<String>, }
    Unfreeze { freeze: String, }
    Http { url: String, headers: Option<BTreeMap<String, String>>, }
    Store { url: String, api_key: Option<String>, }
    Documents { connection: String, corpus: String, collection: String, key: String, }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn schema<T: JsonSchema>() -> Schema {
    schema_for!(T)
}

fn check<T: DeserializeOwned + JsonSchema + 'static>(value: &Value) -> Vec<SettingProblem> {
    check_kind::<T>(value)
}

const fn step<T: DeserializeOwned + JsonSchema + 'static, O: JsonSchema>(
    name: &'static str,
    effect: fn(&Value) -> Effect,
) -> StepKindInfo {
    StepKindInfo {
        name,
        summary: "",
        config: schema::<T>,
        outputs: schema::<O>,
        secret_fields: &[],
        code_fields: &[],
        shown_fields: &[],
        speed_fields: &[],
        lazy_fields: &[],
        looks: true,
        fleeting_outputs: &[],
        effect,
        counts: |with| with.get("effect").is_none_or(|effect| effect.get("items").is_some()),
        updates: |_| false,
        check: check::<T>,
        example: "",
    }
}

const fn resource<T: DeserializeOwned + JsonSchema + 'static>(
    name: &'static str,
    secret_fields: &'static [&'static str],
) -> ResourceKindInfo {
    ResourceKindInfo {
        name,
        summary: "",
        config: schema::<T>,
        secret_fields,
        code_fields: &[],
        only_read: |_| None,
        not_updated: |_| None,
        max_batch: 100,
        check: check::<T>,
    }
}

fn declared(with: &Value) -> Effect {
    match with.pointer("/effect/class").and_then(Value::as_str) {
        Some("destroy") => Effect::DESTROY,
        Some("read") => Effect::READ,
        _ => Effect::UNDETERMINED,
    }
}

pub static CATALOG: Catalog = Catalog {
    steps: &[
        StepKindInfo {
            secret_fields: &["/env/*"],
            code_fields: &["/script"],
            looks: true,
            speed_fields: &[],
            fleeting_outputs: &[],
            ..step::<Command, Ran>("command", declared)
        },
        step::<Confirm, Nothing>("confirm-prompt", |_| Effect::READ),
        step::<Count, Nothing>("count", |_| Effect::READ),
        step::<Delete, Deleted>("delete-batch", |_| Effect::DESTROY),
        step::<Freeze, Nothing>("freeze", |_| Effect::WRITE),
        step::<Snapshot, Saved>("snapshot", |_| Effect::READ),
        step::<Unfreeze, Nothing>("unfreeze", |_| Effect::WRITE),
    ],
    connections: &[
        resource::<Store>("fountainstore", &["/api_key"]),
        resource::<Http>("http", &["/headers/*"]),
    ],
    collections: &[resource::<Documents>("fountainstore-documents", &[])],
};
