//! What a step kind, a connection kind and a collection kind are, and how each becomes an entry of the catalog.

use std::any::Any;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use runbook_engine::document::{check_kind, check_rules, schema_of};
use runbook_engine::error::StepError;
use runbook_engine::event::{Obligation, Question};
use runbook_engine::kinds::{Class, Effect, ResourceKindInfo, SettingProblem, StepKindInfo};
use runbook_engine::saved::Foresight;
use runbook_engine::step::{Found, Hold, Lazy, Look, Release, StepContext, StepEnd};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::collections::Collection;
use crate::resources::Resources;

/// What a step works with: the engine's context and the runbook's systems.
#[derive(Clone)]
pub struct Context {
    /// The engine's side.
    pub engine: StepContext,
    /// The runbook's connections and collections.
    pub resources: Arc<Resources>,
    /// The texts of the settings that are evaluated late.
    pub lazy: Lazy,
}

impl Context {
    /// What one of [`Step::LAZY_FIELDS`] comes to: evaluated now when it stands in the runbook with expressions, and else as it is in the
    /// settings.
    pub fn lazy(&self, pointer: &str, setting: String) -> Result<String, StepError> {
        self.lazy.text(pointer).unwrap_or(Ok(setting))
    }
}

impl Deref for Context {
    type Target = StepContext;

    fn deref(&self) -> &StepContext {
        &self.engine
    }
}

/// What an attempt comes to, with typed outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum End<T> {
    /// It is done.
    Done(T),
    /// A person must be asked; the step is entered again with the answer in `answers`.
    Ask(Question),
}

/// A step kind: the type is its `with`.
#[async_trait]
pub trait Step: DeserializeOwned + JsonSchema + Send + Sync + Sized + 'static {
    /// Its name, kebab-case.
    const NAME: &'static str;
    /// One line on what it is for.
    const SUMMARY: &'static str;
    /// A small example, YAML: one step, as it stands in `steps`.
    const EXAMPLE: &'static str;
    /// JSON pointers in `with` where a secret may be used; `*` stands for any key or index.
    const SECRET_FIELDS: &'static [&'static str] = &[];
    /// JSON pointers in `with` that are code of another language.
    const CODE_FIELDS: &'static [&'static str] = &[];
    /// JSON pointers in `with` that change how fast it works and not what it does.
    const SPEED_FIELDS: &'static [&'static str] = &[];
    /// JSON pointers in `with` to settings that a plan shows as they are, because what it says of the step does not name them.
    const SHOWN_FIELDS: &'static [&'static str] = &[];
    /// JSON pointers in `with` to texts that are evaluated only when the step asks for them, by [`Context::lazy`].
    const LAZY_FIELDS: &'static [&'static str] = &[];
    /// Whether it looks at the world; with false, what it comes to follows from its settings alone.
    const LOOKS: bool = true;
    /// JSON pointers to outputs that say when something was done or how long it took.
    const FLEETING_OUTPUTS: &'static [&'static str] = &[];
    /// Whether an attempt that was cut off may leave something behind that only [`Step::tidy`] takes away.
    const TIDIES: bool = false;
    /// JSON pointers to the outputs that name a backup, and what is typed to bring it back. Only kinds that make or hold one have them.
    const BACKUP_OUTPUTS: Option<(&'static str, &'static str)> = None;
    /// Its outputs: a struct, each field one name under `steps.ID.outputs`.
    type Outputs: Serialize + JsonSchema + Send;

    /// What it does to the world, from `with` as authored.
    fn effect(with: &Value) -> Effect;

    /// Whether it tells the limits how many items it destroys; with false, what it destroys counts as one. From `with` as authored.
    fn counts(with: &Value) -> bool {
        let _ = with;
        true
    }

    /// Whether it sets fields of the items of its `collection`. From `with` as authored.
    fn updates(with: &Value) -> bool {
        let _ = with;
        false
    }

    /// One attempt. Between batches it calls `cx.checkpoint()?`; it may be dropped at any await point and entered again.
    async fn run(self, cx: &Context) -> Result<End<Self::Outputs>, StepError>;

    /// What an attempt would do, found out by reads alone. `effect` is the step's own: one that only reads is done.
    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect.class == Class::Read { read_now(self, cx).await } else { Ok(would(String::new())) }
    }

    /// Puts back what `obligation`, opened by this step, changed. Only kinds that open obligations have it.
    async fn release(self, obligation: &Obligation, hold: Hold, cx: &Context) -> Result<Release, StepError> {
        let _ = (hold, cx);
        Err(StepError::new(
            runbook_engine::error::ErrorKind::Bug,
            format!("`{}` can not release {}", Self::NAME, obligation.label),
        ))
    }

    /// Takes away what attempts that were cut off left behind, and finds out what became of a batch of theirs, when the run is cancelled: what a later attempt would see to. An error says what
    /// is left, and what to type to take it away; one of a kind that may be retried keeps the run open for another cancel. Only kinds that say so have it.
    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        let _ = cx;
        Ok(())
    }

    /// Looks whether what `obligation`, opened by this step, changed is still so. Only kinds that open obligations have it.
    async fn inspect(self, obligation: &Obligation, look: Look, cx: &Context) -> Result<Found, StepError> {
        let _ = (look, cx);
        Err(StepError::new(
            runbook_engine::error::ErrorKind::Bug,
            format!("`{}` can not look at {}", Self::NAME, obligation.label),
        ))
    }
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, StepError>> + Send>>;

/// A step kind in the catalog.
#[derive(Clone, Copy)]
pub struct StepEntry {
    /// What the engine knows of it.
    pub info: StepKindInfo,
    /// Runs one attempt of it with a resolved `with`.
    pub run: fn(Value, Context) -> Running<StepEnd>,
    /// Foresees an attempt of it with a resolved `with`.
    pub foresee: fn(Value, Effect, Context) -> Running<Foresight>,
    /// Releases an obligation of it.
    pub release: fn(Value, Obligation, Hold, Context) -> Running<Release>,
    /// Whether it has something to tidy up.
    pub tidies: bool,
    /// Tidies up after its attempts.
    pub tidy: fn(Value, Context) -> Running<()>,
    /// JSON pointers to the outputs that name a backup, and what is typed to bring it back.
    pub backup_outputs: Option<(&'static str, &'static str)>,
    /// Looks at an obligation of it.
    pub inspect: fn(Value, Obligation, Look, Context) -> Running<Found>,
}

/// The catalog entry of a step kind.
pub const fn step<T: Step>() -> StepEntry {
    StepEntry {
        info: StepKindInfo {
            name: T::NAME,
            summary: T::SUMMARY,
            config: schema::<T>,
            outputs: schema::<T::Outputs>,
            secret_fields: T::SECRET_FIELDS,
            code_fields: T::CODE_FIELDS,
            speed_fields: T::SPEED_FIELDS,
            shown_fields: T::SHOWN_FIELDS,
            lazy_fields: T::LAZY_FIELDS,
            looks: T::LOOKS,
            fleeting_outputs: T::FLEETING_OUTPUTS,
            effect: T::effect,
            counts: T::counts,
            updates: T::updates,
            check: check_kind::<T>,
            example: T::EXAMPLE,
        },
        run: run::<T>,
        foresee: foresee::<T>,
        release: release::<T>,
        tidies: T::TIDIES,
        tidy: tidy::<T>,
        backup_outputs: T::BACKUP_OUTPUTS,
        inspect: inspect::<T>,
    }
}

fn schema<T: JsonSchema>() -> Schema {
    schema_for!(T)
}

/// Reads resolved settings. What expressions came to is held against the rules of the schema like what was written.
fn decode<T: DeserializeOwned + JsonSchema + 'static>(with: Value) -> Result<T, StepError> {
    if let Some(problem) = check_rules(&schema_of::<T>(), &with).into_iter().next() {
        let message = match problem.pointer.as_str() {
            "" => problem.message,
            pointer => format!("{pointer}: {}", problem.message),
        };
        let error = StepError::invalid(message);
        return Err(match problem.help {
            Some(help) => error.with_help(help),
            None => error,
        });
    }
    serde_json::from_value(with).map_err(|error| StepError::invalid(error.to_string()))
}

fn run<T: Step>(with: Value, cx: Context) -> Running<StepEnd> {
    Box::pin(async move {
        match decode::<T>(with)?.run(&cx).await? {
            End::Ask(question) => Ok(StepEnd::Ask(question)),
            End::Done(outputs) => serde_json::to_value(outputs)
                .map(StepEnd::Done)
                .map_err(|error| StepError::new(runbook_engine::error::ErrorKind::Bug, error.to_string())),
        }
    })
}

fn foresee<T: Step>(with: Value, effect: Effect, cx: Context) -> Running<Foresight> {
    Box::pin(async move { decode::<T>(with)?.foresee(effect, &cx).await })
}

/// What is foreseen of a step that would do this.
pub fn would(does: impl Into<String>) -> Foresight {
    Foresight { does: does.into(), ..Foresight::default() }
}

/// Does a step that only reads.
pub async fn read_now<T: Step>(step: T, cx: &Context) -> Result<Foresight, StepError> {
    match step.run(cx).await? {
        End::Ask(question) => Ok(Foresight { asks: vec![question], ..Foresight::default() }),
        End::Done(outputs) => {
            let outputs = serde_json::to_value(outputs)
                .map_err(|error| StepError::new(runbook_engine::error::ErrorKind::Bug, error.to_string()))?;
            Ok(Foresight { done: true, outputs: Some(outputs), ..Foresight::default() })
        }
    }
}

fn release<T: Step>(with: Value, obligation: Obligation, hold: Hold, cx: Context) -> Running<Release> {
    Box::pin(async move { decode::<T>(with)?.release(&obligation, hold, &cx).await })
}

fn tidy<T: Step>(with: Value, cx: Context) -> Running<()> {
    Box::pin(async move { decode::<T>(with)?.tidy(&cx).await })
}

fn inspect<T: Step>(with: Value, obligation: Obligation, look: Look, cx: Context) -> Running<Found> {
    Box::pin(async move { decode::<T>(with)?.inspect(&obligation, look, &cx).await })
}

/// A connection kind: the type is its settings beside `type`.
#[async_trait]
pub trait ConnectionKind: DeserializeOwned + JsonSchema + Send + Sync + Sized + 'static {
    /// Its name, kebab-case.
    const NAME: &'static str;
    /// One line on what it is for.
    const SUMMARY: &'static str;
    /// JSON pointers in the settings where a secret may be used.
    const SECRET_FIELDS: &'static [&'static str] = &[];
    /// What steps work with.
    type Client: Any + Send + Sync;

    /// Makes the client. No I/O happens here: a system is reached when a step first needs it.
    fn open(self, cx: &OpenContext<'_>) -> Result<Self::Client, StepError>;

    /// Which system it is, in words that are the same as long as it is the same one, and others when the same address leads to another.
    /// No secrets.
    async fn identity(client: &Self::Client) -> Result<SystemIs, StepError>;

    /// Where it leads by its settings alone: the address and what is named there. The same as long as the settings lead there, whoever signs in. No secrets.
    fn place(client: &Self::Client) -> String;

    /// What tells it, beside its identity, from another one in its place, in words: read when a plan is made and when it is applied, and not
    /// compared in the run, whose own work may change it. No secrets.
    async fn content(client: &Self::Client) -> Result<Option<String>, StepError> {
        let _ = client;
        Ok(None)
    }

    /// From now on it is only read from: not even reaching it may change anything. For kinds where reaching it would.
    fn only_read(client: &Self::Client) {
        let _ = client;
    }
}

/// Which system a connection leads to, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemIs {
    /// It is there, or nothing but its address tells it from others.
    There(String),
    /// The same, with what is in it when a plan is made or applied.
    Holding {
        /// What it is.
        is: String,
        /// What is in it.
        holds: String,
    },
    /// There is nothing yet; a run may make it, and is not bound to its being missing then.
    NotYet(String),
}

impl SystemIs {
    /// The words.
    pub fn words(&self) -> String {
        match self {
            Self::There(words) | Self::NotYet(words) => words.clone(),
            Self::Holding { is, holds } => format!("{is}, {holds}"),
        }
    }

    /// The same with what is in it; of what is not there, nothing is.
    #[must_use]
    pub fn holding(self, holds: Option<String>) -> Self {
        match (self, holds) {
            (Self::There(is), Some(holds)) => Self::Holding { is, holds },
            (same, _) => same,
        }
    }
}

/// What a connection may use when it is opened.
pub struct OpenContext<'a> {
    /// Its name in the runbook.
    pub name: &'a str,
    /// Told every secret that the connection obtains by itself, such as a session's.
    pub redactor: &'a runbook_engine::redact::Redactor,
    /// Keeps what a connection obtained (a session) across a crash of the process, never in readable form.
    pub vault: &'a Arc<dyn Vault>,
}

/// Keeps short-lived credentials across a crash of the process. What it keeps can be read by this run on this machine only, and
/// not after the run has ended. Losing an entry is always allowed.
pub trait Vault: Send + Sync {
    /// Keeps `value` under `name`, or keeps nothing.
    fn keep(&self, name: &str, value: &str);
    /// What was kept, if it is still there.
    fn get(&self, name: &str) -> Option<String>;
}

/// A vault that keeps nothing.
pub struct NoVault;

impl Vault for NoVault {
    fn keep(&self, _: &str, _: &str) {}

    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

/// A shared client or collection, or why there is none.
type Opened<T> = Result<Arc<T>, StepError>;

/// A connection kind in the catalog.
#[derive(Clone, Copy)]
pub struct ConnectionEntry {
    /// What the engine knows of it.
    pub info: ResourceKindInfo,
    /// Makes a client from resolved settings.
    pub open: fn(Value, &OpenContext<'_>) -> Opened<dyn Any + Send + Sync>,
    /// Which system a client leads to.
    pub identity: Identity,
    /// Where a client leads, by its settings.
    pub place: fn(&Arc<dyn Any + Send + Sync>) -> String,
    /// What is in the system.
    pub content: fn(Arc<dyn Any + Send + Sync>) -> Running<Option<String>>,
    /// Makes a client one that only reads.
    pub only_read: fn(&Arc<dyn Any + Send + Sync>),
}

/// Tells which system a client leads to.
pub type Identity = fn(Arc<dyn Any + Send + Sync>) -> Running<SystemIs>;

fn identity<T: ConnectionKind>(client: Arc<dyn Any + Send + Sync>) -> Running<SystemIs> {
    Box::pin(async move {
        let client = client
            .downcast::<T::Client>()
            .map_err(|_| StepError::new(runbook_engine::error::ErrorKind::Bug, "a client of another kind"))?;
        T::identity(&client).await
    })
}

fn content<T: ConnectionKind>(client: Arc<dyn Any + Send + Sync>) -> Running<Option<String>> {
    Box::pin(async move {
        match client.downcast::<T::Client>() {
            Ok(client) => T::content(&client).await,
            Err(_) => Ok(None),
        }
    })
}

/// The catalog entry of a connection kind.
pub const fn connection<T: ConnectionKind>() -> ConnectionEntry {
    ConnectionEntry {
        info: ResourceKindInfo {
            name: T::NAME,
            summary: T::SUMMARY,
            config: schema::<T>,
            secret_fields: T::SECRET_FIELDS,
            code_fields: &[],
            only_read: |_| None,
            not_updated: |_| None,
            max_batch: usize::MAX,
            check: check_kind::<T>,
        },
        open: |settings, cx| Ok(Arc::new(decode::<T>(settings)?.open(cx)?)),
        identity: identity::<T>,
        place: |client| client.downcast_ref::<T::Client>().map(T::place).unwrap_or_default(),
        content: content::<T>,
        only_read: |client| {
            if let Some(client) = client.downcast_ref::<T::Client>() {
                T::only_read(client);
            }
        },
    }
}

/// A collection kind: the type is its settings beside `type`.
pub trait CollectionKind: DeserializeOwned + JsonSchema + Sized + 'static {
    /// Its name, kebab-case.
    const NAME: &'static str;
    /// One line on what it is for.
    const SUMMARY: &'static str;

    /// JSON pointers in the settings that are code of another language.
    const CODE_FIELDS: &'static [&'static str] = &[];

    /// The most keys that it deletes, puts or changes at once.
    const MAX_BATCH: usize;

    /// What is wrong with settings as authored beyond what their types say.
    fn problems(settings: &Value) -> Vec<SettingProblem> {
        let _ = settings;
        Vec::new()
    }

    /// Where its items can not be deleted: what to write instead. From its settings as authored.
    fn only_read(settings: &Value) -> Option<&'static str> {
        let _ = settings;
        None
    }

    /// Where no field of its items can be set: what to write instead. From its settings as authored.
    fn not_updated(settings: &Value) -> Option<&'static str> {
        let _ = settings;
        Some("only rows of a `table` of a collection of type `sql-rows` can be changed")
    }

    /// Makes the collection on its connection. No I/O happens here.
    fn open(self, name: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError>;
}

/// A collection kind in the catalog.
#[derive(Clone, Copy)]
pub struct CollectionEntry {
    /// What the engine knows of it.
    pub info: ResourceKindInfo,
    /// Makes a collection from resolved settings.
    pub open: fn(Value, &str, &Resources) -> Opened<dyn Collection>,
}

fn check_collection<T: CollectionKind>(settings: &Value) -> Vec<SettingProblem> {
    let mut found = check_kind::<T>(settings);
    found.extend(T::problems(settings));
    found
}

/// The catalog entry of a collection kind.
pub const fn collection<T: CollectionKind>() -> CollectionEntry {
    CollectionEntry {
        info: ResourceKindInfo {
            name: T::NAME,
            summary: T::SUMMARY,
            config: schema::<T>,
            secret_fields: &[],
            code_fields: T::CODE_FIELDS,
            only_read: T::only_read,
            not_updated: T::not_updated,
            max_batch: T::MAX_BATCH,
            check: check_collection::<T>,
        },
        open: |settings, name, resources| decode::<T>(settings)?.open(name, resources),
    }
}
